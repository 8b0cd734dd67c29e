//! The two implementations of the traits in [`contract`](super::contract).

pub mod memory;
pub mod sled;
