//! What the service asks of a table that is partitioned by time, as PostgreSQL itself has seen it.

use std::collections::HashSet;

use serde_json::json;

use crate::harness::{
    Ingestor, Mosquitto, Postgres, Publisher, Service, eventually, eventually_eq, reading, readings,
};

/// Days that have a partition each: 96 behind today, today, and three ahead.
const DAYS: usize = 100;

/// Two days, what they touch at both ends, and the three days ahead.
const RECENT: usize = PAST + 3;
const PAST: usize = 2 + 1;
/// The window behind it.
const MONTH: usize = 28 + 1;

/// A statement and how it was carried out.
struct Carried {
    sql: String,
    /// Partitions that were planned for, whether or not they were reached.
    partitions: usize,
    /// Whether rows of other devices are looked at as well.
    is_seeking: bool,
}

struct Setup {
    postgres: Postgres,
    ingestor: Ingestor,
    broker: Mosquitto,
}

impl Setup {
    fn start() -> Self {
        Self::on(
            "create table telemetry (device_id text not null, ts timestamptz not null,
                 temperature float8 not null, humidity float8 not null, battery float8 not null,
                 created_at timestamptz not null default now(), unique (device_id, ts))
                 partition by range (ts);
             create index telemetry_ts_idx on telemetry (ts);
             create table telemetry_older partition of telemetry
                 for values from (minvalue) to (date_trunc('day', now()) - interval '96 days');
             do $$ declare day timestamptz; begin
                 for n in -96..3 loop
                     day := date_trunc('day', now()) + n * interval '1 day';
                     execute format('create table telemetry_p%s partition of telemetry
                         for values from (%L) to (%L)', n + 96, day, day + interval '1 day');
                 end loop;
             end $$;
             insert into telemetry (device_id, ts, temperature, humidity, battery)
             select 'device-' || lpad((n % 200)::text, 3, '0'), now() - n * interval '40 s', 1, 2, 3
             from generate_series(1, 200000) as n;
             create table telemetry_devices (device_id text primary key);
             insert into telemetry_devices select distinct device_id from telemetry;
             -- Or they would be gathered at the same time.
             create table _iot_ingestor_progress (task text primary key, position text,
                 is_done boolean not null);
             insert into _iot_ingestor_progress values ('devices', null, true)",
        )
    }

    /// On what this makes.
    fn on(tables: &str) -> Self {
        let (postgres, broker) = (Postgres::start(), Mosquitto::start());
        postgres.execute(tables);
        postgres.execute("vacuum analyze");
        postgres.execute(
            "alter database iotdb set session_preload_libraries = 'auto_explain';
             alter database iotdb set auto_explain.log_min_duration = 0;
             alter database iotdb set auto_explain.log_nested_statements = on",
        );
        let mut ingestor = Service::new(&postgres.url(), broker.port).start();
        ingestor.await_ready();
        eventually("the database is up", || (ingestor.metric("ingestor_db_up") == 1).then_some(()));
        Self { postgres, ingestor, broker }
    }

    /// What PostgreSQL has carried out that names the table.
    fn carried(&self) -> Vec<Carried> {
        let log = self.postgres.log_text();
        let mut all = Vec::new();
        for entry in log.split("LOG:  duration: ").skip(1) {
            // What belongs to it is set in.
            let lines: Vec<&str> =
                entry.lines().skip(1).take_while(|line| line.starts_with('\t')).collect();
            let plan = lines.iter().position(|line| line.contains("(cost=")).unwrap_or(lines.len());
            let sql = lines[..plan].join("\n");
            if !sql.contains("telemetry")
                || sql.contains("pg_class")
                || sql.contains("pg_attribute")
            {
                continue;
            }
            let scanned = |line: &&str| {
                let name = line.split(" on ").nth(1)?.split(' ').next()?;
                let is_part = name.starts_with("telemetry_p") || name == "telemetry_older";
                is_part.then(|| name.to_owned())
            };
            let partitions: HashSet<String> = lines[plan..].iter().filter_map(scanned).collect();
            let partitions = partitions.len();
            let is_seeking = lines[plan..].iter().any(|line| line.contains("Filter: (device_id"));
            assert!(!entry.contains("Recursive Union"), "{entry}");
            assert!(!sql.to_lowercase().contains("recursive"), "{sql}");
            all.push(Carried { sql, partitions, is_seeking });
        }
        all
    }

