//! Whose fault it is that a statement was refused: the server's, the table's or a row's, and what mends it.
//!
//! Codes are those of PostgreSQL's appendix "PostgreSQL Error Codes"; the first two characters
//! are the class.

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::postgres::table::{COLUMNS, PARTITION_BOUND, PRIMARY_KEY};

/// What PostgreSQL says beside its message. None of it is translated but the first words of `context`.
#[derive(Default)]
pub(super) struct ErrorFields<'e> {
    /// It ends the connection.
    pub(super) is_fatal: bool,
    pub(super) table: Option<&'e str>,
    /// For null values alone.
    pub(super) column: Option<&'e str>,
    pub(super) constraint: Option<&'e str>,
    /// The function of a trigger in which it happened, and where in it.
    pub(super) context: Option<&'e str>,
    /// PostgreSQL's own function.
    pub(super) routine: Option<&'e str>,
}

impl<'e> ErrorFields<'e> {
    pub(super) fn of(error: &'e PgDatabaseError) -> Self {
        Self {
            is_fatal: matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic),
            table: error.table(),
            column: error.column(),
            constraint: error.constraint(),
            context: error.r#where(),
            routine: error.routine(),
        }
    }

    pub(super) fn object(&self) -> Option<String> {
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
    pub(super) fn advice(&self, code: &str) -> Option<String> {
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
pub(super) const RAISE: &str = "exec_stmt_raise";
/// A row that no policy lets in. Permissions have the same code.
pub(super) const ROW_SECURITY: &str = "ExecWithCheckOptions";

/// Whose fault it is, as far as the error itself tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
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
    pub(super) fn of(code: &str, fields: &ErrorFields<'_>) -> Self {
        let is_inside_trigger = fields.context.is_some();
        let is_tables = match code {
            // There is no partition for the row.
            "23514" if fields.constraint == Some(PARTITION_BOUND) => true,
            "23514" => fields.constraint.is_none() && !is_inside_trigger,
            // A column that somebody added, and that takes no null: no reading has one in it.
            // What a mapping fills may be missing in one row and not in another.
            "23502" => {
                let is_ours = fields.table.is_none_or(|table| table.starts_with("telemetry"));
                is_ours && fields.column.is_some_and(|column| !COLUMNS.contains(&column))
            }
            // The sequence of `id` gives numbers out again: after rows were copied in with theirs.
            "23505" => fields.constraint == Some(PRIMARY_KEY),
            // It has none left.
            "2200H" => true,
            // It has, but the column is too narrow for them; no other column is an integer.
            "22003" => matches!(fields.routine, Some("int84" | "int82")) && !is_inside_trigger,
            _ => false,
        };
        match (code, code.get(..2)) {
            _ if fields.is_fatal => Self::Server,
            _ if fields.routine == Some(RAISE) => Self::Row,
            _ if is_tables => Self::Table,
            ("57014", _) => Self::Slowness,
            ("26000" | "42P05" | "55006" | "55P03", _)
            | (_, Some("08" | "25" | "28" | "3D" | "40" | "53" | "57" | "58" | "F0")) => {
                Self::Server
            }
            ("42501", _) if fields.routine == Some(ROW_SECURITY) => Self::Row,
            // Found before any row was looked at, unless a trigger's function met it.
            (_, Some("3F" | "42")) if !is_inside_trigger => Self::Server,
            _ => Self::Row,
        }
    }
}

pub(super) fn advice(code: &str) -> Option<&'static str> {
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

pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
