//! Whole mappings on whole messages.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Fate, Mapped, Mappings, Message};
use crate::base::properties::seeded;
use crate::base::settings::Sources;
use crate::base::time::Timestamp;
use crate::telemetry::rejection::{Reason, Rejection};
use crate::telemetry::validate::{Rules, TimeOfDay};

mod formats;

/// The examples of the documentation.
const EXAMPLES: &str = r#"
[[default.mapping]]
name   = "zigbee"
topic  = "zigbee2mqtt/{device...}"
except = ["zigbee2mqtt/bridge/#", "zigbee2mqtt/.../set", "zigbee2mqtt/.../availability"]
device = "{device}"
time   = { path = "last_seen", fallback = "received" }
[default.mapping.fields]
temperature = { min = -50, max = 100, unit = "°C" }
humidity    = { min = 0, max = 100, unit = "%" }
battery     = { min = 0, max = 100, unit = "%" }
linkquality = { type = "int" }
contact     = { type = "bool" }

[[default.mapping]]
name   = "tasmota"
topic  = "tele/{device}/SENSOR"
each   = "*"
device = "{device}/{key}"
time   = { path = "$.Time", format = "local", zone = "UTC", fallback = "received" }
[default.mapping.fields]
temperature = { path = "Temperature" }
humidity    = { path = "Humidity" }
energy      = { path = "Total", unit = "kWh" }

[[default.mapping]]
name    = "esphome"
topic   = "{device}/sensor/{field}/state"
format  = "text"
device  = "{device}"
field   = "{field}"
missing = ["nan", "unknown", "unavailable"]
time    = "received"
fields  = ["temperature", "humidity", "pressure"]

[[default.mapping]]
name   = "shelly"
topic  = "+/events/rpc"
when   = { "$.method" = "NotifyStatus" }
each   = "params.*"
device = "{$.src}/{key}"
time   = { path = "$.params.ts", format = "s" }
table  = "power"
[default.mapping.fields]
power  = { path = "apower", unit = "W" }
output = { type = "bool" }
energy = { path = "aenergy.total", unit = "Wh" }

[[default.mapping]]
name    = "lorawan"
topic   = "v3/+/devices/+/up"
has     = ["uplink_message.decoded_payload"]
device  = "{.end_device_ids.device_id}"
time    = { path = ["uplink_message.received_at", "received_at"] }
missing = ["NULL"]
extra   = { path = "uplink_message.decoded_payload" }
[default.mapping.fields]
temperature = { path = ["uplink_message.decoded_payload.TempC_SHT", "uplink_message.decoded_payload.temperature"] }
rssi        = { path = "uplink_message.rx_metadata[0].rssi", type = "int" }
"#;

fn compiled(toml: &str) -> Result<Mappings, Vec<String>> {
    let mut from = Sources::new(BTreeMap::new(), toml);
    let mappings = Mappings::read(&mut from);
    from.finish().map(|()| mappings).map_err(|mistakes| mistakes.0)
}

fn rules() -> Rules {
    Rules::read(&mut Sources::new(BTreeMap::new(), ""))
}

fn received_at() -> Timestamp {
    Timestamp::from_rfc3339("2030-01-01T00:00:00Z").unwrap()
}

type Outcome = (Option<usize>, Result<Mapped, Rejection>);

fn decide(mappings: &Mappings, topic: &str, payload: &[u8]) -> (Fate, Vec<Outcome>) {
    let received_at = received_at();
    let message = Message { topic, payload, is_retained: false, received_at };
    let mut all = Vec::new();
    let clock = TimeOfDay::at(received_at);
    let fate = mappings.decide(message, &rules(), clock, |index, outcome| {
        all.push((index, outcome));
    });
    (fate, all)
}

/// The rows that a message makes, as letters and exports have them.
fn rows(mappings: &Mappings, topic: &str, payload: &str) -> Vec<String> {
    let (fate, outcomes) = decide(mappings, topic, payload.as_bytes());
    if !matches!(fate, Fate::Taken(_)) {
        return vec![format!("{fate:?}")];
    }
    let row = |(_, outcome): Outcome| match outcome {
        Ok(mapped) => serde_json::to_string(&mapped.reading).unwrap(),
        Err(rejection) => format!("{} {rejection}", rejection.reason.as_str()),
    };
    outcomes.into_iter().map(row).collect()
}

/// What is wrong with a message of which nothing is stored.
fn fault(mappings: &Mappings, topic: &str, payload: &str) -> (Reason, String) {
    let (fate, outcomes) = decide(mappings, topic, payload.as_bytes());
    match (fate, outcomes.as_slice()) {
        (Fate::Taken(_), [(_, Err(rejection))]) => (rejection.reason, rejection.to_string()),
        (Fate::Unreadable(_, rejection), []) => (rejection.reason, rejection.to_string()),
        (Fate::Unmatched(refusals), []) => {
            let rejection = mappings.explain(&refusals, None);
            (rejection.reason, rejection.to_string())
        }
        other => panic!("expected one fault of {payload}, got {other:?}"),
    }
}

