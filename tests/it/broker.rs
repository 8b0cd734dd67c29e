//! A broker that restarts, is not there, or wants to know who comes.

use std::path::Path;

use crate::harness::mosquitto::Certificates;
use crate::harness::{
    Load, Mosquitto, Postgres, Publisher, Scratch, Service, eventually, eventually_eq, ports,
    readings,
};

#[test]
fn a_broker_that_restarts_under_load_costs_nothing() {
    let postgres = Postgres::start();
    let mut broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let load = Load::start(broker.port, 4_000);
    for restart in 1..=3 {
        load.await_more(3_000);
        broker.stop();
        eventually_eq("it is not ready", &503, || ingestor.get("/health/ready").status);
        assert_eq!(ingestor.health()["mqtt"], "disconnected");
        broker.launch();
        ingestor.await_metric("ingestor_mqtt_reconnects_total", restart);
    }
    load.await_more(1_000);
    let published = load.stop();
    postgres.await_exactly(&readings(published));
    assert_eq!(ingestor.get("/health/ready").status, 200);
}

#[test]
fn a_broker_that_is_down_at_the_start_is_waited_for() {
    let postgres = Postgres::start();
    let mut broker = Mosquitto::start();
    broker.stop();
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    eventually_eq("the database is up", &1, || ingestor.metric("ingestor_db_up"));
    let answer = ingestor.get("/health/ready");
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.json().to_string(),
        r#"{"database":"up","mqtt":"disconnected","status":"not_ready","wal":"ok"}"#
    );
    assert_eq!(ingestor.get("/health/live").status, 200);
    assert_eq!(ingestor.get("/api/v1/telemetry").status, 200);
    broker.launch();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(0..100);
    postgres.await_exactly(&readings(0..100));
}

/// Listeners that ask for more than the plain one.
struct Guarded {
    broker: Mosquitto,
    certificates: Certificates,
    files: Scratch,
    tls_port: u16,
    mutual_tls_port: u16,
    login_port: u16,
}

impl Guarded {
    fn start() -> Self {
        let files = Scratch::new();
        let certificates = Certificates::make(files.path());
        let [tls_port, mutual_tls_port, login_port] = std::array::from_fn(|_| ports::free());
        let passwords = files.path().join("passwords");
        let made = std::process::Command::new("mosquitto_passwd")
            .args(["-b", "-c"])
            .arg(&passwords)
            .args(["ingestor", "s3cret"])
            .status();
        assert!(made.unwrap().success());
        make_readable(&passwords);
        let Certificates { ca, server, server_key, .. } = &certificates;
        let tls = format!(
            "cafile {}\ncertfile {}\nkeyfile {}\n",
            ca.display(),
            server.display(),
            server_key.display()
        );
        let broker = Mosquitto::configured(|port, _| {
            format!(
                "per_listener_settings true\n\
                 listener {port} 127.0.0.1\nallow_anonymous true\n\
                 listener {tls_port} 127.0.0.1\nallow_anonymous true\n{tls}\
                 listener {mutual_tls_port} 127.0.0.1\nallow_anonymous true\n{tls}\
                 require_certificate true\n\
                 listener {login_port} 127.0.0.1\nallow_anonymous false\npassword_file {}\n",
                passwords.display()
            )
        });
        Self { broker, certificates, files, tls_port, mutual_tls_port, login_port }
    }

    #[track_caller]
    fn must_let_in(&self, postgres: &Postgres, service: &Service) {
        let mut ingestor = service.start();
        ingestor.await_ready();
        let before = postgres.count();
        let numbers = before as u64..before as u64 + 50;
        Publisher::connect(self.broker.port).publish_readings(numbers);
        postgres.await_count(before + 50);
        ingestor.stop();
    }

    /// It stays up, and says once what the matter is.
    #[track_caller]
    fn must_turn_away(service: &Service, why: &str) {
        let mut ingestor = service.start();
        let line = eventually("the log says that there is no connection", || {
            ingestor.must_run();
            ingestor.log_of("cannot reach the broker").pop()
        });
        let error = line["error"].as_str().unwrap();
        assert!(error.contains(why), "{error}");
        assert_eq!(ingestor.get("/health/ready").status, 503);
        assert_eq!(ingestor.metric("ingestor_mqtt_connected"), 0);
        ingestor.stop();
    }
}

/// The broker may run as another user.
fn make_readable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
}

