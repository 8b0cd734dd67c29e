//! The first question on a new connection: what the other side is.
//!
//! A pooler lends a client one of its own sessions of PostgreSQL, for a transaction or for longer,
//! and nothing in the protocol says so. But a session that PostgreSQL started for us alone has heard
//! what we said first. So a random word is sent along with the start parameters: who refuses it, as
//! PgBouncer does, or does not know it afterwards, is a pooler.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::fmt::Write as _;

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, PgConnection, Row};
use tokio::time::Instant;

use crate::postgres::connection_string::TargetSession;
use crate::postgres::failure::Failure;
use crate::postgres::session::{Session, Setting};

/// Any name with a dot in it is a setting that PostgreSQL keeps and does not look at.
const NAME: &str = "iot_ingestor.session";

/// A random word. No quote is in it.
pub(super) struct Token(String);

impl Token {
    pub(super) fn new() -> Self {
        Self(format!("{:016x}", fastrand::u64(..)))
    }

    pub(super) fn added_to(&self, options: PgConnectOptions) -> PgConnectOptions {
        options.options([(NAME, &self.0)])
    }
}

/// Whether that is what a pooler says of a start parameter that it does not pass on: PgBouncer
/// 08P01, Amazon's proxy 0A000.
pub(super) fn is_refused_parameter(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| ["08P01", "0A000", "22023", "42704"].contains(&&*code))
}

/// What the other side said.
pub(super) struct Answer {
    pub(super) is_ours: bool,
    is_read_only: bool,
}

impl Answer {
    pub(super) fn check(&self, target: TargetSession, shown: &str) -> Result<(), Failure> {
        if target == TargetSession::ReadWrite && self.is_read_only {
            let sqlstate = Some("25006".to_owned());
            let reason = format!("{shown} takes no writes, as a standby (25006)");
            return Err(Failure::Unavailable { reason, sqlstate });
        }
        Ok(())
    }
}

/// Asks, and makes `settings` where they last, all in one round trip.
pub(super) async fn greet(
    mut connection: PgConnection,
    token: Option<&Token>,
    settings: &'static [Setting],
) -> Result<(Session, Answer), sqlx::Error> {
    let is_ours = token.map_or_else(
        || "false".to_owned(),
        |token| format!("coalesce(current_setting('{NAME}', true), '') = '{}'", token.0),
    );
    let mut sql = format!("select current_setting('transaction_read_only'), ({is_ours})::text");
    for (name, value) in settings {
        write!(sql, ", case when {is_ours} then set_config('{name}', {value}, false) end").ok();
    }
    let asked = Instant::now();
    let row: PgRow = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut connection).await?;
    let round_trip = asked.elapsed();
    let answer = Answer {
        is_read_only: row.try_get::<&str, _>(0)? == "on",
        is_ours: row.try_get::<&str, _>(1)? == "true",
    };
    Ok((Session::new(connection, answer.is_ours, settings, round_trip), answer))
}
