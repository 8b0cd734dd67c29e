//! Ways to the database: names and hosts of which some do not answer, and poolers.

use std::fs;
use std::io::copy;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{
    Mosquitto, PATIENCE, PgBouncer, Postgres, Publisher, Service, Silent, eventually,
    eventually_eq, readings, skip,
};

/// A name with two addresses, of which the first drops packets.
const NAME: &str = "two-addresses.test";

/// A port at which [`NAME`] leads to the server on another port of this machine, for whom it is not the
/// first address that counts. What is passed on ends with the test's process.
struct Behind {
    _silent: Silent,
    port: u16,
}

impl Behind {
    fn start(server: u16) -> Self {
        let (silent, listener) = eventually("a port is free at both addresses", || {
            let silent = Silent::on(Ipv4Addr::LOCALHOST);
            let address = (Ipv4Addr::new(127, 0, 0, 9), silent.address.port());
            Some((silent, TcpListener::bind(address).ok()?))
        });
        let port = silent.address.port();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                pass(client.try_clone().unwrap(), server.try_clone().unwrap());
                pass(server, client);
            }
        });
        Self { _silent: silent, port }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    to.set_nodelay(true).unwrap();
    std::thread::spawn(move || {
        copy(&mut from, &mut to).ok();
        to.shutdown(Shutdown::Both).ok();
    });
}

/// The service with a file of names that it alone sees; none if we may not.
fn with_name(service: Service) -> Option<Service> {
    let (names, program) = (service.dir().join("hosts"), service.dir().join("with-names"));
    let path = names.display();
    fs::write(&names, format!("127.0.0.1 localhost {NAME}\n127.0.0.9 {NAME}\n")).unwrap();
    let enter = format!("mount --bind '{path}' /etc/hosts && exec \"$0\" \"$@\"");
    let found = Command::new("unshare")
        .args(["--mount", "sh", "-c", &enter, "getent", "ahostsv4", NAME])
        .output();
    let found = found.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let addresses: Vec<SocketAddr> = found
        .unwrap_or_default()
        .lines()
        .filter(|line| line.contains("STREAM"))
        .filter_map(|line| format!("{}:1", line.split_whitespace().next()?).parse().ok())
        .collect();
    if addresses != ["127.0.0.1:1", "127.0.0.9:1"].map(|address| address.parse().unwrap()) {
        skip(&format!(
            "a name of its own takes root, and a resolver that reads /etc/hosts: {addresses:?}"
        ));
        return None;
    }
    let ingestor = env!("CARGO_BIN_EXE_ingestor");
    let script = format!(
        "#!/bin/sh\nexec unshare --mount sh -c '{}' '{ingestor}'\n",
        enter.replace('\'', "'\\''")
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    Some(service.running(program, PATIENCE))
}

#[test]
fn a_name_whose_first_address_drops_packets_leads_to_the_database_and_to_the_broker() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    let (database, messages) = (Behind::start(postgres.port), Behind::start(broker.port));
    let login = format!("postgres://iot:{}", postgres.password());
    let url = format!("{login}@{NAME}:{}/iotdb", database.port);
    let service = Service::new(&url, messages.port)
        .set("MQTT_BROKER", NAME)
        // Half of it is the first address's.
        .set("MQTT_CONNECT_TIMEOUT_SECS", 6);
    let Some(service) = with_name(service) else { return };
    let mut ingestor = service.start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(0..1_000);
    postgres.await_exactly(&readings(0..1_000));
    let page = ingestor.get("/api/v1/telemetry");
    assert_eq!((page.status, page.json()["total"].clone()), (200, 1_000.into()));
    assert_eq!(ingestor.metric("ingestor_db_failures_total"), 0);
}

#[test]
fn without_any_address_that_answers_the_log_names_each() {
    let silent = Silent::on(Ipv4Addr::LOCALHOST);
    let broker = Mosquitto::start();
    let url = format!("postgres://iot:x@{NAME}:{}/iotdb", silent.address.port());
    let service = Service::new(&url, broker.port).set("DATABASE_CONNECT_TIMEOUT_SECS", 2);
    let Some(service) = with_name(service) else { return };
    let ingestor = service.start();
    eventually("the log names the one that refuses", || {
        let line = ingestor.log_of("the database does not take rows").first()?.to_string();
        assert!(line.contains(&format!("{NAME} at 127.0.0.9")), "{line}");
        Some(())
    });
}

#[test]
fn a_host_that_drops_packets_holds_up_neither_rows_nor_queries() {
    let (silent, postgres, broker) = (Silent::start(), Postgres::start(), Mosquitto::start());
    let login = format!("postgres://iot:{}", postgres.password());
    let url = format!("{login}@{},127.0.0.1:{}/iotdb", silent.address, postgres.port);
    let mut ingestor = Service::new(&url, broker.port).start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(0..1_000);
    let began = Instant::now();
    postgres.await_exactly(&readings(0..1_000));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let page = ingestor.get("/api/v1/telemetry");
    assert_eq!((page.status, page.json()["total"].clone()), (200, 1_000.into()));
}

