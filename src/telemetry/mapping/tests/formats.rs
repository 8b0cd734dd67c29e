//! Messages that are not JSON.

use std::io::Write as _;

use serde_json::{Value, json};

use super::{compiled, decide};
use crate::telemetry::mapping::{Fate, Mappings};
use crate::telemetry::rejection::Reason;

/// A mapping of `format`, whose device is `d`, with a time `t` in seconds.
fn mapping(format: &str, more: &str) -> Mappings {
    let toml = format!(
        "[[default.mapping]]\nname = \"m\"\ntopic = \"a/{{x}}\"\nformat = \"{format}\"\ndevice = \"d\"\n\
         time = {{ path = \"t\", format = \"s\" }}\n{more}"
    );
    compiled(&toml).unwrap()
}

fn senml(more: &str) -> Mappings {
    let toml = format!(
        "[[default.mapping]]\nname = \"m\"\ntopic = \"a/{{x}}\"\nformat = \"senml\"\n{more}"
    );
    compiled(&toml).unwrap()
}

/// What becomes of a message: index, device, time and values of each row, or the reason and the sentence.
fn told(mappings: &Mappings, payload: &[u8]) -> Vec<(Option<usize>, Value)> {
    let (fate, outcomes) = decide(mappings, "a/x", payload);
    let told = |outcome: Result<_, _>| match outcome {
        Ok(super::Mapped { reading, .. }) => {
            let mut row = json!(reading);
            row.as_object_mut().unwrap().remove("table");
            row
        }
        Err(super::Rejection { reason, message }) => json!([reason.as_str(), message]),
    };
    match fate {
        Fate::Taken(_) => outcomes.into_iter().map(|(at, outcome)| (at, told(outcome))).collect(),
        Fate::Unreadable(_, rejection) => vec![(None, told(Err(rejection)))],
        Fate::Unmatched(refusals) => vec![(None, told(Err(mappings.explain(&refusals, None))))],
        fate => vec![(None, json!(format!("{fate:?}")))],
    }
}

fn rows(mappings: &Mappings, payload: &[u8]) -> Vec<Value> {
    told(mappings, payload).into_iter().map(|(_, told)| told).collect()
}

fn reason(mappings: &Mappings, payload: &[u8]) -> String {
    match rows(mappings, payload).as_slice() {
        [Value::Array(told)] => {
            format!("{} {}", told[0].as_str().unwrap(), told[1].as_str().unwrap())
        }
        other => panic!("expected one fault, got {other:?}"),
    }
}

const AT: &str = "2025-10-05T12:34:56Z";

