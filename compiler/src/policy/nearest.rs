//! Which rule comes nearest to allowing what is refused, and the smallest change that would allow it.
//!
//! ```text
//! policies of the pod, by name -> rules, by index -> what each fails by -> the first with the fewest -> change
//! ```
//!
//! It is asked of policies as they are enforced, and reads them as they are written, because what people change is what
//! they have written.

mod change;
mod failing;

use std::net::IpAddr;
use std::sync::Arc;

use super::judge::ends;
use super::{Ir, Packet, judge};
use crate::api::{Direction, Pod, PolicyKey, Rule};
use crate::cluster::{Namespaces, Pods};

pub use change::Change;
use failing::{Failing, Question};

/// What is known of the ends of a packet.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The pods.
    pub pods: &'a Pods,
    /// Pods that are not among them: what the policies of a node do not mean, its agent does not know.
    pub strangers: &'a [Arc<Pod>],
    /// The Namespaces.
    pub namespaces: &'a Namespaces,
}

/// The rule that comes nearest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nearest {
    /// The policy, and the rule's index; `None` where the policies have no rule of this direction, or none that says
    /// anything.
    pub rule: Option<(PolicyKey, usize)>,
    /// What it fails by; empty where there is no rule.
    pub misses: Vec<Miss>,
    /// What would allow the packet in this direction; `None` where no change is small.
    pub change: Option<Change>,
    /// Whether there was more to look at than the effort allowed.
    pub partial: bool,
}

/// Something by which a rule does not allow a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss {
    /// Where it stands in the rule.
    pub part: Part,
    /// Why, in words: bounded in length, whatever stands in the rule.
    pub why: String,
}

/// A part of a rule, by the API's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// `ports`
    Ports,
    /// `podSelector` of a peer
    PodSelector,
    /// `namespaceSelector` of a peer, or that there is none
    NamespaceSelector,
    /// `ipBlock` of a peer, or its `except`
    IpBlock,
    /// `from` or `to`, in which nothing can be understood
    Peers,
}

/// How much may be looked at, in entries of rules: a tenant may write millions. Several questions can share one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effort {
    left: usize,
    used: usize,
}

/// The rule that comes nearest to letting a packet pass in one direction: that which fails by the fewest parts, of equals
/// the first by the name of its policy and by its index. Those of policies in quarantine are not in force, and do not
/// count.
///
/// An end that is a pod, and an entry that is an `ipBlock`, differ in two parts, and so do an entry of pods and an end that
/// is no pod: who wrote the one had not the other in mind.
///
/// `None` where the direction allows the packet, or refuses it for another reason than policies, or it is not known whose
/// policies would have to be others, because several pods have the address.
pub fn nearest(
    ir: &Ir,
    known: &Known<'_>,
    direction: Direction,
    packet: &Packet,
    effort: &mut Effort,
) -> Option<Nearest> {
    let (own, peer) = ends(direction, packet);
    let pod = ir.pods.iter().find(|pod| pod.addresses.contains(&own))?;
    if pod.shared_at(own).is_some() {
        return None;
    }
    let isolation = pod.isolation(direction)?;
    if judge(ir, direction, packet).allowed {
        return None;
    }
    let own_pod = known.pods.get(&pod.key).map(|pod| &**pod);
    let question =
        Question { direction, own: own_pod, peer: known.pod_at(peer), peer_address: peer, packet, known: *known };
    let mut best: Option<(usize, &PolicyKey, &Rule, Failing<'_>)> = None;
    let mut partial = false;
    'policies: for key in isolation.policies.iter() {
        let Some(policy) = ir.policies.get(key).filter(|policy| policy.quarantine.is_none()) else { continue };
        for rule in policy.source.rules(direction).unwrap_or_default() {
            if !effort.spend(failing::entries(rule)) {
                partial = true;
                break 'policies;
            }
            let failing = question.failing(rule);
            let parts = failing.parts();
            // A rule that fails by nothing is one that is not enforced yet.
            if parts > 0 && best.as_ref().is_none_or(|(fewest, ..)| parts < *fewest) {
                best = Some((parts, key, rule, failing));
            }
            if parts == 1 {
                break 'policies;
            }
        }
    }
    let near = best.as_ref().map(|(_, key, rule, failing)| (*key, *rule, failing));
    let change = change::smallest(ir, isolation, &question, near);
    Some(match best {
        None => Nearest { rule: None, misses: Vec::new(), change, partial },
        Some((_, key, rule, failing)) => {
            Nearest { rule: Some((key.clone(), rule.index)), misses: failing.misses(&question, rule), change, partial }
        }
    })
}

impl Known<'_> {
    fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        let stranger = || self.strangers.iter().find(|pod| pod.ips.contains(&address));
        self.pods.owner(address).or_else(stranger).map(|pod| &**pod)
    }
}

impl Part {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Part::Ports => "ports",
            Part::PodSelector => "podSelector",
            Part::NamespaceSelector => "namespaceSelector",
            Part::IpBlock => "ipBlock",
            Part::Peers => "peers",
        }
    }
}

impl Effort {
    /// What one question may take: some milliseconds. Two thousand policies with some entries each take a tenth of it.
    pub const OF_A_QUESTION: usize = 100_000;

    /// So many entries.
    pub fn of(entries: usize) -> Effort {
        Effort { left: entries, used: 0 }
    }

    /// How many have been looked at.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Whether nothing is left.
    pub fn is_spent(&self) -> bool {
        self.left == 0
    }

    fn spend(&mut self, entries: usize) -> bool {
        match self.left.checked_sub(entries) {
            Some(left) => {
                self.left = left;
                self.used += entries;
                true
            }
            None => {
                self.left = 0;
                false
            }
        }
    }
}

impl Default for Effort {
    fn default() -> Effort {
        Effort::of(Effort::OF_A_QUESTION)
    }
}

#[cfg(test)]
mod tests;
