//! What a payload has to go through, in this order: its size, the mappings, decoding, validation. The
//! same for messages from the broker and for dead letters that are put back.

use std::sync::Arc;

use serde::de::IgnoredAny;

use super::decode::decode;
use super::mapping::{Fate, Mapped, Mappings, Message, OwnTopics, Unmatched};
use super::reading::Reading;
use super::record::Record;
use super::rejection::{Reason, Rejection, SENTENCE_MAX_BYTES, Stage};
use super::validate::{Rules, TimeOfDay, validate};
use crate::base::text::{cut, share_out};

/// What payloads have to keep to.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Longest payload that is decoded, in bytes.
    pub max_payload_bytes: usize,
    /// What a reading has to keep to.
    pub rules: Rules,
    /// How devices' own messages become rows; `None`: there are no mappings, and all is of the built-in
    /// shape.
    pub mapped: Option<Arc<MappedTopics>>,
}

/// The mappings, and what brings the built-in shape beside them.
#[derive(Debug)]
pub struct MappedTopics {
    /// In the order of the file.
    pub mappings: Mappings,
    /// What `MQTT_TOPIC` says.
    pub own: OwnTopics,
}

/// What of a message a reading was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'p> {
    /// This text in it.
    Text(&'p [u8]),
    /// All of it, or the element of this index that a mapping goes through.
    Whole(Option<usize>),
}

/// A reading that is good.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Admitted {
    /// What is to be stored.
    pub(crate) record: Record,
    /// Whether its time is that of its arrival.
    pub(crate) by_arrival: bool,
}

impl From<Reading> for Admitted {
    fn from(reading: Reading) -> Self {
        Self { record: reading.into(), by_arrival: false }
    }
}

/// What a message is that comes once more.
#[derive(Debug, Default)]
pub(crate) struct Again {
    /// Its records that are good.
    pub(crate) records: Vec<Record>,
    /// What is wrong with the first reading that is not good, or why there is none.
    pub(crate) fault: Option<Rejection>,
}

/// Whose a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recipient {
    /// Of the built-in shape, or of none that is known.
    BuiltIn,
    /// The mapping of this index has taken it, or could not read it.
    Mapping(usize),
    /// The mapping of this index leaves it alone: it is acknowledged and not stored.
    LeftAlone(usize),
    /// No mapping takes it; it was handed on as rejected.
    Unmatched,
    /// No mapping takes it, and such messages are not kept.
    Dropped,
}

/// Whether it names a device and a time as the built-in shape does, whatever else is wrong with it.
fn is_meant_so(raw: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Named {
        #[serde(rename = "device_id")]
        _device_id: IgnoredAny,
        #[serde(rename = "timestamp")]
        _timestamp: IgnoredAny,
    }
    serde_json::from_slice::<Named>(raw).is_ok()
}

