//! A stream for requests: it does not wait for ever, and a refused body keeps no answer from being read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Fails once nothing has moved for a while, in neither direction.
///
/// Who refuses a body may answer and close before all of it is sent. So what cannot be written is dropped, without
/// a word: reading tells what has become of the connection, after the last that was said on it.
pub(super) struct IdleTimeout<S> {
    stream: S,
    patience: Duration,
    timer: Pin<Box<Sleep>>,
    is_write_failed: bool,
}

impl<S> IdleTimeout<S> {
    /// Within a runtime. `patience`: longest time in which nothing moves.
    pub(super) fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, timer: Box::pin(sleep(patience)), is_write_failed: false }
    }

    /// What became of reading or writing, if that is not "nothing, for too long".
    fn in_time<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.timer.set(sleep(self.patience));
        }
        // Also of a new timer: it wakes whoever waits for the other direction.
        let is_over = self.timer.as_mut().poll(cx).is_ready();
        if polled.is_pending() && is_over {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for IdleTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.in_time(polled, cx)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for IdleTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_write_failed {
            return Poll::Ready(Ok(bytes.len()));
        }
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Err(_)) = polled {
            self.is_write_failed = true;
            return Poll::Ready(Ok(bytes.len()));
        }
        self.in_time(polled, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const MOMENT: Duration = Duration::from_millis(10);

    #[tokio::test]
    async fn one_who_neither_speaks_nor_listens_is_not_waited_for() {
        let (near, _far) = tokio::io::duplex(8);
        let mut near = IdleTimeout::new(near, MOMENT);
        let read = near.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(read.kind(), io::ErrorKind::TimedOut);
        let written = near.write_all(&[0; 9]).await.unwrap_err();
        assert_eq!(written.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn an_answer_is_not_waited_for_for_ever_after_the_request_was_sent() {
        let (near, _far) = tokio::io::duplex(8);
        let (mut answers, mut requests) = tokio::io::split(IdleTimeout::new(near, MOMENT));
        let mut answer = [0; 8];
        let (read, written) = tokio::join!(answers.read(&mut answer), requests.write_all(b"ask"));
        written.unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn what_was_said_before_the_end_is_read_though_nothing_can_be_written() {
        let (near, mut far) = tokio::io::duplex(8);
        let mut near = IdleTimeout::new(near, Duration::from_secs(60));
        far.write_all(b"refused").await.unwrap();
        drop(far);
        near.write_all(&[0; 100]).await.unwrap();
        let mut said = Vec::new();
        near.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"refused");
    }
}
