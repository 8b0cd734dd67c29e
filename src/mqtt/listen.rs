//! Listens for a while without taking anything from anybody: no session, QoS 0, nothing acknowledged.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, interval_at, timeout_at};

use super::connection::Dialer;
use super::credentials::Credentials;
use super::packet::{Granted, Publish, Received, Sent};
use super::session::{KEEP_ALIVE, Loss};
use super::settings::Settings;

/// The only packet id that there is.
const PACKET_ID: u16 = 1;

/// Calls `hear` with what is published to `filter`, for so long.
///
/// # Errors
/// Why there is no connection, or none any more.
pub(crate) async fn listen(
    settings: Settings,
    filter: &str,
    time: Duration,
    mut hear: impl FnMut(Publish),
) -> Result<(), String> {
    let place = format!("{}:{}", settings.broker, settings.port);
    let told = |loss: Loss| format!("MQTT broker {place}: {}", loss.error);
    let credentials = Arc::new(Credentials::new(&settings));
    let mut dialer = Dialer::new(settings, credentials).forgetting();
    let mut connection = dialer.open().await.map_err(told)?.connection;
    connection.queue_look(PACKET_ID, filter).map_err(told)?;
    connection.flush().await.map_err(told)?;
    let end = Instant::now() + time;
    let mut pings = interval_at(Instant::now() + KEEP_ALIVE / 2, KEEP_ALIVE / 2);
    loop {
        // Both can be dropped at any time.
        let waiting = async {
            tokio::select! {
                readable = connection.readable() => readable.map(|()| true),
                _ = pings.tick() => Ok(false),
            }
        };
        let Ok(waited) = timeout_at(end, waiting).await else { break };
        if !waited.map_err(told)? {
            connection.queue(Sent::Ping).map_err(told)?;
            connection.flush().await.map_err(told)?;
            continue;
        }
        while let Some(packet) = connection.next().map_err(told)? {
            match packet {
                Received::Publish(publish) => hear(publish),
                Received::SubAck { granted, .. } if granted.contains(&Granted::Refused) => {
                    return Err(format!(
                        "MQTT broker {place} does not let us listen to `{filter}`"
                    ));
                }
                _ => {}
            }
        }
    }
    // It is over whether the broker hears of it or not.
    if connection.queue(Sent::Disconnect).is_ok() {
        connection.flush().await.ok();
    }
    Ok(())
}
