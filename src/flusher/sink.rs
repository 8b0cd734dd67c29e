//! The port to where rows go, and what can go wrong there.
//!
//! What decides ([`super::plan`]) knows PostgreSQL by these types alone; a model of it implements the
//! same trait in the simulation. Errors keep their origin: an operator goes to the database for a
//! [`SinkError`], and to this machine for the log and the dead letters.

use std::future::Future;
use std::time::Duration;

use crate::dead_letters::DeadLetterError;
use crate::telemetry::Record;
use crate::wal::WalError;

/// Where rows go. Nothing is tried twice in here: a call ends, within its time, in an answer or in an
/// error that says what the plan does about it.
pub(crate) trait Sink: Send + Sync {
    /// What a statement may take. More rows than fit into that go in several.
    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// Makes ready for rows: the table is there afterwards.
    ///
    /// # Errors
    /// [`SinkError::Unavailable`] or [`SinkError::TimedOut`]; nothing is blamed on rows.
    fn prepare(&self) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Whether it answers, found out without touching the table.
    ///
    /// # Errors
    /// As for [`Self::prepare`].
    fn ping(&self) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Stores `rows`, all of them or none, within `limit` once it is connected. `Ok` means that what
    /// counts as inserted or as duplicate is in the table and survives a crash of the server.
    ///
    /// Idempotent: of several rows with the same device and time the first one stored wins, for each of
    /// their columns.
    ///
    /// # Errors
    /// See [`SinkError`]. Unless it is [`SinkError::Refused`], whether the rows were stored is unknown.
    fn insert(
        &self,
        rows: &[&Record],
        limit: Duration,
    ) -> impl Future<Output = Result<Stored, SinkError>> + Send;

    /// What [`SinkError::WentBack`] told of is pending again: the database counts from now on as the one that
    /// it is.
    fn accept(&self) {}

    /// The database has everything that was sent again: a process that starts after this one counts on it.
    /// Until then the next one hears of [`SinkError::WentBack`] too.
    fn remember(&self) {}
}

/// How long before a success of [`Sink::insert`] or [`Sink::ping`] it was last looked whether the database is
/// the one that it was, at the most.
pub(crate) const LOOKED_WITHIN: Duration = Duration::from_secs(10);

/// What became of rows; the four add up to their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Rows that are in the table now and were not before.
    pub inserted: u64,
    /// Rows whose device and time were in the table already, or in the rows before them, and that had
    /// nothing to add.
    pub duplicates: u64,
    /// Rows of mappings that have filled up one that was there, with values that it lacked.
    pub merged: u64,
    /// Indices of the rows that were taken without an error and are not in the table: a trigger, a rule
    /// or a policy has swallowed them.
    pub swallowed: Vec<usize>,
}

/// Why rows were not stored. Shown as one line, without password or connection string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// It cannot do it now, which is not the rows' fault: keep everything, back off, try again.
    #[error("{reason}")]
    Unavailable {
        /// What happened and, where known, what to do about it.
        reason: String,
        /// PostgreSQL's code, if it was PostgreSQL that said so.
        sqlstate: Option<String>,
    },
    /// It was too slow for so many rows: send fewer, with the same care as after [`Self::Unavailable`].
    #[error("{reason}")]
    TimedOut {
        /// What took how long.
        reason: String,
    },
    /// It is not the database that has what was confirmed, or has gone back to an earlier time: it takes
    /// nothing before [`Sink::accept`]. Whatever was confirmed and is still in the log is sent again.
    #[error("{reason}")]
    WentBack {
        /// How that is known.
        reason: String,
    },
    /// It answered, and what it said is about the statement: halve the rows and send both halves.
    #[error("{0}")]
    Refused(Refusal),
}

/// What the database says of rows that it does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// PostgreSQL's code; `None` if the driver could not encode the value, or the row vanished.
    pub sqlstate: Option<String>,
    /// What it said, in a line; may quote a value.
    pub reason: String,
    /// What refuses, as far as it is named: a constraint, a column, a function, a table.
    pub object: Option<String>,
    /// What mends it, as a sentence.
    pub advice: Option<String>,
    /// Whether this is known to be the table's mistake, which no row can help.
    pub is_tables: bool,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)?;
        if let Some(code) = &self.sqlstate {
            write!(f, " ({code})")?;
        }
        self.object.as_ref().map_or(Ok(()), |object| write!(f, ", by {object}"))
    }
}

impl Refusal {
    /// With what mends it.
    #[must_use]
    pub(crate) fn with_advice(&self) -> String {
        let advice = self.advice.as_ref().map_or(String::new(), |advice| format!(": {advice}"));
        format!("{self}{advice}")
    }

    /// Whether the table has no place for a row's time. A check constraint has the same code.
    #[must_use]
    pub(crate) fn lacks_partition(&self) -> bool {
        self.is_tables && self.sqlstate.as_deref() == Some("23514")
    }

    /// Of a row that was taken without an error and is not in the table.
    #[must_use]
    pub(crate) fn swallowed() -> Self {
        Self {
            sqlstate: None,
            reason: "the row was confirmed and is not in the table".to_owned(),
            object: Some("a trigger, a rule or a policy of telemetry".to_owned()),
            advice: Some(
                "look for a BEFORE trigger that returns NULL, a rule that does INSTEAD, or row \
                 security, and let it raise an error or let the row pass"
                    .to_owned(),
            ),
            is_tables: false,
        }
    }

    /// Of a row that is too slow on its own, while others are not.
    #[must_use]
    pub(crate) fn too_slow(error: &SinkError) -> Self {
        Self {
            sqlstate: None,
            reason: format!("alone and again and again: {error}"),
            object: None,
            advice: Some("look for a trigger that is slow for this row".to_owned()),
            is_tables: false,
        }
    }
}

impl SinkError {
    /// PostgreSQL's code.
    #[must_use]
    pub(crate) fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Unavailable { sqlstate, .. } => sqlstate.as_deref(),
            Self::TimedOut { .. } | Self::WentBack { .. } => None,
            Self::Refused(refusal) => refusal.sqlstate.as_deref(),
        }
    }

    /// Whether the table, or its schema, is not there: not prepared yet, or dropped.
    #[must_use]
    pub(crate) fn is_missing_table(&self) -> bool {
        matches!(self.sqlstate(), Some("42P01" | "3F000"))
    }

    /// Whether it is there and turns us away, for a login, a right, or what it lacks: somebody has to
    /// mend that.
    #[must_use]
    pub(crate) fn turns_away(&self) -> bool {
        let classes = ["25", "28", "3D", "3F", "42"];
        self.sqlstate().is_some_and(|code| classes.iter().any(|class| code.starts_with(class)))
            || matches!(self, Self::Refused(_))
    }
}

/// Why the flusher cannot go on: the process ends in order, as it does after a failed commit, and
/// nothing that was acknowledged is lost.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The log cannot be read back: look at this machine's disk.
    #[error("the log cannot be read back: {0}")]
    Log(#[from] WalError),
    /// A dead letter may not be durable: look at this machine's disk.
    #[error("dead letters cannot be stored: {0}")]
    DeadLetters(#[from] DeadLetterError),
}
