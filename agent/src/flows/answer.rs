//! What the agent answers, from what it knows and enforces.

use std::collections::BTreeSet;
use std::net::IpAddr;

use compiler::api::{Direction, PodKey, PolicyKey};
use compiler::flows::{Flow, Judge};
use compiler::policy::{Ir, Judgement, LocalPod};

use super::{Asked, Judged, MOST_ASKED, Owner, Scope, Wanted};
use crate::model::{nearest, quarantined};
use crate::probes::SideAnswer;
use crate::sync::{Enforced, Snapshot};

/// Says whose flows are meant.
///
/// # Errors
///
/// In words, if there is nothing of a name that is wanted, or nothing is enforced yet.
pub fn scope(snapshot: &Snapshot, wanted: &Wanted) -> Result<Scope, String> {
    let ir = &enforced(snapshot)?.ir;
    let pods = &snapshot.pods;
    let mut scope = Scope::default();
    scope.local.extend(pods.local().flat_map(|pod| &pod.ips).copied());
    if let Some(name) = &wanted.pod {
        let (namespace, pod) = split(name, "pod")?;
        match pods.get(&PodKey { namespace: namespace.into(), name: pod.into() }) {
            Some(pod) if pod.host_network => return Err(on_host_network(name)),
            Some(pod) if pod.ips.is_empty() => return Err(format!("pod {name} has no address")),
            Some(pod) => scope.ends.push(pod.ips.clone()),
            None => scope.unknown_pod = Some(nearest(name, pods.iter().map(|pod| pod.key.to_string()))),
        }
    }
    if let Some(namespace) = &wanted.namespace {
        let of_namespace = pods.in_namespace(namespace).filter(|pod| pod.is_policed());
        let addresses: Vec<IpAddr> = of_namespace.flat_map(|pod| &pod.ips).copied().collect();
        if addresses.is_empty() {
            let namespaces: BTreeSet<&str> = pods.iter().map(|pod| &*pod.key.namespace).collect();
            let near = nearest(namespace, namespaces.into_iter().map(str::to_owned));
            return Err(format!("the agent of this node knows no pod with an address in namespace {namespace}{near}"));
        }
        scope.ends.push(addresses);
    }
    if let Some(name) = &wanted.policy {
        scope.ends.push(selected(ir, &policy_key(name)?)?);
    }
    Ok(scope)
}

/// The addresses of the local pods that a policy speaks about.
fn selected(ir: &Ir, policy: &PolicyKey) -> Result<Vec<IpAddr>, String> {
    if !ir.policies.contains_key(policy) {
        let near = nearest(&policy.to_string(), ir.policies.keys().map(ToString::to_string));
        return Err(format!("there is no policy {policy} that selects a pod of this node{near}"));
    }
    let directions = [Direction::Egress, Direction::Ingress];
    let speaks_of = |pod: &LocalPod, address| {
        let mut isolations = directions.iter().flat_map(|direction| pod.isolations_at(address, *direction));
        isolations.any(|isolation| isolation.policies.iter().any(|key| key == policy))
    };
    let addresses = ir.pods.iter().flat_map(|pod| pod.addresses.iter().map(move |address| (pod, *address)));
    Ok(addresses.filter(|(pod, address)| speaks_of(pod, *address)).map(|(_, address)| address).collect())
}

/// Judges flows on a node that has these addresses of its own.
///
/// # Errors
///
/// In words, if they are too many, a name is none, or nothing is enforced yet.
pub fn judge(snapshot: &Snapshot, own: &BTreeSet<IpAddr>, asked: &Asked) -> Result<Vec<Judged>, String> {
    if asked.flows.len() > MOST_ASKED {
        return Err(format!("{} flows at once are too many: {MOST_ASKED} may be asked about", asked.flows.len()));
    }
    let ir = &enforced(snapshot)?.ir;
    let policy = asked.policy.as_deref().map(policy_key).transpose()?;
    let judge = Judge::new(ir);
    let judged = |(index, flow): (usize, Flow)| {
        let [egress, ingress] = judge.judge(&flow, own);
        let is_meant = |policy| [&egress, &ingress].into_iter().any(|side| concerns(side, policy));
        if policy.as_ref().is_some_and(|policy| !is_meant(policy)) || asked.refused && egress.allowed && ingress.allowed
        {
            return None;
        }
        let side = |judgement: &Judgement, direction, end| SideAnswer {
            quarantined: quarantined(ir, judgement),
            elsewhere: elsewhere(snapshot, end),
            ..SideAnswer::of(judgement, direction)
        };
        Some(Judged {
            index,
            client: owner(snapshot, own, flow.client),
            server: owner(snapshot, own, flow.server),
            egress: side(&egress, Direction::Egress, flow.client),
            ingress: side(&ingress, Direction::Ingress, flow.server),
        })
    };
    Ok(asked.flows.iter().map(|flow| Flow::from(*flow)).enumerate().filter_map(judged).collect())
}

/// Whether a policy isolates an end, or lets its flow pass.
fn concerns(side: &Judgement, policy: &PolicyKey) -> bool {
    side.isolated_by.contains(policy) || side.rule.as_ref().is_some_and(|(of, _)| of == policy)
}

fn owner(snapshot: &Snapshot, own: &BTreeSet<IpAddr>, address: IpAddr) -> Option<Owner> {
    if let Some(pod) = snapshot.pods.local_owner(address).or_else(|| snapshot.pods.owner(address)) {
        return Some(Owner::Pod(pod.key.to_string()));
    }
    own.contains(&address).then(|| Owner::Node(snapshot.pods.node().to_string()))
}

/// The node that decides about an end, where it is not this one.
fn elsewhere(snapshot: &Snapshot, end: IpAddr) -> Option<String> {
    if snapshot.pods.local_owner(end).is_some() {
        return None;
    }
    snapshot.pods.owner(end)?.node.as_ref().map(ToString::to_string)
}

fn enforced(snapshot: &Snapshot) -> Result<&Enforced, String> {
    snapshot.enforced.as_deref().ok_or_else(|| "the kernel holds no table yet".to_owned())
}

/// Why a pod is not asked about by its name.
pub(super) fn on_host_network(name: &str) -> String {
    format!("pod {name} is on its node's network: its flows cannot be told from the node's own")
}

fn policy_key(name: &str) -> Result<PolicyKey, String> {
    let (namespace, name) = split(name, "policy")?;
    Ok(PolicyKey { namespace: namespace.into(), name: name.into() })
}

/// The parts of `namespace/name`.
pub(super) fn split<'a>(text: &'a str, kind: &str) -> Result<(&'a str, &'a str), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace, name))
        }
        Some(_) | None => Err(format!("{text:?} is not the namespace/name of a {kind}")),
    }
}

#[cfg(test)]
mod tests;
