//! Rows of mappings on their way into their tables: made, filled up, sent again, refused.

use serde_json::json;

use crate::harness::{
    Ingestor, Mosquitto, Postgres, Publisher, Service, eventually, eventually_eq,
};

mod backlog;
mod corrected;
mod faults;

const TOKEN: &str = "correct horse battery staple";
const PENDING: &str = "ingestor_wal_pending_records";

/// Unix seconds of the first message.
const EPOCH: u64 = 1_759_667_696;

const POWER: &str = r#"
[[default.mapping]]
name   = "plug"
topic  = "plug/{device}"
device = "{device}"
time   = { path = "t", format = "s" }
table  = "power"
extra  = { path = "more" }
[default.mapping.fields]
watts  = {}
energy = { type = "int" }
on     = { type = "bool" }
model  = { type = "text" }
"#;

/// Into the table of the built-in shape.
const CLIMATE: &str = r#"
[[default.mapping]]
name   = "climate"
topic  = "climate/{device}"
device = "{device}"
time   = { path = "t", format = "s" }
fields = ["temperature", "co2"]
"#;

/// Words of SQL.
const WORDS: &str = r#"
[[default.mapping]]
name   = "words"
topic  = "words/{device}"
device = "{device}"
time   = { path = "t", format = "s" }
table  = "order"
[default.mapping.fields]
user   = {}
select = { type = "int" }
group  = { type = "bool" }
excluded = {}
"#;

struct Setup {
    postgres: Postgres,
    broker: Mosquitto,
    service: Service,
}

impl Setup {
    fn with(mappings: &str) -> Self {
        Self::of(mappings, Postgres::url)
    }

    fn of(mappings: &str, url: impl Fn(&Postgres) -> String) -> Self {
        let (postgres, broker) = (Postgres::start(), Mosquitto::start());
        let service = Service::new(&url(&postgres), broker.port).set("ADMIN_TOKEN", TOKEN);
        let setup = Self { postgres, broker, service };
        setup.configure(mappings);
        setup
    }

    /// For whatever starts from now on.
    fn configure(&self, mappings: &str) {
        std::fs::write(self.service.dir().join("Rocket.toml"), mappings).unwrap();
    }

    #[track_caller]
    fn start(&self) -> Ingestor {
        let mut ingestor = self.service.start();
        ingestor.await_ready();
        ingestor
    }

    #[track_caller]
    fn publish(&self, topic: &str, payload: &serde_json::Value) {
        Publisher::connect(self.broker.port).publish_one(topic, payload.to_string());
    }

    /// Rows, their columns joined.
    #[track_caller]
    fn rows(&self, table: &str, columns: &str) -> Vec<String> {
        self.postgres.session().texts(&format!(
            "select concat_ws(' ', device_id, extract(epoch from ts)::bigint - {EPOCH}, {columns}) \
             from {table} order by device_id, ts"
        ))
    }

    /// Columns as `name type[ not null]`.
    #[track_caller]
    fn columns(&self, table: &str) -> Vec<String> {
        self.postgres.session().texts(&format!(
            "select concat_ws(' ', attname, format_type(atttypid, atttypmod),
                 case when attnotnull then 'not null' end)
             from pg_attribute
             where attrelid = '{table}'::regclass and attnum > 0 and not attisdropped
             order by attnum"
        ))
    }
}

/// Waits until all that was sent is stored, or a letter.
#[track_caller]
fn await_settled(ingestor: &mut Ingestor, messages: u64) {
    ingestor.await_metric("ingestor_acks_total", messages);
    eventually_eq("nothing waits", &0, || ingestor.metric(PENDING));
}

/// Inserted, there already, and filled up.
fn books(ingestor: &Ingestor) -> (u64, u64, u64) {
    let metrics = ingestor.metrics();
    let of = |name: &str| metrics.get(&format!("ingestor_{name}_total"));
    (of("db_inserts"), of("duplicates"), of("merged"))
}

const WIDE: &str = "coalesce(watts::text, '-'), coalesce(energy::text, '-'), \
    coalesce(\"on\"::text, '-'), coalesce(model, '-'), coalesce(extra::text, '-')";

