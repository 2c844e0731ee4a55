//! The whole product on one node: an API server, the agent as a process with the rights of its own ClusterRole, and pods
//! that are network namespaces. The test plays kubelet.
//!
//! API server, agent and test are all in the node's network namespace, and talk over its loopback.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result};
use lab::{Attachment, Lab, Netns, Topology};
use tokio::runtime;
use tokio::task::spawn_blocking;

use crate::agent::{Agent, install};
use crate::control_plane::ControlPlane;
use crate::line;

/// A node with everything that runs on it.
pub struct Node {
    /// The API server.
    pub api: ControlPlane,
    /// The agent, which is ready.
    pub agent: Agent,
    /// The pods' namespaces.
    pub lab: Lab,
    /// The addresses of the pods, by namespace and name.
    addresses: BTreeMap<String, Vec<IpAddr>>,
}

/// Runs a test in a network namespace, on a runtime that is made there: its threads are in it, and so are their processes.
///
/// # Errors
///
/// Those of the test. A panic of it goes on.
pub(crate) async fn inside(netns: Netns, test: impl AsyncFnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let run = move || {
        netns.run(|| runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(test()))?
    };
    match spawn_blocking(run).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(error.into()),
    }
}

impl Node {
    /// Builds a node without pods and runs a test on it. To be called inside namespaces of the test's own.
    ///
    /// # Errors
    ///
    /// If the node cannot be built. A panic of the test goes on.
    pub async fn run(test: impl AsyncFnOnce(Node) + Send + 'static) -> Result<()> {
        Node::run_with(&[], test).await
    }

    /// The same with more arguments for the agent.
    ///
    /// # Errors
    ///
    /// As for [`Node::run`].
    pub async fn run_with(
        arguments: &'static [&'static str],
        test: impl AsyncFnOnce(Node) + Send + 'static,
    ) -> Result<()> {
        let addresses = vec!["10.213.0.2".parse()?, "fd00:10:213::2".parse()?];
        let nodes = vec![lab::Node { name: "node-1".to_owned(), addresses }];
        let topology = Topology { attachment: Attachment::Routed, nodes, pods: Vec::new(), outside: Vec::new() };
        let lab = Lab::build(topology).await?;
        let netns = lab.node(0).context("the lab has a node")?.clone();
        inside(netns, async move || {
            let api = ControlPlane::start().await?;
            let kubeconfig = install(&api).await?;
            let kubeconfig = kubeconfig.to_str().context("the path is text")?;
            let mut agent = Agent::start(&[&["--kubeconfig", kubeconfig], arguments].concat())?;
            agent.ready().await?;
            test(Node { api, agent, lab, addresses: BTreeMap::new() }).await;
            Ok(())
        })
        .await
    }

    /// Gives a pod its namespace and its link, as a network plugin does. The API is told by [`Node::report`].
    ///
    /// # Errors
    ///
    /// If its name or an address is taken, or the kernel refuses.
    pub async fn attach(&mut self, name: &str, addresses: &[IpAddr]) -> Result<()> {
        self.lab.add_pod(lab::Pod { id: name.to_owned(), node: 0, addresses: addresses.to_vec() }).await?;
        self.addresses.insert(name.to_owned(), addresses.to_vec());
        Ok(())
    }

    /// Takes a pod's namespace away.
    ///
    /// # Errors
    ///
    /// If it has none, or the kernel refuses.
    pub async fn detach(&mut self, name: &str) -> Result<()> {
        self.addresses.remove(name);
        Ok(self.lab.remove_pod(name).await?)
    }

    /// Reports a pod of the API as running with the addresses of its namespace, as kubelet does.
    ///
    /// # Errors
    ///
    /// If either does not know the pod.
    pub async fn report(&self, name: &str) -> Result<()> {
        let addresses = self.addresses(name)?;
        let (namespace, pod) = name.split_once('/').context("a pod is called namespace/name")?;
        self.api.set_pod_status(namespace, pod, "Running", &addresses).await
    }

    /// Waits until packets do what lines of expectations say, see [`mod@line`].
    ///
    /// # Errors
    ///
    /// What is still otherwise when time is up.
    pub async fn until(&self, lines: &[&str]) -> Result<()> {
        line::until(&self.lab, |end| self.addresses(end), lines).await
    }

    /// The addresses of a pod, or the address itself.
    pub(crate) fn addresses(&self, end: &str) -> Result<Vec<IpAddr>> {
        if let Ok(address) = end.parse() {
            return Ok(vec![address]);
        }
        self.addresses.get(end).cloned().with_context(|| format!("no pod {end}"))
    }
}
