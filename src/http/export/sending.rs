//! How a file ends: whole, or broken off so that its client sees it.

use crate::http::exchange::{Gone, Pieces};

/// Why a file is not whole.
pub(super) enum BrokenOff {
    /// Its client has gone.
    Gone,
    Failed(String),
}

impl From<Gone> for BrokenOff {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

impl From<std::io::Error> for BrokenOff {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Ends a file of such rows.
pub(super) async fn finish(pieces: Pieces, outcome: Result<(), BrokenOff>, rows: &'static str) {
    match outcome {
        Ok(()) => pieces.end().await,
        Err(BrokenOff::Gone) => {}
        Err(BrokenOff::Failed(reason)) => {
            tracing::warn!(
                reason,
                "a file of {rows} was broken off: its client has a part of it and is told so"
            );
        }
    }
}
