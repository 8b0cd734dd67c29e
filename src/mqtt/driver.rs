//! What owns the connection: it polls, forwards, and writes the acks that are queued. It has a thread
//! to itself, with a runtime of its own: nothing else that wakes up costs it a switch of threads, and
//! it can leave the socket alone for a moment (`coalesce`).
//!
//! It waits for nobody but the intake's queue: when that is full it stops polling, and TCP tells
//! the broker. Nothing is dropped on the way: what is not forwarded is not acknowledged either,
//! and the broker keeps it.
//!
//! Acks do not go through rumqttc's request queue, which writes and flushes them one by one, and
//! in between reads ten messages for each. Here a round of them is written at once. For that the
//! poll is broken off, which is safe once it is connected (rumqttc 0.25, `eventloop.rs`: reading
//! keeps its state in the codec, and requests are taken and written without a wait that a socket
//! with room could cause), and is never done before.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::{
    AsyncClient, ConnAck, ConnectionError, Event, EventLoop, MqttOptions, Packet, PubAck, Publish,
    QoS, StateError, SubAck, SubscribeFilter, SubscribeReasonCode,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::coalesce::Coalescing;
use super::diagnosis::{Takeover, Window};
use super::settings::Settings;
use super::tls;
use crate::base::metrics::Metrics;
use crate::base::retry::Backoff;
use crate::base::time::Timestamp;
use crate::intake::queue::{AckToken, Acks, Delivery, Inbound};
use crate::status::health::Health;
use crate::wal::Room;

const KEEP_ALIVE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A session that lasted this long has worked, even if no message came.
const SETTLED: Duration = Duration::from_secs(1);

/// Before a return to the broker when there seems to be room: what was refused a moment ago must not
/// be fetched again at once.
const AFTER_FULL: Duration = Duration::from_secs(1);

/// MQTT's own limit. A smaller one would make the client drop the connection on a larger packet,
/// which the broker would deliver again for ever.
const MAX_PACKET_BYTES: usize = 268_435_455 + 5;

/// Longest wait for the broker to take what is written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests to rumqttc that may wait; the only one is a subscribe for each connection.
const REQUESTS: usize = 16;

/// Payload bytes that the intake has not dealt with yet, however many messages they are; a message that
/// is larger comes alone.
const BUDGET_BYTES: usize = 4 * 1024 * 1024;

/// What the source is connected to.
pub struct SourceParts {
    /// Where deliveries go; the last strong handle, so that letting go of it closes the queue.
    pub deliveries: mpsc::Sender<Inbound>,
    /// Whether the log takes records.
    pub room: watch::Receiver<Room>,
    /// Asks for the end: no more deliveries are taken then.
    pub stop: CancellationToken,
    /// Says that the intake has acknowledged all it was given.
    pub intake_done: CancellationToken,
    /// Whether an earlier process has been here, so that the broker should know the session.
    pub has_history: bool,
    /// Where the state of the connection is kept.
    pub health: Arc<Health>,
    /// Counters.
    pub metrics: Metrics,
}

/// The connection to the broker.
pub struct Source {
    config: Settings,
    client: AsyncClient,
    events: EventLoop,
    acks: Acks,
    parts: SourceParts,
    budget: Arc<Semaphore>,
    backoff: Backoff,
    connections: u64,
    /// When the present session began.
    connected_at: Option<Instant>,
    /// Whether it has acknowledged anything.
    has_acked: bool,
    last_error: Option<String>,
    window: Window,
    takeover: Takeover,
    coalescing: Coalescing,
}

/// Why the session woke up.
enum Wake {
    Event(Result<Event, ConnectionError>),
    Acks,
    /// All that the broker had sent is read, or a good part of it, and more comes all the time.
    Drained,
    Leave(End),
}

/// Why a session ended.
enum End {
    /// The process stops.
    Stop,
    /// The log is full.
    Full,
    /// The connection broke or never came about.
    Lost(ConnectionError),
}

