//! Where the database is: opening a connection to it.
//!
//! A name can have several addresses and a connection string several hosts, of which some are down,
//! do not even refuse, or are standbys. The driver tries one after the other, each for as long as
//! the operating system does, which is two minutes. Here the next one is tried as soon as one has
//! failed or been silent for [`HEAD_START`], and the first that works is taken.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connection_string::TargetSession;
use super::failure::Failure;
use super::session::{Session, Setting};
use super::settings::Settings;

mod greeting;
mod host;
mod relay;
mod renewal;

use host::Candidate;
use renewal::{Renewal, Target};

/// How long an address may be silent before the next is tried as well.
const HEAD_START: Duration = Duration::from_millis(500);

/// Where the database is and how to log in. Clones are one.
#[derive(Clone)]
pub(super) struct Server(Arc<Shared>);

struct Shared {
    renewal: Renewal,
    timeout: Duration,
    /// What worked last is tried first.
    preferred: Mutex<Option<String>>,
}

impl Server {
    pub(super) fn new(settings: &Settings) -> Result<Self, Failure> {
        Ok(Self(Arc::new(Shared {
            renewal: Renewal::new(settings)?,
            timeout: settings.connect_timeout,
            preferred: Mutex::default(),
        })))
    }

    /// Reads the login again, from where `settings` say now; returns the settings whose content has
    /// changed, and the version of the login that connections should have. Blocks on the disk.
    ///
    /// # Errors
    /// A sentence; then all stays as it was.
    pub(super) fn reload(&self, settings: &Settings) -> Result<(Vec<&'static str>, u64), String> {
        let changes = self.0.renewal.reload(settings)?;
        Ok((changes, self.0.renewal.current().version))
    }

    /// Opens a connection in which `settings` hold; returns the version of the login that it was opened
    /// with, too.
    ///
    /// # Errors
    /// [`Failure::Unavailable`], after the time for connecting at the latest.
    pub(super) async fn connect(
        &self,
        settings: &'static [Setting],
    ) -> Result<(Session, u64), Failure> {
        let deadline = Instant::now() + self.0.timeout;
        let shared = Arc::clone(&self.0);
        let renewed = tokio::task::spawn_blocking(move || shared.renewal.renew()).await;
        let target = renewed.unwrap_or_else(|_| self.0.renewal.current());
        let mut failures = Vec::new();
        let candidates = self.candidates(&target, &mut failures);
        let candidates = tokio::time::timeout_at(deadline, candidates).await;
        let race = Race { target: target.session, settings, deadline, failures };
        let (shown, session) = race
            .run(candidates.unwrap_or_default())
            .await
            .map_err(|failures| self.summary(failures))?;
        *self.0.preferred.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Ok((session, target.version))
    }

    /// Every address of every host, the one that worked last first.
    async fn candidates(&self, target: &Target, failures: &mut Vec<Failure>) -> Vec<Candidate> {
        let mut all = Vec::new();
        for host in &target.hosts {
            match host.candidates().await {
                Ok(candidates) => all.extend(candidates),
                Err(failure) => failures.push(failure),
            }
        }
        let preferred = self.0.preferred.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.sort_by_key(|candidate| Some(&candidate.shown) != preferred.as_ref());
        all
    }

    fn summary(&self, mut failures: Vec<Failure>) -> Failure {
        let sqlstate = failures.iter().find_map(Failure::sqlstate).map(str::to_owned);
        match failures.len() {
            0 => Failure::unavailable(format!(
                "{self:?} did not answer within {} s",
                self.0.timeout.as_secs()
            )),
            1 => failures.remove(0),
            _ => {
                let reasons: Vec<String> = failures.iter().map(Failure::to_string).collect();
                Failure::Unavailable { reason: reasons.join("; "), sqlstate }
            }
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.0.renewal.current();
        let hosts: Vec<String> = target.hosts.iter().map(|host| host.shown(None)).collect();
        f.write_str(&hosts.join(", "))
    }
}

/// All candidates, one after the other, the silent ones side by side.
struct Race {
    target: TargetSession,
    settings: &'static [Setting],
    deadline: Instant,
    failures: Vec<Failure>,
}

impl Race {
    /// The first that works; those under way are dropped then.
    async fn run(mut self, candidates: Vec<Candidate>) -> Result<(String, Session), Vec<Failure>> {
        let mut waiting = candidates.into_iter();
        let mut under_way = JoinSet::new();
        loop {
            if let Some(candidate) = waiting.next() {
                let (target, settings) = (self.target, self.settings);
                under_way.spawn(async move {
                    let shown = candidate.shown.clone();
                    candidate.connect(target, settings).await.map(|session| (shown, session))
                });
            } else if under_way.is_empty() {
                return Err(self.failures);
            }
            tokio::select! {
                Some(ended) = under_way.join_next() => match ended {
                    Ok(Ok(works)) => return Ok(works),
                    Ok(Err(failure)) => self.failures.push(failure),
                    Err(error) => self.failures.push(Failure::unavailable(error.to_string())),
                },
                () = tokio::time::sleep(HEAD_START), if waiting.len() > 0 => {}
                () = tokio::time::sleep_until(self.deadline) => return Err(self.failures),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_worked_last_is_tried_first() {
        let mut from = crate::base::settings::Sources::new(
            [("DATABASE_URL".to_owned(), "postgres://u@127.0.0.1:1,127.0.0.1:2/x".to_owned())]
                .into(),
            "",
        );
        let server = Server::new(&Settings::read(&mut from)).unwrap();
        *server.0.preferred.lock().unwrap() = Some("127.0.0.1:2".to_owned());
        let order = server.candidates(&server.0.renewal.current(), &mut Vec::new()).await;
        let shown: Vec<&str> = order.iter().map(|way| way.shown.as_str()).collect();
        assert_eq!(shown, ["127.0.0.1:2", "127.0.0.1:1"]);
    }
}
