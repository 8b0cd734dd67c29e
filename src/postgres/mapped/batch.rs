//! Writes rows of tables.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Row as _};

use super::rest::missing_of_spread;
use super::rows::TableRows;
use super::statements::{self, Filled, Mode};
use super::tables::CachedTable;
use super::value::Array;
use crate::flusher::sink::Refusal;
use crate::postgres::durability::DURABLY;
use crate::postgres::failure::Failure;
use crate::postgres::session::{Scope, Session};
use crate::postgres::spread::is_refusal;
use crate::postgres::written::Written;
use crate::telemetry::mapping::BUILT_IN_TABLE;

/// Rows, each of them fit for its table.
pub(in crate::postgres) struct Batch<'r>(Vec<Ready<'r>>);

/// What goes into one table.
struct Ready<'r> {
    rows: TableRows<'r>,
    /// One for each column.
    arrays: Vec<Array<'r>>,
    table: Arc<CachedTable>,
}

impl<'r> Batch<'r> {
    /// `rows` for the tables of the same order.
    ///
    /// # Errors
    /// If a column is of a type that a value cannot be made of.
    pub(in crate::postgres) fn new(
        rows: Vec<TableRows<'r>>,
        tables: Vec<Arc<CachedTable>>,
    ) -> Result<Self, Refusal> {
        let ready = rows.into_iter().zip(tables).map(|(rows, table)| Ready::new(rows, table));
        ready.collect::<Result<_, _>>().map(Self)
    }

