//! `RETENTION_DAYS`: what is removed, what is not, and what holds it up.

use serde_json::Value;

use crate::harness::{
    Ingestor, Mosquitto, Postgres, Publisher, Reading, Service, eventually, eventually_eq, reading,
};

mod parts;

const TOKEN: &str = "7f3a-admin-token";
const PARTITIONED: &str = include_str!("../../../deploy/postgres/partitioned.sql");
const FIRST_RELEASE: &str = include_str!("../../../migrations/0001_telemetry.sql");

/// Rows of `days` days ago, one a second back from there, that came in when they were measured.
fn insert(postgres: &Postgres, device: &str, days: f64, rows: u32) {
    postgres.execute(&format!(
        "insert into telemetry (device_id, ts, temperature, humidity, battery, created_at)
         select '{device}', at, 20, 50, 90, at
         from generate_series(0, {rows} - 1) as number,
             lateral (select now() - interval '1 day' * {days} - interval '1 second' * number as at) as time"
    ));
}

fn devices(postgres: &Postgres) -> Vec<String> {
    postgres.session().texts("select distinct device_id from telemetry order by 1")
}

fn service(postgres: &Postgres, broker: &Mosquitto) -> Service {
    Service::new(&postgres.url(), broker.port).set("RETENTION_DAYS", 30).set("ADMIN_TOKEN", TOKEN)
}

fn report(ingestor: &Ingestor) -> Value {
    ingestor.admin("GET", "/admin/retention", TOKEN).json()
}

/// Once the first run is over.
fn await_run(ingestor: &Ingestor) -> Value {
    eventually("it has run", || {
        let report = report(ingestor);
        report["last_run"].is_string().then_some(report)
    })
}

/// Runs it once, by an operator.
fn run(ingestor: &Ingestor) -> Value {
    let before = await_run(ingestor)["last_run"].clone();
    assert_eq!(ingestor.admin("POST", "/admin/retention/run", TOKEN).status, 200);
    eventually("it has run", || {
        let report = report(ingestor);
        let last = &report["last_run"];
        (last.is_string() && *last != before).then_some(report)
    })
}

#[test]
fn of_a_plain_table_older_rows_go_and_what_came_in_just_now_stays_for_the_next_time() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(FIRST_RELEASE);
    insert(&postgres, "old", 31.0, 2_500);
    insert(&postgres, "new", 29.0, 9_000);
    let mut ingestor = service(&postgres, &broker).start();
    ingestor.await_ready();
    let report = await_run(&ingestor);
    assert_eq!((devices(&postgres), postgres.count()), (vec!["new".to_owned()], 9_000));
    assert_eq!(report["removed_rows"], 2_500);
    assert_eq!(report["due"][0]["division"], "plain");
    let report = self::report(&ingestor);
    assert_eq!(
        (&report["due"][0]["rows"], &report["due"][0]["rows_exact"]),
        (&0.into(), &true.into())
    );
    assert_eq!(ingestor.metric("ingestor_retention_removed_rows_total"), 2_500);
    assert!(
        ingestor.metrics().find("ingestor_retention_last_success_timestamp_seconds").unwrap()
            > 1.7e9
    );

    // Dated 2000, and not an hour here.
    let late = Reading { micros: 946_684_800_000_000, ..reading(1) };
    let mut devices = Publisher::connect(broker.port);
    devices.publish(&late.topic(), late.payload());
    devices.finish();
    eventually_eq("it is stored", &9_001, || postgres.count());
    assert_eq!(run(&ingestor)["due"][0]["rows"], 1);
    assert_eq!(postgres.count(), 9_001);
    postgres.execute(
        "update telemetry set created_at = now() - interval '2 hours' where ts < '2001-01-01'",
    );
    run(&ingestor);
    assert_eq!(postgres.count(), 9_000);
}

