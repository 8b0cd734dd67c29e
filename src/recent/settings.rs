//! When devices count as silent.

use crate::base::settings::{Setting, Sources};
use crate::telemetry::mapping::SILENT_AFTER_MAX_SECS;

/// What can be set here, and what holds if it is not.
pub(crate) const SETTINGS: &[Setting] = &[Setting::new(
    "SILENT_AFTER_SECS",
    "",
    "seconds without a reading after which a device counts as silent; `silent_after` of a mapping goes before it; unset: none does",
)];

/// When devices count as silent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// After so many seconds; `None`: never.
    pub(crate) silent_after: Option<u32>,
}

impl Settings {
    /// Reads them.
    #[must_use]
    pub(crate) fn read(from: &mut Sources) -> Self {
        Self { silent_after: from.optional_number("SILENT_AFTER_SECS", 1..=SILENT_AFTER_MAX_SECS) }
    }

    /// Every setting as name and value.
    #[must_use]
    pub(crate) fn describe(&self) -> Vec<(&'static str, String)> {
        let seconds = self.silent_after.map_or(String::new(), |seconds| seconds.to_string());
        vec![("SILENT_AFTER_SECS", seconds)]
    }
}
