//! The agents of the nodes, by the pods of the DaemonSet.

use std::collections::BTreeMap;
use std::time::Duration;

use compiler::api::Json;
use kube::Client;
use kube::api::ListParams;
use tokio::runtime::Runtime;

use super::{Collection, Lookup, Missing};
use crate::telemetry::Causes;

/// What the pods of the DaemonSet in `manifests/base` are called by.
const LABELS: &str = "app.kubernetes.io/name=postern";
/// The program in the image, where the pod names no other.
const PROGRAM: &str = "/postern";
/// The flags of the agent that say where it is found; who asks it in its pod gives the same.
const PLACES: [&str; 3] = ["--admin-address", "--socket", "--cni-results"];

/// The pod of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The container that runs the agent.
    pub container: String,
    /// The program there.
    pub program: String,
    /// The flags of the agent that say where it is found, with their values.
    pub places: BTreeMap<String, String>,
}

/// The nodes of the cluster, and of each the agent's pod or why there is none that can be asked.
pub type Agents = BTreeMap<String, Result<AgentPod, String>>;

impl Lookup {
    /// The agents of all nodes.
    ///
    /// # Errors
    ///
    /// If the pods of the namespace cannot be listed, or none of them is an agent's.
    pub fn agents(&mut self, namespace: &str) -> Result<Agents, Missing> {
        let collection = Collection { group: "", version: "v1", plural: "pods", namespace: Some(namespace) };
        let listed = self.get(&collection, ListParams::default().labels(LABELS))?;
        let pods = listed.get("items").and_then(Json::as_list).unwrap_or_default();
        let agents = of_pods(pods);
        if agents.is_empty() {
            return Err(Missing::Failure(format!(
                "there is no pod with the label {LABELS} in namespace {namespace}; --agent-namespace says where the agents are"
            )));
        }
        // Who may not list nodes is told of those that have an agent.
        let collection = Collection { group: "", version: "v1", plural: "nodes", namespace: None };
        let listed = self.get(&collection, ListParams::default()).unwrap_or(Json::Null);
        let nodes = listed.get("items").and_then(Json::as_list).unwrap_or_default();
        Ok(of_nodes(nodes).map(|node| (node.to_owned(), Err("it has no agent".to_owned()))).chain(agents).collect())
    }

    /// A client for programs in pods, and what runs it.
    ///
    /// # Errors
    ///
    /// If there is no way to the API server.
    pub(crate) fn streaming(&mut self) -> Result<(&Runtime, Client), Missing> {
        let (runtime, access, _) = self.reach()?;
        let made = runtime.block_on(async { access.streaming_client() });
        Ok((runtime, made.map_err(|error| Missing::Failure(format!("{error:#}")))?))
    }
}

impl Missing {
    /// Why no program can be run in a pod.
    pub(crate) fn of_exec(error: &kube::Error, namespace: &str) -> Missing {
        let kube::Error::Api(status) = error else { return Missing::Failure(Causes(error).to_string()) };
        match status.code {
            // A stream is begun by GET; since 1.35 the API server asks for `create` besides.
            403 => Missing::Rights {
                verb: "get and create",
                resource: "pods/exec".to_owned(),
                namespace: Some(namespace.to_owned()),
            },
            _ => Missing::Failure(status.message.clone()),
        }
    }

    pub(crate) fn in_time(patience: Duration) -> Missing {
        Missing::Failure(format!("no answer within {} s", patience.as_secs_f32()))
    }
}

/// The names of the nodes on which the DaemonSet runs an agent.
fn of_nodes(nodes: &[Json]) -> impl Iterator<Item = &str> {
    let is_linux =
        |node: &&Json| text(node, &["metadata", "labels", "kubernetes.io/os"]).is_none_or(|os| os == "linux");
    nodes.iter().filter(is_linux).filter_map(|node| text(node, &["metadata", "name"]))
}

/// By node. While an agent is replaced a node has two pods, of which one runs.
fn of_pods(pods: &[Json]) -> Agents {
    let mut agents = Agents::new();
    for pod in pods {
        let Some(node) = text(pod, &["spec", "nodeName"]) else { continue };
        let phase = text(pod, &["status", "phase"]).unwrap_or("Unknown");
        let found = match (phase, text(pod, &["metadata", "deletionTimestamp"]).is_none()) {
            ("Running", true) => agent_pod(pod).ok_or_else(|| "its agent's pod has no container".to_owned()),
            (_, false) => Err("its agent is ending".to_owned()),
            (phase, true) => Err(format!("its agent does not run: {phase}")),
        };
        let known = agents.get(node);
        if known.is_none_or(|known| known.is_err()) {
            agents.insert(node.to_owned(), found);
        }
    }
    agents
}

