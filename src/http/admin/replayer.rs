//! Puts dead letters back into the log.
//!
//! A letter is removed only once its readings are durable in the log. A process that ends between
//! the two leaves a letter whose replay finds its rows in the table already. So does one that holds a whole
//! message of which a part is still bad: what is good of it is put into the log, and it stays for the rest.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use serde::de::IgnoredAny;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::blocking::blocking;
use super::letter_id::NO_LETTER;
use crate::base::text::is_cut;
use crate::base::time::Timestamp;
use crate::dead_letters::{
    DeadLetter, DeadLetterError, DeadLetters, PAYLOAD_MAX_BYTES, TOPIC_MAX_BYTES,
};
use crate::http::error::ApiError;
use crate::http::inlet::Inlet;
use crate::intake::fitting;
use crate::intake::group::GROUP_READINGS;
use crate::telemetry::Record;
use crate::telemetry::admit::Again;
use crate::telemetry::mapping::{MappedReading, Message};
use crate::telemetry::rejection::{Reason, Rejection, Stage};
use crate::telemetry::validate::TimeOfDay;

/// Letters that are read, and put back, at once.
const STEP: usize = 32;

/// Puts dead letters back into the log, as good as new.
pub(crate) struct Replayer {
    inlet: Arc<Inlet>,
    dead_letters: Arc<DeadLetters>,
    /// One replay at a time, so that no letter goes into the log twice.
    turn: Mutex<()>,
}

impl Replayer {
    /// Replays through `inlet`, by what messages have to keep to.
    #[must_use]
    pub(crate) fn new(inlet: Arc<Inlet>, dead_letters: Arc<DeadLetters>) -> Self {
        Self { inlet, dead_letters, turn: Mutex::new(()) }
    }

    /// Replays the letter `id`; returns how many of its readings are in the log, and why it is kept, if it is.
    pub(super) async fn one(&self, id: u64) -> Result<(usize, Option<String>), ApiError> {
        let _turn = self.turn.lock().await;
        let store = Arc::clone(&self.dead_letters);
        let letter = blocking(move || store.get(id)).await?.ok_or(NO_LETTER)?;
        let Again { records, fault } = self.read(&letter);
        let count = records.len();
        if count > 0 {
            self.inlet.commit(records, false).await?;
        }
        if fault.is_none() {
            self.remove(vec![id]).await?;
        }
        Ok((count, fault.map(|rejection| rejection.message.into_owned())))
    }

    /// Replays as many letters as there are now, from the oldest on.
    pub(super) async fn all(&self, tally: &mut ReplayedLetters) -> Result<(), ApiError> {
        let _turn = self.turn.lock().await;
        let mut after = None;
        let mut left = None;
        loop {
            let store = Arc::clone(&self.dead_letters);
            let page = blocking(move || store.page(after, STEP)).await?;
            let before = left.unwrap_or(page.total);
            let mut step = Step::default();
            for letter in &page.letters {
                let Again { records, fault } = self.read(letter);
                step.take(letter.id, records, fault.is_none());
                // A letter may unpack to very many.
                if step.readings.len() >= GROUP_READINGS {
                    self.carry_out(std::mem::take(&mut step), tally).await?;
                }
            }
            self.carry_out(step, tally).await?;
            after = page.next;
            left = before.checked_sub(STEP as u64).filter(|left| *left > 0);
            if after.is_none() || left.is_none() {
                return Ok(());
            }
        }
    }

    /// Puts into the log what is good of some letters, and then removes those that are good as a whole.
    async fn carry_out(&self, step: Step, tally: &mut ReplayedLetters) -> Result<(), ApiError> {
        let Step { readings, good, bad, in_part } = step;
        if !readings.is_empty() {
            self.inlet.commit(readings, false).await?;
        }
        tally.replayed += good.len() as u64;
        tally.in_part += in_part;
        if !good.is_empty() {
            self.remove(good).await?;
        }
        tally.still_bad += bad;
        Ok(())
    }

    /// What is good now of a letter, and what is not.
    fn read(&self, letter: &DeadLetter) -> Again {
        let Again { records, fault } = self.decode(letter);
        let kept = letter.payload.len();
        if kept >= PAYLOAD_MAX_BYTES && kept <= self.inlet.admission.max_payload_bytes {
            // Where it was cut off, what looks good may be half of a value.
            let kept = format!("only the first {PAYLOAD_MAX_BYTES} bytes of its payload were kept");
            if let Some(Rejection { reason, message }) = fault {
                return unfit(reason, format!("{message}; {kept}"));
            }
            if may_go_on(&letter.payload) {
                return unfit(
                    Reason::PayloadTooLarge,
                    format!("{kept}, and more may have followed"),
                );
            }
        }
        let mut again = Again { records: Vec::with_capacity(records.len()), fault };
        for record in records {
            match fitting(record) {
                Ok(record) => again.records.push(record),
                Err(rejection) => again.fault = again.fault.or(Some(rejection)),
            }
        }
        again
    }

