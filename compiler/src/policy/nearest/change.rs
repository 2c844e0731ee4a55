//! The smallest change that would allow a packet in one direction.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::failing::{Failing, Question};
use crate::api::{
    ApiGeneration, Direction, Labels, NetworkPolicy, Operator, Peers, Pod, PolicyKey, Ports, Requirement, Rule, Str,
};
use crate::policy::{Ir, Isolation, PacketProtocol};

/// The label that every API server gives a Namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// Labels that controllers give each pod or each generation of pods, so that the next one does not have them.
const PASSING_LABELS: [&str; 9] = [
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "controller-revision-hash",
    "controller-uid",
    "job-completion-index",
    "pod-template-generation",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];
/// The most requirements, and values in them, of another policy's selector that are taken over.
const MOST_REQUIRED: usize = 32;
/// How many isolating policies are looked at for the one with the fewest.
const MOST_LOOKED_AT: usize = 100;
/// The longest name of an object.
const LONGEST_NAME: usize = 253;

/// Something that would allow a packet in one direction, as kubectl takes it. It only opens: nobody is isolated by it who is
/// not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An entry more in a rule.
    Patch {
        /// The policy.
        policy: PolicyKey,
        /// A JSON Patch (RFC 6902), `kubectl patch --type=json`.
        operations: Value,
    },
    /// A policy more.
    Create(Value),
}

/// An entry more in the nearest rule where it fails by its peers alone or by its ports alone, else a policy more: to add both
/// to a rule would open all its ports to the one and all its peers to the other.
pub(super) fn smallest(
    ir: &Ir,
    isolation: &Isolation,
    question: &Question<'_>,
    near: Option<(&PolicyKey, &Rule, &Failing<'_>)>,
) -> Option<Change> {
    let patch = near.and_then(|(key, rule, failing)| {
        let policy = &ir.policies.get(key)?.source;
        let (field, entry) = entry_for(policy, rule, failing, question)?;
        let path = format!("/spec/{}/{}/{field}/-", question.direction.as_str(), rule.index);
        Some(Change::Patch { policy: key.clone(), operations: json!([{"op": "add", "path": path, "value": entry}]) })
    });
    patch.or_else(|| policy_for(ir, isolation, question).map(Change::Create))
}

impl Change {
    /// What the change is, for kubectl: the operations, or the object.
    pub fn manifest(&self) -> &Value {
        match self {
            Change::Patch { operations, policy: _ } => operations,
            Change::Create(object) => object,
        }
    }

    /// How kubectl takes it from a file.
    pub fn command(&self) -> String {
        match self {
            Change::Patch { policy: PolicyKey { namespace, name }, operations: _ } => {
                format!("kubectl -n {namespace} patch networkpolicy {name} --type=json --patch-file=FILE")
            }
            Change::Create(_) => "kubectl create -f FILE".to_owned(),
        }
    }
}

/// The list to which an entry is to be added, and the entry. The list must be there, and of a kind that means what the
/// entry says.
fn entry_for(
    policy: &NetworkPolicy,
    rule: &Rule,
    failing: &Failing<'_>,
    question: &Question<'_>,
) -> Option<(&'static str, Value)> {
    let has_entries = match (&rule.peers, &rule.ports) {
        (Peers::These(peers), _) if failing.peers.is_some() => !peers.is_empty(),
        (_, Ports::These(ports)) if failing.ports => !ports.is_empty(),
        (Peers::Any | Peers::These(_), Ports::Any | Ports::These(_)) => false,
    };
    match (failing.peers.is_some(), failing.ports) {
        // In extensions/v1beta1 a peer has one selector and no block, and a port is not of SCTP.
        _ if !has_entries || policy.api == ApiGeneration::First => None,
        (true, false) => Some((peers_field(question.direction), peer(question, &policy.key.namespace)?)),
        (false, true) => Some(("ports", port(question)?)),
        (true | false, true | false) => None,
    }
}

/// A policy that allows this and nothing else. It selects no pod that is not isolated in this direction. There is none for
/// a pod without labels that last: it would open all pods of the namespace.
fn policy_for(ir: &Ir, isolation: &Isolation, question: &Question<'_>) -> Option<Value> {
    let own = question.own?;
    let direction = question.direction;
    let labels = Some(lasting(&own.labels)).filter(|labels| !labels.is_empty())?;
    let isolating = isolation.policies.iter().filter_map(|key| ir.policies.get(key)).filter(|rules| rules.isolates);
    // Those of labels that the policy names hold, as the isolating one selects the pod.
    let required = |policy: &NetworkPolicy| -> Vec<Requirement> {
        let others = policy.pod_selector.requirements().filter(|of| !labels.contains_key(&*of.key));
        others.take(MOST_REQUIRED + 1).cloned().collect()
    };
    let size = |list: &Vec<Requirement>| list.iter().map(size_of_requirement).sum::<usize>();
    let requirements = if isolation.by_namespace.is_some() {
        Vec::new()
    } else {
        let lists = isolating.take(MOST_LOOKED_AT).map(|rules| required(&rules.source));
        lists.min_by_key(size).filter(|list| size(list) <= MOST_REQUIRED)?
    };
    let mut selector = Map::new();
    selector.insert("matchLabels".to_owned(), Value::Object(labels));
    if !requirements.is_empty() {
        selector.insert("matchExpressions".to_owned(), requirements.iter().map(expression).collect());
    }
    let mut rule = Map::new();
    rule.insert(peers_field(direction).to_owned(), json!([peer(question, &own.key.namespace)?]));
    if let Some(port) = port(question) {
        rule.insert("ports".to_owned(), json!([port]));
    }
    let (types, name) = match direction {
        Direction::Ingress => (["Ingress"], format!("allow-to-{}", own.key.name)),
        Direction::Egress => (["Egress"], format!("allow-from-{}", own.key.name)),
    };
    let name = free_name(ir, &own.key.namespace, &name)?;
    Some(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": &*own.key.namespace},
        "spec": {"podSelector": selector, "policyTypes": types, direction.as_str(): [rule]},
    }))
}

