//! The flusher's shell in the simulation, and the sink, which answers when the schedule says so.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use iot_ingestor::flusher::plan::{BatchId, Command, Event, Lettered, Plan, Report};
use iot_ingestor::flusher::sink::SinkError;
use iot_ingestor::wal::{Log, Offset, OffsetRange};

use crate::database::{Database, Row};
use crate::ledger::{Ledger, Stored, Violation};
use crate::letters::Letters;
use crate::mutants::Mutant;
use crate::publisher::number;
use crate::request::{Request, What, code};
use crate::schedule::Dice;
use crate::sink::{CAREFUL, insert, letter, unavailable};
use crate::trace::{Happened, Trace};

pub(crate) struct Flusher {
    plan: Plan,
    requests: Vec<Request>,
    read: BTreeMap<BatchId, Vec<Row>>,
    /// Statements that will still look for rows that are there already.
    careful: u32,
    grown_to: Offset,
    /// When the plan wants to hear of the time.
    wake_at: Duration,
    is_stopping: bool,
    end: Option<bool>,
    /// The database that has what was confirmed.
    known: Option<u64>,
    /// Another one, which was noticed.
    found: Option<u64>,
    /// Records that were stored and are sent again.
    pub(crate) resent: u64,
    /// Rows that the database or a letter has, as the books count them.
    pub(crate) stored: u64,
    /// The same by their offsets, as long as they are not trimmed.
    done: BTreeSet<Offset>,
}

/// What it works with.
pub(crate) struct Around<'w> {
    pub(crate) ledger: &'w mut Ledger,
    pub(crate) letters: &'w mut Letters,
    pub(crate) database: &'w mut Database,
    pub(crate) log: &'w Log,
    /// The database that has what was confirmed, as the next process will know it.
    pub(crate) remembered: &'w mut Option<u64>,
    pub(crate) trace: &'w mut Trace,
    pub(crate) now: Duration,
    pub(crate) mutant: Option<Mutant>,
}

impl Flusher {
    pub(crate) fn new(plan: Plan, committed: Offset, remembered: Option<u64>) -> Self {
        let (requests, read) = (Vec::new(), BTreeMap::new());
        Self {
            plan,
            requests,
            read,
            careful: CAREFUL,
            grown_to: committed,
            wake_at: Duration::ZERO,
            is_stopping: false,
            end: None,
            known: remembered,
            found: None,
            resent: 0,
            stored: 0,
            done: BTreeSet::new(),
        }
    }

    /// Where everything below is in the table or a letter, as far as the plan knows.
    pub(crate) fn flushed(&self) -> Offset {
        self.plan.flushed()
    }

    /// Records that are in the table or a letter, and still in the log.
    pub(crate) fn stored_in_log(&self) -> u64 {
        self.done.len() as u64
    }

    /// How it has ended, if it has.
    pub(crate) fn end(&self) -> Option<bool> {
        self.end
    }

    pub(crate) fn has_requests(&self) -> bool {
        self.requests.iter().any(|one| one.answer.is_none())
    }

    pub(crate) fn has_answers(&self) -> bool {
        self.requests.iter().any(|one| one.answer.is_some())
    }

    /// When something happens by itself.
    pub(crate) fn wake_at(&self) -> Duration {
        let limits = self.requests.iter().filter_map(Request::expires_at);
        limits.fold(self.wake_at, Duration::min)
    }

    /// Whether it has not heard yet of what was committed, or of the time.
    pub(crate) fn is_behind(&self, log: &Log, now: Duration) -> bool {
        self.end.is_none() && (*log.committed().borrow() > self.grown_to || self.wake_at() <= now)
    }

    /// Hears of what has taken too long, of what was committed, or of the time.
    pub(crate) fn catch_up(&mut self, around: &mut Around<'_>) -> Result<(), Violation> {
        let is_late = |one: &Request| one.expires_at().is_some_and(|at| at <= around.now);
        if let Some(at) = self.requests.iter().position(is_late) {
            let request = self.requests.remove(at);
            let error = SinkError::TimedOut { reason: "no answer in time".to_owned() };
            return self.fail(&request, error, around);
        }
        let committed = *around.log.committed().borrow();
        let event = if committed > self.grown_to { Event::Grown(committed) } else { Event::Tick };
        self.grown_to = committed;
        self.hear(event, around)
    }

