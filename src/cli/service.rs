//! The connection to a service, for the commands that ask one: where it listens, and TLS.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme, StreamOwned,
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

/// A connection.
pub(super) trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

/// Who has to answer.
#[derive(Clone)]
pub(super) enum Trust {
    /// Whoever does: nothing secret is sent, and nothing is believed but "yes" or "no".
    Anybody,
    /// The one that has this certificate, whatever name is in it: that of the service on this machine.
    Certificate(CertificateDer<'static>),
    /// Who has a certificate of one of these.
    Roots(RootCertStore),
}

/// Speaks TLS on `socket`, to a server of this name.
pub(super) fn speak_tls(
    socket: TcpStream,
    name: ServerName<'static>,
    trust: Trust,
) -> io::Result<Box<dyn Stream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let config = match trust {
        Trust::Roots(roots) => config.with_root_certificates(roots),
        Trust::Anybody | Trust::Certificate(_) => {
            let only =
                if let Trust::Certificate(certificate) = trust { Some(certificate) } else { None };
            let verifier = Arc::new(OneCertificate { only, provider });
            config.dangerous().with_custom_certificate_verifier(verifier)
        }
    };
    let config = Arc::new(config.with_no_client_auth());
    let session = ClientConnection::new(config, name).map_err(io::Error::other)?;
    Ok(Box::new(StreamOwned::new(session, socket)))
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
