//! What makes a partition: its name, its bounds, and the statements.

use std::fmt::Write as _;

use chrono::{DateTime, Datelike, Utc};

use super::plan::{DAY, FIRST, LAST, Range};
use crate::postgres::table::{OLDER, quoted};

/// Makes them, for the owner of the table where this role may give them away. The lock that attaching takes
/// is one that neither readers nor writers wait for.
pub(in crate::postgres) fn statements(
    schema: &str,
    ranges: &[Range],
    mut taken: Vec<String>,
) -> String {
    let mut sql = String::new();
    for range in ranges {
        let name = name(*range, &taken);
        let part = format!("{schema}.{}", quoted(&name));
        let literal = part.replace('\'', "''");
        // Writing to a string does not fail.
        write!(
            sql,
            "create table {part} (like telemetry including all excluding indexes \
                 excluding identity);
             do $owner$ begin
                 execute format('alter table %s owner to %s', '{literal}'::regclass,
                     (select relowner::regrole from pg_class where oid = 'telemetry'::regclass));
             exception when insufficient_privilege then null;
             end $owner$;
             alter table telemetry attach partition {part} \
                 for values from ({}) to ({});",
            bound(range.from),
            bound(range.to)
        )
        .ok();
        taken.push(name);
    }
    sql
}

/// By its beginning, as somebody would look for it.
fn name(range: Range, taken: &[String]) -> String {
    let name = if range.from == FIRST {
        OLDER.to_owned()
    } else {
        let format = if range.from % DAY == 0 { "%m%d" } else { "%m%d_%H%M%S" };
        let from = time(range.from);
        format!("telemetry_p{:04}{}", from.year_ce().1, from.format(format))
    };
    let numbered = (2..).map(|number| format!("{name}_{number}"));
    let mut names = std::iter::once(name.clone()).chain(numbered);
    names.find(|name| !taken.contains(name)).unwrap_or(name)
}

pub(in crate::postgres) fn bound(micros: i64) -> String {
    match micros {
        FIRST => "minvalue".to_owned(),
        LAST => "maxvalue".to_owned(),
        micros => {
            let at = time(micros);
            // A year has no sign for PostgreSQL.
            let (is_ours, year) = at.year_ce();
            let era = if is_ours { "" } else { " BC" };
            format!("'{year:04}-{}{era}'", at.format("%m-%d %H:%M:%S%.6f+00"))
        }
    }
}

fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_called_by_their_beginning_and_never_like_something_else() {
        let from = |from| Range { from, to: from + DAY };
        let name = |range, taken: &[&str]| {
            super::name(range, &taken.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        let day = 20_000 * DAY;
        assert_eq!(name(from(day), &[]), "telemetry_p20241004");
        assert_eq!(name(from(day + DAY / 2), &[]), "telemetry_p20241004_120000");
        let taken = ["telemetry_p20241004", "telemetry_p20241004_2"];
        assert_eq!(name(from(day), &taken), "telemetry_p20241004_3");
        assert_eq!(name(Range { from: FIRST, to: day }, &[]), "telemetry_older");
        assert_eq!(name(from(2_932_897 * DAY), &[]), "telemetry_p100000101");
    }

    #[test]
    fn bounds_are_said_in_utc_to_the_microsecond() {
        assert_eq!(bound(20_000 * DAY + 1), "'2024-10-04 00:00:00.000001+00'");
        assert_eq!((bound(FIRST), bound(LAST)), ("minvalue".to_owned(), "maxvalue".to_owned()));
        assert_eq!(bound(2_932_897 * DAY), "'10000-01-01 00:00:00.000000+00'");
        assert_eq!(bound(-719_529 * DAY), "'0002-12-31 00:00:00.000000+00 BC'");
    }
}
