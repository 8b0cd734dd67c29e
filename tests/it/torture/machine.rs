//! The service on a machine of its own that QEMU makes up, with a real kernel and filesystem, which
//! is killed, and whose disk forgets what was not flushed.
//!
//! Broker, database, publisher and proxy are outside, and see the service go with the machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fastrand::Rng;

use super::arena::{Arena, Fault};
use super::forgetful::Disk;
use super::tally::campaign;
use crate::harness::{Load, Mosquitto, Scratch, ports, random};

/// Readings a second: the machine is an emulated one.
const RATE: u32 = 1_000;

/// Longer than it takes to boot, even on a busy machine.
const BOOT: Duration = Duration::from_secs(120);

/// What `scripts/torture.sh` has made.
fn guest() -> PathBuf {
    std::env::var_os("TORTURE_GUEST").expect("scripts/torture.sh --cases machine makes it").into()
}

/// With the log on ext4. `environment` is the machine's.
fn arena(guest: &Path, environment: &[(&str, &str)]) -> Arena {
    let disk = new_disk();
    let mut arena = Arena::with(Mosquitto::start(), |service| {
        let service = service
            .running(guest.join("run"), BOOT)
            .set("HTTP_ADDR", format!("0.0.0.0:{}", ports::free()))
            .set("WAL_DIR", "/disk/wal")
            .set("LOG_FORMAT", "json")
            .set("GUEST_DISK_PORT", disk.port);
        environment.iter().fold(service, |service, (name, value)| service.set(name, value))
    });
    arena.disk = Some(disk);
    arena
}

fn new_disk() -> Disk {
    let scratch = Scratch::new();
    let image = scratch.path().join("image");
    let made =
        Command::new("mke2fs").args(["-t", "ext4", "-b", "4096"]).arg(&image).arg("128M").output();
    assert!(made.unwrap().status.success());
    Disk::start(std::fs::read(image).unwrap(), random())
}

/// At work, now and then without a database, and now and then once more while it boots.
fn power_cut(arena: &mut Arena, load: &Load, random: &mut Rng) {
    let is_outage = random.bool();
    if is_outage {
        arena.postgres.stop();
    }
    // Not to wait for anything: to be killed in another moment every time.
    load.await_more(random.u64(1..3_000));
    std::thread::sleep(Duration::from_micros(random.u64(..100_000)));
    arena.kill();
    if random.u8(..4) == 0 {
        let booting = arena.service.launch();
        std::thread::sleep(Duration::from_millis(random.u64(..10_000)));
        arena.cut_disk();
        booting.kill();
    }
    if is_outage {
        arena.postgres.launch();
    }
}

#[test]
#[ignore = "takes a machine that scripts/torture.sh --cases machine makes"]
fn a_machine_that_dies_at_any_moment_takes_nothing_that_was_acknowledged() {
    let mut arena = arena(&guest(), &[]);
    campaign("machine", 1, |seed| Some(arena.attempt(RATE, seed, power_cut)));
    eprintln!("{} readings were published and acknowledged", arena.published());
}

/// The negative control: the same machine, with `libeatmydata`, which leaves out every sync.
#[test]
#[ignore = "takes a machine that scripts/torture.sh --cases machine makes"]
fn without_syncs_the_same_machine_loses_readings() {
    const TRIES: u64 = 5;
    let mut arena = arena(&guest(), &[("GUEST_PRELOAD", "/lib/libeatmydata.so")]);
    let outage: Fault = |arena, load, _| {
        arena.postgres.stop();
        load.await_more(2_000);
        arena.kill();
        arena.postgres.launch();
    };
    let found: Vec<_> = (0..TRIES).map(|seed| arena.find(RATE, seed, outage).lost).collect();
    eprintln!("without syncs, lost in each of {TRIES} tries: {found:?}");
    assert!(found.iter().filter(|lost| **lost > 0).count() > 2, "{found:?}");
}
