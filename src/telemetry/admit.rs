//! What a payload has to go through, in this order: its size, decoding, validation. The same for
//! messages from the broker and for dead letters that are put back.

use super::decode::decode;
use super::reading::Reading;
use super::rejection::{Reason, Rejection};
use super::validate::{Rules, TimeOfDay, validate};

/// What payloads have to keep to.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Longest payload that is decoded, in bytes.
    pub max_payload_bytes: usize,
    /// What a reading has to keep to.
    pub rules: Rules,
}

impl Admission {
    /// Calls `each` with the raw text and the outcome of every reading in `payload`, in order. A
    /// payload that cannot be split into readings at all is one rejection with all of its bytes.
    pub fn admit<'p>(
        &self,
        payload: &'p [u8],
        clock: TimeOfDay,
        mut each: impl FnMut(&'p [u8], Result<Reading, Rejection>),
    ) {
        let (bytes, max) = (payload.len(), self.max_payload_bytes);
        if bytes > max {
            let message = format!("the payload has {bytes} bytes, {max} are allowed");
            return each(payload, Err(Rejection::new(Reason::PayloadTooLarge, message)));
        }
        decode(payload, |raw, outcome| {
            let is_valid = |reading: &Reading| validate(reading, &self.rules, clock);
            each(raw, outcome.and_then(|reading| is_valid(&reading).map(|()| reading)));
        });
    }

    /// The readings in `payload`, if all of them are good.
    ///
    /// # Errors
    /// What is wrong with the first that is not.
    pub fn admit_all(&self, payload: &[u8], clock: TimeOfDay) -> Result<Vec<Reading>, Rejection> {
        let mut all = Ok(Vec::new());
        self.admit(payload, clock, |_, outcome| match (&mut all, outcome) {
            (Ok(readings), Ok(reading)) => readings.push(reading),
            (Ok(_), Err(rejection)) => all = Err(rejection),
            (Err(_), _) => {}
        });
        all
    }
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
        Admission { max_payload_bytes, rules }
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
