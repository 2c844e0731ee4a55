//! What becomes of open flows when policies change.
//!
//! The rules let packets of established flows pass without another look, and so a flow that was allowed when it began
//! would go on for as long as it likes. To delete its entry in connection tracking does not end it: a reply that is on
//! its way makes a new entry, the wrong way round, whose "replies" are what was to be cut.
//!
//! So nothing is deleted. When the verdict on a pod's flows may have become stricter, its addresses are *rejudged* in the
//! same transaction: what the first sender of such a flow sends is judged like a packet of a new flow, by the same chains.
//! From then on no refused flow is of use to whoever opened it, with or without the agent. Then the open flows are
//! reviewed, once, outside the kernel: those that are refused are *cut*, which holds for both directions, and the pods
//! need no rejudging any more. A flow stays cut until it is gone, or is allowed again.
//!
//! New addresses are rejudged too, so that a pod does not inherit flows of the one that had the address before.

mod changes;
mod review;
mod speakers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::nft::{Key, SetName, Table, add_open_flows, without_open_flows};
use crate::policy::{Ir, LocalPod};
use changes::Changes;
use review::ends;
pub use review::{Flow, Inspection, Judge, Review, Reviewed};
use speakers::Speakers;

/// The most flows that are cut at once. Pods with more refused flows are rejudged for as long as they have them.
pub const MOST_CUT: usize = 4096;

/// The open flows that the rules take care of, as they follow one IR after the other.
#[derive(Debug, Default)]
pub struct OpenFlows {
    /// The last IR.
    before: Option<Ir>,
    /// Who speaks of whom in it.
    speakers: Speakers,
    /// The addresses that are rejudged, each with the number of the change since which it is.
    rejudged: BTreeMap<IpAddr, u64>,
    /// The flows that are cut, as [`Key`]s from client to server.
    cut: Arc<BTreeSet<Key>>,
    /// Counts changes.
    number: u64,
    /// The change up to which flows have been reviewed.
    reviewed: u64,
    /// What was last made of which table.
    made: Option<(Table, Table)>,
    /// What the kernel held when this life began, without what it said about open flows.
    adopted: Option<Adopted>,
}

#[derive(Debug)]
struct Adopted {
    plain: Table,
    rejudged: BTreeSet<IpAddr>,
}

/// Whether open flows are to be reviewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// There is nothing to look for.
    Nothing,
    /// Only whether what was found is still there.
    Again,
    /// Flows that nobody has looked at since the policies changed.
    News,
}

// === impl OpenFlows ===

impl OpenFlows {
    /// Takes over what a former life said of open flows in a table that the kernel holds. If that is the first table that
    /// this life makes, no flow has to be judged again but for those that the former life had not come to.
    pub fn adopt(&mut self, table: &Table) {
        let keys = |of: fn(&SetName) -> bool| {
            table.sets.iter().filter(move |(name, _)| of(name)).flat_map(|(_, set)| set.keys.iter().copied())
        };
        // Each flow is there in both directions, and which one it began with is not: both are kept until they are reviewed.
        Arc::make_mut(&mut self.cut).extend(keys(SetName::is_of_cut_flows));
        let rejudged = keys(SetName::is_of_rejudged).filter_map(|key| key.as_address()).collect();
        self.adopted = Some(Adopted { plain: without_open_flows(table), rejudged });
        self.made = None;
    }

    /// Takes over who may talk to whom from now on.
    pub fn follow(&mut self, ir: &Ir) {
        self.speakers.follow(ir);
        // Whom a change only opens to matters to flows that are cut.
        let Changes { touched, narrowed, pods_changed } =
            Changes::between(self.before.as_ref(), ir, &self.speakers, !self.cut.is_empty());
        self.before = Some(ir.clone());
        if touched.is_empty() && narrowed.is_empty() && !pods_changed {
            return;
        }
        self.made = None;
        if !narrowed.is_empty() {
            self.number += 1;
            self.rejudged.extend(narrowed.into_iter().map(|address| (address, self.number)));
        }
        if pods_changed && !self.rejudged.is_empty() {
            let isolated: BTreeSet<IpAddr> = ir.pods.iter().flat_map(isolated_addresses).collect();
            self.rejudged.retain(|address, _| isolated.contains(address));
        }
        if !self.cut.is_empty() {
            let judge = Judge::new(ir);
            let concerns = |key: &Key| ends(key).is_some_and(|ends| ends.iter().any(|end| touched.contains(end)));
            Arc::make_mut(&mut self.cut).retain(|key| !concerns(key) || judge.refuses_key(key));
        }
    }

    /// Adds what open flows need to the table of the last IR.
    pub fn add_to(&mut self, table: Table) -> Table {
        if let Some(Adopted { plain, rejudged }) = self.adopted.take()
            && plain == table
        {
            self.rejudged.retain(|address, _| rejudged.contains(address));
        }
        if self.rejudged.is_empty() && self.cut.is_empty() {
            return table;
        }
        if let Some((from, made)) = &self.made
            && from.is_same(&table)
        {
            return made.clone();
        }
        let mut made = table.clone();
        add_open_flows(&mut made, self.rejudged.keys().copied(), &self.cut);
        self.made = Some((table, made.clone()));
        made
    }

    /// Whether open flows are to be reviewed.
    pub fn need(&self) -> Need {
        if self.rejudged.values().any(|number| *number > self.reviewed) {
            Need::News
        } else if self.rejudged.is_empty() && self.cut.is_empty() {
            Need::Nothing
        } else {
            Need::Again
        }
    }

    /// What to look for among the open flows; `None` before there is an IR. Nothing is missed if that is done when the
    /// kernel holds what [`OpenFlows::add_to`] made: later flows are judged as they begin.
    pub fn review(&self) -> Option<Review> {
        let ir = self.before.clone()?;
        let addresses = self.rejudged.keys().copied().collect();
        Some(Review { number: self.number, ir, addresses, cut: self.cut.clone() })
    }

    /// Takes over what a review found. What has been narrowed again since then is reviewed again.
    pub fn reviewed(&mut self, found: Reviewed) {
        let Reviewed { number, mut refused, gone, unfinished } = found;
        self.reviewed = self.reviewed.max(number);
        self.made = None;
        self.rejudged.retain(|address, since| *since > number || unfinished.contains(address));
        // What has been opened since then does not count as a change here.
        if let Some(ir) = &self.before {
            let judge = Judge::new(ir);
            refused.retain(|key| judge.refuses_key(key));
        }
        let cut = Arc::make_mut(&mut self.cut);
        cut.retain(|key| !gone.contains(key));
        cut.extend(refused);
    }

    /// The addresses that are rejudged.
    pub fn rejudged(&self) -> impl ExactSizeIterator<Item = IpAddr> {
        self.rejudged.keys().copied()
    }

    /// The flows that are cut, from client to server.
    pub fn cut(&self) -> &BTreeSet<Key> {
        &self.cut
    }
}

/// The addresses of a pod that are isolated in any direction.
fn isolated_addresses(pod: &LocalPod) -> impl Iterator<Item = IpAddr> {
    pod.addresses.iter().copied().filter(|address| pod.is_isolated_at(*address))
}

#[cfg(test)]
mod tests;
