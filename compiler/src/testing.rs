//! Builders for unit tests: objects of a cluster in a line each.
//!
//! ```text
//! pod("a/web").labels("app=web").ip("10.0.0.1").port("http", "80/TCP")
//! policy("a/p").selects("app=web").ingress([rule().peers([pods_of("a", "app=db")]).ports(&["80/TCP"])])
//! ```
//!
//! The cluster is seen from node [`NODE`], where pods are unless they are said to be elsewhere.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::api::{
    ApiGeneration, ContainerPort, IpBlock, Labels, Namespace, NamespaceScope, NetworkPolicy, NodeName, Operator, Peer,
    Peers, Phase, Pod, PodKey, PodSelector, PodUid, PolicyKey, Port, PortMatch, PortRange, Ports, Protocol,
    Requirement, Rule, Selector,
};
use crate::cluster::{Change, Event, PodSource, State};
use crate::policy::{Ir, Resolver};

/// The node from which the cluster is seen.
pub(crate) const NODE: &str = "n1";

/// A pod of this node that runs, without labels, addresses and ports.
pub(crate) fn pod(key: &str) -> PodBuilder {
    PodBuilder(Pod {
        key: pod_key(key),
        uid: None,
        labels: Labels::default(),
        node: Some(NodeName(NODE.into())),
        host_network: false,
        phase: Phase::Running,
        terminating: false,
        lingering: false,
        version: 0,
        created: 0,
        ips: Vec::new(),
        held: 0,
        host_ips: Vec::new(),
        ports: Vec::new(),
    })
}

#[derive(Clone)]
pub(crate) struct PodBuilder(Pod);

impl PodBuilder {
    /// Labels as `app=web,tier=db`.
    pub(crate) fn labels(mut self, text: &str) -> Self {
        self.0.labels = labels(text);
        self
    }

    /// One more address.
    #[track_caller]
    pub(crate) fn ip(mut self, address: &str) -> Self {
        self.0.ips.push(ip(address));
        self
    }

    /// `metadata.uid`, as one digit over and over.
    pub(crate) fn uid(mut self, digit: char) -> Self {
        self.0.uid = Some(uid(digit));
        self
    }

    pub(crate) fn elsewhere(mut self) -> Self {
        self.0.node = Some(NodeName("n2".into()));
        self
    }

    /// As it was at a version.
    pub(crate) fn version(mut self, version: u64) -> Self {
        self.0.version = version;
        self
    }

    pub(crate) fn phase(mut self, phase: Phase) -> Self {
        self.0.phase = phase;
        self
    }

    pub(crate) fn terminating(mut self) -> Self {
        self.0.terminating = true;
        self
    }

    pub(crate) fn host_network(mut self) -> Self {
        self.0.host_network = true;
        self
    }

    pub(crate) fn created(mut self, seconds: i64) -> Self {
        self.0.created = seconds;
        self
    }

    /// One more named port, as `80/TCP`.
    #[track_caller]
    pub(crate) fn port(mut self, name: &str, text: &str) -> Self {
        let port = port(text);
        let PortMatch::Numbers(range) = port.port else { panic!("{text} is not a number and a protocol") };
        self.0.ports.push(ContainerPort { name: name.into(), protocol: port.protocol, number: range.first });
        self
    }

    pub(crate) fn build(self) -> Pod {
        self.0
    }

    /// As one watch reports it.
    pub(crate) fn seen_by(self, source: PodSource) -> Event {
        Event::Pods(source, Change::Applied(self.0))
    }
}

/// As a watch of all pods reports it.
impl From<PodBuilder> for Event {
    fn from(pod: PodBuilder) -> Event {
        pod.seen_by(PodSource::Cluster)
    }
}

/// A namespace with labels as `team=a,env=b`.
pub(crate) fn namespace(name: &str, text: &str) -> Namespace {
    Namespace { name: name.into(), labels: labels(text), default_deny_ingress: false }
}

/// A namespace whose annotation isolates its pods for ingress.
pub(crate) fn denying_namespace(name: &str) -> Namespace {
    Namespace { default_deny_ingress: true, ..namespace(name, "") }
}

impl From<Namespace> for Event {
    fn from(namespace: Namespace) -> Event {
        Event::Namespaces(Change::Applied(namespace))
    }
}

/// A policy of `networking.k8s.io/v1` that selects all pods of its namespace and speaks about no direction.
pub(crate) fn policy(key: &str) -> PolicyBuilder {
    PolicyBuilder(NetworkPolicy {
        key: policy_key(key),
        revision: Default::default(),
        api: ApiGeneration::V1,
        pod_selector: Selector::default(),
        ingress: None,
        egress: None,
    })
}

#[derive(Clone)]
pub(crate) struct PolicyBuilder(NetworkPolicy);

impl PolicyBuilder {
    pub(crate) fn selects(mut self, text: &str) -> Self {
        self.0.pod_selector = selector(text);
        self
    }

    pub(crate) fn first_generation(mut self) -> Self {
        self.0.api = ApiGeneration::First;
        self
    }

    pub(crate) fn ingress(mut self, rules: impl IntoIterator<Item = RuleBuilder>) -> Self {
        self.0.ingress = Some(numbered(rules));
        self
    }

    pub(crate) fn egress(mut self, rules: impl IntoIterator<Item = RuleBuilder>) -> Self {
        self.0.egress = Some(numbered(rules));
        self
    }

    pub(crate) fn build(self) -> NetworkPolicy {
        self.0
    }
}

impl From<PolicyBuilder> for Event {
    fn from(policy: PolicyBuilder) -> Event {
        Event::Policies(Change::Applied(policy.0))
    }
}

