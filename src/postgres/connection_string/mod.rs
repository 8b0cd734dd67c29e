//! The connection string, read strictly.
//!
//! The driver passes over parameters that it does not know: with `sslmod=verify-full` the password
//! would go out in plain text. So every parameter is checked here. And the driver knows one host
//! alone, so a string that names several is taken apart into one string a host.

use std::fmt;
use std::str::FromStr;

use hosts::{Parts, read_hosts};
use parameters::{CACHE, TARGET, canonical, check_files, read_parameters, read_target};

mod hosts;
mod parameters;

pub(super) use hosts::HostString;
pub(super) use parameters::TargetSession;

/// A connection string that the service understands as a whole. Shown without its password.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct ConnectionString {
    shown: String,
    hosts: Vec<HostString>,
    target: TargetSession,
    parameters: Vec<(String, String)>,
    has_user: bool,
    has_password: bool,
    has_database: bool,
}

impl ConnectionString {
    /// All hosts, in the order in which they are tried; never none.
    pub(super) fn hosts(&self) -> &[HostString] {
        &self.hosts
    }

    pub(super) fn target(&self) -> TargetSession {
        self.target
    }

    /// Whether the string itself says that a session is not ours from one statement to the next.
    pub(super) fn denies_sessions(&self) -> bool {
        self.parameter(CACHE) == Some("0")
    }

    /// The value of a parameter, by its first name.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether the string says what the driver would otherwise take from the variable `name`.
    pub(super) fn overrides(&self, variable: &str) -> bool {
        match variable {
            "PGHOST" | "PGHOSTADDR" => self.hosts.iter().all(|host| host.host.is_some()),
            "PGPORT" => self.hosts.iter().all(|host| host.port.is_some()),
            "PGUSER" => self.has_user,
            "PGPASSWORD" | "PGPASSFILE" => self.has_password,
            "PGDATABASE" => self.has_database,
            "PGSSLMODE" => self.parameter("sslmode").is_some(),
            "PGSSLROOTCERT" => self.parameter("sslrootcert").is_some(),
            "PGSSLCERT" => self.parameter("sslcert").is_some(),
            "PGSSLKEY" => self.parameter("sslkey").is_some(),
            "PGAPPNAME" => self.parameter("application_name").is_some(),
            // Both take effect, one after the other.
            _ => false,
        }
    }

    /// The string as it should be, shown without its password.
    pub(super) fn shown_with(&self, parameter: &str, value: &str) -> String {
        let (base, query) = self.shown.split_once('?').unwrap_or((&self.shown, ""));
        let stays = |pair: &&str| {
            let name = pair.split('=').next().unwrap_or_default();
            !pair.is_empty() && canonical(name) != Some(parameter)
        };
        let new = format!("{parameter}={value}");
        let query: Vec<&str> = query.split('&').filter(stays).chain([new.as_str()]).collect();
        format!("{base}?{}", query.join("&"))
    }
}

/// All that is wrong with it, a line each, without a secret.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problems(pub(super) Vec<String>);

impl FromStr for ConnectionString {
    type Err = Problems;

    fn from_str(text: &str) -> Result<Self, Problems> {
        let parts = Parts::of(text).map_err(|problem| Problems(vec![problem.to_owned()]))?;
        let mut problems = Vec::new();
        let parameters = read_parameters(parts.query, &mut problems);
        let find = |name: &str| {
            let found = parameters.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.as_str())
        };
        let target = read_target(find(TARGET), &mut problems);
        check_files(find, &mut problems);
        let hosts = read_hosts(&parts, find, &mut problems);
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        let (user, password) = parts.user_and_password();
        Ok(Self {
            shown: parts.redacted(&parameters),
            hosts,
            target,
            has_user: !user.is_empty() || find("user").is_some(),
            has_password: password.is_some() || find("password").is_some(),
            has_database: parts.path.len() > 1 || find("dbname").is_some(),
            parameters,
        })
    }
}

