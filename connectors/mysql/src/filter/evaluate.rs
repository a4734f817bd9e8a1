//! Logic with unknowns.

/// What a condition says of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// SQL's NULL: neither.
    Null,
    /// It depends on a column that the event does not carry.
    Untold,
}

impl Truth {
    pub(super) fn of(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }

    pub(super) fn not(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            unknown => unknown,
        }
    }

    /// One False decides; one that is not told outweighs NULL, since it may turn out False.
    pub(super) fn all(list: impl Iterator<Item = Self>) -> Self {
        let mut so_far = Self::True;
        for one in list {
            so_far = match (so_far, one) {
                (_, Self::False) => return Self::False,
                (Self::Untold, _) | (_, Self::Untold) => Self::Untold,
                (Self::Null, _) | (_, Self::Null) => Self::Null,
                _ => Self::True,
            };
        }
        so_far
    }

    pub(super) fn any(list: impl Iterator<Item = Self>) -> Self {
        Self::all(list.map(Self::not)).not()
    }
}

#[cfg(test)]
mod tests {
    use super::Truth::{self, False, Null, True, Untold};

    #[test]
    fn unknowns_decide_nothing_that_another_part_decides() {
        let all = |list: &[Truth]| Truth::all(list.iter().copied());
        let any = |list: &[Truth]| Truth::any(list.iter().copied());
        assert_eq!((all(&[Null, False]), all(&[Untold, False])), (False, False));
        assert_eq!((any(&[Null, True]), any(&[Untold, True])), (True, True));
        assert_eq!((all(&[Null, True]), any(&[Null, False])), (Null, Null));
        assert_eq!((all(&[Null, Untold]), any(&[Untold, Null])), (Untold, Untold));
        assert_eq!((Null.not(), Untold.not()), (Null, Untold));
    }
}
