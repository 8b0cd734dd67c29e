//! What goes into the store and what comes out of it.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use crate::base::time::Timestamp;
use crate::telemetry::rejection::{SENTENCE_MAX_BYTES, Stage};

/// Longest part of a payload that is kept, in bytes.
pub(crate) const PAYLOAD_MAX_BYTES: usize = 64 * 1024;

/// Longest part of a topic that is kept, in bytes.
pub(crate) const TOPIC_MAX_BYTES: usize = 256;

/// Longest part of a reason that is kept, in bytes.
pub(crate) const REASON_MAX_BYTES: usize = SENTENCE_MAX_BYTES;

/// A reading on its way into the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewDeadLetter<'p> {
    /// When its message was received.
    pub(crate) received_at: Timestamp,
    /// Where it was published; empty if that is no longer known. Cut off after [`TOPIC_MAX_BYTES`].
    pub topic: &'p str,
    /// Who turned it away.
    pub(crate) stage: Stage,
    /// Why, in a sentence. Cut off after [`REASON_MAX_BYTES`].
    pub(crate) reason: String,
    /// The bytes as published; cut off after [`PAYLOAD_MAX_BYTES`].
    pub(crate) payload: &'p [u8],
    /// Whether no mapping takes it, so that it goes before the others do.
    pub(crate) is_unmatched: bool,
}

/// What was rejected of one message, on its way into the store: a letter for each part.
#[derive(Clone, Copy, Debug)]
pub struct RejectedMessage<'p> {
    /// When it was received.
    pub(crate) received_at: Timestamp,
    /// Where it was published. Cut off after [`TOPIC_MAX_BYTES`].
    pub topic: &'p str,
    /// All of it, as published.
    pub(crate) payload: &'p [u8],
    /// What was rejected, at most [`u8::MAX`] parts.
    pub parts: &'p [RejectedPart],
    /// Whether no mapping takes it, so that it goes before the others do.
    pub(crate) is_unmatched: bool,
}

/// A part of a message that was rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedPart {
    /// Where it stands in the payload.
    pub(crate) range: Range<usize>,
    /// Who turned it away.
    pub(crate) stage: Stage,
    /// Why, in a sentence. Cut off after [`REASON_MAX_BYTES`].
    pub(crate) reason: String,
}

/// A letter in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    /// Its number.
    pub(crate) id: u64,
    /// When its message was received.
    pub(crate) received_at: Timestamp,
    /// Where it was published; empty if that is no longer known.
    pub(crate) topic: String,
    /// Who turned it away, as [`Stage::as_str`] has it.
    pub(crate) stage: String,
    /// Why, in a sentence.
    pub(crate) reason: String,
    /// The bytes as published, up to [`PAYLOAD_MAX_BYTES`].
    pub(crate) payload: Vec<u8>,
}

/// Some letters, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// The letters.
    pub(crate) letters: Vec<DeadLetter>,
    /// How many the store holds in all.
    pub(crate) total: u64,
    /// The id to pass as `after` for the next page; `None` at the end.
    pub(crate) next: Option<u64>,
}

/// How full the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fill {
    /// Bytes on disk.
    pub(crate) bytes: u64,
    /// Bytes past which the oldest letters go that were not acknowledged readings.
    pub(crate) max_bytes: u64,
    /// Bytes that letters of stage `database` keep, which never go by themselves.
    pub(crate) kept_bytes: u64,
    /// Bytes past which the store takes no more of those.
    pub(crate) max_kept_bytes: u64,
}

/// What can go wrong with the store; the caller must not acknowledge the message.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// The letters of stage `database` take all the room that they may. The row stays in the log and
    /// the caller tries again: letters may be replayed or deleted meanwhile.
    #[error(
        "the dead-letter store has no room for more rows that the database refuses: they are acknowledged readings and are never dropped; replay or delete dead letters, or raise DEAD_LETTER_MAX_BYTES"
    )]
    Full,
    /// A file of the store cannot be read, also when it is tried again: the caller ends the process in order.
    #[error(
        "cannot read {}, though it was tried several times: {source}; look after the disk (the kernel's log says more), or move the file, and the letters in it, out of the store", path.display()
    )]
    Unread {
        /// The file.
        path: PathBuf,
        /// How the last attempt failed.
        source: io::Error,
    },
    /// The disk failed, or is full ([`Self::is_disk_full`]). Unless it is full, whoever wanted to store letters
    /// ends the process in order. Whoever wanted to read or remove some only says so: a removal that may not be
    /// durable is told by [`DeadLetters::failed`](super::DeadLetters::failed), too.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// How it failed.
        source: io::Error,
    },
}

impl DeadLetterError {
    /// That the store cannot be opened.
    pub(super) fn of_opening(source: io::Error) -> Self {
        Self::Io { what: "open the dead-letter store", source }
    }

    /// Whether the filesystem had no space left, which may pass.
    #[must_use]
    pub(crate) fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_disk_full(source))
    }

    /// Whether the store itself takes no more letters of stage `database` ([`Self::Full`]).
    #[must_use]
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Full)
    }
}

pub(super) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
