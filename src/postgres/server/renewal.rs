//! The connection string and the files of TLS that it names, as they are on disk now.
//!
//! Whoever renews them replaces files. They are read again for each connection that is opened, and for a
//! SIGHUP. What cannot be read, or is half written, costs no connection: what was read before goes on being
//! used, and one line says so. The driver would read the files of TLS by itself, and fail.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::host::{Host, Pem};
use crate::base::settings::Secret;
use crate::postgres::connection_string::{ConnectionString, HostString, Problems, TargetSession};
use crate::postgres::failure::Failure;
use crate::postgres::settings::Settings;

/// Where a connection may go, and how it logs in.
pub(super) struct Target {
    pub(super) hosts: Vec<Arc<Host>>,
    pub(super) session: TargetSession,
    /// Counts the changes of what was read.
    pub(super) version: u64,
    content: Content,
}

/// What a change is seen by.
#[derive(Clone, PartialEq, Eq)]
struct Content {
    url: ConnectionString,
    pem: Pem,
    /// Of the file in which the driver looks for a password that the string lacks.
    passwords: Option<Vec<u8>>,
}

/// See the module.
pub(super) struct Renewal(Mutex<State>);

struct State {
    settings: Settings,
    target: Arc<Target>,
    /// What was last said to be wrong.
    problem: Option<String>,
}

impl Renewal {
    /// # Errors
    /// If the driver cannot read the connection string, which its own check rules out.
    pub(super) fn new(settings: &Settings) -> Result<Self, Failure> {
        // Files of TLS may be missing as yet: then the driver says so.
        let (url, problem) = (settings.url.clone(), None);
        let content = Content { url, pem: Pem::default(), passwords: None };
        let content = Content::read(settings).unwrap_or(content);
        let target = Arc::new(Target::new(content, 0)?);
        Ok(Self(Mutex::new(State { settings: settings.clone(), target, problem })))
    }

    pub(super) fn current(&self) -> Arc<Target> {
        Arc::clone(&self.lock().target)
    }

    /// Reads again. Blocks on the disk.
    pub(super) fn renew(&self) -> Arc<Target> {
        let mut state = self.lock();
        let outcome = Content::read(&state.settings).and_then(|content| state.take(content));
        let problem = outcome.err();
        if let Some(problem) = &problem
            && state.problem.as_ref() != Some(problem)
        {
            tracing::warn!(
                problem,
                "the login to the database cannot be read again: going on with what was read before"
            );
        }
        state.problem = problem;
        Arc::clone(&state.target)
    }

    /// Reads again, from where `settings` say now; returns the settings whose content has changed. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// A sentence; then all stays as it was.
    pub(super) fn reload(&self, settings: &Settings) -> Result<Vec<&'static str>, String> {
        let content = Content::read(settings)?;
        let mut state = self.lock();
        let changes = content.changes(&state.target.content);
        state.take(content)?;
        state.settings = settings.clone();
        Ok(changes)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, content: Content) -> Result<(), String> {
        if content != self.target.content {
            let version = self.target.version + 1;
            let target = Target::new(content, version).map_err(|failure| failure.to_string())?;
            self.target = Arc::new(target);
        }
        Ok(())
    }
}

impl Target {
    fn new(content: Content, version: u64) -> Result<Self, Failure> {
        let Content { url, pem, .. } = &content;
        let host = |host: &HostString| Host::new(host, url.denies_sessions(), pem).map(Arc::new);
        let hosts = url.hosts().iter().map(host).collect::<Result<_, _>>()?;
        Ok(Self { hosts, session: url.target(), version, content })
    }
}

impl Content {
    fn read(settings: &Settings) -> Result<Self, String> {
        let url = match &settings.url_file {
            None => settings.url.clone(),
            Some(file) => {
                let mistake = |problem: String| format!("DATABASE_URL_FILE: {problem}");
                let text = Secret::read(file).map_err(mistake)?;
                let url = text.expose().trim().parse();
                url.map_err(|Problems(problems)| mistake(problems.join("; ")))?
            }
        };
        let pem = |name, check: fn(&[u8]) -> bool| match settings.tls_file(&url, name) {
            None => Ok(None),
            Some(path) => read_pem(name, &path, check).map(Some),
        };
        let pem = Pem {
            authorities: pem("sslrootcert", holds_certificates)?,
            certificate: pem("sslcert", holds_certificates)?,
            key: pem("sslkey", |pem| PrivateKeyDer::from_pem_slice(pem).is_ok())?,
        };
        let passwords = settings.password_file(&url).and_then(|path| std::fs::read(path).ok());
        Ok(Self { url, pem, passwords })
    }

    fn changes(&self, before: &Self) -> Vec<&'static str> {
        let all = [
            ("DATABASE_URL", self.url != before.url),
            ("sslrootcert", self.pem.authorities != before.pem.authorities),
            ("sslcert", self.pem.certificate != before.pem.certificate),
            ("sslkey", self.pem.key != before.pem.key),
            ("PGPASSFILE", self.passwords != before.passwords),
        ];
        all.into_iter().filter(|(_, has_changed)| *has_changed).map(|(name, _)| name).collect()
    }
}

fn read_pem(name: &str, path: &Path, is_whole: fn(&[u8]) -> bool) -> Result<Vec<u8>, String> {
    let path_shown = path.display();
    let pem = std::fs::read(path)
        .map_err(|error| format!("`{name}`: cannot read {path_shown}: {error}"))?;
    if is_whole(&pem) { Ok(pem) } else { Err(format!("`{name}`: {path_shown} holds no PEM")) }
}

fn holds_certificates(pem: &[u8]) -> bool {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    certificates.is_ok_and(|certificates| !certificates.is_empty())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::base::settings::Sources;

    fn settings(url_file: &Path) -> Settings {
        let path = url_file.display().to_string();
        Settings::read(&mut Sources::new([("DATABASE_URL_FILE".to_owned(), path)].into(), ""))
    }

    #[test]
    fn what_is_half_written_is_passed_over_and_what_has_changed_is_named() {
        let kept = tempfile::tempdir().unwrap();
        let dir = kept.path();
        let (url, ca) = (dir.join("url"), dir.join("ca.pem"));
        let named =
            |password: &str| format!("postgres://u:{password}@db/x?sslrootcert={}", ca.display());
        fs::write(&ca, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        fs::write(&url, named("one")).unwrap();
        let settings = settings(&url);
        let renewal = Renewal::new(&settings).unwrap();
        assert_eq!(renewal.renew().version, 0);
        assert_eq!(renewal.reload(&settings).unwrap(), [""; 0]);
        for (file, half) in
            [(&url, "postgres://u:on"), (&url, ""), (&ca, "-----BEGIN CERTI"), (&ca, "")]
        {
            let whole = fs::read(file).unwrap();
            fs::write(file, half).unwrap();
            let problem = renewal.reload(&settings).unwrap_err();
            assert!(!problem.contains("on\""), "{problem}");
            assert_eq!(renewal.renew().version, 0, "{half}");
            fs::write(file, whole).unwrap();
        }
        fs::write(&url, named("two")).unwrap();
        assert_eq!(renewal.renew().version, 1);
        fs::write(&url, named("three")).unwrap();
        fs::write(&ca, "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n").unwrap();
        assert_eq!(renewal.reload(&settings).unwrap(), ["DATABASE_URL", "sslrootcert"]);
        assert_eq!(renewal.current().version, 2);
    }
}
