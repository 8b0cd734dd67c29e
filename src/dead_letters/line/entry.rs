//! Lines as they are written.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::object::{HEAD, Letter, Message, Object};
use crate::base::text::cut;
use crate::dead_letters::letter::{
    NewDeadLetter, PAYLOAD_MAX_BYTES, REASON_MAX_BYTES, RejectedMessage, RejectedPart,
    TOPIC_MAX_BYTES,
};
use crate::telemetry::rejection::Stage;

/// A line without topic, reasons and payload takes about so many bytes.
const LETTER_BYTES: usize = 130;

/// A part in a line of several takes about so many.
const PART_BYTES: usize = 18;

/// What becomes one line.
pub(in crate::dead_letters) enum Entry<'p> {
    Letter(NewDeadLetter<'p>),
    Message(RejectedMessage<'p>),
}

impl<'p> Entry<'p> {
    /// The lines that a message makes: one for all its parts if that is shorter.
    pub(in crate::dead_letters) fn of(message: RejectedMessage<'p>) -> Vec<Self> {
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
    pub(in crate::dead_letters) fn count(&self) -> u8 {
        match self {
            Self::Letter(_) => 1,
            Self::Message(message) => u8::try_from(message.parts.len()).unwrap_or(u8::MAX),
        }
    }

    /// The stage of its first letter.
    pub(in crate::dead_letters) fn stage(&self) -> Stage {
        match self {
            Self::Letter(letter) => letter.stage,
            Self::Message(message) => {
                message.parts.first().map_or(Stage::Decode, |part| part.stage)
            }
        }
    }

    /// Whether no mapping takes it.
    pub(in crate::dead_letters) fn is_unmatched(&self) -> bool {
        match self {
            Self::Letter(letter) => letter.is_unmatched,
            Self::Message(message) => message.is_unmatched,
        }
    }

    /// The stage of each of its letters.
    pub(in crate::dead_letters) fn stages(&self) -> Vec<Stage> {
        match self {
            Self::Letter(letter) => vec![letter.stage],
            Self::Message(message) => message.parts.iter().map(|part| part.stage).collect(),
        }
    }

    /// Its line, if its first letter has the id `first_id`.
    pub(in crate::dead_letters) fn line(&self, first_id: u64) -> io::Result<Vec<u8>> {
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
