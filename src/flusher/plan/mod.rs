//! What to send to the database, when, and what a failure means: decides, and does nothing.

mod event;

pub use event::{Accepted, BatchId, Command, Event, Lettered, Report};
