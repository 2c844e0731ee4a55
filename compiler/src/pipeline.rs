//! The stages in a row: events in, the desired table out.

use crate::api::{NodeName, PolicyKey};
use crate::cluster::{Budget, Event, State};
use crate::flows::OpenFlows;
use crate::nft::{Deny, LogGroup, Lowerer, Table, ranges_of};
use crate::policy::{Ir, OwnAddresses, Resolver};

/// The compiler of one node: its state, and what later stages remember of unchanged parts.
///
/// What it compiles is a function of the objects in the state and of [`Deny`]; the memory only saves work. What
/// [`OpenFlows`] adds to the table is the one thing that depends on what was in force before.
#[derive(Debug)]
pub struct Compiler {
    state: State,
    resolver: Resolver,
    lowerer: Lowerer,
    flows: Option<OpenFlows>,
}

impl Compiler {
    /// A compiler for a node, with nothing in its state.
    pub fn new(node: NodeName, deny: Deny) -> Compiler {
        Compiler::with_budget(node, deny, Budget::default())
    }

    /// The same, where policies may cost so much.
    pub fn with_budget(node: NodeName, deny: Deny, budget: Budget) -> Compiler {
        Compiler {
            state: State::with_budget(node, budget),
            resolver: Resolver::default(),
            lowerer: Lowerer::new(deny),
            flows: None,
        }
    }

    /// The same, whose pods with more policies than this are led to them by peer. The table enforces the same.
    pub fn with_most_jumps(self, most_jumps: usize) -> Compiler {
        Compiler { lowerer: self.lowerer.with_most_jumps(most_jumps), ..self }
    }

    /// The same, whose tables tell of refused packets to another group than the default one, or to nobody.
    pub fn logging(self, log: Option<LogGroup>) -> Compiler {
        Compiler { lowerer: self.lowerer.logging(log), ..self }
    }

    /// The same, whose tables refuse open flows that are not allowed any more.
    pub fn cutting_flows(self) -> Compiler {
        Compiler { flows: Some(OpenFlows::default()), ..self }
    }

    /// The same, that says whose packets must have a source of their own.
    pub fn checking(self, own_addresses: OwnAddresses) -> Compiler {
        Compiler { resolver: Resolver::checking(own_addresses), ..self }
    }

    /// The open flows, if they are taken care of.
    pub fn flows(&self) -> Option<&OpenFlows> {
        self.flows.as_ref()
    }

    /// The same, to tell what was found of them.
    pub fn flows_mut(&mut self) -> Option<&mut OpenFlows> {
        self.flows.as_mut()
    }

    /// Takes over an event, and says whether anything is different afterwards.
    pub fn apply(&mut self, event: Event) -> bool {
        self.state.apply(event)
    }

    /// Takes over what a table of before knew and nobody has told of yet: the ranges of the node's pods, so that the gate
    /// stays shut until it is known that they are others.
    pub fn adopt(&mut self, table: &Table) {
        self.state.adopt_pod_ranges(ranges_of(table));
    }

    /// Decides which policies do not fit into their budgets; see [`State::decide`]. The IR and the table do so, too.
    pub fn decide(&mut self) {
        self.state.decide();
    }

    /// The state as it is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Quarantines a policy because the kernel refuses what it becomes; see [`State::refuse`].
    pub fn refuse(&mut self, policy: &PolicyKey, reason: String) {
        self.state.refuse(policy, reason);
    }

    /// Takes that back; see [`State::pardon`].
    pub fn pardon(&mut self, policies: &[PolicyKey]) {
        self.state.pardon(policies);
    }

    /// Gives every policy in quarantine another chance; see [`State::reconsider`].
    pub fn reconsider(&mut self) {
        self.state.reconsider();
    }

    /// Who may talk to whom, as the state has it.
    pub fn ir(&mut self) -> Ir {
        self.decide();
        self.resolver.resolve(&self.state)
    }

    /// The table that enforces the state.
    pub fn table(&mut self) -> Table {
        let ir = self.ir();
        let table = self.lowerer.lower(&ir);
        match &mut self.flows {
            None => table,
            Some(flows) => {
                flows.follow(&ir);
                flows.add_to(table)
            }
        }
    }
}

#[cfg(test)]
mod counts;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::lower;
    use crate::testing::{NODE, ip, pod, policy};

    #[test]
    fn the_ranges_of_before_stand_until_others_are_told() {
        let compiler = || Compiler::new(NodeName(NODE.into()), Deny::Drop);
        let web = || Event::from(pod("a/web").ip("10.1.0.1"));
        let ranges = |list: &[&str]| Event::PodRanges(list.iter().map(|range| range.parse().unwrap()).collect());
        let mut before = compiler();
        before.apply(ranges(&["10.1.0.0/24", "10.1.1.0/24", "10.1.2.0/25"]));
        before.apply(web());
        let mut after = compiler();
        after.apply(web());
        after.adopt(&before.table());
        assert_eq!(after.table(), before.table());
        assert!(after.apply(ranges(&[])), "there are none");
        assert!(!after.ir().gate.guards(ip("10.1.0.9")));
        after.adopt(&before.table());
        assert!(!after.ir().gate.guards(ip("10.1.0.9")), "what is told counts, also that there is nothing");
    }

    #[test]
    fn an_event_reaches_the_table_and_says_whether_it_matters() {
        let mut compiler = Compiler::new(NodeName(NODE.into()), Deny::Reject);
        let of_nobody = compiler.table();
        assert!(compiler.apply(policy("a/deny").ingress([]).into()));
        assert!(compiler.apply(pod("a/web").ip("10.0.0.1").into()));
        assert!(!compiler.apply(pod("a/web").ip("10.0.0.1").into()), "the same again");
        let table = compiler.table();
        assert_ne!(table, of_nobody);
        assert_eq!(table, lower(&compiler.ir(), Deny::Reject));
    }
}
