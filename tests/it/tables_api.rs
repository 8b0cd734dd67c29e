//! Tables and columns as the API shows them.

use serde_json::{Value, json};

use crate::harness::{Ingestor, Mosquitto, Postgres, Service, eventually};

struct Api {
    postgres: Postgres,
    ingestor: Ingestor,
    _broker: Mosquitto,
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
        Self { postgres, ingestor, _broker: broker, _service: service }
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
        r#"{{"data":[{a}],"total":1,"total_exact":true,"limit":100,"offset":0,"next_cursor":null}}"#
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
