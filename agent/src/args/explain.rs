//! `postern explain`

use std::net::SocketAddr;

use clap::Args;

use super::{ADMIN, ManifestsArgs, ProbesArgs};

/// `postern explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The manifests. Without any the agent of this node is asked.
    #[command(flatten)]
    pub manifests: ManifestsArgs,
    /// Where the agent serves, if it is asked
    #[arg(long, value_name = "ADDRESS:PORT", default_value = ADMIN)]
    pub admin_address: SocketAddr,
    /// The questions.
    #[command(flatten)]
    pub question: QuestionArgs,
}

/// What is asked, and how it is answered.
#[derive(Debug, Args)]
pub struct QuestionArgs {
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
