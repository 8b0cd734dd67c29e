//! Appending and committing.

use std::iter::repeat;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ages::Now;
use super::heard::Heard;
use super::receipts::Places;
use super::state::{Shared, lock};
use super::stretches::Stretch;
use crate::base::time::Timestamp;
use crate::telemetry::Record;
use crate::wal::contract::Active;
use crate::wal::error::WalError;
use crate::wal::frame::{Block, encode_with_receipts};
use crate::wal::offset::Offset;
use crate::wal::receipt::{Receipt, of_block};

/// So many blocks are written at most before they are synced. Within a longer stretch sled rewrites
/// pages, takes the rewritten copies for safe although only an fdatasync makes them so, and writes
/// over the old ones: a power cut could then take blocks that were acknowledged long ago.
const BLOCKS_A_SYNC: usize = 32;

/// Measured with sled 0.34.7: in stretches of up to so many blocks none is overwritten.
const SAFE_STRETCH: usize = 140;

const _: () = assert!(BLOCKS_A_SYNC * 4 <= SAFE_STRETCH);

/// The writing end; there is one.
pub struct Writer {
    shared: Arc<Shared>,
    received_at: Vec<Timestamp>,
    readings: Vec<Record>,
    /// That of each of them that has one; empty if none has.
    receipts: Vec<Option<Receipt>>,
    /// Whether rows of mappings are among them.
    has_mapped: bool,
    /// Where the receipts of earlier groups lie.
    places: Places,
    /// The flushed offset in the newest durable block.
    removable: Offset,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, places: Places) -> Self {
        Self {
            shared,
            received_at: Vec::new(),
            readings: Vec::new(),
            receipts: Vec::new(),
            has_mapped: false,
            places,
            removable: 0,
        }
    }

    /// Adds a reading to the group that the next [`Self::commit`] makes durable.
    pub fn append(&mut self, received_at: Timestamp, reading: impl Into<Record>) {
        self.append_arrived(received_at, reading, None);
    }

    /// As [`Self::append`], of a row that has the time of its arrival, by the receipt of its message.
    pub fn append_arrived(
        &mut self,
        received_at: Timestamp,
        reading: impl Into<Record>,
        receipt: Option<Receipt>,
    ) {
        if receipt.is_some() || !self.receipts.is_empty() {
            self.receipts.resize(self.readings.len(), None);
            self.receipts.push(receipt);
        }
        self.received_at.push(received_at);
        let record = reading.into();
        self.has_mapped |= record.mapped().is_some();
        self.readings.push(record);
    }

    /// Makes everything appended so far durable and readable. An empty group costs nothing.
    ///
    /// # Errors
    /// If that is not certain. The log is poisoned then: no commit succeeds before a restart.
    pub fn commit(&mut self) -> Result<(), WalError> {
        if self.readings.is_empty() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        if shared.poisoned.load(Ordering::Acquire) {
            return Err(WalError::Poisoned);
        }
        self.sort_by_table();
        let started = shared.clock.monotonic();
        let mut end = lock(&shared.end);
        let Some(active) = &end.active else {
            self.abandon();
            return Err(WalError::DiskFull);
        };
        let flushed = lock(&shared.state).flushed;
        let group = Group {
            received_at: &self.received_at,
            readings: &self.readings,
            receipts: &self.receipts,
        };
        let written = write(&**active, end.next, flushed, &group);
        let (cuts, block_bytes) = match written {
            Ok(written) => written,
            Err(error) if error.is_disk_full() => {
                shared.close_full(&mut end);
                drop(end);
                self.abandon();
                return Err(WalError::DiskFull);
            }
            Err(error) => {
                shared.poisoned.store(true, Ordering::Release);
                return Err(error);
            }
        };
        self.removable = flushed;
        let records = self.readings.len();
        let mut readings = self.readings.drain(..);
        let mut received_at = self.received_at.drain(..);
        let mut receipts = self.receipts.as_slice();
        let mut blocks = Vec::with_capacity(cuts.len());
        for count in cuts {
            // That of the first; the others came with it, or soon after.
            let Some(first_received_at) = received_at.next() else { break };
            received_at.by_ref().take(count - 1).for_each(drop);
            let block = Block {
                first: end.next,
                received_at: first_received_at,
                readings: readings.by_ref().take(count).collect(),
                receipts: Vec::new(),
            };
            if let Some((of_these, behind)) = receipts.split_at_checked(count) {
                self.places.add(block.first, &of_block(of_these));
                receipts = behind;
            }
            end.next = block.end();
            blocks.push(block);
        }
        {
            let mut stretches = lock(&shared.stretches);
            blocks.iter().filter_map(Stretch::of).for_each(|stretch| stretches.push(stretch));
        }
        let heard = Heard::at(shared.clock.monotonic());
        let readings = blocks.iter().flat_map(|block| &block.readings);
        readings.for_each(|reading| shared.latest.offer(reading, heard));
        let now = Now::of(&*shared.clock);
        let mut state = lock(&shared.state);
        for block in blocks {
            state.ages.written(block.first, block.received_at, now);
            state.tail.push(block);
        }
        if let Some(active) = state.generations.get_mut(&end.first) {
            active.block_bytes += block_bytes;
        }
        // Before anybody can flush it.
        state.retention.keep_from(self.places.oldest(end.next));
        drop(state);
        self.receipts.clear();
        shared.write_positions(|positions| positions.committed = end.next);
        shared.committed.send_replace(end.next);
        let took = shared.clock.monotonic().saturating_sub(started);
        shared.metrics.wal_commit.observe(took.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a histogram's value")]
        shared.metrics.wal_commit_records.observe(records as f64);
        Ok(())
    }

    /// Puts what belongs into one table side by side, since a block holds rows of one alone. Within a
    /// table the order stays.
    fn sort_by_table(&mut self) {
        if !std::mem::take(&mut self.has_mapped) {
            return;
        }
        let mut kinds: Vec<Record> = Vec::new();
        let mut kind = |record: &Record| {
            let known = kinds.iter().position(|other| other.is_alike(record));
            known.unwrap_or_else(|| {
                kinds.push(record.clone());
                kinds.len() - 1
            })
        };
        let all = self.received_at.drain(..).zip(self.readings.drain(..));
        let receipts = self.receipts.drain(..).map(Some).chain(repeat(None));
        let mut all: Vec<_> = all
            .zip(receipts)
            .map(|((at, record), receipt)| (kind(&record), at, record, receipt))
            .collect();
        all.sort_by_key(|(kind, ..)| *kind);
        for (_, at, record, receipt) in all {
            self.received_at.push(at);
            self.readings.push(record);
            self.receipts.extend(receipt);
        }
    }

    /// Forgets what was appended and not committed.
    pub(crate) fn abandon(&mut self) {
        self.has_mapped = false;
        self.readings.clear();
        self.receipts.clear();
        self.received_at.clear();
    }

    /// Frees flushed blocks, starts a new generation if it is time, and checks the limits. To be
    /// called between commits, when nobody waits for an ack.
    ///
    /// # Errors
    /// If the log is poisoned, by this or before.
    pub fn maintain(&mut self) -> Result<(), WalError> {
        let shared = &self.shared;
        if shared.poisoned.load(Ordering::Acquire) {
            return Err(WalError::Poisoned);
        }
        let mut end = lock(&shared.end);
        let removable = self.removable.min(lock(&shared.state).retention.trimmed());
        let removed = end.active.as_ref().map_or(Ok(()), |active| active.remove_below(removable));
        match removed {
            Ok(()) => shared.roll_if_due(&mut end),
            Err(error) if error.is_disk_full() => shared.close_full(&mut end),
            Err(error) => {
                shared.poisoned.store(true, Ordering::Release);
                return Err(error);
            }
        }
        shared.check_room(end.active.is_some());
        Ok(())
    }
}

