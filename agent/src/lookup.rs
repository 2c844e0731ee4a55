//! What a command reads of the API server when it is asked: once, with the rights of who asks, and no more than the
//! question needs. The agent itself watches none of this.

mod agents;
mod cluster;
mod pods;
mod policies;
mod workloads;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use compiler::api::{EndpointSlice, Item, Json, Node, Object, Pod, PodKey, Service, parse};
use kube::Error;
use kube::api::ListParams;
use kube::core::request::Request;
use tokio::runtime::Runtime;

use crate::telemetry::Causes;
use crate::watch::{Access, Seat};

pub use agents::{AgentPod, Agents};
pub use workloads::why_none;

/// How long the answer to a question may take. Who asks waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A way to the API server, which is made when it is needed first.
pub struct Lookup {
    runtime: Runtime,
    way: Way,
    access: Option<Result<(Access, Seat), Missing>>,
    /// How long one answer may take.
    patience: Duration,
    /// The Services that were read: of one namespace, or all.
    services: BTreeMap<Option<String>, Result<Vec<Service>, Missing>>,
    /// All pods, where they were read.
    pods: Option<Vec<Pod>>,
}

/// How the API server is reached: as kubectl is told.
#[derive(Debug, Clone, Default)]
pub struct Way {
    /// Else the default kubeconfigs, or else the service account of the pod.
    pub kubeconfig: Option<PathBuf>,
    /// Else the current one.
    pub context: Option<String>,
}

/// Pods, and which of them are not ready.
pub type Pods = Vec<(Pod, bool)>;

/// Why something cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// Who asks may not.
    Rights {
        /// The verb, as RBAC calls it.
        verb: &'static str,
        /// The resource, with its group if it has one: `endpointslices.discovery.k8s.io`.
        resource: String,
        /// The namespace; all, if `None`.
        namespace: Option<String>,
    },
    /// Anything else.
    Failure(String),
}

/// What is listed.
struct Collection<'a> {
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    namespace: Option<&'a str>,
}

impl Way {
    /// By this kubeconfig, or else by that way, or else by default.
    pub fn to(kubeconfig: Option<PathBuf>, way: Option<Way>) -> Way {
        match (kubeconfig, way) {
            (Some(path), way) => Way { kubeconfig: Some(path), ..way.unwrap_or_default() },
            (None, way) => way.unwrap_or_default(),
        }
    }
}

impl Lookup {
    /// By a kubeconfig, or else by the default one, or else by the service account of the pod.
    ///
    /// # Errors
    ///
    /// If no threads can be started.
    pub fn new(kubeconfig: Option<PathBuf>) -> anyhow::Result<Lookup> {
        Lookup::by(Way { kubeconfig, context: None })
    }

