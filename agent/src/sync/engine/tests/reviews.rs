//! When open flows are reviewed, and what comes of it.

use compiler::flows::{Flow, Review};

use super::*;

/// A bench, and the reviews that it asked for and that have not ended.
struct Reviewing {
    bench: Bench,
    asked: Arc<Mutex<Vec<Review>>>,
}

impl Reviewing {
    /// In force, and reviewed for the first time.
    fn new() -> Reviewing {
        let mut reviewing = Reviewing::on(Arc::default());
        reviewing.end(&[]);
        assert_eq!(reviewing.rules(), 3, "nothing is rejudged any more");
        reviewing
    }

    fn on(world: Arc<Mutex<World>>) -> Reviewing {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let begin = {
            let asked = asked.clone();
            move |review| asked.lock().unwrap().push(review)
        };
        let mut bench = Bench::build(Origin::Files, world, Limits::default(), Some(Box::new(begin)));
        bench.reset(&PodSource::Cluster, CLUSTER);
        bench.step();
        Reviewing { bench, asked }
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// Ends the review that is under way, on a node with these flows.
    fn end(&mut self, open: &[Flow]) {
        let review = self.asked.lock().unwrap().pop().expect("a review is under way");
        let own = Default::default();
        let mut inspection = review.begin(&own);
        open.iter().for_each(|flow| inspection.flow(flow));
        self.bench.engine.reviewed(Ok(inspection.end(true)));
        self.bench.step();
    }

    /// Rules of the base chain for egress in the kernel.
    fn rules(&self) -> usize {
        let world = self.bench.world();
        let table = world.table.as_ref().unwrap();
        table.chains.iter().find(|(name, _)| name.as_str() == "egress").unwrap().1.rules.len()
    }
}

/// A flow to the pod of [`CLUSTER`].
fn flow() -> Flow {
    let ends = ["10.9.9.9", "10.0.0.1"].map(|end| end.parse().unwrap());
    Flow { client: ends[0], server: ends[1], protocol: 6, ports: Some((999, 80)) }
}

/// Lets everybody in on a port.
fn open(port: u16) -> String {
    policy("web", &format!("[{{ports: [{{port: {port}}}]}}]"))
}

#[test]
fn a_change_that_narrows_is_reviewed_once_it_is_in_the_kernel() {
    let mut reviewing = Reviewing::new();
    reviewing.bench.apply(&PodSource::Cluster, &open(80));
    reviewing.bench.step();
    reviewing.end(&[flow()]);
    assert_eq!(reviewing.rules(), 3);

    reviewing.bench.apply(&PodSource::Cluster, &open(81));
    reviewing.bench.world().refusals.extend([refused(), refused()]);
    reviewing.bench.turn();
    assert_eq!(reviewing.asked(), 0, "the kernel has refused it");
    reviewing.bench.wait(SECOND);
    assert_eq!((reviewing.asked(), reviewing.rules()), (1, 4), "the pod is rejudged");
    reviewing.end(&[flow()]);
    assert_eq!(reviewing.rules(), 4, "a flow is cut");
    assert!(reviewing.bench.measures("postern_cut_flows 1"));
    assert!(reviewing.bench.measures("postern_rejudged_addresses 0"));
}

#[test]
fn one_at_a_time_and_again_while_there_is_something() {
    let mut reviewing = Reviewing::new();
    for port in [80, 81, 82] {
        reviewing.bench.apply(&PodSource::Cluster, &open(port));
        reviewing.bench.step();
    }
    assert_eq!(reviewing.asked(), 1);
    reviewing.end(&[flow()]);
    assert_eq!(reviewing.asked(), 1, "what has changed since then");
    *reviewing.bench.clock.lock().unwrap() += SECOND;
    reviewing.end(&[flow()]);
    assert_eq!(reviewing.asked(), 0);
    reviewing.bench.wait(19 * SECOND);
    assert_eq!(reviewing.asked(), 0, "nothing is urgent, and it took a second");
    reviewing.bench.wait(SECOND);
    assert_eq!(reviewing.asked(), 1);
    reviewing.end(&[]);
    assert_eq!((reviewing.asked(), reviewing.rules()), (0, 3), "it is gone");
    let wakes = reviewing.bench.live(600 * SECOND);
    assert_eq!(reviewing.asked(), 0, "there is nothing to look for");
    assert!(wakes <= 620, "{wakes} in ten minutes");
}

#[test]
fn flows_that_cannot_be_looked_at_are_told_and_stay_rejudged() {
    let mut reviewing = Reviewing::new();
    reviewing.bench.apply(&PodSource::Cluster, &open(80));
    reviewing.bench.step();
    for _ in 0..3 {
        assert_eq!(reviewing.asked.lock().unwrap().drain(..).count(), 1);
        reviewing.bench.engine.reviewed(Err("no connection tracking".to_owned()));
        reviewing.bench.step();
        assert_eq!((reviewing.asked(), reviewing.rules()), (0, 4));
        let notes = reviewing.bench.readiness.status().notes;
        assert!(matches!(&notes[..], [note] if note.ends_with(": no connection tracking")), "{notes:?}");
        reviewing.bench.live(30 * SECOND);
        reviewing.bench.step();
    }
    reviewing.end(&[]);
    assert_eq!((reviewing.rules(), reviewing.bench.readiness.status().notes.len()), (3, 0));
}

#[test]
fn what_a_former_life_has_cut_is_cut_from_the_first_commit_on() {
    let mut reviewing = Reviewing::new();
    reviewing.bench.apply(&PodSource::Cluster, &open(81));
    reviewing.bench.step();
    reviewing.end(&[flow()]);
    let cut = |world: &Mutex<World>| {
        let world = world.lock().unwrap();
        let sets = &world.table.as_ref().unwrap().sets;
        sets.iter().find(|(name, _)| name.as_str() == "cut-v4").map(|(_, set)| set.keys.clone())
    };
    let world = reviewing.bench.world.clone();
    let before = cut(&world);
    assert_eq!(before.as_ref().map(|keys| keys.len()), Some(2));
    let mut next = Reviewing::on(world.clone());
    assert_eq!(cut(&world), before);
    next.end(&[]);
    assert_eq!(cut(&world), None);
}
