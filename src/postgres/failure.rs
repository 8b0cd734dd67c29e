//! What went wrong, sorted by what the caller does about it.
//!
//! Codes are those of PostgreSQL's appendix "PostgreSQL Error Codes"; the first two characters
//! are the class.

use std::future::Future;
use std::time::Duration;

use sqlx::postgres::PgDatabaseError;

use super::table::{COLUMNS, PRIMARY_KEY};

/// A call to the database that did not succeed. Shown as one line, with the SQLSTATE if there
/// is one, without password or connection string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The database cannot do it now, which is not the rows' fault: keep everything, back off,
    /// say why once, try again, never drop. Whatever is not known to be [`Self::Data`] is here,
    /// and so is a timeout: whether the rows are in the table is then unknown, and sending them
    /// again is right either way.
    #[error("{reason}")]
    Unavailable {
        /// For the log, at 3 a.m.: what happened and, where known, what to do about it.
        reason: String,
        /// PostgreSQL's code, if it was PostgreSQL that said so.
        sqlstate: Option<String>,
    },
    /// A value in the batch is refused and always will be: halve the batch, down to the row,
    /// dead-letter that row with this reason, store the rest.
    #[error("{reason}")]
    Data {
        /// For the dead letter; may quote the value.
        reason: String,
        /// PostgreSQL's code; `None` if the driver could not encode the value.
        sqlstate: Option<String>,
    },
}

impl Failure {
    /// PostgreSQL's code.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Unavailable { sqlstate, .. } | Self::Data { sqlstate, .. } => sqlstate.as_deref(),
        }
    }

    /// Whether the table, or its schema, is not there: not prepared yet, or dropped.
    #[must_use]
    pub fn is_missing_table(&self) -> bool {
        matches!(self.sqlstate(), Some("42P01" | "3F000"))
    }

    /// Whether the database answered, and what it said is a mistake in the set-up that no
    /// waiting mends: a permission, a column, a constraint.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        self.sqlstate().is_some_and(|code| code.starts_with("42"))
    }

    /// Whether the database is there and turns us away, for a login, a right, or what it lacks:
    /// somebody has to mend that.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        let classes = ["25", "28", "3D", "3F", "42"];
        self.sqlstate().is_some_and(|code| classes.iter().any(|class| code.starts_with(class)))
    }

    pub(super) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: one_line(&reason.into()), sqlstate: None }
    }

    pub(super) fn of_statement(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => match error.try_downcast::<PgDatabaseError>() {
                Ok(error) => Self::of_code(error.code(), error.message(), &Culprit::of(&error)),
                Err(error) => Self::unavailable(error.to_string()),
            },
            sqlx::Error::Encode(error) => Self::Data {
                reason: one_line(&format!("the driver cannot encode a value: {error}")),
                sqlstate: None,
            },
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

    fn into_unavailable(self, during: &str) -> Self {
        let (Self::Unavailable { reason, sqlstate } | Self::Data { reason, sqlstate }) = self;
        Self::Unavailable { reason: format!("{during}{reason}"), sqlstate }
    }

    fn of_code(code: &str, message: &str, culprit: &Culprit<'_>) -> Self {
        let mut reason = format!("{} ({code})", one_line(message));
        let is_data = is_data(code, culprit);
        // For whoever owns the table: a row that breaks a rule of its own needs no advice.
        if let Some(advice) = advice(code).filter(|_| !is_data) {
            reason = format!("{reason}: {advice}");
        }
        let sqlstate = Some(code.to_owned());
        if is_data {
            Self::Data { reason, sqlstate }
        } else {
            Self::Unavailable { reason, sqlstate }
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
        Err(Failure::unavailable(format!("no answer from the database within {seconds} s")))
    })
}

/// What PostgreSQL names beside its message.
#[derive(Default)]
struct Culprit<'e> {
    /// For null values alone.
    column: Option<&'e str>,
    constraint: Option<&'e str>,
}

impl<'e> Culprit<'e> {
    fn of(error: &'e PgDatabaseError) -> Self {
        Self { column: error.column(), constraint: error.constraint() }
    }
}

/// Class 22 is "data exception", 23 "integrity constraint violation". Some of these are the table's
/// mistake and not the rows': they would turn away every row there is, and must not empty the log.
fn is_data(code: &str, culprit: &Culprit<'_>) -> bool {
    let is_tables = match code {
        // A column that somebody added, and that takes no null: no reading has one in it.
        "23502" => culprit.column.is_some_and(|column| !COLUMNS.contains(&column)),
        // The sequence of `id` gives numbers out again: after rows were copied in with theirs.
        "23505" => culprit.constraint == Some(PRIMARY_KEY),
        // It has none left.
        "2200H" => true,
        _ => false,
    };
    matches!(code.get(..2), Some("22" | "23")) && !is_tables
}

fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "2200H" => "the sequence of telemetry.id has no numbers left: make it a bigint",
        "23505" => "set the sequence of telemetry.id above its highest id, with setval",
        "23502" => "a column that readings do not have needs a default",
        "25006" => "this server is read-only: point DATABASE_URL at the primary",
        "28000" | "28P01" => "check the user and the password in DATABASE_URL, and pg_hba.conf",
        "3D000" => "create the database, or correct its name in DATABASE_URL",
        "42501" => {
            "this role needs select and insert on telemetry and usage on its sequence, and, to \
             migrate, create on the schema"
        }
        "42P01" | "3F000" => "the schema is not prepared, or search_path does not lead to it",
        "42703" => "the table is not the one that migrations/ describes",
        "42P10" => "telemetry has no unique constraint on (device_id, ts): add it",
        "53100" => "the database server's disk is full",
        "53300" => "raise max_connections, or lower FLUSH_CONNECTIONS",
        "55P03" | "57014" => "it waited for a lock or ran for too long, see pg_stat_activity",
        _ => return None,
    })
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_kept(code: &str) -> bool {
        matches!(Failure::of_code(code, "", &Culprit::default()), Failure::Unavailable { .. })
    }

    #[test]
    fn the_tables_own_mistakes_turn_no_row_away() {
        let duplicate = |constraint| {
            let culprit = Culprit { column: None, constraint: Some(constraint) };
            Failure::of_code("23505", "duplicate key value", &culprit)
        };
        assert!(matches!(duplicate("somebodys_own_key"), Failure::Data { .. }));
        let sequence_is_behind = duplicate(PRIMARY_KEY);
        assert!(matches!(sequence_is_behind, Failure::Unavailable { .. }));
        assert!(sequence_is_behind.to_string().contains("setval"));
        let no_numbers_left = Failure::of_code("2200H", "", &Culprit::default());
        assert!(matches!(no_numbers_left, Failure::Unavailable { .. }));
    }

    #[test]
    fn only_what_postgresql_says_about_a_value_may_become_a_dead_letter() {
        let of_the_data = [
            "22000", "22001", "22003", "22008", "22021", "22P02", "22P03", "22P05", "23000",
            "23502", "23503", "23505", "23514", "23P01",
        ];
        for code in of_the_data {
            assert!(!is_kept(code), "{code}");
        }
    }

    #[test]
    fn whatever_is_not_the_datas_fault_is_kept() {
        let not_of_the_data = [
            // connection
            "08000", "08001", "08003", "08004", "08006", "08P01",
            // login and database
            "28000", "28P01", "3D000", "3F000",
            // read-only standby, other transaction states
            "25006", "25P02", // serialization, deadlock
            "40001", "40003", "40P01", // permission, missing or changed table
            "42501", "42601", "42703", "42804", "42883", "42P01", "42P05", "42P10", "26000",
            // disk, memory, connections, limits
            "53000", "53100", "53200", "53300", "54000", // locks
            "55000", "55006", "55P03",
            // cancel, shutdown, starting up, database dropped
            "57000", "57014", "57P01", "57P02", "57P03", "57P04", "57P05", // system
            "58000", "58030", "F0000", "XX000", "XX001", "XX002",
        ];
        for code in not_of_the_data {
            assert!(is_kept(code), "{code}");
        }
    }

    #[test]
    fn a_code_that_nobody_knows_is_kept() {
        for code in ["", "2", "é2000", "0A000", "21000", "P0001", "HV000", "99999"] {
            assert!(is_kept(code), "{code}");
        }
    }

    #[test]
    fn a_null_in_a_column_that_readings_do_not_have_is_the_tables_mistake() {
        let of = |column| {
            let culprit = Culprit { column: Some(column), constraint: None };
            Failure::of_code("23502", "null value", &culprit)
        };
        assert!(matches!(of("site_id"), Failure::Unavailable { .. }));
        assert!(matches!(of("temperature"), Failure::Data { .. }));
    }

    #[test]
    fn nothing_met_while_connecting_is_blamed_on_the_rows() {
        let failure = Failure::of_code("22023", "invalid value for parameter", &Culprit::default());
        let failure = failure.into_unavailable("cannot connect to db:5432: ");
        assert_eq!(
            failure.to_string(),
            "cannot connect to db:5432: invalid value for parameter (22023)"
        );
        assert!(matches!(failure, Failure::Unavailable { .. }));
        assert_eq!(failure.sqlstate(), Some("22023"));
    }

    #[test]
    fn a_value_that_the_driver_cannot_encode_is_data() {
        let failure = Failure::of_statement(sqlx::Error::Encode("too late".into()));
        assert!(matches!(failure, Failure::Data { sqlstate: None, .. }));
    }

    #[test]
    fn a_reason_is_one_line_with_the_code_and_the_way_out() {
        let failure = Failure::of_code(
            "42501",
            "permission denied\n for table telemetry",
            &Culprit::default(),
        );
        assert_eq!(
            failure.to_string(),
            "permission denied for table telemetry (42501): this role needs select and insert on \
             telemetry and usage on its sequence, and, to migrate, create on the schema"
        );
        assert!(failure.is_configuration() && !failure.is_missing_table());
        assert!(failure.is_refusal());
    }
}
