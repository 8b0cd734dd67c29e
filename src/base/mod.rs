//! What every room stands on, and what knows none of them.

pub(crate) mod activity;
pub mod metrics;
pub(crate) mod number;
pub mod output;
mod process;
#[cfg(test)]
pub(crate) mod properties;
pub(crate) mod retry;
pub mod settings;
pub mod signals;
pub(crate) mod text;
pub mod time;
