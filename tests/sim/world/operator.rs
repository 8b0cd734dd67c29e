//! An operator who puts letters back while everything runs.

use iot_ingestor::intake::queue::{Inbound, Replay, Replayed};
use iot_ingestor::telemetry::Record;
use tokio::sync::oneshot;

use super::state::World;
use crate::publisher::{arrived, reading};
use crate::schedule::Dice;
use crate::trace::Happened;

impl World<'_> {
    /// Puts the reading of a letter back, as a request to the running service does.
    pub(super) fn replay(&mut self, dice: &mut Dice) {
        let Some(process) = self.process.as_mut().filter(|process| !process.is_stopping) else {
            return;
        };
        let Some(number) = self.letters.any_database(dice.below(100)) else { return };
        let (done, outcome) = oneshot::channel();
        self.trace.note(Happened::PutBack, number, 0);
        let arrival = self.database.arrival_of(number);
        let record = arrival
            .map_or_else(|| Record::from(reading(number)), |time| arrived(number, time).into());
        let readings = vec![record];
        process.intake.queue.push_back(Inbound::Replay(Replay { readings, is_new: false, done }));
        process.replays.push((number, outcome));
    }

    /// Takes the letters away that are in the log.
    pub(super) fn hear_of_replays(&mut self) {
        let Some(process) = &mut self.process else { return };
        process.replays.retain_mut(|(number, outcome)| match outcome.try_recv() {
            Ok(Replayed::Committed) => {
                self.letters.remove(*number);
                false
            }
            Ok(Replayed::Full) | Err(oneshot::error::TryRecvError::Closed) => false,
            Err(oneshot::error::TryRecvError::Empty) => true,
        });
    }
}
