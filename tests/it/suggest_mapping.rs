//! `ingestor suggest-mapping`, and whether what it suggests is taken.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::Mosquitto;

const INGESTOR: &str = env!("CARGO_BIN_EXE_ingestor");
const RECIPES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/mappings");

/// The ingestor with `arguments` in `dir`, with the configuration `config` of it: exit code, standard
/// output, standard error.
fn ingestor(dir: &TempDir, arguments: &[&str], port: Option<u16>) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Command::new(INGESTOR)
        .args(arguments)
        .env_clear()
        .env("ROCKET_CONFIG", dir.path().join("suggested.toml"))
        .envs(port.map(|port| ("MQTT_PORT", port.to_string())))
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// The messages of a recipe, as `mosquitto_sub` would print them.
fn messages(recipe: &str) -> Vec<Value> {
    let text =
        fs::read_to_string(Path::new(RECIPES).join(format!("{recipe}.messages.ndjson"))).unwrap();
    let message = |line: &str| {
        let mut message: Value = serde_json::from_str(line).unwrap();
        let rows = message.as_object_mut().unwrap().remove("rows").unwrap();
        // What the broker had kept is skipped where no time is in it.
        message["retain"] = 0.into();
        (!rows.as_array().unwrap().is_empty()).then_some(message)
    };
    text.lines().filter_map(message).collect()
}

/// What is suggested for `messages`, and what `check-mapping` says of them with it, line by line.
fn suggested(messages: &[Value]) -> (String, Vec<Value>) {
    let dir = tempfile::tempdir().unwrap();
    let lines: Vec<String> = messages.iter().map(Value::to_string).collect();
    fs::write(dir.path().join("messages"), lines.join("\n")).unwrap();
    let (code, text, complaints) = ingestor(&dir, &["suggest-mapping", "messages"], None);
    assert_eq!((code, complaints.as_str()), (Some(0), ""), "{text}");
    fs::write(dir.path().join("suggested.toml"), &text).unwrap();
    let (code, _, complaints) = ingestor(&dir, &["check-config"], None);
    assert_eq!(code, Some(0), "{complaints}\n{text}");
    let (_, told, complaints) = ingestor(&dir, &["check-mapping", "--json", "messages"], None);
    let told = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(complaints.is_empty() || !complaints.contains("ingestor:"), "{complaints}\n{text}");
    (text, told)
}

#[test]
fn what_is_suggested_for_the_messages_of_a_recipe_takes_them() {
    for recipe in [
        "cbor-msgpack",
        "chirpstack",
        "csv-logger",
        "dsmr",
        "esphome",
        "homie",
        "ndjson-batch",
        "one-value-a-topic",
        "owntracks",
        "pimoroni-enviro",
        "rtl433",
        "senml",
        "shelly-gen1",
        "shelly-gen2",
        "tasmota",
        "telegraf",
        "the-things-stack",
        "zigbee2mqtt",
    ] {
        let messages = messages(recipe);
        let (text, told) = suggested(&messages);
        for (message, told) in messages.iter().zip(&told) {
            assert_eq!(told["outcome"], "stored", "{recipe}: {message}\n{told}\n{text}");
            let readings = told["readings"].as_array().unwrap();
            assert!(!readings.is_empty(), "{recipe}: {message}\n{told}\n{text}");
        }
    }
}

