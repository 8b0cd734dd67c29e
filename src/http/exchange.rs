//! Bodies that are too long to be held as a whole, which therefore pass Rocket by.
//!
//! Rocket's local client takes a body as bytes and gives one as bytes. So the body of a request, and that
//! of an answer that is made while it is sent, are handed over beside it: a handler takes the one out of the
//! [`Exchange`] of its request, and puts the other in.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, Incoming};
use rocket::request::{FromRequest, Outcome};
use rocket::{Request, async_trait};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// Pieces of an answer that wait for its client.
const WAITING_PIECES: usize = 2;

/// What passes Rocket by in a request and its answer. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Exchange(Arc<Mutex<Bodies>>);

#[derive(Default)]
struct Bodies {
    upload: Option<Incoming>,
    download: Option<Download>,
}

impl Exchange {
    /// Of a request with this body.
    pub(super) fn of(upload: Incoming) -> Self {
        Self(Arc::new(Mutex::new(Bodies { upload: Some(upload), download: None })))
    }

    /// The body of the request; once.
    pub(super) fn take_upload(&self) -> Option<Incoming> {
        self.lock().upload.take()
    }

    /// Has this sent in place of the body of the answer.
    pub(super) fn answer_with(&self, download: Download) {
        self.lock().download = Some(download);
    }

    pub(super) fn take_download(&self) -> Option<Download> {
        self.lock().download.take()
    }

    fn lock(&self) -> MutexGuard<'_, Bodies> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl<'r> FromRequest<'r> for Exchange {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        Outcome::Success(request.local_cache(Self::default).clone())
    }
}

/// The body of an answer that is made while it is sent.
///
/// An end that its maker has not said to be one is an error: the client gets a transfer that is broken off,
/// and not a shorter file.
pub(super) struct Download {
    pieces: mpsc::Receiver<Piece>,
    is_whole: bool,
    /// Called when nothing more will be sent.
    when_over: Option<Box<dyn FnOnce() + Send>>,
    _maker: AbortOnDropHandle<()>,
}

enum Piece {
    Bytes(Bytes),
    End,
}

/// Where the maker of a [`Download`] puts its pieces.
pub(super) struct Pieces(mpsc::Sender<Piece>);

/// Nobody takes the answer any more.
pub(super) struct Gone;

impl Pieces {
    /// Waits until the client has taken what is before it, but for a few pieces.
    pub(super) async fn send(&self, bytes: Vec<u8>) -> Result<(), Gone> {
        self.0.send(Piece::Bytes(bytes.into())).await.map_err(|_| Gone)
    }

    /// That was all.
    pub(super) async fn end(self) {
        // Who has gone needs no end.
        self.0.send(Piece::End).await.ok();
    }
}

impl Download {
    /// Made by `make`, which ends with [`Pieces::end`] if nothing was in its way, and is dropped with this.
    pub(super) fn start<F>(make: impl FnOnce(Pieces) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, pieces) = mpsc::channel(WAITING_PIECES);
        let maker = AbortOnDropHandle::new(tokio::spawn(make(Pieces(sender))));
        Self { pieces, is_whole: false, when_over: None, _maker: maker }
    }

    /// Has `call` called when nothing more will be sent.
    pub(super) fn when_over(&mut self, call: impl FnOnce() + Send + 'static) {
        self.when_over = Some(Box::new(call));
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.is_whole {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.pieces.poll_recv(context)) {
            Some(Piece::Bytes(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(Piece::End) => {
                self.is_whole = true;
                None
            }
            None => Some(Err(io::Error::other("the answer was broken off"))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_whole
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if let Some(call) = self.when_over.take() {
            call();
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn an_answer_is_whole_only_if_its_maker_has_said_so() {
        let whole = Download::start(|pieces| async move {
            assert!(pieces.send(b"a".to_vec()).await.is_ok());
            assert!(pieces.send(b"b".to_vec()).await.is_ok());
            pieces.end().await;
        });
        assert_eq!(whole.collect().await.unwrap().to_bytes(), "ab");
        let broken = Download::start(|pieces| async move {
            assert!(pieces.send(b"a".to_vec()).await.is_ok());
        });
        assert!(broken.collect().await.is_err());
        let panicked = Download::start(|pieces| async move {
            let _pieces = pieces;
            panic!("on purpose")
        });
        assert!(panicked.collect().await.is_err());
    }

    #[tokio::test]
    async fn its_maker_waits_for_its_client_and_is_told_when_that_has_gone() {
        let (told, heard) = tokio::sync::oneshot::channel();
        let (over, ended) = tokio::sync::oneshot::channel();
        let mut download = Download::start(|pieces| async move {
            let mut sent = 0;
            while pieces.send(vec![0]).await.is_ok() {
                sent += 1;
            }
            told.send(sent).ok();
        });
        download.when_over(move || {
            over.send(()).ok();
        });
        tokio::task::yield_now().await;
        drop(download);
        assert_eq!(ended.await, Ok(()));
        // It may have been dropped before it could tell.
        if let Ok(sent) = heard.await {
            assert!(sent <= WAITING_PIECES, "{sent}");
        }
    }
}
