//! The service, for the commands that ask it: where it listens, and whose certificate it has to have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use crate::base::settings::{Mistakes, Sources};
use crate::http;

/// Where a service listens, and whether it speaks TLS there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its `HTTP_ADDR`.
    pub(crate) address: SocketAddr,
    /// Whether that is HTTPS.
    pub(crate) is_tls: bool,
}

impl Place {
    /// As it is configured, whatever else is wrong with the configuration.
    ///
    /// # Errors
    /// The mistake in it.
    pub fn configured() -> Result<Self, Mistakes> {
        let mut from = Sources::of_this_process();
        let place = Self::read(&mut from);
        from.mistakes_so_far().map(|()| place)
    }

    pub(super) fn read(from: &mut Sources) -> Self {
        let address = http::Settings::read_address(from);
        Self { address, is_tls: from.is_set("HTTP_TLS_CERT_FILE") }
    }

    /// The address itself, or the loopback one if it stands for all of them.
    pub(super) fn reachable(self) -> SocketAddr {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, self.address.port())
    }
}

/// Who has to answer.
pub(super) enum Trust {
    /// Whoever does: nothing secret is sent, and nothing is believed but "yes" or "no".
    Anybody,
    /// The one that has this certificate, whatever name is in it: that of the service on this machine.
    Certificate(CertificateDer<'static>),
    /// Who has a certificate of one of these.
    Roots(RootCertStore),
}

impl Trust {
    /// TLS to a server that is trusted so.
    ///
    /// # Errors
    /// If this build knows no version of TLS.
    pub(super) fn into_config(self) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let only = match self {
            Self::Roots(roots) => {
                return Ok(config.with_root_certificates(roots).with_no_client_auth());
            }
            Self::Certificate(certificate) => Some(certificate),
            Self::Anybody => None,
        };
        let verifier = Arc::new(OneCertificate { only, provider });
        let config = config.dangerous().with_custom_certificate_verifier(verifier);
        Ok(config.with_no_client_auth())
    }
}

/// Takes one certificate, or every one; that the server has its key is checked at any rate.
#[derive(Debug)]
struct OneCertificate {
    only: Option<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for OneCertificate {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.only.as_ref().is_none_or(|only| only == certificate) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
