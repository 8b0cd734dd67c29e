//! Mappings that are wrong, corrected, and what came meanwhile.

use serde_json::{Value, json};

use super::{EPOCH, Setup, TOKEN, await_settled};
use crate::harness::{Publisher, eventually_eq};

/// Messages of each mapping.
const MESSAGES: u64 = 40;

/// Each has a place, in pointed brackets, that is wrong or right.
const MAPPINGS: &str = r#"
[[default.mapping]]
name   = "field"
topic  = "field/{device}"
device = "{device}"
time   = { path = "t", format = "s" }
table  = "fields"
[default.mapping.fields]
value = { path = "<data.value>", required = true }
other = { path = "data.other" }

[[default.mapping]]
name   = "none"
topic  = "none/{device}"
device = "{device}"
time   = "received"
table  = "nones"
fields = { value = { path = "<data.value>" } }

[[default.mapping]]
name   = "device"
topic  = "device/+"
device = "{.<data.id>}"
time   = { path = "t", format = "s" }
table  = "devices"
fields = { value = { path = "data.value" } }

[[default.mapping]]
name   = "time"
topic  = "time/{device}"
device = "{device}"
time   = { path = "<data.at>", format = "s" }
table  = "times"
fields = { value = { path = "data.value" } }

[[default.mapping]]
name   = "type"
topic  = "type/{device}"
each   = "list[*]"
device = "{device}/{index}"
time   = { path = "$.t", format = "s" }
table  = "types"
fields = { value = { type = "<float>" } }
"#;

const KINDS: [&str; 5] = ["field", "none", "device", "time", "type"];

fn wrong() -> String {
    MAPPINGS
        .replace("<data.value>", "data.valeu")
        .replace("<data.id>", "data.name")
        .replace("<data.at>", "data.when")
        .replace("<float>", "int")
}

fn right() -> String {
    MAPPINGS.replace(['<', '>'], "")
}

/// Of the type, the first element can be read by the wrong mapping too.
fn message(kind: &str, n: u64) -> Value {
    if kind == "type" {
        return json!({"t": EPOCH + n, "list": [{"value": n}, {"value": 0.5}]});
    }
    let at = EPOCH + n;
    json!({"t": at, "data": {"value": n, "other": 1, "id": format!("d{n}"), "at": at}})
}

#[test]
fn a_wrong_mapping_that_is_corrected_loses_nothing_every_message_is_in_its_table_after_a_replay() {
    let setup = Setup::with(&wrong());
    let mut ingestor = setup.start();
    let mut publisher = Publisher::connect(setup.broker.port);
    for n in 0..MESSAGES {
        for kind in KINDS {
            publisher.publish(&format!("{kind}/d{n}"), message(kind, n).to_string());
        }
    }
    publisher.finish();
    let all = MESSAGES * 5;
    await_settled(&mut ingestor, all);
    assert_eq!(ingestor.metric("ingestor_dead_letters"), all);
    let letters = setup.service.dead_letters();
    for (kind, told) in [
        ("field", "mapping \"field\", field \"value\""),
        ("none", "no mapping takes it; mapping \"none\": "),
        ("device", "mapping \"device\", device"),
        ("time", "mapping \"time\", time"),
        ("type", "mapping \"type\", field \"value\""),
        ("type", " in element 1"),
    ] {
        let of_kind: Vec<_> =
            letters.iter().filter(|one| one.topic.starts_with(&format!("{kind}/"))).collect();
        assert_eq!(of_kind.len() as u64, MESSAGES, "{kind}");
        assert!(of_kind.iter().all(|one| one.reason.contains(told)), "{}", of_kind[0].reason);
    }
    // Of the elements that could be read nothing waits for that.
    assert_eq!(setup.postgres.value("select count(*) from types"), MESSAGES.cast_signed());
    // As long as it is wrong a replay changes nothing.
    let replayed = ingestor.admin("POST", "/admin/dead-letters/replay", TOKEN).json();
    assert_eq!(replayed, json!({"replayed": 0, "still_bad": all}));
    ingestor.stop();

    setup.configure(&right());
    // Somebody mends the column that was made for the wrong type.
    setup.postgres.execute("alter table types alter column value type double precision");
    let ingestor = setup.start();
    let replayed = ingestor.admin("POST", "/admin/dead-letters/replay", TOKEN).json();
    assert_eq!(replayed, json!({"replayed": all, "still_bad": 0}));
    eventually_eq("nothing waits", &0, || ingestor.metric(super::PENDING));
    assert_eq!(ingestor.metric("ingestor_dead_letters"), 0);
    let count = MESSAGES.cast_signed();
    for (table, what) in [
        ("fields", "value = extract(epoch from ts) - 1759667696 and other = 1"),
        ("devices", "value = extract(epoch from ts) - 1759667696"),
        ("times", "value = extract(epoch from ts) - 1759667696"),
        // When they came, not when they were replayed: before what was put into the tables then.
        ("nones", "ts < created_at"),
    ] {
        let rows =
            "count(*), count(distinct device_id), count(*) filter (where device_id = 'd' || value)";
        let expected = format!("{count}|{count}|{count}");
        let found = setup
            .postgres
            .session()
            .texts(&format!("select concat_ws('|', {rows}) from {table} where {what}"));
        assert_eq!(found, [expected], "{table}");
        assert_eq!(setup.postgres.value(&format!("select count(*) from {table}")), count);
    }
    let types = "select concat_ws('|', count(*), count(*) filter (where device_id like '%/1' and value = 0.5),
        count(*) filter (where device_id = 'd' || value || '/0')) from types";
    let expected = format!("{}|{count}|{count}", count * 2);
    assert_eq!(setup.postgres.session().texts(types), [expected]);
    ingestor.stop();
}

