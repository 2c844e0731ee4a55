//! The short form of `make soak`: each fault once.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use integration::node::Node;
use integration::soak::{Fault, Growth, Plan, run};
use lab::isolated;

#[test]
fn changes_and_faults_at_random_leave_the_right_table_and_no_wrong_packet() {
    isolated(async {
        let plan = Plan {
            seed: 1,
            events: 400,
            deck: Fault::ALL.to_vec(),
            between: 20,
            during: 10..=40,
            last_life: usize::MAX,
        };
        let soak = async move |node| {
            let record = run(&plan, node, |_| ()).await.unwrap();
            assert_eq!(record.faults.len(), Fault::ALL.len(), "{record}");
            assert!(record.packets.forbidden > 1_000 && record.packets.allowed > 1_000, "{record}");
            record.is_flat(Growth { resident: 20 * 1024, descriptors: 8, threads: 1 }).unwrap();
        };
        Node::run(soak).await.unwrap();
    });
}
