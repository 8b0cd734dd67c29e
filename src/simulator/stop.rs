//! The request to stop, and the time that has passed since.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Says when SIGINT or SIGTERM arrived.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Option<Instant>>);

impl Stop {
    /// Listens for the two signals from now on; needs a running runtime.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn on_signals() -> std::io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (sender, receiver) = watch::channel(None);
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            sender.send_replace(Some(Instant::now()));
            // Kept until nobody listens: a dropped sender would look like no request ever.
            sender.closed().await;
        });
        Ok(Self(receiver))
    }

    /// Whether the request was made.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits for the request; cancellation-safe.
    pub async fn requested(&self) {
        self.requested_at().await;
    }

    /// Waits until `grace` has passed since the request; cancellation-safe.
    pub async fn passed(&self, grace: Duration) {
        sleep_until(self.requested_at().await + grace).await;
    }

    async fn requested_at(&self) -> Instant {
        let mut receiver = self.0.clone();
        let requested = receiver.wait_for(Option::is_some).await.ok().and_then(|at| *at);
        match requested {
            Some(at) => at,
            None => std::future::pending().await,
        }
    }
}
