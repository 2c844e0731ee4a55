//! The agent as a process, as a node runs it.
//!
//! It runs in the network namespace of the test, so a test that starts one is to be
//! [isolated](lab::isolated), with [`loopback_up`] first.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::control_plane::ControlPlane;
use crate::repository;

/// Where the agent's `/readyz` and the rest are. Each test has a network namespace of its own.
const ADMIN: &str = "127.0.0.1:9471";
/// Its socket, in a folder of its own.
const SOCKET: &str = "run/agent.sock";
/// How long anything may take that takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running agent. Dropping it kills it; its rules stay.
pub struct Agent {
    process: Child,
    folder: TempDir,
}

/// Brings up loopback in a new network namespace, without which nothing can be reached there.
///
/// # Errors
///
/// If `ip` is missing or refuses.
pub fn loopback_up() -> Result<()> {
    run(Command::new("ip").args(["link", "set", "lo", "up"])).map(drop)
}

/// What `nft` prints, of the network namespace of the calling thread.
///
/// # Errors
///
/// If nft refuses; the error holds what it says.
pub fn nft(arguments: &[&str]) -> Result<String> {
    run(Command::new("nft").args(arguments))
}

/// A table as nft prints it, without the sets that packets fill.
fn without_denials(table: &str) -> String {
    let objects = table.split("\n\n").filter(|object| !object.starts_with("\tset denials-"));
    objects.collect::<Vec<_>>().join("\n\n")
}

fn run(command: &mut Command) -> Result<String> {
    // Debian keeps both where only root looks.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let name = format!("{command:?}");
    let output = command.env("PATH", path).output().with_context(|| name.clone())?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Installs the manifests as a user would, and returns the kubeconfig of the agent's service account.
///
/// # Errors
///
/// If the API server refuses the manifests.
pub async fn install(control_plane: &ControlPlane) -> Result<PathBuf> {
    control_plane.apply_path(&repository::root().join("manifests/install.yaml")).await?;
    control_plane.kubeconfig_for_service_account("kube-system", "postern").await
}

/// The agent's binary, of the same profile as the test.
///
/// # Errors
///
/// If it does not build.
pub fn binary() -> Result<PathBuf> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = BUILT.get() {
        return Ok(path.clone());
    }
    let (profile, folder) = if cfg!(debug_assertions) { ("dev", "debug") } else { ("release", "release") };
    // Cargo itself sees what is stale. It is fast when nothing is.
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--offline", "--package", "postern", "--bin", "postern"])
        .args(["--profile", profile])
        .current_dir(repository::root())
        .env("CARGO_TARGET_DIR", repository::target())
        .status()
        .context("cargo does not start")?;
    ensure!(status.success(), "the agent does not build");
    Ok(BUILT.get_or_init(|| repository::target().join(folder).join("postern")).clone())
}

impl Agent {
    /// Starts an agent for `node-1` that follows an API server.
    ///
    /// # Errors
    ///
    /// If it cannot be started. That it works is for [`Agent::ready`] to say.
    pub fn on_api(kubeconfig: &Path) -> Result<Self> {
        Self::start(&["--kubeconfig", kubeconfig.to_str().context("the path is text")?])
    }

    /// Starts an agent for `node-1` with arguments that say what to follow.
    ///
    /// # Errors
    ///
    /// As for [`Agent::on_api`].
    pub fn start(arguments: &[&str]) -> Result<Self> {
        Self::start_on("node-1", arguments)
    }

    /// The same for another node, whose network namespace the calling thread is in.
    ///
    /// # Errors
    ///
    /// As for [`Agent::on_api`].
    pub fn start_on(node: &str, arguments: &[&str]) -> Result<Self> {
        let folder = TempDir::with_prefix("postern-agent-")?;
        let log = File::create(folder.path().join("log"))?;
        Self::spawn(node, arguments, log.into(), folder)
    }

    /// The same with a log that goes elsewhere; [`Agent::log`] is then an error.
    ///
    /// # Errors
    ///
    /// As for [`Agent::on_api`].
    pub fn start_with_log(arguments: &[&str], log: impl Into<Stdio>) -> Result<Self> {
        Self::spawn("node-1", arguments, log.into(), TempDir::with_prefix("postern-agent-")?)
    }

