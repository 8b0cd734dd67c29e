//! From the name of the broker to a connection that it has accepted.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::codec::{ConnAck, Identity};
use super::stream::Connection;
use crate::mqtt::credentials::{Credentials, Current};
use crate::mqtt::session::{KEEP_ALIVE, Loss};
use crate::mqtt::settings::Settings;

/// Makes connections, one after the other.
#[derive(Clone)]
pub(in crate::mqtt) struct Dialer {
    credentials: Arc<Credentials>,
    settings: Settings,
    /// Index of the address that is tried first.
    first: usize,
    is_persistent: bool,
}

/// A connection that the broker has accepted.
pub(in crate::mqtt) struct Opened {
    pub(in crate::mqtt) connection: Connection,
    /// Whether the broker knew the session.
    pub(in crate::mqtt) session_present: bool,
    /// How many renewals of the credentials it heeds.
    pub(in crate::mqtt) renewals: u64,
}

impl Dialer {
    pub(in crate::mqtt) fn new(settings: Settings, credentials: Arc<Credentials>) -> Self {
        Self { credentials, settings, first: 0, is_persistent: true }
    }

    /// Has the broker forget the session as soon as the connection ends.
    pub(in crate::mqtt) fn forgetting(self) -> Self {
        Self { is_persistent: false, ..self }
    }

    /// Connects. Can be dropped at any time.
    pub(in crate::mqtt) async fn open(&mut self) -> Result<Opened, Loss> {
        let limit = self.settings.connect_timeout;
        let deadline = Instant::now() + limit;
        timeout_at(deadline, self.open_by(deadline)).await.unwrap_or_else(|_| {
            let seconds = limit.as_secs();
            Err(Loss::new(format!(
                "no answer within {seconds} s (MQTT_CONNECT_TIMEOUT_SECS): no MQTT broker, or one that is overloaded"
            )))
        })
    }

    /// Tries the addresses of the broker in turn. The first that takes a connection has all the time
    /// that is left; if that was in vain, the next attempt begins behind it.
    async fn open_by(&mut self, deadline: Instant) -> Result<Opened, Loss> {
        let (credentials, renewals) = self.credentials.renew().map_err(Loss::before_connect)?;
        let Settings { broker, port, .. } = &self.settings;
        let found = lookup_host((broker.as_str(), *port)).await;
        let found = found
            .map_err(|error| Loss::before_connect(format!("its name is not found: {error}")))?;
        let addresses: Vec<SocketAddr> = found.collect();
        let first = self.first;
        let mut failure = Loss::before_connect("its name has no address");
        for (at, left) in (0..addresses.len()).rev().enumerate() {
            let index = (first + at) % addresses.len();
            let share = deadline.saturating_duration_since(Instant::now())
                / u32::try_from(left + 1).unwrap_or(u32::MAX);
            let connected = timeout(share, TcpStream::connect(addresses[index])).await;
            let tcp = match connected {
                Ok(Ok(tcp)) => tcp,
                Ok(Err(error)) => {
                    failure = Loss::before_connect(error.to_string());
                    continue;
                }
                Err(_) => {
                    failure = Loss::before_connect("no answer to the attempt to connect");
                    continue;
                }
            };
            // For the case that this one never answers.
            self.first = index + 1;
            match self.greet(tcp, &credentials).await {
                Ok((connection, ConnAck::Accepted { session_present })) => {
                    self.first = index;
                    return Ok(Opened { connection, session_present, renewals });
                }
                Ok((_, ConnAck::Refused(why))) => {
                    let error = format!("the broker refused the connection: {why}");
                    return Err(Loss::before_connect(error));
                }
                // Whatever another address says of the session, this one may have made it.
                Err(loss) if loss.may_have_connected => return Err(loss),
                Err(loss) => failure = loss,
            }
        }
        if addresses.len() > 1 {
            failure.error =
                format!("{} (the last of {} addresses)", failure.error, addresses.len());
        }
        Err(failure)
    }

    async fn greet(
        &self,
        tcp: TcpStream,
        credentials: &Current,
    ) -> Result<(Connection, ConnAck), Loss> {
        tcp.set_nodelay(true).map_err(|error| Loss::before_connect(error.to_string()))?;
        let mut connection = match credentials.tls.clone() {
            None => Connection::new(tcp, self.settings.max_payload_bytes),
            Some(config) => {
                let name = ServerName::try_from(self.settings.broker.clone());
                let name = name
                    .map_err(|_| Loss::before_connect("MQTT_BROKER is no name that TLS knows"))?;
                let connector = TlsConnector::from(config);
                let tls = connector.connect(name, tcp).await;
                let tls = tls.map_err(|error| Loss::before_connect(no_tls(&error)))?;
                Connection::new(tls, self.settings.max_payload_bytes)
            }
        };
        let identity = Identity {
            client_id: &self.settings.client_id,
            login: credentials.login(),
            keep_alive_secs: u16::try_from(KEEP_ALIVE.as_secs()).unwrap_or(u16::MAX),
            is_persistent: self.is_persistent,
        };
        let answer = connection.greet(&identity).await?;
        Ok((connection, answer))
    }
}

/// Why there is no TLS connection.
fn no_tls(error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidMessage(_)) => {
            "what listens there does not speak TLS: another MQTT_PORT, or MQTT_TLS=false and no MQTT_CA_FILE".to_owned()
        }
        Some(cause) => format!("TLS: {cause}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the connection was closed instead of a TLS handshake".to_owned()
        }
        None => format!("TLS: {error}"),
    }
}
