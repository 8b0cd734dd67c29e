//! Which filters the session at the broker has.
//!
//! A SUBSCRIBE for a filter that is granted already does no harm but one: the broker sends its
//! retained messages again, and a bad one of those would be one more dead letter at each
//! connection. So a session that the broker knows is asked only for what it may not have, which is
//! why the filters are remembered beyond the process. One that is not wanted any more is given
//! up, or the session would bring its messages for ever.
//!
//! A broker that has lost the session makes a new one of a CONNECT, without any filter. If its answer
//! does not reach us, the next CONNECT finds that one, as if nothing had been lost. So from a CONNECT
//! until its answer nothing is known to be granted.
//!
//! Shared subscriptions are asked for at each connection: Mosquitto (2.0.11, 2.0.22) leaves them out of
//! its file of sessions, so after its restart it knows the session and has forgotten them. They bring
//! no retained messages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the filter of a shared subscription begins with.
pub(crate) const SHARED: &str = "$share/";

/// What is known of the filters that the session at the broker has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filters(BTreeMap<String, Held>);

/// What is known of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Held {
    /// It was asked for; the session may have it.
    Asked,
    /// The session has it.
    Granted,
}

impl Filters {
    pub(super) fn set(&mut self, filter: &str, held: Held) -> bool {
        self.0.insert(filter.to_owned(), held) != Some(held)
    }

    pub(super) fn forget(&mut self, filter: &str) {
        self.0.remove(filter);
    }

    /// The same filters, none of them known to be granted.
    pub(super) fn unsure(&self) -> Self {
        Self(self.0.keys().map(|filter| (filter.clone(), Held::Asked)).collect())
    }

    /// Those of `wanted` that the session is not known to have.
    pub(super) fn missing(&self, wanted: &[String]) -> Vec<String> {
        let has = |filter: &&String| self.0.get(*filter) != Some(&Held::Granted);
        wanted.iter().filter(has).cloned().collect()
    }

    pub(super) fn granted(&self, wanted: &[String]) -> Vec<String> {
        let has = |filter: &&String| self.0.get(*filter) == Some(&Held::Granted);
        wanted.iter().filter(has).cloned().collect()
    }

    /// What the broker may have forgotten although it knows the session counts as asked for only.
    pub(super) fn doubt_shared(&mut self) {
        for (filter, held) in &mut self.0 {
            if filter.starts_with(SHARED) {
                *held = Held::Asked;
            }
        }
    }

    pub(super) fn unwanted(&self, wanted: &[String]) -> Vec<String> {
        self.0.keys().filter(|filter| !wanted.contains(filter)).cloned().collect()
    }
}
