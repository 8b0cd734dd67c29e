//! What was received lately, from the log: readings that the database does not have yet, or that it cannot
//! be asked for.
//!
//! - `ask`: which readings are wanted.
//! - `gather`: keeps the newest of those that match, each device and time once, and counts them. Pure.
//! - `scan`: reads the log for it, the part with the newest times first, within bounds of time and memory.
//! - `certain`: from when on the log has everything.
//! - `devices`: the last value of each device.
//! - `silence`: which devices are silent. Pure; as `settings` has it.

mod ask;
mod certain;
mod devices;
mod gather;
mod scan;
mod settings;
mod silence;

pub(crate) use ask::Ask;
#[cfg(test)]
pub(crate) use ask::Key;
pub(crate) use certain::{Recent, RecentError};
pub(crate) use devices::{DevicesAsk, LastRow};
pub(crate) use gather::{LogRow, RowValues};
pub(crate) use scan::{Found, LogPart, Unread};
pub(crate) use settings::SETTINGS;
pub(crate) use settings::Settings;
pub(crate) use silence::Silence;
