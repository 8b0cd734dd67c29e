//! What the driver waits for, in the order in which it is looked at.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::future::ready;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::coalesce::Coalescing;
use super::connection::{Connection, Opened};
use super::session::{Event, Loss};
use crate::intake::queue::Acks;
use crate::wal::Room;

/// The present connection.
pub(super) struct Live {
    pub(super) connection: Connection,
    pub(super) coalescing: Coalescing,
    /// Pings that are not answered yet.
    pub(super) pongs_due: u32,
    /// How many renewals of certificates and secrets it heeds.
    renewals: u64,
}

impl Live {
    pub(super) fn new(opened: Opened) -> Self {
        let Opened { connection, renewals, .. } = opened;
        Self { connection, coalescing: Coalescing::default(), pongs_due: 0, renewals }
    }
}

/// Why the driver woke up.
pub(super) enum Wake {
    Event(Event),
    /// The broker has sent something, or the connection is over.
    Readable(Result<(), Loss>),
    /// All that the broker had sent is read, or a good part of it, and more comes all the time.
    Drained,
    /// Nothing that matters.
    InVain,
}

/// Everything that can wake the driver, but for its connection.
pub(super) struct Waits {
    /// When the time of the session began.
    pub(super) start: Instant,
    pub(super) acks: Acks,
    room: watch::Receiver<Room>,
    /// Asks for the end; `None`: the session knows.
    stop: Option<CancellationToken>,
    intake_done: Option<CancellationToken>,
    renewals: watch::Receiver<u64>,
    timer: Pin<Box<Sleep>>,
}

impl Waits {
    pub(super) fn new(
        room: watch::Receiver<Room>,
        renewals: watch::Receiver<u64>,
        stop: CancellationToken,
        intake_done: CancellationToken,
    ) -> Self {
        let start = Instant::now();
        let timer = Box::pin(sleep_until(start.into()));
        let (stop, intake_done) = (Some(stop), Some(intake_done));
        Self { start, acks: Acks::default(), room, stop, intake_done, renewals, timer }
    }

    /// Whether the log takes records.
    pub(super) fn room(&mut self) -> Room {
        self.room.borrow_and_update().clone()
    }

    /// Waits for something to happen; the session wants to be woken at `deadline`.
    pub(super) async fn next(
        &mut self,
        live: Option<&mut Live>,
        deadline: Option<Duration>,
    ) -> Wake {
        let deadline = deadline.map(|due| (self.start + due).into());
        if let Some(deadline) = deadline
            && deadline != self.timer.deadline()
        {
            self.timer.as_mut().reset(deadline);
        }
        let Self { acks, room, stop, intake_done, renewals, timer, .. } = self;
        let is_stopping = stop.is_none();
        let heeded = live.as_ref().map(|live| live.renewals);
        let (connection, has_paused, is_due) = match live {
            Some(Live { connection, coalescing, .. }) => {
                (Some(connection), coalescing.has_paused(), coalescing.is_due())
            }
            None => (None, false, false),
        };
        tokio::select! {
            biased;
            () = acks.queued(), if !has_paused => Wake::Event(Event::Settled(acks.take())),
            () = asked(stop.as_ref()), if !is_stopping => {
                *stop = None;
                Wake::Event(Event::StopAsked)
            }
            () = asked(intake_done.as_ref()), if is_stopping => {
                *intake_done = None;
                Wake::Event(Event::IntakeDone)
            }
            Ok(()) = room.changed() => {
                Wake::Event(Event::Room(room.borrow_and_update().clone()))
            }
            Ok(()) = renewals.changed() => {
                // It may have come while the present connection was being made.
                let renewals = *renewals.borrow_and_update();
                let is_heeded = heeded.is_some_and(|heeded| heeded >= renewals);
                if is_heeded { Wake::InVain } else { Wake::Event(Event::Renewed) }
            }
            () = timer, if deadline.is_some() => Wake::Event(Event::Elapsed),
            readable = readable(connection) => Wake::Readable(readable),
            () = ready(()), if is_due => Wake::Drained,
        }
    }

    /// Waits until the end is asked for, which the session does not know yet.
    pub(super) async fn stop_asked(&mut self) {
        asked(self.stop.as_ref()).await;
        self.stop = None;
    }
}

/// Waits for whoever is to ask.
async fn asked(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

async fn readable(connection: Option<&mut Connection>) -> Result<(), Loss> {
    match connection {
        Some(connection) => connection.readable().await,
        None => std::future::pending().await,
    }
}
