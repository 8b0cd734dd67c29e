//! What may go wrong between the log and the tables of mappings.

use serde_json::{Value, json};

use super::{CLIMATE, EPOCH, PENDING, POWER, Setup, TOKEN, WIDE, WORDS, await_settled, books};
use crate::harness::service::DeadLetter;
use crate::harness::{Ingestor, Postgres, Publisher, eventually, eventually_eq, random, readings};

const LETTERS: &str = r#"ingestor_dead_letters_total{stage="database"}"#;
const PARTITIONED: &str = include_str!("../../../deploy/postgres/partitioned.sql");

/// Where the service's role may write rows, and no more.
fn writer(postgres: &Postgres) -> String {
    postgres.make_table();
    postgres.execute(
        "create role writer login password 'secret';
         grant select, insert, update on telemetry, telemetry_devices to writer;
         alter default privileges for role iot grant select, insert, update on tables to writer",
    );
    postgres.url_of("writer", "secret")
}

/// Waits until the log says which statements mend the tables; the statements.
#[track_caller]
fn await_statements(ingestor: &Ingestor) -> String {
    let lines = ingestor.await_log_of("tables are not what the mappings need");
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines[0]["statements"].as_str().unwrap().to_owned()
}

/// Waits until rows were tried and wait.
#[track_caller]
fn await_refused(ingestor: &mut Ingestor, messages: u64) {
    ingestor.await_metric("ingestor_acks_total", messages);
    // More than once, and it is said once.
    ingestor.await_metric("ingestor_db_failures_total", 3);
    eventually_eq("the database is down", &json!("down"), || ingestor.health()["database"].clone());
    assert!(ingestor.metric(PENDING) > 0);
    assert_eq!(ingestor.metric(LETTERS), 0);
}

