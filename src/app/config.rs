//! Everything that the service can be told, room by room.

use std::time::Duration;

use super::logging;
use crate::base::settings::{Mistakes, Setting, Sources};
use crate::telemetry::mapping::{Mapping, Mappings};
use crate::telemetry::validate::Rules;
use crate::{dead_letters, flusher, http, intake, mqtt, postgres, recent, wal};

/// What can be set here, and what holds if it is not.
const SETTINGS: &[Setting] = &[Setting::new("SHUTDOWN_GRACE_SECS", "10", "longest orderly stop")];

/// Everything the service can be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// PostgreSQL.
    pub database: postgres::Settings,
    /// The broker.
    pub(crate) mqtt: mqtt::Settings,
    /// The API and the page.
    pub(crate) http: http::Settings,
    /// The way into the table.
    pub(crate) flusher: flusher::Settings,
    /// The way into the log.
    pub(crate) intake: intake::Settings,
    /// The log.
    pub wal: wal::Settings,
    /// What is turned away.
    pub(crate) dead_letters: dead_letters::Settings,
    /// When devices count as silent.
    pub(crate) recent: recent::Settings,
    /// Validation.
    pub(crate) rules: Rules,
    /// How devices' own messages become rows.
    pub mappings: Mappings,
    /// Longest orderly stop.
    pub(crate) shutdown_grace: Duration,
    /// What the process prints.
    pub logging: logging::Settings,
}

impl Config {
    /// Reads the configuration from this process's environment and `Rocket.toml`
    /// (or the file that `ROCKET_CONFIG` names).
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn load() -> Result<Self, Mistakes> {
        Self::from_sources(Sources::of_this_process())
    }

