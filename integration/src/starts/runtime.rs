//! A container runtime as far as networks go: the CNI library of containerd and CRI-O with real plugins, in a process of
//! its own (`integration/control-plane/sandbox`).

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::Netns;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::repository;

/// Where distributions keep the plugins.
const PLUGINS: &str = "/usr/lib/cni:/usr/libexec/cni";
/// How long a plugin may take on a loaded machine; that IPv6 addresses are nobody else's takes it two seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a plugin joins pods to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// By the plugin `ptp`: a link of its own for each pod, and a route to it.
    Routed,
    /// By the plugin `bridge`: all pods are ports of one.
    Bridged,
}

/// A network that stands.
#[derive(Debug)]
pub(super) struct Standing {
    /// The addresses in it.
    pub(super) addresses: Vec<IpAddr>,
    /// When the library was done, and had written its file.
    pub(super) since: Instant,
}

/// One network of a node, in the network namespace of the thread that makes it. Dropping it ends the process, and leaves
/// the pods' networks as they are.
pub(super) struct Runtime {
    process: Child,
    requests: Mutex<ChildStdin>,
    waiting: Arc<Mutex<Waiting>>,
}

/// Who waits for which container's answer.
type Waiting = BTreeMap<String, Sender<(Answer, Instant)>>;

#[derive(Debug, Deserialize)]
struct Answer {
    id: String,
    addresses: Option<Vec<IpAddr>>,
    error: Option<String>,
}

// === impl Network ===

impl Network {
    /// The plugin's part of a configuration.
    fn plugin(self) -> Value {
        match self {
            Network::Routed => json!({"type": "ptp"}),
            Network::Bridged => json!({
                "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
            }),
        }
    }
}

// === impl Runtime ===

impl Runtime {
    /// Configures a network of this name whose addresses are of these ranges. `folder` is for the state of its parts; the
    /// result files are below `cache`.
    ///
    /// # Errors
    ///
    /// If the program cannot be built or started.
    pub(super) fn start(
        name: &str,
        network: Network,
        ranges: [&str; 2],
        folder: &Path,
        cache: &Path,
    ) -> Result<Runtime> {
        let mut plugin = network.plugin();
        plugin["ipam"] = json!({
            "type": "host-local", "dataDir": folder.join("addresses"),
            "ranges": ranges.map(|range| [json!({"subnet": range})]),
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        });
        let config = folder.join(format!("{name}.conflist"));
        fs::write(&config, json!({"cniVersion": "1.0.0", "name": name, "plugins": [plugin]}).to_string())?;
        let mut process = Command::new(repository::sandbox()?)
            .arg("--config")
            .arg(config)
            .args(["--plugins", PLUGINS, "--cache"])
            .arg(cache)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the container runtime does not start")?;
        let requests = Mutex::new(process.stdin.take().context("its input is a pipe")?);
        let answers = BufReader::new(process.stdout.take().context("its output is a pipe")?);
        let waiting = Arc::new(Mutex::new(Waiting::new()));
        let told = waiting.clone();
        thread::Builder::new().name("answers".to_owned()).spawn(move || {
            for line in answers.lines() {
                let now = Instant::now();
                let Ok(answer) = line.map_err(anyhow::Error::from).and_then(|line| Ok(serde_json::from_str(&line)?))
                else {
                    break;
                };
                let answer: Answer = answer;
                let waits = told.lock().expect("nobody panics with the lock held").remove(&answer.id);
                if let Some(waits) = waits {
                    // Whoever has lost patience is gone.
                    let _ = waits.send((answer, now));
                }
            }
            // Without it nobody waits for an answer that does not come.
            told.lock().expect("nobody panics with the lock held").clear();
        })?;
        Ok(Runtime { process, requests, waiting })
    }

    /// Gives a pod, called by namespace and name, its network. Without one the container is no pod's.
    ///
    /// # Errors
    ///
    /// If a plugin refuses.
    pub(super) fn add(&self, id: &str, netns: &Netns, pod: Option<&str>) -> Result<Standing> {
        let (answer, since) = self.ask("add", id, netns, pod)?;
        let addresses = answer.addresses.context("an answer without addresses")?;
        ensure!(!addresses.is_empty(), "{id} has no address");
        Ok(Standing { addresses, since })
    }

    /// Ends the network of a pod.
    ///
    /// # Errors
    ///
    /// If a plugin refuses.
    pub(super) fn delete(&self, id: &str, netns: &Netns, pod: Option<&str>) -> Result<()> {
        self.ask("del", id, netns, pod).map(drop)
    }

    fn ask(&self, op: &str, id: &str, netns: &Netns, pod: Option<&str>) -> Result<(Answer, Instant)> {
        let (namespace, name) = pod.and_then(|pod| pod.split_once('/')).unwrap_or_default();
        let request =
            json!({"op": op, "id": id, "netns": netns.path(), "namespace": namespace, "pod": name, "uid": uid(id)});
        let (waits, answer) = mpsc::channel();
        self.waiting.lock().expect("nobody panics with the lock held").insert(id.to_owned(), waits);
        writeln!(self.requests.lock().expect("nobody panics with the lock held"), "{request}")?;
        let (answer, since) =
            answer.recv_timeout(PATIENCE).with_context(|| format!("no answer to {op} of {id} by the runtime"))?;
        match &answer.error {
            Some(error) => bail!("{op} of {id}: {error}"),
            None => Ok((answer, since)),
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill, and waiting only collects it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The UID of the pod of a container, as the API has it too.
pub(super) fn uid(id: &str) -> String {
    Sha256::digest(id)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}