#[test]
fn a_role_that_may_make_no_table_is_told_which_statements_do_and_rows_wait_for_them() {
    let setup = Setup::of(&[POWER, CLIMATE].concat(), writer);
    let mut ingestor = setup.start();
    let statements = await_statements(&ingestor);
    // Rows that need none of it go on.
    Publisher::connect(setup.broker.port).publish_readings(0..10);
    setup.postgres.await_exactly(&readings(0..10));
    setup.publish("plug/a", &json!({"t": EPOCH, "watts": 1, "more": {"x": 1}}));
    setup.publish("climate/a", &json!({"t": EPOCH, "co2": 800}));
    await_refused(&mut ingestor, 12);
    assert_eq!(await_statements(&ingestor), statements);
    setup.postgres.execute(&statements);
    await_settled(&mut ingestor, 12);
    assert_eq!(setup.rows("power", WIDE), [r#"a 0 1 - - - {"x": 1}"#]);
    assert_eq!(setup.rows("telemetry where device_id = 'a'", "co2"), ["a 0 800"]);
    assert_eq!((books(&ingestor), ingestor.metric(LETTERS)), ((12, 0, 0), 0));
}

#[test]
fn a_column_of_another_type_is_told_with_what_changes_it_and_rows_wait() {
    let setup = Setup::with(POWER);
    setup.postgres.execute(
        "create table power (device_id text not null, ts timestamptz not null, watts text,
             \"on\" double precision, unique (device_id, ts));
         insert into power values ('old', to_timestamp(1759667696), '7', 1)",
    );
    let mut ingestor = setup.start();
    setup.publish("plug/a", &json!({"t": EPOCH, "watts": 1, "on": true}));
    await_refused(&mut ingestor, 1);
    let statements = await_statements(&ingestor);
    setup.postgres.execute(&statements);
    await_settled(&mut ingestor, 1);
    assert_eq!(setup.rows("power", WIDE), ["a 0 1 - true - -", "old 0 7 - true - -"]);
}

#[test]
fn what_waits_goes_into_the_tables_that_it_was_mapped_to_whatever_the_configuration_is_now() {
    let mut setup = Setup::with(&[POWER, CLIMATE, WORDS].concat());
    let mut ingestor = setup.start();
    setup.postgres.stop();
    setup.publish("plug/a", &json!({"t": EPOCH, "watts": 1.5, "energy": 2, "model": "m"}));
    setup.publish("climate/a", &json!({"t": EPOCH, "co2": 800}));
    setup.publish("words/a", &json!({"t": EPOCH, "user": 1, "select": 2}));
    ingestor.await_metric("ingestor_acks_total", 3);
    ingestor.kill();
    // Another table, another type, and two mappings that are gone.
    let new = POWER
        .replace("\"power\"", "\"plugs\"")
        .replace("energy = { type = \"int\" }", "energy = {}");
    setup.configure(&new);
    let mut ingestor = setup.start();
    setup.publish("plug/b", &json!({"t": EPOCH, "energy": 2.5}));
    ingestor.await_metric("ingestor_acks_total", 1);
    setup.postgres.launch();
    eventually_eq("nothing waits", &0, || ingestor.metric(PENDING));
    let columns = "watts, energy, model";
    assert_eq!(setup.rows("power", columns), ["a 0 1.5 2 m"]);
    assert_eq!(setup.rows("telemetry", "co2"), ["a 0 800"]);
    assert_eq!(setup.rows("\"order\"", "\"user\", \"select\""), ["a 0 1 2"]);
    assert_eq!(setup.rows("plugs", columns), ["b 0 2.5"]);
    assert_eq!(ingestor.metric(LETTERS), 0);
}

#[test]
fn a_type_that_was_changed_in_file_and_table_takes_what_waits() {
    let mut setup = Setup::with(POWER);
    let mut ingestor = setup.start();
    setup.publish("plug/a", &json!({"t": EPOCH, "energy": 1}));
    await_settled(&mut ingestor, 1);
    ingestor.kill();
    setup.postgres.execute("alter table power alter column energy type double precision");
    setup.postgres.stop();
    let mut ingestor = setup.start();
    setup.publish("plug/b", &json!({"t": EPOCH, "energy": 2}));
    ingestor.await_metric("ingestor_acks_total", 1);
    ingestor.kill();
    setup.configure(&POWER.replace("energy = { type = \"int\" }", "energy = {}"));
    setup.postgres.launch();
    let mut ingestor = setup.start();
    setup.publish("plug/c", &json!({"t": EPOCH, "energy": 2.5}));
    await_settled(&mut ingestor, 1);
    assert_eq!(setup.rows("power", "energy"), ["a 0 1", "b 0 2", "c 0 2.5"]);
}

#[test]
fn a_table_or_column_that_somebody_drops_is_made_again() {
    let setup = Setup::with(POWER);
    let mut ingestor = setup.start();
    setup.publish("plug/a", &json!({"t": EPOCH, "watts": 1}));
    await_settled(&mut ingestor, 1);
    for (number, dropped) in (2..).zip(["alter table power drop column watts", "drop table power"])
    {
        setup.postgres.execute(dropped);
        setup.publish(&format!("plug/b{number}"), &json!({"t": EPOCH, "watts": number}));
        await_settled(&mut ingestor, number);
    }
    assert!(setup.rows("power", "watts").contains(&"b3 0 3".to_owned()));
}

#[test]
fn an_autovacuum_gives_way_to_a_column_that_rows_need() {
    let setup = Setup::with(POWER);
    let mut ingestor = setup.start();
    setup.publish("plug/a", &json!({"t": EPOCH, "watts": 1}));
    await_settled(&mut ingestor, 1);
    setup.postgres.execute(
        "alter table power drop column watts;
         insert into power (device_id, ts, energy)
         select 'old', now() - n * interval '1 s', n from generate_series(1, 50000) as n",
    );
    setup.postgres.vacuum_slowly("power");
    setup.publish("plug/b", &json!({"t": EPOCH, "watts": 2}));
    await_settled(&mut ingestor, 2);
    assert!(setup.rows("power", "watts").contains(&"b 0 2".to_owned()));
}

#[test]
fn a_row_that_the_table_refuses_is_a_letter_that_needs_no_mapping_and_its_neighbours_are_stored() {
    let setup = Setup::with(POWER);
    let mut ingestor = setup.start();
    eventually("the schema is there", || (ingestor.metric("ingestor_db_up") == 1).then_some(()));
    setup.postgres.execute("alter table power add constraint sane check (watts < 1000)");
    let mut publisher = Publisher::connect(setup.broker.port);
    for n in 0..200 {
        let watts = if n == 77 { 5_000 } else { n };
        let payload = json!({"t": EPOCH + n, "watts": watts, "model": "m", "more": {"n": n}});
        publisher.publish("plug/a", payload.to_string());
    }
    publisher.finish();
    await_settled(&mut ingestor, 200);
    assert_eq!(setup.postgres.value("select count(*) from power"), 199);
    let letters = setup.service.dead_letters();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(letters[0].reason.contains("constraint sane of power"), "{:?}", letters[0]);
    let payload: Value = serde_json::from_str(&letters[0].payload_text()).unwrap();
    let expected = json!({"table": "power", "device_id": "a", "timestamp": "2025-10-05T12:36:13Z",
        "watts": 5000.0, "model": "m", "extra": {"n": 77}});
    assert_eq!(payload, expected);
    ingestor.stop();
    // The mapping is gone as well.
    setup.configure("");
    setup.postgres.execute("alter table power drop constraint sane");
    let mut ingestor = setup.start();
    let replayed = ingestor.admin("POST", "/admin/dead-letters/replay", TOKEN).json();
    assert_eq!(replayed, json!({"replayed": 1, "still_bad": 0}));
    await_settled(&mut ingestor, 0);
    let one = setup.rows("power where ts = to_timestamp(1759667773)", WIDE);
    assert_eq!(one, [r#"a 77 5000 - - m {"n": 77}"#]);
}

#[test]
fn a_table_that_refuses_row_after_row_keeps_most_in_the_log_though_others_take_theirs() {
    const ROWS: u64 = 300;
    let setup = Setup::with(POWER);
    let mut ingestor = setup.start();
    eventually("the schema is there", || (ingestor.metric("ingestor_db_up") == 1).then_some(()));
    setup.postgres.execute(
        "create function broken() returns trigger language plpgsql as $$
             begin raise 'not today'; end $$;
         create trigger broken before insert on power for each row execute function broken()",
    );
    let mut publisher = Publisher::connect(setup.broker.port);
    for n in 0..ROWS {
        publisher.publish("plug/a", json!({"t": EPOCH + n, "watts": n}).to_string());
        publisher.publish_readings(n..n + 1);
    }
    setup.postgres.await_exactly(&readings(0..ROWS));
    eventually("the log says what refuses", || {
        let lines = ingestor.log_of("the database does not take rows: it refuses them");
        lines.iter().any(|line| line.to_string().contains("not today")).then_some(())
    });
    setup.postgres.execute("drop trigger broken on power");
    eventually_eq("nothing waits", &0, || ingestor.metric(PENDING));
    let letters = ingestor.metric(LETTERS);
    assert!(letters <= 100, "{letters} letters");
    assert_eq!(setup.postgres.value("select count(*) from power"), (ROWS - letters).cast_signed());
    let replayed = ingestor.admin("POST", "/admin/dead-letters/replay", TOKEN).json();
    assert_eq!(replayed, json!({"replayed": letters, "still_bad": 0}));
    await_settled(&mut ingestor, ROWS * 2);
    assert_eq!(setup.postgres.value("select count(*) from power"), ROWS.cast_signed());
}

#[test]
fn rows_of_mappings_go_into_a_table_that_is_partitioned_and_find_their_partitions() {
    let setup = Setup::with(CLIMATE);
    setup.postgres.execute(PARTITIONED);
    let mut ingestor = setup.start();
    let now = chrono::Utc::now().timestamp();
    for (number, t) in (1..).zip([0, EPOCH.cast_signed(), now, now]) {
        let field = if number % 2 == 0 { "co2" } else { "temperature" };
        if t > 0 {
            setup.publish("climate/a", &json!({"t": t, field: number}));
        }
    }
    await_settled(&mut ingestor, 3);
    let filled = "select count(*) from telemetry where (co2, temperature) = (4, 3)";
    assert_eq!((setup.postgres.count(), setup.postgres.value(filled)), (2, 1));
    assert_eq!(books(&ingestor).0, 2);
    assert_eq!(ingestor.metric(LETTERS), 0);
}

#[test]
fn rows_that_a_trigger_swallows_are_found_to_be_missing() {
    let setup = Setup::with(POWER);
    let mut ingestor = setup.start();
    eventually("the schema is there", || (ingestor.metric("ingestor_db_up") == 1).then_some(()));
    setup.postgres.execute(
        "create function swallow() returns trigger language plpgsql as $$
             begin return case when new.watts = 13 then null else new end; end $$;
         create trigger swallow before insert on power for each row execute function swallow()",
    );
    let mut publisher = Publisher::connect(setup.broker.port);
    for n in 0..50 {
        publisher.publish("plug/a", json!({"t": EPOCH + n, "watts": n}).to_string());
    }
    publisher.finish();
    await_settled(&mut ingestor, 50);
    assert_eq!(setup.postgres.value("select count(*) from power"), 49);
    let letters = setup.service.dead_letters();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(letters[0].payload_text().contains(r#""watts":13"#), "{letters:?}");
}

#[test]
fn a_value_that_a_trigger_keeps_out_of_a_row_that_is_there_is_a_letter() {
    let setup = Setup::with(POWER);
    let mut ingestor = setup.start();
    setup.publish("plug/a", &json!({"t": EPOCH, "watts": 1}));
    setup.publish("plug/b", &json!({"t": EPOCH, "watts": 1}));
    await_settled(&mut ingestor, 2);
    setup.postgres.execute(
        "create function keep() returns trigger language plpgsql as $$
             begin return case when new.device_id = 'a' then null else new end; end $$;
         create trigger keep before update on power for each row execute function keep()",
    );
    assert_eq!(ingestor.admin("POST", "/admin/flusher/pause", TOKEN).status, 200);
    let mut publisher = Publisher::connect(setup.broker.port);
    for device in ["a", "b"] {
        // The second gives the first of its batch a value.
        for field in ["energy", "model"] {
            let payload = json!({"t": EPOCH, field: 7}).to_string();
            publisher.publish(&format!("plug/{device}"), payload);
        }
    }
    publisher.finish();
    ingestor.await_metric("ingestor_acks_total", 6);
    assert_eq!(ingestor.admin("POST", "/admin/flusher/resume", TOKEN).status, 200);
    await_settled(&mut ingestor, 6);
    assert_eq!(setup.rows("power", WIDE), ["a 0 1 - - - -", "b 0 1 7 - 7 -"]);
    let letters = setup.service.dead_letters();
    let mut letters: Vec<_> = letters.iter().map(DeadLetter::payload_text).collect();
    letters.sort();
    let [first, second] = letters.as_slice() else { panic!("{letters:?}") };
    assert!(first.contains(r#""energy":7"#) && second.contains(r#""model":"7""#), "{letters:?}");
    assert_eq!(books(&ingestor), (2, 0, 2));
}

#[test]
fn a_table_that_swallows_row_after_row_keeps_most_in_the_log_though_others_take_theirs() {
    const ROWS: u64 = 300;
    let setup = Setup::with(POWER);
    let mut ingestor = setup.start();
    eventually("the schema is there", || (ingestor.metric("ingestor_db_up") == 1).then_some(()));
    setup.postgres.execute(
        "create function swallow() returns trigger language plpgsql as $$ begin return null; end $$;
         create trigger swallow before insert on power for each row execute function swallow()",
    );
    let mut publisher = Publisher::connect(setup.broker.port);
    for n in 0..ROWS {
        publisher.publish("plug/a", json!({"t": EPOCH + n, "watts": n}).to_string());
        publisher.publish_readings(n..n + 1);
    }
    setup.postgres.await_exactly(&readings(0..ROWS));
    eventually_eq("the database is down", &json!("down"), || ingestor.health()["database"].clone());
    setup.postgres.execute("drop trigger swallow on power");
    eventually_eq("nothing waits", &0, || ingestor.metric(PENDING));
    let letters = ingestor.metric(LETTERS);
    assert!(letters <= 100, "{letters} letters");
    let replayed = ingestor.admin("POST", "/admin/dead-letters/replay", TOKEN).json();
    assert_eq!(replayed, json!({"replayed": letters, "still_bad": 0}));
    await_settled(&mut ingestor, ROWS * 2);
    assert_eq!(setup.postgres.value("select count(*) from power"), ROWS.cast_signed());
}

#[test]
fn one_value_a_message_fills_rows_over_many_connections_and_kills_and_loses_nothing() {
    const ROWS: u64 = 400;
    let setup = Setup::with(&[POWER, CLIMATE].concat());
    let service = setup.service.clone().set("FLUSH_CONNECTIONS", 4).set("BATCH_SIZE", 60);
    let mut ingestor = service.start();
    ingestor.await_ready();
    eventually("the schema is there", || (ingestor.metric("ingestor_db_up") == 1).then_some(()));
    let mut messages = Vec::new();
    for n in 0..ROWS {
        let device = n % 7;
        for (topic, field) in
            [("plug", "watts"), ("plug", "energy"), ("climate", "temperature"), ("climate", "co2")]
        {
            let payload = json!({"t": EPOCH + n, field: n}).to_string();
            messages.push((format!("{topic}/d{device}"), payload));
        }
    }
    let mut random = random();
    random.shuffle(&mut messages);
    let mut publisher = Publisher::connect(setup.broker.port);
    for part in messages.chunks(messages.len() / 4) {
        for (topic, payload) in part {
            publisher.publish(topic, payload.clone());
        }
        publisher.finish();
        ingestor.await_metric("ingestor_acks_total", 50);
        ingestor.kill();
        ingestor = service.start();
    }
    eventually("all rows are full", || {
        let power =
            setup.postgres.value("select count(*) from power where (watts, energy) is not null");
        let telemetry = "select count(*) from telemetry where (temperature, co2) is not null";
        ((power, setup.postgres.value(telemetry)) == (400, 400)).then_some(())
    });
    let wrong = "select count(*) from power where watts <> energy
        or watts <> extract(epoch from ts) - 1759667696";
    assert_eq!(setup.postgres.value(wrong), 0);
    assert_eq!(setup.postgres.count(), 400);
    eventually_eq("nothing waits", &0, || ingestor.metric(PENDING));
    assert_eq!(ingestor.metric(LETTERS), 0);
    assert!(!setup.postgres.log_text().contains("deadlock"));
}
