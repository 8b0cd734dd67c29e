//! The write-ahead log: the seam between MQTT and PostgreSQL.
//!
//! One word per meaning: *commit* makes records durable, *flush* moves them to PostgreSQL, *trim*
//! deletes flushed records. At all times
//!
//! ```text
//! next ≥ committed ≥ flushed ≥ trimmed
//! ```
//!
//! Layers, from the bytes up: [`frame`] (what is stored), [`contract`] (the traits of a store of
//! generations), `directory` (what is on disk beside the blocks), `raw` (the frames in the file of a
//! generation that nobody writes to), `recovery` (what an earlier process left behind: how far it had
//! come, and what is lost), [`engine`] (two stores, sled and memory), [`log`] (offsets, rotation, order).
//! Beside them, [`inspect`] looks into a log that no process uses.
//!
//! What `commit` returning `Ok` means: every record appended before it survives a power cut. What
//! an error means: nothing may be acknowledged, and the log takes nothing more in this process,
//! because after a failed fsync no one knows what is on the disk but a fresh open.

mod body;
pub mod contract;
mod directory;
pub mod engine;
mod error;
mod found;
pub mod frame;
mod index;
pub(crate) mod inspect;
pub mod log;
#[cfg(test)]
mod model_tests;
mod offset;
mod raw;
mod receipt;
mod recovery;
mod settings;
mod tail;

pub(crate) use contract::Quarantined;
pub(crate) use directory::LOCK;
pub use engine::sled::SledStorage;
pub use error::WalError;
pub use frame::Block;
pub(crate) use log::{Batch, Rewound};
pub use log::{LeftReceipts, Limits, Log, Room, Writer};
pub use offset::{Offset, OffsetRange};
pub(crate) use receipt::NO_PACKET;
pub use receipt::Receipt;
pub(crate) use settings::{SETTINGS, Settings};
