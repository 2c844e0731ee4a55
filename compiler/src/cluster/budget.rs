//! What the policies of one namespace may cost a node.
//!
//! Whoever may write policies in a namespace decides what they cost, and everybody else of the node waits while the
//! kernel takes them in. So each namespace has a budget, far above what people write; a policy that does not fit into
//! it is *quarantined*: it isolates its pods and allows nothing, and all others are enforced. The cheapest policies of
//! the namespace are taken first, so that one that is too large does not displace the rest.

use std::fmt;

/// What policies cost in the kernel, for each address family that the pods of the node have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cost {
    /// Sets: one for the pods of each rule, for its blocks, its named ports, and long lists of ports.
    pub sets: usize,
    /// Rules.
    pub rules: usize,
    /// Elements of those sets.
    pub elements: usize,
    /// The ranges of the longest list of address blocks, an exception counting as one. Each change of a list costs the
    /// kernel the whole of it.
    pub longest_list: usize,
}

/// The most that the policies of one namespace that select pods of this node may cost together.
pub type Budget = Cost;

/// Why a policy is quarantined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Quarantine {
    /// It does not fit into the budget of its namespace.
    OverBudget {
        /// What there is too much of.
        of: Measure,
        /// What the policy and the cheaper ones of its namespace cost.
        cost: usize,
        /// What they may cost.
        limit: usize,
    },
    /// The kernel refuses what it becomes.
    Refused {
        /// In the kernel's words.
        reason: String,
    },
}

/// What is measured of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// [`Cost::sets`]
    Sets,
    /// [`Cost::rules`]
    Rules,
    /// [`Cost::elements`]
    Elements,
    /// [`Cost::longest_list`]
    LongestList,
}

impl Cost {
    /// The budget unless flags say otherwise, by measurement on Linux 6.18: so many sets take the kernel 0.25 s in all
    /// and every later change some 0.2 ms, so many rules 0.1 s, so many elements 1 s and 100 MiB, and a change of so
    /// long a list 15 ms.
    pub const DEFAULT_BUDGET: Budget = Cost { sets: 2_000, rules: 20_000, elements: 500_000, longest_list: 50_000 };

    /// Both together. The longest list of both is the longer one.
    pub(super) fn and(self, other: Cost) -> Cost {
        Cost {
            sets: self.sets + other.sets,
            rules: self.rules + other.rules,
            elements: self.elements + other.elements,
            longest_list: self.longest_list.max(other.longest_list),
        }
    }

    /// Why this is more than a budget; `None` where it fits.
    pub(super) fn exceeds(self, budget: Budget) -> Option<Quarantine> {
        let measures = [
            (Measure::Sets, self.sets, budget.sets),
            (Measure::Rules, self.rules, budget.rules),
            (Measure::Elements, self.elements, budget.elements),
            (Measure::LongestList, self.longest_list, budget.longest_list),
        ];
        let over = measures.into_iter().find(|(_, cost, limit)| cost > limit);
        over.map(|(of, cost, limit)| Quarantine::OverBudget { of, cost, limit })
    }
}

impl fmt::Display for Quarantine {
    /// `over the budget of its namespace: 2400 sets, the limit is 2000`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Quarantine::OverBudget { of, cost, limit } => {
                let of = match of {
                    Measure::Sets => "sets",
                    Measure::Rules => "rules of the table",
                    Measure::Elements => "elements of sets",
                    Measure::LongestList => "address blocks and exceptions in one rule",
                };
                write!(f, "over the budget of its namespace: {cost} {of}, the limit is {limit}")
            }
            Quarantine::Refused { reason } => write!(f, "the kernel refuses it: {reason}"),
        }
    }
}
