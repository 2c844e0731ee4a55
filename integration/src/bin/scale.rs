//! What the agent costs: time from the API to the kernel, CPU an event, memory; small, and at size.
//!
//! `cargo run --release --package integration --bin scale` starts a real API server and the agent in a network namespace
//! of their own, and prints a table.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration::agent::{Agent, binary, install, loopback_up};
use integration::control_plane::{ControlPlane, pod};
use integration::usage::{Usage, cpu};
use postern::kernel;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How often each change is made.
const ROUNDS: u32 = 50;
/// How many requests are under way while a cluster is filled.
const REQUESTS: usize = 32;

/// A cluster to measure in.
struct Size {
    local_pods: u32,
    policies: u32,
    pods_elsewhere: u32,
}

/// What was measured, in milliseconds but for the memory.
struct Measured {
    ready: Duration,
    after_answer: Vec<f64>,
    cpu_an_event: f64,
    resident: u64,
    peak: u64,
}

fn main() -> Result<()> {
    lab::enter()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        loopback_up()?;
        println_row(&[
            "local pods",
            "policies",
            "elsewhere",
            "ready",
            "effect after answer",
            "CPU an event",
            "resident",
            "peak",
        ]);
        for size in [
            Size { local_pods: 10, policies: 10, pods_elsewhere: 10 },
            Size { local_pods: 100, policies: 100, pods_elsewhere: 5_000 },
            Size { local_pods: 100, policies: 100, pods_elsewhere: 15_000 },
        ] {
            let measured = measure(&size).await?;
            let Size { local_pods, policies, pods_elsewhere } = size;
            let mut times = measured.after_answer;
            times.sort_by(f64::total_cmp);
            let of = |share: usize| times[(times.len() - 1) * share / 100];
            println_row(&[
                &local_pods.to_string(),
                &policies.to_string(),
                &pods_elsewhere.to_string(),
                &format!("{:.2} s", measured.ready.as_secs_f64()),
                &format!("{:.2} ms (p95 {:.2})", of(50), of(95)),
                &format!("{:.2} ms", measured.cpu_an_event),
                &format!("{:.1} MiB", mebibytes(measured.resident)),
                &format!("{:.1} MiB", mebibytes(measured.peak)),
            ]);
        }
        Ok(())
    })
}

#[allow(clippy::print_stdout, reason = "this program is a command")]
fn println_row(cells: &[&str]) {
    println!("| {} |", cells.join(" | "));
}

#[allow(clippy::cast_precision_loss, reason = "kibibytes of a process fit a double")]
fn mebibytes(kibibytes: u64) -> f64 {
    kibibytes as f64 / 1024.0
}

async fn measure(size: &Size) -> Result<Measured> {
    let cluster = Arc::new(ControlPlane::start().await?);
    let kubeconfig = install(&cluster).await?;
    fill(&cluster, size).await?;
    binary()?;
    let begun = Instant::now();
    let mut agent =
        Agent::start(&["--kubeconfig", kubeconfig.to_str().context("the path is text")?, "--log-level", "info"])?;
    agent.ready().await?;
    let ready = begun.elapsed();

    let mut after_answer = Vec::new();
    let cpu_before = cpu(agent.id())?;
    for round in 0..ROUNDS {
        // The address of a peer changes: one key less and one more in one set.
        let address = IpAddr::V4(Ipv4Addr::from(0x0a_ff_00_00 + round));
        let effect = next_generation()?;
        cluster.set_pod_status("clients", "peer-0", "Running", &[address]).await?;
        let answer = Instant::now();
        let effect = effect.join().map_err(|_| anyhow::anyhow!("the clock has panicked"))??;
        after_answer.push(effect.saturating_duration_since(answer).as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let cpu_an_event = (cpu(agent.id())? - cpu_before).as_secs_f64() * 1e3 / f64::from(ROUNDS);
    let Usage { resident, peak, .. } = Usage::of(agent.id())?;
    agent.terminate()?;
    integration::agent::nft(&["flush", "ruleset"])?;
    Ok(Measured { ready, after_answer, cpu_an_event, resident, peak })
}

/// Looks from a thread of its own at the kernel's generation, and tells when it changed.
fn next_generation() -> Result<JoinHandle<Result<Instant>>> {
    let mut kernel = kernel::connect()?;
    let before = kernel.generation()?;
    Ok(thread::spawn(move || {
        let begun = Instant::now();
        while kernel.generation()? == before {
            ensure!(begun.elapsed() < Duration::from_secs(20), "a change takes no effect");
            // A runtime's timer counts in milliseconds.
            thread::sleep(Duration::from_micros(20));
        }
        Ok(Instant::now())
    }))
}

/// Every policy selects every local pod, and each lets in the pods of one label elsewhere.
async fn fill(cluster: &Arc<ControlPlane>, size: &Size) -> Result<()> {
    cluster.create_namespace("shop", &[]).await?;
    cluster.create_namespace("clients", &[("team", "clients")]).await?;
    let mut policies = String::new();
    for i in 0..size.policies {
        policies.push_str(&format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: policy-{i}, namespace: shop}}\n\
             spec:\n  podSelector: {{}}\n  ingress:\n  - from: [{{namespaceSelector: {{matchLabels: {{team: clients}}}}, \
             podSelector: {{matchLabels: {{group: group-{i}}}}}}}]\n    ports: [{{port: {}}}]\n",
            8000 + i
        ));
    }
    cluster.apply(&policies).await?;
    let requests = Arc::new(Semaphore::new(REQUESTS));
    let mut tasks = JoinSet::new();
    for i in 0..size.local_pods + size.pods_elsewhere {
        let (cluster, policies) = (cluster.clone(), size.policies);
        let permit = requests.clone().acquire_owned().await?;
        let local = i.checked_sub(size.pods_elsewhere);
        tasks.spawn(async move {
            let _permit = permit;
            let address = |base: u32| IpAddr::V4(Ipv4Addr::from(base + i));
            match local {
                Some(number) => {
                    let pod = pod("shop", &format!("web-{number}"), "node-1", &[("app", "web")]);
                    cluster.run_pod(&pod, &[address(0x0a_00_00_00)]).await
                }
                None => {
                    let group = format!("group-{}", i % policies);
                    let labels = [("group", group.as_str()), ("app.kubernetes.io/name", "peer"), ("tier", "backend")];
                    let pod = pod("clients", &format!("peer-{i}"), "node-2", &labels);
                    cluster.run_pod(&pod, &[address(0x0a_80_00_00)]).await
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}