#[test]
fn without_any_host_that_answers_the_log_names_each() {
    let (silent, broker) = (Silent::start(), Mosquitto::start());
    let url = format!("postgres://iot:x@127.0.0.1:1,{}/iotdb", silent.address);
    let service = Service::new(&url, broker.port).set("DATABASE_CONNECT_TIMEOUT_SECS", 1);
    let ingestor = service.start();
    eventually("the log says so", || {
        let line = ingestor.log_of("the database does not take rows").first()?.to_string();
        assert!(line.contains("127.0.0.1:1"), "{line}");
        Some(())
    });
}

#[test]
fn rows_go_to_the_host_that_takes_writes_and_follow_it_when_the_standby_becomes_that() {
    let mut primary = Postgres::start();
    let (standby, broker) = (primary.start_standby(), Mosquitto::start());
    let url = format!(
        "postgres://iot:{}@127.0.0.1:{},127.0.0.1:{}/iotdb?target_session_attrs=read-write",
        primary.password(),
        standby.port,
        primary.port
    );
    let mut ingestor = Service::new(&url, broker.port).start();
    ingestor.await_ready();
    let mut devices = Publisher::connect(broker.port);
    devices.publish_readings(0..1_000);
    primary.await_exactly(&readings(0..1_000));
    eventually_eq("the standby has followed", &1_000, || standby.count());
    primary.kill();
    devices.publish_readings(1_000..2_000);
    standby.promote();
    standby.await_exactly(&readings(0..2_000));
    eventually_eq("nothing waits", &0, || ingestor.metric("ingestor_wal_pending_records"));
}

#[test]
fn behind_pgbouncer_everything_works_without_a_setting() {
    // As many sessions as are shipped, and so few that clients share them all the time.
    for (mode, sessions) in [("session", 20), ("transaction", 20), ("transaction", 2)] {
        let (postgres, broker) = (Postgres::start(), Mosquitto::start());
        let pgbouncer = PgBouncer::start(&postgres, mode, sessions);
        let service = Service::new(&pgbouncer.url(&postgres), broker.port);
        for start in 0..2 {
            let mut ingestor = service.start();
            ingestor.await_ready();
            let stored = start * 6_000;
            let mut devices = Publisher::connect(broker.port);
            devices.publish_readings(stored..stored + 3_000);
            // Some of these are there already.
            devices.publish_readings(stored + 2_000..stored + 6_000);
            postgres.await_exactly(&readings(0..stored + 6_000));
            for path in ["telemetry", "telemetry?device_id=device-1", "devices", "devices?limit=1"]
            {
                for _ in 0..10 {
                    let answer = ingestor.get(&format!("/api/v1/{path}"));
                    assert_eq!(answer.status, 200, "{mode}: {path}: {answer:?}");
                }
            }
            eventually_eq("nothing waits", &0, || ingestor.metric("ingestor_wal_pending_records"));
            assert_eq!(ingestor.metric("ingestor_db_failures_total"), 0, "{mode}");
            assert_eq!(ingestor.await_log_of("a pooler stands before the database").len(), 1);
            ingestor.stop();
        }
        // No setting of ours has reached a session that others will use.
        let mut others = postgres.session_on(pgbouncer.port());
        for _ in 0..10 {
            let row = others.text(
                "select current_setting('statement_timeout') || current_setting('jit') \
                 || current_setting('enable_seqscan')",
            );
            assert_eq!(row, "0onon", "{mode}");
        }
    }
}

#[test]
fn another_applications_migrations_stop_nothing_and_our_former_table_is_taken_over() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(
        "create table _sqlx_migrations (version bigint primary key, description text not null, \
         installed_on timestamptz not null default now(), success boolean not null, \
         checksum bytea not null, execution_time bigint not null);
         insert into _sqlx_migrations values (1, 'theirs', now(), true, '\\x00', 1), \
         (2, 'half done', now(), false, '\\x00', 1), (99, 'theirs', now(), true, '\\x00', 1)",
    );
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(0..100);
    postgres.await_exactly(&readings(0..100));
    assert_eq!(ingestor.metric("ingestor_db_failures_total"), 0);
    ingestor.stop();
    // As an earlier version has left it, for a role that may do no more than write.
    postgres.execute(
        "truncate telemetry;
         delete from _sqlx_migrations;
         insert into _sqlx_migrations select version, description, now(), success, checksum, 1 \
         from _iot_ingestor_migrations;
         drop table _iot_ingestor_migrations;
         create role writer login password 'secret';
         grant select, insert on telemetry to writer;
         grant select on _sqlx_migrations to writer",
    );
    let mut ingestor = Service::new(&postgres.url_of("writer", "secret"), broker.port).start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(100..200);
    postgres.await_exactly(&readings(100..200));
    assert_eq!(ingestor.metric("ingestor_db_failures_total"), 0);
    assert!(ingestor.log_of("this role may not migrate").is_empty());
}