    /// What a request makes of it.
    #[track_caller]
    fn asked(&self, path: &str) -> Vec<Carried> {
        let before = self.carried().len();
        let answer = self.ingestor.get(&format!("/api/v1/{path}"));
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(!answer.json()["data"].as_array().unwrap().is_empty(), "{path} finds nothing");
        eventually("the statements are logged", || {
            let all = self.carried();
            (all.len() > before).then(|| all.into_iter().skip(before).collect())
        })
    }
}

#[test]
fn no_statement_reads_more_than_the_partitions_of_its_window() {
    let setup = Setup::start();
    let counts = |asked: Vec<Carried>| -> Vec<Carried> {
        asked.into_iter().filter(|carried| carried.sql.contains("count(*)")).collect()
    };
    let first = counts(setup.asked("telemetry?limit=1"));
    assert!(!first.is_empty(), "all rows are counted");
    must_go_on("all of them", &first.iter().collect::<Vec<_>>());
    assert!(counts(setup.asked("telemetry")).is_empty(), "it is known that there are more");
    let page = setup.ingestor.get("/api/v1/telemetry?limit=1").json();
    let newest = page["data"][0]["timestamp"].as_str().unwrap();
    let newest = chrono::DateTime::parse_from_rfc3339(newest).unwrap();
    let day = |days: i64| (newest - chrono::TimeDelta::days(days)).format("%Y-%m-%dT%H:%M:%SZ");
    let cursor = {
        let path = format!("/api/v1/telemetry?limit=1&end={}", day(50));
        setup.ingestor.get(&path).json()["next_cursor"].as_str().unwrap().to_owned()
    };
    for (path, most) in [
        ("telemetry".to_owned(), RECENT),
        ("telemetry?limit=1000".to_owned(), RECENT),
        ("telemetry?offset=3000".to_owned(), RECENT),
        (format!("telemetry?cursor={cursor}"), RECENT),
        (format!("telemetry?end={}", day(40)), PAST),
        (format!("telemetry?start={}&end={}", day(41), day(40)), 2),
        (format!("telemetry?start={}&end={}&device_id=device-007", day(41), day(40)), 2),
        ("devices?limit=150".to_owned(), RECENT),
        ("devices?name_contains=device-1".to_owned(), RECENT),
        ("devices?newest_first=true".to_owned(), RECENT),
        ("devices?newest_first=true&name_contains=device-1".to_owned(), RECENT),
    ] {
        let asked = setup.asked(&path);
        let (counts, pages): (Vec<&Carried>, Vec<&Carried>) =
            asked.iter().partition(|carried| carried.sql.contains("count(*)"));
        for Carried { sql, partitions, .. } in pages {
            assert!(*partitions <= most, "{path} reads {partitions} partitions:\n{sql}");
        }
        must_go_on(&path, &counts);
    }
    // A device's page goes back as far as it has to, by what the device had in two days; what is behind its last
    // reading is counted. 100 of its readings are in nine days, 900 in 83.
    let of_one = "telemetry?device_id=device-007";
    let middle = {
        let path = format!("/api/v1/{of_one}&limit=1&end={}", day(40));
        setup.ingestor.get(&path).json()["next_cursor"].as_str().unwrap().to_owned()
    };
    for (path, reach, behind) in [
        (of_one.to_owned(), 12, DAYS - 9 + 1),
        (format!("{of_one}&limit=900"), DAYS + 1, DAYS - 83 + 1),
        (format!("{of_one}&cursor={middle}"), 12, DAYS + 1),
    ] {
        let asked = setup.asked(&path);
        let (counts, pages): (Vec<&Carried>, Vec<&Carried>) =
            asked.iter().partition(|carried| carried.sql.contains("count(*)"));
        let [recent, rest] = pages[..] else { panic!("{path} takes {} statements", pages.len()) };
        assert!(recent.partitions <= RECENT, "{path}: {}", recent.partitions);
        assert!(rest.partitions <= reach, "{path}: {}", rest.partitions);
        // That may be in two windows, which touch.
        let counted: usize = counts.iter().map(|carried| carried.partitions).sum();
        assert!((1..=2).contains(&counts.len()), "{path} is counted {} times", counts.len());
        assert!(counted <= behind + 1, "{path}: {counted}");
    }
}

