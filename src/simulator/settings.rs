//! The simulator's environment variables; every mistake in them is reported at once.

use std::fmt::{Display, Write};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::base::settings::{Mistakes, Secret};
use crate::mqtt::Tls;

/// Name, default and meaning: the help shows these lines, and the defaults are read from them.
const VARIABLES: [(&str, &str, &str); 13] = [
    ("MQTT_BROKER", "localhost", "broker host"),
    ("MQTT_PORT", "1883", "broker port"),
    ("MQTT_USERNAME", "", "broker login"),
    ("MQTT_PASSWORD", "", "its password"),
    ("MQTT_PASSWORD_FILE", "", "file that holds the password instead"),
    ("MQTT_CA_FILE", "", "PEM file with the authorities to trust; set: TLS"),
    ("NUM_DEVICES", "10", "devices: sensor-001, sensor-002, …"),
    ("PUBLISH_INTERVAL_MS", "1000", "between two messages of a device; 0: as fast as accepted"),
    ("INVALID_RATIO", "0", "share of invalid messages, 0 to 1"),
    ("MESSAGE_COUNT", "0", "messages to publish; 0: until stopped"),
    ("MAX_INFLIGHT", "100", "messages sent and not yet acknowledged"),
    (
        "PROGRESS_INTERVAL_MS",
        "",
        "between two progress lines; 0: none (1000 on a terminal, else 5000)",
    ),
    ("RUST_LOG", "info", "log filter"),
];

/// The text that `--help` ends with.
#[must_use]
pub fn help() -> String {
    let mut text = "Environment variables (an empty one counts as not set):\n".to_owned();
    for (name, default, meaning) in VARIABLES {
        let default = if default.is_empty() { String::new() } else { format!(" [{default}]") };
        // Writing to a String does not fail.
        writeln!(text, "  {name:<22}{meaning}{default}").ok();
    }
    text.push_str(
        "\nExit codes: 0 finished or stopped by a signal, 64 bad configuration, 1 other failure.",
    );
    text
}

/// Everything the simulator can be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Broker host.
    pub broker: String,
    /// Broker port.
    pub port: u16,
    /// User name and password.
    pub login: Option<(String, Secret)>,
    /// `None`: plain TCP.
    pub tls: Option<Tls>,
    /// How many devices.
    pub devices: u32,
    /// Between two messages of one device; zero: as fast as the broker accepts.
    pub interval: Duration,
    /// Share of messages that are invalid, 0 to 1.
    pub invalid_ratio: f64,
    /// How many messages to publish; `None`: until stopped.
    pub message_count: Option<u64>,
    /// Messages in flight at most.
    pub max_inflight: u16,
    /// Between two progress lines; zero: none, `None`: what suits the output.
    pub progress_interval: Option<Duration>,
    /// What is logged, as `tracing_subscriber::EnvFilter` reads it.
    pub log_filter: String,
}

impl Settings {
    /// Reads this process's environment.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn load() -> Result<Self, Mistakes> {
        Self::from_variables(|name| {
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        })
    }

    /// As [`Self::load`], from any source of variables.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn from_variables(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Mistakes> {
        let mut from = Variables { lookup, mistakes: Vec::new() };
        let settings = Self {
            broker: from.text("MQTT_BROKER").unwrap_or_default(),
            port: from.number("MQTT_PORT", 1..=u16::MAX).unwrap_or_default(),
            login: from.login(),
            tls: from.tls(),
            devices: from.number("NUM_DEVICES", 1..=1_000_000).unwrap_or_default(),
            interval: from.millis("PUBLISH_INTERVAL_MS").unwrap_or_default(),
            invalid_ratio: from.number("INVALID_RATIO", 0.0..=1.0).unwrap_or_default(),
            message_count: from.number("MESSAGE_COUNT", 0..=u64::MAX).filter(|count| *count > 0),
            max_inflight: from.number("MAX_INFLIGHT", 1..=u16::MAX).unwrap_or_default(),
            progress_interval: from.millis("PROGRESS_INTERVAL_MS"),
            log_filter: from.log_filter(),
        };
        if from.mistakes.is_empty() { Ok(settings) } else { Err(Mistakes(from.mistakes)) }
    }
}

struct Variables<L> {
    lookup: L,
    mistakes: Vec<String>,
}

impl<L: Fn(&str) -> Option<String>> Variables<L> {
    /// The variable's value or default; `None` if it has neither.
    fn text(&self, name: &str) -> Option<String> {
        let default = || {
            let line = VARIABLES.iter().find(|(known, ..)| *known == name);
            line.map_or(String::new(), |(_, default, _)| (*default).to_owned())
        };
        let set = (self.lookup)(name).filter(|text| !text.is_empty());
        Some(set.unwrap_or_else(default)).filter(|text| !text.is_empty())
    }

    fn number<T>(&mut self, name: &str, range: RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + Display,
    {
        let text = self.text(name)?;
        let value = text.trim().parse().ok().filter(|value| range.contains(value));
        if value.is_none() {
            let (min, max) = range.into_inner();
            self.mistakes
                .push(format!("{name}: expected a number from {min} to {max}, found `{text}`"));
        }
        value
    }

    fn millis(&mut self, name: &str) -> Option<Duration> {
        self.number(name, 0..=86_400_000).map(Duration::from_millis)
    }

    fn login(&mut self) -> Option<(String, Secret)> {
        let password = self.password();
        match (self.text("MQTT_USERNAME"), password) {
            (Some(user), password) => Some((user, Secret::new(password.unwrap_or_default()))),
            (None, Some(_)) => {
                self.mistakes.push("MQTT_PASSWORD is set without MQTT_USERNAME".to_owned());
                None
            }
            (None, None) => None,
        }
    }

    fn password(&mut self) -> Option<String> {
        let (value, file) = (self.text("MQTT_PASSWORD"), self.text("MQTT_PASSWORD_FILE"));
        let Some(file) = file else { return value };
        if value.is_some() {
            let both = "MQTT_PASSWORD and MQTT_PASSWORD_FILE are both set, set one";
            self.mistakes.push(both.to_owned());
        }
        match std::fs::read_to_string(&file) {
            Ok(text) => Some(text.trim_end_matches(['\n', '\r']).to_owned()),
            Err(error) => {
                self.mistakes.push(format!("MQTT_PASSWORD_FILE: cannot read {file}: {error}"));
                None
            }
        }
    }

    fn tls(&mut self) -> Option<Tls> {
        let tls = Tls { ca_file: Some(self.text("MQTT_CA_FILE")?.into()), client_auth: None };
        if let Err(problem) = crate::mqtt::tls::client_config(&tls) {
            self.mistakes.push(problem);
        }
        Some(tls)
    }

    fn log_filter(&mut self) -> String {
        let filter = self.text("RUST_LOG").unwrap_or_default();
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&filter) {
            self.mistakes.push(format!("RUST_LOG: {error}"));
        }
        filter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(variables: &[(&str, &str)]) -> Result<Settings, Mistakes> {
        Settings::from_variables(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
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
            ("MAX_INFLIGHT", "65536"),
            ("MQTT_PASSWORD", "hunter2"),
            ("MQTT_CA_FILE", "/nowhere/ca.pem"),
            ("RUST_LOG", "iot=loud"),
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
    fn the_help_names_every_variable_with_its_default() {
        for (name, default, _) in VARIABLES {
            let line =
                help().lines().find(|line| line.contains(&format!(" {name} "))).map(str::to_owned);
            assert!(line.unwrap().contains(default));
        }
    }
}
