//! What is in the log is in a file, too.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use super::{Setup, published, rows};
use crate::harness::http::Answer;
use crate::harness::{PATIENCE, eventually};

impl Setup {
    #[track_caller]
    fn file(&self, path: &str) -> Answer {
        let answer = self.ingestor.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.head);
        answer
    }
}

/// Device and time of each row, as `rows` has them.
fn of_csv(text: &str) -> Vec<String> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let row = |record: csv::Result<csv::StringRecord>| {
        let record = record.unwrap();
        let at = chrono::DateTime::parse_from_rfc3339(&record[1]).unwrap().timestamp_micros();
        format!("{at} {}", &record[0])
    };
    reader.records().map(row).collect()
}

/// The first cell of each row.
fn devices_of(text: &str) -> Vec<String> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    reader.records().map(|record| record.unwrap()[0].to_owned()).collect()
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    let header =
        |line: &'a str| line.split_once(": ").filter(|(is, _)| is.eq_ignore_ascii_case(name));
    answer.head.lines().find_map(header).map(|(_, value)| value.trim())
}

/// What the log gives in one go, and half as much again.
const MANY: u64 = 6_200;

#[test]
fn a_file_has_what_is_acknowledged_and_each_reading_once_also_while_it_is_flushed() {
    let setup = Setup::start("");
    setup.publish(0..300);
    setup.postgres.await_count(300);
    setup.flusher("pause");
    // Some of them are in the table already.
    setup.publish(200..MANY);
    let all = published(0..MANY);
    let file = setup.file("/api/v1/telemetry?format=csv");
    assert!(of_csv(&file.body) == all, "{} rows", of_csv(&file.body).len());
    assert_eq!(header(&file, "X-Partial"), None);
    let some = setup.file("/api/v1/telemetry?format=csv&limit=4500&offset=1000");
    assert!(of_csv(&some.body) == all[1_000..5_500]);
    let cursor = setup.telemetry("limit=900")["next_cursor"].as_str().unwrap().to_owned();
    let rest = setup.file(&format!("/api/v1/telemetry?format=csv&cursor={cursor}"));
    assert!(of_csv(&rest.body) == all[900..]);
    let of_one = setup.file("/api/v1/telemetry?format=ndjson&device_id=device-042&limit=10");
    let lines: Vec<Value> =
        of_one.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let page = setup.telemetry("device_id=device-042&limit=10");
    assert_eq!(Value::Array(lines), page["data"]);

    // Nobody takes more of it than its head before all is in the table.
    let mut stream = TcpStream::connect(setup.ingestor.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /api/v1/telemetry?format=csv HTTP/1.0\r\n\r\n").unwrap();
    let mut stream = BufReader::with_capacity(1_000, stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).unwrap();
    }
    setup.flusher("resume");
    setup.postgres.await_count(usize::try_from(MANY).unwrap());
    let mut body = String::new();
    stream.read_to_string(&mut body).unwrap();
    assert!(of_csv(&body) == all, "{} rows", of_csv(&body).len());
    assert!(of_csv(&setup.file("/api/v1/telemetry?format=csv").body) == all);
}

#[test]
fn a_file_of_devices_has_those_of_which_something_waits_in_the_order_of_pages() {
    let setup = Setup::start("");
    setup.publish(0..150);
    setup.postgres.await_count(150);
    setup.flusher("pause");
    setup.publish(150..190);
    for device in ["device-0505", "a", "z"] {
        let reading = format!(
            r#"{{"device_id":"{device}","timestamp":"2025-07-01T00:00:00Z","temperature":1,"humidity":2,"battery":3}}"#
        );
        setup.publish_with(1, |publisher| publisher.publish_one("telemetry/new", reading));
    }
    for query in [
        "limit=1000",
        "newest_first=true&limit=1000",
        "name_contains=device-05&limit=1000",
        "offset=3&limit=60",
    ] {
        let page = setup.get(&format!("/api/v1/devices?{query}"));
        let file = setup.file(&format!("/api/v1/devices?{query}&format=ndjson"));
        let lines: Vec<Value> =
            file.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(Value::Array(lines), page["data"], "{query}");
        assert_eq!(header(&file, "X-Partial"), None);
    }
    assert_eq!(devices_of(&setup.file("/api/v1/devices?format=csv").body).len(), 103);
}

