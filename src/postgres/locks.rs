//! Exclusive locks on tables that are in use.
//!
//! Whoever waits for one holds up all that come after, so nobody waits for long. But an autovacuum gives way
//! only to one who has waited for `deadlock_timeout`, a second, and it may take hours. So first comes a lock
//! for which neither reader nor writer queues: it ends the autovacuum, and keeps the next one away.

/// PostgreSQL's code for a lock that was waited for in vain.
pub(super) const NOT_AVAILABLE: &str = "55P03";

const DEADLOCK: &str = "40P01";

/// Whether an error is that of a lock which somebody else has, and will not have for ever.
pub(super) fn passes(sqlstate: &str) -> bool {
    [NOT_AVAILABLE, DEADLOCK].contains(&sqlstate)
}

/// What stands before the statements of a transaction that need an exclusive lock on `tables`, a list. A role
/// that may not change their rows does without the first lock.
pub(super) fn exclusive(tables: &str) -> String {
    let tables = tables.replace('\'', "''");
    format!(
        "do 'begin
            set local lock_timeout = ''5s'';
            lock table {tables} in share update exclusive mode;
        exception when insufficient_privilege or wrong_object_type or undefined_table then null;
        end';
        set local lock_timeout = '200ms'"
    )
}
