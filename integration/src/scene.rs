//! A small cluster in a few words of YAML, tried with real packets in both families.
//!
//! What is expected is said in lines such as `shop/client -> shop/web 80/TCP: allowed`. An end is a pod, a node
//! (`node/node-1`), a Service (`service/shop/web`), or an address. Ends with addresses of both families are asked by
//! both. Every answer is held against the policy model too, so that a line that is wrong is told from packets that are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use compiler::api::Object;
use compiler::nft::{Deny, Family};
use compiler::policy::Packet;
use lab::{Attachment, Endpoint, Netns, Outcome};
use postern::files;
use postern::model::{Flow, Model, Route};
use postern::probes::Probe;
use postern::trial::Trial;
use tempfile::TempDir;

use crate::line::{self, Line};

/// How long one try of a probe waits for an answer. A refusal takes two tries.
const WINDOW: Duration = Duration::from_millis(500);
/// How long an answer is waited for where one is expected.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How the same cluster is built: corners look alike in each of them, and meet different hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// How pods are joined to their nodes.
    pub attachment: Attachment,
    /// Whether the pods of `node-2` are on `node-1` too.
    pub one_node: bool,
}

/// A running cluster.
pub struct Scene {
    /// What the policies say.
    pub model: Model,
    /// What enforces them.
    pub trial: Trial,
}

/// A question with the answer that is expected.
struct Asked {
    flow: Flow,
    packet: Packet,
    expected: Outcome,
    text: String,
}

impl Shape {
    /// One node and two, routed and bridged.
    pub const ALL: [Shape; 4] = [
        Shape { attachment: Attachment::Routed, one_node: true },
        Shape { attachment: Attachment::Routed, one_node: false },
        Shape { attachment: Attachment::Bridged, one_node: true },
        Shape { attachment: Attachment::Bridged, one_node: false },
    ];
    /// Routed and bridged, on two nodes.
    pub const TWO_NODES: [Shape; 2] = [Shape::ALL[1], Shape::ALL[3]];
}

/// A pod on a node. `labels` and `ports` are YAML: what stands between the braces, and between the brackets.
pub fn pod(name: &str, node: &str, labels: &str, ports: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}\n\
         spec: {{nodeName: {node}, containers: [{{name: main, image: example.test/main, ports: [{ports}]}}]}}\n"
    )
}

/// A Node with these addresses.
pub fn node(name: &str, addresses: &[&str]) -> String {
    let address = |address: &&str| format!("{{type: InternalIP, address: '{address}'}}");
    let addresses = addresses.iter().map(address).collect::<Vec<_>>().join(", ");
    format!("---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nstatus: {{addresses: [{addresses}]}}\n")
}

/// A NetworkPolicy; `spec` is YAML in braces.
pub fn policy(name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {spec}\n"
    )
}

/// The objects of a YAML text that has nothing wrong with it.
///
/// # Errors
///
/// If it has.
pub fn objects(yaml: &str) -> Result<Vec<Object>> {
    let folder = TempDir::with_prefix("postern-scene-")?;
    let file = folder.path().join("cluster.yaml");
    fs::write(&file, yaml)?;
    let loaded = files::load(&[file]);
    ensure!(loaded.errors.is_empty() && loaded.findings.is_empty(), "{:?} {:?}", loaded.errors, loaded.findings);
    Ok(loaded.objects)
}

impl Scene {
    /// Builds a cluster and waits until its agents enforce. The host outside has the given addresses.
    ///
    /// # Errors
    ///
    /// If the YAML is wrong, or the kernel refuses.
    pub async fn start(yaml: &str, outside: &[&str], shape: Shape, deny: Deny) -> Result<Scene> {
        let yaml = if shape.one_node { yaml.replace("node-2", "node-1") } else { yaml.to_owned() };
        let model = Model::new(&objects(&yaml)?, deny);
        let outside = outside.iter().map(|address| Ok(address.parse()?)).collect::<Result<BTreeSet<IpAddr>>>()?;
        let trial = Trial::start(&model, outside, shape.attachment, deny).await?;
        Ok(Scene { model, trial })
    }

