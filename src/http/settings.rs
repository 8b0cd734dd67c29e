//! Where HTTP is served, and to whom.

use std::net::SocketAddr;
use std::path::PathBuf;

use rocket::figment::Figment;
use rocket::figment::providers::Serialized;
use rocket::figment::value::{Dict, Value};

use super::access::Tokens;
use super::tls;
use crate::base::settings::{Secret, Setting, Sources};

/// The settings of Rocket's own that mean something here, in `Rocket.toml` or as a variable `ROCKET_…`.
const ROCKET_KEYS: [&str; 2] = ["keep_alive", SHUTDOWN];

const SHUTDOWN: &str = "shutdown";

/// Those of Rocket 0.5 that mean nothing, as its own server, runtime and logger are not used, and what
/// does.
const WITHOUT_EFFECT: [(&str, &str); 13] = [
    ("address", "set http_addr"),
    ("port", "set http_addr"),
    ("tls", "set http_tls_cert_file and http_tls_key_file"),
    ("workers", "the service decides how many threads it needs"),
    ("max_blocking", "the service decides how many threads it needs"),
    ("limits", "the size of a request is limited by the service itself"),
    ("temp_dir", "no file is uploaded"),
    ("ip_header", "a client's address is that of its connection"),
    ("proxy_proto_header", "the service itself decides whether it speaks HTTPS"),
    ("ident", "no answer says which server it is from"),
    ("secret_key", "there are no cookies"),
    ("log_level", "set rust_log"),
    ("cli_colors", "set log_format"),
];

/// The parts of `shutdown` that mean something: seconds for what is under way, and for clients that are
/// slow to take their answer.
const SHUTDOWN_KEYS: [&str; 2] = ["grace", "mercy"];

/// What can be set here, and what holds if it is not.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting::new("HTTP_ADDR", "0.0.0.0:8080", "address on which HTTP is served"),
    Setting::new(
        "HTTP_TLS_CERT_FILE",
        "",
        "PEM file with the certificate of the server and its chain; enables HTTPS, together with its key. Read again when it changes",
    ),
    Setting::new("HTTP_TLS_KEY_FILE", "", "PEM file with the private key"),
    Setting::secret(
        "ADMIN_TOKEN",
        "",
        "bearer token of `/admin`, 16 characters or more; unset: `/admin` answers 403",
    ),
    Setting::secret(
        "READ_TOKEN",
        "",
        "if set, `/api`, `/metrics` and the data of the page require it, or the admin token, as bearer token; `/health` never does",
    ),
];

/// Where HTTP is served, and to whom.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// `None`: plain HTTP.
    pub(crate) tls: Option<tls::Files>,
    /// The bearer tokens.
    pub(crate) tokens: Tokens,
    /// Rocket's own settings, handed on as they are.
    pub(crate) rocket: Dict,
}

impl Settings {
    /// Reads them.
    #[must_use]
    pub(crate) fn read(from: &mut Sources) -> Self {
        Self {
            address: Self::read_address(from),
            tls: Self::read_tls(from),
            tokens: read_tokens(from),
            rocket: read_rocket(from),
        }
    }

    /// Reads the address alone.
    #[must_use]
    pub(crate) fn read_address(from: &mut Sources) -> SocketAddr {
        let default = SocketAddr::from(([0, 0, 0, 0], 8080));
        from.value("HTTP_ADDR", default, "an address such as 0.0.0.0:8080")
    }

    /// Reads the certificate and its key alone.
    pub(crate) fn read_tls(from: &mut Sources) -> Option<tls::Files> {
        let before = from.mistakes();
        let certificate = from.readable_file("HTTP_TLS_CERT_FILE");
        let key = from.readable_file("HTTP_TLS_KEY_FILE");
        if certificate.is_some() != key.is_some() {
            from.mistake("HTTP_TLS_CERT_FILE and HTTP_TLS_KEY_FILE must be set together");
        }
        let files = tls::Files { certificate: certificate?, key: key? };
        if from.mistakes() == before
            && let Err(problem) = files.check()
        {
            from.mistake(problem);
        }
        Some(files)
    }

    /// What is allowed and unwise, a line each.
    #[must_use]
    pub(crate) fn warnings(&self) -> Vec<String> {
        let Tokens { admin, read } = &self.tokens;
        let name = match (admin, read) {
            (Some(_), _) => "ADMIN_TOKEN",
            (None, Some(_)) => "READ_TOKEN",
            (None, None) => return Vec::new(),
        };
        if self.tls.is_some() || self.address.ip().to_canonical().is_loopback() {
            return Vec::new();
        }
        vec![format!(
            "{name} is taken over plain HTTP at {}, so whoever is on the way can read it and use it: \
             set HTTP_TLS_CERT_FILE and HTTP_TLS_KEY_FILE, or bind HTTP_ADDR to loopback",
            self.address
        )]
    }

