//! What a row costs PostgreSQL.

use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use iot_ingestor::postgres::insert_statement;
use rustix::process::Pid;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use sqlx::postgres::types::Oid;
use tokio::runtime::{Builder, Runtime};

use super::table::{Grown, Layout};
use crate::bare::Batch;
use crate::harness::process::children_of;
use crate::usage;

/// `FLUSH_CONNECTIONS`, and `BATCH_SIZE`.
const CONNECTIONS: usize = 2;
const BATCH: usize = 2_000;

#[derive(Clone, Copy, serde::Serialize)]
pub(super) struct Cost {
    pub(super) rows_per_second: f64,
    /// Processor time of PostgreSQL a row.
    pub(super) cpu_micros: f64,
    /// Bytes of its write-ahead log a row.
    pub(super) wal_bytes: f64,
}

/// Inserts the next `rows` by the service's own statement, in the order of the service that the table is of.
#[expect(clippy::cast_precision_loss, reason = "counts of rows and bytes")]
pub(super) fn write(grown: &mut Grown, rows: u64) -> Cost {
    let readings: Vec<_> =
        (grown.rows..grown.rows + rows).map(|number| grown.spread.reading(number)).collect();
    // In that of time they are, which is how the service has them.
    let order =
        if grown.layout == Layout::FirstRelease { Batch::in_order_of_key } else { Batch::of };
    let batches: Vec<Batch> = readings.chunks(BATCH).map(order).collect();
    let postgres = &grown.postgres;
    let key = postgres.value(
        "select indexrelid::bigint from pg_index
         where indrelid = 'telemetry'::regclass and indisunique and indnkeyatts = 2",
    );
    let key = Oid(u32::try_from(key).unwrap());
    let written = || postgres.value("select (pg_current_wal_insert_lsn() - '0/0')::bigint");
    let mut connections: Vec<Connection> =
        (0..CONNECTIONS).map(|_| Connection::to(&postgres.url())).collect();
    postgres.execute("checkpoint");
    let (cpu, wal) = (cpu_by_process(postgres.pid()), written());
    let (start, next) = (Barrier::new(CONNECTIONS), AtomicUsize::new(0));
    let elapsed = std::thread::scope(|scope| {
        let threads: Vec<_> = connections
            .iter_mut()
            .map(|connection| {
                let (start, next, batches) = (&start, &next, &batches);
                scope.spawn(move || {
                    start.wait();
                    let started = Instant::now();
                    while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                        connection.insert(batch, key);
                    }
                    started.elapsed()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
    });
    let wal = written() - wal;
    let cpu: Duration = cpu_by_process(postgres.pid())
        .into_iter()
        .map(|(pid, after)| after.saturating_sub(cpu.get(&pid).copied().unwrap_or_default()))
        .sum();
    grown.rows += rows;
    Cost {
        rows_per_second: rows as f64 / elapsed.as_secs_f64(),
        cpu_micros: cpu.as_secs_f64() * 1e6 / rows as f64,
        wal_bytes: wal as f64 / rows as f64,
    }
}

/// A connection and what drives it.
struct Connection {
    runtime: Runtime,
    connection: PgConnection,
}

impl Connection {
    fn to(url: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let connection = runtime.block_on(PgConnection::connect(url)).unwrap();
        Self { runtime, connection }
    }

    fn insert(&mut self, batch: &Batch, key: Oid) {
        let query = batch.bind_to(sqlx::query(insert_statement())).bind(key);
        let done = self.runtime.block_on(query.execute(&mut self.connection)).unwrap();
        assert_eq!(done.rows_affected(), batch.len() as u64);
    }
}

/// Of PostgreSQL and of each process that it has.
fn cpu_by_process(pid: Pid) -> HashMap<Pid, Duration> {
    // Connections may end meanwhile.
    let cpu = |pid: Pid| Some((pid, usage::cpu_if_there(pid)?));
    children_of(pid).into_iter().chain([pid]).filter_map(cpu).collect()
}
