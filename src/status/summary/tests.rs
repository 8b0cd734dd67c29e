use std::time::Duration;

use super::super::parts::{Broker, Database, Disk, Flow, Latencies, Log, Quantiles, Rates, Since};
use super::*;
use crate::base::time::Timestamp;

const MOMENT: Moment = Moment {
    is_stopping: false,
    committed_within: Some(0.0021),
    stored_within: Some(0.08),
    dead_letters: 0.79,
    refused_rows: 0.49,
};

fn since(seconds: u64) -> Since {
    Since::of(Timestamp::UNIX_EPOCH, Duration::from_secs(seconds))
}

fn flow(readings: f64, rejected: f64) -> Flow {
    Flow { messages: readings, readings, rejected, rows: readings }
}

/// All is well, at 1,200 readings a second.
fn well() -> Snapshot {
    let quantiles = || Quantiles { p50_seconds: None, p99_seconds: None };
    Snapshot {
        summary: String::new(),
        level: Level::Ok,
        ready: true,
        instance: "one".to_owned(),
        version: "1",
        uptime_seconds: 9_000.0,
        now: Timestamp::UNIX_EPOCH,
        clock_is_set: true,
        broker: Broker {
            state: "connected",
            missing_filters: Vec::new(),
            reason: None,
            since: since(9_000),
            last_message_seconds: Some(0.2),
            qos0_messages: 0,
        },
        log: Log { state: WalState::Ok, since: since(9_000), reason: None },
        database: Database {
            state: "up",
            since: since(9_000),
            problem: None,
            resending_records: 0,
            warnings: Vec::new(),
        },
        flusher: Flushing::Flushing,
        rates: Rates { over_10_s: flow(1_200.0, 0.0), over_5_min: flow(1_200.0, 0.0) },
        latency: Latencies { commit: quantiles(), end_to_end: quantiles() },
        pending_records: 12,
        oldest_pending_seconds: 0.0,
        disk: Disk { used_bytes: 1, max_bytes: 2, free_bytes: 2, left_bytes: 1 },
        net_records_per_second: 0.0,
        full_in_seconds: None,
        drained_in_seconds: None,
        dead_letters: 0,
        silent_devices: 0,
        mappings: None,
        unmapped_topics: None,
        admin_enabled: false,
    }
}

#[track_caller]
fn must_say(change: impl FnOnce(&mut Snapshot), level: Level, text: &str) {
    let mut status = well();
    change(&mut status);
    assert_eq!(of(&status, MOMENT), (level, text.to_owned()));
}

fn outage(status: &mut Snapshot) {
    status.database = Database {
        state: "down",
        since: since(12 * 60 + 9),
        resending_records: 0,
        problem: Some("unreachable"),
        warnings: Vec::new(),
    };
    status.flusher = Flushing::BackingOff;
    status.pending_records = 143_200;
    status.full_in_seconds = Some(31.4 * 3_600.0);
}

#[test]
fn when_all_is_well_it_says_how_much_and_how_fast() {
    must_say(
        |_| (),
        Level::Ok,
        "1,200 readings/s come in, are safe on the disk within 3 ms and in the database within 80 ms.",
    );
    must_say(
        |status| status.rates.over_10_s.readings = 0.2,
        Level::Ok,
        "12 readings/min come in, are safe on the disk within 3 ms and in the database within 80 ms.",
    );
}

#[test]
fn an_outage_of_the_database_is_told_with_what_is_safe_and_for_how_long() {
    must_say(
        outage,
        Level::Warning,
        "Database unreachable for 12 min. 143,200 readings are safe in the log, room for 31 h at this rate.",
    );
    must_say(
        |status| {
            outage(status);
            status.full_in_seconds = Some(1_500.0);
            status.database.problem = Some("refusing");
        },
        Level::Critical,
        "The database has refused us for 12 min. 143,200 readings are safe in the log, room for 25 min at this rate.",
    );
    must_say(
        |status| {
            outage(status);
            status.pending_records = 0;
            status.full_in_seconds = None;
        },
        Level::Warning,
        "Database unreachable for 12 min. Nothing waits in the log.",
    );
}

#[test]
fn a_filter_that_is_not_granted_is_named() {
    must_say(
        |status| {
            status.broker.state = "unsubscribed";
            status.broker.missing_filters = vec!["a/#".to_owned(), "b".to_owned()];
            status.broker.since = since(59);
            status.pending_records = 1;
        },
        Level::Critical,
        "The broker has not granted a/#, b for 59 s: no readings of that come in. 1 reading is safe in the log.",
    );
}

