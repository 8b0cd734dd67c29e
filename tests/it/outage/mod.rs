//! What is in the log counts: readings are answered with the database and without it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{
    Ingestor, Mosquitto, Postgres, Publisher, Reading, Service, array, eventually, reading,
    readings,
};

mod files;

const TOKEN: &str = "token-of-this-test";

struct Setup {
    postgres: Postgres,
    broker: Mosquitto,
    service: Service,
    ingestor: Ingestor,
}

impl Setup {
    fn start(file: &str) -> Self {
        Self::start_with(file, |_| ())
    }

    fn start_with(file: &str, prepare: impl FnOnce(&Postgres)) -> Self {
        let postgres = Postgres::start();
        prepare(&postgres);
        let broker = Mosquitto::start();
        let service = Service::new(&postgres.url(), broker.port).set("ADMIN_TOKEN", TOKEN);
        let toml = service.dir().join("Mappings.toml");
        std::fs::write(&toml, file).unwrap();
        let service = service.set("ROCKET_CONFIG", toml.display());
        let mut ingestor = service.start();
        ingestor.await_ready();
        eventually("the table is there", || {
            (ingestor.get("/api/v1/telemetry").status == 200).then_some(())
        });
        Self { postgres, broker, service, ingestor }
    }

    /// Publishes them, and returns when the service has acknowledged each.
    fn publish(&self, numbers: std::ops::Range<u64>) {
        let count = numbers.end - numbers.start;
        self.publish_with(count, |publisher| publisher.publish_readings(numbers));
    }

