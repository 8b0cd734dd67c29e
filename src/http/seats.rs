//! Which connections there may be, and which has to go for another: decides, and does no I/O.
//!
//! There are [`PLACES`] of them. Machines other than this one have [`OTHERS`] together, so that whoever
//! watches the service from here finds a place, and one of them has [`PER_ADDRESS`]. When there is no
//! place left, the connection that has been of no use for longest goes: one that is kept alive and on
//! which nothing is asked, or one that has been silent since it was opened.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Connections at once.
pub(super) const PLACES: usize = 144;
/// Of those, what is not from this machine may have.
const OTHERS: usize = 112;
/// Of those, what one address may have.
const PER_ADDRESS: usize = 64;
/// From so many on, answers ask their client to close.
const CROWDED: usize = 64;

/// How long a connection may be silent at its beginning before it can be sent away.
const FIRST_SILENCE: Duration = Duration::from_millis(250);
/// The same, after an answer.
const LATER_SILENCE: Duration = Duration::from_millis(20);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Nothing has been asked on it since.
    Opened(Instant),
    /// A request is being answered.
    Busy,
    /// The last answer was made then.
    Answered(Instant),
}

impl Use {
    /// Since when it is of no use, if it can be sent away at `now`.
    fn useless_since(self, now: Instant) -> Option<Instant> {
        let (at, silence) = match self {
            Self::Opened(at) => (at, FIRST_SILENCE),
            Self::Busy => return None,
            Self::Answered(at) => (at, LATER_SILENCE),
        };
        (now.saturating_duration_since(at) >= silence).then_some(at)
    }
}

/// What to do with a new connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission<K> {
    /// It has a place.
    Welcome,
    /// It has the place of this one, which has to go.
    InsteadOf(K),
    /// Its address has all the places that it can have, and uses them.
    Refused,
}

/// The connections that there are, by a key of the caller's.
pub(super) struct Seats<K, S> {
    taken: HashMap<K, (IpAddr, S)>,
}

impl<K: Copy + Eq + std::hash::Hash, S: Fn() -> Option<Use>> Seats<K, S> {
    pub(super) fn new() -> Self {
        Self { taken: HashMap::new() }
    }

    /// Whether there is a place for whoever comes.
    pub(super) fn is_full(&self) -> bool {
        self.taken.len() >= PLACES
    }

    /// Whether answers should ask their clients to close.
    pub(super) fn is_crowded(&self) -> bool {
        self.taken.len() >= CROWDED
    }

    /// Whether a connection from `address` may have one of the places that are left.
    pub(super) fn admit(&self, address: IpAddr, now: Instant) -> Admission<K> {
        if address.is_loopback() {
            return Admission::Welcome;
        }
        let count = |is_meant: &dyn Fn(&IpAddr) -> bool| {
            self.taken.values().filter(|(address, _)| is_meant(address)).count()
        };
        if count(&|other| *other == address) >= PER_ADDRESS {
            let useless = self.useless(|other| *other == address, now);
            return useless.map_or(Admission::Refused, Admission::InsteadOf);
        }
        if count(&|other| !other.is_loopback()) >= OTHERS {
            let useless = self.useless(|other| !other.is_loopback(), now);
            return useless.map_or(Admission::Refused, Admission::InsteadOf);
        }
        Admission::Welcome
    }

    /// The one to go, so that there is a place again.
    pub(super) fn most_useless(&self, now: Instant) -> Option<K> {
        self.useless(|_| true, now)
    }

    fn useless(&self, is_meant: impl Fn(&IpAddr) -> bool, now: Instant) -> Option<K> {
        let meant = self.taken.iter().filter(|(_, (address, _))| is_meant(address));
        let since = meant.filter_map(|(key, (_, what))| Some((what()?.useless_since(now)?, *key)));
        since.min_by_key(|(since, _)| *since).map(|(_, key)| key)
    }

    /// `what` tells what the connection is doing; nothing once it has been told to go.
    pub(super) fn take(&mut self, key: K, address: IpAddr, what: S) {
        self.taken.insert(key, (address, what));
    }

    pub(super) fn leave(&mut self, key: K) {
        self.taken.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test: it takes any moment for now")]

    use super::*;

    const AWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn seats(
        uses: impl IntoIterator<Item = (IpAddr, Use)>,
    ) -> Seats<usize, impl Fn() -> Option<Use>> {
        let mut seats = Seats::new();
        for (key, (address, what)) in uses.into_iter().enumerate() {
            seats.take(key, address, move || Some(what));
        }
        seats
    }

    #[test]
    fn one_address_leaves_places_to_others_and_all_others_leave_some_to_this_machine() {
        let now = Instant::now();
        let busy = seats((0..PER_ADDRESS).map(|_| (AWAY, Use::Busy)));
        assert_eq!(busy.admit(AWAY, now), Admission::Refused);
        assert_eq!(busy.admit(IpAddr::from([192, 0, 2, 2]), now), Admission::Welcome);
        let others = seats((0..112).map(|n| (IpAddr::from([198, 51, 100, n]), Use::Busy)));
        assert_eq!(others.admit(AWAY, now), Admission::Refused);
        assert_eq!(others.admit(HERE, now), Admission::Welcome);
        assert!(!others.is_full() && others.is_crowded());
    }

    #[test]
    fn what_has_been_of_no_use_for_longest_goes_first_and_what_is_of_use_never() {
        let start = Instant::now();
        let now = start + Duration::from_secs(1);
        let uses = [
            (HERE, Use::Busy),
            (HERE, Use::Answered(start + Duration::from_millis(500))),
            (HERE, Use::Opened(start + Duration::from_millis(400))),
            (AWAY, Use::Opened(now)),
        ];
        assert_eq!(seats(uses).most_useless(now), Some(2));
        assert_eq!(seats([uses[0], uses[3]]).most_useless(now), None);
    }
}
