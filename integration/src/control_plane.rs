//! A real kube-apiserver and etcd for one test, on which the test plays kubelet and the missing controllers.
//!
//! Each instance is a process with a folder and ports of its own, so that many run at once, also inside network
//! namespaces where loopback is up. The process ends when this side's end of its standard input closes: it cannot
//! outlive the test, however the test ends.

mod kubelet;
mod manifests;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::repository;

pub use kubelet::pod;

/// How the server is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address that the API binds, and that its kubeconfigs name. A test with a second node in another network
    /// namespace gives the address of a veth.
    pub address: IpAddr,
    /// The port of the API, 0 for a free one.
    pub port: u16,
    /// After how long old revisions expire: a list of one, or the rest of a paged list, gets 410 Gone. A watch is
    /// served from memory meanwhile; it gets 410 when it asks for what was before a restart.
    pub compaction: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options { address: Ipv4Addr::LOCALHOST.into(), port: 0, compaction: Duration::from_secs(300) }
    }
}

/// A running API server.
pub struct ControlPlane {
    // Before the folder, so that the process is gone when the folder is removed.
    process: Option<Process>,
    options: Options,
    client: Client,
    folder: TempDir,
}

impl ControlPlane {
    /// Starts a server on loopback and waits until it is ready.
    ///
    /// # Errors
    ///
    /// If the server cannot be built, or ends or hangs before it is ready; the error holds the end of its log.
    pub async fn start() -> Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts a server and waits until it is ready.
    ///
    /// # Errors
    ///
    /// As for [`ControlPlane::start`].
    pub async fn start_with(mut options: Options) -> Result<Self> {
        let folder = TempDir::with_prefix("postern-control-plane-")?;
        let process = Process::launch(&options, folder.path()).await?;
        let kubeconfig = Kubeconfig::read_from(folder.path().join("kubeconfig"))?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        options.port = config.cluster_url.port_u16().context("the kubeconfig names no port")?;
        let client = Client::try_from(config)?;
        Ok(ControlPlane { process: Some(process), options, client, folder })
    }

    /// A client with all rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The kubeconfig with all rights.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// The certificate that a client checks the server by, as PEM: the `ca.crt` of a pod.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// The address and port of the API.
    pub fn endpoint(&self) -> (IpAddr, u16) {
        (self.options.address, self.options.port)
    }

    /// What the server has logged since it was first started.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Ends the server; what it stored is kept for [`ControlPlane::restart`].
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Ends the server if it runs, and starts it again: the same address, objects, tokens and certificate.
    ///
    /// # Errors
    ///
    /// As for [`ControlPlane::start`].
    pub async fn restart(&mut self) -> Result<()> {
        self.stop();
        self.process = Some(Process::launch(&self.options, self.folder.path()).await?);
        Ok(())
    }

    /// A token of the service account, as kubelet would mount it into a pod, valid for an hour.
    ///
    /// # Errors
    ///
    /// If the service account does not exist.
    pub async fn service_account_token(&self, namespace: &str, name: &str) -> Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let spec = TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let answer = accounts.create_token_request(name, &PostParams::default(), &request).await?;
        let token = answer.status.and_then(|status| status.token);
        token.context("the API answered a token request without a token")
    }

    /// A kubeconfig with the rights that RBAC gives the service account, and no others.
    ///
    /// # Errors
    ///
    /// If the service account does not exist.
    pub async fn kubeconfig_for_service_account(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = self.service_account_token(namespace, name).await?;
        let admin = fs::read_to_string(self.folder.path().join("admin.token"))?;
        let path = self.folder.path().join(format!("kubeconfig-{namespace}-{name}"));
        fs::write(&path, fs::read_to_string(self.kubeconfig())?.replace(admin.trim(), &token))?;
        Ok(path)
    }

    /// A client with the rights that RBAC gives the service account, and no others.
    ///
    /// # Errors
    ///
    /// If the service account does not exist.
    pub async fn client_for_service_account(&self, namespace: &str, name: &str) -> Result<Client> {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig_for_service_account(namespace, name).await?)?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }
}

/// The server's process, ended and waited for on drop.
struct Process(Child);

impl Process {
    /// Starts the server and waits for the line that says that it is ready.
    async fn launch(options: &Options, folder: &Path) -> Result<Self> {
        let (options, folder) = (options.clone(), folder.to_owned());
        spawn_blocking(move || Self::launch_blocking(&options, &folder)).await?
    }

    fn launch_blocking(options: &Options, folder: &Path) -> Result<Self> {
        let log = folder.join("log");
        let child = Command::new(repository::control_plane()?)
            .arg("--dir")
            .arg(folder)
            .args(["--address", &options.address.to_string(), "--port", &options.port.to_string()])
            .args(["--compaction", &format!("{}ms", options.compaction.as_millis())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&log)?)
            .spawn()?;
        let mut process = Process(child);
        let stdout = process.0.stdout.take().context("the server's output is a pipe")?;
        let mut line = String::new();
        // The server gives up by itself when it is not ready in two minutes, which ends this read.
        BufReader::new(stdout).read_line(&mut line)?;
        if line.starts_with("ready ") {
            return Ok(process);
        }
        let text = fs::read_to_string(&log)?;
        let end: Vec<&str> = text.lines().rev().take(20).collect();
        bail!("the API server was not ready; its log ends (newest line first) with\n{}", end.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill, and waiting only collects it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
