//! A connection, and how far it can be relied on.
//!
//! Behind a pooler (PgBouncer as Debian ships it, and others) each transaction may meet another
//! session of PostgreSQL: a statement that was prepared by name is not there any more, or is there
//! already, and a setting that was made reaches another client. Whether a session is ours is found
//! out when it is opened (see `server`), and where it is not, whatever has to hold for a statement is
//! said in the statement's own transaction.
//!
//! The way may be long, so what needs no parameters goes in one message, which is answered as a whole:
//! PostgreSQL runs the statements of a message in one transaction. The driver takes two round trips for a
//! statement that it has not prepared, and one for each `begin` and `commit`.

use std::fmt::Write as _;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::failure::Failure;

/// More than anything takes here that is bounded as a whole.
const MOST_ROUND_TRIPS: u32 = 16;

/// Nobody goes without a word for so long between two statements of a transaction. A line that was cut would
/// else keep its locks for as long as TCP believes in it, which is hours.
pub(super) const MOST_IDLE: &str = "'60s'";

/// A setting of PostgreSQL, as an expression of SQL.
pub(super) type Setting = (&'static str, &'static str);

/// One plan for each query, the one that `queries` writes it for, also before the table has
/// statistics; made for the parameters at hand, without compiling it and without workers, either of
/// which takes longer than the query. What is left to choose from is judged by the rows that are looked at.
pub(super) const QUERY_SETTINGS: &[Setting] = &[
    ("enable_seqscan", "'off'"),
    ("enable_bitmapscan", "'off'"),
    ("enable_sort", "'off'"),
    ("plan_cache_mode", "'force_custom_plan'"),
    ("jit", "'off'"),
    ("max_parallel_workers_per_gather", "'0'"),
    ("seq_page_cost", "'0.00001'"),
    ("random_page_cost", "'0.00001'"),
    ("cpu_operator_cost", "'0.0000001'"),
];

/// An open connection.
pub(super) struct Session {
    connection: PgConnection,
    /// Whether PostgreSQL's session lasts as long as the connection.
    is_ours: bool,
    settings: &'static [Setting],
    /// What the session was told last; `None` if it was told nothing.
    limit: Option<Duration>,
    /// The time that one question and its answer took when it was opened.
    round_trip: Duration,
    is_new: bool,
    scope: Scope,
}

/// What holds as a whole, or not at all, where the session is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Each statement.
    Statement,
    /// All that comes between [`Session::begin`] and [`Session::end`].
    Transaction,
    /// The same, in which every statement sees what the first one saw.
    Snapshot,
}

impl Session {
    /// `connection`, in which the settings were made already if it `is_ours`.
    pub(super) fn new(
        connection: PgConnection,
        is_ours: bool,
        settings: &'static [Setting],
        round_trip: Duration,
    ) -> Self {
        Self {
            connection,
            is_ours,
            settings,
            limit: None,
            round_trip,
            is_new: true,
            scope: Scope::Statement,
        }
    }

    pub(super) fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// `limit`, or more if the way is so long that a few questions and answers take longer.
    pub(super) fn allowance(&self, limit: Duration) -> Duration {
        limit.max(self.round_trip * MOST_ROUND_TRIPS)
    }

    /// Whether this is asked for the first time.
    pub(super) fn take_newness(&mut self) -> bool {
        std::mem::take(&mut self.is_new)
    }

    /// As if it had just been opened.
    pub(super) fn set_new(&mut self) {
        self.is_new = true;
    }

    /// What begins from now on. Where a pooler stands before the database it is a transaction at any
    /// rate.
    pub(super) fn set_scope(&mut self, scope: Scope) {
        self.scope = scope;
    }

    pub(super) fn scope(&self) -> Scope {
        self.scope
    }

    /// Whether what is refused takes all with it since [`Self::begin`].
    pub(super) fn has_transaction(&self) -> bool {
        self.scope != Scope::Statement || !self.is_ours
    }

    /// To be asked only between [`Self::begin`] and [`Self::end`].
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Whether a statement may be prepared by name, which is faster and lasts as long as the session.
    pub(super) fn keeps_statements(&self) -> bool {
        self.is_ours
    }

    /// Makes ready for statements, none of which PostgreSQL lets run for longer than `limit`.
    pub(super) async fn begin(&mut self, limit: Duration) -> Result<(), Failure> {
        if self.has_transaction() {
            let begin = match self.scope {
                Scope::Snapshot => "begin isolation level repeatable read read only",
                Scope::Statement | Scope::Transaction => "begin",
            };
            return self.run(format!("{begin}; {}", self.local_settings(limit))).await;
        }
        if self.limit == Some(limit) {
            return Ok(());
        }
        // Not valid until it was answered.
        self.limit = None;
        self.run(format!("set statement_timeout = '{}ms'", limit.as_millis())).await?;
        self.limit = Some(limit);
        Ok(())
    }

    /// The rows of `question`, one or more statements without parameters, each of which may take `limit`.
    /// All of it is one round trip and a transaction of its own, which leaves nothing to be ended or
    /// taken back, whatever the outcome. Values come as text, which the driver reads as well.
    pub(super) async fn ask(
        &mut self,
        limit: Duration,
        question: &str,
    ) -> Result<Vec<PgRow>, Failure> {
        let sql = format!("{}; {question}", self.local_settings(limit));
        let mut rows = self.rows(sql).await?;
        // That of the settings.
        rows.drain(..1.min(rows.len()));
        Ok(rows)
    }

    /// A statement with one row, for the transaction that it stands in.
    fn local_settings(&self, limit: Duration) -> String {
        let limit = limit.as_millis();
        let mut sql = format!("select set_config('statement_timeout', '{limit}ms', true)");
        let settings = if self.is_ours { &[] } else { self.settings };
        let idle = ("idle_in_transaction_session_timeout", MOST_IDLE);
        for (name, value) in settings.iter().chain([&idle]) {
            // Writing to a string does not fail.
            write!(sql, ", set_config('{name}', {value}, true)").ok();
        }
        sql
    }

    /// What was written is committed when this returns, and the connection can be used again.
    pub(super) async fn end(&mut self) -> Result<(), Failure> {
        if self.has_transaction() { self.run("commit".to_owned()).await } else { Ok(()) }
    }

    /// Takes back what was begun, as after a statement that was refused.
    pub(super) async fn abandon(&mut self) -> Result<(), Failure> {
        if self.has_transaction() { self.run("rollback".to_owned()).await } else { Ok(()) }
    }

    /// Whether the other side still answers.
    pub(super) async fn ping(&mut self) -> Result<(), Failure> {
        self.connection.ping().await.map_err(Failure::of_statement)
    }

    /// Runs statements that are written here, without a time limit of their own.
    pub(super) async fn run(&mut self, sql: String) -> Result<(), Failure> {
        let run = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection);
        run.await.map(drop).map_err(Failure::of_statement)
    }

    /// Runs statements that are written here; the rows of all of them, with values as text.
    pub(super) async fn rows(&mut self, sql: String) -> Result<Vec<PgRow>, Failure> {
        let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut self.connection);
        rows.await.map_err(Failure::of_statement)
    }
}
