//! What is known of the tables that mappings fill.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::look::Found;
use super::need::{Mend, Need, NeededColumn, of_mappings};
use super::rows::TableRows;
use crate::postgres::duplicates::Duplicates;
use crate::postgres::spread::Spread;
use crate::telemetry::fields::FIELDS;
use crate::telemetry::mapping::{BUILT_IN_TABLE, Kind, Mappings};

/// See the module. Clones share it.
#[derive(Clone, Debug, Default)]
pub(in crate::postgres) struct MappedTables(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// What the mappings of the configuration need.
    needs: BTreeMap<String, Need>,
    known: Mutex<HashMap<String, Arc<CachedTable>>>,
    /// Whether there may be rows of `telemetry` that lack a value.
    is_partial: AtomicBool,
    /// The statements that an operator was told of last, by table.
    said: Mutex<BTreeMap<String, String>>,
}

/// A table as it was found last.
#[derive(Debug)]
pub(in crate::postgres) struct CachedTable {
    pub(super) found: Found,
    pub(super) duplicates: Duplicates,
    pub(super) spread: Spread,
    refusals: Refusals,
}

/// Rows that a table has refused, each by itself, since it took one. Rows of other tables beside them say
/// nothing of it, so that what decides for all rows together cannot tell by them.
#[derive(Clone, Debug, Default)]
struct Refusals(Arc<AtomicU32>);

/// So many in a row are the table's fault.
const MOST_REFUSED: u32 = 100;

impl CachedTable {
    /// What a column holds; a built-in one of another type takes doubles.
    pub(super) fn kind(&self, table: &str, column: &str) -> Option<Kind> {
        let found = self.found.columns.get(column)?;
        let is_built_in = || table == BUILT_IN_TABLE && is_field(column);
        found.kind().or_else(|| is_built_in().then_some(Kind::Float))
    }

    /// So many rows were refused or swallowed, and none beside them taken; whether it is the table that takes
    /// none.
    pub(super) fn note_refused(&self, rows: usize) -> bool {
        let rows = u32::try_from(rows).unwrap_or(MOST_REFUSED).min(MOST_REFUSED);
        let add = |before: u32| Some(before.saturating_add(rows));
        let before = self.refusals.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        before.unwrap_or(MOST_REFUSED).saturating_add(rows) >= MOST_REFUSED
    }

    /// It took rows.
    pub(super) fn note_taken(&self) {
        self.refusals.0.store(0, Ordering::Relaxed);
    }

    /// Whether these rows can go in.
    fn takes(&self, rows: &TableRows<'_>) -> bool {
        let has = |name: &str| self.kind(rows.table, name).is_some();
        rows.columns.iter().all(|column| has(column.name))
            && self.found.key.is_some()
            && !left_out(rows)
                .any(|name| self.found.columns.get(name).is_some_and(|column| column.is_required))
    }
}

fn is_field(column: &str) -> bool {
    FIELDS.iter().any(|field| field.name == column)
}

/// Columns of the built-in shape that a row of these has no value in.
fn left_out<'r>(rows: &'r TableRows<'_>) -> impl Iterator<Item = &'static str> + 'r {
    let is_built_in = rows.table == BUILT_IN_TABLE;
    let names = FIELDS.iter().map(|field| field.name);
    names.filter(move |name| is_built_in && !rows.always_fills(name))
}

impl MappedTables {
    /// For what the mappings of the configuration fill.
    pub(in crate::postgres) fn of(mappings: &Mappings) -> Self {
        Self(Arc::new(Shared { needs: of_mappings(mappings), ..Shared::default() }))
    }

    /// What the configuration needs, by table.
    pub(super) fn needs(&self) -> BTreeMap<String, Need> {
        self.0.needs.clone()
    }

    /// Tables that the configuration's mappings fill.
    pub(in crate::postgres) fn names(&self) -> impl Iterator<Item = &String> {
        self.0.needs.keys()
    }

    /// Whether there may be rows of `telemetry` that lack a value, which one of the built-in shape with the
    /// same key has.
    pub(in crate::postgres) fn is_partial(&self) -> bool {
        self.0.is_partial.load(Ordering::Relaxed)
    }

    /// The tables of `rows`, if all that these need of them is known to be there.
    pub(super) fn fit_for(&self, rows: &[TableRows<'_>]) -> Option<Vec<Arc<CachedTable>>> {
        let known = self.lock();
        let fit = |rows: &TableRows<'_>| {
            let table = known.get(rows.table)?;
            let need = self.0.needs.get(rows.table);
            let is_right =
                |need: &Need| need.mend(rows.table, Some(&table.found)) == Mend::default();
            (table.takes(rows) && need.is_none_or(is_right)).then(|| Arc::clone(table))
        };
        rows.iter().map(fit).collect()
    }

    /// What `rows` and the configuration need of the tables of `rows`.
    pub(super) fn needs_of(&self, rows: &[TableRows<'_>]) -> BTreeMap<String, Need> {
        let need = |rows: &TableRows<'_>| {
            let mut need = self.0.needs.get(rows.table).cloned().unwrap_or_default();
            let column =
                |name: &str, kind| (name.to_owned(), NeededColumn { kind, is_configured: false });
            need.add(Need {
                columns: rows.columns.iter().map(|one| column(one.name, one.kind)).collect(),
                may_be_null: left_out(rows).map(str::to_owned).collect(),
            });
            (rows.table.to_owned(), need)
        };
        rows.iter().map(need).collect()
    }

    /// The tables as they are now.
    pub(super) fn learn(&self, found: HashMap<String, Found>) {
        let mut known = self.lock();
        for (name, found) in found {
            if name == BUILT_IN_TABLE {
                let may_be_null = |column: &str| {
                    found.columns.get(column).is_some_and(|column| !column.is_required)
                };
                let is_partial = FIELDS.iter().any(|field| may_be_null(field.name));
                self.0.is_partial.store(is_partial, Ordering::Relaxed);
            }
            let before = known.get(&name);
            let duplicates = before.map(|known| known.duplicates.clone()).unwrap_or_default();
            let refusals = before.map(|known| known.refusals.clone()).unwrap_or_default();
            let spread = before.map(|known| known.spread.clone()).unwrap_or_default();
            known.insert(name, Arc::new(CachedTable { found, duplicates, spread, refusals }));
        }
    }

    /// They may have changed. With them goes how often each has refused a row, as that may have been mended.
    pub(in crate::postgres) fn forget(&self) {
        self.lock().clear();
    }

    /// Whether an operator does not know yet that these statements are needed, by table; none are needed of a
    /// table if they are empty.
    pub(super) fn is_news(&self, statements: BTreeMap<String, String>) -> bool {
        let mut said = self.0.said.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_news = false;
        for (table, statements) in statements {
            let before = said.insert(table, statements.clone());
            is_news |= !statements.is_empty() && before.as_ref() != Some(&statements);
        }
        is_news
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<CachedTable>>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_at_fault_once_it_has_refused_a_hundred_rows_since_it_took_one() {
        let tables = MappedTables::default();
        let learn = || tables.learn([("power".to_owned(), Found::default())].into());
        let known = || Arc::clone(&tables.lock()["power"]);
        learn();
        for _ in 1..MOST_REFUSED {
            assert!(!known().note_refused(1));
        }
        // Whatever is learnt of it meanwhile.
        learn();
        assert!(known().note_refused(1));
        known().note_taken();
        assert!(!known().note_refused(99));
        assert!(known().note_refused(1) && known().note_refused(5_000));
    }
}
