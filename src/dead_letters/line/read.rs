//! Lines as they are read back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::object::{HEAD, Object, REMOVED};
use crate::base::time::Timestamp;
use crate::dead_letters::letter::DeadLetter;
use crate::telemetry::rejection::Stage;

/// A line that was read back.
pub(in crate::dead_letters) struct Line<'l> {
    object: Object<'l>,
    /// Of each part, if there are several.
    flags: &'l [u8],
    /// Where the flags begin in the line.
    flags_at: usize,
    is_removed: bool,
}

impl<'l> Line<'l> {
    /// `None` if it is damaged.
    pub(in crate::dead_letters) fn read(line: &'l [u8]) -> Option<Self> {
        let (sum, rest) = line.trim_ascii_end().split_at_checked(HEAD)?;
        let end = memchr::memrchr(b'}', rest)? + 1;
        let (json, flags) = rest.split_at(end);
        let expected = format!("{:08x} ", crc32fast::hash(json));
        let is_removed = sum.first() == Some(&REMOVED);
        let from = usize::from(is_removed);
        if sum.get(from..) != expected.as_bytes().get(from..) {
            return None;
        }
        let object = serde_json::from_slice(json).ok()?;
        let blank = flags.len() - flags.trim_ascii_start().len();
        let flags_at = HEAD + end + blank;
        Some(Self { object, flags: &flags[blank..], flags_at, is_removed })
    }

    /// The letter that it says is removed, if that is what it says.
    pub(in crate::dead_letters) fn removes(&self) -> Option<u64> {
        if let Object::Removed { removed } = self.object { Some(removed) } else { None }
    }

    /// The id of its first letter, how many there are, and the stage of the first.
    pub(in crate::dead_letters) fn letters(&self) -> Option<(u64, u8, Stage)> {
        match &self.object {
            Object::Letter(letter) => Some((letter.id, 1, stage(&letter.stage))),
            Object::Message(message) => {
                let first = message.reasons.first().map_or("", |(stage, _)| stage);
                Some((message.first_id, u8::try_from(message.parts.len()).ok()?, stage(first)))
            }
            Object::Removed { .. } => None,
        }
    }

    /// How many letters are there still.
    pub(in crate::dead_letters) fn live(&self) -> u8 {
        self.letters().map_or(0, |(_, count, _)| {
            (0..count).map(|part| u8::from(!self.is_removed(part))).sum()
        })
    }

    /// Whether the letter that is its part `part` was removed.
    pub(in crate::dead_letters) fn is_removed(&self, part: u8) -> bool {
        match &self.object {
            Object::Message(_) => self.flags.get(usize::from(part)) == Some(&REMOVED),
            _ => self.is_removed,
        }
    }

    /// Where in the line to write [`REMOVED`] so that this letter is.
    pub(in crate::dead_letters) fn flag_of(&self, part: u8) -> usize {
        match &self.object {
            Object::Message(_) => self.flags_at + usize::from(part),
            _ => 0,
        }
    }

    /// The letter that is its part `part`; `None` if there is no such part.
    pub(in crate::dead_letters) fn letter(&self, part: u8) -> Option<DeadLetter> {
        let received_at = |micros| Timestamp::from_micros(micros).unwrap_or(Timestamp::UNIX_EPOCH);
        match &self.object {
            Object::Letter(letter) => Some(DeadLetter {
                id: letter.id,
                received_at: received_at(letter.received_at_micros),
                topic: letter.topic.clone().into_owned(),
                stage: letter.stage.clone().into_owned(),
                reason: letter.reason.clone().into_owned(),
                payload: BASE64.decode(&*letter.payload).ok()?,
            }),
            Object::Message(message) => {
                let (start, end, reason) = *message.parts.get(usize::from(part))?;
                let (stage, reason) = message.reasons.get(reason)?;
                Some(DeadLetter {
                    id: message.first_id + u64::from(part),
                    received_at: received_at(message.received_at_micros),
                    topic: message.topic.clone().into_owned(),
                    stage: stage.clone().into_owned(),
                    reason: reason.clone().into_owned(),
                    payload: BASE64.decode(&*message.payload).ok()?.get(start..end)?.to_vec(),
                })
            }
            Object::Removed { .. } => None,
        }
    }
}

/// What this version does not know is kept like what is never dropped.
fn stage(name: &str) -> Stage {
    Stage::ALL.into_iter().find(|stage| stage.as_str() == name).unwrap_or(Stage::Database)
}
