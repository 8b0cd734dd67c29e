//! Configuration: environment over `Rocket.toml` over defaults.
//!
//! Everything is read, checked and reported at once, before anything else happens. A setting has
//! one name: `MQTT_BROKER` in the environment, `mqtt_broker` in `Rocket.toml`. An empty
//! environment variable counts as not set, as compose files leave them. Secrets are kept in
//! [`Secret`], which never prints itself.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::reading::Timestamp;
use crate::validate::{Bounds, Rules};

mod source;

pub use source::{ROCKET_KEYS, Sources};

/// A value that must not appear in a log or an error.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The PostgreSQL connection string; shown without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The whole string, password included, for the driver alone.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = url::Url::parse(text)
            .map_err(|_| "not a URL of the form postgres://user:password@host:5432/db")?;
        let is_postgres = matches!(url.scheme(), "postgres" | "postgresql");
        if !is_postgres || !text[url.scheme().len()..].starts_with("://") {
            return Err("must start with postgres:// or postgresql://".to_owned());
        }
        if url.path().contains('@') {
            // A user and a password that landed there would be shown.
            return Err("the host is missing before the name of the database".to_owned());
        }
        crate::postgres::check_url(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(mut url) = url::Url::parse(&self.0) else {
            return f.write_str("***");
        };
        if url.password().is_some() && url.set_password(Some("***")).is_err() {
            return f.write_str("***");
        }
        if url.query_pairs().any(|(key, _)| key == "password") {
            url.set_query(Some("***"));
        }
        f.write_str(url.as_str())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How to reach the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mqtt {
    /// Host name or address.
    pub broker: String,
    /// TCP port.
    pub port: u16,
    /// Topic filters, at least one; `$share/GROUP/…` among them.
    pub topics: Vec<String>,
    /// Names the persistent session at the broker.
    pub client_id: String,
    /// User name and password.
    pub login: Option<(String, Secret)>,
    /// `None`: plain TCP.
    pub tls: Option<Tls>,
    /// Longest payload that is decoded, in bytes.
    pub max_payload_bytes: usize,
}

/// How the broker proves itself, and we to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM file with the authorities to trust; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// PEM files with our certificate and its key.
    pub client_auth: Option<(PathBuf, PathBuf)>,
}

/// The write-ahead log's place and limits, all in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wal {
    /// The directory; generations, dead letters and the quarantine lie in it.
    pub dir: PathBuf,
    /// Bytes on disk at which the log counts as full.
    pub max_bytes: u64,
    /// Free bytes on the filesystem under which the log counts as full.
    pub min_free_bytes: u64,
    /// Size at which a new generation starts.
    pub generation_bytes: u64,
    /// Bound of the dead-letter store.
    pub dead_letter_max_bytes: u64,
}

/// How rows travel to PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flush {
    /// Rows an insert.
    pub batch_size: usize,
    /// Longest wait for a batch to fill.
    pub batch_timeout: Duration,
    /// Batches in flight at once.
    pub connections: usize,
}

/// Everything the service can be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// PostgreSQL.
    pub database_url: DatabaseUrl,
    /// The broker.
    pub mqtt: Mqtt,
    /// Where HTTP is served.
    pub http_addr: SocketAddr,
    /// The flusher.
    pub flush: Flush,
    /// Deliveries held in memory between MQTT and the log.
    pub channel_size: usize,
    /// The log.
    pub wal: Wal,
    /// Bearer token of `/admin`; `None`: admin answers 403.
    pub admin_token: Option<Secret>,
    /// Validation.
    pub rules: Rules,
    /// Longest orderly stop.
    pub shutdown_grace: Duration,
    /// What is logged, as `tracing_subscriber::EnvFilter` reads it.
    pub log_filter: String,
    /// How it is logged; `None`: text on a terminal, else JSON.
    pub log_format: Option<LogFormat>,
    /// Rocket's own keys of `Rocket.toml`, handed on as they are.
    pub rocket: rocket::figment::value::Dict,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For a person at a terminal.
    Text,
}

impl FromStr for LogFormat {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err(()),
        }
    }
}

/// Everything that is wrong with the configuration, one line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Mistakes(pub Vec<String>);

const MIB: u64 = 1024 * 1024;

impl Config {
    /// Reads the configuration from this process's environment and `Rocket.toml`
    /// (or the file that `ROCKET_CONFIG` names).
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn load() -> Result<Self, Mistakes> {
        Self::from_sources(Sources::of_this_process())
    }

