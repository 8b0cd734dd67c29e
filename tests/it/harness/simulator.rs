//! The simulator's process.

use std::time::Duration;

use super::Scratch;
use super::process::{Process, guarded};

/// A simulator, and where its output goes.
pub(crate) struct Simulator {
    pub(crate) process: Process,
    scratch: Scratch,
}

impl Simulator {
    pub(crate) fn start(port: u16, settings: &[(&str, &str)]) -> Self {
        let scratch = Scratch::new();
        let mut command = guarded(env!("CARGO_BIN_EXE_simulator"));
        command.env_clear().env("MQTT_BROKER", "127.0.0.1").env("MQTT_PORT", port.to_string());
        command.envs(settings.iter().copied());
        let process = Process::spawn("simulator", scratch.path(), command);
        Self { process, scratch }
    }

    /// Waits for its end, which has to be a good one; what it says it has published and what the
    /// broker acknowledged of it.
    #[track_caller]
    pub(crate) fn finish(mut self, patience: Duration) -> (u64, u64) {
        assert_eq!(self.process.await_exit(patience), 0);
        let out = std::fs::read_to_string(self.scratch.path().join("simulator.out")).unwrap();
        let words: Vec<&str> = out.split_whitespace().collect();
        let ["published", published, "·", "acked", acked, "·", rate, "msg/s"] = words[..] else {
            panic!("no summary: {out:?}")
        };
        rate.parse::<u64>().unwrap();
        (published.parse().unwrap(), acked.parse().unwrap())
    }
}
