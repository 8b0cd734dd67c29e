//! What PostgreSQL refuses or swallows: the row's fault, or the table's.

use crate::harness::{
    Ingestor, Mosquitto, Postgres, Publisher, Service, eventually, eventually_eq, reading, readings,
};

const LETTERS: &str = r#"ingestor_dead_letters_total{stage="database"}"#;
const TOKEN: &str = "correct horse battery staple";
const SCHEMA: &str = include_str!("../../migrations/0001_telemetry.sql");

/// A service whose table `spoilt` has changed before the first reading came.
struct Setup {
    postgres: Postgres,
    broker: Mosquitto,
    service: Service,
    ingestor: Ingestor,
}

impl Setup {
    #[track_caller]
    fn spoilt(spoilt: &str) -> Self {
        Self::of(spoilt, Postgres::url)
    }

    /// Where the service's role may write rows, and no more.
    #[track_caller]
    fn spoilt_for_writer(spoilt: &str) -> Self {
        let spoilt = format!(
            "{spoilt}; create role writer login password 'secret';
             grant select, insert on telemetry to writer"
        );
        Self::of(&spoilt, |postgres| postgres.url_of("writer", "secret"))
    }

    #[track_caller]
    fn of(spoilt: &str, url: impl Fn(&Postgres) -> String) -> Self {
        let postgres = Postgres::start();
        let broker = Mosquitto::start();
        // Long enough for good and bad to meet in one batch, where they are not held back until all are there.
        let service = Service::new(&url(&postgres), broker.port)
            .set("ADMIN_TOKEN", TOKEN)
            .set("BATCH_TIMEOUT_MS", 500);
        postgres.execute(SCHEMA);
        postgres.execute(spoilt);
        let mut ingestor = service.start();
        ingestor.await_ready();
        Self { postgres, broker, service, ingestor }
    }

    /// All of them wait when the first is sent: rows that come one by one while the table refuses all are
    /// letters, up to 100 of them.
    fn publish(&self, numbers: std::ops::Range<u64>) {
        assert_eq!(self.ingestor.admin("POST", "/admin/flusher/pause", TOKEN).status, 200);
        Publisher::connect(self.broker.port).publish_readings(numbers);
        assert_eq!(self.ingestor.admin("POST", "/admin/flusher/resume", TOKEN).status, 200);
    }

    /// Waits until the log says that the table is at fault, and why.
    #[track_caller]
    fn await_refusing(&mut self, expected: &[&str]) {
        eventually("the log says what refuses and what mends it", || {
            self.ingestor.must_run();
            let lines = self.ingestor.log_of("the database does not take rows: it refuses them");
            let says = |line: &serde_json::Value| {
                let line = line.to_string();
                expected.iter().all(|part| line.contains(part))
            };
            lines.iter().any(says).then_some(())
        });
        assert_eq!(self.ingestor.health()["database"], "down");
        let flusher = self.ingestor.admin("GET", "/admin/wal", TOKEN).json()["flusher"].clone();
        let error = flusher["last_error"].as_str().unwrap().to_owned();
        assert!(error.contains(expected[0]), "{error}");
    }

    /// Nothing is a letter; once mended all is in the table.
    #[track_caller]
    fn mended(&mut self, mend: &str, stored: std::ops::Range<u64>) {
        assert_eq!(self.ingestor.metric(LETTERS), 0);
        self.postgres.execute(mend);
        self.postgres.await_exactly(&readings(stored));
        eventually_eq("nothing waits", &0, || self.ingestor.metric("ingestor_wal_pending_records"));
        assert_eq!(self.ingestor.metric(LETTERS), 0);
        eventually_eq("the database is up", &serde_json::json!("up"), || {
            self.ingestor.health()["database"].clone()
        });
    }
}

/// One row among good neighbours is refused with `code`: a letter, and the neighbours are stored.
#[track_caller]
fn one_row_refused(spoilt: &str, code: &str) {
    let setup = Setup::spoilt(spoilt);
    let mut publisher = Publisher::connect(setup.broker.port);
    for number in 0..500 {
        let mut reading = reading(number);
        if number == 123 {
            "poison".clone_into(&mut reading.device_id);
        }
        publisher.publish(&reading.topic(), reading.payload());
    }
    publisher.finish();
    setup.postgres.await_exactly(&[readings(0..123), readings(124..500)].concat());
    eventually_eq("nothing waits", &0, || setup.ingestor.metric("ingestor_wal_pending_records"));
    let letters = setup.service.dead_letters();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].reason.contains(code), "{:?}", letters[0]);
    assert!(letters[0].payload_text().contains("poison"));
    assert_eq!(setup.ingestor.metric("ingestor_db_failures_total"), 0);
}

