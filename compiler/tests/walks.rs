//! State decides the table, history never.
//!
//! A walk goes through a few clusters, by events in any order, with commits and restarts of the agent in between. At
//! every step the compiler that has seen it all must say what a fresh one says; the kernel must take every transaction;
//! and after each of them the kernel's table must be that of one moment or the other, never something between.

use std::fmt::Write;
use std::sync::Arc;

use compiler::Compiler;
use compiler::api::{NetworkPolicy, NodeName, PolicyKey};
use compiler::cluster::{Change, Event, PodSource, Sandbox, State};
use compiler::diff::{Limits, Mirror, Way};
use compiler::nft::trace::{TracedPacket, trace};
use compiler::nft::{Chain, Deny, SetName, Table, VerdictMap};
use compiler::sim::events::{Reported, Watches};
use compiler::sim::generate::clusters_with_sandboxes;
use compiler::sim::{Cluster, Dice, Edges, Kernel, Release, traced};

/// Each goes through this many clusters.
const STATES: usize = 3;
/// What judges packets.
const BASE_CHAINS: [&str; 3] = ["egress", "ingress", "to-node"];

/// An agent and its kernel on the way.
struct Walk {
    deny: Deny,
    /// How many policies a pod may have before it is led to them by peer.
    most_jumps: usize,
    limits: Limits,
    reported: Reported,
    compiler: Compiler,
    kernel: Kernel,
    mirror: Mirror,
    way: Way,
    /// What was desired at the last two transactions, the later first.
    aims: Vec<Table>,
    /// By which tables are compared: packets at the edges of all clusters of the walk.
    packets: Vec<TracedPacket>,
    dice: Dice,
    /// What has been done, for whoever has to find out why it went wrong.
    log: String,
    transactions: usize,
    restarts: usize,
    /// How often a pod was remembered whose network has outlived it.
    lingered: usize,
    /// How many clusters it has gone to: the version of what there is in the last.
    clusters: u64,
}

impl Walk {
    fn new(seed: u64, states: &[Cluster]) -> Walk {
        let mut dice = Dice::new(seed);
        let node = NodeName(states[0].node_names().next().expect("every cluster has a node").into());
        let deny = if dice.once_in(2) { Deny::Drop } else { Deny::Reject };
        let limits = Limits { weight: *dice.pick(&[1, 60, 200, 10_000]), defer_chain_delete: dice.once_in(2) };
        let most_jumps = *dice.pick(&[0, 0, 1, 2]);
        let kernel = Kernel::new(if limits.defer_chain_delete { Release::AfterCommit } else { Release::AtOnce });
        let reported = Reported::new(node.clone());
        let mut packets = Vec::new();
        for edges in states.iter().map(Edges::of) {
            packets.extend((0..30).map(|_| traced(&edges.packet(&mut dice))));
        }
        Walk {
            compiler: Compiler::new(node, deny).with_most_jumps(most_jumps),
            mirror: kernel.dump(),
            way: Way::default(),
            aims: Vec::new(),
            log: format!("walk {seed}, {limits:?}\n"),
            transactions: 0,
            restarts: 0,
            lingered: 0,
            clusters: 0,
            deny,
            most_jumps,
            limits,
            reported,
            kernel,
            packets,
            dice,
        }
    }

    /// From what has been reported to the next cluster.
    fn go(&mut self, state: &Cluster, watches: Watches) {
        let mut next = state.parse();
        self.clusters += 1;
        next.pods.iter_mut().for_each(|pod| pod.version = self.clusters);
        for event in self.reported.events_to(&next, watches, &mut self.dice) {
            writeln!(self.log, "{event:?}").expect("a String takes all that is written");
            self.compiler.apply(event.clone());
            self.reported.apply(&event);
            self.assert_without_history();
            if self.dice.once_in(3) {
                self.commit(true);
            }
            if self.dice.once_in(20) {
                self.restart();
            }
        }
        self.end_networks(state);
    }

    /// A compiler that has seen it all says what a fresh one says, unless it remembers a pod whose network has outlived it.
    fn assert_without_history(&mut self) {
        if !self.compiler.state().pods().of_source(&PodSource::Lingering).is_empty() {
            self.lingered += 1;
            return;
        }
        let fresh = self.fresh_compiler().table();
        assert_eq!(self.compiler.table(), fresh, "history decides the table: {}", self.log);
    }

    /// The networks of all pods end that are gone, so that nothing lingers.
    fn end_networks(&mut self, state: &Cluster) {
        let sandboxes = state.parse().sandboxes_of(self.compiler.state().node());
        for event in [Event::Sandboxes(Vec::new()), Event::Sandboxes(sandboxes)] {
            writeln!(self.log, "{event:?}").expect("a String takes all that is written");
            self.compiler.apply(event.clone());
            self.reported.apply(&event);
            assert!(self.compiler.state().pods().of_source(&PodSource::Lingering).is_empty(), "{}", self.log);
            self.assert_without_history();
        }
    }

