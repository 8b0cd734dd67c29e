//! `ingestor doctor`: a line each of what the service needs, beside a service that it does not disturb.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;
use std::thread;

use serde_json::Value;

use crate::harness::clock::UNSET;
use crate::harness::wire::{Packet, Stream};
use crate::harness::{Mosquitto, PATIENCE, Postgres, Publisher, Scratch, Service, ports};

const INGESTOR: &str = env!("CARGO_BIN_EXE_ingestor");

/// The directory of a log on a disk: where temporary ones are may be in memory.
fn on_disk() -> tempfile::TempDir {
    const TMPFS: u64 = 0x0102_1994;
    let places = [env!("CARGO_TARGET_TMPDIR"), "/var/tmp", "/"];
    let is_disk = |place: &&str| {
        let kind = rustix::fs::statfs(*place).map(|stat| u64::try_from(stat.f_type).ok());
        kind.is_ok_and(|kind| kind != Some(TMPFS))
    };
    let place = places.into_iter().find(is_disk).expect("a disk");
    tempfile::tempdir_in(place).unwrap()
}

fn doctor(service: &Service) -> Output {
    service.run(INGESTOR, &["doctor"])
}

fn text(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap()
}

/// That it fails, and only in this.
#[track_caller]
fn must_fail_in(service: &Service, line: &str) {
    let output = doctor(service);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let failures: Vec<&str> = text.lines().filter(|line| line.starts_with("FAIL ")).collect();
    assert_eq!(failures.len(), 1, "{text}");
    assert!(failures[0].starts_with(&format!("FAIL {line}")), "{line} in {text}");
    assert!(failures[0].contains(" · "), "what mends it: {text}");
}

#[test]
fn a_stopped_installation_that_lacks_nothing_is_told_so_and_left_as_it_was() {
    let (postgres, mut broker, dir) = (Postgres::start_durable(), Mosquitto::start(), on_disk());
    let service = Service::new(&postgres.url(), broker.port)
        .set("MQTT_TOPIC", "telemetry/#,$share/group/shared/+")
        .set("WAL_DIR", dir.path().display());
    let output = doctor(&service);
    let found = text(&output);
    assert_eq!(output.status.code(), Some(0), "{found}");
    for line in [
        "ok configuration: ",
        "ok service: it does not run",
        "ok http: 127.0.0.1:0 is free",
        "ok clock: ",
        "ok log directory: ",
        "ok broker: 127.0.0.1:",
        "ok subscription: telemetry/# is granted with QoS 1",
        "ok subscription: $share/group/shared/+ is granted with QoS 1",
        "ok session: ",
        "ok database: PostgreSQL ",
        "ok table: telemetry is not there yet",
        "ok database settings: ",
        "ok database clock: ",
    ] {
        assert!(found.lines().any(|found| found.starts_with(line)), "{line} in {found}");
    }
    // Which of the two grades depends on the disk.
    assert!(found.contains(" disk: a sync takes "), "{found}");
    assert!(!found.contains(postgres.password()), "{found}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left in the log");
    // Mosquitto writes down its sessions then.
    broker.stop();
    let sessions = fs::read(broker.dir().join("mosquitto.db")).unwrap();
    let sessions = String::from_utf8_lossy(&sessions).into_owned();
    assert!(!sessions.contains("doctor"), "no session is left at the broker");

    let output = service.run(INGESTOR, &["doctor", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["ok"]), (Some(1), &Value::Bool(false)));
    let findings = report["findings"].as_array().unwrap();
    let failed: Vec<_> = findings.iter().filter(|finding| finding["grade"] == "fail").collect();
    assert_eq!(failed.len(), 1, "{report}");
    assert_eq!(failed[0]["name"], "broker");
    assert!(failed[0]["mend"].as_str().unwrap().contains("MQTT_BROKER"), "{report}");
}

#[test]
fn a_running_service_is_seen_and_not_disturbed() {
    let (postgres, broker, dir) = (Postgres::start_durable(), Mosquitto::start(), on_disk());
    let address = format!("127.0.0.1:{}", ports::free());
    let service = Service::new(&postgres.url(), broker.port)
        .set("HTTP_ADDR", &address)
        .set("WAL_DIR", dir.path().display());
    let mut ingestor = service.start();
    ingestor.await_ready();
    let mut devices = Publisher::connect(broker.port);
    devices.publish_readings(0..100);
    postgres.await_count(100);
    for round in 1..=3 {
        let output = doctor(&service);
        let found = text(&output);
        assert_eq!(output.status.code(), Some(0), "{found}");
        let pid = ingestor.pid().as_raw_nonzero();
        let runs = format!("ok service: it runs (process {pid}), and takes messages in");
        assert!(found.lines().any(|line| line == runs), "{found}");
        assert!(found.contains("ok table: telemetry is there"), "{found}");
        assert!(found.contains("ok devices: "), "{found}");
        let is_named = |line: &str| line.starts_with("ok broker: ") && line.contains("-doctor-");
        assert!(found.lines().any(is_named), "the client id is named: {found}");
        devices.publish_readings(round * 100..(round + 1) * 100);
    }
    postgres.await_count(400);
    assert_eq!(ingestor.metric("ingestor_mqtt_reconnects_total"), 0);
    ingestor.stop();
}