#[test]
fn more_than_a_third_of_a_plain_table_waits_for_an_operator() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(FIRST_RELEASE);
    insert(&postgres, "old", 31.0, 400);
    insert(&postgres, "new", 1.0, 600);
    let mut ingestor = service(&postgres, &broker).start();
    ingestor.await_ready();
    let report = await_run(&ingestor);
    let held_up = report["held_up"].as_str().unwrap();
    assert!(held_up.contains("more than a third of some 1000 rows"), "{held_up}");
    assert_eq!(
        (&report["due"][0]["rows"], &report["due"][0]["rows_exact"]),
        (&334.into(), &false.into())
    );
    assert_eq!(
        ingestor.await_log_of("readings older than RETENTION_DAYS are not removed").len(),
        1
    );
    assert_eq!(postgres.count(), 1_000);

    assert_eq!(ingestor.metric("ingestor_retention_held_up"), 1);
    assert_eq!(run(&ingestor)["held_up"], Value::Null);
    assert_eq!(ingestor.metric("ingestor_retention_held_up"), 0);
    assert_eq!((devices(&postgres), postgres.count()), (vec!["new".to_owned()], 600));
}

#[test]
fn the_locks_of_a_run_whose_line_is_cut_end_soon() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.make_table();
    insert(&postgres, "old", 31.0, 10);
    insert(&postgres, "new", 1.0, 90);
    postgres.execute(
        "create table seen (patience text);
         create function see() returns trigger language plpgsql as $$ begin
             insert into seen values (current_setting('idle_in_transaction_session_timeout'));
             return old;
         end $$;
         create trigger see before delete on telemetry for each row execute function see()",
    );
    let mut ingestor = service(&postgres, &broker).start();
    ingestor.await_ready();
    await_run(&ingestor);
    assert_eq!(postgres.session().texts("select distinct patience from seen"), ["1min"]);
}

#[test]
fn what_an_operator_means_goes_also_where_counting_it_would_take_too_long() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.make_table();
    insert(&postgres, "old", 31.0, 400);
    insert(&postgres, "new", 1.0, 600);
    // A second for each row that a run looks at, once it is slow; deleting has another limit.
    postgres.execute(
        "create table slow ();
         create function seen() returns bool language plpgsql as $$ begin
             if current_setting('statement_timeout') = '1min' and to_regclass('slow') is null then
                 perform pg_sleep(1);
             end if;
             return true;
         end $$;
         create role keeper login password 'secret';
         grant create on schema public to keeper;
         grant all on all tables in schema public to keeper;
         alter table telemetry owner to keeper;
         alter table telemetry enable row level security, force row level security;
         create policy seen on telemetry using (seen())",
    );
    let url = postgres.url_of("keeper", "secret");
    let mut ingestor = service(&postgres, &broker).set("DATABASE_URL", url).start();
    ingestor.await_ready();
    assert!(await_run(&ingestor)["held_up"].is_string());
    postgres.execute("drop table slow");
    assert_eq!(run(&ingestor)["last_error"], Value::Null);
    assert_eq!(postgres.count(), 600);
}

/// Partitions of a day each, with rows, so many days ago.
fn with_partitions(postgres: &Postgres, days: impl Iterator<Item = u32>) {
    postgres.execute(PARTITIONED);
    let today = chrono::Utc::now().date_naive();
    for day in days {
        let from = today - chrono::TimeDelta::days(day.into());
        let name = format!("telemetry_p{}", from.format("%Y%m%d"));
        let to = from + chrono::TimeDelta::days(1);
        postgres.execute(&format!(
            "create table if not exists {name} partition of telemetry
                 for values from ('{from} 00:00Z') to ('{to} 00:00Z');
             insert into telemetry (device_id, ts, temperature, humidity, battery, created_at)
             select 'd{day}', '{from} 00:00Z'::timestamptz + interval '1 ms' * number, 20, 50, 90, '{from} 00:00Z'
             from generate_series(1, 50) as number"
        ));
    }
}

