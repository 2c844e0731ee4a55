//! What an agent takes of the API server and of its node by how many pods there are elsewhere that no policy means.
//!
//! A real API server has some local pods, each with a policy for its own clients, and one policy that lets all of them ask
//! the DNS servers of any namespace. Elsewhere there are many pods, of which these policies mean a handful. The agent
//! starts; then many of the others change.
//!
//! `cargo bench -p integration --bench pods_elsewhere -- 100000`

#![allow(clippy::unwrap_used, reason = "what fails in a benchmark is to stop it there")]
#![allow(clippy::print_stdout, reason = "the table that was measured")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use integration::agent::{Agent, binary, install, loopback_up};
use integration::control_plane::{ControlPlane, pod};
use integration::relay::Relay;
use integration::usage::{Usage, cpu};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How many pods elsewhere there are by default.
const ELSEWHERE: u32 = 15_000;
const LOCAL: u32 = 10;
/// In how many namespaces the pods elsewhere are.
const NAMESPACES: u32 = 50;
/// How many of them change.
const CHANGES: u32 = 1_000;
/// How many requests are under way while the cluster is filled.
const REQUESTS: usize = 32;

fn main() {
    let elsewhere = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(ELSEWHERE);
    binary().unwrap();
    lab::enter().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(elsewhere));
}

async fn measure(elsewhere: u32) {
    loopback_up().unwrap();
    let cluster = Arc::new(ControlPlane::start().await.unwrap());
    let kubeconfig = install(&cluster).await.unwrap();
    let (address, port) = cluster.endpoint();
    let relay = Relay::start((address, port).into()).await.unwrap();
    let text = std::fs::read_to_string(&kubeconfig).unwrap();
    std::fs::write(&kubeconfig, text.replace(&format!(":{port}"), &format!(":{}", relay.address().port()))).unwrap();
    fill(&cluster, elsewhere).await;

    let mut agent = Agent::start(&["--kubeconfig", kubeconfig.to_str().unwrap(), "--log-level", "info"]).unwrap();
    agent.ready().await.unwrap();
    agent.until_table(|table| table.contains("10.0.255.2")).await.unwrap();
    // Until the lists of all watches are there, also those that nothing waits for.
    agent.until_readyz(|code, text| code == 200 && !text.contains("the list of")).await.unwrap();
    let start = (relay.received(), cpu(agent.id()).unwrap(), Usage::of(agent.id()).unwrap());
    let events = async || agent.metric("postern_events_total{kind=\"Pod\"}").await.unwrap();
    let (_, readyz) = agent.get("/readyz").await.unwrap();
    let watches = readyz.lines().filter(|line| line.starts_with("watch: Pods")).count();

    let events_before = events().await;
    let of_changes: Vec<u32> = (0..CHANGES.min(elsewhere)).collect();
    each(&cluster, of_changes, |cluster, number| async move {
        let (namespace, name) = name(number);
        cluster.set_pod_status(&namespace, &name, "Running", &[address_of(number + 0x40_0000)]).await.unwrap();
    })
    .await;
    // A change that is meant comes after them all.
    cluster.set_pod_status("kube-system", "dns-0", "Running", &["10.0.255.9".parse().unwrap()]).await.unwrap();
    agent.until_table(|table| table.contains("10.0.255.9")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let end = (relay.received(), cpu(agent.id()).unwrap(), Usage::of(agent.id()).unwrap());
    let objects = agent.metric("postern_objects{kind=\"Pod\"}").await.unwrap();

    println!(
        "| pods elsewhere | known | watches | start: received, CPU, peak | {CHANGES} changes: events, received, CPU | resident, peak |"
    );
    println!("|---|---|---|---|---|---|");
    println!(
        "| {elsewhere} | {objects} | {watches} | {} KiB, {} ms, {} KiB | {}, {} KiB, {} ms | {} KiB, {} KiB |",
        start.0 / 1024,
        start.1.as_millis(),
        start.2.peak,
        events().await - events_before,
        (end.0 - start.0) / 1024,
        (end.1 - start.1).as_millis(),
        end.2.resident,
        end.2.peak,
    );
    agent.terminate().unwrap();
}

/// Where a pod elsewhere is, and how it is called.
fn name(number: u32) -> (String, String) {
    (format!("ns-{}", number % NAMESPACES), format!("pod-{number}"))
}

fn address_of(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a_80_00_00 + number).into()
}

async fn fill(cluster: &Arc<ControlPlane>, elsewhere: u32) {
    cluster.create_namespace("shop", &[]).await.unwrap();
    for number in 0..NAMESPACES {
        cluster.create_namespace(&format!("ns-{number}"), &[("team", "others")]).await.unwrap();
    }
    let policy = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
        )
    };
    let mut policies = policy(
        "allow-dns",
        "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}], to: \
         [{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}]}]}",
    );
    for number in 0..LOCAL {
        let own = format!(
            "{{podSelector: {{matchLabels: {{app: web-{number}}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: \
             {{app: client-{number}}}}}}}]}}]}}"
        );
        policies += &policy(&format!("web-{number}"), &own);
        let app = format!("web-{number}");
        let local = pod("shop", &app, "node-1", &[("app", &app)]);
        cluster.run_pod(&local, &[Ipv4Addr::from(0x0a_00_00_0a + number).into()]).await.unwrap();
    }
    cluster.apply(&policies).await.unwrap();
    for number in 0..2 {
        let dns = pod("kube-system", &format!("dns-{number}"), "node-2", &[("k8s-app", "kube-dns")]);
        cluster.run_pod(&dns, &[Ipv4Addr::from(0x0a_00_ff_01 + number).into()]).await.unwrap();
    }
    each(cluster, (0..elsewhere).collect(), |cluster, number| async move {
        let (namespace, name) = name(number);
        let app = format!("app-{}", number % 400);
        let labels = [("app", app.as_str()), ("app.kubernetes.io/name", app.as_str()), ("tier", "backend")];
        let pod = pod(&namespace, &name, &format!("node-{}", 2 + number % 500), &labels);
        cluster.run_pod(&pod, &[address_of(number)]).await.unwrap();
    })
    .await;
}

/// Does something for each number, many at a time.
async fn each<F, R>(cluster: &Arc<ControlPlane>, numbers: Vec<u32>, act: F)
where
    F: Fn(Arc<ControlPlane>, u32) -> R,
    R: Future<Output = ()> + Send + 'static,
{
    let requests = Arc::new(Semaphore::new(REQUESTS));
    let mut tasks = JoinSet::new();
    for number in numbers {
        let permit = requests.clone().acquire_owned().await.unwrap();
        let done = act(cluster.clone(), number);
        tasks.spawn(async move {
            let _permit = permit;
            done.await;
        });
        while let Some(done) = tasks.try_join_next() {
            done.unwrap();
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}
