//! Servers on the broker's port that are no broker, or are slow ones.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::mosquitto::Certificates;
use crate::harness::{PATIENCE, Scratch, ScriptedBroker, Service, eventually};

const PASSWORD: &str = "correct-horse-battery";
const ADMIN_TOKEN: &str = "staple-0123456789-staple";
const DATABASE_PASSWORD: &str = "tr0ub4dor-and-3";

/// What a stranger does with a connection.
type Manners = fn(&mut TcpStream);

/// Starts a server that treats whoever comes like this, until the test ends.
fn stranger(manners: Manners) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for tcp in listener.incoming() {
            let Ok(mut tcp) = tcp else { return };
            thread::spawn(move || manners(&mut tcp));
        }
    });
    port
}

fn read_some(tcp: &mut TcpStream) -> Vec<u8> {
    let mut chunk = vec![0; 4_096];
    let length = tcp.read(&mut chunk).unwrap_or(0);
    chunk.truncate(length);
    chunk
}

fn echo(tcp: &mut TcpStream) {
    loop {
        let chunk = read_some(tcp);
        if chunk.is_empty() || tcp.write_all(&chunk).is_err() {
            return;
        }
    }
}

fn http(tcp: &mut TcpStream) {
    let chunk = read_some(tcp);
    let body = String::from_utf8_lossy(&chunk).into_owned();
    let length = body.len();
    let answer = format!("HTTP/1.1 400 Bad Request\r\nContent-Length: {length}\r\n\r\n{body}");
    tcp.write_all(answer.as_bytes()).ok();
    read_some(tcp);
}

/// The alert with which TLS answers what is none.
fn tls(tcp: &mut TcpStream) {
    read_some(tcp);
    tcp.write_all(&[0x15, 3, 3, 0, 2, 2, 70]).ok();
    read_some(tcp);
}

fn greeting(tcp: &mut TcpStream) {
    tcp.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").ok();
    read_some(tcp);
    read_some(tcp);
}

fn hang_up(tcp: &mut TcpStream) {
    read_some(tcp);
}

fn silence(tcp: &mut TcpStream) {
    while !read_some(tcp).is_empty() {}
}

fn service(port: u16) -> Service {
    let database = format!("postgres://iot:{DATABASE_PASSWORD}@127.0.0.1:1/iotdb");
    Service::new(&database, port)
        .set("MQTT_USERNAME", "ingestor")
        .set("MQTT_PASSWORD", PASSWORD)
        .set("ADMIN_TOKEN", ADMIN_TOKEN)
        .set("MQTT_CONNECT_TIMEOUT_SECS", 2)
        .set("RUST_LOG", "trace")
}

/// It says in one line what listens there, and in all that it prints no secret.
#[track_caller]
fn must_say(service: &Service, what: &str) {
    let mut ingestor = service.start();
    let line = eventually("the log says that there is no connection", || {
        ingestor.must_run();
        ingestor.log_of("cannot reach the broker").pop()
    });
    let error = line["error"].as_str().unwrap();
    assert!(error.contains(what) && !error.contains('\n'), "{error}");
    // The next attempts say nothing new.
    eventually("it tries again", || ingestor.log_of("still cannot reach the broker").pop());
    assert_eq!(ingestor.await_log_of("cannot reach the broker").len(), 1);
    assert_eq!(ingestor.get("/health/ready").status, 503);
    let text = ingestor.log_text();
    for secret in [PASSWORD, ADMIN_TOKEN, DATABASE_PASSWORD] {
        assert!(!text.contains(secret), "{secret} is in the log output");
    }
    ingestor.stop();
}

#[test]
fn another_kind_of_server_on_the_port_is_one_clear_line_without_a_secret() {
    let strangers: [(Manners, &str); 6] = [
        (echo, "sends back what it is sent"),
        (http, "HTTP server"),
        (tls, "wants TLS"),
        (greeting, "no MQTT broker"),
        (hang_up, "closed instead of an answer to CONNECT"),
        (silence, "MQTT_CONNECT_TIMEOUT_SECS"),
    ];
    for (manners, what) in strangers {
        must_say(&service(stranger(manners)), what);
    }
}

#[test]
fn a_server_without_tls_where_tls_is_asked_for_is_one_clear_line_too() {
    let files = Scratch::new();
    let ca = Certificates::make(files.path()).ca;
    let strangers: [(Manners, &str); 4] = [
        (echo, "TLS"),
        (http, "does not speak TLS"),
        (hang_up, "closed instead of a TLS handshake"),
        (silence, "MQTT_CONNECT_TIMEOUT_SECS"),
    ];
    for (manners, what) in strangers {
        must_say(&service(stranger(manners)).set("MQTT_CA_FILE", ca.display()), what);
    }
}

#[test]
fn a_broker_that_takes_its_time_for_the_connack_is_waited_for() {
    let broker = ScriptedBroker::start();
    let service = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", broker.port);
    let _ingestor = service.start();
    // More than the 5 s that were once all it had.
    let began = Instant::now();
    let link = broker.accept_after(Duration::from_millis(5_500), false, &[]);
    assert_eq!(link.filters, ["telemetry/#"]);
    assert!(began.elapsed() < PATIENCE);
}
