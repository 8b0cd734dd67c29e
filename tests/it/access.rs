//! Who may ask what of the HTTP side, from how many connections, and over what.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::http::{self, Answer};
use crate::harness::mosquitto::Certificates;
use crate::harness::{Ingestor, Service, eventually};

const INGESTOR: &str = env!("CARGO_BIN_EXE_ingestor");
const ADMIN: &str = "admin-token-of-the-test";
const READ: &str = "read-token";

/// Neither a broker nor a database is needed to be asked.
fn service() -> Service {
    Service::new("postgres://iot:x@127.0.0.1:1/iotdb", 1)
}

fn ask(address: SocketAddr, path: &str, token: &str) -> Answer {
    let headers = format!("Authorization: Bearer {token}\r\n");
    http::request_with(address, "GET", path, &headers).unwrap()
}

#[test]
fn with_a_read_token_all_that_is_read_wants_one_and_health_and_the_page_itself_do_not() {
    let ingestor = service().set("ADMIN_TOKEN", ADMIN).set("READ_TOKEN", READ).start();
    let read = [
        "/api/v1/telemetry",
        "/api/v1/devices",
        "/api/v1/status",
        "/api/v1/status/history",
        "/api/v1/openapi.json",
        "/metrics",
    ];
    for path in read {
        let refused = ingestor.get(path);
        assert_eq!(refused.status, 401, "{path}: {refused:?}");
        assert!(refused.error().contains("READ_TOKEN"), "{refused:?}");
        assert!(refused.head.to_lowercase().contains("www-authenticate: bearer"), "{refused:?}");
        for token in [READ, ADMIN] {
            assert_ne!(ask(ingestor.address(), path, token).status, 401, "{path}");
        }
        assert_eq!(ask(ingestor.address(), path, "wrong").status, 401, "{path}");
    }
    assert_eq!(ask(ingestor.address(), "/admin/wal", READ).status, 401);
    assert_eq!(ask(ingestor.address(), "/admin/wal", ADMIN).status, 200);
    for path in ["/health/live", "/health/live?any=1", "/", "/assets/main.js"] {
        assert_eq!(ingestor.get(path).status, 200, "{path}");
    }
    assert_eq!(ask(ingestor.address(), "/metrics?any=1", READ).status, 200);
}

#[test]
fn no_route_of_the_description_answers_without_a_token_but_health() {
    let ingestor = service().set("ADMIN_TOKEN", ADMIN).set("READ_TOKEN", READ).start();
    let ask = |method: &str, path: &str, token: Option<&str>| {
        let header = |token| format!("Authorization: Bearer {token}\r\n");
        let headers = token.map(header).unwrap_or_default();
        http::request_with(ingestor.address(), method, path, &headers).unwrap().status
    };
    let document = ingestor.admin("GET", "/api/v1/openapi.json", READ).json();
    let paths = document["paths"].as_object().unwrap();
    let mut read = 0;
    for (path, item) in paths {
        for method in item.as_object().unwrap().keys() {
            let (method, path) = (method.to_uppercase(), path.replace("{id}", "1"));
            assert!(!path.contains('{'), "{path}");
            let what = format!("{method} {path}");
            let without = ask(&method, &path, None);
            if path.starts_with("/health/") {
                assert_ne!(without, 401, "{what}");
                continue;
            }
            assert_eq!(without, 401, "{what}");
            assert_ne!(ask(&method, &path, Some(ADMIN)), 401, "{what}");
            // Only what reads and is no business of an operator's is open to a reader.
            let is_read = method == "GET" && !path.starts_with("/admin/");
            assert_eq!(ask(&method, &path, Some(READ)) != 401, is_read, "{what}");
            if is_read {
                assert_eq!(ask("HEAD", &path, None), 401, "HEAD {path}");
                read += 1;
            }
        }
    }
    assert!(read >= 6, "{read} of {}", paths.len());
}

#[test]
fn wrong_tokens_are_counted_cost_time_and_are_one_line_of_the_log() {
    let ingestor = service().set("ADMIN_TOKEN", ADMIN).start();
    let began = Instant::now();
    for _ in 0..8 {
        assert_eq!(ask(ingestor.address(), "/admin/wal", "wrong").status, 401);
    }
    // 50, 100, 200, 400 and 500 ms after three that are free.
    assert!(began.elapsed() >= Duration::from_millis(1_250), "{:?}", began.elapsed());
    assert_eq!(ingestor.metric("ingestor_http_unauthorized_total"), 8);
    let lines = ingestor.await_log_of("requests came with a wrong token");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["last_address"], "127.0.0.1");
    let right = Instant::now();
    assert_eq!(ask(ingestor.address(), "/admin/wal", ADMIN).status, 200);
    assert!(right.elapsed() < Duration::from_secs(1), "{:?}", right.elapsed());
}