    fn of_telemetry(&self) -> Option<&TableRows<'r>> {
        self.0.iter().map(|ready| &ready.rows).find(|rows| rows.table == BUILT_IN_TABLE)
    }

    /// Of rows of `telemetry`, in the order of time and device.
    pub(in crate::postgres) fn device_ids(&self) -> &[&'r str] {
        self.of_telemetry().map_or(&[], |rows| &rows.device_ids)
    }

    /// The same.
    pub(in crate::postgres) fn timestamps(&self) -> &[DateTime<Utc>] {
        self.of_telemetry().map_or(&[], |rows| &rows.timestamps)
    }

    /// Rows that have given another of the batch a value, but for those that are not in the table with it.
    pub(in crate::postgres) fn merged(&self, swallowed: &[i64]) -> u64 {
        let swallowed: HashSet<i64> = swallowed.iter().copied().collect();
        let mut merged = 0;
        for (numbers, ready) in self.numbered() {
            let counts = |at: &&usize| !swallowed.contains(&(numbers.start + of_index(**at)));
            merged += ready.rows.merging.iter().filter(counts).count() as u64;
        }
        merged
    }

    /// Each table with the numbers of its rows, from 1.
    fn numbered(&self) -> impl Iterator<Item = (Range<i64>, &Ready<'r>)> {
        let mut next = 1;
        self.0.iter().map(move |ready| {
            let start = next;
            next += of_index(ready.rows.len());
            (start..next, ready)
        })
    }

    /// Whether one statement may be all.
    pub(in crate::postgres) fn scope(&self) -> Scope {
        match self.0.as_slice() {
            [one] if one.key_if_new().is_some() => Scope::Statement,
            _ => Scope::Transaction,
        }
    }

    /// It is not known what of it is stored.
    pub(in crate::postgres) fn expect_duplicates(&self) {
        self.0.iter().for_each(|ready| ready.table.duplicates.expect());
    }

    /// It was refused; whether that is because its table refuses every row.
    pub(in crate::postgres) fn was_refused_by_table(&self) -> bool {
        match self.0.as_slice() {
            [one] if one.rows.len() == 1 => one.table.note_refused(1),
            _ => false,
        }
    }

    /// It was stored, but for the rows with these numbers, which were swallowed; whether one of the tables has
    /// swallowed every row for so long that it is at fault.
    pub(in crate::postgres) fn was_stored_without(&self, swallowed: &[i64]) -> bool {
        let mut is_tables = false;
        for (numbers, ready) in self.numbered() {
            let of_table = swallowed.iter().filter(|number| numbers.contains(*number)).count();
            if of_table < ready.rows.len() {
                ready.table.note_taken();
            } else {
                is_tables |= ready.table.note_refused(of_table);
            }
        }
        is_tables
    }

    /// Indices of the rows that the rows with these numbers were made of.
    pub(in crate::postgres) fn origins(&self, numbers: &[i64]) -> Vec<usize> {
        let mut all = Vec::new();
        for number in numbers {
            let Some(mut at) = usize::try_from(*number - 1).ok() else { continue };
            for Ready { rows, .. } in &self.0 {
                if at < rows.len() {
                    all.extend(rows.origins(at));
                    break;
                }
                at -= rows.len();
            }
        }
        all.sort_unstable();
        all
    }

    /// All of it, or nothing. Leaves it to the caller to end what it begins.
    pub(in crate::postgres) async fn write(
        &self,
        session: &mut Session,
        limit: Duration,
    ) -> Result<Written, Failure> {
        let keys: Option<Vec<Oid>> = self.0.iter().map(Ready::key_if_new).collect();
        if keys.is_none() && session.scope() == Scope::Statement {
            // They were taken for new a moment ago.
            session.set_scope(Scope::Transaction);
            session.begin(limit).await?;
        }
        if let Some(keys) = keys {
            match self.write_new(&keys, session).await {
                Ok(Some(written)) => return Ok(written),
                Err(failure) if !failure.is_unique_violation() && !is_refusal(&failure) => {
                    return Err(failure);
                }
                Ok(None) | Err(_) => begin_again(session, limit).await?,
            }
        }
        let is_spread = self.0.iter().any(|ready| ready.table.spread.is_known());
        match self.write_known(is_spread, session).await {
            Err(failure) if !is_spread && is_refusal(&failure) => {
                begin_again(session, limit).await?;
                let written = self.write_known(true, session).await?;
                self.0.iter().for_each(|ready| ready.table.spread.note());
                Ok(written)
            }
            outcome => outcome,
        }
    }

    /// Some rows may be there. They are not looked for where that `is_spread`.
    async fn write_known(
        &self,
        is_spread: bool,
        session: &mut Session,
    ) -> Result<Written, Failure> {
        let filling = if is_spread { Mode::FillUnseen } else { Mode::Fill };
        let mut written = Written::default();
        let mut before = 0;
        for ready in &self.0 {
            let all = ready.rows.len() as u64;
            let inserted = ready.execute(Mode::Skip, None, session).await?;
            ready.table.duplicates.note(all.saturating_sub(inserted));
            written.inserted += inserted;
            let has_more = inserted < all && !ready.arrays.is_empty();
            let filled = if has_more { ready.execute(filling, None, session).await? } else { 0 };
            written.merged += filled;
            if inserted + filled < all {
                ready.look_for_rest(before, is_spread, &mut written, session).await?;
            }
            before += ready.rows.len();
        }
        Ok(written)
    }

    /// Takes all rows for new. `None` if nothing came of it for a table, whose key may be gone.
    async fn write_new(
        &self,
        keys: &[Oid],
        session: &mut Session,
    ) -> Result<Option<Written>, Failure> {
        let mut written = Written::default();
        let mut before = 0;
        for (ready, key) in self.0.iter().zip(keys) {
            let inserted = ready.execute(Mode::Fail, Some(*key), session).await?;
            if inserted == 0 {
                return Ok(None);
            }
            written.inserted += inserted;
            if inserted < ready.rows.len() as u64 {
                let is_spread = ready.table.spread.is_known();
                let looked = ready.look_for_rest(before, is_spread, &mut written, session).await;
                match looked {
                    // What went in by itself is there.
                    Err(failure)
                        if !is_spread && is_refusal(&failure) && !session.has_transaction() =>
                    {
                        ready.look_for_rest(before, true, &mut written, session).await?;
                        ready.table.spread.note();
                    }
                    looked => looked?,
                }
            }
            before += ready.rows.len();
        }
        Ok(Some(written))
    }
}