impl Source {
    /// Prepares a connection; nothing is sent before [`Self::run`].
    ///
    /// # Errors
    /// A sentence, if the TLS files are of no use.
    pub fn new(config: Settings, parts: SourceParts) -> Result<Self, String> {
        let host = match config.broker.parse::<std::net::Ipv6Addr>() {
            Ok(_) => format!("[{}]", config.broker),
            Err(_) => config.broker.clone(),
        };
        let mut options = MqttOptions::new(&config.client_id, host, config.port);
        options
            .set_manual_acks(true)
            .set_clean_session(false)
            .set_keep_alive(KEEP_ALIVE)
            .set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES)
            .set_transport(tls::transport(config.tls.as_ref())?);
        if let Some((user, password)) = &config.login {
            options.set_credentials(user, password.expose());
        }
        let (client, mut events) = AsyncClient::new(options, REQUESTS);
        let mut network = events.network_options();
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        Ok(Self {
            acks: Acks::default(),
            client,
            events,
            config,
            parts,
            budget: Arc::new(Semaphore::new(BUDGET_BYTES)),
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, fastrand::Rng::new()),
            connections: 0,
            connected_at: None,
            has_acked: false,
            last_error: None,
            window: Window::default(),
            takeover: Takeover::default(),
            coalescing: Coalescing::default(),
        })
    }

    /// The handle with which the intake acknowledges.
    #[must_use]
    pub fn acks(&self) -> Acks {
        self.acks.clone()
    }

    /// Connects, and connects again, until asked to stop.
    pub async fn run(mut self) {
        let stop = self.parts.stop.clone();
        while !stop.is_cancelled() {
            if !self.wait_for_room().await {
                return;
            }
            self.connected_at = None;
            self.has_acked = false;
            let end = self.session().await;
            self.end_connection().await;
            let settled = self.connected_at.is_some_and(|at| at.elapsed() >= SETTLED);
            if settled || self.has_acked {
                self.backoff.reset();
            }
            let pause = match end {
                End::Stop => return,
                End::Full if *self.parts.room.borrow() == Room::Open => AFTER_FULL,
                End::Full => Duration::ZERO,
                End::Lost(error) => {
                    let pause = self.backoff.next_pause();
                    self.report_lost(&error, pause);
                    pause
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Stays away from the broker while the log is full; false if the process stops.
    async fn wait_for_room(&mut self) -> bool {
        let reason = match &*self.parts.room.borrow_and_update() {
            Room::Open => return true,
            Room::Full(reason) => reason.clone(),
        };
        tracing::warn!(
            reason,
            "the log is full: staying away from the broker, which keeps the session's messages; the log goes on draining, and the connection comes back by itself"
        );
        tokio::select! {
            open = self.parts.room.wait_for(|room| *room == Room::Open) => {
                if open.is_ok() {
                    tracing::info!("the log has room again: returning to the broker");
                }
                open.is_ok()
            }
            () = self.parts.stop.cancelled() => false,
        }
    }

    /// One connection, from the attempt to its end.
    async fn session(&mut self) -> End {
        let mut stopping = false;
        loop {
            let connected = self.events.network.is_some();
            let event = {
                let SourceParts { deliveries, stop, intake_done, room, .. } = &mut self.parts;
                let mut poll = pin!(self.events.poll());
                tokio::select! {
                    biased;
                    () = self.acks.queued(), if connected && !self.coalescing.has_paused() => Wake::Acks,
                    () = stop.cancelled(), if !stopping => {
                        if !connected {
                            return End::Stop;
                        }
                        // Polls on, so that the last acks go out. Letting go of the queue ends the
                        // intake, once it has done what is in there.
                        stopping = true;
                        *deliveries = mpsc::channel(1).0;
                        continue;
                    }
                    () = intake_done.cancelled(), if stopping => Wake::Leave(End::Stop),
                    _ = room.wait_for(|room| *room != Room::Open), if connected && !stopping => {
                        Wake::Leave(End::Full)
                    }
                    event = &mut poll => Wake::Event(event),
                    () = std::future::ready(()), if connected && self.coalescing.is_due() => Wake::Drained,
                }
            };
            let outcome = match event {
                Wake::Acks if self.acks.is_broken() => {
                    self.leave().await;
                    return End::Full;
                }
                Wake::Acks => self.write_acks().await,
                Wake::Drained => {
                    if let Some(pause) = self.coalescing.drained() {
                        // The thread is ours. A timer would not do: what comes would wake it.
                        std::thread::sleep(pause);
                        // Has the runtime look at the socket.
                        tokio::task::yield_now().await;
                    }
                    Ok(())
                }
                Wake::Leave(end) => {
                    self.leave().await;
                    return end;
                }
                Wake::Event(Err(error)) => Err(error),
                Wake::Event(Ok(event)) => {
                    if !self.handle(event, stopping).await {
                        return End::Stop;
                    }
                    Ok(())
                }
            };
            if let Err(error) = outcome {
                return End::Lost(error);
            }
        }
    }

    /// Handles an event, and those that the same poll has read; false if the intake is gone.
    async fn handle(&mut self, event: Event, stopping: bool) -> bool {
        let mut next = Some(event);
        while let Some(event) = next {
            match event {
                // What comes while stopping is left with the broker.
                Event::Incoming(Packet::Publish(publish)) if !stopping => {
                    let is_taken = self.forward(publish).await;
                    if !is_taken {
                        return false;
                    }
                }
                Event::Incoming(Packet::ConnAck(connack)) => self.connected(&connack),
                Event::Incoming(Packet::SubAck(suback)) => self.subscribed(&suback),
                _ => {}
            }
            next = self.events.state.events.pop_front();
        }
        true
    }

    /// Writes the acks that are queued, all at once.
    async fn write_acks(&mut self) -> Result<(), ConnectionError> {
        let packet_ids = self.acks.take();
        let Some(network) = &mut self.events.network else { return Ok(()) };
        self.has_acked |= !packet_ids.is_empty();
        let write = async {
            for packet_id in &packet_ids {
                network.write(Packet::PubAck(PubAck::new(*packet_id))).await?;
            }
            network.flush().await
        };
        tokio::time::timeout(WRITE_TIMEOUT, write)
            .await
            .map_err(|_| ConnectionError::FlushTimeout)??;
        if let Some(width) = self.window.acked(packet_ids.len() as u64) {
            tracing::warn!(
                messages_in_flight = width,
                "the broker sends no more than {width} messages before it waits for acks, although more wait: commits stay small and throughput low; raise its limit (Mosquitto: max_inflight_messages)"
            );
        }
        Ok(())
    }

    /// Says goodbye, after the last acks.
    async fn leave(&mut self) {
        let acked = self.write_acks().await;
        let Some(network) = &mut self.events.network else { return };
        let goodbye = async {
            network.write(Packet::Disconnect).await?;
            network.flush().await
        };
        let left = tokio::time::timeout(WRITE_TIMEOUT, goodbye).await;
        if acked.is_err() || !matches!(left, Ok(Ok(()))) {
            tracing::debug!("the broker was gone before we could leave in order");
        }
    }

    /// Hands a message to the intake, waiting for its place; false if the intake is gone.
    async fn forward(&mut self, publish: Publish) -> bool {
        self.parts.metrics.messages.inc();
        self.coalescing.received(Instant::now());
        if publish.dup {
            self.parts.metrics.redeliveries.inc();
        }
        if publish.qos != QoS::AtMostOnce {
            self.window.received();
        }
        let received_at = Timestamp::now();
        let bytes = u32::try_from(publish.payload.len().min(BUDGET_BYTES)).unwrap_or(u32::MAX);
        let budget = Arc::clone(&self.budget);
        let deliveries = &self.parts.deliveries;
        let place =
            async { (budget.acquire_many_owned(bytes).await.ok(), deliveries.reserve().await) };
        let (budget, place) = while_keeping_alive(&mut self.events, place).await;
        let Ok(place) = place else { return false };
        place.send(Inbound::Message(delivery(publish, self.acks.epoch(), received_at, budget)));
        true
    }

    fn connected(&mut self, connack: &ConnAck) {
        self.connections += 1;
        self.connected_at = Some(Instant::now());
        if self.connections > 1 {
            self.parts.metrics.mqtt_reconnects.inc();
        }
        self.last_error = None;
        self.parts.health.set_mqtt_connected(true);
        tracing::info!(
            broker = %format_args!("{}:{}", self.config.broker, self.config.port),
            client_id = self.config.client_id,
            session_resumed = connack.session_present,
            "connected to the broker"
        );
        let expected = self.connections > 1 || self.parts.has_history;
        if expected && !connack.session_present {
            tracing::warn!(
                "the broker did not know our session: what was published while we were away is lost unless it was kept elsewhere; give the broker persistence, and this client id to nobody else (Mosquitto: persistence true)"
            );
        }
        // Also when the session is there: it may have been made with other filters, or have ended
        // before it was granted these.
        let filters = self.config.topics.iter();
        let filters = filters.map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce));
        if let Err(error) = self.client.try_subscribe_many(filters) {
            tracing::error!(%error, topics = ?self.config.topics, "subscribing failed: no messages will come");
        }
    }

    fn subscribed(&self, suback: &SubAck) {
        for (filter, code) in self.config.topics.iter().zip(&suback.return_codes) {
            match code {
                SubscribeReasonCode::Success(QoS::AtMostOnce) => tracing::error!(
                    filter,
                    "the broker granted QoS 0 only: messages that are lost on the way will not be sent again"
                ),
                SubscribeReasonCode::Success(_) => tracing::info!(filter, "subscribed"),
                SubscribeReasonCode::Failure => tracing::error!(
                    filter,
                    "the broker refused the subscription: no messages of it will come; check its access rules"
                ),
            }
        }
    }

    /// Closes the books on a connection.
    async fn end_connection(&mut self) {
        let epoch = self.acks.end_epoch();
        self.window = Window::default();
        self.coalescing = Coalescing::default();
        self.events.clean();
        // A subscribe of the old connection is not for the next.
        self.events.pending.clear();
        let received: Vec<Publish> = self
            .events
            .state
            .events
            .drain(..)
            .filter_map(|event| match event {
                Event::Incoming(Packet::Publish(publish)) => Some(publish),
                _ => None,
            })
            .collect();
        self.parts.health.set_mqtt_connected(false);
        // Received, but never to be acknowledged: stored all the same, should the broker forget them.
        for publish in received {
            let delivery = delivery(publish, epoch, Timestamp::now(), None);
            let sent = self.parts.deliveries.send(Inbound::Message(delivery));
            if self.parts.stop.is_cancelled() || sent.await.is_err() {
                break;
            }
            self.parts.metrics.messages.inc();
        }
    }

    fn report_lost(&mut self, error: &ConnectionError, pause: Duration) {
        let connected = self.connected_at;
        let text = describe(error);
        let retry_in_ms = pause.as_millis();
        if connected.is_some() {
            tracing::warn!(
                error = text,
                retry_in_ms,
                "lost the broker: it keeps what was not acknowledged and delivers it again"
            );
        } else if self.last_error.as_ref() != Some(&text) {
            tracing::warn!(
                error = text,
                retry_in_ms,
                "cannot reach the broker: trying again, without end"
            );
        } else {
            tracing::debug!(error = text, retry_in_ms, "still cannot reach the broker");
        }
        self.last_error = Some(text);
        match connected {
            Some(connected) if was_closed_by_broker(error) => {
                if self.takeover.closed_by_broker(connected) {
                    tracing::warn!(
                        client_id = self.config.client_id,
                        "the broker has closed several sessions soon after they began: most likely another client uses the same client id, and the two throw each other out; set MQTT_CLIENT_ID to a value of its own"
                    );
                }
            }
            _ => self.takeover.ended_otherwise(),
        }
    }
}

fn delivery(
    publish: Publish,
    epoch: u64,
    received_at: Timestamp,
    budget: Option<OwnedSemaphorePermit>,
) -> Delivery {
    let Publish { topic, payload, pkid, qos, .. } = publish;
    let packet_id = (qos != QoS::AtMostOnce).then_some(pkid);
    Delivery { topic, payload, received_at, ack: AckToken { epoch, packet_id }, budget }
}

/// Waits for `place`, during which nothing is polled, and tells the broker meanwhile that we live.
async fn while_keeping_alive<T>(events: &mut EventLoop, place: impl Future<Output = T>) -> T {
    let mut place = pin!(place);
    loop {
        if let Ok(place) = tokio::time::timeout(KEEP_ALIVE / 2, &mut place).await {
            return place;
        }
        let Some(network) = &mut events.network else { continue };
        let ping = async {
            network.write(Packet::PingReq).await?;
            network.flush().await
        };
        if !matches!(tokio::time::timeout(WRITE_TIMEOUT, ping).await, Ok(Ok(()))) {
            tracing::debug!("the broker takes no ping; the next poll will tell why");
        }
    }
}

fn was_closed_by_broker(error: &ConnectionError) -> bool {
    let is_reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
    match error {
        ConnectionError::MqttState(StateError::ConnectionAborted) => true,
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => {
            is_reset(error)
        }
        _ => false,
    }
}

/// rumqttc's messages, less their wrapping.
fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => {
            error.to_string()
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            "the broker closed the connection".to_owned()
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            "the broker does not answer pings".to_owned()
        }
        ConnectionError::ConnectionRefused(code) => {
            format!("the broker refused the connection: {code:?}")
        }
        other => other.to_string(),
    }
}
