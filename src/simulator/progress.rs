//! The counts while the simulator runs: one line in place on a terminal, else a line now and then.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::cell::Cell;
use std::io::{IsTerminal, stderr};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::base::output::Output;

const ON_TERMINAL: Duration = Duration::from_secs(1);
const ELSEWHERE: Duration = Duration::from_secs(5);

/// Written by the publisher, read by [`Progress::report`]; both live in one task.
pub(super) struct Progress {
    pub(super) published: Cell<u64>,
    pub(super) acked: Cell<u64>,
    pub(super) connected: Cell<bool>,
    in_place: bool,
    line_open: Cell<bool>,
    output: Output,
}

impl Progress {
    pub(super) fn new(output: &Output) -> Self {
        Self {
            published: Cell::new(0),
            acked: Cell::new(0),
            connected: Cell::new(false),
            in_place: stderr().is_terminal(),
            line_open: Cell::new(false),
            output: output.clone(),
        }
    }

    /// Prints the counts every `wanted`, forever; `Some(ZERO)` prints nothing, `None` is as often
    /// as suits where standard error goes.
    pub(super) async fn report(&self, wanted: Option<Duration>) {
        let period = wanted.unwrap_or(if self.in_place { ON_TERMINAL } else { ELSEWHERE });
        if period.is_zero() {
            return std::future::pending().await;
        }
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last_acked, mut last_at) = (0, Instant::now());
        loop {
            let now = ticks.tick().await;
            let acked = self.acked.get();
            let millis = now.duration_since(last_at).as_millis().max(1);
            let rate = u128::from(acked - last_acked) * 1_000 / millis;
            (last_acked, last_at) = (acked, now);
            self.print(rate);
        }
    }

    /// Removes the line in place, so that a log line does not end up behind it.
    pub(super) fn clear(&self) {
        if self.line_open.take() {
            self.output.push(b"\r\x1b[K".to_vec());
        }
    }

    fn print(&self, rate: u128) {
        let (published, acked) = (self.published.get(), self.acked.get());
        let broker = if self.connected.get() { "" } else { " · broker DOWN" };
        let line = format!("published {published} · acked {acked} · {rate} msg/s{broker}");
        if self.in_place {
            self.line_open.set(true);
            self.output.push(format!("\r{line}\x1b[K").into_bytes());
        } else {
            self.output.line(&line);
        }
    }
}