impl Admission {
    /// Calls `each` with every reading of a message, in order, or with what is wrong with it.
    pub(crate) fn receive<'p>(
        &self,
        message: Message<'p>,
        clock: TimeOfDay,
        mut each: impl FnMut(Part<'p>, Result<Admitted, Rejection>),
    ) -> Recipient {
        let mapped = match &self.mapped {
            Some(mapped) if message.payload.len() <= self.max_payload_bytes => mapped,
            _ => return self.receive_built_in(message.payload, clock, each),
        };
        let MappedTopics { mappings, own } = &**mapped;
        let fate = mappings.decide(message, &self.rules, clock, |index, outcome| {
            let admitted =
                |Mapped { reading, by_arrival }| Admitted { record: reading.into(), by_arrival };
            each(Part::Whole(index), outcome.map(admitted));
        });
        let is_own = mappings.takes_built_in && own.contain(message.topic);
        match fate {
            Fate::Taken(mapping) => return Recipient::Mapping(mapping),
            // What a mapping leaves alone may be of the built-in shape, and must not vanish then.
            Fate::Ignored(..) if is_own && self.is_built_in(message.payload, clock) => {
                return self.receive_built_in(message.payload, clock, each);
            }
            Fate::Ignored(mapping, _) => return Recipient::LeftAlone(mapping),
            Fate::Unreadable(..) | Fate::NoTopic | Fate::Unmatched(_) => {}
        }
        let mut built_in = None;
        if is_own {
            let is_alone = match fate {
                Fate::Unmatched(_) => mappings.unmatched == Unmatched::Drop,
                _ => matches!(fate, Fate::NoTopic),
            };
            if is_alone {
                return self.receive_built_in(message.payload, clock, each);
            }
            built_in = self.receive_if_built_in(message.payload, clock, &mut each);
            if built_in.is_none() {
                return Recipient::BuiltIn;
            }
        }
        let built_in = built_in.as_ref();
        let unmatched = match fate {
            Fate::Unreadable(mapping, rejection) => {
                each(Part::Whole(None), Err(with_built_in(rejection, built_in)));
                return Recipient::Mapping(mapping);
            }
            _ if mappings.unmatched == Unmatched::Drop => return Recipient::Dropped,
            Fate::Unmatched(refusals) => mappings.explain(&refusals, built_in),
            _ => {
                let what = "no mapping takes it; no topic of a mapping matches it";
                Rejection::new(Reason::NoMapping, what)
            }
        };
        each(Part::Whole(None), Err(unmatched));
        Recipient::Unmatched
    }

    /// Whether there is a good reading of the built-in shape in it.
    #[must_use]
    pub(crate) fn is_built_in(&self, payload: &[u8], clock: TimeOfDay) -> bool {
        let mut has_reading = false;
        self.admit(payload, clock, |_, outcome| has_reading |= outcome.is_ok());
        has_reading
    }

    /// Whether a reading may get the time of its arrival.
    #[must_use]
    pub(crate) fn uses_arrival(&self) -> bool {
        self.mapped.as_ref().is_some_and(|mapped| mapped.mappings.use_arrival())
    }

    /// What the mapping of this index is called.
    #[must_use]
    pub(crate) fn mapping_name(&self, at: usize) -> &str {
        let mapping = self.mapped.as_ref().and_then(|mapped| mapped.mappings.list.get(at));
        mapping.map_or("", |mapping| &mapping.name)
    }

    fn receive_built_in<'p>(
        &self,
        payload: &'p [u8],
        clock: TimeOfDay,
        mut each: impl FnMut(Part<'p>, Result<Admitted, Rejection>),
    ) -> Recipient {
        self.admit(payload, clock, |raw, outcome| {
            each(Part::Text(raw), outcome.map(Admitted::from));
        });
        Recipient::BuiltIn
    }

    /// As [`Self::receive_built_in`], if anything in it is of the built-in shape, good or out of bounds; else
    /// nothing is handed on, and this is what is wrong with it.
    fn receive_if_built_in<'p>(
        &self,
        payload: &'p [u8],
        clock: TimeOfDay,
        each: &mut impl FnMut(Part<'p>, Result<Admitted, Rejection>),
    ) -> Option<Rejection> {
        let mut is_built_in = false;
        let mut held = Vec::new();
        self.admit(payload, clock, |raw, outcome| match outcome {
            Err(rejection)
                if !is_built_in
                    && rejection.reason.stage() == Stage::Decode
                    && !is_meant_so(raw) =>
            {
                held.push((raw, rejection));
            }
            outcome => {
                is_built_in = true;
                for (raw, rejection) in held.drain(..) {
                    each(Part::Text(raw), Err(rejection));
                }
                each(Part::Text(raw), outcome.map(Admitted::from));
            }
        });
        held.into_iter().next().map(|(_, rejection)| rejection)
    }