#[test]
fn what_is_broken_is_named_each_for_itself() {
    let (postgres, broker, dir) = (Postgres::start_durable(), Mosquitto::start(), on_disk());
    let good = Service::new(&postgres.url(), broker.port).set("WAL_DIR", dir.path().display());
    let wrong = postgres.url_of("iot", "wrong");
    must_fail_in(&good.clone().set("DATABASE_URL", wrong), "database: cannot connect to 127.0.0.1");
    let nowhere = format!("postgres://iot:x@127.0.0.1:{}/iotdb", ports::free());
    must_fail_in(
        &good.clone().set("DATABASE_URL", nowhere),
        "database: cannot connect to 127.0.0.1",
    );
    must_fail_in(&good.clone().set("MQTT_PORT", ports::free()), "broker: 127.0.0.1");
    must_fail_in(&good.clone().set("MQTT_PORT", "none"), "configuration: MQTT_PORT: expected");
    must_fail_in(
        &good.clone().set("WAL_DIR", "/proc/wal"),
        "log directory: /proc cannot be written",
    );
    let least = u64::pow(2, 50);
    must_fail_in(&good.clone().set("WAL_MIN_FREE_BYTES", least), "room: ");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    must_fail_in(&good.clone().set("HTTP_ADDR", address), "http: 127.0.0.1");

    postgres.execute("create role reader login password 'reader'");
    let reader = postgres.url_of("reader", "reader");
    must_fail_in(&good.clone().set("DATABASE_URL", &reader), "table: telemetry is not there, and");
    postgres.make_table();
    must_fail_in(&good.clone().set("DATABASE_URL", reader), "table: this role may not insert");
    postgres.execute("alter table telemetry set unlogged");
    must_fail_in(&good, "database settings: the table telemetry is unlogged");
}

#[test]
fn what_a_role_may_not_do_with_the_tables_beside_telemetry_is_named() {
    let (postgres, broker, dir) = (Postgres::start_durable(), Mosquitto::start(), on_disk());
    let good = Service::new(&postgres.url(), broker.port).set("WAL_DIR", dir.path().display());
    let mapping = "[[default.mapping]]\nname = \"boilers\"\ntopic = \"boiler/{device}\"\n\
        device = \"{device}\"\ntime = \"received\"\ntable = \"boiler\"\n\
        [default.mapping.fields]\nheat = { path = \"heat\" }\n";
    fs::write(good.dir().join("boilers.toml"), mapping).unwrap();
    let good = good.clone().set("ROCKET_CONFIG", good.dir().join("boilers.toml").display());
    let found = text(&doctor(&good));
    assert!(found.contains("ok mapped table: boiler is not there yet"), "{found}");

    postgres.make_table();
    postgres.execute("create table boiler (device_id text, ts timestamptz, heat float8)");
    postgres.execute("create role writer login password 'writer'");
    postgres.execute("grant select, insert on telemetry, telemetry_devices, boiler to writer");
    let as_writer = good.clone().set("DATABASE_URL", postgres.url_of("writer", "writer"));
    must_fail_in(&as_writer, "mapped table: this role may not insert into boiler");
    postgres.execute("grant update on boiler to writer");
    let found = text(&doctor(&as_writer));
    assert!(found.contains("ok mapped table: boiler is there"), "{found}");
    assert!(found.contains("ok devices: "), "{found}");
    postgres.execute("revoke insert on telemetry_devices from writer");
    let output = doctor(&as_writer);
    let found = text(&output);
    assert!(found.contains("warning devices: this role may not insert"), "{found}");
    assert_eq!(output.status.code(), Some(0), "readings are stored all the same: {found}");
}

#[test]
fn a_broker_that_takes_every_client_of_a_login_for_the_service_keeps_what_waits_for_it() {
    let (postgres, dir, plain) = (Postgres::start_durable(), on_disk(), ports::free());
    let broker = Mosquitto::configured(|port, _| {
        format!(
            "listener {port} 127.0.0.1\nuse_username_as_clientid true\nallow_anonymous true\n\
             listener {plain} 127.0.0.1\n"
        )
    });
    let service = Service::new(&postgres.url(), broker.port)
        .set("MQTT_USERNAME", "box")
        .set("MQTT_PASSWORD", "box")
        .set("WAL_DIR", dir.path().display());
    let mut ingestor = service.start();
    ingestor.await_ready();
    ingestor.stop();
    Publisher::connect(plain).publish_readings(0..50);
    let output = doctor(&service);
    let found = text(&output);
    assert_eq!(output.status.code(), Some(0), "{found}");
    assert!(found.contains("warning session: the broker keeps one, and takes"), "{found}");
    let ingestor = service.start();
    postgres.await_count(50);
    ingestor.stop();
}

