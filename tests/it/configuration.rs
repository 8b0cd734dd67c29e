//! What the binaries make of their configuration.

use std::process::Output;

use crate::harness::{Mosquitto, Postgres, Publisher, Service, readings};

const INGESTOR: &str = env!("CARGO_BIN_EXE_ingestor");
const SIMULATOR: &str = env!("CARGO_BIN_EXE_simulator");

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

#[test]
fn check_config_shows_every_setting_of_the_contract_and_no_secret() {
    let service = Service::bare()
        .set("DATABASE_URL", "postgres://iot:hunter2@db.example:5433/telemetry")
        .set("MQTT_USERNAME", "ingestor")
        .set("MQTT_PASSWORD", "hunter2")
        .set("ADMIN_TOKEN", "hunter2-hunter2-hunter2")
        .set("MQTT_TOPIC", "a/#,$share/g/b/+");
    let output = service.run(INGESTOR, &["check-config"]);
    assert_eq!(code(&output), 0, "{output:?}");
    let shown = text(&output.stdout);
    assert!(!shown.contains("hunter2") && !text(&output.stderr).contains("hunter2"), "{shown}");
    for line in [
        "DATABASE_URL=postgres://iot:***@db.example:5433/telemetry",
        "DATABASE_CONNECT_TIMEOUT_SECS=15",
        "PARTITION_DAYS=1",
        "PARTITION_AHEAD_DAYS=3",
        "RETENTION_DAYS=",
        "REINDEX_CLOSED=false",
        "MQTT_BROKER=localhost",
        "MQTT_PORT=1883",
        "MQTT_TOPIC=a/#,$share/g/b/+",
        "MQTT_USERNAME=ingestor",
        "MQTT_PASSWORD=***",
        "MQTT_CONNECT_TIMEOUT_SECS=30",
        "MQTT_MAX_PAYLOAD_BYTES=65536",
        "HTTP_ADDR=0.0.0.0:8080",
        "BATCH_SIZE=2000",
        "BATCH_TIMEOUT_MS=50",
        "FLUSH_CONNECTIONS=2",
        "CHANNEL_SIZE=50000",
        "WAL_MAX_BYTES=1073741824",
        "WAL_MIN_FREE_BYTES=67108864",
        "WAL_GENERATION_BYTES=67108864",
        "WAL_RETAIN_SECS=60",
        "DEAD_LETTER_MAX_BYTES=67108864",
        "ADMIN_TOKEN=***",
        "READ_TOKEN=",
        "HTTP_TLS_CERT_FILE=",
        "VALIDATE_TEMPERATURE_MIN=-50",
        "VALIDATE_TEMPERATURE_MAX=100",
        "VALIDATE_HUMIDITY_MIN=0",
        "VALIDATE_HUMIDITY_MAX=100",
        "VALIDATE_BATTERY_MIN=0",
        "VALIDATE_BATTERY_MAX=100",
        "VALIDATE_MAX_FUTURE_SECS=86400",
        "VALIDATE_OLDEST_TIMESTAMP=2000-01-01T00:00:00Z",
        "SHUTDOWN_GRACE_SECS=10",
        "RUST_LOG=info",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} in\n{shown}");
    }
    for name in ["MQTT_CLIENT_ID=iot-ingestor-", "WAL_DIR=/", "MQTT_CA_FILE=", "LOG_FORMAT="] {
        assert!(shown.lines().any(|line| line.starts_with(name)), "{name} in\n{shown}");
    }
    assert!(!service.wal_dir().exists(), "looking at the configuration has made the log");
}

