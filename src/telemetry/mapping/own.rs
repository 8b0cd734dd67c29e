//! The topics that bring the built-in shape.

use super::dispatch::{Candidate, Dispatch};
use super::topic::{Filter, without_group};

/// What `MQTT_TOPIC` says.
#[derive(Clone, Debug, Default)]
pub struct OwnTopics(Dispatch);

impl OwnTopics {
    /// The topics that `filters` match; those of shared subscriptions without their group.
    #[must_use]
    pub fn new(filters: &[String]) -> Self {
        let mut dispatch = Dispatch::default();
        for text in filters {
            let plain = without_group(text).map_or(text.as_str(), |(_, filter)| filter);
            if let Ok(filter) = Filter::parse(plain) {
                dispatch.add(&filter, Candidate { mapping: 0, filter: 0 });
            }
        }
        Self(dispatch)
    }

    /// Whether `topic` is one of them.
    #[must_use]
    pub(crate) fn contain(&self, topic: &str) -> bool {
        !self.0.find(topic).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_a_shared_subscription_is_no_part_of_a_topic() {
        let own = OwnTopics::new(&["$share/g/telemetry/#".to_owned(), "a/+".to_owned()]);
        for (topic, is_own) in [("telemetry/x/y", true), ("a/b", true), ("a", false), ("b", false)]
        {
            assert_eq!(own.contain(topic), is_own, "{topic}");
        }
    }
}
