//! Readings by HTTP and out of files: `POST /api/v1/telemetry` and `ingestor import`.

use std::io::Write;
use std::net::TcpStream;
use std::process::Output;

use serde_json::{Value, json};

use crate::harness::http::{self, Answer};
use crate::harness::mosquitto::Certificates;
use crate::harness::{
    Ingestor, Mosquitto, Postgres, Service, array, eventually, eventually_eq, reading, readings,
};

const INGESTOR: &str = env!("CARGO_BIN_EXE_ingestor");
const TOKEN: &str = "admin-token-of-the-test";
const MAPPINGS: &str = r#"
[[default.mapping]]
name   = "meter"
topic  = "meters/{device}"
except = "meters/quiet"
device = "{device}"
time   = { path = "at", format = "ms" }
table  = "power"
extra  = { path = "d" }
[default.mapping.fields]
power  = { path = "d.power", unit = "W", max = 5000 }
count  = { path = "d.count", type = "int" }
on     = { path = "d.on", type = "bool" }
label  = { path = "d.label", type = "text" }
"#;

struct Site {
    postgres: Postgres,
    service: Service,
    ingestor: Ingestor,
    _broker: Mosquitto,
}

impl Site {
    fn start() -> Self {
        Self::start_with("", |service| service)
    }

    fn start_with(mappings: &str, set_up: impl FnOnce(Service) -> Service) -> Self {
        let postgres = Postgres::start();
        let broker = Mosquitto::start();
        let service = Service::new(&postgres.url(), broker.port).set("ADMIN_TOKEN", TOKEN);
        let toml = service.dir().join("Mappings.toml");
        std::fs::write(&toml, mappings).unwrap();
        let service = set_up(service.set("ROCKET_CONFIG", toml.display()));
        let ingestor = service.start();
        eventually_eq("the database is up", &1, || ingestor.metric("ingestor_db_up"));
        Self { postgres, service, ingestor, _broker: broker }
    }

    fn post(&self, query: &str, kind: &str, body: impl AsRef<[u8]>) -> Answer {
        let headers = format!("Authorization: Bearer {TOKEN}\r\nContent-Type: {kind}\r\n");
        let path = format!("/api/v1/telemetry{query}");
        http::request_of(self.ingestor.address(), "POST", &path, &headers, body.as_ref()).unwrap()
    }

    /// The body of a 200.
    #[track_caller]
    fn posted(&self, query: &str, kind: &str, body: impl AsRef<[u8]>) -> Value {
        let answer = self.post(query, kind, body);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Runs `ingestor import` against it, as on its own machine.
    fn import(&self, arguments: &[&str]) -> Output {
        let service = self.service.clone().set("HTTP_ADDR", self.ingestor.address());
        service.run(INGESTOR, &[&["import"], arguments].concat())
    }

    /// All of a table as text, in order.
    fn rows(&self, table: &str) -> Vec<String> {
        let order = format!(
            "select row_to_json(r)::text from (select * from {table} order by device_id, ts) r"
        );
        let mut rows = self.postgres.session().texts(&order);
        for row in &mut rows {
            let mut value: Value = serde_json::from_str(row).unwrap();
            value.as_object_mut().unwrap().remove("created_at");
            *row = value.to_string();
        }
        rows
    }

    #[track_caller]
    fn assert_books(&self) {
        eventually("the books balance", || {
            let metrics = self.ingestor.metrics();
            let left = metrics.get("ingestor_valid_messages_total");
            let right = metrics.get("ingestor_db_inserts_total")
                + metrics.get("ingestor_duplicates_total")
                + metrics.get("ingestor_merged_total")
                + metrics.get("ingestor_wal_pending_records");
            (left == right).then_some(())
        });
    }
}

fn said(output: &Output) -> String {
    let Output { status, stdout, stderr } = output;
    format!("{status}: {} / {}", String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr))
}

#[track_caller]
fn assert_said(output: &Output, code: i32, last_line: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), last_line, "{}", said(output));
}

