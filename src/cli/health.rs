//! Asks a service that runs on this machine how it is: `ingestor health`.
//!
//! A container image without a shell has no `curl`, so the binary asks for itself. It is done within
//! [`PATIENCE`] whatever answers.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use rustls::pki_types::ServerName;
use tokio::time::timeout;

use super::client::{self, Connection, Endpoint, Tls};
use super::service::{Place, Trust};

/// Longest time for all of it.
const PATIENCE: Duration = Duration::from_secs(3);

/// More than any answer of ours.
const LONGEST_ANSWER: usize = 64 * 1024;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether the process works.
    Live,
    /// Whether it takes messages in.
    Ready,
}

impl Question {
    fn path(self) -> &'static str {
        match self {
            Self::Live => "/health/live",
            Self::Ready => "/health/ready",
        }
    }
}

/// What the service said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether the status was 200.
    pub is_yes: bool,
    /// The body.
    pub body: String,
}

/// Why there is no answer; each means "no".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Port 0 in `HTTP_ADDR`: the real port is in the service's log alone.
    #[error("HTTP_ADDR has port 0, so nobody can tell where the service listens")]
    NoPort,
    /// Nothing listens there, or it did not answer in time.
    #[error("{address} does not answer: {reason}")]
    Silent {
        /// Where it was asked.
        address: SocketAddr,
        /// The operating system's.
        reason: io::Error,
    },
    /// Something else listens there.
    #[error("{0} does not speak HTTP")]
    Foreign(SocketAddr),
}

/// Asks the service that was told to listen there; blocks for at most [`PATIENCE`].
///
/// # Errors
/// See [`Error`].
pub fn ask(place: Place, question: Question) -> Result<Answer, Error> {
    if place.address.port() == 0 {
        return Err(Error::NoPort);
    }
    let address = place.reachable();
    let silent = |reason| Error::Silent { address, reason };
    // Nothing secret is sent, and the certificate is in no name of loopback.
    let tls = || Tls::new(ServerName::IpAddress(address.ip().into()), Trust::Anybody);
    let tls = place.is_tls.then(tls).transpose().map_err(silent)?;
    let endpoint = Endpoint { addresses: vec![address], host: address.to_string(), tls };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = runtime
        .map_err(silent)?
        .block_on(async { timeout(PATIENCE, exchange(&endpoint, question)).await });
    let answer = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(client::Error::Foreign)) => return Err(Error::Foreign(address)),
        // It has hung up before it said something that is an answer.
        Ok(Err(client::Error::Io(error))) if error.kind() == ErrorKind::UnexpectedEof => {
            return Err(Error::Foreign(address));
        }
        Ok(Err(client::Error::Io(error))) => return Err(silent(error)),
        Ok(Err(error)) => return Err(silent(io::Error::other(error))),
        Err(_) => return Err(silent(ErrorKind::TimedOut.into())),
    };
    let body = String::from_utf8_lossy(&answer.body).trim_end().to_owned();
    Ok(Answer { is_yes: answer.status == StatusCode::OK, body })
}

async fn exchange(
    endpoint: &Endpoint,
    question: Question,
) -> Result<client::Answer, client::Error> {
    let mut request = Request::new(Full::<Bytes>::default());
    *request.uri_mut() = Uri::from_static(question.path());
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Connection::open(endpoint).await?.ask(request, LONGEST_ANSWER).await
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests measure time")]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    /// What is said of a server that answers with `bytes` and then stays or goes.
    fn of_a_server_that_says(bytes: &'static [u8], then_closes: bool) -> Result<Answer, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 1_024]).unwrap() > 0);
            stream.write_all(bytes).unwrap();
            // Reading ends when the one who asked has gone.
            while !then_closes && stream.read(&mut [0; 1_024]).is_ok_and(|length| length > 0) {}
        });
        let answer = ask(Place { address, is_tls: false }, Question::Live);
        server.join().unwrap();
        answer
    }

    #[test]
    fn only_a_200_is_a_yes_and_the_body_is_handed_on() {
        let yes = of_a_server_that_says(b"HTTP/1.1 200 OK\r\na: b\r\n\r\n{\"status\":1}", true);
        assert_eq!(yes.unwrap(), Answer { is_yes: true, body: "{\"status\":1}".to_owned() });
        let no = of_a_server_that_says(b"HTTP/1.1 503 Service Unavailable\r\n\r\nno", true);
        assert_eq!(no.unwrap(), Answer { is_yes: false, body: "no".to_owned() });
    }

    #[test]
    fn what_is_no_http_is_no_answer() {
        for bytes in [&b""[..], b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\n"] {
            assert!(matches!(of_a_server_that_says(bytes, true), Err(Error::Foreign(_))));
        }
    }

    #[test]
    fn one_who_never_finishes_is_not_waited_for() {
        let begun = Instant::now();
        let error = of_a_server_that_says(b"HTTP/1.1 200 OK\r\n", false).unwrap_err();
        assert!(matches!(error, Error::Silent { .. }), "{error}");
        assert!(begun.elapsed() < PATIENCE * 2);
    }

    #[test]
    fn an_address_that_stands_for_all_is_asked_on_loopback() {
        let at = |text: &str| {
            let address = text.parse().unwrap();
            Place { address, is_tls: false }.reachable().to_string()
        };
        assert_eq!(at("0.0.0.0:8080"), "127.0.0.1:8080");
        assert_eq!(at("[::]:8080"), "[::1]:8080");
        assert_eq!(at("127.0.0.2:8080"), "127.0.0.2:8080");
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        let none = ask(Place { address, is_tls: false }, Question::Live);
        assert!(matches!(none, Err(Error::NoPort)));
    }
}
