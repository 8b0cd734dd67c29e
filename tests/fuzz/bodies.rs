//! What is asked of any bytes. Run by the fuzzer, and by the test suite on the corpus.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use iot_ingestor::base::settings::Sources;
use iot_ingestor::base::time::Timestamp;
use iot_ingestor::telemetry::Reading;
use iot_ingestor::telemetry::decode::decode;
use iot_ingestor::telemetry::mapping::{Fate, Mappings, Message, READING_MAX_BYTES};
use iot_ingestor::telemetry::validate::{Rules, TimeOfDay};
use iot_ingestor::wal::frame;

/// The payload of a message: whatever it is, each part of it is a reading or rejected, and a reading
/// that is written down again is the same reading.
pub(crate) fn payload(data: &[u8]) {
    let whole = data.as_ptr_range();
    let mut parts = 0;
    decode(data, |raw, outcome| {
        parts += 1;
        let part = raw.as_ptr_range();
        assert!(whole.start <= part.start && part.end <= whole.end, "a part lies outside");
        if let Ok(reading) = outcome {
            let again = written_down(&reading);
            decode(again.as_bytes(), |_, outcome| {
                assert_eq!(outcome.as_ref(), Ok(&reading), "read back from {again}");
            });
        }
    });
    assert!(parts > 0, "a message without a word about it");
}

fn written_down(reading: &Reading) -> String {
    let text = serde_json::to_string(&reading.device_id).unwrap_or_default();
    let Reading { values: [temperature, humidity, battery], timestamp, .. } = reading;
    format!(
        r#"{{"device_id":{text},"timestamp":"{timestamp}","temperature":{temperature:?},"humidity":{humidity:?},"battery":{battery:?}}}"#
    )
}

/// Bytes as a frame of the log, and the frame that they make with the right length and checksum, which
/// no fuzzer would hit upon.
pub(crate) fn block(data: &[u8]) {
    frame(data);
    let mut mended = data.to_vec();
    if let Some((head, body)) = mended.split_at_mut_checked(frame::HEADER_BYTES)
        && let Ok(length) = u16::try_from(body.len())
    {
        head[6..8].copy_from_slice(&length.to_le_bytes());
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&head[..48]);
        hasher.update(body);
        head[48..].copy_from_slice(&hasher.finalize().to_le_bytes());
        frame(&mended);
    }
}

/// It is intact, or refused, and if it is intact its header tells the truth.
fn frame(data: &[u8]) {
    let header = frame::check(data);
    match frame::decode(data) {
        Ok(block) => {
            let header = header.expect("a block without a header");
            assert_eq!((block.first, block.end()), (header.first, header.end()));
            assert!(header.frame_bytes <= data.len() && header.count > 0);
        }
        Err(frame::FrameError::Body) => {}
        Err(error) => assert_eq!(header, Err(error)),
    }
}

/// Mappings with all that one can have.
const MAPPINGS: &str = r#"
[[default.mapping]]
name = "plain"
topic = ["a/{x}", "b/{x...}"]
except = ["b/.../set"]
device = "{x}-{.id}"
time = { path = ["t", "$.u"], format = "ms", fallback = "received" }
missing = ["NULL", -999]
has = ["id"]
extra = { path = "rest", max = 8 }
fields = { f = { scale = 0.1, offset = -4, min = -50, max = 100 }, i = { type = "int", path = "n.i" }, b = { type = "bool", map = { up = true } }, s = { type = "text", path = ["s", "n[1].s"] } }

[[default.mapping]]
name = "entries"
topic = "a/#"
each = "p.*"
device = "{key}"
when = { "$.m" = ["x", 1, true] }
time = { path = "$.t", format = "local", zone = "Europe/Berlin" }
fields = { f = {}, all = { path = "$.p.q.f" } }

[[default.mapping]]
name = "elements"
topic = "a/#"
each = "[*]"
device = "{index}"
field = "{.n}"
value = "v"
time = { path = "t", format = "s" }
fields = { f = { required = true }, i = { type = "int" } }
table = "other"

[[default.mapping]]
name = "text"
topic = "c/{f}"
format = "text"
device = "d"
field = "{f}"
time = "received"
fields = ["f", "g"]

