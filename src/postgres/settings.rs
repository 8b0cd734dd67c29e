//! Where the database is, how to log in, and how long to wait for it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::connection_string::{ConnectionString, HostString, Problems};
use crate::base::settings::{Setting, Sources};

/// What can be set here, and what holds if it is not.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting::secret(
        "DATABASE_URL",
        "postgres://iot:pass@localhost:5432/iotdb",
        "connection string of PostgreSQL; an unknown parameter is an error; `PG…` variables supply what it leaves out, and `check-config` shows them",
    ),
    Setting::new(
        "DATABASE_CONNECT_TIMEOUT_SECS",
        "15",
        "longest wait for a connection, including all addresses of the name",
    ),
    Setting::new(
        "PARTITION_DAYS",
        "1",
        "width of the partitions that are made for a table that is partitioned by `ts`",
    ),
    Setting::new("PARTITION_AHEAD_DAYS", "3", "how many days ahead they are kept ready"),
    Setting::new(
        "RETENTION_DAYS",
        "",
        "readings whose time is older are removed from `telemetry` and the tables of mappings; unset: nothing ever is",
    ),
    Setting::new(
        "REINDEX_CLOSED",
        "false",
        "whether the indexes of a partition are built anew a day after its end, which saves 24 bytes a row",
    ),
];

/// How to reach the database.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// The PostgreSQL connection string; shown without its password.
    pub(crate) url: ConnectionString,
    /// Where it is read again.
    pub(crate) url_file: Option<PathBuf>,
    /// Longest wait for a connection, all addresses together.
    pub(crate) connect_timeout: Duration,
    /// Width of the partitions that are made.
    pub(crate) partition_days: u16,
    /// How far ahead they are kept ready.
    pub(crate) partition_ahead_days: u16,
    /// How old readings become before they are removed.
    pub(crate) retention_days: Option<u32>,
    /// Whether closed partitions get their indexes anew.
    pub(crate) reindex_closed: bool,
    /// Variables of PostgreSQL's own clients that fill what `url` leaves open, as they are shown.
    variables: Vec<(&'static str, String)>,
}

/// What the driver takes from the environment where the connection string is silent (sqlx 0.9,
/// `options/mod.rs`).
const VARIABLES: [&str; 12] = [
    "PGHOSTADDR",
    "PGHOST",
    "PGPORT",
    "PGUSER",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGDATABASE",
    SSL_MODE,
    "PGSSLROOTCERT",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGAPPNAME",
];
/// Added to the `options` of the string.
const OPTIONS: &str = "PGOPTIONS";
const SSL_MODE: &str = "PGSSLMODE";

impl Settings {
    /// Reads them.
    #[must_use]
    pub(crate) fn read(from: &mut Sources) -> Self {
        let text = from.optional_secret("DATABASE_URL");
        let text = text.as_deref().map_or(DEFAULT, str::trim);
        let url = text.parse().unwrap_or_else(|Problems(problems)| {
            for problem in problems {
                from.mistake(format!("DATABASE_URL: {problem}"));
            }
            ConnectionString::default()
        });
        let url_file = from.optional("DATABASE_URL_FILE", "a file");
        let variables = variables(&url, from);
        let seconds = from.number("DATABASE_CONNECT_TIMEOUT_SECS", 15, 1..=600);
        Self {
            url,
            url_file,
            connect_timeout: Duration::from_secs(seconds),
            partition_days: from.number("PARTITION_DAYS", 1, 1..=366),
            partition_ahead_days: from.number("PARTITION_AHEAD_DAYS", 3, 1..=366),
            retention_days: from.optional_number("RETENTION_DAYS", 1..=36_500),
            reindex_closed: from.optional("REINDEX_CLOSED", "true or false").unwrap_or(false),
            variables,
        }
    }

    /// Every setting as `NAME=value`, secrets redacted.
    #[must_use]
    pub(crate) fn describe(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![("DATABASE_URL", self.url.to_string())];
        all.extend(self.variables.clone());
        let seconds = self.connect_timeout.as_secs().to_string();
        all.push(("DATABASE_CONNECT_TIMEOUT_SECS", seconds));
        all.push(("PARTITION_DAYS", self.partition_days.to_string()));
        all.push(("PARTITION_AHEAD_DAYS", self.partition_ahead_days.to_string()));
        let days = self.retention_days.map_or(String::new(), |days| days.to_string());
        all.push(("RETENTION_DAYS", days));
        all.push(("REINDEX_CLOSED", self.reindex_closed.to_string()));
        all
    }

