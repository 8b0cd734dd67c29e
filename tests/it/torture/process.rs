//! The process itself: stopped, doubled, short of memory, with a clock that jumps.

use std::time::Duration;

use fastrand::Rng;
use rustix::process::{Resource, Rlimit, Signal, prlimit};

use super::arena::{Arena, Fault};
use super::tally::from_environment;
use crate::harness::{Load, Mosquitto, PATIENCE, Service, try_within};

pub(super) const FAULTS: [(&str, Fault); 3] = [
    ("SIGSTOP", stopped),
    ("a second instance", second_instance),
    ("no more memory", short_of_memory),
];

fn stopped(arena: &mut Arena, _: &Load, random: &mut Rng) {
    let longest = from_environment("TORTURE_STOP_SECONDS").unwrap_or(3);
    arena.ingestor().signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(random.u64(500..=longest * 1_000)));
    arena.ingestor().signal(Signal::CONT);
}

fn second_instance(arena: &mut Arena, _: &Load, _: &mut Rng) {
    let mut second = arena.service.launch();
    assert_eq!(second.await_exit(PATIENCE), 1, "{}", second.log_text());
    assert!(second.log_text().contains("in use by another process"), "{}", second.log_text());
    arena.ingestor().must_run();
}

fn short_of_memory(arena: &mut Arena, load: &Load, random: &mut Rng) {
    let ingestor = arena.ingestor();
    let limit = ingestor.address_space() + random.u64(..2 << 20);
    let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
    prlimit(Some(ingestor.pid()), Resource::As, limit).unwrap();
    load.await_more(4_000);
    // It may have come through.
    try_within(Duration::from_secs(1), || (!ingestor.is_running()).then_some(()));
    arena.kill();
}

fn clock_jumps(arena: &mut Arena, load: &Load, random: &mut Rng) {
    // A day or three months to either side, back by decades, and right.
    for _ in 0..random.u8(2..6) {
        let jump = *random.choice(&["+1d", "-1d", "+90d", "-90d", "-20000d", "+0"]).unwrap();
        arena.service.set_clock(jump);
        load.await_more(random.u64(500..3_000));
        if random.u8(..4) == 0 {
            arena.kill();
            arena.restart();
        }
    }
}

#[test]
fn a_clock_that_jumps_costs_nothing() {
    let mut arena = Arena::with(Mosquitto::start(), Service::with_clock);
    arena.campaign("clock", 3, &[("clock jumps", clock_jumps)]);
}

#[test]
fn whatever_happens_to_the_process_nothing_is_lost_or_doubled() {
    Arena::new().campaign("process", FAULTS.len(), &FAULTS);
}
