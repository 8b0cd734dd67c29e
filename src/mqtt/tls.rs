//! TLS to the broker.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// How the broker proves itself, and we to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM file with the authorities to trust; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// PEM files with our certificate and its key.
    pub client_auth: Option<(PathBuf, PathBuf)>,
}

/// What the handshake goes by, from the files as they are now.
///
/// # Errors
/// A sentence that names the file that does not hold what it should.
pub fn client_config(tls: &Tls) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(tls)?);
    let Some((cert_file, key_file)) = &tls.client_auth else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = CertificateDer::pem_file_iter(cert_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("MQTT_CLIENT_CERT_FILE: no PEM certificate: {error}"))?;
    let key = PrivateKeyDer::from_pem_file(key_file)
        .map_err(|error| format!("MQTT_CLIENT_KEY_FILE: no PEM key: {error}"))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| format!("MQTT_CLIENT_CERT_FILE and MQTT_CLIENT_KEY_FILE: {error}"))
}

fn roots(tls: &Tls) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(ca_file) = &tls.ca_file else {
        let (added, _) =
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if added == 0 {
            return Err(
                "MQTT_TLS: this system has no certificate authorities, set MQTT_CA_FILE".to_owned()
            );
        }
        return Ok(roots);
    };
    let authorities = CertificateDer::pem_file_iter(ca_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("MQTT_CA_FILE: no PEM certificate: {error}"))?;
    for authority in authorities {
        roots.add(authority).map_err(|error| format!("MQTT_CA_FILE: {error}"))?;
    }
    if roots.is_empty() {
        return Err("MQTT_CA_FILE: holds no certificate".to_owned());
    }
    Ok(roots)
}
