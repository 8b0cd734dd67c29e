//! The way in: an event and the time, out come commands.

use std::time::Duration;

use super::batch::Batch;
use super::event::{Command, Event};
use super::state::Plan;

impl Plan {
    /// Takes an event in; what is to be done now. `now` never goes back.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Command> {
        match event {
            Event::Grown(committed) => self.committed = self.committed.max(committed),
            Event::Pause => self.is_paused = true,
            Event::Resume => self.is_paused = false,
            Event::Reject => self.reject(),
            Event::Tick => {}
            Event::Stop => self.is_stopping = true,
            Event::Inserted { batch, outcome, took } => {
                self.answered(now);
                self.inserted(batch, outcome, took, now);
            }
            Event::Lettered { batch, outcome } => {
                self.in_flight = self.in_flight.saturating_sub(1);
                self.lettered(batch, outcome, now);
            }
            Event::Prepared(outcome) => {
                self.answered(now);
                match outcome {
                    Ok(()) => {
                        self.schema_ready = true;
                        self.succeeded();
                    }
                    Err(error) => self.failed(error, now),
                }
            }
            Event::Ponged(outcome) => {
                self.answered(now);
                match outcome {
                    Ok(()) => self.succeeded(),
                    Err(error) => self.failed(error, now),
                }
            }
            Event::Rewound(rewound) => {
                self.in_flight = self.in_flight.saturating_sub(1);
                self.rewound(rewound);
            }
            Event::Failed(error) => {
                self.in_flight = self.in_flight.saturating_sub(1);
                self.failure.get_or_insert(error);
                self.is_stopping = true;
            }
        }
        self.start(now);
        if self.is_stopping && self.in_flight == 0 && !self.is_finished {
            self.is_finished = true;
            let outcome = self.failure.take().map_or(Ok(()), Err);
            self.commands.push(Command::Finish(outcome));
        }
        std::mem::take(&mut self.commands)
    }

    fn answered(&mut self, now: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.last_answer = Some(now);
    }

    /// What is refused becomes letters from now on, until something is accepted.
    fn reject(&mut self) {
        self.rejects = true;
        self.retry_at = None;
        if self.breaker.is_open() {
            self.batches.values_mut().for_each(Batch::release);
            self.breaker.close();
        }
    }
}
