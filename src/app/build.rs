//! Builds what the parts share; none of it runs yet, and none of it waits for the broker or the
//! database.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::mpsc;

use super::config::Config;
use crate::base::metrics::{Metrics, NO_MAPPING};
use crate::base::time::{Clock, SystemClock};
use crate::dead_letters::DeadLetters;
use crate::flusher::Control;
use crate::intake::arrivals::Arrivals;
use crate::intake::queue::Inbound;
use crate::intake::seen::Seen;
use crate::mqtt;
use crate::postgres::Database;
use crate::status::health::Health;
use crate::status::history::History;
use crate::telemetry::admit::{Admission, MappedTopics};
use crate::telemetry::mapping::{OwnTopics, Unmatched};
use crate::telemetry::rejection::{Reason, Stage};
use crate::wal::{self, LeftReceipts, Limits, Log, SledStorage, Writer};

/// Records of the log that were flushed last, of which the database is asked whether it has them.
const EXPECTED: u64 = 256;

/// What the parts share, and the two ends of the queue between MQTT and the log.
pub(super) struct Shared {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
    pub(super) health: Arc<Health>,
    pub(super) history: Arc<History>,
    pub(super) log: Log,
    pub(super) writer: Writer,
    pub(super) arrivals: Arrivals,
    pub(super) dead_letters: Arc<DeadLetters>,
    pub(super) database: Database,
    pub(super) control: Arc<Control>,
    pub(super) admission: Admission,
    pub(super) seen: Seen,
    pub(super) deliveries: mpsc::Sender<Inbound>,
    pub(super) inbound: mpsc::Receiver<Inbound>,
}

/// Opens the log and the dead letters, and makes the rest.
///
/// # Errors
/// If one of the two cannot be opened, or the database's settings are none.
pub(super) fn build(config: &Config) -> anyhow::Result<Shared> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let metrics = Metrics::new()?;
    let is_needed = |reason: &Reason| !config.mappings.is_empty() || !reason.is_of_mappings();
    metrics.declare(
        Reason::all().filter(is_needed).map(Reason::as_str),
        Stage::ALL.iter().map(|stage| stage.as_str()),
        mapping_names(config),
    );
    let health = Arc::new(Health::new(metrics.clone(), Arc::clone(&clock)));
    let (writer, log, arrivals) = open_log(config, &metrics, &clock)?;
    let history = Arc::new(History::new(&metrics, &log, Arc::clone(&clock)));
    let dir: &Path = &config.wal.dir;
    let dead_letters_dir = dir.join("dead-letters");
    let database = Database::new(&config.database, config.flusher.connections, Some(dir))?;
    let database = database.with_mappings(&config.mappings);
    database.expect(log.last_flushed(EXPECTED)?.records().map(|(_, reading)| reading));
    let dead_letters =
        DeadLetters::open(&dead_letters_dir, config.dead_letters.max_bytes, &metrics)?;
    let (deliveries, inbound) = mpsc::channel(config.intake.channel_size);
    Ok(Shared {
        health,
        history,
        log,
        writer,
        arrivals,
        dead_letters: Arc::new(dead_letters),
        database,
        control: Arc::new(Control::new(Arc::clone(&clock))),
        admission: Admission {
            max_payload_bytes: config.mqtt.max_payload_bytes,
            rules: config.rules.clone(),
            mapped: mapped(config),
        },
        seen: Seen::of(&config.mappings, Arc::clone(&clock)),
        deliveries,
        inbound,
        metrics,
        clock,
    })
}

/// Whose messages are counted.
fn mapping_names(config: &Config) -> impl Iterator<Item = &str> {
    let names = config.mappings.list.iter().map(|mapping| mapping.name.as_str());
    let drops = !config.mappings.is_empty() && config.mappings.unmatched == Unmatched::Drop;
    names.chain(drops.then_some(NO_MAPPING))
}

/// `None` without a mapping: then everything is of the built-in shape.
fn mapped(config: &Config) -> Option<Arc<MappedTopics>> {
    let mappings = config.mappings.clone();
    let own = OwnTopics::new(&config.mqtt.topics);
    (!mappings.is_empty()).then(|| Arc::new(MappedTopics { mappings, own }))
}

fn open_log(
    config: &Config,
    metrics: &Metrics,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<(Writer, Log, Arrivals)> {
    let started = clock.monotonic();
    let dir: &Path = &config.wal.dir;
    let limits = Limits {
        max_bytes: config.wal.max_bytes,
        min_free_bytes: config.wal.min_free_bytes,
        generation_bytes: config.wal.generation_bytes,
        retain: config.wal.retain,
    };
    let storage = SledStorage::open(dir).with_context(|| format!("WAL_DIR {}", dir.display()))?;
    let (storage, of_log) = (Box::new(storage), Arc::clone(clock));
    let opened = if config.mappings.use_arrival() {
        let are_needed = !mqtt::was_settled(dir, &config.mqtt);
        wal::log::open_with_receipts(storage, of_log, limits, metrics, are_needed)
    } else {
        let nothing_left = |(writer, log)| (writer, log, LeftReceipts::default());
        wal::log::open(storage, of_log, limits, metrics).map(nothing_left)
    };
    let (writer, log, left) = opened.with_context(|| format!("the log in {}", dir.display()))?;
    metrics.wal_max_bytes.set(i64::try_from(limits.max_bytes).unwrap_or(i64::MAX));
    let stats = log.stats();
    tracing::info!(
        dir = %dir.display(),
        pending_records = stats.pending_records,
        next_offset = stats.next_offset,
        generations = stats.generations.len(),
        disk_bytes = stats.disk_bytes,
        open_ms = clock.monotonic().saturating_sub(started).as_millis(),
        "log opened"
    );
    Ok((writer, log, Arrivals::after(left)))
}