#[test]
fn a_token_that_can_be_guessed_is_refused_and_one_that_can_be_read_on_the_way_is_warned_of() {
    let short = service().set("ADMIN_TOKEN", "fifteen-letters").run(INGESTOR, &["check-config"]);
    assert_eq!(short.status.code(), Some(64));
    let said = String::from_utf8_lossy(&short.stderr).into_owned();
    assert_eq!(said.trim(), "configuration: ADMIN_TOKEN: expected 16 characters or more");
    let warned = |service: Service| {
        let output = service.run(INGESTOR, &["check-config"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8_lossy(&output.stderr).contains("ADMIN_TOKEN is taken over plain HTTP")
    };
    assert!(warned(service().set("ADMIN_TOKEN", ADMIN).set("HTTP_ADDR", "0.0.0.0:8080")));
    assert!(!warned(service().set("ADMIN_TOKEN", ADMIN)));
    assert!(!warned(service().set("HTTP_ADDR", "0.0.0.0:8080")));
    let ingestor = service().set("ADMIN_TOKEN", ADMIN).set("HTTP_ADDR", "0.0.0.0:0").start();
    assert_eq!(ingestor.await_log_of("ADMIN_TOKEN is taken over plain HTTP").len(), 1);
}

#[test]
fn connections_that_are_kept_alive_or_never_used_hold_no_health_check_up() {
    let ingestor = service().start();
    let address = ingestor.address();
    let open = || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    };
    let asked = || {
        let mut stream = open();
        stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = [0; 1_024];
        assert!(stream.read(&mut answer).unwrap() > 0);
        (stream, String::from_utf8_lossy(&answer).into_owned())
    };
    let must_be_quick = |what: &str| {
        let began = Instant::now();
        assert_eq!(ingestor.get("/health/live").status, 200, "{what}");
        let took = began.elapsed();
        assert!(took < Duration::from_millis(100), "{what}: {took:?}");
    };
    let kept: Vec<_> = (0..128).map(|_| asked()).collect();
    must_be_quick("128 that are kept alive");
    let is_told = |(_, answer): &&(TcpStream, String)| answer.contains("connection: close");
    assert!(kept.iter().any(|kept| is_told(&kept)), "nobody was asked to close");
    assert!(!is_told(&&kept[0]), "nobody else was there");
    let silent: Vec<_> = (0..128).map(|_| open()).collect();
    // Behind them in the kernel's queue: by its answer they have been accepted.
    assert_eq!(ingestor.get("/health/live").status, 200);
    must_be_quick("and 128 that ask nothing");
    drop((kept, silent));
}

#[test]
fn what_is_no_http_is_answered_in_our_words() {
    let ingestor = service().start();
    let long = format!("GET /health/live HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    for (sent, status) in [("GET\r\n\r\n", 400), (long.as_str(), 431)] {
        let mut stream = TcpStream::connect(ingestor.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(sent.as_bytes()).ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let answer = Answer { status, head: head.to_owned(), body: body.to_owned() };
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:?}");
        answer.error();
        assert!(head.to_lowercase().contains("cache-control: no-store"), "{answer:?}");
    }
}

/// What the certificate says that `openssl s_client` is shown.
fn subject(address: SocketAddr) -> String {
    let script = format!(
        "openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 -noout -subject"
    );
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn with_a_certificate_it_speaks_https_alone_and_takes_a_renewed_one_without_a_restart() {
    let service = service();
    let Certificates { server, server_key, client, client_key, .. } =
        Certificates::make(service.dir());
    let service = service
        .set("HTTP_TLS_CERT_FILE", server.display())
        .set("HTTP_TLS_KEY_FILE", server_key.display());
    let ingestor = service.start();
    assert!(subject(ingestor.address()).ends_with("test-server"));
    let health = service.clone().set("HTTP_ADDR", ingestor.address()).run(INGESTOR, &["health"]);
    assert_eq!(health.status.code(), Some(0), "{health:?}");
    assert!(ingestor.try_get("/health/live").map_or(true, |answer| answer.status != 200));
    std::fs::copy(client, &server).unwrap();
    std::fs::copy(client_key, &server_key).unwrap();
    eventually("the renewed certificate is shown", || {
        subject(ingestor.address()).ends_with("test-client").then_some(())
    });
    std::fs::write(&server, "nonsense").unwrap();
    assert!(subject(ingestor.address()).ends_with("test-client"));
    let half = service.set("HTTP_TLS_KEY_FILE", "").run(INGESTOR, &["check-config"]);
    assert_eq!(half.status.code(), Some(64));
}

#[test]
fn sighup_reads_the_tokens_again_and_keeps_them_if_the_file_is_of_no_use() {
    let service = service();
    let file = service.dir().join("token");
    std::fs::write(&file, ADMIN).unwrap();
    let mut ingestor = service.set("ADMIN_TOKEN_FILE", file.display()).start();
    let status = |ingestor: &Ingestor, token| ask(ingestor.address(), "/admin/wal", token).status;
    assert_eq!(status(&ingestor, ADMIN), 200);
    let renewed = "another-admin-token";
    std::fs::write(&file, renewed).unwrap();
    ingestor.signal(Signal::HUP);
    eventually("the new token is taken", || (status(&ingestor, renewed) == 200).then_some(()));
    assert_eq!(status(&ingestor, ADMIN), 401);
    std::fs::write(&file, "short").unwrap();
    ingestor.signal(Signal::HUP);
    eventually("it says why not", || ingestor.log_of("SIGHUP: the configuration").pop());
    assert_eq!(status(&ingestor, renewed), 200);
    ingestor.must_run();
}
