//! `/api/v1/status`: what a person or a script is told of the whole.

use serde_json::Value;

use crate::harness::{Ingestor, Load, Mosquitto, Postgres, Publisher, Service, eventually};

/// The body of a 200.
#[track_caller]
fn status(ingestor: &Ingestor) -> Value {
    let answer = ingestor.get("/api/v1/status");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[track_caller]
fn history(ingestor: &Ingestor, query: &str) -> Value {
    let answer = ingestor.get(&format!("/api/v1/status/history{query}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn numbers(column: &Value) -> Vec<f64> {
    column.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

/// The status as soon as it is as wanted.
#[track_caller]
fn await_status(ingestor: &Ingestor, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || Some(status(ingestor)).filter(|status| is_it(status)))
}

#[test]
fn the_status_follows_an_outage_from_its_beginning_to_the_last_row() {
    let mut postgres = Postgres::start_durable();
    let broker = Mosquitto::start();
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    let load = Load::start(broker.port, 300);

    let well = await_status(&ingestor, "readings flow", |status| {
        status["level"] == "ok"
            && status["rates"]["over_10_s"]["rows"].as_f64() > Some(100.0)
            && status["latency"]["end_to_end"]["p99_seconds"].is_f64()
    });
    let summary = well["summary"].as_str().unwrap();
    assert!(summary.contains("readings/s come in, are safe on the disk within"), "{summary}");
    assert_eq!(well["ready"], true);
    assert_eq!(well["broker"]["state"], "connected");
    assert!(well["broker"]["last_message_seconds"].as_f64() < Some(3.0), "{well}");
    assert_eq!((&well["log"]["state"], &well["log"]["reason"]), (&"ok".into(), &Value::Null));
    assert_eq!(well["database"]["state"], "up");
    assert_eq!(well["full_in_seconds"], Value::Null);
    assert_eq!(well["instance"], "test-ingestor");
    assert_eq!(well["admin_enabled"], false);
    let commits = &well["latency"]["commit"];
    assert!(commits["p50_seconds"].as_f64() <= commits["p99_seconds"].as_f64(), "{well}");
    assert!(well["disk"]["left_bytes"].as_u64() < well["disk"]["max_bytes"].as_u64(), "{well}");

    postgres.kill();
    let outage = await_status(&ingestor, "the log fills", |status| {
        status["database"]["state"] == "down"
            && status["full_in_seconds"].is_f64()
            && status["pending_records"].as_u64() > Some(1_000)
    });
    assert_eq!(outage["level"], "warning");
    assert_eq!(outage["database"]["problem"], "unreachable");
    assert_eq!(outage["ready"], true);
    let since = outage["database"]["for_seconds"].as_f64().unwrap();
    assert!((0.0..=well["uptime_seconds"].as_f64().unwrap() + 60.0).contains(&since), "{outage}");
    let summary = outage["summary"].as_str().unwrap();
    assert!(summary.starts_with("Database unreachable for "), "{summary}");
    assert!(summary.contains("readings are safe in the log, room for "), "{summary}");
    // 300 readings a second, of at most some hundred bytes, into a gigabyte: hours, not minutes.
    assert!(outage["full_in_seconds"].as_f64() > Some(3_600.0), "{outage}");
    assert!(outage["net_records_per_second"].as_f64() > Some(100.0), "{outage}");
    assert_eq!(outage["drained_in_seconds"], Value::Null);
    load.await_more(2_000);

    let published = load.stop();
    postgres.launch();
    postgres.await_count(usize::try_from(published.end).unwrap());
    let drained = await_status(&ingestor, "nothing waits", |status| {
        status["pending_records"] == 0 && status["database"]["state"] == "up"
    });
    assert_eq!(drained["database"]["problem"], Value::Null);
    assert!(drained["database"]["for_seconds"].as_f64() < Some(30.0), "{drained}");

    // What charts show of all that: it rises and drains.
    let points = eventually("the end is in the history", || {
        let points = history(&ingestor, "");
        (numbers(&points["pending_records"]).last() == Some(&0.0)).then_some(points)
    });
    let pending = numbers(&points["pending_records"]);
    let highest = pending.iter().copied().fold(0.0, f64::max);
    assert!(highest > 1_000.0, "{pending:?}");
    let ages = numbers(&points["age_seconds"]);
    assert!(ages.is_sorted_by(|a, b| a > b), "{ages:?}");
    let columns = points.as_object().unwrap().values().filter_map(Value::as_array);
    assert!(columns.map(Vec::len).all(|length| length == ages.len()), "{points}");
    let received: f64 = numbers(&points["messages_per_second"]).iter().sum();
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let published = published.end as f64;
    // A point is a second, or nearly so on a busy machine.
    assert!((0.5..1.5).contains(&(received / published)), "{received} of {published}");
}

#[test]
fn who_has_a_part_of_the_history_is_given_the_rest_but_not_of_another_process() {
    let postgres = Postgres::start_durable();
    let service = Service::new(&postgres.url(), 1);
    let ingestor = service.start();
    let first = eventually("there are points", || {
        let points = history(&ingestor, "");
        (numbers(&points["age_seconds"]).len() >= 2).then_some(points)
    });
    let query = format!("?run={}&after={}", first["run"].as_str().unwrap(), first["last"]);
    let more = eventually("there is one more", || {
        let points = history(&ingestor, &query);
        (!numbers(&points["age_seconds"]).is_empty()).then_some(points)
    });
    let known = numbers(&first["age_seconds"]).len();
    assert!(numbers(&more["age_seconds"]).len() < known + 2, "{first} {more}");
    assert_eq!(more["run"], first["run"]);
    ingestor.kill();

    let ingestor = service.start();
    let anew = history(&ingestor, &query);
    assert_ne!(anew["run"], first["run"]);
    let too_long = format!("?run={}", "0".repeat(65));
    let bad = [
        ("?after=x", "after"),
        ("?after=-1", "after"),
        ("?since=1", "since"),
        (too_long.as_str(), "run"),
    ];
    for (query, named) in bad {
        let answer = ingestor.get(&format!("/api/v1/status/history{query}"));
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.error().contains(&format!("`{named}`")), "{answer:?}");
    }
    assert_eq!(ingestor.get("/api/v1/status?verbose=1").status, 400);
}

#[test]
fn a_database_that_turns_us_away_is_told_from_one_that_is_not_there() {
    let postgres = Postgres::start_durable();
    let wrong = postgres.url_of("iot", "wrong");
    let ingestor = Service::new(&wrong, 1).start();
    let status = await_status(&ingestor, "it is refused", |status| {
        status["database"]["problem"] == "refusing"
    });
    // Nor is there a broker, which matters more.
    assert_eq!(status["level"], "critical");
    let summary = status["summary"].as_str().unwrap();
    assert!(summary.starts_with("Broker unreachable for "), "{summary}");
    assert!(summary.contains(" The database has refused us for "), "{summary}");
    for secret in ["wrong", "127.0.0.1", "iotdb"] {
        assert!(!status.to_string().contains(secret), "{status}");
    }
}

#[test]
fn the_last_message_is_dated_and_rates_begin_with_the_first() {
    let postgres = Postgres::start_durable();
    let broker = Mosquitto::start();
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    assert_eq!(status(&ingestor)["broker"]["last_message_seconds"], Value::Null);
    Publisher::connect(broker.port).publish_readings(0..10);
    postgres.await_count(10);
    // A sample may be taken between the receipt of a message and its commit.
    let status = await_status(&ingestor, "the message was seen", |status| {
        status["broker"]["last_message_seconds"].is_f64()
            && status["rates"]["over_5_min"]["readings"].as_f64() > Some(0.0)
    });
    assert_eq!(status["rates"]["over_5_min"]["rejected"], 0.0);
}

#[test]
fn a_database_that_does_not_keep_what_it_confirms_is_named_with_what_mends_it() {
    let postgres = Postgres::start();
    postgres.execute(include_str!("../../migrations/0001_telemetry.sql"));
    postgres.execute("alter table telemetry set unlogged");
    let broker = Mosquitto::start();
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    let warned = await_status(&ingestor, "it is a warning", |status| {
        status["level"] == "warning" && status["database"]["state"] == "up"
    });
    let warnings = warned["database"]["warnings"].to_string();
    assert!(warnings.contains("fsync = on") && warnings.contains("SET LOGGED"), "{warnings}");
    assert!(warned["summary"].as_str().unwrap().contains("fsync is off"), "{warned}");
    assert_eq!(ingestor.metric("ingestor_db_unsafe"), 2);
    let lines = ingestor.await_log_of("the database may not keep what it confirms");
    assert_eq!(lines.len(), 2, "{lines:?}");
}