#[test]
fn a_reading_an_array_lines_and_csv_are_stored_and_what_is_bad_is_named_by_its_place() {
    let site = Site::start();
    let all = readings(0..9);
    let one = site.posted("", "application/json", all[0].payload());
    assert_eq!(one, json!({"accepted": 1, "rejected": []}));
    let bad = reading(100).payload().replace("\"humidity\"", "\"moisture\"");
    let mixed = format!("[{}, {bad},\n{}, 7]", all[1].payload(), all[2].payload());
    let mixed = site.posted("", "application/json; charset=utf-8", mixed);
    assert_eq!((&mixed["accepted"], mixed["rejected"].as_array().unwrap().len()), (&json!(2), 2));
    assert_eq!(mixed["rejected"][0], json!({"index": 1, "reason": "field `humidity` is missing"}));
    assert_eq!(mixed["rejected"][1]["index"], 3);
    let lines = format!("{}\r\nno json\n\n{}", all[3].payload(), array(&all[4..6]));
    let lines = site.posted("", "application/x-ndjson", lines);
    assert_eq!((&lines["accepted"], &lines["rejected"][0]["index"]), (&json!(3), &json!(1)));
    let cells = |at: usize| {
        let reading = &all[at];
        let (time, device) = (reading.timestamp(), &reading.device_id);
        format!(
            "{},{},x,{},\"{device}\",{time}\r\n",
            reading.battery, reading.humidity, reading.temperature
        )
    };
    let csv = [
        "battery,humidity,site,temperature,device_id,timestamp\r\n",
        &cells(6),
        "1,2,3\n",
        &cells(7),
        &cells(8),
    ];
    let csv = site.posted("", "text/csv", csv.concat());
    assert_eq!((&csv["accepted"], &csv["rejected"][0]["index"]), (&json!(3), &json!(1)));
    site.postgres.await_exactly(&all);
    // Whoever has sent it knows of it: there is no letter.
    let metrics = site.ingestor.metrics();
    assert_eq!(metrics.get("ingestor_valid_messages_total"), 9);
    assert_eq!(metrics.get("ingestor_invalid_messages_total"), 4);
    assert_eq!(metrics.get("ingestor_rejections_total{reason=\"missing_field\"}"), 1);
    assert_eq!(metrics.get("ingestor_dead_letters"), 0);
    assert_eq!(metrics.get("ingestor_messages_total"), 0);
    site.assert_books();
    assert_eq!(site.posted("", "application/json", "[]"), json!({"accepted": 0, "rejected": []}));
}

#[test]
fn what_cannot_be_taken_is_refused_as_a_whole() {
    let site = Site::start_with(MAPPINGS, |service| service);
    let good = reading(0).payload();
    let long = format!("\"{}\"", "x".repeat(70_000));
    for (query, kind, body, status) in [
        ("", "application/json", "", 400),
        ("", "application/json", "hello", 400),
        ("", "application/json", &good[..good.len() - 1], 400),
        ("", "application/json", &format!("[{good},{{\"a\":}}]"), 400),
        ("", "application/json", &format!("[{good}"), 400),
        ("", "application/json", &format!("{good}]"), 400),
        ("", "application/x-ndjson", "hello\nworld\n", 400),
        ("", "text/csv", "", 400),
        ("", "text/csv", "device_id,timestamp\na,b\n", 400),
        ("", "application/json", &long, 413),
        ("?topic=meters/a", "application/json", &long, 413),
        ("", "application/xml", "<a/>", 415),
        ("?table=power", "text/csv", "device_id,timestamp,voltage\n", 400),
        ("?table=nothing", "application/json", &good, 400),
        ("?topic=a/%23", "application/json", &good, 400),
        ("?topic=a&table=power", "application/json", &good, 400),
        ("?limit=1", "application/json", &good, 400),
    ] {
        let answer = site.post(query, kind, body);
        assert_eq!(answer.status, status, "{query} {kind} {body:.100}: {answer:?}");
        answer.error();
    }
    let with = |headers: &str| {
        let address = site.ingestor.address();
        http::request_of(address, "POST", "/api/v1/telemetry", headers, good.as_bytes()).unwrap()
    };
    assert_eq!(with("").status, 401);
    assert!(with("").error().contains("ADMIN_TOKEN"));
    assert_eq!(with("Authorization: Bearer wrong\r\n").status, 401);
    let gzip = format!("Authorization: Bearer {TOKEN}\r\nContent-Encoding: gzip\r\n");
    assert_eq!(with(&gzip).status, 415);
    assert_eq!(site.ingestor.metric("ingestor_valid_messages_total"), 0);
    assert_eq!(site.postgres.count(), 0);
    let without = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", 1).start();
    let refused =
        http::request_of(without.address(), "POST", "/api/v1/telemetry", "", good.as_bytes());
    assert_eq!(refused.unwrap().status, 403);
}

