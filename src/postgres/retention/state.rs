//! What is known of removing, and whether what is old may go.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::look::Look;
use super::plan::{Clocks, HeldUp};
use super::remove::Removed;
use super::report::RetentionReport;
use crate::base::time::Timestamp;
use crate::postgres::failure::Failure;

/// What is known of removing. Clones share it.
#[derive(Clone, Debug)]
pub(in crate::postgres) struct Retention {
    pub(super) days: Option<u32>,
    /// With a number of days, since when it is tried.
    pub(super) since: Option<Timestamp>,
    state: Arc<Mutex<State>>,
    pub(super) asked: Arc<Notify>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    clocks: Clocks,
    /// An operator says that what will be found is meant.
    pub(super) is_meant: bool,
    pub(super) is_running: bool,
    pub(super) held_up: Option<TableHeldUp>,
    failure: Option<String>,
    last_run: Option<Timestamp>,
    pub(super) last_success: Option<Timestamp>,
    pub(super) now: Removed,
    pub(super) before: Removed,
}

/// What the clocks of this machine show.
#[derive(Clone, Copy)]
pub(super) struct Now {
    pub(super) wall: Timestamp,
    pub(super) monotonic: Duration,
}

/// That it is held up, and with which table.
#[derive(Clone, Debug)]
pub(super) struct TableHeldUp {
    pub(super) table: String,
    pub(super) why: HeldUp,
}

impl Retention {
    pub(in crate::postgres) fn new(days: Option<u32>, now: Timestamp) -> Self {
        let since = days.map(|_| now);
        Self { days, since, state: Arc::default(), asked: Arc::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Without what only a look can tell.
    pub(super) fn report(&self) -> RetentionReport {
        let state = self.lock();
        let all = state.before.with(state.now);
        RetentionReport {
            days: self.days,
            due: Vec::new(),
            is_running: state.is_running,
            last_error: state.failure.clone(),
            last_run: state.last_run,
            last_success: state.last_success,
            removed_partitions: all.partitions,
            removed_rows: all.rows,
        }
    }

    /// Why what `look` found should not be removed.
    pub(super) fn doubt(state: &mut State, look: &Look, now: Now) -> Option<HeldUp> {
        let doubt = state.clocks.look(look.now, now.wall.as_micros(), now.monotonic);
        doubt.or_else(|| look.is_too_much())
    }

    /// Why what `look` found is not removed, though an operator may have said that it `is_meant`: that
    /// the clock is right, and then no more than that, or else that it is much.
    pub(super) fn may_remove(&self, look: &Look, is_meant: &mut bool, now: Now) -> Option<HeldUp> {
        let mut state = self.lock();
        match Self::doubt(&mut state, look, now)? {
            HeldUp::ClockJumped if *is_meant => {
                state.clocks.settle();
                *is_meant = false;
                look.is_too_much()
            }
            doubt => (!(*is_meant && doubt.can_be_meant())).then_some(doubt),
        }
    }

    pub(super) fn end(&self, outcome: &Result<Option<TableHeldUp>, Failure>, now: Timestamp) {
        let mut state = self.lock();
        state.is_running = false;
        state.last_run = Some(now);
        state.before = state.before.with(std::mem::take(&mut state.now));
        let failure = outcome.as_ref().err().map(ToString::to_string);
        if let Some(reason) =
            failure.as_ref().filter(|reason| state.failure.as_ref() != Some(reason))
        {
            tracing::warn!(
                reason,
                "readings older than RETENTION_DAYS could not be removed: it is tried again every minute"
            );
        }
        state.failure = failure;
        let Ok(held_up) = outcome else { return };
        let kind = |held_up: &Option<TableHeldUp>| {
            held_up.as_ref().map(|held| (held.table.clone(), std::mem::discriminant(&held.why)))
        };
        if kind(&state.held_up) != kind(held_up) {
            if let Some(TableHeldUp { table, why }) = held_up {
                tracing::warn!(
                    table,
                    reason = %why,
                    "readings older than RETENTION_DAYS are not removed: it is looked at again every hour"
                );
            } else {
                tracing::info!("readings older than RETENTION_DAYS are removed again");
            }
        }
        if held_up.is_none() {
            state.last_success = Some(now);
        }
        state.held_up.clone_from(held_up);
    }
}

impl Removed {
    pub(super) fn with(self, other: Self) -> Self {
        Self { partitions: self.partitions + other.partitions, rows: self.rows + other.rows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::retention::look::{Kind, OldRows};
    use crate::postgres::retention::plan::Rows;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const NOON: Timestamp = Timestamp::UNIX_EPOCH;

    /// So long after noon.
    fn now(after: Duration) -> Now {
        let wall = Timestamp::from_micros(i64::try_from(after.as_micros()).unwrap()).unwrap();
        Now { wall, monotonic: after }
    }

    /// Of 900 rows so many are old, and the database's clock shows what ours does.
    fn look(old: i64, now: Now) -> Look {
        let rows = Rows { old, is_exact: true, guess: 0, all: 900 };
        let source = OldRows { table: "telemetry".to_owned(), which: "true".to_owned() };
        Look {
            name: "telemetry".to_owned(),
            now: now.wall.as_micros(),
            cutoff: 0,
            has_arrival: true,
            kind: Kind::Plain { rows, source },
        }
    }

    #[test]
    fn whoever_means_a_clock_that_jumped_has_not_meant_that_much_goes_at_once() {
        let retention = Retention::new(Some(30), NOON);
        let removes =
            |look: &Look, is_meant: &mut bool, now| retention.may_remove(look, is_meant, now);
        let before = now(Duration::from_secs(60));
        assert_eq!(removes(&look(1, before), &mut false, before), None);
        // Both clocks are set, and no time has passed.
        let jumped = Now { wall: now(DAY * 400).wall, ..before };
        let held = removes(&look(1, jumped), &mut false, jumped);
        assert_eq!(held, Some(HeldUp::ClockJumped));
        let mut is_meant = true;
        let held = removes(&look(400, jumped), &mut is_meant, jumped);
        assert_eq!((held, is_meant), (Some(HeldUp::TooManyRows { all: 900 }), false));
        assert_eq!(removes(&look(400, jumped), &mut true, jumped), None);
    }

    #[test]
    fn a_run_that_is_held_up_is_the_last_run_and_not_the_last_success() {
        let retention = Retention::new(Some(30), NOON);
        let times = || {
            let report = retention.report();
            (report.last_run, report.last_success)
        };
        assert_eq!(times(), (None, None));
        let [first, second, third] = [1, 2, 3].map(|days| now(DAY * days).wall);
        retention.end(&Ok(None), first);
        assert_eq!(times(), (Some(first), Some(first)));
        let held_up = TableHeldUp { table: "telemetry".to_owned(), why: HeldUp::ClockJumped };
        retention.end(&Ok(Some(held_up)), second);
        assert_eq!(times(), (Some(second), Some(first)));
        retention.end(&Err(Failure::unavailable("no answer")), third);
        assert_eq!(times(), (Some(third), Some(first)));
    }
}
