//! The shape of the table as the service makes it, whatever was there before.

use crate::harness::{
    Ingestor, Mosquitto, Postgres, Publisher, Service, eventually, eventually_eq, readings,
};

const FIRST_RELEASE: &str = include_str!("../../migrations/0001_telemetry.sql");

/// Columns as `name type[ not null][ default …]`.
fn columns(postgres: &Postgres, table: &str) -> Vec<String> {
    postgres.session().texts(&format!(
        "select concat_ws(' ', attname, format_type(atttypid, atttypmod),
             case when attnotnull then 'not null' end,
             'default ' || pg_get_expr(adbin, adrelid))
         from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
         where attrelid = '{table}'::regclass and attnum > 0 and not attisdropped
         order by attnum"
    ))
}

/// Indexes as they would be made, by name.
fn indexes(postgres: &Postgres) -> Vec<String> {
    postgres.session().texts(
        "select regexp_replace(pg_get_indexdef(indexrelid), ' ON .*USING', '')
         from pg_index where indrelid = 'telemetry'::regclass order by 1",
    )
}

#[track_caller]
fn await_migrated(postgres: &Postgres) {
    eventually("the table has no serial number", || {
        let rows = "select count(*) from pg_attribute where attrelid = 'telemetry'::regclass
             and attname = 'id' and (attnotnull or atthasdef or attidentity <> '')";
        (postgres.value(rows) == 0).then_some(())
    });
}

fn start(postgres: &Postgres, broker: &Mosquitto) -> Ingestor {
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    eventually("the schema is there", || (ingestor.metric("ingestor_db_up") == 1).then_some(()));
    ingestor
}

#[test]
fn a_new_table_is_as_the_contract_says() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    let _ingestor = start(&postgres, &broker);
    let expected = [
        "device_id text not null",
        "ts timestamp with time zone not null",
        "temperature double precision not null",
        "humidity double precision not null",
        "battery double precision not null",
        "created_at timestamp with time zone not null default now()",
    ];
    assert_eq!(columns(&postgres, "telemetry"), expected);
    let expected = [
        "CREATE INDEX telemetry_created_at_idx brin (created_at)",
        "CREATE INDEX telemetry_ts_idx btree (ts)",
        "CREATE UNIQUE INDEX telemetry_device_id_ts_key btree (device_id, ts)",
    ];
    assert_eq!(indexes(&postgres), expected);
    assert_eq!(columns(&postgres, "telemetry_devices"), ["device_id text not null"]);
    assert_eq!(postgres.value("select count(*) from pg_sequences"), 0);
}

#[test]
fn the_table_of_the_first_release_keeps_its_column_and_loses_what_stands_in_the_way() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(FIRST_RELEASE);
    postgres.execute(
        "insert into telemetry (device_id, ts, temperature, humidity, battery)
         select 'old-' || n % 7, '2025-05-01Z'::timestamptz + n * interval '1 s', n, 1, 2
         from generate_series(1, 5000) as n;
         create role reader;
         grant select on telemetry to reader",
    );
    let ingestor = start(&postgres, &broker);
    await_migrated(&postgres);
    assert_eq!(columns(&postgres, "telemetry")[0], "id bigint");
    let expected = [
        "CREATE INDEX telemetry_created_at_idx brin (created_at)",
        // `ingestor schema index` replaces it, while rows come in.
        "CREATE INDEX telemetry_ts_idx btree (ts DESC)",
        "CREATE UNIQUE INDEX telemetry_device_id_ts_key btree (device_id, ts)",
    ];
    assert_eq!(indexes(&postgres), expected);
    Publisher::connect(broker.port).publish_readings(0..1_000);
    postgres.await_count(6_000);
    assert_eq!(postgres.value("select count(id) from telemetry"), 5_000);
    let may = "select has_table_privilege('reader', 'telemetry_devices', 'select')::int::bigint";
    assert_eq!(postgres.value(may), 1);
    eventually_eq("all names are there, old and new", &107, || {
        postgres.value("select count(*) from telemetry_devices")
    });
    eventually("they are shown", || {
        let page = ingestor.get("/api/v1/devices?limit=1000").json();
        (page["total"] == 107 && page["data"].as_array()?.len() == 107).then_some(())
    });
    assert!(ingestor.log_of("somebody reads or changes the table").is_empty());
}

