//! HTTPS: the certificate and its key, read again when their files change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
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

/// By what a change of a file is seen.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Files {
    /// What the handshake goes by, from the files as they are now.
    ///
    /// # Errors
    /// A sentence that names the setting whose file does not hold what it should.
    pub(super) fn read(&self) -> Result<ServerConfig, String> {
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| format!("HTTP_TLS_CERT_FILE: no PEM certificate: {error}"))?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
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

    fn stamp(&self) -> Stamp {
        let of = |path: &Path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        [of(&self.certificate), of(&self.key)]
    }
}

/// What new connections are greeted with.
pub(super) struct Tls {
    files: Files,
    current: Mutex<(Stamp, Arc<ServerConfig>)>,
}

impl Tls {
    /// # Errors
    /// See [`Files::read`].
    pub(super) fn new(files: Files) -> io::Result<Self> {
        let stamp = files.stamp();
        let config = files.read().map_err(io::Error::other)?;
        Ok(Self { files, current: Mutex::new((stamp, Arc::new(config))) })
    }

    /// What the files hold now, or the last that could be used.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.files.stamp();
        if stamp != current.0 {
            // Tried once for each change, of which one may be half of a renewal.
            current.0 = stamp;
            match self.files.read() {
                Ok(config) => {
                    current.1 = Arc::new(config);
                    tracing::info!("the certificate of HTTPS has been read again");
                }
                Err(problem) => tracing::warn!(
                    problem,
                    "the certificate of HTTPS has changed and cannot be used: serving the one before"
                ),
            }
        }
        Arc::clone(&current.1)
    }
}
