//! Who has something to do, and does it.

use iot_ingestor::telemetry::validate::TimeOfDay;

use super::kinds::{ACTORS, Actor};
use super::state::World;
use crate::flusher::Flusher;
use crate::intake::{self, Did};
use crate::ledger::Violation;
use crate::publisher::clock;
use crate::schedule::Dice;

impl World<'_> {
    /// Somebody who has something to do does it; false if nobody has.
    pub(super) fn act(&mut self, dice: &mut Dice) -> Result<bool, Violation> {
        let stalled = self.stalled.filter(|(_, until)| *until > self.now).map(|(actor, _)| actor);
        let first = dice.below(ACTORS.len());
        for at in 0..ACTORS.len() {
            let actor = ACTORS[(first + at) % ACTORS.len()];
            if stalled != Some(actor) && self.can_act(actor) {
                self.let_act(actor, dice)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn can_act(&mut self, actor: Actor) -> bool {
        let now = self.now;
        match (actor, &self.process) {
            (Actor::Broker, _) => self.broker.can_work(),
            (Actor::Supervisor, None) => true,
            (_, None) => false,
            (Actor::Supervisor, Some(process)) => {
                (process.is_stopping && process.has_let_go()) || process.flusher.end().is_some()
            }
            (Actor::Source, Some(_)) => {
                self.with_source(|source, around| source.can_work(around)).unwrap_or(false)
            }
            (Actor::Intake, Some(process)) => process.intake.can_work(),
            (Actor::Serve, Some(process)) => process.flusher.has_requests(),
            (Actor::Answer, Some(process)) => process.flusher.has_answers(),
            (Actor::Flusher, Some(process)) => process.flusher.is_behind(&process.log, now),
        }
    }

    pub(super) fn let_act(&mut self, actor: Actor, dice: &mut Dice) -> Result<(), Violation> {
        match actor {
            Actor::Broker => {
                let acknowledged = self.broker.work()?;
                self.acknowledge(acknowledged)?;
            }
            Actor::Source => {
                let done = self.with_source(|source, around| source.work(dice, around));
                self.acknowledge(done.transpose()?.into_iter().flatten())?;
            }
            Actor::Intake => self.let_intake_work(dice)?,
            Actor::Serve => {
                self.with_flusher(|flusher, around| flusher.serve(dice, around));
            }
            Actor::Answer => {
                self.with_flusher(|flusher, around| flusher.answer(dice, around)).transpose()?;
            }
            Actor::Flusher => {
                self.with_flusher(Flusher::catch_up).transpose()?;
            }
            Actor::Supervisor => return self.supervise(dice),
        }
        Ok(())
    }

    pub(super) fn let_intake_work(&mut self, dice: &mut Dice) -> Result<(), Violation> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let did = process.intake.work(
            1 + dice.below(4),
            &mut intake::Around {
                ledger: &mut self.ledger,
                letters: &mut self.letters,
                log: &process.log,
                trace: &mut self.trace,
                now: TimeOfDay::at(clock(self.now)),
                admission: &self.shared.admission,
                mutant: self.mutant,
            },
        )?;
        match did {
            Did::Nothing | Did::Something => Ok(()),
            Did::Settled(settled) => {
                process.source.settle(settled);
                Ok(())
            }
            Did::Failed => self.end_process(dice),
        }
    }
}
