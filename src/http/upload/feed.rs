//! Readings on their way from a body into the log, a group at a time.

use std::collections::HashMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::base::text::cut;
use crate::dead_letters::REASON_MAX_BYTES;
use crate::http::error::ApiError;
use crate::http::state::AppState;
use crate::intake::fitting;
use crate::postgres::Relation;
use crate::telemetry::Record;
use crate::telemetry::rejection::{Rejection, Tally};

/// Readings of a group, and their bytes, at which it is committed.
const GROUP_READINGS: usize = 2_000;
const GROUP_BYTES: usize = 1024 * 1024;

/// Rejections that are listed in an answer.
const LISTED: usize = 1_000;

/// What became of the readings of a body.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = UploadAnswer)]
pub(in crate::http) struct Uploaded {
    /// Readings that are in the log, durable.
    #[schema(example = 2)]
    accepted: u64,
    /// How many of those the table had already, by device and time, when they came; null if the database did
    /// not say. Only there if `count_known` was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    known: Option<KnownCount>,
    /// Readings that are stored nowhere, in their order, no more than 1000.
    rejected: Vec<Rejected>,
    /// How many those are; only there if they are more than are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<u64>, example = 1001)]
    rejected_total: Option<u64>,
}

/// How many the table had; `None` if the database did not say at least once.
#[derive(Clone, Copy, Debug, Serialize)]
struct KnownCount(Option<u64>);

/// A reading that is stored nowhere.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RejectedReading)]
struct Rejected {
    /// Its place among the readings of the body, from 0.
    #[schema(example = 2)]
    index: u64,
    /// What is wrong with it.
    #[schema(example = "temperature 400 is outside -50 to 100")]
    reason: String,
}

/// What is taken out of a body until it is in the log.
pub(super) struct Feed<'s> {
    state: &'s AppState,
    group: Vec<Record>,
    bytes: usize,
    /// What is wrong with readings that are not counted yet.
    tally: Tally,
    /// Of each mapping: stored, rejected, left alone; not counted yet.
    mapped: HashMap<usize, [u64; 3]>,
    next_index: u64,
    answer: Uploaded,
}

impl<'s> Feed<'s> {
    pub(super) fn new(state: &'s AppState, counts_known: bool) -> Self {
        let known = counts_known.then_some(KnownCount(Some(0)));
        let answer = Uploaded { known, ..Uploaded::default() };
        Self {
            state,
            group: Vec::new(),
            bytes: 0,
            tally: Tally::default(),
            mapped: HashMap::new(),
            next_index: 0,
            answer,
        }
    }

    /// Takes the next reading, or what is wrong with it.
    pub(super) fn take(&mut self, outcome: Result<Record, Rejection>) {
        match outcome.and_then(fitting) {
            Ok(record) => {
                self.next_index += 1;
                self.bytes += record.mapped().map_or(64, |row| row.bytes() + 64);
                self.group.push(record);
            }
            Err(rejection) => {
                self.tally.add(rejection.reason);
                self.pass(&rejection.message);
            }
        }
    }

    /// The next reading is stored nowhere, for a reason that is no fault of it.
    pub(super) fn pass(&mut self, reason: &str) {
        if self.answer.rejected.len() < LISTED {
            let reason = cut(reason, REASON_MAX_BYTES).into_owned();
            self.answer.rejected.push(Rejected { index: self.next_index, reason });
        } else {
            let all = self.answer.rejected_total.unwrap_or(LISTED as u64) + 1;
            self.answer.rejected_total = Some(all);
        }
        self.next_index += 1;
    }

    /// Notes what a mapping has made of a message: so many stored, rejected and left alone.
    pub(super) fn note(&mut self, mapping: usize, counts: [u64; 3]) {
        let all = self.mapped.entry(mapping).or_default();
        all.iter_mut().zip(counts).for_each(|(all, count)| *all += count);
    }

    /// Whether nothing but text that is no JSON has come, and the reason that stands first.
    pub(super) fn is_no_json(&self) -> Option<&str> {
        let is_of_syntax = self.tally.counts().all(|(reason, _)| is_of_syntax(reason));
        let is_empty = self.answer.accepted == 0 && self.group.is_empty();
        let first = self.answer.rejected.first()?;
        (is_empty && is_of_syntax && self.tally.total() == self.next_index)
            .then_some(&*first.reason)
    }

    /// Commits the group if it is large enough.
    pub(super) async fn commit_if_due(&mut self) -> Result<(), ApiError> {
        if self.group.len() >= GROUP_READINGS || self.bytes >= GROUP_BYTES {
            self.commit().await?;
        }
        Ok(())
    }

    /// Commits what there is.
    pub(super) async fn commit(&mut self) -> Result<(), ApiError> {
        let group = std::mem::take(&mut self.group);
        self.bytes = 0;
        let count = group.len() as u64;
        if count > 0 {
            // Asked before, or those just stored would be among them.
            let known = self.known(&group).await;
            self.state.inlet.commit(group, true).await?;
            self.answer.accepted += count;
            if let Some(KnownCount(all)) = &mut self.answer.known {
                *all = all.zip(known).map(|(all, known)| all + known);
            }
        }
        self.count(true);
        Ok(())
    }

    /// Counts what came of the readings since the last time; those that are good only if they are stored.
    fn count(&mut self, is_stored: bool) {
        let metrics = &self.state.metrics;
        for (reason, count) in std::mem::take(&mut self.tally).counts() {
            metrics.rejected(reason.as_str(), count);
        }
        let admission = &self.state.inlet.admission;
        for (mapping, [stored, rejected, ignored]) in self.mapped.drain() {
            let stored = if is_stored { stored } else { 0 };
            let counts = [("stored", stored), ("rejected", rejected), ("ignored", ignored)];
            for (outcome, count) in counts {
                metrics.mapped(admission.mapping_name(mapping), outcome, count);
            }
        }
    }

    async fn known(&self, group: &[Record]) -> Option<u64> {
        self.answer.known?.0?;
        if self.state.health.is_database_down() {
            return None;
        }
        let mut tables: HashMap<&str, Vec<&Record>> = HashMap::new();
        for record in group {
            tables.entry(record.table()).or_default().push(record);
        }
        let mut known = 0;
        for (table, records) in tables {
            let keys: Vec<_> =
                records.iter().map(|record| (record.device_id(), record.timestamp())).collect();
            known += self.state.database.known(&Relation::whole(table), &keys).await.ok()?;
        }
        Some(known)
    }

    /// The answer, once all is committed.
    pub(super) fn finish(mut self) -> Uploaded {
        std::mem::take(&mut self.answer)
    }

    /// Behind an error: how much of the body is stored all the same.
    pub(super) fn so_far(&self) -> String {
        match self.answer.accepted {
            0 => "none of it is stored".to_owned(),
            accepted => format!("{accepted} readings before that are stored"),
        }
    }
}

impl Drop for Feed<'_> {
    fn drop(&mut self) {
        // Of a body that is broken off, or that the log has no room for.
        self.count(false);
    }
}

pub(super) fn is_of_syntax(reason: crate::telemetry::rejection::Reason) -> bool {
    use crate::telemetry::rejection::Reason;
    matches!(reason, Reason::InvalidJson | Reason::NotUtf8)
}
