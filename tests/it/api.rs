//! The HTTP side, and its every refusal.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Ingestor, Mosquitto, Postgres, Publisher, Service, eventually, readings};

/// The contract's 3 s, and what it takes to say so on a busy machine.
const TIME_TO_503: Duration = Duration::from_millis(3_700);

struct Api {
    postgres: Postgres,
    ingestor: Ingestor,
    _broker: Mosquitto,
    _service: Service,
}

impl Api {
    /// With an empty table.
    fn start() -> Self {
        let postgres = Postgres::start();
        let broker = Mosquitto::start();
        let service = Service::new(&postgres.url(), broker.port);
        let ingestor = service.start();
        eventually("the table is there", || {
            (ingestor.get("/api/v1/telemetry").status == 200).then_some(())
        });
        Self { postgres, ingestor, _broker: broker, _service: service }
    }

    /// The body of a 200.
    #[track_caller]
    fn get(&self, path: &str) -> Value {
        let answer = self.ingestor.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(
            answer.head.to_lowercase().contains("content-type: application/json"),
            "{answer:?}"
        );
        answer.json()
    }

    /// The rows of a page, as text.
    #[track_caller]
    fn page(&self, query: &str) -> (Vec<String>, Value) {
        let body = self.get(&format!("/api/v1/telemetry?{query}"));
        let rows = body["data"].as_array().unwrap().iter().map(Value::to_string).collect();
        (rows, body)
    }
}

#[test]
fn every_malformed_request_is_a_400_that_says_what_to_change() {
    let api = Api::start();
    let long_id = format!("telemetry?device_id={}", "x".repeat(129));
    let wrong = [
        ("telemetry?device=a", "device"),
        ("telemetry?Limit=1", "Limit"),
        ("telemetry?limit=0", "limit"),
        ("telemetry?limit=1001", "limit"),
        ("telemetry?limit=-1", "limit"),
        ("telemetry?limit=1.5", "limit"),
        ("telemetry?limit=ten", "limit"),
        ("telemetry?limit=", "limit"),
        ("telemetry?limit=99999999999999999999", "limit"),
        ("telemetry?limit=1&limit=2", "limit"),
        ("telemetry?offset=-1", "offset"),
        ("telemetry?offset=x", "offset"),
        ("telemetry?offset=4294967296", "offset"),
        ("telemetry?start=yesterday", "start"),
        ("telemetry?start=", "start"),
        ("telemetry?start=2025-02-30", "start"),
        ("telemetry?start=2025-10-05T25:00:00Z", "start"),
        ("telemetry?end=1759667696000", "end"),
        ("telemetry?end=2025-10-05T12:00:00%2B25:00", "end"),
        ("telemetry?start=2025-10-06T00:00:00Z&end=2025-10-05T00:00:00Z", "start"),
        ("telemetry?cursor=", "cursor"),
        ("telemetry?cursor=next", "cursor"),
        ("telemetry?cursor=1759667696123456_42", "cursor"),
        ("telemetry?cursor=AAAAAAAAAAAAAAAAAAAAAA", "cursor"),
        ("telemetry?device_id=", "device_id"),
        ("telemetry?device_id=a%00b", "device_id"),
        ("telemetry?device_id=%FF", "device_id"),
        ("telemetry?device_id=%zz", "device_id"),
        (&long_id, "device_id"),
        ("devices?device_id=a", "device_id"),
        ("devices?cursor=a", "cursor"),
        ("devices?limit=0", "limit"),
        ("devices?limit=1001", "limit"),
        ("devices?offset=-1", "offset"),
        ("devices?newest_first=1", "newest_first"),
        ("devices?name_contains=", "name_contains"),
        ("devices?name_contains=a%00", "name_contains"),
    ];
    for (path, named) in wrong {
        let answer = api.ingestor.get(&format!("/api/v1/{path}"));
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        let message = answer.error();
        assert!(message.contains(&format!("`{named}`")), "{path}: {message}");
        assert!(!message.to_lowercase().contains("sql"), "{path}: {message}");
    }
    let offset_and_cursor = {
        api.postgres.execute(
            "insert into telemetry (device_id, ts, temperature, humidity, battery) \
             select 'd', now() - n * interval '1 s', 1, 1, 1 from generate_series(1, 3) as n",
        );
        let (_, body) = api.page("limit=1");
        format!("/api/v1/telemetry?offset=1&cursor={}", body["next_cursor"].as_str().unwrap())
    };
    assert_eq!(api.ingestor.get(&offset_and_cursor).status, 400);
}

