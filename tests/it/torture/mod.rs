//! The fault campaign: it tries hard to make the service lose or double a reading.
//!
//! Each case does the same thing many times over, each time with another seed. The oracle is the
//! same everywhere: who publishes knows every reading, and what was acknowledged on the wire. After
//! recovery each acknowledged reading is in the table once, with the right values, or in the
//! dead-letter store, and nothing is there that was never sent.
//!
//! The test suite runs each case a few times, but for `machine`; `scripts/torture.sh` runs the same
//! code as often as it is told to, by way of `TORTURE_COUNT` and `TORTURE_SEED`.

use crate::harness::Reading;

mod arena;
mod arrival;
mod broker;
mod commits;
mod database;
mod disk;
mod forgetful;
mod fuzz;
mod gate;
mod growing;
mod ingestors;
mod io_errors;
mod kills;
mod letters;
mod machine;
mod messages;
mod power_cut;
mod process;
mod proxy;
mod relay;
mod soak;
mod tally;
mod trace;

/// What tells a reading from all others: its device and its time.
type Key = (String, i64);

fn key(reading: &Reading) -> Key {
    (reading.device_id.clone(), reading.micros)
}
