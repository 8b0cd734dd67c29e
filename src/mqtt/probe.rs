//! Asks a broker for what the service relies on: that it takes the login, keeps a session, and grants
//! QoS 1.
//!
//! Under a client id of its own, so that a service which is connected stays so, and without a trace: what
//! matches the filters is sent to a session that the broker forgets with its connection, and the session
//! that it is to keep has no filter that messages come by. A shared subscription is asked for in a group
//! of its own, or messages of the service's group would be lost here.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::connection::{Connection, Dialer, Opened};
use super::credentials::Credentials;
use super::packet::{Granted, Received, Sent};
use super::session::{Loss, SHARED};
use super::settings::Settings;

/// Longest wait for the answer to a SUBSCRIBE.
const PATIENCE: Duration = Duration::from_secs(10);

const SUBSCRIBE: u16 = 1;

/// What a broker that takes the login has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answers {
    /// What became of each filter, in their order; or why that is not known.
    pub(crate) granted: Result<Vec<(String, Granted)>, String>,
    /// What became of the session.
    pub(crate) sessions: KeepsSessions,
}

/// Whether a broker keeps a session while its client is away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeepsSessions {
    /// It knew the session again.
    Yes,
    /// It did not.
    No,
    /// It could not be found out.
    Unknown(String),
}

/// Asks the broker of `settings` for their filters. Takes a few times the time for connecting at most.
///
/// # Errors
/// Why there is no connection.
pub(crate) async fn probe(settings: &Settings) -> Result<Answers, String> {
    let name = format!("doctor-{:08x}", fastrand::u32(..));
    let client_id = format!("{}-{name}", settings.client_id);
    let topics = settings.topics.clone();
    let settings = Settings { client_id, ..settings.clone() };
    let credentials = Arc::new(Credentials::new(&settings));
    let dialer = Dialer::new(settings, credentials);
    let mut forgetting = dialer.clone().forgetting();

    let opened = forgetting.open().await.map_err(|loss| loss.error)?;
    let filters = topics.iter().map(|topic| in_own_group(topic, &name)).collect();
    let granted = ask_for(opened.connection, filters).await.map_err(|loss| loss.error);
    let granted = granted.map(|granted| topics.iter().cloned().zip(granted).collect());

    let quiet = topics.iter().find_map(|topic| below(topic, &name));
    let sessions = match comes_again(dialer, quiet).await {
        Ok(true) => KeepsSessions::Yes,
        Ok(false) => KeepsSessions::No,
        Err(loss) => KeepsSessions::Unknown(loss.error),
    };
    // The broker forgets the session; if it cannot be reached any more, it has one that nothing comes to.
    if let Ok(Opened { connection, .. }) = forgetting.open().await {
        leave(connection).await.ok();
    }
    Ok(Answers { granted, sessions })
}

/// Whether the broker knows us when we come a second time.
async fn comes_again(mut dialer: Dialer, quiet: Option<String>) -> Result<bool, Loss> {
    let first = dialer.open().await?.connection;
    // There are brokers whose sessions begin with their first filter.
    match quiet {
        Some(quiet) => drop(ask_for(first, vec![quiet]).await?),
        None => leave(first).await?,
    }
    let Opened { connection, session_present, .. } = dialer.open().await?;
    leave(connection).await?;
    Ok(session_present)
}

/// Subscribes, and leaves.
async fn ask_for(mut connection: Connection, filters: Vec<String>) -> Result<Vec<Granted>, Loss> {
    connection.queue(Sent::Subscribe { packet_id: SUBSCRIBE, filters })?;
    connection.flush().await?;
    let answer = async {
        loop {
            connection.readable().await?;
            while let Some(packet) = connection.next()? {
                if let Received::SubAck { packet_id: SUBSCRIBE, granted } = packet {
                    return Ok(granted);
                }
            }
        }
    };
    let granted = timeout(PATIENCE, answer).await.unwrap_or_else(|_| {
        Err(Loss::new(format!("no answer to SUBSCRIBE within {} s", PATIENCE.as_secs())))
    })?;
    leave(connection).await?;
    Ok(granted)
}

async fn leave(mut connection: Connection) -> Result<(), Loss> {
    connection.queue(Sent::Disconnect)?;
    connection.flush().await
}

/// The same, shared with nobody.
fn in_own_group(filter: &str, name: &str) -> String {
    match plain(filter) {
        rest if rest == filter => filter.to_owned(),
        rest => format!("{SHARED}{name}/{rest}"),
    }
}

/// The filter itself, if it is shared.
fn plain(filter: &str) -> &str {
    let shared = filter.strip_prefix(SHARED).and_then(|shared| shared.split_once('/'));
    shared.map_or(filter, |(_, rest)| rest)
}

/// A topic that `filter` covers, so that who may have the one may have the other, and to which nobody
/// publishes; none if it covers one topic alone.
fn below(filter: &str, name: &str) -> Option<String> {
    let filter = plain(filter);
    let level = |level| if matches!(level, "+" | "#") { name } else { level };
    let topic: Vec<&str> = filter.split('/').map(level).collect();
    let topic = topic.join("/");
    (topic != filter).then_some(topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_filter_is_asked_for_in_a_group_that_nobody_else_is_in() {
        assert_eq!(in_own_group("telemetry/#", "me"), "telemetry/#");
        assert_eq!(in_own_group("$share/group/telemetry/#", "me"), "$share/me/telemetry/#");
    }

    #[test]
    fn what_is_kept_at_the_broker_is_a_filter_that_nothing_comes_by() {
        for (filter, topic) in [
            ("telemetry/#", Some("telemetry/me")),
            ("#", Some("me")),
            ("a/+/c/+", Some("a/me/c/me")),
            ("$share/group/a/+", Some("a/me")),
            ("a/b", None),
        ] {
            assert_eq!(below(filter, "me").as_deref(), topic, "{filter}");
        }
    }
}