    /// Where the log is, whatever else is wrong: for those who look into it.
    ///
    /// # Errors
    /// If it is not in the environment, and `Rocket.toml` cannot be read.
    pub fn load_wal_dir() -> Result<PathBuf, Mistakes> {
        Self::wal_dir_from_sources(Sources::of_this_process())
    }

    fn wal_dir_from_sources(mut from: Sources) -> Result<PathBuf, Mistakes> {
        let dir = wal_dir(&mut from);
        if from.is_in_environment("WAL_DIR") {
            Ok(dir)
        } else {
            from.mistakes_so_far().map(|()| dir)
        }
    }

    /// As [`Self::load`], from given sources.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn from_sources(mut from: Sources) -> Result<Self, Mistakes> {
        let config = Self {
            database_url: database_url(&mut from),
            mqtt: mqtt(&mut from),
            http_addr: http_addr(&mut from),
            flush: Flush {
                batch_size: from.number("BATCH_SIZE", 2_000, 1..=100_000),
                batch_timeout: Duration::from_millis(from.number(
                    "BATCH_TIMEOUT_MS",
                    50,
                    0..=60_000,
                )),
                connections: from.number("FLUSH_CONNECTIONS", 2, 1..=64),
            },
            channel_size: from.number("CHANNEL_SIZE", 50_000, 1..=10_000_000),
            wal: Wal {
                dir: wal_dir(&mut from),
                max_bytes: from.number("WAL_MAX_BYTES", 1_024 * MIB, 4 * MIB..=1 << 50),
                min_free_bytes: from.number("WAL_MIN_FREE_BYTES", 64 * MIB, 0..=1 << 50),
                generation_bytes: from.number("WAL_GENERATION_BYTES", 64 * MIB, MIB..=1 << 32),
                dead_letter_max_bytes: from.number(
                    "DEAD_LETTER_MAX_BYTES",
                    64 * MIB,
                    MIB..=1 << 32,
                ),
            },
            admin_token: from.optional_secret("ADMIN_TOKEN").map(Secret),
            rules: Rules {
                temperature: bounds(&mut from, "TEMPERATURE", -50.0, 100.0),
                humidity: bounds(&mut from, "HUMIDITY", 0.0, 100.0),
                battery: bounds(&mut from, "BATTERY", 0.0, 100.0),
                max_future_secs: from.number("VALIDATE_MAX_FUTURE_SECS", 86_400, 0..=u32::MAX),
                oldest_timestamp: oldest_timestamp(&mut from),
            },
            shutdown_grace: Duration::from_secs(from.number("SHUTDOWN_GRACE_SECS", 10, 1..=3_600)),
            log_filter: log_filter(&mut from),
            log_format: from.optional("LOG_FORMAT", "json or text"),
            rocket: rocket(&mut from),
        };
        from.finish().map(|()| config)
    }

    /// `HTTP_ADDR` alone, from the same places: whatever else is wrong with the configuration is
    /// not looked at.
    ///
    /// # Errors
    /// The mistake in it.
    pub fn load_http_addr() -> Result<SocketAddr, Mistakes> {
        let mut from = Sources::of_this_process();
        let address = http_addr(&mut from);
        from.mistakes_so_far().map(|()| address)
    }

    /// Every setting as `NAME=value`, secrets redacted.
    #[must_use]
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let hidden = |is_set: bool| if is_set { "***" } else { "" }.to_owned();
        let path = |path: Option<&PathBuf>| path.map_or(String::new(), |p| p.display().to_string());
        let tls = self.mqtt.tls.as_ref();
        let auth = tls.and_then(|tls| tls.client_auth.as_ref());
        let login = self.mqtt.login.as_ref();
        vec![
            ("DATABASE_URL", self.database_url.to_string()),
            ("MQTT_BROKER", self.mqtt.broker.clone()),
            ("MQTT_PORT", self.mqtt.port.to_string()),
            ("MQTT_TOPIC", self.mqtt.topics.join(",")),
            ("MQTT_CLIENT_ID", self.mqtt.client_id.clone()),
            ("MQTT_USERNAME", login.map_or(String::new(), |(user, _)| user.clone())),
            ("MQTT_PASSWORD", hidden(login.is_some_and(|(_, word)| !word.expose().is_empty()))),
            ("MQTT_TLS", tls.is_some().to_string()),
            ("MQTT_CA_FILE", path(tls.and_then(|tls| tls.ca_file.as_ref()))),
            ("MQTT_CLIENT_CERT_FILE", path(auth.map(|(cert, _)| cert))),
            ("MQTT_CLIENT_KEY_FILE", path(auth.map(|(_, key)| key))),
            ("MQTT_MAX_PAYLOAD_BYTES", self.mqtt.max_payload_bytes.to_string()),
            ("HTTP_ADDR", self.http_addr.to_string()),
            ("BATCH_SIZE", self.flush.batch_size.to_string()),
            ("BATCH_TIMEOUT_MS", self.flush.batch_timeout.as_millis().to_string()),
            ("FLUSH_CONNECTIONS", self.flush.connections.to_string()),
            ("CHANNEL_SIZE", self.channel_size.to_string()),
            ("WAL_DIR", self.wal.dir.display().to_string()),
            ("WAL_MAX_BYTES", self.wal.max_bytes.to_string()),
            ("WAL_MIN_FREE_BYTES", self.wal.min_free_bytes.to_string()),
            ("WAL_GENERATION_BYTES", self.wal.generation_bytes.to_string()),
            ("DEAD_LETTER_MAX_BYTES", self.wal.dead_letter_max_bytes.to_string()),
            ("ADMIN_TOKEN", hidden(self.admin_token.is_some())),
            ("VALIDATE_TEMPERATURE_MIN", self.rules.temperature.min.to_string()),
            ("VALIDATE_TEMPERATURE_MAX", self.rules.temperature.max.to_string()),
            ("VALIDATE_HUMIDITY_MIN", self.rules.humidity.min.to_string()),
            ("VALIDATE_HUMIDITY_MAX", self.rules.humidity.max.to_string()),
            ("VALIDATE_BATTERY_MIN", self.rules.battery.min.to_string()),
            ("VALIDATE_BATTERY_MAX", self.rules.battery.max.to_string()),
            ("VALIDATE_MAX_FUTURE_SECS", self.rules.max_future_secs.to_string()),
            ("VALIDATE_OLDEST_TIMESTAMP", self.rules.oldest_timestamp.to_string()),
            ("SHUTDOWN_GRACE_SECS", self.shutdown_grace.as_secs().to_string()),
            ("RUST_LOG", self.log_filter.clone()),
            (
                "LOG_FORMAT",
                self.log_format
                    .map_or(String::new(), |format| format!("{format:?}").to_lowercase()),
            ),
        ]
    }
}

