//! Devices that send nothing any more are named, by when they were last heard of.

use serde_json::{Value, json};

use crate::harness::{
    Ingestor, Mosquitto, Postgres, Publisher, Service, eventually, eventually_eq,
};

const HOUR: u32 = 3_600;

/// Of which each device is silent a second after its last message.
const METERS: &str = r#"
[[default.mapping]]
name   = "meter"
topic  = "meters/{device}"
device = "{device}"
time   = "received"
table  = "power"
fields = ["power"]
silent_after = 1
"#;

struct Site {
    postgres: Postgres,
    broker: Mosquitto,
    service: Service,
    ingestor: Ingestor,
}

impl Site {
    fn start(mappings: &str, prepare: impl FnOnce(&Postgres)) -> Self {
        let postgres = Postgres::start();
        prepare(&postgres);
        let broker = Mosquitto::start();
        // What is in the log is there after a restart, too.
        let service = Service::new(&postgres.url(), broker.port)
            .set("SILENT_AFTER_SECS", HOUR)
            .set("WAL_RETAIN_SECS", HOUR);
        let file = service.dir().join("Mappings.toml");
        std::fs::write(&file, mappings).unwrap();
        let service = service.set("ROCKET_CONFIG", file.display());
        let mut ingestor = service.start();
        ingestor.await_ready();
        Self { postgres, broker, service, ingestor }
    }

    /// Returns when it is acknowledged.
    fn publish(&self, topic: &str, payload: &Value) {
        let valid = || self.ingestor.metric("ingestor_valid_messages_total");
        let before = valid();
        Publisher::connect(self.broker.port).publish_one(topic, payload.to_string());
        eventually("it is acknowledged", || (valid() > before).then_some(()));
    }

    /// A reading that says it is of last year.
    fn publish_dated(&self, device: &str, at: &str) {
        let reading = json!({"device_id": device, "timestamp": at, "temperature": 1, "humidity": 2, "battery": 3});
        self.publish("telemetry/x", &reading);
    }

    #[track_caller]
    fn devices(&self, query: &str) -> Value {
        let answer = self.ingestor.get(&format!("/api/v1/devices?{query}"));
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        answer.json()
    }

    #[track_caller]
    fn names(&self, query: &str) -> Vec<String> {
        names(&self.devices(query))
    }

    fn await_whole(&self) {
        eventually("what was there before the start is found", || {
            (self.devices("silent=true")["partial"] == false).then_some(())
        });
    }
}

fn names(body: &Value) -> Vec<String> {
    let name = |row: &Value| row["device_id"].as_str().unwrap().to_owned();
    body["data"].as_array().unwrap().iter().map(name).collect()
}

const NONE: [&str; 0] = [];

#[test]
fn a_device_is_heard_of_when_its_readings_arrive_whatever_their_times_also_after_a_restart() {
    let mut site = Site::start("", |postgres| {
        postgres.make_table();
        postgres.execute(
            "insert into telemetry (device_id, ts, temperature, humidity, battery)
             select device, timestamptz '2025-01-01', 1, 2, 3 from unnest(array['gone', 'late']) as device;
             insert into telemetry_devices values ('gone'), ('late')",
        );
    });
    site.await_whole();
    assert_eq!(site.names("silent=true"), ["gone", "late"]);
    let long = site.devices("silent=true")["data"][0]["silent_seconds"].as_f64().unwrap();
    assert!(long > 300.0 * 86_400.0, "{long}");
    // Clocks that are behind, also behind what they said before.
    site.publish_dated("late", "2024-06-01T00:00:00Z");
    site.publish_dated("new", "2024-06-01T00:00:00Z");
    assert_eq!(site.names("silent=true"), ["gone"]);
    assert_eq!(site.names("silent=false"), ["late", "new"]);
    let late = &site.devices("silent=false")["data"][0];
    assert_eq!(late["last_seen"], "2025-01-01T00:00:00Z");
    assert!(late["silent_seconds"].as_f64().unwrap() < f64::from(HOUR), "{late}");
    assert_eq!(site.devices("")["data"][0].get("silent_seconds"), None);
    eventually_eq("it is counted", &1, || site.ingestor.metric("ingestor_silent_devices"));
    assert_eq!(site.ingestor.get("/api/v1/status").json()["silent_devices"], 1);

    site.postgres.await_count(4);
    site.ingestor.stop();
    site.ingestor = site.service.start();
    site.await_whole();
    assert_eq!(site.names("silent=true"), ["gone"]);
    assert_eq!(site.names("silent=false"), ["late", "new"]);

    site.postgres.stop();
    eventually("it knows that the database is away", || {
        (site.ingestor.health()["database"] == "down").then_some(())
    });
    let silent = site.devices("silent=true");
    assert_eq!((names(&silent), &silent["partial"]), (vec!["gone".to_owned()], &true.into()));
    site.publish_dated("gone", "2025-01-01T00:00:00Z");
    assert_eq!(site.names("silent=true"), NONE);
    eventually_eq("it is counted", &0, || site.ingestor.metric("ingestor_silent_devices"));
    // What only the table has is found again when that answers.
    site.ingestor.stop();
    site.ingestor = site.service.start();
    eventually_eq("the log is read back", &3, || site.names("silent=false").len());
    assert_eq!(site.devices("silent=true")["partial"], true);
}

