//! `ingestor health`, which asks a running service how it is.

use std::process::Output;

use crate::harness::{Service, ports};

const INGESTOR: &str = env!("CARGO_BIN_EXE_ingestor");

#[track_caller]
fn shows(output: &Output, code: i32, text: &str) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let shown = [&output.stdout[..], &output.stderr].concat();
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains(text), "{text} in {shown}");
    assert_eq!(shown.lines().count(), 1, "{shown}");
}

/// Without a broker it lives and takes nothing in; a restart would change neither.
#[test]
fn health_tells_alive_from_ready_and_both_from_gone() {
    let address = format!("0.0.0.0:{}", ports::free());
    let service = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", 1).set("HTTP_ADDR", &address);
    shows(&service.run(INGESTOR, &["health"]), 1, "does not answer");
    let ingestor = service.start();
    shows(&service.run(INGESTOR, &["health"]), 0, r#"{"status":"live"}"#);
    let ready = service.run(INGESTOR, &["health", "--ready"]);
    shows(&ready, 1, r#""mqtt":"disconnected""#);
    ingestor.stop();
    shows(&service.run(INGESTOR, &["health"]), 1, "does not answer");
}

#[test]
fn health_needs_an_address_and_nothing_else_of_the_configuration() {
    let address = format!("127.0.0.1:{}", ports::free());
    let service = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", 1).set("HTTP_ADDR", &address);
    let _ingestor = service.start();
    let other = Service::bare().set("MQTT_PORT", "none").set("DATABASE_URL_FILE", "/nowhere");
    std::fs::write(
        other.dir().join("Rocket.toml"),
        format!("[default]\nhttp_addr = \"{address}\"\nno_such_key = 1\n"),
    )
    .unwrap();
    shows(&other.run(INGESTOR, &["health"]), 0, "live");
    let nowhere = other.set("HTTP_ADDR", "nowhere");
    shows(&nowhere.run(INGESTOR, &["health"]), 64, "HTTP_ADDR");
}
