//! What an attempt to make partitions has come to.

/// What is there for rows that had no partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::postgres) enum Help {
    /// Nothing that they could be tried again for.
    None,
    /// All of them have one.
    Made,
    /// The same, and somebody else has made it meanwhile.
    Found,
}

/// What an attempt has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) made: usize,
    /// Whether all that is needed is there.
    pub(super) is_enough: bool,
}

impl Outcome {
    pub(super) fn help(self) -> Help {
        match self {
            Self { is_enough: false, .. } => Help::None,
            Self { made: 0, .. } => Help::Found,
            Self { .. } => Help::Made,
        }
    }

    /// Whether the next attempt will come no further.
    pub(super) fn is_in_vain(self) -> bool {
        self.made == 0 && !self.is_enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_tried_again_if_all_have_a_place_whoever_made_it() {
        let outcome = |made, is_enough| Outcome { made, is_enough };
        assert_eq!(outcome(2, true).help(), Help::Made);
        assert_eq!(outcome(0, true).help(), Help::Found);
        assert_eq!(outcome(1_000, false).help(), Help::None);
        // A batch of too many days is halved, and each half gets what it lacks.
        assert!(!outcome(1_000, false).is_in_vain());
        assert!(!outcome(0, true).is_in_vain());
        assert!(outcome(0, false).is_in_vain());
    }
}
