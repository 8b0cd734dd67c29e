//! Work that blocks on the disk, off the runtime: [`AT_ONCE`] at once, and one more is a 503 after [`PATIENCE`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use utoipa::IntoResponses;

use crate::http::error::{ApiError, Body};

/// Requests whose work blocks on the disk at once.
const AT_ONCE: usize = 4;

/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whose turn it is to block on the disk. Replays need none: there is one at a time.
pub(in crate::http) struct Turns {
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Default for Turns {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)), patience: PATIENCE }
    }
}

impl Turns {
    /// Runs work that blocks on the disk, when it is its turn. It keeps its place to its end, also when nobody
    /// waits for it any more.
    pub(super) async fn blocking<T, E>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, ApiError>
    where
        T: Send + 'static,
        E: std::error::Error + Send + 'static,
    {
        let place = Arc::clone(&self.places).acquire_owned();
        let Ok(Ok(place)) = tokio::time::timeout(self.patience, place).await else {
            let what = "too many requests are waiting for the disk already; try again in a moment";
            return Err(ApiError::unavailable(what));
        };
        let work = move || {
            let _place = place;
            work()
        };
        blocking(work).await
    }
}

/// The 503 of [`Turns`], described.
#[derive(IntoResponses)]
#[response(
    status = 503,
    description = "Too many requests are waiting for the disk already.",
    example = json!({"error": "too many requests are waiting for the disk already; try again in a moment"}),
)]
#[expect(dead_code, reason = "it is only described")]
pub(super) struct Busy(Body);

/// Runs work that blocks on the disk.
pub(super) async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, ApiError>
where
    T: Send + 'static,
    E: std::error::Error + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(|error| ApiError::internal(&error)),
        Err(panic) => Err(ApiError::internal(&panic)),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc;

    use super::*;

    fn turns(patience: Duration) -> Turns {
        Turns { places: Arc::new(Semaphore::new(1)), patience }
    }

    #[tokio::test]
    async fn whoever_would_wait_too_long_for_the_disk_is_told_to_try_again() {
        let turns = Arc::new(turns(Duration::from_millis(10)));
        let (release, held) = mpsc::channel::<()>();
        let busy = Arc::clone(&turns);
        let work = move || Ok::<_, io::Error>(held.recv().is_err());
        let busy = tokio::spawn(async move { busy.blocking(work).await });
        while turns.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = turns.blocking(|| Ok::<_, io::Error>(())).await;
        assert!(matches!(refused, Err(ApiError::Unavailable(_))), "{refused:?}");

        // Nobody waits for its end any more, and it is at work all the same.
        busy.abort();
        assert!(busy.await.is_err());
        assert_eq!(turns.places.available_permits(), 0);
        drop(release);
        let turns = Turns { patience: PATIENCE, places: Arc::clone(&turns.places) };
        assert_eq!(turns.blocking(|| Ok::<_, io::Error>(7)).await, Ok(7));
    }
}
