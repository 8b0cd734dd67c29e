//! Messages in the shape of the recipes of `deploy/mappings`, one row each.
//!
//! A shape is text with places for what differs: `<id>` and `<number>` of the device, `<count>` of its
//! messages, `<temperature>`, `<humidity>`, `<battery>`, and the time as `<rfc3339>`, `<local>`, `<s>`,
//! `<s_decimal>`. All messages of a shape are read by the recipe that has its name.

use std::fmt::Write as _;

use crate::base::time::Timestamp;

use super::device::{Hundredths, Sample};

/// What devices of a kind publish.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// That of the recipe.
    pub(super) name: &'static str,
    /// Shorter, for people.
    alias: Option<&'static str>,
    /// Topic and payload of each message, which take turns.
    messages: &'static [(&'static str, &'static str)],
    /// Smallest difference between two times, in microseconds.
    pub(super) resolution: i64,
}

const MICROSECOND: i64 = 1;
const MILLISECOND: i64 = 1_000;
const SECOND: i64 = 1_000_000;

const fn shape(
    name: &'static str,
    resolution: i64,
    messages: &'static [(&'static str, &'static str)],
) -> Shape {
    Shape { name, alias: None, messages, resolution }
}

impl Shape {
    const fn or(mut self, alias: &'static str) -> Self {
        self.alias = Some(alias);
        self
    }

    /// The shape that is called so.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        SHAPES.iter().find(|shape| shape.name == name || shape.alias == Some(name))
    }

    /// Topic and payload of a device's message.
    pub(super) fn write(&self, device: &Identity<'_>, sample: Sample) -> (String, String) {
        let turn = usize::try_from(device.messages).unwrap_or_default() % self.messages.len();
        let (topic, payload) = self.messages[turn];
        (filled(topic, device, sample), filled(payload, device, sample))
    }

    /// A message that the recipe rejects: it ends too early, or is no number.
    pub(super) fn spoil(payload: &str) -> String {
        if !payload.starts_with(['{', '[']) {
            return "error".to_owned();
        }
        payload.chars().take(payload.len() / 2).collect()
    }
}

/// Whose message it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity<'d> {
    pub(super) id: &'d str,
    pub(super) number: u32,
    /// How many it has published before.
    pub(super) messages: u64,
}

/// The names of all shapes, for people.
pub(super) fn names() -> String {
    let name = |shape: &Shape| match shape.alias {
        Some(alias) => format!("{} ({alias})", shape.name),
        None => shape.name.to_owned(),
    };
    SHAPES.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn filled(template: &str, device: &Identity<'_>, sample: Sample) -> String {
    let mut out = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some((text, after)) = rest.split_once('<') {
        out.push_str(text);
        let Some((place, after)) = after.split_once('>') else { break };
        put(&mut out, place, device, sample);
        rest = after;
    }
    out.push_str(rest);
    out
}

fn put(out: &mut String, place: &str, device: &Identity<'_>, sample: Sample) {
    let micros = sample.timestamp.as_micros();
    let [temperature, humidity, battery] = sample.values;
    match place {
        "id" => out.push_str(device.id),
        "number" => out.push_str(&device.number.to_string()),
        "count" => out.push_str(&device.messages.to_string()),
        "temperature" => out.push_str(&number(temperature)),
        "humidity" => out.push_str(&number(humidity)),
        "battery" => out.push_str(&number(battery)),
        "rfc3339" => out.push_str(&sample.timestamp.to_string()),
        "local" => {
            let whole = Timestamp::from_micros(micros.div_euclid(SECOND) * SECOND);
            let text = whole.unwrap_or(sample.timestamp).to_string();
            out.push_str(text.trim_end_matches('Z'));
        }
        "s" => out.push_str(&micros.div_euclid(SECOND).to_string()),
        "s_decimal" => {
            let (second, rest) = (micros.div_euclid(SECOND), micros.rem_euclid(SECOND));
            // Writing to a string does not fail.
            write!(out, "{second}.{:03}", rest / MILLISECOND).ok();
        }
        _ => {}
    }
}

fn number(value: Hundredths) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let value = value.unsigned_abs();
    format!("{sign}{}.{:02}", value / 100, value % 100)
}

