//! What an operator reads of the connection: one line a change.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use super::session::Change;
use super::settings::Settings;
use crate::base::time::Timestamp;

/// Logs `change`.
pub(super) fn report(settings: &Settings, change: Change) {
    match change {
        Change::Connected { session_present, session_lost, .. } => {
            tracing::info!(
                broker = %format_args!("{}:{}", settings.broker, settings.port),
                client_id = settings.client_id,
                session_resumed = session_present,
                "connected to the broker"
            );
            if session_lost {
                tracing::warn!(
                    "the broker did not know our session: what was published while we were away is lost unless it was kept elsewhere; give the broker persistence, and this client id to nobody else (Mosquitto: persistence true)"
                );
            }
        }
        Change::Takeover => tracing::warn!(
            client_id = settings.client_id,
            "the broker has closed several sessions soon after they began: most likely another client uses the same client id, and the two throw each other out; set MQTT_CLIENT_ID to a value of its own"
        ),
        Change::NarrowWindow(width) => tracing::warn!(
            messages_in_flight = width,
            "the broker sends no more than {width} messages before it waits for acks, although more wait: commits stay small and throughput low; raise its limit (Mosquitto: max_inflight_messages)"
        ),
        Change::StayingAway(reason) => tracing::warn!(
            reason,
            "the log is full: staying away from the broker, which keeps the session's messages; the log goes on draining, and the connection comes back by itself"
        ),
        Change::WrongClock => tracing::warn!(
            clock = %Timestamp::now(),
            "the clock reads a time before this program was built, and mappings store the time of arrival: staying away from the broker, which keeps the session's messages; the connection comes by itself once the clock is set"
        ),
        Change::ClockIsRight => {
            tracing::info!("the clock is set: connecting to the broker");
        }
        Change::Returning => {
            tracing::info!("the log has room again: returning to the broker");
        }
        Change::Renewing => {
            tracing::info!(
                "certificates or secrets have changed: leaving the broker, and returning with them at once"
            );
        }
        Change::Subscribed(filter) => tracing::info!(filter, "subscribed"),
        Change::StillSubscribed(filter) => {
            tracing::info!(filter, "subscribed: the broker has kept it with the session");
        }
        Change::QosZero(filter) => tracing::error!(
            filter,
            "the broker granted QoS 0 only: messages that are lost on the way will not be sent again; asking for it again with growing pauses"
        ),
        Change::Refused(filter) => tracing::error!(
            filter,
            "the broker refused the subscription: no messages of it will come; check its access rules; asking for it again with growing pauses"
        ),
        Change::Unanswered(filters) => tracing::error!(
            filters = filters.join(","),
            "the broker does not answer the subscription: no messages of it may come; asking for it again with growing pauses"
        ),
        Change::Unsubscribed(filters) => tracing::info!(
            filters = filters.join(","),
            "unsubscribed from what neither MQTT_TOPIC nor a mapping names any more"
        ),
        Change::Lost { error, retry_in } => tracing::warn!(
            error,
            retry_in_ms = retry_in.as_millis(),
            "lost the broker: it keeps what was not acknowledged and delivers it again"
        ),
        Change::Unreachable { error, retry_in, is_news: true } => tracing::warn!(
            error,
            retry_in_ms = retry_in.as_millis(),
            "cannot reach the broker: trying again, without end"
        ),
        Change::Unreachable { error, retry_in, is_news: false } => tracing::debug!(
            error,
            retry_in_ms = retry_in.as_millis(),
            "still cannot reach the broker"
        ),
    }
}