#[test]
fn every_unknown_route_is_a_404() {
    let api = Api::start();
    for path in [
        "/nowhere",
        "/api",
        "/api/v1",
        "/api/v1/nowhere",
        "/api/v1/telemetry/1",
        "/api/v2/telemetry",
        "/health",
        "/health/nowhere",
        "/metrics/nowhere",
        "/../etc/passwd",
        "/%2e%2e/etc/passwd",
    ] {
        let answer = api.ingestor.get(path);
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
        answer.error();
    }
    for method in ["PUT", "DELETE", "PATCH"] {
        let answer = api.ingestor.request(method, "/api/v1/telemetry");
        assert_eq!(answer.status, 404, "{method}: {answer:?}");
        answer.error();
    }
}

#[test]
fn without_an_answer_from_the_database_it_is_a_503_within_3_seconds() {
    let mut api = Api::start();
    let must_refuse = |api: &Api| {
        for path in ["/api/v1/telemetry", "/api/v1/devices", "/api/v1/telemetry?device_id=a"] {
            let asked = Instant::now();
            let answer = api.ingestor.get(path);
            assert_eq!(answer.status, 503, "{path}: {answer:?}");
            assert!(asked.elapsed() < TIME_TO_503, "{path}: {:?}", asked.elapsed());
            let message = answer.error();
            assert!(!message.contains("127.0.0.1") && !message.contains("iotdb"), "{message}");
        }
        // The rest does not depend on it.
        assert_eq!(api.ingestor.get("/api/v1/telemetry?limit=0").status, 400);
        assert_eq!(api.ingestor.get("/api/v1/nowhere").status, 404);
        assert_eq!(api.ingestor.get("/health/ready").status, 200);
        assert_eq!(api.ingestor.get("/metrics").status, 200);
    };
    let must_answer = |api: &Api| {
        eventually("the database is found again", || {
            (api.ingestor.get("/api/v1/telemetry").status == 200).then_some(())
        });
        api.get("/api/v1/devices");
    };
    // It hangs, with the connections open.
    api.postgres.freeze();
    must_refuse(&api);
    api.postgres.thaw();
    must_answer(&api);
    // It is not there at all.
    api.postgres.stop();
    must_refuse(&api);
    api.postgres.launch();
    must_answer(&api);
}

#[test]
fn before_there_is_a_table_it_is_a_503() {
    let mut postgres = Postgres::start();
    postgres.stop();
    let ingestor = Service::new(&postgres.url(), 1).start();
    for path in ["/api/v1/telemetry", "/api/v1/devices"] {
        let answer = ingestor.get(path);
        assert_eq!(answer.status, 503, "{answer:?}");
        answer.error();
    }
}

