//! A database that is far away, at the end of a thin line, or slow itself.
//!
//! A statement may take twice `DATABASE_CONNECT_TIMEOUT_SECS`, 30 s by default. What is too slow here is so
//! as much as it would be then: 2,000 rows take 124 kB, which is 41 s at 3 kB/s, and 40 s at 20 ms a row.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::harness::{Mosquitto, Postgres, Publisher, Service, eventually_eq, readings, within};

/// A line to a port of this machine. Its threads end with the test's process.
struct Line {
    /// One way.
    delay: Duration,
    bytes_a_second: u32,
}

impl Line {
    /// The port on which it begins.
    fn to(self, server: u16) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                self.pass(client.try_clone().unwrap(), server.try_clone().unwrap());
                self.pass(server, client);
            }
        });
        port
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream) {
        to.set_nodelay(true).unwrap();
        let (delay, rate) = (self.delay, self.bytes_a_second);
        // A line of its own holds little, so that the sender feels how thin it is.
        let (sender, arrived) = mpsc::sync_channel::<(Instant, Vec<u8>)>(64);
        std::thread::spawn(move || {
            let mut chunk = [0; 512];
            while let Ok(bytes @ 1..) = from.read(&mut chunk) {
                if sender.send((Instant::now() + delay, chunk[..bytes].to_vec())).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_secs(1) * u32::try_from(bytes).unwrap() / rate);
            }
            from.shutdown(Shutdown::Both).ok();
        });
        std::thread::spawn(move || {
            for (due, bytes) in arrived {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if to.write_all(&bytes).is_err() {
                    break;
                }
            }
            to.shutdown(Shutdown::Both).ok();
        });
    }
}

#[test]
fn a_line_too_thin_for_a_batch_gets_smaller_ones_until_all_is_stored() {
    let postgres = Postgres::start();
    postgres.execute(include_str!("../../migrations/0001_telemetry.sql"));
    let broker = Mosquitto::start();
    let line = Line { delay: Duration::ZERO, bytes_a_second: 15_000 };
    let url =
        postgres.url().replace(&postgres.port.to_string(), &line.to(postgres.port).to_string());
    // A statement may take twice that. 2,000 rows are more than 8 s long.
    let mut ingestor =
        Service::new(&url, broker.port).set("DATABASE_CONNECT_TIMEOUT_SECS", 2).start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(0..2_500);
    postgres.await_exactly(&readings(0..2_500));
    assert!(ingestor.metric("ingestor_db_failures_total") > 0, "a batch was too long");
}

#[test]
fn a_table_too_slow_for_a_batch_gets_smaller_ones_until_all_is_stored() {
    let postgres = Postgres::start();
    postgres.execute(include_str!("../../migrations/0001_telemetry.sql"));
    postgres.execute(
        "create function slow() returns trigger language plpgsql
             as $$ begin perform pg_sleep(0.02); return new; end $$;
         create trigger slow before insert on telemetry for each row execute function slow()",
    );
    let broker = Mosquitto::start();
    // A batch takes 3.2 s, and a statement may take 2.
    let mut ingestor = Service::new(&postgres.url(), broker.port)
        .set("DATABASE_CONNECT_TIMEOUT_SECS", 1)
        .set("BATCH_SIZE", 160)
        .set("BATCH_TIMEOUT_MS", 10_000)
        .start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(0..320);
    within(Duration::from_secs(80), "all of them are in the table", || {
        (postgres.count() == 320).then_some(())
    });
    postgres.await_exactly(&readings(0..320));
    eventually_eq("nothing waits", &0, || ingestor.metric("ingestor_wal_pending_records"));
    assert!(ingestor.metric("ingestor_db_failures_total") > 0, "a batch was too slow");
    let letters = r#"ingestor_dead_letters_total{stage="database"}"#;
    assert_eq!(ingestor.metric(letters), 0);
}

#[test]
fn a_round_trip_of_two_seconds_is_no_outage() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let line = Line { delay: Duration::from_secs(1), bytes_a_second: 10_000_000 };
    let url =
        postgres.url().replace(&postgres.port.to_string(), &line.to(postgres.port).to_string());
    let mut ingestor =
        Service::new(&url, broker.port).set("DATABASE_CONNECT_TIMEOUT_SECS", 30).start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(0..2_500);
    ingestor.await_metric("ingestor_acks_total", 2_500);
    within(Duration::from_secs(80), "all of them are in the table", || {
        (postgres.count() == 2_500).then_some(())
    });
    postgres.await_exactly(&readings(0..2_500));
}

/// What no scale is between: as it is shipped.
#[test]
#[ignore = "takes minutes: scripts/torture.sh --cases slow"]
fn as_shipped_a_line_of_three_kilobytes_a_second_carries_what_is_more_than_a_batch() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(include_str!("../../migrations/0001_telemetry.sql"));
    let line = Line { delay: Duration::from_millis(100), bytes_a_second: 3_000 };
    let url =
        postgres.url().replace(&postgres.port.to_string(), &line.to(postgres.port).to_string());
    drains(Service::new(&url, broker.port), &postgres, &broker);
}

#[test]
#[ignore = "takes minutes: scripts/torture.sh --cases slow"]
fn as_shipped_a_table_of_twenty_milliseconds_a_row_takes_what_is_more_than_a_batch() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(include_str!("../../migrations/0001_telemetry.sql"));
    postgres.execute(
        "create function slow() returns trigger language plpgsql
             as $$ begin perform pg_sleep(0.02); return new; end $$;
         create trigger slow before insert on telemetry for each row execute function slow()",
    );
    drains(Service::new(&postgres.url(), broker.port), &postgres, &broker);
}

/// 2,500 rows wait before the first goes, and are stored within ten minutes: it takes less than one if
/// nothing is sent in vain.
fn drains(service: Service, postgres: &Postgres, broker: &Mosquitto) {
    let service = service.set("ADMIN_TOKEN", "7f3a-admin-token");
    let mut ingestor = service.start();
    ingestor.await_ready();
    assert_eq!(ingestor.admin("POST", "/admin/flusher/pause", "7f3a-admin-token").status, 200);
    Publisher::connect(broker.port).publish_readings(0..2_500);
    ingestor.await_metric("ingestor_acks_total", 2_500);
    assert_eq!(ingestor.admin("POST", "/admin/flusher/resume", "7f3a-admin-token").status, 200);
    let began = Instant::now();
    within(Duration::from_secs(600), "all of them are in the table", || {
        (postgres.count() == 2_500).then_some(())
    });
    eprintln!(
        "2,500 rows are stored after {:.0} s, {} batches failed",
        began.elapsed().as_secs_f64(),
        ingestor.metric("ingestor_db_failures_total")
    );
    postgres.await_exactly(&readings(0..2_500));
    let letters = r#"ingestor_dead_letters_total{stage="database"}"#;
    assert_eq!(ingestor.metric(letters), 0);
}
