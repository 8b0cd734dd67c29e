//! The unique key, which somebody drops or replaces while rows come in.

use crate::harness::{
    Ingestor, Mosquitto, Postgres, Publisher, Service, eventually, eventually_eq, readings,
};

/// As the service makes it, but in partitions.
const PARTITIONED: &str = "
    create table telemetry (device_id text not null, ts timestamptz not null,
        temperature float8 not null, humidity float8 not null, battery float8 not null,
        created_at timestamptz not null default now(),
        constraint telemetry_device_id_ts_key unique (device_id, ts))
        partition by range (ts);
    create table telemetry_older partition of telemetry for values from (minvalue) to ('2025-01-01');
    create table telemetry_p2025 partition of telemetry for values from ('2025-01-01') to ('2026-01-01')";

/// So many batches that none is expected any more to hold a row that is there already, which is when the
/// fast statement is taken.
const ROWS: u64 = 3_000;

struct Setup {
    postgres: Postgres,
    broker: Mosquitto,
    ingestor: Ingestor,
}

impl Setup {
    fn start(is_partitioned: bool) -> Self {
        let (postgres, broker) = (Postgres::start(), Mosquitto::start());
        if is_partitioned {
            postgres.execute(PARTITIONED);
        } else {
            postgres.make_table();
        }
        let service = Service::new(&postgres.url(), broker.port).set("BATCH_SIZE", 10);
        let mut ingestor = service.start();
        ingestor.await_ready();
        let mut setup = Self { postgres, broker, ingestor };
        setup.publish(0..ROWS);
        setup.postgres.await_exactly(&readings(0..ROWS));
        setup.await_drained();
        setup
    }

    /// Until they are in the log.
    fn publish(&mut self, numbers: std::ops::Range<u64>) {
        let acks = self.ingestor.metric("ingestor_acks_total") + numbers.end - numbers.start;
        Publisher::connect(self.broker.port).publish_readings(numbers);
        self.ingestor.await_metric("ingestor_acks_total", acks);
    }

    #[track_caller]
    fn await_drained(&self) {
        eventually_eq("nothing waits", &0, || self.ingestor.metric("ingestor_wal_pending_records"));
    }
}

#[test]
fn a_key_that_is_dropped_in_mid_run_doubles_no_row_and_rows_wait_until_it_is_there_again() {
    for is_partitioned in [false, true] {
        let mut setup = Setup::start(is_partitioned);
        setup.postgres.execute("alter table telemetry drop constraint telemetry_device_id_ts_key");
        setup.publish(0..1_000);
        eventually("the log says what mends it", || {
            let lines = setup.ingestor.log_of("the database does not take rows");
            let mends = "telemetry has no unique constraint on (device_id, ts): add it";
            lines.iter().any(|line| line.to_string().contains(mends)).then_some(())
        });
        assert_eq!(setup.ingestor.health()["database"], "down");
        assert!(setup.ingestor.metric("ingestor_wal_pending_records") >= 1_000);
        setup.postgres.assert_exactly(&readings(0..ROWS));
        setup.postgres.execute("alter table telemetry add unique (device_id, ts)");
        setup.await_drained();
        setup.postgres.assert_exactly(&readings(0..ROWS));
        setup.publish(ROWS..ROWS + 1_000);
        setup.postgres.await_exactly(&readings(0..ROWS + 1_000));
        setup.await_drained();
        assert!(setup.ingestor.metric("ingestor_duplicates_total") >= 1_000);
        let letters = r#"ingestor_dead_letters_total{stage="database"}"#;
        assert_eq!(setup.ingestor.metric(letters), 0);
    }
}

#[test]
fn a_key_that_is_replaced_in_mid_run_holds_up_nothing_and_doubles_no_row() {
    let mut setup = Setup::start(false);
    setup.postgres.execute(
        "alter table telemetry add constraint another unique (ts, device_id);
         alter table telemetry drop constraint telemetry_device_id_ts_key",
    );
    // New ones and such as are there.
    setup.publish(ROWS - 1_000..ROWS + 1_000);
    setup.postgres.await_exactly(&readings(0..ROWS + 1_000));
    setup.await_drained();
    assert_eq!(setup.ingestor.metric("ingestor_db_failures_total"), 0);
}
