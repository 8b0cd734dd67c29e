//! The topic of a message, as the broker sent it: any bytes at all.
//!
//! Brokers hand on what they are given, and some do not look at it. A topic that is none must not
//! cost the message its acknowledgement, or the broker would deliver it again for ever.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

/// The topic that a message was published to. As text, what is not UTF-8 is replaced.
#[derive(Clone, PartialEq, Eq)]
pub struct Topic(Content);

#[derive(Clone, PartialEq, Eq)]
enum Content {
    /// UTF-8.
    Text(Bytes),
    /// What can be read of bytes that are not.
    Lossy(String),
}

/// Why a topic is none (MQTT 3.1.1, 4.7 and 1.5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TopicFault {
    /// Not UTF-8.
    #[error("the topic is not UTF-8")]
    NotUtf8,
    /// No characters.
    #[error("the topic is empty")]
    Empty,
    /// U+0000.
    #[error("the topic holds a null character")]
    NullCharacter,
    /// `+` or `#`, which only a filter may hold.
    #[error("the topic holds a wildcard")]
    Wildcard,
}

impl Topic {
    /// Why this is no topic, if it is none.
    #[must_use]
    pub(crate) fn fault(&self) -> Option<TopicFault> {
        let Content::Text(text) = &self.0 else { return Some(TopicFault::NotUtf8) };
        if text.is_empty() {
            Some(TopicFault::Empty)
        } else if text.contains(&0) {
            Some(TopicFault::NullCharacter)
        } else if text.iter().any(|byte| matches!(byte, b'+' | b'#')) {
            Some(TopicFault::Wildcard)
        } else {
            None
        }
    }
}

impl From<Bytes> for Topic {
    fn from(bytes: Bytes) -> Self {
        Self(match String::from_utf8_lossy(&bytes) {
            Cow::Borrowed(_) => Content::Text(bytes),
            Cow::Owned(text) => Content::Lossy(text),
        })
    }
}

impl From<&str> for Topic {
    fn from(text: &str) -> Self {
        Self(Content::Text(Bytes::copy_from_slice(text.as_bytes())))
    }
}

impl Deref for Topic {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            // It was looked at when it came in.
            Content::Text(text) => std::str::from_utf8(text).unwrap_or_default(),
            Content::Lossy(text) => text,
        }
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_standard_allows_is_a_topic() {
        let fault = |bytes: &'static [u8]| Topic::from(Bytes::from_static(bytes)).fault();
        assert_eq!(fault("telemetry/größe".as_bytes()), None);
        assert_eq!(fault(b"telemetry/\xff"), Some(TopicFault::NotUtf8));
        assert_eq!(fault(b""), Some(TopicFault::Empty));
        assert_eq!(fault(b"a\0b"), Some(TopicFault::NullCharacter));
        assert_eq!(fault(b"a/+"), Some(TopicFault::Wildcard));
        assert_eq!(fault(b"#"), Some(TopicFault::Wildcard));
    }

    #[test]
    fn what_can_be_read_of_any_topic_is_shown() {
        assert_eq!(&*Topic::from(Bytes::from_static(b"a/\xff/b")), "a/\u{fffd}/b");
        assert_eq!(&*Topic::from("telemetry/a"), "telemetry/a");
    }
}