#[test]
fn the_examples_of_the_documentation_make_the_rows_that_it_says() {
    let mappings = compiled(EXAMPLES).unwrap();
    for (topic, payload, expected) in [
        (
            "zigbee2mqtt/kitchen/door",
            r#"{"contact":false,"linkquality":87,"battery":91.5,"update":{"state":"idle"},"last_seen":"2025-10-05T12:34:56+02:00"}"#,
            &[
                r#"{"table":"telemetry","device_id":"kitchen/door","timestamp":"2025-10-05T10:34:56Z","battery":91.5,"contact":false,"linkquality":87}"#,
            ][..],
        ),
        (
            "zigbee2mqtt/a",
            r#"{"temperature":21,"humidity":null}"#,
            &[
                r#"{"table":"telemetry","device_id":"a","timestamp":"2030-01-01T00:00:00Z","temperature":21.0}"#,
            ],
        ),
        (
            "tele/boiler/SENSOR",
            r#"{"Time":"2025-10-05T12:34:56","AM2301":{"Temperature":21.5,"Humidity":40,"DewPoint":7.6},"ENERGY":{"Total":3.185,"Power":[1,2]},"TempUnit":"C"}"#,
            &[
                r#"{"table":"telemetry","device_id":"boiler/AM2301","timestamp":"2025-10-05T12:34:56Z","humidity":40.0,"temperature":21.5}"#,
                r#"{"table":"telemetry","device_id":"boiler/ENERGY","timestamp":"2025-10-05T12:34:56Z","energy":3.185}"#,
            ],
        ),
        (
            "attic/sensor/pressure/state",
            "1013.25\n",
            &[
                r#"{"table":"telemetry","device_id":"attic","timestamp":"2030-01-01T00:00:00Z","pressure":1013.25}"#,
            ],
        ),
        (
            "attic/sensor/pressure/state",
            "nan",
            &[r#"{"table":"telemetry","device_id":"attic","timestamp":"2030-01-01T00:00:00Z"}"#],
        ),
        (
            "shelly-1/events/rpc",
            r#"{"src":"shelly-1","method":"NotifyStatus","params":{"ts":1654511972.77,"switch:0":{"id":0,"output":true,"apower":8.9,"aenergy":{"total":6.532}}}}"#,
            &[
                r#"{"table":"power","device_id":"shelly-1/switch:0","timestamp":"2022-06-06T10:39:32.770Z","energy":6.532,"output":true,"power":8.9}"#,
            ],
        ),
        (
            "v3/app/devices/d/up",
            r#"{"end_device_ids":{"device_id":"d1"},"received_at":"2025-10-05T12:34:57Z","uplink_message":{"decoded_payload":{"TempC_SHT":"NULL","temperature":"21.5","Hum":40,"a":{"b":null,"c":1.50}},"rx_metadata":[{"rssi":-97}]}}"#,
            &[
                r#"{"table":"telemetry","device_id":"d1","timestamp":"2025-10-05T12:34:57Z","extra":{"Hum":40,"a_c":1.50},"rssi":-97,"temperature":21.5}"#,
            ],
        ),
    ] {
        assert_eq!(rows(&mappings, topic, payload), expected, "{payload}");
    }
}

#[test]
fn what_is_not_stored_says_why_with_mapping_and_field() {
    let mappings = compiled(EXAMPLES).unwrap();
    let up = |temperature: &str, time: &str| {
        format!(
            r#"{{"end_device_ids":{{"device_id":"d"}},"received_at":{time},"uplink_message":{{"decoded_payload":{{"temperature":{temperature}}}}}}}"#
        )
    };
    let time = "\"2025-10-05T12:34:57Z\"";
    for (topic, payload, reason, parts) in [
        (
            "zigbee2mqtt/a",
            r#"{"temperature":400}"#.to_owned(),
            Reason::ValueOutOfRange,
            ["zigbee", "temperature", "400 is outside -50 to 100"],
        ),
        (
            "zigbee2mqtt/a",
            r#"{"linkquality":1.5}"#.to_owned(),
            Reason::WrongType,
            ["zigbee", "linkquality", "decimals"],
        ),
        (
            "zigbee2mqtt/a",
            r#"{"battery":1,"battery":2}"#.to_owned(),
            Reason::DuplicateField,
            ["zigbee", "battery", "twice"],
        ),
        ("zigbee2mqtt/a", "{".to_owned(), Reason::InvalidJson, ["zigbee", "JSON", "mapping"]),
        (
            "zigbee2mqtt/a",
            r#"{"battery":1} x"#.to_owned(),
            Reason::InvalidJson,
            ["zigbee", "trailing", "mapping"],
        ),
        (
            "zigbee2mqtt/a",
            r#"{"state":"ON"}"#.to_owned(),
            Reason::NoMapping,
            ["zigbee", "none of its fields", "no mapping"],
        ),
        (
            "s/events/rpc",
            r#"{"method":"NotifyEvent"}"#.to_owned(),
            Reason::NoMapping,
            ["shelly", "$.method", "NotifyEvent"],
        ),
        (
            "s/events/rpc",
            r#"{"method":"NotifyStatus","params":{"a":{"apower":1}}}"#.to_owned(),
            Reason::MissingField,
            ["shelly", "device", "not there"],
        ),
        (
            "v3/a/devices/d/up",
            up("1", "\"yesterday\""),
            Reason::InvalidTimestamp,
            ["lorawan", "time", "yesterday"],
        ),
        (
            "v3/a/devices/d/up",
            up("1", "\"1970-01-01T00:00:00Z\""),
            Reason::TimestampTooOld,
            ["lorawan", "time", "1970"],
        ),
        (
            "v3/a/devices/d/up",
            up("\"warm\"", time),
            Reason::WrongType,
            ["lorawan", "temperature", "warm"],
        ),
        (
            "v3/a/devices/d/up",
            r#"{"uplink_message":{}}"#.to_owned(),
            Reason::NoMapping,
            ["lorawan", "`has`", "decoded_payload"],
        ),
    ] {
        let (found, message) = fault(&mappings, topic, &payload);
        assert_eq!(found, reason, "{payload}: {message}");
        for part in parts {
            assert!(message.contains(part), "{part} in {message}");
        }
    }
}

#[test]
fn what_a_mapping_leaves_alone_is_ignored() {
    let mappings = compiled(EXAMPLES).unwrap();
    for (topic, payload) in [
        ("zigbee2mqtt/bridge/state", "online"),
        ("zigbee2mqtt/lamp/set", r#"{"temperature":1}"#),
        ("zigbee2mqtt/lamp", ""),
        ("attic/sensor/uptime/state", "12"),
    ] {
        let (fate, outcomes) = decide(&mappings, topic, payload.as_bytes());
        assert!(matches!(fate, Fate::Ignored(..)), "{topic}: {fate:?}");
        assert!(outcomes.is_empty());
    }
    assert!(matches!(decide(&mappings, "elsewhere", b"1").0, Fate::NoTopic));
    let retained = |topic, payload: &'static str| {
        let received_at = received_at();
        let message =
            Message { topic, payload: payload.as_bytes(), is_retained: true, received_at };
        mappings.decide(message, &rules(), TimeOfDay::at(received_at), |_, _| {})
    };
    assert!(matches!(retained("a/sensor/humidity/state", "1"), Fate::Ignored(..)));
    // Each of its copies would get a time of its own.
    assert!(matches!(
        retained("zigbee2mqtt/a", r#"{"battery":1}"#),
        Fate::Ignored(_, super::decide::Ignored::RetainedWithoutTime)
    ));
    let timed = r#"{"battery":1,"last_seen":"2025-10-05T12:34:56Z"}"#;
    assert!(matches!(retained("zigbee2mqtt/a", timed), Fate::Taken(0)));
}

#[test]
fn what_one_mapping_leaves_alone_and_another_cannot_read_is_rejected() {
    let leaving = [
        "name = \"a\"\ntopic = [\"x/+/set\", \"x/y/+\"]\nexcept = [\"x/y/set\"]\nfields = [\"v\"]",
        "name = \"a\"\ntopic = \"x/y/{f}\"\nformat = \"text\"\nfield = \"{f}\"\nfields = [\"v\"]",
        "name = \"a\"\ntopic = \"x/y/set\"\nretained = \"skip\"\nfields = [\"v\"]",
    ];
    let reading = "name = \"b\"\ntopic = \"x/+/+\"\nretained = \"store\"\nfields = [\"w\"]";
    for one in leaving {
        for both in [[one, reading], [reading, one]] {
            let all = both.map(|keys| {
                format!("[[default.mapping]]\ndevice = \"d\"\ntime = \"received\"\n{keys}\n")
            });
            let mappings = compiled(&all.concat()).unwrap();
            let decide = |payload: &'static str| {
                let received_at = received_at();
                let (topic, payload) = ("x/y/set", payload.as_bytes());
                let is_retained = one.contains("retained");
                let message = Message { topic, payload, is_retained, received_at };
                mappings.decide(message, &rules(), TimeOfDay::at(received_at), |_, _| {})
            };
            let broken = decide("{\"w\":");
            let Fate::Unreadable(at, rejection) = broken else { panic!("{both:?}: {broken:?}") };
            assert_eq!(
                (mappings.list[at].name.as_str(), rejection.reason),
                ("b", Reason::InvalidJson)
            );
            assert!(rejection.message.starts_with("mapping \"b\": "), "{rejection}");
            // What it can read and is not its own is left alone, as ever, and so is what was cleared.
            assert!(matches!(decide("{\"z\":1}"), Fate::Ignored(..)), "{both:?}");
            assert!(matches!(decide(""), Fate::Ignored(..)), "{both:?}");
        }
    }
}

#[test]
fn of_many_mappings_that_do_not_take_a_message_each_is_named() {
    let told = |count: usize| {
        let one = |n: usize| {
            format!(
                "[[default.mapping]]\nname = \"mapping-{n}\"\ntopic = \"t/{{d}}\"\ndevice = \"{{d}}\"\n\
                     time = \"received\"\nhas = [\"a.path.that.is.not.there\"]\nfields = [\"v\"]\n"
            )
        };
        let all: String = (0..count).map(one).collect();
        fault(&compiled(&all).unwrap(), "t/d", "{\"v\":1}").1
    };
    assert!(told(3).ends_with(
        "mapping \"mapping-2\": `has` does not hold: a.path.that.is.not.there is not there"
    ));
    for count in [3, 10, 18] {
        let told = told(count);
        assert!(told.len() <= 512, "{told}");
        for n in 0..count {
            assert!(told.contains(&format!("mapping \"mapping-{n}\"")), "{n} in {told}");
        }
    }
    let told = told(100);
    assert!(told.len() <= 512 && told.ends_with(" more"), "{told}");
}

#[test]
fn elements_get_times_of_arrival_that_lie_a_microsecond_apart() {
    let mappings = compiled(&with("each = \"[*]\"\nfields = [\"a\"]")).unwrap();
    let (_, outcomes) = decide(&mappings, "t/d", br#"[{"a":1},{"b":1},{"a":2}]"#);
    let times: Vec<i64> = outcomes
        .into_iter()
        .map(|(_, outcome)| {
            let mapped = outcome.unwrap();
            assert!(mapped.by_arrival);
            mapped.reading.timestamp.as_micros() - received_at().as_micros()
        })
        .collect();
    assert_eq!(times, [0, 2]);
}

#[test]
fn of_what_falls_back_to_its_arrival_the_time_of_that_alone_decides() {
    let toml = with("fields = [\"a\"]")
        .replace("\"received\"", "{ path = \"t\", fallback = \"received\" }");
    let mappings = compiled(&toml).unwrap();
    let by_arrival = |clock: &str| {
        let mut by_arrival = None;
        let payload = br#"{"a":1,"t":"2030-01-03T00:00:00Z"}"#;
        let (topic, received_at) = ("t/d", received_at());
        let message = Message { topic, payload, is_retained: false, received_at };
        let clock = TimeOfDay::at(Timestamp::from_rfc3339(clock).unwrap());
        mappings.decide(message, &rules(), clock, |_, outcome| {
            by_arrival = outcome.ok().map(|mapped| mapped.by_arrival);
        });
        by_arrival
    };
    // Whenever it is looked at again, as after a restart.
    assert_eq!(by_arrival("2030-01-01T00:00:00Z"), Some(true));
    assert_eq!(by_arrival("2030-01-03T00:00:00Z"), Some(true));
    assert_eq!(by_arrival("1970-01-01T00:00:00Z"), Some(true));
}

const HEAD: &str =
    "[[default.mapping]]\nname = \"m\"\ntopic = \"t/{d}\"\ndevice = \"{d}\"\ntime = \"received\"\n";

fn with(rest: &str) -> String {
    format!("{HEAD}{rest}")
}

fn rows_of(rest: &str, payload: &str) -> Vec<String> {
    let mappings = compiled(&with(rest)).unwrap();
    // Each element has a time of its own.
    let head = r#""table":"telemetry","device_id":"d","timestamp":"2030-01-01T00:00:00"#;
    let cut = |row: String| match row.split_once(head) {
        Some((before, after)) => format!("{before}{}", after.split_once("Z\",").unwrap().1),
        None => row,
    };
    rows(&mappings, "t/d", payload).into_iter().map(cut).collect()
}

#[test]
fn options_of_a_field_are_applied_in_their_order() {
    let fields = r#"fields = { a = { scale = 0.5, offset = 1, min = 2, max = 3 }, b = { map = { ON = 1, OFF = 0 }, type = "int" }, c = { default = true, type = "bool" }, d = { type = "text", max_bytes = 3 } }"#;
    assert_eq!(
        rows_of(fields, r#"{"a":2,"b":"ON","d":1.0}"#),
        [r#"{"a":2.0,"b":1,"c":true,"d":"1.0"}"#]
    );
    for (payload, part) in [
        (r#"{"a":1}"#, "1.5 is outside 2 to 3"),
        (r#"{"b":"on"}"#, "wrong_type"),
        (r#"{"d":"long"}"#, "text_too_long"),
    ] {
        assert!(rows_of(fields, payload)[0].contains(part), "{payload}");
    }
    let required = "fields = { a = { required = true }, b = {} }";
    for payload in [r#"{"b":1}"#, r#"{"b":1,"a":null}"#] {
        assert!(rows_of(required, payload)[0].contains("missing_field"), "{payload}");
    }
}

#[test]
fn elements_of_an_array_stand_alone_and_conditions_are_asked_of_each() {
    let each = r#"
each = "[*]"
when = { kind = ["env", 7] }
fields = { v = { max = 10 } }
"#;
    let payload = r#"[{"kind":"env","v":1},{"kind":"door","v":2},3,{"kind":7,"v":11},{"kind":"env"},{"v":4,"kind":"env","v":5}]"#;
    let rows = rows_of(each, payload);
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert_eq!(rows[0], r#"{"v":1.0}"#);
    assert!(rows[1].contains("value_out_of_range") && rows[2].contains("duplicate_field"));
    let mappings = compiled(&with(each)).unwrap();
    let indexes: Vec<_> =
        decide(&mappings, "t/d", payload.as_bytes()).1.iter().map(|(index, _)| *index).collect();
    assert_eq!(indexes, [Some(0), Some(3), Some(5)]);
}

#[test]
fn a_condition_may_be_written_as_a_dotted_key_without_quotes() {
    for when in ["when = { a.b = 1, \"c.d\" = true }", "when.a.b = 1\nwhen.\"c.d\" = true"] {
        let rest = format!("{when}\nfields = [\"v\"]\n");
        assert_eq!(rows_of(&rest, r#"{"a":{"b":1},"c":{"d":true},"v":2}"#), [r#"{"v":2.0}"#]);
        assert!(rows_of(&rest, r#"{"a":{"b":2},"c":{"d":true},"v":2}"#)[0].contains("Unmatched"));
    }
}

#[test]
fn one_value_an_element_names_its_column() {
    let one = r#"
each = "[*]"
field = "{.n}"
value = "v"
fields = { temperature = { path = "Temp °C" }, humidity = {} }
"#;
    let payload = r#"[{"n":"Temp °C","v":"21.5"},{"n":"humidity","v":40},{"n":"other","v":1}]"#;
    assert_eq!(rows_of(one, payload), [r#"{"temperature":21.5}"#, r#"{"humidity":40.0}"#]);
    let entries = "each = \"*\"\nfield = \"{key}\"\nfields = [\"temperature\", \"humidity\"]\n";
    assert_eq!(
        rows_of(entries, r#"{"temperature":1,"other":2,"humidity":3}"#),
        [r#"{"temperature":1.0}"#, r#"{"humidity":3.0}"#]
    );
    let left = format!("{entries}extra = {{}}\n");
    assert_eq!(rows_of(&left, r#"{"other":2}"#), [r#"{"extra":{"other":2}}"#]);
}

#[test]
fn a_path_may_lead_to_and_through_a_value_and_into_elements_by_name() {
    let both = r#"fields = { a = { path = "x.y" }, b = { path = "$.x.y" }, c = { path = ["q", "x.z[1]"] } }"#;
    assert_eq!(rows_of(both, r#"{"x":{"y":1,"z":[2,3]}}"#), [r#"{"a":1.0,"b":1.0,"c":3.0}"#]);
    let within = "each = \"p.*\"\nfields = { a = {}, sum = { path = \"$.p.all.sum\" } }\n";
    assert_eq!(
        rows_of(within, r#"{"p":{"one":{"a":1},"all":{"sum":9}}}"#),
        [r#"{"a":1.0,"sum":9.0}"#]
    );
}

#[test]
fn a_reading_that_would_outgrow_its_block_is_rejected() {
    let columns: Vec<String> =
        (0..8).map(|at| format!("c{at} = {{ type = \"text\", max_bytes = 1024 }}")).collect();
    let fields = format!("fields = {{ {} }}", columns.join(", "));
    let values: Vec<String> =
        (0..8).map(|at| format!("\"c{at}\":\"{}\"", "x".repeat(1_000))).collect();
    let row = &rows_of(&fields, &format!("{{{}}}", values.join(",")))[0];
    assert!(row.starts_with("reading_too_large mapping \"m\""), "{row}");
    assert!(rows_of(&fields, &format!("{{{}}}", values[..5].join(",")))[0].contains("c4"));
}

#[test]
fn every_mistake_is_told_at_once_with_its_place() {
    let table = [
        ("", "fields: is missing"),
        ("fields = []", "fields: there are none"),
        ("fields = [\"A\"]", "field \"A\": a column is called"),
        ("fields = [\"ts\"]", "not the mapping's to fill"),
        ("fields = [\"id\"]", "older tables"),
        ("fields = [\"a\", \"a\"]", "twice"),
        ("fields = { a = { typ = \"int\" } }", "field \"a\": unknown key typ, did you mean type?"),
        ("fields = { a = { type = \"double\" } }", "expected float, int, bool or text"),
        ("fields = { a = { min = 2, max = 1 } }", "min 2 is above max 1"),
        ("fields = { a = { type = \"text\", scale = 2 } }", "scale: only a float or an int"),
        ("fields = { a = { type = \"bool\", min = 2 } }", "min: only a float or an int"),
        ("fields = { a = { max_bytes = 2 } }", "max_bytes: only a text"),
        ("fields = { a = { type = \"text\", max_bytes = 1025 } }", "from 1 to 1024"),
        ("fields = { a = { default = \"x\" } }", "default: expected a value of type float"),
        ("fields = { a = { type = \"int\", default = 1.5 } }", "decimals"),
        ("fields = { a = { default = 7, max = 5 } }", "default: 7 is above 5"),
        ("fields = { a = { map = { ON = \"x\" } } }", "map, ON:"),
        ("fields = { a = { path = \"a..b\" } }", "field \"a\": path:"),
        ("fields = { a = { path = \"a[*]\" } }", "only `each`"),
        ("fields = { a = 1 }", "expected options in braces"),
        (
            "fields = { temperature = { type = \"int\" } }",
            "in table \"telemetry\" this column is a float",
        ),
        ("fields = [\"a\"]\ntabel = \"x\"", "unknown key tabel, did you mean table?"),
        ("fields = [\"a\"]\ntable = \"X\"", "table: a table is called"),
        ("fields = [\"a\"]\ntable = \"telemetry_devices\"", "service's or of PostgreSQL's"),
        ("fields = [\"a\"]\neach = \"a\"", "each: `a` must end"),
        ("fields = [\"a\"]\nformat = \"xml\"", "format: expected json, text, ndjson"),
        ("fields = [\"a\"]\nformat = \"csv\"", "columns: is missing"),
        ("extra = {}\nformat = \"text\"", "extra: in a text it is what no column takes"),
        ("fields = [\"a\"]\nformat = \"text\"\neach = \"[*]\"", "has no elements"),
        ("fields = [\"a\", \"b\"]\nformat = \"text\"", "field: is missing"),
        ("fields = [\"a\"]\nvalue = \"v\"", "goes with `field`"),
        ("fields = [\"a\"]\nfield = \"{key}\"", "needs an `each` that ends in `*`"),
        ("fields = [\"a\"]\nfield = \"{x}\"", "topic `t/{d}` has no `{x}`"),
        ("fields = [\"a\"]\nretained = \"maybe\"", "retained: expected store or skip"),
        ("fields = [\"a\"]\nwhen = { a = [] }", "when, a: expected"),
        ("fields = [\"a\"]\nexcept = [\"a/#/b\"]", "except:"),
        ("fields = [\"a\"]\nextra = { max = 0 }", "extra: max: expected a whole number"),
        ("fields = [\"a\"]\nmissing = [[1]]", "missing: expected"),
    ];
    for (rest, part) in table {
        let found = compiled(&with(rest)).expect_err(rest);
        assert!(found.iter().any(|line| line.contains(part)), "{rest}: {found:?}");
        assert!(found.iter().all(|line| line.starts_with("mapping \"m\"")), "{rest}: {found:?}");
    }
    let all = compiled("[[default.mapping]]\nname = \"X\"\ntime = { format = \"local\", zonee = 1 }\n[[default.mapping]]\n").unwrap_err();
    for part in [
        "mapping \"X\": name:",
        "mapping \"X\": topic: is missing",
        "mapping \"X\": device: is missing",
        "mapping \"X\", time: path: is missing",
        "mapping \"X\", time: zone:",
        "unknown key zonee",
        "mapping 2: name: is missing",
        "mapping 2: time: is missing",
        "mapping 2: fields: is missing",
    ] {
        assert!(
            all.iter().any(|line| line.starts_with(part) || line.contains(part)),
            "{part} in {all:#?}"
        );
    }
}

#[test]
fn a_capture_that_no_template_could_name_is_a_mistake_that_says_where() {
    for (level, name) in [("{key}", "key"), ("{index}", "index"), ("{key...}", "key")] {
        let toml = with("each = \"*\"\nfields = [\"a\"]")
            .replace("\"t/{d}\"", &format!("[\"t/{{d}}\", \"u/{{d}}/{level}\"]"));
        let found = compiled(&toml).expect_err(level);
        let expected = format!(
            "mapping \"m\": topic: `u/{{d}}/{level}`: `{{{name}}}` is where an element of `each` stands; call the level something else"
        );
        assert_eq!(found, [expected]);
    }
}

#[test]
fn a_time_is_checked_at_start() {
    for (time, part) in [
        ("\"now\"", "expected \"received\""),
        ("{ path = \"t\", zone = \"UTC\" }", "zone: only a local time has it"),
        ("{ path = \"t\", format = \"local\", zone = \"Mars\" }", "`Mars` is no zone"),
        ("{ path = \"t\", format = \"iso\" }", "format: expected rfc3339"),
        ("{ path = \"t\", fallback = \"now\" }", "fallback: expected \"received\""),
        ("{ path = [] }", "1 to 16 alternatives"),
    ] {
        let toml = with("fields = [\"a\"]").replace("\"received\"", time);
        let found = compiled(&toml).expect_err(time);
        assert!(found.iter().any(|line| line.contains(part)), "{time}: {found:?}");
    }
}

#[test]
fn mappings_into_one_table_agree_about_its_columns() {
    let second = with("fields = { a = {} }\ntable = \"x\"\n")
        + &with("fields = { a = { type = \"int\" } }\ntable = \"x\"\n").replace("\"m\"", "\"n\"");
    let found = compiled(&second).unwrap_err();
    assert_eq!(
        found,
        [
            "mapping \"n\", field \"a\": it is int here and float in mapping \"m\", which fills the same column of table \"x\""
        ]
    );
    let same = with("fields = [\"a\"]\n") + &with("fields = [\"b\"]\n");
    assert_eq!(compiled(&same).unwrap_err(), ["mapping \"m\": name: another mapping is called so"]);
    let many: Vec<String> = (0..201).map(|at| format!("\"c{at}\"")).collect();
    let found = compiled(&with(&format!("fields = [{}]", many.join(",")))).unwrap_err();
    assert!(found[0].contains("201 columns, 200 are allowed"), "{found:?}");
    assert!(compiled(&with(&format!("fields = [{}]", many[..200].join(",")))).is_ok());
}

#[test]
fn subscriptions_leave_out_what_another_one_brings() {
    let mappings = compiled(EXAMPLES).unwrap();
    let own = ["telemetry/#".to_owned()];
    let all = mappings.subscriptions(&own);
    assert_eq!(all.len(), 6, "{all:?}");
    assert_eq!(mappings.subscriptions(&["#".to_owned()]), ["#"]);
    let shared = mappings.subscriptions(&["$share/g/#".to_owned()]);
    assert_eq!(shared.len(), 6, "{shared:?}");
    let warnings = mappings.warnings(&["$share/g/tele/#".to_owned()]);
    let twice = "`$share/g/tele/#` and `tele/+/SENSOR` both match `tele/x/SENSOR`: the broker delivers such a message twice";
    assert!(warnings.iter().any(|line| line.contains(twice)), "{warnings:?}");
    let none = Mappings::default();
    let nested = ["a/#".to_owned(), "a/b".to_owned()];
    assert_eq!(none.subscriptions(&nested), nested, "without a mapping all are asked for");
    assert!(
        mappings
            .warnings(&own)
            .iter()
            .any(|line| line.contains("`zigbee2mqtt/#` and `+/sensor/+/state` both match"))
    );
}

#[test]
fn thousands_of_filters_are_compared_in_a_moment() {
    let topics = |mapping: usize| -> String {
        let of = |at: usize| format!("\"site/{}/{{d}}/m{mapping}/x{at}\"", at % 4);
        (0..256).map(of).collect::<Vec<_>>().join(", ")
    };
    let toml: String = (0..32)
        .map(|mapping| {
            with("fields = [\"a\"]\n")
                .replace("\"m\"", &format!("\"m{mapping}\""))
                .replace("\"t/{d}\"", &format!("[{}]", topics(mapping)))
        })
        .collect();
    let mappings = compiled(&toml).unwrap();
    let own =
        ["site/0/a/m3/#".to_owned(), "site/+/b/m31/x9".to_owned(), "site/1/+/m7/#".to_owned()];
    // What the last of them covers is left out. Each pair parsed anew takes longer than a test may.
    assert_eq!(mappings.subscriptions(&own).len(), 3 + 32 * 256 - 64);
    let warnings = mappings.warnings(&own);
    assert_eq!(warnings.len(), 64 + 1, "{warnings:?}");
    assert!(warnings.iter().any(|line| {
        line.starts_with(
            "the topic filters `site/+/b/m31/x9` and `site/1/+/m31/x9` both match `site/1/b/m31/x9`: some brokers",
        )
    }));
}

#[test]
fn of_filters_that_overlap_without_end_a_hundred_are_named_and_the_others_counted() {
    let topics: Vec<String> = (0..40).map(|at| format!("\"+/x{at}/#\", \"y{at}/#\"")).collect();
    let toml = with("fields = [\"a\"]\n")
        .replace("\"t/{d}\"", &format!("[{}]", topics.join(", ")))
        .replace("\"{d}\"", "\"d\"");
    let warnings = compiled(&toml).unwrap().warnings(&["y0/#".to_owned()]);
    assert_eq!(warnings.len(), 101);
    assert!(warnings[0].contains("`y0/#` and `+/x0/#` both match `y0/x0`"), "{}", warnings[0]);
    assert_eq!(warnings[100], "1500 more pairs of topic filters overlap, and are not shown");
}

#[test]
fn each_of_32_mappings_with_1_000_topics_takes_its_own_messages() {
    let at_most = |topics: usize| {
        let all: Vec<String> = (0..topics).map(|at| format!("\"t/{{d}}/{at}\"")).collect();
        with("fields = [\"a\"]").replace("\"t/{d}\"", &format!("[{}]", all.join(", ")))
    };
    assert!(compiled(&at_most(1_000)).is_ok());
    let found = compiled(&at_most(1_001)).unwrap_err();
    assert_eq!(found, ["mapping \"m\": topic: has 1001 entries, 1000 are allowed"]);
    let mut toml = String::new();
    for mapping in 0..32 {
        let topics: Vec<String> = (0..1_000)
            .filter(|at| at % 32 == mapping)
            .map(|at| format!("\"hall/{}/{{d}}/{at}/#\"", at / 100))
            .collect();
        toml += &with("fields = [\"a\"]\n")
            .replace("\"m\"", &format!("\"m{mapping}\""))
            .replace("\"t/{d}\"", &format!("[{}]", topics.join(", ")));
    }
    let mappings = compiled(&toml).unwrap();
    assert_eq!(mappings.subscriptions(&[]).len(), 1_000);
    assert_eq!(mappings.warnings(&[]), [""; 0]);
    for at in 0..1_000 {
        let topic = format!("hall/{}/press {at}/{at}/state", at / 100);
        let (fate, outcomes) = decide(&mappings, &topic, br#"{"a":1}"#);
        assert!(matches!(fate, Fate::Taken(mapping) if mapping == at % 32), "{topic}: {fate:?}");
        let reading = &outcomes[0].1.as_ref().unwrap().reading;
        assert_eq!(reading.device_id, format!("press {at}"));
    }
    assert!(matches!(decide(&mappings, "hall/1/press/99/state", b"{}").0, Fate::NoTopic));
}

#[test]
fn what_is_left_of_the_message_is_gone_through_once_and_is_in_each_element() {
    let rest = r#"
each = "e[*]"
device = "{$.who}"
time = { path = ["t", "$.t"], fallback = "received" }
extra = { path = "$.head" }
fields = { a = {}, b = { path = ["b", "$.head.b"] } }
"#;
    let toml = with(rest).replacen("device = \"{d}\"\ntime = \"received\"\n", "", 1);
    let mappings = compiled(&toml).unwrap();
    let long = "x,".repeat(100_000);
    let ignored: Vec<String> = (0..40_000).map(|at| format!("\"n{at}\":null")).collect();
    let elements = r#"{"a":1,"t":"2025-10-05T12:34:56Z"},{"a":2,"b":5}"#;
    let payload = |elements: String| {
        let ignored = ignored.join(",");
        format!(
            r#"{{"who":"w","t":"soon","head":{{"b":3,"c":4,"s":{{"d":[true]}},{ignored}}},"e":[{elements}],"x":"{long}"}}"#
        )
    };
    let head = r#"{"table":"telemetry","device_id":"w","timestamp":"#;
    let extra = r#""extra":{"c":4,"s_d_0":true}}"#;
    assert_eq!(
        rows(&mappings, "t/d", &payload(elements.to_owned())),
        [
            format!(r#"{head}"2025-10-05T12:34:56Z","a":1.0,"b":3.0,{extra}"#),
            format!(r#"{head}"2030-01-01T00:00:00.000001Z","a":2.0,"b":5.0,{extra}"#),
        ]
    );
    // Element by element it takes longer than a test may.
    let all = rows(&mappings, "t/d", &payload(vec![elements; 10_000].join(",")));
    assert!(all.len() == 20_000 && all.iter().all(|row| row.ends_with(extra)));
}

#[test]
fn a_value_of_the_message_that_no_reading_has_room_for_is_not_looked_at_for_each_element() {
    let elements = vec![r#"{"a":1}"#; 20_000].join(",");
    for (rest, reason, part) in [
        ("fields = { a = {}, x = { path = \"$.x\" } }", "wrong_type", "longer than any reading"),
        ("fields = { a = {} }\nextra = { path = \"$.x\" }", "reading_too_large", "500"),
        ("extra = { path = \"$.x\" }\nhas = [\"a\"]", "reading_too_large", "500"),
        ("field = \"b\"\nvalue = \"$.x\"\nextra = {}\nhas = [\"a\"]", "reading_too_large", "500"),
        ("fields = { a = {} }\nwhen = { \"$.x\" = 1 }", "Unmatched", "longer than any reading"),
    ] {
        for value in [format!("1.{}", "0".repeat(500_000)), format!("{:?}", "x".repeat(500_000))] {
            let rows = rows_of(
                &format!("each = \"e[*]\"\n{rest}"),
                &format!(r#"{{"x":{value},"e":[{elements}]}}"#),
            );
            assert!(matches!(rows.len(), 1 | 20_000), "{rest}");
            let is_told = |row: &String| row.starts_with(reason) && row.contains(part);
            assert!(rows.iter().all(is_told), "{rest}: {}", rows[0]);
        }
    }
}

#[test]
fn what_is_left_of_the_message_makes_rows_without_a_field_too() {
    let rest = "each = \"e[*]\"\nhas = [\"a\"]\nextra = { path = \"$.head\" }\n";
    let rows = rows_of(rest, r#"{"head":{"c":4},"e":[{"a":1},{"b":1},{"a":2}]}"#);
    assert_eq!(rows, [r#"{"extra":{"c":4}}"#; 2]);
    assert!(rows_of(rest, r#"{"head":{"c":null},"e":[{"a":1}]}"#)[0].contains("Unmatched"));
}

#[test]
fn of_each_value_it_is_told_where_it_came_from() {
    let told = |mappings: &Mappings, topic, payload: &str| -> Vec<(String, String)> {
        let received_at = received_at();
        let payload = payload.as_bytes();
        let message = Message { topic, payload, is_retained: false, received_at };
        let told = mappings.tell(message, &rules(), TimeOfDay::at(received_at));
        told.readings.into_iter().flat_map(|reading| reading.sources).collect()
    };
    let pair = |name: &str, from: &str| (name.to_owned(), from.to_owned());
    let examples = compiled(EXAMPLES).unwrap();
    let payload = r#"{"Time":"2025-10-05T12:34:56","AM2301":{"Temperature":21.5}}"#;
    assert_eq!(
        told(&examples, "tele/boiler/SENSOR", payload),
        [
            pair("device_id", "{device}/{key}"),
            pair("timestamp", "$.Time"),
            pair("temperature", "Temperature")
        ]
    );
    let senml =
        "[[default.mapping]]\nname = \"m\"\ntopic = \"s\"\nformat = \"senml\"\nfields = [\"a\"]\n";
    let payload = r#"[{"bn":"d","n":"a","v":1,"bt":1759667696}]"#;
    assert_eq!(
        told(&compiled(senml).unwrap(), "s", payload),
        [pair("device_id", "{.bn}"), pair("timestamp", "t"), pair("a", "the value called a")]
    );
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn whatever_comes_is_a_row_or_a_rejection_that_names_its_mapping(
        topic in "(zigbee2mqtt|tele|a|v3|\\PC{0,8})/(a|x|sensor|\\PC{0,4})/(SENSOR|humidity|devices|events)(/(rpc|state|d/up))?",
        payload in prop_oneof![
            any::<Vec<u8>>(),
            "\\PC{0,40}".prop_map(String::into_bytes),
            json().prop_map(String::into_bytes),
        ],
    ) {
        let mappings = compiled(EXAMPLES).unwrap();
        let (fate, outcomes) = decide(&mappings, &topic, &payload);
        match &fate {
            Fate::Taken(_) => prop_assert!(!outcomes.is_empty()),
            _ => prop_assert!(outcomes.is_empty()),
        }
        for (_, outcome) in outcomes {
            match outcome {
                Ok(mapped) => {
                    let reading = mapped.reading;
                    prop_assert!(reading.bytes() <= super::READING_MAX_BYTES);
                    prop_assert!(reading.cells.windows(2).all(|two| two[0].0 < two[1].0));
                    for (column, cell) in reading.values() {
                        prop_assert_eq!(column.kind, cell.kind());
                    }
                    prop_assert!(serde_json::to_string(&reading).is_ok());
                }
                Err(rejection) => prop_assert!(rejection.message.starts_with("mapping \"")),
            }
        }
    }

    #[test]
    fn no_text_of_a_file_does_more_than_be_refused(text in "\\PC{0,40}", rest in "\\PC{0,40}") {
        let quoted = format!("{text:?}");
        for key in ["topic", "device", "each", "field", "value", "table", "has", "except"] {
            compiled(&format!("[[default.mapping]]\nname = \"m\"\n{key} = {quoted}\n")).unwrap_err();
        }
        drop(compiled(&with(&format!("fields = {{ a = {{ path = [{quoted}, {rest:?}] }} }}"))));
    }
}

/// JSON that resembles what the examples look for.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("1e999".to_owned()),
        Just("\"NULL\"".to_owned()),
        Just("\"NotifyStatus\"".to_owned()),
        Just("\"2025-10-05T12:34:56Z\"".to_owned()),
        Just("\"\\ud800\"".to_owned()),
        any::<f32>()
            .prop_filter_map("finite", |value| value.is_finite().then(|| value.to_string())),
        any::<i64>().prop_map(|value| value.to_string()),
        "[a-z]{0,300}".prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        let key = prop_oneof![
            Just("temperature"),
            Just("humidity"),
            Just("battery"),
            Just("linkquality"),
            Just("contact"),
            Just("Time"),
            Just("Temperature"),
            Just("params"),
            Just("method"),
            Just("src"),
            Just("ts"),
            Just("apower"),
            Just("output"),
            Just("uplink_message"),
            Just("decoded_payload"),
            Just("rx_metadata"),
            Just("rssi"),
            Just("received_at"),
            Just("end_device_ids"),
            Just("device_id"),
            Just("\\u0061"),
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5)
                .prop_map(|all| format!("[{}]", all.join(","))),
            proptest::collection::vec((key, inner), 0..8).prop_map(|all| {
                let entries: Vec<_> =
                    all.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                format!("{{{}}}", entries.join(","))
            }),
        ]
    })
}