    /// What is good of a message that comes once more, and what is not.
    #[must_use]
    pub(crate) fn receive_again(&self, message: Message<'_>, clock: TimeOfDay) -> Again {
        let mut again = Again::default();
        let whose = self.receive(message, clock, |_, outcome| match outcome {
            Ok(admitted) => again.records.push(admitted.record),
            Err(rejection) => {
                again.fault.get_or_insert(rejection);
            }
        });
        let unstored = match whose {
            Recipient::LeftAlone(at) => {
                let name = self.mapping_name(at);
                format!("mapping \"{name}\" leaves it alone; delete the letter")
            }
            Recipient::Dropped => "no mapping takes it".to_owned(),
            _ => return again,
        };
        Again { fault: Some(Rejection::new(Reason::NoMapping, unstored)), ..again }
    }

    /// Calls `each` with the raw text and the outcome of every reading in `payload`, in order. A
    /// payload that cannot be split into readings at all is one rejection with all of its bytes.
    pub fn admit<'p>(
        &self,
        payload: &'p [u8],
        clock: TimeOfDay,
        mut each: impl FnMut(&'p [u8], Result<Reading, Rejection>),
    ) {
        if let Some(rejection) = self.too_long(payload.len()) {
            return each(payload, Err(rejection));
        }
        decode(payload, |raw, outcome| {
            let is_valid = |reading: &Reading| validate(reading, &self.rules, clock);
            each(raw, outcome.and_then(|reading| is_valid(&reading).map(|()| reading)));
        });
    }

    /// Why a payload of so many bytes is turned away, if it is.
    #[must_use]
    pub(crate) fn too_long(&self, bytes: usize) -> Option<Rejection> {
        let max = self.max_payload_bytes;
        let message = || format!("the payload has {bytes} bytes, {max} are allowed");
        (bytes > max).then(|| Rejection::new(Reason::PayloadTooLarge, message()))
    }

    /// The readings in `payload`, if all of them are good.
    ///
    /// # Errors
    /// What is wrong with the first that is not.
    pub(crate) fn admit_all(
        &self,
        payload: &[u8],
        clock: TimeOfDay,
    ) -> Result<Vec<Reading>, Rejection> {
        let mut all = Ok(Vec::new());
        self.admit(payload, clock, |_, outcome| match (&mut all, outcome) {
            (Ok(readings), Ok(reading)) => readings.push(reading),
            (Ok(_), Err(rejection)) => all = Err(rejection),
            (Err(_), _) => {}
        });
        all
    }
}

