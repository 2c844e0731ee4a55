//! The command line.

mod doctor;
mod flows;
mod matrix;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use compiler::cluster::{Budget, Cost, InvalidCost};
use compiler::nft::{Deny, LogGroup};
use ipnet::IpNet;
use jiff::SignedDuration;

/// Where the agent's socket is, if nothing else is said.
const SOCKET: &str = "/run/postern/agent.sock";
/// Where libcni keeps the results of plugins.
const CNI_RESULTS: &str = "/var/lib/cni/results";

pub use doctor::DoctorArgs;
pub use flows::FlowsArgs;
pub use matrix::{DiffArgs, MatrixArgs, ReportArg};

/// Enforces Kubernetes NetworkPolicy with nftables.
#[derive(Debug, Parser)]
#[command(name = "postern", version, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Follow the API server, or a folder of manifests, and keep this node's table true
    #[command(after_help = "Example:\n  postern agent --kubeconfig ~/.kube/config --node-name worker-1")]
    Agent(AgentArgs),
    /// Try manifests out in a throw-away cluster of network namespaces, with real packets
    #[command(after_help = "Examples:\n  postern try -f manifests/examples/13-three-tiers\n  \
                            helm template . | postern try -f -   (with the pods that a cluster would make)\n  \
                            echo '{\"src\":\"shop/web\",\"dst\":\"shop/db\",\"protocol\":\"TCP\",\"port\":5432}' | \
                            postern try -f cluster.yaml --probes - --output json")]
    Try(TryArgs),
    /// Print the table of one node as nft text
    #[command(after_help = "Example:\n  postern compile -f manifests/examples/13-three-tiers --node node-1")]
    Compile(CompileArgs),
    /// Say whether a flow is allowed, and by which policy and rule, or who isolates and which rule comes nearest
    #[command(after_help = "Examples:\n  postern explain -f cluster.yaml shop/web shop/db 5432/TCP\n  \
                            postern explain -f cluster.yaml 203.0.113.7 shop/web ICMP\n  \
                            postern explain shop/web svc/shop/db 5432/TCP   (each of its endpoints)\n  \
                            postern explain deploy/shop/web sts/shop/db 5432/TCP   (each pair of their pods)\n  \
                            postern explain shop/web shop/db 5432/TCP   (asks the agent of this node)")]
    Explain(ExplainArgs),
    /// Say who may talk to whom, by workload and port: of manifests, or of the running cluster
    #[command(after_help = "Examples:\n  postern matrix -f manifests/examples/13-three-tiers\n  \
                            postern matrix ns/shop   (of the running cluster, pairs with a pod of this namespace)\n  \
                            helm template . | postern matrix -f - deploy/shop/web -o json")]
    Matrix(MatrixArgs),
    /// Say which connections manifests would open or close; the exit status is 1 if any
    #[command(after_help = "Examples:\n  postern diff -f new/ --against old/\n  \
                            postern diff -f policy.yaml   (against the running cluster)\n  \
                            helm template . | postern diff -f - --against rendered/ -o markdown")]
    Diff(DiffArgs),
    /// Show what was refused on this node lately: who sent what to whom, and why it did not pass
    #[command(after_help = "Examples:\n  postern denials --since 10m\n  postern denials --follow -n shop\n\n\
                            A line stands for all packets of a kind, and shows the last one. Where many are refused, the \
                            kernel tells of some of them.")]
    Denials(DenialsArgs),
    /// Show the open flows of this node's pods: between whom, and which policy and rule admits each
    #[command(after_help = "Examples:\n  postern flows -n shop --port 5432\n  \
                            postern flows --refused   (open, and not allowed any more)\n  \
                            postern flows --policy shop/db --watch -o json\n\n\
                            It takes CAP_NET_ADMIN on the node: root there, or kubectl exec in the agent's pod.")]
    Flows(FlowsArgs),
    /// Look at the health of this node: agent, kernel, settings, neighbours and rights; a line a check, with what to do
    #[command(after_help = "Examples:\n  postern doctor\n  postern doctor -o json\n\n\
                            States: ok; note, something is weaker than it could be; wrong, policies are not enforced as \
                            they are written, or soon will not be: then the exit status is 1. Nothing is changed. It takes \
                            CAP_NET_ADMIN on the node: root there, or kubectl exec in the agent's pod.")]
    Doctor(DoctorArgs),
    /// Remove the table, and with it all enforcement, from this node
    #[command(after_help = "Example:\n  postern cleanup")]
    Cleanup,
    /// Print the version
    #[command(after_help = "Example:\n  postern version")]
    Version,
    /// Print completions for a shell
    #[command(after_help = "Example:\n  postern completions bash > /etc/bash_completion.d/postern")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Where objects come from, if from files.
#[derive(Debug, Args)]
pub struct FilesArgs {
    /// A file or folder of manifests, or - for standard input; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Read the folders in a folder too; --recursive=false reads the folder alone, as kubectl does without -R
    #[arg(short = 'R', long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = ArgAction::Set)]
    pub recursive: bool,
    /// Treat findings (objects that the API server would refuse, policies that nobody here enforces) as bad input
    #[arg(long)]
    pub strict: bool,
}

