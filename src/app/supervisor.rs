//! Who runs, and what becomes of it.
//!
//! Every task and thread has a name and is started here; one that ends unasked, or panics, brings
//! the process down in order.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::future::Future;
use std::time::Duration;

use tokio::sync::mpsc;

/// A piece of work that ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its name.
    pub(super) name: &'static str,
    /// How.
    pub(super) outcome: anyhow::Result<()>,
}

/// Starts tasks and threads, and hears of their end.
pub(super) struct Supervisor {
    sender: mpsc::Sender<Ended>,
    ended: mpsc::Receiver<Ended>,
    running: Vec<&'static str>,
    failure: Option<Ended>,
}

/// More than are ever started.
const MAX_PARTS: usize = 16;

impl Default for Supervisor {
    fn default() -> Self {
        let (sender, ended) = mpsc::channel(MAX_PARTS);
        Self { sender, ended, running: Vec::new(), failure: None }
    }
}

impl Supervisor {
    /// Starts a task.
    pub(super) fn task<F>(&mut self, name: &'static str, work: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.running.push(name);
        let sender = self.sender.clone();
        let handle = tokio::spawn(work);
        tokio::spawn(async move {
            let outcome = handle.await.unwrap_or_else(|error| Err(anyhow::anyhow!(error)));
            drop(sender.send(Ended { name, outcome }).await);
        });
    }

    /// Starts a thread.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub(super) fn thread<F>(&mut self, name: &'static str, work: F) -> std::io::Result<()>
    where
        F: FnOnce() -> anyhow::Result<()> + Send + 'static,
    {
        let sender = self.sender.clone();
        let handle = std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
        self.running.push(name);
        std::thread::Builder::new().name(format!("{name}-end")).spawn(move || {
            let panicked = |_| Err(anyhow::anyhow!("panicked"));
            let outcome = handle.join().unwrap_or_else(panicked);
            drop(sender.blocking_send(Ended { name, outcome }));
        })?;
        Ok(())
    }

    /// The next part that ends. Can be dropped and called again at any time.
    pub(super) async fn next_ended(&mut self) -> Option<Ended> {
        if self.running.is_empty() {
            return None;
        }
        let ended = self.ended.recv().await?;
        self.running.retain(|name| *name != ended.name);
        Some(ended)
    }

    /// Waits until everything called `name` has ended, for at most `limit`; what ended with an
    /// error is logged. False if it is still running.
    pub(super) async fn await_end(&mut self, name: &str, limit: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + limit;
        while self.running.contains(&name) {
            match tokio::time::timeout_at(deadline, self.next_ended()).await {
                Ok(Some(ended)) => self.note(ended),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    fn note(&mut self, ended: Ended) {
        if ended.outcome.is_err() {
            ended.log_failure();
            self.failure.get_or_insert(ended);
        }
    }

    /// The first part that ended with an error while its end was awaited.
    pub(super) fn take_failure(&mut self) -> Option<Ended> {
        self.failure.take()
    }

    /// What still runs.
    #[must_use]
    pub(super) fn running(&self) -> &[&'static str] {
        &self.running
    }
}

impl Ended {
    /// Logs the error, if it ended with one.
    fn log_failure(&self) {
        if let Err(error) = &self.outcome {
            tracing::error!(
                part = self.name,
                error = format!("{error:#}"),
                "a part of the service failed"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_panics_is_reported_by_its_name() {
        let mut supervisor = Supervisor::default();
        supervisor.task("one", async { panic!("on purpose") });
        let ended = supervisor.next_ended().await.unwrap();
        assert_eq!(ended.name, "one");
        assert!(ended.outcome.is_err());
        supervisor.thread("two", || panic!("on purpose")).unwrap();
        assert!(supervisor.next_ended().await.unwrap().outcome.is_err());
        assert!(supervisor.next_ended().await.is_none());
    }
}