    /// Brings the kernel to the table; where it may be cut short, perhaps only some of the way.
    fn commit(&mut self, may_be_cut_short: bool) {
        let desired = self.compiler.table();
        // Every transaction loads at least one key, or is one of the last two.
        for _ in 0..10_000 {
            let Some(transaction) = self.way.next(&desired, &self.mirror, self.limits) else {
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
            // A transaction may end what was begun when something else was desired: to go ahead, to change, and to open the
            // gate are three.
            let aims = self.aims.iter().chain([&desired]);
            let moments: Vec<_> =
                aims.map(|aim| self.of_one_moment(before.as_ref(), now.table.as_ref(), aim)).collect();
            assert!(moments.iter().any(Result::is_ok), "{moments:?}: {}", self.log);
            self.aims.insert(0, desired.clone());
            self.aims.truncate(2);
            if may_be_cut_short && self.dice.once_in(4) {
                return;
            }
        }
        panic!("there is no end to the transactions: {}", self.log);
    }

    /// Brings the kernel to the table. What is on its way during a transaction fares as before it or as after it. Says how
    /// many verdicts change.
    fn commit_with_packets_on_their_way(&mut self) -> usize {
        let desired = self.compiler.table();
        let mut changes = 0;
        while let Some(transaction) = self.way.next(&desired, &self.mirror, self.limits) {
            let before = self.kernel.dump().table;
            let ops: Vec<String> = transaction.ops().iter().map(ToString::to_string).collect();
            writeln!(self.log, "commit {ops:?}").expect("a String takes all that is written");
            let generation = self.kernel.commit(&transaction).expect("the kernel takes each of them");
            self.mirror.committed(transaction, generation);
            self.transactions += 1;
            let (Some(before), Some(now)) = (before, self.kernel.dump().table) else { continue };
            let [was, is] = [&before, &now].map(|table| self.verdicts(Some(table)));
            // Of a gate that has not stood, packets on their way know nothing: those of an address that loses its pod
            // in that very transaction, and that the gate alone refuses afterwards, may pass.
            let gate_comes = !is_gated(&before) && is_gated(&now);
            changes += was.iter().zip(&is).filter(|(was, is)| was != is).count();
            let moments = [on_the_way(&before, &now), past_the_dispatch(&before, &now)];
            let [between, past] = moments.map(|table| self.verdicts(Some(&table)));
            for (place, (was, is)) in was.into_iter().zip(is).enumerate() {
                let (between, past) = (between[place], past[place]);
                let packet = &self.packets[place / BASE_CHAINS.len()];
                // The rules have nothing for a family of which no pod is isolated, and so one that comes may be refused
                // what it is allowed.
                let is_fine =
                    between == was || between == is || (!between && isolates_none(&before, packet)) || gate_comes;
                assert!(is_fine, "{was}, {between}, {is}: {packet:?}\n{before}\n{now}\n{}", self.log);
                assert!(
                    was || is || !past || gate_comes,
                    "passes for a moment: {packet:?}\n{before}\n{now}\n{}",
                    self.log
                );
            }
        }
        changes
    }

    /// All packets fare as they did, or all fare as they will. Where the way has stages the policies may come one after
    /// the other: then a packet that passes did pass, or will, or does where some policies are as they were and the
    /// others as they will be; and a pod that was isolated, and will be, is.
    fn of_one_moment(&self, before: Option<&Table>, now: Option<&Table>, desired: &Table) -> Result<(), String> {
        let [was, is, will_be] = [before, now, Some(desired)].map(|table| self.verdicts(table));
        if is == was || is == will_be {
            return Ok(());
        }
        let mixed = self.verdicts(Some(&mixed(before, desired)));
        for ((was, is), (will_be, mixed)) in was.into_iter().zip(is).zip(will_be.into_iter().zip(mixed)) {
            if is && !(was || will_be || mixed) {
                return Err("a packet passes that never may".to_string());
            }
        }
        for (map, elements) in before.into_iter().flat_map(|table| &table.maps) {
            let stays = |table: Option<&Table>, key| {
                table.and_then(|table| table.maps.get(map)).is_some_and(|map| map.elements.contains_key(key))
            };
            for key in elements.elements.keys().filter(|key| stays(Some(desired), *key)) {
                if !stays(now, key) {
                    return Err(format!("{key} is not isolated for a moment"));
                }
            }
        }
        Ok(())
    }

    fn verdicts(&self, table: Option<&Table>) -> Vec<bool> {
        // Without a table, or before it has its base chains, everything passes.
        let verdict = |chain, packet| table.and_then(|table| trace(table, chain, packet)).is_none_or(|t| t.accepted);
        let all = |packet| BASE_CHAINS.map(|chain| verdict(chain, packet));
        self.packets.iter().flat_map(all).collect()
    }

    fn fresh_compiler(&self) -> Compiler {
        self.reported.fresh_compiler(self.deny, self.most_jumps)
    }

    /// The agent ends, and another starts: it is told everything anew, and reads back what the kernel holds.
    fn restart(&mut self) {
        self.log.push_str("restart\n");
        self.restarts += 1;
        self.compiler = self.fresh_compiler();
        self.mirror = self.kernel.dump();
        self.way = Way::default();
        self.aims.clear();
        if self.dice.once_in(4) {
            // Something that another version of the agent wrote: the table is replaced.
            self.mirror.foreign.push("chain from-elsewhere".to_string());
        }
    }
}

/// The desired table, where the chain of every policy has the rules of before too.
fn mixed(before: Option<&Table>, desired: &Table) -> Table {
    let mut mixed = desired.clone();
    let Some(before) = before else { return mixed };
    for (name, chain) in &desired.chains {
        if let Some(before) = before.chains.get(name).filter(|_| name.is_of_policy()) {
            let rules = chain.rules.iter().chain(&before.rules).cloned().collect();
            mixed.chains.insert(name.clone(), Arc::new(Chain { rules, ..Chain::clone(chain) }));
        }
    }
    for (name, set) in &before.sets {
        mixed.sets.entry(name.clone()).or_insert_with(|| set.clone());
    }
    mixed
}

#[test]
fn any_way_leads_to_the_same_table() {
    let mut drawn = clusters_with_sandboxes(3);
    let (mut transactions, mut restarts, mut refusals, mut lingered) = (0, 0, 0, 0);
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
        let compiled = &last.compile(walk.deny)[node];
        let compiled = match walk.most_jumps {
            0 => &compiled.by_peer,
            2 => &compiled.table,
            _ => &walk.fresh_compiler().table(),
        };
        assert_eq!(walk.kernel.dump().table.as_ref(), Some(compiled), "another table: {}", walk.log);
        transactions += walk.transactions;
        restarts += walk.restarts;
        lingered += walk.lingered;
        refusals += walk.verdicts(Some(compiled)).into_iter().filter(|accepted| !accepted).count();
    }
    println!("{transactions} transactions, {restarts} restarts, {lingered} steps with a pod that lingers");
    assert!(lingered > 100, "pods that linger: {lingered} steps");
    assert!(transactions > 2_000 && restarts > 200, "{transactions} transactions, {restarts} restarts");
    assert!(refusals > 2_000, "the packets that tell tables apart: {refusals} are refused");
}

