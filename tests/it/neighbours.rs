//! A table that others write into too, or have made otherwise.

use serde_json::Value;

use crate::harness::{Ingestor, Mosquitto, Postgres, Publisher, Service, eventually_eq, readings};

const MIGRATION: &str = include_str!("../../migrations/0001_telemetry.sql");

#[track_caller]
fn get(ingestor: &Ingestor, path: &str) -> Value {
    let answer = ingestor.get(&format!("/api/v1/{path}"));
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

#[test]
fn rows_of_others_with_times_that_no_calendar_has_are_answered_with_a_note() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(0..3);
    postgres.await_count(3);
    let odd =
        ["infinity", "294276-12-31 23:59:59.999999Z", "10000-01-01Z", "-infinity", "4714-11-24 BC"];
    for ts in odd {
        postgres.execute(&format!(
            "insert into telemetry (device_id, ts, temperature, humidity, battery) \
             values ('odd', '{ts}', 1, 'NaN', 'infinity')"
        ));
    }
    let page = get(&ingestor, "telemetry");
    let data = page["data"].as_array().unwrap();
    assert_eq!((data.len(), &page["total"]), (8, &8.into()));
    let unknown: Vec<&Value> = data.iter().filter(|row| row["timestamp"].is_null()).collect();
    assert_eq!(unknown.len(), odd.len());
    for row in &unknown {
        assert_eq!(row["device_id"], "odd");
        assert!(row["note"].is_string() && row["humidity"].is_null(), "{row}");
    }
    assert_eq!(data[0]["note"], "the row's time is infinity");
    assert!(
        data.iter().filter(|row| row["device_id"] != "odd").all(|row| row.get("note").is_none())
    );
    // A page may end at any of them.
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(&ingestor, &format!("telemetry?limit=1{cursor}"));
        seen.extend(page["data"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(&seen, data);
    let devices = get(&ingestor, "devices?newest_first=true");
    assert_eq!(devices["data"][0]["device_id"], "odd");
    assert!(devices["data"][0]["last_seen"].is_null() && devices["data"][0]["note"].is_string());
    assert_eq!(get(&ingestor, "telemetry?device_id=odd&end=2025-01-01")["total"], 2);
    assert!(!ingestor.log_text().contains("panick"), "{}", ingestor.log_text());
}

#[test]
fn a_name_that_the_encoding_of_the_database_does_not_have_is_the_requests_mistake() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute("create database latin encoding 'LATIN1' locale 'C' template template0");
    let url = postgres.url().replace("/iotdb", "/latin");
    let mut ingestor = Service::new(&url, broker.port).start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(0..10);
    eventually_eq("rows are stored", &10, || ingestor.metric("ingestor_db_inserts_total"));
    for (path, name) in [
        ("telemetry?device_id=%E6%B8%A9", "device_id"),
        ("devices?name_contains=%E6%B8%A9", "name_contains"),
    ] {
        let answer = ingestor.get(&format!("/api/v1/{path}"));
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.json()["error"].as_str().unwrap().contains(name), "{answer:?}");
    }
    assert_eq!(get(&ingestor, "telemetry?device_id=%C3%A4")["total"], 0);
    assert_eq!(get(&ingestor, "telemetry")["total"], 10);
}

#[test]
fn columns_of_other_types_take_rows_and_are_answered_from() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(MIGRATION);
    postgres.execute(
        "alter table telemetry alter device_id type varchar(128), \
         alter ts type timestamp using ts at time zone 'UTC', \
         alter temperature type numeric(12, 6), alter humidity type real, \
         alter battery type double precision, alter battery drop not null",
    );
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(0..1_000);
    postgres.await_count(1_000);
    let expected = readings(999..1_000).remove(0);
    let page = get(&ingestor, "telemetry?limit=1");
    assert_eq!(page["data"][0]["device_id"], expected.device_id);
    let off = page["data"][0]["temperature"].as_f64().unwrap() - expected.temperature;
    assert!(off.abs() < 1e-6, "{off}");
    assert_eq!(page["data"][0]["timestamp"], expected.timestamp());
    let next = page["next_cursor"].as_str().unwrap();
    assert_eq!(
        get(&ingestor, &format!("telemetry?cursor={next}"))["data"].as_array().unwrap().len(),
        100
    );
    assert_eq!(get(&ingestor, &format!("telemetry?device_id={}", expected.device_id))["total"], 10);
    assert_eq!(
        get(&ingestor, "devices?newest_first=true&limit=1")["data"][0]["last_seen"],
        expected.timestamp()
    );
    postgres.execute("update telemetry set battery = null");
    assert!(get(&ingestor, "telemetry?limit=1")["data"][0]["battery"].is_null());
    assert_eq!(ingestor.metric(r#"ingestor_dead_letters_total{stage="database"}"#), 0);
}

#[test]
fn a_column_that_cannot_be_read_is_named_in_the_answer() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(MIGRATION);
    postgres
        .execute("alter table telemetry alter temperature type jsonb using to_jsonb(temperature)");
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    postgres.execute(
        "insert into telemetry (device_id, ts, temperature, humidity, battery) \
         values ('theirs', now(), '{\"a\": 1}', 1, 1)",
    );
    for path in ["telemetry", "devices"] {
        let answer = ingestor.get(&format!("/api/v1/{path}"));
        let said = answer.json()["error"].to_string();
        assert_eq!(answer.status, 500, "{said}");
        assert!(said.contains("column temperature") && said.contains("jsonb"), "{said}");
    }
}

#[test]
fn a_right_that_is_missing_is_an_internal_error_whose_reason_is_in_the_log_alone() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres
        .execute("create role service login password 'x'; grant all on schema public to service");
    let service = Service::new(&postgres.url_of("service", "x"), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(0..10);
    postgres.await_count(10);
    postgres.execute("revoke select on telemetry from service");
    let answer = ingestor.get("/api/v1/telemetry");
    assert_eq!(answer.status, 500, "{answer:?}");
    assert!(answer.head.to_lowercase().contains("content-type: application/json"), "{answer:?}");
    let told = serde_json::json!({"error": "internal error; the reason is in the server's log"});
    assert_eq!(answer.json(), told);
    let reason = ingestor.await_log_of("a request failed")[0]["reason"].to_string();
    assert!(reason.contains("permission denied for table telemetry"), "{reason}");
}
