//! Where the database is and how to log in.

use std::fmt;
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

use crate::base::settings::Sources;

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
        check_url(text)?;
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

impl DatabaseUrl {
    /// Reads it.
    #[must_use]
    pub fn read(from: &mut Sources) -> Self {
        let text = from
            .optional_secret("DATABASE_URL")
            .unwrap_or_else(|| "postgres://iot:pass@localhost:5432/iotdb".to_owned());
        text.trim().parse().unwrap_or_else(|problem| {
            from.mistake(format!("DATABASE_URL: {problem}"));
            Self(String::new())
        })
    }
}

/// Whether the driver can read this connection string.
fn check_url(url: &str) -> Result<(), String> {
    PgConnectOptions::from_str(url)
        .map(|_| ())
        .map_err(|_| "the driver cannot read this connection string".to_owned())
}
