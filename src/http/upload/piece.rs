//! The text of a reading in a body, and how a body is none.

/// A part of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'b> {
    /// As it stands there.
    Text(&'b [u8]),
    /// Of so many bytes, which are more than a reading may have.
    TooLong {
        /// All of them.
        bytes: usize,
        /// Whether there may be others beside it.
        is_part: bool,
    },
}

/// The body is not what it is said to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) String);

/// A text that comes in by and by, of which no more is kept than a reading may have.
pub(super) struct Text {
    kept: Vec<u8>,
    length: usize,
    most: usize,
    /// Whether there may be others beside it.
    pub(super) is_part: bool,
}

impl Text {
    pub(super) fn new(most: usize, is_part: bool) -> Self {
        Self { kept: Vec::new(), length: 0, most, is_part }
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        if self.length <= self.most {
            self.kept.extend_from_slice(bytes);
        } else {
            self.kept.clear();
        }
    }

    pub(super) fn piece(&self) -> Piece<'_> {
        if self.length <= self.most {
            Piece::Text(&self.kept)
        } else {
            Piece::TooLong { bytes: self.length, is_part: self.is_part }
        }
    }

    pub(super) fn clear(&mut self) {
        self.kept.clear();
        self.length = 0;
    }
}
