//! The last value of each device, and the devices of which something waits.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::ask::{Ask, Key};
use super::certain::{Recent, RecentError, blocking, place};
use super::gather::{LogRow, RowValues};
use super::scan::{Found, LogPart};
use crate::base::time::Timestamp;
use crate::wal::WalError;
use crate::wal::log::{Last, LastValues, Latest};

/// Which devices, in what order.
pub(crate) struct DevicesAsk<F> {
    /// Of this table.
    pub(crate) table: String,
    /// Whether a name is asked for.
    pub(crate) matches: F,
    /// Only those that are silent, or only those that are not.
    pub(crate) silent: Option<bool>,
    /// By their latest reading, instead of by name.
    pub(crate) newest_first: bool,
    /// How many are passed over.
    pub(crate) offset: usize,
    /// How many are returned.
    pub(crate) limit: usize,
}

/// The last value of a device.
pub(crate) struct LastRow {
    /// As the table has it, or will.
    pub(crate) row: LogRow,
    /// Since anything of the device was received.
    pub(crate) silent_for: Duration,
}

impl Recent {
    /// The last value of each device.
    #[must_use]
    pub(crate) fn latest(&self) -> &Latest {
        self.log.latest()
    }

    /// The last value of `device_id`.
    #[must_use]
    pub(crate) fn last(&self, table: &str, device_id: &Arc<str>) -> Option<LogRow> {
        self.device(table, device_id).map(|device| device.row)
    }

    fn device(&self, table: &str, device_id: &Arc<str>) -> Option<LastRow> {
        let last = self.latest().get(table, device_id)?;
        let silent_for = last.heard.age(self.log.monotonic());
        let key = Key { timestamp: last.timestamp, device_id: Arc::clone(device_id) };
        let row = LogRow { key, values: RowValues::of_last(last.values) };
        Some(LastRow { row, silent_for })
    }

    /// Keeps a row of the table as the last value of its device, if that has none as new.
    pub(crate) fn keep_stored(
        &self,
        table: &str,
        device_id: &str,
        timestamp: Timestamp,
        values: LastValues,
    ) {
        self.log.offer_stored(table, device_id, timestamp, values);
    }

    /// What earlier processes have left of `table` was looked through, or of the log if it is none.
    pub(crate) fn note_found(&self, table: Option<&str>) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.insert(table.map(str::to_owned));
    }

    /// Whether the last value of every device of `table` is kept, as far as it has ever come to this table or
    /// this log.
    #[must_use]
    pub(crate) fn knows_all(&self, table: &str) -> bool {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let is_found = found.contains(&None) && found.contains(&Some(table.to_owned()));
        is_found && !self.latest().has_evicted()
    }

    /// Whether any device may count as silent.
    #[must_use]
    pub(crate) fn knows_silence(&self) -> bool {
        !self.silence.is_off()
    }

    /// How many devices were silent when they were last counted.
    #[must_use]
    pub(crate) fn silent(&self) -> u64 {
        self.silent.load(Ordering::Relaxed)
    }

    /// Counts the devices that are silent. Looks at all of them, a part at a time.
    pub(crate) fn count_silent(&self) -> u64 {
        let now = self.log.monotonic();
        let is_silent =
            |table: &str, last: &Last| self.silence.of_device(table, last, now).is_some();
        let silent = self.latest().count(is_silent);
        self.silent.store(silent, Ordering::Relaxed);
        silent
    }

    /// Reads a step further back in what earlier processes have left. Returns whether there is more. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn look_back(&self) -> Result<bool, WalError> {
        self.log.look_back()
    }

    /// The devices that are asked for, in their order, and how many match.
    ///
    /// # Errors
    /// See [`RecentError`].
    pub(crate) async fn devices<F>(
        self: &Arc<Self>,
        ask: DevicesAsk<F>,
    ) -> Result<(Vec<Arc<str>>, u64), RecentError>
    where
        F: Fn(&str) -> bool + Send + 'static,
    {
        let place = place(&self.places).await?;
        let recent = Arc::clone(self);
        let search = move |_: &CancellationToken| {
            let now = recent.log.monotonic();
            let matches = |name: &str, last: &Last| {
                let is_silent = || recent.silence.of_device(&ask.table, last, now).is_some();
                ask.silent.is_none_or(|wanted| is_silent() == wanted) && (ask.matches)(name)
            };
            let mut all = recent.latest().devices(&ask.table, matches);
            let total = all.len() as u64;
            if ask.newest_first {
                all.sort_unstable_by(|(a, at), (b, other)| {
                    (Reverse(at), a).cmp(&(Reverse(other), b))
                });
            } else {
                all.sort_unstable();
            }
            let page = all.into_iter().skip(ask.offset).take(ask.limit);
            (page.map(|(device_id, _)| device_id).collect(), total)
        };
        blocking(place, search).await
    }

    /// The last values of these devices, less those that are not kept any more.
    pub(crate) fn last_values(
        &self,
        table: &str,
        device_ids: &[Arc<str>],
    ) -> impl Iterator<Item = LastRow> {
        device_ids.iter().filter_map(|device_id| self.device(table, device_id))
    }

    /// The devices of `table` of which something waits that the database does not have, each with its last
    /// value, and where too much waits to look through others that were heard of meanwhile; and whether all of
    /// those that wait are among them.
    ///
    /// # Errors
    /// See [`RecentError`].
    pub(crate) async fn waiting<F>(
        &self,
        table: &str,
        matches: F,
    ) -> Result<(Vec<LogRow>, bool), RecentError>
    where
        F: Fn(&str) -> bool,
    {
        /// Readings that are looked at.
        const MOST: usize = 100_000;
        /// Devices that are added to theirs.
        const MOST_DEVICES: usize = 20_000;
        /// What the age of the oldest of them may be behind.
        const SLACK: Duration = Duration::from_secs(5);
        let ask = Ask {
            table: table.to_owned(),
            device_id: None,
            start: None,
            end: None,
            behind: None,
            wanted: 0,
            counted: MOST,
        };
        let Found { keys, is_counted, .. } = self.find(&Arc::new(ask), LogPart::Pending).await?;
        let mut names: HashSet<Arc<str>> = keys.into_iter().map(|key| key.device_id).collect();
        let mut is_all = is_counted;
        if !is_counted {
            // The others are among those that were heard of since the oldest of it came in.
            let (now, oldest) = (self.log.monotonic(), self.log.oldest_pending_seconds());
            let oldest = Duration::try_from_secs_f64(oldest).ok().filter(|age| !age.is_zero());
            let since = oldest.map_or(Duration::MAX, |age| age.saturating_add(SLACK));
            let is_heard = |name: &str, last: &Last| matches(name) && last.heard.age(now) <= since;
            let heard = self.latest().devices(table, is_heard);
            is_all = self.knows_all(table) && heard.len() <= MOST_DEVICES;
            names.extend(heard.into_iter().take(MOST_DEVICES).map(|(name, _)| name));
        }
        let matching = names.iter().filter(|name| matches(name));
        Ok((matching.filter_map(|name| self.last(table, name)).collect(), is_all))
    }
}