#[test]
fn every_transaction_of_a_load_in_stages_is_of_one_moment() {
    // From nothing, and from each other, a key at a time.
    let states: Vec<Cluster> = clusters_with_sandboxes(4).take(40).collect();
    for (seed, pair) in (0..).zip(states.windows(2)) {
        let mut walk = Walk::new(seed, pair);
        walk.limits.weight = 1;
        for state in pair {
            let parsed = state.parse();
            for event in parsed.events() {
                walk.compiler.apply(event);
            }
            let sandboxes = parsed.sandboxes_of(walk.compiler.state().node());
            walk.compiler.apply(Event::Sandboxes(sandboxes));
            walk.commit(false);
        }
    }
}

/// Whether a table isolates no pod of the packet's family.
fn isolates_none(table: &Table, packet: &TracedPacket) -> bool {
    let family = if packet.destination.is_ipv4() { "v4" } else { "v6" };
    let dispatch = |map: &str| map == format!("ingress-pods-{family}") || map == format!("egress-pods-{family}");
    table.maps.iter().filter(|(name, _)| dispatch(&name.to_string())).all(|(_, map)| map.elements.is_empty())
}

/// What a packet meets that is on its way while the kernel takes a transaction in: the rules of before, and whatever
/// elements there are now. Chains that come are there and have no rules yet; of a set that goes the elements stay, of a
/// map they do not.
fn on_the_way(before: &Table, now: &Table) -> Table {
    let mut table = before.clone();
    for (name, chain) in &now.chains {
        let empty = || Arc::new(Chain { rules: Vec::new(), ..Chain::clone(chain) });
        table.chains.entry(name.clone()).or_insert_with(empty);
    }
    for (name, set) in &before.sets {
        table.sets.insert(name.clone(), now.sets.get(name).unwrap_or(set).clone());
    }
    for (name, map) in &before.maps {
        let emptied = || Arc::new(VerdictMap { elements: Arc::default(), ..VerdictMap::clone(map) });
        table.maps.insert(name.clone(), now.maps.get(name).cloned().unwrap_or_else(emptied));
    }
    table
}

