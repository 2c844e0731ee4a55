//! Which policies apply to a pod, and what their rules allow.

use std::net::IpAddr;

use serde_json::Value;

use super::address::block_contains;
use super::pods::{declares, of_kind, peer as find_peer, word};
use super::{Content, Packet, selector};
use crate::api::Direction;

/// The annotation of Namespaces in Kubernetes 1.3.
const ANNOTATION: &str = "net.beta.kubernetes.io/network-policy";

/// *concept*, "The two sorts of pod isolation": "A pod is isolated for egress if there is any NetworkPolicy that both
/// selects the pod and has "Egress" in its policyTypes"; and the same for ingress.
pub(super) fn isolated(objects: &[Value], pod: &Value, direction: Direction) -> bool {
    let by_policy = policies_of(objects, pod).any(|policy| isolates(policy, direction));
    by_policy || direction == Direction::Ingress && is_annotated(objects, &pod["metadata"]["namespace"])
}

/// *v1*, `NetworkPolicySpec.ingress`: "Traffic is allowed to a pod [...] if the traffic matches at least one ingress
/// rule across all of the NetworkPolicy objects whose podSelector matches the pod"; and the same for egress.
///
/// `all` are the pods that have the address of this one, itself among them.
pub(super) fn some_rule_allows(
    objects: &[Value],
    pod: &Value,
    all: &[&Value],
    direction: Direction,
    packet: &Packet,
) -> bool {
    that_open(objects, pod, direction).into_iter().any(|policy| {
        let rules = policy["spec"][field_of_rules(direction)].as_array().into_iter().flatten();
        rules.into_iter().any(|rule| rule_allows(objects, all, policy, rule, direction, packet))
    })
}

/// The policies whose rules are what is allowed of a pod in one direction.
pub(super) fn that_open<'a>(objects: &'a [Value], pod: &'a Value, direction: Direction) -> Vec<&'a Value> {
    policies_of(objects, pod).filter(|policy| speaks_of(policy, direction)).collect()
}

/// *v1*, `NetworkPolicySpec.podSelector`: "selects the pods to which this NetworkPolicy object applies. [...] An empty
/// selector matches all pods in the policy's namespace. [...] This field is optional. If it is not specified, it
/// defaults to an empty selector."
fn policies_of<'a>(objects: &'a [Value], pod: &'a Value) -> impl Iterator<Item = &'a Value> {
    of_kind(objects, "NetworkPolicy")
        .filter(|policy| policy["metadata"]["namespace"] == pod["metadata"]["namespace"])
        .filter(|policy| selector::matches(&policy["spec"]["podSelector"], pod))
}

/// *1.3*: a policy did not isolate by itself, it opened what the annotation of the namespace had closed.
fn isolates(policy: &Value, direction: Direction) -> bool {
    !is_of_first_generation(policy) && speaks_of(policy, direction)
}

/// *v1*, `NetworkPolicySpec.policyTypes`: "If this field is not specified, it will default based on the existence of
/// ingress or egress rules; policies that contain an egress section are assumed to affect egress, and all policies
/// (whether or not they contain an ingress section) are assumed to affect ingress."
///
/// *1.3*: there was ingress only, and no such field.
fn speaks_of(policy: &Value, direction: Direction) -> bool {
    if is_of_first_generation(policy) {
        return direction == Direction::Ingress;
    }
    match (policy["spec"]["policyTypes"].as_array(), direction) {
        (Some(types), Direction::Ingress) if !types.is_empty() => types.contains(&"Ingress".into()),
        (Some(types), Direction::Egress) if !types.is_empty() => types.contains(&"Egress".into()),
        (_, Direction::Ingress) => true,
        (_, Direction::Egress) => policy["spec"]["egress"].as_array().is_some_and(|rules| !rules.is_empty()),
    }
}