impl<'r> Ready<'r> {
    fn new(rows: TableRows<'r>, table: Arc<CachedTable>) -> Result<Self, Refusal> {
        let array = |column: &super::rows::Column<'r>| {
            let kind = table.kind(rows.table, column.name).unwrap_or(column.kind);
            Array::of(kind, &column.values).map_err(|value| Refusal {
                sqlstate: None,
                reason: format!(
                    "the value is a {} and the column is {}",
                    value.kind().as_str(),
                    kind.sql()
                ),
                object: Some(format!("column {} of {}", column.name, rows.table)),
                advice: Some("let the column have the type that the mapping says".to_owned()),
                is_tables: false,
            })
        };
        let arrays = rows.columns.iter().map(array).collect::<Result<_, _>>()?;
        Ok(Self { rows, arrays, table })
    }

    /// The key that tells new rows from others, if these are taken for new.
    fn key_if_new(&self) -> Option<Oid> {
        self.table.found.key.filter(|_| !self.table.duplicates.are_expected())
    }

    /// How many rows it has inserted or changed.
    async fn execute(
        &self,
        mode: Mode,
        key: Option<Oid>,
        session: &mut Session,
    ) -> Result<u64, Failure> {
        let durably = format!("(select {DURABLY}) is not null");
        let sql = statements::insert(self.rows.table, &self.columns(), mode, &durably);
        let mut query = self.bound(sql, session);
        if let Some(key) = key {
            query = query.bind(key);
        }
        let done = query.execute(session.connection()).await;
        done.map(|done| done.rows_affected()).map_err(Failure::of_statement)
    }

    fn columns(&self) -> Vec<Filled<'_>> {
        let names = self.rows.columns.iter().map(|column| column.name);
        names.zip(&self.arrays).collect()
    }

    /// With its rows as the first parameters.
    fn bound(&self, sql: String, session: &Session) -> Query<'_, Postgres, PgArguments> {
        let query = sqlx::query(AssertSqlSafe(sql))
            .persistent(session.keeps_statements())
            .bind(&self.rows.device_ids)
            .bind(&self.rows.timestamps);
        self.arrays.iter().fold(query, |query, array| match array {
            Array::Floats(values) => query.bind(values),
            Array::Ints(values) => query.bind(values),
            Array::Bools(values) => query.bind(values),
            Array::Texts(values) | Array::Jsons(values) => query.bind(values),
        })
    }

    /// Some rows were passed over, and no error said so: those that are not in the table, or lack a value
    /// there, were swallowed by a trigger, a rule or a policy. There are so many rows `before` these.
    async fn look_for_rest(
        &self,
        before: usize,
        is_spread: bool,
        written: &mut Written,
        session: &mut Session,
    ) -> Result<(), Failure> {
        let missing = if is_spread {
            missing_of_spread(&self.rows, &self.arrays, session).await
        } else {
            self.missing(session).await
        };
        let before = of_index(before);
        let missing = missing.map_err(Failure::while_looking)?;
        written.swallowed.extend(missing.into_iter().map(|number| before.saturating_add(number)));
        Ok(())
    }

    async fn missing(&self, session: &mut Session) -> Result<Vec<i64>, Failure> {
        let rows = self
            .bound(statements::missing(self.rows.table, &self.columns()), session)
            .fetch_all(session.connection())
            .await
            .map_err(Failure::of_statement)?;
        rows.iter().map(|row| row.try_get(0).map_err(Failure::of_statement)).collect()
    }
}

/// What was done is taken back.
async fn begin_again(session: &mut Session, limit: Duration) -> Result<(), Failure> {
    session.abandon().await?;
    session.set_scope(Scope::Transaction);
    session.begin(limit).await
}

/// As a number of a row.
pub(super) fn of_index(index: usize) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}
