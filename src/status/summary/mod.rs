//! What is happening, in a sentence or two, for somebody who stands in front of the box.
//!
//! What matters most comes first: the log that can take no more, then what nobody receives, then
//! what the database does not get, then how long it takes. Figures are rounded as a person would.

use super::health::{Health, WalState};
use super::history::History;
use super::snapshot::{Broker, Level, SHORT, Snapshot};
use crate::base::metrics::Metrics;
use crate::base::number::with_commas;
use crate::flusher::State as Flushing;
use crate::telemetry::rejection::Stage;

/// With less time than this before the log is full, somebody has to hurry.
const HURRY_SECONDS: f64 = 3_600.0;

/// Devices that send every few minutes are no reason to look.
const SILENCE_SECONDS: f64 = 300.0;

/// A share of the dead-letter store at which somebody still has time to save what is in it.
const NEARLY_FULL: f64 = 0.8;

/// A share of the dead-letter store, for rows that the database refuses, at which a good part is left:
/// without room they hold up the flow into the database.
const MANY_REFUSED: f64 = 0.5;

/// A share of rejected readings that is more than a stray device.
const MANY_REJECTED: f64 = 0.1;

/// What a [`Snapshot`] does not show.
#[derive(Clone, Copy, Default)]
pub(super) struct Moment {
    pub(super) is_stopping: bool,
    /// All but one commit in a hundred of the last seconds took so many seconds at most.
    pub(super) committed_within: Option<f64>,
    /// The same, from receipt to the database.
    pub(super) stored_within: Option<f64>,
    /// Share of the dead-letter store that is full.
    pub(super) dead_letters: f64,
    /// Share of it that rows take that the database refuses.
    pub(super) refused_rows: f64,
}

impl Moment {
    pub(super) fn of(health: &Health, history: &History, metrics: &Metrics) -> Self {
        let stages = Stage::ALL.map(Stage::as_str);
        Self {
            dead_letters: metrics.dead_letter_share(&stages),
            refused_rows: metrics.dead_letter_share(&[Stage::Database.as_str()]),
            is_stopping: health.is_stopping(),
            committed_within: history.commits(SHORT).p99,
            stored_within: history.ends_to_end(SHORT).p99,
        }
    }
}

pub(super) fn of(status: &Snapshot, moment: Moment) -> (Level, String) {
    let is_connected = status.broker.state == "connected";
    let is_up = status.database.state == "up";
    let is_paused = status.flusher == Flushing::Paused;
    match status.log.state {
        WalState::Failed => {
            let text = "The log cannot be written, and the service is about to end: check the disk. \
                        What was not stored was not acknowledged.";
            return (Level::Critical, text.to_owned());
        }
        WalState::Full => return (Level::Critical, full(status, is_up)),
        WalState::Ok => {}
    }
    if moment.is_stopping {
        let text = format!("The service is stopping. {}.", waiting(status));
        return (Level::Warning, text);
    }
    match (is_connected, is_up && !is_paused) {
        (false, true) => {
            let text = no_readings(&status.broker);
            (Level::Critical, format!("{text} {}.", waiting(status)))
        }
        (false, false) => {
            let text = no_readings(&status.broker);
            (Level::Critical, format!("{text} {} {}.", no_rows(status, is_up), waiting(status)))
        }
        (true, false) => {
            let hurry = status.full_in_seconds.is_some_and(|seconds| seconds < HURRY_SECONDS);
            let level = if hurry { Level::Critical } else { Level::Warning };
            (level, format!("{} {}.", no_rows(status, is_up), waiting(status)))
        }
        (true, true) => match (working(status, moment), status.database.warnings.first()) {
            ((Level::Ok, _), Some(warning)) => {
                (Level::Warning, format!("The database may not keep what it confirms: {warning}."))
            }
            (told, _) => told,
        },
    }
}

/// Why none come in, or some do not.
fn no_readings(broker: &Broker) -> String {
    let since = duration(broker.since.for_seconds);
    if broker.missing_filters.is_empty() {
        return format!("Broker unreachable for {since}: no readings come in.");
    }
    let filters = broker.missing_filters.join(", ");
    format!("The broker has not granted {filters} for {since}: no readings of that come in.")
}

/// Broker, log and database are there.
fn working(status: &Snapshot, moment: Moment) -> (Level, String) {
    let pending = status.pending_records;
    let again = status.database.resending_records;
    if again > 0 {
        let text = format!(
            "The database went back in time, or is another one: {} that it may have lost {} sent again, \
             beside newer ones.",
            readings(again),
            if again == 1 { "is" } else { "are" }
        );
        return (Level::Warning, text);
    }
    if let Some(seconds) = status.drained_in_seconds {
        let text = format!(
            "Catching up: {} still {} in the log, done in about {}.",
            readings(pending),
            if pending == 1 { "waits" } else { "wait" },
            duration(seconds.max(1.0))
        );
        return (Level::Ok, text);
    }
    if status.full_in_seconds.is_some() {
        let text = format!("More comes in than the database takes. {}.", waiting(status));
        return (Level::Warning, text);
    }
    if let Some(text) = filling_letters(moment) {
        return (Level::Warning, text);
    }
    let lately = &status.rates.over_5_min;
    if lately.rejected > MANY_REJECTED * (lately.readings + lately.rejected) {
        let share = 100.0 * lately.rejected / (lately.readings + lately.rejected);
        let text = format!(
            "{share:.0} % of the readings of the last 5 min were rejected: the dead letters say why. \
             All others are safe."
        );
        return (Level::Warning, text);
    }
    let now = &status.rates.over_10_s;
    if now.readings > 0.0 {
        return (Level::Ok, flowing(now.readings, moment));
    }
    match status.broker.last_message_seconds {
        None => {
            let uptime = status.uptime_seconds;
            let level = if uptime < SILENCE_SECONDS { Level::Ok } else { Level::Warning };
            let text = "Connected, and waiting for the first reading since the start";
            (level, format!("{text} {} ago.", duration(uptime)))
        }
        Some(silent) => {
            let level = if silent < SILENCE_SECONDS { Level::Ok } else { Level::Warning };
            let stored = match pending {
                0 => "Everything received is in the database.".to_owned(),
                _ => format!("{}.", waiting(status)),
            };
            (level, format!("Nothing has come in for {}. {stored}", duration(silent)))
        }
    }
}

