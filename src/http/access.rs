//! Who may ask: the bearer tokens of `/admin` and of what is read, and what becomes of wrong ones.
//!
//! A wrong token costs whoever sent it a pause that grows with each, and the log one line a minute. A
//! token that is merely missing is counted and no more: nobody has tried one.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use rocket::Request;
use rocket::http::Status;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::failed_attempts::FailedAttempts;
use crate::base::metrics::Metrics;
use crate::base::settings::Secret;

/// The tokens, which can change while the service runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// Of `/admin`, and of all else; `None`: nobody may use `/admin`.
    pub(crate) admin: Option<Secret>,
    /// Of what is read; `None`: anybody may.
    pub(crate) read: Option<Secret>,
}

/// Tells who may ask.
pub(crate) struct Access {
    tokens: RwLock<Tokens>,
    failed_attempts: Mutex<FailedAttempts>,
    metrics: Metrics,
}

impl Access {
    pub(crate) fn new(tokens: Tokens, metrics: Metrics) -> Self {
        Self { tokens: RwLock::new(tokens), failed_attempts: Mutex::default(), metrics }
    }

    /// Whether anybody may use `/admin`.
    pub(super) fn is_admin_enabled(&self) -> bool {
        self.tokens().admin.is_some()
    }

    /// From now on these; returns the settings that are others than before.
    pub(super) fn set(&self, tokens: Tokens) -> Vec<&'static str> {
        let mut current = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, tokens);
        let all = [
            ("ADMIN_TOKEN", before.admin != current.admin),
            ("READ_TOKEN", before.read != current.read),
        ];
        all.into_iter().filter(|(_, has_changed)| *has_changed).map(|(name, _)| name).collect()
    }

    pub(super) fn tokens(&self) -> Tokens {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says what is due of the wrong tokens that came in; to be called now and then.
    pub(super) fn report(&self) {
        let due = self.failed_attempts().due(Instant::now());
        if let Some((requests, last)) = due {
            tracing::warn!(requests, last_address = %last, "requests came with a wrong token and were refused");
        }
    }

    fn failed_attempts(&self) -> MutexGuard<'_, FailedAttempts> {
        self.failed_attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a refusal, and waits as long as a wrong token costs.
    pub(super) async fn refuse(&self, request: &Request<'_>) -> (Status, ()) {
        self.metrics.http_unauthorized.inc();
        if let (Some(_), Some(remote)) = (sent(request), request.remote()) {
            let pause = self.failed_attempts().record(remote.ip(), Instant::now());
            self.report();
            tokio::time::sleep(pause).await;
        }
        (Status::Unauthorized, ())
    }
}

/// The token that came with a request.
pub(super) fn sent<'r>(request: &'r Request<'_>) -> Option<&'r str> {
    request.headers().get_one("Authorization").and_then(bearer)
}

/// The token of an `Authorization` header; the name of the scheme is in any case (RFC 9110, 11.1).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start())
}

/// Takes as long whatever the secret is: digests have one length.
pub(super) fn is_same(sent: &str, secret: &str) -> bool {
    Sha256::digest(sent).ct_eq(&Sha256::digest(secret)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_read_out_of_its_header() {
        for header in ["Bearer a.b-c", "bearer a.b-c", "BEARER  a.b-c ", " Bearer a.b-c"] {
            assert_eq!(bearer(header), Some("a.b-c"), "{header:?}");
        }
        for header in ["", "Bearer", "a.b-c", "Basic YTpi", "Bearera.b-c", "Token a.b-c"] {
            assert_eq!(bearer(header), None, "{header:?}");
        }
    }

    #[test]
    fn only_the_token_itself_is_the_token() {
        assert!(is_same("secret", "secret"));
        for sent in ["", "s", "secre", "secrets", "Secret", "secret ", "secreu"] {
            assert!(!is_same(sent, "secret"), "{sent:?}");
        }
    }
}