/// A name that no policy of the namespace has: this one, or with the first number that makes it so.
fn free_name(ir: &Ir, namespace: &Str, name: &str) -> Option<String> {
    let cut = |longest: usize| name.chars().take(longest).collect::<String>().trim_end_matches(['-', '.']).to_owned();
    let numbered = (2..=MOST_LOOKED_AT).map(|number| format!("{}-{number}", cut(LONGEST_NAME - 4)));
    let is_free = |name: &String| {
        let key = PolicyKey { namespace: namespace.clone(), name: name.as_str().into() };
        !ir.policies.contains_key(&key)
    };
    std::iter::once(cut(LONGEST_NAME)).chain(numbered).find(is_free)
}

fn peers_field(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    }
}

/// The peer as an entry of a policy of this namespace: a pod by its labels, anybody else by the address. There is none for
/// a pod without labels that last, or in another namespace that has no labels: it would open to more than is asked for.
fn peer(question: &Question<'_>, namespace: &Str) -> Option<Value> {
    let Some(pod) = question.peer else {
        let bits = match question.peer_address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        return Some(json!({"ipBlock": {"cidr": format!("{}/{bits}", question.peer_address)}}));
    };
    let pods = match_labels(lasting(&pod.labels))?;
    if pod.key.namespace == *namespace {
        return Some(json!({"podSelector": pods}));
    }
    let namespaces = namespace_selector(question, pod)?;
    Some(json!({"namespaceSelector": namespaces, "podSelector": pods}))
}

/// Its namespace by name, or where it has not that label, which API servers set since 1.21, by all that it has.
fn namespace_selector(question: &Question<'_>, pod: &Pod) -> Option<Value> {
    let labels = question.known.namespaces.labels(&pod.key.namespace)?;
    if labels.get(NAME_LABEL) == Some(&pod.key.namespace) {
        return Some(json!({"matchLabels": {NAME_LABEL: &*pod.key.namespace}}));
    }
    match_labels(labels.iter().map(|(key, value)| (key.to_string(), json!(&**value))).collect())
}

fn match_labels(labels: Map<String, Value>) -> Option<Value> {
    (!labels.is_empty()).then(|| json!({"matchLabels": labels}))
}

/// The labels of a pod but those that its successor will not have.
fn lasting(labels: &Labels) -> Map<String, Value> {
    let lasting = labels.iter().filter(|(key, _)| !PASSING_LABELS.contains(&&***key));
    lasting.map(|(key, value)| (key.to_string(), json!(&**value))).collect()
}

fn port(question: &Question<'_>) -> Option<Value> {
    match question.packet.protocol {
        // The API knows no port 0: only who may use all ports may use it.
        PacketProtocol::Port(protocol, 0) => Some(json!({"protocol": protocol.as_str()})),
        PacketProtocol::Port(protocol, port) => Some(json!({"protocol": protocol.as_str(), "port": port})),
        PacketProtocol::Echo => None,
    }
}

fn size_of_requirement(requirement: &Requirement) -> usize {
    match &requirement.operator {
        Operator::In(values) | Operator::NotIn(values) => values.len(),
        Operator::Exists | Operator::DoesNotExist => 1,
    }
}

fn expression(requirement: &Requirement) -> Value {
    let (operator, values) = match &requirement.operator {
        Operator::In(values) => ("In", Some(values)),
        Operator::NotIn(values) => ("NotIn", Some(values)),
        Operator::Exists => ("Exists", None),
        Operator::DoesNotExist => ("DoesNotExist", None),
    };
    let mut expression = json!({"key": &*requirement.key, "operator": operator});
    if let Some(values) = values {
        expression["values"] = values.iter().map(|value| json!(&**value)).collect();
    }
    expression
}
