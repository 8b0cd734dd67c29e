//! HTTPS: the certificate and its key, read again when their files change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The files, PEM both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// What stands in them.
#[derive(PartialEq, Eq)]
struct Pem {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// By what a change of a file is noticed without reading it.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Files {
    /// What the handshake goes by, from the files as they are now.
    ///
    /// # Errors
    /// A sentence that names the setting whose file does not hold what it should.
    pub(super) fn check(&self) -> Result<(), String> {
        self.read().and_then(|pem| pem.config()).map(drop)
    }

    fn read(&self) -> Result<Pem, String> {
        let content = |name: &str, path: &Path| {
            std::fs::read(path)
                .map_err(|error| format!("{name}: cannot read {}: {error}", path.display()))
        };
        Ok(Pem {
            certificate: content("HTTP_TLS_CERT_FILE", &self.certificate)?,
            key: content("HTTP_TLS_KEY_FILE", &self.key)?,
        })
    }

    fn stamp(&self) -> Stamp {
        let of = |path: &Path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        [of(&self.certificate), of(&self.key)]
    }
}

impl Pem {
    fn config(&self) -> Result<ServerConfig, String> {
        let chain = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("HTTP_TLS_CERT_FILE: no PEM certificate: {error}"))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| format!("HTTP_TLS_KEY_FILE: no PEM key: {error}"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| format!("HTTP_TLS_CERT_FILE and HTTP_TLS_KEY_FILE: {error}"))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// What new connections are greeted with.
pub(super) struct Tls {
    files: Files,
    current: Mutex<Current>,
}

struct Current {
    stamp: Stamp,
    pem: Pem,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// # Errors
    /// See [`Files::check`].
    pub(super) fn new(files: Files) -> io::Result<Self> {
        let stamp = files.stamp();
        let pem = files.read().map_err(io::Error::other)?;
        let config = Arc::new(pem.config().map_err(io::Error::other)?);
        Ok(Self { files, current: Mutex::new(Current { stamp, pem, config }) })
    }

    /// Reads the files again; returns the settings whose file holds something else now.
    ///
    /// # Errors
    /// See [`Files::check`]; then what was read before goes on being served.
    pub(super) fn reload(&self) -> Result<Vec<&'static str>, String> {
        let mut current = self.lock();
        current.stamp = self.files.stamp();
        let pem = self.files.read()?;
        let mut changes = Vec::new();
        if pem.certificate != current.pem.certificate {
            changes.push("HTTP_TLS_CERT_FILE");
        }
        if pem.key != current.pem.key {
            changes.push("HTTP_TLS_KEY_FILE");
        }
        if !changes.is_empty() {
            current.config = Arc::new(pem.config()?);
            current.pem = pem;
        }
        Ok(changes)
    }

    /// What the files hold now, or the last that could be used.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        // Tried once for each change, of which one may be half of a renewal.
        let is_old = self.lock().stamp != self.files.stamp();
        if is_old {
            match self.reload() {
                Ok(changes) if changes.is_empty() => {}
                Ok(_) => tracing::info!("the certificate of HTTPS has been read again"),
                Err(problem) => tracing::warn!(
                    problem,
                    "the certificate of HTTPS has changed and cannot be used: serving the one before"
                ),
            }
        }
        Arc::clone(&self.lock().config)
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