#[test]
fn what_a_mapping_says_goes_before_the_setting_and_the_list_has_pages_and_files() {
    let site = Site::start(METERS, |_| ());
    assert_eq!(site.ingestor.metric("ingestor_silent_devices"), 0);
    for device in ["m1", "m2", "m3"] {
        site.publish(&format!("meters/{device}"), &json!({"power": 1}));
    }
    site.publish_dated("built-in", "2024-06-01T00:00:00Z");
    eventually_eq("all meters are silent", &3, || site.names("table=power&silent=true").len());
    eventually_eq("they are counted", &3, || site.ingestor.metric("ingestor_silent_devices"));
    assert_eq!(site.names("silent=true"), NONE);
    assert_eq!(site.names("silent=false"), ["built-in"]);
    assert_eq!(site.names("table=power&silent=false"), NONE);
    let page = site.devices("table=power&silent=true&limit=1&offset=1&fields=power");
    assert_eq!((names(&page), &page["total"]), (vec!["m2".to_owned()], &3.into()));
    assert_eq!(page["data"][0]["power"], 1.0);
    assert_eq!(site.names("table=power&silent=true&newest_first=true"), ["m3", "m2", "m1"]);
    assert_eq!(site.names("table=power&silent=true&name_contains=M2"), ["m2"]);
    let file = site.ingestor.get("/api/v1/devices?table=power&silent=true&format=csv&limit=2");
    let lines: Vec<&str> = file.body.lines().collect();
    assert_eq!((file.status, lines.len(), lines[0]), (200, 3, "device_id,last_seen,power"));
    assert!(lines[1].starts_with("m1,") && lines[2].starts_with("m2,"), "{lines:?}");
    let file = site.ingestor.get("/api/v1/devices?table=power&silent=false&format=ndjson");
    assert_eq!((file.status, file.body.as_str()), (200, ""));
    let wrong = site.ingestor.get("/api/v1/devices?silent=1");
    assert_eq!((wrong.status, wrong.error()), (400, "`silent` must be `true` or `false`".into()));
}

#[test]
fn where_no_time_is_set_nobody_is_silent_and_who_asks_is_told_what_to_set() {
    let broker = Mosquitto::start();
    let service = Service::new("postgres://iot@127.0.0.1:1/iotdb", broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    for path in ["/api/v1/devices?silent=true", "/api/v1/devices?silent=false&format=csv"] {
        let refused = ingestor.get(path);
        assert_eq!(refused.status, 400, "{refused:?}");
        let error = refused.error();
        assert!(error.contains("SILENT_AFTER_SECS") && error.contains("silent_after"), "{error}");
    }
    assert_eq!(ingestor.metric("ingestor_silent_devices"), 0);
    assert_eq!(ingestor.get("/api/v1/status").json()["silent_devices"], 0);
}
