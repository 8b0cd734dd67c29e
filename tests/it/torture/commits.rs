//! A database that is killed while it confirms rows, and that was told not to wait for its
//! disk when it does.
//!
//! What it loses then can be seen: its writer wakes up so seldom that only a commit that waits is written
//! at all. The service keeps nothing of what was confirmed, so it cannot send it again.

use fastrand::Rng;

use super::tally::{Found, campaign};
use crate::harness::{Load, Mosquitto, PgBouncer, Postgres, Service, eventually, readings};

const LAZY: &str = "
    alter system set wal_writer_delay = '10s';
    alter system set wal_writer_flush_after = '1GB';
    alter system set wal_buffers = '64MB'";

/// By whom it was told.
const WAYS: [Way; 3] = [Way::Role, Way::Reload, Way::RoleBehindPooler];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Role,
    /// While rows come in.
    Reload,
    /// Which takes no start parameters, and lends its sessions for a transaction.
    RoleBehindPooler,
}

const OFF_BY_ROLE: &str = "alter role iot set synchronous_commit = off";

fn attempt(seed: u64) -> Found {
    let way = WAYS[usize::try_from(seed).unwrap() % WAYS.len()];
    eprintln!("{seed}: {way:?}");
    let mut random = Rng::with_seed(seed);
    let (mut postgres, broker) = (Postgres::start(), Mosquitto::start());
    for statement in LAZY.split(';') {
        postgres.execute(statement);
    }
    if way != Way::Reload {
        postgres.execute(OFF_BY_ROLE);
    }
    postgres.stop();
    postgres.launch();
    let pooler = PgBouncer::start(&postgres, "transaction", 20);
    let url = match way {
        Way::RoleBehindPooler => pooler.url(&postgres),
        Way::Role | Way::Reload => postgres.url(),
    };
    let service = Service::new(&url, broker.port).set("WAL_RETAIN_SECS", 0);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let load = Load::start(broker.port, 4_000);
    let stored = |more: u64| {
        let goal = ingestor.metric("ingestor_db_inserts_total") + more;
        eventually("rows are confirmed", || {
            (ingestor.metric("ingestor_db_inserts_total") >= goal).then_some(())
        });
    };
    stored(random.u64(100..2_400));
    if way == Way::Reload {
        postgres.execute("alter system set synchronous_commit = off");
        postgres.execute("select pg_reload_conf()");
        stored(random.u64(2_000..2_400));
    }
    // In another moment every time, by how many rows it has confirmed.
    postgres.kill();
    postgres.launch();
    let published = load.stop();
    postgres.await_exactly(&readings(published));
    ingestor.must_run();
    Found::default()
}

#[test]
fn what_a_database_confirms_that_need_not_wait_for_its_disk_is_there_after_a_crash() {
    campaign("commits", WAYS.len() as u64, |seed| Some(attempt(seed)));
}
