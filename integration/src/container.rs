//! Runs the image of a pod's container as a node does: what the pod's YAML says, translated for runc.
//!
//! Only what the agent's DaemonSet uses is translated, and everything else is refused, so that a new field of the
//! manifest cannot be forgotten here. The container shares the network namespace of the caller, as `hostNetwork` asks.

use std::fs::{self, File};
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Container as ContainerSpec, PodSpec, VolumeMount};
use serde_json::{Value, json};
use tar::Archive;
use tempfile::TempDir;

/// The name that runc knows the container by, in a state folder of its own.
const NAME: &str = "postern";

/// Calls that the runtimes' default seccomp profile refuses to a process without CAP_SYS_ADMIN and the like.
const REFUSED_CALLS: [&str; 20] = [
    "add_key",
    "bpf",
    "delete_module",
    "fanotify_init",
    "init_module",
    "io_uring_setup",
    "kexec_load",
    "keyctl",
    "mount",
    "open_by_handle_at",
    "perf_event_open",
    "pivot_root",
    "ptrace",
    "reboot",
    "request_key",
    "setdomainname",
    "sethostname",
    "setns",
    "umount2",
    "unshare",
];

/// What a node adds to the pod's own YAML.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The node's name, for `fieldRef: spec.nodeName`.
    pub node_name: String,
    /// The API's address and port, as the Service `kubernetes` gives them to pods.
    pub api: (IpAddr, u16),
    /// The service account's token.
    pub token: String,
    /// The certificate that the API is checked by, as PEM.
    pub authority: PathBuf,
}

/// A running container, ended on drop.
pub struct Container {
    // The folder goes last.
    process: Child,
    bundle: TempDir,
}

impl Container {
    /// Unpacks the image and starts the only container of the pod.
    ///
    /// # Errors
    ///
    /// If the archive is no image, the pod has a field that is not translated, or runc does not start.
    pub fn run(archive: &Path, pod: &PodSpec, environment: &Environment) -> Result<Self> {
        let bundle = TempDir::with_prefix("postern-container-")?;
        let entrypoint = unpack(archive, &bundle.path().join("rootfs"))?;
        let secrets = write_node_files(bundle.path(), environment)?;
        let [container] = pod.containers.as_slice() else { bail!("the pod has {} containers", pod.containers.len()) };
        ensure!(pod.host_network == Some(true), "the pod has a network of its own");
        let config = json!({
            "ociVersion": "1.0.2",
            "process": process(&entrypoint, container, environment)?,
            "root": {"path": "rootfs", "readonly": security(container)?.read_only_root_filesystem == Some(true)},
            "mounts": mounts(bundle.path(), &secrets, &host_mounts(bundle.path(), pod, container)?),
            "linux": linux(),
        });
        fs::write(bundle.path().join("config.json"), serde_json::to_vec_pretty(&config)?)?;
        let log = File::create(bundle.path().join("log"))?;
        let process = runc(bundle.path())
            .args(["run", "--bundle"])
            .arg(bundle.path())
            .arg(NAME)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("runc does not start")?;
        Ok(Container { process, bundle })
    }

    /// What the container has printed so far.
    ///
    /// # Errors
    ///
    /// If the log cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.bundle.path().join("log"))?)
    }

    /// Where the container is shown a folder of the host that the pod mounts.
    pub fn host_folder(&self, path: &str) -> PathBuf {
        host_folder(self.bundle.path(), path)
    }

    /// Asks the container to end, as kubelet does first.
    ///
    /// # Errors
    ///
    /// If it has ended already.
    pub fn terminate(&self) -> Result<()> {
        let status = runc(self.bundle.path()).args(["kill", NAME, "TERM"]).status()?;
        ensure!(status.success(), "runc kill: {status}");
        Ok(())
    }

    /// How the container has ended, if it has.
    ///
    /// # Errors
    ///
    /// If the process cannot be asked.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.process.try_wait()?)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // A container that has ended is gone already, and then these have nothing to do.
        let _ = runc(self.bundle.path()).args(["delete", "--force", NAME]).output();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn runc(bundle: &Path) -> Command {
    let mut command = Command::new("runc");
    command.arg("--root").arg(bundle.join("state"));
    command
}

/// Unpacks the image's layers and returns its entrypoint.
fn unpack(archive: &Path, root: &Path) -> Result<Vec<String>> {
    let index: Value = serde_json::from_slice(&entry(archive, "index.json")?)?;
    let manifest: Value = serde_json::from_slice(&blob(archive, &index["manifests"][0])?)?;
    let config: Value = serde_json::from_slice(&blob(archive, &manifest["config"])?)?;
    for layer in manifest["layers"].as_array().context("the manifest has layers")? {
        Archive::new(blob(archive, layer)?.as_slice()).unpack(root)?;
    }
    serde_json::from_value(config["config"]["Entrypoint"].clone()).context("the image has an entrypoint")
}

fn blob(archive: &Path, descriptor: &Value) -> Result<Vec<u8>> {
    let digest = descriptor["digest"].as_str().context("a descriptor has a digest")?;
    entry(archive, &format!("blobs/{}", digest.replace(':', "/")))
}

fn entry(archive: &Path, path: &str) -> Result<Vec<u8>> {
    for entry in Archive::new(File::open(archive)?).entries()? {
        let mut entry = entry?;
        if entry.path()? == Path::new(path) {
            let mut data = Vec::new();
            entry.read_to_end(&mut data)?;
            return Ok(data);
        }
    }
    bail!("{} has no {path}", archive.display())
}

