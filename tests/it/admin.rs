//! `/admin`: what an operator sees, changes, and is told.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::books::must_balance;
use crate::harness::http::Answer;
use crate::harness::{
    Ingestor, Load, Mosquitto, PATIENCE, Postgres, Publisher, Reading, Service, array, eventually,
    eventually_eq, random, reading, readings,
};

const TOKEN: &str = "correct horse battery staple";

/// Every route, with what it takes to be found.
const ROUTES: [(&str, &str); 11] = [
    ("GET", "/admin/wal"),
    ("GET", "/admin/wal/records"),
    ("POST", "/admin/flusher/pause"),
    ("POST", "/admin/flusher/resume"),
    ("POST", "/admin/flusher/reject"),
    ("GET", "/admin/retention"),
    ("POST", "/admin/retention/run"),
    ("GET", "/admin/dead-letters"),
    ("POST", "/admin/dead-letters/0/replay"),
    ("POST", "/admin/dead-letters/replay"),
    ("DELETE", "/admin/dead-letters/0"),
];

struct Admin {
    postgres: Postgres,
    broker: Mosquitto,
    service: Service,
    ingestor: Ingestor,
}

impl Admin {
    fn start() -> Self {
        let postgres = Postgres::start();
        let broker = Mosquitto::start();
        let service = Service::new(&postgres.url(), broker.port).set("ADMIN_TOKEN", TOKEN);
        let mut ingestor = service.start();
        ingestor.await_ready();
        eventually_eq("the database is up", &1, || ingestor.metric("ingestor_db_up"));
        Self { postgres, broker, service, ingestor }
    }

    /// In order, and again with what `change` makes of the settings.
    fn restart(self, change: impl FnOnce(Service) -> Service) -> Self {
        let Self { postgres, broker, service, ingestor } = self;
        ingestor.stop();
        let service = change(service);
        let mut ingestor = service.start();
        ingestor.await_ready();
        Self { postgres, broker, service, ingestor }
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str) -> Answer {
        self.ingestor.admin(method, path, TOKEN)
    }

    /// The body of a 200.
    #[track_caller]
    fn done(&self, method: &str, path: &str) -> Value {
        let answer = self.ask(method, path);
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
        answer.json()
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        self.done("GET", path)
    }

    /// Follows `next`, passed back as `parameter`, to the end; what was in `list` of every page, and
    /// how many pages that were.
    #[track_caller]
    fn all(&self, path: &str, parameter: &str, list: &str) -> (Vec<Value>, usize) {
        let mut found = Vec::new();
        let mut query = String::new();
        for pages in 1..=1_000 {
            let mut page = self.get(&format!("{path}{query}"));
            assert!(keys(&page).contains("next"), "{page}");
            found.append(page[list].as_array_mut().unwrap());
            let Some(next) = page["next"].as_u64() else { return (found, pages) };
            query = format!("&{parameter}={next}");
        }
        panic!("it has no end");
    }

    fn publish_bad(&self, payloads: &[&[u8]]) {
        let mut devices = Publisher::connect(self.broker.port);
        let before = self.ingestor.metric("ingestor_dead_letters");
        for payload in payloads {
            devices.publish("telemetry/bad/x", *payload);
        }
        devices.finish();
        let expected = before + payloads.len() as u64;
        eventually_eq("they are dead letters", &expected, || {
            self.ingestor.metric("ingestor_dead_letters")
        });
    }

