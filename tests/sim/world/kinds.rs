//! What a step may be: who does something, and what goes wrong.

use crate::listed::listed;

listed! {
    /// What can go wrong. A schedule draws which of these it has, so that some have few kinds of faults and
    /// get far, and some have many.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Fault as FAULTS {
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
}

impl Fault {
    /// Whether it damages what is on the disk for good.
    pub(super) fn is_damage(self) -> bool {
        matches!(self, Self::ReadFails | Self::BitFlips)
    }
}

listed! {
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(super) enum Actor as ACTORS {
        Broker,
        Source,
        Intake,
        Serve,
        Answer,
        Flusher,
        Supervisor,
    }
}
