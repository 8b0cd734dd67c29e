//! `ingestor check-mapping` and what else knows mappings, as somebody uses it who writes one.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const INGESTOR: &str = env!("CARGO_BIN_EXE_ingestor");

const MAPPING: &str = r#"
[[default.mapping]]
name   = "tasmota"
topic  = "tele/{device}/SENSOR"
each   = "*"
device = "{device}/{key}"
time   = { path = "$.Time", format = "local", zone = "UTC" }
table  = "climate"
[default.mapping.fields]
temperature = { path = "Temperature", max = 80, unit = "°C" }

[[default.mapping]]
name   = "all"
topic  = "tele/#"
except = ["tele/.../LWT"]
device = "x"
time   = "received"
fields = ["battery"]
"#;

const GOOD: &str =
    r#"{"Time":"2025-10-05T12:34:56","AM2301":{"Temperature":21.5,"DewPoint":7},"TempUnit":"C"}"#;

struct Checked {
    code: Option<i32>,
    text: String,
    complaints: String,
}

fn check(toml: &str, arguments: &[&str], input: &str) -> Checked {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("Rocket.toml");
    std::fs::write(&file, toml).unwrap();
    let mut child = Command::new(INGESTOR)
        .args(arguments)
        .env_clear()
        .env("ROCKET_CONFIG", &file)
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that reads nothing has closed it.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Checked { code: status.code(), text: text(stdout), complaints: text(stderr) }
}

fn one(payload: &str) -> Checked {
    let arguments =
        ["check-mapping", "--json", "--topic", "tele/boiler/SENSOR", "--payload", payload];
    check(MAPPING, &arguments, "")
}

