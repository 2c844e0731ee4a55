//! `postern agent`: from the API, or from files, to the kernel, until told to stop.
//!
//! On SIGTERM and SIGINT the rules are left as they are and keep enforcing. SIGHUP is ignored. A lack of permission ends the agent with an
//! error, since waiting does not mend it; whatever else fails is tried again.

mod node_name;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use compiler::api::NodeName;
use compiler::cluster::{Budget, Event};
use compiler::nft::{Deny, LogGroup};
use compiler::policy::OwnAddresses;
use netlink::Error;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot::error::RecvError;
use tracing::{info, warn};

use crate::admin::{self, Admin, socket};
use crate::args::{AgentArgs, DenialsArg, EstablishedArg, FoldersArgs, GateArg, LogFormatArg, OwnAddressesArg};
use crate::cni;
use crate::denials;
use crate::gate::{self, PodRanges};
use crate::kernel::bridge::{self, Bridges};
use crate::kernel::{self, Counters};
use crate::links;
use crate::metrics::{Metrics, SyncMetrics, WatchMetrics};
use crate::quarantine;
use crate::readiness::{Guard, Readiness};
use crate::sync::{self, Handle, Look, Origin, Settings};
use crate::telemetry::{self, LogConfig, LogFormat};
use crate::watch::{self, Access, Options, files};

/// How long the end of a commit is waited for when the agent is told to stop. The kernel finishes or drops it anyway.
const LAST_COMMIT: Duration = Duration::from_millis(500);
/// How often bridges are looked at: the first pod may bring the first one, and somebody may switch its filter off.
const BRIDGE_INTERVAL: Duration = Duration::from_secs(1);

/// How the agent runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node whose pods are policed.
    pub node: NodeName,
    /// Where the objects come from.
    pub source: Source,
    /// How a packet is refused.
    pub deny: Deny,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub admin_address: SocketAddr,
    /// Where root of the node is told more, if anywhere.
    pub socket: Option<PathBuf>,
    /// How refused packets are told of, if they are.
    pub denials: Option<denials::Settings>,
    /// How logs are written.
    pub log: LogConfig,
    /// Whether the Namespace annotation of Kubernetes 1.3 isolates when it comes from the API. In files it always does.
    pub legacy_namespace_isolation: bool,
    /// Whose packets must have a source of their own.
    pub own_addresses: OwnAddresses,
    /// Where the container runtime keeps the results of its network plugins, if they are followed.
    pub cni_results: Option<PathBuf>,
    /// Where the ranges are known from of which addresses are refused that no pod is known to have.
    pub pod_ranges: PodRanges,
    /// Whether open flows are cut that policies do not allow any more.
    pub cuts_flows: bool,
    /// How often the table is read back and compared.
    pub verify_interval: Duration,
    /// Up to how many policies each has metrics of its own.
    pub policy_metrics: usize,
    /// What policies may cost.
    pub budget: Budget,
}

/// Where the objects come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The API server that the pod's service account, or the user's default kubeconfig, leads to.
    Cluster,
    /// The API server of the current context of a kubeconfig.
    Kubeconfig(PathBuf),
    /// Files and folders, watched for changes.
    Files {
        /// Where they are.
        paths: Vec<PathBuf>,
        /// Whether the folders in a folder count.
        recursive: bool,
    },
}

