//! The simulator's environment variables; every mistake in them is reported at once.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::shapes::{Shape, names};
use crate::base::settings::{self, Secret, Setting, Sources};
use crate::mqtt::Tls;

/// Every variable, as the help shows it.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting::new("MQTT_BROKER", "localhost", "broker host"),
    Setting::new("MQTT_PORT", "1883", "broker port"),
    Setting::new("MQTT_USERNAME", "", "user name at the broker"),
    Setting::secret("MQTT_PASSWORD", "", "password at the broker"),
    Setting::new(
        "MQTT_CA_FILE",
        "",
        "PEM file with the certificate authorities to trust; enables TLS",
    ),
    Setting::new("NUM_DEVICES", "10", "number of devices: sensor-001, sensor-002, …"),
    Setting::new(
        "PUBLISH_INTERVAL_MS",
        "1000",
        "milliseconds between two messages of a device; 0: as fast as the broker accepts",
    ),
    Setting::new(
        "SIMULATE",
        "",
        "messages in the shape of a recipe of deploy/mappings, each of which is a row of it; unset: the built-in shape",
    ),
    Setting::new("INVALID_RATIO", "0", "share of invalid messages, from 0 to 1"),
    Setting::new("MESSAGE_COUNT", "0", "messages to publish; 0: until stopped"),
    Setting::new("MAX_INFLIGHT", "100", "messages sent and not yet acknowledged"),
    Setting::new(
        "PROGRESS_INTERVAL_MS",
        "",
        "milliseconds between two progress lines; 0: none; unset: 1000 on a terminal, else 5000",
    ),
    Setting::new("RUST_LOG", "info", "log filter"),
];

/// The text that `--help` ends with.
#[must_use]
pub fn help() -> String {
    format!(
        "Environment variables (an empty one counts as not set):\n{}\n\
         SIMULATE takes {}.\n\n\
         Exit codes: 0 finished or stopped by a signal, 64 bad configuration, 1 other failure.",
        settings::help(SETTINGS),
        names()
    )
}

/// Everything the simulator can be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Broker host.
    pub(crate) broker: String,
    /// Broker port.
    pub(crate) port: u16,
    /// User name and password.
    pub(crate) login: Option<(String, Secret)>,
    /// `None`: plain TCP.
    pub(crate) tls: Option<Tls>,
    /// How many devices.
    pub(crate) devices: u32,
    /// Between two messages of one device; zero: as fast as the broker accepts.
    pub(crate) interval: Duration,
    /// What devices publish; `None`: the built-in shape.
    pub(super) shape: Option<&'static Shape>,
    /// Share of messages that are invalid, 0 to 1.
    pub(crate) invalid_ratio: f64,
    /// How many messages to publish; `None`: until stopped.
    pub(crate) message_count: Option<u64>,
    /// Messages in flight at most.
    pub(crate) max_inflight: u16,
    /// Between two progress lines; zero: none, `None`: what suits the output.
    pub(crate) progress_interval: Option<Duration>,
}

impl Settings {
    /// Reads them. [`SETTINGS`] has one more, the log filter, which is the log output's.
    #[must_use]
    pub fn read(from: &mut Sources) -> Self {
        Self {
            broker: from.text("MQTT_BROKER", "localhost"),
            port: from.number("MQTT_PORT", 1_883, 1..=u16::MAX),
            login: login(from),
            tls: tls(from),
            devices: from.number("NUM_DEVICES", 10, 1..=1_000_000),
            interval: Duration::from_millis(from.number("PUBLISH_INTERVAL_MS", 1_000, MILLIS)),
            shape: shape(from),
            invalid_ratio: invalid_ratio(from),
            message_count: Some(from.number("MESSAGE_COUNT", 0, 0..=u64::MAX))
                .filter(|count| *count > 0),
            max_inflight: from.number("MAX_INFLIGHT", 100, 1..=u16::MAX),
            progress_interval: from
                .optional_number("PROGRESS_INTERVAL_MS", MILLIS)
                .map(Duration::from_millis),
        }
    }
}

