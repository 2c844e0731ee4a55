//! A cluster whose objects change while it runs: a lab, the agent's sync thread on every node, and a test that tells it
//! what happens.

mod hammer;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use compiler::Compiler;
use compiler::api::{NodeName, Object, Pod, PodKey};
use compiler::cluster::{Budget, Change, Event, PodSource};
use compiler::flows::Review;
use compiler::nft::{Deny, Family, LogGroup, without_open_flows};
use compiler::policy::OwnAddresses;
use lab::{Attachment, Endpoint, Lab, Netns, Topology};
use netlink::{Connection, Error, Ownership};
use postern::kernel;
use postern::metrics::Metrics;
use postern::model::Model;
use postern::readiness::Readiness;
use postern::sync::{self, Handle, Origin, Settings};
use tokio::sync::oneshot;

use crate::{line, scene};

pub use hammer::{Echo, Hammer};

/// How long an agent may take for what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who may edit the tables of the agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// As in production: nobody else, where the kernel can do that.
    Owned,
    /// Everybody, as on kernels that cannot.
    Plain,
}

/// A running cluster.
pub struct Live {
    lab: Lab,
    protection: Protection,
    nodes: Vec<Node>,
    /// What the agents have been told, in that order.
    told: Vec<Event>,
    pods: BTreeMap<PodKey, Pod>,
}

struct Node {
    name: NodeName,
    agent: Option<Agent>,
    /// Knows the table that the node should have by now.
    compiler: Compiler,
}

struct Agent {
    handle: Handle,
    metrics: Metrics,
    end: oneshot::Receiver<Result<(), Error>>,
}

impl Live {
    /// Builds a cluster of two families and waits until its agents enforce.
    ///
    /// # Errors
    ///
    /// If the YAML is wrong, or the kernel refuses.
    pub async fn start(yaml: &str, attachment: Attachment, protection: Protection) -> Result<Live> {
        let model = Model::new(&scene::objects(yaml)?, Deny::Drop);
        let names: Vec<NodeName> = model.nodes().keys().cloned().collect();
        let nodes = model
            .nodes()
            .iter()
            .map(|(name, node)| lab::Node { name: name.to_string(), addresses: node.addresses.clone() });
        let pods: BTreeMap<PodKey, Pod> = model.pods().map(|pod| (pod.key.clone(), pod.clone())).collect();
        let of_lab = pods.values().map(|pod| lab_pod(pod, &names)).collect::<Result<_>>()?;
        let topology = Topology { attachment, nodes: nodes.collect(), pods: of_lab, outside: Vec::new() };
        let node = |name: NodeName| Node { compiler: Compiler::new(name.clone(), Deny::Drop), name, agent: None };
        let mut live = Live {
            lab: Lab::build(topology).await?,
            protection,
            nodes: names.into_iter().map(node).collect(),
            told: Vec::new(),
            pods,
        };
        for event in model.events() {
            live.tell(event);
        }
        for node in 0..live.nodes.len() {
            live.start_agent(node).await?;
        }
        Ok(live)
    }

    /// The namespaces.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Creates or changes the objects of a YAML text. A pod that was there keeps its node and addresses; a new one gets
    /// its namespace by [`Live::attach`], before or after.
    ///
    /// # Errors
    ///
    /// If the YAML is wrong.
    pub fn apply(&mut self, yaml: &str) -> Result<()> {
        for object in scene::objects(yaml)? {
            match object {
                Object::Pod(mut pod) => {
                    if let Some(before) = self.pods.get(&pod.key) {
                        pod.ips.clone_from(&before.ips);
                    }
                    self.pods.insert(pod.key.clone(), pod.clone());
                    self.tell(Event::Pods(PodSource::Cluster, Change::Applied(pod)));
                }
                // A file names its namespace without defining it; what labels it has is said by a text that does.
                Object::Namespace(namespace) if !yaml.contains("kind: Namespace") => drop(namespace),
                Object::Namespace(namespace) => self.tell(Event::Namespaces(Change::Applied(namespace))),
                Object::NetworkPolicy(policy) => self.tell(Event::Policies(Change::Applied(policy))),
                Object::Node(_) | Object::Service(_) | Object::EndpointSlice(_) => {}
            }
        }
        Ok(())
    }

    /// Deletes a NetworkPolicy.
    pub fn delete_policy(&mut self, name: &str) {
        let key = key(name);
        let key = compiler::api::PolicyKey { namespace: key.namespace, name: key.name };
        self.tell(Event::Policies(Change::Deleted(key)));
    }

    /// Says that a pod is gone. Its namespace is taken away by [`Live::detach`].
    pub fn delete_pod(&mut self, name: &str) {
        self.pods.remove(&key(name));
        self.tell(Event::Pods(PodSource::Cluster, Change::Deleted(key(name))));
    }

    /// Gives a pod that has been applied its namespace and its link.
    ///
    /// # Errors
    ///
    /// If there is no such pod, or the kernel refuses.
    pub async fn attach(&mut self, name: &str) -> Result<()> {
        let names: Vec<NodeName> = self.nodes.iter().map(|node| node.name.clone()).collect();
        let pod = self.pods.get(&key(name)).with_context(|| format!("no pod {name}"))?;
        Ok(self.lab.add_pod(lab_pod(pod, &names)?).await?)
    }

    /// Takes a pod's namespace away.
    ///
    /// # Errors
    ///
    /// If it has none, or the kernel refuses.
    pub async fn detach(&mut self, name: &str) -> Result<()> {
        Ok(self.lab.remove_pod(name).await?)
    }

