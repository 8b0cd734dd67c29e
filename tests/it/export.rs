//! Rows as files: CSV and NDJSON, whole or visibly broken off.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::harness::http::{self, Answer};
use crate::harness::{Ingestor, Mosquitto, PATIENCE, Postgres, Service, eventually, eventually_eq};

struct Site {
    postgres: Postgres,
    ingestor: Ingestor,
    _broker: Mosquitto,
    _service: Service,
}

impl Site {
    fn start() -> Self {
        Self::start_with(|service| service)
    }

    fn start_with(set_up: impl FnOnce(Service) -> Service) -> Self {
        let postgres = Postgres::start();
        let broker = Mosquitto::start();
        let service = set_up(Service::new(&postgres.url(), broker.port));
        let ingestor = service.start();
        eventually("the table is there", || {
            // Whoever wants a token waits by itself.
            let status = ingestor.get("/api/v1/telemetry").status;
            matches!(status, 200 | 401).then_some(())
        });
        Self { postgres, ingestor, _broker: broker, _service: service }
    }

    /// So many readings of ten devices, of which some have one time.
    fn fill(&self, rows: u64) {
        self.postgres.execute(&format!(
            "insert into telemetry (device_id, ts, temperature, humidity, battery)
             select 'device-' || n % 10, timestamptz '2025-06-01' + interval '1 ms' * (n / 30 * 30) + interval '1 us' * (n / 10),
                 n / 7.0, n, -0.1 * n
             from generate_series(1, {rows}) as n;
             insert into telemetry_devices select 'device-' || n from generate_series(0, 9) as n
             on conflict do nothing"
        ));
    }

    #[track_caller]
    fn file(&self, path: &str, accept: &str) -> Answer {
        let headers = format!("Accept: {accept}\r\n");
        let answer = http::request_with(self.ingestor.address(), "GET", path, &headers).unwrap();
        assert_eq!(answer.status, 200, "{path}: {} {}", answer.head, cut(&answer.body));
        answer
    }

