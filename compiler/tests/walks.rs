//! State decides the table, history never.
//!
//! A walk goes through a few clusters, by events in any order, with commits and restarts of the agent in between. At
//! every step the compiler that has seen it all must say what a fresh one says; the kernel must take every transaction;
//! and after each of them the kernel's table must be that of one moment or the other, never something between.

use std::fmt::Write;

use compiler::Compiler;
use compiler::api::NodeName;
use compiler::diff::{Limits, Mirror, next};
use compiler::nft::trace::{TracedPacket, trace};
use compiler::nft::{Deny, Table};
use compiler::sim::events::{Reported, Watches};
use compiler::sim::generate::clusters;
use compiler::sim::{Cluster, Dice, Edges, Kernel, Release, traced};

/// Each goes through this many clusters.
const STATES: usize = 3;

/// An agent and its kernel on the way.
struct Walk {
    deny: Deny,
    limits: Limits,
    reported: Reported,
    compiler: Compiler,
    kernel: Kernel,
    mirror: Mirror,
    /// By which tables are compared: packets at the edges of all clusters of the walk.
    packets: Vec<TracedPacket>,
    dice: Dice,
    /// What has been done, for whoever has to find out why it went wrong.
    log: String,
    transactions: usize,
    restarts: usize,
}

impl Walk {
    fn new(seed: u64, states: &[Cluster]) -> Walk {
        let mut dice = Dice::new(seed);
        let node = NodeName(states[0].node_names().next().expect("every cluster has a node").into());
        let deny = if dice.once_in(2) { Deny::Drop } else { Deny::Reject };
        let limits = Limits { chunk: *dice.pick(&[1, 3, 10, 10_000]), defer_chain_delete: dice.once_in(2) };
        let kernel = Kernel::new(if limits.defer_chain_delete { Release::AfterCommit } else { Release::AtOnce });
        let reported = Reported::new(node.clone());
        let mut packets = Vec::new();
        for edges in states.iter().map(Edges::of) {
            packets.extend((0..30).map(|_| traced(&edges.packet(&mut dice))));
        }
        Walk {
            compiler: Compiler::new(node, deny),
            mirror: kernel.dump(),
            log: format!("walk {seed}, {limits:?}\n"),
            transactions: 0,
            restarts: 0,
            deny,
            limits,
            reported,
            kernel,
            packets,
            dice,
        }
    }

    /// From what has been reported to the next cluster.
    fn go(&mut self, state: &Cluster, watches: Watches) {
        for event in self.reported.events_to(&state.parse(), watches, &mut self.dice) {
            writeln!(self.log, "{event:?}").expect("a String takes all that is written");
            self.compiler.apply(event.clone());
            self.reported.take(&event);
            let fresh = self.reported.fresh_compiler(self.deny).table();
            assert_eq!(self.compiler.table(), fresh, "history decides the table: {}", self.log);
            if self.dice.once_in(3) {
                self.commit(true);
            }
            if self.dice.once_in(20) {
                self.restart();
            }
        }
    }

    /// Brings the kernel to the table; where it may be cut short, perhaps only some of the way.
    fn commit(&mut self, may_be_cut_short: bool) {
        let desired = self.compiler.table();
        // Every transaction loads at least one key, or is one of the last two.
        for _ in 0..10_000 {
            let Some(transaction) = next(&desired, &self.mirror, self.limits) else {
                assert_eq!(self.kernel.dump().table.as_ref(), Some(&desired), "not the desired table: {}", self.log);
                self.mirror.settled(desired);
                return;
            };
            let before = self.kernel.dump().table;
            let ops: Vec<String> = transaction.ops().iter().map(ToString::to_string).collect();
            writeln!(self.log, "commit {ops:?}").expect("a String takes all that is written");
            let generation =
                self.kernel.commit(&transaction).unwrap_or_else(|refused| panic!("{refused}: {}", self.log));
            self.transactions += 1;
            self.mirror.committed(transaction, generation);
            let now = self.kernel.dump();
            assert_eq!(now.table, self.mirror.table, "the mirror shows something else: {}", self.log);
            self.assert_of_one_moment(before.as_ref(), now.table.as_ref(), &desired);
            if may_be_cut_short && self.dice.once_in(4) {
                return;
            }
        }
        panic!("there is no end to the transactions: {}", self.log);
    }

    /// A pod must at no moment be less isolated than both before and after: all packets fare as they did, or all fare
    /// as they will.
    fn assert_of_one_moment(&self, before: Option<&Table>, now: Option<&Table>, desired: &Table) {
        let [before, now, after] = [before, now, Some(desired)].map(|table| self.verdicts(table));
        assert!(now == before || now == after, "the table is of no moment: {}", self.log);
    }

    fn verdicts(&self, table: Option<&Table>) -> Vec<bool> {
        // Without a table, or before it has its base chains, everything passes.
        let verdict = |chain, packet| table.and_then(|table| trace(table, chain, packet)).is_none_or(|t| t.accepted);
        let all = |packet| ["egress", "ingress", "to-node"].map(|chain| verdict(chain, packet));
        self.packets.iter().flat_map(all).collect()
    }

    /// The agent ends, and another starts: it is told everything anew, and reads back what the kernel holds.
    fn restart(&mut self) {
        self.log.push_str("restart\n");
        self.restarts += 1;
        self.compiler = self.reported.fresh_compiler(self.deny);
        self.mirror = self.kernel.dump();
        if self.dice.once_in(4) {
            // Something that another version of the agent wrote: the table is replaced.
            self.mirror.foreign.push("chain from-elsewhere".to_string());
        }
    }
}

#[test]
fn any_way_leads_to_the_same_table() {
    let mut drawn = clusters(3);
    let (mut transactions, mut restarts, mut refusals) = (0, 0, 0);
    for seed in 0..250 {
        let states: Vec<Cluster> = drawn.by_ref().take(STATES).collect();
        let mut walk = Walk::new(seed, &states);
        let watches = *walk.dice.pick(&Watches::ALL);
        for state in &states {
            walk.go(state, watches);
        }
        walk.commit(false);
        let last = states.last().expect("there are some");
        let node = states[0].node_names().next().expect("every cluster has a node");
        let compiled = &last.compile(walk.deny)[node].table;
        assert_eq!(walk.kernel.dump().table.as_ref(), Some(compiled), "another table: {}", walk.log);
        transactions += walk.transactions;
        restarts += walk.restarts;
        refusals += walk.verdicts(Some(compiled)).into_iter().filter(|accepted| !accepted).count();
    }
    println!("{transactions} transactions, {restarts} restarts");
    assert!(transactions > 2_000 && restarts > 200, "{transactions} transactions, {restarts} restarts");
    assert!(refusals > 2_000, "the packets that tell tables apart: {refusals} are refused");
}

#[test]
fn every_transaction_of_a_load_in_chunks_is_of_one_moment() {
    // From nothing, and from each other, in chunks of one key.
    let states: Vec<Cluster> = clusters(4).take(40).collect();
    for (seed, pair) in (0..).zip(states.windows(2)) {
        let mut walk = Walk::new(seed, pair);
        walk.limits.chunk = 1;
        for state in pair {
            for event in state.parse().events() {
                walk.compiler.apply(event);
            }
            walk.commit(false);
        }
    }
}
