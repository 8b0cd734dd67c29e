//! What a place in a generation's file can hold, whoever looks there.

use std::io;
use std::ops::Range;

use super::frame::{self, FrameError, Header};
use super::offset::Offset;

/// What there is at a position of a generation's file.
pub(super) enum Found {
    /// An intact frame.
    Frame(Header),
    /// An intact frame of a version that this one does not know.
    Newer {
        version: u16,
        /// It stands in the same place in every version.
        header: Header,
    },
    /// What begins as a frame does, and is none.
    Broken {
        error: FrameError,
        /// The offsets that it claims to hold.
        claim: Option<Range<Offset>>,
    },
    /// A page that the disk cannot read; it is taken for zeros.
    Unreadable(io::Error),
}

impl Found {
    /// What `bytes` begin with, which is the first byte of a frame at least.
    pub(super) fn at_start_of(bytes: &[u8]) -> Self {
        match frame::check(bytes) {
            Ok(header) => Self::Frame(header),
            Err(FrameError::UnknownVersion(version)) => match frame::envelope(bytes) {
                Ok(header) => Self::Newer { version, header },
                Err(error) => Self::Broken { error, claim: frame::claim(bytes) },
            },
            Err(error) => Self::Broken { error, claim: frame::claim(bytes) },
        }
    }

    /// What is in it, if it is a whole frame.
    pub(super) fn header(&self) -> Option<Header> {
        match self {
            Self::Frame(header) | Self::Newer { header, .. } => Some(*header),
            Self::Broken { .. } | Self::Unreadable(_) => None,
        }
    }
}
