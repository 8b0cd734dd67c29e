//! The last value of each device, and the devices of which something waits.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use super::ask::{Ask, Key};
use super::certain::{Recent, RecentError};
use super::gather::{LogRow, RowValues};
use super::scan::{Found, From};
use crate::wal::WalError;
use crate::wal::log::{Last, Latest};

/// Which devices, in what order.
pub struct DevicesAsk<F> {
    /// Of this table.
    pub table: String,
    /// Whether a name is asked for.
    pub matches: F,
    /// By their latest reading, instead of by name.
    pub newest_first: bool,
    /// How many are passed over.
    pub offset: usize,
    /// How many are returned.
    pub limit: usize,
}

impl Recent {
    /// The last value of each device.
    #[must_use]
    pub fn latest(&self) -> &Latest {
        self.log.latest()
    }

    /// The last value of `device_id`.
    #[must_use]
    pub fn last(&self, table: &str, device_id: &Arc<str>) -> Option<LogRow> {
        let Last { timestamp, values } = self.latest().get(table, device_id)?;
        let key = Key { timestamp, device_id: Arc::clone(device_id) };
        Some(LogRow { key, values: RowValues::of_last(values) })
    }

    /// Reads a step further back in what earlier processes have left. Returns whether there is more. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn look_back(&self) -> Result<bool, WalError> {
        self.log.look_back()
    }

    /// Devices by their last values, and how many match.
    ///
    /// # Errors
    /// See [`RecentError`].
    pub async fn devices<F>(
        self: &Arc<Self>,
        ask: DevicesAsk<F>,
    ) -> Result<(Vec<LogRow>, u64), RecentError>
    where
        F: Fn(&str) -> bool + Send + 'static,
    {
        let _place = self.places.acquire().await.map_err(|_| RecentError::BrokenOff)?;
        let recent = Arc::clone(self);
        let search = move || {
            let mut all = recent.latest().devices(&ask.table, &ask.matches);
            if ask.newest_first {
                all.sort_unstable_by(|(a, at), (b, other)| {
                    (Reverse(at), a).cmp(&(Reverse(other), b))
                });
            } else {
                all.sort_unstable();
            }
            let page = all.iter().skip(ask.offset).take(ask.limit);
            let rows = page.filter_map(|(device_id, _)| recent.last(&ask.table, device_id));
            (rows.collect(), all.len() as u64)
        };
        tokio::task::spawn_blocking(search).await.map_err(|_| RecentError::BrokenOff)
    }

    /// The devices of `table` of which something waits that the database does not have, each with its last
    /// value; and whether those are all of them.
    ///
    /// # Errors
    /// See [`RecentError`].
    pub async fn waiting<F>(
        &self,
        table: &str,
        matches: F,
    ) -> Result<(Vec<LogRow>, bool), RecentError>
    where
        F: Fn(&str) -> bool,
    {
        /// Readings that are looked at.
        const MOST: usize = 100_000;
        let ask = Ask {
            table: table.to_owned(),
            device_id: None,
            start: None,
            end: None,
            behind: None,
            wanted: 0,
            counted: MOST,
        };
        let Found { keys, is_counted, .. } = self.find(&Arc::new(ask), From::Flushed).await?;
        let names: HashSet<Arc<str>> = keys.into_iter().map(|key| key.device_id).collect();
        let matching = names.iter().filter(|name| matches(name));
        Ok((matching.filter_map(|name| self.last(table, name)).collect(), is_counted))
    }
}