#[test]
fn a_message_is_told_with_its_row_and_where_every_value_came_from() {
    let checked = one(GOOD);
    assert_eq!(checked.code, Some(0), "{}", checked.complaints);
    let told: Value = serde_json::from_str(&checked.text).unwrap();
    assert_eq!((&told["mapping"], &told["outcome"]), (&"tasmota".into(), &"stored".into()));
    let row = &told["readings"][0];
    assert_eq!(row["row"]["device_id"], "boiler/AM2301");
    assert_eq!(row["row"]["temperature"], 21.5);
    assert_eq!(row["table"], "climate");
    assert_eq!(row["from"]["device_id"], "{device}/{key}");
    assert_eq!(row["from"]["temperature"], "Temperature");
    assert_eq!(row["from"]["timestamp"], "$.Time");
    assert_eq!(told["ignored"], serde_json::json!(["AM2301.DewPoint", "TempUnit"]));
    let arguments = ["check-mapping", "--topic", "tele/boiler/SENSOR", "--payload", GOOD];
    let text = check(MAPPING, &arguments, "").text;
    for part in [
        "mapping tasmota",
        "device_id = \"boiler/AM2301\"   from {device}/{key}",
        "temperature = 21.5   from Temperature",
        "not looked at: AM2301.DewPoint",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn what_would_not_be_stored_exits_1_and_says_why() {
    let hot = one(&GOOD.replace("21.5", "99"));
    assert_eq!(hot.code, Some(1));
    assert!(hot.text.contains("99 is above 80"), "{}", hot.text);
    let told: Value = serde_json::from_str(&hot.text).unwrap();
    assert_eq!(told["ignored"], serde_json::json!(["AM2301.DewPoint", "TempUnit"]));
    let dropping = format!("[default]\nunmatched = \"drop\"\n{MAPPING}");
    let arguments = ["check-mapping", "--json", "--topic", "elsewhere", "--payload", "1"];
    let dropped = check(&dropping, &arguments, "");
    assert!(dropped.code == Some(1) && dropped.text.contains("\"outcome\":\"ignored\""));
    let other = one(r#"{"state":1}"#);
    assert_eq!(other.code, Some(1));
    let told: Value = serde_json::from_str(&other.text).unwrap();
    let names: Vec<_> =
        told["not_taken_by"].as_array().unwrap().iter().map(|by| &by["mapping"]).collect();
    assert_eq!(names, ["tasmota", "all"]);
}

#[test]
fn a_row_that_the_log_does_not_take_is_rejected_and_extra_that_ends_early_says_so() {
    let with_extra = |max: usize, values: usize, length: usize| {
        let toml = format!(
            "[[default.mapping]]\nname = \"m\"\ntopic = \"m/{{d}}\"\ndevice = \"{{d}}\"\ntime = \"received\"\n\
             extra = {{ path = \"x\", max = {max} }}\nfields = [\"a\"]\n"
        );
        let value = "v".repeat(length);
        let all: serde_json::Map<String, Value> =
            (0..values).map(|n| (format!("k{n}"), value.clone().into())).collect();
        let payload = serde_json::json!({"a": 1, "x": all}).to_string();
        check(&toml, &["check-mapping", "--json", "--topic", "m/a", "--payload", &payload], "")
    };
    let early = with_extra(8, 9, 1);
    let told: Value = serde_json::from_str(&early.text).unwrap();
    assert_eq!(told["readings"][0]["from"]["extra"], "what is left of x, up to `max`, 8 values");
    let whole = with_extra(8, 7, 1);
    assert!(whole.text.contains("\"what is left of x\""), "{}", whole.text);
    let long = with_extra(64, 64, 100);
    assert!(long.code == Some(1) && long.text.contains("reading_too_large"), "{}", long.text);
}

#[test]
fn lines_of_mosquitto_sub_and_an_answer_of_dead_letters_are_read() {
    let line = |topic: &str, payload: &str| serde_json::json!({"tst": "x", "topic": topic, "qos": 0, "retain": 0, "payload": payload});
    let lines = format!(
        "{}\n\n{}\n{{\"topic\":\"tele/x/y\",\"payload\":{{\"battery\":7}}}}\n",
        line("tele/boiler/SENSOR", GOOD),
        line(
            "telemetry/a",
            r#"{"device_id":"a","timestamp":1759667696000,"temperature":1,"humidity":2,"battery":3}"#
        ),
    );
    let checked = check(MAPPING, &["check-mapping", "--json", "-"], &lines);
    assert_eq!(checked.code, Some(0), "{} {}", checked.text, checked.complaints);
    let mappings: Vec<Value> = checked
        .text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["mapping"].clone())
        .collect();
    assert_eq!(mappings, ["tasmota", "the built-in one", "all"]);
    let letters = serde_json::json!({"dead_letters": [
        {"id": 1, "received_at": "2025-10-05T12:34:56Z", "topic": "tele/x/y", "stage": "decode", "reason": "r",
         "payload": "eyJiYXR0ZXJ5Ijo3fQ==", "payload_encoding": "base64"},
        // What the database has refused is a row of its table, whatever the mappings are now.
        {"id": 2, "received_at": "2025-10-05T12:34:56Z", "topic": "", "stage": "database", "reason": "r",
         "payload": r#"{"table":"gone","device_id":"d","timestamp":"2025-10-05T12:34:56Z","power":1.5}"#,
         "payload_encoding": "utf8"},
    ], "total": 2, "next": null});
    let pretty = serde_json::to_string_pretty(&letters).unwrap();
    let checked = check(MAPPING, &["check-mapping", "--json", "-"], &pretty);
    assert_eq!(checked.code, Some(0), "{}", checked.complaints);
    assert!(checked.text.contains("2025-10-05T12:34:56Z"), "{}", checked.text);
    let told: Value = serde_json::from_str(checked.text.lines().nth(1).unwrap()).unwrap();
    assert_eq!(told["readings"][0]["table"], "gone", "{told}");
    assert_eq!((&told["outcome"], &told["mapping"]), (&"stored".into(), &Value::Null));
    let checked = check(MAPPING, &["check-mapping", "-"], "not a line\n");
    assert_eq!(checked.code, Some(1));
    assert!(checked.complaints.contains("line 1"), "{}", checked.complaints);
}

#[test]
fn mistakes_and_bad_arguments_exit_64_everywhere() {
    let bad = MAPPING.replace("max = 80", "mx = 80").replace("\"all\"", "\"All\"");
    for arguments in
        [&["check-mapping", "--topic", "a", "--payload", "b"][..], &["check-config"], &["run"]]
    {
        let checked = check(&bad, arguments, "");
        assert_eq!(checked.code, Some(64), "{arguments:?}");
        for part in
            ["mapping \"tasmota\", field \"temperature\": unknown key mx", "mapping \"All\": name:"]
        {
            assert!(checked.complaints.contains(part), "{part} in {}", checked.complaints);
        }
    }
    // What would be passed over otherwise, with all that stands under it.
    let elsewhere = MAPPING.replace("[[default.mapping]]", "[[default.mappings]]");
    let elsewhere = elsewhere.replace("[default.mapping.fields]", "[default.mappings.fields]");
    for arguments in [&["check-mapping", "--topic", "a", "--payload", "b"][..], &["run"]] {
        let checked = check(&elsewhere, arguments, "");
        let mistake = "mappings in Rocket.toml: unknown key";
        assert!(checked.complaints.contains(mistake), "{arguments:?}: {}", checked.complaints);
        assert_eq!(checked.code, Some(64), "{arguments:?}");
    }
    for arguments in [&["check-mapping"][..], &["check-mapping", "--topic", "a"]] {
        assert_eq!(check(MAPPING, arguments, "").code, Some(64), "{arguments:?}");
    }
}

#[test]
fn check_config_shows_the_tables_and_filters_that_overlap() {
    let overlapping = MAPPING.replace("tele/#", "+/boiler/#");
    let checked = check(&overlapping, &["check-config"], "");
    assert_eq!(checked.code, Some(0), "{}", checked.complaints);
    for line in [
        "table climate: temperature double precision (°C) [mappings: tasmota]",
        "table telemetry: battery double precision [mappings: all]",
    ] {
        assert!(checked.text.lines().any(|shown| shown == line), "{line} in {}", checked.text);
    }
    let warning =
        "the topic filters `tele/+/SENSOR` and `+/boiler/#` both match `tele/boiler/SENSOR`";
    assert!(checked.complaints.contains(warning), "{}", checked.complaints);
}
