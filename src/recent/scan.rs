//! Reads the log for a question, within bounds.
//!
//! The pieces with the newest times are read first, until no other can hold a reading that is wanted; what is
//! left of the time goes into counting. A reader takes the log's locks for single steps alone, and nobody
//! waits for it. What was not read is told: the answer is complete down to the newest time in it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::ask::{Ask, Key};
use super::gather::{Gather, LogRow};
use crate::base::time::{Clock, Timestamp};
use crate::wal::log::Piece;
use crate::wal::{Log, WalError};

/// What a search may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// For the rows.
    time: Duration,
    /// Until when others are counted.
    time_to_count: Duration,
    /// So many records are read however long it takes, so that a busy machine does not cut off a short log.
    always: u64,
    /// Most that is kept meanwhile.
    bytes: usize,
}

impl Budget {
    /// As long as somebody waits for a page: with what a piece takes that was begun before, and the rest of an
    /// answer, 50 ms.
    pub(super) const OF_PAGE: Self = Self {
        time: Duration::from_millis(40),
        time_to_count: Duration::from_millis(25),
        always: 20_000,
        bytes: 8 * 1024 * 1024,
    };
    /// As long as it takes.
    pub(super) const OF_FILE: Self = Self { always: u64::MAX, ..Self::OF_PAGE };
}

/// Where nothing is filtered and so many times as many records wait as are to be counted, none is.
const PLENTY: u64 = 2;

/// Which part of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogPart {
    /// What the database does not have.
    Pending,
    /// What it has and is still here as well.
    Retained,
}

/// What the log has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// The newest that match, newest first, as many as are wanted.
    pub(crate) rows: Vec<LogRow>,
    /// What names everything that matches, up to the number that was to be counted: the rows in their order,
    /// then the rest.
    pub(crate) keys: Vec<Key>,
    /// Whether everything that matches was counted.
    pub(crate) is_counted: bool,
    /// Whether that is so because there are more than were to be counted by far.
    pub(crate) is_plenty: bool,
    /// What was left out of the search for rows.
    pub(crate) unread: Option<Unread>,
    /// Whether there is anything of the table in the log, or may be.
    pub(crate) has_table: bool,
}

/// Readings that may be there and were not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unread {
    /// Their latest time, if it is known.
    pub(crate) newest: Option<Timestamp>,
}

/// What is in the log. Blocks on the disk, and keeps to `budget` by `clock`. Once `stop` is cancelled, whatever
/// is left is not read.
pub(super) fn scan(
    log: &Log,
    ask: &Ask,
    part: LogPart,
    budget: Budget,
    clock: &dyn Clock,
    stop: &CancellationToken,
) -> Result<Found, WalError> {
    let started = clock.monotonic();
    let from = match part {
        LogPart::Pending => log.flushed(),
        LogPart::Retained => log.retained(),
    };
    let pieces = log.pieces(from);
    let records: u64 = pieces.iter().map(|piece| piece.end - piece.first).sum();
    let is_plenty = ask.wanted > 0 && ask.is_whole() && records > PLENTY * ask.counted as u64;
    let mut gather = Gather::new(ask);
    let mut is_counted = !is_plenty;
    let mut passed_over = false;
    let mut unread: Option<Unread> = None;
    let mut others = Vec::new();
    let mut read = 0;
    let mut take = |gather: &mut Gather<'_>, piece: &Piece, until: Duration| {
        let has_room = gather.bytes() < budget.bytes;
        let is_over = || clock.monotonic().saturating_sub(started) >= until;
        let is_late = read >= budget.always && is_over();
        if !has_room || is_late || stop.is_cancelled() {
            return Ok(false);
        }
        read += piece.end - piece.first;
        for (offset, record) in log.read(piece.first, piece.end)?.records() {
            gather.add(offset, record);
        }
        Ok::<_, WalError>(true)
    };
    for piece in pieces {
        match piece.times {
            Some((oldest, newest)) if !ask.overlaps(oldest, newest) => passed_over = true,
            Some((oldest, newest)) if !gather.lacks(oldest, newest) => others.push(piece),
            _ if take(&mut gather, &piece, budget.time)? => {}
            _ => unread = Some(Unread::with(unread, &piece)),
        }
    }
    // What holds none of the rows is only counted, if there is time.
    is_counted &= unread.is_none();
    for piece in others {
        is_counted =
            is_counted && gather.is_counting() && take(&mut gather, &piece, budget.time_to_count)?;
        passed_over |= !is_counted;
    }
    passed_over |= unread.is_some();
    let has_table = gather.has_table() || passed_over;
    is_counted &= gather.is_counting() || ask.counted == 0;
    // What waits may be of other tables.
    let is_plenty = is_plenty && !gather.has_other();
    let (rows, keys) = gather.finish();
    Ok(Found { rows, keys, is_counted, is_plenty, unread, has_table })
}

impl Unread {
    /// From when on none of it is missing; `None` if that is not known.
    #[must_use]
    pub(crate) fn after(self) -> Option<Timestamp> {
        Timestamp::from_micros(self.newest?.as_micros().saturating_add(1))
    }

