//! Drives the session: tells it what happens, and does what it says. It has a thread to itself, with
//! a runtime of its own: nothing else that wakes up costs it a switch of threads, and it can leave
//! the socket alone for a moment (`coalesce`).
//!
//! It waits for nobody but the intake's queue. Answers are written in rounds: all that have come up
//! by the time the socket is looked at leave in one write.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::connection::{Dialer, Opened};
use super::credentials::Credentials;
use super::inlet::{Forwarded, Inlet};
use super::packet::{Answer, Qos, Received, Sent};
use super::remembered::Remembered;
use super::report::report;
use super::session::{Change, Command, Event, Loss, Session, State, Terms, earlier};
use super::settings::Settings;
use super::wake::{Live, Waits, Wake};
use crate::base::metrics::Metrics;
use crate::base::time::Timestamp;
use crate::intake::queue::{Acks, Inbound};
use crate::status::health::Health;
use crate::telemetry::validate::TimeOfDay;
use crate::wal::Room;

/// Packets that are dealt with before acks are looked at again.
const BURST: usize = 32;

/// How often the time of day is looked at, where messages get it.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(1);

/// Why we stay away, for the status.
const WRONG_CLOCK: &str = "the clock of the machine is wrong, and mappings store the time of arrival: the connection comes by itself once the clock is set";

/// What the source is connected to.
pub(crate) struct SourceParts {
    /// Where deliveries go; the last strong handle, so that letting go of it closes the queue.
    pub(crate) deliveries: mpsc::Sender<Inbound>,
    /// Whether the log takes records.
    pub(crate) room: watch::Receiver<Room>,
    /// Asks for the end: no more deliveries are taken then.
    pub(crate) stop: CancellationToken,
    /// Says that the intake has acknowledged all it was given.
    pub(crate) intake_done: CancellationToken,
    /// Where it is kept which filters were granted.
    pub(crate) dir: PathBuf,
    /// Whether an earlier process has been here, so that the broker should know the session.
    pub(crate) has_history: bool,
    /// Whether messages can get the time of their arrival, so that nothing is received by a wrong clock.
    pub(crate) uses_arrival: bool,
    /// Where the state of the connection is kept.
    pub(crate) health: Arc<Health>,
    /// Counters.
    pub(crate) metrics: Metrics,
}

/// The connection to the broker.
pub(crate) struct Source {
    settings: Settings,
    session: Session,
    commands: Vec<Command>,
    credentials: Arc<Credentials>,
    dialer: Dialer,
    live: Option<Live>,
    inlet: Inlet,
    waits: Waits,
    remembered: Remembered,
    /// When the time of day is looked at again; `None`: it does not matter.
    next_look: Option<Duration>,
    clock_is_wrong: bool,
    health: Arc<Health>,
    metrics: Metrics,
}

/// Whether there is more to do.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    End,
}

impl Source {
    /// Prepares a connection; nothing is sent before [`Self::run`].
    #[must_use]
    pub(crate) fn new(settings: Settings, parts: SourceParts) -> Self {
        let SourceParts { deliveries, room, stop, intake_done, .. } = parts;
        let remembered = Remembered::new(&parts.dir, &settings);
        let terms = Terms {
            topics: settings.topics.clone(),
            has_history: parts.has_history,
            remembered: remembered.filters(),
            is_settled: remembered.is_settled(),
        };
        let credentials = Arc::new(Credentials::new(&settings));
        let mut waits = Waits::new(room, credentials.renewals(), stop, intake_done);
        Self {
            session: Session::new(terms, waits.room(), fastrand::Rng::new(), Duration::ZERO),
            commands: Vec::new(),
            dialer: Dialer::new(settings.clone(), Arc::clone(&credentials)),
            settings,
            credentials,
            live: None,
            inlet: Inlet::new(deliveries),
            waits,
            remembered,
            next_look: parts.uses_arrival.then_some(Duration::ZERO),
            clock_is_wrong: false,
            health: parts.health,
            metrics: parts.metrics,
        }
    }