fn wal_dir(from: &mut Sources) -> PathBuf {
    from.value("WAL_DIR", PathBuf::from("data/wal"), "a directory")
}

fn http_addr(from: &mut Sources) -> SocketAddr {
    let default = SocketAddr::from(([0, 0, 0, 0], 8080));
    from.value("HTTP_ADDR", default, "an address such as 0.0.0.0:8080")
}

fn rocket(from: &mut Sources) -> rocket::figment::value::Dict {
    let settings = from.rocket();
    if let Err(problem) = crate::http::check_settings(&settings) {
        // Behind this comes the place in our own source.
        let problem = problem.split(" in ").next().unwrap_or_default();
        from.mistake(format!("Rocket.toml: {problem}"));
    }
    settings
}

fn database_url(from: &mut Sources) -> DatabaseUrl {
    let text = from
        .optional_secret("DATABASE_URL")
        .unwrap_or_else(|| "postgres://iot:pass@localhost:5432/iotdb".to_owned());
    text.trim().parse().unwrap_or_else(|problem| {
        from.mistake(format!("DATABASE_URL: {problem}"));
        DatabaseUrl(String::new())
    })
}

fn mqtt(from: &mut Sources) -> Mqtt {
    let hostname = rustix::system::uname();
    let client_id = format!("iot-ingestor-{}", hostname.nodename().to_string_lossy());
    let broker = from.text("MQTT_BROKER", "localhost");
    let tls = tls(from);
    if tls.is_some() && broker.parse::<std::net::Ipv6Addr>().is_ok() {
        from.mistake("MQTT_BROKER: with TLS the broker needs a name, an IPv6 address has none");
    }
    Mqtt {
        broker,
        port: from.number("MQTT_PORT", 1_883, 1..=u16::MAX),
        topics: topics(from),
        client_id: from.text("MQTT_CLIENT_ID", &client_id),
        login: login(from),
        tls,
        max_payload_bytes: from.number("MQTT_MAX_PAYLOAD_BYTES", 65_536, 1..=268_435_455),
    }
}

