//! Requests of the import, over one connection for as long as it lasts.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use url::Url;

use crate::base::settings::Sources;
use crate::cli::service::{Place, Stream, Trust, speak_tls};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for a part of an answer: a group is asked of the database before it is committed.
const ANSWER: Duration = Duration::from_secs(60);
/// More than any answer of ours.
const LONGEST_ANSWER: usize = 1024 * 1024;

/// Where requests go, and how.
pub(super) struct Client {
    addresses: Vec<SocketAddr>,
    /// For the `Host` header.
    host: String,
    tls: Option<Tls>,
    /// The path of the route with its query.
    target: String,
    token: String,
    stream: Option<Box<dyn Stream>>,
}

struct Tls {
    name: ServerName<'static>,
    trust: Trust,
}

/// What a service said.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
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
        token: String,
    ) -> Result<Self, String> {
        let target =
            |path: &str| format!("{}/api/v1/telemetry?{query}", path.trim_end_matches('/'));
        let Some(url) = url else {
            let place = Place::read(from);
            let address = place.reachable();
            let tls = if place.is_tls { Some(own_tls(from, address)?) } else { None };
            let (addresses, host) = (vec![address], address.to_string());
            return Ok(Self { addresses, host, tls, target: target(""), token, stream: None });
        };
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(format!("--url {url}: expected http:// or https:// and a host"));
        };
        let tls = match url.scheme() {
            "http" => None,
            "https" => {
                let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let name = ServerName::try_from(bare).map_err(|error| format!("--url: {error}"))?;
                Some(Tls { name, trust: Trust::Roots(roots(ca_file)?) })
            }
            other => return Err(format!("--url: {other} is no scheme of HTTP")),
        };
        let addresses = url
            .socket_addrs(|| Some(port))
            .map_err(|error| format!("cannot resolve {host}: {error}"))?;
        let host = format!("{host}:{port}");
        Ok(Self { addresses, host, tls, target: target(url.path()), token, stream: None })
    }

    /// Where it asks, for a sentence.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Sends a body and returns the answer.
    ///
    /// # Errors
    /// If there is none: whether the body was taken is unknown then, and sending it again is right.
    pub(super) fn post(&mut self, content_type: &str, body: &[u8]) -> io::Result<Answer> {
        if let Some(stream) = self.stream.take()
            && let Ok(answer) = self.post_on(stream, content_type, body)
        {
            return Ok(answer);
        }
        // A service closes what was silent for a while, as after a wait for room.
        let stream = self.connect()?;
        self.post_on(stream, content_type, body)
    }

    fn post_on(
        &mut self,
        mut stream: Box<dyn Stream>,
        content_type: &str,
        body: &[u8],
    ) -> io::Result<Answer> {
        let (target, host, token, length) = (&self.target, &self.host, &self.token, body.len());
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
        );
        let sent = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body))
            .and_then(|()| stream.flush());
        // Who refuses a body may answer before all of it is sent.
        let (answer, is_kept) = match (read_answer(&mut *stream), sent) {
            (Err(_), Err(error)) => return Err(error),
            (answer, _) => answer?,
        };
        if is_kept {
            self.stream = Some(stream);
        }
        Ok(answer)
    }

    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let mut last = io::Error::other("its name has no address");
        for address in &self.addresses {
            match TcpStream::connect_timeout(address, CONNECT) {
                Ok(socket) => {
                    socket.set_nodelay(true)?;
                    socket.set_read_timeout(Some(ANSWER))?;
                    socket.set_write_timeout(Some(ANSWER))?;
                    return match &self.tls {
                        None => Ok(Box::new(socket)),
                        Some(Tls { name, trust }) => speak_tls(socket, name.clone(), trust.clone()),
                    };
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
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
    Ok(Tls { name, trust: Trust::Certificate(certificate) })
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

/// An answer, and whether the connection can be used again.
fn read_answer(stream: &mut dyn Stream) -> io::Result<(Answer, bool)> {
    let foreign = || io::Error::other("it does not speak HTTP");
    let mut text = Vec::new();
    let end = loop {
        if let Some(at) = memchr::memmem::find(&text, b"\r\n\r\n") {
            break at;
        }
        if !read_more(stream, &mut text)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8_lossy(&text[..end]).into_owned();
    let mut body = text.split_off(end + 4);
    let mut lines = head.lines();
    let status_line =
        lines.next().filter(|line| line.starts_with("HTTP/1.")).ok_or_else(foreign)?;
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(foreign)?;
    let headers: Vec<(String, &str)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .collect();
    let header =
        |name: &str| headers.iter().find(|(other, _)| other == name).map(|(_, value)| *value);
    let retry_after = header("retry-after").and_then(|value| value.parse().ok());
    let retry_after = retry_after.map(Duration::from_secs);
    let mut is_kept =
        !header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let is_chunked = header("transfer-encoding").is_some();
    let length: Option<usize> = header("content-length").and_then(|value| value.parse().ok());
    loop {
        // A proxy in between may cut the answer into chunks.
        let whole = if is_chunked {
            unchunked(&body)
        } else {
            length.and_then(|length| body.get(..length).map(<[u8]>::to_vec))
        };
        if let Some(whole) = whole {
            body = whole;
            break;
        }
        if !read_more(stream, &mut body)? {
            if is_chunked || length.is_some() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            is_kept = false;
            break;
        }
    }
    Ok((Answer { status, retry_after, body }, is_kept))
}

/// Whether there was more.
fn read_more(stream: &mut dyn Stream, into: &mut Vec<u8>) -> io::Result<bool> {
    let mut piece = [0; 8_192];
    loop {
        match stream.read(&mut piece) {
            Ok(length) => {
                into.extend_from_slice(&piece[..length]);
                if into.len() > LONGEST_ANSWER {
                    return Err(io::Error::other("its answer does not end"));
                }
                return Ok(length > 0);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The name that this has on Linux is "resource temporarily unavailable".
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
    }
}

/// What stands in the chunks, if all of them are there.
fn unchunked(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = memchr::memmem::find(text, b"\r\n")?;
        let size = std::str::from_utf8(&text[..end]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        text = &text[end + 2..];
        if size == 0 {
            return text.ends_with(b"\r\n").then_some(body);
        }
        body.extend_from_slice(text.get(..size)?);
        text = text.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> io::Result<(Answer, bool)> {
        // Nothing is written to it.
        read_answer(&mut io::Cursor::new(text.as_bytes().to_vec()))
    }

    #[test]
    fn an_answer_is_read_to_its_end_and_one_that_is_broken_off_is_none() {
        let (answer, is_kept) =
            read("HTTP/1.1 503 x\r\nRetry-After: 7\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        assert_eq!((answer.status, answer.body.as_slice(), is_kept), (503, &b"{}"[..], true));
        assert_eq!(answer.retry_after, Some(Duration::from_secs(7)));
        let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\n{\"\r\n1\r\n}\r\n0\r\n\r\n";
        let (answer, is_kept) = read(chunks).unwrap();
        assert_eq!((answer.body.as_slice(), is_kept), (&b"{\"}"[..], false));
        for broken in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}",
            &chunks[..chunks.len() - 7],
            "SSH-2.0\r\n\r\n",
        ] {
            assert!(read(broken).is_err(), "{broken}");
        }
    }
}