#[test]
fn a_database_that_does_not_sync_is_a_failure() {
    let (postgres, broker, dir) = (Postgres::start(), Mosquitto::start(), on_disk());
    let service = Service::new(&postgres.url(), broker.port).set("WAL_DIR", dir.path().display());
    must_fail_in(&service, "database settings: fsync is off");
}

#[test]
fn a_clock_that_was_never_set_is_a_failure() {
    let (postgres, broker, dir) = (Postgres::start_durable(), Mosquitto::start(), on_disk());
    let service = Service::new(&postgres.url(), broker.port)
        .set("WAL_DIR", dir.path().display())
        .with_clock();
    service.set_clock(UNSET);
    let found = text(&doctor(&service));
    assert!(found.lines().any(|line| line.starts_with("FAIL clock: it is 19")), "{found}");
    assert!(found.contains("warning database clock: is "), "{found}");
}

/// A broker that forgets sessions, and answers to each filter by `granted`.
fn forgetful_broker(granted: u8) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for tcp in listener.incoming() {
            let mut client = Stream::new(tcp.unwrap()).unwrap();
            while let Ok(Some(packet)) = client.next(PATIENCE) {
                let answer = match packet {
                    Packet::Connect { .. } => Packet::ConnAck { session_present: false },
                    Packet::Subscribe { id, filters } => {
                        Packet::SubAck { id, granted: vec![granted; filters.len()] }
                    }
                    _ => break,
                };
                if client.send(&answer).is_err() {
                    break;
                }
            }
        }
    });
    port
}

#[test]
fn a_broker_that_forgets_sessions_or_grants_too_little_is_a_failure() {
    let (postgres, dir) = (Postgres::start_durable(), on_disk());
    for (granted, subscription) in [
        (1, "ok subscription: telemetry/# is granted with QoS 1"),
        (0, "FAIL subscription: telemetry/# is granted with QoS 0 only"),
        (0x80, "FAIL subscription: telemetry/# is refused"),
    ] {
        let service = Service::new(&postgres.url(), forgetful_broker(granted))
            .set("WAL_DIR", dir.path().display());
        let output = doctor(&service);
        let found = text(&output);
        assert_eq!(output.status.code(), Some(1), "{found}");
        assert!(found.lines().any(|line| line.starts_with(subscription)), "{found}");
        assert!(found.contains("FAIL session: the broker does not keep it"), "{found}");
    }
}

#[test]
fn an_installation_is_read_from_its_directory_with_the_secrets_that_the_next_start_takes() {
    let (postgres, broker, dir) = (Postgres::start_durable(), Mosquitto::start(), on_disk());
    let installed = Scratch::new();
    let at = |name: &str| installed.path().join(name);
    fs::create_dir(at("secrets")).unwrap();
    fs::write(at("secrets/database-url"), postgres.url()).unwrap();
    let settings = format!(
        "DATABASE_URL_FILE=/run/credentials/iot-ingestor.service/secret_database-url\n\
         MQTT_BROKER=127.0.0.1\nMQTT_PORT={}\nHTTP_ADDR=127.0.0.1:0\nWAL_DIR=\"{}\"\n",
        broker.port,
        dir.path().display()
    );
    fs::write(at("ingestor.env"), settings).unwrap();
    fs::write(at("Rocket.toml"), "[default]\nkeep_alive = 5\n").unwrap();
    // None of this counts.
    let service = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", 1);
    let run = |dir: &Path| service.run(INGESTOR, &["doctor", "--dir", dir.to_str().unwrap()]);
    let output = run(installed.path());
    let found = text(&output);
    assert_eq!(output.status.code(), Some(0), "{found}");
    let configuration = format!("ok configuration: {}", at("ingestor.env").display());
    assert!(found.lines().any(|line| line == configuration), "{found}");
    assert!(found.contains("warning secrets: "), "a secret that everybody can read: {found}");
    fs::write(at("Rocket.toml"), "[default]\nno_such_key = 5\n").unwrap();
    let found = text(&run(installed.path()));
    assert!(found.starts_with("FAIL configuration: no_such_key in Rocket.toml"), "{found}");
    let found = text(&run(&at("nowhere")));
    assert!(found.contains("FAIL configuration: "), "{found}");
}
