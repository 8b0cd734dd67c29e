//! The names of the devices that a table has: in the list of them, or in its key.
//!
//! Those of the table of the built-in shape are in a list of their own. For another one its key is walked from
//! name to name, some steps a statement, each of which begins where the one before it has ended. A recursion
//! would do the same in one, and is refused where rows are on several nodes.

use std::fmt::Write as _;
use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::relation::Relation;
use super::total::{Census, Changes, TOTAL_EXACT_UP_TO, Total};
use crate::base::time::{Clock as _, SystemClock};
use crate::postgres::failure::Failure;
use crate::postgres::session::Session;

/// Steps of one statement: as many as take some milliseconds.
const STEPS: usize = 100;
/// Names are counted for so long.
const COUNTING: Duration = Duration::from_secs(1);
/// Names of the list that a part of a name may find with one look through it.
const FEW: i64 = 1_000;
/// All of a list from its first page on, which is read as it lies. With its key it takes twice as long, or six
/// times where PostgreSQL has not found out yet which pages all transactions see.
const AS_IT_LIES: &str = "ctid >= '(0,0)'";
/// Where counting ends.
const PAST: usize = TOTAL_EXACT_UP_TO as usize + 1;

/// Names of `relation`, in its order.
pub(super) struct Names<'q> {
    relation: &'q Relation,
    /// Only those that have this in them, in capitals or not.
    part: Option<&'q str>,
    census: &'q Census,
    /// Of the list, before anything of it is read.
    changes: Changes,
    clock: SystemClock,
    walked: Walked,
}

/// How far the key was walked, or the list if few of its names match.
#[derive(Default)]
struct Walked {
    last: Option<String>,
    matching: Vec<String>,
    is_over: bool,
}

impl<'q> Names<'q> {
    pub(super) fn of(
        relation: &'q Relation,
        part: Option<&'q str>,
        census: &'q Census,
        changes: Changes,
        clock: SystemClock,
    ) -> Self {
        Self { relation, part, census, changes, clock, walked: Walked::default() }
    }

    /// Up to `limit` of them, after the first `offset`.
    pub(super) async fn page(
        &mut self,
        session: &mut Session,
        offset: u32,
        limit: u32,
    ) -> Result<Vec<String>, Failure> {
        if let Some(list) = self.relation.list()
            && !self.walked.is_over
        {
            return listed(session, list, self.part, offset, limit).await;
        }
        let (offset, limit) = (offset as usize, limit as usize);
        while !self.walked.is_over && self.walked.matching.len() < offset + limit {
            self.walk(session).await?;
        }
        Ok(self.walked.matching.iter().skip(offset).take(limit).cloned().collect())
    }

    /// How many there are.
    pub(super) async fn total(&mut self, session: &mut Session) -> Result<Total, Failure> {
        let is_whole = self.part.is_none();
        if is_whole && self.census.is_past(self.clock.monotonic()) {
            return Ok(Total::of(PAST as u64));
        }
        if let Some(list) = self.relation.list() {
            return Ok(Total::of(self.of_list(session, list).await?));
        }
        let began = self.clock.monotonic();
        while !self.walked.is_over
            && self.walked.matching.len() < PAST
            && self.clock.monotonic().saturating_sub(began) < COUNTING
        {
            self.walk(session).await?;
        }
        let total = Total::of(self.walked.matching.len() as u64);
        let total = Total { exact: total.exact && self.walked.is_over, ..total };
        if is_whole && total.rows >= u64::from(TOTAL_EXACT_UP_TO) {
            self.census.note(!total.exact, self.clock.monotonic());
        }
        Ok(total)
    }

    /// How many of the list, up to [`PAST`]. Those that match, if they are few, are known then.
    async fn of_list(&mut self, session: &mut Session, list: &str) -> Result<u64, Failure> {
        let Some(part) = self.part else {
            if let Some(known) = self.census.exact(self.changes, self.clock.monotonic()) {
                return Ok(known);
            }
            let counted = counted(session, list).await?;
            let now = self.clock.monotonic();
            if counted < PAST as u64 {
                self.census.note_exact(counted, self.changes, now);
            } else {
                self.census.note(true, now);
            }
            return Ok(counted);
        };
        let (counted, names) = matching(session, list, part).await?;
        if counted <= names.len() as u64 {
            self.walked = Walked { last: None, matching: names, is_over: true };
        }
        Ok(counted)
    }

    /// Whether there is one, matching or not.
    pub(super) async fn any(&self, session: &mut Session) -> Result<bool, Failure> {
        let source = self.relation.list().map_or_else(|| self.relation.source(), str::to_owned);
        sqlx::query_scalar(AssertSqlSafe(format!("select exists (select from {source})")))
            .persistent(session.keeps_statements())
            .fetch_one(session.connection())
            .await
            .map_err(Failure::of_statement)
    }