[[default.mapping]]
name = "lines"
topic = "f/ndjson"
format = "ndjson"
device = "{.d}-{index}"
time = { path = ["t", "$[0].t"], format = "s" }
extra = {}
fields = { f = {}, s = { type = "text" } }

[[default.mapping]]
name = "rows"
topic = "f/csv"
format = "csv"
columns = ["t", "d", "", "f", "s"]
device = "{.d}"
time = { path = "t", format = "s" }
extra = { max = 3 }
fields = { f = { required = true }, s = { type = "text" } }

[[default.mapping]]
name = "records"
topic = "f/senml"
format = "senml"
extra = {}
fields = { f = {}, b = { type = "bool" }, s = { type = "text" } }

[[default.mapping]]
name = "cbor"
topic = "f/cbor"
format = "cbor"
device = "{.d}"
time = { path = "t", format = "s" }
extra = { path = "r" }
fields = { f = { path = ["f", '"1"[0]'] }, i = { type = "int" }, s = { type = "text" } }

[[default.mapping]]
name = "msgpack"
topic = "f/msgpack"
format = "msgpack"
each = "r.*"
device = "{$.d}{key}"
time = { path = "$.t", format = "s" }
fields = { f = {}, i = { type = "int" }, s = { type = "text" } }
"#;

/// A file of mappings is compiled or refused, whatever is in it, and so are paths, templates and filters.
pub(crate) fn file(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    drop(compiled(&text));
    let quoted = serde_json::Value::String(text.into_owned()).to_string();
    let keys = ["topic", "except", "device", "each", "field", "value", "has", "time", "fields"];
    let key = keys[data.len() % keys.len()];
    let mapping = format!("[[default.mapping]]\nname = \"m\"\n{key} = {quoted}\n");
    assert!(compiled(&mapping).is_err(), "half a mapping is none");
}

fn compiled(toml: &str) -> Result<Mappings, String> {
    let mut from = Sources::new(BTreeMap::new(), toml);
    let mappings = Mappings::read(&mut from);
    from.mistakes_so_far().map(|()| mappings).map_err(|mistakes| mistakes.to_string())
}

/// Topics of the mappings.
const TOPICS: [&str; 11] = [
    "a/d",
    "b/d/e",
    "c/f",
    "c/g",
    "b/set/set",
    "a",
    "f/ndjson",
    "f/csv",
    "f/senml",
    "f/cbor",
    "f/msgpack",
];

/// A message, of which the first byte chooses the topic: each reading of it is a row that keeps to its
/// table, or a rejection that says whose.
pub(crate) fn message(data: &[u8]) {
    static COMPILED: LazyLock<(Mappings, Rules)> = LazyLock::new(|| {
        let rules = Rules::read(&mut Sources::new(BTreeMap::new(), ""));
        (compiled(MAPPINGS).unwrap_or_else(|mistakes| panic!("{mistakes}")), rules)
    });
    let (mappings, rules) = &*COMPILED;
    let Some((choice, payload)) = data.split_first() else { return };
    let topic = TOPICS[usize::from(*choice) % TOPICS.len()];
    let received_at = Timestamp::from_millis(1_893_456_000_000).expect("a time");
    let message = Message { topic, payload, is_retained: *choice > 127, received_at };
    let mut readings = 0;
    let fate = mappings.decide(message, rules, TimeOfDay::at(received_at), |_, outcome| {
        readings += 1;
        match outcome {
            Ok(mapped) => {
                let reading = mapped.reading;
                assert!(reading.bytes() <= READING_MAX_BYTES);
                assert!(reading.values().all(|(column, cell)| column.kind == cell.kind()));
                assert!(reading.cells.windows(2).all(|two| two[0].0 < two[1].0));
                assert_eq!(reading.values().count(), reading.cells.len());
                serde_json::to_string(&reading).expect("a row is JSON");
            }
            Err(rejection) => assert!(rejection.message.starts_with("mapping \"")),
        }
    });
    assert_eq!(matches!(fate, Fate::Taken(_)), readings > 0);
    let told = mappings.tell(message, rules, TimeOfDay::at(received_at));
    assert_eq!(told.readings.len(), readings, "check-mapping tells what the service does");
}