    /// By this way.
    ///
    /// # Errors
    ///
    /// As for [`Lookup::new`].
    pub fn by(way: Way) -> anyhow::Result<Lookup> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("cannot start")?;
        Ok(Lookup { runtime, way, access: None, patience: PATIENCE, services: BTreeMap::new(), pods: None })
    }

    /// The Services of a namespace, or all of them.
    pub fn services(&mut self, namespace: Option<&str>) -> Result<&[Service], Missing> {
        let key = namespace.map(str::to_owned);
        if !self.services.contains_key(&key) {
            let collection = Collection { group: "", version: "v1", plural: "services", namespace };
            let service = |(object, _)| if let Object::Service(service) = object { Some(service) } else { None };
            let items = self.list(&collection, ListParams::default());
            let services = items.map(|items| items.into_iter().filter_map(service).collect());
            self.services.insert(key.clone(), services);
        }
        match &self.services[&key] {
            Ok(services) => Ok(services),
            Err(missing) => Err(missing.clone()),
        }
    }

    /// The EndpointSlices of a Service.
    pub fn slices(&mut self, namespace: &str, service: &str) -> Result<Vec<EndpointSlice>, Missing> {
        let collection = Collection {
            group: "discovery.k8s.io",
            version: "v1",
            plural: "endpointslices",
            namespace: Some(namespace),
        };
        let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        let slice = |(object, _)| if let Object::EndpointSlice(slice) = object { Some(slice) } else { None };
        Ok(self.list(&collection, of_service)?.into_iter().filter_map(slice).collect())
    }

    /// The pods of a namespace that a label selector leaves; all, if it is empty.
    pub fn pods(&mut self, namespace: &str, labels: &str) -> Result<Pods, Missing> {
        let collection = Collection { group: "", version: "v1", plural: "pods", namespace: Some(namespace) };
        let params = if labels.is_empty() { ListParams::default() } else { ListParams::default().labels(labels) };
        self.list(&collection, params).map(pods)
    }

    /// One pod.
    pub fn pod(&mut self, key: &PodKey) -> Result<Option<Pod>, Missing> {
        let collection = Collection { group: "", version: "v1", plural: "pods", namespace: Some(&key.namespace) };
        let of_name = ListParams::default().fields(&format!("metadata.name={}", key.name));
        Ok(pods(self.list(&collection, of_name)?).pop().map(|(pod, _)| pod))
    }

    /// The nodes.
    pub fn nodes(&mut self) -> Result<Vec<Node>, Missing> {
        let collection = Collection { group: "", version: "v1", plural: "nodes", namespace: None };
        let node = |(object, _)| if let Object::Node(node) = object { Some(node) } else { None };
        Ok(self.list(&collection, ListParams::default())?.into_iter().filter_map(node).collect())
    }

    fn list(&mut self, collection: &Collection<'_>, params: ListParams) -> Result<Vec<(Object, bool)>, Missing> {
        let object = |item| match item {
            Item::Object { parsed, is_unready, .. } => Some((parsed.value, is_unready)),
            Item::Workload(_) | Item::Skipped(_) | Item::Invalid(_) => None,
        };
        Ok(self.items(collection, params)?.into_iter().filter_map(object).collect())
    }

    fn items(&mut self, collection: &Collection<'_>, params: ListParams) -> Result<Vec<Item>, Missing> {
        Ok(parse(&self.get(collection, params)?, "unnamed"))
    }

    /// What the server answers to a list.
    fn get(&mut self, collection: &Collection<'_>, params: ListParams) -> Result<Json, Missing> {
        let patience = self.patience;
        let (runtime, _, seat) = self.reach()?;
        let Collection { group, version, plural, namespace } = collection;
        let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let path = match namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{plural}"),
            None => format!("{root}/{plural}"),
        };
        let ask = async {
            let client = seat.client(false).await.map_err(|error| Missing::Failure(format!("{error:#}")))?;
            let request = Request::new(path).list(&params).map_err(|error| Missing::Failure(error.to_string()))?;
            client.request::<Json>(request).await.map_err(|error| collection.missing(&error))
        };
        let answer = runtime.block_on(async { tokio::time::timeout(patience, ask).await });
        answer.unwrap_or_else(|_| {
            Err(Missing::Failure(format!("the API server does not answer within {} s", patience.as_secs())))
        })
    }

    /// The way to the API server, with what waits for it.
    fn reach(&mut self) -> Result<(&Runtime, &Access, &Seat), Missing> {
        let (way, runtime) = (&self.way, &self.runtime);
        let access = self.access.get_or_insert_with(|| {
            let access = runtime.block_on(async {
                match (&way.kubeconfig, &way.context) {
                    (kubeconfig, Some(context)) => Access::by_context(kubeconfig.as_deref(), context).await,
                    (Some(path), None) => Access::by_kubeconfig(path).await,
                    (None, None) => Access::by_default().await,
                }
            });
            let access = access.map_err(|error| Missing::Failure(format!("{error:#}")))?;
            let seat = access.seat();
            Ok((access, seat))
        });
        match access {
            Ok((access, seat)) => Ok((runtime, access, seat)),
            Err(missing) => Err(missing.clone()),
        }
    }
}

fn pods(items: Vec<(Object, bool)>) -> Pods {
    let pod = |(object, is_unready)| if let Object::Pod(pod) = object { Some((pod, is_unready)) } else { None };
    items.into_iter().filter_map(pod).collect()
}

impl Collection<'_> {
    fn missing(&self, error: &Error) -> Missing {
        if let Error::Api(status) = error
            && status.code == 403
        {
            let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
            let resource = format!("{}{group}", self.plural);
            return Missing::Rights { verb: "list", resource, namespace: self.namespace.map(str::to_owned) };
        }
        Missing::Failure(Causes(error).to_string())
    }
}

impl fmt::Display for Missing {
    /// `it takes the right to list services in namespace shop; another --kubeconfig may have it`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Rights { verb, resource, namespace } => {
                let place = match namespace {
                    Some(namespace) => format!("in namespace {namespace}"),
                    None => "in all namespaces".to_owned(),
                };
                write!(f, "it takes the right to {verb} {resource} {place}; another --kubeconfig may have it")
            }
            Missing::Failure(text) => f.write_str(text),
        }
    }
}
