//! Tables and columns as the API shows them.

use serde_json::{Value, json};

use crate::harness::{
    Ingestor, Mosquitto, Postgres, Publisher, Service, eventually, eventually_eq,
};

const MAPPINGS: &str = r#"
[[default.mapping]]
name   = "meter"
topic  = "meters/{device}"
device = "{device}"
time   = { path = "at", format = "ms" }
table  = "power"
extra  = { path = "d" }
[default.mapping.fields]
power  = { path = "d.power", unit = "W" }
count  = { path = "d.count", type = "int" }
on     = { path = "d.on", type = "bool" }
label  = { path = "d.label", type = "text" }

[[default.mapping]]
name   = "climate"
topic  = "climate/{device}"
device = "{device}"
time   = { path = "at", format = "ms" }
[default.mapping.fields]
temperature = { unit = "°C" }
pressure    = { unit = "hPa" }
"#;

struct Api {
    postgres: Postgres,
    ingestor: Ingestor,
    broker: Mosquitto,
    _service: Service,
}

impl Api {
    fn start(file: &str, prepare: impl FnOnce(&Postgres)) -> Self {
        let postgres = Postgres::start();
        prepare(&postgres);
        let broker = Mosquitto::start();
        let service = Service::new(&postgres.url(), broker.port);
        let toml = service.dir().join("Mappings.toml");
        std::fs::write(&toml, file).unwrap();
        let service = service.set("ROCKET_CONFIG", toml.display());
        let ingestor = service.start();
        eventually("the table is there", || {
            (ingestor.get("/api/v1/telemetry").status == 200).then_some(())
        });
        Self { postgres, ingestor, broker, _service: service }
    }

    /// With the tables of [`MAPPINGS`].
    fn mapped() -> Self {
        let api = Self::start(MAPPINGS, |_| ());
        eventually("the table of the mapping is there", || {
            (api.ingestor.get("/api/v1/telemetry?table=power").status == 200).then_some(())
        });
        api
    }

    /// Publishes `messages` and waits until so many rows of `table` can be read.
    fn store(&self, messages: &[(&str, Value)], table: &str, rows: i64) {
        let mut publisher = Publisher::connect(self.broker.port);
        for (topic, message) in messages {
            publisher.publish(topic, message.to_string());
        }
        publisher.finish();
        // The service answers with them before that.
        let stored = format!("select count(*) from {table}");
        eventually_eq("the rows are in the table", &rows, || self.postgres.value(&stored));
        eventually_eq("nothing waits", &0, || self.ingestor.metric("ingestor_wal_pending_records"));
    }

    #[track_caller]
    fn text(&self, path: &str) -> String {
        let answer = self.ingestor.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body
    }

    #[track_caller]
    fn data(&self, path: &str) -> Value {
        let body: Value = serde_json::from_str(&self.text(path)).unwrap();
        body["data"].clone()
    }

    /// The sentence of a 400.
    #[track_caller]
    fn refusal(&self, path: &str) -> String {
        let answer = self.ingestor.get(path);
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        answer.error()
    }
}

#[test]
fn without_a_mapping_there_is_one_table_whose_fields_can_be_chosen_and_whose_answer_is_as_ever() {
    let api = Api::start("", |_| ());
    api.postgres.execute(
        "insert into telemetry (device_id, ts, temperature, humidity, battery)
         values ('a', '2025-10-05T12:34:56Z', 21, 1e300, 'NaN'), ('b', '2025-10-05T12:34:57Z', 0.1, 2, 3);
         insert into telemetry_devices values ('a'), ('b');
         alter table telemetry add column site text default 'north'",
    );
    let a = r#"{"device_id":"a","timestamp":"2025-10-05T12:34:56Z","temperature":21.0,"humidity":1e+300,"battery":null}"#;
    let of_a = format!(
        r#"{{"data":[{a}],"total":1,"total_exact":true,"limit":100,"offset":0,"next_cursor":null,"partial":false}}"#
    );
    assert_eq!(api.text("/api/v1/telemetry?device_id=a"), of_a);
    assert_eq!(api.text("/api/v1/telemetry?device_id=a&table=telemetry"), of_a);
    // The same by the other way of reading.
    let fields = "temperature,humidity,battery";
    assert_eq!(api.text(&format!("/api/v1/telemetry?device_id=a&fields={fields}")), of_a);
    let both = json!([
        {"device_id": "b", "timestamp": "2025-10-05T12:34:57Z", "site": "north", "temperature": 0.1},
        {"device_id": "a", "timestamp": "2025-10-05T12:34:56Z", "site": "north", "temperature": 21.0},
    ]);
    assert_eq!(api.data("/api/v1/telemetry?fields=site,temperature"), both);
    let page = api.text("/api/v1/telemetry?fields=battery&limit=1");
    let next = serde_json::from_str::<Value>(&page).unwrap()["next_cursor"].clone();
    let path = format!("/api/v1/telemetry?fields=battery&cursor={}", next.as_str().unwrap());
    assert_eq!(
        api.data(&path),
        json!([{"device_id": "a", "timestamp": "2025-10-05T12:34:56Z", "battery": null}])
    );
    let devices = json!([
        {"device_id": "a", "last_seen": "2025-10-05T12:34:56Z", "humidity": 1e300},
        {"device_id": "b", "last_seen": "2025-10-05T12:34:57Z", "humidity": 2.0},
    ]);
    assert_eq!(api.data("/api/v1/devices?fields=humidity"), devices);
    assert_eq!(
        api.data("/api/v1/tables"),
        json!([{"name": "telemetry", "mappings": [], "columns": [
            {"name": "temperature", "type": "float", "unit": "°C", "mappings": []},
            {"name": "humidity", "type": "float", "unit": "%", "mappings": []},
            {"name": "battery", "type": "float", "unit": "%", "mappings": []},
        ]}])
    );
}

