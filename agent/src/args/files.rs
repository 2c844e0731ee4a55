//! Which manifests are read, and how.

use std::path::PathBuf;

use clap::{ArgAction, Args};

/// Where objects come from, if from files.
#[derive(Debug, Args)]
pub struct FilesArgs {
    /// A file or folder of manifests, or - for standard input; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// How they are read.
    #[command(flatten)]
    pub reading: ReadingArgs,
}

/// Where objects come from: files, or a running cluster.
#[derive(Debug, Args)]
pub struct ManifestsArgs {
    /// A file or folder of manifests, or - for standard input; may be given several times. Without it the running cluster
    /// is asked
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// How they are read.
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// With whose rights a running cluster is read from the API server; by default those of the default kubeconfig, or of
    /// the pod's service account
    #[arg(long, value_name = "PATH", conflicts_with = "paths")]
    pub kubeconfig: Option<PathBuf>,
}

/// How manifests are read.
#[derive(Debug, Clone, Copy, Args)]
pub struct ReadingArgs {
    /// How far into folders.
    #[command(flatten)]
    pub folders: FoldersArgs,
    /// Treat findings (objects that the API server would refuse, policies that nobody here enforces) as bad input
    #[arg(long)]
    pub strict: bool,
}

/// How far into folders.
#[derive(Debug, Clone, Copy, Args)]
pub struct FoldersArgs {
    /// Read the folders in a folder too; --recursive=false reads the folder alone, as kubectl does without -R
    #[arg(short = 'R', long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = ArgAction::Set)]
    pub recursive: bool,
}