#[test]
fn levels_that_differ_between_topics_that_carry_the_same_become_captures() {
    let message = |topic: &str, payload: &str| serde_json::json!({"topic": topic, "payload": payload, "qos": 1, "retain": 0});
    let messages = [
        message("zigbee2mqtt/hall", r#"{"temperature":21.5,"battery":91,"linkquality":80}"#),
        message(
            "zigbee2mqtt/attic",
            r#"{"temperature":19,"battery":87,"linkquality":70,"occupancy":true}"#,
        ),
        message("zigbee2mqtt/lamp", r#"{"state":"ON","brightness":120,"linkquality":90}"#),
        message(
            "tele/boiler/SENSOR",
            r#"{"Time":"2025-10-05T12:34:56","AM2301":{"Temperature":21.5}}"#,
        ),
        message("cellar/sensor/humidity/state", "70"),
        message("attic/sensor/humidity/state", "50.5"),
        message("attic/sensor/temperature/state", "unavailable"),
        message("attic/sensor/temperature/state", "21"),
        message("garage/name", "The garage"),
    ];
    let (text, told) = suggested(&messages);
    for part in [
        "topic  = \"zigbee2mqtt/{device}\"",
        "topic  = \"tele/{device}/SENSOR\"",
        "topic  = \"{device}/sensor/{field}/state\"",
        "format = \"text\"",
        "missing = [\"unavailable\"]",
        "time   = { path = \"Time\", format = \"local\", zone = \"UTC\" }",
        "time   = \"received\"",
        "occupancy = { type = \"bool\" }    # true",
        "temperature = { path = \"AM2301.Temperature\" }    # 21.5",
        "QoS 1",
        "# no mapping: there is no number in it",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let outcomes: Vec<&str> = told.iter().map(|told| told["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes[..8], ["stored"; 8], "{told:?}");
    assert_eq!(told[0]["readings"][0]["row"]["device_id"], "hall");
    assert_eq!(told[5]["readings"][0]["row"]["humidity"], 50.5);
}

#[test]
fn topics_and_keys_of_any_characters_make_a_file_that_is_accepted() {
    let message =
        |topic: &str, payload: &str| serde_json::json!({"topic": topic, "payload": payload});
    let messages = [
        message(
            "/a/ü \"x\"\\/{z}/...",
            r#"{"a.b":{"c d":1,"\"":2,"'":3,"{}":4,"":5,"[0]":6,"*":7},"Tèmp":8,"9":10,"device_id":11}"#,
        ),
        message("a\tb/c", "1"),
        message("telemetry", r#"{"temperature":1}"#),
        message("telemetry_1/x", r#"[{"id":"a\u0000","v":1,"\u007f":2},{"id":"b"}]"#),
        message("1", "{\"v\":[[1,[2,{\"x\":3}]]]}"),
        message("pg_x/y", "on"),
        message("x", "\u{0}"),
    ];
    let (text, _) = suggested(&messages);
    assert!(text.contains("[[default.mapping]]"), "{text}");
}

#[test]
fn it_listens_to_the_broker_and_leaves_the_session_of_the_service_alone() {
    let broker = Mosquitto::start();
    let kept = Command::new("mosquitto_pub")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &broker.port.to_string(),
            "-r",
            "-q",
            "1",
            "-t",
            "tele/boiler/SENSOR",
            "-m",
        ])
        .arg(r#"{"Time":"2025-10-05T12:34:56","AM2301":{"Temperature":21.5}}"#)
        .status()
        .unwrap();
    assert!(kept.success());
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("suggested.toml"), "").unwrap();
    let arguments = ["suggest-mapping", "--seconds", "5", "--topic", "tele/#"];
    let (code, text, progress) = ingestor(&dir, &arguments, Some(broker.port));
    assert_eq!(code, Some(0), "{progress}");
    assert!(
        text.contains("topic  = \"tele/{device}/SENSOR\"") && text.contains("1 retained"),
        "{text}"
    );
    assert!(progress.contains("1 messages of 1 topics"), "{progress}");
    let left = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 1, "it writes no file");
    // Nothing listens there.
    drop(broker);
    let (code, _, complaints) = ingestor(&dir, &["suggest-mapping", "--seconds", "1"], Some(1));
    assert_eq!(code, Some(1));
    assert!(complaints.contains("MQTT broker localhost:1"), "{complaints}");
    let (code, ..) = ingestor(&dir, &["suggest-mapping", "--seconds", "0"], None);
    assert_eq!(code, Some(64));
}
