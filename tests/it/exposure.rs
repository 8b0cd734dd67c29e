//! What a hostile client of the HTTP side can do: not much.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::http::Answer;
use crate::harness::{
    Ingestor, Mosquitto, Postgres, ScriptedBroker, Service, eventually, eventually_eq,
};

const TOKEN: &str = "7f3a-admin-token";

/// Rocket's default for `keep_alive`, and some more on a busy machine.
const HEAD_PATIENCE: Duration = Duration::from_secs(5 + 3);

fn start() -> Ingestor {
    // Neither broker nor database: half of the answers are errors.
    let service = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", 1).set("ADMIN_TOKEN", TOKEN);
    let ingestor = service.start();
    // By then all of its parts run, and have the descriptors that they need.
    for message in ["cannot reach the broker", "the database does not take rows"] {
        eventually(message, || (!ingestor.log_of(message).is_empty()).then_some(()));
    }
    ingestor
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// What comes until the other side closes; an abrupt end is an end.
fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    String::from_utf8_lossy(&answer).into_owned()
}

#[track_caller]
fn must_be_well(ingestor: &Ingestor) {
    assert_eq!(ingestor.get("/health/live").status, 200);
}

#[test]
fn every_answer_has_the_headers_that_browsers_want_and_none_says_who_answers() {
    let ingestor = start();
    let mut answers: Vec<(String, Answer)> = Vec::new();
    for (path, status) in [
        ("/health/live", 200),
        ("/health/ready", 503),
        ("/metrics", 200),
        ("/api/v1/openapi.json", 200),
        ("/api/v1/telemetry", 503),
        ("/api/v1/telemetry?limit=0", 400),
        ("/nowhere", 404),
        ("/admin/wal", 401),
    ] {
        let answer = ingestor.get(path);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        answers.push((path.to_owned(), answer));
    }
    for (method, path) in [("HEAD", "/health/live"), ("OPTIONS", "/metrics"), ("BREW", "/pot")] {
        answers.push((format!("{method} {path}"), ingestor.request(method, path)));
    }
    answers.push(("admin".to_owned(), ingestor.admin("GET", "/admin/wal", TOKEN)));
    let refused = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", 1).start();
    answers.push(("403".to_owned(), refused.get("/admin/wal")));
    for (what, answer) in &answers {
        let head = answer.head.to_lowercase();
        for header in [
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "content-security-policy: default-src 'none'; frame-ancestors 'none'",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
        ] {
            assert!(head.contains(header), "{what}: no {header} in {head}");
        }
        for banner in ["\r\nserver:", "x-powered-by", "rocket", "hyper", "rust"] {
            assert!(!head.contains(banner), "{what}: {head}");
        }
        assert!(!head.contains("access-control-allow"), "{what}: {head}");
        if answer.status >= 400 && answer.status != 503 {
            answer.error();
            let body = answer.body.to_lowercase();
            assert!(!body.contains("rocket") && !body.contains("src/"), "{what}: {body}");
        }
    }
}

#[test]
fn a_client_that_never_ends_its_request_is_cut_off_and_holds_nobody_up_for_long() {
    let ingestor = start();
    let address = ingestor.address();
    let descriptors = || ingestor.metric("process_open_fds");
    let before = descriptors();
    // More than there are places.
    let mut slow: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = connect(address);
            stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Slow: ").unwrap();
            stream
        })
        .collect();
    let asked = Instant::now();
    let mut patient = connect(address);
    patient
        .write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let answer = read_to_end(&mut patient);
    let waited = asked.elapsed();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // There are 144 places for whoever is on this machine, so its turn comes after two lots of them were cut off.
    assert!(waited < 2 * HEAD_PATIENCE, "{waited:?}");
    assert!(descriptors() < before + 150, "{} descriptors", descriptors());
    // A byte now and then does not help them.
    let first = &mut slow[0];
    let started = Instant::now();
    while first.write_all(b"x").is_ok() && started.elapsed() < 3 * HEAD_PATIENCE {
        std::thread::sleep(Duration::from_millis(100));
    }
    for stream in &mut slow {
        let answer = read_to_end(stream);
        assert!(!answer.contains(" 200 "), "{answer}");
    }
    drop(slow);
    eventually("their descriptors are free", || (descriptors() <= before + 2).then_some(()));
}

#[test]
fn a_connection_on_which_nothing_is_asked_is_closed() {
    let ingestor = start();
    let mut silent: Vec<TcpStream> = (0..100).map(|_| connect(ingestor.address())).collect();
    // One of them has asked before.
    silent[0].write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let opened = Instant::now();
    let answers: Vec<String> = silent.iter_mut().map(read_to_end).collect();
    assert!(opened.elapsed() < 2 * HEAD_PATIENCE, "{:?}", opened.elapsed());
    assert!(answers[0].starts_with("HTTP/1.1 200"), "{}", answers[0]);
    must_be_well(&ingestor);
}