/// Whether the dead-letter store needs somebody.
fn filling_letters(moment: Moment) -> Option<String> {
    let percent = |share: f64| format!("{:.0} %", (100.0 * share).floor());
    if moment.refused_rows >= MANY_REFUSED {
        return Some(format!(
            "Rows that the database refuses take {} of the dead-letter store: they are never dropped, \
             and without room they stay in the log. Mend what the dead letters name, then replay them.",
            percent(moment.refused_rows)
        ));
    }
    (moment.dead_letters >= NEARLY_FULL).then(|| {
        format!(
            "The dead-letter store is {} full: past its limit the oldest rejected readings are dropped. \
             Replay or delete them. All others are safe.",
            percent(moment.dead_letters)
        )
    })
}

fn flowing(readings_a_second: f64, moment: Moment) -> String {
    let told = |what: &str, seconds: Option<f64>| {
        seconds.map_or_else(String::new, |seconds| format!("{what} within {}", latency(seconds)))
    };
    format!(
        "{} come in{}{}.",
        rate(readings_a_second),
        told(", are safe on the disk", moment.committed_within),
        told(" and in the database", moment.stored_within)
    )
}

fn full(status: &Snapshot, is_up: bool) -> String {
    let text = format!(
        "The log has been full for {}: the ingestor has left the broker, which keeps what comes in \
         until there is room.",
        duration(status.log.since.for_seconds)
    );
    let is_flowing = is_up && status.flusher != Flushing::Paused;
    if is_flowing {
        format!("{text} {}.", waiting(status))
    } else {
        format!("{text} {} {}.", no_rows(status, is_up), waiting(status))
    }
}

/// Why the database gets nothing.
fn no_rows(status: &Snapshot, is_up: bool) -> String {
    let down_for = duration(status.database.since.for_seconds);
    if is_up {
        "Writing to the database is paused.".to_owned()
    } else if status.database.problem == Some("refusing") {
        format!("The database has refused us for {down_for}.")
    } else {
        format!("Database unreachable for {down_for}.")
    }
}

/// What waits, and how much longer it can.
fn waiting(status: &Snapshot) -> String {
    let pending = status.pending_records;
    let safe = match pending {
        0 => "Nothing waits in the log".to_owned(),
        1 => "1 reading is safe in the log".to_owned(),
        more => format!("{} are safe in the log", readings(more)),
    };
    match status.full_in_seconds {
        Some(seconds) => format!("{safe}, room for {} at this rate", duration(seconds)),
        None => safe,
    }
}

fn readings(count: u64) -> String {
    let noun = if count == 1 { "reading" } else { "readings" };
    format!("{} {noun}", with_commas(count))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded on purpose")]
fn rate(readings_a_second: f64) -> String {
    if readings_a_second >= 10.0 {
        format!("{} readings/s", with_commas(readings_a_second.round() as u64))
    } else if readings_a_second >= 1.0 {
        format!("{readings_a_second:.1} readings/s")
    } else {
        format!("{:.0} readings/min", (readings_a_second * 60.0).max(1.0))
    }
}

fn latency(seconds: f64) -> String {
    if seconds >= 60.0 {
        duration(seconds)
    } else if seconds >= 1.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{:.0} ms", (seconds * 1e3).ceil().max(1.0))
    }
}

/// Rounded down, in the unit that a person would choose.
fn duration(seconds: f64) -> String {
    const MINUTE: f64 = 60.0;
    const HOUR: f64 = 60.0 * MINUTE;
    const DAY: f64 = 24.0 * HOUR;
    let (size, unit) = match seconds {
        s if s < MINUTE => (1.0, "s"),
        s if s < 2.0 * HOUR => (MINUTE, "min"),
        s if s < 2.0 * DAY => (HOUR, "h"),
        s if s < 730.0 * DAY => (DAY, "days"),
        _ => return "years".to_owned(),
    };
    format!("{:.0} {unit}", (seconds / size).floor())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::snapshot::{
        Broker, Database, Disk, Flow, Latencies, Log, Quantiles, Rates, Since,
    };
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
        Since::of(Timestamp::now(), Duration::from_secs(seconds))
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
            now: Timestamp::now(),
            clock_is_set: true,
            broker: Broker {
                state: "connected",
                missing_filters: Vec::new(),
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
}
