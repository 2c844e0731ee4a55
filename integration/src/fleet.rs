//! A cluster of two nodes with everything that runs on them: agents as processes with the rights of their ClusterRole, what
//! kubelet runs programs in pods by, and pods that are network namespaces. The API server is on the first.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use lab::{Attachment, Lab, Topology};
use serde_json::json;
use tokio::runtime;

use crate::agent::{Agent, binary, install};
use crate::control_plane::{ControlPlane, Options};
use crate::kubelet::Kubelet;
use crate::node::inside;
use crate::{line, scene};

/// The nodes and their addresses.
pub const NODES: [(&str, [u8; 4]); 2] = [("node-1", [10, 213, 0, 2]), ("node-2", [10, 213, 0, 3])];

/// A running cluster.
pub struct Fleet {
    /// The API server.
    pub api: ControlPlane,
    /// The agents, which are ready.
    pub agents: Vec<Agent>,
    kubelets: Vec<Kubelet>,
    /// The namespaces.
    pub lab: Lab,
    /// With the rights of the agents.
    kubeconfig: PathBuf,
    addresses: BTreeMap<String, IpAddr>,
}

impl Fleet {
    /// Builds the cluster without pods, and runs a test on it. To be called inside namespaces of the test's own.
    ///
    /// # Errors
    ///
    /// If it cannot be built. A panic of the test goes on.
    pub async fn run(test: impl AsyncFnOnce(Fleet) + Send + 'static) -> Result<()> {
        let node =
            |(name, address): (&str, [u8; 4])| lab::Node { name: name.to_owned(), addresses: vec![address.into()] };
        let nodes = NODES.into_iter().map(node).collect();
        let topology = Topology { attachment: Attachment::Routed, nodes, pods: Vec::new(), outside: Vec::new() };
        let lab = Lab::build(topology).await?;
        let netns = lab.node(0).context("the lab has a node")?.clone();
        inside(netns, async move || {
            test(Fleet::build(lab).await?).await;
            Ok(())
        })
        .await
    }

    async fn build(lab: Lab) -> Result<Fleet> {
        let options = Options { address: NODES[0].1.into(), ..Options::default() };
        let api = ControlPlane::start_with(options).await?;
        let kubeconfig = install(&api).await?;
        let addresses = BTreeMap::new();
        let mut fleet = Fleet { api, agents: Vec::new(), kubelets: Vec::new(), lab, kubeconfig, addresses };
        for (at, (name, _)) in NODES.into_iter().enumerate() {
            fleet.api.apply(&scene::node(name, &[])).await?;
            let kubeconfig = fleet.kubeconfig.to_str().context("the path is text")?;
            let arguments = ["--kubeconfig", kubeconfig];
            let agent = fleet.on(at, || {
                let mut agent = Agent::start_on(name, &arguments)?;
                runtime::Builder::new_current_thread().enable_all().build()?.block_on(agent.ready())?;
                Ok(agent)
            })?;
            fleet.agents.push(agent);
            let kubelet = fleet.kubelet(at, &binary()?, Duration::ZERO).await?;
            fleet.kubelets.push(kubelet);
            fleet.deploy(at).await?;
        }
        Ok(fleet)
    }

    /// Does something in the network namespace of a node.
    fn on<T: Send>(&self, node: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.lab.node(node).context("the lab has no such node")?.run(work)?
    }

    async fn kubelet(&self, at: usize, program: &Path, delay: Duration) -> Result<Kubelet> {
        let (name, address) = NODES[at];
        let kubelet = self.on(at, || Kubelet::start(address.into(), &self.kubeconfig, program, delay))?;
        kubelet.report(&self.api, name, address.into()).await?;
        Ok(kubelet)
    }

    /// Has programs on a node begin so much later, as on a machine that does not keep up.
    ///
    /// # Errors
    ///
    /// If what runs them cannot be started anew.
    pub async fn delay(&mut self, node: usize, delay: Duration) -> Result<()> {
        self.kubelets[node] = self.kubelet(node, &binary()?, delay).await?;
        Ok(())
    }

    /// Has another program in the image of a node's agent.
    ///
    /// # Errors
    ///
    /// As for [`Fleet::delay`].
    pub async fn replace(&mut self, node: usize, program: &Path) -> Result<()> {
        self.kubelets[node] = self.kubelet(node, program, Duration::ZERO).await?;
        Ok(())
    }

    /// Tells the API of a node's agent what the DaemonSet's controller and kubelet would.
    ///
    /// # Errors
    ///
    /// If the API server refuses.
    pub async fn deploy(&self, node: usize) -> Result<()> {
        let socket = format!("--socket={}", self.agents[node].socket().display());
        let (name, address) = NODES[node];
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "kube-system", "name": pod_of(name), "labels": {"app.kubernetes.io/name": "postern"}},
            "spec": {"nodeName": name, "hostNetwork": true, "containers": [
                {"name": "postern", "image": "postern", "args": ["agent", "--admin-address=127.0.0.1:9471", socket]},
            ]},
        }))?;
        self.api.run_pod(&pod, &[address.into()]).await
    }

    /// Takes a node's agent out of the API.
    ///
    /// # Errors
    ///
    /// If it is not there.
    pub async fn withdraw(&self, node: usize) -> Result<()> {
        self.api.delete_pod("kube-system", &pod_of(NODES[node].0)).await
    }

    /// Runs a pod on a node, with an address of its own.
    ///
    /// # Errors
    ///
    /// If its name or address is taken.
    pub async fn run_pod(&mut self, pod: &Pod, address: IpAddr) -> Result<()> {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let node = NODES.iter().position(|(name, _)| Some(*name) == node).context("no such node")?;
        let name = format!(
            "{}/{}",
            pod.metadata.namespace.as_deref().unwrap_or("default"),
            pod.metadata.name.as_deref().context("a pod has a name")?
        );
        self.lab.add_pod(lab::Pod { id: name.clone(), node, addresses: vec![address] }).await?;
        self.api.run_pod(pod, &[address]).await?;
        self.addresses.insert(name, address);
        Ok(())
    }

    /// Waits until packets do what lines of expectations say, see [`mod@line`].
    ///
    /// # Errors
    ///
    /// What is still otherwise when time is up.
    pub async fn until(&self, lines: &[&str]) -> Result<()> {
        let addresses = |end: &str| Ok(vec![*self.addresses.get(end).with_context(|| format!("no pod {end}"))?]);
        line::until(&self.lab, addresses, lines).await
    }

    /// A command of the plugin, as who has all rights gives it.
    ///
    /// # Errors
    ///
    /// If the binary does not build.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command.args(["kubectl", "--kubeconfig"]).arg(self.api.kubeconfig()).args(arguments).stdin(Stdio::null());
        Ok(command)
    }

    /// What the plugin says: exit status, standard output, standard error.
    ///
    /// # Errors
    ///
    /// If it cannot be run.
    pub fn plugin(&self, arguments: &[&str]) -> Result<(i32, String, String)> {
        let Output { status, stdout, stderr } = self.command(arguments)?.output()?;
        let code = status.code().context("it was killed")?;
        Ok((code, String::from_utf8(stdout)?, String::from_utf8(stderr)?))
    }
}

fn pod_of(node: &str) -> String {
    format!("postern-{node}")
}
