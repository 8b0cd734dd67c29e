//! Messages of QoS 2 that are ours, and that the broker may send once more.
//!
//! From its PUBREC until the broker's PUBREL a packet id stands for one message (MQTT 3.1.1, 4.3.3),
//! and what comes with it again is not stored again. The standard leaves it at the packet id. Here the content has
//! to be the same too: a broker that was restored from an older state may use the id for another
//! message, and that must not be lost.
//!
//! This does not outlive the process. What comes again then is stored again, and the table's key
//! makes one row of it.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::mqtt::packet::Publish;

/// Identifies the content of a message.
pub(super) type Content = [u8; 32];

/// Packet ids whose PUBREL has not come, with what they stand for.
#[derive(Debug, Default)]
pub(super) struct ExactlyOnce {
    received: HashMap<u16, Content>,
}

impl ExactlyOnce {
    /// The message is stored, and PUBREC leaves.
    pub(super) fn received(&mut self, packet_id: u16, content: Content) {
        self.received.insert(packet_id, content);
    }

    /// PUBREL came.
    pub(super) fn released(&mut self, packet_id: u16) {
        self.received.remove(&packet_id);
    }

    /// Whether this message is stored already.
    pub(super) fn has(&self, packet_id: u16, content: &Content) -> bool {
        self.received.get(&packet_id) == Some(content)
    }

    /// The broker has forgotten the session.
    pub(super) fn forget(&mut self) {
        self.received.clear();
    }
}

/// What `publish` says and to which topic.
pub(super) fn content(publish: &Publish) -> Content {
    let topic_length = publish.topic.len() as u64;
    Sha256::new()
        .chain_update(topic_length.to_be_bytes())
        .chain_update(publish.topic.as_bytes())
        .chain_update(&publish.payload)
        .finalize()
        .into()
}