#[test]
fn of_a_partitioned_table_whole_partitions_go_and_rows_dated_long_ago() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    with_partitions(&postgres, (26..33).rev());
    postgres.execute(
        "create table telemetry_older partition of telemetry for values from (minvalue) to ('2020-01-01Z');
         create table archive partition of telemetry for values from ('2020-01-01Z') to ('2021-01-01Z')",
    );
    for (device, at) in [("dated 2000", "2000-01-01Z"), ("of others", "2020-06-01Z")] {
        postgres.execute(&format!(
            "insert into telemetry (device_id, ts, temperature, humidity, battery, created_at)
             values ('{device}', '{at}', 20, 50, 90, '2021-01-01Z')"
        ));
    }
    let mut ingestor = service(&postgres, &broker).start();
    ingestor.await_ready();
    let left: Vec<String> = (26..31).map(|day| format!("d{day}")).collect();
    let report = await_run(&ingestor);
    assert_eq!(devices(&postgres), left);
    assert_eq!((&report["removed_partitions"], &report["removed_rows"]), (&3.into(), &1.into()));
    assert_eq!(report["due"][0]["division"], "partitioned");
    // What somebody else has made is there, and empty.
    assert_eq!(postgres.value("select count(*) from archive"), 0);

    // What is late has a place all the same.
    let late = Reading { micros: 946_684_800_000_000, ..reading(1) };
    let mut publisher = Publisher::connect(broker.port);
    publisher.publish(&late.topic(), late.payload());
    publisher.finish();
    eventually("it is stored", || devices(&postgres).contains(&late.device_id).then_some(()));
    assert_eq!(ingestor.metric("ingestor_db_failures_total"), 0);
}

#[test]
fn more_than_a_third_of_the_partitions_waits_for_an_operator_and_nobody_queues_behind_a_long_reader()
 {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    with_partitions(&postgres, (25..50).rev());
    let mut ingestor = service(&postgres, &broker).start();
    ingestor.await_ready();
    let report = await_run(&ingestor);
    let held_up = report["held_up"].as_str().unwrap();
    assert!(held_up.starts_with("19 of ") && held_up.contains("partitions"), "{held_up}");
    let due = report["due"][0]["partitions"].as_array().unwrap();
    assert_eq!(due.len(), 19);
    assert!(due.iter().all(|part| part["bytes"].as_u64().unwrap() > 0), "{due:?}");
    assert_eq!(postgres.count(), 25 * 50);

    let mut reader = postgres.session();
    reader.execute("begin");
    reader.execute("select count(*) from telemetry");
    ingestor.admin("POST", "/admin/retention/run", TOKEN);
    eventually("it is at it", || (self::report(&ingestor)["running"] == true).then_some(()));
    // Nobody queues behind it for long.
    Publisher::connect(broker.port).publish_readings(0..100);
    eventually_eq("they are stored", &(25 * 50 + 100), || postgres.count());
    reader.execute("rollback");
    eventually_eq("they are gone", &(6 * 50 + 100), || postgres.count());
    eventually_eq("they are counted", &19, || {
        ingestor.metric("ingestor_retention_removed_partitions_total")
    });
}

#[test]
fn clocks_that_disagree_hold_it_up_and_nobody_can_mean_that() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(FIRST_RELEASE);
    insert(&postgres, "old", 31.0, 10);
    insert(&postgres, "new", 1.0, 90);
    let service = service(&postgres, &broker).with_clock();
    service.set_clock("+2h");
    let mut ingestor = service.start();
    ingestor.await_ready();
    let report = await_run(&ingestor);
    let held_up = report["held_up"].as_str().unwrap();
    assert!(held_up.contains("the clocks of the database and of this machine differ"), "{held_up}");
    let held_up = run(&ingestor)["held_up"].clone();
    assert!(held_up.as_str().unwrap().contains("this machine differ"), "{held_up}");
    assert_eq!(postgres.count(), 100);
    service.set_clock("+0");
    run(&ingestor);
    assert_eq!(postgres.count(), 90);
}

