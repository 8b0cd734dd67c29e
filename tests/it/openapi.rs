//! The service does what its OpenAPI description says, and nothing else.

use std::fs;
use std::process::Command;

use crate::harness::{Mosquitto, Postgres, Publisher, Service, eventually_eq, skip_without};

const TOKEN: &str = "token-of-the-fuzzer";

/// Where `scripts/test.sh` has installed it.
fn schemathesis() -> Option<String> {
    let program = std::env::var("SCHEMATHESIS").unwrap_or_else(|_| "schemathesis".to_owned());
    let answers =
        Command::new(&program).arg("--version").output().is_ok_and(|o| o.status.success());
    answers.then_some(program)
}

#[test]
fn a_fuzzer_that_reads_the_description_finds_no_5xx_and_no_undocumented_answer() {
    let Some(schemathesis) = schemathesis() else {
        return skip_without("schemathesis is not installed: scripts/test.sh installs it");
    };
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port).set("ADMIN_TOKEN", TOKEN);
    let mut ingestor = service.start();
    ingestor.await_ready();
    eventually_eq("the database is up", &1, || ingestor.metric("ingestor_db_up"));
    // Something of everything: rows, dead letters of each kind, records that wait.
    postgres.execute("alter table telemetry add check (device_id <> 'device-003')");
    let mut devices = Publisher::connect(broker.port);
    devices.publish_readings(0..1_000);
    postgres.await_count(990);
    for bad in [&b"bad"[..], b"\xff", b"{}", b"[1,2,3]"] {
        devices.publish("telemetry/bad", bad);
    }
    devices.finish();
    ingestor.await_metric("ingestor_dead_letters", 16);
    assert_eq!(ingestor.admin("POST", "/admin/flusher/pause", TOKEN).status, 200);
    devices.publish_readings(1_000..2_000);
    ingestor.await_metric("ingestor_wal_pending_records", 1_000);

    // The same every time, so that nothing but a change of ours makes it fail.
    let seed = std::env::var("SCHEMATHESIS_SEED").unwrap_or_else(|_| "1".to_owned());
    let report = service.dir().join("schemathesis.log");
    let log = fs::File::create(&report).unwrap();
    let status = Command::new(schemathesis)
        .current_dir(service.dir())
        .args(["run", &format!("http://{}/api/v1/openapi.json", ingestor.address())])
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        .args(["--max-examples", "25", "--seed", &seed, "--continue-on-failure"])
        // A method that no route has is a 404 here, and what a client may send is read more strictly
        // than a schema can say: `start` after `end`, `offset` with `cursor`.
        .args(["--exclude-checks", "unsupported_method,positive_data_acceptance"])
        .args(["--request-timeout", "10", "--no-color"])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .status()
        .unwrap();
    let said = fs::read_to_string(report).unwrap();
    assert!(status.success(), "SCHEMATHESIS_SEED={seed}\n{said}");
    ingestor.must_run();
    // The token was of use: it has changed something.
    assert!(!ingestor.await_log_of("admin: flusher resumed").is_empty(), "{said}");
    assert!(ingestor.log_of("a request failed").is_empty(), "a 500");
}
