//! Whose an address is, and what its pod declares.

use std::net::IpAddr;

use serde_json::Value;

use crate::api::Protocol;

/// The pods that have an address, all on one node; none where nobody has it.
///
/// *postern*: of several pods that claim one address, one has it before the others that has it by its sandbox, and one
/// that has finished, and has not, has it last. Those of the same node that are equal in this have it together, as far as
/// their isolation goes: who of them is meant is not known, and none may open another.
pub(super) fn owners(objects: &[Value], address: IpAddr) -> Vec<&Value> {
    let claimants = of_kind(objects, "Pod").filter(|pod| has_network(objects, pod));
    let claimants: Vec<&Value> = claimants.filter(|pod| has_address(objects, pod, address)).collect();
    let Some(first) = claimants.iter().max_by_key(|pod| rank(objects, pod, address)) else { return Vec::new() };
    let right = |pod: &Value| (pod["spec"]["nodeName"].clone(), right_to(objects, pod, address));
    claimants.iter().filter(|pod| right(pod) == right(first)).copied().collect()
}

/// The pod that has an address in the eyes of a node.
///
/// *postern*: what the container runtime of a node says is known there and nowhere else; and a pod that has finished is
/// nobody's peer, though its network may still run.
pub(super) fn peer<'a>(objects: &'a [Value], address: IpAddr, node: &Value) -> Option<&'a Value> {
    let here = |pod: &Value| pod["spec"]["nodeName"] == *node;
    let has =
        |pod: &&Value| has_reported_address(pod, address) || here(pod) && has_address_by_sandbox(objects, pod, address);
    let claimants = of_kind(objects, "Pod").filter(|pod| !is_on_node_network(pod) && !has_ended(pod)).filter(has);
    claimants.max_by_key(|pod| {
        let (by_sandbox, _, stays, runs, created) = rank(objects, pod, address);
        (by_sandbox && here(pod), stays, runs, created)
    })
}

/// By what a pod has an address: its sandbox says so, or else it has not finished.
fn right_to(objects: &[Value], pod: &Value, address: IpAddr) -> (bool, bool) {
    let by_sandbox = has_address_by_sandbox(objects, pod, address);
    (by_sandbox, by_sandbox || !has_ended(pod))
}

/// Whose an address is in the eyes of others: of equals one that is not being deleted before one that is; then the
/// running, newest pod. Times of the API are of one length and one zone, so that their text sorts as they do.
fn rank(objects: &[Value], pod: &Value, address: IpAddr) -> (bool, bool, bool, bool, String) {
    let (by_sandbox, is_there) = right_to(objects, pod, address);
    let stays = pod["metadata"]["deletionTimestamp"].is_null() && !has_ended(pod);
    let created = pod["metadata"]["creationTimestamp"].as_str().unwrap_or("");
    (by_sandbox, is_there, stays, is_running(pod), created.to_string())
}

/// *postern*: pods that have ended for good are nobody, and their address is free for others, unless their container
/// runtime says that their network still runs.
pub(super) fn has_network(objects: &[Value], pod: &Value) -> bool {
    !is_on_node_network(pod) && (!has_ended(pod) || sandboxes(objects, pod).next().is_some())
}

