//! The metrics of the contract, in a registry that is passed on explicitly.
//!
//! No label carries a device or a topic: label values come from closed sets, which their owners know,
//! and each is created at the start so that it reads 0 ([`Metrics::declare`]).

mod builder;
mod distribution;

use prometheus::{
    Encoder, Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

use self::builder::Builder;
pub(crate) use self::distribution::Distribution;
use super::process::Process;

/// What stands for the name of a mapping where none takes a message; no mapping can be called so.
pub(crate) const NO_MAPPING: &str = "-";

/// One field a metric; names and meanings are those of the contract.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    pub(crate) messages: IntCounter,
    pub(crate) qos0_messages: IntCounter,
    pub(crate) valid_messages: IntCounter,
    pub(crate) invalid_messages: IntCounter,
    rejections: IntCounterVec,
    mappings: IntCounterVec,
    pub(crate) acks: IntCounter,
    pub(crate) redeliveries: IntCounter,
    pub(crate) db_inserts: IntCounter,
    pub(crate) duplicates: IntCounter,
    pub(crate) merged: IntCounter,
    pub(crate) swallowed_rows: IntCounter,
    pub(crate) resent_records: IntCounter,
    pub(crate) db_failures: IntCounter,
    dead_letters_total: IntCounterVec,
    pub(crate) dead_letters_evicted: IntCounter,
    pub(crate) mqtt_reconnects: IntCounter,
    pub(crate) log_lines_dropped: IntCounter,
    pub(crate) http_unauthorized: IntCounter,
    pub(crate) wal_salvaged_records: IntCounter,
    pub(crate) wal_lost_records: IntCounter,
    pub(crate) batch_size: IntGauge,
    pub(crate) wal_pending_records: IntGauge,
    pub(crate) wal_disk_bytes: IntGauge,
    pub(crate) wal_max_bytes: IntGauge,
    pub(crate) wal_left_bytes: IntGauge,
    pub(crate) wal_oldest_pending_seconds: Gauge,
    pub(crate) wal_full: IntGauge,
    pub(crate) dead_letters: IntGauge,
    pub(crate) silent_devices: IntGauge,
    dead_letter_bytes: IntGaugeVec,
    pub(crate) dead_letter_max_bytes: IntGauge,
    pub(crate) db_up: IntGauge,
    pub(crate) db_unsafe: IntGauge,
    pub(crate) partitions_ahead_seconds: Gauge,
    pub(crate) retention_removed_partitions: IntCounter,
    pub(crate) retention_removed_rows: IntCounter,
    pub(crate) retention_held_up: IntGauge,
    pub(crate) retention_last_success: Gauge,
    pub(crate) mqtt_connected: IntGauge,
    pub(crate) ingest_latency: Histogram,
    pub(crate) wal_commit: Histogram,
    pub(crate) wal_commit_records: Histogram,
    pub(crate) end_to_end_latency: Histogram,
}

const COMMIT_SECONDS: &[f64] = &[
    0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
];
const INSERT_SECONDS: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];
const COMMIT_RECORDS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0];
/// From a fast box to an outage of days.
const END_TO_END_SECONDS: &[f64] = &[
    0.005, 0.01, 0.02, 0.03, 0.05, 0.065, 0.08, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0, 300.0, 3_600.0,
    86_400.0,
];

