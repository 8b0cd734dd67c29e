//! What a badly set up broker looks like from here. Pure bookkeeping; the session reports what it says.

use std::time::Duration;

/// Mosquitto's default for `max_inflight_messages`, and the largest window worth a warning.
const NARROW_WINDOW: u64 = 20;

/// So many rounds of acks make a pattern.
const ROUNDS: u64 = 200;

/// Watches how many messages the broker dares to send without an ack.
///
/// A broker with a limit fills its window again as soon as there is room, so most rounds of acks
/// find about as many messages outstanding as there ever are. Without a limit the number varies with
/// the traffic.
#[derive(Debug, Default)]
pub(super) struct Window {
    outstanding: u64,
    rounds: u64,
    widest: u64,
    full_rounds: u64,
    reported: bool,
}

impl Window {
    /// A message came in that wants an ack.
    pub(super) fn received(&mut self) {
        self.outstanding += 1;
    }

    /// `acks` were written. Returns the width of the window, once, if it is narrow and more wait.
    pub(super) fn acked(&mut self, acks: u64) -> Option<u64> {
        self.rounds += 1;
        if self.outstanding > self.widest {
            self.widest = self.outstanding;
            self.full_rounds = 0;
            self.rounds = 1;
        }
        // Some of what the broker has sent may still be on its way.
        if self.outstanding + self.widest / 10 >= self.widest {
            self.full_rounds += 1;
        }
        self.outstanding = self.outstanding.saturating_sub(acks);
        // A window of one cannot be told from messages that come one at a time.
        let is_narrow = (2..=NARROW_WINDOW).contains(&self.widest);
        let is_full = self.full_rounds * 10 >= self.rounds * 6;
        if self.reported || self.rounds < ROUNDS || !is_narrow || !is_full {
            return None;
        }
        self.reported = true;
        Some(self.widest)
    }
}

/// A session that ends sooner than this was cut short.
const SHORT_SESSION: Duration = Duration::from_secs(30);

/// So many in a row are no accident.
const SHORT_SESSIONS: u32 = 3;

/// Watches for another client with the same id: the broker lets only one of them be connected, so
/// the two throw each other out again and again.
#[derive(Debug, Default)]
pub(super) struct Takeover {
    in_a_row: u32,
    reported: bool,
}

impl Takeover {
    /// The broker closed a session that lasted so long. Returns true, once for a run of them, if
    /// this looks like a takeover.
    pub(super) fn closed_by_broker(&mut self, lasted: Duration) -> bool {
        if lasted >= SHORT_SESSION {
            *self = Self::default();
            return false;
        }
        self.in_a_row += 1;
        let is_news = self.in_a_row >= SHORT_SESSIONS && !self.reported;
        self.reported |= is_news;
        is_news
    }

    /// A session ended, or did not come about, in any other way.
    pub(super) fn ended_otherwise(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_is_always_filled_up_again_is_reported_once() {
        let mut window = Window::default();
        (0..20).for_each(|_| window.received());
        let mut reports = Vec::new();
        for round in 0..1_000 {
            let acks = [1, 19][round % 2];
            reports.extend(window.acked(acks));
            (0..acks).for_each(|_| window.received());
        }
        assert_eq!(reports, [20]);
    }

    #[test]
    fn traffic_that_varies_or_a_wide_window_is_not() {
        let mut window = Window::default();
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let messages = random.u64(1..8);
            (0..messages).for_each(|_| window.received());
            assert_eq!(window.acked(messages), None);
        }
        let mut window = Window::default();
        for _ in 0..10_000 {
            (0..1_000).for_each(|_| window.received());
            assert_eq!(window.acked(1_000), None);
        }
    }

    #[test]
    fn sessions_cut_short_again_and_again_look_like_a_takeover() {
        let mut takeover = Takeover::default();
        let reports = (0..10).filter(|_| takeover.closed_by_broker(Duration::from_secs(1))).count();
        assert_eq!(reports, 1);
        takeover.ended_otherwise();
        assert!(!takeover.closed_by_broker(Duration::from_secs(1)));
    }
}