#[test]
fn tables_of_the_original_project_take_rows_and_are_answered_from() {
    const REST: &str = "device_id varchar(255) not null, ts timestamptz not null,
        temperature numeric(8, 4) not null, humidity numeric(8, 4) not null,
        battery numeric(8, 4) not null, inserted_at timestamptz not null default now()";
    const KEY: &str = "create unique index one_row on telemetry (device_id, ts);
        create index newest on telemetry (ts desc);";
    for table in [
        format!(
            "create table telemetry (id bigserial primary key, {REST}, unique (device_id, ts));"
        ),
        format!("create table telemetry (id serial constraint pk primary key, {REST}); {KEY}"),
        format!(
            "create table telemetry (id bigint generated always as identity primary key, {REST}); {KEY}"
        ),
        format!(
            "create table telemetry (id int generated by default as identity unique, {REST}); {KEY}"
        ),
        format!("create table telemetry (id bigserial, {REST}, primary key (device_id, ts));"),
        format!("create table telemetry ({REST}, primary key (device_id, ts));"),
    ] {
        let (postgres, broker) = (Postgres::start(), Mosquitto::start());
        postgres.execute(&table);
        postgres.execute(
            "insert into telemetry (device_id, ts, temperature, humidity, battery)
             values ('old', '2025-05-01Z', 1, 2, 3)",
        );
        let ingestor = start(&postgres, &broker);
        await_migrated(&postgres);
        let mut devices = Publisher::connect(broker.port);
        devices.publish_readings(0..500);
        devices.publish_readings(0..500);
        postgres.await_count(501);
        eventually_eq("what came twice is known", &500, || {
            ingestor.metric("ingestor_duplicates_total")
        });
        assert_eq!(ingestor.metric(r#"ingestor_dead_letters_total{stage="database"}"#), 0);
        assert_eq!(ingestor.get("/api/v1/telemetry?limit=1").json()["total"], 501, "{table}");
        eventually_eq("all devices are shown", &serde_json::json!(101), || {
            ingestor.get("/api/v1/devices").json()["total"].clone()
        });
        assert!(
            columns(&postgres, "telemetry").iter().any(|column| column.contains("inserted_at"))
        );
    }
}

#[test]
fn a_serial_number_that_something_refers_to_stays() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(FIRST_RELEASE);
    postgres.execute("create table theirs (id bigint references telemetry (id))");
    let _ingestor = start(&postgres, &broker);
    Publisher::connect(broker.port).publish_readings(0..500);
    postgres.await_exactly(&readings(0..500));
    assert_eq!(postgres.value("select count(distinct id) from telemetry"), 500);
}

#[test]
fn a_long_reader_holds_up_no_row_and_no_other_reader_and_the_migration_comes_after_it() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(FIRST_RELEASE);
    postgres.execute(
        "insert into telemetry (device_id, ts, temperature, humidity, battery)
         values ('old', '2025-05-01Z', 1, 2, 3)",
    );
    let mut reader = postgres.session();
    reader.execute("begin; select * from telemetry");
    let ingestor = start(&postgres, &broker);
    let mut devices = Publisher::connect(broker.port);
    for round in 0..5 {
        devices.publish_readings(round * 100..(round + 1) * 100);
        postgres.await_count(usize::try_from(round + 1).unwrap() * 100 + 1);
        assert_eq!(ingestor.get("/api/v1/telemetry").status, 200);
    }
    assert_eq!(ingestor.await_log_of("somebody reads or changes the table").len(), 1);
    assert_eq!(columns(&postgres, "telemetry")[0].split(' ').nth(2), Some("not"));
    reader.execute("commit");
    await_migrated(&postgres);
    devices.publish_readings(500..600);
    postgres.await_count(601);
    assert_eq!(ingestor.metric("ingestor_db_failures_total"), 0);
}

#[test]
fn a_table_whose_rows_lie_in_parts_of_parts_keeps_the_index_that_takes_time_to_replace() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(
        "create table telemetry (device_id text not null, ts timestamptz not null,
             temperature float8 not null, humidity float8 not null, battery float8 not null,
             created_at timestamptz not null default now(), unique (device_id, ts))
             partition by range (ts);
         create index theirs on telemetry (ts desc);
         create table years partition of telemetry for values from (minvalue) to (maxvalue)
             partition by range (ts);
         create table year partition of years for values from (minvalue) to (maxvalue);
         insert into telemetry values ('old', '2025-05-01Z', 1, 2, 3)",
    );
    let _ingestor = start(&postgres, &broker);
    eventually_eq("the migration is applied", &1, || {
        postgres.value("select count(*) from _iot_ingestor_migrations where version = 3")
    });
    let indexes = indexes(&postgres);
    assert!(indexes.iter().any(|index| index.ends_with("(ts DESC)")), "{indexes:?}");
}