fn field_of_rules(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

/// *1.3*: `{"ingress": {"isolation": "DefaultDeny"}}` isolates all pods of the namespace.
fn is_annotated(objects: &[Value], namespace: &Value) -> bool {
    let namespace = of_kind(objects, "Namespace").find(|object| object["metadata"]["name"] == *namespace);
    let text = namespace.and_then(|namespace| namespace["metadata"]["annotations"][ANNOTATION].as_str());
    let said = text.and_then(|text| serde_json::from_str::<Value>(text).ok());
    said.is_some_and(|said| said["ingress"]["isolation"] == "DefaultDeny")
}

/// *v1*, `NetworkPolicyIngressRule`: "The traffic must match both ports and from"; of egress: "both ports and to".
fn rule_allows(
    objects: &[Value],
    pods: &[&Value],
    policy: &Value,
    rule: &Value,
    direction: Direction,
    packet: &Packet,
) -> bool {
    let node = &pods[0]["spec"]["nodeName"];
    let (peers, peer) = match direction {
        Direction::Ingress => (&rule["from"], packet.source),
        Direction::Egress => (&rule["to"], packet.destination),
    };
    list_allows(policy, peers, |entry| peer_matches(objects, node, policy, entry, peer))
        && list_allows(policy, &rule["ports"], |entry| {
            // A name is looked up at the destination: on ingress the selected pod, on egress the peer.
            let destination: Vec<&Value> = match direction {
                Direction::Ingress => pods.to_vec(),
                Direction::Egress => find_peer(objects, packet.destination, node).into_iter().collect(),
            };
            port_matches(policy, entry, &destination, packet)
        })
}

/// *v1*, `from`, `to` and `ports`: "Items in this list are combined using a logical OR operation. If this field is
/// empty or missing, this rule matches all [...]. If this field is present and contains at least one item, this rule
/// allows traffic only if the traffic matches at least one item in the [...] list."
///
/// *1.3*: "If this field is not provided, this rule matches all [...]. If this field is empty, this rule matches no
/// [...]".
fn list_allows(policy: &Value, list: &Value, matches: impl Fn(&Value) -> bool) -> bool {
    match list.as_array() {
        None => true,
        Some(items) if items.is_empty() => !is_of_first_generation(policy),
        Some(items) => items.iter().any(matches),
    }
}

/// *v1*, `NetworkPolicyPeer`: "describes a peer to allow traffic to/from"; `ipBlock`: "If this field is set then
/// neither of the other fields can be."
fn peer_matches(objects: &[Value], node: &Value, policy: &Value, entry: &Value, address: IpAddr) -> bool {
    if !entry["ipBlock"].is_null() {
        return block_contains(&entry["ipBlock"], address);
    }
    find_peer(objects, address, node).is_some_and(|pod| selectors_match(objects, policy, entry, pod))
}

/// *v1*, `NetworkPolicyPeer.namespaceSelector`: "if present but empty, it selects all namespaces. If podSelector is also
/// set, then the NetworkPolicyPeer as a whole selects the pods matching podSelector in the namespaces selected by
/// namespaceSelector. Otherwise it selects all pods in the namespaces selected by namespaceSelector."
///
/// `podSelector`: "if present but empty, it selects all pods. If namespaceSelector is also set, [...]. Otherwise it
/// selects the pods matching podSelector in the policy's own namespace."
fn selectors_match(objects: &[Value], policy: &Value, entry: &Value, pod: &Value) -> bool {
    let namespace = &pod["metadata"]["namespace"];
    let namespace_matches = if entry["namespaceSelector"].is_null() {
        *namespace == policy["metadata"]["namespace"]
    } else {
        let object = of_kind(objects, "Namespace").find(|object| object["metadata"]["name"] == *namespace);
        object.is_some_and(|object| selector::matches(&entry["namespaceSelector"], object))
    };
    namespace_matches && (entry["podSelector"].is_null() || selector::matches(&entry["podSelector"], pod))
}

/// *v1*, `NetworkPolicyPort.protocol`: "represents the protocol (TCP, UDP, or SCTP) which traffic must match. If not
/// specified, this field defaults to TCP."
///
/// *1.3*: the examples of its documentation write protocols in lower case.
///
/// *postern*: where several pods have the address of the selected one, a name means a number that all of them call so.
fn port_matches(policy: &Value, entry: &Value, destination: &[&Value], packet: &Packet) -> bool {
    // ICMP has no ports, and is none of these protocols.
    let Content::Port(protocol, number) = packet.content else { return false };
    let wanted = entry["protocol"].as_str().unwrap_or("TCP");
    let protocol_matches = if is_of_first_generation(policy) {
        wanted.eq_ignore_ascii_case(word(protocol))
    } else {
        wanted == word(protocol)
    };
    let destination_declares =
        |name| !destination.is_empty() && destination.iter().all(|pod| declares(pod, name, protocol, number));
    let number_matches = match entry["port"].as_str() {
        Some(name) => destination_declares(name),
        None => port_number_matches(&entry["port"], &entry["endPort"], number),
    };
    protocol_matches && number_matches
}

/// *v1*, `NetworkPolicyPort.port`: "If this field is not provided, this matches all port names and numbers. If present,
/// only traffic on the specified protocol AND port will be matched." `endPort`: "indicates that the range of ports from
/// port to endPort if set, inclusive, should be allowed by the policy."
fn port_number_matches(port: &Value, end_port: &Value, number: u16) -> bool {
    let Some(first) = port.as_u64() else { return true };
    let last = end_port.as_u64().unwrap_or(first);
    (first..=last).contains(&u64::from(number))
}

/// *postern*: an object of `extensions/v1beta1` has the meaning of Kubernetes 1.3, unless it has a field of the time when
/// that group meant what *v1* says (1.7 to 1.15).
fn is_of_first_generation(policy: &Value) -> bool {
    let spec = &policy["spec"];
    policy["apiVersion"] == "extensions/v1beta1" && spec["policyTypes"].is_null() && spec["egress"].is_null()
}