    fn with(unread: Option<Self>, piece: &Piece) -> Self {
        let newest = piece.times.map(|(_, newest)| newest);
        match unread {
            None => Self { newest },
            Some(other) => Self { newest: other.newest.zip(newest).map(|(a, b)| a.max(b)) },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::metrics::Metrics;
    use crate::base::time::{ManualClock, SystemClock};
    use crate::telemetry::Reading;
    use crate::wal::engine::memory::MemoryStorage;
    use crate::wal::log::{Limits, open};

    const READINGS: i64 = 20_000;

    /// No time, and so many records at most.
    const SCARCE: Budget = Budget {
        time: Duration::ZERO,
        time_to_count: Duration::ZERO,
        always: 1_000,
        bytes: 1 << 20,
    };

    fn at(number: i64) -> Timestamp {
        Timestamp::from_micros(number).unwrap()
    }

    /// Readings of which each is a microsecond later than the one before.
    fn log() -> Log {
        let retain = Duration::ZERO;
        let limits =
            Limits { max_bytes: u64::MAX, min_free_bytes: 0, generation_bytes: u64::MAX, retain };
        let (storage, clock) = (MemoryStorage::default(), Arc::new(SystemClock::default()));
        let metrics = Metrics::new().unwrap();
        let (mut writer, log) = open(Box::new(storage), clock, limits, &metrics).unwrap();
        for number in 0..READINGS {
            let device_id = format!("device-{}", number % 7);
            writer
                .append(at(number), Reading { device_id, timestamp: at(number), values: [1.0; 3] });
            if number % 100 == 99 {
                writer.commit().unwrap();
            }
        }
        log
    }

    fn ask(behind: Option<(i64, String)>) -> Ask {
        let table = crate::telemetry::mapping::BUILT_IN_TABLE.to_owned();
        let counted = 2 * usize::try_from(READINGS).unwrap();
        Ask { table, device_id: None, start: None, end: None, behind, wanted: 101, counted }
    }

    fn search(log: &Log, ask: &Ask, budget: Budget) -> Found {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        scan(log, ask, LogPart::Pending, budget, &clock, &CancellationToken::new()).unwrap()
    }

    /// By which each question takes a millisecond.
    struct SlowClock(ManualClock);

    impl Clock for SlowClock {
        fn monotonic(&self) -> Duration {
            self.0.advance(Duration::from_millis(1));
            self.0.monotonic()
        }

        fn wall(&self) -> Timestamp {
            self.0.wall()
        }
    }

    #[test]
    fn behind_what_is_read_in_any_case_it_is_read_on_until_the_time_is_over() {
        let log = log();
        let ask = Ask { device_id: Some("device-3".to_owned()), wanted: 10_000, ..ask(None) };
        let unread = |millis| {
            let budget = Budget { time: Duration::from_millis(millis), ..SCARCE };
            let clock = SlowClock(ManualClock::at(Timestamp::UNIX_EPOCH));
            let stop = CancellationToken::new();
            let found = scan(&log, &ask, LogPart::Pending, budget, &clock, &stop).unwrap();
            found.unread.map(|unread| unread.newest.unwrap())
        };
        let [none, little, more] = [0, 10, 20].map(|millis| unread(millis).unwrap());
        assert!(more < little && little < none, "{more} {little} {none}");
        assert_eq!(unread(100_000), None);
    }

    #[test]
    fn rows_come_before_what_is_only_counted_however_little_is_read() {
        let log = log();
        for middle in [READINGS, READINGS / 2, 101] {
            let ask = ask(Some((middle, String::new())));
            let found = search(&log, &ask, SCARCE);
            let times: Vec<_> = found.rows.iter().map(|row| row.key.timestamp).collect();
            let expected: Vec<_> = (middle - 101..middle).rev().map(at).collect();
            assert_eq!((times, found.unread), (expected, None), "behind {middle}");
            assert!(!found.is_counted);
        }
    }

    #[test]
    fn what_is_not_read_is_told_by_its_latest_time() {
        let log = log();
        let ask = Ask { device_id: Some("device-3".to_owned()), wanted: 501, ..ask(None) };
        let found = search(&log, &ask, SCARCE);
        let unread = found.unread.and_then(|unread| unread.newest).unwrap();
        assert!((at(READINGS - 1_600)..at(READINGS - 999)).contains(&unread), "{unread}");
        let oldest = found.rows.last().map(|row| row.key.timestamp);
        assert!(oldest > Some(unread), "{oldest:?} was read, {unread} was not");
        let whole = search(&log, &ask, Budget::OF_FILE);
        assert_eq!((whole.rows.len(), whole.unread, whole.is_counted), (501, None, true));
    }

    #[test]
    fn once_it_is_told_to_stop_nothing_more_is_read_and_that_is_told() {
        let (log, stop) = (log(), CancellationToken::new());
        stop.cancel();
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let found =
            scan(&log, &ask(None), LogPart::Pending, Budget::OF_FILE, &clock, &stop).unwrap();
        let unread = found.unread.and_then(|unread| unread.newest);
        assert_eq!((found.rows, unread), (Vec::new(), Some(at(READINGS - 1))));
        assert!(!found.is_counted);
    }
}
