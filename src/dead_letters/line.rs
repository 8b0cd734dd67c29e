//! One line of a segment: a CRC-32 in hex, a space, a JSON object, a line feed. The object is one of
//!
//! - a letter: `{"id","received_at_micros","topic","stage","reason","payload"}`;
//! - the letters of one message, where that is shorter: `{"first_id","received_at_micros","topic",
//!   "reasons":[[stage, reason]],"parts":[[start, end, reason]],"payload"}`, with the payload once, and
//!   behind the object a space and a dot for each part;
//! - `{"removed":id}`, which earlier versions wrote.
//!
//! A payload is base64, since it may be anything. A letter is removed by one byte that is written over,
//! which needs no space on a full disk: the dot of its part becomes an `x`; where a line is one letter,
//! the first digit of its checksum does.

use std::borrow::Cow;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::letter::{
    DeadLetter, NewDeadLetter, PAYLOAD_MAX_BYTES, REASON_MAX_BYTES, RejectedMessage, RejectedPart,
    TOPIC_MAX_BYTES,
};
use crate::base::time::Timestamp;
use crate::telemetry::rejection::Stage;

/// What a removed letter is marked with.
pub(super) const REMOVED: u8 = b'x';

/// Digits of the checksum, and the space behind it.
const HEAD: usize = 9;

/// A line without topic, reasons and payload takes about so many bytes.
const LETTER_BYTES: usize = 130;

/// A part in a line of several takes about so many.
const PART_BYTES: usize = 18;

/// What becomes one line.
pub(super) enum Entry<'p> {
    Letter(NewDeadLetter<'p>),
    Message(RejectedMessage<'p>),
}

impl<'p> Entry<'p> {
    /// The lines that a message makes: one for all its parts if that is shorter.
    pub(super) fn of(message: RejectedMessage<'p>) -> Vec<Self> {
        let RejectedMessage { received_at, topic, payload, parts, is_unmatched } = message;
        let alone = |part: &RejectedPart| {
            LETTER_BYTES
                + topic.len().min(TOPIC_MAX_BYTES)
                + part.reason.len()
                + part.range.len() * 4 / 3
        };
        let reasons: usize = distinct(parts).iter().map(|part| part.reason.len()).sum();
        let together = LETTER_BYTES
            + topic.len().min(TOPIC_MAX_BYTES)
            + payload.len() * 4 / 3
            + parts.len() * PART_BYTES
            + reasons;
        let each: usize = parts.iter().map(alone).sum();
        if payload.len() <= PAYLOAD_MAX_BYTES && parts.len() > 1 && together < each {
            return vec![Self::Message(message)];
        }
        let letter = |part: &RejectedPart| {
            let payload = payload.get(part.range.clone()).unwrap_or(payload);
            let RejectedPart { stage, ref reason, .. } = *part;
            Self::Letter(NewDeadLetter {
                received_at,
                topic,
                stage,
                reason: reason.clone(),
                payload,
                is_unmatched,
            })
        };
        parts.iter().map(letter).collect()
    }

    /// How many letters it is.
    pub(super) fn count(&self) -> u8 {
        match self {
            Self::Letter(_) => 1,
            Self::Message(message) => u8::try_from(message.parts.len()).unwrap_or(u8::MAX),
        }
    }

    /// The stage of its first letter.
    pub(super) fn stage(&self) -> Stage {
        match self {
            Self::Letter(letter) => letter.stage,
            Self::Message(message) => {
                message.parts.first().map_or(Stage::Decode, |part| part.stage)
            }
        }
    }

    /// Whether no mapping takes it.
    pub(super) fn is_unmatched(&self) -> bool {
        match self {
            Self::Letter(letter) => letter.is_unmatched,
            Self::Message(message) => message.is_unmatched,
        }
    }

    /// The stage of each of its letters.
    pub(super) fn stages(&self) -> Vec<Stage> {
        match self {
            Self::Letter(letter) => vec![letter.stage],
            Self::Message(message) => message.parts.iter().map(|part| part.stage).collect(),
        }
    }

    /// Its line, if its first letter has the id `first_id`.
    pub(super) fn line(&self, first_id: u64) -> io::Result<Vec<u8>> {
        let (object, flags) = match self {
            Self::Letter(letter) => (Object::Letter(Letter::new(first_id, letter)), 0),
            Self::Message(message) => {
                (Object::Message(Message::new(first_id, message)), message.parts.len())
            }
        };
        let json = serde_json::to_vec(&object)?;
        let mut line = Vec::with_capacity(HEAD + json.len() + flags + 2);
        write!(line, "{:08x} ", crc32fast::hash(&json))?;
        line.extend_from_slice(&json);
        if flags > 0 {
            line.push(b' ');
            line.resize(line.len() + flags, b'.');
        }
        line.push(b'\n');
        Ok(line)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Object<'l> {
    Letter(#[serde(borrow)] Letter<'l>),
    Message(#[serde(borrow)] Message<'l>),
    Removed { removed: u64 },
}

#[derive(Serialize, Deserialize)]
struct Letter<'l> {
    id: u64,
    received_at_micros: i64,
    topic: Cow<'l, str>,
    stage: Cow<'l, str>,
    reason: Cow<'l, str>,
    payload: Cow<'l, str>,
}

#[derive(Serialize, Deserialize)]
struct Message<'l> {
    first_id: u64,
    received_at_micros: i64,
    topic: Cow<'l, str>,
    reasons: Vec<(Cow<'l, str>, Cow<'l, str>)>,
    /// From, to, and index of the reason.
    parts: Vec<(usize, usize, usize)>,
    payload: Cow<'l, str>,
}

impl<'l> Letter<'l> {
    fn new(id: u64, letter: &'l NewDeadLetter<'_>) -> Self {
        let kept = letter.payload.len().min(PAYLOAD_MAX_BYTES);
        Self {
            id,
            received_at_micros: letter.received_at.as_micros(),
            topic: cut(letter.topic, TOPIC_MAX_BYTES),
            stage: letter.stage.as_str().into(),
            reason: cut(&letter.reason, REASON_MAX_BYTES),
            payload: BASE64.encode(&letter.payload[..kept]).into(),
        }
    }
}

impl<'l> Message<'l> {
    fn new(first_id: u64, message: &RejectedMessage<'l>) -> Self {
        let reasons = distinct(message.parts);
        let reason_of = |part: &RejectedPart| {
            let is_same = |other: &&RejectedPart| is_same_reason(other, part);
            reasons.iter().position(is_same).unwrap_or_default()
        };
        let part = |part: &RejectedPart| (part.range.start, part.range.end, reason_of(part));
        let reason = |part: &&'l RejectedPart| {
            (part.stage.as_str().into(), cut(&part.reason, REASON_MAX_BYTES))
        };
        Self {
            first_id,
            received_at_micros: message.received_at.as_micros(),
            topic: cut(message.topic, TOPIC_MAX_BYTES),
            parts: message.parts.iter().map(part).collect(),
            reasons: reasons.iter().map(reason).collect(),
            payload: BASE64.encode(message.payload).into(),
        }
    }
}

fn is_same_reason(a: &RejectedPart, b: &RejectedPart) -> bool {
    a.stage == b.stage && a.reason == b.reason
}

/// The first part of each reason; there are a hundred at most.
fn distinct(parts: &[RejectedPart]) -> Vec<&RejectedPart> {
    let mut distinct: Vec<&RejectedPart> = Vec::new();
    for part in parts {
        if !distinct.iter().any(|other| is_same_reason(other, part)) {
            distinct.push(part);
        }
    }
    distinct
}

/// `text`, or its start with an ellipsis.
fn cut(text: &str, max_bytes: usize) -> Cow<'_, str> {
    if text.len() <= max_bytes {
        return text.into();
    }
    let most = max_bytes - '…'.len_utf8();
    let ends = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= most);
    format!("{}…", &text[..ends.last().unwrap_or_default()]).into()
}

