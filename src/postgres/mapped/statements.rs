//! The statements that write rows of a table. Every name is quoted: `order` and `user` are columns like
//! others.

use std::fmt::Write as _;

use super::value::Array;
use crate::postgres::table::quoted;

/// A column that a statement fills.
pub(super) type Filled<'c> = (&'c str, &'c Array<'c>);

/// What becomes of rows that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// They fail the statement; without the unique key of the last parameter it stores nothing.
    Fail,
    /// They are passed over.
    Skip,
    /// They get the values that they lack. Rows that are not there are passed over.
    Fill,
    /// The same without a look for them first, which nodes refuse ([`crate::postgres::spread`]). Rows that are
    /// not there are inserted.
    FillUnseen,
}

/// Inserts what `unnest` makes of the parameters: device ids, times, and an array for each column.
///
/// `durably` is a condition that makes the commit wait for the disk.
pub(super) fn insert(table: &str, columns: &[Filled<'_>], mode: Mode, durably: &str) -> String {
    let table = quoted(table);
    let names: Vec<String> = columns.iter().map(|(name, _)| quoted(name)).collect();
    let mut list = "device_id, ts".to_owned();
    let mut selected = "batch.device_id, batch.ts".to_owned();
    let mut parameters = "$1::text[], $2::timestamptz[]".to_owned();
    // Writing to a string does not fail.
    for ((name, (_, array)), number) in names.iter().zip(columns).zip(3..) {
        write!(list, ", {name}").ok();
        write!(selected, ", batch.{name}{}", array.cast()).ok();
        write!(parameters, ", ${number}::{}", array.sql()).ok();
    }
    let mut sql = format!(
        "insert into {table} as stored ({list}) select {selected} from unnest({parameters}) as batch ({list}) where {durably}"
    );
    match mode {
        Mode::Fail => {
            let key = columns.len() + 3;
            write!(
                sql,
                " and exists (select from pg_index where indexrelid = ${key} and indisvalid)"
            )
            .ok();
        }
        Mode::Skip => sql.push_str(" on conflict (device_id, ts) do nothing"),
        Mode::Fill => {
            look_first(&mut sql, &table, &names);
            fill(&mut sql, &names);
        }
        Mode::FillUnseen => fill(&mut sql, &names),
    }
    sql
}

/// For those that lack a value: `do update` locks each row that it meets, and writes that down, also where nothing
/// changes.
fn look_first(sql: &mut String, table: &str, names: &[String]) {
    write!(
        sql,
        " and exists (select from {table} as there where there.device_id = batch.device_id \
         and there.ts = batch.ts and ({}))",
        lacks(names, "there", "batch")
    )
    .ok();
}

fn fill(sql: &mut String, names: &[String]) {
    let set = |name: &String| format!("{name} = coalesce(stored.{name}, excluded.{name})");
    let sets = names.iter().map(set).collect::<Vec<_>>().join(", ");
    write!(
        sql,
        " order by batch.ts, batch.device_id collate \"C\" \
         on conflict (device_id, ts) do update set {sets} where {}",
        lacks(names, "stored", "excluded")
    )
    .ok();
}

/// Whether the row `new` has a value that the row `there` has not.
fn lacks(names: &[String], there: &str, new: &str) -> String {
    let one = |name: &String| format!("({there}.{name} is null and {new}.{name} is not null)");
    names.iter().map(one).collect::<Vec<_>>().join(" or ")
}

/// Numbers, from 1, of the rows that are not in the table, or not with each of their values: what of
/// [`insert`]'s parameters something has done away with.
pub(super) fn missing(table: &str, columns: &[Filled<'_>]) -> String {
    let names: Vec<String> = columns.iter().map(|(name, _)| quoted(name)).collect();
    let mut list = "device_id, ts".to_owned();
    let mut parameters = "$1::text[], $2::timestamptz[]".to_owned();
    // Writing to a string does not fail.
    for ((name, (_, array)), number) in names.iter().zip(columns).zip(3..) {
        write!(list, ", {name}").ok();
        write!(parameters, ", ${number}::{}", array.sql()).ok();
    }
    let is_whole = if names.is_empty() {
        String::new()
    } else {
        format!(" and not ({})", lacks(&names, "there", "wanted"))
    };
    // No column is called like that.
    format!(
        "select wanted.\"#\" from unnest({parameters}) with ordinality as wanted ({list}, \"#\") \
         where not exists (select from {} as there where there.device_id = wanted.device_id \
         and there.ts = wanted.ts{is_whole}) order by wanted.\"#\"",
        quoted(table)
    )
}

/// Rows of some devices and some times, each with an array of which of `columns` is null in it.
pub(super) fn held(table: &str, columns: &[&str]) -> String {
    let is_null = |name: &&str| format!("there.{} is null", quoted(name));
    let nulls = columns.iter().map(is_null).collect::<Vec<_>>().join(", ");
    format!(
        "select there.device_id::text, there.ts::timestamptz, array[{nulls}]::boolean[] from {} as there \
         where there.device_id = any($1) and there.ts = any($2)",
        quoted(table)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statements_quote_every_name_and_fill_what_is_null() {
        let (order, extra) = (Array::Floats(Vec::new()), Array::Jsons(Vec::new()));
        let columns = [("order", &order), ("extra", &extra)];
        let begin = "insert into \"user\" as stored (device_id, ts, \"order\", \"extra\") \
            select batch.device_id, batch.ts, batch.\"order\", batch.\"extra\"::jsonb \
            from unnest($1::text[], $2::timestamptz[], $3::float8[], $4::text[]) \
            as batch (device_id, ts, \"order\", \"extra\") where true";
        let of = |known| insert("user", &columns, known, "true");
        assert_eq!(
            of(Mode::Fail),
            format!(
                "{begin} and exists (select from pg_index where indexrelid = $5 and indisvalid)"
            )
        );
        assert_eq!(of(Mode::Skip), format!("{begin} on conflict (device_id, ts) do nothing"));
        let fill = of(Mode::Fill);
        assert!(fill.starts_with(&format!("{begin} and exists (select from \"user\" as there")));
        assert!(
            fill.contains("\"order\" = coalesce(stored.\"order\", excluded.\"order\")"),
            "{fill}"
        );
        assert!(fill.ends_with("(stored.\"extra\" is null and excluded.\"extra\" is not null)"));
        let unseen = of(Mode::FillUnseen);
        assert!(unseen.starts_with(&format!("{begin} order by batch.ts, ")), "{unseen}");
        assert_eq!(
            fill.split_once(" order by ").unwrap().1,
            unseen.split_once(" order by ").unwrap().1
        );
        assert_eq!(
            held("user", &["order", "extra"]),
            "select there.device_id::text, there.ts::timestamptz, \
             array[there.\"order\" is null, there.\"extra\" is null]::boolean[] from \"user\" as there \
             where there.device_id = any($1) and there.ts = any($2)"
        );
    }
}