    /// Has so many readings published, and returns when the service has acknowledged each.
    fn publish_with(&self, count: u64, publish: impl FnOnce(&mut Publisher)) {
        let valid = || self.ingestor.metric("ingestor_valid_messages_total");
        let before = valid();
        publish(&mut Publisher::connect(self.broker.port));
        eventually("they are acknowledged", || (valid() >= before + count).then_some(()));
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        let answer = self.ingestor.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    #[track_caller]
    fn telemetry(&self, query: &str) -> Value {
        self.get(&format!("/api/v1/telemetry?{query}"))
    }

    /// All pages by cursor, calling `between` after each with how many there were.
    #[track_caller]
    fn pages(&self, query: &str, mut between: impl FnMut(usize, &Value)) -> Vec<String> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        for page in 1.. {
            let body = self.telemetry(&format!("{query}{cursor}"));
            all.extend(rows(&body));
            between(page, &body);
            let Some(next) = body["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        all
    }

    fn flusher(&self, what: &str) {
        let path = format!("/admin/flusher/{what}");
        assert_eq!(self.ingestor.admin("POST", &path, TOKEN).status, 200);
    }

    /// Ends the database, and waits until the service knows.
    fn lose_the_database(&mut self) {
        self.postgres.stop();
        eventually("it knows that the database is away", || {
            (self.ingestor.health()["database"] == "down").then_some(())
        });
    }
}

/// Device and time of each.
fn rows(body: &Value) -> Vec<String> {
    let row = |row: &Value| {
        let at = row["timestamp"].as_str().unwrap();
        let at = chrono::DateTime::parse_from_rfc3339(at).unwrap().timestamp_micros();
        format!("{at} {}", row["device_id"].as_str().unwrap())
    };
    body["data"].as_array().unwrap().iter().map(row).collect()
}

/// The same of what was published, newest first.
fn published(numbers: std::ops::Range<u64>) -> Vec<String> {
    let all = readings(numbers);
    all.iter().rev().map(|reading| format!("{} {}", reading.micros, reading.device_id)).collect()
}

#[test]
fn what_is_acknowledged_is_answered_while_the_database_is_away_and_once_each_while_it_drains() {
    let mut setup = Setup::start("");
    setup.publish(0..200);
    setup.postgres.await_count(200);
    assert_eq!(setup.telemetry("limit=1")["partial"], false);
    setup.lose_the_database();
    setup.publish(200..500);
    // No waiting: all of them are acknowledged.
    let body = setup.telemetry("limit=300");
    assert_eq!(rows(&body), published(200..500));
    assert_eq!(body["partial"], true);
    // Everything that was trimmed is older than what is in the log.
    let complete_from = body["complete_from"].as_str().unwrap().to_owned();
    let since = setup.telemetry(&format!("start={complete_from}&limit=1000"));
    assert!(rows(&since).starts_with(&published(200..500)), "{since}");
    let of_one = setup.telemetry("device_id=device-042&limit=2");
    assert_eq!(of_one["data"][0]["temperature"], readings(442..443)[0].temperature);
    assert_eq!(
        rows(&of_one),
        published(200..500)
            .into_iter()
            .filter(|row| row.ends_with("042"))
            .take(2)
            .collect::<Vec<_>>()
    );
    // What it still has of what was flushed is there, too.
    let all = setup.pages("limit=70", |_, body| assert_eq!(body["partial"], true));
    assert_eq!(all, published(0..500));
    let by_offset: Vec<String> = (0..5)
        .flat_map(|page| rows(&setup.telemetry(&format!("limit=100&offset={}", page * 100))))
        .collect();
    assert_eq!(by_offset, published(0..500));
    assert_eq!(setup.telemetry("limit=10")["total"], 500);

    setup.postgres.launch();
    let all = setup.pages("limit=10", |_, _| ());
    assert_eq!(all, published(0..500));
    setup.postgres.await_count(500);
    eventually("the answer is complete", || {
        (setup.telemetry("limit=1")["partial"] == false).then_some(())
    });
    assert_eq!(setup.pages("limit=100", |_, _| ()), published(0..500));
}

#[test]
fn while_the_database_hangs_the_log_answers_and_only_the_first_request_waits_for_it() {
    let setup = Setup::start("");
    setup.publish(0..100);
    setup.postgres.await_count(100);
    setup.postgres.freeze();
    setup.publish(100..200);
    let newest = || {
        let started = Instant::now();
        let body = setup.telemetry("limit=100");
        assert_eq!((rows(&body), &body["partial"]), (published(100..200), &true.into()));
        started.elapsed()
    };
    // It may be slow only: 3 s, as the contract has it.
    assert!(newest() < Duration::from_secs(5));
    for _ in 0..5 {
        let took = newest();
        assert!(took < Duration::from_secs(2), "{took:?}: it is known that the database is silent");
    }
    setup.postgres.thaw();
    setup.postgres.await_count(200);
    eventually("it is heard of again", || {
        (setup.telemetry("limit=1")["partial"] == false).then_some(())
    });
    assert_eq!(setup.pages("limit=50", |_, _| ()), published(0..200));
}

#[test]
fn a_device_is_shown_once_it_was_heard_of_however_much_waits() {
    const WAITING: u64 = 220_000;
    let setup = Setup::start("");
    setup.flusher("pause");
    let first = Reading { device_id: "the-first".to_owned(), ..reading(0) };
    setup.publish_with(WAITING + 1, |publisher| {
        publisher.publish_one("telemetry/gateway", first.payload());
        for chunk in readings(0..WAITING).chunks(400) {
            publisher.publish("telemetry/gateway", array(chunk));
        }
        publisher.finish();
    });
    let devices = eventually("all are found", || {
        let devices = setup.get("/api/v1/devices?limit=1000");
        (devices["partial"] == false).then_some(devices)
    });
    let shown = devices["data"].as_array().unwrap();
    assert_eq!(shown.last().unwrap()["device_id"], "the-first");
    assert_eq!((&devices["total"], shown.len()), (&101.into(), 101));
    let newest = setup.get("/api/v1/devices?newest_first=true&limit=1");
    assert_eq!(newest["data"][0]["device_id"], reading(WAITING - 1).device_id.as_str());
}

#[test]
fn pages_of_table_and_log_show_each_reading_once_while_it_is_flushed() {
    let setup = Setup::start("");
    setup.publish(0..100);
    setup.postgres.await_count(100);
    setup.flusher("pause");
    // Some of them are in the table already, as after an answer that was lost.
    setup.publish(50..300);
    let all = published(0..300);
    for query in ["limit=7", "limit=300", "limit=60&start=2025-06-01"] {
        let seen = setup.pages(query, |_, body| {
            assert_eq!((&body["total"], &body["total_exact"]), (&300.into(), &true.into()));
            assert_eq!(body["partial"], false);
        });
        assert_eq!(seen, all, "{query}");
    }
    for limit in [9, 100, 299] {
        let page = |offset| rows(&setup.telemetry(&format!("limit={limit}&offset={offset}")));
        let seen: Vec<String> = (0..300).step_by(limit).flat_map(page).collect();
        assert_eq!(seen, all, "by offset, {limit}");
    }
    let end = setup.telemetry("offset=300");
    assert_eq!((&end["total"], &end["data"]), (&300.into(), &serde_json::json!([])));
    let seen = setup.pages("limit=20", |page, _| match page {
        3 => setup.flusher("resume"),
        5 => setup.postgres.await_count(300),
        _ => {}
    });
    assert_eq!(seen, all);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 300);
}

#[test]
fn where_names_are_compared_as_in_a_language_pages_of_both_show_each_reading_and_device_once() {
    // In the order of their bytes the capitals come first, and the umlaut last.
    const NAMES: [&str; 8] = ["B", "D", "a", "b", "c", "e", "Ä", "ä"];
    let setup = Setup::start_with("", |postgres| {
        postgres.make_table();
        for table in ["telemetry", "telemetry_devices"] {
            postgres.execute(&format!(
                "alter table {table} alter column device_id type text collate \"und-x-icu\""
            ));
        }
    });
    let publish = |names: &[&str], seconds: [u64; 2]| {
        setup.publish_with(names.len() as u64 * 2, |publisher| {
            for name in names {
                for second in seconds {
                    let at = format!("2025-06-01T00:00:0{second}Z");
                    let reading = serde_json::json!({"device_id": name, "timestamp": at, "temperature": 1, "humidity": 2, "battery": 3});
                    publisher.publish("telemetry/x", reading.to_string());
                }
            }
            publisher.finish();
        });
    };
    publish(&["a", "B", "c", "Ä"], [1, 2]);
    setup.postgres.await_count(8);
    setup.flusher("pause");
    publish(&["ä", "b", "D", "e"], [1, 2]);
    publish(&["B", "Ä"], [2, 3]);
    let mut expected: Vec<(u64, &str)> = NAMES
        .iter()
        .flat_map(|name| [(1, *name), (2, *name)])
        .chain([(3, "B"), (3, "Ä")])
        .collect();
    expected.sort_by(|a, b| b.cmp(a));
    let expected: Vec<String> = expected
        .iter()
        .map(|(second, name)| format!("{} {name}", 1_748_736_000_000_000 + second * 1_000_000))
        .collect();
    for limit in [1, 2, 3, 5] {
        let by_cursor = setup.pages(&format!("limit={limit}"), |_, _| ());
        assert_eq!(by_cursor, expected, "{limit}");
        let page = |offset| rows(&setup.telemetry(&format!("limit={limit}&offset={offset}")));
        let by_offset: Vec<String> = (0..expected.len()).step_by(limit).flat_map(page).collect();
        assert_eq!(by_offset, expected, "{limit}");
        let devices = |offset| {
            let body = setup.get(&format!("/api/v1/devices?limit={limit}&offset={offset}"));
            let name = |row: &Value| row["device_id"].as_str().unwrap().to_owned();
            body["data"].as_array().unwrap().iter().map(name).collect::<Vec<_>>()
        };
        let devices: Vec<String> = (0..NAMES.len()).step_by(limit).flat_map(devices).collect();
        assert_eq!(devices, ["a", "ä", "Ä", "b", "B", "c", "D", "e"], "{limit}");
    }
}

#[test]
fn after_a_restart_in_an_outage_the_log_is_read_and_nothing_is_certain() {
    let mut setup = Setup::start("");
    setup.lose_the_database();
    setup.publish(0..150);
    setup.ingestor.stop();
    let ingestor = setup.service.start();
    let body = ingestor.get("/api/v1/telemetry?limit=150").json();
    assert_eq!(rows(&body), published(0..150));
    assert_eq!((&body["partial"], &body["complete_from"]), (&true.into(), &Value::Null));
}

const MAPPINGS: &str = r#"
[[default.mapping]]
name   = "meter"
topic  = "meters/{device}"
device = "{device}"
time   = { path = "at", format = "ms" }
table  = "power"
[default.mapping.fields]
power  = { path = "power", unit = "W" }
count  = { path = "count", type = "int" }
label  = { path = "label", type = "text" }
"#;

#[test]
fn rows_of_a_mapping_are_put_together_column_by_column_as_in_the_table() {
    let mut setup = Setup::start(MAPPINGS);
    eventually("the table of the mapping is there", || {
        (setup.ingestor.get("/api/v1/telemetry?table=power").status == 200).then_some(())
    });
    let publish = |setup: &Setup, messages: &[(u64, &str)]| {
        setup.publish_with(messages.len() as u64, |publisher| {
            for (at, fields) in messages {
                let at = 1_759_667_696_000 + at;
                publisher.publish("meters/m", format!("{{\"at\":{at},{fields}}}"));
            }
            publisher.finish();
        });
    };
    publish(&setup, &[(0, r#""power":1.5"#)]);
    eventually("it is in the table", || {
        (setup.postgres.session().texts("select count(*)::text from power") == ["1"]).then_some(())
    });
    setup.flusher("pause");
    publish(
        &setup,
        &[
            (0, r#""power":9,"count":7"#),
            (0, r#""count":8,"label":"x""#),
            (1_000, r#""label":"y""#),
        ],
    );
    let row = |second: u64, power: Value, count: Value, label: &str| {
        let at = format!("2025-10-05T12:34:5{}Z", 6 + second);
        serde_json::json!({"device_id": "m", "timestamp": at, "power": power, "count": count, "label": label})
    };
    let expected = serde_json::json!([
        row(1, Value::Null, Value::Null, "y"),
        row(0, 1.5.into(), 7.into(), "x")
    ]);
    let body = setup.telemetry("table=power");
    assert_eq!((&body["data"], &body["total"]), (&expected, &2.into()));
    let file = setup.ingestor.get("/api/v1/telemetry?table=power&format=ndjson").body;
    let lines: Vec<Value> = file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(Value::Array(lines), expected);
    setup.flusher("resume");
    eventually("it is in the table", || {
        (setup.postgres.session().texts("select count(*)::text from power") == ["2"]).then_some(())
    });
    assert_eq!(setup.telemetry("table=power")["data"], expected);
    setup.lose_the_database();
    let body = setup.telemetry("table=power&device_id=m");
    assert_eq!((&body["data"], &body["partial"]), (&expected, &true.into()));
    assert_eq!(setup.telemetry("table=power&fields=label&limit=1")["data"][0]["label"], "y");
}

#[test]
fn devices_are_shown_with_their_last_values_in_an_outage_also_after_a_restart_in_it() {
    let mut setup = Setup::start("");
    setup.publish(0..150);
    setup.postgres.await_count(150);
    setup.flusher("pause");
    // Only 40 of them are devices that the table knows already; none of it is in the table.
    setup.publish(150..190);
    let new = r#"{"device_id":"device-0505","timestamp":"2025-07-01T00:00:00Z","temperature":1,"humidity":2,"battery":3}"#;
    setup.publish_with(1, |publisher| publisher.publish_one("telemetry/new", new));
    let names = |body: &Value| -> Vec<String> {
        let name = |row: &Value| row["device_id"].as_str().unwrap().to_owned();
        body["data"].as_array().unwrap().iter().map(name).collect()
    };
    let mut expected: Vec<String> = (0..100).map(|device| format!("device-{device:03}")).collect();
    expected.push("device-0505".to_owned());
    expected.sort();
    let check = |get: &dyn Fn(&str) -> Value, partial: bool| {
        let page = |offset| get(&format!("/api/v1/devices?limit=9&offset={offset}"));
        let seen: Vec<String> =
            (0..101).step_by(9).flat_map(|offset| names(&page(offset))).collect();
        assert_eq!(seen, expected);
        let newest = get("/api/v1/devices?newest_first=true&limit=3");
        assert_eq!(names(&newest), ["device-0505", "device-089", "device-088"]);
        assert_eq!(newest["data"][1]["temperature"], readings(189..190)[0].temperature);
        assert_eq!((&newest["total"], &newest["partial"]), (&101.into(), &partial.into()));
        let some = get("/api/v1/devices?name_contains=DEVICE-05");
        assert_eq!((names(&some).len(), &some["total"]), (11, &11.into()));
    };
    check(&|path| setup.get(path), false);
    // Its devices were looked up in the table, too: not all of them have sent since.
    setup.lose_the_database();
    check(&|path| setup.get(path), true);
    setup.ingestor.stop();
    setup.ingestor = setup.service.start();
    eventually("the log is read back", || {
        (setup.ingestor.get("/api/v1/devices").json()["total"] == 101).then_some(())
    });
    check(&|path| setup.get(path), true);
}
