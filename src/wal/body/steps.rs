//! Times as steps, which are small and compress well.

use crate::base::time::Timestamp;

/// Times, each from the one before it, wrapping; the first from 0.
pub(super) fn steps(times: impl Iterator<Item = Timestamp>) -> Vec<i64> {
    let mut before = 0;
    let step = |time: Timestamp| {
        let now = time.as_micros();
        now.wrapping_sub(std::mem::replace(&mut before, now))
    };
    times.map(step).collect()
}

/// The opposite of [`steps`]; `None` if a time cannot be.
pub(super) fn times(steps: &[i64]) -> Option<Vec<Timestamp>> {
    let mut micros = 0_i64;
    let time = |step: &i64| {
        micros = micros.wrapping_add(*step);
        Timestamp::from_micros(micros)
    };
    steps.iter().map(time).collect()
}
