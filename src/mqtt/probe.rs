//! Asks a broker for what the service relies on: that it takes the login, keeps a session, and grants
//! QoS 1.
//!
//! Under a client id of its own, so that a service which is connected stays so, and without a trace: what
//! matches the filters is sent to a session that the broker forgets with its connection, and the session
//! that it is to keep has no filter that messages come by. A shared subscription is asked for in a group
//! of its own, or messages of the service's group would be lost here.
//!
//! There are brokers that put the login, or the name in a certificate, in the place of the client id. The
//! session is then the service's, with what waits in it: to begin it anew, or to add a filter, would harm
//! it. So the first thing is to come in the way that changes nothing, and to go where there is a session
//! already.

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
pub(crate) enum Answers {
    /// Who we say we are does not count: there is a session under a client id that nobody had before.
    KnowsUs,
    /// To all that was asked.
    Asked {
        /// What became of each filter, in their order; or why that is not known.
        granted: Result<Vec<(String, Granted)>, String>,
        /// What became of the session.
        sessions: KeepsSessions,
    },
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

/// Asks the broker of some settings for their filters.
pub(crate) struct Probe {
    settings: Settings,
    /// What the client id has beside that of the service.
    name: String,
}

impl Probe {
    pub(crate) fn new(settings: &Settings) -> Self {
        let name = format!("doctor-{:08x}", fastrand::u32(..));
        let client_id = format!("{}-{name}", settings.client_id);
        Self { settings: Settings { client_id, ..settings.clone() }, name }
    }

    /// Who it says it is.
    pub(crate) fn client_id(&self) -> &str {
        &self.settings.client_id
    }

    /// Takes a few times the time for connecting at most.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(crate) async fn ask(self) -> Result<Answers, String> {
        let Self { settings, name } = self;
        let topics = settings.topics.clone();
        let credentials = Arc::new(Credentials::new(&settings));
        let mut dialer = Dialer::new(settings, credentials);

        let first = dialer.open().await.map_err(|loss| loss.error)?;
        if first.session_present {
            leave(first.connection).await.ok();
            return Ok(Answers::KnowsUs);
        }
        let quiet = topics.iter().find_map(|topic| below(topic, &name));
        let sessions = match comes_again(&mut dialer, first.connection, quiet).await {
            Ok(true) => KeepsSessions::Yes,
            Ok(false) => KeepsSessions::No,
            Err(loss) => KeepsSessions::Unknown(loss.error),
        };
        // The broker forgets the session with this connection; if it cannot be reached any more, it has one
        // that nothing comes to.
        let filters = topics.iter().map(|topic| in_own_group(topic, &name)).collect();
        let granted = match dialer.forgetting().open().await {
            Ok(Opened { connection, .. }) => ask_for(connection, filters).await,
            Err(loss) => Err(loss),
        };
        let granted = granted.map_err(|loss| loss.error);
        let granted = granted.map(|granted| topics.into_iter().zip(granted).collect());
        Ok(Answers::Asked { granted, sessions })
    }
}

/// Whether the broker knows us when we come a second time.
async fn comes_again(
    dialer: &mut Dialer,
    first: Connection,
    quiet: Option<String>,
) -> Result<bool, Loss> {
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
