//! What is told of each policy, as long as there are not too many: a series costs whoever gathers them, and tenants make
//! policies.

use std::collections::BTreeMap;

use compiler::api::PolicyKey;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::sync::Snapshot;

/// `namespace` and `policy`.
type PolicyLabels = [(&'static str, String); 2];

/// Metrics of policies, set on each scrape.
#[derive(Debug)]
pub(super) struct PolicyMetrics {
    /// Of how many is told at most.
    most: usize,
    pods: Family<PolicyLabels, Gauge>,
    generation: Family<PolicyLabels, Gauge>,
    untold: Gauge,
}

impl PolicyMetrics {
    pub(super) fn new(most: usize) -> PolicyMetrics {
        PolicyMetrics { most, pods: Family::default(), generation: Family::default(), untold: Gauge::default() }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Pods of the node that the policy isolates";
        registry.register("policy_pods", help, self.pods.clone());
        let help = "The metadata.generation of the policy that is enforced";
        registry.register("policy_generation", help, self.generation.clone());
        let help = "Policies of pods of the node that have no series, because there are more than --policy-metrics";
        registry.register("policies_untold", help, self.untold.clone());
    }

    /// All policies have series, or none has: which of them would be told of would be chance.
    pub(super) fn set(&self, snapshot: &Snapshot) {
        self.pods.clear();
        self.generation.clear();
        self.untold.set(0);
        let Some(enforced) = &snapshot.enforced else { return };
        let policies = &enforced.ir.policies;
        if policies.len() > self.most {
            self.untold.set(i64::try_from(policies.len()).unwrap_or(i64::MAX));
            return;
        }
        let mut pods: BTreeMap<&PolicyKey, i64> = policies.keys().map(|key| (key, 0)).collect();
        for pod in enforced.ir.pods.iter() {
            let directions = [&pod.ingress, &pod.egress].into_iter().flatten();
            let mut isolating: Vec<&PolicyKey> = directions.flat_map(|isolation| isolation.policies.iter()).collect();
            isolating.sort();
            isolating.dedup();
            for key in isolating {
                pods.entry(key).and_modify(|pods| *pods += 1);
            }
        }
        for (key, rules) in policies {
            let labels = [("namespace", key.namespace.to_string()), ("policy", key.name.to_string())];
            self.pods.get_or_create(&labels).set(pods.get(key).copied().unwrap_or_default());
            let generation = i64::try_from(rules.source.revision.generation).unwrap_or(i64::MAX);
            self.generation.get_or_create(&labels).set(generation);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use compiler::Compiler;
    use compiler::api::{NodeName, PodWire, parse_network_policy};
    use compiler::cluster::{Change, Event, PodSource};
    use compiler::diff::Generation;
    use compiler::nft::Deny;
    use prometheus_client::encoding::text;
    use serde_json::json;

    use super::*;
    use crate::sync::Enforced;

    /// A node with two pods, of which one is isolated both ways by `both`, and both for ingress by `all`.
    fn snapshot() -> Snapshot {
        let mut compiler = Compiler::new(NodeName("n1".into()), Deny::Drop);
        for (name, address) in [("web", "10.0.0.1"), ("db", "10.0.0.2")] {
            let pod = json!({"metadata": {"name": name, "namespace": "shop", "labels": {"app": name}},
                "spec": {"nodeName": "n1"}, "status": {"phase": "Running", "podIPs": [{"ip": address}]}});
            let pod = serde_json::from_value::<PodWire>(pod).unwrap().parse().value;
            compiler.apply(Event::Pods(PodSource::Cluster, Change::Applied(pod)));
        }
        for (name, generation, spec) in [
            ("both", 3, json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress", "Egress"]})),
            ("all", 1, json!({"podSelector": {}})),
        ] {
            let metadata = json!({"name": name, "namespace": "shop", "generation": generation});
            let policy = parse_network_policy(&json!({"metadata": metadata, "spec": spec}).into()).value;
            compiler.apply(Event::Policies(Change::Applied(policy)));
        }
        let (ir, table) = (compiler.ir(), Arc::new(compiler.table()));
        Snapshot {
            epoch: 1,
            objects: Vec::new(),
            pods: compiler.state().pods().clone(),
            policies: compiler.state().policies().clone(),
            namespaces: Default::default(),
            links: Default::default(),
            enforced: Some(Arc::new(Enforced { generation: Generation(1), since: Default::default(), ir, table })),
        }
    }

    fn scrape(most: usize) -> String {
        let (metrics, mut registry, mut text) = (PolicyMetrics::new(most), Registry::default(), String::new());
        metrics.register(&mut registry);
        metrics.set(&snapshot());
        text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn each_policy_is_told_of_or_none() {
        let text = scrape(2);
        for line in [
            "policy_pods{namespace=\"shop\",policy=\"both\"} 1",
            "policy_pods{namespace=\"shop\",policy=\"all\"} 2",
            "policy_generation{namespace=\"shop\",policy=\"both\"} 3",
            "policies_untold 0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
        let text = scrape(1);
        assert!(text.lines().any(|line| line == "policies_untold 2") && !text.contains("policy_pods{"), "{text}");
    }
}
