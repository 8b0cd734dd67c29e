//! The tables, and rows for them.

use chrono::{DateTime, Utc};

use crate::harness::postgres::Fsync;
use crate::harness::{Postgres, Reading};

/// As the first release made it.
const FIRST_RELEASE: &str = include_str!("../../../migrations/0001_telemetry.sql");
/// As both deployments begin; the service makes the rest.
const PARTITIONED: &str = include_str!("../../../deploy/postgres/partitioned.sql");

const DAY_MICROS: u64 = 24 * 60 * 60 * 1_000_000;
/// Without a common divisor with the number of devices: their order is mixed up, and the same in each round.
const STEP: u64 = 7_919;
/// Rows that are made by one statement.
const CHUNK: u32 = 250_000;
/// Filling takes that long enough as it is; nothing is measured meanwhile.
const FAST: [(&str, &str); 5] = [
    ("shared_buffers", "2GB"),
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "1h"),
    ("full_page_writes", "off"),
    ("synchronous_commit", "off"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    FirstRelease,
    Plain,
    Partitioned,
}

impl Layout {
    pub(super) const ALL: [Self; 3] = [Self::FirstRelease, Self::Plain, Self::Partitioned];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FirstRelease => "the first release's table",
            Self::Plain => "plain",
            Self::Partitioned => "daily partitions",
        }
    }
}

/// Readings in the order of time, one after the other; the last of them came today or yesterday.
#[derive(Clone, Copy)]
pub(super) struct Spread {
    pub(super) devices: u64,
    /// From one reading to the next.
    micros: u64,
    /// Since the Unix epoch, midnight.
    start: u64,
    days: u64,
}

impl Spread {
    /// 100,000 readings an hour, whatever the number of devices.
    pub(super) fn hourly(devices: u64, rows: u64) -> Self {
        Self::new(devices, 36_000, rows)
    }

    /// Of 100,000 devices.
    pub(super) fn over_days(rows: u64, days: u64) -> Self {
        Self::new(100_000, days * DAY_MICROS / rows, rows)
    }

    fn new(devices: u64, micros: u64, rows: u64) -> Self {
        let days = (rows * micros).div_ceil(DAY_MICROS);
        let now = Utc::now().timestamp_micros().unsigned_abs();
        Self { devices, micros, start: (now / DAY_MICROS - days) * DAY_MICROS, days }
    }

    pub(super) fn device(self, number: u64) -> String {
        format!("sensor-{:06}", number * STEP % self.devices)
    }

    pub(super) fn at(self, number: u64) -> DateTime<Utc> {
        let micros = i64::try_from(self.start + number * self.micros).unwrap();
        DateTime::from_timestamp_micros(micros).unwrap()
    }

    #[expect(clippy::cast_precision_loss, reason = "small")]
    pub(super) fn reading(self, number: u64) -> Reading {
        let hundredths = |low: u64, range: u64| (low + number % range) as f64 / 100.0;
        Reading {
            device_id: self.device(number),
            micros: self.at(number).timestamp_micros(),
            temperature: hundredths(1_000, 2_000),
            humidity: hundredths(3_000, 5_000),
            battery: hundredths(1_000, 8_500),
        }
    }

    /// What inserts the same.
    fn insert(self, from: u64, to: u64) -> String {
        let Self { devices, micros, start, .. } = self;
        let hundredths = |low: u64, range: u64| format!("({low} + n % {range})::float8 / 100");
        format!(
            "insert into telemetry (device_id, ts, temperature, humidity, battery)
            select 'sensor-' || lpad((n * {STEP} % {devices})::text, 6, '0'),
                to_timestamp({}) + n * interval '{micros} us', {}, {}, {}
            from generate_series({from}::bigint, {to}::bigint - 1) as n",
            start / 1_000_000,
            hundredths(1_000, 2_000),
            hundredths(3_000, 5_000),
            hundredths(1_000, 8_500),
        )
    }
}

/// A table on a server of its own.
pub(super) struct Grown {
    pub(super) postgres: Postgres,
    pub(super) layout: Layout,
    pub(super) spread: Spread,
    pub(super) rows: u64,
}

