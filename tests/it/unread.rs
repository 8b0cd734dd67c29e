//! A disk that does not read what is there: no damage, and no reason to go on without it.

use std::path::{Path, PathBuf};

use crate::harness::backlog::generations;
use crate::harness::postgres::Fsync;
use crate::harness::{
    Mosquitto, PATIENCE, Postgres, Publisher, Service, array, eventually_eq, readings,
};

const READINGS: u64 = 20;

/// A log in which readings and a dead letter wait, of a process that has ended.
struct Left {
    postgres: Postgres,
    _broker: Mosquitto,
    service: Service,
}

impl Left {
    fn make() -> Self {
        let postgres = Postgres::prepare(Fsync::Off);
        let broker = Mosquitto::start();
        let service = Service::new(&postgres.url(), broker.port).set("WAL_RETAIN_SECS", 0);
        let mut ingestor = service.start();
        ingestor.await_ready();
        let mut devices = Publisher::connect(broker.port);
        devices.publish("telemetry/batch", array(&readings(0..READINGS)));
        devices.publish("telemetry/x", "no reading".to_owned());
        devices.finish();
        ingestor.await_metric("ingestor_wal_pending_records", READINGS);
        ingestor.await_metric("ingestor_dead_letters", 1);
        ingestor.stop();
        Self { postgres, _broker: broker, service }
    }

    fn newest(&self) -> PathBuf {
        generations(&self.service.wal_dir()).pop().unwrap().1.join("db")
    }

    #[track_caller]
    fn must_refuse(&self, file: &Path) {
        let mut ingestor = self.service.launch_traced(&without(file));
        assert_eq!(ingestor.await_exit(PATIENCE), 1, "{}", ingestor.log_text());
        let log = ingestor.log_text();
        assert!(log.contains(&format!("cannot read {}", file.display())), "{log}");
        assert!(log.contains("look after the disk"), "{log}");
    }

    fn set_aside(&self) -> usize {
        std::fs::read_dir(self.service.wal_dir().join("quarantine")).unwrap().count()
    }
}

/// Options of strace: the disk reads everything but `file`.
fn without(file: &Path) -> [&str; 6] {
    ["-P", file.to_str().unwrap(), "-e", "trace=pread64", "-e", "inject=pread64:error=EIO"]
}

#[test]
fn a_start_without_what_the_disk_does_not_read_ends_and_the_next_one_has_all_of_it() {
    let mut left = Left::make();
    let letters = left.service.wal_dir().join("dead-letters");
    let letters = std::fs::read_dir(letters).unwrap().next().unwrap().unwrap().path();
    for file in [left.newest(), left.service.wal_dir().join("positions"), letters] {
        left.must_refuse(&file);
    }
    left.postgres.launch();
    let ingestor = left.service.start();
    left.postgres.await_exactly(&readings(0..READINGS));
    assert_eq!(ingestor.metric("ingestor_wal_lost_records_total"), 0);
    assert_eq!(ingestor.metric("ingestor_dead_letters"), 1);
    assert_eq!(left.set_aside(), 0);
}

#[test]
fn what_the_disk_does_not_read_at_the_second_start_either_is_lost_and_set_aside() {
    let mut left = Left::make();
    let newest = left.newest();
    left.must_refuse(&newest);
    assert_eq!(left.set_aside(), 0);
    left.postgres.launch();
    let ingestor = left.service.start_traced(&without(&newest));
    eventually_eq("it is set aside", &1, || left.set_aside());
    assert_eq!(ingestor.metric("ingestor_wal_lost_records_total"), READINGS);
    assert_eq!(left.postgres.count(), 0);
    ingestor.stop();
}