/// What a commit makes durable.
struct Group<'g> {
    received_at: &'g [Timestamp],
    readings: &'g [Record],
    receipts: &'g [Option<Receipt>],
}

/// Writes and syncs one group; returns how many records went into each block, and the bytes of
/// all of them.
fn write(
    active: &dyn Active,
    next: Offset,
    flushed: Offset,
    group: &Group<'_>,
) -> Result<(Vec<usize>, u64), WalError> {
    let mut cuts = Vec::new();
    let mut block_bytes = 0;
    let mut outcome = Ok(());
    let Group { received_at, readings, receipts } = *group;
    let mut insert = |first, count, frame: Vec<u8>| {
        if outcome.is_ok() && !cuts.is_empty() && cuts.len() % BLOCKS_A_SYNC == 0 {
            outcome = active.sync();
        }
        if outcome.is_ok() {
            outcome = active.insert(first, &frame);
        }
        cuts.push(count);
        block_bytes += frame.len() as u64;
    };
    encode_with_receipts(next, flushed, received_at, readings, receipts, &mut insert)
        .map_err(|source| WalError::Io { what: "encode a block", source })?;
    outcome?;
    active.sync()?;
    Ok((cuts, block_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::metrics::Metrics;
    use crate::base::time::SystemClock;
    use crate::telemetry::Reading;
    use crate::telemetry::mapping::{MappedReading, SilentAfter, TableShape};
    use crate::wal::engine::memory::MemoryStorage;
    use crate::wal::log::{Limits, open};

    fn record(table: Option<&str>, device_id: &str) -> Record {
        let timestamp = Timestamp::from_millis(1_759_667_696_000).unwrap();
        let device_id = device_id.to_owned();
        match table {
            None => Record::from(Reading { device_id, timestamp, values: [1.0, 2.0, 3.0] }),
            Some(name) => {
                let table = TableShape { name: name.to_owned(), columns: Vec::new() };
                let (table, cells) = (Arc::new(table), Vec::new());
                let silent_after = SilentAfter::OfTable;
                Record::from(MappedReading { table, device_id, timestamp, cells, silent_after })
            }
        }
    }

    #[test]
    fn a_group_stands_in_the_log_by_table_and_within_one_in_its_order() {
        let limits = Limits {
            max_bytes: u64::MAX,
            min_free_bytes: 0,
            generation_bytes: u64::MAX,
            retain: std::time::Duration::ZERO,
        };
        let metrics = Metrics::new().unwrap();
        let storage = Box::new(MemoryStorage::default());
        let (mut writer, log) =
            open(storage, Arc::new(SystemClock::default()), limits, &metrics).unwrap();
        let at = Timestamp::from_millis(1_759_667_696_000).unwrap();
        let group =
            [(Some("b"), "1"), (None, "2"), (Some("a"), "3"), (None, "4"), (Some("b"), "5")];
        for (table, device_id) in group {
            writer.append(at, record(table, device_id));
        }
        writer.commit().unwrap();
        let batch = log.read(0, 5).unwrap();
        let devices: Vec<_> = batch.records().map(|(_, record)| record.device_id()).collect();
        assert_eq!(devices, ["1", "5", "2", "4", "3"]);
        let offsets: Vec<_> = batch.records().map(|(offset, _)| offset).collect();
        assert_eq!(offsets, [0, 1, 2, 3, 4]);
    }
}
