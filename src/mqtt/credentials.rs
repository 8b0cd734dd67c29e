//! Certificates, keys and the password, as they are on disk now.
//!
//! Whoever renews them replaces files; the next connection takes what is there then. What cannot be
//! read, or does not belong together while half of it is replaced, costs no connection: what was
//! read before goes on being used, and one line says so.

use std::sync::Arc;

use rustls::ClientConfig;

use super::settings::Settings;
use super::tls;
use crate::base::settings::Secret;

/// How we prove ourselves to the broker, and it to us.
pub(super) struct Credentials {
    tls: Option<Arc<ClientConfig>>,
    login: Option<(String, Secret)>,
    /// What was last said to be wrong.
    problem: Option<String>,
}

impl Credentials {
    /// The login as it was at the start; the rest is read by [`Self::renew`].
    pub(super) fn new(settings: &Settings) -> Self {
        Self { tls: None, login: settings.login.clone(), problem: None }
    }

    /// Reads them again.
    ///
    /// # Errors
    /// A sentence, if TLS is asked for and its files have never been of use.
    pub(super) fn renew(&mut self, settings: &Settings) -> Result<(), String> {
        let outcome = self.read(settings);
        if self.tls.is_none() && settings.tls.is_some() {
            return outcome;
        }
        let problem = outcome.err();
        if let Some(problem) = &problem
            && self.problem.as_ref() != Some(problem)
        {
            tracing::warn!(
                problem,
                "certificates or the password cannot be read again: going on with what was read before"
            );
        }
        self.problem = problem;
        Ok(())
    }

    pub(super) fn tls(&self) -> Option<Arc<ClientConfig>> {
        self.tls.clone()
    }

    /// User name and password.
    pub(super) fn login(&self) -> Option<(&str, &str)> {
        self.login.as_ref().map(|(user, password)| (user.as_str(), password.expose()))
    }

    fn read(&mut self, settings: &Settings) -> Result<(), String> {
        if let Some(tls) = &settings.tls {
            self.tls = Some(Arc::new(tls::client_config(tls)?));
        }
        if let (Some((_, password)), Some(file)) = (&mut self.login, &settings.password_file) {
            *password =
                Secret::read(file).map_err(|error| format!("MQTT_PASSWORD_FILE: {error}"))?;
        }
        Ok(())
    }
}
