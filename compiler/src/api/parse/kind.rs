//! Kinds that are near to those that matter: misspelt, or policies that others enforce.
//!
//! Passing one over in silence would leave open what its author means to be shut.

use crate::api::findings::{Findings, quoted};
use crate::api::{Finding, Json, ObjectRef, Str};

use super::CURRENT;

/// Why an object that is passed over deserves a word.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// It surely means a kind that matters, and the API server would not know it.
    Misspelt(Finding),
    /// It is a policy of another project.
    OfOthers(Finding),
}

/// The kinds that matter.
const KINDS: [&str; 5] = ["NetworkPolicy", "Pod", "Namespace", "Service", "Node"];

const GROUP_OF_POLICIES: &str = "networking.k8s.io";

/// Who enforces the policies of an API group.
const ENFORCERS: [(&str, &str); 7] = [
    ("projectcalico.org", "Calico"),
    ("crd.projectcalico.org", "Calico"),
    ("cilium.io", "Cilium"),
    ("crd.antrea.io", "Antrea"),
    ("k8s.ovn.org", "OVN-Kubernetes"),
    ("policy.networking.k8s.io", "network plug-ins that implement the policies of cluster administrators"),
    ("crd.nsx.vmware.com", "NSX"),
];

/// What is to be said of an object of none of the kinds that matter; nothing of most.
pub(super) fn doubt(api_version: &str, kind: &str, object: &Json, stand_in: &str) -> Option<Doubt> {
    let found = |field: &str, reason: String| {
        let text = |name: &str| object.at(&["metadata", name]).and_then(Json::as_str);
        let name = Str::from(text("name").unwrap_or(stand_in));
        let mut findings =
            Findings::new(ObjectRef { kind: Str::from(kind), namespace: text("namespace").map(Str::from), name });
        findings.add(field, reason);
        findings.into_vec().swap_remove(0)
    };
    let group = api_version.split_once('/').map_or(api_version, |(group, _)| group);
    let is_policy = kind.to_lowercase().contains("networkpolic");
    if let Some((_, enforcer)) = ENFORCERS.iter().find(|(of, _)| *of == group).filter(|_| is_policy) {
        let reason = format!("a policy that {enforcer} may enforce; postern does not, and leaves open what it closes");
        return Some(Doubt::OfOthers(found("", reason)));
    }
    let meant = KINDS.into_iter().find(|ours| is_near(kind, ours));
    if let Some(meant) = meant.filter(|meant| is_ours(meant, group)) {
        let right = if meant == "NetworkPolicy" { CURRENT } else { "v1" };
        let (field, reason) = if kind == meant {
            ("apiVersion", format!("{} has no {meant}; write {right}", quoted(api_version)))
        } else {
            ("kind", format!("{} is not a kind; write {meant}, with apiVersion {right}", quoted(kind)))
        };
        return Some(Doubt::Misspelt(found(field, format!("{reason}. The object has no effect"))));
    }
    is_policy.then(|| {
        let reason = format!(
            "a policy of {}, which postern does not enforce; it leaves open what the policy closes",
            quoted(api_version)
        );
        Doubt::OfOthers(found("", reason))
    })
}

/// Whether a kind is another in other letters, in the plural, as a list, or with a slip of the keyboard.
fn is_near(kind: &str, ours: &str) -> bool {
    let kind = kind.to_lowercase();
    let ours = ours.to_lowercase();
    let kind = kind.strip_suffix("list").unwrap_or(&kind);
    let plural = ours.strip_suffix('y').map_or(format!("{ours}s"), |stem| format!("{stem}ies"));
    // A short word is a slip away from many others.
    let slips = match ours.len() {
        ..=7 => 0,
        8..=10 => 1,
        _ => 2,
    };
    kind == plural || distance(kind, &ours, slips) <= slips
}