/// Whether a gate stands in the table.
fn is_gated(table: &Table) -> bool {
    table.sets.keys().any(|name| name.as_str().starts_with("pod-ranges-"))
}

/// The same for a packet that has been looked up in the first maps of the base chains before there were other elements,
/// and in all else afterwards.
fn past_the_dispatch(before: &Table, now: &Table) -> Table {
    let mut table = on_the_way(before, now);
    let is_first = |name: &&SetName| {
        let name = name.to_string();
        ["egress-pods-", "ingress-pods-"].iter().any(|first| name.starts_with(first)) || name == "egress-links"
    };
    for (name, map) in before.maps.iter().filter(|(name, _)| is_first(name)) {
        table.maps.insert(name.clone(), map.clone());
    }
    table
}

/// An event in steps that each say one thing. Of a list the policies come one by one; and one that is there, and is to
/// select other pods by other rules, selects them first by the rules that it has. (Where both come at once, a packet on its
/// way to a pod that it did not select may meet the rules of before: to spare that, the chains of a policy would have to be
/// told apart by whom it selects.) Sandboxes come and go one by one, too.
fn steps_of(event: Event, state: &State) -> Vec<Event> {
    let known = state.policies();
    if let Event::Sandboxes(list) = &event {
        let mut now: Vec<Sandbox> = state.pods().sandboxes().iter().cloned().collect();
        let mut steps = Vec::new();
        for gone in now.clone().into_iter().filter(|sandbox| !list.contains(sandbox)) {
            now.retain(|sandbox| *sandbox != gone);
            steps.push(Event::Sandboxes(now.clone()));
        }
        for come in list.iter().filter(|sandbox| !now.contains(sandbox)).cloned().collect::<Vec<_>>() {
            now.push(come);
            steps.push(Event::Sandboxes(now.clone()));
        }
        steps.push(event);
        return steps;
    }
    let selecting = |now: &NetworkPolicy| -> Option<NetworkPolicy> {
        let before = known.get(&now.key)?;
        let says_two_things =
            before.pod_selector != now.pod_selector && (&before.ingress, &before.egress) != (&now.ingress, &now.egress);
        let pod_selector = now.pod_selector.clone();
        says_two_things.then(|| NetworkPolicy { pod_selector, ..NetworkPolicy::clone(before) })
    };
    let apply = |policy: &NetworkPolicy| selecting(policy).into_iter().chain([policy.clone()]).collect::<Vec<_>>();
    let (gone, come): (Vec<PolicyKey>, Vec<NetworkPolicy>) = match &event {
        Event::Policies(Change::Applied(policy)) => (Vec::new(), apply(policy)),
        Event::Policies(Change::Reset(policies)) => {
            let is_gone = |key: &PolicyKey| policies.iter().all(|policy| policy.key != *key);
            let keys = known.iter().map(|policy| policy.key.clone());
            (keys.filter(is_gone).collect(), policies.iter().flat_map(apply).collect())
        }
        Event::Policies(Change::Deleted(_))
        | Event::Pods(..)
        | Event::Namespaces(_)
        | Event::Links(_)
        | Event::Sandboxes(_)
        | Event::PodRanges(_) => (Vec::new(), Vec::new()),
    };
    let gone = gone.into_iter().map(Change::Deleted);
    gone.chain(come.into_iter().map(Change::Applied)).map(Event::Policies).chain([event]).collect()
}

#[test]
fn a_packet_on_its_way_is_of_one_moment() {
    let mut drawn = clusters_with_sandboxes(5);
    let (mut transactions, mut changes) = (0, 0);
    for seed in 0..120 {
        let states: Vec<Cluster> = drawn.by_ref().take(STATES).collect();
        let mut walk = Walk::new(seed, &states);
        let watches = *walk.dice.pick(&Watches::ALL);
        for state in &states {
            let mut next = state.parse();
            walk.clusters += 1;
            next.pods.iter_mut().for_each(|pod| pod.version = walk.clusters);
            for event in walk.reported.events_to(&next, watches, &mut walk.dice) {
                for step in steps_of(event, walk.compiler.state()) {
                    writeln!(walk.log, "{step:?}").expect("a String takes all that is written");
                    walk.compiler.apply(step.clone());
                    walk.reported.apply(&step);
                    changes += walk.commit_with_packets_on_their_way();
                }
            }
        }
        transactions += walk.transactions;
    }
    println!("{transactions} transactions, {changes} verdicts that change");
    assert!(transactions > 2_000 && changes > 4_000, "{transactions} transactions, {changes} verdicts that change");
}