#[test]
fn a_device_that_was_common_and_is_silent_is_not_sought_past_all_that_is_newer() {
    let setup = Setup::on(
        "create table telemetry (device_id text not null, ts timestamptz not null,
             temperature float8 not null, humidity float8 not null, battery float8 not null,
             created_at timestamptz not null default now(), unique (device_id, ts));
         create index telemetry_ts_idx on telemetry (ts);
         create index telemetry_created_at_idx on telemetry using brin (created_at);
         alter table telemetry set (autovacuum_enabled = off);
         insert into telemetry (device_id, ts, temperature, humidity, battery)
         select case when n % 50 = 0 then repeat('device-', 9) || n % 3 else repeat('common', 10) end,
             now() - interval '3 days' - n * interval '1 s', 1, 2, 3
         from generate_series(60000, 1, -1) as n",
    );
    // Nobody has looked at the table since.
    setup.postgres.execute(
        "insert into telemetry (device_id, ts, temperature, humidity, battery)
         select repeat('device-', 9) || n % 3, now() - n * interval '1 s', 1, 2, 3
         from generate_series(30000, 1, -1) as n",
    );
    // Of such names the key is higher than the index on the time.
    let of_one = format!("telemetry?device_id={}", "common".repeat(10));
    for path in [&of_one, &format!("{of_one}&offset=5"), "devices"] {
        let asked = setup.asked(path);
        let mut pages = asked.iter().filter(|carried| carried.sql.contains("telemetry.ts desc"));
        let sought = pages.find(|carried| carried.is_seeking).map(|carried| &carried.sql);
        assert_eq!(sought, None, "{path}");
    }
}

/// From window to window, and over none twice.
#[track_caller]
fn must_go_on(path: &str, statements: &[&Carried]) {
    let partitions: Vec<usize> = statements.iter().map(|carried| carried.partitions).collect();
    for (most, partitions) in [RECENT, MONTH].iter().zip(&partitions) {
        assert!(partitions <= most, "{path}: {partitions}");
    }
    // A partition in which one window ends and the next begins is in both.
    assert!(partitions.iter().sum::<usize>() <= DAYS + 1 + 2, "{path}: {partitions:?}");
}

#[test]
fn what_the_flusher_sends_reads_the_partitions_of_its_rows_alone() {
    let mut setup = Setup::start();
    let mut devices = Publisher::connect(setup.broker.port);
    let now = chrono::Utc::now().timestamp_micros();
    for round in 0..2 {
        for number in 0..200 {
            let mut reading = reading(number);
            reading.micros = now - i64::try_from(number).unwrap() * 1_000_000;
            devices.publish(&reading.topic(), reading.payload());
        }
        devices.finish();
        setup.ingestor.await_metric("ingestor_acks_total", 200 * (round + 1));
    }
    eventually("what came twice is known", || {
        (setup.ingestor.metric("ingestor_duplicates_total") == 200).then_some(())
    });
    let carried = setup.carried();
    let inserts: Vec<&Carried> =
        carried.iter().filter(|carried| carried.sql.contains("insert into")).collect();
    assert!(inserts.len() >= 3, "rows, names, and rows again");
    for Carried { sql, partitions, .. } in inserts {
        assert_eq!(*partitions, 0, "{sql}");
    }
}

const TOKEN: &str = "7f3a-admin-token";

const POWER: &str = r#"
[[default.mapping]]
name   = "plug"
topic  = "plug/{device}"
device = "{device}"
time   = { path = "t", format = "s" }
table  = "power"
fields = ["watts"]
"#;

/// A stand-in for tables whose rows are on several nodes: their policy refuses what such tables do, of a role that
/// policies hold for.
const NODES: &str = "
    create function of_nodes() returns boolean language plpgsql as $$ begin
        if current_query() ~* 'recursive' then
            raise exception 'recursive CTEs are not supported' using errcode = 'P0001';
        elsif current_query() ~* 'lateral|with ordinality|not exists|exists .select from .power' then
            raise exception 'complex joins are not supported' using errcode = '0A000';
        end if;
        return true;
    end $$;
    do $$ declare name text; begin
        foreach name in array array['telemetry', 'power'] loop
            if to_regclass(name) is not null then
                execute format('create policy nodes on %I using (of_nodes())', name);
                execute format('alter table %I enable row level security', name);
                execute format('alter table %I force row level security', name);
            end if;
        end loop;
    end $$";