#[test]
fn what_holds_up_the_gathering_of_names_holds_up_no_migration() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(FIRST_RELEASE);
    let mut reader = postgres.session();
    reader.execute("begin; select * from telemetry");
    let ingestor = start(&postgres, &broker);
    ingestor.await_log_of("somebody reads or changes the table");
    ingestor.stop();
    let mut other = postgres.session();
    other.execute("begin; lock table _iot_ingestor_progress");
    let _ingestor = start(&postgres, &broker);
    let waiting = "select count(*) from pg_locks
        where not granted and relation = '_iot_ingestor_progress'::regclass";
    eventually("the names wait", || (postgres.value(waiting) == 1).then_some(()));
    reader.execute("commit");
    await_migrated(&postgres);
    assert_eq!(postgres.value(waiting), 1, "the names wait still");
}

#[test]
fn a_migration_that_something_refuses_holds_up_no_row_and_comes_with_the_start_after_it_is_mended()
{
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(FIRST_RELEASE);
    postgres.execute(
        "create function keep_out() returns event_trigger language plpgsql as
             $$ begin raise exception 'nobody alters a table before Monday'; end $$;
         create event trigger keep_out on ddl_command_start when tag in ('ALTER TABLE')
             execute function keep_out()",
    );
    let ingestor = start(&postgres, &broker);
    let mut devices = Publisher::connect(broker.port);
    devices.publish_readings(0..500);
    postgres.await_exactly(&readings(0..500));
    let said = ingestor.await_log_of("a migration of the table telemetry fails");
    assert_eq!(said.len(), 1);
    assert!(said[0]["failure"].as_str().unwrap().contains("before Monday"), "{said:?}");
    assert_eq!(ingestor.metric("ingestor_db_failures_total"), 0);
    ingestor.stop();
    postgres.execute("drop event trigger keep_out");
    let _ingestor = start(&postgres, &broker);
    await_migrated(&postgres);
    devices.publish_readings(500..600);
    postgres.await_exactly(&readings(0..600));
}

#[test]
fn names_of_devices_are_gathered_from_where_it_was_broken_off() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.make_table();
    // Four devices with so many rows that each is a step of its own, and many with a few.
    postgres.execute(
        "insert into telemetry (device_id, ts, temperature, humidity, battery)
         select 'a' || n % 4, '2025-05-01Z'::timestamptz + n * interval '1 s', n, 1, 2
         from generate_series(1, 20000) as n;
         insert into telemetry (device_id, ts, temperature, humidity, battery)
         select 'b' || n % 5000, '2025-05-01Z'::timestamptz + n * interval '1 s', n, 1, 2
         from generate_series(1, 10000) as n;
         update _iot_ingestor_progress set position = 'a1', is_done = false where task = 'devices'",
    );
    let ingestor = start(&postgres, &broker);
    eventually_eq("the rest is there", &5_002, || {
        postgres.value("select count(*) from telemetry_devices")
    });
    eventually("that is noted", || {
        let done = "select count(*) from _iot_ingestor_progress where is_done";
        (postgres.value(done) == 1).then_some(())
    });
    assert_eq!(ingestor.await_log_of("the names of all devices are gathered").len(), 1);
}

#[test]
fn a_role_that_may_not_note_names_stores_rows_all_the_same_and_notes_them_once_it_may() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.make_table();
    postgres.execute(
        "create role writer login password 'secret';
         grant select, insert on telemetry to writer; grant select on telemetry_devices to writer",
    );
    let mut ingestor = Service::new(&postgres.url_of("writer", "secret"), broker.port).start();
    ingestor.await_ready();
    let mut devices = Publisher::connect(broker.port);
    devices.publish_readings(0..500);
    postgres.await_exactly(&readings(0..500));
    devices.publish_readings(500..1_000);
    postgres.await_exactly(&readings(0..1_000));
    assert_eq!(ingestor.metric("ingestor_db_failures_total"), 0);
    assert_eq!(ingestor.await_log_of("the table telemetry_devices takes no names").len(), 1);
    // What can be seen without the list is shown.
    assert_eq!(ingestor.get("/api/v1/devices").json()["total"], 100);
}