    /// Every setting as name and value, secrets redacted.
    #[must_use]
    pub(crate) fn describe(&self) -> Vec<(&'static str, String)> {
        let path = |which: fn(&tls::Files) -> &PathBuf| {
            self.tls.as_ref().map_or(String::new(), |files| which(files).display().to_string())
        };
        let token = |token: &Option<Secret>| token.as_ref().map_or(String::new(), Secret::redacted);
        vec![
            ("HTTP_ADDR", self.address.to_string()),
            ("HTTP_TLS_CERT_FILE", path(|files| &files.certificate)),
            ("HTTP_TLS_KEY_FILE", path(|files| &files.key)),
            ("ADMIN_TOKEN", token(&self.tokens.admin)),
            ("READ_TOKEN", token(&self.tokens.read)),
        ]
    }
}

fn read_tokens(from: &mut Sources) -> Tokens {
    let admin = from.optional_secret("ADMIN_TOKEN");
    if admin.as_ref().is_some_and(|token| token.chars().count() < ADMIN_TOKEN_MIN_CHARS) {
        from.mistake(format!("ADMIN_TOKEN: expected {ADMIN_TOKEN_MIN_CHARS} characters or more"));
    }
    let read = from.optional_secret("READ_TOKEN");
    Tokens { admin: admin.map(Secret::new), read: read.map(Secret::new) }
}

/// What nobody guesses.
const ADMIN_TOKEN_MIN_CHARS: usize = 16;

fn read_rocket(from: &mut Sources) -> Dict {
    for (key, reason) in WITHOUT_EFFECT {
        from.refuse_rocket(key, reason);
    }
    let mut settings = Dict::new();
    for key in ROCKET_KEYS {
        let Some((place, value)) = from.rocket(key) else { continue };
        if let (SHUTDOWN, Value::Dict(_, shutdown)) = (key, &value) {
            let others = shutdown.keys().filter(|part| !SHUTDOWN_KEYS.contains(&part.as_str()));
            for part in others {
                let reason = "only grace and mercy do, the rest is the service's";
                from.mistake(format!("{key}.{part} in {place}: has no effect here: {reason}"));
            }
        }
        let one = Dict::from([(key.to_owned(), value)]);
        if let Err(problem) = check_settings(&one) {
            // Behind this comes the place in our own source.
            let problem = problem.split(" in ").next().unwrap_or_default();
            from.mistake(format!("{place}: {problem}"));
        }
        settings.extend(one);
    }
    settings
}

/// For requests that are being answered when the server is asked to stop, in seconds; as much
/// again is left to clients that are slow to take their answer.
pub(crate) const GRACE_SECS: u32 = 1;

/// Whether Rocket can read its own keys of `Rocket.toml`.
///
/// # Errors
/// A line that names the key.
pub(super) fn check_settings(rocket: &Dict) -> Result<(), String> {
    figment(rocket, SocketAddr::from(([0, 0, 0, 0], 0)))
        .extract::<rocket::Config>()
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// Our defaults, over them what `Rocket.toml` says, over both what is not for anybody to choose:
/// signals and the address are the supervisor's and `HTTP_ADDR`'s.
pub(super) fn figment(rocket: &Dict, address: SocketAddr) -> Figment {
    let quiet = rocket::Config {
        log_level: rocket::config::LogLevel::Off,
        cli_colors: false,
        ip_header: None,
        ..rocket::Config::release_default()
    };
    Figment::from(quiet)
        .merge(("shutdown.grace", GRACE_SECS))
        .merge(("shutdown.mercy", GRACE_SECS))
        .merge(Serialized::globals(rocket))
        .merge(("shutdown.ctrlc", false))
        .merge(("shutdown.signals", Vec::<String>::new()))
        .merge(("shutdown.force", false))
        .merge(("ident", false))
        .merge(("address", address.ip()))
        .merge(("port", address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dict<const N: usize>(entries: [(&str, Value); N]) -> Dict {
        entries.map(|(key, value)| (key.to_owned(), value)).into()
    }

    fn read(rocket: &Dict) -> rocket::Config {
        figment(rocket, "[::1]:8081".parse().unwrap()).extract().unwrap()
    }

    #[test]
    fn what_rocket_cannot_read_is_named() {
        let problem = check_settings(&dict([("keep_alive", Value::from("soon"))])).unwrap_err();
        assert!(problem.contains("keep_alive"), "{problem}");
        assert_eq!(check_settings(&Dict::new()), Ok(()));
    }

    #[test]
    fn rocket_toml_overrides_our_defaults() {
        let shutdown = dict([("grace", Value::from(7u32))]);
        let config =
            read(&dict([("keep_alive", Value::from(9u32)), ("shutdown", Value::from(shutdown))]));
        assert_eq!((config.keep_alive, config.shutdown.grace), (9, 7));
        assert_eq!(config.shutdown.mercy, GRACE_SECS);
        assert_eq!(config.ip_header, None);
    }

    #[test]
    fn signals_the_banner_and_the_address_are_not_rockets_to_choose() {
        let shutdown = dict([("ctrlc", Value::from(true))]);
        let config = read(&dict([
            ("shutdown", Value::from(shutdown)),
            ("ident", Value::from("somebody")),
            ("port", Value::from(1u16)),
        ]));
        assert!(!config.shutdown.ctrlc && config.shutdown.signals.is_empty());
        assert_eq!(config.ident, rocket::config::Ident::none());
        assert_eq!((config.address.to_string().as_str(), config.port), ("::1", 8_081));
    }
}