fn agent_pod(pod: &Json) -> Option<AgentPod> {
    let containers = pod.at(&["spec", "containers"])?.as_list()?;
    // A mesh or an admission plugin may have put others beside it.
    let own =
        containers.iter().find(|container| text(container, &["name"]) == Some("postern")).or(containers.first())?;
    let words = |field: &str| own.get(field).and_then(Json::as_list).into_iter().flatten().filter_map(Json::as_str);
    Some(AgentPod {
        namespace: text(pod, &["metadata", "namespace"])?.to_owned(),
        name: text(pod, &["metadata", "name"])?.to_owned(),
        container: text(own, &["name"])?.to_owned(),
        program: words("command").next().unwrap_or(PROGRAM).to_owned(),
        places: places(words("command").chain(words("args"))),
    })
}

/// The text to which these keys lead, if it is one.
fn text<'a>(object: &'a Json, keys: &[&str]) -> Option<&'a str> {
    object.at(keys)?.as_str()
}

/// `--socket=/a` and `--socket /a`
fn places<'a>(words: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    let mut places = BTreeMap::new();
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (word, words.peek().copied()),
        };
        if let (true, Some(value)) = (PLACES.contains(&flag), value) {
            places.insert(flag.to_owned(), value.to_owned());
        }
    }
    places
}

impl AgentPod {
    /// The words of a command there: the program, its subcommand, and of the agent's flags those that the subcommand has.
    pub(crate) fn command(
        &self,
        subcommand: &str,
        flags: &[&str],
        more: impl IntoIterator<Item = String>,
    ) -> Vec<String> {
        let of_agent = flags.iter().filter_map(|flag| Some(format!("{flag}={}", self.places.get(*flag)?)));
        [self.program.clone(), subcommand.to_owned()].into_iter().chain(of_agent).chain(more).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, node: &str, phase: &str, args: &[&str]) -> Value {
        json!({
            "metadata": {"name": name, "namespace": "kube-system"},
            "spec": {"nodeName": node, "containers": [
                {"name": "proxy", "args": ["--socket=/other"]}, {"name": "postern", "args": args},
            ]},
            "status": {"phase": phase},
        })
    }

    #[test]
    fn an_agent_that_is_replaced_is_the_one_that_runs() {
        let mut old = pod("postern-a", "n1", "Running", &[]);
        old["metadata"]["deletionTimestamp"] = json!("2026-01-31T12:00:00Z");
        let pods = [old, pod("postern-b", "n1", "Running", &[]), pod("postern-c", "n1", "Pending", &[])];
        let agents = of_pods(&pods.map(Json::from));
        assert_eq!(agents["n1"].as_ref().map(|agent| &*agent.name), Ok("postern-b"));
        let agents = of_pods(&[pod("postern-c", "n1", "Pending", &[]).into()]);
        assert_eq!(agents["n1"].as_ref().map_err(String::as_str), Err("its agent does not run: Pending"));
    }

    #[test]
    fn nodes_of_other_systems_need_no_agent() {
        let node =
            |name: &str, os: &str| Json::from(json!({"metadata": {"name": name, "labels": {"kubernetes.io/os": os}}}));
        let nodes = [node("n1", "linux"), node("n2", "windows"), json!({"metadata": {"name": "n3"}}).into()];
        assert_eq!(of_nodes(&nodes).collect::<Vec<_>>(), ["n1", "n3"]);
    }

    #[test]
    fn an_agent_is_asked_where_it_was_told_to_be() {
        let args = ["agent", "--admin-address=127.0.0.1:9", "--socket", "/s", "--gate=off"];
        let agent = agent_pod(&pod("postern-a", "n1", "Running", &args).into()).unwrap();
        assert_eq!(agent.container, "postern");
        let words = agent.command("denials", &["--socket"], ["-o".to_owned(), "json".to_owned()]);
        assert_eq!(words, ["/postern", "denials", "--socket=/s", "-o", "json"]);
        assert_eq!(agent.command("explain", &["--admin-address"], [])[2], "--admin-address=127.0.0.1:9");
    }
}
