//! Of partitions: what is in their way, who else is at it, and whose they are.

use super::{TOKEN, await_run, report, run, service, with_partitions};
use crate::harness::{Ingestor, Mosquitto, Postgres, eventually, eventually_eq, http};
use serde_json::Value;

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

#[test]
fn a_partition_in_which_something_comes_late_loses_its_old_rows_and_goes_later() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    with_partitions(&postgres, (26..33).rev());
    let old = part(32);
    postgres.execute(&format!(
        "update {old} set created_at = now() where ts = (select max(ts) from {old})"
    ));
    let mut ingestor = service(&postgres, &broker).start();
    ingestor.await_ready();
    let report = await_run(&ingestor);
    assert_eq!((&report["removed_partitions"], &report["removed_rows"]), (&1.into(), &49.into()));
    assert_eq!(postgres.value(&format!("select count(*) from {old}")), 1);
    postgres.execute(&format!("update {old} set created_at = now() - interval '2 hours'"));
    assert_eq!(run(&ingestor)["removed_partitions"], 2);
    assert!(!is_there(&postgres, &old));
}

#[test]
fn partitions_of_another_role_lose_their_old_rows_by_way_of_the_table() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    with_partitions(&postgres, (24..33).rev());
    let (like_ours, left) = (part(32), part(24));
    postgres.execute(&format!(
        "create table archive partition of telemetry for values from ('2020-01-01Z') to ('2021-01-01Z');
         insert into telemetry (device_id, ts, temperature, humidity, battery, created_at)
         values ('of others', '2020-06-01Z', 20, 50, 90, '2021-01-01Z');
         create role keeper login password 'secret';
         grant create on schema public to keeper;
         do $$ declare part regclass; begin
             for part in select oid from pg_class where relname ~ '^telemetry' and relkind in ('r', 'p')
             loop execute format('alter table %s owner to keeper', part); end loop;
         end $$;
         create role other;
         alter table archive owner to other;
         alter table {like_ours} owner to other"
    ));
    let url = postgres.url_of("keeper", "secret");
    let mut ingestor = service(&postgres, &broker).set("DATABASE_URL", url).start();
    ingestor.await_ready();
    let report = await_run(&ingestor);
    assert_eq!(report["last_error"], Value::Null);
    assert_eq!((&report["removed_partitions"], &report["removed_rows"]), (&1.into(), &51.into()));
    assert_eq!(postgres.value(&format!("select count(*) from {like_ours}")), 0);
    assert_eq!(postgres.value("select count(*) from archive"), 0);
    assert_eq!(postgres.value(&format!("select count(*) from {left}")), 50);
    assert_eq!(postgres.count(), 7 * 50);
}

#[test]
fn old_partitions_of_ours_go_also_if_they_were_never_used() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    with_partitions(&postgres, (26..33).rev());
    postgres.execute(
        "create table telemetry_older partition of telemetry for values from (minvalue) to ('2019-01-01Z');
         create table archive partition of telemetry for values from ('2019-01-01Z') to ('2019-02-01Z')",
    );
    let never_used: Vec<String> = (1..7).map(|day| format!("telemetry_p2020010{day}")).collect();
    for (name, day) in never_used.iter().zip(1..) {
        postgres.execute(&format!(
            "create table {name} partition of telemetry
                 for values from ('2020-01-0{day}Z') to ('2020-01-0{}Z')",
            day + 1
        ));
    }
    let mut ingestor = service(&postgres, &broker).start();
    ingestor.await_ready();
    let report = await_run(&ingestor);
    assert_eq!(report["held_up"], Value::Null);
    assert_eq!(report["removed_partitions"], 8);
    assert!(never_used.iter().all(|name| !is_there(&postgres, name)));
    // What is late or another's finds its place.
    assert!(is_there(&postgres, "telemetry_older") && is_there(&postgres, "archive"));
}

#[test]
fn two_ingestors_take_what_the_other_has_dropped_for_done() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    with_partitions(&postgres, (20..25).rev());
    postgres.execute(
        "create table telemetry_older partition of telemetry for values from (minvalue) to ('2020-01-01Z')",
    );
    let mut ingestors: Vec<Ingestor> = ["one", "two"]
        .map(|name| service(&postgres, &broker).set("MQTT_CLIENT_ID", name).start())
        .into();
    for ingestor in &mut ingestors {
        ingestor.await_ready();
        await_run(ingestor);
    }
    for _ in 0..4 {
        with_partitions(&postgres, (31..43).rev());
        std::thread::scope(|scope| {
            for ingestor in &ingestors {
                let address = ingestor.address();
                scope.spawn(move || {
                    let headers = format!("Authorization: Bearer {TOKEN}\r\n");
                    http::request_with(address, "POST", "/admin/retention/run", &headers).unwrap()
                });
            }
        });
        eventually_eq("they are gone", &(5 * 50), || postgres.count());
        for ingestor in &ingestors {
            eventually("it is over", || (report(ingestor)["running"] == false).then_some(()));
        }
    }
    for ingestor in &ingestors {
        let said = ingestor.log_of("readings older than RETENTION_DAYS could not be removed");
        assert!(said.is_empty(), "{said:?}");
    }
}
