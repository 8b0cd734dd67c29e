//! Where the database is: opening a connection to it.
//!
//! A name can have several addresses and a connection string several hosts, of which some are down,
//! do not even refuse, or are standbys. The driver tries one after the other, each for as long as
//! the operating system does, which is two minutes. Here the next one is tried as soon as one has
//! failed or been silent for [`HEAD_START`], and the first that works is taken.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connection_string::{HostString, TargetSession};
use super::failure::Failure;
use super::session::{Session, Setting};
use super::settings::Settings;

mod greeting;
mod relay;

/// How long an address may be silent before the next is tried as well.
const HEAD_START: Duration = Duration::from_millis(500);

/// Where the database is and how to log in. Clones are one.
#[derive(Clone)]
pub(super) struct Server(Arc<Shared>);

struct Shared {
    hosts: Vec<Arc<Host>>,
    target: TargetSession,
    timeout: Duration,
    /// What worked last is tried first.
    preferred: Mutex<Option<String>>,
}

/// One host of the connection string.
struct Host {
    options: PgConnectOptions,
    /// A session is not ours from one transaction to the next: see `greeting`.
    is_pooled: AtomicBool,
}

/// One way to try.
#[derive(Clone)]
struct Candidate {
    host: Arc<Host>,
    /// One address of several of the host's; `None` leaves it to the driver.
    address: Option<SocketAddr>,
    shown: String,
}

impl Server {
    pub(super) fn new(settings: &Settings) -> Result<Self, Failure> {
        let string = &settings.url;
        let host = |host: &HostString| Host::new(host, string.denies_sessions()).map(Arc::new);
        Ok(Self(Arc::new(Shared {
            hosts: string.hosts().iter().map(host).collect::<Result<_, _>>()?,
            target: string.target(),
            timeout: settings.connect_timeout,
            preferred: Mutex::default(),
        })))
    }

    /// Opens a connection in which `settings` hold.
    ///
    /// # Errors
    /// [`Failure::Unavailable`], after the time for connecting at the latest.
    pub(super) async fn connect(&self, settings: &'static [Setting]) -> Result<Session, Failure> {
        let deadline = Instant::now() + self.0.timeout;
        let mut failures = Vec::new();
        let candidates = tokio::time::timeout_at(deadline, self.candidates(&mut failures)).await;
        let race = Race { target: self.0.target, settings, deadline, failures };
        let (shown, session) = race
            .run(candidates.unwrap_or_default())
            .await
            .map_err(|failures| self.summary(failures))?;
        *self.0.preferred.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Ok(session)
    }

    /// Every address of every host, the one that worked last first.
    async fn candidates(&self, failures: &mut Vec<Failure>) -> Vec<Candidate> {
        let mut all = Vec::new();
        for host in &self.0.hosts {
            match host.candidates().await {
                Ok(candidates) => all.extend(candidates),
                Err(failure) => failures.push(failure),
            }
        }
        let preferred = self.0.preferred.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.sort_by_key(|candidate| Some(&candidate.shown) != preferred.as_ref());
        all
    }

    fn summary(&self, mut failures: Vec<Failure>) -> Failure {
        let sqlstate = failures.iter().find_map(Failure::sqlstate).map(str::to_owned);
        match failures.len() {
            0 => Failure::unavailable(format!(
                "{self:?} did not answer within {} s",
                self.0.timeout.as_secs()
            )),
            1 => failures.remove(0),
            _ => {
                let reasons: Vec<String> = failures.iter().map(Failure::to_string).collect();
                Failure::Unavailable { reason: reasons.join("; "), sqlstate }
            }
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self.0.hosts.iter().map(|host| host.shown(None)).collect();
        f.write_str(&hosts.join(", "))
    }
}

impl Host {
    fn new(host: &HostString, denies_sessions: bool) -> Result<Self, Failure> {
        let options = PgConnectOptions::from_str(&host.url).map_err(|_| {
            Failure::unavailable("the driver cannot read the connection string in DATABASE_URL")
        })?;
        // The driver hands the brackets of an IPv6 address to the resolver.
        let host = options.get_host().trim_matches(['[', ']']).to_owned();
        // Doubles travel in binary, so their digits need no setting, which PgBouncer would refuse.
        let mut options = options.host(&host).extra_float_digits(None).disable_statement_logging();
        if options.get_application_name().is_none() {
            options = options.application_name("iot-ingestor");
        }
        Ok(Self { options, is_pooled: AtomicBool::new(denies_sessions) })
    }

    async fn candidates(self: &Arc<Self>) -> Result<Vec<Candidate>, Failure> {
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

    fn shown(&self, address: Option<SocketAddr>) -> String {
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

    async fn connect(
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

/// All candidates, one after the other, the silent ones side by side.
struct Race {
    target: TargetSession,
    settings: &'static [Setting],
    deadline: Instant,
    failures: Vec<Failure>,
}

impl Race {
    /// The first that works; those under way are dropped then.
    async fn run(mut self, candidates: Vec<Candidate>) -> Result<(String, Session), Vec<Failure>> {
        let mut waiting = candidates.into_iter();
        let mut under_way = JoinSet::new();
        loop {
            if let Some(candidate) = waiting.next() {
                let (target, settings) = (self.target, self.settings);
                under_way.spawn(async move {
                    let shown = candidate.shown.clone();
                    candidate.connect(target, settings).await.map(|session| (shown, session))
                });
            } else if under_way.is_empty() {
                return Err(self.failures);
            }
            tokio::select! {
                Some(ended) = under_way.join_next() => match ended {
                    Ok(Ok(works)) => return Ok(works),
                    Ok(Err(failure)) => self.failures.push(failure),
                    Err(error) => self.failures.push(Failure::unavailable(error.to_string())),
                },
                () = tokio::time::sleep(HEAD_START), if waiting.len() > 0 => {}
                () = tokio::time::sleep_until(self.deadline) => return Err(self.failures),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(url: &str) -> Arc<Host> {
        let string: crate::postgres::ConnectionString = url.parse().unwrap();
        Arc::new(Host::new(&string.hosts()[0], false).unwrap())
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

    #[tokio::test]
    async fn what_worked_last_is_tried_first() {
        let mut from = crate::base::settings::Sources::new(
            [("DATABASE_URL".to_owned(), "postgres://u@127.0.0.1:1,127.0.0.1:2/x".to_owned())]
                .into(),
            "",
        );
        let server = Server::new(&Settings::read(&mut from)).unwrap();
        *server.0.preferred.lock().unwrap() = Some("127.0.0.1:2".to_owned());
        let order = server.candidates(&mut Vec::new()).await;
        let shown: Vec<&str> = order.iter().map(|way| way.shown.as_str()).collect();
        assert_eq!(shown, ["127.0.0.1:2", "127.0.0.1:1"]);
    }
}