    fn await_drained(&self) {
        eventually_eq("nothing waits", &0, || self.ingestor.metric("ingestor_wal_pending_records"));
    }
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// A reading that is only good once the bound is 1000 °C.
fn hot(number: u64) -> Vec<u8> {
    let mut hot = reading(number);
    hot.temperature = 400.0;
    hot.payload().into_bytes()
}

#[test]
fn nobody_gets_in_without_the_token_and_with_none_configured_nobody_at_all() {
    let broker = Mosquitto::start();
    let service = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", broker.port);
    let ingestor = service.start();
    for (method, path) in ROUTES {
        for answer in [ingestor.request(method, path), ingestor.admin(method, path, TOKEN)] {
            assert_eq!(answer.status, 403, "{method} {path}: {answer:?}");
            assert!(answer.error().contains("ADMIN_TOKEN"), "{answer:?}");
        }
    }
    ingestor.stop();

    let service = service.set("ADMIN_TOKEN", TOKEN);
    let mut ingestor = service.start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_one("telemetry/x", "bad");
    ingestor.await_metric("ingestor_dead_letters", 1);
    let guesses = ["", " ", "correct", &TOKEN[1..], &TOKEN.to_uppercase(), &format!("{TOKEN}!")];
    for (method, path) in ROUTES {
        let mut answers = vec![ingestor.request(method, path)];
        answers.extend(guesses.map(|guess| ingestor.admin(method, path, guess)));
        for answer in answers {
            assert_eq!(answer.status, 401, "{method} {path}: {answer:?}");
            assert!(
                answer.head.contains("WWW-Authenticate: Bearer")
                    || answer.head.contains("www-authenticate: Bearer"),
                "{answer:?}"
            );
            assert!(!answer.error().contains(TOKEN));
        }
    }
    // Nobody has changed anything.
    assert_eq!(ingestor.metric("ingestor_dead_letters"), 1);
    assert_eq!(ingestor.log_of("admin: "), Vec::<Value>::new());
    for (method, path) in ROUTES {
        let answer = ingestor.admin(method, path, TOKEN);
        assert!(![401, 403].contains(&answer.status), "{method} {path}: {answer:?}");
    }
    assert!(!ingestor.log_text().contains(TOKEN));
}

#[test]
fn the_state_of_the_log_has_the_shape_of_the_contract_and_tells_the_truth() {
    let mut admin = Admin::start();
    let paused = admin.done("POST", "/admin/flusher/pause");
    assert_eq!(paused["state"], "paused");
    Publisher::connect(admin.broker.port).publish_readings(0..500);
    admin.ingestor.await_metric("ingestor_wal_pending_records", 500);
    let wal = admin.get("/admin/wal");
    assert_eq!(
        keys(&wal),
        BTreeSet::from([
            "pending_records",
            "pending_bytes",
            "disk_bytes",
            "max_bytes",
            "full",
            "oldest_pending_seconds",
            "next_offset",
            "flushed_offset",
            "generations",
            "quarantined",
            "flusher",
        ])
    );
    assert_eq!(wal["pending_records"], 500);
    assert_eq!(wal["max_bytes"], 1_u64 << 30);
    assert_eq!(wal["full"], false);
    assert_eq!((&wal["next_offset"], &wal["flushed_offset"]), (&json!(500), &json!(0)));
    assert!(wal["pending_bytes"].as_u64() > Some(1_000), "{wal}");
    assert!(wal["disk_bytes"].as_u64() >= wal["pending_bytes"].as_u64(), "{wal}");
    assert!(wal["oldest_pending_seconds"].as_f64() > Some(0.0), "{wal}");
    assert_eq!(wal["quarantined"], json!([]));
    let generations = wal["generations"].as_array().unwrap();
    let generation = generations.last().unwrap();
    assert_eq!(
        keys(generation),
        BTreeSet::from(["id", "first_offset", "pending_records", "disk_bytes"])
    );
    assert_eq!(generation["id"], "00000000000000000000");
    assert!(admin.service.wal_dir().join("00000000000000000000").is_dir());
    let flusher = ["state", "consecutive_failures", "last_error", "retry_in_seconds"];
    assert_eq!(keys(&wal["flusher"]), BTreeSet::from(flusher));
    assert_eq!(
        wal["flusher"],
        json!({
            "state": "paused", "consecutive_failures": 0, "last_error": null, "retry_in_seconds": null
        })
    );
    assert_eq!(admin.postgres.count(), 0, "a paused flusher has written");

    assert_ne!(admin.done("POST", "/admin/flusher/resume")["state"], "paused");
    admin.postgres.await_exactly(&readings(0..500));
    eventually_eq("it is idle", &json!("idle"), || {
        admin.get("/admin/wal")["flusher"]["state"].clone()
    });
    let wal = admin.get("/admin/wal");
    assert_eq!((&wal["pending_records"], &wal["flushed_offset"]), (&json!(0), &json!(500)));
    assert_eq!(wal["oldest_pending_seconds"], 0.0);

    // The database goes.
    admin.postgres.stop();
    Publisher::connect(admin.broker.port).publish_readings(500..600);
    let flusher = eventually("it backs off", || {
        let flusher = admin.get("/admin/wal")["flusher"].clone();
        (flusher["state"] == "backing_off").then_some(flusher)
    });
    assert!(flusher["consecutive_failures"].as_u64() >= Some(1), "{flusher}");
    assert!(flusher["retry_in_seconds"].as_f64() <= Some(20.0), "{flusher}");
    assert!(flusher["last_error"].as_str().unwrap().len() > 5, "{flusher}");
    // Paused, it stays so when the database comes back.
    admin.done("POST", "/admin/flusher/pause");
    admin.postgres.launch();
    let database = || admin.ingestor.health()["database"].clone();
    // Nobody needs to take rows in order to say that it is there.
    eventually_eq("the database is seen to be up", &Value::from("up"), database);
    assert_eq!(admin.get("/admin/wal")["flusher"]["state"], "paused");
    assert_eq!(admin.ingestor.metric("ingestor_wal_pending_records"), 100);
    admin.done("POST", "/admin/flusher/resume");
    admin.postgres.await_exactly(&readings(0..600));
    let changes = |message| admin.ingestor.log_of(message).len();
    eventually_eq("pauses are told", &2, || changes("admin: flusher paused"));
    eventually_eq("so are their ends", &2, || changes("admin: flusher resumed"));
}

#[test]
fn what_waits_in_the_log_is_paged_by_offset_and_device_to_the_end() {
    let mut admin = Admin::start();
    // A part of it is stored already, and shown no more.
    Publisher::connect(admin.broker.port).publish_readings(0..300);
    admin.postgres.await_count(300);
    admin.await_drained();
    admin.done("POST", "/admin/flusher/pause");
    Publisher::connect(admin.broker.port).publish_readings(300..2_800);
    admin.ingestor.await_metric("ingestor_wal_pending_records", 2_500);

    let expected = |number: u64| {
        let reading = reading(number);
        json!({
            "offset": number,
            "device_id": reading.device_id,
            "timestamp": reading.timestamp().replace(".000000Z", "Z"),
            "temperature": reading.temperature,
            "humidity": reading.humidity,
            "battery": reading.battery,
        })
    };
    let (all, pages) = admin.all("/admin/wal/records?limit=1000", "from", "records");
    assert_eq!(all.len(), 2_500);
    assert_eq!(pages, 3);
    for (record, number) in all.iter().zip(300..) {
        assert_eq!(record["offset"], number);
        assert_eq!(record["device_id"], reading(number).device_id);
        assert_eq!(record["temperature"], reading(number).temperature);
    }
    assert_eq!(keys(&all[0]), keys(&expected(300)));
    assert_eq!(admin.get("/admin/wal/records")["records"].as_array().unwrap().len(), 100);
    let page = admin.get("/admin/wal/records?from=1234&limit=1");
    assert_eq!(page, json!({"records": [all[1_234 - 300].clone()], "next": 1_235}));
    // Of one device, and of one that is not there.
    let (of_one, _) =
        admin.all("/admin/wal/records?device_id=device-007&limit=10", "from", "records");
    let numbers: Vec<_> = of_one.iter().map(|record| record["offset"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (300..2_800).filter(|n| n % 100 == 7).collect::<Vec<_>>());
    let none = json!({"records": [], "next": null});
    assert_eq!(admin.get("/admin/wal/records?device_id=nobody"), none);
    for beyond in ["2800", "99999999", "18446744073709551615"] {
        assert_eq!(admin.get(&format!("/admin/wal/records?from={beyond}")), none, "{beyond}");
    }
    let last = admin.get("/admin/wal/records?from=2799");
    assert_eq!(last, json!({"records": [all[2_499].clone()], "next": null}));
}

#[test]
fn a_device_that_is_not_there_costs_a_bounded_look_a_call_and_holds_nobody_up() {
    const RECORDS: u64 = 120_000;
    const LOOK: u64 = 50_000;
    let mut admin = Admin::start();
    admin.done("POST", "/admin/flusher/pause");
    let mut devices = Publisher::connect(admin.broker.port);
    for first in (0..RECORDS).step_by(400) {
        devices.publish("telemetry/batch", array(&readings(first..first + 400)));
    }
    devices.finish();
    admin.ingestor.await_metric("ingestor_wal_pending_records", RECORDS);
    let look = "/admin/wal/records?device_id=nobody";
    let first = admin.get(look);
    assert_eq!(first, json!({"records": [], "next": LOOK}));
    assert_eq!(admin.get(&format!("{look}&from={LOOK}"))["next"], 2 * LOOK);
    assert_eq!(admin.get(&format!("{look}&from={}", 2 * LOOK))["next"], Value::Null);
    let (found, pages) = admin.all(look, "from", "records");
    assert_eq!((found.len(), pages), (0, 3));

    // Somebody looks again and again while readings come in.
    admin.ingestor.await_metric("ingestor_acks_total", RECORDS / 400);
    let before = admin.ingestor.metric("ingestor_acks_total");
    let load = Load::start(admin.broker.port, 2_000);
    let mut random = random();
    for _ in 0..20 {
        admin.get(&format!("{look}&from={}", random.u64(..RECORDS)));
    }
    let published = load.stop().end;
    admin.ingestor.await_metric("ingestor_acks_total", before + published);
    let peak = admin.ingestor.peak_memory();
    assert!(peak < 128 << 20, "{peak} bytes");
}

#[test]
fn dead_letters_are_paged_shown_as_they_came_and_deleted_one_by_one() {
    let admin = Admin::start();
    admin.publish_bad(&[b"one", b"\xff\xfe", "tw\u{f6}".as_bytes(), b"{}", &hot(0)]);
    let page = admin.get("/admin/dead-letters");
    assert_eq!(keys(&page), BTreeSet::from(["dead_letters", "total", "next"]));
    assert_eq!((&page["total"], &page["next"]), (&json!(5), &Value::Null));
    let letters = page["dead_letters"].as_array().unwrap();
    let payload = |n: usize| (&letters[n]["payload"], &letters[n]["payload_encoding"]);
    assert_eq!(payload(0), (&json!("one"), &json!("utf8")));
    assert_eq!(payload(1), (&json!("//4="), &json!("base64")));
    assert_eq!(payload(2), (&json!("tw\u{f6}"), &json!("utf8")));
    let stages: Vec<_> = letters.iter().map(|letter| letter["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["decode", "decode", "decode", "decode", "validate"]);
    for letter in letters {
        assert_eq!(
            keys(letter),
            BTreeSet::from([
                "id",
                "received_at",
                "topic",
                "stage",
                "reason",
                "payload",
                "payload_encoding",
            ])
        );
        assert_eq!(letter["topic"], "telemetry/bad/x");
        assert!(letter["reason"].as_str().unwrap().len() > 5, "{letter}");
        assert!(letter["received_at"].as_str().unwrap().ends_with('Z'), "{letter}");
    }
    let ids = |letters: &[Value]| letters.iter().map(|l| l["id"].as_u64().unwrap()).collect();
    let all: Vec<u64> = ids(letters);
    assert!(all.is_sorted());
    let (by_two, pages) = admin.all("/admin/dead-letters?limit=2", "after", "dead_letters");
    assert_eq!((ids(&by_two), pages), (all.clone(), 3));

    let path = format!("/admin/dead-letters/{}", all[1]);
    assert_eq!(admin.ask("DELETE", &path).status, 200);
    for (method, path) in [("DELETE", path.clone()), ("POST", format!("{path}/replay"))] {
        let answer = admin.ask(method, &path);
        assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
        answer.error();
    }
    for id in ["99", "18446744073709551615", "18446744073709551616", "-1", "x", "1.0", "%00"] {
        for (method, rest) in [("DELETE", ""), ("POST", "/replay")] {
            let answer = admin.ask(method, &format!("/admin/dead-letters/{id}{rest}"));
            assert_eq!(answer.status, 404, "{method} {id}: {answer:?}");
            answer.error();
        }
    }
    assert_eq!(admin.get("/admin/dead-letters")["total"], 4);
    assert_eq!(admin.ingestor.metric("ingestor_dead_letters"), 4);
    let deleted = admin.ingestor.await_log_of("admin: dead letter deleted");
    assert_eq!(deleted.len(), 1);
    assert_eq!(deleted[0]["id"], all[1]);
    // It stays so after a restart, and no id is used again.
    let admin = admin.restart(|service| service);
    assert_eq!(admin.get("/admin/dead-letters")["total"], 4);
    admin.publish_bad(&[b"six"]);
    let (now, _) = admin.all("/admin/dead-letters?limit=3", "after", "dead_letters");
    let now: Vec<u64> = ids(&now);
    assert_eq!(now[..4], [all[0], all[2], all[3], all[4]]);
    assert!(now[4] > all[4]);
}

#[test]
fn a_removal_that_is_not_synced_is_refused_and_ends_the_process_in_order() {
    let admin = Admin::start();
    admin.publish_bad(&[b"one", b"two"]);
    let Admin { postgres: _postgres, broker: _broker, service, ingestor } = admin;
    ingestor.stop();
    let letters = service.wal_dir().join("dead-letters/00000000000000000000.log");
    let letters = letters.to_str().unwrap();
    let inject = ["-P", letters, "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO"];
    let mut ingestor = service.start_traced(&inject);
    let answer = ingestor.admin("DELETE", "/admin/dead-letters/0", TOKEN);
    assert_eq!(answer.status, 500, "{answer:?}");
    assert_eq!(ingestor.await_exit(PATIENCE), 1, "{}", ingestor.log_text());
    let ended = &ingestor.log_of("a part of the service failed")[0];
    assert_eq!(ended["part"], "dead letters", "{ended}");
    let ingestor = service.start();
    let answer = ingestor.admin("DELETE", "/admin/dead-letters/1", TOKEN);
    assert_eq!(answer.status, 200, "{answer:?}");
    ingestor.stop();
}

#[test]
fn what_is_still_bad_stays_and_once_the_rules_allow_it_replay_stores_it() {
    let admin = Admin::start();
    let mixed = format!("[{},{}]", reading(10).payload(), String::from_utf8(hot(11)).unwrap());
    admin.publish_bad(&[&hot(0), &hot(1), &hot(2), b"never good", mixed.as_bytes()]);
    let (letters, _) = admin.all("/admin/dead-letters?", "after", "dead_letters");
    let id = |n: usize| letters[n]["id"].as_u64().unwrap();
    let replay = |n: usize| format!("/admin/dead-letters/{}/replay", id(n));
    for (n, letter) in letters.iter().enumerate() {
        let answer = admin.ask("POST", &replay(n));
        assert_eq!(answer.status, 422, "{answer:?}");
        assert_eq!(answer.error(), letter["reason"].as_str().unwrap());
    }
    let all = admin.done("POST", "/admin/dead-letters/replay");
    assert_eq!(all, json!({"replayed": 0, "still_bad": 5}));
    assert_eq!(admin.get("/admin/dead-letters")["total"], 5);
    assert!(admin.ingestor.log_of("admin: ").is_empty(), "nothing was changed");
    admin.postgres.await_count(1);

    // The rules are widened.
    let admin = admin.restart(|service| service.set("VALIDATE_TEMPERATURE_MAX", 1_000));
    let one = admin.ask("POST", &replay(1));
    assert_eq!(one.status, 200, "{one:?}");
    admin.postgres.await_count(2);
    assert_eq!(admin.ask("POST", &replay(1)).status, 404);
    let all = admin.done("POST", "/admin/dead-letters/replay");
    assert_eq!(all, json!({"replayed": 3, "still_bad": 1}));
    let stored = |number| Reading { temperature: 400.0, ..reading(number) };
    let mut expected: Vec<_> = [0, 1, 2, 11].map(stored).to_vec();
    expected.push(reading(10));
    admin.postgres.await_exactly(&expected);
    admin.await_drained();
    let left = admin.get("/admin/dead-letters");
    assert_eq!(
        (&left["total"], &left["dead_letters"][0]["payload"]),
        (&json!(1), &json!("never good"))
    );
    let metrics = admin.ingestor.metrics();
    assert_eq!(metrics.get("ingestor_db_inserts_total"), 4);
    must_balance(&metrics, 4);
    eventually_eq("both are told", &2, || admin.ingestor.log_of("admin: ").len());
    let log = admin.ingestor.log_of("admin: ");
    assert_eq!(log[0]["id"], id(1));
    assert_eq!((&log[1]["replayed"], &log[1]["still_bad"]), (&json!(3), &json!(1)));
    let text = admin.ingestor.log_text();
    assert!(!text.contains("never good") && !text.contains(TOKEN), "payload or token in the log");
}

#[test]
fn what_the_database_refused_is_replayed_once_it_takes_it_and_the_books_balance() {
    let mut admin = Admin::start();
    admin
        .postgres
        .execute("alter table telemetry add constraint c check (device_id <> 'device-003')");
    Publisher::connect(admin.broker.port).publish_readings(0..400);
    admin.postgres.await_count(396);
    admin.ingestor.await_metric("ingestor_dead_letters", 4);
    admin.await_drained();
    admin.ingestor.await_metric("ingestor_acks_total", 400);
    must_balance(&admin.ingestor.metrics(), 0);
    let (letters, _) = admin.all("/admin/dead-letters?", "after", "dead_letters");
    assert!(letters.iter().all(|letter| letter["stage"] == "database"));
    // Still refused, it comes back as another letter.
    let first = format!("/admin/dead-letters/{}/replay", letters[0]["id"]);
    assert_eq!(admin.ask("POST", &first).status, 200);
    admin.ingestor.await_metric(r#"ingestor_dead_letters_total{stage="database"}"#, 5);
    admin.await_drained();
    must_balance(&admin.ingestor.metrics(), 1);
    assert_eq!(admin.get("/admin/dead-letters")["total"], 4);

    admin.postgres.execute("alter table telemetry drop constraint c");
    // Also while the flusher stands still: then they wait in the log, where they are durable.
    admin.done("POST", "/admin/flusher/pause");
    let all = admin.done("POST", "/admin/dead-letters/replay");
    assert_eq!(all, json!({"replayed": 4, "still_bad": 0}));
    must_balance(&admin.ingestor.metrics(), 5);
    assert_eq!(admin.get("/admin/wal")["pending_records"], 4);
    admin.done("POST", "/admin/flusher/resume");
    admin.postgres.await_exactly(&readings(0..400));
    admin.await_drained();
    must_balance(&admin.ingestor.metrics(), 5);
    assert_eq!(admin.ingestor.metric("ingestor_dead_letters"), 0);
}

#[test]
fn every_parameter_out_of_place_is_a_400_that_names_it() {
    let admin = Admin::start();
    for (method, path, named) in [
        ("GET", "wal?verbose=1", "verbose"),
        ("GET", "wal/records?limit=0", "limit"),
        ("GET", "wal/records?limit=1001", "limit"),
        ("GET", "wal/records?from=-1", "from"),
        ("GET", "wal/records?from=18446744073709551616", "from"),
        ("GET", "wal/records?from=1&from=2", "from"),
        ("GET", "wal/records?device_id=", "device_id"),
        ("GET", "wal/records?device_id=a%00", "device_id"),
        ("GET", "wal/records?after=1", "after"),
        ("GET", "dead-letters?limit=0", "limit"),
        ("GET", "dead-letters?limit=1001", "limit"),
        ("GET", "dead-letters?after=x", "after"),
        ("GET", "dead-letters?from=1", "from"),
        ("POST", "flusher/pause?for=1", "for"),
        ("POST", "flusher/resume?x", "x"),
        ("POST", "dead-letters/replay?id=1", "id"),
        ("POST", "dead-letters/1/replay?force=1", "force"),
        ("DELETE", "dead-letters/1?force=1", "force"),
    ] {
        let answer = admin.ask(method, &format!("/admin/{path}"));
        assert_eq!(answer.status, 400, "{method} {path}: {answer:?}");
        assert!(answer.error().contains(&format!("`{named}`")), "{method} {path}: {answer:?}");
    }
    assert!(admin.ingestor.log_of("admin: ").is_empty());
    for (method, path) in
        [("POST", "/admin/wal"), ("GET", "/admin/flusher/pause"), ("GET", "/admin")]
    {
        assert_eq!(admin.ask(method, path).status, 404, "{method} {path}");
    }
}
