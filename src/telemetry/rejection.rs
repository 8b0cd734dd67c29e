//! Why a reading was rejected: a [`Reason`] for counters, a sentence for people.

use std::borrow::Cow;
use std::fmt;

use super::fields::{COUNT, FIELDS};

/// Longest part of a sentence that is kept, in bytes.
pub(crate) const SENTENCE_MAX_BYTES: usize = 512;

/// Where on its way a reading was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// The payload is not what the contract calls a message.
    Decode,
    /// The reading is well-formed, but a value is out of bounds.
    Validate,
    /// PostgreSQL refused the row.
    Database,
}

impl Stage {
    /// All stages, for counters that must read 0 from the start.
    pub(crate) const ALL: [Self; 3] = [Self::Decode, Self::Validate, Self::Database];

    /// The stage's name in metrics and in the dead-letter store.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Validate => "validate",
            Self::Database => "database",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident => $name:literal, $stage:ident;)+) => {
        /// The rule that a rejected reading broke; one label value each in
        /// `ingestor_rejections_total`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $variant,)+
            /// A value is out of bounds; index into [`FIELDS`].
            OutOfRange(usize),
        }

        impl Reason {
            /// All reasons, for counters that must read 0 from the start; see also
            /// [`Self::is_of_mappings`].
            pub(crate) fn all() -> impl Iterator<Item = Self> {
                [$(Self::$variant,)+].into_iter().chain((0..COUNT).map(Self::OutOfRange))
            }

            /// The reason's name in metrics.
            #[must_use]
            pub(crate) fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                    Self::OutOfRange(at) => FIELDS[at].rejection,
                }
            }

            /// The stage that applies this rule.
            #[must_use]
            pub(crate) fn stage(self) -> Stage {
                match self {
                    $(Self::$variant => Stage::$stage,)+
                    Self::OutOfRange(_) => Stage::Validate,
                }
            }
        }
    };
}

reasons! {
    /// Longer than `MQTT_MAX_PAYLOAD_BYTES`.
    PayloadTooLarge => "payload_too_large", Decode;
    /// The topic is none that MQTT allows.
    InvalidTopic => "invalid_topic", Decode;
    /// Not UTF-8.
    NotUtf8 => "not_utf8", Decode;
    /// Not JSON.
    InvalidJson => "invalid_json", Decode;
    /// A number beyond the range of a double.
    NumberOutOfRange => "number_out_of_range", Decode;
    /// JSON, but no object.
    NotAnObject => "not_an_object", Decode;
    /// An array without a reading.
    EmptyArray => "empty_array", Decode;
    /// A field is not there.
    MissingField => "missing_field", Decode;
    /// A field is there twice.
    DuplicateField => "duplicate_field", Decode;
    /// A field has the wrong JSON type.
    WrongType => "wrong_type", Decode;
    /// The timestamp is not one.
    InvalidTimestamp => "invalid_timestamp", Decode;
    /// `device_id` is empty.
    DeviceIdEmpty => "device_id_empty", Validate;
    /// `device_id` is longer than 128 characters.
    DeviceIdTooLong => "device_id_too_long", Validate;
    /// `device_id` holds a control character.
    DeviceIdControlCharacter => "device_id_control_character", Validate;
    /// Further ahead than `VALIDATE_MAX_FUTURE_SECS`.
    TimestampInFuture => "timestamp_in_future", Validate;
    /// Before `VALIDATE_OLDEST_TIMESTAMP`.
    TimestampTooOld => "timestamp_too_old", Validate;
    /// Not of the format that its mapping has, or damaged in its compression.
    InvalidFormat => "invalid_format", Decode;
    /// No mapping takes the message.
    NoMapping => "no_mapping", Decode;
    /// A value of a mapped field is outside of its bounds.
    ValueOutOfRange => "value_out_of_range", Validate;
    /// A text of a mapped field is longer than its `max_bytes`.
    TextTooLong => "text_too_long", Validate;
    /// A mapped reading has no room in a block of the log.
    ReadingTooLarge => "reading_too_large", Validate;
    /// A row names a table or a column that there is not.
    UnknownName => "unknown_name", Decode;
}

impl Reason {
    /// Whether only a mapping gives it, so that without one nobody needs to see it.
    #[must_use]
    pub(crate) fn is_of_mappings(self) -> bool {
        matches!(
            self,
            Self::InvalidFormat
                | Self::NoMapping
                | Self::ValueOutOfRange
                | Self::TextTooLong
                | Self::ReadingTooLarge
                | Self::UnknownName
        )
    }
}

/// How many readings broke which rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(Vec<(Reason, u64)>);

impl Tally {
    /// Counts one more.
    pub(crate) fn add(&mut self, reason: Reason) {
        match self.0.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => self.0.push((reason, 1)),
        }
    }

    /// Each rule that was broken, and how often.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (Reason, u64)> {
        self.0.iter().copied()
    }

    /// How many readings those were.
    #[must_use]
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (reason, count)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {}", reason.as_str())?;
        }
        Ok(())
    }
}

/// A reading turned away by decoding or validation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// The rule it broke.
    pub(crate) reason: Reason,
    /// One sentence for whoever has to mend the device. Of a flood of rejections hardly any is read,
    /// so that most of them should cost no allocation.
    pub message: Cow<'static, str>,
}

impl Rejection {
    /// A rejection for `reason`, explained by `message`.
    pub(crate) fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, message: message.into() }
    }
}