impl Metrics {
    /// All metrics, registered and at 0.
    ///
    /// # Errors
    /// If two of them had the same name.
    #[expect(clippy::too_many_lines, reason = "a line or two for each metric, and nothing else")]
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let r = Builder::new(&registry);
        let rejections = r.counters("rejections_total", "Rejected readings by rule.", "reason")?;
        let dead_letters_total = r.counters(
            "dead_letters_total",
            "Dead letters written, by the stage that rejected the reading.",
            "stage",
        )?;
        let mappings = prometheus::IntCounterVec::new(
            prometheus::Opts::new(
                "ingestor_mapping_total",
                "Readings and messages, by mapping and outcome.",
            ),
            &["mapping", "outcome"],
        )?;
        registry.register(Box::new(mappings.clone()))?;
        let metrics = Self {
            mappings,
            messages: r.counter("messages_total", "MQTT messages received.")?,
            qos0_messages: r.counter(
                "qos0_messages_total",
                "MQTT messages received with QoS 0, which nobody sends again if they are lost on the way.",
            )?,
            valid_messages: r.counter("valid_messages_total", "Readings accepted into the log.")?,
            invalid_messages: r.counter(
                "invalid_messages_total",
                "Readings rejected by decoding or validation.",
            )?,
            rejections,
            acks: r.counter("acks_total", "PUBACKs and PUBRECs written to the broker.")?,
            redeliveries: r
                .counter("redeliveries_total", "Messages received with the DUP flag.")?,
            db_inserts: r.counter("db_inserts_total", "Rows inserted.")?,
            duplicates: r.counter("duplicates_total", "Rows that were already in the table.")?,
            merged: r.counter(
                "merged_total",
                "Rows of mappings that filled up one of the same device and time.",
            )?,
            swallowed_rows: r.counter(
                "swallowed_rows_total",
                "Rows that PostgreSQL confirmed but that are not in the table.",
            )?,
            resent_records: r.counter(
                "resent_records_total",
                "Records sent again because the database had lost them: failover, restore or crash.",
            )?,
            db_failures: r.counter(
                "db_failures_total",
                "Failed attempts to write a batch or to prepare the schema.",
            )?,
            dead_letters_total,
            dead_letters_evicted: r.counter(
                "dead_letters_evicted_total",
                "Dead letters dropped to keep the store within its size limit.",
            )?,
            mqtt_reconnects: r
                .counter("mqtt_reconnects_total", "Reconnections to the broker.")?,
            http_unauthorized: r.counter(
                "http_unauthorized_total",
                "HTTP requests with a missing or wrong token.",
            )?,
            log_lines_dropped: r
                .counter("log_lines_dropped_total", "Lines of log output dropped because they were not read in time.")?,
            wal_salvaged_records: r.counter(
                "wal_salvaged_records_total",
                "Records read back from damaged WAL generations.",
            )?,
            wal_lost_records: r
                .counter("wal_lost_records_total", "Records lost because damage made them unreadable.")?,
            batch_size: r.gauge("batch_size", "Rows in the last batch.")?,
            wal_pending_records: r
                .gauge("wal_pending_records", "Records committed to the log and not yet in the database.")?,
            wal_disk_bytes: r.gauge("wal_disk_bytes", "Bytes that the log takes on disk.")?,
            wal_max_bytes: r.gauge("wal_max_bytes", "Bytes at which the log counts as full.")?,
            wal_left_bytes: r.gauge(
                "wal_left_bytes",
                "Bytes by which the log may still grow, given its size limit and the free space of its filesystem.",
            )?,
            wal_oldest_pending_seconds: r.float_gauge(
                "wal_oldest_pending_seconds",
                "Age of the oldest pending record, 0 if none.",
            )?,
            wal_full: r.gauge("wal_full", "1 while the log is full and the ingestor stays away from the broker.")?,
            dead_letters: r.gauge("dead_letters", "Dead letters in the store.")?,
            silent_devices: r.gauge(
                "silent_devices",
                "Devices that have not sent anything for longer than they may; 0 if no time is set.",
            )?,
            dead_letter_bytes: r.gauges(
                "dead_letter_bytes",
                "Bytes that dead letters take on disk, by the stage that rejected the reading.",
                "stage",
            )?,
            dead_letter_max_bytes: r.gauge(
                "dead_letter_max_bytes",
                "Size limit of the dead-letter store, beyond which the oldest dead letters are dropped, except those of stage database.",
            )?,
            db_up: r.gauge("db_up", "1 while PostgreSQL answers.")?,
            db_unsafe: r.gauge(
                "db_unsafe",
                "Number of settings and table properties because of which PostgreSQL may lose rows that it has confirmed.",
            )?,
            partitions_ahead_seconds: r.float_gauge(
                "partitions_ahead_seconds",
                "Seconds from now for which partitions already exist; NaN if the table is not partitioned by time.",
            )?,
            retention_removed_partitions: r.counter(
                "retention_removed_partitions_total",
                "Partitions older than RETENTION_DAYS that were dropped.",
            )?,
            retention_removed_rows: r.counter(
                "retention_removed_rows_total",
                "Rows older than RETENTION_DAYS that were deleted one by one.",
            )?,
            retention_held_up: r.gauge(
                "retention_held_up",
                "1 while nothing is removed because it looks like a mistake, see GET /admin/retention.",
            )?,
            retention_last_success: r.float_gauge(
                "retention_last_success_timestamp_seconds",
                "When all that was older than RETENTION_DAYS was last removed, before that the start of the service; NaN without it.",
            )?,
            mqtt_connected: r.gauge("mqtt_connected", "1 while connected to the broker.")?,
            ingest_latency: r.histogram(
                "ingest_latency_seconds",
                "Duration of one batch insert.",
                INSERT_SECONDS,
            )?,
            wal_commit: r.histogram(
                "wal_commit_seconds",
                "Duration of one commit of the log, including fdatasync.",
                COMMIT_SECONDS,
            )?,
            wal_commit_records: r.histogram(
                "wal_commit_records",
                "Records per commit.",
                COMMIT_RECORDS,
            )?,
            end_to_end_latency: r.histogram(
                "end_to_end_latency_seconds",
                "Time from the receipt of a message until its rows are committed in PostgreSQL.",
                END_TO_END_SECONDS,
            )?,
            registry: registry.clone(),
        };
        registry.register(Box::new(Process::new()))?;
        Ok(metrics)
    }

    /// Makes the counters of rejections and dead letters read 0 for each of these label values.
    pub(crate) fn declare<'l, 'm>(
        &self,
        reasons: impl IntoIterator<Item = &'l str>,
        stages: impl IntoIterator<Item = &'l str>,
        mappings: impl IntoIterator<Item = &'m str>,
    ) {
        for reason in reasons {
            self.rejections.with_label_values(&[reason]);
        }
        for stage in stages {
            self.dead_letters_total.with_label_values(&[stage]);
        }
        for mapping in mappings {
            for outcome in ["stored", "rejected", "ignored"] {
                self.mappings.with_label_values(&[mapping, outcome]);
            }
        }
    }

    /// Counts readings that were rejected, in total and by the rule that they broke.
    pub(crate) fn rejected(&self, reason: &'static str, readings: u64) {
        self.invalid_messages.inc_by(readings);
        self.rejections.with_label_values(&[reason]).inc_by(readings);
    }

    /// Counts what became of a mapping's readings and messages.
    pub(crate) fn mapped(&self, mapping: &str, outcome: &'static str, count: u64) {
        self.mappings.with_label_values(&[mapping, outcome]).inc_by(count);
    }

    /// Counts a dead letter, by the stage that turned the reading away.
    pub(crate) fn dead_lettered(&self, stage: &'static str) {
        self.dead_letters_total.with_label_values(&[stage]).inc();
    }

    /// Says how many bytes dead letters of a stage take on disk.
    pub(crate) fn set_dead_letter_bytes(&self, stage: &'static str, bytes: i64) {
        self.dead_letter_bytes.with_label_values(&[stage]).set(bytes);
    }

    /// The share of the dead-letter store's bound that the dead letters of these stages take.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share, for a person")]
    pub(crate) fn dead_letter_share(&self, stages: &[&str]) -> f64 {
        let bytes = |stage: &&str| self.dead_letter_bytes.with_label_values(&[stage]).get();
        let bytes: i64 = stages.iter().map(bytes).sum();
        bytes as f64 / (self.dead_letter_max_bytes.get() as f64).max(1.0)
    }

    /// All commits since the start, by how long they took.
    #[must_use]
    pub(crate) fn commits(&self) -> Distribution {
        Distribution::of(&self.wal_commit, COMMIT_SECONDS)
    }

    /// All records stored since the start, by how long they took from receipt.
    #[must_use]
    pub(crate) fn ends_to_end(&self) -> Distribution {
        Distribution::of(&self.end_to_end_latency, END_TO_END_SECONDS)
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// If a metric has no valid text form.
    pub(crate) fn render(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_read_as_they_are() {
        let metrics = Metrics::new().unwrap();
        let before = metrics.commits();
        assert_eq!(metrics.commits().quantile_since(&before, 0.99), None);
        metrics.wal_commit.observe(0.004);
        let after = metrics.commits().quantile_since(&before, 1.0).unwrap();
        assert!((0.002..=0.005).contains(&after), "{after}");
        assert_eq!(metrics.ends_to_end(), metrics.ends_to_end());
    }
}
