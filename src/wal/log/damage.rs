//! Saying what is lost: once for each range of offsets, in the process's log output, in the metrics and
//! in the report that goes into quarantine with the generation.

use super::state::{Shared, lock};
use crate::base::metrics::Metrics;
use crate::wal::contract::{Quarantined, Sealed};
use crate::wal::offset::{Offset, OffsetRange, merged, without};

impl Shared {
    /// Reports what is missing in the generation `first`, as far as that is news.
    pub(super) fn report_damage(&self, first: Offset, sealed: &Sealed) {
        let mut state = lock(&self.state);
        let Some(generation) = state.generations.get_mut(&first) else { return };
        let known = generation.damage.as_ref().map(|damage| damage.lost_ranges.clone());
        let is_first = known.is_none();
        let lost = without(&sealed.lost, &known.unwrap_or_default());
        if lost.is_empty() {
            return;
        }
        let mut report = Quarantined {
            salvaged_records: sealed.records,
            unknown_version: sealed.unknown_version,
            ..Quarantined::new(first, self.clock.wall(), lost)
        };
        generation.damage = Some(match generation.damage.take() {
            Some(damage) => with_more(damage, &report.lost_ranges),
            None => report.clone(),
        });
        drop(state);
        if is_first {
            report_generation(&report);
            self.metrics.wal_salvaged_records.inc_by(sealed.records);
        }
        report.lost_ranges = merged(report.lost_ranges);
        report_lost(&report, &self.metrics);
    }

    /// Reports a range of offsets that turned out to be damaged after its generation was opened. Those
    /// that were flushed by then are missed by nobody.
    pub(super) fn report_unreadable(&self, first: Offset, range: OffsetRange) {
        let mut state = lock(&self.state);
        let range = OffsetRange { from: range.from.max(state.flushed), to: range.to };
        if range.from > range.to {
            return;
        }
        let Some(generation) = state.generations.get_mut(&first) else { return };
        let at = self.clock.wall();
        let damage = generation.damage.take();
        let damage = damage.unwrap_or_else(|| Quarantined::new(first, at, Vec::new()));
        let lost = without(&[range], &damage.lost_ranges);
        generation.damage = Some(with_more(damage, &lost));
        drop(state);
        report_lost(&Quarantined::new(first, at, lost), &self.metrics);
    }
}

fn with_more(mut damage: Quarantined, lost: &[OffsetRange]) -> Quarantined {
    damage.lost_ranges.extend(lost);
    damage.lost_ranges = merged(damage.lost_ranges);
    damage
}

fn report_generation(report: &Quarantined) {
    let (generation, salvaged_records) = (&report.id, report.salvaged_records);
    let lost_ranges = report.lost_ranges.len();
    match report.unknown_version {
        None => tracing::error!(
            generation,
            salvaged_records,
            lost_ranges,
            "a WAL generation is damaged: what is intact in it is stored as usual, then it is set aside in quarantine"
        ),
        Some(block_version) => tracing::error!(
            generation,
            block_version,
            salvaged_records,
            lost_ranges,
            "a WAL generation was written by a newer version of this program: what this one can read of it is stored as usual, then it is set aside in quarantine, where it stays until somebody exports it with the newer version"
        ),
    }
}

/// Each range is one line of the log output.
pub(super) fn report_lost(report: &Quarantined, metrics: &Metrics) {
    for lost in &report.lost_ranges {
        metrics.wal_lost_records.inc_by(lost.records());
        let (generation, OffsetRange { from, to }) = (&report.id, *lost);
        if report.unknown_version.is_some() {
            tracing::error!(
                generation,
                from,
                to,
                "offsets cannot be read by this version: these readings are set aside in quarantine and will not reach the database from here"
            );
        } else {
            tracing::error!(
                generation,
                from,
                to,
                "offsets lost to damage: these readings cannot be read back and will not reach the database"
            );
        }
    }
}