#[test]
fn rows_lie_in_their_tables_beside_readings_of_the_built_in_shape() {
    let setup = Setup::with(&[POWER, CLIMATE, WORDS].concat());
    let mut ingestor = setup.start();
    let mut publisher = Publisher::connect(setup.broker.port);
    publisher.publish_readings(0..50);
    let messages = [
        ("plug/a", json!({"t": EPOCH, "watts": 1.5, "energy": 7, "on": true, "model": "x\"y"})),
        ("plug/b", json!({"t": EPOCH, "watts": -2, "more": {"rssi": -70, "fw": "1.2"}})),
        ("climate/a", json!({"t": EPOCH, "temperature": 21.5, "co2": 800})),
        ("climate/b", json!({"t": EPOCH, "co2": 900})),
        ("words/a", json!({"t": EPOCH, "user": 1, "select": 2, "group": "on", "excluded": 4})),
    ];
    for (topic, payload) in &messages {
        publisher.publish(topic, payload.to_string());
    }
    publisher.finish();
    await_settled(&mut ingestor, 55);
    let expected = ["a 0 1.5 7 true x\"y -", r#"b 0 -2 - - - {"fw": "1.2", "rssi": -70}"#];
    assert_eq!(setup.rows("power", WIDE), expected);
    assert_eq!(
        setup.rows("\"order\"", "\"user\", \"select\", \"group\", excluded"),
        ["a 0 1 2 t 4"]
    );
    let climate = "telemetry where device_id in ('a', 'b')";
    assert_eq!(setup.rows(climate, "temperature, humidity, co2"), ["a 0 21.5 800", "b 0 900"]);
    assert_eq!(setup.postgres.count(), 52);
    assert_eq!(books(&ingestor), (55, 0, 0));
    for (mapping, stored) in [("plug", 2), ("climate", 2), ("words", 1)] {
        let name = format!(r#"ingestor_mapping_total{{mapping="{mapping}",outcome="stored"}}"#);
        assert_eq!(ingestor.metric(&name), stored, "{mapping}");
    }
    ingestor.stop();
}

#[test]
fn what_no_mapping_takes_and_is_not_kept_is_counted_and_shown() {
    let setup = Setup::with(&format!("[default]\nunmatched = \"drop\"\n{POWER}"));
    let mut ingestor = setup.start();
    let dropped = r#"ingestor_mapping_total{mapping="-",outcome="ignored"}"#;
    assert_eq!(ingestor.metric(dropped), 0);
    for _ in 0..3 {
        setup.publish("plug/a", &json!({"t": EPOCH, "volts": 1}));
    }
    setup.publish("plug/a", &json!({"t": EPOCH, "watts": 1}));
    await_settled(&mut ingestor, 4);
    assert_eq!(ingestor.metric(dropped), 3);
    assert_eq!(ingestor.metric("ingestor_dead_letters"), 0);
    assert_eq!(ingestor.metric("ingestor_invalid_messages_total"), 0);
    let status = ingestor.get("/api/v1/status").json();
    let unmapped = &status["unmapped_topics"][0];
    assert_eq!((&unmapped["topic"], &unmapped["messages"]), (&json!("plug/a"), &json!(3)));
}

#[test]
fn a_table_is_made_with_key_and_indexes_and_the_built_in_one_gets_columns_and_may_hold_null() {
    let setup = Setup::with(&[POWER, CLIMATE].concat());
    let ingestor = setup.start();
    eventually("the schema is there", || (ingestor.metric("ingestor_db_up") == 1).then_some(()));
    let expected = [
        "device_id text not null",
        "ts timestamp with time zone not null",
        "energy bigint",
        "extra jsonb",
        "model text",
        "on boolean",
        "watts double precision",
        "created_at timestamp with time zone not null",
    ];
    assert_eq!(setup.columns("power"), expected);
    let indexes = setup.postgres.session().texts(
        "select regexp_replace(pg_get_indexdef(indexrelid), ' INDEX .*USING', '')
         from pg_index where indrelid = 'power'::regclass order by 1",
    );
    assert_eq!(
        indexes,
        ["CREATE UNIQUE btree (device_id, ts)", "CREATE brin (created_at)", "CREATE btree (ts)"]
    );
    // Nothing can be said of the three by a mapping that has them all optional, or not at all.
    let expected = [
        "device_id text not null",
        "ts timestamp with time zone not null",
        "temperature double precision",
        "humidity double precision",
        "battery double precision",
        "created_at timestamp with time zone not null",
        "co2 double precision",
    ];
    assert_eq!(setup.columns("telemetry"), expected);
}

#[test]
fn a_mapping_into_another_table_leaves_the_built_in_one_as_it_is() {
    let setup = Setup::with(POWER);
    let ingestor = setup.start();
    eventually("the schema is there", || (ingestor.metric("ingestor_db_up") == 1).then_some(()));
    let expected = [
        "device_id text not null",
        "ts timestamp with time zone not null",
        "temperature double precision not null",
        "humidity double precision not null",
        "battery double precision not null",
        "created_at timestamp with time zone not null",
    ];
    assert_eq!(setup.columns("telemetry"), expected);
}

#[test]
fn messages_of_one_device_and_time_fill_one_row_in_any_order_and_across_restarts() {
    let setup = Setup::with(&[POWER, CLIMATE].concat());
    let mut ingestor = setup.start();
    let messages = [
        ("plug/a", json!({"t": EPOCH, "watts": 1})),
        ("plug/b", json!({"t": EPOCH, "on": true})),
        ("plug/a", json!({"t": EPOCH, "watts": 2, "on": true})),
        ("plug/b", json!({"t": EPOCH, "watts": 5, "on": false})),
        ("plug/b", json!({"t": EPOCH, "watts": 6})),
        ("climate/c", json!({"t": EPOCH, "co2": 700})),
    ];
    for (number, (topic, payload)) in (1..).zip(&messages) {
        // One after the other, so that each meets the row that is there.
        setup.publish(topic, payload);
        await_settled(&mut ingestor, number);
    }
    assert_eq!(setup.rows("power", WIDE), ["a 0 1 - true - -", "b 0 5 - true - -"]);
    assert_eq!(books(&ingestor), (3, 1, 2));
    ingestor.kill();
    // The same again in one batch, and more, to a process that knows nothing.
    let mut ingestor = setup.start();
    assert_eq!(ingestor.admin("POST", "/admin/flusher/pause", TOKEN).status, 200);
    let mut publisher = Publisher::connect(setup.broker.port);
    let more = [
        ("plug/b", json!({"t": EPOCH, "energy": 3})),
        ("plug/b", json!({"t": EPOCH, "energy": 4, "model": "m"})),
        ("plug/d", json!({"t": EPOCH, "watts": 1})),
        ("plug/d", json!({"t": EPOCH, "watts": 2})),
        ("plug/d", json!({"t": EPOCH, "energy": 2})),
        (
            "telemetry/c",
            json!({"device_id": "c", "timestamp": EPOCH * 1_000, "temperature": 1, "humidity": 2, "battery": 3}),
        ),
    ];
    for (topic, payload) in messages.iter().chain(&more) {
        publisher.publish(topic, payload.to_string());
    }
    publisher.finish();
    ingestor.await_metric("ingestor_acks_total", 12);
    assert_eq!(ingestor.admin("POST", "/admin/flusher/resume", TOKEN).status, 200);
    await_settled(&mut ingestor, 12);
    let expected = ["a 0 1 - true - -", "b 0 5 3 true m -", "d 0 1 2 - - -"];
    assert_eq!(setup.rows("power", WIDE), expected);
    let one = setup.rows("telemetry", "temperature, humidity, battery, co2");
    assert_eq!(one, ["c 0 1 2 3 700"]);
    let (inserts, duplicates, merged) = books(&ingestor);
    assert!(inserts == 1 && merged >= 3, "{inserts} {duplicates} {merged}");
    let metrics = ingestor.metrics();
    let valid = metrics.get("ingestor_valid_messages_total");
    let again = ingestor.await_log_of("log opened")[0]["pending_records"].as_u64().unwrap();
    let resent = metrics.get("ingestor_resent_records_total");
    assert_eq!(inserts + duplicates + merged, valid + again + resent);
}
