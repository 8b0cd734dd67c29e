//! The way from a request into the log, which is that of messages: through the intake, and known to be
//! durable before the request is answered.

use tokio::sync::{mpsc, oneshot};

use super::error::ApiError;
use crate::intake::queue::{Inbound, Replay, Replayed};
use crate::telemetry::Record;
use crate::telemetry::admit::Admission;

/// The way into the log.
pub(crate) struct Inlet {
    /// Weak, or the intake would wait for more at the end of the process.
    inbound: mpsc::WeakSender<Inbound>,
    /// What readings have to keep to.
    pub(super) admission: Admission,
}

impl Inlet {
    /// Through `inbound`, for what keeps to `admission`.
    #[must_use]
    pub(crate) fn new(inbound: mpsc::WeakSender<Inbound>, admission: Admission) -> Self {
        Self { inbound, admission }
    }

    /// Puts readings into the log; when this returns they are durable. `is_new`: they have never come before,
    /// and count as accepted.
    pub(super) async fn commit(&self, readings: Vec<Record>, is_new: bool) -> Result<(), ApiError> {
        let stopping =
            || ApiError::unavailable("the service is stopping; try again when it runs again");
        let (done, outcome) = oneshot::channel();
        let inbound = self.inbound.upgrade().ok_or_else(stopping)?;
        let sent = inbound.send(Inbound::Replay(Replay { readings, is_new, done })).await;
        drop(inbound);
        sent.map_err(|_| stopping())?;
        match outcome.await {
            Ok(Replayed::Committed) => Ok(()),
            Ok(Replayed::Full) => {
                Err(ApiError::unavailable("the log is full; try again when it has drained"))
            }
            Err(_) => Err(stopping()),
        }
    }
}
