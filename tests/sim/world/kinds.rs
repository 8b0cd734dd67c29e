//! What a step may be: who does something, and what goes wrong.

/// What can go wrong. A schedule draws which of these it has, so that some have few kinds of faults and
/// get far, and some have many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Kill,
    PowerCut,
    PowerCutAmidDisk,
    Stop,
    CutConnection,
    BrokerDown,
    BrokerForgets,
    BrokerRefuses,
    SecretsRenewed,
    DatabaseDown,
    RefusesAll,
    RefusesNext,
    Swallows,
    DropKey,
    DropPartition,
    GoesBack,
    LoseAnswer,
    FailSync,
    DiskFull,
    LettersFail,
    LettersTaken,
    Pause,
    Mend,
    Stall,
    Reject,
    Replay,
    ReadFails,
    BitFlips,
}

pub(super) const FAULTS: &[Fault] = &[
    Fault::Kill,
    Fault::PowerCut,
    Fault::PowerCutAmidDisk,
    Fault::Stop,
    Fault::CutConnection,
    Fault::BrokerDown,
    Fault::BrokerForgets,
    Fault::BrokerRefuses,
    Fault::SecretsRenewed,
    Fault::DatabaseDown,
    Fault::RefusesAll,
    Fault::RefusesNext,
    Fault::Swallows,
    Fault::DropKey,
    Fault::DropPartition,
    Fault::GoesBack,
    Fault::LoseAnswer,
    Fault::FailSync,
    Fault::DiskFull,
    Fault::LettersFail,
    Fault::LettersTaken,
    Fault::Pause,
    Fault::Mend,
    Fault::Stall,
    Fault::Reject,
    Fault::Replay,
    Fault::ReadFails,
    Fault::BitFlips,
];

impl Fault {
    /// Whether it damages what is on the disk for good.
    pub(super) fn is_damage(self) -> bool {
        matches!(self, Self::ReadFails | Self::BitFlips)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Actor {
    Broker,
    Source,
    Intake,
    Serve,
    Answer,
    Flusher,
    Supervisor,
}

pub(super) const ACTORS: [Actor; 7] = [
    Actor::Broker,
    Actor::Source,
    Actor::Intake,
    Actor::Serve,
    Actor::Answer,
    Actor::Flusher,
    Actor::Supervisor,
];