    /// All items of `path`, page by page.
    fn items(&self, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.ingestor.get(&format!("{path}limit=1000{cursor}")).json();
            items.extend(page["data"].as_array().unwrap().iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(300).collect()
}

fn lines_of_json(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The records of a CSV as items: what is no text is read as JSON.
fn records(text: &str) -> Vec<Value> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names = reader.headers().unwrap().clone();
    let item = |record: csv::StringRecord| {
        let cell = |(name, text): (&str, &str)| {
            let is_text = matches!(name, "device_id" | "timestamp" | "last_seen");
            let number = serde_json::from_str(text).unwrap_or(Value::Null);
            (name.to_owned(), if is_text { text.into() } else { number })
        };
        Value::Object(names.iter().zip(&record).map(cell).collect())
    };
    reader.records().map(|record| item(record.unwrap())).collect()
}

#[test]
fn a_file_has_every_row_that_matches_newest_first_and_none_twice() {
    let site = Site::start();
    site.fill(12_345);
    let all = site.items("/api/v1/telemetry?");
    assert_eq!(all.len(), 12_345);
    let csv = site.file("/api/v1/telemetry", "text/csv");
    let head = csv.head.to_lowercase();
    assert!(head.contains("content-type: text/csv; charset=utf-8; header=present"), "{head}");
    assert!(head.contains("content-disposition: attachment; filename=\"telemetry.csv\""), "{head}");
    assert!(csv.body.starts_with("device_id,timestamp,temperature,humidity,battery\r\n"));
    assert!(records(&csv.body) == all, "{}", cut(&csv.body));
    let ndjson = site.file("/api/v1/telemetry", "application/x-ndjson");
    assert!(ndjson.head.contains("filename=\"telemetry.ndjson\""), "{}", ndjson.head);
    assert!(lines_of_json(&ndjson.body) == all, "{}", cut(&ndjson.body));

    // With filters, a limit beyond that of a page, a place to begin at, and some of the columns.
    let (from, to) = ("2025-06-01T00:00:01Z", "2025-06-01T00:00:08Z");
    let some = format!("/api/v1/telemetry?device_id=device-3&start={from}&end={to}&");
    let items = site.items(&some);
    assert!(!items.is_empty() && items.len() < 1_234);
    assert!(records(&site.file(&format!("{some}format=csv"), "*/*").body) == items);
    let limited = site.file("/api/v1/telemetry?format=csv&limit=2500&offset=7", "*/*");
    assert!(records(&limited.body) == all[7..2_507]);
    let page = site.ingestor.get("/api/v1/telemetry?limit=100").json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = site.file(&format!("/api/v1/telemetry?format=ndjson&cursor={cursor}"), "*/*");
    assert!(lines_of_json(&rest.body) == all[100..]);
    let column = site.file("/api/v1/telemetry?format=csv&limit=2&fields=battery", "*/*").body;
    assert_eq!(column.lines().next(), Some("device_id,timestamp,battery"));
    assert_eq!(records(&column)[1]["battery"], all[1]["battery"]);
}

#[test]
fn cells_are_quoted_where_rfc_4180_wants_it_and_empty_where_there_is_nothing() {
    let site = Site::start();
    site.postgres.execute(
        r#"alter table telemetry alter humidity drop not null;
        alter table telemetry add column site text;
        insert into telemetry (device_id, ts, temperature, humidity, battery, site) values
            ('a, "b"', 'infinity', 21, null, 'NaN', 'x'),
            ('ü', '2025-10-05T12:34:56.123456Z', 0.1, 1e300, 'Infinity', E'1\n2'),
            ('=1+1', '2025-10-05T12:34:56Z', -0.5, 0, 3, null)"#,
    );
    let csv = site.file("/api/v1/telemetry", "text/csv");
    assert_eq!(
        csv.body,
        "device_id,timestamp,temperature,humidity,battery\r\n\
         \"a, \"\"b\"\"\",,21.0,,\r\n\
         ü,2025-10-05T12:34:56.123456Z,0.1,1e+300,\r\n\
         =1+1,2025-10-05T12:34:56Z,-0.5,0.0,3.0\r\n"
    );
    let named = site.file("/api/v1/telemetry?fields=site,temperature&device_id=%C3%BC", "text/csv");
    let expected =
        "device_id,timestamp,site,temperature\r\nü,2025-10-05T12:34:56.123456Z,\"1\n2\",0.1\r\n";
    assert_eq!(named.body, expected);
    let lines = site.file("/api/v1/telemetry?device_id=a,%20%22b%22&format=ndjson", "*/*").body;
    let item = &site.ingestor.get("/api/v1/telemetry?limit=1").json()["data"][0];
    assert_eq!(serde_json::from_str::<Value>(&lines).unwrap(), *item);
    let none = site.file("/api/v1/telemetry?device_id=nobody", "text/csv");
    assert_eq!(none.body, "device_id,timestamp,temperature,humidity,battery\r\n");
    assert_eq!(site.file("/api/v1/telemetry?device_id=nobody&format=ndjson", "*/*").body, "");
}

#[test]
fn devices_come_as_a_file_too() {
    let site = Site::start();
    site.postgres.execute(
        "insert into telemetry (device_id, ts, temperature, humidity, battery)
         select 'device-' || n % 2500, timestamptz '2025-06-01' + interval '1 s' * n, n, n, n
         from generate_series(1, 5000) as n;
         insert into telemetry_devices select 'device-' || n from generate_series(0, 2499) as n",
    );
    for order in ["", "newest_first=true&"] {
        let pages = (0..3).flat_map(|page| {
            let path = format!("/api/v1/devices?{order}limit=1000&offset={}", page * 1_000);
            site.ingestor.get(&path).json()["data"].as_array().unwrap().clone()
        });
        let all: Vec<Value> = pages.collect();
        assert_eq!(all.len(), 2_500);
        let csv = site.file(&format!("/api/v1/devices?{order}"), "text/csv");
        assert!(csv.head.contains("filename=\"devices.csv\""), "{}", csv.head);
        assert!(csv.body.starts_with("device_id,last_seen,temperature,humidity,battery\r\n"));
        assert!(records(&csv.body) == all, "{}", cut(&csv.body));
        let some =
            site.file(&format!("/api/v1/devices?{order}format=ndjson&limit=1200&offset=9"), "*/*");
        assert!(lines_of_json(&some.body) == all[9..1_209]);
    }
    let named = site.file("/api/v1/devices?format=csv&name_contains=DEVICE-12", "*/*");
    assert_eq!(named.body.lines().count(), 1 + 111);

    // Those whose rows are gone, more than are asked for at once, end no file.
    let before = site.file("/api/v1/devices", "text/csv").body;
    site.postgres.execute(
        "insert into telemetry_devices select 'a-' || n from generate_series(1, 2500) as n",
    );
    assert!(site.file("/api/v1/devices", "text/csv").body == before);
    // By age all of them are put in order at once.
    site.postgres.execute(
        "insert into telemetry_devices select 'b-' || n from generate_series(1, 20000) as n",
    );
    let refused = site.ingestor.get("/api/v1/devices?newest_first=true&format=csv");
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(refused.error().contains("`newest_first`"), "{refused:?}");
    let some = site.file("/api/v1/devices?newest_first=true&format=csv&limit=20000", "*/*").body;
    assert_eq!(some.lines().count(), 1 + 2_500);
}

#[test]
fn a_request_for_a_file_is_refused_like_one_for_a_page() {
    let site = Site::start_with(|service| service.set("READ_TOKEN", "token-of-the-reader"));
    let path = "/api/v1/telemetry?format=csv";
    let refused = site.ingestor.get(path);
    assert_eq!((refused.status, refused.error().is_empty()), (401, false));
    let ask = |method: &str, path: &str| site.ingestor.admin(method, path, "token-of-the-reader");
    for wrong in [
        "format=xml",
        "format=csv&limit=0",
        "format=csv&limit=x",
        "format=csv&cursor=x",
        "format=csv&start=2025-10-06&end=2025-10-05",
        "format=csv&table=x",
        "format=csv&fields=x",
    ] {
        let refused = ask("GET", &format!("/api/v1/telemetry?{wrong}"));
        assert_eq!(refused.status, 400, "{wrong}: {refused:?}");
        refused.error();
    }
    eventually("the table is there", || (ask("GET", path).status == 200).then_some(()));
    let head = ask("HEAD", path);
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.head.to_lowercase().contains("content-type: text/csv"), "{head:?}");
}

#[test]
fn a_file_that_cannot_be_finished_is_broken_off_and_one_that_nobody_reads_holds_up_nobody() {
    let site = Site::start();
    site.fill(300_000);
    let begin = |version: &str| {
        let mut stream = TcpStream::connect(site.ingestor.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("GET /api/v1/telemetry?format=csv {version}\r\nHost: a\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut stream = BufReader::with_capacity(1_000, stream);
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        assert_eq!(line, format!("{version} 200 OK\r\n"));
        stream
    };
    let mut stream = begin("HTTP/1.1");
    // Of the kind that proxies use, which knows no chunks.
    let mut old = begin("HTTP/1.0");
    // Its client does not read on: no question is being asked, and no transaction is open.
    eventually_eq("the database is left alone", &0, || {
        site.postgres.value(
            "select count(*) from pg_stat_activity
             where usename = 'iot' and pid <> pg_backend_pid() and state <> 'idle' and query ilike '%telemetry%'",
        )
    });
    assert_eq!(site.ingestor.get("/api/v1/telemetry?limit=1").json()["total"], 100_000);

    site.postgres.execute("alter table telemetry rename to elsewhere");
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest);
    let is_cut = !rest.ends_with(b"\r\n0\r\n\r\n");
    assert!(end.is_err() || is_cut, "a part of the file looks like the whole");
    assert!(old.read_to_end(&mut rest).is_err(), "a part of the file looks like the whole");
    assert!(!site.ingestor.await_log_of("a file of readings was broken off").is_empty());
    site.postgres.execute("alter table elsewhere rename to telemetry");
    let whole = site.file("/api/v1/telemetry", "text/csv");
    assert_eq!(whole.body.lines().count(), 300_001);
}
