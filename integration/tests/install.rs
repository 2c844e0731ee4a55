//! The install as a node sees it: the image, in an empty root, with the DaemonSet's own security context, against the
//! real API server, with the rights of its own ClusterRole.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use integration::agent::{loopback_up, nft};
use integration::container::{Container, Environment};
use integration::control_plane::{ControlPlane, pod};
use integration::{image, repository};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::Api;
use lab::isolated;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody-in, namespace: default}
spec: {podSelector: {matchLabels: {app: web}}}
";

/// The agent's table as nft lists it, empty if there is none, without the lines that name its owner: they go with the
/// process.
fn table() -> String {
    let listed = nft(&["list", "table", "inet", "postern"]).unwrap_or_default();
    let lines = listed.lines().filter(|line| !line.starts_with("table ") && !line.starts_with("\tflags"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The status line that the agent answers with, as kubelet's probe sees it.
async fn probe(path: &str) -> Option<String> {
    let mut stream = TcpStream::connect("127.0.0.1:9471").await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.lines().next().map(str::to_owned)
}

/// Waits until the probe answers 200.
async fn ready(path: &str, container: &mut Container) {
    let start = Instant::now();
    loop {
        let answer = probe(path).await;
        if answer.as_deref().is_some_and(|line| line.contains(" 200 ")) {
            return;
        }
        let log = || container.log().unwrap_or_default();
        assert!(start.elapsed() < Duration::from_secs(60), "{path} answers {answer:?}; the agent says\n{}", log());
        let ended = container.ended().expect("runc can be asked");
        assert!(ended.is_none(), "the agent ended: {ended:?}; it says\n{}", container.log().unwrap_or_default());
        sleep(Duration::from_millis(50)).await;
    }
}

/// Writes of the pod `default/web-0` what libcni writes.
fn write_result(folder: &Path) {
    let content = json!({
        "kind": "cniCacheV1", "containerId": "1", "networkName": "net", "ifName": "eth0",
        "cniArgs": [["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", "web-0"]],
        "result": {"cniVersion": "1.0.0", "interfaces": [{"name": "lo"}, {"name": "eth0", "sandbox": "/any"}],
            "ips": [{"address": "10.0.0.7/24"}, {"address": "fd00::7/64"}]},
    });
    DirBuilder::new().mode(0o700).create(folder.join("results")).unwrap();
    let path = folder.join("results/net-1-eth0");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(content.to_string().as_bytes()).unwrap();
}

#[test]
fn the_image_runs_as_the_daemonset_says() {
    isolated(async {
        loopback_up().unwrap();
        let archive = spawn_blocking(image::build).await.unwrap().unwrap();
        let control_plane = ControlPlane::start().await.unwrap();
        control_plane.apply_path(&repository::root().join("manifests/install.yaml")).await.unwrap();
        control_plane.apply(POLICY).await.unwrap();
        let address = "10.0.0.7".parse().unwrap();
        control_plane.run_pod(&pod("default", "web-0", "node-1", &[("app", "web")]), &[address]).await.unwrap();

        let agents: Api<DaemonSet> = Api::namespaced(control_plane.client(), "kube-system");
        let template = agents.get("postern").await.unwrap().spec.unwrap().template.spec.unwrap();
        let environment = Environment {
            node_name: "node-1".to_owned(),
            api: control_plane.endpoint(),
            token: control_plane.service_account_token("kube-system", "postern").await.unwrap(),
            authority: control_plane.authority(),
        };
        let mut agent = Container::run(&archive, &template, &environment).unwrap();
        ready("/livez", &mut agent).await;
        ready("/readyz", &mut agent).await;
        let enforced = table();
        assert!(enforced.contains("default/nobody-in") && enforced.contains("10.0.0.7"), "{enforced}");

        // What the container runtime writes is readable, though to nobody but its owner.
        write_result(&agent.host_folder("/var/lib/cni"));
        let start = Instant::now();
        while !table().contains("fd00::7") {
            assert!(start.elapsed() < Duration::from_secs(30), "{}\n{}", table(), agent.log().unwrap());
            sleep(Duration::from_millis(50)).await;
        }
        let enforced = table();

        // Stopped as kubelet stops it: in time, and the rules stay.
        agent.terminate().unwrap();
        let grace = Duration::from_secs(template.termination_grace_period_seconds.unwrap().try_into().unwrap());
        let ended = timeout(grace, async {
            while agent.ended().unwrap().is_none() {
                sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(ended.await.is_ok(), "the agent did not end in {grace:?}");
        assert_eq!(table(), enforced);
    });
}