    /// The next steps.
    async fn walk(&mut self, session: &mut Session) -> Result<(), Failure> {
        let sql = steps(&self.relation.source(), self.walked.last.is_none(), STEPS);
        let found: Vec<(String, bool)> = sqlx::query_as(AssertSqlSafe(sql))
            .bind(self.walked.last.as_deref().unwrap_or_default())
            .bind(self.part)
            .persistent(session.keeps_statements())
            .fetch_all(session.connection())
            .await
            .map_err(Failure::of_statement)?;
        self.walked.is_over = found.len() < STEPS;
        if let Some((last, _)) = found.last() {
            self.walked.last = Some(last.clone());
        }
        let matching = found.into_iter().filter(|(_, matches)| *matches).map(|(name, _)| name);
        self.walked.matching.extend(matching);
        Ok(())
    }
}

/// What a name that has `$1` in it fulfills, in capitals or not. To make small letters of all names takes a third
/// of the time, and is left out where there is no letter to be found.
fn matches(part: &str) -> &'static str {
    if part.chars().any(char::is_alphabetic) {
        "strpos(lower(device_id), lower($1)) > 0"
    } else {
        "strpos(device_id, $1) > 0"
    }
}

async fn listed(
    session: &mut Session,
    list: &str,
    part: Option<&str>,
    offset: u32,
    limit: u32,
) -> Result<Vec<String>, Failure> {
    let condition = part.map_or("$1::text is null", matches);
    let sql = format!(
        "select device_id from {list} where {condition} order by device_id offset $2 limit $3"
    );
    sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(part)
        .bind(i64::from(offset))
        .bind(i64::from(limit))
        .persistent(session.keeps_statements())
        .fetch_all(session.connection())
        .await
        .map_err(Failure::of_statement)
}

/// How many there are.
async fn counted(session: &mut Session, list: &str) -> Result<u64, Failure> {
    let sql =
        format!("select count(*) from (select from {list} where {AS_IT_LIES} limit $1) as names");
    let counted: i64 = sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(i64::from(TOTAL_EXACT_UP_TO) + 1)
        .persistent(session.keeps_statements())
        .fetch_one(session.connection())
        .await
        .map_err(Failure::of_statement)?;
    Ok(counted.unsigned_abs())
}

/// How many match, and the first [`FEW`] of them.
async fn matching(
    session: &mut Session,
    list: &str,
    part: &str,
) -> Result<(u64, Vec<String>), Failure> {
    let condition = matches(part);
    let sql = format!(
        "with matching as materialized (
            select device_id::text as name, device_id from {list}
            where {condition} and {AS_IT_LIES} limit $2
        )
        select (select count(*) from matching),
            array(select name from matching order by device_id limit $3)"
    );
    let (counted, names): (i64, Vec<String>) = sqlx::query_as(AssertSqlSafe(sql))
        .bind(part)
        .bind(i64::from(TOTAL_EXACT_UP_TO) + 1)
        .bind(FEW)
        .persistent(session.keeps_statements())
        .fetch_one(session.connection())
        .await
        .map_err(Failure::of_statement)?;
    Ok((counted.unsigned_abs(), names))
}

/// The names behind `$1`, or from it on if it is the `first` statement, each looked up behind the one before it;
/// and whether `$2` is a part of them.
fn steps(source: &str, is_first: bool, count: usize) -> String {
    let step = |sql: &mut String, at: usize| {
        let behind = match at {
            1 if is_first => ">= $1".to_owned(),
            1 => "> $1".to_owned(),
            _ => format!("> (select name from step_{})", at - 1),
        };
        let comma = if at > 1 { ", " } else { "" };
        // Writing to a string does not fail.
        write!(
            sql,
            "{comma}step_{at} as (
                select telemetry.device_id::text as name from {source}
                where telemetry.device_id {behind} order by telemetry.device_id limit 1)"
        )
        .ok();
    };
    let mut sql = "with ".to_owned();
    (1..=count).for_each(|at| step(&mut sql, at));
    sql.push_str(" select name, $2::text is null or strpos(lower(name), lower($2)) > 0 from (");
    for at in 1..=count {
        let union = if at > 1 { " union all " } else { "" };
        write!(sql, "{union}select {at} as step, name from step_{at}").ok();
    }
    sql.push_str(") as steps order by step");
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_begins_behind_the_one_before_it() {
        let sql = steps("\"order\" as telemetry", true, 2);
        let sql = sql.split_whitespace().collect::<Vec<_>>().join(" ");
        let step = "select telemetry.device_id::text as name from \"order\" as telemetry \
            where telemetry.device_id";
        let rest = "order by telemetry.device_id limit 1)";
        assert_eq!(
            sql,
            format!(
                "with step_1 as ( {step} >= $1 {rest}, \
                 step_2 as ( {step} > (select name from step_1) {rest} \
                 select name, $2::text is null or strpos(lower(name), lower($2)) > 0 from (\
                 select 1 as step, name from step_1 union all select 2 as step, name from step_2\
                 ) as steps order by step"
            )
        );
        assert!(steps("t", false, 1).contains("telemetry.device_id > $1"));
    }
}