#[test]
fn what_tables_on_several_nodes_refuse_is_asked_otherwise_and_answered_the_same() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres
        .execute("create role app login password 'secret'; grant create on schema public to app");
    let service = Service::new(&postgres.url_of("app", "secret"), broker.port)
        .set("ADMIN_TOKEN", TOKEN)
        .set("MQTT_TOPIC", "telemetry/#");
    std::fs::write(service.dir().join("Rocket.toml"), POWER).unwrap();
    let mut ingestor = service.start();
    ingestor.await_ready();
    let mut devices = Publisher::connect(broker.port);
    devices.publish_readings(0..300);
    let plug = |number: u64| json!({"t": 1_759_667_696 + number, "watts": number}).to_string();
    for number in 0..250 {
        devices.publish(&format!("plug/p{number:03}"), plug(number));
    }
    devices.finish();
    eventually_eq("all is stored", &550, || ingestor.metric("ingestor_db_inserts_total"));
    eventually_eq("the names are there", &100, || {
        postgres.value("select count(*) from telemetry_devices")
    });
    // Some of what the log holds is in the tables already.
    assert_eq!(ingestor.admin("POST", "/admin/flusher/pause", TOKEN).status, 200);
    devices.publish_readings(200..400);
    for number in 240..260 {
        devices.publish(&format!("plug/p{number:03}"), plug(number));
    }
    devices.finish();
    eventually_eq("the rest waits", &220, || ingestor.metric("ingestor_wal_pending_records"));
    let ask = || {
        [
            "telemetry?limit=1000",
            "telemetry?limit=7&offset=30",
            "telemetry?device_id=device-007",
            "devices?limit=1000",
            "devices?name_contains=07",
            "telemetry?table=power&limit=1000",
            "devices?table=power&limit=120&offset=100",
            "devices?table=power&name_contains=P1&offset=40",
            "devices?table=power&newest_first=true&limit=3",
        ]
        .map(|path| {
            let answer = ingestor.get(&format!("/api/v1/{path}"));
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            answer.json()
        })
    };
    let before = ask();
    assert_eq!((&before[0]["total"], &before[5]["total"]), (&400.into(), &260.into()));
    assert_eq!(before[6]["data"].as_array().unwrap().len(), 120);
    postgres.execute(NODES);
    assert_eq!(ask(), before);
    // One of the table, one of the log, and a new one.
    let file = service.dir().join("three.ndjson");
    let three = [5, 399, 1_000].map(|number| reading(number).payload());
    std::fs::write(&file, three.join("\n")).unwrap();
    let here = service.clone().set("HTTP_ADDR", ingestor.address());
    let import = here.run(env!("CARGO_BIN_EXE_ingestor"), &["import", &file.display().to_string()]);
    let said = String::from_utf8_lossy(&import.stdout).into_owned();
    assert!(said.contains("2 stored, 1 known, 0 rejected"), "{said} {import:?}");
}

