//! The open flows of a node's pods, for people: who talks to whom, and which policy and rule admits that.
//!
//! Whoever asks reads connection tracking himself, which takes CAP_NET_ADMIN on the node. The agent, whose address anybody
//! on the node can reach, tells nobody which flows there are: it only says what it thinks of those that it is shown, as it
//! answers `explain`.
//!
//! ```text
//! conntrack  ->  Filter: a pod of this node at an end?  ->  Report: some hundred at a time  ->  lines
//!                  ^ Scope                                    ^ Judged            ^ Names
//!                  agent (its address)                        agent               API server
//! ```
//!
//! Nothing is kept of a flow that has been printed, so that memory does not grow with their number.

mod answer;
mod client;
mod filter;
mod line;
mod names;
mod protocol;
mod report;

use std::net::IpAddr;

use compiler::flows::Flow;
use serde::{Deserialize, Serialize};

pub use answer::{judge, scope};
pub use client::Client;
pub use filter::Filter;
pub use names::Names;
pub use protocol::ProtocolFilter;
pub use report::Report;

use crate::probes::SideAnswer;

/// Where the agent says whose flows are meant: [`Wanted`] is posted as JSON, a [`Scope`] comes back.
pub const SCOPE_PATH: &str = "/debug/flows/scope";
/// Where the agent says what it thinks of flows: [`Asked`] is posted as JSON, a list of [`Judged`] comes back.
pub const JUDGE_PATH: &str = "/debug/flows/judge";
/// How many flows the agent is asked about at once, at most.
pub const MOST_ASKED: usize = 500;

/// Whose flows are wanted: those of which all that is given holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// `namespace/name` of a pod that is client or server.
    pub pod: Option<String>,
    /// A namespace in which a pod is client or server.
    pub namespace: Option<String>,
    /// `namespace/name` of a policy that isolates client or server in the direction of the flow.
    pub policy: Option<String>,
}

/// What tells by addresses whether a flow may be meant. There are no names in it: what is here, the node's routes tell too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// The addresses of the node's own pods.
    pub local: Vec<IpAddr>,
    /// One list for each thing that is wanted of the ends, in which one of them must be.
    pub ends: Vec<Vec<IpAddr>>,
    /// Set where the agent knows no pod of the name that is wanted: the nearest names that it knows, in words. Then there
    /// is no list for the pod.
    pub unknown_pod: Option<String>,
}

/// What the agent is asked of flows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The flows; at most [`MOST_ASKED`].
    pub flows: Vec<AskedFlow>,
    /// Only those are answered at an end of which this policy isolates, in the direction of the flow.
    pub policy: Option<String>,
    /// Only those are answered that could not begin now.
    pub refused: bool,
}

/// One flow that the agent is asked about, see [`Flow`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct AskedFlow {
    /// The client's address.
    pub client: IpAddr,
    /// The server's address.
    pub server: IpAddr,
    /// The number of the protocol.
    pub protocol: u8,
    /// The ports of client and server.
    pub ports: Option<(u16, u16)>,
}

/// What the agent thinks of one flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The place of the flow among those that were asked about.
    pub index: usize,
    /// Who the client is; `None` where the agent does not know.
    pub client: Option<Owner>,
    /// Who the server is.
    pub server: Option<Owner>,
    /// What the client's side would say of the flow if it began now.
    pub egress: SideAnswer,
    /// What the server's side would.
    pub ingress: SideAnswer,
}

/// Whose an address is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// `namespace/name` of a pod.
    Pod(String),
    /// The name of a node.
    Node(String),
}

impl From<Flow> for AskedFlow {
    fn from(Flow { client, server, protocol, ports }: Flow) -> AskedFlow {
        AskedFlow { client, server, protocol, ports }
    }
}

impl From<AskedFlow> for Flow {
    fn from(AskedFlow { client, server, protocol, ports }: AskedFlow) -> Flow {
        Flow { client, server, protocol, ports }
    }
}

impl Judged {
    /// Whether the flow could begin now, as far as this node knows.
    pub fn allowed(&self) -> bool {
        self.egress.allowed && self.ingress.allowed
    }
}
