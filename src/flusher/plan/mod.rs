//! What to send to the database, when, and what an outcome means: decides, and does nothing.
//!
//! A [`Plan`] takes an [`Event`] and the time, and returns [`Command`]s; it has no clock, no I/O and no
//! randomness of its own, so the same events give the same commands. The driver carries them out, and
//! so does the simulation.
//!
//! Batches are ranges of offsets. A few are in flight at once and may end in any order; the log is
//! trimmed up to where they have ended without a gap. What the database cannot take now is sent again
//! after a pause, without end; the first success after a failure is sent alone, as a probe. A
//! statement that is refused is halved down to the row, and whose fault that is says the `breaker`. A
//! statement that was too slow halves the size of those after it. What a database that went back has lost
//! is sent again, see `resend`.

mod batch;
mod breaker;
mod choose;
mod decide;
mod event;
mod learn;
mod pace;
mod resend;
mod state;
#[cfg(test)]
mod tests;
mod window;

pub use event::{Accepted, BatchId, Command, Event, Lettered, Report};
pub use state::Plan;