fn trigger(body: &str) -> String {
    format!(
        "create function f() returns trigger language plpgsql as $$ begin {body} return new; end $$;
         create trigger t before insert on telemetry for each row execute function f()"
    )
}

#[test]
fn a_row_that_a_trigger_raises_for_stops_none_of_its_neighbours_whatever_the_code() {
    let raise =
        "if new.device_id = 'poison' then raise exception 'no' using errcode = 'CODE'; end if;";
    for code in ["P0001", "40001", "57014", "53100"] {
        one_row_refused(&trigger(&raise.replace("CODE", code)), code);
    }
}

#[test]
fn a_row_for_which_a_trigger_needs_a_table_that_is_missing_stops_none_of_its_neighbours() {
    let body = "if new.device_id = 'poison' then perform from nowhere; end if;";
    one_row_refused(&trigger(body), "42P01");
}

#[test]
fn a_row_that_is_not_supported_stops_none_of_its_neighbours() {
    let body = "if new.device_id = 'poison' then
        raise exception 'cannot insert into a compressed chunk' using errcode = '0A000'; end if;";
    one_row_refused(&trigger(body), "0A000");
}

#[test]
fn a_row_that_row_security_turns_away_stops_none_of_its_neighbours() {
    let policies = "alter table telemetry enable row level security;
        alter table telemetry force row level security;
        create policy seen on telemetry for select using (true);
        create policy written on telemetry for insert with check (device_id <> 'poison')";
    let postgres = Postgres::start();
    postgres.execute(SCHEMA);
    postgres.execute(
        "create role writer login password 'secret';
         grant select, insert on telemetry to writer;
         grant usage on sequence telemetry_id_seq to writer",
    );
    postgres.execute(policies);
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url_of("writer", "secret"), broker.port)
        .set("BATCH_TIMEOUT_MS", 500);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let mut publisher = Publisher::connect(broker.port);
    for number in 0..100 {
        let mut reading = reading(number);
        if number == 50 {
            "poison".clone_into(&mut reading.device_id);
        }
        publisher.publish(&reading.topic(), reading.payload());
    }
    publisher.finish();
    postgres.await_exactly(&[readings(0..50), readings(51..100)].concat());
    ingestor.await_metric(LETTERS, 1);
    assert!(service.dead_letters()[0].reason.contains("42501"));
}

const DIVIDES: &str = "new.temperature = new.temperature / (select 0);";

#[test]
fn a_trigger_that_fails_for_every_row_makes_no_letter_and_all_goes_in_once_it_is_mended() {
    let mut setup = Setup::spoilt(&trigger(DIVIDES));
    setup.publish(0..3_000);
    setup.await_refusing(&["22012", "function f()", "trigger"]);
    setup.mended("drop trigger t on telemetry", 0..3_000);
}

#[test]
fn a_check_that_nothing_passes_makes_no_letter_and_all_goes_in_once_it_is_mended() {
    let check = "alter table telemetry add constraint impossible check (humidity < -1) not valid";
    let mut setup = Setup::spoilt(check);
    setup.publish(0..3_000);
    setup.await_refusing(&["23514", "constraint impossible", "drop it"]);
    setup.mended("alter table telemetry drop constraint impossible", 0..3_000);
}

#[test]
fn a_missing_partition_makes_no_letter_while_rows_of_others_go_in() {
    let partitioned = "drop table telemetry;
        create table telemetry (device_id text not null, ts timestamptz not null,
            temperature float8 not null, humidity float8 not null, battery float8 not null,
            created_at timestamptz not null default now(), unique (device_id, ts))
            partition by range (ts);
        create table early partition of telemetry
            for values from ('2000-01-01') to ('2025-06-01 00:00:00.0005Z')";
    // A role that owns the table makes it.
    let mut setup = Setup::spoilt_for_writer(partitioned);
    setup.publish(0..1_500);
    setup.await_refusing(&["23514", "partition"]);
    setup.postgres.await_exactly(&readings(0..500));
    setup.mended(
        "create table late partition of telemetry
             for values from ('2025-06-01 00:00:00.0005Z') to ('2030-01-01')",
        0..1_500,
    );
}