#[test]
fn a_row_that_is_refused_leaves_no_name() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.make_table();
    postgres.execute("alter table telemetry add check (device_id <> 'device-003')");
    let ingestor = start(&postgres, &broker);
    Publisher::connect(broker.port).publish_readings(0..1_000);
    postgres.await_count(990);
    eventually_eq("the rest are letters", &10, || {
        ingestor.metric(r#"ingestor_dead_letters_total{stage="database"}"#)
    });
    assert_eq!(postgres.value("select count(*) from telemetry_devices"), 99);
    assert_eq!(ingestor.get("/api/v1/devices").json()["total"], 99);
}

fn schema(service: &Service, arguments: &[&str]) -> String {
    let arguments = [&["schema"], arguments].concat();
    let output = service.run(env!("CARGO_BIN_EXE_ingestor"), &arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_indexes_of_an_older_table_are_made_while_rows_come_in_and_shown() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(FIRST_RELEASE);
    postgres.execute(
        "insert into telemetry (device_id, ts, temperature, humidity, battery)
         select 'old-' || n % 7, '2025-05-01Z'::timestamptz + n * interval '1 s', n, 1, 2
         from generate_series(1, 5000) as n",
    );
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    await_migrated(&postgres);
    // As a build that was broken off leaves it.
    postgres.execute(
        "create index telemetry_ts_new_idx on telemetry (ts);
         update pg_index set indisvalid = false
         where indexrelid = 'telemetry_ts_new_idx'::regclass",
    );
    let planned = schema(&service, &["index", "--dry-run"]);
    assert_eq!(planned.lines().count(), 4, "{planned}");
    let load = crate::harness::Load::start(broker.port, 1_000);
    load.await_more(200);
    assert_eq!(schema(&service, &["index"]), planned);
    load.await_more(200);
    let published = load.stop();
    postgres.await_count(5_000 + usize::try_from(published.end - published.start).unwrap());
    let expected = [
        "CREATE INDEX telemetry_created_at_idx brin (created_at)",
        "CREATE INDEX telemetry_ts_idx btree (ts)",
        "CREATE UNIQUE INDEX telemetry_device_id_ts_key btree (device_id, ts)",
    ];
    assert_eq!(indexes(&postgres), expected);
    assert!(schema(&service, &["index"]).contains("as they should be"));
    let shown = schema(&service, &["show"]);
    for part in ["telemetry, plain", "telemetry_device_id_ts_key", "(device_id, ts), unique", "id "]
    {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let shown: serde_json::Value =
        serde_json::from_str(&schema(&service, &["show", "--json"])).unwrap();
    assert_eq!(shown["kind"], "plain");
    assert_eq!(shown["indexes"].as_array().unwrap().len(), 3);
}

#[test]
fn a_schema_that_is_not_there_or_cannot_be_reached_is_said_in_a_line() {
    let postgres = Postgres::start();
    let service = Service::new(&postgres.url(), 1);
    let run = |service: &Service| service.run(env!("CARGO_BIN_EXE_ingestor"), &["schema", "show"]);
    let output = run(&service);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no table telemetry"), "{output:?}");
    let output = run(&service.clone().set("DATABASE_URL", "mysql://x"));
    assert_eq!(output.status.code(), Some(64), "{output:?}");
}

#[test]
fn a_hypertable_is_known_beside_others_in_schemas_that_the_role_may_not_use() {
    let postgres = Postgres::start();
    postgres.make_table();
    postgres.execute(
        "create schema hidden; create table hidden.telemetry ();
         create schema timescaledb_information;
         create view timescaledb_information.hypertables as
             select schema::name as hypertable_schema, 'telemetry'::name as hypertable_name
             from unnest(array['hidden', 'public']) as schema;
         create role reader login password 'secret';
         grant usage on schema timescaledb_information to reader;
         grant select on timescaledb_information.hypertables, telemetry to reader",
    );
    let service = Service::new(&postgres.url_of("reader", "secret"), 1);
    assert!(schema(&service, &["show"]).contains("a hypertable of TimescaleDB"));
}
