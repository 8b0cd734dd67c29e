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

/// What stands before the statements of a transaction that need an exclusive lock on `tables`, as they are written
/// in SQL. A role that does not own them, and so may not change them, does without the first lock, and so does one
/// that may not change their rows.
pub(super) fn exclusive(tables: &[impl AsRef<str>]) -> String {
    let names: Vec<&str> = tables.iter().map(AsRef::as_ref).collect();
    let literals: Vec<String> =
        names.iter().map(|name| format!("'{}'::regclass", name.replace('\'', "''"))).collect();
    let body = format!(
        "begin
            if (select bool_and(pg_has_role(relowner, 'usage')) from pg_class where oid in ({})) then
                set local lock_timeout = '5s';
                lock table {} in share update exclusive mode;
            end if;
        exception when insufficient_privilege or wrong_object_type or undefined_table then null;
        end",
        literals.join(", "),
        names.join(", ")
    );
    format!("do '{}'; set local lock_timeout = '200ms'", body.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_literals_within_the_text_of_a_block() {
        let sql = exclusive(&["telemetry", "\"it's\""]);
        let list = r#"(''telemetry''::regclass, ''"it''''s"''::regclass)"#;
        assert!(sql.contains(list), "{sql}");
        assert!(sql.contains(r#"lock table telemetry, "it''s" in share update"#), "{sql}");
    }
}
