//! The commands beside the service itself.

pub mod health;
pub mod mapping;
pub mod schema;
pub mod wal;
