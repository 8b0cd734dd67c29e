//! What went wrong, sorted by what the caller does about it.
//!
//! Codes are those of PostgreSQL's appendix "PostgreSQL Error Codes"; the first two characters
//! are the class.

use std::future::Future;
use std::time::Duration;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use super::table::{COLUMNS, PARTITION_BOUND, PRIMARY_KEY};
use crate::flusher::sink::{Refusal, SinkError};

/// A call to the database that did not succeed. Shown as one line, with the SQLSTATE if there
/// is one, without password or connection string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The database cannot do it now, which is not the rows' fault: keep everything, back off,
    /// say why once, try again, never drop. Whether the rows are in the table may be unknown, and
    /// sending them again is right either way.
    #[error("{reason}")]
    Unavailable {
        /// For the log, at 3 a.m.: what happened and, where known, what to do about it.
        reason: String,
        /// PostgreSQL's code, if it was PostgreSQL that said so.
        sqlstate: Option<String>,
    },
    /// It took longer than it may, and is treated likewise; fewer rows may take less.
    #[error("{reason}")]
    TimedOut {
        /// What took how long.
        reason: String,
    },
    /// It may lack what it confirmed, see `lineage`: that is sent again before anything else.
    #[error("{reason}")]
    WentBack {
        /// How that is known.
        reason: String,
    },
    /// The database is there, and what it says is about the statement.
    #[error("{0}")]
    Refused(Refusal),
}

impl From<Failure> for SinkError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable { reason, sqlstate } => Self::Unavailable { reason, sqlstate },
            Failure::TimedOut { reason } => Self::TimedOut { reason },
            Failure::WentBack { reason } => Self::WentBack { reason },
            Failure::Refused(refusal) => Self::Refused(refusal),
        }
    }
}

impl Failure {
    /// PostgreSQL's code.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Unavailable { sqlstate, .. } => sqlstate.as_deref(),
            Self::TimedOut { .. } | Self::WentBack { .. } => None,
            Self::Refused(refusal) => refusal.sqlstate.as_deref(),
        }
    }

    /// Whether the table, or its schema, is not there: not prepared yet, or dropped.
    #[must_use]
    pub fn is_missing_table(&self) -> bool {
        matches!(self.sqlstate(), Some("42P01" | "3F000"))
    }

    /// Whether a text has a character that the encoding of the database has not.
    #[must_use]
    pub fn is_untranslatable(&self) -> bool {
        matches!(self.sqlstate(), Some("22P05" | "22021"))
    }

    /// Whether a key was there already, or one of somebody's own.
    pub(super) fn is_unique_violation(&self) -> bool {
        self.sqlstate() == Some("23505")
    }

    /// Whether a column is of a type that a reading cannot be read from; the reason names it.
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        self.sqlstate() == Some("42804")
    }

    /// Whether the database answered, and what it said is a mistake in the set-up that no
    /// waiting mends: a permission, a column, a constraint.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
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
                Ok(error) => Self::of_code(error.code(), error.message(), &Culprit::of(&error)),
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

    fn of_code(code: &str, message: &str, culprit: &Culprit<'_>) -> Self {
        let fault = Fault::of(code, culprit);
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
                object: culprit.object(),
                advice: culprit.advice(code),
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

/// What PostgreSQL says beside its message. None of it is translated but the first words of `context`.
#[derive(Default)]
struct Culprit<'e> {
    /// It ends the connection.
    is_fatal: bool,
    table: Option<&'e str>,
    /// For null values alone.
    column: Option<&'e str>,
    constraint: Option<&'e str>,
    /// The function of a trigger in which it happened, and where in it.
    context: Option<&'e str>,
    /// PostgreSQL's own function.
    routine: Option<&'e str>,
}

impl<'e> Culprit<'e> {
    fn of(error: &'e PgDatabaseError) -> Self {
        Self {
            is_fatal: matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic),
            table: error.table(),
            column: error.column(),
            constraint: error.constraint(),
            context: error.r#where(),
            routine: error.routine(),
        }
    }

    fn object(&self) -> Option<String> {
        let of_table = |what: &str, name: &str| {
            let table = self.table.unwrap_or("telemetry");
            Some(format!("{what} {name} of {table}"))
        };
        if let Some(constraint) = self.constraint {
            return of_table("constraint", constraint);
        }
        if let Some(column) = self.column {
            return of_table("column", column);
        }
        if self.routine == Some(ROW_SECURITY) {
            return Some("row security of telemetry".to_owned());
        }
        let of_table = || self.table.map(|table| format!("table {table}"));
        self.function().map(one_line).or_else(of_table)
    }

    /// The innermost function of the trigger; where the words are translated, the outermost.
    fn function(&self) -> Option<&'e str> {
        let context = self.context?;
        let innermost = context.lines().find(|line| line.contains("function"));
        innermost.or_else(|| context.lines().next_back())
    }

    /// What mends it, if it turns out to be the table's fault.
    fn advice(&self, code: &str) -> Option<String> {
        let advice = match code {
            "23514" if self.constraint.is_none() && self.context.is_none() => {
                "the table has no partition for the time of these rows: create it, or let this role own \
                 the table, and the service does"
            }
            "23514" if self.constraint == Some(PARTITION_BOUND) => {
                "`ingestor schema partition` was broken off: drop that constraint, or run it again"
            }
            _ if Fault::of(code, self) == Fault::Table => advice(code)?,
            _ if self.constraint.is_some() => "correct the constraint, or drop it",
            _ if self.routine == Some(ROW_SECURITY) => {
                "let the policies of telemetry pass the rows of this role, or give it bypassrls"
            }
            _ if self.context.is_some() => "correct the trigger's function, or disable the trigger",
            _ => "see the log of PostgreSQL",
        };
        Some(advice.to_owned())
    }
}

