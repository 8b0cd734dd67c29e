//! Requests to a service, for the commands that ask one: HTTP/1.1, one after the other on a connection.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::idle_timeout::IdleTimeout;
use super::service::Trust;

/// Longest wait for a connection to an address.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest time in which nothing moves: a group is asked of the database before it is committed.
const SILENCE: Duration = Duration::from_secs(60);

/// Where a service is asked.
pub(super) struct Endpoint {
    /// Those that its name stands for; the first that answers is taken.
    pub(super) addresses: Vec<SocketAddr>,
    /// For the `Host` header.
    pub(super) host: String,
    /// If it speaks HTTPS.
    pub(super) tls: Option<Tls>,
}

/// The name of a server, and whose certificate it has to have.
pub(super) struct Tls {
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl Tls {
    /// # Errors
    /// If this build of TLS is of no use.
    pub(super) fn new(name: ServerName<'static>, trust: Trust) -> io::Result<Self> {
        let config = Arc::new(trust.into_config().map_err(io::Error::other)?);
        Ok(Self { name, config })
    }
}

/// What a service said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Nobody listens, the connection was lost, or nothing moved on it for too long.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Something else listens there.
    #[error("it does not speak HTTP")]
    Foreign,
    /// It is longer than any of ours.
    #[error("its answer does not end")]
    TooLong,
}

impl From<hyper::Error> for Error {
    fn from(error: hyper::Error) -> Self {
        if error.is_parse_too_large() {
            return Self::TooLong;
        }
        if error.is_parse() {
            return Self::Foreign;
        }
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
        Self::Io(match cause {
            Some(cause) => io::Error::new(cause.kind(), cause.to_string()),
            None if error.is_incomplete_message() => io::ErrorKind::UnexpectedEof.into(),
            None => io::Error::other(error),
        })
    }
}

/// A connection. Dropping it closes it, once the runtime goes on.
pub(super) struct Connection {
    host: HeaderValue,
    requests: SendRequest<Full<Bytes>>,
    /// Reads and writes.
    _driver: AbortOnDropHandle<()>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// If none of the addresses can be connected to, or the one that can speaks no TLS that is trusted.
    pub(super) async fn open(endpoint: &Endpoint) -> Result<Self, Error> {
        let host = HeaderValue::try_from(&endpoint.host).map_err(io::Error::other)?;
        let socket = connect(&endpoint.addresses).await?;
        socket.set_nodelay(true)?;
        // Below TLS: a server that is done with a request is done with its encryption as well.
        let stream = IdleTimeout::new(socket, SILENCE);
        match &endpoint.tls {
            None => Self::on(stream, host).await,
            Some(Tls { name, config }) => {
                let connector = TlsConnector::from(Arc::clone(config));
                Self::on(connector.connect(name.clone(), stream).await?, host).await
            }
        }
    }

