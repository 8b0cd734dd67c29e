//! Makes the indexes of a table that was there before this release, while rows come in.
//!
//! Each is built beside the table's work (`concurrently`), which no transaction can hold; what a break
//! leaves behind is not valid, and is removed before it is built again. The descending index on `ts` goes
//! when the ascending one is there, so that there is always one of them.

use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::database::Database;
use super::failure::{Failure, within};
use super::limits::QUERY_TIMEOUT;
use super::session::{QUERY_SETTINGS, Session};
use super::shape::{Kind, Shape};
use super::table::{ARRIVAL_INDEX, TS_INDEX, quoted};

const LOOK_AFTER: Duration = Duration::from_millis(500);
const NEW: &str = "telemetry_ts_new_idx";

/// How far a step has come, as PostgreSQL tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexProgress {
    /// What it does at the moment.
    pub(crate) phase: String,
    /// Blocks or rows of this phase that are done.
    pub(crate) done: u64,
    /// All of them; 0 where that is not known.
    pub(crate) total: u64,
}

const PROGRESS: &str = "
    select
        phase,
        case when tuples_total > 0 then tuples_done else blocks_done end,
        case when tuples_total > 0 then tuples_total else blocks_total end
    from pg_stat_progress_create_index
    where relid = to_regclass('telemetry')
    limit 1";

/// The statements that bring the indexes of a table of this shape up to date, in their order; none if
/// they are.
///
/// # Errors
/// A sentence, for tables whose owner has to do it by hand.
pub(crate) fn index_plan(shape: &Shape) -> Result<Vec<String>, String> {
    let mut plan = Vec::new();
    for index in shape.indexes.iter().filter(|index| !index.is_valid && index.name == NEW) {
        plan.push(format!("drop index concurrently {}", quoted(&index.name)));
    }
    let valid = |definition: &str| {
        shape.indexes.iter().find(|index| index.is_valid && index.definition == definition)
    };
    let ascending = valid("btree (ts)");
    if ascending.is_none() {
        plan.push(format!("create index concurrently {NEW} on telemetry (ts)"));
    }
    let descending = valid("btree (ts DESC)").filter(|index| index.key.is_none());
    if let Some(index) = descending {
        plan.push(format!("drop index concurrently {}", quoted(&index.name)));
    }
    let is_made = ascending.is_none_or(|index| index.name == NEW);
    let holds_name = |name: &str| {
        let mut others =
            shape.indexes.iter().filter(|index| descending.is_none_or(|old| old != *index));
        others.any(|index| index.name == name)
    };
    if is_made && !holds_name(TS_INDEX) {
        plan.push(format!("alter index {NEW} rename to {TS_INDEX}"));
    }
    let arrival = ["created_at", "inserted_at"]
        .into_iter()
        .find(|name| shape.columns.iter().any(|column| column.name == *name));
    if let Some(arrival) = arrival
        && !shape.indexes.iter().any(|index| index.definition.contains(arrival))
        && !holds_name(ARRIVAL_INDEX)
    {
        plan.push(format!(
            "create index concurrently {ARRIVAL_INDEX} on telemetry using brin ({arrival})"
        ));
    }
    match shape.kind {
        Kind::Plain | Kind::Distributed => Ok(plan),
        Kind::Partitioned | Kind::Hypertable if plan.is_empty() => Ok(plan),
        Kind::Partitioned | Kind::Hypertable => Err(
            "the table is in parts, on which PostgreSQL builds no index beside their work: make an \
             ascending index on ts for each part, and then for the table"
                .to_owned(),
        ),
    }
}

impl Database {
    /// Carries out one step of [`index_plan`], however long it takes, and says how far it is.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(crate) async fn index_step(
        &self,
        statement: &str,
        mut progress: impl FnMut(IndexProgress),
    ) -> Result<(), Failure> {
        let (mut builder, _) = self.writes.server().connect(&[]).await?;
        if builder.keeps_statements() {
            builder.run("set statement_timeout = 0; set lock_timeout = 0".to_owned()).await?;
        }
        let (mut watcher, _) = self.writes.server().connect(QUERY_SETTINGS).await?;
        let build = builder.run(statement.to_owned());
        tokio::pin!(build);
        loop {
            tokio::select! {
                done = &mut build => return done,
                () = tokio::time::sleep(LOOK_AFTER) => {
                    if let Some(seen) = look(&mut watcher).await? {
                        progress(seen);
                    }
                }
            }
        }
    }
}