fn login(from: &mut Sources) -> Option<(String, Secret)> {
    let username = from.optional::<String>("MQTT_USERNAME", "a user name");
    let password = from.optional_secret("MQTT_PASSWORD");
    match (username, password) {
        (Some(user), password) => Some((user, Secret(password.unwrap_or_default()))),
        (None, Some(_)) => {
            from.mistake("MQTT_PASSWORD is set without MQTT_USERNAME");
            None
        }
        (None, None) => None,
    }
}

fn tls(from: &mut Sources) -> Option<Tls> {
    let before = from.mistakes();
    let ca_file = from.readable_file("MQTT_CA_FILE");
    let cert = from.readable_file("MQTT_CLIENT_CERT_FILE");
    let key = from.readable_file("MQTT_CLIENT_KEY_FILE");
    let wanted = from.optional::<bool>("MQTT_TLS", "true or false");
    if cert.is_some() != key.is_some() {
        from.mistake("MQTT_CLIENT_CERT_FILE and MQTT_CLIENT_KEY_FILE must be set together");
    }
    if wanted == Some(false) && (ca_file.is_some() || cert.is_some()) {
        from.mistake("MQTT_TLS=false contradicts MQTT_CA_FILE or MQTT_CLIENT_CERT_FILE");
    }
    let client_auth = cert.zip(key);
    let is_wanted = wanted == Some(true) || ca_file.is_some() || client_auth.is_some();
    let tls = is_wanted.then_some(Tls { ca_file, client_auth });
    if from.mistakes() == before
        && let Err(problem) = crate::mqtt::tls::transport(tls.as_ref())
    {
        from.mistake(problem);
    }
    tls
}

fn topics(from: &mut Sources) -> Vec<String> {
    let text = from.value("MQTT_TOPIC", "telemetry/#".to_owned(), "topic filters");
    let filters: Vec<String> = text
        .split(',')
        .map(str::trim)
        .filter(|filter| !filter.is_empty())
        .map(str::to_owned)
        .collect();
    if filters.is_empty() {
        from.mistake("MQTT_TOPIC names no topic filter");
    }
    for filter in &filters {
        if !is_topic_filter(filter) {
            from.mistake(format!("MQTT_TOPIC: `{filter}` is not a topic filter"));
        }
    }
    filters
}

/// MQTT 3.1.1, 4.7: `#` only as the last level, wildcards fill their level alone.
fn is_topic_filter(filter: &str) -> bool {
    let filter = match filter.strip_prefix("$share/") {
        Some(shared) => match shared.split_once('/') {
            Some((group, rest)) if !group.is_empty() && !group.contains(['+', '#']) => rest,
            _ => return false,
        },
        None => filter,
    };
    let levels: Vec<&str> = filter.split('/').collect();
    !filter.is_empty()
        && u16::try_from(filter.len()).is_ok()
        && !filter.contains('\0')
        && levels.iter().enumerate().all(|(at, level)| match *level {
            "#" => at + 1 == levels.len(),
            "+" => true,
            level => !level.contains(['+', '#']),
        })
}

fn bounds(from: &mut Sources, what: &str, min: f64, max: f64) -> Bounds {
    let (min_name, max_name) = (format!("VALIDATE_{what}_MIN"), format!("VALIDATE_{what}_MAX"));
    let bounds = Bounds { min: from.finite(&min_name, min), max: from.finite(&max_name, max) };
    if bounds.min > bounds.max {
        from.mistake(format!("{min_name} is above {max_name}"));
    }
    bounds
}

fn log_filter(from: &mut Sources) -> String {
    let filter = from.value("RUST_LOG", "info".to_owned(), "a log filter");
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&filter) {
        from.mistake(format!("RUST_LOG: {error}"));
    }
    filter
}