#[test]
fn an_id_that_is_at_its_end_makes_no_letter() {
    // Which keeps its id, because something refers to it.
    for (spoilt, code, mend) in [
        (
            "alter table telemetry alter id type integer;
             create table theirs (id integer references telemetry (id));
             select setval('telemetry_id_seq', 2147483647)",
            "22003",
            "alter table telemetry alter id type bigint",
        ),
        (
            "create table theirs (id bigint references telemetry (id));
             alter sequence telemetry_id_seq maxvalue 10; select setval('telemetry_id_seq', 10)",
            "2200H",
            "alter sequence telemetry_id_seq no maxvalue",
        ),
    ] {
        let mut setup = Setup::spoilt(spoilt);
        setup.publish(0..500);
        setup.await_refusing(&[code, "bigint"]);
        setup.mended(mend, 0..500);
    }
}

#[test]
fn rows_that_a_trigger_or_a_rule_swallows_are_found_and_kept() {
    for (spoilt, mend) in [
        (
            "create function f() returns trigger language plpgsql
                 as $$ begin return null; end $$;
             create trigger t before insert on telemetry for each row execute function f()",
            "drop trigger t on telemetry",
        ),
        ("create rule r as on insert to telemetry do instead nothing", "drop rule r on telemetry"),
    ] {
        let mut setup = Setup::spoilt(spoilt);
        setup.publish(0..3_000);
        setup.await_refusing(&["not in the table"]);
        let metrics = setup.ingestor.metrics();
        assert!(metrics.get("ingestor_swallowed_rows_total") > 0);
        assert_eq!(metrics.get("ingestor_duplicates_total"), 0);
        assert_eq!(metrics.get("ingestor_wal_pending_records"), 3_000);
        setup.mended(mend, 0..3_000);
    }
}

#[test]
fn a_row_that_is_swallowed_among_others_is_a_letter() {
    let swallows = "if new.device_id = 'poison' then return null; end if;";
    one_row_refused(&trigger(swallows), "not in the table");
}

#[test]
fn rows_that_a_trigger_puts_elsewhere_below_the_table_are_there() {
    let elsewhere = "create table elsewhere () inherits (telemetry);
        create function f() returns trigger language plpgsql
            as $$ begin insert into elsewhere select new.*; return null; end $$;
        create trigger t before insert on telemetry for each row execute function f()";
    let mut setup = Setup::spoilt(elsewhere);
    setup.publish(0..500);
    setup.postgres.await_exactly(&readings(0..500));
    setup.ingestor.await_metric("ingestor_duplicates_total", 500);
    assert_eq!(setup.ingestor.metric("ingestor_swallowed_rows_total"), 0);
}

#[test]
fn an_operator_can_have_what_is_refused_dead_lettered_and_replayed() {
    let mut setup = Setup::spoilt(&trigger(DIVIDES));
    setup.publish(0..300);
    setup.await_refusing(&["22012"]);
    assert_eq!(setup.ingestor.admin("POST", "/admin/flusher/reject", TOKEN).status, 200);
    setup.ingestor.await_metric(LETTERS, 300);
    eventually_eq("nothing waits", &0, || setup.ingestor.metric("ingestor_wal_pending_records"));
    setup.postgres.execute("drop trigger t on telemetry");
    let replayed = setup.ingestor.admin("POST", "/admin/dead-letters/replay", TOKEN);
    assert_eq!(replayed.json()["replayed"], 300);
    setup.postgres.await_exactly(&readings(0..300));
}

#[test]
fn a_commit_means_the_disk_whatever_the_role_and_a_reload_say() {
    let postgres = Postgres::start();
    postgres.execute(SCHEMA);
    // What a row meets when it is written.
    postgres.execute(
        "alter table telemetry add column seen text default current_setting('synchronous_commit');
         alter role iot set synchronous_commit = off",
    );
    let broker = Mosquitto::start();
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    let mut publisher = Publisher::connect(broker.port);
    publisher.publish_readings(0..500);
    postgres.await_count(500);
    postgres.execute("alter system set synchronous_commit = off");
    postgres.execute("select pg_reload_conf()");
    eventually("the reload has arrived", || {
        let off = "select (setting = 'off')::int::bigint from pg_settings
                   where name = 'synchronous_commit'";
        (postgres.value(off) == 1).then_some(())
    });
    publisher.publish_readings(500..1_000);
    postgres.await_count(1_000);
    assert_eq!(postgres.value("select count(*) from telemetry where seen <> 'on'"), 0);
    ingestor.must_run();
}
