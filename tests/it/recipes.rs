//! The recipes of `deploy/mappings`: each with messages and the rows that they must make.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::harness::{Mosquitto, Postgres, Publisher, Service, eventually_eq};

const INGESTOR: &str = env!("CARGO_BIN_EXE_ingestor");
const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/mappings");

/// A message, and what it must become.
struct Example {
    topic: String,
    payload: Vec<u8>,
    /// As it is handed to `check-mapping`.
    line: String,
    rows: Vec<Value>,
}

/// A mapping file, and messages for it.
struct Recipe {
    file: PathBuf,
    examples: Vec<Example>,
}

impl Recipe {
    fn all() -> Vec<Self> {
        let files = fs::read_dir(DIR).unwrap().map(|entry| entry.unwrap().path());
        let is_recipe = |file: &PathBuf| file.extension().is_some_and(|end| end == "toml");
        let mut files: Vec<_> = files.filter(is_recipe).collect();
        files.sort();
        files.into_iter().map(Self::read).collect()
    }

    fn read(file: PathBuf) -> Self {
        let messages = fs::read_to_string(file.with_extension("messages.ndjson")).unwrap();
        let example = |line: &str| {
            let mut message: Value = serde_json::from_str(line).unwrap();
            let rows = message.as_object_mut().unwrap().remove("rows").unwrap();
            let rows = rows.as_array().unwrap().clone();
            let text = |name: &str| message[name].as_str().unwrap().to_owned();
            let payload = match message["payload_encoding"].as_str() {
                Some("base64") => STANDARD.decode(text("payload")).unwrap(),
                _ => text("payload").into_bytes(),
            };
            Example { topic: text("topic"), payload, line: message.to_string(), rows }
        };
        let examples = messages.lines().map(example).collect();
        Self { file, examples }
    }

    fn name(&self) -> &str {
        self.file.file_stem().unwrap().to_str().unwrap()
    }
}

