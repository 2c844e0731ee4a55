//! One file of libcni's cache: what a plugin has answered, with the pod for which it was asked.

use std::collections::BTreeSet;
use std::net::IpAddr;

use compiler::api::{LinkName, PodKey, PodUid, Str};
use compiler::cluster::Sandbox;
use serde_json::Value;

/// The interface of a pod in the cluster's own network. Further networks have others, and policies do not speak of them.
const INTERFACE: &str = "eth0";
/// `libcni.CNICacheV1`
const KIND: &str = "cniCacheV1";
/// More addresses than that has no pod.
const MOST_ADDRESSES: usize = 16;

/// The network of a pod as a file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recorded {
    /// The network.
    pub(super) sandbox: Sandbox,
    /// All links that the plugins say they have made on the node.
    pub(super) links: Vec<LinkName>,
}

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// Not a regular file.
    #[error("is {0}, and no file")]
    NoFile(&'static str),
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// Larger than any result.
    #[error("is larger than {0} bytes")]
    TooLarge(u64),
    /// More files than any node has pods.
    #[error("is not read: there are more than {0} files, and this is not among the newest")]
    TooMany(usize),
    /// Nothing in it.
    #[error("is empty")]
    Empty,
    /// No JSON, or cut.
    #[error("is no JSON: {0}")]
    Json(String),
    /// Not of the cache of libcni, or of an old one that does not name the pod.
    #[error("is not of the kind {KIND}")]
    Kind,
    /// A copy, or written by somebody else.
    #[error("has not the name that belongs to what is in it, {0}")]
    Name(String),
    /// The pod is named by half.
    #[error("does not say which pod it is of: {0} is missing, or is none")]
    Pod(&'static str),
    /// A result of a version that is not known.
    #[error("is of version {0} of CNI, and 0.1 to 1.x are known")]
    Version(String),
    /// No address of a pod.
    #[error("{0} is no address of a pod")]
    Address(String),
    /// No addresses at all.
    #[error("has no addresses")]
    NoAddresses,
    /// More than a pod has.
    #[error("has more than {MOST_ADDRESSES} addresses")]
    TooManyAddresses,
    /// No name of a link.
    #[error("{0} is no name of a link")]
    Link(String),
}

/// Reads a file. `None` is nothing to us: another network of a pod, or a container that is no pod's.
pub(super) fn parse(name: &str, bytes: &[u8]) -> Result<Option<Recorded>, Fault> {
    if bytes.trim_ascii().is_empty() {
        return Err(Fault::Empty);
    }
    let file: Value = serde_json::from_slice(bytes).map_err(|error| Fault::Json(error.to_string()))?;
    if file["kind"] != KIND {
        return Err(Fault::Kind);
    }
    let text = |field: &str| file[field].as_str().unwrap_or_default();
    let due = format!("{}-{}-{}", text("networkName"), text("containerId"), text("ifName"));
    if due != name {
        return Err(Fault::Name(due));
    }
    let (namespace, pod) = (argument(&file, "K8S_POD_NAMESPACE"), argument(&file, "K8S_POD_NAME"));
    if text("ifName") != INTERFACE || namespace.is_none() && pod.is_none() {
        return Ok(None);
    }
    let given =
        |text: Option<&str>, field| text.filter(|text| !text.is_empty()).map(Str::from).ok_or(Fault::Pod(field));
    let pod = PodKey { namespace: given(namespace, "K8S_POD_NAMESPACE")?, name: given(pod, "K8S_POD_NAME")? };
    let uid = match argument(&file, "K8S_POD_UID") {
        // Runtimes of before 2021 do not say it.
        None | Some("") => None,
        Some(text) => Some(PodUid::parse(text).ok_or(Fault::Pod("K8S_POD_UID"))?),
    };
    let result = &file["result"];
    let interfaces = result["interfaces"].as_array().map(Vec::as_slice).unwrap_or_default();
    let addresses = addresses(result, interfaces)?;
    let (links, link) = links(interfaces)?;
    Ok(Some(Recorded { sandbox: Sandbox { pod, uid, addresses, link }, links }))
}

/// An argument of the call, by its name.
fn argument<'a>(file: &'a Value, name: &str) -> Option<&'a str> {
    let arguments = file["cniArgs"].as_array()?;
    arguments.iter().find(|argument| argument[0] == name)?[1].as_str()
}

