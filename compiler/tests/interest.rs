//! An agent that is told only of the pods that are of interest enforces what one enforces that is told of all.

use std::collections::BTreeSet;

use compiler::Compiler;
use compiler::api::{NodeName, Pod, PodKey};
use compiler::cluster::{Change, Event, Interest, MOST_WATCHES, PodQuery, PodSource};
use compiler::nft::Deny;
use compiler::sim::generate::clusters;
use compiler::sim::{Dice, ParsedCluster};

/// An agent that has the watches that it is interested in, and no others.
struct Watcher {
    compiler: Compiler,
    watches: BTreeSet<PodQuery>,
    /// What the API has.
    pods: Vec<Pod>,
    /// How many pods it was told of.
    told: usize,
}

impl Watcher {
    fn pods_of(&self, source: &PodSource) -> Vec<Pod> {
        let node = self.compiler.state().node();
        let is_here = |pod: &&Pod| pod.node.as_ref() == Some(node);
        let pods = self.pods.iter();
        match source.query() {
            None => pods.filter(is_here).cloned().collect(),
            Some(query) => pods.filter(|pod| !is_here(pod) && query.has(pod)).cloned().collect(),
        }
    }

    fn list(&mut self, source: PodSource) {
        let pods = self.pods_of(&source);
        self.told += pods.len();
        self.compiler.apply(Event::Pods(source, Change::Reset(pods)));
    }

    /// Begins and ends watches until they are those that follow from what is known.
    fn follow_interest(&mut self) {
        self.compiler.decide();
        let wanted = Interest::of(self.compiler.state()).plan();
        assert!(wanted.len() <= MOST_WATCHES);
        for query in wanted.symmetric_difference(&self.watches.clone()) {
            let source = PodSource::from(query.clone());
            if wanted.contains(query) {
                self.list(source);
            } else {
                self.compiler.apply(Event::Pods(source, Change::Reset(Vec::new())));
            }
        }
        self.watches = wanted;
    }

    /// The API has other pods, and every watch is told what that means for it, one after the other.
    fn change(&mut self, pods: Vec<Pod>, dice: &mut Dice) {
        let mut sources: Vec<PodSource> = self.watches.iter().cloned().map(PodSource::from).collect();
        sources.push(PodSource::Node);
        dice.shuffle(&mut sources);
        let before: Vec<(PodSource, Vec<Pod>)> =
            sources.into_iter().map(|source| (source.clone(), self.pods_of(&source))).collect();
        self.pods = pods;
        for (source, before) in before {
            let now = self.pods_of(&source);
            let gone = before.iter().filter(|pod| !now.iter().any(|other| other.key == pod.key));
            let gone: Vec<PodKey> = gone.map(|pod| pod.key.clone()).collect();
            for key in gone {
                self.compiler.apply(Event::Pods(source.clone(), Change::Deleted(key)));
            }
            for pod in now.into_iter().filter(|pod| !before.contains(pod)) {
                self.told += 1;
                self.compiler.apply(Event::Pods(source.clone(), Change::Applied(pod)));
            }
        }
    }
}

/// The pods of a cluster of which no two have an address in common: which of two has it depends on knowing both.
fn apart(cluster: &ParsedCluster, version: u64) -> Vec<Pod> {
    let mut seen = BTreeSet::new();
    let mut pods = Vec::new();
    for pod in &cluster.pods {
        if !pod.ips.iter().any(|address| seen.contains(address)) {
            seen.extend(pod.ips.iter().copied());
            pods.push(Pod { version, ..pod.clone() });
        }
    }
    pods
}

#[test]
fn what_is_of_interest_is_enough() {
    let mut drawn = clusters(5);
    let (mut told, mut all, mut with_peers) = (0, 0, 0);
    for seed in 0..400 {
        let mut dice = Dice::new(seed);
        let states: Vec<ParsedCluster> = drawn.by_ref().take(3).map(|cluster| cluster.parse()).collect();
        let node = NodeName("node-1".into());
        let mut watcher = Watcher {
            compiler: Compiler::new(node.clone(), Deny::Drop),
            watches: BTreeSet::new(),
            pods: Vec::new(),
            told: 0,
        };
        for (version, state) in (1..).zip(&states) {
            let pods = apart(state, version);
            all += pods.len();
            watcher.change(pods.clone(), &mut dice);
            let mut others = [
                Event::Namespaces(Change::Reset(state.namespaces.clone())),
                Event::Policies(Change::Reset(state.policies.clone())),
            ];
            dice.shuffle(&mut others);
            for event in others {
                watcher.compiler.apply(event);
                if dice.once_in(2) {
                    watcher.follow_interest();
                }
            }
            watcher.follow_interest();
            let mut knowing = Compiler::new(node.clone(), Deny::Drop);
            knowing.apply(Event::Namespaces(Change::Reset(state.namespaces.clone())));
            knowing.apply(Event::Policies(Change::Reset(state.policies.clone())));
            knowing.apply(Event::Pods(PodSource::Cluster, Change::Reset(pods)));
            assert_eq!(watcher.compiler.table(), knowing.table(), "by {:?}: {state:?}", watcher.watches);
            with_peers += usize::from(!watcher.watches.is_empty());
        }
        told += watcher.told;
    }
    assert!(with_peers > 300, "{with_peers} steps with pods of interest");
    println!("told of {told} pods, of {all}");
}
