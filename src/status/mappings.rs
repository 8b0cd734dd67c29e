//! What the mappings have done, as the [`Snapshot`](super::Snapshot) serves it.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::intake::seen::{Seen, SeenMapping, SeenTopic};

/// A mapping, and what became of what it has taken since the start.
#[derive(Serialize, ToSchema)]
#[schema(as = Mapping)]
pub(super) struct MappingSeen {
    /// As the configuration calls it.
    #[schema(example = "zigbee")]
    name: String,
    /// Its topic filters, as they are written there.
    #[schema(example = json!(["zigbee2mqtt/{device...}"]))]
    topics: Vec<String>,
    /// The table that it fills.
    #[schema(example = "telemetry")]
    table: String,
    /// Whether a reading of it can get the time of its arrival.
    #[schema(example = true)]
    time_by_arrival: bool,
    /// Messages that it has taken.
    #[schema(example = 1_200)]
    messages: u64,
    /// Those of them that came with QoS 0: one that is lost on the way is not sent again.
    #[schema(example = 1_200)]
    qos0_messages: u64,
    /// Readings that it has made of them.
    #[schema(example = 1_198)]
    stored: u64,
    /// Readings, or messages that it could not read, that are dead letters.
    #[schema(example = 2)]
    rejected: u64,
    /// Messages that it leaves alone.
    #[schema(example = 14)]
    ignored: u64,
    /// Why the last one was rejected; null if none was.
    #[schema(required, example = "mapping \"zigbee\", field \"humidity\": 255 is more than 100")]
    last_reason: Option<String>,
    /// Seconds since then.
    #[schema(required, example = 86.0)]
    last_rejected_seconds: Option<f64>,
    /// Seconds since the last message that it has taken; null if there was none.
    #[schema(required, example = 0.4)]
    last_message_seconds: Option<f64>,
}

/// A topic that no mapping takes.
#[derive(Serialize, ToSchema)]
#[schema(as = UnmappedTopic)]
pub(super) struct TopicSeen {
    /// At most its first 256 bytes.
    #[schema(example = "tele/boiler/STATE")]
    topic: String,
    /// Messages, as long as it is among the newest.
    #[schema(example = 12)]
    messages: u64,
    /// Seconds since the last of them.
    #[schema(example = 3.0)]
    last_message_seconds: f64,
}

/// `None` if there are no mappings.
pub(super) fn seen(seen: &Seen) -> Option<Vec<MappingSeen>> {
    let mappings = seen.mappings();
    (!mappings.is_empty()).then(|| mappings.into_iter().map(MappingSeen::from).collect())
}

/// The newest first.
pub(super) fn unmapped(seen: &Seen) -> Vec<TopicSeen> {
    seen.unmapped().into_iter().map(TopicSeen::from).collect()
}

impl From<SeenMapping> for MappingSeen {
    fn from(seen: SeenMapping) -> Self {
        let seconds = |age: Option<Duration>| age.map(|age| age.as_secs_f64());
        Self {
            last_rejected_seconds: seconds(seen.last_rejected),
            last_message_seconds: seconds(seen.last_message),
            name: seen.name,
            topics: seen.topics,
            table: seen.table,
            time_by_arrival: seen.by_arrival,
            messages: seen.messages,
            qos0_messages: seen.qos0_messages,
            stored: seen.stored,
            rejected: seen.rejected,
            ignored: seen.ignored,
            last_reason: seen.last_reason,
        }
    }
}

impl From<SeenTopic> for TopicSeen {
    fn from(SeenTopic { topic, messages, age }: SeenTopic) -> Self {
        Self { topic, messages, last_message_seconds: age.as_secs_f64() }
    }
}
