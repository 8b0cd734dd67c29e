//! How many connections there may be, and which is closed to make room for another: decides, and does no
//! I/O.
//!
//! There may be [`CONNECTIONS_MAX`]. All other machines together may have [`REMOTE_MAX`], so that whoever
//! watches the service from this one can always connect, and one address may have [`PER_ADDRESS_MAX`].
//! When no more may be opened, the connection that has been idle for longest is closed: one that is kept
//! alive without a request, or one that has been silent since it was opened.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Connections at once.
pub(super) const CONNECTIONS_MAX: usize = 144;
/// Of those, how many may come from other machines.
const REMOTE_MAX: usize = 112;
/// Of those, how many may come from one address.
const PER_ADDRESS_MAX: usize = 64;
/// From so many on, answers ask their client to close.
const CROWDED: usize = 64;

/// How long a connection has to be silent after it was opened before it may be closed for another.
const IDLE_AFTER_OPEN: Duration = Duration::from_millis(250);
/// The same, after an answer.
const IDLE_AFTER_ANSWER: Duration = Duration::from_millis(20);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    /// Nothing has been asked on it since.
    Opened(Instant),
    /// A request is being answered.
    Busy,
    /// The last answer was made then.
    Answered(Instant),
}

impl Activity {
    /// Since when it is idle, if it may be closed for another at `now`.
    fn idle_since(self, now: Instant) -> Option<Instant> {
        let (at, silence) = match self {
            Self::Opened(at) => (at, IDLE_AFTER_OPEN),
            Self::Busy => return None,
            Self::Answered(at) => (at, IDLE_AFTER_ANSWER),
        };
        (now.saturating_duration_since(at) >= silence).then_some(at)
    }
}

/// What to do with a new connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission<K> {
    /// Keep it.
    Accept,
    /// Keep it, and close this one instead.
    Evict(K),
    /// Close it: its address has as many as it may have, and none of them is idle.
    Refuse,
}

/// The open connections, by a key of the caller's.
pub(super) struct ConnectionLimits<K, S> {
    open: HashMap<K, (IpAddr, S)>,
}

impl<K: Copy + Eq + std::hash::Hash, S: Fn() -> Option<Activity>> ConnectionLimits<K, S> {
    pub(super) fn new() -> Self {
        Self { open: HashMap::new() }
    }

    /// Whether no more may be opened.
    pub(super) fn is_full(&self) -> bool {
        self.open.len() >= CONNECTIONS_MAX
    }

    /// Whether answers should ask their clients to close.
    pub(super) fn is_crowded(&self) -> bool {
        self.open.len() >= CROWDED
    }

    /// What to do with a connection from `address`, while fewer than the maximum are open.
    pub(super) fn admit(&self, address: IpAddr, now: Instant) -> Admission<K> {
        if address.is_loopback() {
            return Admission::Accept;
        }
        let count = |is_meant: &dyn Fn(&IpAddr) -> bool| {
            self.open.values().filter(|(address, _)| is_meant(address)).count()
        };
        if count(&|other| *other == address) >= PER_ADDRESS_MAX {
            let idle = self.longest_idle_of(|other| *other == address, now);
            return idle.map_or(Admission::Refuse, Admission::Evict);
        }
        if count(&|other| !other.is_loopback()) >= REMOTE_MAX {
            let idle = self.longest_idle_of(|other| !other.is_loopback(), now);
            return idle.map_or(Admission::Refuse, Admission::Evict);
        }
        Admission::Accept
    }

    /// The one to close so that another may be opened.
    pub(super) fn longest_idle(&self, now: Instant) -> Option<K> {
        self.longest_idle_of(|_| true, now)
    }

    fn longest_idle_of(&self, is_meant: impl Fn(&IpAddr) -> bool, now: Instant) -> Option<K> {
        let meant = self.open.iter().filter(|(_, (address, _))| is_meant(address));
        let since =
            meant.filter_map(|(key, (_, activity))| Some((activity()?.idle_since(now)?, *key)));
        since.min_by_key(|(since, _)| *since).map(|(_, key)| key)
    }

    /// `activity` tells what the connection is doing; `None` once it is being closed.
    pub(super) fn add(&mut self, key: K, address: IpAddr, activity: S) {
        self.open.insert(key, (address, activity));
    }

    pub(super) fn remove(&mut self, key: K) {
        self.open.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test: it takes any moment for now")]

    use super::*;

    const AWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn limits(
        open: impl IntoIterator<Item = (IpAddr, Activity)>,
    ) -> ConnectionLimits<usize, impl Fn() -> Option<Activity>> {
        let mut limits = ConnectionLimits::new();
        for (key, (address, activity)) in open.into_iter().enumerate() {
            limits.add(key, address, move || Some(activity));
        }
        limits
    }

    #[test]
    fn one_address_leaves_connections_to_others_and_all_others_leave_some_to_this_machine() {
        let now = Instant::now();
        let busy = limits((0..PER_ADDRESS_MAX).map(|_| (AWAY, Activity::Busy)));
        assert_eq!(busy.admit(AWAY, now), Admission::Refuse);
        assert_eq!(busy.admit(IpAddr::from([192, 0, 2, 2]), now), Admission::Accept);
        let others = limits((0..112).map(|n| (IpAddr::from([198, 51, 100, n]), Activity::Busy)));
        assert_eq!(others.admit(AWAY, now), Admission::Refuse);
        assert_eq!(others.admit(HERE, now), Admission::Accept);
        assert!(!others.is_full() && others.is_crowded());
    }

    #[test]
    fn the_connection_that_was_idle_for_longest_is_closed_first_and_a_busy_one_never() {
        let start = Instant::now();
        let now = start + Duration::from_secs(1);
        let open = [
            (HERE, Activity::Busy),
            (HERE, Activity::Answered(start + Duration::from_millis(500))),
            (HERE, Activity::Opened(start + Duration::from_millis(400))),
            (AWAY, Activity::Opened(now)),
        ];
        assert_eq!(limits(open).longest_idle(now), Some(2));
        assert_eq!(limits([open[0], open[3]]).longest_idle(now), None);
    }
}
