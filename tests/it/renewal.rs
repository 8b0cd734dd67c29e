//! Passwords and certificates that are renewed while the service runs.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::{Signal, kill_process};

use crate::harness::mosquitto::Certificates;
use crate::harness::process::give_to_server;
use crate::harness::{
    Ingestor, Load, Mosquitto, Postgres, Publisher, Scratch, Service, eventually, eventually_eq,
    ports, readings,
};

/// Replaces a file as a careful program does.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

/// SIGHUP; what it says to have changed.
#[track_caller]
fn hang_up(ingestor: &Ingestor) -> String {
    let said = || ingestor.log_of("SIGHUP: certificates and secrets have been read again");
    let before = said().len();
    ingestor.signal(Signal::HUP);
    let line = eventually("it says what has changed", || said().into_iter().nth(before));
    line["changed"].as_str().unwrap().to_owned()
}

/// The server's ends of the connections of the role `writer`.
fn backends(postgres: &Postgres) -> BTreeSet<String> {
    let sql = "select coalesce(string_agg(pid::text, ','), '') from pg_stat_activity \
               where usename = 'writer'";
    let pids = postgres.session().text(sql);
    pids.split(',').map(str::to_owned).collect()
}

#[test]
fn a_password_of_the_database_that_is_changed_is_taken_at_the_next_connection_and_at_sighup() {
    let postgres = Postgres::start();
    postgres.execute("create role writer login; grant create on schema public to writer");
    let broker = Mosquitto::start();
    let files = Scratch::new();
    let file = files.path().join("url");
    let rotate = |password: &str| {
        postgres.execute(&format!("alter role writer password '{password}'"));
        replace(&file, &postgres.url_of("writer", password));
    };
    rotate("first");
    let service = Service::new("", broker.port).set("DATABASE_URL_FILE", file.display());
    let mut ingestor = service.start();
    ingestor.await_ready();
    let mut publisher = Publisher::connect(broker.port);
    let mut numbers = 0..0;
    let mut publish = || {
        numbers.end += 50;
        publisher.publish_readings(numbers.end - 50..numbers.end);
        postgres.await_exactly(&readings(numbers.clone()));
    };
    publish();

    // The connections go on, until something ends them.
    rotate("second");
    publish();
    postgres
        .execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'writer'");
    publish();

    let before = backends(&postgres);
    rotate("third");
    assert_eq!(hang_up(&ingestor), "DATABASE_URL");
    publish();
    eventually("no old connection is left", || {
        backends(&postgres).is_disjoint(&before).then_some(())
    });

    // Nothing new, or nothing of use.
    let before = backends(&postgres);
    assert_eq!(hang_up(&ingestor), "nothing");
    publish();
    replace(&file, "postgres:/");
    ingestor.signal(Signal::HUP);
    eventually("it says why not", || ingestor.log_of("SIGHUP: the configuration").pop());
    publish();
    assert!(backends(&postgres).is_superset(&before));
    replace(&file, "");
    postgres
        .execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'writer'");
    publish();
    eventually("it says so", || ingestor.log_of("the login to the database cannot be").pop());
    let text = ingestor.log_text();
    assert!(!["first", "second", "third"].iter().any(|secret| text.contains(secret)), "{text}");
}

/// A server's certificate, its key, and a file with the authority that a client trusts.
struct Chain {
    files: Scratch,
    made: Certificates,
    /// The client's copy.
    trusted: std::path::PathBuf,
}

impl Chain {
    fn new() -> Self {
        let files = Scratch::new();
        let made = Certificates::make(files.path());
        let trusted = files.path().join("trusted.pem");
        fs::copy(&made.ca, &trusted).unwrap();
        let chain = Self { files, made, trusted };
        chain.hand_over();
        chain
    }

    /// Another authority signs another certificate, for the server alone.
    fn renew(&self) {
        let others = Scratch::new();
        let new = Certificates::make(others.path());
        for (new, old) in [
            (&new.ca, &self.made.ca),
            (&new.server, &self.made.server),
            (&new.server_key, &self.made.server_key),
        ] {
            fs::copy(new, old).unwrap();
        }
        self.hand_over();
    }

    fn hand_over(&self) {
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&self.made.server_key, private).unwrap();
        give_to_server(self.files.path());
    }

    /// The client learns of it.
    fn trust(&self) {
        replace(&self.trusted, &fs::read_to_string(&self.made.ca).unwrap());
    }
}

#[test]
fn a_renewed_certificate_of_the_database_is_trusted_as_soon_as_its_authority_is_there() {
    let chain = Chain::new();
    let postgres = Postgres::start();
    let Certificates { server, server_key, .. } = &chain.made;
    for (name, value) in [
        ("ssl_cert_file", server.display().to_string()),
        ("ssl_key_file", server_key.display().to_string()),
        ("ssl", "on".to_owned()),
    ] {
        postgres.execute(&format!("alter system set {name} = '{value}'"));
    }
    postgres.execute("select pg_reload_conf()");
    eventually_eq("it has TLS", &"on".to_owned(), || postgres.session().text("show ssl"));
    let broker = Mosquitto::start();
    let url =
        format!("{}?sslmode=verify-full&sslrootcert={}", postgres.url(), chain.trusted.display());
    let mut ingestor = Service::new(&url, broker.port).start();
    ingestor.await_ready();
    let mut publisher = Publisher::connect(broker.port);
    publisher.publish_readings(0..10);
    postgres.await_exactly(&readings(0..10));

    let end_all = "select pg_terminate_backend(pid) from pg_stat_activity \
                   where application_name = 'iot-ingestor'";
    // Half written at that moment: the old one still holds.
    let whole = fs::read_to_string(&chain.trusted).unwrap();
    replace(&chain.trusted, &whole[..whole.len() / 2]);
    postgres.execute(end_all);
    publisher.publish_readings(10..20);
    postgres.await_exactly(&readings(0..20));
    eventually("it says so", || ingestor.log_of("the login to the database cannot be").pop());
    replace(&chain.trusted, &whole);

    chain.renew();
    postgres.execute("select pg_reload_conf()");
    postgres.execute(end_all);
    publisher.publish_readings(20..30);
    eventually_eq("it does not trust it", &0, || ingestor.metric("ingestor_db_up"));
    chain.trust();
    postgres.await_exactly(&readings(0..30));
    assert_eq!(hang_up(&ingestor), "nothing");
}

