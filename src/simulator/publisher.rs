//! Hands messages to the broker and sees every one of them acknowledged.
//!
//! rumqttc's request channel is bypassed: [`EventLoop::poll`] takes one request from it and flushes
//! the socket for each, while whole windows written here at once cost a fraction of that. Its state
//! machine still numbers, keeps and matches the messages.
//!
//! The session is a clean one, so that nothing of the simulator stays on the broker. What was in
//! flight when a connection broke is therefore kept here and sent again as new on the next one: the
//! broker may then see a message twice, which at-least-once delivery allows and the
//! `device_id` + `ts` of the table absorbs.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::collections::VecDeque;
use std::time::Duration;

use rumqttc::{
    ConnectionError, Disconnect, EventLoop, MqttOptions, NetworkOptions, Publish, Request,
    Transport,
};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::fleet::{Fleet, Schedule};
use super::outcome::{Error, Summary};
use super::progress::Progress;
use super::settings::Settings;
use crate::base::retry::Backoff;
use crate::mqtt::tls;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// Longest wait for the broker to take what is written to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages written before acknowledgements are looked at again.
const BURST: usize = 512;

pub(super) struct Publisher<'a> {
    event_loop: EventLoop,
    broker: String,
    fleet: Fleet,
    schedule: Schedule,
    /// Messages of broken connections, to be sent before any new one.
    again: VecDeque<Publish>,
    published: u64,
    limit: Option<u64>,
    first_connected: Option<Instant>,
    /// A nearly full window is not topped up for every single acknowledgement: one write then
    /// carries many messages, and the broker still has most of a window to work on.
    worthwhile: u16,
    progress: &'a Progress,
}

impl<'a> Publisher<'a> {
    pub(super) fn new(settings: &Settings, progress: &'a Progress) -> Result<Self, Error> {
        let client_id = format!("iot-simulator-{:08x}", fastrand::u32(..));
        let mut options = MqttOptions::new(client_id, &settings.broker, settings.port);
        options.set_inflight(settings.max_inflight).set_keep_alive(Duration::from_secs(20));
        if let Some((user, password)) = &settings.login {
            options.set_credentials(user, password.expose());
        }
        if let Some(tls) = &settings.tls {
            let config = tls::client_config(tls).map_err(Error::Tls)?;
            options.set_transport(Transport::tls_with_config(config.into()));
        }
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        let mut event_loop = EventLoop::new(options, 1);
        event_loop.set_network_options(network);
        Ok(Self {
            event_loop,
            broker: format!("{}:{}", settings.broker, settings.port),
            fleet: Fleet::new(settings),
            schedule: Schedule::new(settings, Instant::now()),
            again: VecDeque::new(),
            published: 0,
            limit: settings.message_count,
            first_connected: None,
            worthwhile: (settings.max_inflight / 8).max(1),
            progress,
        })
    }