    fn spawn(node: &str, arguments: &[&str], log: Stdio, folder: TempDir) -> Result<Self> {
        let process = Command::new(binary()?)
            .args(["agent", "--node-name", node, "--admin-address", ADMIN])
            .arg("--socket")
            .arg(folder.path().join(SOCKET))
            .env("RUST_LOG", "debug")
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Agent { process, folder })
    }

    /// Where its socket is.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join(SOCKET)
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it has logged.
    ///
    /// # Errors
    ///
    /// If the log cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.path().join("log"))?)
    }

    /// What it answers to a GET: the status code and the body.
    ///
    /// # Errors
    ///
    /// If it does not listen yet, or no more.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        let address: SocketAddr = ADMIN.parse()?;
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {ADMIN}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let code = answer.split(' ').nth(1).context("no status line")?.parse()?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        Ok((code, body.to_owned()))
    }

    /// Waits until `/readyz` says yes, and no open flows are left to be reviewed: from then on the table changes with the
    /// objects only.
    ///
    /// # Errors
    ///
    /// If that takes too long, or the agent has ended; the error holds its log.
    pub async fn ready(&mut self) -> Result<()> {
        self.until_readyz(|code, _| code == 200).await?;
        self.reviewed().await
    }

    /// Waits until no open flows are left to be reviewed. Some addresses may be rejudged for long, if such flows go on.
    ///
    /// # Errors
    ///
    /// If the agent does not answer, or this takes too long.
    pub async fn reviewed(&self) -> Result<()> {
        let begun = Instant::now();
        while self.metric("postern_rejudged_addresses").await? > 0.0 {
            ensure!(begun.elapsed() < PATIENCE, "open flows are not reviewed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Waits until `/readyz` answers as expected.
    ///
    /// # Errors
    ///
    /// As for [`Agent::ready`].
    pub async fn until_readyz(&mut self, expected: impl Fn(u16, &str) -> bool) -> Result<()> {
        let begun = Instant::now();
        let mut last = String::new();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.process.try_wait()? {
                bail!("the agent has ended ({status}):\n{}", self.log().unwrap_or_default());
            }
            if let Ok((code, text)) = self.get("/readyz").await {
                if expected(code, &text) {
                    return Ok(());
                }
                last = text;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("/readyz does not say what is expected, but {last:?}; the log:\n{}", self.log().unwrap_or_default())
    }

    /// The value of a metric, given with its labels as Prometheus prints them.
    ///
    /// # Errors
    ///
    /// If there is no such metric.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let (_, text) = self.get("/metrics").await?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("{name} is not in\n{text}"))?.parse()?)
    }

    /// Waits until the kernel's table, but for what packets put into it, is as expected, and returns how long that took.
    ///
    /// # Errors
    ///
    /// If that takes too long; the error holds the table and the log.
    pub async fn until_table(&self, expected: impl Fn(&str) -> bool) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            let table = without_denials(&nft(&["-a", "list", "table", "inet", "postern"]).unwrap_or_default());
            if expected(&table) {
                return Ok(begun.elapsed());
            }
            let is_late = begun.elapsed() >= PATIENCE;
            ensure!(!is_late, "the table is not as expected:\n{table}\nthe log:\n{}", self.log().unwrap_or_default());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Kills it, and waits for its end. Its rules stay.
    ///
    /// # Errors
    ///
    /// If the system does not let it be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Sends SIGTERM, waits for the end, and returns how long that took.
    ///
    /// # Errors
    ///
    /// If it ends with another status than 0.
    pub fn terminate(mut self) -> Result<Duration> {
        let begun = Instant::now();
        kill(Pid::from_raw(self.process.id().try_into()?), Signal::SIGTERM)?;
        let status = self.process.wait()?;
        ensure!(status.success(), "{status}:\n{}", self.log().unwrap_or_default());
        Ok(begun.elapsed())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill, and waiting only collects it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