/// Up to a day.
const MILLIS: RangeInclusive<u64> = 0..=86_400_000;

fn invalid_ratio(from: &mut Sources) -> f64 {
    let ratio = from.value("INVALID_RATIO", 0.0, "a number from 0 to 1");
    if (0.0..=1.0).contains(&ratio) {
        return ratio;
    }
    from.mistake(format!("INVALID_RATIO: expected a number from 0 to 1, found `{ratio}`"));
    0.0
}

fn shape(from: &mut Sources) -> Option<&'static Shape> {
    let name = from.optional::<String>("SIMULATE", "a name")?;
    let shape = Shape::find(&name);
    if shape.is_none() {
        from.mistake(format!("SIMULATE: expected one of {}, found `{name}`", names()));
    }
    shape
}

fn login(from: &mut Sources) -> Option<(String, Secret)> {
    let username = from.optional::<String>("MQTT_USERNAME", "a user name");
    let password = from.optional_secret("MQTT_PASSWORD");
    if username.is_none() && password.is_some() {
        from.mistake("MQTT_PASSWORD is set without MQTT_USERNAME");
    }
    Some((username?, Secret::new(password.unwrap_or_default())))
}

fn tls(from: &mut Sources) -> Option<Tls> {
    let tls = Tls { ca_file: Some(from.optional("MQTT_CA_FILE", "a file")?), client_auth: None };
    if let Err(problem) = crate::mqtt::tls::client_config(&tls) {
        from.mistake(problem);
    }
    Some(tls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::settings::Mistakes;

    fn load(variables: &[(&str, &str)]) -> Result<Settings, Mistakes> {
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let mut from = Sources::new(variables.collect(), "");
        let settings = Settings::read(&mut from);
        from.mistakes_so_far().map(|()| settings)
    }

    #[test]
    fn without_variables_the_contracts_defaults_hold() {
        let settings = load(&[("MQTT_PORT", "")]).unwrap();
        assert_eq!((settings.broker.as_str(), settings.port), ("localhost", 1_883));
        assert_eq!((settings.devices, settings.interval), (10, Duration::from_secs(1)));
        assert_eq!((settings.message_count, settings.max_inflight), (None, 100));
        assert_eq!((settings.login, settings.progress_interval), (None, None));
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let wrong = [
            ("MQTT_PORT", "0"),
            ("NUM_DEVICES", "none"),
            ("INVALID_RATIO", "NaN"),
            ("SIMULATE", "toaster"),
            ("MAX_INFLIGHT", "65536"),
            ("MQTT_PASSWORD", "hunter2"),
            ("MQTT_CA_FILE", "/nowhere/ca.pem"),
        ];
        let Mistakes(found) = load(&wrong).unwrap_err();
        assert_eq!(found.len(), wrong.len(), "{found:?}");
        for (name, _) in wrong {
            assert!(found.iter().any(|line| line.starts_with(name)), "{name} in {found:?}");
        }
        assert!(!found.concat().contains("hunter2"));
    }

    #[test]
    fn the_password_may_stand_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "s3cret\n").unwrap();
        let path = file.to_str().unwrap();
        let both = [("MQTT_USERNAME", "u"), ("MQTT_PASSWORD_FILE", path)];
        let (user, password) = load(&both).unwrap().login.unwrap();
        assert_eq!((user.as_str(), password.expose()), ("u", "s3cret"));
        assert!(load(&[("MQTT_USERNAME", "u"), ("MQTT_PASSWORD_FILE", "/nowhere")]).is_err());
    }

    #[test]
    fn the_help_shows_the_defaults_that_hold() {
        let defaults: Vec<_> =
            SETTINGS.iter().map(|setting| (setting.name, &*setting.default)).collect();
        assert_eq!(load(&defaults), load(&[]));
        assert!(help().contains("NUM_DEVICES"));
    }
}
