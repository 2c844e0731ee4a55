//! The command line.

mod agent;
mod denials;
mod doctor;
mod explain;
mod files;
mod flows;
mod kubectl;
mod matrix;
mod status;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use compiler::nft::Deny;

/// Where the agent's socket is, if nothing else is said.
const SOCKET: &str = "/run/postern/agent.sock";
/// Where the agent serves, if nothing else is said.
const ADMIN: &str = "127.0.0.1:9471";
/// Where libcni keeps the results of plugins.
const CNI_RESULTS: &str = "/var/lib/cni/results";

/// By what name the binary is a plugin of kubectl.
const PLUGIN: &str = "kubectl-postern";

pub use agent::{AgentArgs, DenialsArg, EstablishedArg, GateArg, LogFormatArg, OwnAddressesArg};
pub use denials::{DenialsArgs, DenialsFilterArgs};
pub use doctor::DoctorArgs;
pub use explain::{ExplainArgs, QuestionArgs};
pub use files::{FilesArgs, FoldersArgs, ManifestsArgs, ReadingArgs};
pub use flows::{FlowsArgs, FlowsFilterArgs};
pub use kubectl::{AgentsArgs, KubectlArgs, KubectlCommand};
pub use matrix::{DiffArgs, FleetDiffArgs, MatrixArgs, MatrixOutputArg, ReportArg};
pub use status::{StatusArgs, StatusFilterArgs};

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
                            helm template . | postern matrix -f - deploy/shop/web -o json\n  \
                            postern matrix -f manifests/ -o html > matrix.html   (for a browser)")]
    Matrix(MatrixArgs),
    /// Say which connections manifests would open or close; the exit status is 1 if any
    #[command(after_help = "Examples:\n  postern diff -f new/ --against old/\n  \
                            postern diff -f policy.yaml   (against the running cluster)\n  \
                            helm template . | postern diff -f - --against rendered/ -o markdown\n  \
                            postern diff -f new/ --against old/ -o html > diff.html   (for a browser)")]
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
    /// Say how the agent of this node stands, in a line; or whether a policy is in force here as it is written now
    #[command(after_help = "Examples:\n  postern status\n  postern status shop/db --wait=1m\n\n\
                            The exit status is 1 where something is not in force.")]
    Status(StatusArgs),
    /// Look at the health of this node: agent, kernel, settings, neighbours and rights; a line a check, with what to do
    #[command(after_help = "Examples:\n  postern doctor\n  postern doctor -o json\n\n\
                            States: ok; note, something is weaker than it could be; wrong, policies are not enforced as \
                            they are written, or soon will not be: then the exit status is 1. Nothing is changed. It takes \
                            CAP_NET_ADMIN on the node: root there, or kubectl exec in the agent's pod.")]
    Doctor(DoctorArgs),
    /// Ask the agents of all nodes, or of those that matter, through the API server; also as `kubectl postern`
    #[command(after_help = "Examples:\n  postern kubectl explain shop/web svc/shop/db 5432/TCP\n  \
                            cp postern /usr/local/bin/kubectl-postern; kubectl postern status")]
    Kubectl(KubectlArgs),
    /// Answer the questions of kubectl postern: a line of JSON for each line of standard input
    #[command(hide = true)]
    Answer {
        /// Where the agent serves
        #[arg(long, value_name = "ADDRESS:PORT", default_value = ADMIN)]
        admin_address: SocketAddr,
    },
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
    /// Write the pages of the manual into a folder, one for each command
    #[command(after_help = "Example:\n  postern man /usr/local/share/man/man1")]
    Man {
        /// The folder; it is made where it is missing
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
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
    /// The same as YAML, a document each
    Yaml,
}

/// How records for programs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notation {
    /// A line each.
    Json,
    /// A document each.
    Yaml,
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

impl OutputArg {
    /// How another agent is asked for it. What is printed as YAML comes as JSON, which an older agent knows too.
    pub fn of_agents(self) -> &'static str {
        match self {
            OutputArg::Text => "text",
            OutputArg::Json | OutputArg::Yaml => "json",
        }
    }

    /// How records are written; `None` where it is for people.
    pub fn notation(self) -> Option<Notation> {
        match self {
            OutputArg::Text => None,
            OutputArg::Json => Some(Notation::Json),
            OutputArg::Yaml => Some(Notation::Yaml),
        }
    }
}

impl Cli {
    /// The command line, where the name of the program may say that it is a plugin of kubectl.
    ///
    /// # Errors
    ///
    /// What is wrong with it; or what `--help` and the like print.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
        let words: Vec<OsString> = words.into_iter().collect();
        let program = words.first().and_then(|word| Path::new(word).file_stem()?.to_str());
        if program != Some(PLUGIN) {
            return Cli::try_parse_from(words);
        }
        let Plugin { args } = Plugin::try_parse_from(words)?;
        Ok(Cli { command: Command::Kubectl(args) })
    }
}

/// The same binary as a plugin of kubectl.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-postern",
    bin_name = "kubectl postern",
    version,
    disable_help_subcommand = true,
    max_term_width = 100
)]
#[command(about = "Asks the agents of the cluster's nodes about NetworkPolicy")]
struct Plugin {
    #[command(flatten)]
    args: KubectlArgs,
}

impl From<DenyArg> for Deny {
    fn from(deny: DenyArg) -> Deny {
        match deny {
            DenyArg::Drop => Deny::Drop,
            DenyArg::Reject => Deny::Reject,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::lookup::Way;

    #[test]
    fn each_command_line_can_be_built() {
        Cli::command().debug_assert();
        Plugin::command().debug_assert();
    }

    #[test]
    fn the_name_of_the_program_makes_it_a_plugin() {
        let read = |line: &str| {
            let Cli { command } = Cli::read(line.split(' ').map(OsString::from)).unwrap();
            let Command::Kubectl(args) = command else { panic!("{line} is no command of the plugin") };
            args
        };
        for line in [
            "kubectl-postern --kubeconfig /k --context c matrix ns/shop",
            "/usr/bin/kubectl-postern matrix --kubeconfig /k --context c ns/shop",
            "postern kubectl --context c matrix ns/shop --kubeconfig=/k",
            "kubectl-postern.exe explain a/b c/d 80 --kubeconfig /k --context=c",
        ] {
            let Way { kubeconfig, context } = read(line).agents.way();
            assert_eq!((kubeconfig, context), (Some("/k".into()), Some("c".to_owned())), "{line}");
        }
        assert!(Cli::read(["postern".into(), "denials".into(), "--node=n1".into()]).is_err());
    }
}
