//! `postern doctor`

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::{ADMIN, CNI_RESULTS, OutputArg, SOCKET};

/// `postern doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// How it is printed: a JSON line a check, or for people
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: OutputArg,
    /// Where the agent serves
    #[arg(long, value_name = "ADDRESS:PORT", default_value = ADMIN)]
    pub admin_address: SocketAddr,
    /// The agent's socket
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
    /// Whose rights at the API server are looked at; by default those of the pod's service account, or of the default
    /// kubeconfig
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// Where the container runtime keeps the results of its network plugins
    #[arg(long, value_name = "FOLDER", default_value = CNI_RESULTS)]
    pub cni_results: PathBuf,
}