#[test]
fn every_mistake_is_reported_at_once_a_line_each_before_anything_else_happens() {
    let service = Service::bare()
        .set("DATABASE_URL", "mysql://iot:hunter2@localhost/iotdb")
        .set("MQTT_PORT", "0")
        .set("MQTT_TOPIC", "telemetry/#/x")
        .set("HTTP_ADDR", "8080")
        .set("BATCH_SIZE", "many")
        .set("VALIDATE_HUMIDITY_MIN", "101")
        .set("VALIDATE_OLDEST_TIMESTAMP", "the dawn of time")
        .set("MQTT_CA_FILE", "/nowhere/ca.pem")
        .set("MQTT_CLIENT_CERT_FILE", "/nowhere/client.pem")
        .set("ADMIN_TOKEN", "a")
        .set("ADMIN_TOKEN_FILE", "/nowhere/token")
        .set("LOG_FORMAT", "yaml")
        .set("RUST_LOG", "iot=loud");
    std::fs::write(
        service.dir().join("Rocket.toml"),
        "[default]\nmqtt_brokr = \"typo\"\nworkers = 2\nkeep_alive = 3\nwal_max_bytes = \"lots\"\n",
    )
    .unwrap();
    let named = [
        "DATABASE_URL",
        "MQTT_PORT",
        "telemetry/#/x",
        "HTTP_ADDR",
        "BATCH_SIZE",
        "VALIDATE_HUMIDITY_MIN",
        "VALIDATE_OLDEST_TIMESTAMP",
        "MQTT_CA_FILE",
        "MQTT_CLIENT_CERT_FILE",
        "MQTT_CLIENT_KEY_FILE",
        "ADMIN_TOKEN_FILE",
        "LOG_FORMAT",
        "RUST_LOG",
        "mqtt_brokr",
        "workers in Rocket.toml: has no effect here",
        "WAL_MAX_BYTES",
    ];
    for arguments in [&["check-config"][..], &["run"], &[]] {
        let output = service.run(INGESTOR, arguments);
        assert_eq!(code(&output), 64, "{arguments:?}: {output:?}");
        assert_eq!(text(&output.stdout), "");
        let shown = text(&output.stderr);
        for name in named {
            let lines = shown.lines().filter(|line| line.contains(name)).count();
            assert!(lines >= 1, "{name} in\n{shown}");
        }
        assert_eq!(shown.lines().count(), named.len(), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(!service.wal_dir().exists(), "{arguments:?} has made the log");
    }
}

#[test]
fn a_parameter_of_the_connection_string_that_would_be_dropped_is_refused_by_its_nearest_name() {
    for (parameter, nearest) in [
        ("ssl=true", "sslmode"),
        ("sslmod=verify-full", "sslmode"),
        ("SSLMODE=verify-full", "sslmode"),
        ("sslmode=verify_full", "verify-full"),
        ("target_session_attr=read-write", "target_session_attrs"),
    ] {
        let url = format!("postgres://iot:hunter2@db.example/iotdb?{parameter}");
        let service = Service::bare().set("DATABASE_URL", url);
        for arguments in [&["check-config"][..], &[]] {
            let output = service.run(INGESTOR, arguments);
            assert_eq!(code(&output), 64, "{parameter}: {output:?}");
            let said = text(&output.stderr);
            assert!(said.contains("DATABASE_URL") && said.contains(nearest), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}

#[test]
fn a_database_elsewhere_that_does_not_prove_itself_is_one_warning_with_the_line_to_set() {
    let line = "DATABASE_URL=postgres://iot:***@db.invalid:5433/iotdb?sslmode=verify-full";
    let url = |query: &str| format!("postgres://iot:hunter2@db.invalid:5433/iotdb{query}");
    let service = Service::new(&url(""), 1);
    let output = service.run(INGESTOR, &["check-config"]);
    assert_eq!(code(&output), 0, "{output:?}");
    let said = text(&output.stderr);
    assert!(said.lines().count() == 1 && said.contains(line), "{said}");
    let ingestor = service.start();
    let warnings = ingestor.await_log_of("sslmode=prefer");
    assert!(warnings.len() == 1 && warnings[0].to_string().contains(line), "{warnings:?}");
    assert_eq!(warnings[0]["level"], "WARN");
    for (url, mode) in [
        (url("?sslmode=verify-full"), "disable"),
        (url(""), "verify-full"),
        ("postgres://iot:hunter2@localhost/iotdb".to_owned(), "disable"),
    ] {
        let service = Service::new(&url, 1).set("PGSSLMODE", mode).set("PGOPTIONS", "-c a.b=c");
        let output = service.run(INGESTOR, &["check-config"]);
        assert_eq!(text(&output.stderr), "", "{url}");
        let shown = text(&output.stdout);
        assert!(shown.contains("\nPGOPTIONS=-c a.b=c\n"), "{shown}");
        let in_effect = !url.contains("sslmode");
        assert_eq!(shown.contains(&format!("\nPGSSLMODE={mode}\n")), in_effect, "{shown}");
    }
}

#[test]
fn the_file_overrides_defaults_and_the_environment_the_file() {
    let service = Service::bare().set("BATCH_SIZE", 7);
    std::fs::write(
        service.dir().join("Rocket.toml"),
        "[default]\nbatch_size = 1\nmqtt_port = 1999\nmqtt_tls = true\nkeep_alive = 3\n",
    )
    .unwrap();
    let output = service.run(INGESTOR, &["check-config"]);
    assert_eq!(code(&output), 0, "{output:?}");
    let shown = text(&output.stdout);
    for line in ["BATCH_SIZE=7", "MQTT_PORT=1999", "MQTT_TLS=true", "BATCH_TIMEOUT_MS=50"] {
        assert!(shown.lines().any(|shown| shown == line), "{line} in\n{shown}");
    }
}

#[test]
fn the_rocket_toml_of_the_repository_is_accepted() {
    let service =
        Service::bare().set("ROCKET_CONFIG", concat!(env!("CARGO_MANIFEST_DIR"), "/Rocket.toml"));
    let output = service.run(INGESTOR, &["check-config"]);
    assert_eq!(code(&output), 0, "{output:?}");
}

#[test]
fn secrets_are_read_from_files() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new("", broker.port);
    let file = service.dir().join("database-url");
    std::fs::write(&file, postgres.url() + "\n").unwrap();
    let service = service.set("DATABASE_URL_FILE", file.display());
    let mut ingestor = service.start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(0..10);
    postgres.await_exactly(&readings(0..10));
    assert!(!ingestor.log_text().contains(&postgres.url()));
}

#[test]
fn tls_files_that_hold_something_else_are_a_bad_configuration() {
    let service = Service::bare();
    let file = service.dir().join("ca.pem");
    std::fs::write(&file, "no certificate").unwrap();
    let service = service.set("MQTT_CA_FILE", file.display()).set("HTTP_ADDR", "127.0.0.1:0");
    for arguments in [&["check-config"][..], &[]] {
        let output = service.run(INGESTOR, arguments);
        assert_eq!(code(&output), 64, "{arguments:?}: {output:?}");
        assert!(text(&output.stderr).contains("MQTT_CA_FILE"), "{output:?}");
    }
}

#[test]
fn help_names_every_setting() {
    let service = Service::bare();
    let output = service.run(INGESTOR, &["--help"]);
    assert_eq!(code(&output), 0);
    let shown = text(&output.stdout);
    for name in
        ["check-config", "DATABASE_URL", "MQTT_BROKER", "WAL_DIR", "SHUTDOWN_GRACE_SECS", "64"]
    {
        assert!(shown.contains(name), "{name} in\n{shown}");
    }
    let output = service.run(SIMULATOR, &["--help"]);
    assert_eq!(code(&output), 0);
    let shown = text(&output.stdout);
    for name in
        ["MQTT_BROKER", "NUM_DEVICES", "PUBLISH_INTERVAL_MS", "INVALID_RATIO", "MESSAGE_COUNT"]
    {
        assert!(shown.contains(name), "{name} in\n{shown}");
    }
    for program in [INGESTOR, SIMULATOR] {
        let output = service.run(program, &["--version"]);
        assert_eq!(code(&output), 0);
        assert!(text(&output.stdout).contains(env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn arguments_that_mean_nothing_are_refused_with_64() {
    let service = Service::bare();
    for program in [INGESTOR, SIMULATOR] {
        for argument in ["--nonsense", "nonsense"] {
            let output = service.run(program, &[argument]);
            assert_eq!(code(&output), 64, "{output:?}");
            assert!(text(&output.stderr).contains("nonsense"), "{output:?}");
        }
    }
}

#[test]
fn the_simulator_reports_every_mistake_too() {
    let service = Service::bare()
        .set("MQTT_PORT", "none")
        .set("NUM_DEVICES", "0")
        .set("INVALID_RATIO", "2")
        .set("MAX_INFLIGHT", "0");
    let output = service.run(SIMULATOR, &[]);
    assert_eq!(code(&output), 64, "{output:?}");
    let shown = text(&output.stderr);
    assert_eq!(shown.lines().count(), 4, "{shown}");
    for name in ["MQTT_PORT", "NUM_DEVICES", "INVALID_RATIO", "MAX_INFLIGHT"] {
        assert!(shown.contains(name), "{name} in\n{shown}");
    }
}
