//! SIGHUP: certificates and secrets are read again. All else of the configuration stays as it was at the
//! start.
//!
//! One line says what has changed, by the names of settings. What cannot be read, or is half written, changes
//! nothing, and a line says so.

use std::sync::Arc;

use super::config::Config;
use crate::base::settings::Mistakes;
use crate::postgres::Database;
use crate::{http, mqtt};

/// Everything that goes by certificates and secrets.
#[derive(Clone)]
pub(super) struct Reload {
    pub(super) http: http::Secrets,
    pub(super) broker: Arc<mqtt::Credentials>,
    pub(super) database: Database,
}

impl Reload {
    /// Has all of it read again. Not waited for: files may lie on a filesystem that hangs.
    pub(super) fn start(&self) {
        let parts = self.clone();
        tokio::task::spawn_blocking(move || parts.run());
    }

    fn run(&self) {
        let config = match Config::load() {
            Ok(config) => config,
            Err(Mistakes(mistakes)) => {
                tracing::warn!(
                    mistakes = mistakes.join("; "),
                    "SIGHUP: the configuration has mistakes now: certificates and secrets stay as they were"
                );
                return;
            }
        };
        let mut changes = Vec::new();
        for outcome in [
            self.http.reload(&config.http),
            self.broker.reload(&config.mqtt),
            self.database.reload(&config.database),
        ] {
            match outcome {
                Ok(names) => changes.extend(names),
                Err(problem) => tracing::warn!(
                    problem,
                    "SIGHUP: certificates or secrets of one side stay as they were"
                ),
            }
        }
        let all = if changes.is_empty() { "nothing".to_owned() } else { changes.join(", ") };
        tracing::info!(changed = all, "SIGHUP: certificates and secrets have been read again");
    }
}