#[test]
fn a_password_of_the_broker_that_is_changed_is_taken_at_sighup_and_nothing_is_lost() {
    let postgres = Postgres::start();
    let files = Scratch::new();
    let passwords = files.path().join("passwords");
    let secret = files.path().join("secret");
    let rotate = |password: &str| {
        fs::write(&passwords, "").unwrap();
        let made = std::process::Command::new("mosquitto_passwd")
            .arg("-b")
            .arg(&passwords)
            .args(["ingestor", password])
            .output();
        assert!(made.unwrap().status.success());
        fs::set_permissions(&passwords, fs::Permissions::from_mode(0o644)).unwrap();
        replace(&secret, &format!("{password}\n"));
    };
    rotate("first-of-the-broker");
    let login_port = ports::free();
    let broker = Mosquitto::configured(|port, _| {
        format!(
            "per_listener_settings true\nlistener {port} 127.0.0.1\nallow_anonymous true\n\
             listener {login_port} 127.0.0.1\nallow_anonymous false\npassword_file {}\n",
            passwords.display()
        )
    });
    let service = Service::new(&postgres.url(), login_port)
        .set("MQTT_USERNAME", "ingestor")
        .set("MQTT_PASSWORD_FILE", secret.display());
    let mut ingestor = service.start();
    ingestor.await_ready();
    let load = Load::start(broker.port, 500);
    load.await_more(300);
    let reconnects = |ingestor: &Ingestor| ingestor.metric("ingestor_mqtt_reconnects_total");
    assert_eq!((hang_up(&ingestor).as_str(), reconnects(&ingestor)), ("nothing", 0));

    // The broker takes up the change last: it ends the session by itself as soon as it knows.
    rotate("second-of-the-broker");
    assert_eq!(hang_up(&ingestor), "MQTT_PASSWORD");
    eventually("it leaves", || ingestor.log_of("certificates or secrets have changed").pop());
    kill_process(broker.pid(), Signal::HUP).unwrap();
    eventually("it has come back", || (reconnects(&ingestor) >= 1).then_some(()));
    ingestor.await_ready();
    load.await_more(300);
    fs::write(&secret, "").unwrap();
    ingestor.signal(Signal::HUP);
    eventually("it says why not", || ingestor.log_of("SIGHUP: the configuration").pop());
    load.await_more(300);
    let published = load.stop();
    postgres.await_exactly(&readings(published));
    assert_eq!(ingestor.log_of("certificates or secrets have changed").len(), 1);
    assert!(!ingestor.log_text().contains("of-the-broker"));
}

#[test]
fn a_renewed_certificate_of_the_broker_is_trusted_as_soon_as_its_authority_is_there() {
    let chain = Chain::new();
    let tls_port = ports::free();
    let Certificates { ca, server, server_key, .. } = &chain.made;
    let mut broker = Mosquitto::configured(|port, _| {
        format!(
            "per_listener_settings true\nlistener {port} 127.0.0.1\nallow_anonymous true\n\
             listener {tls_port} 127.0.0.1\nallow_anonymous true\n\
             cafile {}\ncertfile {}\nkeyfile {}\n",
            ca.display(),
            server.display(),
            server_key.display()
        )
    });
    let postgres = Postgres::start();
    let service =
        Service::new(&postgres.url(), tls_port).set("MQTT_CA_FILE", chain.trusted.display());
    let mut ingestor = service.start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(0..10);
    postgres.await_exactly(&readings(0..10));
    // Before the broker has its new certificate: the connection is made again, and holds.
    let both = fs::read_to_string(&chain.trusted).unwrap();
    chain.renew();
    replace(&chain.trusted, &(both + &fs::read_to_string(ca).unwrap()));
    assert_eq!(hang_up(&ingestor), "MQTT_CA_FILE");
    ingestor.await_metric("ingestor_mqtt_reconnects_total", 1);
    ingestor.await_ready();
    broker.stop();
    broker.launch();
    ingestor.await_metric("ingestor_mqtt_reconnects_total", 2);
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(10..20);
    postgres.await_exactly(&readings(0..20));
}

#[test]
fn a_renewed_certificate_of_https_is_named_at_sighup_and_an_unchanged_one_is_not() {
    let files = Scratch::new();
    let Certificates { server, server_key, client, client_key, .. } =
        Certificates::make(files.path());
    let service = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", 1)
        .set("HTTP_TLS_CERT_FILE", server.display())
        .set("HTTP_TLS_KEY_FILE", server_key.display());
    let ingestor = service.start();
    assert_eq!(hang_up(&ingestor), "nothing");
    fs::copy(client, &server).unwrap();
    fs::copy(client_key, &server_key).unwrap();
    assert_eq!(hang_up(&ingestor), "HTTP_TLS_CERT_FILE, HTTP_TLS_KEY_FILE");
    assert_eq!(hang_up(&ingestor), "nothing");
}
