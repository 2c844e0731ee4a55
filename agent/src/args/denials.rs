//! `postern denials`

use std::path::PathBuf;

use clap::Args;
use jiff::SignedDuration;

use super::{OutputArg, SOCKET};

/// `postern denials`
#[derive(Debug, Args)]
pub struct DenialsArgs {
    /// Which.
    #[command(flatten)]
    pub filter: DenialsFilterArgs,
    /// The agent's socket
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
    /// End when standard input closes
    #[arg(long, hide = true)]
    pub tethered: bool,
}

/// Which denials are shown, and how.
#[derive(Debug, Args)]
pub struct DenialsFilterArgs {
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
}

impl DenialsFilterArgs {
    /// The same as words of a command line.
    pub fn words(&self) -> Vec<String> {
        let DenialsFilterArgs { since, follow, pod, namespace, output } = self;
        let mut words = vec![format!("--since={since}"), format!("--output={}", output.of_agents())];
        words.extend(follow.then(|| "--follow".to_owned()));
        words.extend(pod.iter().map(|pod| format!("--pod={pod}")));
        words.extend(namespace.iter().map(|namespace| format!("--namespace={namespace}")));
        words
    }
}