impl From<AgentArgs> for Config {
    fn from(args: AgentArgs) -> Config {
        let AgentArgs {
            node_name,
            kubeconfig,
            paths,
            folders: FoldersArgs { recursive },
            deny,
            admin_address,
            socket,
            denials,
            denials_group,
            log_denials,
            log_format,
            log_level,
            legacy_namespace_isolation,
            own_addresses,
            routing_namespaces,
            cni_results,
            gate,
            pod_ranges,
            established,
            verify_interval,
            policy_metrics,
            policy_budget,
            namespace_budget,
        } = args;
        let source = match kubeconfig {
            Some(path) => Source::Kubeconfig(path),
            None if paths.is_empty() => Source::Cluster,
            None => Source::Files { paths, recursive },
        };
        let format = match log_format {
            LogFormatArg::Text => LogFormat::Text,
            LogFormatArg::Json => LogFormat::Json,
        };
        Config {
            node: NodeName(node_name.into()),
            source,
            deny: deny.into(),
            admin_address,
            socket: Some(socket).filter(|path| path.as_os_str() != "off"),
            denials: match denials {
                DenialsArg::On => Some(denials::Settings { group: LogGroup(denials_group), logs: log_denials }),
                DenialsArg::Off => None,
            },
            log: LogConfig { format, filter: log_level },
            legacy_namespace_isolation,
            own_addresses: {
                let except = routing_namespaces.into_iter().map(Into::into).collect();
                match own_addresses {
                    OwnAddressesArg::All => OwnAddresses::All { except },
                    OwnAddressesArg::Isolated => OwnAddresses::Isolated { except },
                    OwnAddressesArg::Off => OwnAddresses::Off,
                }
            },
            cni_results: Some(cni_results).filter(|path| path.as_os_str() != "off"),
            pod_ranges: match gate {
                GateArg::Off => PodRanges::Off,
                GateArg::Auto if pod_ranges.is_empty() => PodRanges::OfNode,
                GateArg::Auto => PodRanges::Given(pod_ranges),
            },
            cuts_flows: match established {
                EstablishedArg::Cut => true,
                EstablishedArg::Keep => false,
            },
            verify_interval: Duration::from_secs(verify_interval),
            policy_metrics,
            budget: Budget { policy: policy_budget, namespace: namespace_budget },
        }
    }
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
///
/// If the configuration leads nowhere, the admin address is taken, or the permission to change nftables is missing.
pub fn run(config: Config) -> Result<()> {
    // One thread is enough, and keeps what it frees in one place.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(work(config));
    // A name that is being resolved must not delay the end.
    runtime.shutdown_background();
    telemetry::flush();
    result
}

async fn work(config: Config) -> Result<()> {
    let Config {
        node,
        source,
        deny,
        admin_address,
        socket,
        denials,
        log,
        legacy_namespace_isolation,
        own_addresses,
        cni_results,
        pod_ranges,
        cuts_flows,
        verify_interval,
        policy_metrics,
        budget,
    } = config;
    telemetry::init(&log)?;
    let version = env!("CARGO_PKG_VERSION");
    info!(version, %node, ?source, ?deny, %admin_address, ?socket, ?denials, legacy_namespace_isolation, ?cni_results, ?pod_ranges, cuts_flows, ?verify_interval, "starting");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // A terminal that is closed is no reason to end. It is enough that somebody listens to the signal.
    let _hangup = signal(SignalKind::hangup())?;
    let bound = TcpListener::bind(admin_address).await;
    let listener = bound.with_context(|| format!("cannot listen on {admin_address}"))?;
    let access = match &source {
        Source::Cluster => Some(Access::by_default().await?),
        Source::Kubeconfig(path) => Some(Access::by_kubeconfig(path).await?),
        Source::Files { .. } => None,
    };

    let (readiness, metrics) = (Readiness::new(), Arc::new(Metrics::with_policies(policy_metrics)));
    let origin = if access.is_some() { Origin::Api } else { Origin::Files };
    let (own_addresses, _unchecked) = checkable(own_addresses, &readiness);
    let limits = kernel::limits();
    let tells_denials = denials.is_some();
    let (denials, _untold) = tellable(denials, &readiness);
    let (private, _unreachable) = private(socket.as_deref(), &readiness);
    let log = denials.map(|denials| denials.group);
    let settings = Settings { node: node.clone(), deny, log, budget, own_addresses, origin, limits, verify_interval };
    let look = cuts_flows.then(|| Box::new(kernel::look) as Look);
    let (sync, mut end) = sync::spawn(settings, kernel::connect, look, &readiness, metrics.sync.clone())?;
    // Before the first commit: what an earlier life knew of links is not to be forgotten for a moment.
    if let Err(error) = links::tell(&sync).await {
        warn!(error = format!("{error:#}"), "the links of the node cannot be read");
    }
    match &pod_ranges {
        PodRanges::Off => sync.event(Event::PodRanges(Vec::new())),
        PodRanges::Given(ranges) => sync.event(Event::PodRanges(ranges.clone())),
        PodRanges::OfNode => {}
    }
    let (is_gated, asks_for_ranges) = (pod_ranges != PodRanges::Off, pod_ranges == PodRanges::OfNode);
    if let Some(path) = cni_results {
        cni::follow(path, sync.clone(), &readiness)?;
    }
    if let Source::Files { paths, recursive } = source {
        let ranges_of = asks_for_ranges.then(|| node.clone());
        files::follow(paths, recursive, ranges_of, sync.clone(), &readiness, metrics.watch.clone())?;
    }
    let quarantine = quarantine::follow(access.clone(), &node, sync.snapshots(), &readiness, &metrics.sync);
    let ranges = gate::follow(access.clone().filter(|_| asks_for_ranges), &node, &sync, &readiness);
    let options = Options { node: node.clone(), legacy_namespace_isolation };
    let watching = watch(access, options, sync.clone(), &readiness, metrics.watch.clone());
    let counters = Counters::default();
    if let Some(settings) = denials {
        let (ledger, metrics) = (metrics.ledger.clone(), metrics.denials.clone());
        denials::follow(settings, sync.clone(), ledger, metrics, readiness.clone())?;
    }
    let (admin_sync, admin_readiness) = (sync.clone(), readiness.clone());
    let admin = Admin {
        sync: admin_sync,
        readiness: admin_readiness,
        metrics: metrics.clone(),
        counters,
        tells_denials,
        printed: Arc::default(),
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = &mut end => return why(ended),
        never = admin::serve(listener, admin.clone()) => match never {},
        never = serve_private(private, admin) => match never {},
        never = watching => match never {},
        never = quarantine => match never {},
        never = node_name::look_for_pods(|| sync.snapshot(), &readiness) => match never {},
        never = look_at_bridges(&readiness, &metrics.sync) => match never {},
        never = links::follow(&sync, &readiness) => match never {},
        never = ranges => match never {},
        never = gate::tell(sync.snapshots(), &readiness), if is_gated => match never {},
    }
    info!("told to stop, the rules stay");
    sync.stop();
    // A commit that takes longer is finished, or dropped as a whole, by the kernel.
    let _ = tokio::time::timeout(LAST_COMMIT, end).await;
    Ok(())
}

/// Whose sources can be checked on this kernel, and what is shown on `/readyz` if they cannot.
fn checkable(own_addresses: OwnAddresses, readiness: &Readiness) -> (OwnAddresses, Option<Guard>) {
    // Where it cannot be asked, the sync thread meets the same error, and tells of it.
    if own_addresses == OwnAddresses::Off || kernel::supports_source_routes().unwrap_or(true) {
        return (own_addresses, None);
    }
    let text = "pods may send with addresses of others: to see that needs Linux 5.19 and its module nft_fib_inet";
    warn!("{text}");
    (OwnAddresses::Off, Some(readiness.note(text.to_owned())))
}

/// How this kernel can tell of refused packets, and what is shown on `/readyz` if it cannot.
fn tellable(denials: Option<denials::Settings>, readiness: &Readiness) -> (Option<denials::Settings>, Option<Guard>) {
    if denials.is_none() || kernel::supports_denials().unwrap_or(true) {
        return (denials, None);
    }
    let text = format!("{}: that needs nft_log, nft_limit and nfnetlink_log", denials::UNTOLD);
    warn!("{text}");
    (None, Some(readiness.note(text)))
}

/// The socket for root of the node, and what is shown on `/readyz` if there can be none.
fn private(path: Option<&Path>, readiness: &Readiness) -> (Option<UnixListener>, Option<Guard>) {
    let Some(path) = path else { return (None, None) };
    match socket::listen(path) {
        Ok(listener) => (Some(listener), None),
        Err(error) => {
            let text = format!("denials are shown to nobody: cannot listen on {}: {error}", path.display());
            warn!("{text}");
            (None, Some(readiness.note(text)))
        }
    }
}

async fn serve_private(listener: Option<UnixListener>, admin: Admin) -> Infallible {
    match listener {
        Some(listener) => admin::serve_private(listener, admin).await,
        None => std::future::pending().await,
    }
}

/// Why the sync thread ended without being told to.
fn why(ended: Result<Result<(), Error>, RecvError>) -> Result<()> {
    match ended {
        Ok(Err(error)) if error.is_permission() => {
            Err(error).context("nftables may not be changed: CAP_NET_ADMIN is missing in this network namespace")
        }
        Ok(result) => Ok(result?),
        Err(RecvError { .. }) => bail!("the sync thread has panicked"),
    }
}

/// Follows the API, if there is one to follow, for ever.
async fn watch(
    access: Option<Access>,
    options: Options,
    sync: Handle,
    readiness: &Readiness,
    metrics: WatchMetrics,
) -> Infallible {
    match access {
        Some(access) => watch::follow(access, options, sync, readiness, metrics).await,
        None => std::future::pending().await,
    }
}

/// Keeps an eye on bridges that pass packets unseen, for ever.
async fn look_at_bridges(readiness: &Readiness, metrics: &SyncMetrics) -> Infallible {
    let mut told: Option<(String, Guard)> = None;
    loop {
        let found = bridge::check();
        metrics.set_bridge_unfiltered(matches!(found, Bridges::Unfiltered { .. }));
        match found {
            Bridges::Filtered => told = None,
            Bridges::Repaired(settings) => {
                info!(?settings, "set to 1, so that packets between pods of one bridge meet the rules");
                told = None;
            }
            Bridges::Unfiltered { reason } if told.as_ref().is_some_and(|(before, _)| *before == reason) => {}
            Bridges::Unfiltered { reason } => {
                let text = format!("packets between pods of one bridge are NOT POLICED: {reason}");
                warn!("{text}");
                told = Some((reason, readiness.note(text)));
            }
        }
        tokio::time::sleep(BRIDGE_INTERVAL).await;
    }
}
