//! What a line holds, as JSON.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// What a removed letter is marked with.
pub(in crate::dead_letters) const REMOVED: u8 = b'x';

/// Digits of the checksum, and the space behind it.
pub(super) const HEAD: usize = 9;

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Object<'l> {
    Letter(#[serde(borrow)] Letter<'l>),
    Message(#[serde(borrow)] Message<'l>),
    Removed { removed: u64 },
}

#[derive(Serialize, Deserialize)]
pub(super) struct Letter<'l> {
    pub(super) id: u64,
    pub(super) received_at_micros: i64,
    pub(super) topic: Cow<'l, str>,
    pub(super) stage: Cow<'l, str>,
    pub(super) reason: Cow<'l, str>,
    pub(super) payload: Cow<'l, str>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Message<'l> {
    pub(super) first_id: u64,
    pub(super) received_at_micros: i64,
    pub(super) topic: Cow<'l, str>,
    pub(super) reasons: Vec<(Cow<'l, str>, Cow<'l, str>)>,
    /// From, to, and index of the reason.
    pub(super) parts: Vec<(usize, usize, usize)>,
    pub(super) payload: Cow<'l, str>,
}