#[test]
fn tls_mutual_tls_and_a_login_let_in_whom_they_should_and_nobody_else() {
    let postgres = Postgres::start();
    let guarded = Guarded::start();
    let on = |port| Service::new(&postgres.url(), port);
    let ca = guarded.certificates.ca.display();
    let client = guarded.certificates.client.display();
    let client_key = guarded.certificates.client_key.display();

    guarded.must_let_in(&postgres, &on(guarded.tls_port).set("MQTT_CA_FILE", &ca));
    let mutual = || {
        on(guarded.mutual_tls_port)
            .set("MQTT_CA_FILE", &ca)
            .set("MQTT_CLIENT_CERT_FILE", &client)
            .set("MQTT_CLIENT_KEY_FILE", &client_key)
    };
    guarded.must_let_in(&postgres, &mutual());
    let login = || on(guarded.login_port).set("MQTT_USERNAME", "ingestor");
    guarded.must_let_in(&postgres, &login().set("MQTT_PASSWORD", "s3cret"));
    let secret = guarded.files.path().join("secret");
    std::fs::write(&secret, "s3cret\n").unwrap();
    guarded.must_let_in(&postgres, &login().set("MQTT_PASSWORD_FILE", secret.display()));

    // Another authority, no certificate of our own, a wrong password, no login, no TLS.
    let other = Scratch::new();
    let other_ca = Certificates::make(other.path()).ca;
    let wrong_ca = on(guarded.tls_port).set("MQTT_CA_FILE", other_ca.display());
    Guarded::must_turn_away(&wrong_ca, "certificate");
    let no_certificate = on(guarded.mutual_tls_port).set("MQTT_CA_FILE", &ca);
    Guarded::must_turn_away(&no_certificate, "");
    Guarded::must_turn_away(&login().set("MQTT_PASSWORD", "guess"), "NotAuthorized");
    Guarded::must_turn_away(&on(guarded.login_port), "NotAuthorized");
    Guarded::must_turn_away(&on(guarded.tls_port), "");
}

#[test]
fn with_mqtt_tls_and_no_ca_file_the_authorities_of_the_system_are_trusted_and_nobody_else() {
    let postgres = Postgres::start();
    let guarded = Guarded::start();
    let tls = || Service::new(&postgres.url(), guarded.tls_port).set("MQTT_TLS", true);
    let ca = &guarded.certificates.ca;
    guarded.must_let_in(&postgres, &tls().set("SSL_CERT_FILE", ca.display()));
    // A directory of them, each by the name that OpenSSL looks for.
    let system = guarded.files.path().join("system");
    std::fs::create_dir(&system).unwrap();
    std::fs::copy(ca, system.join("authority.pem")).unwrap();
    let named = std::process::Command::new("openssl").arg("rehash").arg(&system).status();
    assert!(named.unwrap().success());
    guarded.must_let_in(&postgres, &tls().set("SSL_CERT_DIR", system.display()));
    let other = Scratch::new();
    let other_ca = Certificates::make(other.path()).ca;
    Guarded::must_turn_away(&tls().set("SSL_CERT_FILE", other_ca.display()), "certificate");
}

#[test]
fn certificates_and_a_password_that_are_renewed_on_disk_are_read_at_the_next_connection() {
    let guarded = Guarded::start();
    let on = |port| Service::new("postgres://iot:x@127.0.0.1:1/iotdb", port);
    let renewed = Scratch::new();
    let ca = renewed.path().join("trusted.pem");
    std::fs::copy(Certificates::make(renewed.path()).ca, &ca).unwrap();
    let mut ingestor = on(guarded.tls_port).set("MQTT_CA_FILE", ca.display()).start();
    eventually("it does not trust the broker", || ingestor.log_of("cannot reach the broker").pop());
    std::fs::write(&ca, "half of a file").unwrap();
    eventually("it says so", || ingestor.log_of("certificates or the password cannot be").pop());
    std::fs::copy(&guarded.certificates.ca, &ca).unwrap();
    ingestor.await_ready();
    ingestor.stop();

    let secret = renewed.path().join("secret");
    std::fs::write(&secret, "guess\n").unwrap();
    let login = on(guarded.login_port).set("MQTT_USERNAME", "ingestor");
    let mut ingestor = login.set("MQTT_PASSWORD_FILE", secret.display()).start();
    eventually("it is turned away", || ingestor.log_of("cannot reach the broker").pop());
    std::fs::write(&secret, "s3cret\n").unwrap();
    ingestor.await_ready();
}
