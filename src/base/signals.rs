//! The signals that ask a process for something.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Listens for them from now on; needs a running runtime.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The name of the next one. Cancellation-safe.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// SIGHUP, which asks a process to read its files again.
pub(crate) struct Hangups(Signal);

impl Hangups {
    /// Listens for it from now on; needs a running runtime.
    ///
    /// # Errors
    /// If the handler cannot be installed.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Waits for the next one. Cancellation-safe.
    pub(crate) async fn next(&mut self) {
        self.0.recv().await;
    }
}
