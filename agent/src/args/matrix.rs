//! `postern matrix` and `postern diff`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{FilesArgs, ManifestsArgs};

/// `postern matrix`
#[derive(Debug, Args)]
pub struct MatrixArgs {
    /// The manifests. Without any the running cluster is read from the API server.
    #[command(flatten)]
    pub manifests: ManifestsArgs,
    /// How it is printed
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: MatrixOutputArg,
    /// Only pairs with this end: deploy/NAMESPACE/NAME, ns/NAME, NAMESPACE/POD, an address, or outside
    #[arg(value_name = "END")]
    pub end: Option<String>,
}

/// How a matrix is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MatrixOutputArg {
    /// For people
    Text,
    /// A JSON line for each pair
    Json,
    /// The same as YAML, a document each
    Yaml,
    /// A page for a browser, in one file that asks nobody for anything
    Html,
}

/// How changes are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportArg {
    /// For people
    Text,
    /// A JSON line for each pair between which something changes, and for each workload that comes or goes
    Json,
    /// The same as YAML, a document each
    Yaml,
    /// For the comment of a pull request
    Markdown,
    /// A page for a browser, with both side by side
    Html,
}

/// `postern kubectl diff`
#[derive(Debug, Args)]
pub struct FleetDiffArgs {
    /// What is compared.
    #[command(flatten)]
    pub diff: DiffArgs,
    /// Ask the agents, too, which open flows would be cut, and what was refused in the last ten minutes and would pass
    #[arg(long, conflicts_with = "against")]
    pub traffic: bool,
}

/// `postern diff`
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// What shall be.
    #[command(flatten)]
    pub files: FilesArgs,
    /// A file or folder of manifests: what is now. Without it the running cluster is read from the API server, and compared
    /// with what it would be after `kubectl apply` of the files
    #[arg(long, value_name = "PATH")]
    pub against: Vec<PathBuf>,
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
