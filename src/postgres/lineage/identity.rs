//! Which database it is, and how far it has come, as it says itself.

use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

/// What is known of a database; what a server does not tell is left open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// What initdb has drawn, and replicas share.
    pub(super) system: Option<String>,
    /// Rises with each promotion, and where a backup is restored up to some moment.
    pub(super) timeline: Option<String>,
    /// Where its log is safe up to, in bytes.
    pub(super) log_position: Option<i64>,
    /// In microseconds since the Unix epoch.
    pub(super) started: Option<i64>,
    /// Numbers of the database and of the table, which are given out anew when these are made.
    pub(super) database: Option<i64>,
    pub(super) table: Option<i64>,
}

/// What is asked, the most that a server may answer first. Some do not let everybody see all of it, and
/// relatives of PostgreSQL do not have all of it.
pub(super) const QUESTIONS: [[&str; 5]; 3] = [
    [
        "(select system_identifier::text from pg_control_system())",
        "left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)",
        "(pg_current_wal_flush_lsn() - '0/0')::bigint",
        "(extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint",
        "(select oid::bigint from pg_database where datname = current_database())",
    ],
    [
        "null::text",
        "left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)",
        "(pg_current_wal_flush_lsn() - '0/0')::bigint",
        "(extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint",
        "(select oid::bigint from pg_database where datname = current_database())",
    ],
    [
        "null::text",
        "null::text",
        "null::bigint",
        "(extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint",
        "(select oid::bigint from pg_database where datname = current_database())",
    ],
];

/// What to ask for these parts.
pub(super) fn question(parts: &[&str; 5]) -> String {
    let [system, timeline, log_position, started, database] = parts;
    format!(
        "select pg_is_in_recovery(), {system}, \
         case when not pg_is_in_recovery() then {timeline} end, \
         case when not pg_is_in_recovery() then {log_position} end, \
         {started}, {database}, to_regclass('telemetry')::oid::bigint"
    )
}

/// What the server has answered, if it is none that only follows another.
pub(super) fn read(row: &PgRow) -> sqlx::Result<Option<Identity>> {
    if row.try_get(0)? {
        return Ok(None);
    }
    Ok(Some(Identity {
        system: row.try_get(1)?,
        timeline: row.try_get(2)?,
        log_position: row.try_get(3)?,
        started: row.try_get(4)?,
        database: row.try_get(5)?,
        table: row.try_get(6)?,
    }))
}

/// In what a database differs from the one that has what was confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Change {
    #[error("it is not known which database has the confirmed rows")]
    Unknown,
    #[error("this is a different server: its system identifier differs")]
    System,
    #[error("the server is on another timeline: a standby was promoted, or a backup restored")]
    Timeline,
    #[error("the database has been created again: its OID differs")]
    Database,
    #[error("the table is not the one that the rows were stored in")]
    Table,
    #[error("the server's write-ahead log ends before a position that was already durable")]
    LogPosition,
    #[error("the server was started again, and rows that it confirmed last are not there")]
    Crashed,
    /// Which may mean nothing.
    #[error("the server was started again")]
    Restarted,
}

impl Identity {
    /// Whether it differs in no more than how far the server's log has come.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let log_position = other.log_position;
        Self { log_position, ..self.clone() } == *other
    }

    /// What of `now` says that it may lack something.
    pub(super) fn change(&self, now: &Self) -> Option<Change> {
        fn differ<T: PartialEq>(before: Option<&T>, now: Option<&T>) -> bool {
            before.zip(now).is_some_and(|(before, now)| before != now)
        }
        let is_behind = self.log_position.zip(now.log_position).is_some_and(|(was, is)| is < was);
        if differ(self.system.as_ref(), now.system.as_ref()) {
            Some(Change::System)
        } else if differ(self.timeline.as_ref(), now.timeline.as_ref()) {
            Some(Change::Timeline)
        } else if differ(self.database.as_ref(), now.database.as_ref()) {
            Some(Change::Database)
        } else if is_behind {
            Some(Change::LogPosition)
        } else if differ(self.started.as_ref(), now.started.as_ref()) {
            Some(Change::Restarted)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            system: Some("7".to_owned()),
            timeline: Some("00000001".to_owned()),
            log_position: Some(1_000),
            started: Some(5),
            database: Some(16_384),
            table: Some(16_390),
        }
    }

    fn change(change: impl FnOnce(&mut Identity)) -> Option<Change> {
        let mut now = identity();
        change(&mut now);
        identity().change(&now)
    }

    #[test]
    fn whatever_differs_is_a_reason_but_a_log_that_has_grown() {
        assert_eq!(change(|now| now.log_position = Some(2_000)), None);
        assert_eq!(change(|now| now.log_position = Some(999)), Some(Change::LogPosition));
        assert_eq!(change(|now| now.system = Some("8".to_owned())), Some(Change::System));
        assert_eq!(
            change(|now| now.timeline = Some("00000002".to_owned())),
            Some(Change::Timeline)
        );
        assert_eq!(change(|now| now.database = Some(20_000)), Some(Change::Database));
        assert_eq!(change(|now| now.started = Some(6)), Some(Change::Restarted));
    }

    #[test]
    fn what_a_server_does_not_say_is_no_reason() {
        let silent = |now: &mut Identity| {
            let started = now.started;
            *now = Identity {
                system: None,
                timeline: None,
                log_position: None,
                started,
                database: None,
                table: None,
            };
        };
        assert_eq!(change(silent), None);
    }
}
