//! SIGKILL, at random moments and at each point of the code that a system call marks.
//!
//! strace kills the process when it is about to make the n-th call of a kind, so "before" a point
//! is meant literally, and "after" it is before the next one in the same thread.

use std::time::Duration;

use fastrand::Rng;

use super::arena::{Arena, Fault};
use crate::harness::{Load, try_within};

/// What is about to happen, the call that does it, and how often it does so in a second or two.
type Point = (&'static str, &'static str, u32);

const POINTS: [Point; 10] = [
    ("append, or note the positions after a commit or a flush", "pwrite64", 300),
    ("sled's flush, after an append", "sync_file_range", 120),
    ("fdatasync, after the flush", "fdatasync", 120),
    ACK,
    ("a statement to the database, or its commit", "sendto", 30),
    ("making a generation", "mkdir", 4),
    ("sync of a new generation", "fsync", 8),
    ("deleting the files and the directory of a generation", "unlinkat", 3),
    ("opening what is there", "openat", 40),
    ("listing what is there, locking", "flock", 2),
];

const ACK: Point = ("ack, after the commit", "writev", 120);

pub(super) const FAULTS: [(&str, Fault); 2] =
    [("SIGKILL at a point", at_a_point), ("SIGKILL at random moments", at_random_moments)];

pub(super) fn at_a_point(arena: &mut Arena, _: &Load, random: &mut Rng) {
    before(POINTS[random.usize(..POINTS.len())], arena, random);
}

pub(super) fn between_commit_and_ack(arena: &mut Arena, _: &Load, random: &mut Rng) {
    before(ACK, arena, random);
}

fn before((_, call, times): Point, arena: &mut Arena, random: &mut Rng) {
    let when = random.u32(1..=times);
    // For a third of the time there is no database, and the log grows.
    let is_outage = random.u8(..3) == 0;
    if is_outage {
        arena.postgres.stop();
    }
    arena.kill();
    let (trace, inject) =
        (format!("trace={call}"), format!("inject={call}:signal=KILL:when={when}"));
    // Not with --seccomp-bpf, with which strace 6.1 sends no signals.
    let mut victim = arena.service.launch_traced(&["-e", &trace, "-e", &inject]);
    if try_within(Duration::from_secs(3), || (!victim.is_running()).then_some(())).is_none() {
        eprintln!("{call} was not called {when} times");
    }
    victim.kill();
    if is_outage {
        arena.postgres.launch();
    }
}

pub(super) fn at_random_moments(arena: &mut Arena, _: &Load, random: &mut Rng) {
    let is_outage = random.u8(..3) == 0;
    if is_outage {
        arena.postgres.stop();
    }
    for _ in 0..random.u8(1..5) {
        // Not to wait for anything: to be killed in another moment every time.
        std::thread::sleep(Duration::from_micros(random.u64(..600_000)));
        arena.kill();
        arena.restart();
    }
    if is_outage {
        arena.postgres.launch();
    }
}

#[test]
fn killed_at_each_point_of_the_code_it_loses_and_doubles_nothing() {
    Arena::new().campaign("kill-at-point", POINTS.len(), &FAULTS[..1]);
}

#[test]
fn killed_at_random_moments_it_loses_and_doubles_nothing() {
    Arena::new().campaign("kill", 6, &FAULTS[1..]);
}