    /// What is allowed and unwise, a line each.
    #[must_use]
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.unproven_server().into_iter().collect()
    }

    /// That somebody on the way could read along, or pose as the database.
    fn unproven_server(&self) -> Option<String> {
        let mode = self.url.parameter("sslmode").or_else(|| self.variable(SSL_MODE));
        let mode = mode.unwrap_or("prefer").to_ascii_lowercase();
        let far = self.url.hosts().iter().find_map(|host| {
            let host = host.host.as_deref();
            let host = host.or_else(|| self.variable("PGHOSTADDR")).or(self.variable("PGHOST"))?;
            (!HostString::is_this_machine(host)).then_some(host)
        })?;
        let what = match mode.as_str() {
            "verify-full" => return None,
            "verify-ca" => "takes any host's certificate of that authority for the database's",
            "require" => "encrypts, but takes anybody's certificate for the database's",
            _ => "may send readings and login in plain text",
        };
        Some(format!(
            "sslmode={mode} to {far} {what}; set DATABASE_URL={} (and sslrootcert=FILE if its \
             authority is your own)",
            self.url.shown_with("sslmode", "verify-full")
        ))
    }

    /// The file that a parameter of TLS in `url` names, or the variable in its place.
    pub(super) fn tls_file(&self, url: &ConnectionString, parameter: &str) -> Option<PathBuf> {
        let variable = format!("PG{}", parameter.to_uppercase());
        let value = url.parameter(parameter).or_else(|| self.variable(&variable))?;
        let is_file = value != "system" && !value.trim_start().starts_with("-----BEGIN");
        is_file.then(|| value.into())
    }

    /// The files that parameters of TLS in the connection string name, each with the parameter.
    pub(crate) fn tls_files(&self) -> Vec<(&'static str, PathBuf)> {
        let names = ["sslrootcert", "sslcert", "sslkey"].into_iter();
        names.filter_map(|name| Some((name, self.tls_file(&self.url, name)?))).collect()
    }

    /// The file in which the driver looks for the password, if neither `url` nor a variable has one.
    pub(super) fn password_file(&self, url: &ConnectionString) -> Option<PathBuf> {
        if url.overrides("PGPASSWORD") || self.variable("PGPASSWORD").is_some() {
            return None;
        }
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".pgpass"));
        self.variable("PGPASSFILE").map(PathBuf::from).or_else(home)
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("url", &self.url)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

pub(super) const DEFAULT: &str = "postgres://iot:pass@localhost:5432/iotdb";

/// Those that take effect.
fn variables(url: &ConnectionString, from: &mut Sources) -> Vec<(&'static str, String)> {
    let mut shown = Vec::new();
    for name in VARIABLES.into_iter().chain([OPTIONS]) {
        let Some(value) = from.environment(name).map(str::to_owned) else { continue };
        if url.overrides(name) {
            continue;
        }
        // The driver would pass over one that it cannot read.
        if name == SSL_MODE
            && format!("{DEFAULT}?sslmode={value}").parse::<ConnectionString>().is_err()
        {
            from.mistake(format!("{SSL_MODE}: `{value}` is no mode; did you mean verify-full?"));
        }
        if name == "PGPORT" && value.parse::<u16>().is_err() {
            from.mistake(format!("{name}: expected a port, found `{value}`"));
        }
        shown.push((name, if name == "PGPASSWORD" { "***".to_owned() } else { value }));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(env: &[(&str, &str)]) -> Settings {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut from = Sources::new(env.collect(), "");
        let settings = Settings::read(&mut from);
        from.finish().unwrap();
        settings
    }

    #[test]
    fn whoever_could_read_along_or_pose_as_the_database_is_warned_of_with_the_line_to_set() {
        for query in ["", "?sslmode=disable", "?sslmode=require", "?sslmode=verify-ca"] {
            let url = format!("postgres://iot:hunter2@db.example/x{query}");
            let warnings = read(&[("DATABASE_URL", &url)]).warnings();
            assert_eq!(warnings.len(), 1, "{query}");
            let line = "DATABASE_URL=postgres://iot:***@db.example/x?sslmode=verify-full";
            assert!(warnings[0].contains(line), "{warnings:?}");
        }
        let far = read(&[("DATABASE_URL", "postgres://localhost,db.example/x")]);
        assert_eq!(far.warnings().len(), 1);
    }

    #[test]
    fn a_database_that_proves_itself_or_is_on_this_machine_is_no_warning() {
        for url in [
            "postgres://u@db.example/x?sslmode=verify-full",
            "postgres://u@localhost/x",
            "postgres://u@127.0.0.2:5433/x",
            "postgres://u@[::1]/x",
            "postgres://u@/x?host=/run/postgresql",
        ] {
            assert_eq!(read(&[("DATABASE_URL", url)]).warnings(), [""; 0], "{url}");
        }
        let url = ("DATABASE_URL", "postgres://u@db.example/x");
        assert!(read(&[url, ("PGSSLMODE", "verify-full")]).warnings().is_empty());
    }

    #[test]
    fn variables_that_take_effect_are_shown_and_those_that_do_not_are_not() {
        let shown = read(&[
            ("DATABASE_URL", "postgres://u@db/x?sslmode=verify-full"),
            ("PGSSLMODE", "disable"),
            ("PGOPTIONS", "-c search_path=other"),
            ("PGPASSWORD", "hunter2"),
        ])
        .describe();
        let names: Vec<&str> = shown.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            [
                "DATABASE_URL",
                "PGPASSWORD",
                "PGOPTIONS",
                "DATABASE_CONNECT_TIMEOUT_SECS",
                "PARTITION_DAYS",
                "PARTITION_AHEAD_DAYS",
                "RETENTION_DAYS",
                "REINDEX_CLOSED"
            ]
        );
        assert!(!format!("{shown:?}").contains("hunter2"));
    }

    #[test]
    fn a_mode_in_the_environment_that_would_be_passed_over_is_a_mistake() {
        let env = [("PGSSLMODE".to_owned(), "verify_full".to_owned())];
        let mut from = Sources::new(env.into_iter().collect(), "");
        let _settings = Settings::read(&mut from);
        assert_eq!(from.mistakes(), 1);
    }
}
