//! Requests of the import, over one connection for as long as it lasts.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Uri};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::runtime::Runtime;
use url::Url;

use crate::base::settings::Sources;
use crate::cli::client::{Connection, Endpoint, Error, Tls};
use crate::cli::service::{Place, Trust};

/// More than any answer of ours.
const LONGEST_ANSWER: usize = 1024 * 1024;

/// Where requests go, and how.
pub(super) struct Client {
    endpoint: Endpoint,
    /// The path of the route with its query.
    target: Uri,
    authorization: HeaderValue,
    connection: Option<Connection>,
    runtime: Runtime,
}

/// What a service said.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

impl Client {
    /// For the service of this machine, or the one at `url`, whose certificate has to be of the system's
    /// authorities or of those in `ca_file`. What is wrong with the configuration is noted in `from`.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn new(
        from: &mut Sources,
        url: Option<&Url>,
        ca_file: Option<&Path>,
        query: &str,
        token: &str,
    ) -> Result<Self, String> {
        let endpoint = match url {
            Some(url) => endpoint_at(url, ca_file)?,
            None => endpoint_here(from)?,
        };
        let path = url.map_or("", |url| url.path().trim_end_matches('/'));
        let target = Uri::try_from(format!("{path}/api/v1/telemetry?{query}"))
            .map_err(|error| format!("--url: {error}"))?;
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| "the admin token has characters that HTTP cannot send".to_owned())?;
        authorization.set_sensitive(true);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        Ok(Self { endpoint, target, authorization, connection: None, runtime })
    }

    /// Where it asks, for a sentence.
    pub(super) fn host(&self) -> &str {
        &self.endpoint.host
    }

    /// Sends a body and returns the answer.
    ///
    /// # Errors
    /// If there is none: whether the body was taken is unknown then, and sending it again is right.
    pub(super) fn post(
        &mut self,
        content_type: &'static str,
        body: &Bytes,
    ) -> Result<Answer, Error> {
        let Self { endpoint, target, authorization, connection, runtime } = self;
        let request = || {
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = target.clone();
            let headers = request.headers_mut();
            headers.insert(AUTHORIZATION, authorization.clone());
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            request
        };
        let answer = runtime.block_on(async {
            if let Some(mut kept) = connection.take()
                && let Ok(answer) = kept.ask(request(), LONGEST_ANSWER).await
            {
                *connection = Some(kept);
                return Ok(answer);
            }
            // A service closes what was silent for a while, as after a wait for room.
            let mut new = Connection::open(endpoint).await?;
            let answer = new.ask(request(), LONGEST_ANSWER).await?;
            *connection = Some(new);
            Ok::<_, Error>(answer)
        })?;
        let retry_after = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|seconds| seconds.trim().parse().ok());
        Ok(Answer {
            status: answer.status.as_u16(),
            retry_after: retry_after.map(Duration::from_secs),
            body: answer.body,
        })
    }
}

/// The service of this machine.
fn endpoint_here(from: &mut Sources) -> Result<Endpoint, String> {
    let place = Place::read(from);
    let address = place.reachable();
    let tls = if place.is_tls { Some(own_tls(from, address)?) } else { None };
    Ok(Endpoint { addresses: vec![address], host: address.to_string(), tls })
}

fn endpoint_at(url: &Url, ca_file: Option<&Path>) -> Result<Endpoint, String> {
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return Err(format!("--url {url}: expected http:// or https:// and a host"));
    };
    let tls = match url.scheme() {
        "http" => None,
        "https" => {
            let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(bare).map_err(|error| format!("--url: {error}"))?;
            let tls = Tls::new(name, Trust::Roots(roots(ca_file)?));
            Some(tls.map_err(|error| format!("--url: {error}"))?)
        }
        other => return Err(format!("--url: {other} is no scheme of HTTP")),
    };
    let addresses = url
        .socket_addrs(|| Some(port))
        .map_err(|error| format!("cannot resolve {host}: {error}"))?;
    Ok(Endpoint { addresses, host: format!("{host}:{port}"), tls })
}

/// Of the service of this machine: its token is told to nobody but who has its certificate.
fn own_tls(from: &mut Sources, address: SocketAddr) -> Result<Tls, String> {
    let name = ServerName::IpAddress(address.ip().into());
    let Some(file) = from.readable_file("HTTP_TLS_CERT_FILE") else {
        return Err("HTTP_TLS_CERT_FILE cannot be read".to_owned());
    };
    let pem = std::fs::read(&file).map_err(|error| format!("HTTP_TLS_CERT_FILE: {error}"))?;
    let certificate = CertificateDer::from_pem_slice(&pem)
        .map_err(|error| format!("HTTP_TLS_CERT_FILE: no PEM certificate: {error}"))?;
    Tls::new(name, Trust::Certificate(certificate)).map_err(|error| error.to_string())
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = ca_file {
        let fault =
            |error: &dyn std::fmt::Display| format!("--ca-file {}: {error}", file.display());
        let pem = std::fs::read(file).map_err(|error| fault(&error))?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| fault(&error))?;
            roots.add(certificate).map_err(|error| fault(&error))?;
        }
    }
    Ok(roots)
}
