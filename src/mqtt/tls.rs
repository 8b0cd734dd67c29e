//! TLS to the broker.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// How the broker proves itself, and we to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tls {
    /// PEM file with the authorities to trust; `None`: those of the system.
    pub(crate) ca_file: Option<PathBuf>,
    /// PEM files with our certificate and its key.
    pub(crate) client_auth: Option<(PathBuf, PathBuf)>,
}

/// What the handshake goes by, from the files as they are now.
///
/// # Errors
/// A sentence that names the file that does not hold what it should.
pub(crate) fn client_config(tls: &Tls) -> Result<ClientConfig, String> {
    Pem::read(tls)?.client_config()
}

/// What stands in those files.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Pem {
    /// `None`: the authorities of the system.
    pub(super) authorities: Option<Vec<u8>>,
    pub(super) certificate: Option<Vec<u8>>,
    pub(super) key: Option<Vec<u8>>,
}

impl Pem {
    /// The files as they are now.
    ///
    /// # Errors
    /// A sentence that names the file that cannot be read.
    pub(super) fn read(tls: &Tls) -> Result<Self, String> {
        let content = |name: &str, path: Option<&PathBuf>| {
            let read = |path: &PathBuf| {
                std::fs::read(path)
                    .map_err(|error| format!("{name}: cannot read {}: {error}", path.display()))
            };
            path.map(read).transpose()
        };
        let (certificate, key) = tls.client_auth.as_ref().map(|(cert, key)| (cert, key)).unzip();
        Ok(Self {
            authorities: content("MQTT_CA_FILE", tls.ca_file.as_ref())?,
            certificate: content("MQTT_CLIENT_CERT_FILE", certificate)?,
            key: content("MQTT_CLIENT_KEY_FILE", key)?,
        })
    }

    /// What the handshake goes by.
    ///
    /// # Errors
    /// A sentence that names the file that does not hold what it should.
    pub(super) fn client_config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots(self.authorities.as_deref())?);
        let (Some(certificate), Some(key)) = (&self.certificate, &self.key) else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("MQTT_CLIENT_CERT_FILE: no PEM certificate: {error}"))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| format!("MQTT_CLIENT_KEY_FILE: no PEM key: {error}"))?;
        builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("MQTT_CLIENT_CERT_FILE and MQTT_CLIENT_KEY_FILE: {error}"))
    }
}

fn roots(pem: Option<&[u8]>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(pem) = pem else {
        let (added, _) =
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if added == 0 {
            return Err(
                "MQTT_TLS: this system has no certificate authorities, set MQTT_CA_FILE".to_owned()
            );
        }
        return Ok(roots);
    };
    let authorities = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("MQTT_CA_FILE: no PEM certificate: {error}"))?;
    for authority in authorities {
        roots.add(authority).map_err(|error| format!("MQTT_CA_FILE: {error}"))?;
    }
    if roots.is_empty() {
        return Err("MQTT_CA_FILE: holds no certificate".to_owned());
    }
    Ok(roots)
}