impl Grown {
    pub(super) fn empty(layout: Layout, spread: Spread) -> Self {
        let mut postgres = Postgres::prepare(Fsync::On);
        postgres.launch();
        let grown = Self { postgres, layout, spread, rows: 0 };
        match layout {
            Layout::FirstRelease => grown.postgres.execute(FIRST_RELEASE),
            Layout::Plain => grown.postgres.make_table(),
            Layout::Partitioned => {
                grown.postgres.execute(PARTITIONED);
                grown.postgres.make_table();
                grown.make_partitions();
            }
        }
        if layout != Layout::FirstRelease {
            grown.note_devices();
        }
        // It would run at any time, or none. What it does is done before anything is measured.
        grown.postgres.execute("alter system set autovacuum = off");
        grown.postgres.execute("select pg_reload_conf()");
        grown
    }

    /// A partitioned one whose indexes are made last: to be asked, not to be written to.
    pub(super) fn filled_at_once(spread: Spread, rows: u64) -> Self {
        let mut grown = Self::empty(Layout::Partitioned, spread);
        grown.postgres.execute(
            "alter table telemetry drop constraint telemetry_device_id_ts_key;
             drop index telemetry_ts_idx",
        );
        grown.fill(rows);
        grown.postgres.execute(
            "set maintenance_work_mem = '512MB';
             alter table telemetry add unique (device_id, ts);
             create index telemetry_ts_idx on telemetry (ts)",
        );
        grown.settle();
        grown
    }

    /// Has `rows` rows then, and is as it would be after a night.
    pub(super) fn grow_to(&mut self, rows: u64) {
        if rows > self.rows {
            for (name, value) in FAST {
                self.postgres.execute(&format!("alter system set {name} = '{value}'"));
            }
            self.restart();
            self.fill(rows);
            for (name, _) in FAST {
                self.postgres.execute(&format!("alter system reset {name}"));
            }
            self.restart();
        }
        self.settle();
    }

    /// By one connection, as the service has while it keeps up: where two write at once, the index on the time is
    /// filled less, and takes 9 B a row more.
    fn fill(&mut self, rows: u64) {
        let mut session = self.postgres.session();
        for from in (self.rows..rows).step_by(CHUNK as usize) {
            session.execute(&self.spread.insert(from, (from + u64::from(CHUNK)).min(rows)));
        }
        self.rows = rows;
    }

    fn settle(&self) {
        self.postgres.execute("vacuum (analyze) telemetry");
        self.postgres.execute("checkpoint");
    }

    fn restart(&mut self) {
        self.postgres.stop();
        self.postgres.launch();
    }

    /// Those of the service's own names, up to tomorrow.
    fn make_partitions(&self) {
        let Spread { start, days, .. } = self.spread;
        self.postgres.execute(&format!(
            "do $$ declare start timestamptz := to_timestamp({}); day timestamptz; begin
                 set local timezone = 'UTC';
                 execute format('create table telemetry_older partition of telemetry
                     for values from (minvalue) to (%L)', start);
                 for n in 0..{days} + 1 loop
                     day := start + n * interval '1 day';
                     execute format('create table telemetry_p%s partition of telemetry
                         for values from (%L) to (%L)',
                         to_char(day, 'YYYYMMDD'), day, day + interval '1 day');
                 end loop;
             end $$",
            start / 1_000_000
        ));
    }

    /// As the service does with the first row of each.
    fn note_devices(&self) {
        self.postgres.execute(&format!(
            "insert into telemetry_devices select 'sensor-' || lpad(n::text, 6, '0')
                 from generate_series(0, {} - 1) as n;
             update _iot_ingestor_progress set is_done = true",
            self.spread.devices
        ));
        self.postgres.execute("vacuum analyze telemetry_devices");
    }

    /// On the disk, indexes included.
    #[expect(clippy::cast_precision_loss, reason = "far below 2⁵³")]
    pub(super) fn bytes_a_row(&self) -> f64 {
        let sum = "select coalesce(
                (select sum(pg_total_relation_size(relid)) from pg_partition_tree('telemetry')),
                pg_total_relation_size('telemetry')
            )::bigint";
        self.postgres.value(sum) as f64 / self.rows.max(1) as f64
    }
}