#[test]
fn rows_of_tables_and_messages_of_topics_go_where_they_belong() {
    let site = Site::start_with(MAPPINGS, |service| service);
    let at = "2025-10-05T12:34:56.5Z";
    // As `wal export` writes it.
    let lines = [
        json!({"table": "power", "device_id": "a", "timestamp": at, "count": 7, "label": "ü"})
            .to_string(),
        reading(0).payload(),
        json!({"table": "elsewhere", "device_id": "a", "timestamp": at, "count": 7}).to_string(),
        json!({"table": "power", "device_id": "b", "timestamp": at, "voltage": 7}).to_string(),
    ];
    let answer = site.posted("", "application/x-ndjson", lines.join("\n"));
    assert_eq!((&answer["accepted"], answer["rejected"].as_array().unwrap().len()), (&json!(2), 2));
    let csv = format!(
        "device_id,timestamp,on,power,extra\nc,{at},true,1.5,\"{{\"\"x\"\":1}}\"\nd,{at},,,\n"
    );
    let answer = site.posted("?table=power", "text/csv", csv);
    assert_eq!((&answer["accepted"], answer["rejected"].as_array().unwrap().len()), (&json!(1), 1));
    let message = |power: u64| {
        json!({"at": 1_759_667_696_000_u64, "d": {"power": power, "more": 1}}).to_string()
    };
    let lines = [message(20), message(9_000), "{}".to_owned()].join("\n");
    let answer = site.posted("?topic=meters/e", "application/x-ndjson", lines);
    assert_eq!(
        (&answer["accepted"], answer["rejected"].as_array().unwrap().len()),
        (&json!(1), 2),
        "{answer}"
    );
    let quiet = site.posted("?topic=meters/quiet", "application/json", message(1));
    assert!(
        quiet["rejected"][0]["reason"].as_str().unwrap().contains("leaves it alone"),
        "{quiet}"
    );
    // What `MQTT_TOPIC` brings is of the built-in shape.
    let own = site.posted("?topic=telemetry/x", "application/json", array(&readings(1..4)));
    assert_eq!(own["accepted"], 3);
    site.postgres.await_exactly(&readings(0..4));
    eventually_eq("the rows are there", &3, || site.postgres.value("select count(*) from power"));
    let rows: Vec<Value> =
        site.rows("power").iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    let named: Vec<&Value> = rows.iter().map(|row| &row["device_id"]).collect();
    assert_eq!(named, ["a", "c", "e"]);
    assert_eq!(
        (&rows[0]["label"], &rows[1]["extra"], &rows[2]["power"]),
        (&json!("ü"), &json!({"x": 1}), &json!(20))
    );
    let metrics = site.ingestor.metrics();
    assert_eq!(metrics.get("ingestor_mapping_total{mapping=\"meter\",outcome=\"stored\"}"), 1);
    assert_eq!(metrics.get("ingestor_mapping_total{mapping=\"meter\",outcome=\"ignored\"}"), 1);
    site.assert_books();
}