/// Whether an object of a group can be meant to be of the kind's own group. Groups of Kubernetes without a dot, and
/// those in `k8s.io`, are nobody else's; other names with a dot are other people's.
fn is_ours(kind: &str, group: &str) -> bool {
    let is_plain = !group.contains('.');
    if kind != "NetworkPolicy" {
        return is_plain;
    }
    is_plain || group.ends_with(".k8s.io") || distance(group, GROUP_OF_POLICIES, 3) <= 3
}

/// How many letters have to be put in, left out, changed, or swapped with the next to make one text of the other; some
/// number above `most` where it is more than that.
fn distance(a: &str, b: &str, most: usize) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > most {
        return most + 1;
    }
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is said, without what the object is called.
    fn said(api_version: &str, kind: &str) -> String {
        let object = json!({"metadata": {"name": "x", "namespace": "a"}});
        match doubt(api_version, kind, &object.into(), "nameless") {
            None => "nothing".to_owned(),
            Some(Doubt::Misspelt(finding)) => format!("misspelt {}: {}", finding.field, finding.reason),
            Some(Doubt::OfOthers(finding)) => format!("others: {}", finding.reason),
        }
    }

    #[test]
    fn misspelt_kinds_are_told_the_right_one() {
        let slips = ["NetworkPolcy", "networkpolicy", "NetworkPolicies", "Networkpolicy", "NetworkPoilcy", "NetPolicy"];
        for kind in &slips[..5] {
            let expected = format!(
                "misspelt kind: \"{kind}\" is not a kind; write NetworkPolicy, with apiVersion networking.k8s.io/v1. The \
                 object has no effect"
            );
            assert_eq!(said("networking.k8s.io/v1", kind), expected);
        }
        assert_eq!(said("networking.k8s.io/v1", slips[5]), "nothing", "too far");
        for kind in ["pod", "Pods", "POD", "podlist"] {
            assert!(said("v1", kind).ends_with("write Pod, with apiVersion v1. The object has no effect"), "{kind}");
        }
        for kind in ["NameSpace", "Namespce", "namespaces"] {
            assert!(said("v1", kind).contains("write Namespace"), "{kind}");
        }
    }

    #[test]
    fn wrong_groups_are_told_the_right_one() {
        for group in
            ["v1", "apps/v1", "networking/v1", "networking.k8s.io", "network.k8s.io/v1", "networking.k8s.oi/v1"]
        {
            let expected = format!(
                "misspelt apiVersion: \"{group}\" has no NetworkPolicy; write networking.k8s.io/v1. The object has no effect"
            );
            assert_eq!(said(group, "NetworkPolicy"), expected);
        }
        assert!(said("apps/v1", "Pod").starts_with("misspelt apiVersion"));
    }

    #[test]
    fn policies_of_others_are_told_whose() {
        for (api_version, kind, whose) in [
            ("projectcalico.org/v3", "NetworkPolicy", "Calico"),
            ("crd.projectcalico.org/v1", "GlobalNetworkPolicy", "Calico"),
            ("cilium.io/v2", "CiliumNetworkPolicy", "Cilium"),
            ("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", "cluster administrators"),
            ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "cluster administrators"),
            ("example.com/v1", "NetworkPolicy", "\"example.com/v1\""),
        ] {
            let said = said(api_version, kind);
            assert!(said.starts_with("others: a policy") && said.contains(whose), "{said}");
        }
    }

    #[test]
    fn other_kinds_are_left_alone() {
        for (api_version, kind) in [
            ("v1", "ConfigMap"),
            ("batch/v1", "Job"),
            ("v1", "Secret"),
            ("serving.knative.dev/v1", "Service"),
            ("longhorn.io/v1beta2", "Node"),
            ("metrics.k8s.io/v1beta1", "PodMetrics"),
            ("policy/v1", "PodDisruptionBudget"),
            ("networking.k8s.io/v1", "Ingress"),
        ] {
            assert_eq!(said(api_version, kind), "nothing", "{kind}");
        }
    }
}