    /// No further work: what is under way ends.
    pub(crate) fn stop(&mut self, around: &mut Around<'_>) -> Result<(), Violation> {
        self.is_stopping = true;
        self.hear(Event::Stop, around)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    pub(crate) fn hear(&mut self, event: Event, around: &mut Around<'_>) -> Result<(), Violation> {
        for command in self.plan.handle(event, around.now) {
            self.obey(command, around)?;
        }
        self.wake_at = self.plan.wake_at(around.now);
        Ok(())
    }

    fn obey(&mut self, command: Command, around: &mut Around<'_>) -> Result<(), Violation> {
        let now = around.now;
        match command {
            Command::Prepare => self.send(What::Prepare, now, SHORT),
            Command::Ping => self.send(What::Ping, now, SHORT),
            Command::Insert { batch, all, rows, limit } => {
                around.trace.note(Happened::Sent, rows.start, rows.end);
                let all_to = all.end;
                let Some(mut wanted) = self.rows(batch, all, around)? else { return Ok(()) };
                wanted.retain(|(offset, _)| rows.contains(offset));
                self.send(What::Insert { batch, all_to, rows: wanted }, now, limit);
                if around.mutant == Some(Mutant::TrimBeforeTheCommit) {
                    return Self::note_flushed(all_to, around);
                }
            }
            Command::Letter { batch, all, rows } => {
                let Some(mut wanted) = self.rows(batch, all, around)? else { return Ok(()) };
                wanted.retain(|(offset, _)| rows.iter().any(|(of, _)| of == offset));
                self.send(What::Letter { batch, rows: wanted }, now, Duration::MAX);
            }
            Command::Release { batch, .. } => {
                self.read.remove(&batch);
            }
            Command::Flushed(to) => {
                self.done = self.done.split_off(&to);
                return Self::note_flushed(to, around);
            }
            Command::Rewind => self.send(What::Rewind, now, Duration::MAX),
            Command::Remember => *around.remembered = self.known,
            Command::Report(report) => {
                if let Report::WentBack { records, .. } = report {
                    self.resent += records;
                }
                around.trace.note(Happened::Reported, 0, 0);
            }
            Command::Finish(outcome) => {
                around.trace.note(Happened::FlusherEnded, u64::from(outcome.is_ok()), 0);
                self.end = Some(outcome.is_ok());
            }
        }
        Ok(())
    }

    fn send(&mut self, what: What, sent_at: Duration, limit: Duration) {
        self.requests.push(Request { what, sent_at, limit, answer: None });
    }

    /// The rows of a batch, which are read from the log once; none if the disk does not read them.
    fn rows(
        &mut self,
        batch: BatchId,
        all: Range<Offset>,
        around: &mut Around<'_>,
    ) -> Result<Option<Vec<Row>>, Violation> {
        if let Some(read) = self.read.get(&batch) {
            return Ok(Some(read.clone()));
        }
        let found = match around.log.read(all.start, all.end) {
            Ok(found) => found,
            Err(error) => {
                let failed = Some(Event::Failed(error.into()));
                let (sent_at, limit) = (around.now, Duration::MAX);
                self.requests.push(Request { what: What::Read, sent_at, limit, answer: failed });
                return Ok(None);
            }
        };
        let rows: Vec<Row> =
            found.records().map(|(offset, reading)| (offset, number(reading))).collect();
        for (row, (_, record)) in rows.iter().zip(found.records()) {
            if record.mapped().is_some() {
                around.database.arrives(*row, record.timestamp());
            }
        }
        let found = rows.iter().copied().collect();
        around.ledger.read_batch(all, &found, &self.done, &lost_in(around.log))?;
        self.read.insert(batch, rows.clone());
        Ok(Some(rows))
    }

    fn note_flushed(to: Offset, around: &mut Around<'_>) -> Result<(), Violation> {
        if to <= around.ledger.flushed && around.mutant.is_some() {
            return Ok(());
        }
        around.trace.note(Happened::Flushed, to, 0);
        let stored = Stored { database: around.database, letters: around.letters };
        around.ledger.flush(to, &stored)?;
        around.log.flush_to(to);
        Ok(())
    }

    /// Whether the database is not the one that has what was confirmed.
    fn notices(&mut self, around: &Around<'_>) -> Result<(), SinkError> {
        let identity = Some(around.database.identity);
        if around.database.is_down || self.known == identity {
            return Ok(());
        }
        if around.mutant == Some(Mutant::NoResendAfterGoingBack) {
            self.known = identity;
            return Ok(());
        }
        self.found = identity;
        Err(SinkError::WentBack { reason: "it is another one".to_owned() })
    }

    /// Whether it knows the database for what it is.
    pub(crate) fn knows(&self, database: &Database) -> bool {
        self.known == Some(database.identity)
    }

    /// The database, or the disk, deals with one request.
    pub(crate) fn serve(&mut self, dice: &mut Dice, around: &mut Around<'_>) {
        let is_open = |at: &usize| self.requests[*at].answer.is_none();
        let open: Vec<usize> = (0..self.requests.len()).filter(is_open).collect();
        if open.is_empty() {
            return;
        }
        let at = dice.below(open.len());
        let noticed = match &self.requests[open[at]].what {
            What::Ping | What::Insert { .. } => self.notices(around),
            _ => Ok(()),
        };
        let request = &mut self.requests[open[at]];
        let answer = match &request.what {
            What::Prepare => Event::Prepared(around.database.prepare().map_err(unavailable)),
            What::Ping => {
                let answered = around.database.ping().map_err(unavailable);
                Event::Ponged(noticed.and(answered))
            }
            What::Rewind => {
                let rewound = around.log.rewind().unwrap();
                around.trace.note(Happened::Rewound, rewound.to, rewound.records);
                self.known = self.found.take();
                if around.mutant == Some(Mutant::RememberedTooEarly) {
                    *around.remembered = self.known;
                }
                Event::Rewound(rewound)
            }
            What::Insert { batch, rows, .. } => {
                let database = (&mut *around.database, around.now);
                let outcome =
                    noticed.and_then(|()| insert(rows, &mut self.careful, database, around.mutant));
                let took = around.now.saturating_sub(request.sent_at);
                Event::Inserted { batch: *batch, outcome, took }
            }
            What::Letter { batch, rows } => {
                if around.mutant == Some(Mutant::DroppedPoisonRow) {
                    Event::Lettered { batch: *batch, outcome: Lettered::Stored }
                } else {
                    letter(*batch, rows, around.letters)
                }
            }
            // Its answer was there with it.
            What::Read => return,
        };
        around.trace.note(Happened::Served, at as u64, code(&answer));
        request.answer = Some(answer);
    }

    /// One answer, or one that will never come, reaches the plan.
    pub(crate) fn answer(
        &mut self,
        dice: &mut Dice,
        around: &mut Around<'_>,
    ) -> Result<(), Violation> {
        let mut ready = (0..self.requests.len()).filter(|at| self.requests[*at].answer.is_some());
        let count = ready.clone().count();
        let Some(at) = (count > 0).then(|| ready.nth(dice.below(count))).flatten() else {
            return Ok(());
        };
        let request = self.requests.remove(at);
        let Some(answer) = request.answer else { return Ok(()) };
        if let Event::Rewound(rewound) = &answer {
            let found = around.log.read(rewound.to, around.ledger.flushed).unwrap_or_default();
            let found = found.records().map(|(offset, reading)| (offset, number(reading)));
            around.ledger.rewound(rewound.to, &found.collect());
            self.done.clear();
        }
        if matches!(answer, Event::Inserted { outcome: Ok(_), .. } | Event::Ponged(Ok(()))) {
            around.log.confirm(around.now.saturating_sub(request.sent_at));
        }
        self.conclude(&request.what, answer, around)
    }

    /// The connection under one request breaks, or takes too long: whether it was done is unknown.
    pub(crate) fn lose(
        &mut self,
        dice: &mut Dice,
        around: &mut Around<'_>,
    ) -> Result<(), Violation> {
        let remote: Vec<_> =
            (0..self.requests.len()).filter(|at| self.requests[*at].what.is_remote()).collect();
        if remote.is_empty() {
            return Ok(());
        }
        let request = self.requests.remove(remote[dice.below(remote.len())]);
        let (reason, sqlstate) = ("the connection broke".to_owned(), None);
        let error = match dice.below(3) {
            0 => SinkError::TimedOut { reason },
            _ => SinkError::Unavailable { reason, sqlstate },
        };
        self.fail(&request, error, around)
    }

    fn fail(
        &mut self,
        request: &Request,
        error: SinkError,
        around: &mut Around<'_>,
    ) -> Result<(), Violation> {
        self.careful = CAREFUL;
        around.trace.note(Happened::AnswerLost, u64::from(request.answer.is_some()), 0);
        let event = match request.what {
            What::Prepare => Event::Prepared(Err(error)),
            What::Ping => Event::Ponged(Err(error)),
            What::Insert { batch, .. } => {
                let took = around.now.saturating_sub(request.sent_at);
                Event::Inserted { batch, outcome: Err(error), took }
            }
            What::Letter { .. } | What::Read | What::Rewind => return Ok(()),
        };
        self.hear(event, around)
    }

    fn conclude(
        &mut self,
        what: &What,
        answer: Event,
        around: &mut Around<'_>,
    ) -> Result<(), Violation> {
        around.trace.note(Happened::Answered, code(&answer), 0);
        match (what, &answer) {
            (What::Insert { rows, .. }, Event::Inserted { outcome: Ok(one), .. }) => {
                self.stored += one.inserted + one.duplicates;
                let offsets = rows.iter().map(|(offset, _)| *offset);
                self.done.extend(offsets.filter(|offset| !one.swallowed.contains(offset)));
            }
            (What::Letter { rows, .. }, Event::Lettered { outcome: Lettered::Stored, .. }) => {
                self.stored += rows.len() as u64;
                self.done.extend(rows.iter().map(|(offset, _)| *offset));
            }
            _ => {}
        }
        if let (What::Insert { all_to, .. }, Event::Inserted { outcome: Ok(_), .. }) =
            (what, &answer)
            && around.mutant == Some(Mutant::TrimPastAGap)
        {
            Self::note_flushed(*all_to, around)?;
        }
        self.hear(answer, around)
    }
}

/// What the log has reported as lost.
pub(crate) fn lost_in(log: &Log) -> Vec<OffsetRange> {
    log.quarantined().unwrap().into_iter().flat_map(|report| report.lost_ranges).collect()
}

/// What anything but an insert may take.
const SHORT: Duration = Duration::from_secs(30);
