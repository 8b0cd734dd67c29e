//! Decides what the connection to the broker does: when there is one, what is asked of the broker,
//! what is handed to the intake, and what is acknowledged and when. No I/O, no clock, no randomness
//! but what it is given: [`Session::on`] takes what has happened and says what is to be done.
//!
//! **Acks.** A packet id belongs to one connection: after a reconnect the broker uses it again, for
//! another message. A PUBACK that was meant for the old connection would acknowledge a message
//! that nobody stored. So what is forwarded carries the *epoch* of its connection, and a
//! settlement of another epoch than the present one is passed over: the broker delivers that
//! message again. Answers leave in the order of receipt. If a delivery was given up, nothing behind
//! it is acknowledged and the connection is left, because the broker delivers again only on another.
//!
//! **Being away.** While the log is full we stay away from the broker: its persistent session is the
//! overflow. The same while the clock is plainly wrong, if messages get the time of their arrival. A connection that broke is tried again after pauses that grow; one that worked starts
//! them over.
//!
//! **Stopping.** Nothing more is forwarded, but what was is still acknowledged: the connection is
//! left when the intake has settled all it was given.

mod away;
mod decide;
mod deliver;
mod exactly_once;
mod exchange;
mod filters;
mod link;
mod order;
mod state;
mod subscribing;
#[cfg(test)]
mod tests;

pub(super) use exchange::earlier;
pub(crate) use exchange::{Change, State};
pub use exchange::{Command, Event, Loss};
pub use filters::Filters;
pub(crate) use filters::SHARED;
pub(crate) use link::KEEP_ALIVE;
pub use state::{Session, Terms};