/// The addresses of a result, by the shape of its version.
fn addresses(result: &Value, interfaces: &[Value]) -> Result<Vec<IpAddr>, Fault> {
    let version = match &result["cniVersion"] {
        // That field came later.
        Value::Null => if result["ips"].is_null() { "0.2.0" } else { "0.3.0" }.to_owned(),
        Value::String(version) => version.clone(),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => other.to_string(),
    };
    let texts: Vec<&Value> = match version.as_str() {
        "" | "0.1.0" | "0.2.0" => {
            let families = [&result["ip4"], &result["ip6"]];
            families.into_iter().filter(|family| !family.is_null()).map(|family| &family["ip"]).collect()
        }
        "0.3.0" | "0.3.1" | "0.4.0" => of_pod(result, interfaces),
        later if later.starts_with("1.") => of_pod(result, interfaces),
        _ => return Err(Fault::Version(version)),
    };
    if texts.len() > MOST_ADDRESSES {
        return Err(Fault::TooManyAddresses);
    }
    let addresses = texts.into_iter().map(|text| address(text).ok_or_else(|| Fault::Address(text.to_string())));
    let addresses: BTreeSet<IpAddr> = addresses.collect::<Result<_, _>>()?;
    if addresses.is_empty() { Err(Fault::NoAddresses) } else { Ok(addresses.into_iter().collect()) }
}

/// The entries of `ips` but those of links of the node.
fn of_pod<'a>(result: &'a Value, interfaces: &[Value]) -> Vec<&'a Value> {
    let is_of_node = |ip: &&Value| {
        let interface = ip["interface"].as_u64().and_then(|index| interfaces.get(usize::try_from(index).ok()?));
        interface.is_some_and(|interface| !is_inside(interface))
    };
    let ips = result["ips"].as_array().into_iter().flatten();
    ips.filter(|ip| !is_of_node(ip)).map(|ip| &ip["address"]).collect()
}

/// `10.0.0.1/24`
fn address(text: &Value) -> Option<IpAddr> {
    let (address, length) = text.as_str()?.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let is_length = length.parse::<u8>().is_ok_and(|length| length <= longest);
    let is_of_pod = match address {
        IpAddr::V4(v4) => !v4.is_broadcast() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local() && v6.to_ipv4_mapped().is_none(),
    };
    let is_unicast = !address.is_unspecified() && !address.is_loopback() && !address.is_multicast();
    (is_length && is_unicast && is_of_pod).then_some(address)
}

/// The links on the node, and the one that leads to the pod: plugins name the bridge before its port, and what they add
/// later, such as a shaper, after the pod's own end.
fn links(interfaces: &[Value]) -> Result<(Vec<LinkName>, Option<LinkName>), Fault> {
    let name = |interface: &Value| {
        let name = interface["name"].as_str().and_then(LinkName::new);
        name.ok_or_else(|| Fault::Link(interface["name"].to_string()))
    };
    let before = interfaces.iter().take_while(|interface| !is_inside(interface)).last();
    let links = interfaces.iter().filter(|interface| !is_inside(interface)).map(name);
    Ok((links.collect::<Result<_, _>>()?, before.map(name).transpose()?))
}

/// Whether an interface is in the network namespace of the pod.
fn is_inside(interface: &Value) -> bool {
    interface["sandbox"].as_str().is_some_and(|sandbox| !sandbox.is_empty())
}

#[cfg(test)]
mod tests;