/// Not every Debian has TimescaleDB: these are its functions as they are documented. `tests/deploy/timescaledb.sh` has the real ones.
#[test]
fn of_a_hypertable_chunks_are_dropped_by_its_own_function_and_nobody_queues_behind_a_long_reader() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(FIRST_RELEASE);
    postgres.execute(
        "create schema timescaledb_information;
         create view timescaledb_information.hypertables as
             select 'public'::name as hypertable_schema, 'telemetry'::name as hypertable_name;
         grant usage on schema timescaledb_information to public;
         grant select on timescaledb_information.hypertables to public;
         create table chunks as
             select format('chunk_%s', number) as name, now() - interval '1 day' * (28 + number) as until
             from generate_series(1, 9) as number;
         grant all on chunks to public;
         do 'begin for n in 1..9 loop execute format(''create table chunk_%s ()'', n); end loop; end';
         create function show_chunks(relation regclass, older_than timestamptz default 'infinity')
             returns setof regclass language sql as
             'select name::regclass from chunks where until <= older_than';
         create function drop_chunks(relation regclass, older_than timestamptz)
             returns setof text language plpgsql as $$
             declare chunk text;
             begin
                 for chunk in delete from chunks where until <= older_than returning name loop
                     execute format('drop table %I', chunk);
                     return next chunk;
                 end loop;
             end $$",
    );
    let mut ingestor = service(&postgres, &broker).start();
    ingestor.await_ready();
    let held_up = await_run(&ingestor)["held_up"].clone();
    assert!(held_up.as_str().unwrap().starts_with("8 of 9 partitions"), "{held_up}");

    let (mut reader, mut behind) = (postgres.session(), postgres.session());
    reader.execute("begin; select from chunk_9");
    assert_eq!(ingestor.admin("POST", "/admin/retention/run", TOKEN).status, 200);
    eventually("it is at it", || (self::report(&ingestor)["running"] == true).then_some(()));
    behind.execute("set statement_timeout = '3s'");
    let waits =
        "select count(*) from pg_locks where not granted and relation = 'chunk_9'::regclass";
    for _ in 0..3 {
        eventually("the lock is waited for", || (postgres.value(waits) > 0).then_some(()));
        behind.execute("select from chunk_9");
        eventually_eq("it is given up for now", &0, || postgres.value(waits));
    }
    assert_eq!(self::report(&ingestor)["running"], true);
    reader.execute("rollback");
    eventually_eq("they are gone", &1, || postgres.value("select count(*) from chunks"));
    eventually_eq("they are counted", &8, || {
        ingestor.metric("ingestor_retention_removed_partitions_total")
    });
}

/// Two, of which the first fills `table`, the second `pumps`.
fn mappings(table: &str) -> String {
    format!(
        r#"
[[default.mapping]]
name   = "plug"
topic  = "plug/{{device}}"
device = "{{device}}"
time   = {{ path = "t", format = "s" }}
table  = "{table}"
fields = ["watts"]
[[default.mapping]]
name   = "pump"
topic  = "pump/{{device}}"
device = "{{device}}"
time   = {{ path = "t", format = "s" }}
table  = "pumps"
fields = ["litres"]
"#
    )
}