/// A line that was read back.
pub(super) struct Line<'l> {
    object: Object<'l>,
    /// Of each part, if there are several.
    flags: &'l [u8],
    /// Where the flags begin in the line.
    flags_at: usize,
    is_removed: bool,
}

impl<'l> Line<'l> {
    /// `None` if it is damaged.
    pub(super) fn read(line: &'l [u8]) -> Option<Self> {
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
    pub(super) fn removes(&self) -> Option<u64> {
        if let Object::Removed { removed } = self.object { Some(removed) } else { None }
    }

    /// The id of its first letter, how many there are, and the stage of the first.
    pub(super) fn letters(&self) -> Option<(u64, u8, Stage)> {
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
    pub(super) fn live(&self) -> u8 {
        self.letters().map_or(0, |(_, count, _)| {
            (0..count).map(|part| u8::from(!self.is_removed(part))).sum()
        })
    }

    /// Whether the letter that is its part `part` was removed.
    pub(super) fn is_removed(&self, part: u8) -> bool {
        match &self.object {
            Object::Message(_) => self.flags.get(usize::from(part)) == Some(&REMOVED),
            _ => self.is_removed,
        }
    }

    /// Where in the line to write [`REMOVED`] so that this letter is.
    pub(super) fn flag_of(&self, part: u8) -> usize {
        match &self.object {
            Object::Message(_) => self.flags_at + usize::from(part),
            _ => 0,
        }
    }

    /// The letter that is its part `part`; `None` if there is no such part.
    pub(super) fn letter(&self, part: u8) -> Option<DeadLetter> {
        let received_at = |micros| Timestamp::from_micros(micros).unwrap_or_else(Timestamp::now);
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
