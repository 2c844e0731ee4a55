//! Finds the policies because of which the kernel refuses a transaction, so that only they are left out.
//!
//! Mostly the kernel names the operation, and the operation its policies. Where it does not, all policies that the
//! transaction is about are left out, which brings everything else into force, and are then given back in halves: a
//! half that is taken was innocent, one that is refused is halved again.

use std::collections::BTreeSet;

use compiler::api::PolicyKey;
use compiler::diff::{Op, Transaction, policies_behind};
use compiler::nft::Table;
use netlink::Error;

/// What is still to be found out.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// Policies that are left out, in the groups in which they are given back.
    groups: Vec<Vec<PolicyKey>>,
    /// The group that has been given back, and about which the kernel has not decided yet.
    on_trial: Vec<PolicyKey>,
}

// === impl Suspects ===

impl Suspects {
    /// The policies to leave out after a refusal; none where it is about no policy. `tables` are those before and after
    /// the transaction, `policies` all that are enforced.
    pub(super) fn accuse<'a>(
        &mut self,
        error: &Error,
        transaction: &Transaction,
        tables: &[&Table],
        policies: impl Iterator<Item = &'a PolicyKey> + Clone,
    ) -> Vec<PolicyKey> {
        let named: Vec<&Op> = match error {
            Error::Refused(refusals) => refusals.iter().filter_map(|r| transaction.ops().get(r.op)).collect(),
            Error::BatchRefused(_) | Error::TooLarge { .. } => Vec::new(),
            Error::Socket { .. }
            | Error::Restart { .. }
            | Error::UnknownResult(_)
            | Error::Query { .. }
            | Error::Unsettled { .. }
            | Error::OwnedByOther { .. } => return Vec::new(),
        };
        let behind = |ops: &[&Op]| -> BTreeSet<PolicyKey> {
            ops.iter().flat_map(|op| policies_behind(op, tables, policies.clone())).cloned().collect()
        };
        // The first is the cause; those after it are mostly its consequences.
        let culprits = named.first().map(|op| behind(&[op]));
        // A map by peer is about all policies of a pod, most of them innocent.
        let is_shared = named.first().is_some_and(|op| matches!(op, Op::AddMap(..) | Op::AddMapElements(..)));
        let group: Vec<PolicyKey> = match culprits {
            Some(culprits) if !culprits.is_empty() && is_shared && !self.is_trying() => culprits.into_iter().collect(),
            Some(culprits) if !culprits.is_empty() && !is_shared => {
                self.on_trial.retain(|key| !culprits.contains(key));
                return culprits.into_iter().collect();
            }
            _ if self.is_trying() => std::mem::take(&mut self.on_trial),
            // It is about what every table has.
            Some(_) => return Vec::new(),
            None => behind(&transaction.ops().iter().collect::<Vec<_>>()).into_iter().collect(),
        };
        if group.len() > 1 {
            let (left, right) = group.split_at(group.len() / 2);
            self.groups.extend([right.to_vec(), left.to_vec()]);
        }
        group
    }

    /// The kernel holds what it should: whoever was on trial is innocent. The next group to be given back, if any.
    pub(super) fn acquit(&mut self) -> Option<&[PolicyKey]> {
        self.on_trial = self.groups.pop().unwrap_or_default();
        (!self.on_trial.is_empty()).then_some(&*self.on_trial)
    }

    /// Whether the kernel has yet to decide about policies that have been given back.
    pub(super) fn is_trying(&self) -> bool {
        !self.on_trial.is_empty()
    }
}
