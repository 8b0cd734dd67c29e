//! Where the broker is, who we are to it, and what we want of it.

use std::path::PathBuf;
use std::time::Duration;

use super::session::SHARED;
use super::tls::{Tls, client_config};
use crate::base::settings::{Secret, Setting, Sources};

/// What can be set here, and what holds if it is not.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting::new("MQTT_BROKER", "localhost", "broker host"),
    Setting::new("MQTT_PORT", "1883", "broker port"),
    Setting::new(
        "MQTT_TOPIC",
        "telemetry/#",
        "topic filters, separated by commas; `$share/GROUP/…` is accepted",
    ),
    Setting::new(
        "MQTT_CLIENT_ID",
        "iot-ingestor-<hostname>",
        "names the persistent session: keep it stable, and use it for one process only",
    ),
    Setting::new("MQTT_USERNAME", "", "user name at the broker"),
    Setting::secret("MQTT_PASSWORD", "", "password at the broker"),
    Setting::new(
        "MQTT_TLS",
        "false",
        "`true` without `MQTT_CA_FILE`: TLS with the system's certificate authorities",
    ),
    Setting::new(
        "MQTT_CA_FILE",
        "",
        "PEM file with the certificate authorities to trust; enables TLS",
    ),
    Setting::new(
        "MQTT_CLIENT_CERT_FILE",
        "",
        "PEM file with the client certificate; enables mutual TLS, together with its key",
    ),
    Setting::new("MQTT_CLIENT_KEY_FILE", "", "PEM file with the private key"),
    Setting::new(
        "MQTT_CONNECT_TIMEOUT_SECS",
        "30",
        "longest wait for a connection, including all addresses of the name and the CONNACK of the broker",
    ),
    Setting::new(
        "MQTT_MAX_PAYLOAD_BYTES",
        "65536",
        "longest payload in bytes; longer ones become dead letters",
    ),
];

/// How to reach the broker, and what to take from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Host name or address.
    pub(crate) broker: String,
    /// TCP port.
    pub(crate) port: u16,
    /// Topic filters, at least one; `$share/GROUP/…` among them.
    pub(crate) topics: Vec<String>,
    /// Names the persistent session at the broker.
    pub(crate) client_id: String,
    /// User name and password.
    pub(crate) login: Option<(String, Secret)>,
    /// Where the password is read again.
    pub(crate) password_file: Option<PathBuf>,
    /// `None`: plain TCP.
    pub(crate) tls: Option<Tls>,
    /// Longest wait for a connection, all addresses together, the broker's CONNACK included.
    pub(crate) connect_timeout: Duration,
    /// Longest payload that is decoded, in bytes.
    pub(crate) max_payload_bytes: usize,
}

impl Settings {
    /// Reads them.
    #[must_use]
    pub(crate) fn read(from: &mut Sources) -> Self {
        let hostname = rustix::system::uname();
        let client_id = format!("iot-ingestor-{}", hostname.nodename().to_string_lossy());
        let broker = from.text("MQTT_BROKER", "localhost");
        let tls = tls(from);
        if tls.is_some() && broker.parse::<std::net::Ipv6Addr>().is_ok() {
            from.mistake("MQTT_BROKER: with TLS the broker needs a name, an IPv6 address has none");
        }
        Self {
            broker,
            port: from.number("MQTT_PORT", 1_883, 1..=u16::MAX),
            topics: Self::read_topics(from),
            client_id: from.text("MQTT_CLIENT_ID", &client_id),
            login: login(from),
            password_file: from.optional("MQTT_PASSWORD_FILE", "a file"),
            tls,
            connect_timeout: Duration::from_secs(from.number(
                "MQTT_CONNECT_TIMEOUT_SECS",
                30,
                1..=600,
            )),
            max_payload_bytes: Self::read_max_payload_bytes(from),
        }
    }

    /// Reads the topic filters alone.
    pub(crate) fn read_topics(from: &mut Sources) -> Vec<String> {
        topics(from)
    }

    /// Reads the longest payload alone.
    pub(crate) fn read_max_payload_bytes(from: &mut Sources) -> usize {
        from.number("MQTT_MAX_PAYLOAD_BYTES", 65_536, 1..=268_435_455)
    }

    /// Every setting as name and value, secrets redacted.
    #[must_use]
    pub(crate) fn describe(&self) -> Vec<(&'static str, String)> {
        let path = |path: Option<&PathBuf>| path.map_or(String::new(), |p| p.display().to_string());
        let tls = self.tls.as_ref();
        let auth = tls.and_then(|tls| tls.client_auth.as_ref());
        let login = self.login.as_ref();
        vec![
            ("MQTT_BROKER", self.broker.clone()),
            ("MQTT_PORT", self.port.to_string()),
            ("MQTT_TOPIC", self.topics.join(",")),
            ("MQTT_CLIENT_ID", self.client_id.clone()),
            ("MQTT_USERNAME", login.map_or(String::new(), |(user, _)| user.clone())),
            ("MQTT_PASSWORD", login.map_or(String::new(), |(_, word)| word.redacted())),
            ("MQTT_TLS", tls.is_some().to_string()),
            ("MQTT_CA_FILE", path(tls.and_then(|tls| tls.ca_file.as_ref()))),
            ("MQTT_CLIENT_CERT_FILE", path(auth.map(|(cert, _)| cert))),
            ("MQTT_CLIENT_KEY_FILE", path(auth.map(|(_, key)| key))),
            ("MQTT_CONNECT_TIMEOUT_SECS", self.connect_timeout.as_secs().to_string()),
            ("MQTT_MAX_PAYLOAD_BYTES", self.max_payload_bytes.to_string()),
        ]
    }
}

impl Settings {
    /// What is allowed and unwise, a line each.
    #[must_use]
    pub(crate) fn warnings(&self) -> Vec<String> {
        let warning = |filter: &String| shared_warning(&format!("MQTT_TOPIC={filter}"), filter);
        self.topics.iter().filter_map(warning).collect()
    }
}

/// What to know of `filter`, which stands at `place`, if it is a shared subscription.
pub(crate) fn shared_warning(place: &str, filter: &str) -> Option<String> {
    filter.starts_with(SHARED).then(|| {
        format!(
            "{place} is a shared subscription: Mosquitto forgets it when it restarts, and what is published until the ingestor is connected again is lost; to share the load without that, give each ingestor filters of its own, or all of them the same plain filter (the table's key makes one row of a reading)"
        )
    })
}

fn login(from: &mut Sources) -> Option<(String, Secret)> {
    let username = from.optional::<String>("MQTT_USERNAME", "a user name");
    let password = from.optional_secret("MQTT_PASSWORD");
    match (username, password) {
        (Some(user), password) => Some((user, Secret::new(password.unwrap_or_default()))),
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
        && let Some(tls) = &tls
        && let Err(problem) = client_config(tls)
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
