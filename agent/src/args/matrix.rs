//! `postern matrix` and `postern diff`.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use super::OutputArg;

/// `postern matrix`
#[derive(Debug, Args)]
pub struct MatrixArgs {
    /// A file or folder of manifests, or - for standard input; may be given several times. Without it the running cluster
    /// is read from the API server
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Read the folders in a folder too; --recursive=false reads the folder alone, as kubectl does without -R
    #[arg(short = 'R', long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = ArgAction::Set)]
    pub recursive: bool,
    /// Treat findings (objects that the API server would refuse, policies that nobody here enforces) as bad input
    #[arg(long)]
    pub strict: bool,
    /// With whose rights the running cluster is read (namespaces, pods, policies, nodes); by default those of the default
    /// kubeconfig, or of the pod's service account
    #[arg(long, value_name = "PATH", conflicts_with = "paths")]
    pub kubeconfig: Option<PathBuf>,
    /// How it is printed: for people, or a JSON line for each pair
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: OutputArg,
    /// Only pairs with this end: deploy/NAMESPACE/NAME, ns/NAME, NAMESPACE/POD, an address, or outside
    #[arg(value_name = "END")]
    pub end: Option<String>,
}

/// How changes are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportArg {
    /// For people
    Text,
    /// A JSON line for each pair between which something changes, and for each workload that comes or goes
    Json,
    /// For the comment of a pull request
    Markdown,
}

/// `postern diff`
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// A file or folder of manifests, or - for standard input: what shall be; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// A file or folder of manifests: what is now. Without it the running cluster is read from the API server, and compared
    /// with what it would be after `kubectl apply` of the files
    #[arg(long, value_name = "PATH")]
    pub against: Vec<PathBuf>,
    /// Read the folders in a folder too; --recursive=false reads the folder alone, as kubectl does without -R
    #[arg(short = 'R', long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = ArgAction::Set)]
    pub recursive: bool,
    /// Treat findings (objects that the API server would refuse, policies that nobody here enforces) as bad input
    #[arg(long)]
    pub strict: bool,
    /// With whose rights the running cluster is read (namespaces, pods, policies, nodes); by default those of the default
    /// kubeconfig, or of the pod's service account
    #[arg(long, value_name = "PATH", conflicts_with = "against")]
    pub kubeconfig: Option<PathBuf>,
    /// How it is printed
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: ReportArg,
    /// Only pairs with this end: deploy/NAMESPACE/NAME, ns/NAME, NAMESPACE/POD, an address, or outside
    #[arg(value_name = "END")]
    pub end: Option<String>,
}
