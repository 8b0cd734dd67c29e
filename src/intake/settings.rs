//! How much may wait for the intake.

use crate::base::settings::{Setting, Sources};

/// What can be set here, and what holds if it is not.
pub(crate) const SETTINGS: &[Setting] =
    &[Setting::new("CHANNEL_SIZE", "50000", "messages held in memory before the log")];

/// How much may wait for the intake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Deliveries held in memory between MQTT and the log.
    pub(crate) channel_size: usize,
}

impl Settings {
    /// Reads them.
    #[must_use]
    pub(crate) fn read(from: &mut Sources) -> Self {
        Self { channel_size: from.number("CHANNEL_SIZE", 50_000, 1..=10_000_000) }
    }

    /// Every setting as name and value.
    #[must_use]
    pub(crate) fn describe(&self) -> Vec<(&'static str, String)> {
        vec![("CHANNEL_SIZE", self.channel_size.to_string())]
    }
}
