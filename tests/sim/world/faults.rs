//! What goes wrong.

use std::time::Duration;

use iot_ingestor::flusher::plan::Event;

use super::kinds::{ACTORS, Actor, Fault};
use super::state::World;
use crate::database::{PASSING, SQLSTATES, Swallows};
use crate::ledger::Violation;
use crate::schedule::Dice;
use crate::source::Source;

impl World<'_> {
    pub(super) fn fail(&mut self, fault: Fault, dice: &mut Dice) -> Result<(), Violation> {
        match fault {
            Fault::Kill => return self.end_process(dice),
            Fault::PowerCut => {
                if let Some(process) = &mut self.process {
                    process.ends_by_power_cut = true;
                }
                return self.end_process(dice);
            }
            Fault::PowerCutAmidDisk => {
                if let Some(process) = &mut self.process {
                    process.ends_by_power_cut = true;
                    self.disk.power_off_after(dice.below(6) as u32);
                }
            }
            Fault::Stop => return self.stop(),
            Fault::CutConnection => {
                // A disk that is slow just then leaves more under way.
                if dice.one_in(2) {
                    self.stall(Actor::Intake, dice);
                }
                let acknowledged = self.broker.cut(dice)?;
                return self.acknowledge(acknowledged);
            }
            Fault::BrokerDown => self.broker.is_down = !self.broker.is_down,
            Fault::BrokerForgets => {
                if dice.one_in(2) {
                    self.stall(Actor::Intake, dice);
                }
                self.broker.forget();
            }
            Fault::BrokerRefuses => self.broker.refuses_next = true,
            Fault::SecretsRenewed => {
                let done = self.with_source(Source::renew).transpose()?;
                return self.acknowledge(done.into_iter().flatten());
            }
            Fault::DatabaseDown => self.database.is_down = !self.database.is_down,
            Fault::RefusesAll => {
                let is_over = self.database.refuses_all.is_some();
                self.database.refuses_all = (!is_over).then(|| dice.pick(SQLSTATES));
            }
            Fault::RefusesNext => self.database.refuses_next = Some(dice.pick(PASSING)),
            Fault::Swallows => {
                let kinds = [Swallows::Nothing, Swallows::EveryThird, Swallows::Everything];
                self.database.swallows = dice.pick(&kinds);
            }
            Fault::DropKey => self.database.has_key = false,
            Fault::DropPartition => self.database.has_partition = false,
            Fault::GoesBack => self.go_back(dice),
            Fault::LoseAnswer => {
                self.with_flusher(|flusher, around| flusher.lose(dice, around)).transpose()?;
            }
            Fault::FailSync => self.disk.fail_next_sync(),
            Fault::DiskFull => {
                self.set_disk_full(!self.disk_is_full);
                self.look_at_disk();
            }
            Fault::LettersFail => self.letters.fails_next = true,
            Fault::LettersTaken => self.letters.take_database(),
            Fault::Pause => {
                let event = if dice.one_in(2) { Event::Pause } else { Event::Resume };
                self.with_flusher(|flusher, around| flusher.hear(event, around)).transpose()?;
            }
            Fault::Reject => {
                self.database.operator_rejects = true;
                let heard =
                    self.with_flusher(|flusher, around| flusher.hear(Event::Reject, around));
                heard.transpose()?;
            }
            Fault::Replay => self.replay(dice),
            Fault::ReadFails => {
                // A few times, more often than it is tried again, or for good.
                let times = dice.pick(&[1, 2, 10, u32::MAX]);
                if let Some(range) = self.disk.fail_reads(dice.random(), times) {
                    self.ledger.damage(range);
                }
            }
            Fault::BitFlips => {
                if let Some(range) = self.disk.flip_a_bit(dice.random()) {
                    self.ledger.damage(range);
                }
            }
            Fault::Mend => self.database.mend(),
            Fault::Stall => self.stall(dice.pick(ACTORS), dice),
        }
        Ok(())
    }

    /// By less than what the log retains, where nothing makes that give way.
    fn go_back(&mut self, dice: &mut Dice) {
        let retain = self.limits.retain.as_millis() as usize;
        // A block whose sync failed may be gone with the power when it is flushed already.
        let may_have_holes =
            self.faults.iter().any(|fault| *fault == Fault::FailSync || fault.is_damage());
        let needs_room = self.limits.max_bytes < u64::MAX || self.faults.contains(&Fault::DiskFull);
        if retain == 0 || !self.database.has_key || may_have_holes || needs_room {
            return;
        }
        let back = Duration::from_millis(dice.below(retain) as u64);
        self.database.go_back(self.now.saturating_sub(back));
    }

    pub(super) fn stall(&mut self, actor: Actor, dice: &mut Dice) {
        let time = dice.pick(&[100, 400, 1_000, 3_000]);
        self.stalled = Some((actor, self.now + Duration::from_millis(time)));
    }

    pub(super) fn set_disk_full(&mut self, is_full: bool) {
        self.disk_is_full = is_full;
        self.letters.disk_is_full = is_full;
        self.disk.set_capacity(is_full.then_some(0));
    }

    /// Housekeeping: the log looks at its limits, which others can change.
    pub(super) fn look_at_disk(&self) {
        if let Some(process) = &self.process {
            process.log.maintain();
        }
    }
}