pub(super) fn has_ended(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// *concept*, "NetworkPolicy and hostNetwork pods": what a policy does to them is left to the implementation, and the
/// common choice is that their traffic is the node's. *postern*: they are nobody.
pub(super) fn is_on_node_network(pod: &Value) -> bool {
    pod["spec"]["hostNetwork"] == true
}

/// *postern*: what the container runtime says of the networks of a pod: of its name, and not of another pod that had it.
fn sandboxes<'a>(objects: &'a [Value], pod: &'a Value) -> impl Iterator<Item = &'a Value> {
    let is_of_name = |sandbox: &&Value| {
        sandbox["metadata"]["namespace"] == pod["metadata"]["namespace"]
            && sandbox["metadata"]["name"] == pod["metadata"]["name"]
            && sandbox["node"] == pod["spec"]["nodeName"]
    };
    let is_of_pod = |sandbox: &&Value| sandbox["uid"].is_null() || sandbox["uid"] == pod["metadata"]["uid"];
    of_kind(objects, "Sandbox").filter(is_of_name).filter(is_of_pod)
}

fn has_address_by_sandbox(objects: &[Value], pod: &Value, address: IpAddr) -> bool {
    let texts = sandboxes(objects, pod).flat_map(|sandbox| sandbox["addresses"].as_array().into_iter().flatten());
    texts.into_iter().any(|text| is_address(text, address))
}

/// *postern*: the container runtime knows a pod's addresses before its status does.
fn has_address(objects: &[Value], pod: &Value, address: IpAddr) -> bool {
    has_reported_address(pod, address) || has_address_by_sandbox(objects, pod, address)
}

/// *postern*: a manifest that says nothing of the phase is of a pod that runs, unless it has a status without addresses,
/// which is that of a pod that has not begun to.
fn is_running(pod: &Value) -> bool {
    match pod["status"]["phase"].as_str() {
        Some(phase) => phase == "Running",
        None => pod["status"].is_null() || !reported_addresses(pod).is_empty(),
    }
}

/// The reference of PodStatus, `podIPs`: "podIPs holds the IP addresses allocated to the pod. If this field is
/// specified, the 0th entry must match the podIP field."
fn has_reported_address(pod: &Value, address: IpAddr) -> bool {
    reported_addresses(pod).contains(&address)
}

/// The name of the node on which a pod runs.
pub(super) fn node_name(pod: &Value) -> Option<&str> {
    pod["spec"]["nodeName"].as_str()
}

/// The addresses of the node on which a pod runs.
pub(super) fn node_addresses(objects: &[Value], pod: &Value) -> Vec<IpAddr> {
    addresses_of_node(objects, &pod["spec"]["nodeName"])
}

/// The addresses of a node, by its name.
pub(super) fn addresses_of_node(objects: &[Value], name: &Value) -> Vec<IpAddr> {
    let node = of_kind(objects, "Node").find(|node| node["metadata"]["name"] == *name);
    let addresses = node.into_iter().flat_map(|node| node["status"]["addresses"].as_array().into_iter().flatten());
    addresses.filter_map(|entry| entry["address"].as_str()?.parse().ok()).collect()
}

/// Whether a pod declares a port of this name, protocol and number.
///
/// The reference of ContainerPort, `name`: "Each named port in a pod must have a unique name. Name for the port that
/// can be referred to by services", `protocol`: "Defaults to "TCP"". The page "Sidecar Containers": init containers
/// with `restartPolicy: Always` run as long as the pod does; other init containers have ended when it serves.
pub(super) fn declares(pod: &Value, name: &str, protocol: Protocol, number: u16) -> bool {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let init_containers = pod["spec"]["initContainers"].as_array().into_iter().flatten();
    let sidecars = init_containers.filter(|container| container["restartPolicy"] == "Always");
    let ports = containers.chain(sidecars).flat_map(|c| c["ports"].as_array().into_iter().flatten());
    ports.into_iter().any(|port| {
        port["name"] == name
            && port["protocol"].as_str().unwrap_or("TCP") == word(protocol)
            && port["containerPort"] == number
    })
}

/// The API's word for a protocol.
pub(super) fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

/// The objects of one kind.
pub(super) fn of_kind<'a>(objects: &'a [Value], kind: &'static str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

/// The addresses of a pod, by its status and by its container runtime.
pub(super) fn addresses_of_pod(objects: &[Value], pod: &Value) -> Vec<IpAddr> {
    let of_sandboxes =
        sandboxes(objects, pod).flat_map(|sandbox| sandbox["addresses"].as_array().into_iter().flatten());
    let parsed = of_sandboxes.filter_map(|text| text.as_str()?.parse().ok());
    reported_addresses(pod).into_iter().chain(parsed).collect()
}

/// The addresses of a pod by its status.
pub(super) fn reported_addresses(pod: &Value) -> Vec<IpAddr> {
    let listed = pod["status"]["podIPs"].as_array().into_iter().flatten().map(|entry| &entry["ip"]);
    listed.chain([&pod["status"]["podIP"]]).filter_map(|text| text.as_str()?.parse().ok()).collect()
}

fn is_address(text: &Value, address: IpAddr) -> bool {
    text.as_str().and_then(|text| text.parse::<IpAddr>().ok()) == Some(address)
}
