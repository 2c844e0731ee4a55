//! Walks through states on a real kernel, as the compiler's tests take them on one in memory.
//!
//! A walk goes through a few generated clusters by events in any order, with commits, restarts of the agent and strangers
//! in between. After each commit the kernel, the mirror and the kernel in memory must hold the same table.

use std::fmt::Write;

use compiler::Compiler;
use compiler::api::NodeName;
use compiler::diff::{Limits, Mirror, next};
use compiler::nft::Deny;
use compiler::sim::events::{Reported, Watches};
use compiler::sim::generate::clusters_with_sandboxes;
use compiler::sim::{Cluster, Dice, Kernel, Release};
use netlink::Connection;

use super::listing::assert_same;
use super::support::{enter_network_namespace, nft_load, open};

/// How many walks are taken.
const WALKS: u64 = 30;
/// How many clusters each goes through.
const STATES: usize = 3;
/// What strangers do to the table: something that is foreign to us, and something that is not but makes the mirror stale.
const STRANGERS: [&str; 2] =
    ["add chain inet postern elsewhere { type filter hook output priority 0; }", "add counter inet postern elsewhere"];

struct Walk {
    deny: Deny,
    /// How many policies a pod may have before it is led to them by peer.
    most_jumps: usize,
    limits: Limits,
    reported: Reported,
    compiler: Compiler,
    connection: Connection,
    mirror: Mirror,
    /// The same, in memory. It has to take whatever the real one takes.
    double: Kernel,
    dice: Dice,
    /// What has been done, for whoever has to find out why it went wrong.
    log: String,
    commits: usize,
    restarts: usize,
    strangers: usize,
}

impl Walk {
    fn new(seed: u64, states: &[Cluster]) -> Walk {
        let mut dice = Dice::new(seed);
        let node = NodeName(states[0].node_names().next().unwrap().into());
        let deny = if dice.once_in(2) { Deny::Drop } else { Deny::Reject };
        let limits = Limits { weight: *dice.pick(&[1, 60, 200, 10_000]), defer_chain_delete: dice.once_in(2) };
        let most_jumps = *dice.pick(&[0, 2]);
        let mut connection = open();
        Walk {
            compiler: Compiler::new(node.clone(), deny).with_most_jumps(most_jumps),
            mirror: connection.dump().unwrap(),
            double: Kernel::new(if limits.defer_chain_delete { Release::AfterCommit } else { Release::AtOnce }),
            log: format!("walk {seed}, {limits:?}\n"),
            reported: Reported::new(node),
            commits: 0,
            restarts: 0,
            strangers: 0,
            deny,
            most_jumps,
            limits,
            connection,
            dice,
        }
    }

    fn go(&mut self, state: &Cluster, watches: Watches) {
        for event in self.reported.events_to(&state.parse(), watches, &mut self.dice) {
            writeln!(self.log, "{event:?}").unwrap();
            self.compiler.apply(event.clone());
            self.reported.apply(&event);
            if self.dice.once_in(3) {
                self.commit(true);
            }
            if self.dice.once_in(20) {
                self.restart();
            }
            if self.dice.once_in(20) {
                self.disturb();
            }
        }
    }

    /// Brings the kernel to the table; where it may be cut short, perhaps only some of the way.
    fn commit(&mut self, may_be_cut_short: bool) {
        let desired = self.compiler.table();
        while let Some(transaction) = next(&desired, &self.mirror, self.limits) {
            let ops: Vec<String> = transaction.ops().iter().map(ToString::to_string).collect();
            writeln!(self.log, "commit {ops:?}").unwrap();
            let expected = transaction.result().cloned();
            let in_memory = self.double.commit(&transaction);
            in_memory.unwrap_or_else(|refused| panic!("in memory: {refused}: {}", self.log));
            let committed = self.connection.commit(&transaction, self.mirror.generation);
            let committed = committed.unwrap_or_else(|error| panic!("{error}: {}", self.log));
            self.commits += 1;
            self.mirror.committed(transaction, committed.generation);
            let dump = self.connection.dump().unwrap();
            assert_eq!((dump.generation, dump.foreign), (committed.generation, vec![]), "{}", self.log);
            assert_eq!(dump.table, expected, "what is there is not the result: {}", self.log);
            assert_eq!(dump.table, self.mirror.table, "the mirror shows something else: {}", self.log);
            assert_eq!(dump.table, self.double.dump().table, "the double holds something else: {}", self.log);
            if may_be_cut_short && self.dice.once_in(4) {
                return;
            }
        }
        self.mirror.settled(desired);
    }

    /// The agent ends, and another starts: it is told everything anew, and reads back what the kernel holds.
    fn restart(&mut self) {
        self.log.push_str("restart\n");
        self.restarts += 1;
        self.compiler = self.reported.fresh_compiler(self.deny, self.most_jumps);
        self.connection = open();
        self.mirror = self.connection.dump().unwrap();
    }

    /// Somebody else writes into the table. The next commit is refused as stale, and changes nothing; a dump tells the
    /// truth.
    fn disturb(&mut self) {
        if self.mirror.table.is_none() {
            return;
        }
        let stranger = *self.dice.pick(&STRANGERS);
        writeln!(self.log, "{stranger}").unwrap();
        nft_load(stranger);
        self.strangers += 1;
        let found = self.connection.dump().unwrap();
        assert!(found != self.mirror, "a stranger is noticed: {}", self.log);
        if let Some(transaction) = next(&self.compiler.table(), &self.mirror, self.limits) {
            let error = self.connection.commit(&transaction, self.mirror.generation).unwrap_err();
            assert!(error.is_restart(), "{error}: {}", self.log);
            assert_eq!(self.connection.dump().unwrap(), found, "a stale commit changes nothing: {}", self.log);
        }
        self.mirror = found;
        // The double does not know strangers. The real table is replaced, or rid of what is too much.
        while let Some(transaction) = next(&self.compiler.table(), &self.mirror, self.limits) {
            let generation = self.connection.commit(&transaction, self.mirror.generation).unwrap().generation;
            self.mirror.committed(transaction, generation);
        }
        let mut double = self.double.dump();
        while let Some(transaction) = next(&self.compiler.table(), &double, self.limits) {
            let generation = self.double.commit(&transaction).unwrap();
            double.committed(transaction, generation);
        }
    }
}

pub(crate) fn after_each_commit_the_kernel_holds_the_mirror() {
    let mut drawn = clusters_with_sandboxes(11);
    let (mut commits, mut restarts, mut strangers) = (0, 0, 0);
    for seed in 0..WALKS {
        enter_network_namespace();
        let states: Vec<Cluster> = drawn.by_ref().take(STATES).collect();
        let mut walk = Walk::new(seed, &states);
        let watches = *walk.dice.pick(&Watches::ALL);
        for state in &states {
            walk.go(state, watches);
        }
        walk.commit(false);
        let (last, node) = (states.last().unwrap(), states[0].node_names().next().unwrap());
        let compiled = &last.compile(walk.deny)[node];
        let compiled = if walk.most_jumps == 0 { &compiled.by_peer } else { &compiled.table };
        assert_same(&walk.connection.dump().unwrap().table.unwrap(), compiled);
        commits += walk.commits;
        restarts += walk.restarts;
        strangers += walk.strangers;
    }
    let reached = format!("{commits} commits, {restarts} restarts, {strangers} strangers");
    assert!(commits > 500 && restarts > 30 && strangers > 30, "{reached}");
}