/// What RAISE of a trigger in PL/pgSQL is: said of the row on purpose, whatever the code.
const RAISE: &str = "exec_stmt_raise";
/// A row that no policy lets in. Permissions have the same code.
const ROW_SECURITY: &str = "ExecWithCheckOptions";

/// Whose fault it is, as far as the error itself tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Of the server or its set-up, at this moment: no row has been looked at.
    Server,
    /// It took too long.
    Slowness,
    /// A mistake of the table that no row can help: it would turn away every row there is, and must
    /// not empty the log.
    Table,
    /// A row's, or the table's: the rows beside it tell.
    Row,
}

impl Fault {
    fn of(code: &str, culprit: &Culprit<'_>) -> Self {
        let is_inside_trigger = culprit.context.is_some();
        let is_tables = match code {
            // There is no partition for the row.
            "23514" if culprit.constraint == Some(PARTITION_BOUND) => true,
            "23514" => culprit.constraint.is_none() && !is_inside_trigger,
            // A column that somebody added, and that takes no null: no reading has one in it.
            // What a mapping fills may be missing in one row and not in another.
            "23502" => {
                let is_ours = culprit.table.is_none_or(|table| table.starts_with("telemetry"));
                is_ours && culprit.column.is_some_and(|column| !COLUMNS.contains(&column))
            }
            // The sequence of `id` gives numbers out again: after rows were copied in with theirs.
            "23505" => culprit.constraint == Some(PRIMARY_KEY),
            // It has none left.
            "2200H" => true,
            // It has, but the column is too narrow for them; no other column is an integer.
            "22003" => matches!(culprit.routine, Some("int84" | "int82")) && !is_inside_trigger,
            _ => false,
        };
        match (code, code.get(..2)) {
            _ if culprit.is_fatal => Self::Server,
            _ if culprit.routine == Some(RAISE) => Self::Row,
            _ if is_tables => Self::Table,
            ("57014", _) => Self::Slowness,
            ("26000" | "42P05" | "55006" | "55P03", _)
            | (_, Some("08" | "25" | "28" | "3D" | "40" | "53" | "57" | "58" | "F0")) => {
                Self::Server
            }
            ("42501", _) if culprit.routine == Some(ROW_SECURITY) => Self::Row,
            // Found before any row was looked at, unless a trigger's function met it.
            (_, Some("3F" | "42")) if !is_inside_trigger => Self::Server,
            _ => Self::Row,
        }
    }
}

fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "2200H" | "22003" => {
            "the sequence of telemetry.id has no numbers left, or numbers that the column cannot \
             hold: make both a bigint"
        }
        "23505" => "set the sequence of telemetry.id above its highest id, with setval",
        "23502" => "a column that readings do not have needs a default",
        "25006" => "this server is read-only: point DATABASE_URL at the primary",
        "28000" | "28P01" => "check the user and the password in DATABASE_URL, and pg_hba.conf",
        "3D000" => "create the database, or correct its name in DATABASE_URL",
        "42501" => {
            "this role needs select and insert on telemetry and telemetry_devices, update where mappings \
             fill a table, and, to migrate, create on the schema"
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

    fn fault(code: &str) -> Fault {
        Fault::of(code, &Culprit::default())
    }

    #[test]
    fn the_tables_own_mistakes_are_known() {
        let duplicate = |constraint| {
            let culprit = Culprit { constraint: Some(constraint), ..Culprit::default() };
            Failure::of_code("23505", "duplicate key value", &culprit)
        };
        let is_tables = |failure| match failure {
            Failure::Refused(refusal) => refusal.is_tables,
            _ => false,
        };
        assert!(!is_tables(duplicate("somebodys_own_key")));
        let Failure::Refused(sequence_is_behind) = duplicate(PRIMARY_KEY) else { panic!() };
        assert!(sequence_is_behind.is_tables);
        assert!(sequence_is_behind.advice.unwrap().contains("setval"));
        assert_eq!(fault("2200H"), Fault::Table);
        assert_eq!(fault("23514"), Fault::Table, "there is no partition");
        let check = Culprit { constraint: Some("no_poison"), ..Culprit::default() };
        assert_eq!(Fault::of("23514", &check), Fault::Row);
        assert_eq!(fault("22003"), Fault::Row);
        let id = Culprit { routine: Some("int84"), ..Culprit::default() };
        assert_eq!(Fault::of("22003", &id), Fault::Table);
    }

    #[test]
    fn what_postgresql_says_about_a_statement_may_be_a_rows_fault_whatever_the_code() {
        let codes = [
            "22000", "22001", "22003", "22008", "22012", "22021", "22P02", "22P05", "23000",
            "23502", "23503", "23505", "23P01", "0A000", "21000", "54000", "55000", "P0001",
            "HV000", "XX000", "XX001", "99999", "", "2", "é2000",
        ];
        for code in codes {
            assert_eq!(fault(code), Fault::Row, "{code}");
        }
    }

    #[test]
    fn what_says_nothing_of_a_row_is_the_servers() {
        let codes = [
            // connection
            "08000", "08001", "08003", "08004", "08006", "08P01",
            // login and database
            "28000", "28P01", "3D000", "3F000",
            // read-only standby, other transaction states
            "25006", "25P02", // serialization, deadlock
            "40001", "40003", "40P01", // permission, missing or changed table
            "42501", "42601", "42703", "42804", "42883", "42P01", "42P05", "42P10", "26000",
            // disk, memory, connections, limits
            "53000", "53100", "53200", "53300", // locks
            "55006", "55P03", // shutdown, starting up, database dropped
            "57000", "57P01", "57P02", "57P03", "57P04", "57P05", // system
            "58000", "58030", "F0000",
        ];
        for code in codes {
            assert_eq!(fault(code), Fault::Server, "{code}");
        }
        let ends_the_connection = Culprit { is_fatal: true, ..Culprit::default() };
        assert_eq!(Fault::of("XX000", &ends_the_connection), Fault::Server);
        assert_eq!(fault("57014"), Fault::Slowness);
    }

    #[test]
    fn what_a_trigger_says_is_about_the_row_whatever_the_code() {
        let raised = Culprit { routine: Some(RAISE), context: Some("f()"), ..Culprit::default() };
        for code in ["40001", "42501", "53100", "57014", "P0001", "23514"] {
            assert_eq!(Fault::of(code, &raised), Fault::Row, "{code}");
        }
        let met = Culprit { context: Some("f()"), ..Culprit::default() };
        assert_eq!(Fault::of("42P01", &met), Fault::Row);
        assert_eq!(Fault::of("40P01", &met), Fault::Server);
        let policy = Culprit { routine: Some(ROW_SECURITY), ..Culprit::default() };
        assert_eq!(Fault::of("42501", &policy), Fault::Row);
    }

    #[test]
    fn a_null_in_a_column_that_readings_do_not_have_is_the_tables_mistake() {
        let of = |column| Culprit { column: Some(column), ..Culprit::default() };
        assert_eq!(Fault::of("23502", &of("site_id")), Fault::Table);
        assert_eq!(Fault::of("23502", &of("temperature")), Fault::Row);
    }

    #[test]
    fn a_refusal_names_what_refuses_and_what_mends_it() {
        let refused = |code, culprit: &Culprit<'_>| match Failure::of_code(code, "no", culprit) {
            Failure::Refused(refusal) => refusal.with_advice(),
            other => panic!("{other:?}"),
        };
        let trigger = Culprit {
            context: Some("PL/pgSQL assignment\nPL/pgSQL function divide() line 3 at assignment"),
            ..Culprit::default()
        };
        assert_eq!(
            refused("22012", &trigger),
            "no (22012), by PL/pgSQL function divide() line 3 at assignment: correct the trigger's \
             function, or disable the trigger"
        );
        let check =
            Culprit { constraint: Some("cold"), table: Some("telemetry"), ..Culprit::default() };
        assert_eq!(
            refused("23514", &check),
            "no (23514), by constraint cold of telemetry: correct the constraint, or drop it"
        );
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
    fn a_value_that_the_driver_cannot_encode_is_a_rows_fault() {
        let failure = Failure::of_statement(sqlx::Error::Encode("too late".into()));
        assert!(matches!(failure, Failure::Refused(Refusal { is_tables: false, .. })));
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
             telemetry and telemetry_devices, update where mappings fill a table, and, to migrate, \
             create on the schema"
        );
        assert!(failure.is_configuration() && !failure.is_missing_table());
    }
}