impl fmt::Display for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sqlx::postgres::PgConnectOptions;

    use super::*;

    fn read(text: &str) -> ConnectionString {
        text.parse().unwrap_or_else(|problems| panic!("{text}: {problems:?}"))
    }

    fn problems(text: &str) -> Vec<String> {
        text.parse::<ConnectionString>().unwrap_err().0
    }

    #[test]
    fn a_parameter_that_would_be_dropped_is_a_mistake_that_names_the_nearest() {
        let cases = [
            ("ssl=true", "sslmode"),
            ("tls=1", "sslmode"),
            ("sslmod=verify-full", "sslmode"),
            ("SSLMODE=verify-full", "sslmode"),
            ("ssl_mode=verify-full", "sslmode"),
            ("sslrootcrt=/x", "sslrootcert"),
            ("target_session_attr=read-write", "target_session_attrs"),
            ("aplication_name=x", "application_name"),
            ("statement_cache_capacity=0", "statement-cache-capacity"),
            ("search_path=x", "options[search_path]"),
            ("connect_timeout=3", "DATABASE_CONNECT_TIMEOUT_SECS"),
        ];
        for (query, named) in cases {
            let found = problems(&format!("postgres://u:hunter2@db/x?{query}"));
            assert!(found.len() == 1 && found[0].contains(named), "{query}: {found:?}");
            assert!(!found[0].contains("hunter2"));
        }
    }

    #[test]
    fn every_mistake_of_a_string_is_named_at_once() {
        let found = problems("postgres://u@db/x?sslmod=1&sslmode=verify_full&sslcert=/nowhere");
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found.iter().any(|line| line.contains("did you mean `verify-full`")), "{found:?}");
    }

    #[test]
    fn what_is_given_twice_or_cannot_be_is_a_mistake() {
        for text in [
            "postgres://u@db/x?sslmode=disable&ssl-mode=require",
            "postgres://u@db/x?target_session_attrs=standby",
            "postgres://u@db:0/x",
            "postgres://u@db:70000/x",
            "postgres://u@[::1/x",
            "postgres://u@a,b/x?port=1,2,3",
            "postgres://u@db/x?hostaddr=db",
            "postgres://u:p#w@db/x",
            "postgres://u:p/w@db/x",
            "postgres:/u@db/x",
            "mysql://u@db/x",
            "db",
        ] {
            assert_eq!(problems(text).len(), 1, "{text}");
        }
    }

    #[test]
    fn several_hosts_become_one_string_each() {
        let string = read(
            "postgres://u:p@one,two:5433,[::1]:5434/x?target_session_attrs=read-write&sslmode=require",
        );
        let urls: Vec<&str> = string.hosts().iter().map(|host| host.url.as_str()).collect();
        assert_eq!(
            urls,
            [
                "postgres://u:p@one/x?sslmode=require",
                "postgres://u:p@two:5433/x?sslmode=require",
                "postgres://u:p@[::1]:5434/x?sslmode=require",
            ]
        );
        assert_eq!(string.target(), TargetSession::ReadWrite);
        assert_eq!(string.hosts()[2].host.as_deref(), Some("::1"));
        let string = read("postgres://u:p@/x?host=one,two&port=1,2");
        let urls: Vec<&str> = string.hosts().iter().map(|host| host.url.as_str()).collect();
        assert_eq!(urls, ["postgres://u:p@one:1/x", "postgres://u:p@two:2/x"]);
    }

    #[test]
    fn a_socket_is_a_directory_in_either_place() {
        for text in ["postgres://u@%2Frun%2Fpg:5433/x", "postgres://u@/x?host=/run/pg&port=5433"] {
            let string = read(text);
            let options = PgConnectOptions::from_str(&string.hosts()[0].url).unwrap();
            assert_eq!(options.get_socket().unwrap(), Path::new("/run/pg"), "{text}");
            assert_eq!((options.get_port(), options.get_username()), (5433, "u"));
        }
    }

    #[test]
    fn no_password_is_shown_wherever_it_stands() {
        for text in [
            "postgres://u:hunter2@one,two/x?sslmode=disable",
            "postgres://u:hun@ter2@one/x",
            "postgres://u@one/x?password=hunter2&sslmode=disable",
        ] {
            let shown = format!("{0} {0:?} {1}", read(text), read(text).shown_with("sslmode", "x"));
            assert!(!shown.contains("ter2") && shown.contains("one"), "{shown}");
        }
    }

    #[test]
    fn the_line_to_set_replaces_the_mode_that_stands_there() {
        let line = |text| read(text).shown_with("sslmode", "verify-full");
        assert_eq!(line("postgres://u:p@db/x"), "postgres://u:***@db/x?sslmode=verify-full");
        assert_eq!(
            line("postgres://u:p@db/x?ssl-mode=require&application_name=a"),
            "postgres://u:***@db/x?application_name=a&sslmode=verify-full"
        );
    }
}
