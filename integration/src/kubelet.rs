//! The part of a node's kubelet that runs programs in pods, for the API server of the tests to ask.

use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::control_plane::ControlPlane;
use crate::repository;

/// A kubelet, ended on drop.
pub struct Kubelet {
    process: Child,
    port: u16,
}

impl Kubelet {
    /// Starts it in the network namespace of the calling thread. In the agent's image there is this program; it finds the
    /// API server by the kubeconfig, and waits so long before it begins.
    ///
    /// # Errors
    ///
    /// If it cannot be built, or does not listen.
    pub fn start(address: IpAddr, kubeconfig: &Path, program: &Path, delay: Duration) -> Result<Kubelet> {
        let mut process = Command::new(repository::kubelet()?)
            .args(["--address", &address.to_string(), "--delay", &format!("{}ms", delay.as_millis())])
            .arg("--postern")
            .arg(program)
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("its output is a pipe")?).read_line(&mut line)?;
        let port = line.trim_end().strip_prefix("ready ").context("the kubelet does not start")?.parse()?;
        Ok(Kubelet { process, port })
    }

    /// Says in the node's status where it is.
    ///
    /// # Errors
    ///
    /// If the API server refuses.
    pub async fn report(&self, api: &ControlPlane, node: &str, address: IpAddr) -> Result<()> {
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": address}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.port}},
        }});
        let nodes: Api<Node> = Api::all(api.client());
        nodes.patch_status(node, &PatchParams::default(), &Patch::Merge(&status)).await?;
        Ok(())
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill, and waiting only collects it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
