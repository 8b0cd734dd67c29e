//! Whoever reads what the binaries print may be gone, full, or not reading.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write, pipe};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::process::guarded;
use crate::harness::{
    Ingestor, Mosquitto, PATIENCE, Postgres, Publisher, Service, eventually, readings,
};

const INGESTOR: &str = env!("CARGO_BIN_EXE_ingestor");

/// What a pipe holds, where nobody has changed that.
const PIPE_BYTES: usize = 65_536;

/// Readings go through, and the end is an orderly one.
#[track_caller]
fn must_work(mut ingestor: Ingestor, postgres: &Postgres, broker: &Mosquitto) {
    await_ready(&mut ingestor);
    Publisher::connect(broker.port).publish_readings(0..100);
    postgres.await_exactly(&readings(0..100));
    let asked = Instant::now();
    ingestor.signal(Signal::TERM);
    assert_eq!(ingestor.await_exit(PATIENCE), 0);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[track_caller]
fn await_ready(ingestor: &mut Ingestor) {
    eventually("the ingestor is ready", || {
        ingestor.must_run();
        ingestor.try_get("/health/ready").is_ok_and(|answer| answer.status == 200).then_some(())
    });
}

#[test]
fn a_reader_that_has_gone_changes_nothing_but_a_count() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    let service = Service::new(&postgres.url(), broker.port);
    let (reader, writer) = pipe().unwrap();
    let mut ingestor = service.launch_onto(writer.into());
    let mut lines = BufReader::new(reader).lines();
    assert!(lines.next().unwrap().unwrap().starts_with('{'));
    drop(lines);
    await_ready(&mut ingestor);
    eventually("a line was dropped", || {
        (ingestor.metric("ingestor_log_lines_dropped_total") > 0).then_some(())
    });
    must_work(ingestor, &postgres, &broker);
}

#[test]
fn a_standard_error_without_room_changes_nothing() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    let service = Service::new(&postgres.url(), broker.port);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    must_work(service.launch_onto(full.into()), &postgres, &broker);
}

#[test]
fn a_pipe_that_nobody_reads_holds_up_neither_readings_nor_the_end() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    let service = Service::new(&postgres.url(), broker.port);
    let (_reader, mut writer) = pipe().unwrap();
    writer.write_all(&vec![b'\n'; PIPE_BYTES]).unwrap();
    must_work(service.launch_onto(writer.into()), &postgres, &broker);
}

#[test]
fn how_many_lines_were_dropped_is_said_when_somebody_reads_again() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    // The log's engine says a lot.
    let service = Service::new(&postgres.url(), broker.port).set("RUST_LOG", "info,sled=trace");
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(&vec![b'\n'; PIPE_BYTES]).unwrap();
    let mut ingestor = service.launch_onto(writer.into());
    await_ready(&mut ingestor);
    let mut devices = Publisher::connect(broker.port);
    let mut published = 0;
    eventually("lines are dropped", || {
        devices.publish_readings(published..published + 100);
        published += 100;
        (ingestor.metric("ingestor_log_lines_dropped_total") > 0).then_some(())
    });
    let said = BufReader::new(reader)
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(&line).ok())
        .find(|line| {
            line["message"]
                == "log lines were dropped, because standard error was not read fast enough"
        })
        .expect("it says so");
    assert!(said["lines"].as_u64().unwrap() > 0, "{said}");
    // By then the reader is gone.
    must_work_on(ingestor, &postgres, published);
}

#[track_caller]
fn must_work_on(mut ingestor: Ingestor, postgres: &Postgres, published: u64) {
    postgres.await_exactly(&readings(0..published));
    ingestor.signal(Signal::TERM);
    assert_eq!(ingestor.await_exit(PATIENCE), 0);
}

#[test]
fn a_bad_configuration_is_64_whoever_reads_it() {
    let service = Service::bare().set("MQTT_PORT", 0);
    let (_reader, mut unread) = pipe().unwrap();
    unread.write_all(&vec![b'\n'; PIPE_BYTES]).unwrap();
    let (_, gone) = pipe().unwrap();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    for stderr in [Stdio::from(unread), gone.into(), full.into()] {
        assert_eq!(service.launch_onto(stderr).await_exit(PATIENCE), 64);
    }
}

#[test]
fn commands_whose_output_nobody_wants_end_without_a_word_and_without_a_panic() {
    let service = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", 1);
    let mut ingestor = service.start();
    let address = ingestor.address().to_string();
    let gone = || Stdio::from(pipe().unwrap().1);
    let run = |arguments: &[&str], stdout: Stdio| {
        let mut command = guarded(INGESTOR);
        command.args(arguments).env("HTTP_ADDR", &address).env_remove("RUST_LOG");
        command.env("WAL_DIR", service.wal_dir()).current_dir(service.dir()).stdout(stdout);
        let output = command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for arguments in [&["check-config"][..], &["health"], &["--help"], &["--version"]] {
        let (code, said) = run(arguments, gone());
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (code, said) = run(arguments, full.into());
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        assert!(said.contains("cannot write to standard output"), "{arguments:?}: {said}");
    }
    ingestor.signal(Signal::TERM);
    assert_eq!(ingestor.await_exit(PATIENCE), 0);
    for arguments in [&["wal", "stats"][..], &["wal", "export"], &["wal", "records"]] {
        let (code, said) = run(arguments, gone());
        assert_eq!((code, said.as_str()), (Some(0), ""), "{arguments:?}");
    }
}
