//! Counts the devices that are silent, for metrics and status.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::metrics::Metrics;
use crate::recent::Recent;

/// Between two counts,
const EVERY: Duration = Duration::from_secs(1);
/// and at least so many times as long as one takes: with very many devices that is a while.
const TIMES: u32 = 100;

/// Counts them for as long as the service runs, if any ever are.
pub(super) async fn count(recent: Arc<Recent>, metrics: Metrics) -> anyhow::Result<()> {
    if !recent.knows_silence() {
        return std::future::pending().await;
    }
    loop {
        let (counting, started) = (Arc::clone(&recent), Instant::now());
        let silent = tokio::task::spawn_blocking(move || counting.count_silent()).await?;
        metrics.silent_devices.set(i64::try_from(silent).unwrap_or(i64::MAX));
        tokio::time::sleep(EVERY.max(started.elapsed() * TIMES)).await;
    }
}