#[test]
fn rows_that_come_twice_to_tables_on_several_nodes_are_known_and_keep_nothing_pending() {
    let (mut postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres
        .execute("create role app login password 'secret'; grant create on schema public to app");
    let service =
        Service::new(&postgres.url_of("app", "secret"), broker.port).set("ADMIN_TOKEN", TOKEN);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let mut devices = Publisher::connect(broker.port);
    devices.publish_readings(0..300);
    devices.finish();
    postgres.await_exactly(&readings(0..300));
    postgres.execute(NODES);
    // A statement of its own at first; with new names, a transaction that is taken back with what was refused.
    for (inserted, first) in [(300, 200), (0, 300)] {
        let again = first..first + 200;
        assert_eq!(ingestor.admin("POST", "/admin/flusher/pause", TOKEN).status, 200);
        devices.publish_readings(again.clone());
        devices.finish();
        ingestor.await_metric("ingestor_wal_pending_records", 200);
        assert_eq!(ingestor.admin("POST", "/admin/flusher/resume", TOKEN).status, 200);
        eventually_eq("nothing is pending", &0, || ingestor.metric("ingestor_wal_pending_records"));
        assert_eq!(ingestor.metric("ingestor_db_inserts_total"), inserted + 100);
        assert_eq!(ingestor.metric("ingestor_duplicates_total"), 100);
        assert_eq!(ingestor.metric("ingestor_db_failures_total"), 0);
        postgres.await_exactly(&readings(0..again.end));
        ingestor.stop();
        ingestor = service.start();
        ingestor.await_ready();
    }
    // A server that was started again is asked for the rows that it had last.
    devices.publish_readings(500..600);
    devices.finish();
    postgres.await_exactly(&readings(0..600));
    postgres.stop();
    postgres.launch();
    devices.publish_readings(600..700);
    devices.finish();
    postgres.await_exactly(&readings(0..700));
    assert_eq!(ingestor.metric("ingestor_resent_records_total"), 0);
}

#[test]
fn rows_of_mappings_that_come_twice_to_tables_on_several_nodes_are_filled_and_keep_nothing_pending()
{
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres
        .execute("create role app login password 'secret'; grant create on schema public to app");
    let service =
        Service::new(&postgres.url_of("app", "secret"), broker.port).set("ADMIN_TOKEN", TOKEN);
    let mapping = POWER.replace(r#"["watts"]"#, r#"["watts", "volts"]"#);
    std::fs::write(service.dir().join("Rocket.toml"), mapping).unwrap();
    let mut ingestor = service.start();
    ingestor.await_ready();
    let mut devices = Publisher::connect(broker.port);
    let mut publish = |numbers: std::ops::Range<u64>, field: &str| {
        for number in numbers {
            let plug = json!({"t": 1_759_667_696 + number, field: number}).to_string();
            devices.publish(&format!("plug/p{number:03}"), plug);
        }
        devices.finish();
    };
    let await_none = |ingestor: &Ingestor| {
        eventually_eq("nothing is pending", &0, || ingestor.metric("ingestor_wal_pending_records"));
    };
    publish(0..300, "watts");
    ingestor.await_metric("ingestor_db_inserts_total", 300);
    postgres.execute(NODES);
    // Known, filled, and new, in one batch; one that is new is swallowed.
    postgres.execute(
        "create function swallow() returns trigger language plpgsql as 'begin return null; end';
         create trigger swallow before insert on power for each row
             when (new.device_id in ('p350', 'p420')) execute function swallow()",
    );
    let of_batch = [("watts", 100..200), ("volts", 200..400)];
    for (inserted, merged, known) in [(99, 100, 100), (0, 0, 299)] {
        assert_eq!(ingestor.admin("POST", "/admin/flusher/pause", TOKEN).status, 200);
        for (field, numbers) in &of_batch {
            publish(numbers.clone(), field);
        }
        ingestor.await_metric("ingestor_wal_pending_records", 300);
        assert_eq!(ingestor.admin("POST", "/admin/flusher/resume", TOKEN).status, 200);
        await_none(&ingestor);
        let total = |name: &str| ingestor.metric(&format!("ingestor_{name}_total"));
        let before = if inserted > 0 { 300 } else { 0 };
        assert_eq!(total("db_inserts"), before + inserted);
        assert_eq!((total("merged"), total("duplicates")), (merged, known));
        assert_eq!(total("db_failures"), 0);
        assert_eq!(ingestor.metric(r#"ingestor_dead_letters_total{stage="database"}"#), 1);
        ingestor.stop();
        ingestor = service.start();
        ingestor.await_ready();
    }
    // A statement of its own, of which all is new but what is swallowed: it is not taken back.
    publish(400..450, "watts");
    ingestor.await_metric("ingestor_acks_total", 50);
    await_none(&ingestor);
    assert_eq!(ingestor.metric("ingestor_db_inserts_total"), 49);
    assert_eq!(ingestor.metric("ingestor_duplicates_total"), 0);
    let count =
        |condition: &str| postgres.value(&format!("select count(*) from power where {condition}"));
    assert_eq!(
        (count("true"), count("watts is not null"), count("volts is not null")),
        (448, 349, 199)
    );
}
