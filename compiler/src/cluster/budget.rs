//! What policies may cost a node.
//!
//! Whoever may write policies in a namespace decides what they cost, and everybody else of the node waits while the
//! kernel takes them in. So every policy has a budget, and so have all policies of a namespace together, far above what
//! people write. A policy that does not fit is *quarantined*: it isolates its pods and allows nothing, and all others
//! are enforced. The cheapest policies of a namespace are taken first, so that one that is too large does not displace
//! the rest.

use std::fmt;
use std::str::FromStr;

/// What policies cost in the kernel, for each address family that the pods of the node have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cost {
    /// Sets: one for the pods of each rule, for its blocks, its named ports, and long lists of ports.
    pub sets: usize,
    /// Rules.
    pub rules: usize,
    /// Elements of those sets; those that follow the pods count for the namespace only.
    pub elements: usize,
    /// The ranges of the longest list of address blocks, an exception counting as one.
    pub ranges: usize,
    /// How often it stands in the lists of policies that pods have: pods with the same policies share one list. Each
    /// list leads to its policies one after the other, in each direction. Counted where they are too many in all.
    pub jumps: usize,
}

/// The most that policies that select pods of this node may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Each alone.
    pub policy: Cost,
    /// All of one namespace together.
    pub namespace: Cost,
}

/// Why a policy is quarantined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Quarantine {
    /// It costs too much.
    OverBudget {
        /// Whose budget is exceeded.
        by: Spender,
        /// What there is too much of.
        of: Measure,
        /// How much it costs.
        cost: usize,
        /// How much it may cost.
        limit: usize,
    },
    /// The kernel refuses what it becomes.
    Refused {
        /// In the kernel's words.
        reason: String,
    },
}

/// Who has a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spender {
    /// A policy alone.
    Policy,
    /// The policies of a namespace: this one and the cheaper ones.
    Namespace,
}

/// What is measured of policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// [`Cost::sets`]
    Sets,
    /// [`Cost::rules`]
    Rules,
    /// [`Cost::elements`]
    Elements,
    /// [`Cost::ranges`]
    Ranges,
    /// [`Cost::jumps`]
    Jumps,
}

/// A text that is no [`Cost`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not one of sets=N, rules=N, elements=N, ranges=N, jumps=N")]
pub struct InvalidCost(String);

// === impl Budget ===

impl Default for Budget {
    /// By measurement on Linux 6.18. The rules of one policy are changed in one transaction, which so many keep within
    /// 20 ms, as so many ranges do; so many sets of a namespace take the kernel 1.4 s in all, in slices, and each
    /// later change 0.4 ms; so many elements 1 s, and 100 MiB here and there. All jumps of a namespace may be written anew
    /// when one of its policies comes or goes.
    fn default() -> Budget {
        Budget {
            policy: Cost { sets: 1_000, rules: 2_000, elements: 500_000, ranges: 50_000, jumps: 10_000 },
            namespace: Cost { sets: 5_000, rules: 50_000, elements: 500_000, ranges: 50_000, jumps: 10_000 },
        }
    }
}

// === impl Cost ===

impl Cost {
    /// Both together. The longest list of both is the longer one.
    pub(super) fn and(self, other: Cost) -> Cost {
        Cost {
            sets: self.sets + other.sets,
            rules: self.rules + other.rules,
            elements: self.elements + other.elements,
            ranges: self.ranges.max(other.ranges),
            jumps: self.jumps + other.jumps,
        }
    }

    /// The one without the other, which is part of it; the longest list aside.
    pub(super) fn less(self, other: Cost) -> Cost {
        Cost {
            sets: self.sets - other.sets,
            rules: self.rules - other.rules,
            elements: self.elements - other.elements,
            ranges: self.ranges,
            jumps: self.jumps - other.jumps,
        }
    }

    /// Fails where this is more than the limit.
    pub(super) fn within(self, limit: Cost, by: Spender) -> Result<(), Quarantine> {
        for of in Measure::ALL {
            let (cost, limit) = (self.measure(of), limit.measure(of));
            if cost > limit {
                return Err(Quarantine::OverBudget { by, of, cost, limit });
            }
        }
        Ok(())
    }

    fn measure(self, of: Measure) -> usize {
        match of {
            Measure::Sets => self.sets,
            Measure::Rules => self.rules,
            Measure::Elements => self.elements,
            Measure::Ranges => self.ranges,
            Measure::Jumps => self.jumps,
        }
    }

    fn measure_mut(&mut self, of: Measure) -> &mut usize {
        match of {
            Measure::Sets => &mut self.sets,
            Measure::Rules => &mut self.rules,
            Measure::Elements => &mut self.elements,
            Measure::Ranges => &mut self.ranges,
            Measure::Jumps => &mut self.jumps,
        }
    }

    /// The same with some measures replaced, as `sets=2000,rules=5000`.
    ///
    /// # Errors
    ///
    /// If a part is no measure with a number.
    pub fn with(mut self, text: &str) -> Result<Cost, InvalidCost> {
        for part in text.split(',') {
            let invalid = || InvalidCost(part.to_owned());
            let (name, number) = part.split_once('=').ok_or_else(invalid)?;
            let of = Measure::ALL.into_iter().find(|of| of.as_str() == name.trim()).ok_or_else(invalid)?;
            *self.measure_mut(of) = usize::from_str(number.trim()).map_err(|_| invalid())?;
        }
        Ok(self)
    }
}

impl fmt::Display for Cost {
    /// `sets=1000,rules=2000,elements=500000,ranges=50000,jumps=10000`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = Measure::ALL.map(|of| format!("{}={}", of.as_str(), self.measure(of)));
        f.write_str(&parts.join(","))
    }
}

// === impl Measure ===

impl Measure {
    const ALL: [Measure; 5] = [Measure::Sets, Measure::Rules, Measure::Elements, Measure::Ranges, Measure::Jumps];

    fn as_str(self) -> &'static str {
        match self {
            Measure::Sets => "sets",
            Measure::Rules => "rules",
            Measure::Elements => "elements",
            Measure::Ranges => "ranges",
            Measure::Jumps => "jumps",
        }
    }
}

impl fmt::Display for Quarantine {
    /// `it costs 2400 sets in the kernel, and a policy may cost 1000`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Quarantine::OverBudget { by: Spender::Policy, of, cost, limit } => {
                write!(f, "it costs {cost} {} in the kernel, and a policy may cost {limit}", of.as_str())
            }
            Quarantine::OverBudget { by: Spender::Namespace, of, cost, limit } => write!(
                f,
                "with the cheaper policies of its namespace it costs {cost} {} in the kernel, and they may cost {limit}",
                of.as_str()
            ),
            Quarantine::Refused { reason } => write!(f, "the kernel refuses what it becomes: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_read_as_they_are_printed() {
        let cost = Budget::default().policy;
        assert_eq!(Cost::default().with(&cost.to_string()), Ok(cost));
        assert_eq!(cost.with("rules=7, sets=9"), Ok(Cost { rules: 7, sets: 9, ..cost }));
        for invalid in ["", "sets", "sets=", "sets=-1", "chains=7", "sets=1,,rules=2"] {
            assert!(cost.with(invalid).is_err(), "{invalid}");
        }
    }
}
