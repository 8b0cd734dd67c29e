//! What was received lately, from the log: readings that the database does not have yet, or that it cannot
//! be asked for.
//!
//! - `ask`: which readings are wanted.
//! - `gather`: keeps the newest of those that match, each device and time once, and counts them. Pure.
//! - `scan`: reads the log for it, the part with the newest times first, within bounds of time and memory.
//! - `certain`: from when on the log has everything.
//! - `devices`: the last value of each device.

mod ask;
mod certain;
mod devices;
mod gather;
mod scan;

pub use ask::{Ask, Key};
pub use certain::Recent;
pub use devices::DevicesAsk;
pub use gather::{LogRow, RowValues};
pub use scan::{Found, From};
