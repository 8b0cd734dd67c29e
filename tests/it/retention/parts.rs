//! Of partitions: what is in their way, who else is at it, and whose they are.

use super::{await_run, service, with_partitions};
use crate::harness::{Mosquitto, Postgres};

/// The partition that [`with_partitions`] makes for a day so many days ago.
fn part(days: u32) -> String {
    let day = chrono::Utc::now().date_naive() - chrono::TimeDelta::days(days.into());
    format!("telemetry_p{}", day.format("%Y%m%d"))
}

fn is_there(postgres: &Postgres, table: &str) -> bool {
    postgres.value(&format!("select count(*) from pg_class where relname = '{table}'")) > 0
}

#[test]
fn the_vacuum_of_an_old_partition_gives_way() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    with_partitions(&postgres, (26..33).rev());
    let old = part(32);
    postgres.execute(&format!(
        "insert into {old} (device_id, ts, temperature, humidity, battery, created_at)
         select 'v' || number, ts, 20, 50, 90, ts
         from generate_series(1, 1000) as number, (select ts from {old} limit 50) as old"
    ));
    postgres.vacuum_slowly(&old);
    let mut ingestor = service(&postgres, &broker).start();
    ingestor.await_ready();
    assert_eq!(await_run(&ingestor)["removed_partitions"], 2);
    assert!(!is_there(&postgres, &old));
}