#[test]
fn tables_of_mappings_lose_what_is_old_and_what_holds_one_up_keeps_nothing_from_another() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    let rows = |table: &str, days: u32, rows: u32| {
        postgres.execute(&format!(
            "insert into {table} (device_id, ts, created_at) select 'd{days}', at, at
             from generate_series(1, {rows}) as number,
                 lateral (select now() - interval '1 day' * {days} - interval '1 second' * number as at) as time"
        ));
    };
    for table in ["\"order\"", "pumps", "others"] {
        postgres.execute(&format!(
            "create table {table} (device_id text not null, ts timestamptz not null,
                 created_at timestamptz not null default now(), unique (device_id, ts))"
        ));
        rows(table, 31, if table == "pumps" { 50 } else { 10 });
        rows(table, 1, 90);
    }
    let count = |table: &str| postgres.value(&format!("select count(*) from {table}"));
    let service = service(&postgres, &broker);
    std::fs::write(service.dir().join("Rocket.toml"), mappings("order")).unwrap();
    let mut ingestor = service.start();
    ingestor.await_ready();
    let report = await_run(&ingestor);
    assert_eq!(["\"order\"", "pumps", "others"].map(count), [90, 140, 100]);
    let due = report["due"].as_array().unwrap();
    let goes = |due: &Value| (due["table"].as_str().unwrap().to_owned(), due["held_up"].is_null());
    let expected = [("order", true), ("pumps", false), ("telemetry", true)];
    let expected = expected.map(|(table, goes)| (table.to_owned(), goes));
    assert_eq!(due.iter().map(goes).collect::<Vec<_>>(), expected);
    let line = &ingestor.await_log_of("readings older than RETENTION_DAYS are not removed")[0];
    assert_eq!(line["table"], "pumps");
    run(&ingestor);
    assert_eq!(["\"order\"", "pumps", "others"].map(count), [90, 90, 100]);
    assert_eq!(ingestor.metric("ingestor_retention_removed_rows_total"), 60);
}

#[test]
fn two_ingestors_that_remove_at_once_are_not_in_each_others_way() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(FIRST_RELEASE);
    insert(&postgres, "old", 31.0, 3_000);
    insert(&postgres, "new", 1.0, 7_000);
    let mut ingestors: Vec<Ingestor> = ["one", "two"]
        .map(|name| service(&postgres, &broker).set("MQTT_CLIENT_ID", name).start())
        .into();
    for ingestor in &mut ingestors {
        ingestor.await_ready();
    }
    eventually_eq("they are gone", &vec!["new".to_owned()], || devices(&postgres));
    assert_eq!(postgres.count(), 7_000);
    for ingestor in &ingestors {
        eventually("that is said", || (!report(ingestor)["last_success"].is_null()).then_some(()));
        assert_eq!(
            ingestor.log_of("readings older than RETENTION_DAYS could not be removed").len(),
            0
        );
    }
}

#[test]
fn without_a_number_of_days_nothing_is_ever_removed() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(FIRST_RELEASE);
    insert(&postgres, "old", 9_000.0, 1);
    insert(&postgres, "new", 1.0, 9);
    let service = Service::new(&postgres.url(), broker.port).set("ADMIN_TOKEN", TOKEN);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let answer = ingestor.admin("POST", "/admin/retention/run", TOKEN);
    assert_eq!(answer.status, 422);
    let report = report(&ingestor);
    assert_eq!((&report["retention_days"], &report["due"]), (&Value::Null, &serde_json::json!([])));
    Publisher::connect(broker.port).publish_readings(0..10);
    eventually_eq("they are stored", &20, || postgres.count());
}

#[test]
fn what_only_looks_like_a_table_of_a_mapping_and_what_inherits_from_one_loses_nothing() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(
        "create table elsewhere (device_id text not null, ts timestamptz not null, watts float8);
         create view plugs as select * from elsewhere;
         create table pumps (device_id text not null, ts timestamptz not null, litres float8,
             created_at timestamptz not null default now(), unique (device_id, ts));
         create table archive () inherits (pumps);",
    );
    for (table, old) in [("elsewhere", 10), ("pumps", 10), ("archive", 90)] {
        postgres.execute(&format!(
            "insert into {table} (device_id, ts) select 'a', now() - interval '31 days' - interval '1 s' * n
             from generate_series(1, {old}) as n;
             insert into {table} (device_id, ts) select 'a', now() - interval '1 s' * n
             from generate_series(1, 90) as n"
        ));
    }
    postgres.execute("update pumps set created_at = ts");
    let service = service(&postgres, &broker);
    std::fs::write(service.dir().join("Rocket.toml"), mappings("plugs")).unwrap();
    let mut ingestor = service.start();
    ingestor.await_listening();
    await_run(&ingestor);
    let counts = ["elsewhere", "only pumps", "archive"]
        .map(|table| postgres.value(&format!("select count(*) from {table}")));
    assert_eq!(counts, [100, 90, 180]);
}
