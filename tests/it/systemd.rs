//! What systemd is told.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Mosquitto, PATIENCE, Postgres, Publisher, ScriptedBroker, Service, reading};

/// The manager's end of `NOTIFY_SOCKET`.
struct Manager(UnixDatagram);

impl Manager {
    /// The lines of one notification; none if none comes within `patience`.
    fn next(&self, patience: Duration) -> Vec<String> {
        self.0.set_read_timeout(Some(patience)).unwrap();
        let mut datagram = [0; 4_096];
        let Ok(length) = self.0.recv(&mut datagram) else { return Vec::new() };
        String::from_utf8_lossy(&datagram[..length]).lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn await_line(&self, wanted: &str) -> Instant {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while Instant::now() < deadline {
            let lines = self.next(Duration::from_secs(1));
            if lines.iter().any(|line| line == wanted) {
                return Instant::now();
            }
            seen.extend(lines);
        }
        panic!("systemd was not told {wanted}, but {seen:?}");
    }
}

#[test]
fn systemd_is_told_that_it_is_up_that_it_lives_how_much_waits_and_that_it_stops() {
    const WATCHDOG: Duration = Duration::from_secs(1);
    let mut postgres = Postgres::start();
    postgres.stop();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port);
    let socket = service.dir().join("notify.sock");
    let manager = Manager(UnixDatagram::bind(&socket).unwrap());
    let service =
        service.set("NOTIFY_SOCKET", socket.display()).set("WATCHDOG_USEC", WATCHDOG.as_micros());
    let mut ingestor = service.launch();
    manager.await_line("READY=1");
    ingestor.await_listening();
    // Each in time, and usually after half of what systemd waits.
    let told: Vec<Instant> = (0..4).map(|_| manager.await_line("WATCHDOG=1")).collect();
    let mut gaps: Vec<Duration> = told.windows(2).map(|two| two[1] - two[0]).collect();
    gaps.sort_unstable();
    assert!(gaps[1] < WATCHDOG * 3 / 4 && gaps[2] < WATCHDOG, "{gaps:?}");
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(0..7);
    manager.await_line("STATUS=7 readings pending in the log");
    ingestor.signal(Signal::TERM);
    manager.await_line("STOPPING=1");
    assert_eq!(ingestor.await_exit(PATIENCE), 0);
}

/// sled can hang instead of failing, and so can a disk.
#[test]
fn while_a_commit_hangs_systemd_gets_no_sign_of_life() {
    const WATCHDOG: Duration = Duration::from_secs(1);
    let broker = ScriptedBroker::start();
    let service = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", broker.port);
    let socket = service.dir().join("notify.sock");
    let manager = Manager(UnixDatagram::bind(&socket).unwrap());
    let service =
        service.set("NOTIFY_SOCKET", socket.display()).set("WATCHDOG_USEC", WATCHDOG.as_micros());
    let _ingestor = service.start_tampered("fdatasync:delay_enter=6000000");
    manager.await_line("WATCHDOG=1");
    let mut link = broker.accept(false);
    assert!(link.deliver(1, "telemetry/x", reading(0).payload()));
    // One more may be on its way; then there is silence for as long as systemd would wait.
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut silent_since = Instant::now();
    while silent_since.elapsed() < WATCHDOG {
        assert!(Instant::now() < deadline, "it says that it lives while a commit hangs");
        if manager.next(Duration::from_millis(100)).iter().any(|line| line == "WATCHDOG=1") {
            silent_since = Instant::now();
        }
    }
    // And when the disk is back, it lives.
    assert_eq!(link.acks(1), [1]);
    manager.await_line("WATCHDOG=1");
}