/// A field is an integer for a wrong mapping and a number for a right one; a word is neither.
const ELEMENTS: &str = r#"
[[default.mapping]]
name   = "timed"
topic  = "timed/{device}"
each   = "list[*]"
device = "{device}/{index}"
time   = { path = "$.t", format = "s" }
table  = "timed"
fields = { value = { type = "<float>" } }

[[default.mapping]]
name   = "untimed"
topic  = "untimed/{device}"
each   = "list[*]"
device = "{device}"
time   = "received"
table  = "untimed"
fields = { value = { type = "<float>" } }

[[default.mapping]]
name    = "rows"
topic   = "rows/{device}"
format  = "csv"
columns = ["t", "value"]
device  = "{device}"
time    = { path = "t", format = "s" }
table   = "rows"
fields  = { value = { type = "<float>" } }
"#;

#[test]
fn one_element_that_stays_bad_keeps_no_other_of_its_message_out_of_the_table() {
    let setup = Setup::with(&ELEMENTS.replace("<float>", "int"));
    let mut ingestor = setup.start();
    let list = json!({"t": EPOCH, "list": [{"value": 0.5}, {"value": 1}, {"value": "warm"}, {"value": 1.5}]});
    setup.publish("timed/a", &list);
    setup.publish("untimed/a", &list);
    let rows = format!("{EPOCH},0.5\n{},1\n{},warm\n{},1.5\n", EPOCH + 1, EPOCH + 2, EPOCH + 3);
    Publisher::connect(setup.broker.port).publish_one("rows/a", rows);
    await_settled(&mut ingestor, 3);
    let tables = ["timed", "untimed", "rows"];
    let values = |table: &str| {
        setup
            .postgres
            .session()
            .texts(&format!("select value::text from {table} order by ts, device_id"))
    };
    assert_eq!(tables.map(values), [["1"], ["1"], ["1"]]);
    ingestor.stop();

    setup.configure(&ELEMENTS.replace("<float>", "float"));
    for table in tables {
        setup
            .postgres
            .execute(&format!("alter table {table} alter column value type double precision"));
    }
    let ingestor = setup.start();
    for _ in 0..2 {
        let replayed = ingestor.admin("POST", "/admin/dead-letters/replay", TOKEN).json();
        assert_eq!(replayed, json!({"replayed": 0, "still_bad": 3}));
        eventually_eq("nothing waits", &0, || ingestor.metric(super::PENDING));
        assert_eq!(tables.map(values), [["0.5", "1", "1.5"]; 3]);
        assert_eq!(ingestor.metric("ingestor_dead_letters"), 3);
    }
    let letters = ingestor.admin("GET", "/admin/dead-letters", TOKEN).json();
    let id = &letters["dead_letters"][0]["id"];
    let answer = ingestor.admin("POST", &format!("/admin/dead-letters/{id}/replay"), TOKEN);
    let error = answer.error();
    assert!(answer.status == 422 && error.contains("warm") && error.contains('3'), "{error}");
    ingestor.stop();
}