#[test]
fn a_table_or_a_field_that_there_is_not_is_a_400_that_says_which_there_are() {
    let api = Api::start("", |_| ());
    for route in ["telemetry", "devices"] {
        let refusal = |query: &str| api.refusal(&format!("/api/v1/{route}?{query}"));
        for table in
            ["", "power", "telemetry_devices", "pg_class", "TELEMETRY", "telemetry;", "a%00b"]
        {
            let said = refusal(&format!("table={table}"));
            assert_eq!(
                said, "`table` must be a table of the configuration: `telemetry`",
                "{table}"
            );
        }
        for fields in [
            "",
            "pressure",
            "temperature,",
            ",",
            "device_id",
            "ts",
            "created_at",
            "Temperature",
            "x%22y",
            "%C3%BC",
            "a%00b",
        ] {
            let said = refusal(&format!("fields={fields}"));
            assert!(said.starts_with("`fields` names `"), "{fields}: {said}");
            assert!(said.ends_with("there are `temperature`, `humidity`, `battery`"), "{said}");
        }
        assert_eq!(refusal("fields=battery,battery"), "`fields` names `battery` twice");
        assert_eq!(refusal("table=telemetry&table=telemetry"), "`table` must not be repeated");
    }
    assert!(api.refusal("/api/v1/tables?table=telemetry").contains("this route takes none"));
}

/// 2025-10-05T12:34:56Z
const AT: u64 = 1_759_667_696_000;

#[test]
fn rows_of_a_mapping_are_answered_in_the_json_types_of_their_columns() {
    let api = Api::mapped();
    let full = json!({"at": AT, "d": {
        "power": 21, "count": 42, "on": "ON", "label": "Küche \"1\"", "left": {"a": 1.5, "b": [true]},
    }});
    let sparse = json!({"at": AT + 1_000, "d": {"power": 0.1}});
    api.store(&[("meters/m1", full), ("meters/m2", sparse)], "power", 2);
    let m1 = json!({
        "device_id": "m1", "timestamp": "2025-10-05T12:34:56Z", "power": 21.0, "count": 42, "on": true,
        "label": "Küche \"1\"", "extra": {"left_a": 1.5, "left_b_0": true},
    });
    let m2 = json!({
        "device_id": "m2", "timestamp": "2025-10-05T12:34:57Z", "power": 0.1, "count": null, "on": null,
        "label": null, "extra": null,
    });
    assert_eq!(api.data("/api/v1/telemetry?table=power"), json!([m2, m1]));
    assert_eq!(api.data("/api/v1/telemetry?table=power&device_id=m1"), json!([m1]));
    assert_eq!(
        api.data("/api/v1/telemetry?table=power&fields=on,power&limit=1&offset=1"),
        json!([{"device_id": "m1", "timestamp": "2025-10-05T12:34:56Z", "on": true, "power": 21.0}])
    );
    assert_eq!(
        api.data("/api/v1/devices?table=power&fields=count&newest_first=true"),
        json!([
            {"device_id": "m2", "last_seen": "2025-10-05T12:34:57Z", "count": null},
            {"device_id": "m1", "last_seen": "2025-10-05T12:34:56Z", "count": 42},
        ])
    );
    assert_eq!(
        api.data("/api/v1/devices?table=power&fields=on&name_contains=M2")[0]["device_id"],
        "m2"
    );
    assert_eq!(api.data("/api/v1/devices"), json!([]), "those of telemetry are others");
    assert!(
        api.refusal("/api/v1/telemetry?table=power&fields=humidity")
            .contains("`power` does not have")
    );
}

