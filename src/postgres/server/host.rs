//! One host of the connection string, and the ways to it.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::net::TcpStream;

use super::{greeting, relay};
use crate::postgres::connection_string::{HostString, TargetSession};
use crate::postgres::failure::Failure;
use crate::postgres::session::{Session, Setting};

/// What stands in the files of TLS that the connection string names; `None`: the driver goes by the string.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Pem {
    pub(super) authorities: Option<Vec<u8>>,
    pub(super) certificate: Option<Vec<u8>>,
    pub(super) key: Option<Vec<u8>>,
}

/// One host of the connection string.
pub(super) struct Host {
    options: PgConnectOptions,
    /// A session is not ours from one transaction to the next: see `greeting`.
    is_pooled: AtomicBool,
}

/// One way to try.
#[derive(Clone)]
pub(super) struct Candidate {
    host: Arc<Host>,
    /// One address of several of the host's; `None` leaves it to the driver.
    address: Option<SocketAddr>,
    pub(super) shown: String,
}

impl Host {
    pub(super) fn new(
        host: &HostString,
        denies_sessions: bool,
        pem: &Pem,
    ) -> Result<Self, Failure> {
        let options = PgConnectOptions::from_str(&host.url).map_err(|_| {
            Failure::unavailable("the driver cannot read the connection string in DATABASE_URL")
        })?;
        // The driver hands the brackets of an IPv6 address to the resolver.
        let host = options.get_host().trim_matches(['[', ']']).to_owned();
        // Doubles travel in binary, so their digits need no setting, which PgBouncer would refuse.
        let mut options = options.host(&host).extra_float_digits(None).disable_statement_logging();
        let Pem { authorities, certificate, key } = pem;
        if let Some(authorities) = authorities {
            options = options.ssl_root_cert_from_pem(authorities.clone());
        }
        if let Some(certificate) = certificate {
            options = options.ssl_client_cert_from_pem(certificate);
        }
        if let Some(key) = key {
            options = options.ssl_client_key_from_pem(key);
        }
        if options.get_application_name().is_none() {
            options = options.application_name("iot-ingestor");
        }
        Ok(Self { options, is_pooled: AtomicBool::new(denies_sessions) })
    }

    pub(super) async fn candidates(self: &Arc<Self>) -> Result<Vec<Candidate>, Failure> {
        let (host, port) = (self.options.get_host(), self.options.get_port());
        if self.options.get_socket().is_some() || host.starts_with('/') {
            return Ok(self.ways(&[]));
        }
        match tokio::net::lookup_host((host, port)).await {
            Ok(addresses) => Ok(self.ways(&addresses.collect::<Vec<_>>())),
            Err(error) => Err(Failure::of_connection(&self.shown(None), error.into())),
        }
    }

    fn ways(self: &Arc<Self>, addresses: &[SocketAddr]) -> Vec<Candidate> {
        let way =
            |address| Candidate { host: Arc::clone(self), address, shown: self.shown(address) };
        match addresses {
            // The driver finds its way alone.
            [] | [_] => vec![way(None)],
            several => several.iter().map(|address| way(Some(*address))).collect(),
        }
    }

    pub(super) fn shown(&self, address: Option<SocketAddr>) -> String {
        let (host, port) = (self.options.get_host(), self.options.get_port());
        match (self.options.get_socket(), address) {
            (Some(socket), _) => socket.to_string_lossy().into_owned(),
            (None, Some(address)) => format!("{host} at {address}"),
            (None, None) if host.contains(':') => format!("[{host}]:{port}"),
            (None, None) => format!("{host}:{port}"),
        }
    }

    fn is_pooled(&self) -> bool {
        self.is_pooled.load(Ordering::Relaxed)
    }

    fn set_pooled(&self) {
        if !self.is_pooled.swap(true, Ordering::Relaxed) {
            tracing::info!(
                server = self.shown(None),
                "a pooler stands before the database: statements are not kept there, and each \
                 transaction makes its own settings"
            );
        }
    }
}

impl Candidate {
    /// How the driver is told to go there.
    async fn options(&self) -> std::io::Result<PgConnectOptions> {
        let options = self.host.options.clone();
        let Some(address) = self.address else { return Ok(options) };
        if matches!(options.get_ssl_mode(), PgSslMode::VerifyFull) {
            // It needs the name, which it would look up again.
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            return Ok(options.socket(relay::open(stream, address.port())?).port(address.port()));
        }
        Ok(options.host(&address.ip().to_string()))
    }

    pub(super) async fn connect(
        self,
        target: TargetSession,
        settings: &'static [Setting],
    ) -> Result<Session, Failure> {
        let failed = |error| Failure::of_connection(&self.shown, error);
        if !self.host.is_pooled() {
            let token = greeting::Token::new();
            let options = self.options().await.map_err(|error| failed(error.into()))?;
            match token.added_to(options).connect().await {
                Ok(connection) => {
                    let greeted = greeting::greet(connection, Some(&token), settings);
                    let (session, answer) = greeted.await.map_err(failed)?;
                    if !answer.is_ours {
                        self.host.set_pooled();
                    }
                    return answer.check(target, &self.shown).map(|()| session);
                }
                Err(error) if greeting::is_refused_parameter(&error) => self.host.set_pooled(),
                Err(error) => return Err(failed(error)),
            }
        }
        let options = self.options().await.map_err(|error| failed(error.into()))?;
        let connection = options.connect().await.map_err(failed)?;
        let greeted = greeting::greet(connection, None, settings);
        let (session, answer) = greeted.await.map_err(failed)?;
        answer.check(target, &self.shown).map(|()| session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(url: &str) -> Arc<Host> {
        let string: crate::postgres::connection_string::ConnectionString = url.parse().unwrap();
        Arc::new(Host::new(&string.hosts()[0], false, &Pem::default()).unwrap())
    }

    #[tokio::test]
    async fn each_address_of_a_name_is_a_way_and_a_single_one_is_the_drivers() {
        let addresses: Vec<SocketAddr> =
            ["[::1]:5433", "127.0.0.9:5433"].map(|address| address.parse().unwrap()).into();
        let host = host("postgres://u@db.example:5433/x");
        let ways = host.ways(&addresses);
        let shown: Vec<&str> = ways.iter().map(|way| way.shown.as_str()).collect();
        assert_eq!(shown, ["db.example at [::1]:5433", "db.example at 127.0.0.9:5433"]);
        assert_eq!(ways[1].options().await.unwrap().get_host(), "127.0.0.9");
        let ways = host.ways(&addresses[..1]);
        assert_eq!(ways[0].options().await.unwrap().get_host(), "db.example");
    }

    #[tokio::test]
    async fn where_the_certificate_is_checked_the_driver_keeps_the_name() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let host = host("postgres://u@db.example:5433/x?sslmode=verify-full");
        let options = host.ways(&[address, address])[0].options().await.unwrap();
        assert_eq!(options.get_host(), "db.example");
        assert!(options.get_socket().is_some());
    }
}
