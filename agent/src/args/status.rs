//! `postern status`

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use jiff::SignedDuration;

use super::{ADMIN, OutputArg};

/// `postern status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Of what.
    #[command(flatten)]
    pub filter: StatusFilterArgs,
    /// Where the agent serves
    #[arg(long, value_name = "ADDRESS:PORT", default_value = ADMIN)]
    pub admin_address: SocketAddr,
    /// With whose rights the policy is read from the API server; by default those of the default kubeconfig, or of the pod's
    /// service account
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// Of the policy the generation that is due, and the uid, by who has read them
    #[arg(long, value_name = "GENERATION/UID", hide = true, requires = "policy")]
    pub due: Option<String>,
}

/// Of what the status is, and how it is told.
#[derive(Debug, Args)]
pub struct StatusFilterArgs {
    /// Whether this NetworkPolicy is in force as the API has it now; without it how the agent stands
    #[arg(value_name = "NAMESPACE/POLICY")]
    pub policy: Option<String>,
    /// Wait until all is in force, for this time at most, such as 30s, 5m
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "1m")]
    pub wait: Option<SignedDuration>,
    /// How it is printed: a line a node, for people or in JSON
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: OutputArg,
}
