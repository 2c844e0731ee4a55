//! What the kernel has to hold: a fresh compile of what the API has, held against what is read back.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use compiler::Compiler;
use compiler::api::{Item, NodeName, Object, parse};
use compiler::cluster::{Change, Event, Interest, PodSource};
use compiler::diff;
use compiler::nft::{Deny, TABLE, Table, without_open_flows};
use compiler::policy::OwnAddresses;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ListParams;
use kube::{Api, Client, Resource};
use netlink::Connection;
use postern::{kernel, links};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::agent::Agent;

/// How long the agent may take for what takes milliseconds on an idle machine. After the API server was away it asks
/// again after half a minute at the latest.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the agent has to know and to have done.
pub(super) struct Truth {
    /// What the kernel has to hold: of pods elsewhere that claim one address those count of which policies speak, and
    /// whether others are known besides goes by what was watched before.
    tables: [Table; 2],
    /// The pods of other nodes that have to be watched.
    interest: Interest,
    /// How many policies are in quarantine.
    pub(super) quarantined: usize,
}

impl Truth {
    /// Asks the API, and compiles what it says from nothing, with the links of this network namespace.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub(super) async fn of(client: &Client) -> Result<Truth> {
        let (mut pods, mut namespaces, mut policies) = (Vec::new(), Vec::new(), Vec::new());
        let objects =
            [list::<Namespace>(client).await?, list::<NetworkPolicy>(client).await?, list::<Pod>(client).await?];
        for object in objects.concat() {
            match object {
                Object::Pod(pod) => pods.push(pod),
                Object::Namespace(namespace) => namespaces.push(namespace),
                Object::NetworkPolicy(policy) => policies.push(policy),
                Object::Service(_) | Object::EndpointSlice(_) | Object::Node(_) => {}
            }
        }
        let own_addresses = OwnAddresses::All { except: BTreeSet::new() };
        let node = NodeName("node-1".into());
        let mut compiler = Compiler::new(node.clone(), Deny::Drop).checking(own_addresses);
        compiler.apply(Event::Links(links::read().await?));
        compiler.apply(Event::Namespaces(Change::Reset(namespaces)));
        compiler.apply(Event::Policies(Change::Reset(policies)));
        compiler.apply(Event::Pods(PodSource::Cluster, Change::Reset(pods.clone())));
        let interest = Interest::of(compiler.state());
        let of_all = compiler.table();
        let queries = interest.plan();
        pods.retain(|pod| pod.node.as_ref() == Some(&node) || queries.iter().any(|query| query.has(pod)));
        compiler.apply(Event::Pods(PodSource::Cluster, Change::Reset(pods)));
        let quarantined = compiler.state().quarantined().len();
        Ok(Truth { tables: [of_all, compiler.table()], interest, quarantined })
    }

    /// Waits until the agent is ready and watches what it has to, and the kernel holds exactly what it has to.
    ///
    /// # Errors
    ///
    /// What is otherwise when time is up.
    pub(super) async fn reached(&self, agent: &mut Agent, kernel: &mut Connection) -> Result<()> {
        let begun = Instant::now();
        loop {
            let wrong = match self.check_kernel(kernel) {
                Ok(()) => match self.check_agent(agent).await {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if begun.elapsed() >= PATIENCE {
                return Err(wrong);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn check_kernel(&self, kernel: &mut Connection) -> Result<()> {
        let mut held = kernel.dump()?;
        // It is the agent's, and so foreign to whoever else asks.
        held.foreign.retain(|name| name != TABLE);
        held.table = held.table.as_ref().map(without_open_flows);
        ensure!(held.foreign.is_empty(), "the table has what nobody of us wrote: {:?}", held.foreign);
        let mut lacks = self.tables.iter().map(|table| diff::next(table, &held, kernel::limits()));
        match (lacks.next().flatten(), lacks.next().flatten()) {
            (None, _) | (_, None) => Ok(()),
            (Some(_), Some(lacks)) => bail!("the kernel's table is not what the objects mean; it lacks\n{lacks}"),
        }
    }

    async fn check_agent(&self, agent: &mut Agent) -> Result<()> {
        let (code, text) = agent.get("/readyz").await?;
        ensure!(code == 200, "not ready: {text}");
        ensure!(!text.contains("no word from the API server"), "a watch is away: {text}");
        let watches = |name: &&str| text.contains(&format!("watch: {name}: last word "));
        let base = ["Namespaces", "NetworkPolicies", "Pods of node node-1"];
        if let Some(missing) = base.iter().find(|name| !watches(name)) {
            bail!("{missing} are not watched: {text}");
        }
        // Which watches bring what is of interest depends on what was before; that they do is for the table to show.
        let brings_peers = text.lines().any(|line| line.starts_with("watch: Pods") && !line.contains(base[2]));
        ensure!(brings_peers || self.interest.is_empty(), "no pods elsewhere are watched: {text}");
        Ok(())
    }
}

/// All objects of a kind, as the agent reads them.
async fn list<K>(client: &Client) -> Result<Vec<Object>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let mut objects = Vec::new();
    for object in Api::<K>::all(client.clone()).list(&ListParams::default()).await? {
        for item in parse(&serde_json::to_value(&object)?.into(), "") {
            match item {
                Item::Object { parsed, .. } => objects.push(parsed.value),
                Item::Workload(workload) => bail!("{} was not asked for", workload.value.key),
                Item::Skipped(skipped) => bail!("{skipped}"),
                Item::Invalid(invalid) => return Err(invalid).context("the API has an object that is none"),
            }
        }
    }
    Ok(objects)
}