/// How refused packets are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DenyArg {
    /// Drop them in silence
    Drop,
    /// Answer with a TCP reset or ICMP "administratively prohibited"
    Reject,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputArg {
    /// For people
    Text,
    /// JSON lines: one a probe, in the order of the probes, or one a flow
    Json,
}

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
    /// Read the folders in a folder too; --recursive=false reads the folder alone, as kubectl does without -R
    #[arg(short = 'R', long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = ArgAction::Set)]
    pub recursive: bool,
    /// How refused packets are answered
    #[arg(long, value_enum, default_value = "drop")]
    pub deny: DenyArg,
    /// Where /livez, /readyz and /metrics are served
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9471")]
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

/// What `try` and `explain` are asked.
#[derive(Debug, Args)]
pub struct ProbesArgs {
    /// Probes as JSON lines ({"src":..,"dst":..,"protocol":..,"port":..}), or - for standard input
    #[arg(long, value_name = "FILE")]
    pub probes: Option<PathBuf>,
    /// How results are printed
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: OutputArg,
}

/// How pods are attached to their node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AttachmentArg {
    /// By a link of their own, routed
    Routed,
    /// As ports of one bridge, as the plug-ins of k3s do
    Bridged,
}

/// `postern try`
#[derive(Debug, Args)]
pub struct TryArgs {
    /// The manifests.
    #[command(flatten)]
    pub files: FilesArgs,
    /// The probes; without any, every pair of pods on every declared port.
    #[command(flatten)]
    pub probes: ProbesArgs,
    /// How refused packets are answered
    #[arg(long, value_enum, default_value = "drop")]
    pub deny: DenyArg,
    /// How pods are attached to their node
    #[arg(long, value_enum, default_value = "routed")]
    pub attachment: AttachmentArg,
    /// Milliseconds of silence after which a probe counts as refused
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    pub timeout: u64,
}

/// `postern compile`
#[derive(Debug, Args)]
pub struct CompileArgs {
    /// The manifests.
    #[command(flatten)]
    pub files: FilesArgs,
    /// The node whose table is printed; may be left out where the manifests name only one
    #[arg(long, env = "NODE_NAME")]
    pub node: Option<String>,
    /// How refused packets are answered
    #[arg(long, value_enum, default_value = "drop")]
    pub deny: DenyArg,
}

/// `postern explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// A file or folder of manifests, or - for standard input; may be given several times. Without it the agent of
    /// this node is asked
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Read the folders in a folder too; --recursive=false reads the folder alone, as kubectl does without -R
    #[arg(short = 'R', long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = ArgAction::Set)]
    pub recursive: bool,
    /// Treat findings (objects that the API server would refuse, policies that nobody here enforces) as bad input
    #[arg(long)]
    pub strict: bool,
    /// Where the agent serves, if it is asked
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9471")]
    pub admin_address: SocketAddr,
    /// With whose rights Services and other ends that the agent does not watch are read from the API server, if it is
    /// asked; by default those of the default kubeconfig, or of the pod's service account
    #[arg(long, value_name = "PATH", conflicts_with = "paths")]
    pub kubeconfig: Option<PathBuf>,
    /// Probes from a file, instead of one on the command line.
    #[command(flatten)]
    pub probes: ProbesArgs,
    /// Print the nft rules that the packet meets
    #[arg(long)]
    pub trace: bool,
    /// The client: namespace/pod, node/NAME, an address, or many: deploy/NAMESPACE/NAME and the like, ns/NAME
    #[arg(value_name = "SRC", required_unless_present = "probes", requires = "dst")]
    pub src: Option<String>,
    /// The server: the same, or svc/NAMESPACE/NAME
    #[arg(value_name = "DST", requires = "port")]
    pub dst: Option<String>,
    /// The port and protocol, such as 80/TCP, or ICMP
    #[arg(value_name = "PORT/PROTO")]
    pub port: Option<String>,
}

/// `postern denials`
#[derive(Debug, Args)]
pub struct DenialsArgs {
    /// Only what was refused so long ago at most, such as 10m, 1h30m
    #[arg(long, value_name = "TIME", default_value = "10m")]
    pub since: SignedDuration,
    /// Go on, and show what is refused from now on, as it is told of
    #[arg(long)]
    pub follow: bool,
    /// Only what this pod sent, or what was sent to it
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub pod: Option<String>,
    /// Only what a pod of this namespace sent, or what was sent to one
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// How it is printed: JSON lines, or for people
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: OutputArg,
    /// The agent's socket
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
}

impl From<DenyArg> for Deny {
    fn from(deny: DenyArg) -> Deny {
        match deny {
            DenyArg::Drop => Deny::Drop,
            DenyArg::Reject => Deny::Reject,
        }
    }
}
