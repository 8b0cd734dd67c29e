//! What is to be known of a database before it is relied on, asked without changing anything in it.

use std::iter;

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::database::Database;
use super::durability;
use super::failure::{Failure, within};
use super::limits::{LOOK_LIMIT, QUERY_TIMEOUT};
use super::table::DEVICES;
use crate::base::time::Timestamp;

/// A database that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Examination {
    /// Of the server, as it says it.
    pub(crate) version: String,
    /// The time of day there.
    pub(crate) now: Timestamp,
    /// Whether it only follows another server, and takes no rows.
    pub(crate) is_standby: bool,
    /// What the role may do.
    pub(crate) rights: Rights,
    /// With the list of devices' names.
    pub(crate) names: Rights,
    /// With each of the tables that mappings fill, in their order.
    pub(crate) mapped: Vec<Rights>,
    /// What keeps it from keeping what it confirms, a sentence each.
    pub(crate) findings: Vec<&'static str>,
}

/// What the role may do with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rights {
    /// It is there; whether it may be written to and read.
    Table { are_enough: bool },
    /// It is not; whether it may be made.
    NoTable { may_make: bool },
}

const QUESTION: &str = "
    select
        current_setting('server_version'),
        (extract(epoch from clock_timestamp()) * 1000000)::bigint,
        pg_is_in_recovery(),
        has_table_privilege(to_regclass('telemetry')::oid, 'insert')
            and has_table_privilege(to_regclass('telemetry')::oid, 'select'),
        has_schema_privilege(current_schema(), 'create')";

/// For each table, whether it may be written to and read, and filled up. The list of names comes first.
const TABLES: &str = "
    select
        has_table_privilege(to_regclass(quote_ident(name))::oid, 'insert')
            and has_table_privilege(to_regclass(quote_ident(name))::oid, 'select'),
        has_table_privilege(to_regclass(quote_ident(name))::oid, 'update'),
        has_schema_privilege(current_schema(), 'create')";

impl Database {
    /// Asks for it, of the tables with these names too, of which each is a plain word.
    ///
    /// # Errors
    /// Mostly [`Failure::Unavailable`], after the time for connecting and a little more at the latest.
    pub(crate) async fn examine(&self, mapped: &[String]) -> Result<Examination, Failure> {
        let names: Vec<&str> =
            iter::once(DEVICES).chain(mapped.iter().map(String::as_str)).collect();
        let of_tables = format!(
            "{TABLES} from unnest('{{{}}}'::text[]) with ordinality as wanted (name, place) order by place",
            names.join(",")
        );
        let mut lease = self.writes.lease().await?;
        let session = lease.session();
        let patience = session.allowance(QUERY_TIMEOUT);
        let answers = within(patience, async {
            let of_server = session.ask(LOOK_LIMIT, QUESTION).await?;
            let of_tables = session.ask(LOOK_LIMIT, &of_tables).await?;
            Ok((of_server, of_tables, session.ask(LOOK_LIMIT, durability::QUESTION).await?))
        });
        let (of_server, of_tables, of_durability) = answers.await?;
        lease.keep();
        let no_answer = || Failure::unavailable("the database answers a question with nothing");
        let findings = of_durability.first().ok_or_else(no_answer).and_then(|row| {
            durability::read(row).map(|(findings, _)| findings).map_err(Failure::of_statement)
        })?;
        let of_server = of_server.first().ok_or_else(no_answer)?;
        read(of_server, &of_tables, findings).map_err(Failure::of_statement)
    }
}

fn read(
    row: &PgRow,
    of_tables: &[PgRow],
    findings: Vec<&'static str>,
) -> sqlx::Result<Examination> {
    let rights = rights(row.try_get(3)?, row.try_get(4)?);
    let mut mapped = Vec::with_capacity(of_tables.len());
    let mut names = Rights::NoTable { may_make: false };
    for (at, row) in of_tables.iter().enumerate() {
        let (may_use, may_fill): (Option<bool>, Option<bool>) = (row.try_get(0)?, row.try_get(1)?);
        let may_make = row.try_get(2)?;
        if at == 0 {
            names = self::rights(may_use, may_make);
        } else {
            let may_fill_up = may_use.zip(may_fill).map(|(may_use, may_fill)| may_use && may_fill);
            mapped.push(self::rights(may_fill_up, may_make));
        }
    }
    Ok(Examination {
        version: row.try_get(0)?,
        now: Timestamp::from_micros(row.try_get(1)?).unwrap_or(Timestamp::UNIX_EPOCH),
        is_standby: row.try_get(2)?,
        rights,
        names,
        mapped,
        findings,
    })
}

fn rights(may_use: Option<bool>, may_make: Option<bool>) -> Rights {
    match may_use {
        Some(are_enough) => Rights::Table { are_enough },
        None => Rights::NoTable { may_make: may_make.unwrap_or(false) },
    }
}