fn numbered(rules: impl IntoIterator<Item = RuleBuilder>) -> Vec<Rule> {
    rules.into_iter().enumerate().map(|(index, rule)| Rule { index, ..rule.0 }).collect()
}

/// A rule that allows everything.
pub(crate) fn rule() -> RuleBuilder {
    RuleBuilder(Rule { index: 0, peers: Peers::Any, ports: Ports::Any })
}

#[derive(Clone)]
pub(crate) struct RuleBuilder(Rule);

impl RuleBuilder {
    /// `from` or `to`.
    pub(crate) fn peers(mut self, peers: impl IntoIterator<Item = Peer>) -> Self {
        self.0.peers = Peers::These(peers.into_iter().collect());
        self
    }

    /// Ports as `80/TCP`, `80-90/UDP`, `http/TCP`, `*/SCTP`.
    #[track_caller]
    pub(crate) fn ports(mut self, texts: &[&str]) -> Self {
        self.0.ports = Ports::These(texts.iter().map(|text| port(text)).collect());
        self
    }
}

/// The pods of one namespace, by their labels.
pub(crate) fn pods_of(namespace: &str, pods: &str) -> Peer {
    Peer::Pods(PodSelector { namespaces: NamespaceScope::Named(namespace.into()), pods: selector(pods) })
}

/// The pods of the namespaces with these labels, by their own labels.
pub(crate) fn pods_where(namespaces: &str, pods: &str) -> Peer {
    Peer::Pods(PodSelector { namespaces: NamespaceScope::Selected(selector(namespaces)), pods: selector(pods) })
}

/// An `ipBlock`.
#[track_caller]
pub(crate) fn block(cidr: &str, except: &[&str]) -> Peer {
    let net = |text: &str| text.parse().expect("a test writes CIDRs that parse");
    Peer::IpBlock(IpBlock { cidr: net(cidr), except: except.iter().map(|text| net(text)).collect() })
}

/// A selector as `app=web,tier,!old`: a value, any value, no such label.
pub(crate) fn selector(text: &str) -> Selector {
    let requirement = |part: &str| match (part.split_once('='), part.strip_prefix('!')) {
        (Some((key, value)), _) => {
            Requirement { key: key.into(), operator: Operator::In(BTreeSet::from([value.into()])) }
        }
        (None, Some(key)) => Requirement { key: key.into(), operator: Operator::DoesNotExist },
        (None, None) => Requirement { key: part.into(), operator: Operator::Exists },
    };
    text.split(',').filter(|part| !part.is_empty()).map(requirement).collect()
}

#[track_caller]
pub(crate) fn ip(address: &str) -> IpAddr {
    address.parse().expect("a test writes addresses that parse")
}

pub(crate) fn uid(digit: char) -> PodUid {
    PodUid::parse(&digit.to_string().repeat(32)).expect("it is a hexadecimal digit")
}

#[track_caller]
pub(crate) fn pod_key(text: &str) -> PodKey {
    let (namespace, name) = text.split_once('/').expect("a key is written as namespace/name");
    PodKey { namespace: namespace.into(), name: name.into() }
}

#[track_caller]
pub(crate) fn policy_key(text: &str) -> PolicyKey {
    let (namespace, name) = text.split_once('/').expect("a key is written as namespace/name");
    PolicyKey { namespace: namespace.into(), name: name.into() }
}

/// A state at [`NODE`] after these events.
pub(crate) fn state(events: impl IntoIterator<Item = Event>) -> State {
    let mut state = State::new(NodeName(NODE.into()));
    for event in events {
        state.apply(event);
    }
    state
}

/// What a resolver without memory makes of the events.
pub(crate) fn ir(events: impl IntoIterator<Item = Event>) -> Ir {
    Resolver::default().resolve(&state(events))
}

fn labels(text: &str) -> Labels {
    let label = |part: &str| {
        let (key, value) = part.split_once('=').expect("a label is written as key=value");
        (key.into(), value.into())
    };
    text.split(',').filter(|part| !part.is_empty()).map(label).collect()
}

#[track_caller]
fn port(text: &str) -> Port {
    let (port, protocol) = text.split_once('/').expect("a port is written as port/protocol");
    let protocol = *Protocol::ALL.iter().find(|known| known.as_str() == protocol).expect("TCP, UDP or SCTP");
    let number = |text: &str| text.parse::<u16>().ok();
    let port = match (number(port), port.split_once('-')) {
        (Some(single), _) => PortMatch::Numbers(PortRange::single(single)),
        (None, Some((first, last))) if number(first).is_some() => PortMatch::Numbers(PortRange {
            first: number(first).expect("it was just read"),
            last: number(last).expect("a range ends with a number"),
        }),
        (None, _) if port == "*" => PortMatch::Any,
        (None, _) => PortMatch::Named(port.into()),
    };
    Port { protocol, port }
}

#[test]
fn builders_say_what_they_read() {
    let rule = &policy("a/p").ingress([rule(), rule().ports(&["80/TCP", "1-2/UDP", "http/SCTP", "*/TCP"])]).build();
    let rules = rule.ingress.as_deref().expect("the direction was given");
    assert_eq!((rules[0].index, &rules[0].ports), (0, &Ports::Any));
    let Ports::These(ports) = &rules[1].ports else { panic!("ports were given") };
    let text: Vec<String> = ports.iter().map(|port| format!("{:?}", port.port)).collect();
    let numbers = |first, last| format!("{:?}", PortMatch::Numbers(PortRange { first, last }));
    assert_eq!(text, [numbers(80, 80), numbers(1, 2), r#"Named("http")"#.to_string(), "Any".to_string()]);
    assert_eq!(selector("app=web,tier,!old").to_string(), "app=web,!old,tier");
}
