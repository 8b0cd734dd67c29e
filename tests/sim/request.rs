//! What the flusher has under way.

use std::time::Duration;

use iot_ingestor::flusher::plan::{BatchId, Event, Lettered};
use iot_ingestor::flusher::sink::SinkError;
use iot_ingestor::wal::Offset;

use crate::database::Row;

/// Something that was asked for, and its answer once there is one.
pub(crate) struct Request {
    pub(crate) what: What,
    pub(crate) sent_at: Duration,
    pub(crate) limit: Duration,
    pub(crate) answer: Option<Event>,
}

impl Request {
    /// When it has taken too long; the disk is waited for.
    pub(crate) fn expires_at(&self) -> Option<Duration> {
        self.what.is_remote().then(|| self.sent_at.saturating_add(self.limit))
    }
}

/// What was asked for.
pub(crate) enum What {
    Prepare,
    Ping,
    Rewind,
    Insert {
        batch: BatchId,
        all_to: Offset,
        rows: Vec<Row>,
    },
    Letter {
        batch: BatchId,
        rows: Vec<Row>,
    },
    /// Rows of the log for one of those two, which the disk has not read.
    Read,
}

impl What {
    /// Whether the database answers it, and not a disk of ours.
    pub(crate) fn is_remote(&self) -> bool {
        !matches!(self, Self::Letter { .. } | Self::Read | Self::Rewind)
    }
}

/// Of an answer, for the trace.
pub(crate) fn code(answer: &Event) -> u64 {
    match answer {
        Event::Inserted { outcome: Ok(accepted), .. } => {
            accepted.inserted * 100 + accepted.duplicates
        }
        Event::Inserted { outcome: Err(SinkError::Refused(_)), .. } => 10_001,
        Event::Inserted { outcome: Err(SinkError::WentBack { .. }), .. } => 10_006,
        Event::Inserted { outcome: Err(_), .. } => 10_002,
        Event::Lettered { outcome: Lettered::Stored, .. } => 10_003,
        Event::Lettered { .. } => 10_004,
        _ => 10_005,
    }
}
