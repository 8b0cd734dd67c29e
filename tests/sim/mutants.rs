//! Mistakes that the simulation has to find: each breaks one promise of a decider in its shell.

use crate::listed::listed;

listed! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Mutant as ALL {
        /// A settlement of an earlier connection counts for the present one.
        NoEpochCheck,
        /// A group is acknowledged, and committed then.
        AckBeforeCommit,
        /// Two answers change places.
        AcksOutOfOrder,
        /// A batch that is stored is trimmed, although an earlier one is not.
        TrimPastAGap,
        /// A batch is trimmed when it is sent.
        TrimBeforeTheCommit,
        /// A row that the database refuses makes no letter.
        DroppedPoisonRow,
        /// After an answer that was lost the rows are sent by a statement that does not need the key.
        BatchTwiceWithoutTheKey,
        /// Letters of the database make room for others.
        EvictedLettersOfTheDatabase,
        /// A sync that failed is tried again, and believed.
        RetryOfAFailedSync,
        /// The session does not hear that the log is full.
        FullLogThatDoesNotLeave,
        /// A database that went back is taken for what it was.
        NoResendAfterGoingBack,
        /// What a database that went back has lost counts as sent again before it has arrived.
        RememberedTooEarly,
        /// A stop leaves the broker before the intake has settled all it was given.
        StopThatDoesNotWait,
        /// What has the time of its arrival is committed without its receipt.
        NoReceipts,
        /// A process does not ask the log for the receipts that an earlier one has left.
        ReceiptsNotReadBack,
        /// A repeat is taken for a message that comes for the first time.
        RepeatTakenForNew,
    }
}
