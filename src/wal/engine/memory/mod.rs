//! The log's twin in memory, with the faults of a disk, for tests and simulations.
//!
//! It tells what the process sees from what is on the disk, see `disk`. A process that ends without a
//! power cut is played by dropping the log and opening it again on a clone of the storage.

mod disk;
mod faults;
mod generation;
mod storage;

pub use storage::MemoryStorage;
