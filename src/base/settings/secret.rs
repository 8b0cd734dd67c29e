//! Values that nobody is to see.

use std::fmt;
use std::path::Path;

/// A value that must not appear in a log or an error.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// Wraps `value`.
    pub(crate) fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// What stands in a file, less its last line break.
    ///
    /// # Errors
    /// A sentence, if it cannot be read or is empty.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let secret = text.strip_suffix('\n').unwrap_or(&text);
        let secret = secret.strip_suffix('\r').unwrap_or(secret);
        if secret.is_empty() {
            return Err(format!("{} is empty", path.display()));
        }
        Ok(Self::new(secret))
    }

    /// The value itself, for the one call that needs it.
    #[must_use]
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// What stands for it where settings are shown; nothing if it is empty.
    #[must_use]
    pub(crate) fn redacted(&self) -> String {
        if self.0.is_empty() { String::new() } else { "***".to_owned() }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
