//! Who runs, who is asked to stop, and who is stuck.
//!
//! Every task and thread has a name and is started here; one that ends unasked, or panics, brings
//! the process down in order. Whoever does work that could hang marks it as an [`Activity`].

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

/// Gives a [`Signal`], once.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// Something that happens once, for any number of waiters. A trigger that is gone counts as given.
#[derive(Clone, Debug)]
pub struct Signal(watch::Receiver<bool>);

/// A trigger and its signal.
#[must_use]
pub fn signal() -> (Trigger, Signal) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Signal(receiver))
}

impl Trigger {
    /// Gives the signal.
    pub fn give(&self) {
        self.0.send_replace(true);
    }
}

impl Signal {
    /// Whether it was given.
    #[must_use]
    pub fn is_given(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits until it is given. Can be dropped and called again at any time.
    pub async fn given(&mut self) {
        // An error means that the trigger is gone, which counts.
        drop(self.0.wait_for(|given| *given).await);
    }
}

/// A piece of work that ended.
#[derive(Debug)]
pub struct Ended {
    /// Its name.
    pub name: &'static str,
    /// How.
    pub outcome: anyhow::Result<()>,
}

/// Starts tasks and threads, and hears of their end.
pub struct Supervisor {
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
    pub fn task<F>(&mut self, name: &'static str, work: F)
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
    pub fn thread<F>(&mut self, name: &'static str, work: F) -> std::io::Result<()>
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
    pub async fn next_ended(&mut self) -> Option<Ended> {
        if self.running.is_empty() {
            return None;
        }
        let ended = self.ended.recv().await?;
        self.running.retain(|name| *name != ended.name);
        Some(ended)
    }

    /// Waits until everything called `name` has ended, for at most `patience`; what ended with an
    /// error is logged. False if it is still running.
    pub async fn await_end(&mut self, name: &str, patience: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + patience;
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
    pub fn take_failure(&mut self) -> Option<Ended> {
        self.failure.take()
    }

    /// What still runs.
    #[must_use]
    pub fn running(&self) -> &[&'static str] {
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

/// Whether somebody is at work, and since when. Clones share it.
#[derive(Clone, Debug)]
pub struct Activity {
    epoch: Instant,
    /// Milliseconds since `epoch`, plus one; 0 while idle.
    since: Arc<AtomicU64>,
}

impl Default for Activity {
    fn default() -> Self {
        Self { epoch: Instant::now(), since: Arc::default() }
    }
}

impl Activity {
    /// Work begins, or makes progress.
    pub fn begin(&self) {
        let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.since.store(now + 1, Ordering::Relaxed);
    }

    /// Work is done.
    pub fn end(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// How long the present work has made no progress.
    #[must_use]
    pub fn busy_for(&self) -> Duration {
        match self.since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => self.epoch.elapsed().saturating_sub(Duration::from_millis(since - 1)),
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

    #[tokio::test]
    async fn a_signal_reaches_those_who_wait_and_those_who_come_later() {
        let (trigger, signal) = signal();
        assert!(!signal.is_given());
        let mut waiter = signal.clone();
        let waiting = tokio::spawn(async move { waiter.given().await });
        trigger.give();
        waiting.await.unwrap();
        assert!(signal.is_given());
        signal.clone().given().await;
    }
}
