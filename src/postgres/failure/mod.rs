//! What went wrong, as the driver says it, sorted by what the caller does about it.
//!
//! The sorts are those of the flusher's port, for queries too: there is one list of them, in
//! `flusher::sink`. Whose fault it is, [`fault`] finds out.

use std::future::Future;
use std::time::Duration;

use sqlx::postgres::PgDatabaseError;

use crate::flusher::sink::Refusal;

mod fault;

use fault::{ErrorFields, Fault, advice, one_line};

/// A call to the database that did not succeed.
pub(crate) use crate::flusher::sink::SinkError as Failure;

impl Failure {
    /// Whether a text has a character that the encoding of the database has not.
    #[must_use]
    pub(crate) fn is_untranslatable(&self) -> bool {
        matches!(self.sqlstate(), Some("22P05" | "22021"))
    }

    /// Whether a key was there already, or one of somebody's own.
    pub(super) fn is_unique_violation(&self) -> bool {
        self.sqlstate() == Some("23505")
    }

    /// Whether a column is of a type that a reading cannot be read from; the reason names it.
    #[must_use]
    pub(crate) fn is_mismatch(&self) -> bool {
        self.sqlstate() == Some("42804")
    }

    /// Whether the database answered, and what it said is a mistake in the set-up that no
    /// waiting mends: a permission, a column, a constraint.
    #[must_use]
    pub(crate) fn is_configuration(&self) -> bool {
        self.sqlstate().is_some_and(|code| code.starts_with("42"))
    }

    /// Whether the database answered that it cannot do what was asked; the connection is in order.
    pub(super) fn is_of_statement(&self) -> bool {
        matches!(self, Self::Refused(_)) || self.is_configuration()
    }

    pub(super) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: one_line(&reason.into()), sqlstate: None }
    }

    pub(super) fn of_statement(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => match error.try_downcast::<PgDatabaseError>() {
                Ok(error) => Self::of_code(error.code(), error.message(), &ErrorFields::of(&error)),
                Err(error) => Self::unavailable(error.to_string()),
            },
            sqlx::Error::Encode(error) => Self::Refused(Refusal {
                sqlstate: None,
                reason: one_line(&format!("the driver cannot encode a value: {error}")),
                object: None,
                advice: None,
                is_tables: false,
            }),
            other => Self::unavailable(other.to_string()),
        }
    }

    /// No error met while connecting speaks of the rows, whatever its class.
    pub(super) fn of_connection(address: &str, error: sqlx::Error) -> Self {
        let during = format!("cannot connect to {address}: ");
        match error {
            sqlx::Error::Io(error) => Self::unavailable(format!("{during}{error}")),
            other => Self::of_statement(other).into_unavailable(&during),
        }
    }

    /// No error met while migrating speaks of the rows, whatever its class.
    pub(super) fn while_migrating(self) -> Self {
        self.into_unavailable("cannot prepare the schema: ")
    }

    /// No error met while looking at the database, or for rows that were passed over, speaks of rows, whatever
    /// its class.
    pub(super) fn while_looking(self) -> Self {
        match self {
            Self::Refused(_) => {
                self.into_unavailable("cannot look for what has to be known of rows: ")
            }
            other => other,
        }
    }

    /// Of a statement that fills up rows of mappings.
    pub(super) fn while_filling(self) -> Self {
        match self {
            Self::Unavailable { reason, sqlstate } if sqlstate.as_deref() == Some("42501") => {
                let reason = format!("{reason}; on tables that mappings fill it needs update too");
                Self::Unavailable { reason, sqlstate }
            }
            other => other,
        }
    }

    fn into_unavailable(self, during: &str) -> Self {
        let sqlstate = self.sqlstate().map(str::to_owned);
        Self::Unavailable { reason: format!("{during}{self}"), sqlstate }
    }

    fn of_code(code: &str, message: &str, fields: &ErrorFields<'_>) -> Self {
        let fault = Fault::of(code, fields);
        let reason = one_line(message);
        let sqlstate = Some(code.to_owned());
        match fault {
            Fault::Server => {
                let advice = advice(code).map_or(String::new(), |advice| format!(": {advice}"));
                Self::Unavailable { reason: format!("{reason} ({code}){advice}"), sqlstate }
            }
            Fault::Slowness => Self::TimedOut { reason: format!("{reason} ({code})") },
            Fault::Table | Fault::Row => Self::Refused(Refusal {
                sqlstate,
                reason,
                object: fields.object(),
                advice: fields.advice(code),
                is_tables: fault == Fault::Table,
            }),
        }
    }
}

/// Runs `work` for `limit` at the most. It is dropped then, and a connection that it holds is
/// closed with it.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let seconds = limit.as_secs_f64();
        Err(Failure::TimedOut { reason: format!("no answer from the database within {seconds} s") })
    })
}

#[cfg(test)]
mod tests;
