//! The database: whether it lets us in, keeps what it confirms, and has the same time.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use super::finding::Finding;
use crate::base::time::Timestamp;
use crate::postgres::{Database, Examination, Rights, Settings};

/// Clocks that differ by less do no harm.
const CLOCK_TOLERANCE_SECS: f64 = 60.0;

/// Asks the database; `mapped` are the tables that mappings fill.
pub(in crate::cli) async fn examine(settings: &Settings, mapped: &[String]) -> Vec<Finding> {
    let answer = match Database::new(settings, 1, None) {
        Ok(database) => database.examine(mapped).await,
        Err(failure) => Err(failure),
    };
    match answer {
        Ok(examination) => of_examination(settings, &examination, mapped, Timestamp::now()),
        Err(failure) => vec![Finding::fail(
            "database",
            failure.to_string(),
            "see that it runs and lets this machine in, and check DATABASE_URL",
        )],
    }
}

fn of_examination(
    settings: &Settings,
    found: &Examination,
    mapped: &[String],
    now: Timestamp,
) -> Vec<Finding> {
    let Examination { version, is_standby, rights, findings, .. } = found;
    let mut all = vec![if *is_standby {
        Finding::fail(
            "database",
            format!("{} is a standby, which takes no rows", settings.url),
            "point DATABASE_URL at the primary",
        )
    } else {
        Finding::ok("database", format!("PostgreSQL {version} lets us in at {}", settings.url))
    }];
    all.push(of_rights(*rights));
    all.extend(of_names(*rights, found.names));
    all.extend(mapped.iter().zip(&found.mapped).map(|(table, rights)| of_mapped(table, *rights)));
    if findings.is_empty() {
        all.push(Finding::ok("database settings", "what it confirms is on its disk"));
    }
    all.extend(findings.iter().map(|sentence| {
        // Ours, which say what mends it behind a colon.
        let (what, mend) = sentence.split_once(": ").unwrap_or((sentence, ""));
        Finding::fail("database settings", what, mend)
    }));
    all.push(of_clock(found.now.seconds_since(now)));
    all
}

fn of_rights(rights: Rights) -> Finding {
    const NAME: &str = "table";
    match rights {
        Rights::Table { are_enough: true } => {
            Finding::ok(NAME, "telemetry is there, and this role may insert and select")
        }
        Rights::NoTable { may_make: true } => {
            Finding::ok(NAME, "telemetry is not there yet, and the service may make it")
        }
        Rights::Table { are_enough: false } => Finding::fail(
            NAME,
            "this role may not insert into telemetry and select from it",
            "GRANT INSERT, SELECT ON telemetry, telemetry_devices TO …",
        ),
        Rights::NoTable { may_make: false } => Finding::fail(
            NAME,
            "telemetry is not there, and this role may not make it",
            "let the role own the database, or GRANT CREATE ON SCHEMA public TO …",
        ),
    }
}

/// Of the list of devices' names, without which readings are stored all the same.
fn of_names(of_table: Rights, rights: Rights) -> Option<Finding> {
    const NAME: &str = "devices";
    let mend = "GRANT INSERT, SELECT ON telemetry_devices TO …";
    match (of_table, rights) {
        // It is made with the table.
        (Rights::NoTable { .. }, _) | (_, Rights::NoTable { may_make: true }) => None,
        (_, Rights::Table { are_enough: true }) => {
            Some(Finding::ok(NAME, "telemetry_devices takes the names of new ones"))
        }
        (_, Rights::Table { are_enough: false }) => Some(Finding::warning(
            NAME,
            "this role may not insert into telemetry_devices and select from it, so /api/v1/devices lacks new ones",
            mend,
        )),
        (_, Rights::NoTable { may_make: false }) => Some(Finding::warning(
            NAME,
            "telemetry_devices is not there, and this role may not make it, so /api/v1/devices walks through the table",
            "let the role own the database, or GRANT CREATE ON SCHEMA public TO …",
        )),
    }
}

/// Of a table that mappings fill.
fn of_mapped(table: &str, rights: Rights) -> Finding {
    const NAME: &str = "mapped table";
    match rights {
        Rights::Table { are_enough: true } => Finding::ok(
            NAME,
            format!("{table} is there, and this role may insert, select and update"),
        ),
        Rights::NoTable { may_make: true } => {
            Finding::ok(NAME, format!("{table} is not there yet, and the service may make it"))
        }
        Rights::Table { are_enough: false } => Finding::fail(
            NAME,
            format!("this role may not insert into {table}, select from it and update it"),
            format!("GRANT INSERT, SELECT, UPDATE ON {table} TO …"),
        ),
        Rights::NoTable { may_make: false } => Finding::fail(
            NAME,
            format!("{table} is not there, and this role may not make it"),
            "make it, or GRANT CREATE ON SCHEMA public TO …",
        ),
    }
}

/// `ahead` is by how many seconds its clock is ahead of ours.
fn of_clock(ahead: f64) -> Finding {
    let (seconds, direction) = (ahead.abs(), if ahead < 0.0 { "behind" } else { "ahead of" });
    if seconds <= CLOCK_TOLERANCE_SECS {
        return Finding::ok("database clock", "agrees with the clock of this machine");
    }
    Finding::warning(
        "database clock",
        format!(
            "is {seconds:.0} s {direction} the clock of this machine; RETENTION_DAYS removes nothing while they differ by an hour"
        ),
        "set both by a time server",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_differs_by_more_than_a_minute_is_a_warning_that_says_in_which_direction() {
        assert!(of_clock(-59.0).line().starts_with("ok "));
        let lines = [-7_200.0, 61.0].map(|ahead| of_clock(ahead).line());
        assert!(lines[0].starts_with("warning database clock: is 7200 s behind"), "{lines:?}");
        assert!(lines[1].starts_with("warning database clock: is 61 s ahead of"), "{lines:?}");
    }
}