fn cbor(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

#[test]
fn lines_are_elements_and_a_bad_one_costs_no_neighbour() {
    let mappings = mapping("ndjson", "fields = [\"v\"]");
    let good = |v: f64| json!({"device_id": "d", "timestamp": AT, "v": v});
    let payload = b"\r\n{\"v\":1,\"t\":1759667696}\r\n{\"v\":\n{\"v\":3,\"t\":1759667696} {}\n\xff\n\n{\"v\":5,\"t\":1759667696}";
    let all = told(&mappings, payload);
    let indexes: Vec<_> = all.iter().map(|(at, _)| at.unwrap()).collect();
    assert_eq!(indexes, [0, 1, 2, 3, 4]);
    assert_eq!((&all[0].1, &all[4].1), (&good(1.0), &good(5.0)));
    for (at, reason, place) in
        [(1, "invalid_json", "line 3:"), (2, "invalid_json", "line 4:"), (3, "not_utf8", "line 5:")]
    {
        assert_eq!(all[at].1[0], reason, "{:?}", all[at]);
        assert!(all[at].1[1].as_str().unwrap().contains(place), "{:?}", all[at]);
    }
    assert!(reason(&mappings, b"x\ny").starts_with("invalid_json"), "no line is one");
}

#[test]
fn cells_are_named_by_the_columns_and_quoted_as_by_the_rfc() {
    let more = "columns = [\"t\", \"in.t\", \"\", \"note\"]\ndelimiter = \";\"\n\
                fields = { a = { path = '\"in.t\"' }, note = { type = \"text\" } }";
    let mappings = mapping("csv", more);
    let row = |rest: Value| {
        let mut row = json!({"device_id": "d", "timestamp": AT});
        row.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        row
    };
    let payload = "t;in.t;x;note\r\n\
                   1759667696; 21.5 ;ignored;\" a; \"\"b\"\"\nc \"\r\n\
                   \n\
                   1759667696;;;e\n\
                   1759667696;22\n\
                   1759667696;23;;;\n\
                   1759667696;24;;f;25\n\
                   1759667696;\"\";;\"g";
    let all = told(&mappings, payload.as_bytes());
    assert_eq!(all[0], (Some(1), row(json!({"a": 21.5, "note": " a; \"b\"\nc "}))));
    assert_eq!(all[1], (Some(2), row(json!({"note": "e"}))));
    assert_eq!(all[2], (Some(3), row(json!({"a": 22.0}))));
    assert_eq!(all[3], (Some(4), row(json!({"a": 23.0}))));
    assert!(all[4].1[1].as_str().unwrap().contains("row 6: it has 5 cells"), "{:?}", all[4]);
    assert!(all[5].1[1].as_str().unwrap().contains("row 7: a quote is not closed"), "{:?}", all[5]);
    assert_eq!(all.len(), 6);
    let tabs = mapping("csv", "columns = [\"t\", \"v\"]\ndelimiter = \"\\t\"\nfields = [\"v\"]");
    assert_eq!(rows(&tabs, b"1759667696\t1"), [row(json!({"v": 1.0}))]);
    assert!(
        rows(&tabs, b"1759667696\t1\n\xc3\t\xbc")[1][1].as_str().unwrap().contains("row 2: cell 1")
    );
}

#[test]
fn records_of_senml_stand_on_those_before_them() {
    let mappings = senml(
        "fields = { voltage = {}, current = {}, open = { path = \"door/open\", type = \"bool\" }, \
         label = { type = \"text\" } }",
    );
    // The example of RFC 8428, 5.1.3, with a second device and the other kinds of values.
    let payload = br#"[
        {"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,"bu":"A","bver":5,"n":"voltage","u":"V","v":120.1},
        {"n":"current","t":-5,"v":1.2},
        {"n":"current","t":-4.5,"v":1.3},
        {"n":"unknown","v":9},
        {"bn":"b/","bt":1759667696,"bv":0.5,"n":"current","v":1},
        {"n":"door/open","vb":true},
        {"n":"label","vs":"a\"b"},
        {"n":"label","vs":7},
        {"bt":1759667696,"bn":"c"}
    ]"#;
    let row = |device: &str, at: &str, name: &str, value: Value| json!({"device_id": device, "timestamp": at, name: value});
    let ow = "urn:dev:ow:10e2073a0108006:";
    let all = told(&mappings, payload);
    let expected = [
        (Some(0), row(ow, "2010-06-08T18:01:16.001Z", "voltage", json!(120.1))),
        (Some(1), row(ow, "2010-06-08T18:01:11.001Z", "current", json!(1.2))),
        (Some(2), row(ow, "2010-06-08T18:01:11.501Z", "current", json!(1.3))),
        (Some(4), row("b/", AT, "current", json!(1.5))),
        (Some(5), row("b/", AT, "open", json!(true))),
        (Some(6), row("b/", AT, "label", json!("a\"b"))),
    ];
    assert_eq!(all[..6], expected);
    let what = "mapping \"m\", record 8: vs: expected a string, found 7";
    assert_eq!(all[6..], [(Some(7), json!(["wrong_type", what]))]);
}

#[test]
fn a_time_of_senml_without_a_date_is_relative_to_the_arrival() {
    let mappings = senml("fields = [\"a\"]");
    assert!(mappings.list[0].uses_arrival());
    let times = |payload: &[u8]| -> Vec<(String, bool)> {
        let (_, outcomes) = decide(&mappings, "a/x", payload);
        let time = |(_, outcome): (_, Result<super::Mapped, _>)| {
            let mapped = outcome.unwrap();
            (mapped.reading.timestamp.to_string(), mapped.by_arrival)
        };
        outcomes.into_iter().map(time).collect()
    };
    let relative = times(br#"[{"bn":"d","n":"a","v":1},{"n":"a","v":2,"t":-30.25}]"#);
    let expected = [("2030-01-01T00:00:00Z", true), ("2029-12-31T23:59:29.750Z", true)];
    assert_eq!(relative, expected.map(|(at, is)| (at.to_owned(), is)));
    let absolute = times(br#"[{"bn":"d","n":"a","v":1,"t":1759667696}]"#);
    assert_eq!(absolute, [(AT.to_owned(), false)]);
}

#[test]
fn senml_may_be_cbor_and_be_mapped_otherwise() {
    let mappings = senml(
        "device = \"{x}-{.bn}\"\nfield = \"value_{.u}\"\nvalue = \"s\"\nfields = { total = { path = \"value_J\" } }",
    );
    // {-2: "b", -3: 1759667696, 1: "J", 5: 7.5, 0: "energy"}
    let mut payload = vec![0x81, 0xa5, 0x21, 0x61, b'b', 0x22, 0x1a];
    payload.extend(1_759_667_696_u32.to_be_bytes());
    payload.extend([0x01, 0x61, b'J', 0x05, 0xf9, 0x47, 0x80, 0x00, 0x66]);
    payload.extend(b"energy");
    let row = json!({"device_id": "x-b", "timestamp": AT, "total": 7.5});
    assert_eq!(rows(&mappings, &payload), [row]);
    for (payload, part) in [
        ("{}", "invalid_json"),
        ("[7]", "record 1: it is no object"),
        (r#"[{"bn":7}]"#, "record 1: bn: expected a string"),
        (r#"[{"bver":11,"n":"a"}]"#, "its version is 11"),
        (r#"[{"n":"a","x_":1}]"#, "must be understood"),
        (r#"[{"n":"a","n":"b"}]"#, "duplicate_field"),
        (r#"[{"bn":"d","n":"a","v":1,"vs":"x"}]"#, "more than one value"),
        (r#"[{"bn":"d","n":"a","v":1,"t":1e300}]"#, "invalid_timestamp"),
        (r#"[{"bn":"d","bt":-5e9,"n":"a","v":1}]"#, "invalid_timestamp"),
    ] {
        let found = reason(&mappings, payload.as_bytes());
        assert!(found.contains(part), "{payload}: {found}");
    }
}

#[test]
fn cbor_and_messagepack_are_read_along_the_same_paths_as_json() {
    let more = "extra = { path = \"rest\" }\n\
        fields = { f = { path = \"a.f\" }, i = { type = \"int\", path = \"a.list[1]\" }, b = { type = \"bool\" }, s = { type = \"text\" } }";
    let message = json!({
        "t": 1_759_667_696_u32, "b": true, "s": "ü\"\n", "a": {"f": -21.5, "list": [1, 9_007_199_254_740_992_u64]},
        "rest": {"x": [null, -3], "y": {"z": "w"}}, "skipped": {"deep": [[[]]]},
    });
    let expected = json!({
        "device_id": "d", "timestamp": AT, "b": true, "s": "ü\"\n", "f": -21.5, "i": 9_007_199_254_740_992_u64,
        "extra": {"x_1": -3, "y_z": "w"},
    });
    let encoded = [
        ("json", message.to_string().into_bytes()),
        ("cbor", cbor(&message)),
        ("msgpack", rmp_serde::to_vec(&message).unwrap()),
    ];
    for (format, payload) in encoded {
        let mappings = mapping(format, more);
        assert_eq!(rows(&mappings, &payload), std::slice::from_ref(&expected), "{format}");
        for end in 0..payload.len() {
            let (_, outcomes) = decide(&mappings, "a/x", &payload[..end]);
            assert!(outcomes.iter().all(|(_, outcome)| outcome.is_err()), "{format} up to {end}");
        }
        let trailing = [&payload[..], b"\x01"].concat();
        let (fate, _) = decide(&mappings, "a/x", &trailing);
        let Fate::Unreadable(_, rejection) = fate else { panic!("{format}: {fate:?}") };
        let expected = if format == "json" { Reason::InvalidJson } else { Reason::InvalidFormat };
        assert_eq!(rejection.reason, expected, "{format}");
    }
}

#[test]
fn what_json_does_not_have_becomes_text_or_a_number() {
    let more = "each = \"v.*\"\nfield = \"{key}\"\nfields = { x = { type = \"text\", path = [\"1\", \"-2\", \"true\", \"0aff\", \"k\"] } }"
        .replace("time", "");
    let toml = |format: &str| {
        let mapping = format!(
            "[[default.mapping]]\nname = \"m\"\ntopic = \"a/{{x}}\"\nformat = \"{format}\"\ndevice = \"d\"\n\
             time = {{ path = \"$.t\", format = \"s\" }}\nmissing = [\"nan\"]\n{more}"
        );
        compiled(&mapping).unwrap()
    };
    let row = |x: &str| json!({"device_id": "d", "timestamp": "2025-10-05T12:34:56.500Z", "x": x});
    // {"t": 1(1759667696.5), "v": {1: h'0aff', -2: 2^64 as a bignum, true: 0.1, h'0aff': NaN, "k": 0("2025")}}
    let mut payload = b"\xa2\x61t\xc1\xfb".to_vec();
    payload.extend(1_759_667_696.5_f64.to_be_bytes());
    payload.extend(b"\x61v\xa5\x01\x42\x0a\xff\x21\xc2\x49\x01\0\0\0\0\0\0\0\0\xf5\xfb");
    payload.extend(0.1_f64.to_be_bytes());
    payload.extend(b"\x42\x0a\xff\xf9\x7e\x00\x61k\xc0\x642025");
    let nothing = json!({"device_id": "d", "timestamp": "2025-10-05T12:34:56.500Z"});
    assert_eq!(
        rows(&toml("cbor"), &payload),
        [row("0aff"), row("18446744073709551616"), row("0.1"), nothing.clone(), row("2025")]
    );
    // The same with a timestamp of MessagePack, and an extension.
    let mut payload = b"\x82\xa1t\xd7\xff".to_vec();
    payload.extend(((500_000_000_u64 << 34) + 1_759_667_696).to_be_bytes());
    payload.extend(b"\xa1v\x84\x01\xc4\x02\x0a\xff\xfe\xd4\x05\x2a\xc3\xca\x7f\x80\0\0\xa1k\xcb");
    payload.extend(f64::NAN.to_be_bytes());
    assert_eq!(rows(&toml("msgpack"), &payload), [row("0aff"), row("2a"), row("inf"), nothing]);
}

#[test]
fn binary_that_stands_twice_nests_without_end_or_lies_about_its_length_is_refused() {
    let (cbor, msgpack) =
        (mapping("cbor", "fields = [\"v\"]"), mapping("msgpack", "fields = [\"v\"]"));
    assert!(reason(&cbor, b"\xa2\x61v\x01\x61v\x02").starts_with("duplicate_field"));
    assert!(reason(&msgpack, b"\x82\xa1v\x01\xa1v\x02").starts_with("duplicate_field"));
    for (mappings, payload) in [
        (&cbor, [0x81].repeat(50_000)),
        (&cbor, [0xc6].repeat(50_000)),
        (&cbor, [&b"\xa1\x61v"[..], &[0x9f].repeat(50_000)].concat()),
        (&msgpack, [0x91].repeat(50_000)),
    ] {
        assert!(reason(mappings, &payload).contains("deeper than 128"));
    }
    for payload in [
        &b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff"[..],
        b"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x7b\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\xa1\x80\x01",
        b"\xff",
        b"\xf8\xff",
    ] {
        assert!(reason(&cbor, payload).starts_with("invalid_format"), "{payload:x?}");
    }
    for payload in [
        &b"\xdd\xff\xff\xff\xff"[..],
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\x81\x90\x01",
        b"\xc1",
    ] {
        assert!(reason(&msgpack, payload).starts_with("invalid_format"), "{payload:x?}");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

#[test]
fn a_payload_of_any_format_may_be_compressed() {
    let message = json!({"t": 1_759_667_696, "v": 1.5});
    let json = message.to_string();
    let row = json!({"device_id": "d", "timestamp": AT, "v": 1.5});
    let csv = "columns = [\"t\", \"v\"]\n";
    for (format, more, payload) in [
        ("json", "", json.clone().into_bytes()),
        ("ndjson", "", json.clone().into_bytes()),
        ("csv", csv, b"1759667696,1.5".to_vec()),
        ("cbor", "", cbor(&message)),
        ("msgpack", "", rmp_serde::to_vec(&message).unwrap()),
    ] {
        let mappings = mapping(format, &format!("{more}fields = [\"v\"]"));
        for payload in [gzip(&payload), zstd(&payload)] {
            assert_eq!(rows(&mappings, &payload), std::slice::from_ref(&row), "{format}");
        }
    }
    let mappings = mapping("json", "fields = [\"v\"]");
    for packed in [gzip(json.as_bytes()), zstd(json.as_bytes())] {
        for end in 4..packed.len() {
            let found = reason(&mappings, &packed[..end]);
            assert!(found.starts_with("invalid_format"), "{end}: {found}");
        }
        assert!(reason(&mappings, &[&packed[..], b"x"].concat()).starts_with("invalid_format"));
    }
    let large = vec![b' '; 1_024 * 1_024];
    let padded = [&large[json.len()..], json.as_bytes()].concat();
    assert_eq!(rows(&mappings, &gzip(&padded)), [row]);
    for packed in [gzip, zstd] {
        let found = reason(&mappings, &packed(&vec![b' '; 64 * 1_024 * 1_024]));
        assert!(found.starts_with("payload_too_large") && found.contains("1048576"), "{found}");
    }
}

#[test]
fn what_a_format_does_not_have_is_a_mistake_in_the_file() {
    let mistakes = |lines: &str| {
        let toml = format!(
            "[[default.mapping]]\nname = \"m\"\ntopic = \"a\"\ntime = \"received\"\n{lines}\nfields = [\"v\"]"
        );
        compiled(&toml).err().unwrap_or_default().join("\n")
    };
    for (lines, part) in [
        (
            "format = \"xml\"\ndevice = \"d\"",
            "format: expected json, text, ndjson, csv, senml, cbor or msgpack",
        ),
        ("format = \"csv\"\ndevice = \"d\"", "columns: is missing"),
        ("format = \"csv\"\ndevice = \"d\"\ncolumns = []", "columns: there are none"),
        ("format = \"csv\"\ndevice = \"d\"\ncolumns = [\"a\", \"a\"]", "\"a\" stands there twice"),
        (
            "format = \"csv\"\ndevice = \"d\"\ncolumns = [\"a\"]\ndelimiter = \"ab\"",
            "delimiter: it is one",
        ),
        ("device = \"d\"\ncolumns = [\"a\"]\ndelimiter = \";\"", "columns: only csv has it"),
        (
            "format = \"ndjson\"\ndevice = \"d\"\neach = \"x[*]\"",
            "each: the elements of this format are its lines",
        ),
        ("format = \"ndjson\"", "device: is missing"),
    ] {
        let found = mistakes(lines);
        assert!(found.contains(part), "{lines}: {found}");
    }
    assert_eq!(mistakes("format = \"ndjson\"\ndevice = \"d-{index}\"\neach = \"[*]\""), "");
}

#[test]
fn what_is_written_out_larger_than_it_came_has_an_end() {
    let name = "x".repeat(30_000);
    let records = vec![r#"{"n":"a","v":1}"#; 2_000].join(",");
    let payload = format!("[{{\"bn\":\"{name}\"}},{records}]");
    let found = reason(&senml("fields = [\"a\"]"), payload.as_bytes());
    assert!(found.starts_with("payload_too_large"), "{found}");
}