#[test]
fn paging_by_cursor_and_by_offset_shows_every_row_once_and_the_newest_first() {
    const ROWS: usize = 2_500;
    let api = Api::start();
    // Seven devices at each instant, so that a page often ends among equals.
    api.postgres.execute(&format!(
        "insert into telemetry (device_id, ts, temperature, humidity, battery) \
         select 'device-' || n % 7, '2025-06-01T00:00:00Z'::timestamptz + n / 7 * interval '1 s', \
         n, 50, 50 from generate_series(0, {ROWS} - 1) as n order by random()"
    ));
    let by_offset = || -> Vec<String> {
        (0..=ROWS / 137)
            .flat_map(|page| {
                let (rows, body) = api.page(&format!("limit=137&offset={}", page * 137));
                assert_eq!(body["total"], ROWS);
                assert_eq!(body["total_exact"], true);
                assert_eq!(body["limit"], 137);
                assert_eq!(body["offset"], page * 137);
                rows
            })
            .collect()
    };
    let by_cursor = |filter: &str, limit: usize| {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let (rows, body) = api.page(&format!("limit={limit}{filter}{cursor}"));
            let is_last = body["next_cursor"].is_null();
            assert!(is_last || rows.len() == limit, "a page that is not full has no next one");
            assert_eq!(body["total_exact"], true);
            all.extend(rows);
            if is_last {
                return all;
            }
            cursor = format!("&cursor={}", body["next_cursor"].as_str().unwrap());
        }
    };
    let all = by_cursor("", 100);
    assert_eq!(all.len(), ROWS);
    assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), ROWS);
    let times: Vec<Value> = all
        .iter()
        .map(|row| serde_json::from_str::<Value>(row).unwrap()["timestamp"].clone())
        .collect();
    assert!(times.is_sorted_by(|a, b| a.as_str() >= b.as_str()), "not the newest first");
    assert_eq!(by_offset(), all);
    assert_eq!(by_cursor("", 1_000), all);
    // The last page is a full one: there is none after it.
    assert_eq!(by_cursor("", 500), all);

    let of_one: Vec<String> =
        all.iter().filter(|row| row.contains(r#""device-3""#)).cloned().collect();
    assert_eq!(by_cursor("&device_id=device-3", 50), of_one);
    let start = "&start=2025-06-01T00:01:40Z&end=2025-06-01T00:03:20Z";
    assert_eq!(by_cursor(start, 64).len(), 101 * 7);
    let (rows, body) = api.page("offset=100000");
    assert!(rows.is_empty() && body["next_cursor"].is_null() && body["total"] == ROWS, "{body}");
}

#[test]
fn rows_that_come_in_while_somebody_pages_by_cursor_move_nothing() {
    let api = Api::start();
    let insert = |from: u32, to: u32| {
        api.postgres.execute(&format!(
            "insert into telemetry (device_id, ts, temperature, humidity, battery) \
             select 'd', '2025-06-01T00:00:00Z'::timestamptz + n * interval '1 s', n, 50, 50 \
             from generate_series({from}, {to}) as n"
        ));
    };
    insert(1, 100);
    let (first, body) = api.page("limit=50");
    insert(101, 200);
    let cursor = body["next_cursor"].as_str().unwrap();
    let (second, body) = api.page(&format!("limit=50&cursor={cursor}"));
    let temperatures: Vec<f64> = [first, second]
        .concat()
        .iter()
        .map(|row| serde_json::from_str::<Value>(row).unwrap()["temperature"].as_f64().unwrap())
        .collect();
    assert_eq!(temperatures, (1..=100).rev().map(f64::from).collect::<Vec<_>>());
    assert!(body["next_cursor"].is_null(), "{body}");
}

#[test]
fn the_total_is_exact_up_to_100_000_rows() {
    let api = Api::start();
    let insert = |from: u32, to: u32| {
        api.postgres.execute(&format!(
            "insert into telemetry (device_id, ts, temperature, humidity, battery) \
             select 'device-' || n % 2, '2025-06-01T00:00:00Z'::timestamptz \
             + n * interval '1 ms', 20, 50, 50 from generate_series({from}, {to}) as n"
        ));
    };
    let total = |query: &str| {
        let (_, body) = api.page(query);
        (body["total"].as_u64().unwrap(), body["total_exact"].as_bool().unwrap())
    };
    assert_eq!(total(""), (0, true));
    insert(1, 100_000);
    assert_eq!(total("limit=1"), (100_000, true));
    insert(100_001, 100_001);
    assert_eq!(total("limit=1"), (100_000, false));
    assert_eq!(total("limit=1&start=2025-06-01T00:00:00Z"), (100_000, false));
    assert_eq!(total("limit=1&start=2025-06-01T00:00:00.002Z"), (100_000, true));
    assert_eq!(total("limit=1&device_id=device-0"), (50_000, true));
    assert_eq!(total("limit=1&device_id=nobody"), (0, true));
    assert_eq!(
        total("limit=1&start=2025-06-01T00:00:00.001Z&end=2025-06-01T00:00:01Z"),
        (1_000, true)
    );
}

#[test]
fn start_and_end_are_inclusive_and_of_any_offset() {
    let api = Api::start();
    for (device, ts) in [
        ("a", "2025-06-01T11:59:59.999999Z"),
        ("b", "2025-06-01T12:00:00Z"),
        ("c", "2025-06-01T12:00:00.000001Z"),
        ("d", "2025-06-01T13:00:00Z"),
        ("e", "2025-06-01T13:00:00.000001Z"),
    ] {
        api.postgres.execute(&format!(
            "insert into telemetry (device_id, ts, temperature, humidity, battery) \
             values ('{device}', '{ts}', 1, 2, 3)"
        ));
    }
    let devices = |query: &str| -> String {
        let body = api.get(&format!("/api/v1/telemetry?{query}"));
        let rows = body["data"].as_array().unwrap();
        rows.iter().map(|row| row["device_id"].as_str().unwrap()).collect()
    };
    assert_eq!(devices("start=2025-06-01T12:00:00Z&end=2025-06-01T13:00:00Z"), "dcb");
    assert_eq!(devices("start=2025-06-01T14:00:00%2B02:00&end=2025-06-01T09:00-04:00"), "dcb");
    assert_eq!(devices("start=2025-06-01T12:00:00.000001Z&end=2025-06-01T12:00:00.000001Z"), "c");
    assert_eq!(devices("end=2025-06-01T11:59:59.999999Z"), "a");
    assert_eq!(devices("start=2025-06-01T13:00:00.000001Z"), "e");
    assert_eq!(devices("start=2025-06-01&end=2025-06-01"), "edcba");
    let body = api.get("/api/v1/telemetry?device_id=c");
    assert_eq!(
        body.to_string(),
        r#"{"data":[{"battery":3.0,"device_id":"c","humidity":2.0,"temperature":1.0,"timestamp":"2025-06-01T12:00:00.000001Z"}],"limit":100,"next_cursor":null,"offset":0,"partial":false,"total":1,"total_exact":true}"#
    );
}

#[test]
fn devices_are_shown_with_their_latest_reading() {
    let api = Api::start();
    assert_eq!(
        api.get("/api/v1/devices").to_string(),
        r#"{"data":[],"limit":100,"offset":0,"partial":false,"total":0}"#
    );
    // The latest by its own time, not by its arrival.
    api.postgres.execute(
        "insert into telemetry (device_id, ts, temperature, humidity, battery) \
         select 'device-' || lpad(d::text, 3, '0'), '2025-06-01T00:00:00Z'::timestamptz \
         + n * interval '1 s', n, d, 50 from generate_series(1, 250) as d, \
         generate_series(1, 5) as n order by n desc",
    );
    let body = api.get("/api/v1/devices?limit=2&offset=3");
    assert_eq!(
        body.to_string(),
        r#"{"data":[{"battery":50.0,"device_id":"device-004","humidity":4.0,"last_seen":"2025-06-01T00:00:05Z","temperature":5.0},{"battery":50.0,"device_id":"device-005","humidity":5.0,"last_seen":"2025-06-01T00:00:05Z","temperature":5.0}],"limit":2,"offset":3,"partial":false,"total":250}"#
    );
    let names: Vec<String> = [0, 100, 200]
        .iter()
        .flat_map(|offset| {
            let body = api.get(&format!("/api/v1/devices?offset={offset}"));
            let data = body["data"].as_array().unwrap().clone();
            data.into_iter().map(|row| row["device_id"].as_str().unwrap().to_owned())
        })
        .collect();
    let expected: Vec<String> = (1..=250).map(|d| format!("device-{d:03}")).collect();
    assert_eq!(names, expected);
    assert_eq!(api.get("/api/v1/devices?offset=250")["total"], 250);
}

#[test]
fn devices_are_found_by_a_part_of_their_name_and_shown_newest_first() {
    let api = Api::start();
    for (device, second) in [("Boiler 1", 3), ("boiler 2", 9), ("100%_pump", 5), ("pump", 7)] {
        api.postgres.execute(&format!(
            "insert into telemetry (device_id, ts, temperature, humidity, battery) \
             select '{device}', '2025-06-01T00:00:00Z'::timestamptz + n * interval '1 s', n, 2, 3 \
             from generate_series(1, {second}) as n"
        ));
    }
    let devices = |query: &str| {
        let body = api.get(&format!("/api/v1/devices?{query}"));
        let name = |device: &Value| device["device_id"].as_str().unwrap().to_owned();
        let names: Vec<String> = body["data"].as_array().unwrap().iter().map(name).collect();
        (names.join(", "), body["total"].as_u64().unwrap())
    };
    let shown = |names: &str, total: u64| (names.to_owned(), total);
    assert_eq!(devices("newest_first=true"), shown("boiler 2, pump, 100%_pump, Boiler 1", 4));
    assert_eq!(devices("newest_first=true&limit=2&offset=1"), shown("pump, 100%_pump", 4));
    assert_eq!(devices("newest_first=true&offset=9"), shown("", 4));
    assert_eq!(devices("name_contains=BOIL&newest_first=true"), shown("boiler 2, Boiler 1", 2));
    assert_eq!(devices("name_contains=BOIL&limit=1&newest_first=false"), shown("Boiler 1", 2));
    // No character of it is a pattern.
    assert_eq!(devices("name_contains=%25_"), shown("100%_pump", 1));
    assert_eq!(devices("name_contains=nobody&newest_first=true"), shown("", 0));
    let newest = api.get("/api/v1/devices?newest_first=true&limit=1");
    assert_eq!(newest["data"][0]["temperature"], 9.0);
}

#[test]
fn what_was_published_is_what_the_api_shows() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(0..500);
    postgres.await_count(500);
    let body = ingestor.get("/api/v1/telemetry?limit=500").json();
    for (row, reading) in body["data"].as_array().unwrap().iter().zip(readings(0..500).iter().rev())
    {
        assert_eq!(row["device_id"], reading.device_id);
        assert_eq!(row["temperature"].as_f64(), Some(reading.temperature));
        assert_eq!(row["humidity"].as_f64(), Some(reading.humidity));
        assert_eq!(row["battery"].as_f64(), Some(reading.battery));
        let shown = row["timestamp"].as_str().unwrap();
        let shown = chrono::DateTime::parse_from_rfc3339(shown).unwrap();
        assert_eq!(shown.timestamp_micros(), reading.micros);
        assert!(row["timestamp"].as_str().unwrap().ends_with('Z'));
    }
}