#[test]
fn a_mapping_into_the_built_in_table_adds_its_columns_to_every_answer() {
    let api = Api::mapped();
    let message = json!({"at": AT, "temperature": 21.5, "pressure": 1_003});
    let reading =
        json!({"device_id": "b", "timestamp": AT, "temperature": 1, "humidity": 2, "battery": 3});
    api.store(&[("climate/a", message), ("telemetry/b", reading)], "telemetry", 2);
    assert_eq!(
        api.data("/api/v1/devices"),
        json!([
            {"device_id": "a", "last_seen": "2025-10-05T12:34:56Z", "temperature": 21.5, "humidity": null,
             "battery": null, "pressure": 1_003.0},
            {"device_id": "b", "last_seen": "2025-10-05T12:34:56Z", "temperature": 1.0, "humidity": 2.0,
             "battery": 3.0, "pressure": null},
        ])
    );
    let tables = api.data("/api/v1/tables");
    let names: Vec<_> = tables.as_array().unwrap().iter().map(|table| &table["name"]).collect();
    assert_eq!(names, ["telemetry", "power"]);
    assert_eq!(tables[0]["mappings"], json!(["climate"]));
    assert_eq!(
        tables[0]["columns"][3],
        json!({"name": "pressure", "type": "float", "unit": "hPa", "mappings": ["climate"]})
    );
    let document = api.ingestor.get("/api/v1/openapi.json").json();
    let described = &document["components"]["schemas"]["Reading.power"]["properties"]["count"];
    assert_eq!(described["type"], json!(["integer", "null"]));
}

#[test]
fn pages_of_a_mapped_table_have_every_row_once_and_reach_back_as_far_as_it_does() {
    let api = Api::mapped();
    api.postgres.execute(
        "insert into power (device_id, ts, power)
         select 'd' || n % 7, now() - n * interval '9 days', n from generate_series(1, 250) as n",
    );
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/v1/telemetry?table=power&fields=power&limit=60{cursor}");
        let page: Value = serde_json::from_str(&api.text(&path)).unwrap();
        assert_eq!(page["total"], 250);
        seen.extend(
            page["data"].as_array().unwrap().iter().map(|row| row["power"].as_f64().unwrap()),
        );
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let expected: Vec<f64> = (1..=250).map(f64::from).collect();
    assert_eq!(seen, expected);
    let devices =
        api.ingestor.get("/api/v1/devices?table=power&fields=power&limit=3&offset=5").json();
    assert_eq!(devices["total"], 7);
    let names: Vec<_> = devices["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (&row["device_id"], &row["power"]))
        .collect();
    assert_eq!(names, [(&json!("d5"), &json!(5.0)), (&json!("d6"), &json!(6.0))]);
}

#[test]
fn whatever_somebody_does_to_the_columns_of_a_mapped_table_it_is_answered() {
    let api = Api::mapped();
    let full = json!({"at": AT, "d": {"power": 21, "count": 42, "on": true, "label": "x"}});
    api.store(&[("meters/m1", full)], "power", 1);
    api.postgres.execute(
        "alter table power alter column power type text using 'warm';
         alter table power alter column count type numeric(30, 2);
         alter table power alter column \"on\" type jsonb using '{\"a\": [1]}';
         alter table power drop column label;
         alter table power add column old real default 0.5, add column \"Other\" bytea",
    );
    for route in ["telemetry", "devices"] {
        let row = api.data(&format!("/api/v1/{route}?table=power"))[0].clone();
        let values = ["power", "count", "on", "label"].map(|name| row[name].clone());
        assert_eq!(values, [json!("warm"), json!(42.0), json!({"a": [1]}), Value::Null], "{row}");
    }
    // The column of a field that the file does not name any more.
    assert_eq!(api.data("/api/v1/telemetry?table=power&fields=old")[0]["old"], 0.5);
    assert!(api.refusal("/api/v1/telemetry?table=power&fields=Other").contains("`Other`"));
    assert!(api.ingestor.log_of("a request failed").is_empty());
}
