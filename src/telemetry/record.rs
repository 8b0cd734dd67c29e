//! What the log keeps: a reading of the built-in shape, or a row of a table that mappings fill.

use serde::ser::{Serialize, Serializer};

use super::mapping::{BUILT_IN_TABLE, MappedReading};
use super::reading::Reading;
use crate::base::time::Timestamp;

/// A record of the log. As large as a reading alone, so that logs without mappings pay nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Of the built-in shape.
    BuiltIn(Reading),
    /// As a mapping has made it.
    Mapped(Box<MappedReading>),
}

const _: () = assert!(size_of::<Record>() == size_of::<Reading>());

impl Record {
    /// Whose it is.
    #[must_use]
    pub(crate) fn device_id(&self) -> &str {
        match self {
            Self::BuiltIn(reading) => &reading.device_id,
            Self::Mapped(reading) => &reading.device_id,
        }
    }

    /// When the device measured, or the message came in.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        match self {
            Self::BuiltIn(reading) => reading.timestamp,
            Self::Mapped(reading) => reading.timestamp,
        }
    }

    /// The table that it belongs into.
    #[must_use]
    pub(crate) fn table(&self) -> &str {
        match self {
            Self::BuiltIn(_) => BUILT_IN_TABLE,
            Self::Mapped(reading) => &reading.table.name,
        }
    }

    /// The reading, if it is of the built-in shape.
    #[must_use]
    pub(crate) fn built_in(&self) -> Option<&Reading> {
        match self {
            Self::BuiltIn(reading) => Some(reading),
            Self::Mapped(_) => None,
        }
    }

    /// The row, if a mapping has made it.
    #[must_use]
    pub fn mapped(&self) -> Option<&MappedReading> {
        match self {
            Self::BuiltIn(_) => None,
            Self::Mapped(reading) => Some(reading),
        }
    }

    /// Whether both can stand in one block: of one shape, or of one table with the same columns.
    #[must_use]
    pub(crate) fn is_alike(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::BuiltIn(_), Self::BuiltIn(_)) => true,
            (Self::Mapped(one), Self::Mapped(other)) => one.table == other.table,
            _ => false,
        }
    }
}

impl From<Reading> for Record {
    fn from(reading: Reading) -> Self {
        Self::BuiltIn(reading)
    }
}

impl From<MappedReading> for Record {
    fn from(reading: MappedReading) -> Self {
        Self::Mapped(Box::new(reading))
    }
}

impl PartialEq<Reading> for Record {
    fn eq(&self, other: &Reading) -> bool {
        self.built_in() == Some(other)
    }
}

impl Serialize for Record {
    /// A reading as it could have been published, a row with the name of its table.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::BuiltIn(reading) => reading.serialize(serializer),
            Self::Mapped(reading) => reading.serialize(serializer),
        }
    }
}
