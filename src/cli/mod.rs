//! The commands beside the service itself.

pub mod health;
pub mod wal;