#[test]
fn what_is_too_long_is_refused_and_no_body_is_ever_read() {
    let ingestor = start();
    let send = |request: &[u8]| {
        let mut stream = connect(ingestor.address());
        // It need not wait for all of it.
        stream.write_all(request).ok();
        read_to_end(&mut stream)
    };
    let head = |rest: &str| format!("GET /health/live HTTP/1.1\r\nHost: x\r\n{rest}\r\n\r\n");
    let long = "x".repeat(100_000);
    let many = (0..200).map(|n| format!("X-{n}: y")).collect::<Vec<_>>().join("\r\n");
    for request in [
        head(&format!("X-Long: {long}")),
        head(&many),
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET {long}"),
    ] {
        let answer = send(request.as_bytes());
        let status = answer.split(' ').nth(1).unwrap_or("none");
        assert!(["none", "400", "414", "431"].contains(&status), "{answer}");
        must_be_well(&ingestor);
    }
    for nonsense in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01",
        b"GET / HTTP/9.9\r\n\r\n",
    ] {
        let answer = send(nonsense);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    // Announced and never sent, sent and never wanted.
    for (method, path) in
        [("POST", "/admin/flusher/pause"), ("POST", "/api/v1/telemetry"), ("GET", "/health/live")]
    {
        for length in ["Content-Length: 4000000000", "Transfer-Encoding: chunked"] {
            let asked = Instant::now();
            let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n");
            let answer = send(request.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 "), "{method} {path}: {answer:?}");
            assert!(asked.elapsed() < HEAD_PATIENCE, "{method} {path}: {:?}", asked.elapsed());
        }
    }
    let mut stream = connect(ingestor.address());
    stream
        .write_all(
            b"POST /admin/flusher/pause HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n",
        )
        .unwrap();
    let chunk = vec![b'x'; 1 << 20];
    let taken = (0..100).take_while(|_| stream.write_all(&chunk).is_ok()).count();
    assert!(taken < 100, "all of a body that nobody reads was taken");
    must_be_well(&ingestor);
    let peak = ingestor.peak_memory();
    assert!(peak < 64 << 20, "{peak} bytes");
}

#[test]
fn hundreds_of_clients_at_once_are_all_answered() {
    let ingestor = start();
    let address = ingestor.address();
    let clients: Vec<_> = (0..400)
        .map(|_| {
            std::thread::spawn(move || crate::harness::http::get(address, "/metrics").unwrap())
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().unwrap().status, 200);
    }
}

#[test]
fn no_secret_is_in_the_log_however_much_it_says_nor_in_any_answer() {
    const SECRETS: [&str; 3] = ["s3cret-of-postgres", "s3cret-of-mqtt", TOKEN];
    let mut postgres = Postgres::start();
    let broker = Mosquitto::start();
    let url = postgres.url();
    let password = url.split([':', '@']).nth(2).unwrap().to_owned();
    let service = Service::new(&url, broker.port)
        .set("MQTT_USERNAME", "somebody")
        .set("MQTT_PASSWORD", SECRETS[1])
        .set("ADMIN_TOKEN", TOKEN)
        // sled's would be all there is.
        .set("RUST_LOG", "trace,sled=info");
    let must_be_silent = |ingestor: &Ingestor, secrets: &[&str]| {
        let mut said = ingestor.log_text();
        for path in
            ["/metrics", "/health/ready", "/api/v1/telemetry", "/admin/wal", "/api/v1/status"]
        {
            said += &ingestor.admin("GET", path, TOKEN).body;
            said += &ingestor.admin("GET", path, "wrong").body;
        }
        for secret in secrets {
            for line in said.lines() {
                assert!(!line.contains(secret), "{line}");
            }
        }
    };
    let mut ingestor = service.start();
    ingestor.await_ready();
    eventually_eq("the database is up", &1, || ingestor.metric("ingestor_db_up"));
    let secrets = [password.as_str(), SECRETS[1], TOKEN];
    must_be_silent(&ingestor, &secrets);
    postgres.stop();
    crate::harness::Publisher::connect(broker.port).publish_readings(0..10);
    eventually_eq("the database is down", &"down".into(), || ingestor.health()["database"].clone());
    must_be_silent(&ingestor, &secrets);
    ingestor.stop();
    // A database that refuses the password, a broker that is not there.
    postgres.launch();
    let refused =
        service.clone().set("DATABASE_URL", postgres.url_of("iot", SECRETS[0])).set("MQTT_PORT", 1);
    let ingestor = refused.start();
    eventually("the database refuses it", || {
        let state = ingestor.admin("GET", "/admin/wal", TOKEN).json();
        state["flusher"]["last_error"].as_str().map(str::to_owned)
    });
    must_be_silent(&ingestor, &SECRETS);
    ingestor.stop();
    for arguments in [&["check-config"][..], &["check-config", "--nonsense"]] {
        let output = refused.run(env!("CARGO_BIN_EXE_ingestor"), arguments);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        for secret in SECRETS {
            assert!(!said.contains(secret), "{said}");
        }
    }
    let not_a_url = refused.set("DATABASE_URL", format!("postgres:/iot:{}@:x", SECRETS[0]));
    let output = not_a_url.run(env!("CARGO_BIN_EXE_ingestor"), &[]);
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(said.contains("DATABASE_URL") && !said.contains(SECRETS[0]), "{said}");
}

fn assert_private(dir: &Path) -> usize {
    let entries: Vec<_> = std::fs::read_dir(dir).unwrap().map(Result::unwrap).collect();
    let files = entries.iter().map(|entry| {
        let metadata = entry.metadata().unwrap();
        let mode = metadata.permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", entry.path().display());
        if metadata.is_dir() { assert_private(&entry.path()) } else { 1 }
    });
    files.sum()
}

#[test]
fn the_log_is_for_its_user_alone_whatever_the_umask() {
    let broker = ScriptedBroker::start();
    let service = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", broker.port);
    // It takes nothing from anybody. A test is a process of its own.
    rustix::process::umask(rustix::fs::Mode::empty());
    let _ingestor = service.start();
    let mut link = broker.accept(false);
    link.deliver(1, "telemetry/x", crate::harness::reading(0).payload());
    link.deliver(2, "telemetry/x", "not a reading");
    assert_eq!(link.acks(2), [1, 2]);
    // The lock, the positions, the filters, a letter, and a generation's files.
    assert!(assert_private(&service.wal_dir()) >= 6);
}
