//! `postern agent`

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use compiler::cluster::{Budget, Cost, InvalidCost};
use compiler::nft::LogGroup;
use ipnet::IpNet;

use super::{ADMIN, CNI_RESULTS, DenyArg, FoldersArgs, SOCKET};
use crate::metrics::MOST_POLICIES;

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormatArg {
    /// One line an event, for people
    Text,
    /// One JSON object an event
    Json,
}

/// `postern agent`
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// The name of this node, as in spec.nodeName of its pods
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// A kubeconfig file; without it and without -f the agent uses its service account
    #[arg(long, value_name = "PATH", conflicts_with = "paths")]
    pub kubeconfig: Option<PathBuf>,
    /// Follow these files and folders instead of an API server; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// How far into folders.
    #[command(flatten)]
    pub folders: FoldersArgs,
    /// How refused packets are answered
    #[arg(long, value_enum, default_value = "drop")]
    pub deny: DenyArg,
    /// Where /livez, /readyz and /metrics are served
    #[arg(long, value_name = "ADDRESS:PORT", default_value = ADMIN)]
    pub admin_address: SocketAddr,
    /// Where root of this node is told more than anybody, as by `postern denials`: a socket, or off
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
    /// Whether the kernel tells of some of the packets that are refused
    #[arg(long, value_enum, default_value = "on")]
    pub denials: DenialsArg,
    /// The group of NFLOG by which it does so
    #[arg(long, value_name = "NUMBER", default_value_t = LogGroup::default().0)]
    pub denials_group: u16,
    /// Log what the kernel tells of, a line each, up to twenty a second
    #[arg(long)]
    pub log_denials: bool,
    /// How logs are written
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormatArg,
    /// The least important level that is logged, or a filter as RUST_LOG takes it
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log_level: String,
    /// Honour the Namespace annotation of Kubernetes 1.3 on live Namespaces (it always counts in files)
    #[arg(long)]
    pub legacy_namespace_isolation: bool,
    /// Whose packets must have a source that the node routes to their pod
    #[arg(long, value_enum, default_value = "all")]
    pub own_addresses: OwnAddressesArg,
    /// Namespaces whose pods route for others (gateways, virtual machines), and may send with any source
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',')]
    pub routing_namespaces: Vec<String>,
    /// Where the container runtime keeps the results of its network plugins, or off
    #[arg(long, value_name = "FOLDER", default_value = CNI_RESULTS)]
    pub cni_results: PathBuf,
    /// Whether addresses of this node's pod ranges are refused that no pod is known to have
    #[arg(long, value_enum, default_value = "auto")]
    pub gate: GateArg,
    /// The ranges from which this node gives its pods addresses; without it the Node's spec.podCIDRs
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    pub pod_ranges: Vec<IpNet>,
    /// What becomes of open flows that policies do not allow any more
    #[arg(long, value_enum, default_value = "cut")]
    pub established: EstablishedArg,
    /// Seconds between two comparisons of the kernel's table with what it should be
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub verify_interval: u64,
    /// Policies of the node's pods up to which each has metrics of its own; 0 for none
    #[arg(long, value_name = "NUMBER", default_value_t = MOST_POLICIES)]
    pub policy_metrics: usize,
    /// The most that one policy may cost; one that costs more isolates its pods and allows nothing. Parts may be left out
    #[arg(long, value_name = "COST", value_parser = policy_budget, default_value_t = Budget::default().policy)]
    pub policy_budget: Cost,
    /// The most that the policies of one namespace may cost together, in the same way
    #[arg(long, value_name = "COST", value_parser = namespace_budget, default_value_t = Budget::default().namespace)]
    pub namespace_budget: Cost,
}

fn policy_budget(text: &str) -> Result<Cost, InvalidCost> {
    Budget::default().policy.with(text)
}

fn namespace_budget(text: &str) -> Result<Cost, InvalidCost> {
    Budget::default().namespace.with(text)
}

/// Whose packets must have a source of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OwnAddressesArg {
    /// Those of all pods of the node
    All,
    /// Those of pods that a policy isolates
    Isolated,
    /// Nobody's
    Off,
}

/// Whether the gate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GateArg {
    /// Where all that is known shows that the ranges are those of the network plugin
    Auto,
    /// Nowhere
    Off,
}

/// Whether refused packets are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DenialsArg {
    /// Some of them, as `postern denials` shows
    On,
    /// They are counted alone
    Off,
}

/// What becomes of open flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EstablishedArg {
    /// They are refused from the change on
    Cut,
    /// They go on until they end
    Keep,
}