/// Writes the files that kubelet mounts into every pod, and returns the folder of the service account's.
fn write_node_files(bundle: &Path, environment: &Environment) -> Result<PathBuf> {
    let secrets = bundle.join("serviceaccount");
    fs::create_dir(&secrets)?;
    fs::write(secrets.join("token"), &environment.token)?;
    fs::write(secrets.join("namespace"), "kube-system")?;
    fs::copy(&environment.authority, secrets.join("ca.crt"))?;
    fs::write(bundle.join("hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
    fs::write(bundle.join("resolv.conf"), "nameserver 127.0.0.1\n")?;
    Ok(secrets)
}

fn security(container: &ContainerSpec) -> Result<&k8s_openapi::api::core::v1::SecurityContext> {
    let security = container.security_context.as_ref().context("the container has a security context")?;
    ensure!(security.privileged != Some(true), "the container is privileged");
    Ok(security)
}

fn process(entrypoint: &[String], container: &ContainerSpec, environment: &Environment) -> Result<Value> {
    let security = security(container)?;
    ensure!(container.command.is_none(), "the container replaces the image's entrypoint");
    let capabilities = security.capabilities.as_ref().context("the container says which capabilities it has")?;
    let drops_all = capabilities.drop.iter().flatten().any(|name| name == "ALL");
    ensure!(drops_all, "the container keeps the runtime's default capabilities");
    let names: Vec<String> = capabilities.add.iter().flatten().map(|name| format!("CAP_{name}")).collect();
    let mut args = entrypoint.to_vec();
    args.extend(container.args.iter().flatten().cloned());
    // Without "ambient", as Kubernetes has it: the program gets the capabilities because its user is 0.
    Ok(json!({
        "user": {"uid": security.run_as_user.unwrap_or(0), "gid": security.run_as_group.unwrap_or(0)},
        "args": args,
        "env": variables(container, environment)?,
        "cwd": "/",
        "noNewPrivileges": security.allow_privilege_escalation == Some(false),
        "capabilities": {"bounding": names, "effective": names, "permitted": names},
    }))
}

fn variables(container: &ContainerSpec, environment: &Environment) -> Result<Vec<String>> {
    let (address, port) = environment.api;
    let mut variables = vec![format!("KUBERNETES_SERVICE_HOST={address}"), format!("KUBERNETES_SERVICE_PORT={port}")];
    for variable in container.env.iter().flatten() {
        let source = variable.value_from.as_ref().and_then(|source| source.field_ref.as_ref());
        let value = match (&variable.value, source.map(|field| field.field_path.as_str())) {
            (Some(value), None) => value,
            (None, Some("spec.nodeName")) => &environment.node_name,
            (value, source) => bail!("variable {} is from {value:?} and {source:?}", variable.name),
        };
        variables.push(format!("{}={value}", variable.name));
    }
    Ok(variables)
}

fn host_folder(bundle: &Path, path: &str) -> PathBuf {
    bundle.join("host").join(path.trim_start_matches('/'))
}

/// The mounts of folders of the host, which are empty ones here, and of those that the pod has for itself.
fn host_mounts(bundle: &Path, pod: &PodSpec, container: &ContainerSpec) -> Result<Vec<Value>> {
    let mount = |mount: &VolumeMount| {
        let volume = pod.volumes.iter().flatten().find(|volume| volume.name == mount.name);
        let volume = volume.context("a mount has no volume")?;
        if volume.empty_dir.as_ref().is_some_and(|folder| folder.medium.as_deref() == Some("Memory")) {
            let options = ["nosuid", "nodev", "mode=777"];
            return Ok(
                json!({"destination": mount.mount_path, "type": "tmpfs", "source": "tmpfs", "options": options}),
            );
        }
        let path = &volume.host_path.as_ref().context("a volume is neither of the host nor in memory")?.path;
        let source = host_folder(bundle, path);
        fs::create_dir_all(&source)?;
        let access = if mount.read_only == Some(true) { "ro" } else { "rw" };
        Ok(json!({"destination": mount.mount_path, "type": "bind", "source": source, "options": ["bind", access]}))
    };
    container.volume_mounts.iter().flatten().map(mount).collect()
}

/// The mounts that every container has, and the service account's, and further ones.
fn mounts(bundle: &Path, secrets: &Path, further: &[Value]) -> Value {
    let mut mounts = json!([
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/etc/hosts", "type": "bind", "source": bundle.join("hosts"), "options": ["bind", "ro"]},
        {
            "destination": "/etc/resolv.conf", "type": "bind", "source": bundle.join("resolv.conf"),
            "options": ["bind", "ro"],
        },
        {
            "destination": "/var/run/secrets/kubernetes.io/serviceaccount", "type": "bind", "source": secrets,
            "options": ["bind", "ro"],
        },
    ]);
    mounts.as_array_mut().into_iter().for_each(|mounts| mounts.extend(further.iter().cloned()));
    mounts
}

/// Namespaces, hidden paths and forbidden calls, as containerd's defaults are. There is no network namespace, because
/// the pod has its node's.
fn linux() -> Value {
    json!({
        "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}],
        "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": REFUSED_CALLS, "action": "SCMP_ACT_ERRNO"}],
        },
    })
}