#[test]
fn a_file_in_an_outage_has_what_the_log_and_the_last_values_have_and_says_so_in_its_head() {
    let mut setup = Setup::start("");
    setup.publish(0..200);
    setup.postgres.await_count(200);
    // The page tells it what is in the table.
    setup.telemetry("limit=1");
    setup.lose_the_database();
    setup.publish(200..500);
    let file = setup.file("/api/v1/telemetry?format=csv");
    let all = of_csv(&file.body);
    assert!(published(0..500).starts_with(&all) && all.len() >= 300, "{} rows", all.len());
    assert_eq!(header(&file, "X-Partial"), Some("true"));
    let from = header(&file, "X-Complete-From").unwrap();
    let from = chrono::DateTime::parse_from_rfc3339(from).unwrap();
    assert!(from.timestamp_micros() <= super::readings(200..201)[0].micros, "{from}");
    let some = setup.file("/api/v1/telemetry?format=csv&limit=70&offset=30");
    assert!(of_csv(&some.body) == published(0..500)[30..100]);
    let devices = setup.file("/api/v1/devices?format=csv");
    assert_eq!(header(&devices, "X-Partial"), Some("true"));
    let page = setup.get("/api/v1/devices?limit=1000");
    let names = page["data"].as_array().unwrap().iter();
    let names: Vec<_> = names.map(|row| row["device_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!((devices_of(&devices.body), names.len()), (names, 100));

    setup.ingestor.stop();
    setup.ingestor = setup.service.start();
    let file = setup.file("/api/v1/telemetry?format=csv&limit=300");
    assert_eq!(of_csv(&file.body), published(200..500));
    assert_eq!(
        (header(&file, "X-Partial"), header(&file, "X-Complete-From")),
        (Some("true"), None)
    );
    setup.postgres.launch();
    eventually("a file is whole again", || {
        let file = setup.file("/api/v1/telemetry?format=csv");
        assert!(of_csv(&file.body).starts_with(&published(200..500)));
        (header(&file, "X-Partial").is_none() && of_csv(&file.body).len() == 500).then_some(())
    });
    assert_eq!(rows(&setup.telemetry("limit=500")), published(0..500));
}

#[test]
fn where_the_log_has_nothing_there_is_no_file_in_an_outage_and_devices_are_remembered() {
    let mut setup = Setup::start(super::MAPPINGS);
    eventually("the table of the mapping is there", || {
        (setup.ingestor.get("/api/v1/telemetry?table=power").status == 200).then_some(())
    });
    setup.postgres.execute(
        "insert into power (device_id, ts, power) values ('m', '2025-10-05T12:34:56Z', 1.5)",
    );
    setup.ingestor.stop();
    // So it says when it has found again what the table has.
    setup.service = setup.service.set("SILENT_AFTER_SECS", 3_600);
    setup.ingestor = setup.service.start();
    eventually("the last value is found again", || {
        let silent = setup.get("/api/v1/devices?table=power&silent=true");
        (silent["total"] == 1 && silent["partial"] == false).then_some(())
    });
    setup.lose_the_database();
    for path in ["telemetry?table=power", "telemetry?table=power&format=csv", "devices?format=csv"]
    {
        assert_eq!(setup.ingestor.get(&format!("/api/v1/{path}")).status, 503, "{path}");
    }
    let devices = setup.get("/api/v1/devices?table=power");
    assert_eq!((&devices["data"][0]["power"], &devices["partial"]), (&1.5.into(), &true.into()));
    let file = setup.file("/api/v1/devices?table=power&format=csv&fields=power");
    assert_eq!(file.body.lines().count(), 2);
    assert_eq!(header(&file, "X-Partial"), Some("true"));
}
