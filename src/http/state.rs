//! What handlers hold.

use std::sync::Arc;

use super::access::Access;
use super::admin::replayer::Replayer;
use super::catalog::Tables;
use super::description::Description;
use super::inlet::Inlet;
use crate::base::metrics::Metrics;
use crate::base::time::Clock;
use crate::dead_letters::DeadLetters;
use crate::flusher::Control;
use crate::intake::seen::Seen;
use crate::postgres::Database;
use crate::recent::Recent;
use crate::status::health::Health;
use crate::status::history::History;
use crate::wal::Log;

/// What handlers may use.
#[derive(Clone)]
pub(crate) struct AppState {
    /// Which of several ingestors this is: what it calls itself to the broker.
    pub(crate) instance: Arc<str>,
    /// What time it is.
    pub(crate) clock: Arc<dyn Clock>,
    /// What `/metrics` shows.
    pub(crate) metrics: Metrics,
    /// What `/health/ready` shows.
    pub(crate) health: Arc<Health>,
    /// What rates and charts are made of.
    pub(crate) history: Arc<History>,
    /// Where telemetry and devices are read.
    pub(crate) database: Database,
    /// What they read from the log.
    pub(crate) recent: Arc<Recent>,
    /// The tables that can be asked for.
    pub(crate) tables: Arc<Tables>,
    /// What mappings have done.
    pub(crate) seen: Seen,
    /// The OpenAPI document of them.
    pub(crate) description: Description,
    /// Brings gauges that are only worth computing when somebody looks up to date; called before
    /// `/metrics` is rendered. It must not block.
    pub(crate) refresh: Arc<dyn Fn() + Send + Sync>,
    /// Who may ask.
    pub(crate) access: Arc<Access>,
    /// What waits to be flushed.
    pub(crate) log: Log,
    /// The flusher's handle.
    pub(crate) flusher: Arc<Control>,
    /// What was rejected.
    pub(crate) dead_letters: Arc<DeadLetters>,
    /// Puts readings into the log.
    pub(crate) inlet: Arc<Inlet>,
    /// Puts what was rejected back.
    pub(crate) replayer: Arc<Replayer>,
}