    async fn on(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        host: HeaderValue,
    ) -> Result<Self, Error> {
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async {
            // Whoever waits for an answer is told.
            connection.await.ok();
        });
        Ok(Self { host, requests, _driver: AbortOnDropHandle::new(driver) })
    }

    /// Sends a request and reads the answer, of which the body may have `most` bytes. An answer that comes before
    /// all of the request is sent is one as well.
    ///
    /// # Errors
    /// If there is none, or not all of one.
    pub(super) async fn ask(
        &mut self,
        mut request: Request<Full<Bytes>>,
        most: usize,
    ) -> Result<Answer, Error> {
        request.headers_mut().insert(HOST, self.host.clone());
        self.requests.ready().await?;
        let (head, body) = self.requests.send_request(request).await?.into_parts();
        let body = Limited::new(body, most).collect().await.map_err(of_body)?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::other("its name has no address");
    for address in addresses {
        match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

fn of_body(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    match error.downcast::<hyper::Error>() {
        Ok(error) => (*error).into(),
        Err(error) if error.is::<LengthLimitError>() => Error::TooLong,
        Err(error) => Error::Io(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;

    use super::*;

    const MOST: usize = 1_000;

    /// A server that does this with each connection in turn, and where it listens.
    fn server<const N: usize>(
        each: [impl FnOnce(TcpStream) + Send + 'static; N],
    ) -> (Endpoint, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::task::spawn_blocking(move || {
            for serve in each {
                serve(listener.accept().unwrap().0);
            }
        });
        (Endpoint { addresses: vec![address], host: address.to_string(), tls: None }, serving)
    }

    /// Reads a request without a body.
    fn read_request(stream: &mut TcpStream) -> String {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        String::from_utf8(request).unwrap()
    }

    fn request(body: impl Into<Bytes>) -> Request<Full<Bytes>> {
        Request::new(Full::new(body.into()))
    }

    async fn ask_once(endpoint: &Endpoint, body: impl Into<Bytes>) -> Result<Answer, Error> {
        Connection::open(endpoint).await?.ask(request(body), MOST).await
    }

    /// What is made of these bytes, after which the server closes.
    async fn of_answer(text: &'static str) -> Result<Answer, Error> {
        let (endpoint, serving) = server([move |mut stream: TcpStream| {
            read_request(&mut stream);
            stream.write_all(text.as_bytes()).unwrap();
        }]);
        let answer = ask_once(&endpoint, "").await;
        serving.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn an_answer_is_read_to_its_end_and_one_that_is_broken_off_is_none() {
        let answer = of_answer("HTTP/1.1 503 x\r\nRetry-After: 7\r\ncontent-length: 2\r\n\r\n{}");
        let answer = answer.await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (503, &b"{}"[..]));
        assert_eq!(answer.headers["retry-after"], "7");
        let chunks =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{\"\r\n1\r\n}\r\n0\r\n\r\n";
        assert_eq!(&of_answer(chunks).await.unwrap().body[..], b"{\"}");
        let until_the_end = of_answer("HTTP/1.0 200 OK\r\n\r\n{}").await.unwrap();
        assert_eq!(&until_the_end.body[..], b"{}");
        for broken in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}",
            &chunks[..chunks.len() - 7],
        ] {
            let error = of_answer(broken).await.unwrap_err();
            let is_end = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
            assert!(matches!(&error, Error::Io(error) if is_end(error)), "{broken}: {error:?}");
        }
        let foreign = of_answer("SSH-2.0-OpenSSH\r\n\r\n").await.unwrap_err();
        assert_eq!(foreign.to_string(), "it does not speak HTTP");
    }

    #[tokio::test]
    async fn an_answer_without_an_end_is_not_read_to_it() {
        for head in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nx: "] {
            let (endpoint, serving) = server([move |mut stream: TcpStream| {
                read_request(&mut stream);
                stream.write_all(head.as_bytes()).unwrap();
                while stream.write_all(&[b'x'; 1_024]).is_ok() {}
            }]);
            let error = ask_once(&endpoint, "").await.unwrap_err();
            assert_eq!(error.to_string(), "its answer does not end");
            serving.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_connection_is_asked_again_until_the_server_closes_it() {
        let (endpoint, serving) = server([|mut stream: TcpStream| {
            for close in ["", "connection: close\r\n"] {
                let request = read_request(&mut stream);
                assert!(request.starts_with("GET / HTTP/1.1\r\n"), "{request}");
                let host = format!("host: {}\r\n", stream.local_addr().unwrap());
                assert!(request.contains(&host), "{request}");
                write!(stream, "HTTP/1.1 200 OK\r\n{close}content-length: 0\r\n\r\n").unwrap();
            }
        }]);
        let mut connection = Connection::open(&endpoint).await.unwrap();
        connection.ask(request(""), MOST).await.unwrap();
        connection.ask(request(""), MOST).await.unwrap();
        connection.ask(request(""), MOST).await.unwrap_err();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_body_that_is_refused_before_all_of_it_is_sent_has_an_answer() {
        let body = Bytes::from(vec![b'x'; 8 * 1024 * 1024]);
        let refuse = |mut stream: TcpStream| {
            read_request(&mut stream);
            let refusal = b"HTTP/1.1 413 x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
            // What is not read resets the connection.
            stream.write_all(refusal).unwrap();
        };
        let (endpoint, serving) = server([refuse; 100]);
        for _ in 0..100 {
            let answer = ask_once(&endpoint, body.clone()).await.unwrap();
            assert_eq!((answer.status.as_u16(), &answer.body[..]), (413, &b"{}"[..]));
        }
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn of_several_addresses_the_first_that_answers_is_asked() {
        let (mut endpoint, serving) = server([|mut stream: TcpStream| {
            read_request(&mut stream);
            stream.write_all(b"HTTP/1.1 204 x\r\n\r\n").unwrap();
        }]);
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        endpoint.addresses.insert(0, nobody);
        assert_eq!(ask_once(&endpoint, "").await.unwrap().status.as_u16(), 204);
        serving.await.unwrap();
        endpoint.addresses.clear();
        let nowhere = ask_once(&endpoint, "").await.unwrap_err();
        assert_eq!(nowhere.to_string(), "its name has no address");
    }
}
