//! What is happening, in a sentence or two, for somebody who stands in front of the box.
//!
//! What matters most comes first: the log that can take no more, then what nobody receives, then
//! what the database does not get, then how long it takes. Figures are rounded as a person would.

#[cfg(test)]
mod tests;

use super::health::{Health, WalState};
use super::history::History;
use super::parts::{Broker, Level};
use super::snapshot::{SHORT, Snapshot};
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
    if let Some(reason) = broker.reason {
        return format!("Away from the broker for {since}: {reason}.");
    }
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
