//! Simulated devices that publish telemetry: the load for demonstrations, tests and sizing.
//!
//! One task does it all, because the order is the point: [`publisher`] asks [`fleet`] for the next
//! message when one is due and the window has room, hands it to the connection, and reads the
//! acknowledgements. Nothing is queued in between, so `published` and `acked` are what the broker
//! saw. [`progress`] prints them.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::base::output::Output;

mod device;
mod encode;
mod fleet;
mod outcome;
mod progress;
mod publisher;
mod settings;
mod shapes;

pub(crate) use outcome::Error;
pub use outcome::Summary;
pub use settings::{Settings, help};

use progress::Progress;
use publisher::Publisher;

/// How long a stop waits for the acknowledgements that are still missing.
const GRACE: Duration = Duration::from_secs(5);

/// Publishes until `MESSAGE_COUNT` messages are acknowledged or `stop` is cancelled.
///
/// # Errors
/// See [`Error`].
pub async fn run(
    settings: &Settings,
    stop: &CancellationToken,
    output: &Output,
) -> Result<Summary, Error> {
    let progress = Progress::new(output);
    let mut publisher = Publisher::new(settings, &progress)?;
    let grace = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        outcome = publisher.run(stop) => outcome?,
        () = grace => publisher.give_up(),
        () = progress.report(settings.progress_interval) => {}
    }
    publisher.disconnect().await;
    progress.clear();
    Ok(publisher.summary())
}
