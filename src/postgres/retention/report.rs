//! What there is to remove, and what was, for whoever asks.

use super::look::{Kind, Look};
use super::plan::HeldUp;
use crate::base::time::Timestamp;

/// What is to be removed, and what was.
#[derive(Clone, Debug)]
pub(crate) struct RetentionReport {
    /// As configured; nothing is ever removed without.
    pub(crate) days: Option<u32>,
    /// What a run would do now, for each table that is there; nothing without a number of days.
    pub(crate) due: Vec<Due>,
    /// Whether it is being done.
    pub(crate) is_running: bool,
    /// Why it failed the last time.
    pub(crate) last_error: Option<String>,
    /// When the last run ended, whatever it came to.
    pub(crate) last_run: Option<Timestamp>,
    /// When all that was due was last removed, or left to another ingestor that was at it.
    pub(crate) last_success: Option<Timestamp>,
    /// Since the start.
    pub(crate) removed_partitions: u64,
    /// Since the start.
    pub(crate) removed_rows: u64,
}

/// What a run would do with one table.
#[derive(Clone, Debug)]
pub(crate) struct Due {
    /// Its name.
    pub(crate) table: String,
    /// What is older goes, by the database's clock.
    pub(crate) cutoff: Timestamp,
    /// How the table is divided.
    pub(crate) kind: TableKind,
    /// Partitions or chunks that would go as a whole, by name, with their bytes where these are known.
    pub(crate) partitions: Vec<(String, Option<u64>)>,
    /// Of so many.
    pub(crate) partitions_total: u64,
    /// Rows that would be deleted one by one, counted up to a third of all, and to a million.
    pub(crate) rows: u64,
    /// Whether there are more.
    pub(crate) rows_exact: bool,
    /// Why it is not done, a sentence.
    pub(crate) held_up: Option<String>,
}

/// How a table is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableKind {
    /// Into TimescaleDB's chunks.
    Hypertable,
    /// By `ts`.
    Partitioned,
    /// Not by time.
    Plain,
}

impl Look {
    /// With why it is not removed.
    pub(super) fn due(self, table: &str, held_up: Option<&HeldUp>) -> Due {
        let unsigned = |of: i64| u64::try_from(of).unwrap_or_default();
        let (kind, partitions, all, rows) = match self.kind {
            Kind::Hypertable { old, all } => (
                TableKind::Hypertable,
                old.into_iter().map(|name| (name, None)).collect(),
                all,
                None,
            ),
            Kind::Partitioned { old, all, rows } => {
                let never_used = old.whole.iter().filter(|part| !part.is_used).count();
                let whole = old.whole.into_iter();
                let whole = whole.map(|part| (part.name, Some(unsigned(part.bytes)))).collect();
                (TableKind::Partitioned, whole, all + never_used, Some(rows))
            }
            Kind::Plain { rows, .. } => (TableKind::Plain, Vec::new(), 0, Some(rows)),
        };
        let rows_exact = rows.is_none_or(|rows| rows.is_exact);
        Due {
            table: table.to_owned(),
            cutoff: Timestamp::from_micros(self.cutoff).unwrap_or(Timestamp::UNIX_EPOCH),
            kind,
            partitions,
            partitions_total: all as u64,
            rows: rows.map_or(0, |rows| unsigned(rows.old)),
            rows_exact,
            held_up: held_up.map(ToString::to_string),
        }
    }
}