#[test]
fn what_was_committed_of_a_body_that_is_broken_off_stays() {
    let mut site = Site::start();
    let body: String = readings(0..3_000).iter().map(|reading| reading.payload() + "\n").collect();
    let mut stream = TcpStream::connect(site.ingestor.address()).unwrap();
    let head = format!(
        "POST /api/v1/telemetry HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/x-ndjson\r\nContent-Length: 10000000\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A group of them is in the log while the rest is still awaited.
    site.ingestor.await_metric("ingestor_valid_messages_total", 2_000);
    drop(stream);
    eventually("the rows of the group are there", || {
        (site.postgres.count() >= 2_000).then_some(())
    });
    assert_eq!(site.posted("?count_known=true", "application/x-ndjson", &body)["accepted"], 3_000);
    site.postgres.await_exactly(&readings(0..3_000));
    site.assert_books();
}

#[test]
fn a_full_log_says_when_to_come_back_and_an_import_does() {
    let site = Site::start_with("", |service| {
        service.set("WAL_MAX_BYTES", 16 * 1024 * 1024).set("WAL_GENERATION_BYTES", 4 * 1024 * 1024)
    });
    assert_eq!(site.ingestor.admin("POST", "/admin/flusher/pause", TOKEN).status, 200);
    let mut sent = 0;
    let refused = loop {
        let body: String =
            readings(sent..sent + 20_000).iter().map(|reading| reading.payload() + "\n").collect();
        let answer = site.post("", "application/x-ndjson", body);
        if answer.status != 200 {
            break answer;
        }
        sent += 20_000;
        assert!(sent < 10_000_000, "it is never full");
    };
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.head.to_lowercase().contains("\r\nretry-after: "), "{refused:?}");
    assert!(refused.error().contains("the log is full"), "{refused:?}");

    let file = site.service.dir().join("more.ndjson");
    let more: String =
        readings(sent..sent + 30_000).iter().map(|reading| reading.payload() + "\n").collect();
    std::fs::write(&file, more).unwrap();
    let file = file.display().to_string();
    let said_meanwhile = site.service.dir().join("import.log");
    let import = std::thread::scope(|scope| {
        let (address, said) = (site.ingestor.address(), &said_meanwhile);
        let waiting = scope.spawn(move || {
            // As soon as it has been refused, there is room again.
            eventually("the import is refused", || {
                let said = std::fs::read_to_string(said).unwrap_or_default();
                said.contains("waiting: the log is full").then_some(())
            });
            let headers = format!("Authorization: Bearer {TOKEN}\r\n");
            http::request_with(address, "POST", "/admin/flusher/resume", &headers).unwrap().status
        });
        let service = site.service.clone().set("HTTP_ADDR", site.ingestor.address());
        let script = "exec \"$0\" import \"$1\" 2> \"$2\"";
        let log = said_meanwhile.display().to_string();
        let import = service.run("sh", &["-c", script, INGESTOR, &file, &log]);
        assert_eq!(waiting.join().unwrap(), 200);
        import
    });
    assert_eq!(import.status.code(), Some(0), "{}", said(&import));
    eventually("all of it is stored", || {
        (site.postgres.count() as u64 >= sent + 30_000).then_some(())
    });
    site.postgres.await_exactly(&readings(0..sent + 30_000));
}

