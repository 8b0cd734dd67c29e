use super::*;
use crate::base::time::Timestamp;

fn outcomes(payload: &[u8]) -> Vec<Result<Reading, Reason>> {
    let mut all = Vec::new();
    decode(payload, |_, outcome| all.push(outcome.map_err(|rejection| rejection.reason)));
    all
}

fn reason(payload: &str) -> Reason {
    match outcomes(payload.as_bytes()).as_slice() {
        [Err(reason)] => *reason,
        other => panic!("expected one rejection of {payload}, got {other:?}"),
    }
}

fn with(field: &str, value: &str) -> String {
    let fields = [
        ("device_id", "\"a\""),
        ("timestamp", "1759667696000"),
        ("temperature", "23.5"),
        ("humidity", "65.2"),
        ("battery", "87.3"),
    ];
    let body: Vec<_> = fields
        .iter()
        .map(|(name, good)| format!("\"{name}\":{}", if *name == field { value } else { good }))
        .collect();
    format!("{{{}}}", body.join(","))
}

#[test]
fn the_contracts_example_is_read() {
    let payload = br#"{"device_id":"sensor-001","timestamp":"2025-10-05T12:34:56Z","temperature":23.5,"humidity":65.2,"battery":87.3}"#;
    let expected = Reading {
        device_id: "sensor-001".to_owned(),
        timestamp: Timestamp::from_millis(1_759_667_696_000).unwrap(),
        values: [23.5, 65.2, 87.3],
    };
    assert_eq!(outcomes(payload), [Ok(expected)]);
}

#[test]
fn integer_milliseconds_and_integer_values_are_read() {
    let reading = outcomes(with("temperature", "-3").as_bytes()).remove(0).unwrap();
    assert_eq!(reading.values[0].to_bits(), (-3.0_f64).to_bits());
    assert_eq!(reading.timestamp.to_string(), "2025-10-05T12:34:56Z");
}

#[test]
fn numbers_become_the_nearest_double_to_the_last_digit() {
    for text in ["31.245270191439438", "0.1", "51.24817837550540_4", "9007199254740993"] {
        let text = text.replace('_', "");
        let reading = outcomes(with("humidity", &text).as_bytes()).remove(0).unwrap();
        assert_eq!(reading.values[1].to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text}");
    }
}

#[test]
fn unknown_fields_of_any_depth_are_ignored() {
    let deep = format!("{}1{}", "[".repeat(60_000), "]".repeat(60_000));
    let payload = with("battery", &format!("1,\"extra\":{deep},\"huge\":1e999"));
    assert!(outcomes(payload.as_bytes())[0].is_ok());
}

#[test]
fn each_way_to_be_wrong_has_its_own_reason() {
    assert_eq!(reason(""), Reason::InvalidJson);
    assert_eq!(reason("{"), Reason::InvalidJson);
    assert_eq!(reason("{} {}"), Reason::InvalidJson);
    assert_eq!(reason("[{},"), Reason::InvalidJson);
    assert_eq!(reason(&with("battery", "NaN")), Reason::InvalidJson);
    assert_eq!(reason("[]"), Reason::EmptyArray);
    assert_eq!(reason("null"), Reason::NotAnObject);
    assert_eq!(reason("17"), Reason::NotAnObject);
    assert_eq!(reason("\"text\""), Reason::NotAnObject);
    assert_eq!(reason("[[]]"), Reason::NotAnObject);
    assert_eq!(reason("{}"), Reason::MissingField);
    assert_eq!(reason(&with("battery", "1,\"battery\":1")), Reason::DuplicateField);
    assert_eq!(reason(&with("battery", "\"87\"")), Reason::WrongType);
    assert_eq!(reason(&with("battery", "null")), Reason::WrongType);
    assert_eq!(reason(&with("battery", "[1]")), Reason::WrongType);
    assert_eq!(reason(&with("device_id", "7")), Reason::WrongType);
    assert_eq!(reason(&with("timestamp", "1759667696000.5")), Reason::WrongType);
    assert_eq!(reason(&with("timestamp", "\"yesterday\"")), Reason::InvalidTimestamp);
    assert_eq!(reason(&with("timestamp", "18446744073709551615")), Reason::InvalidTimestamp);
    assert_eq!(reason(&with("battery", "1e999")), Reason::NumberOutOfRange);
    assert_eq!(outcomes(b"\xff{}"), [Err(Reason::NotUtf8)]);
}

#[test]
fn in_an_array_each_element_stands_alone() {
    let payload = format!(" [{}, 7, {}, {{}}]", with("", ""), with("battery", "1e999"));
    let all = outcomes(payload.as_bytes());
    assert!(all[0].is_ok());
    assert_eq!(all[1], Err(Reason::NotAnObject));
    assert_eq!(all[2], Err(Reason::NumberOutOfRange));
    assert_eq!(all[3], Err(Reason::MissingField));
}

#[test]
fn a_rejected_element_is_handed_on_as_it_stood_in_the_text() {
    let mut raw = Vec::new();
    decode(b"[ {\"device_id\" : 1} , 2 ]", |bytes, _| raw.push(bytes));
    assert_eq!(raw, [b"{\"device_id\" : 1}".as_slice(), b"2"]);
}
