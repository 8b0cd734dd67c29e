//! The two implementations of the traits in [`contract`](super::contract), and what both have to do.

pub mod memory;
pub(crate) mod sled;
#[cfg(test)]
mod suite;