    /// The addresses of an end.
    ///
    /// # Errors
    ///
    /// If there is no such end.
    pub fn addresses(&self, end: &str) -> Result<Vec<IpAddr>> {
        if let Some(node) = end.strip_prefix("node/") {
            let found = self.model.nodes().iter().find(|(name, _)| name.to_string() == node);
            return Ok(found.with_context(|| format!("no {end}"))?.1.addresses.clone());
        }
        if let Some(service) = end.strip_prefix("service/") {
            let named = |s: &&compiler::api::Service| format!("{}/{}", s.namespace, s.name) == service;
            return Ok(self
                .model
                .services()
                .iter()
                .find(named)
                .with_context(|| format!("no {end}"))?
                .cluster_ips
                .clone());
        }
        Ok(self.model.addresses(end)?)
    }

    /// The address of a family that an end has.
    ///
    /// # Errors
    ///
    /// If it has none.
    pub fn address(&self, end: &str, family: Family) -> Result<IpAddr> {
        let found = self.addresses(end)?.into_iter().find(|address| Family::of(*address) == family);
        found.with_context(|| format!("{end} has no address of {family}"))
    }

    /// An end with its address of a family, for packets that are no probes.
    ///
    /// # Errors
    ///
    /// If there is no such end.
    pub fn endpoint(&self, end: &str, family: Family) -> Result<Endpoint> {
        let address = self.address(end, family)?;
        self.trial.lab().endpoint(address).with_context(|| format!("nobody has {address}"))
    }

    /// The network namespace of an end.
    ///
    /// # Errors
    ///
    /// If there is no such end.
    pub fn netns(&self, end: &str) -> Result<Netns> {
        let address = self.addresses(end)?.into_iter().next().with_context(|| format!("{end} has no address"))?;
        Ok(self.trial.lab().endpoint(address).with_context(|| format!("nobody has {address}"))?.netns)
    }

    /// Sends the packets that the lines speak of, and holds what became of them against what they expect.
    ///
    /// # Errors
    ///
    /// What came out otherwise, line by line.
    pub async fn check(&self, lines: &[&str]) -> Result<()> {
        let mut asked = Vec::new();
        for line in lines {
            asked.extend(self.read(line).with_context(|| (*line).to_owned())?);
        }
        let expected: Vec<Outcome> = asked.iter().map(|asked| asked.expected.clone()).collect();
        let send = async |numbers: &[usize]| {
            let flow = |number: &usize| (asked[*number].flow, asked[*number].packet);
            self.trial.probe(&numbers.iter().map(flow).collect::<Vec<_>>(), WINDOW).await
        };
        let outcomes = line::patiently(&expected, ANSWER_WITHIN, send).await;
        let wrong = asked.iter().zip(outcomes).filter(|(asked, outcome)| asked.expected != *outcome);
        let wrong: Vec<String> = wrong.map(|(asked, outcome)| format!("{}, but is {outcome}", asked.text)).collect();
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }

    /// A line in every family that both of its ends have.
    fn read(&self, text: &str) -> Result<Vec<Asked>> {
        let Line { source, destination, port, expected } = Line::read(text)?;
        let by_family = |end: &str| -> Result<BTreeMap<Family, IpAddr>> {
            Ok(self.addresses(end)?.into_iter().rev().map(|address| (Family::of(address), address)).collect())
        };
        let (sources, destinations) = (by_family(source)?, by_family(destination)?);
        let mut lines = Vec::new();
        for (family, source) in &sources {
            let Some(destination) = destinations.get(family) else { continue };
            let probe = Probe::from_words(&source.to_string(), &destination.to_string(), port);
            for Route { flow, packet } in probe.map_err(anyhow::Error::msg)?.question(&self.model)?.routes {
                let verdict = self.model.judge(&packet);
                let text = format!("{text} in {family} ({source} -> {destination}, {})", packet.destination);
                let said = verdict.allowed() == (expected == Outcome::Allowed) && !verdict.disagrees();
                ensure!(said, "{text}, but the model says {verdict:#?}");
                lines.push(Asked { flow, packet, expected: expected.clone(), text });
            }
        }
        ensure!(!lines.is_empty(), "the ends have no family in common");
        Ok(lines)
    }
}
