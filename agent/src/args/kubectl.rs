//! `postern kubectl`, which is `kubectl postern` by its other name.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{DenialsFilterArgs, FleetDiffArgs, FlowsFilterArgs, MatrixArgs, OutputArg, QuestionArgs, StatusFilterArgs};
use crate::lookup::Way;

/// `postern kubectl`
#[derive(Debug, Args)]
pub struct KubectlArgs {
    /// Which agents are asked, and how.
    #[command(flatten)]
    pub agents: AgentsArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: KubectlCommand,
}

/// Which agents are asked, and how.
#[derive(Debug, Args)]
pub struct AgentsArgs {
    /// A kubeconfig; by default those that kubectl takes
    #[arg(long, value_name = "PATH", global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// A context of it; by default the current one
    #[arg(long, value_name = "NAME", global = true)]
    pub context: Option<String>,
    /// The namespace of the agents
    #[arg(long, value_name = "NAME", default_value = "kube-system", global = true)]
    pub agent_namespace: String,
    /// Only this node, of those whose agents would be asked; may be given several times
    #[arg(long = "node", value_name = "NAME", global = true)]
    pub nodes: Vec<String>,
    /// Seconds that an agent may take to answer; all are asked at once
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600),
        global = true)]
    pub timeout: u64,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum KubectlCommand {
    /// Say whether a flow is allowed, by the agents of both ends: the client's node decides egress, the server's ingress
    #[command(after_help = "Example:\n  kubectl postern explain shop/web svc/shop/db 5432/TCP")]
    Explain(QuestionArgs),
    /// Show what was refused lately on all nodes
    #[command(after_help = "Example:\n  kubectl postern denials -n shop --follow")]
    Denials(DenialsFilterArgs),
    /// Show the open flows of all nodes' pods
    #[command(after_help = "Example:\n  kubectl postern flows --refused")]
    Flows(FlowsFilterArgs),
    /// Look at the health of all nodes: what is not as it should be, and what to do
    #[command(after_help = "Example:\n  kubectl postern doctor")]
    Doctor {
        /// How it is printed: a JSON line a check, or for people
        #[arg(short, long, value_enum, default_value = "text")]
        output: OutputArg,
    },
    /// Say how each node's agent stands, a line a node; or whether a policy is in force on all of them
    #[command(after_help = "Examples:\n  kubectl postern status\n  kubectl postern status shop/db --wait=2m")]
    Status(StatusFilterArgs),
    /// Say who may talk to whom in the cluster, as `postern matrix` does
    Matrix(MatrixArgs),
    /// Say what manifests would open or close in the cluster, as `postern diff` does
    #[command(after_help = "Example:\n  kubectl postern diff -f policy.yaml --traffic")]
    Diff(FleetDiffArgs),
}

impl AgentsArgs {
    /// The way to the API server.
    pub fn way(&self) -> Way {
        Way { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() }
    }
}