/// Why a mapping rejects what the built-in shape is not, either.
fn with_built_in(rejection: Rejection, built_in: Option<&Rejection>) -> Rejection {
    let Some(built_in) = built_in else { return rejection };
    let both = [rejection.message.into_owned(), format!("the built-in one: {built_in}")];
    let least = |text: &String| text.len().min(SENTENCE_MAX_BYTES / 3);
    let told = |text: &String, room| cut(text, room).into_owned();
    let what = share_out(&both, 0, SENTENCE_MAX_BYTES, least, told);
    Rejection::new(rejection.reason, what)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::settings::Sources;
    use crate::base::time::Timestamp;

    const GOOD: &str = r#"{"device_id":"a","timestamp":"2025-10-05T12:34:56Z","temperature":1,"humidity":2,"battery":3}"#;

    fn admission(max_payload_bytes: usize) -> Admission {
        let rules = Rules::read(&mut Sources::new(BTreeMap::new(), ""));
        Admission { max_payload_bytes, rules, mapped: None }
    }

    fn clock() -> TimeOfDay {
        TimeOfDay::at(Timestamp::from_rfc3339("2030-01-01T00:00:00Z").unwrap())
    }

    #[test]
    fn a_payload_over_the_limit_is_one_rejection_and_is_not_decoded() {
        let mut outcomes = Vec::new();
        admission(GOOD.len() - 1).admit(GOOD.as_bytes(), clock(), |raw, outcome| {
            outcomes.push((raw, outcome.map_err(|rejection| rejection.reason)));
        });
        assert_eq!(outcomes, [(GOOD.as_bytes(), Err(Reason::PayloadTooLarge))]);
        assert_eq!(admission(GOOD.len()).admit_all(GOOD.as_bytes(), clock()).unwrap().len(), 1);
    }

    const MAPPINGS: &str = "
[[default.mapping]]
name = \"m\"
topic = [\"m/{d}\", \"telemetry/{d}/m\"]
except = [\"m/x\", \"telemetry/x/m\"]
each = \"[*]\"
device = \"{d}\"
time = { path = \"t\", format = \"s\" }
fields = { a = { max = 5 } }
";

    fn mapped(more: &str) -> Admission {
        let toml = format!("[default]\n{more}\n{MAPPINGS}");
        let mut from = Sources::new(BTreeMap::new(), &toml);
        let mappings = Mappings::read(&mut from);
        from.finish().unwrap();
        let own = OwnTopics::new(&["telemetry/#".to_owned()]);
        Admission { mapped: Some(Arc::new(MappedTopics { mappings, own })), ..admission(1_000) }
    }

    type Outcome = (Option<usize>, Result<String, Reason>);

    fn received(admission: &Admission, topic: &str, payload: &str) -> (Recipient, Vec<Outcome>) {
        let mut all = Vec::new();
        let (payload, received_at) = (payload.as_bytes(), clock().now());
        let message = Message { topic, payload, is_retained: false, received_at };
        let whose = admission.receive(message, clock(), |part, outcome| {
            let index = if let Part::Whole(index) = part { index } else { None };
            let table = outcome.map(|admitted| admitted.record.table().to_owned());
            all.push((index, table.map_err(|rejection| rejection.reason)));
        });
        (whose, all)
    }

    #[test]
    fn the_built_in_shape_comes_last_for_what_its_topics_bring() {
        let admission = mapped("");
        let stored = || Ok("telemetry".to_owned());
        for (topic, payload, whose, outcomes) in [
            (
                "m/d",
                r#"[{"a":1,"t":1759667696},{"a":9,"t":1759667696}]"#,
                Recipient::Mapping(0),
                vec![(Some(0), stored()), (Some(1), Err(Reason::ValueOutOfRange))],
            ),
            ("m/x", "[]", Recipient::LeftAlone(0), vec![]),
            ("m/d", GOOD, Recipient::Unmatched, vec![(None, Err(Reason::NoMapping))]),
            ("m/d", "{", Recipient::Mapping(0), vec![(None, Err(Reason::InvalidJson))]),
            ("telemetry/d", GOOD, Recipient::BuiltIn, vec![(None, stored())]),
            ("telemetry/d/m", GOOD, Recipient::BuiltIn, vec![(None, stored())]),
            ("telemetry/x/m", GOOD, Recipient::BuiltIn, vec![(None, stored())]),
            ("telemetry/x/m", "{}", Recipient::LeftAlone(0), vec![]),
            ("telemetry/d", "{", Recipient::BuiltIn, vec![(None, Err(Reason::InvalidJson))]),
            ("elsewhere", GOOD, Recipient::Unmatched, vec![(None, Err(Reason::NoMapping))]),
        ] {
            assert_eq!(
                received(&admission, topic, payload),
                (whose, outcomes),
                "{topic} {payload}"
            );
        }
        let without = mapped("builtin_mapping = false\nunmatched = \"drop\"");
        assert_eq!(received(&without, "telemetry/d", GOOD), (Recipient::Dropped, vec![]));
    }

    #[test]
    fn what_neither_a_mapping_nor_the_built_in_shape_takes_is_the_mappings_letter_and_names_both() {
        let admission = mapped("");
        let told = |payload: &str| {
            let mut all = Vec::new();
            let message = Message {
                topic: "telemetry/d/m",
                payload: payload.as_bytes(),
                is_retained: false,
                received_at: clock().now(),
            };
            let whose = admission.receive(message, clock(), |part, outcome| {
                all.push((part == Part::Whole(None), outcome.unwrap_err()));
            });
            (whose, all)
        };
        for (payload, whose, reason, lead) in [
            ("{", Recipient::Mapping(0), Reason::InvalidJson, "mapping \"m\": not valid JSON"),
            (
                r#"{"b":1}"#,
                Recipient::Unmatched,
                Reason::NoMapping,
                "no mapping takes it; mapping \"m\": ",
            ),
            (
                "[7,8]",
                Recipient::Unmatched,
                Reason::NoMapping,
                "no mapping takes it; mapping \"m\": ",
            ),
        ] {
            let (found, all) = told(payload);
            let [(true, rejection)] = all.as_slice() else { panic!("{payload}: {all:?}") };
            assert_eq!((found, rejection.reason), (whose, reason), "{payload}");
            assert!(rejection.message.starts_with(lead), "{rejection}");
            assert!(rejection.message.contains("; the built-in one: "), "{rejection}");
        }
        // What is of the built-in shape stays its own, also out of bounds.
        let hot = GOOD.replace("\"temperature\":1", "\"temperature\":1000");
        let (whose, all) = told(&format!("[7,{hot},8]"));
        assert_eq!(whose, Recipient::BuiltIn);
        let reasons = all.iter().map(|(_, rejection)| rejection.reason);
        let expected = [Reason::NotAnObject, Reason::OutOfRange(0), Reason::NotAnObject];
        assert_eq!(reasons.collect::<Vec<_>>(), expected);
        // So does what names a device and a time, each by itself, though it lacks the rest.
        let (whose, all) = told(&format!(
            "[{0},{0}]",
            r#"{"device_id":"a","timestamp":"2025-10-05T12:34:56Z","b":1}"#
        ));
        let reasons: Vec<_> = all.iter().map(|(_, rejection)| rejection.reason).collect();
        assert_eq!((whose, reasons), (Recipient::BuiltIn, vec![Reason::MissingField; 2]));
        // What would be dropped is kept as it was.
        let dropping = mapped("unmatched = \"drop\"");
        let (whose, outcomes) = received(&dropping, "telemetry/d/m", "{\"b\":1}");
        assert_eq!(
            (whose, outcomes),
            (Recipient::BuiltIn, vec![(None, Err(Reason::MissingField))])
        );
    }

    #[test]
    fn of_a_message_that_comes_once_more_all_is_there_that_is_good_and_the_first_fault() {
        let again = |topic: &str, payload: &str| {
            let (payload, received_at) = (payload.as_bytes(), clock().now());
            let message = Message { topic, payload, is_retained: false, received_at };
            let Again { records, fault } = mapped("").receive_again(message, clock());
            (records.len(), fault.map_or_else(String::new, |fault| fault.to_string()))
        };
        let [good, hot, warm] =
            ["1", "9", "\"warm\""].map(|a| format!(r#"{{"a":{a},"t":1759667696}}"#));
        let (count, fault) = again("m/d", &format!("[{good},{hot},{good},{warm},{good}]"));
        assert_eq!(count, 3);
        assert!(fault.starts_with("mapping \"m\", field \"a\": 9 "), "{fault}");
        assert_eq!(again("m/d", &format!("[{good},{good}]")), (2, String::new()));
        let (count, fault) = again("telemetry/d", &format!("[7,{GOOD}]"));
        assert_eq!(count, 1);
        assert!(fault.contains("object"), "{fault}");
        let left_alone = "mapping \"m\" leaves it alone; delete the letter".to_owned();
        assert_eq!(again("m/x", "[]"), (0, left_alone));
    }

    #[test]
    fn of_a_payload_that_is_wanted_as_a_whole_the_first_fault_is_told() {
        let hot = GOOD.replace("\"temperature\":1", "\"temperature\":1000");
        let payload = format!("[{GOOD},{hot},7,{GOOD}]");
        let rejection = admission(1_000).admit_all(payload.as_bytes(), clock()).unwrap_err();
        assert_eq!(rejection.reason, Reason::OutOfRange(0));
        let payload = format!("[{GOOD},{GOOD}]");
        assert_eq!(admission(1_000).admit_all(payload.as_bytes(), clock()).unwrap().len(), 2);
    }
}