#[test]
fn a_broker_that_is_away_comes_before_a_database_that_is_away() {
    let no_broker = |status: &mut Snapshot| {
        status.broker.state = "disconnected";
        status.broker.since = since(59);
    };
    must_say(
        |status| {
            no_broker(status);
            status.pending_records = 1;
        },
        Level::Critical,
        "Broker unreachable for 59 s: no readings come in. 1 reading is safe in the log.",
    );
    must_say(
        |status| {
            outage(status);
            no_broker(status);
            status.full_in_seconds = None;
        },
        Level::Critical,
        "Broker unreachable for 59 s: no readings come in. Database unreachable for 12 min. 143,200 readings are safe in the log.",
    );
}

#[test]
fn a_full_log_says_where_the_messages_are() {
    must_say(
        |status| {
            outage(status);
            status.full_in_seconds = None;
            status.log.state = WalState::Full;
            status.log.since = since(3 * 86_400);
            status.broker.state = "disconnected";
        },
        Level::Critical,
        "The log has been full for 3 days: the ingestor has left the broker, which keeps what comes in until there is room. Database unreachable for 12 min. 143,200 readings are safe in the log.",
    );
}

#[test]
fn a_pause_is_no_outage() {
    must_say(
        |status| {
            status.flusher = Flushing::Paused;
            status.pending_records = 3_000;
        },
        Level::Warning,
        "Writing to the database is paused. 3,000 readings are safe in the log.",
    );
}

#[test]
fn a_backlog_is_told_with_its_end_or_with_its_room() {
    must_say(
        |status| {
            status.pending_records = 1_000_000;
            status.drained_in_seconds = Some(42.7);
        },
        Level::Ok,
        "Catching up: 1,000,000 readings still wait in the log, done in about 42 s.",
    );
    must_say(
        |status| {
            status.pending_records = 90_000;
            status.full_in_seconds = Some(3.0 * 365.0 * 86_400.0);
        },
        Level::Warning,
        "More comes in than the database takes. 90,000 readings are safe in the log, room for years at this rate.",
    );
}

#[test]
fn silence_becomes_a_warning_after_five_minutes() {
    let silent = |seconds: f64| {
        move |status: &mut Snapshot| {
            status.rates.over_10_s = flow(0.0, 0.0);
            status.pending_records = 0;
            status.broker.last_message_seconds = Some(seconds);
        }
    };
    let text = "Nothing has come in for 40 s. Everything received is in the database.";
    must_say(silent(40.0), Level::Ok, text);
    let text = "Nothing has come in for 6 min. Everything received is in the database.";
    must_say(silent(361.0), Level::Warning, text);
    must_say(
        |status| {
            silent(0.0)(status);
            status.broker.last_message_seconds = None;
            status.uptime_seconds = 75.0;
        },
        Level::Ok,
        "Connected, and waiting for the first reading since the start 1 min ago.",
    );
}

#[test]
fn many_rejected_readings_are_a_warning_and_a_few_are_not() {
    must_say(
        |status| status.rates.over_5_min = flow(60.0, 40.0),
        Level::Warning,
        "40 % of the readings of the last 5 min were rejected: the dead letters say why. All others are safe.",
    );
    let mut status = well();
    status.rates.over_5_min = flow(99.0, 1.0);
    assert_eq!(of(&status, MOMENT).0, Level::Ok);
}

#[test]
fn a_dead_letter_store_is_a_warning_before_anything_in_it_is_dropped() {
    let (level, text) = of(&well(), Moment { dead_letters: 0.829, ..MOMENT });
    assert_eq!(
        (level, text.as_str()),
        (
            Level::Warning,
            "The dead-letter store is 82 % full: past its limit the oldest rejected readings are dropped. Replay or delete them. All others are safe."
        )
    );
    let (level, text) = of(&well(), Moment { refused_rows: 0.5, ..MOMENT });
    assert_eq!(
        (level, text.as_str()),
        (
            Level::Warning,
            "Rows that the database refuses take 50 % of the dead-letter store: they are never dropped, and without room they stay in the log. Mend what the dead letters name, then replay them."
        )
    );
}

#[test]
fn an_end_is_announced() {
    let stopping = Moment { is_stopping: true, ..MOMENT };
    let (level, text) = of(&well(), stopping);
    assert_eq!(text, "The service is stopping. 12 readings are safe in the log.");
    assert_eq!(level, Level::Warning);
    must_say(
        |status| status.log.state = WalState::Failed,
        Level::Critical,
        "The log cannot be written, and the service is about to end: check the disk. What was not stored was not acknowledged.",
    );
}
