//! Free TCP ports.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that the kernel gives to clients.
const FIRST: u16 = 20_000;
/// As many for each test that runs at the same time.
const SHARE: u16 = 1_000;
const SHARES: u16 = 12;

static NEXT: AtomicU16 = AtomicU16::new(u16::MAX);

/// A port of 127.0.0.1 that nobody uses, and that no other test running now will pick.
pub(crate) fn free() -> u16 {
    let slot = std::env::var("NEXTEST_TEST_GLOBAL_SLOT").ok();
    let slot: u16 = slot.and_then(|slot| slot.parse().ok()).unwrap_or_default();
    let share = FIRST + slot % SHARES * SHARE;
    // Not where the test before has just closed its own.
    let start = || Some(fastrand::u16(..SHARE));
    NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
        (next == u16::MAX).then(start).flatten()
    })
    .ok();
    (0..SHARE)
        .map(|_| share + NEXT.fetch_add(1, Ordering::Relaxed) % SHARE)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("no free TCP port")
}
