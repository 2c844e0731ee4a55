//! What the state answers after events, and that nothing but the objects decides it.

mod apply;
mod budget;
mod counts;
mod lingering;
mod membership;
mod pods;
mod sandboxes;
mod selection;
mod versions;

use super::{Change, Event, Interest, PodScope, PodSource, State};
use crate::api::{Direction, NamespaceScope, Pod, PodPeers, PodSelector};
use crate::testing::{pod_key, policy_key};

fn applied(pod: Pod) -> Event {
    Event::Pods(PodSource::Cluster, Change::Applied(pod))
}

fn pod_gone(key: &str) -> Event {
    Event::Pods(PodSource::Cluster, Change::Deleted(pod_key(key)))
}

fn policy_gone(key: &str) -> Event {
    Event::Policies(Change::Deleted(policy_key(key)))
}

fn namespace_gone(name: &str) -> Event {
    Event::Namespaces(Change::Deleted(name.into()))
}

/// Everything that the state answers, as lines: who has which address, which policies speak about which local pod,
/// what each selector and named port in use means, and which pods elsewhere are of interest.
fn answers(state: &State) -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(state.namespaces().iter().map(|namespace| format!("{namespace:?}")));
    lines.extend(state.pods().iter().map(|pod| format!("{pod:?}")));
    lines.extend(state.policies().iter().map(|policy| format!("{policy:?}")));
    lines.extend(state.pods().addresses().map(|(address, pod)| format!("{address} is {}", pod.key)));
    for pod in state.pods().local() {
        let [egress, ingress] = Direction::ALL.map(|direction| speaking(state, &pod.key.to_string(), direction));
        lines.push(format!("{} ingress {ingress} egress {egress}", pod.key));
    }
    lines.extend(state.selection().used().map(|policy| format!("{policy} is used")));
    lines.extend(members(state));
    lines.extend(endpoints(state));
    lines.push(format!("{:?}", Interest::of(state)));
    lines
}

/// The policies that speak about a pod in one direction.
fn speaking(state: &State, pod: &str, direction: Direction) -> String {
    let policies = state.selection().policies(&pod_key(pod), direction);
    policies.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// `a{app=web} (team=x){}: 10.0.0.1 10.0.0.2`, one for the pod peers of each rule in use.
fn members(state: &State) -> Vec<String> {
    let members = state.memberships().members().iter();
    let mut shown: Vec<String> = members
        .map(|(peers, members)| {
            let members: String = members.iter().map(|address| format!(" {address}")).collect();
            format!("{}:{members}", show_all(peers))
        })
        .collect();
    shown.sort_unstable();
    shown
}

/// `http/TCP of a{app=web}: 10.0.0.1:80/TCP`, one for the named ports of each rule in use.
fn endpoints(state: &State) -> Vec<String> {
    let endpoints = state.memberships().endpoints().iter();
    endpoints
        .map(|(port, endpoints)| {
            let of = match &port.pods {
                PodScope::Local => "local pods".to_owned(),
                PodScope::Peers(peers) => show_all(peers),
                PodScope::All => "all pods".to_owned(),
            };
            let names = port.names.iter().map(|(protocol, name)| format!("{name}/{protocol}")).collect::<Vec<_>>();
            let endpoint = |(address, protocol, port): &_| format!(" {address}:{port}/{protocol}");
            let endpoints: String = endpoints.iter().map(endpoint).collect();
            format!("{} of {of}:{endpoints}", names.join(","))
        })
        .collect()
}

fn show_all(peers: &PodPeers) -> String {
    peers.selectors().iter().map(show).collect::<Vec<_>>().join(" ")
}

fn show(selector: &PodSelector) -> String {
    match &selector.namespaces {
        NamespaceScope::Named(name) => format!("{name}{{{}}}", selector.pods),
        NamespaceScope::Selected(labels) => format!("({labels}){{{}}}", selector.pods),
    }
}