    /// Waits until every node has exactly the table that the objects mean, as one that never saw any others would. Open
    /// flows may be rejudged and cut besides.
    ///
    /// # Errors
    ///
    /// If that takes too long.
    pub async fn settled(&mut self) -> Result<()> {
        let begun = Instant::now();
        for node in &mut self.nodes {
            let Some(agent) = &node.agent else { continue };
            let desired = node.compiler.table();
            loop {
                let snapshot = agent.handle.snapshot();
                let held = snapshot.table().map(|table| without_open_flows(table)).unwrap_or_default();
                if held == desired {
                    break;
                }
                let is_late = begun.elapsed() >= PATIENCE;
                ensure!(!is_late, "node {} has this table:\n{held}\nand is to have this:\n{desired}", node.name);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        Ok(())
    }

    /// Holds packets against lines of expectations, see [`mod@line`].
    ///
    /// # Errors
    ///
    /// What came out otherwise.
    pub async fn check(&self, lines: &[&str]) -> Result<()> {
        line::check(&self.lab, |end| self.addresses(end), lines).await
    }

    /// The same, tried again until it is so.
    ///
    /// # Errors
    ///
    /// What is still otherwise when time is up.
    pub async fn until(&self, lines: &[&str]) -> Result<()> {
        line::until(&self.lab, |end| self.addresses(end), lines).await
    }

    /// A pod with its address of a family, for packets that are no probes.
    ///
    /// # Errors
    ///
    /// If there is no such pod.
    pub fn endpoint(&self, name: &str, family: Family) -> Result<Endpoint> {
        let address = self.addresses(name)?.into_iter().find(|address| Family::of(*address) == family);
        let endpoint = address.and_then(|address| self.lab.endpoint(address));
        endpoint.with_context(|| format!("{name} has no address of {family}"))
    }

    /// Ends a node's agent as SIGTERM does: the rules stay.
    ///
    /// # Errors
    ///
    /// If it has ended before, with an error, or does not end.
    pub async fn stop_agent(&mut self, node: usize) -> Result<()> {
        let agent = self.nodes[node].agent.take().context("the agent does not run")?;
        agent.handle.stop();
        tokio::time::timeout(PATIENCE, agent.end).await.context("the agent does not end")???;
        Ok(())
    }

    /// Starts a node's agent, tells it everything, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// If it ends, or does not get ready.
    pub async fn start_agent(&mut self, node: usize) -> Result<()> {
        let settings = Settings {
            node: self.nodes[node].name.clone(),
            deny: Deny::Drop,
            log: Some(LogGroup::default()),
            origin: Origin::Files,
            limits: kernel::limits(),
            budget: Budget::default(),
            own_addresses: OwnAddresses::Off,
            verify_interval: Duration::from_secs(60),
        };
        let readiness = Readiness::new();
        let (netns, protection) = (self.netns(node), self.protection);
        let open = move || match protection {
            Protection::Owned => kernel::connect(),
            Protection::Plain => Connection::open(Ownership::Plain),
        };
        let cannot_enter = |source| Error::Socket { what: "enter the node's network namespace", source };
        let inside = netns.clone();
        let connect = move || netns.run(open).unwrap_or_else(|source| Err(cannot_enter(source)));
        let look = move |review: &Review| {
            inside.run(|| kernel::look(review)).unwrap_or_else(|source| Err(cannot_enter(source)))
        };
        let metrics = Metrics::new();
        let (handle, end) = sync::spawn(settings, connect, Some(Box::new(look)), &readiness, metrics.sync.clone())?;
        for event in &self.told {
            handle.event(event.clone());
        }
        let ready = tokio::time::timeout(PATIENCE, readiness.ready()).await;
        ready.with_context(|| readiness.status().to_string())?;
        self.nodes[node].agent = Some(Agent { handle, metrics, end });
        Ok(())
    }

    /// What `/metrics` of a node's agent says.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn metrics(&self, node: usize) -> Result<String> {
        let agent = self.nodes[node].agent.as_ref().context("the agent does not run")?;
        Ok(agent.metrics.encode(&agent.handle.snapshot(), &BTreeMap::new()))
    }

    /// The namespace of a node.
    pub fn netns(&self, node: usize) -> Netns {
        self.lab.node(node).expect("the lab has the nodes of the cluster").clone()
    }

    fn addresses(&self, name: &str) -> Result<Vec<IpAddr>> {
        Ok(self.pods.get(&key(name)).with_context(|| format!("no pod {name}"))?.ips.clone())
    }

    fn tell(&mut self, event: Event) {
        for node in &mut self.nodes {
            node.compiler.apply(event.clone());
            if let Some(agent) = &node.agent {
                agent.handle.event(event.clone());
            }
        }
        self.told.push(event);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.nodes.iter().filter_map(|node| node.agent.as_ref()).for_each(|agent| agent.handle.stop());
    }
}

fn key(name: &str) -> PodKey {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    PodKey { namespace: namespace.into(), name: name.into() }
}

fn lab_pod(pod: &Pod, nodes: &[NodeName]) -> Result<lab::Pod> {
    let node = nodes.iter().position(|name| Some(name) == pod.node.as_ref());
    let node = node.with_context(|| format!("pod {} is on no node of the cluster", pod.key))?;
    Ok(lab::Pod { id: pod.key.to_string(), node, addresses: pod.ips.clone() })
}