async fn look(session: &mut Session) -> Result<Option<IndexProgress>, Failure> {
    within(QUERY_TIMEOUT, async {
        session.begin(QUERY_TIMEOUT).await?;
        let row: Option<(String, i64, i64)> = sqlx::query_as(AssertSqlSafe(PROGRESS.to_owned()))
            .persistent(false)
            .fetch_optional(session.connection())
            .await
            .map_err(Failure::of_statement)?;
        session.end().await?;
        Ok(row.map(|(phase, done, total)| IndexProgress {
            phase,
            done: done.unsigned_abs(),
            total: total.unsigned_abs(),
        }))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::super::shape::{Bytes, Column, Index};
    use super::*;

    fn shape(kind: Kind, indexes: &[(&str, &str, bool)], columns: &[&str]) -> Shape {
        let index = |&(name, definition, is_valid): &(&str, &str, bool)| Index {
            name: name.to_owned(),
            definition: definition.to_owned(),
            key: None,
            is_valid,
            bytes: Bytes(0),
        };
        let column = |name: &&str| Column {
            name: (*name).to_owned(),
            kind: "text".to_owned(),
            is_required: true,
        };
        Shape {
            kind,
            partitioned_by: None,
            rows: 0,
            table_bytes: 0,
            index_bytes: 0,
            columns: columns.iter().map(column).collect(),
            indexes: indexes.iter().map(index).collect(),
            partitions: Vec::new(),
        }
    }

    fn plan(indexes: &[(&str, &str, bool)], columns: &[&str]) -> Vec<String> {
        index_plan(&shape(Kind::Plain, indexes, columns)).unwrap()
    }

    #[test]
    fn the_descending_index_goes_when_the_ascending_one_is_there_and_leaves_it_its_name() {
        let brin = (ARRIVAL_INDEX, "brin (created_at)", true);
        let old = (TS_INDEX, "btree (ts DESC)", true);
        let whole = [
            "create index concurrently telemetry_ts_new_idx on telemetry (ts)",
            "drop index concurrently \"telemetry_ts_idx\"",
            "alter index telemetry_ts_new_idx rename to telemetry_ts_idx",
        ];
        assert_eq!(plan(&[brin, old], &["created_at"]), whole);
        // Broken off while it was built, after it, and after the old one was gone.
        let broken = plan(&[brin, old, (NEW, "btree (ts)", false)], &["created_at"]);
        assert_eq!(broken[0], "drop index concurrently \"telemetry_ts_new_idx\"");
        assert_eq!(broken[1..], whole);
        assert_eq!(plan(&[brin, old, (NEW, "btree (ts)", true)], &["created_at"]), whole[1..]);
        assert_eq!(plan(&[brin, (NEW, "btree (ts)", true)], &["created_at"]), whole[2..]);
        assert_eq!(plan(&[brin, (TS_INDEX, "btree (ts)", true)], &["created_at"]), [""; 0]);
    }

    #[test]
    fn a_table_of_the_original_project_gets_what_it_lacks_under_whatever_names() {
        let made = plan(&[("Newest \"first\"", "btree (ts DESC)", true)], &["inserted_at"]);
        assert_eq!(made[1], "drop index concurrently \"Newest \"\"first\"\"\"");
        assert_eq!(
            made[3],
            "create index concurrently telemetry_created_at_idx on telemetry using brin (inserted_at)"
        );
        assert_eq!(plan(&[("by_time", "btree (ts)", true)], &[]), [""; 0]);
    }

    #[test]
    fn a_table_in_parts_is_left_to_its_owner_unless_nothing_is_to_be_done() {
        for kind in [Kind::Partitioned, Kind::Hypertable] {
            assert!(index_plan(&shape(kind, &[], &[])).is_err());
            assert_eq!(
                index_plan(&shape(kind, &[(TS_INDEX, "btree (ts)", true)], &[])),
                Ok(vec![])
            );
        }
    }
}
