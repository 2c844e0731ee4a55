//! `postern flows`

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::{ADMIN, OutputArg};
use crate::flows::ProtocolFilter;

/// `postern flows`
#[derive(Debug, Args)]
pub struct FlowsArgs {
    /// Which.
    #[command(flatten)]
    pub filter: FlowsFilterArgs,
    /// Where the agent serves
    #[arg(long, value_name = "ADDRESS:PORT", default_value = ADMIN)]
    pub admin_address: SocketAddr,
    /// With whose rights the names of Services and other nodes are read from the API server; by default those of the
    /// default kubeconfig, or of the pod's service account
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// End when standard input closes
    #[arg(long, hide = true)]
    pub tethered: bool,
}

/// Which flows are shown, and how.
#[derive(Debug, Args)]
pub struct FlowsFilterArgs {
    /// Only flows from or to this pod. Without a namespace it is that of -n, or default
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub pod: Option<String>,
    /// Only flows from or to pods of this namespace
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Only flows at an end that this policy isolates, in the direction of the flow
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub policy: Option<String>,
    /// Only flows to this port of the server, or of the Service that was asked
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Only flows of this protocol: TCP, UDP, SCTP, ICMP, or a number
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Option<ProtocolFilter>,
    /// Only flows that could not begin now, by the policies of this moment
    #[arg(long)]
    pub refused: bool,
    /// Instead of the flows that are open, tell those that begin and end from now on
    #[arg(long)]
    pub watch: bool,
    /// How flows are printed: a line each
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: OutputArg,
}

impl FlowsFilterArgs {
    /// The same as words of a command line.
    pub fn words(&self) -> Vec<String> {
        let FlowsFilterArgs { pod, namespace, policy, port, protocol, refused, watch, output } = self;
        let mut words = vec![format!("--output={}", output.of_agents())];
        words.extend(pod.iter().map(|pod| format!("--pod={pod}")));
        words.extend(namespace.iter().map(|namespace| format!("--namespace={namespace}")));
        words.extend(policy.iter().map(|policy| format!("--policy={policy}")));
        words.extend(port.map(|port| format!("--port={port}")));
        words.extend(protocol.iter().map(|protocol| format!("--protocol={protocol}")));
        words.extend(refused.then(|| "--refused".to_owned()));
        words.extend(watch.then(|| "--watch".to_owned()));
        words
    }
}