#[test]
fn what_was_exported_comes_back_as_it_was_and_is_known_the_second_time() {
    let from = Site::start_with(MAPPINGS, |service| service);
    from.postgres.execute(
        "insert into telemetry (device_id, ts, temperature, humidity, battery)
         select 'a, \"' || n % 7, timestamptz '2025-06-01' + interval '1 us' * n, n / 70000.0, n % 100, 1e-300 * n
         from generate_series(1, 20000) as n;
         insert into power (device_id, ts, power, count, \"on\", label, extra)
         select 'm' || n % 3, timestamptz '2025-06-01' + interval '1 ms' * n, n / 7.0, n, n % 2 = 0,
             case when n % 5 = 0 then null else E'line\\n' || n end, jsonb_build_object('n', n, 't', 'ü')
         from generate_series(1, 3000) as n",
    );
    let telemetry = from.rows("telemetry");
    let power = from.rows("power");
    for format in ["csv", "ndjson"] {
        let to = Site::start_with(MAPPINGS, |service| service);
        for (table, rows, count) in [("telemetry", &telemetry, 20_000), ("power", &power, 3_000)] {
            let export =
                from.ingestor.get(&format!("/api/v1/telemetry?table={table}&format={format}"));
            let file = to.service.dir().join(format!("{table}.{format}"));
            std::fs::write(&file, export.body).unwrap();
            let file = file.display().to_string();
            let import = to.import(&["--table", table, &file]);
            assert_said(&import, 0, &format!("{count} stored, 0 known, 0 rejected"));
            let all = format!("select count(*) from {table}");
            eventually_eq("all rows are there", &count, || to.postgres.value(&all));
            assert!(to.rows(table) == *rows, "{table} as {format}");
            let again = to.import(&["--table", table, &file]);
            assert_said(&again, 0, &format!("0 stored, {count} known, 0 rejected"));
        }
        to.assert_books();
        assert!(to.rows("telemetry") == telemetry && to.rows("power") == power);
    }
}

#[test]
fn an_export_of_the_log_is_imported_with_the_tables_that_its_lines_name() {
    let site = Site::start_with(MAPPINGS, |service| service);
    assert_eq!(site.ingestor.admin("POST", "/admin/flusher/pause", TOKEN).status, 200);
    let message =
        json!({"at": 1_759_667_696_000_u64, "d": {"power": 20.5, "count": 3}}).to_string();
    site.posted("?topic=meters/a", "application/json", message);
    site.posted("", "application/json", array(&readings(0..500)));
    let Site { postgres: _postgres, service, ingestor, _broker } = site;
    ingestor.stop();
    let export = service.run(INGESTOR, &["wal", "export"]);
    assert_eq!(export.status.code(), Some(0), "{}", said(&export));

    let to = Site::start_with(MAPPINGS, |service| service);
    let file = to.service.dir().join("log.ndjson");
    std::fs::write(&file, [&export.stdout[..], b"{\"device_id\":\"x\"}\nno json\n"].concat())
        .unwrap();
    let import = to.import(&[&file.display().to_string()]);
    assert_said(&import, 1, "501 stored, 0 known, 2 rejected");
    let complaints = String::from_utf8_lossy(&import.stderr);
    assert!(complaints.contains("reading 502: field `timestamp` is missing"), "{complaints}");
    assert!(complaints.contains("reading 503: not valid JSON"), "{complaints}");
    to.postgres.await_exactly(&readings(0..500));
    eventually_eq("the row of the other table is there", &1, || {
        to.postgres.value("select count(*) from power where power = 20.5 and count = 3")
    });
}

#[test]
fn an_import_asks_the_service_of_this_machine_over_tls_and_tells_its_token_to_no_other() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port).set("ADMIN_TOKEN", TOKEN);
    let own = Certificates::make(service.dir());
    let service = service
        .set("HTTP_TLS_CERT_FILE", own.server.display())
        .set("HTTP_TLS_KEY_FILE", own.server_key.display());
    let ingestor = service.start();
    let file = service.dir().join("one.ndjson");
    std::fs::write(&file, reading(0).payload()).unwrap();
    let file = file.display().to_string();
    let here = service.clone().set("HTTP_ADDR", ingestor.address());
    let refused = here
        .clone()
        .set("HTTP_TLS_CERT_FILE", own.client.display())
        .run(INGESTOR, &["import", &file]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    let import = here.run(INGESTOR, &["import", &file]);
    assert_eq!(import.status.code(), Some(0), "{}", said(&import));
    postgres.await_exactly(&readings(0..1));
    let url = format!("https://{}", ingestor.address());
    let unknown = here.run(INGESTOR, &["import", "--url", &url, &file]);
    assert_eq!(unknown.status.code(), Some(1), "{}", said(&unknown));
    let authority = own.ca.display().to_string();
    let known = here.run(INGESTOR, &["import", "--url", &url, "--ca-file", &authority, &file]);
    assert_said(&known, 0, "0 stored, 1 known, 0 rejected");
}

#[test]
fn an_import_that_cannot_begin_says_why() {
    let site = Site::start();
    let run = |service: &Service, arguments: &[&str]| {
        service.run(INGESTOR, &[&["import"], arguments].concat())
    };
    let here = site.service.clone().set("HTTP_ADDR", site.ingestor.address());
    let file = here.dir().join("empty.ndjson");
    std::fs::write(&file, "").unwrap();
    let file = file.display().to_string();
    assert_said(&run(&here, &[&file]), 0, "0 stored, 0 known, 0 rejected");
    assert_eq!(run(&here, &["nowhere.csv"]).status.code(), Some(1));
    std::fs::write(&file, reading(0).payload()).unwrap();
    for (arguments, code, what) in [
        (&["--token", "wrong", &file][..], 1, "admin token"),
        (&["--table", "nothing", &file], 1, "`table`"),
        (&["--table", "a", "--topic", "b", &file], 64, "--topic"),
        (&["--url", "ftp://a", &file], 64, "ftp"),
    ] {
        let output = run(&here, arguments);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(what), "{}", said(&output));
    }
    let bare = Service::bare();
    assert_eq!(run(&bare, &[&file]).status.code(), Some(64));
    let nobody = bare.set("ADMIN_TOKEN", TOKEN).set("HTTP_ADDR", "127.0.0.1:1");
    assert_eq!(run(&nobody, &[&file]).status.code(), Some(1));
}
