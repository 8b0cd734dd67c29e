//! The write-ahead log: the seam between MQTT and PostgreSQL.
//!
//! One word per meaning: *commit* makes records durable, *flush* moves them to PostgreSQL, *trim*
//! deletes flushed records. At all times
//!
//! ```text
//! next ≥ committed ≥ flushed ≥ trimmed
//! ```
//!
//! Layers, from the bytes up: [`frame`] (what is stored), [`contract`] (the trait pair), [`engine`] (its
//! two implementations, sled and memory), `scan` (reading what an earlier process or generation left
//! behind), [`log`] (offsets, rotation, order). Beside them, [`inspect`] looks into a log that no process
//! uses.
//!
//! What `commit` returning `Ok` means: every record appended before it survives a power cut. What
//! an error means: nothing may be acknowledged, and the log takes nothing more in this process,
//! because after a failed fsync no one knows what is on the disk but a fresh open.

mod body;
pub mod contract;
pub mod engine;
mod error;
pub mod frame;
pub mod inspect;
pub mod log;
#[cfg(test)]
mod model_tests;
mod scan;
mod settings;
mod tail;

pub use contract::Quarantined;
pub use engine::sled::SledStorage;
pub use error::WalError;

pub use frame::{Block, Offset, OffsetRange};
pub use log::{Batch, Limits, Log, Room, Writer};
pub use settings::Settings;
