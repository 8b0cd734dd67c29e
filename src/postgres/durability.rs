//! Whether the database can keep what it confirms.
//!
//! The log is trimmed on the word of a commit. A server that does not sync, or a table that it does not
//! log, gives that word and does not keep it; nothing here can mend that, so it is said. Asked on each
//! new connection, and every minute, since a reload can change it at any time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::postgres::types::Oid;

use super::failure::Failure;

/// A condition that makes the statement's own commit wait for the disk. `remote_apply` is more than `on`, all
/// else is less.
pub(super) const DURABLY: &str = "set_config('synchronous_commit', \
    case current_setting('synchronous_commit') when 'remote_apply' then 'remote_apply' else 'on' end, \
    true)";

const ASK_AFTER: Duration = Duration::from_secs(60);

/// Nothing that a plain role may not ask, and nothing that touches the table.
pub(super) const QUESTION: &str = "
    with parts (part) as (
        select to_regclass('telemetry')::oid
        union all
        select inhrelid from pg_inherits where inhparent = to_regclass('telemetry')
    )
    select
        current_setting('fsync') = 'off',
        current_setting('full_page_writes') = 'off',
        exists (select from pg_class join parts on oid = part where relpersistence <> 'p'),
        current_setting('synchronous_commit') = 'off',
        to_regclass('telemetry') is not null,
        (
            select indexrelid from pg_index
            where indrelid = to_regclass('telemetry')
                and indisunique and indimmediate and indisvalid and indpred is null and indexprs is null
                and indnkeyatts = 2
                and 2 = (
                    select count(*) from pg_attribute
                    where attrelid = indrelid and attnum in (indkey[0], indkey[1])
                        and attname in ('device_id', 'ts')
                )
            order by indexrelid
            limit 1
        )";

/// What does not hold, in the order of the question's columns, and the sentence that mends it.
const FINDINGS: [&str; 4] = [
    "fsync is off, so a power cut can cost what the database has confirmed: set fsync = on in \
     postgresql.conf and reload it",
    "full_page_writes is off, so a power cut can damage the table: set full_page_writes = on in \
     postgresql.conf and reload it",
    "the table telemetry is unlogged, so a crash of the database empties it: ALTER TABLE telemetry SET \
     LOGGED",
    "synchronous_commit is off and cannot be set, so a crash costs what was confirmed last: ALTER ROLE \
     … SET synchronous_commit = on",
];

const NO_KEY: &str = "the table telemetry has no unique key on (device_id, ts), so rows that are sent \
     again would be doubled: ALTER TABLE telemetry ADD UNIQUE (device_id, ts)";

/// What was found last. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Durability(Arc<Mutex<Found>>);

#[derive(Debug, Default)]
struct Found {
    /// By the clock's monotonic time.
    asked: Option<Duration>,
    findings: Vec<&'static str>,
    /// The table's unique key on `(device_id, ts)`.
    key: Option<Oid>,
}

impl Durability {
    /// What does not hold, a sentence each.
    pub(super) fn findings(&self) -> Vec<&'static str> {
        self.lock().findings.clone()
    }

    /// The table's unique key, when it was looked for last.
    pub(super) fn key(&self) -> Option<Oid> {
        self.lock().key
    }

    /// The key is another: it is looked for with the next batch.
    pub(super) fn ask_soon(&self) {
        self.lock().asked = None;
    }

    /// Whether [`QUESTION`] is to be asked, by way of a session that `is_new` or because nobody has for a
    /// while.
    pub(super) fn is_due(&self, is_new: bool, now: Duration) -> bool {
        let mut found = self.lock();
        let is_known = |asked: Duration| now.saturating_sub(asked) < ASK_AFTER;
        if !is_new && found.asked.is_some_and(is_known) {
            return false;
        }
        // All connections would ask at once otherwise.
        found.asked = Some(now);
        true
    }

    /// Takes the answer in. Says what has changed.
    pub(super) fn hear(&self, answer: &PgRow) -> Result<(), Failure> {
        let (findings, key) = read(answer).map_err(Failure::of_statement)?;
        self.note(findings, key);
        Ok(())
    }

    fn note(&self, findings: Vec<&'static str>, key: Option<Oid>) {
        let mut found = self.lock();
        for finding in findings.iter().filter(|finding| !found.findings.contains(finding)) {
            tracing::warn!("the database may not keep what it confirms: {finding}");
        }
        if findings.is_empty() && !found.findings.is_empty() {
            tracing::info!("the database keeps what it confirms again");
        }
        found.findings = findings;
        found.key = key;
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn read(row: &PgRow) -> sqlx::Result<(Vec<&'static str>, Option<Oid>)> {
    let mut findings = Vec::new();
    for (at, finding) in FINDINGS.into_iter().enumerate() {
        if row.try_get::<Option<bool>, _>(at)?.unwrap_or(false) {
            findings.push(finding);
        }
    }
    let has_table: bool = row.try_get(FINDINGS.len())?;
    let key: Option<Oid> = row.try_get(FINDINGS.len() + 1)?;
    if has_table && key.is_none() {
        findings.push(NO_KEY);
    }
    Ok((findings, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_once_a_minute_and_on_each_new_connection_and_when_the_key_is_another() {
        let durability = Durability::default();
        let at = Duration::from_millis;
        assert!(durability.is_due(false, at(0)));
        assert!(!durability.is_due(false, at(0)), "another connection asks already");
        assert!(!durability.is_due(false, at(59_999)));
        assert!(durability.is_due(false, at(60_000)));
        assert!(durability.is_due(true, at(90_000)));
        assert!(!durability.is_due(false, at(149_999)));
        durability.ask_soon();
        assert!(durability.is_due(false, at(149_999)));
    }
}