    /// As [`Self::load`], from given sources.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn from_sources(mut from: Sources) -> Result<Self, Mistakes> {
        let config = Self::read(&mut from);
        from.finish().map(|()| config)
    }

    fn read(from: &mut Sources) -> Self {
        let grace_secs = |from: &mut Sources| from.number("SHUTDOWN_GRACE_SECS", 10, 1..=3_600);
        Self {
            database: postgres::Settings::read(from),
            mqtt: mqtt::Settings::read(from),
            http: http::Settings::read(from),
            flusher: flusher::Settings::read(from),
            intake: intake::Settings::read(from),
            wal: wal::Settings::read(from),
            dead_letters: dead_letters::Settings::read(from),
            recent: recent::Settings::read(from),
            rules: Rules::read(from),
            mappings: Mappings::read(from),
            shutdown_grace: Duration::from_secs(grace_secs(from)),
            logging: logging::Settings::read(from),
        }
    }

    /// A line for each key and variable that is no setting, whatever those hold that are: for whoever reads a
    /// part of the configuration and yet refuses what the service does.
    #[must_use]
    pub fn unknown(mut from: Sources) -> Vec<String> {
        Self::read(&mut from);
        from.unknown()
    }

    /// How to reach the broker, with the filters that mappings need, too.
    #[must_use]
    pub fn subscriber(&self) -> mqtt::Settings {
        let topics = self.mappings.subscriptions(&self.mqtt.topics);
        mqtt::Settings { topics, ..self.mqtt.clone() }
    }

    /// Every setting as `NAME=value`, secrets redacted.
    #[must_use]
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let mut all = self.database.describe();
        all.extend(self.mqtt.describe());
        all.extend(self.http.describe());
        all.extend(self.flusher.describe());
        all.extend(self.intake.describe());
        all.extend(self.wal.describe());
        all.extend(self.dead_letters.describe());
        all.extend(self.recent.describe());
        all.extend(self.rules.describe());
        all.push(("SHUTDOWN_GRACE_SECS", self.shutdown_grace.as_secs().to_string()));
        all.extend(self.logging.describe());
        all
    }

    /// Every setting there is.
    #[must_use]
    pub fn settings() -> Vec<Setting> {
        [
            postgres::SETTINGS,
            mqtt::SETTINGS,
            http::SETTINGS,
            flusher::SETTINGS,
            intake::SETTINGS,
            wal::SETTINGS,
            dead_letters::SETTINGS,
            recent::SETTINGS,
            &Rules::settings(),
            SETTINGS,
            logging::SETTINGS,
        ]
        .concat()
    }

    /// What is allowed and unwise, a line each; said at start and by `check-config`.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let overlaps = self.mappings.warnings(&self.mqtt.topics);
        let of_mapping = |mapping: &Mapping| {
            let place = |topic| format!("mapping \"{}\": topic {topic}", mapping.name);
            let warning = |topic| mqtt::shared_warning(&place(topic), topic);
            mapping.subscriptions().filter_map(warning).collect::<Vec<_>>()
        };
        let shared = self.mappings.list.iter().flat_map(of_mapping);
        let rooms = [self.database.warnings(), self.mqtt.warnings(), self.http.warnings()];
        rooms.into_iter().flatten().chain(shared).chain(overlaps).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use std::time::Duration;

    use super::*;

    fn load(env: &[(&str, &str)], toml: &str) -> Result<Config, Mistakes> {
        let env: BTreeMap<String, String> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::from_sources(Sources::new(env, toml))
    }

    fn mistakes(env: &[(&str, &str)], toml: &str) -> Vec<String> {
        load(env, toml).unwrap_err().0
    }

    #[test]
    fn without_any_source_the_contracts_defaults_hold() {
        let config = load(&[], "").unwrap();
        assert_eq!(config.http.address.to_string(), "0.0.0.0:8080");
        assert_eq!(config.mqtt.topics, ["telemetry/#"]);
        assert!(config.mqtt.client_id.starts_with("iot-ingestor-"));
        assert_eq!(config.wal.max_bytes, 1_073_741_824);
        assert_eq!(config.flusher.batch_timeout, Duration::from_millis(50));
    }

    #[test]
    fn the_environment_overrides_the_file_and_the_file_the_default() {
        let toml = "[default]\nmqtt_port = 1\nbatch_size = 7\n";
        let config = load(&[("MQTT_PORT", "2")], toml).unwrap();
        assert_eq!((config.mqtt.port, config.flusher.batch_size), (2, 7));
    }

    #[test]
    fn what_is_no_setting_is_told_apart_from_what_is_wrong_with_one() {
        let toml = "[default]\nmqtt_port = 0\n[[default.mappings]]\nname = \"m\"\n";
        let env = [("ADMIN_TOKEN_FILE", "/nowhere"), ("ROCKET_MAPPING", "x")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let unknown = Config::unknown(Sources::new(BTreeMap::from(env), toml));
        assert_eq!(unknown.len(), 2, "{unknown:?}");
        assert_eq!(unknown[0], "mappings in Rocket.toml: unknown key");
        assert!(unknown[1].starts_with("ROCKET_MAPPING: unknown variable"), "{unknown:?}");
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
        let toml = "[default]\nkeep_alive = 3\nshutdown = { grace = 2, mercy = 1 }\n";
        assert!(load(&[], toml).unwrap().http.rocket.contains_key("keep_alive"));
    }

    #[test]
    fn keys_of_rocket_that_would_do_nothing_are_refused_with_the_reason() {
        let toml = "[default]\nworkers = 3\nlog_level = \"off\"\nshutdown = { ctrlc = true }\n";
        let found = mistakes(&[], toml);
        assert_eq!(found.len(), 3, "{found:?}");
        for part in ["workers in Rocket.toml", "set rust_log", "shutdown.ctrlc"] {
            assert!(found.iter().any(|line| line.contains(part)), "{part} in {found:?}");
        }
    }

    #[test]
    fn variables_of_rocket_are_in_force_or_refused_as_the_keys_of_its_file_are() {
        let env = [("ROCKET_KEEP_ALIVE", "7"), ("ROCKET_SHUTDOWN", "{grace=2}")];
        let toml = "[default]\nkeep_alive = 3\n";
        let rocket = load(&env, toml).unwrap().http.rocket;
        assert_eq!(rocket["keep_alive"].to_u128(), Some(7));
        assert_eq!(rocket["shutdown"].clone().into_dict().unwrap()["grace"].to_u128(), Some(2));
        let env = [
            ("ROCKET_PORT", "8000"),
            ("rocket_log_level", "off"),
            ("ROCKET_SHUTDOWN", "{ctrlc=true}"),
            ("ROCKET_KEEP_ALIVE", "soon"),
            ("ROCKET_HTTP_ADDR", "127.0.0.1:1"),
            ("ROCKET_PROFILE", "default"),
        ];
        let found = mistakes(&env, "[default]\nport = 1\n");
        for part in [
            "port in Rocket.toml: has no effect",
            "ROCKET_PORT: has no effect here: set http_addr",
            "rocket_log_level: has no effect here: set rust_log",
            "shutdown.ctrlc in ROCKET_SHUTDOWN",
            "ROCKET_KEEP_ALIVE: invalid type",
            "ROCKET_HTTP_ADDR: unknown variable",
        ] {
            assert!(found.iter().any(|line| line.contains(part)), "{part} in {found:?}");
        }
        assert_eq!(found.len(), 6, "{found:?}");
    }

    #[test]
    fn the_table_of_settings_has_every_name_and_every_default_that_holds() {
        let described = load(&[], "").unwrap().describe();
        let named: Vec<_> = described.iter().map(|(name, _)| *name).collect();
        let settings = Config::settings();
        assert_eq!(settings.iter().map(|setting| setting.name).collect::<Vec<_>>(), named);
        for (setting, (name, value)) in settings.iter().zip(described) {
            // What differs from box to box, and what is not shown.
            if !setting.is_secret && !setting.default.contains('<') {
                assert_eq!(setting.default, value, "{name}");
            }
        }
    }

    #[test]
    fn the_readme_has_the_table_of_settings() {
        let row = |setting: &Setting| {
            let Setting { name, default, meaning, is_secret } = setting;
            let file = if *is_secret { " (`_FILE`)" } else { "" };
            let default =
                if default.is_empty() { "none".to_owned() } else { format!("`{default}`") };
            format!("| `{name}`{file} | {default} | {meaning} |")
        };
        let rows: Vec<_> = Config::settings().iter().map(row).collect();
        let readme = include_str!("../../README.md");
        assert!(readme.contains(&rows.join("\n")), "it should be\n{}", rows.join("\n"));
    }

    #[test]
    fn the_example_of_the_environment_names_every_setting_and_shows_the_defaults() {
        let example = include_str!("../../deploy/systemd/ingestor.env");
        let settings = Config::settings();
        let mut named = Vec::new();
        for line in example.lines().filter(|line| line.contains('=') && !line.starts_with("# ")) {
            let (name, value) = line.trim_start_matches('#').split_once('=').unwrap();
            let of = |setting: &&Setting| {
                let file = setting.is_secret.then(|| name.strip_suffix("_FILE")).flatten();
                setting.name == file.unwrap_or(name)
            };
            let setting = settings.iter().find(of).unwrap_or_else(|| panic!("unknown: {name}"));
            if line.starts_with('#') && setting.name == name && !setting.default.is_empty() {
                let is_shown = value == setting.default || value.is_empty();
                assert!(is_shown, "{line}: the default is {}", setting.default);
            }
            named.push(setting.name);
        }
        // The unit says where the log is.
        named.push("WAL_DIR");
        let missing: Vec<_> = settings
            .iter()
            .map(|setting| setting.name)
            .filter(|name| !named.contains(name))
            .collect();
        assert_eq!(missing, [""; 0]);
    }

    #[test]
    fn the_rocket_toml_names_settings_with_their_defaults() {
        let settings = Config::settings();
        let example = include_str!("../../Rocket.toml");
        for line in example.lines().filter_map(|line| line.strip_prefix("# ")) {
            let Some((name, value)) = line.split_once(" = ") else { continue };
            let setting = settings.iter().find(|setting| setting.name.to_lowercase() == name);
            assert_eq!(setting.unwrap().default, value.trim_matches('"'), "{line}");
        }
        load(&[], example).unwrap();
    }

    #[test]
    fn the_mappings_that_the_rocket_toml_shows_are_good() {
        let example = include_str!("../../Rocket.toml");
        let is_shown = |line: &&str| line.starts_with('#') && !line.starts_with("# ");
        let shown: Vec<_> =
            example.lines().filter(is_shown).map(|line| line.trim_start_matches('#')).collect();
        let mappings = load(&[], &shown.join("\n")).unwrap().mappings;
        let names: Vec<_> = mappings.list.iter().map(|mapping| mapping.name.as_str()).collect();
        assert_eq!(names, ["tasmota", "shelly"]);
    }

    #[test]
    fn mappings_are_read_and_say_what_they_need_whether_or_not_they_take_the_time_of_arrival() {
        let mapping = |time: &str| {
            format!(
                "[[default.mapping]]\nname = \"m\"\ntopic = \"t/{{d}}\"\ndevice = \"{{d}}\"\ntime = {time}\nfields = [\"a\"]\n"
            )
        };
        for (time, uses_arrival) in [
            ("{ path = \"t\" }", false),
            ("\"received\"", true),
            ("{ path = \"t\", fallback = \"received\" }", true),
        ] {
            let mappings = load(&[], &mapping(time)).unwrap().mappings;
            assert_eq!(mappings.describe(), ["table telemetry: a double precision [mappings: m]"]);
            assert_eq!(mappings.use_arrival(), uses_arrival, "{time}");
        }
        let found = mistakes(&[], &mapping("\"received\"").replace("topic", "topics"));
        assert!(found.iter().any(|line| line.contains("did you mean topic?")), "{found:?}");
    }

    #[test]
    fn a_broken_file_is_a_mistake_and_not_ignored() {
        assert!(mistakes(&[], "[default\n")[0].contains("Rocket.toml"));
    }

    #[test]
    fn secrets_come_from_files_without_their_last_newline() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "s3cret-s3cret-s3cret\n").unwrap();
        let config = load(&[("ADMIN_TOKEN_FILE", file.to_str().unwrap())], "").unwrap();
        assert_eq!(config.http.tokens.admin.unwrap().expose(), "s3cret-s3cret-s3cret");
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
            ("ADMIN_TOKEN", "hunter2-hunter2-hunter2"),
            ("READ_TOKEN", "hunter2"),
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
