//! Asks a service that runs on this machine how it is: `ingestor health`.
//!
//! A container image without a shell has no `curl`, so the binary asks for itself. It speaks just
//! enough HTTP for its own server, and is done within [`PATIENCE`] whatever answers.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;

use super::service::{Place, Stream, Trust, speak_tls};

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
        reason: std::io::Error,
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
    let answer = exchange(address, place.is_tls, question)
        .map_err(|reason| Error::Silent { address, reason })?;
    parse(&answer).ok_or(Error::Foreign(address))
}

fn exchange(address: SocketAddr, is_tls: bool, question: Question) -> std::io::Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut stream: Box<dyn Stream> = if is_tls {
        let name = ServerName::IpAddress(address.ip().into());
        // Nothing secret is sent, and the certificate is in no name of loopback.
        speak_tls(socket.try_clone()?, name, Trust::Anybody)?
    } else {
        Box::new(socket.try_clone()?)
    };
    let path = question.path();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    // At once: who answers the first part and goes resets the connection, and the answer with it.
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut piece) = (Vec::new(), [0; 4_096]);
    while answer.len() < LONGEST_ANSWER {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            // TLS that ends without a word.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            Ok(length) => answer.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The name that this has on Linux is "resource temporarily unavailable".
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

/// Our server tells the length of these bodies and closes after them, so the rest is the body.
fn parse(answer: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut status_line = head.lines().next()?.split(' ');
    status_line.next().filter(|version| version.starts_with("HTTP/1."))?;
    let status: u16 = status_line.next()?.parse().ok()?;
    Some(Answer { is_yes: status == 200, body: body.trim_end().to_owned() })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

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
