//! What can be set: a line each of the tables that the rooms have.

use std::borrow::Cow;
use std::fmt::Write as _;

/// What a setting is called, what it is if nobody sets it, and what it means: the one table of a room
/// that help, README and examples are checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// As the environment has it; `Rocket.toml` has it in lower case.
    pub name: &'static str,
    /// As it would be written; empty if there is none.
    pub default: Cow<'static, str>,
    /// In a few words, without a full stop.
    pub(crate) meaning: Cow<'static, str>,
    /// Whether `<name>_FILE` may name a file that holds it.
    pub(crate) is_secret: bool,
}

impl Setting {
    /// One that may be seen.
    #[must_use]
    pub(crate) const fn new(
        name: &'static str,
        default: &'static str,
        meaning: &'static str,
    ) -> Self {
        let (default, meaning) = (Cow::Borrowed(default), Cow::Borrowed(meaning));
        Self { name, default, meaning, is_secret: false }
    }

    /// One that may not, and that a file can hold.
    #[must_use]
    pub(crate) const fn secret(
        name: &'static str,
        default: &'static str,
        meaning: &'static str,
    ) -> Self {
        let (default, meaning) = (Cow::Borrowed(default), Cow::Borrowed(meaning));
        Self { name, default, meaning, is_secret: true }
    }
}

/// A line for each of `settings`, for `--help`.
#[must_use]
pub fn help<'s>(settings: impl IntoIterator<Item = &'s Setting>) -> String {
    let mut text = String::new();
    for Setting { name, default, meaning, is_secret } in settings {
        let default = if default.is_empty() { String::new() } else { format!(" [{default}]") };
        let file = if *is_secret { format!("; or {name}_FILE") } else { String::new() };
        // Writing to a string does not fail.
        writeln!(text, "  {name:<30}{meaning}{file}{default}").ok();
    }
    text
}
