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

pub use ask::{Ask, Key};
pub use certain::{Recent, RecentError};
pub use devices::{DevicesAsk, LastRow};
pub use gather::{LogRow, RowValues};
pub use scan::{Found, LogPart, Unread};
pub(crate) use settings::SETTINGS;
pub use settings::Settings;
pub use silence::Silence;
