//! A long run of random changes with random faults: a real API server, the agent as a process, the real kernel, and
//! packets that flow all the time.
//!
//! Everything that is drawn is drawn from a seed, so that a run can be had again, up to the timing of the machine. The
//! table is held against a fresh compile of what the API has after each fault, and what the agent takes is recorded.

mod change;
mod cluster;
mod fault;
mod lives;
mod record;
mod spec;
mod traffic;
mod truth;

use std::ops::RangeInclusive;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use futures::future::try_join_all;
use netlink::Connection;
use postern::kernel;

use crate::control_plane::ControlPlane;
use crate::node::Node;
use crate::usage::Usage;

use cluster::Cluster;
use lives::Lives;
use traffic::Traffic;
use truth::Truth;

pub use fault::Fault;
pub use record::{Growth, Record, Sample};
pub use traffic::Packets;

/// What is run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is drawn from.
    pub seed: u64,
    /// How many changes there are at least.
    pub events: usize,
    /// The faults, each as often in a row as it stands here, in an order that is drawn.
    pub deck: Vec<Fault>,
    /// How many changes there are between two faults.
    pub between: usize,
    /// During how many changes a fault lasts.
    pub during: RangeInclusive<usize>,
    /// From which change on the agent is not ended any more, so that the rest is one long life.
    pub last_life: usize,
}

/// A run.
struct Soak {
    rng: Rng,
    api: ControlPlane,
    lives: Lives,
    kernel: Connection,
    cluster: Cluster,
    traffic: Traffic,
    record: Record,
}

/// Runs a plan on a node that has nothing on it yet, and tells of the record after each checkpoint.
///
/// # Errors
///
/// The first thing that is not as it has to be, with what happened before it and the end of the agent's log.
pub async fn run(plan: &Plan, mut node: Node, mut progress: impl FnMut(&Record)) -> Result<Record> {
    traffic::populate(&mut node).await?;
    node.agent.ready().await?;
    let mut rng = Rng::with_seed(plan.seed);
    let kubeconfig = node.api.kubeconfig_for_service_account("kube-system", "postern").await?;
    let mut kernel = kernel::connect()?;
    Truth::of(&node.api.client()).await?.reached(&mut node.agent, &mut kernel).await?;
    let traffic = Traffic::start(&node)?;
    let cluster = Cluster::new(rng.fork());
    // The lab holds the namespaces until the packets have ended.
    let Node { api, agent, lab, .. } = node;
    agent.terminate()?;
    let lives = Lives::new(kubeconfig);
    let mut soak = Soak { rng, api, lives, kernel, cluster, traffic, record: Record::default() };
    soak.lives.begin()?;
    let done = soak.go(plan, &mut progress).await;
    let context = || {
        let Soak { record, lives, traffic, .. } = &soak;
        let (wrong, denials) = (traffic.wrong(), lives.denials());
        let log = lives.log();
        format!("seed {}, after {:?} and {:?}\n{wrong}{denials}\n{log}", plan.seed, record.events, record.faults)
    };
    done.with_context(context)?;
    soak.record.commits = soak.lives.commits().await?;
    soak.record.packets = soak.traffic.finish();
    ensure!(soak.record.packets.wrong() == 0, "{}", soak.record.packets);
    drop(lab);
    Ok(soak.record)
}

impl Soak {
    async fn go(&mut self, plan: &Plan, progress: &mut impl FnMut(&Record)) -> Result<()> {
        self.checkpoint().await?;
        let mut faults = Vec::new();
        while self.events() < plan.events {
            self.change(plan.between).await?;
            if faults.is_empty() {
                faults = Fault::shuffled(&plan.deck, &mut self.rng);
                let may_end = self.events() < plan.last_life;
                faults.retain(|fault| may_end || fault.spares_agent());
            }
            let fault = faults.pop().context("the deck has a fault that spares the agent")?;
            *self.record.faults.entry(fault).or_default() += 1;
            let during = self.rng.usize(plan.during.clone());
            let ongoing = fault.begin(self).await.with_context(|| fault.to_string())?;
            self.change(during).await.with_context(|| fault.to_string())?;
            ongoing.end(self).await.with_context(|| fault.to_string())?;
            self.checkpoint().await.with_context(|| fault.to_string())?;
            progress(&self.record);
        }
        Ok(())
    }

    /// Lets so many changes happen, or some more.
    async fn change(&mut self, how_many: usize) -> Result<()> {
        let until = self.events() + how_many;
        while self.events() < until {
            let changes = self.cluster.next();
            try_join_all(changes.iter().map(|change| change.tell(&self.api))).await?;
            for change in changes {
                *self.record.events.entry(change.kind()).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Waits until the kernel holds what the API means.
    async fn settled(&mut self) -> Result<Truth> {
        let truth = Truth::of(&self.api.client()).await?;
        truth.reached(self.lives.agent()?, &mut self.kernel).await?;
        Ok(truth)
    }

    /// Holds everything that has to be so against what is, and takes note of what the agent takes.
    async fn checkpoint(&mut self) -> Result<()> {
        let truth = self.settled().await?;
        self.traffic.goes_on().await?;
        let record = &mut self.record;
        record.packets = self.traffic.packets();
        ensure!(record.packets.wrong() == 0, "{}", record.packets);
        record.commits = self.lives.commits().await?;
        record.checkpoints += 1;
        record.most_quarantined = record.most_quarantined.max(truth.quarantined);
        let usage = Usage::of(self.lives.agent()?.id())?;
        let event = record.events.values().sum();
        record.samples.push(Sample { event, life: self.lives.count, usage });
        Ok(())
    }

    fn events(&self) -> usize {
        self.record.events.values().sum()
    }
}
