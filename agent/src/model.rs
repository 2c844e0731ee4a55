//! A whole cluster from manifests: every node compiled, every end of a probe known, every probe judged.
//!
//! What `explain` answers and what `try` expects. A probe is judged twice, by the policy IR and by a packet traced
//! through the compiled table; if the two ever differ, the [`Verdict`] says so.

mod ends;
mod meant;
mod mesh;
mod named;
mod near;
mod placement;
mod question;
mod refused;
mod services;
mod verdict;
mod way;
mod workloads;

pub use ends::{End, EndError, MOST_PAIRS};
pub use named::{EndKind, Named, nearest};
pub use placement::Openings;
pub use question::{Question, Route, Several, notes_of};
pub use services::{Backend, Backends, Endpoint, Services, Wanted, nobody, wanted};
pub use verdict::{Flow, Side, Verdict, bridged, first_of_flow, isolated_by, quarantined, routed, rule};
pub use way::Way;
pub use workloads::{Workloads, owners_of};

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use compiler::Compiler;
use compiler::api::{NetworkPolicy, NodeName, Object, Pod, PodKey, Service};
use compiler::cluster::{Change, Event, Links, Namespaces, Pods, State};
use compiler::nft::{Deny, Table};
use compiler::policy::{Ir, LocalPod};

/// A cluster.
pub struct Model {
    nodes: BTreeMap<NodeName, ModelNode>,
    /// Seen from no node in particular, or from the only one: whose an address is.
    pods: Pods,
    namespaces: Namespaces,
    /// Pods that are not among them, of which whoever asks has told.
    strangers: Vec<Arc<Pod>>,
    /// The links of the node, where the model is of one and they are known.
    links: Links,
    events: Vec<Event>,
    services: Services,
    workloads: Workloads,
}

/// A node of the cluster.
pub struct ModelNode {
    /// Its own addresses, at least one of each family that its pods have.
    pub addresses: Vec<IpAddr>,
    /// Who may talk to whom there.
    pub ir: Ir,
    /// What enforces it.
    pub table: Arc<Table>,
}

impl Model {
    /// Compiles the cluster that these objects describe. Pods without a node are put on the first node by name, and
    /// nodes and pods without an address get one, the same each time.
    pub fn new(objects: &[Object], deny: Deny) -> Model {
        let (without_address, reserved, unready) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let openings = Openings { without_address: &without_address, reserved: &reserved, unready: &unready };
        Model::with(objects, &openings, Workloads::default(), deny)
    }

    /// The same, with limits to what is invented, and with what tells which pods belong together.
    pub fn with(objects: &[Object], openings: &Openings<'_>, workloads: Workloads, deny: Deny) -> Model {
        let placed = placement::place(objects, openings);
        let events = placed.events();
        let nodes = placed.nodes.iter().map(|(name, addresses)| {
            let mut compiler = Compiler::new(name.clone(), deny);
            for event in &events {
                compiler.apply(event.clone());
            }
            let node = ModelNode { addresses: addresses.clone(), ir: compiler.ir(), table: Arc::new(compiler.table()) };
            (name.clone(), node)
        });
        let mut state = State::new(NodeName("".into()));
        for event in &events {
            state.apply(event.clone());
        }
        let nodes = nodes.collect();
        let services = Services { services: placed.services, slices: placed.slices, unready: openings.unready.clone() };
        Model {
            nodes,
            pods: state.pods().clone(),
            namespaces: state.namespaces().clone(),
            strangers: Vec::new(),
            links: Links::default(),
            events,
            services,
            workloads,
        }
    }

    /// The part of a cluster that the agent of one node knows, with what its kernel holds.
    pub fn of_node(pods: Pods, ir: Ir, table: Arc<Table>) -> Model {
        let addresses: BTreeSet<IpAddr> = pods.local().flat_map(|pod| &pod.host_ips).copied().collect();
        let node = ModelNode { addresses: addresses.into_iter().collect(), ir, table };
        let nodes = BTreeMap::from([(pods.node().clone(), node)]);
        Model {
            nodes,
            pods,
            namespaces: Namespaces::default(),
            strangers: Vec::new(),
            links: Links::default(),
            events: Vec::new(),
            services: Services::default(),
            workloads: Workloads::default(),
        }
    }

    /// The table of a node without pods.
    pub fn table_of_empty_node(deny: Deny) -> Table {
        Compiler::new(NodeName("".into()), deny).table()
    }

    /// The nodes, by name.
    pub fn nodes(&self) -> &BTreeMap<NodeName, ModelNode> {
        &self.nodes
    }

    /// The pods, by namespace and name.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().map(|pod| &**pod)
    }

    /// One pod.
    pub fn pod(&self, key: &PodKey) -> Option<&Pod> {
        self.pods.get(key).map(|pod| &**pod)
    }

    /// The Services of the manifests.
    pub fn services(&self) -> &[Service] {
        &self.services.services
    }

    /// The policies. None, where the model is of one node.
    pub fn policies(&self) -> &[NetworkPolicy] {
        let mut lists = self.events.iter().filter_map(|event: &Event| {
            if let Event::Policies(Change::Reset(policies)) = event { Some(&policies[..]) } else { None }
        });
        lists.next_back().unwrap_or_default()
    }

    /// A pod as its node polices it, with the policies of that node.
    pub fn local(&self, key: &PodKey) -> Option<(&Ir, &LocalPod)> {
        let ir = &self.nodes.get(self.pod(key)?.node.as_ref()?)?.ir;
        let index = ir.pods.binary_search_by(|pod| pod.key.cmp(key)).ok()?;
        Some((ir, &ir.pods[index]))
    }

    /// Deployments and the like, with their pods.
    pub fn workloads(&self) -> &Workloads {
        &self.workloads
    }

    /// What an agent on any of the nodes would be told, as one list a kind. Nothing, where the model is of one node.
    pub fn events(&self) -> Vec<Event> {
        self.events.clone()
    }

    /// The node that has an address as its own.
    pub fn node_of(&self, address: IpAddr) -> Option<&NodeName> {
        self.nodes.iter().find(|(_, node)| node.addresses.contains(&address)).map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests;
