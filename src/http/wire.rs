//! The bytes of a connection: plain or TLS, and hyper's own refusals put into our words.
//!
//! hyper answers what it cannot read as HTTP by itself, before any handler of ours is asked, and
//! without a body. Every error of this service is `{"error":"…"}`, so such an answer is replaced on its
//! way out. None of our own looks like one: they all have a body. What a download says is not looked at: it is
//! the last answer of its connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A connection as it was accepted.
pub(super) enum Stream {
    /// Nobody on the way is kept from reading it.
    Plain(Plain),
    /// Boxed, as it is larger by far.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection without TLS. To a client of HTTP/1.0 its end is the end of the answer, so that one with a
/// download that is broken off, whoever breaks it off, is reset; TLS has an end of its own.
pub(super) struct Plain {
    stream: TcpStream,
    has_download: Arc<AtomicBool>,
    /// Whether all that was to be written was, and was said to be all.
    is_ended: bool,
}

impl Plain {
    /// `has_download` tells, at the end, whether there was a download.
    pub(super) fn new(stream: TcpStream, has_download: Arc<AtomicBool>) -> Self {
        Self { stream, has_download, is_ended: false }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        if !self.is_ended && self.has_download.load(Ordering::Relaxed) {
            // Of a connection that has ended already there is nothing to reset.
            rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).ok();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(plain) => Pin::new(&mut plain.stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(plain) => Pin::new(&mut plain.stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(plain) => Pin::new(&mut plain.stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(plain) => {
                plain.is_ended = true;
                Pin::new(&mut plain.stream).poll_shutdown(context)
            }
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// A connection on which hyper's own refusals have a body.
pub(super) struct JsonErrors<S> {
    stream: S,
    has_download: Arc<AtomicBool>,
    /// What is written in place of what hyper wrote, and how much of it already is.
    instead: Option<(Vec<u8>, usize)>,
}

impl<S> JsonErrors<S> {
    /// `has_download` tells whether a download has begun.
    pub(super) fn new(stream: S, has_download: Arc<AtomicBool>) -> Self {
        Self { stream, has_download, instead: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for JsonErrors<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for JsonErrors<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.instead.is_none() {
            let is_ours = this.has_download.load(Ordering::Relaxed);
            let Some(refusal) = refusal(bytes).filter(|_| !is_ours) else {
                return Pin::new(&mut this.stream).poll_write(context, bytes);
            };
            this.instead = Some((refusal, 0));
        }
        while let Some((text, written)) = &mut this.instead {
            if *written == text.len() {
                this.instead = None;
                break;
            }
            let more = Pin::new(&mut this.stream).poll_write(context, &text[*written..]);
            match ready!(more)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                more => *written += more,
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

const NOT_HTTP: &str =
    "the request is not valid HTTP; check the path and the query for stray characters";
const TOO_LONG: &str =
    "the request's line or headers are too long; send less than 16 KiB and at most 64 headers";

/// What to send in place of `answer`, if that is one that hyper made by itself.
fn refusal(answer: &[u8]) -> Option<Vec<u8>> {
    let head = answer.strip_prefix(b"HTTP/1.1 ")?;
    let (status, problem) = match head.get(..3)? {
        b"400" => ("400 Bad Request", NOT_HTTP),
        b"414" => ("414 URI Too Long", TOO_LONG),
        b"431" => ("431 Request Header Fields Too Large", TOO_LONG),
        _ => return None,
    };
    let is_empty = memchr::memmem::find(head, b"content-length: 0\r\n").is_some();
    is_empty.then(|| response(status, problem))
}

/// A whole answer that closes the connection.
pub(super) fn response(status: &str, problem: &str) -> Vec<u8> {
    let body = serde_json::json!({ "error": problem }).to_string();
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\n\
         x-frame-options: DENY\r\nreferrer-policy: no-referrer\r\n\
         content-security-policy: default-src 'none'; frame-ancestors 'none'\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn only_what_hyper_says_by_itself_is_replaced() {
        let hypers = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
                      content-length: 0\r\ndate: x\r\n\r\n";
        let ours = "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}";
        for (sent, has_download, is_replaced) in
            [(hypers, false, true), (hypers, true, false), (ours, false, false)]
        {
            // So small that it takes many writes.
            let (near, mut far) = tokio::io::duplex(7);
            let writing = tokio::spawn(async move {
                let mut stream = JsonErrors::new(near, Arc::new(AtomicBool::new(has_download)));
                stream.write_all(sent.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            });
            let mut received = String::new();
            far.read_to_string(&mut received).await.unwrap();
            writing.await.unwrap();
            assert_eq!(received.contains(r#"{"error":"the request's line"#), is_replaced);
            assert_eq!(received == sent, !is_replaced, "{received}");
        }
    }
}