    /// Publishes until the limit is reached or `stop` is cancelled, and all of it is acknowledged.
    /// To be cancelled only for good.
    pub(super) async fn run(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        let mut failures = 0_u32;
        let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, fastrand::Rng::new());
        while !(self.is_finished(stop) && self.outstanding() == 0) {
            let outcome = if self.event_loop.network.is_some() {
                self.exchange(stop).await
            } else {
                self.connect(stop).await
            };
            self.count();
            match outcome {
                Ok(()) if self.event_loop.network.is_some() => {
                    failures = 0;
                    pauses.reset();
                }
                Ok(()) => {}
                Err(error) => {
                    self.check_refusal(&error)?;
                    self.recover(&error, failures);
                    Self::pause(pauses.next_pause(), stop).await;
                    failures += 1;
                }
            }
        }
        Ok(())
    }

    /// Says goodbye, so that the broker need not wait for the keep-alive to find out.
    pub(super) async fn disconnect(&mut self) {
        let Some(network) = &mut self.event_loop.network else { return };
        let goodbye = Request::Disconnect(Disconnect);
        let Ok(Some(packet)) = self.event_loop.state.handle_outgoing_packet(goodbye) else {
            return;
        };
        let send = async {
            network.write(packet).await?;
            network.flush().await
        };
        if !matches!(timeout(Duration::from_secs(1), send).await, Ok(Ok(()))) {
            tracing::debug!("the broker did not take the goodbye");
        }
    }

    /// Takes note that the acknowledgements still missing are not waited for.
    pub(super) fn give_up(&self) {
        self.progress.clear();
        tracing::warn!(missing = self.outstanding(), "stopped before the broker acknowledged all");
    }

    pub(super) fn summary(&self) -> Summary {
        Summary {
            published: self.published,
            acked: self.published - self.outstanding(),
            elapsed: self.first_connected.map_or(Duration::ZERO, |first| first.elapsed()),
        }
    }

    /// Published and not acknowledged, on this connection or on those before.
    fn outstanding(&self) -> u64 {
        let state = &self.event_loop.state;
        let held_back = u64::from(state.collision.is_some());
        u64::from(state.inflight()) + held_back + self.again.len() as u64
    }

    fn is_finished(&self, stop: &CancellationToken) -> bool {
        stop.is_cancelled() || self.limit.is_some_and(|limit| self.published >= limit)
    }

    async fn connect(&mut self, stop: &CancellationToken) -> Result<(), ConnectionError> {
        tokio::select! {
            connected = self.event_loop.poll() => connected?,
            () = stop.cancelled(), if !stop.is_cancelled() => return Ok(()),
        };
        let now = Instant::now();
        self.first_connected.get_or_insert(now);
        self.schedule.restart(now);
        self.progress.clear();
        tracing::info!(broker = self.broker, send_again = self.again.len(), "connected");
        Ok(())
    }

    /// Writes what is due and fits, then waits for acknowledgements, the next due time or `stop`.
    async fn exchange(&mut self, stop: &CancellationToken) -> Result<(), ConnectionError> {
        let finished = self.is_finished(stop);
        match timeout(WRITE_TIMEOUT, self.write_due(finished)).await {
            Ok(written) => written?,
            Err(_) => return Err(ConnectionError::FlushTimeout),
        }
        let next_due = match (self.has_room(self.worthwhile), self.again.is_empty()) {
            (true, false) => Some(Instant::now()),
            (true, true) if !self.is_finished(stop) => Some(self.schedule.next_due()),
            _ => None,
        };
        // Acknowledgements come first, or a schedule that lags would never let them be read.
        tokio::select! {
            biased;
            event = self.event_loop.poll() => event.map(drop),
            () = at(next_due) => Ok(()),
            () = stop.cancelled(), if !finished => Ok(()),
        }
    }

    /// Not cancellation-safe: a message given to the state but not written is never acknowledged,
    /// so the connection must be given up with it.
    async fn write_due(&mut self, finished: bool) -> Result<(), ConnectionError> {
        if !self.has_room(self.worthwhile) {
            return Ok(());
        }
        let now = Instant::now();
        for _ in 0..BURST {
            if !self.has_room(1) {
                break;
            }
            let publish = match self.again.pop_front() {
                Some(publish) => publish,
                None if finished || self.limit.is_some_and(|limit| self.published >= limit) => {
                    break;
                }
                None if self.schedule.next_due() > now => break,
                None => {
                    self.schedule.advance();
                    self.published += 1;
                    self.fleet.publish()
                }
            };
            let request = Request::Publish(publish);
            let packet = self.event_loop.state.handle_outgoing_packet(request)?;
            if let (Some(packet), Some(network)) = (packet, &mut self.event_loop.network) {
                network.write(packet).await?;
            }
        }
        // The state tells all there is to know; unread events would only be handed out by `poll`.
        self.event_loop.state.events.clear();
        if let Some(network) = &mut self.event_loop.network {
            network.flush().await?;
        }
        Ok(())
    }

    fn has_room(&self, messages: u16) -> bool {
        let state = &self.event_loop.state;
        let room = self.event_loop.mqtt_options.inflight().saturating_sub(state.inflight());
        state.collision.is_none() && room >= messages
    }

    fn count(&self) {
        self.progress.published.set(self.published);
        self.progress.acked.set(self.published - self.outstanding());
        self.progress.connected.set(self.event_loop.network.is_some());
    }

    fn check_refusal(&self, error: &ConnectionError) -> Result<(), Error> {
        match error {
            ConnectionError::ConnectionRefused(code) if self.first_connected.is_none() => {
                Err(Error::Refused { broker: self.broker.clone(), code: *code })
            }
            _ => Ok(()),
        }
    }

    /// Drops the connection and takes its unacknowledged messages back, oldest first.
    fn recover(&mut self, error: &ConnectionError, failures: u32) {
        self.event_loop.clean();
        self.event_loop.state.events.clear();
        let held_back = self.event_loop.state.collision.take().map(Request::Publish);
        let unacknowledged = self.event_loop.pending.drain(..).chain(held_back);
        let mut again: VecDeque<_> = unacknowledged
            .filter_map(|request| match request {
                // On the new connection it is a new message, under a new number.
                Request::Publish(publish) => Some(Publish { pkid: 0, ..publish }),
                _ => None,
            })
            .collect();
        again.append(&mut self.again);
        self.again = again;
        self.count();
        if failures == 0 {
            self.progress.clear();
            tracing::warn!(broker = self.broker, %error, "no connection, retrying until there is one");
        } else {
            tracing::debug!(broker = self.broker, %error, failures, "still no connection");
        }
    }

    async fn pause(pause: Duration, stop: &CancellationToken) {
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled(), if !stop.is_cancelled() => {}
        }
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
