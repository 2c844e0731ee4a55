//! Whose an address is, and what its pod declares.

use std::net::IpAddr;

use serde_json::Value;

use crate::api::Protocol;

/// *postern*: of several pods that report one address, because it was used again, one that is not being deleted has it
/// before one that is; of these, the running, newest pod.
pub(super) fn owner(objects: &[Value], address: IpAddr) -> Option<&Value> {
    let claimants = of_kind(objects, "Pod").filter(|pod| counts(pod) && has_address(pod, address));
    // Times of the API are of one length and one zone, so that their text sorts as they do.
    let rank = |pod: &&Value| {
        let created = pod["metadata"]["creationTimestamp"].as_str().unwrap_or("");
        (pod["metadata"]["deletionTimestamp"].is_null(), is_running(pod), created.to_string())
    };
    claimants.max_by_key(rank)
}

/// *concept*, "NetworkPolicy and hostNetwork pods": what a policy does to them is left to the implementation, and the
/// common choice is that their traffic is the node's. *postern*: they are nobody, and so are pods that have ended for
/// good, whose address is free for others.
fn counts(pod: &Value) -> bool {
    let has_ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    pod["spec"]["hostNetwork"] != true && !has_ended
}

/// *postern*: a manifest that says nothing of the phase is of a pod that runs.
fn is_running(pod: &Value) -> bool {
    pod["status"]["phase"].as_str().unwrap_or("Running") == "Running"
}

/// The reference of PodStatus, `podIPs`: "podIPs holds the IP addresses allocated to the pod. If this field is
/// specified, the 0th entry must match the podIP field."
fn has_address(pod: &Value, address: IpAddr) -> bool {
    let listed = pod["status"]["podIPs"].as_array().into_iter().flatten().map(|entry| &entry["ip"]);
    listed.chain([&pod["status"]["podIP"]]).any(|text| is_address(text, address))
}

/// The name of the node on which a pod runs.
pub(super) fn node_name(pod: &Value) -> Option<&str> {
    pod["spec"]["nodeName"].as_str()
}

/// The addresses of the node on which a pod runs.
pub(super) fn node_addresses(objects: &[Value], pod: &Value) -> Vec<IpAddr> {
    let node = of_kind(objects, "Node").find(|node| node["metadata"]["name"] == pod["spec"]["nodeName"]);
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

fn is_address(text: &Value, address: IpAddr) -> bool {
    text.as_str().and_then(|text| text.parse::<IpAddr>().ok()) == Some(address)
}