/// What `check-mapping` says of `lines` with the mappings of `file`, a message each.
fn checked(file: &Path, lines: &[&str]) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let messages = dir.path().join("messages");
    fs::write(&messages, lines.join("\n")).unwrap();
    let Output { stdout, stderr, .. } = Command::new(INGESTOR)
        .args(["check-mapping", "--json"])
        .arg(&messages)
        .env_clear()
        .env("ROCKET_CONFIG", file)
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&stderr), "", "{}", file.display());
    let text = String::from_utf8(stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The rows of a message, their time null where it is that of their arrival.
fn rows(told: &Value) -> Vec<Value> {
    let readings = told["readings"].as_array().unwrap();
    let row = |reading: &Value| {
        let mut row = reading["row"].clone();
        if reading["from"]["timestamp"] == "its arrival" {
            row["timestamp"] = Value::Null;
        }
        row
    };
    readings.iter().map(row).collect()
}

#[test]
fn every_recipe_makes_the_rows_that_it_shows() {
    let recipes = Recipe::all();
    assert!(recipes.len() >= 14, "only {} recipes", recipes.len());
    let mut faults = Vec::new();
    for recipe in &recipes {
        let lines: Vec<&str> =
            recipe.examples.iter().map(|example| example.line.as_str()).collect();
        let told = checked(&recipe.file, &lines);
        assert_eq!(told.len(), lines.len(), "{}", recipe.name());
        for (Example { line, rows: expected, .. }, told) in recipe.examples.iter().zip(&told) {
            let outcome = if expected.is_empty() { "ignored" } else { "stored" };
            if told["outcome"] != outcome || rows(told) != *expected {
                let expected = json!(expected);
                faults.push(format!("{}: {line}\n  {expected}\n  {told}", recipe.name()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_mapping_of_a_recipe_has_a_message() {
    for recipe in Recipe::all() {
        let lines: Vec<&str> =
            recipe.examples.iter().map(|example| example.line.as_str()).collect();
        let text = fs::read_to_string(&recipe.file).unwrap();
        let mut uses: BTreeMap<String, usize> = text
            .lines()
            .filter_map(|line| line.strip_prefix("name"))
            .map(|rest| (rest.trim_matches([' ', '=', '"']).to_owned(), 0))
            .collect();
        for told in checked(&recipe.file, &lines) {
            if let Some(uses) = uses.get_mut(told["mapping"].as_str().unwrap_or_default()) {
                *uses += 1;
            }
        }
        assert!(!uses.is_empty(), "{} names no mapping", recipe.name());
        assert!(uses.values().all(|uses| *uses > 0), "{}: {uses:?}", recipe.name());
    }
}

#[test]
fn all_recipes_go_together_in_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let together = dir.path().join("Rocket.toml");
    let recipes = Recipe::all();
    let texts: Vec<String> =
        recipes.iter().map(|recipe| fs::read_to_string(&recipe.file).unwrap()).collect();
    fs::write(&together, texts.concat()).unwrap();
    for recipe in &recipes {
        let lines: Vec<&str> =
            recipe.examples.iter().map(|example| example.line.as_str()).collect();
        let told = checked(&together, &lines);
        for (example, told) in recipe.examples.iter().zip(&told) {
            assert_eq!(rows(told), example.rows, "{}: {told}", recipe.name());
        }
    }
}

/// Rows by table, device and time; what is null is left out.
#[derive(Default, PartialEq, Debug)]
struct Rows {
    timed: BTreeMap<(String, String, String), Map<String, Value>>,
    /// Those that have the time of their arrival, whatever it is, in their order.
    arrived: Vec<String>,
}

impl Rows {
    fn add(&mut self, table: &str, row: &Value, is_timed: impl Fn(&Key) -> bool) {
        let mut row = row.as_object().unwrap().clone();
        row.retain(|name, value| !value.is_null() && name != "table");
        let time = row.remove("timestamp").map(|time| time.as_str().unwrap().to_owned());
        let device = row["device_id"].as_str().unwrap().to_owned();
        let key = (table.to_owned(), device, time.unwrap_or_default());
        if is_timed(&key) {
            self.timed.entry(key).or_default().extend(row);
        } else {
            self.arrived.push(format!("{table} {}", Value::from(row)));
            self.arrived.sort();
        }
    }
}

/// Table, device and time.
type Key = (String, String, String);

#[test]
fn the_service_makes_the_rows_of_all_recipes_at_once() {
    let recipes = Recipe::all();
    let mut expected = Rows::default();
    for row in recipes.iter().flat_map(|recipe| &recipe.examples).flat_map(|example| &example.rows)
    {
        expected.add(row["table"].as_str().unwrap(), row, |(.., time)| !time.is_empty());
    }
    assert!(expected.arrived.len() >= 10, "{expected:?}");
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    let service = Service::new(&postgres.url(), broker.port);
    let file = service.dir().join("Recipes.toml");
    let texts: Vec<String> =
        recipes.iter().map(|recipe| fs::read_to_string(&recipe.file).unwrap()).collect();
    fs::write(&file, texts.concat()).unwrap();
    let mut ingestor = service.set("ROCKET_CONFIG", file.display()).start();
    ingestor.await_ready();
    let mut publisher = Publisher::connect(broker.port);
    for example in recipes.iter().flat_map(|recipe| &recipe.examples) {
        publisher.publish(&example.topic, example.payload.clone());
    }
    publisher.finish();
    let stored = || {
        let mut rows = Rows::default();
        for table in ingestor.get("/api/v1/tables").json()["data"].as_array().unwrap() {
            let name = table["name"].as_str().unwrap();
            let answer = ingestor.get(&format!("/api/v1/telemetry?table={name}&limit=1000"));
            let data = answer.json()["data"].as_array().cloned().unwrap_or_default();
            for row in &data {
                rows.add(name, row, |key| expected.timed.contains_key(key));
            }
        }
        rows
    };
    eventually_eq("all rows are there", &expected, stored);
    assert_eq!(ingestor.metric("ingestor_dead_letters"), 0);
}
