//! The flusher: moves the log into PostgreSQL, batch by batch, and never gives up.
//!
//! [`plan`] decides, [`driver`] does what it says, against the log, the dead letters and a [`sink`];
//! [`control`] is others' handle on it.

pub(crate) mod control;
pub(crate) mod driver;
pub mod plan;
mod settings;
pub mod sink;
mod work;

pub(crate) use control::{Control, State, Status};
pub(crate) use driver::{Flusher, Parts};
pub(crate) use settings::SETTINGS;
pub use settings::Settings;
