//! Requests with a wrong token: from which address, how long each answer is delayed, and what is logged.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// One line of the log so often.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// An attempt this long ago counts no more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// A person mistypes now and then.
const FREE: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Against tokens of 16 characters or more this is plenty, and a script with a wrong one still ends.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Addresses that are remembered; beyond that the one that failed longest ago is forgotten.
const ADDRESSES: usize = 1_024;

/// Requests with a wrong token in the last minute.
#[derive(Default)]
pub(super) struct FailedAttempts {
    by_address: HashMap<IpAddr, (u32, Instant)>,
    unreported: u64,
    last: Option<IpAddr>,
    reported_at: Option<Instant>,
}

impl FailedAttempts {
    /// Records one from `address`; how long its answer is to be delayed.
    pub(super) fn record(&mut self, address: IpAddr, now: Instant) -> Duration {
        self.unreported += 1;
        self.last = Some(address);
        let whom = network(address);
        let is_recent = |at: Instant| now.saturating_duration_since(at) < FORGOTTEN_AFTER;
        if self.by_address.len() >= ADDRESSES && !self.by_address.contains_key(&whom) {
            let oldest = self.by_address.iter().min_by_key(|(_, (_, at))| *at);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                self.by_address.remove(&oldest);
            }
        }
        let (times, at) = self.by_address.entry(whom).or_insert((0, now));
        *times = if is_recent(*at) { times.saturating_add(1) } else { 1 };
        *at = now;
        match times.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(doublings) => {
                FIRST_PAUSE.saturating_mul(1 << doublings.min(10)).min(LONGEST_PAUSE)
            }
        }
    }

    /// How many there were since this last said so, and the last one's address, if it is time to say it.
    pub(super) fn due(&mut self, now: Instant) -> Option<(u64, IpAddr)> {
        let was_said = |at: Instant| now.saturating_duration_since(at) < REPORT_EVERY;
        if self.unreported == 0 || self.reported_at.is_some_and(was_said) {
            return None;
        }
        self.reported_at = Some(now);
        Some((std::mem::take(&mut self.unreported), self.last?))
    }
}

/// Whose an address is: of IPv6, one household or machine has all of a /64.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test: it takes any moment for now")]

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn the_pause_of_an_address_grows_to_a_bound_and_is_forgotten_after_a_quiet_minute() {
        let (mut attempts, now) = (FailedAttempts::default(), Instant::now());
        let pauses: Vec<_> = (0..20).map(|_| attempts.record(address(1), now)).collect();
        assert_eq!(pauses[..4], [Duration::ZERO, Duration::ZERO, Duration::ZERO, FIRST_PAUSE]);
        assert!(pauses.is_sorted() && pauses[19] == LONGEST_PAUSE, "{pauses:?}");
        assert_eq!(attempts.record(address(2), now), Duration::ZERO, "it is another's fault");
        assert_eq!(attempts.record(address(1), now + FORGOTTEN_AFTER), Duration::ZERO);
    }

    #[test]
    fn one_line_a_minute_tells_how_many_and_the_last_address() {
        let (mut attempts, now) = (FailedAttempts::default(), Instant::now());
        assert_eq!(attempts.due(now), None);
        attempts.record(address(1), now);
        assert_eq!(attempts.due(now), Some((1, address(1))));
        for last in 2..=200 {
            attempts.record(address(last), now);
            assert_eq!(attempts.due(now), None);
        }
        assert_eq!(attempts.due(now + REPORT_EVERY), Some((199, address(200))));
        assert_eq!(attempts.due(now + 2 * REPORT_EVERY), None);
    }

    #[test]
    fn the_addresses_that_are_remembered_are_bounded() {
        let (mut attempts, now) = (FailedAttempts::default(), Instant::now());
        for n in 0..5_000_u32 {
            attempts.record(IpAddr::from(n.to_be_bytes()), now);
        }
        assert_eq!(attempts.by_address.len(), ADDRESSES);
        let same = ["2001:db8::1", "2001:db8::2"].map(|text| network(text.parse().unwrap()));
        assert_eq!(same[0], same[1]);
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), address(1));
    }
}