const SHAPES: &[Shape] = &[
    shape(
        "zigbee2mqtt",
        MICROSECOND,
        &[(
            "zigbee2mqtt/<id>",
            r#"{"battery":<battery>,"humidity":<humidity>,"last_seen":"<rfc3339>","linkquality":93,"temperature":<temperature>,"voltage":3005}"#,
        )],
    )
    .or("zigbee"),
    shape(
        "tasmota",
        SECOND,
        &[(
            "tele/<id>/SENSOR",
            r#"{"Time":"<local>","AM2301":{"Temperature":<temperature>,"Humidity":<humidity>,"DewPoint":12.3},"TempUnit":"C"}"#,
        )],
    ),
    shape(
        "esphome",
        MICROSECOND,
        &[
            ("<id>/sensor/temperature/state", "<temperature>"),
            ("<id>/sensor/humidity/state", "<humidity>"),
        ],
    ),
    shape(
        "the-things-stack",
        MICROSECOND,
        &[(
            "v3/farm@ttn/devices/<id>/up",
            r#"{"end_device_ids":{"device_id":"<id>","application_ids":{"application_id":"farm"},"dev_eui":"A84041000181C061"},"received_at":"<rfc3339>","uplink_message":{"f_port":2,"f_cnt":<count>,"frm_payload":"y/QIoQGzAQhnf/8=","decoded_payload":{"BatV":3.06,"Hum_SHT":"<humidity>","TempC_SHT":"<temperature>","Work_mode":"DS18B20"},"rx_metadata":[{"gateway_ids":{"gateway_id":"roof"},"rssi":-97,"snr":7.5}],"received_at":"<rfc3339>"}}"#,
        )],
    )
    .or("lorawan"),
    shape(
        "chirpstack",
        MICROSECOND,
        &[(
            "application/f3a2/device/<id>/event/up",
            r#"{"deduplicationId":"3ac7e3c4","time":"<rfc3339>","deviceInfo":{"applicationId":"f3a2","deviceName":"barn","devEui":"<id>"},"fPort":1,"fCnt":<count>,"data":"AWcA6w==","object":{"temperature":<temperature>,"humidity":<humidity>,"battery":<battery>,"position":"closed"},"rxInfo":[{"gatewayId":"0016c001f153a14c","rssi":-36,"snr":10.5}]}"#,
        )],
    ),
    shape(
        "shelly-gen2",
        MILLISECOND,
        &[(
            "<id>/events/rpc",
            r#"{"src":"<id>","dst":"<id>/events","method":"NotifyStatus","params":{"ts":<s_decimal>,"temperature:0":{"id":0,"tC":<temperature>}}}"#,
        )],
    )
    .or("shelly"),
    shape(
        "shelly-gen1",
        MICROSECOND,
        &[
            ("shellies/<id>/sensor/temperature", "<temperature>"),
            ("shellies/<id>/sensor/humidity", "<humidity>"),
            ("shellies/<id>/sensor/battery", "<battery>"),
        ],
    ),
    shape(
        "rtl433",
        SECOND,
        &[(
            "rtl_433/attic/events",
            r#"{"time":"<local>","model":"Acurite-Tower","id":<number>,"channel":"A","battery_ok":1,"temperature_C":<temperature>,"humidity":<humidity>,"mic":"CHECKSUM"}"#,
        )],
    ),
    shape(
        "openmqttgateway",
        MICROSECOND,
        &[(
            "home/gateway/BTtoMQTT/<id>",
            r#"{"id":"<id>","name":"LYWSD03MMC","rssi":-70,"tempc":<temperature>,"hum":<humidity>,"batt":<battery>,"volt":2.951}"#,
        )],
    ),
    shape(
        "owntracks",
        SECOND,
        &[(
            "owntracks/<id>/phone",
            r#"{"_type":"location","acc":12,"alt":154,"batt":<battery>,"lat":<temperature>,"lon":<humidity>,"tid":"ad","tst":<s>,"vel":0}"#,
        )],
    ),
    shape(
        "homie",
        MICROSECOND,
        &[("homie/<id>/climate/temperature", "<temperature>"), ("homie/<id>/climate/humidity", "<humidity>")],
    ),
    shape(
        "telegraf",
        SECOND,
        &[(
            "telegraf/<id>/cpu",
            r#"{"fields":{"usage_idle":<humidity>,"usage_user":1.5},"name":"cpu","tags":{"cpu":"cpu-total","host":"<id>"},"timestamp":<s>}"#,
        )],
    ),
    shape(
        "home-assistant-statestream",
        MICROSECOND,
        &[("homeassistant/sensor/<id>/state", "<temperature>")],
    ),
    shape(
        "one-value-a-topic",
        MICROSECOND,
        &[("sensors/<id>/temperature", "<temperature>"), ("sensors/<id>/humidity", "<humidity>")],
    ),
    shape(
        "pimoroni-enviro",
        SECOND,
        &[(
            "enviro/<id>",
            r#"{"nickname":"<id>","uid":"e6614c311b425233","timestamp":"<local>Z","readings":{"temperature":<temperature>,"humidity":<humidity>,"pressure":997.16,"luminance":35.92},"model":"indoor"}"#,
        )],
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;
    use std::sync::Arc;

    use fastrand::Rng;

    use super::*;
    use crate::base::settings::Sources;
    use crate::simulator::device::Device;
    use crate::telemetry::admit::{Admission, MappedTopics, Recipient};
    use crate::telemetry::mapping::{Mappings, Message, OwnTopics};
    use crate::telemetry::validate::{Rules, TimeOfDay};

    /// The recipe of a shape.
    fn recipe(name: &str) -> Admission {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/mappings");
        let text = std::fs::read_to_string(dir.join(format!("{name}.toml"))).unwrap();
        let mut from = Sources::new(BTreeMap::new(), &text);
        let mappings = Mappings::read(&mut from);
        let rules = Rules::read(&mut from);
        from.finish().unwrap();
        let mapped = Some(Arc::new(MappedTopics { mappings, own: OwnTopics::new(&[]) }));
        Admission { max_payload_bytes: 65_536, rules, mapped }
    }

    #[test]
    fn every_message_of_a_shape_is_one_row_of_its_recipe_and_a_spoilt_one_is_none() {
        let clock = TimeOfDay::at(Timestamp::from_rfc3339("2030-01-01T00:00:00Z").unwrap());
        for shape in SHAPES {
            let (recipe, rng) = (recipe(shape.name), &mut Rng::with_seed(7));
            let mut device = Device::new(3, clock.now(), rng).with_resolution(shape.resolution);
            let mut keys = BTreeSet::new();
            for messages in 0..200 {
                // The clock stands still for a while: no two rows have one time all the same.
                let now = Timestamp::from_micros(clock.now().as_micros() + messages / 50 * SECOND);
                let sample = device.measure(now.unwrap(), rng);
                let messages = messages.unsigned_abs();
                let identity = Identity { id: "sensor-003", number: 3, messages };
                let (topic, payload) = shape.write(&identity, sample);
                let outcomes = |payload: &str| {
                    let mut all = Vec::new();
                    let received_at =
                        Timestamp::from_micros(i64::try_from(messages).unwrap()).unwrap();
                    let payload = payload.as_bytes();
                    let message =
                        Message { topic: &topic, payload, is_retained: false, received_at };
                    let whose = recipe.receive(message, clock, |_, outcome| all.push(outcome));
                    (whose, all)
                };
                let (whose, all) = outcomes(&payload);
                assert!(
                    matches!(whose, Recipient::Mapping(_)),
                    "{}: {payload}: {all:?}",
                    shape.name
                );
                let [Ok(admitted)] = all.as_slice() else {
                    panic!("{}: {topic} {payload}: {all:?}", shape.name)
                };
                let record = &admitted.record;
                let is_new = keys.insert((record.device_id().to_owned(), record.timestamp()));
                assert!(is_new, "{}: {payload}", shape.name);
                let (_, all) = outcomes(&Shape::spoil(&payload));
                assert!(matches!(all.as_slice(), [Err(_)]), "{}: {all:?}", shape.name);
            }
        }
    }

    #[test]
    fn shapes_are_found_by_the_names_of_recipes_and_shorter_ones() {
        let named = |name| Shape::find(name).map(|shape| shape.name);
        assert_eq!(named("zigbee"), Some("zigbee2mqtt"));
        assert_eq!(named("lorawan"), Some("the-things-stack"));
        assert_eq!((named("tasmota"), named("telemetry")), (Some("tasmota"), None));
        assert!(names().starts_with("zigbee2mqtt (zigbee), tasmota, "), "{}", names());
    }
}
