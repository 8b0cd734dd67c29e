//! Certificates, keys and the login, as they are on disk now.
//!
//! Whoever renews them replaces files. The next connection takes what is there then, and a SIGHUP makes
//! one if anything has changed. What cannot be read, or does not belong together while half of it is
//! replaced, costs no connection: what was read before goes on being used, and one line says so.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ClientConfig;
use tokio::sync::watch;

use super::settings::Settings;
use super::tls::Pem;
use crate::base::settings::Secret;

/// How we prove ourselves to the broker, and it to us; shared by the connection, which uses them, and
/// whoever has them read again.
pub(crate) struct Credentials {
    state: Mutex<State>,
    /// Counts the renewals that a connection which stands has to heed.
    renewals: watch::Sender<u64>,
}

struct State {
    settings: Settings,
    /// `None` until they were of use once.
    current: Option<Current>,
    /// What was last said to be wrong.
    problem: Option<String>,
}

/// What a connection goes by.
#[derive(Clone)]
pub(super) struct Current {
    content: Content,
    /// `None`: plain TCP.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

/// What a change is seen by.
#[derive(Clone, PartialEq, Eq)]
struct Content {
    pem: Option<Pem>,
    login: Option<(String, Secret)>,
}

impl Current {
    fn read(settings: &Settings) -> Result<Self, String> {
        let pem = settings.tls.as_ref().map(Pem::read).transpose()?;
        let tls = pem.as_ref().map(Pem::client_config).transpose()?.map(Arc::new);
        let mut login = settings.login.clone();
        if let (Some((_, password)), Some(file)) = (&mut login, &settings.password_file) {
            *password =
                Secret::read(file).map_err(|error| format!("MQTT_PASSWORD_FILE: {error}"))?;
        }
        Ok(Self { content: Content { pem, login }, tls })
    }

    /// User name and password.
    pub(super) fn login(&self) -> Option<(&str, &str)> {
        let login = self.content.login.as_ref();
        login.map(|(user, password)| (user.as_str(), password.expose()))
    }
}

impl Content {
    /// The settings whose content is another one than `before`.
    fn changes(&self, before: &Self) -> Vec<&'static str> {
        let files = |content: &Self| content.pem.clone().unwrap_or_default();
        let (new, old) = (files(self), files(before));
        let user = |content: &Self| content.login.as_ref().map(|(user, _)| user.clone());
        let password = |content: &Self| content.login.as_ref().map(|(_, word)| word.clone());
        let all = [
            ("MQTT_CA_FILE", new.authorities != old.authorities),
            ("MQTT_CLIENT_CERT_FILE", new.certificate != old.certificate),
            ("MQTT_CLIENT_KEY_FILE", new.key != old.key),
            ("MQTT_USERNAME", user(self) != user(before)),
            ("MQTT_PASSWORD", password(self) != password(before)),
        ];
        all.into_iter().filter(|(_, has_changed)| *has_changed).map(|(name, _)| name).collect()
    }
}

impl Credentials {
    /// What `settings` name; nothing is read yet.
    pub(super) fn new(settings: &Settings) -> Self {
        let state = State { settings: settings.clone(), current: None, problem: None };
        Self { state: Mutex::new(state), renewals: watch::Sender::new(0) }
    }

    /// Follows the renewals that a connection which stands has to heed.
    pub(super) fn renewals(&self) -> watch::Receiver<u64> {
        self.renewals.subscribe()
    }

    /// Reads them again for a connection that is to be made, and returns the number of renewals that this
    /// heeds.
    ///
    /// # Errors
    /// A sentence, if they have never been of use.
    pub(super) fn renew(&self) -> Result<(Current, u64), String> {
        let mut state = self.lock();
        let problem = match Current::read(&state.settings) {
            Ok(current) => {
                state.current = Some(current);
                None
            }
            Err(problem) => Some(problem),
        };
        if let Some(problem) = &problem
            && state.current.is_some()
            && state.problem.as_ref() != Some(problem)
        {
            tracing::warn!(
                problem,
                "certificates or the password cannot be read again: going on with what was read before"
            );
        }
        let outcome = state.current.clone().ok_or_else(|| problem.clone().unwrap_or_default());
        state.problem = problem;
        outcome.map(|current| (current, *self.renewals.borrow()))
    }

    /// Reads them again, as `settings` name them now, and has the connection made again if any has changed.
    /// Returns which have.
    ///
    /// # Errors
    /// A sentence; then all stays as it was.
    pub(crate) fn reload(&self, settings: &Settings) -> Result<Vec<&'static str>, String> {
        let new = Current::read(settings)?;
        let mut state = self.lock();
        let Settings { tls, login, password_file, .. } = settings.clone();
        state.settings = Settings { login, password_file, tls, ..state.settings.clone() };
        let changes = match &state.current {
            Some(current) => new.content.changes(&current.content),
            // The first connection is under way, or could not be tried.
            None => Vec::new(),
        };
        state.current = Some(new);
        if !changes.is_empty() {
            self.renewals.send_modify(|renewals| *renewals += 1);
        }
        Ok(changes)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::base::settings::Sources;

    fn settings(password_file: &Path) -> Settings {
        let env = [
            ("MQTT_USERNAME", "ingestor".to_owned()),
            ("MQTT_PASSWORD_FILE", password_file.display().to_string()),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value));
        Settings::read(&mut Sources::new(env.into(), ""))
    }

    #[test]
    fn only_what_has_changed_makes_a_new_connection_and_what_cannot_be_read_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        fs::write(&file, "first\n").unwrap();
        let settings = settings(&file);
        let credentials = Credentials::new(&settings);
        let mut renewals = credentials.renewals();
        let password = || credentials.renew().unwrap().0.login().unwrap().1.to_owned();
        assert_eq!(password(), "first");
        assert_eq!(credentials.reload(&settings).unwrap(), [""; 0]);
        assert!(!renewals.has_changed().unwrap());
        fs::write(&file, "").unwrap();
        assert!(credentials.reload(&settings).unwrap_err().contains("MQTT_PASSWORD_FILE"));
        assert_eq!(password(), "first");
        fs::write(&file, "second\n").unwrap();
        assert_eq!(credentials.reload(&settings).unwrap(), ["MQTT_PASSWORD"]);
        assert_eq!(*renewals.borrow_and_update(), 1);
        assert_eq!((password().as_str(), credentials.renew().unwrap().1), ("second", 1));
        assert_eq!(credentials.reload(&settings).unwrap(), [""; 0]);
    }
}