    /// The handle with which the intake acknowledges.
    #[must_use]
    pub(crate) fn acks(&self) -> Acks {
        self.waits.acks.clone()
    }

    /// What has certificates and secrets read again.
    #[must_use]
    pub(crate) fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.credentials)
    }

    /// Connects, and connects again, until asked to stop.
    pub(crate) async fn run(mut self) {
        let mut flow = Flow::On;
        while flow == Flow::On {
            flow = self.look_at_clock().await;
            if flow == Flow::End {
                return;
            }
            let deadline = earlier(self.session.deadline(), self.next_look);
            flow = match self.waits.next(self.live.as_mut(), deadline).await {
                Wake::InVain => Flow::On,
                Wake::Event(event) => self.tell(event).await,
                Wake::Readable(Ok(())) => self.read().await,
                Wake::Readable(Err(loss)) => self.lose(loss).await,
                Wake::Drained => {
                    let pause = self.live.as_mut().and_then(|live| live.coalescing.drained());
                    if let Some(pause) = pause {
                        // The thread is ours. A timer would not do: what comes would wake it.
                        std::thread::sleep(pause);
                        // Has the runtime look at the socket.
                        tokio::task::yield_now().await;
                    }
                    Flow::On
                }
            };
        }
    }

    async fn look_at_clock(&mut self) -> Flow {
        let now = self.waits.start.elapsed();
        if self.next_look.is_none_or(|due| now < due) {
            return Flow::On;
        }
        self.next_look = Some(now + LOOK_AT_CLOCK);
        let is_wrong = !TimeOfDay::at(Timestamp::now()).is_plausible();
        if is_wrong == std::mem::replace(&mut self.clock_is_wrong, is_wrong) {
            return Flow::On;
        }
        self.tell(Event::Clock { is_wrong }).await
    }

    /// Tells the session what was read, for a while.
    async fn read(&mut self) -> Flow {
        for _ in 0..BURST {
            let Some(Live { connection, coalescing, .. }) = &mut self.live else { break };
            let packet = match connection.next() {
                Ok(Some(packet)) => packet,
                Ok(None) => break,
                Err(loss) => return self.lose(loss).await,
            };
            if let Received::Publish(_) = &packet {
                coalescing.received(Instant::now());
            }
            self.receive(packet);
            if self.carry_out().await == Flow::End {
                return Flow::End;
            }
        }
        self.flush().await
    }

    fn receive(&mut self, packet: Received) {
        if let Received::Publish(publish) = &packet {
            self.metrics.messages.inc();
            if publish.qos == Qos::AtMostOnce {
                self.metrics.qos0_messages.inc();
            }
            if publish.dup {
                self.metrics.redeliveries.inc();
            }
        }
        if let (Received::Pong, Some(live)) = (&packet, &mut self.live) {
            live.pongs_due = live.pongs_due.saturating_sub(1);
        }
        self.hear(Event::Received(packet));
    }

    async fn tell(&mut self, event: Event) -> Flow {
        if let Event::IntakeDone = event {
            // What it has settled last comes first.
            let settled = Event::Settled(self.waits.acks.take());
            self.hear(settled);
        }
        self.hear(event);
        if self.carry_out().await == Flow::End {
            return Flow::End;
        }
        self.flush().await
    }

    /// The connection is over. What it has brought is stored all the same, should the broker forget
    /// it; it is not acknowledged.
    async fn lose(&mut self, loss: Loss) -> Flow {
        if let Some(Live { mut connection, .. }) = self.live.take() {
            while let Ok(Some(packet)) = connection.next() {
                self.receive(packet);
                if Box::pin(self.carry_out()).await == Flow::End {
                    return Flow::End;
                }
            }
        }
        self.hear(Event::Lost(loss));
        Box::pin(self.carry_out()).await
    }

    async fn flush(&mut self) -> Flow {
        let Some(live) = &mut self.live else { return Flow::On };
        match live.connection.flush().await {
            Ok(()) => Flow::On,
            Err(loss) => self.lose(loss).await,
        }
    }

    /// Does what the session says. What is to be sent is only queued.
    async fn carry_out(&mut self) -> Flow {
        let mut commands = std::mem::take(&mut self.commands);
        let mut flow = Flow::On;
        for command in commands.drain(..) {
            match command {
                Command::Forward { publish, packet, ack } => {
                    let connection = self.live.as_mut().map(|live| &mut live.connection);
                    match self.inlet.forward(publish, packet, ack, connection).await {
                        Forwarded::AtOnce => {}
                        Forwarded::AfterAWait => self.hear(Event::Resumed),
                        Forwarded::Nowhere => flow = Flow::End,
                    }
                }
                Command::Send(packet) => self.send(packet),
                Command::Connect => {
                    // From now on there may be something to be delivered again.
                    self.remembered.note_settled(false);
                    self.connect().await;
                }
                Command::Close => self.close().await,
                Command::Settle => self.settle().await,
                Command::CloseQueue => self.inlet.close(),
                Command::Remember(filters) => self.remembered.store(filters),
                Command::Show(State::Disconnected) => {
                    self.health.set_mqtt_connected(false);
                }
                Command::Show(State::WrongClock) => {
                    self.health.set_mqtt_away(WRONG_CLOCK);
                }
                Command::Show(State::Unsubscribed(filters)) => {
                    self.health.set_mqtt_unsubscribed(filters);
                }
                Command::Show(State::Connected) => {
                    self.health.set_mqtt_connected(true);
                }
                Command::Report(change) => {
                    if let Change::Connected { again: true, .. } = change {
                        self.metrics.mqtt_reconnects.inc();
                    }
                    report(&self.settings, change);
                }
                Command::End => flow = Flow::End,
            }
        }
        // Without a message nothing is left of it: a list that can be used again.
        if self.commands.is_empty() {
            self.commands = commands;
        } else if flow == Flow::On {
            return Box::pin(self.carry_out()).await;
        }
        flow
    }

    fn send(&mut self, packet: Sent) {
        let Some(live) = &mut self.live else { return };
        if let Sent::Answer(Answer::PubAck(_) | Answer::PubRec(_)) = &packet {
            self.metrics.acks.inc();
        }
        if packet == Sent::Ping {
            live.pongs_due += 1;
        }
        if let Err(loss) = live.connection.queue(packet) {
            tracing::error!(error = loss.error, "a packet for the broker cannot be written");
        }
    }

    /// Ends the connection, after what is queued.
    async fn close(&mut self) {
        let Some(mut live) = self.live.take() else { return };
        if live.connection.flush().await.is_err() {
            tracing::debug!("the broker was gone before we could leave in order");
        }
    }

    /// Remembers it if the broker has heard all that was said: it answers a ping behind that.
    async fn settle(&mut self) {
        let Some(live) = self.live.as_mut().filter(|_| self.next_look.is_some()) else { return };
        let pongs = live.pongs_due + 1;
        if live.connection.queue(Sent::Ping).is_ok()
            && live.connection.flush().await.is_ok()
            && live.connection.has_pongs(pongs).await
        {
            self.remembered.note_settled(true);
        }
    }

    async fn connect(&mut self) {
        let Self { dialer, waits, .. } = self;
        let event = tokio::select! {
            biased;
            () = waits.stop_asked() => Event::StopAsked,
            opened = dialer.open() => match opened {
                Ok(opened) => {
                    let Opened { session_present, .. } = opened;
                    self.live = Some(Live::new(opened));
                    Event::Connected { session_present }
                }
                Err(loss) => Event::Lost(loss),
            },
        };
        self.hear(event);
    }

    fn hear(&mut self, event: Event) {
        self.session.on(event, self.waits.start.elapsed(), &mut self.commands);
    }
}