    fn decode(&self, letter: &DeadLetter) -> Again {
        let clock = TimeOfDay::at(Timestamp::now());
        let admission = &self.inlet.admission;
        let DeadLetter { topic, payload, received_at, .. } = letter;
        if letter.stage != Stage::Database.as_str() {
            // A level that is not there any more may be the one that a mapping makes the device of.
            if admission.mapped.is_some() && is_cut(topic, TOPIC_MAX_BYTES) {
                let what = format!(
                    "only the first {TOPIC_MAX_BYTES} bytes of its topic were kept, and mappings need the whole topic; publish the message again"
                );
                return unfit(Reason::InvalidTopic, what);
            }
            let received_at = *received_at;
            let message = Message { topic, payload, is_retained: false, received_at };
            return admission.receive_again(message, clock);
        }
        // An acknowledged reading: no mapping is asked again.
        if let Some(row) = MappedReading::from_json(payload) {
            return Again { records: vec![row.into()], fault: None };
        }
        match admission.admit_all(payload, clock) {
            Ok(all) => Again { records: all.into_iter().map(Record::from).collect(), fault: None },
            Err(Rejection { reason, message }) => unfit(reason, message),
        }
    }

    /// Removes letters whose readings are in the log, as far as nobody else has.
    async fn remove(&self, ids: Vec<u64>) -> Result<(), ApiError> {
        let store = Arc::clone(&self.dead_letters);
        blocking(move || {
            for id in ids {
                store.remove(id)?;
            }
            Ok::<_, DeadLetterError>(())
        })
        .await
    }
}

/// The outcome of replaying all dead letters.
#[derive(Clone, Copy, Default, Serialize, ToSchema)]
pub(in crate::http) struct ReplayedLetters {
    /// Dead letters whose readings are in the log, and that were removed.
    #[schema(example = 12)]
    pub(super) replayed: u64,
    /// Dead letters that are still invalid, in all or in part, and were kept.
    #[schema(example = 3)]
    pub(super) still_bad: u64,
    /// Those of them of which a part is in the log.
    #[serde(skip)]
    pub(super) in_part: u64,
}

/// Letters that are replayed with one commit.
#[derive(Default)]
struct Step {
    readings: Vec<Record>,
    /// Those of which nothing is left.
    good: Vec<u64>,
    bad: u64,
    in_part: u64,
}

impl Step {
    fn take(&mut self, id: u64, records: Vec<Record>, is_good: bool) {
        if is_good {
            self.good.push(id);
        } else {
            self.bad += 1;
            self.in_part += u64::from(!records.is_empty());
        }
        self.readings.extend(records);
    }
}

fn unfit(reason: Reason, what: impl Into<Cow<'static, str>>) -> Again {
    Again { records: Vec::new(), fault: Some(Rejection::new(reason, what)) }
}

