//! A database that dies, hangs, forgets its manners, or answers to nobody.

use std::time::Duration;

use fastrand::Rng;

use super::arena::{Arena, Fault};
use crate::disasters::SmallFilesystem;
use crate::harness::process::give_to_server;
use crate::harness::{Load, Scratch, eventually};

pub(super) const FAULTS: [(&str, Fault); 10] = [
    ("SIGKILL", killed),
    ("SIGSTOP", frozen),
    ("restart", restarted),
    ("pg_terminate_backend", terminated),
    ("lock", locked),
    ("permission revoked", not_permitted),
    ("table renamed", renamed),
    ("disk full", disk_full),
    ("cut between commit and answer", answers_lost),
    ("poison rows", poisoned),
];

fn some_time(random: &mut Rng) {
    // The fault lasts; nothing is awaited.
    std::thread::sleep(Duration::from_millis(random.u64(200..2_500)));
}

fn killed(arena: &mut Arena, _: &Load, random: &mut Rng) {
    arena.postgres.kill();
    some_time(random);
    arena.postgres.launch();
}

fn frozen(arena: &mut Arena, _: &Load, random: &mut Rng) {
    arena.postgres.freeze();
    some_time(random);
    arena.postgres.thaw();
}

fn restarted(arena: &mut Arena, _: &Load, random: &mut Rng) {
    arena.postgres.stop();
    some_time(random);
    arena.postgres.launch();
}

fn terminated(arena: &mut Arena, load: &Load, random: &mut Rng) {
    let mut session = arena.postgres.session();
    for _ in 0..random.u8(1..10) {
        session.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'writer'",
        );
        load.await_more(random.u64(1..1_500));
    }
}

fn locked(arena: &mut Arena, _: &Load, random: &mut Rng) {
    let mut session = arena.postgres.session();
    session.execute("begin; lock table telemetry in access exclusive mode");
    some_time(random);
    session.execute("commit");
}

fn not_permitted(arena: &mut Arena, _: &Load, random: &mut Rng) {
    arena.postgres.execute("revoke all on telemetry from writer");
    some_time(random);
    arena.postgres.execute("grant all on telemetry to writer");
}

fn renamed(arena: &mut Arena, _: &Load, random: &mut Rng) {
    arena.postgres.execute("alter table telemetry rename to elsewhere");
    some_time(random);
    // Unless the service has made itself another one, as it is free to do.
    arena.postgres.execute(
        "do $$ begin \
             if to_regclass('telemetry') is null then \
                 alter table elsewhere rename to telemetry; \
             else \
                 lock table telemetry in access exclusive mode; \
                 insert into telemetry (device_id, ts, temperature, humidity, battery) \
                     select device_id, ts, temperature, humidity, battery from elsewhere \
                     on conflict do nothing; \
                 drop table elsewhere; \
             end if; \
         end $$",
    );
}

fn disk_full(arena: &mut Arena, load: &Load, _: &mut Rng) {
    let place = Scratch::new();
    let room = arena.postgres.value("select pg_table_size('telemetry')") + (600 << 10);
    let mounted = SmallFilesystem::mount(&place.path().join("small"), &format!("size={room}"));
    let Some(small) = mounted else { return };
    give_to_server(place.path());
    let location = place.path().join("small");
    arena.postgres.execute(&format!("create tablespace small location '{}'", location.display()));
    arena.postgres.execute("alter table telemetry set tablespace small");
    let refusals = || arena.ingestor.as_ref()?.log_text().contains("53100").then_some(());
    eventually("the database's disk is full", refusals);
    load.await_more(2_000);
    small.remount("size=512m");
    load.await_more(2_000);
    arena.postgres.execute("alter table telemetry set tablespace pg_default");
    arena.postgres.execute("drop tablespace small");
}

fn answers_lost(arena: &mut Arena, _: &Load, random: &mut Rng) {
    let before = arena.gate.swallowed();
    arena.gate.swallow(true);
    eventually("answers are taken away", || (arena.gate.swallowed() > before + 1).then_some(()));
    some_time(random);
    arena.gate.swallow(false);
}

fn poisoned(arena: &mut Arena, load: &Load, random: &mut Rng) {
    let device = random.u8(..100);
    arena.postgres.execute(&format!(
        "alter table telemetry add constraint poison check (device_id <> 'device-{device:03}') not valid"
    ));
    load.await_more(4_000);
    arena.postgres.execute("alter table telemetry drop constraint poison");
}

#[test]
fn a_database_that_fails_in_any_way_misses_and_doubles_nothing() {
    Arena::new().campaign("database", FAULTS.len(), &FAULTS);
}