fn oldest_timestamp(from: &mut Sources) -> Timestamp {
    let text =
        from.value("VALIDATE_OLDEST_TIMESTAMP", "2000-01-01T00:00:00Z".to_owned(), "RFC 3339");
    Timestamp::from_rfc3339(&text).unwrap_or_else(|| {
        from.mistake("VALIDATE_OLDEST_TIMESTAMP: expected RFC 3339, such as 2000-01-01T00:00:00Z");
        Timestamp::now()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn load(env: &[(&str, &str)], toml: &str) -> Result<Config, Mistakes> {
        let env: BTreeMap<String, String> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::from_sources(Sources::new(env, toml))
    }

    #[test]
    fn the_place_of_the_log_is_known_whatever_else_is_wrong() {
        let wal_dir = |env: &[(&str, &str)], toml: &str| {
            let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Config::wal_dir_from_sources(Sources::new(env.collect(), toml))
        };
        let spoilt = "[default]\nmqtt_port = 0\nbatch = 1\nwal_dir = \"/from/file\"";
        assert_eq!(wal_dir(&[], spoilt), Ok("/from/file".into()));
        assert_eq!(wal_dir(&[("WAL_DIR", "/w"), ("HTTP_ADDR", "x")], "[half"), Ok("/w".into()));
        assert_eq!(wal_dir(&[], ""), Ok("data/wal".into()));
        assert!(wal_dir(&[], "[half").is_err(), "it could stand there");
    }

    fn mistakes(env: &[(&str, &str)], toml: &str) -> Vec<String> {
        load(env, toml).unwrap_err().0
    }

    #[test]
    fn without_any_source_the_contracts_defaults_hold() {
        let config = load(&[], "").unwrap();
        assert_eq!(config.http_addr.to_string(), "0.0.0.0:8080");
        assert_eq!(config.mqtt.topics, ["telemetry/#"]);
        assert!(config.mqtt.client_id.starts_with("iot-ingestor-"));
        assert_eq!(config.wal.max_bytes, 1_073_741_824);
        assert_eq!(config.flush.batch_timeout, Duration::from_millis(50));
    }

    #[test]
    fn the_environment_overrides_the_file_and_the_file_the_default() {
        let toml = "[default]\nmqtt_port = 1\nbatch_size = 7\n";
        let config = load(&[("MQTT_PORT", "2")], toml).unwrap();
        assert_eq!((config.mqtt.port, config.flush.batch_size), (2, 7));
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let env = [("MQTT_PORT", "0"), ("BATCH_SIZE", "many"), ("MQTT_TOPIC", "a/#/b")];
        let found = mistakes(&env, "[default]\nbatchsize = 1\n").join("\n");
        for part in ["MQTT_PORT", "BATCH_SIZE", "a/#/b", "batchsize"] {
            assert!(found.contains(part), "{part} in {found}");
        }
    }

    #[test]
    fn rockets_own_keys_are_known_and_handed_on() {
        let config = load(&[], "[default]\nworkers = 3\nlimits = { json = \"1MiB\" }\n").unwrap();
        assert!(config.rocket.contains_key("workers"));
    }

    #[test]
    fn a_broken_file_is_a_mistake_and_not_ignored() {
        assert!(mistakes(&[], "[default\n")[0].contains("Rocket.toml"));
    }

    #[test]
    fn secrets_come_from_files_without_their_last_newline() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "s3cret\n").unwrap();
        let config = load(&[("ADMIN_TOKEN_FILE", file.to_str().unwrap())], "").unwrap();
        assert_eq!(config.admin_token.unwrap().expose(), "s3cret");
        assert!(mistakes(&[("ADMIN_TOKEN_FILE", "/nowhere")], "")[0].contains("ADMIN_TOKEN_FILE"));
    }

    #[test]
    fn a_secret_given_twice_is_a_mistake() {
        let env = [("MQTT_USERNAME", "u"), ("MQTT_PASSWORD", "a"), ("MQTT_PASSWORD_FILE", "/f")];
        assert!(mistakes(&env, "")[0].contains("MQTT_PASSWORD_FILE"));
    }

    #[test]
    fn no_secret_is_ever_shown() {
        let env = [
            ("DATABASE_URL", "postgres://u:hunter2@db/x?password=hunter2"),
            ("MQTT_USERNAME", "u"),
            ("MQTT_PASSWORD", "hunter2"),
            ("ADMIN_TOKEN", "hunter2"),
        ];
        let config = load(&env, "").unwrap();
        let shown = format!("{config:?}{:?}", config.describe());
        assert!(!shown.contains("hunter2"), "{shown}");
        let broken = mistakes(&[("DATABASE_URL", "mysql://u:hunter2@db/x")], "").join("");
        assert!(!broken.contains("hunter2"), "{broken}");
    }

    #[test]
    fn shared_subscriptions_and_several_filters_are_accepted() {
        let config = load(&[("MQTT_TOPIC", "$share/g/telemetry/#, other/+/x")], "").unwrap();
        assert_eq!(config.mqtt.topics, ["$share/g/telemetry/#", "other/+/x"]);
    }

    #[test]
    fn half_a_client_certificate_is_a_mistake() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cert.pem");
        std::fs::write(&file, "x").unwrap();
        let found = mistakes(&[("MQTT_CLIENT_CERT_FILE", file.to_str().unwrap())], "");
        assert!(found[0].contains("MQTT_CLIENT_KEY_FILE"));
    }
}