/// Whether a payload may be the beginning of one that means more: of lines each is whole by itself.
fn may_go_on(payload: &[u8]) -> bool {
    std::str::from_utf8(payload).is_ok() && serde_json::from_slice::<IgnoredAny>(payload).is_err()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::sync::mpsc;

    use super::*;
    use crate::base::metrics::Metrics;
    use crate::base::settings::Sources;
    use crate::dead_letters::NewDeadLetter;
    use crate::intake::queue::{Inbound, Replayed};
    use crate::telemetry::admit::{Admission, MappedTopics};
    use crate::telemetry::mapping::{Mappings, OwnTopics};
    use crate::telemetry::validate::Rules;

    const MAPPINGS: &str = "
[[default.mapping]]
name = \"m\"
topic = \"m/{d}\"
each = \"[*]\"
device = \"{d}\"
time = \"received\"
fields = { a = { max = 5 } }

[[default.mapping]]
name = \"rows\"
topic = \"rows/#\"
format = \"csv\"
columns = [\"a\"]
device = \"r\"
time = \"received\"
fields = [\"a\"]
";

    fn admission() -> Admission {
        let mut from = Sources::new(BTreeMap::new(), MAPPINGS);
        let mappings = Mappings::read(&mut from);
        let rules = Rules::read(&mut from);
        from.finish().unwrap();
        let own = OwnTopics::new(&["telemetry/#".to_owned()]);
        let mapped = Some(Arc::new(MappedTopics { mappings, own }));
        Admission { max_payload_bytes: 1 << 20, rules, mapped }
    }

    fn letter<'p>(topic: &'p str, payload: &'p [u8]) -> NewDeadLetter<'p> {
        NewDeadLetter {
            received_at: Timestamp::from_millis(1_759_667_696_000).unwrap(),
            topic,
            stage: Stage::Validate,
            reason: "hot".to_owned(),
            payload,
            is_unmatched: false,
        }
    }

    struct Setup {
        replayer: Replayer,
        store: Arc<DeadLetters>,
        /// What comes in: the times of the records.
        inbound: mpsc::Receiver<Inbound>,
        /// So that the replayer can send.
        _sender: mpsc::Sender<Inbound>,
        _dir: tempfile::TempDir,
    }

    impl Setup {
        fn with(letters: &[NewDeadLetter<'_>]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = DeadLetters::open(dir.path(), 1 << 20, &Metrics::new().unwrap()).unwrap();
            store.append(letters).unwrap();
            let store = Arc::new(store);
            let (sender, inbound) = mpsc::channel(1);
            let inlet = Arc::new(Inlet::new(sender.downgrade(), admission()));
            let replayer = Replayer::new(inlet, Arc::clone(&store));
            Self { replayer, store, inbound, _sender: sender, _dir: dir }
        }

        /// Replays all; the outcome and the times of what went into the log, after the first of the letters.
        async fn all(&mut self, outcome: Replayed) -> (Result<(u64, u64), ApiError>, Vec<i64>) {
            let mut tally = ReplayedLetters::default();
            let mut committed = Vec::new();
            let first = letter("", b"").received_at.as_micros();
            let done = {
                let all = self.replayer.all(&mut tally);
                tokio::pin!(all);
                loop {
                    tokio::select! {
                        done = &mut all => break done,
                        Some(Inbound::Replay(replay)) = self.inbound.recv() => {
                            // Whatever is put into the log is still a letter then.
                            assert!(self.store.page(None, 99).unwrap().total > 0);
                            let time = |one: &Record| one.timestamp().as_micros() - first;
                            committed.extend(replay.readings.iter().map(time));
                            replay.done.send(outcome).unwrap();
                        }
                    }
                }
            };
            (done.map(|()| (tally.replayed, tally.still_bad)), committed)
        }

        fn left(&self) -> u64 {
            self.store.page(None, 99).unwrap().total
        }
    }

    #[tokio::test]
    async fn what_is_good_of_a_letter_goes_into_the_log_and_the_letter_stays_for_the_rest() {
        let bad = br#"[{"a":9},{"a":1},{"a":"x"},{"a":2}]"#;
        let mut setup = Setup::with(&[letter("m/d", bad), letter("m/d", br#"[{"a":3}]"#)]);
        let (outcome, _) = setup.all(Replayed::Full).await;
        assert!(matches!(outcome, Err(ApiError::Unavailable(_))), "{outcome:?}");
        assert_eq!(setup.left(), 2);
        assert_eq!(setup.all(Replayed::Committed).await, (Ok((1, 1)), vec![1, 3, 0]));
        assert_eq!(setup.left(), 1);
        // The same rows again.
        assert_eq!(setup.all(Replayed::Committed).await, (Ok((0, 1)), vec![1, 3]));
        assert_eq!(setup.left(), 1);
    }
    #[tokio::test]
    async fn what_was_cut_off_is_not_taken_for_a_whole_message() {
        let rows = "1\n".repeat(PAYLOAD_MAX_BYTES);
        let topic = |bytes: usize| format!("rows/{}", "d".repeat(bytes - "rows/".len()));
        let long = topic(TOPIC_MAX_BYTES + 1);
        let whole = topic(TOPIC_MAX_BYTES);
        let mut setup = Setup::with(&[
            letter("rows/d", rows.as_bytes()),
            letter(&long, b"1"),
            letter(&whole, b"1"),
            letter("rows/d", &rows.as_bytes()[..PAYLOAD_MAX_BYTES - 1]),
        ]);
        let (outcome, committed) = setup.all(Replayed::Committed).await;
        assert_eq!((outcome, committed.len()), (Ok((2, 2)), 1 + PAYLOAD_MAX_BYTES / 2));
        let left = setup.store.page(None, 99).unwrap().letters;
        let faults =
            left.iter().map(|letter| setup.replayer.read(letter).fault.unwrap().to_string());
        let faults: Vec<_> = faults.collect();
        assert!(faults[0].contains("first 65536 bytes of its payload"), "{}", faults[0]);
        assert!(faults[1].contains("first 256 bytes of its topic"), "{}", faults[1]);
    }
}
