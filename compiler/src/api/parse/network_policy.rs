//! NetworkPolicies.
//!
//! What is broken in one isolates rather more pods, and allows rather less, than was meant.

use serde::Deserialize;
use serde_json::Number;

use crate::api::findings::{Broken, Findings, quoted};
use crate::api::lenient::{Lenient, Record};
use crate::api::reader::{Fields, Reader};
use crate::api::wire::MetaWire;
use crate::api::{
    ApiGeneration, Direction, Json, NetworkPolicy, Parsed, PeerList, Peers, PolicyKey, Ports, Revision, Rule, Selector,
};

use super::meta::{Scope, meta};
use super::rule::{RuleContext, rules};
use super::selector::selector;
use super::{CURRENT, FIRST_GENERATION};

/// Reads a NetworkPolicy of either generation, as a watch delivers it: an object without `apiVersion` is of
/// `networking.k8s.io/v1`, and so is, with a finding, one of a version that no API server has served.
pub fn parse_network_policy(object: &Json) -> Parsed<NetworkPolicy> {
    parse_network_policy_as(object, "unnamed")
}

/// The same; a policy without a name goes by `stand_in`.
pub(super) fn parse_network_policy_as(object: &Json, stand_in: &str) -> Parsed<NetworkPolicy> {
    // A lenient field takes every value, and only a key that stands twice could fail it: here is none.
    let metadata = object.get("metadata").map_or(Lenient::Absent, |metadata| {
        Lenient::<Record<MetaWire>>::deserialize(metadata).unwrap_or(Lenient::Wrong("an object that cannot be read"))
    });
    let (meta, mut findings) = meta("NetworkPolicy", Scope::Namespaced, metadata, stand_in);
    let api = generation(object, &mut findings);
    let generation = object.at(&["metadata", "generation"]).and_then(Json::as_number).and_then(Number::as_u64);
    let revision = Revision { uid: meta.uid, generation: generation.unwrap_or_default() };
    let key = PolicyKey { namespace: meta.namespace, name: meta.name };
    let spec = Reader::root(object).fields(&mut findings).and_then(|fields| {
        let unknown = fields.unknown(&["apiVersion", "kind", "metadata", "spec", "status"]);
        for name in &unknown {
            findings.add(*name, "is not a field of a NetworkPolicy; it has no effect");
        }
        match fields.get("spec") {
            Some(spec) => spec.fields(&mut findings),
            // To the API an absent spec is one without fields.
            None if unknown.is_empty() => Ok(Fields::none("spec")),
            // One of the unknown fields may be the spec, misspelt.
            None => Err(findings.broken("spec", "is missing beside a field that is not known")),
        }
    });
    let value = match spec {
        Ok(fields) => NetworkPolicy { revision, ..policy(&fields, api, key, &mut findings) },
        Err(Broken) => {
            findings.add("spec", isolates_all(api));
            NetworkPolicy { revision, ..all_isolated(api, key) }
        }
    };
    Parsed { value, findings: findings.into_vec() }
}

/// The generation of the API that a policy was written for.
///
/// From Kubernetes 1.7 on, until 1.16 served it no more, `extensions/v1beta1` meant what `networking.k8s.io/v1` means. A
/// policy with a field of that time is of that time, so that what it isolates is isolated.
fn generation(object: &Json, findings: &mut Findings) -> ApiGeneration {
    match object.get("apiVersion").and_then(Json::as_str) {
        Some(FIRST_GENERATION) => {
            let has = |name: &&str| object.at(&["spec", name]).is_some_and(|value| !value.is_null());
            let Some(later) = ["policyTypes", "egress"].into_iter().find(has) else { return ApiGeneration::First };
            let reason = format!("was not yet in {FIRST_GENERATION} of Kubernetes 1.3; read as {CURRENT}");
            findings.add(format!("spec.{later}"), reason);
            ApiGeneration::V1
        }
        Some(CURRENT) | None => ApiGeneration::V1,
        Some(other) => {
            findings.add("apiVersion", format!("{} has no NetworkPolicy; read as {CURRENT}", quoted(other)));
            ApiGeneration::V1
        }
    }
}

fn policy(spec: &Fields<'_>, api: ApiGeneration, key: PolicyKey, findings: &mut Findings) -> NetworkPolicy {
    let context = RuleContext { api, namespace: &key.namespace };
    let unknown = spec.unknown(&["podSelector", "policyTypes", "ingress", "egress"]);
    for name in &unknown {
        findings.add(spec.path_of(name), "is not a field of a NetworkPolicy's spec; it has no effect");
    }
    let (pod_selector, is_broken) = match spec.get("podSelector") {
        Some(field) => {
            let read = selector(&field, findings);
            if read.is_broken {
                findings.add(
                    field.path(),
                    "cannot be understood; the policy allows nothing to the pods that the rest of it selects",
                );
            }
            (read.selector, read.is_broken)
        }
        None if unknown.is_empty() => (Selector::default(), false),
        // One of the unknown fields may be the selector, misspelt.
        None => {
            findings.add(
                spec.path_of("podSelector"),
                "is missing beside a field that is not known; the policy selects all pods of its namespace and allows nothing",
            );
            (Selector::default(), true)
        }
    };
    let directions = match api {
        ApiGeneration::V1 => policy_types(spec, findings),
        ApiGeneration::First => Directions { ingress: Meaning::Meant, egress: Meaning::Unsaid },
    };
    let mut read = |direction: Direction, meaning: Meaning| {
        // Rules that have no effect are read too, so that what is broken in them is told.
        let list = spec.get(direction.as_str());
        let mut rules: Vec<Rule> = list.map(|list| rules(&list, direction, &context, findings)).unwrap_or_default();
        if is_broken || meaning == Meaning::Doubtful {
            for rule in &mut rules {
                (rule.peers, rule.ports) = (Peers::These(PeerList::default()), Ports::These(Vec::new()));
            }
        }
        (meaning != Meaning::Unsaid).then_some(rules)
    };
    let ingress = read(Direction::Ingress, directions.ingress);
    let egress = read(Direction::Egress, directions.egress);
    NetworkPolicy { key, revision: Revision::default(), api, pod_selector, ingress, egress }
}

/// The directions that a policy is about.
struct Directions {
    ingress: Meaning,
    egress: Meaning,
}

/// Whether a policy is about a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// It is not.
    Unsaid,
    /// It may have been meant to be: it isolates, and allows nothing. Rules that were not meant to have an effect would
    /// open what other policies close.
    Doubtful,
    /// It is.
    Meant,
}

/// Reads `policyTypes` with its default: Ingress, and Egress if there are egress rules.
fn policy_types(spec: &Fields<'_>, findings: &mut Findings) -> Directions {
    // What is no list may have been meant as one with entries.
    let has_egress =
        spec.get("egress").is_some_and(|egress| egress.value().as_list().is_none_or(|list| !list.is_empty()));
    let by_default =
        Directions { ingress: Meaning::Meant, egress: if has_egress { Meaning::Meant } else { Meaning::Unsaid } };
    let Some(field) = spec.get("policyTypes") else {
        return by_default;
    };
    let Ok(items) = field.items(findings) else {
        findings.add(field.path(), IN_DOUBT);
        return Directions { ingress: Meaning::Doubtful, egress: Meaning::Doubtful };
    };
    if items.is_empty() {
        return by_default;
    }
    if items.len() > 2 {
        findings.add(field.path(), format!("{} entries, and there are two types (Ingress, Egress)", items.len()));
    }
    let (mut ingress, mut egress, mut is_broken) = (false, false, false);
    for item in items {
        match item.text(findings) {
            Ok("Ingress") => ingress = true,
            Ok("Egress") => egress = true,
            Ok(other) => {
                let reason = format!("{} is not a policy type (Ingress, Egress); {IN_DOUBT}", quoted(other));
                findings.add(item.path(), reason);
                is_broken = true;
            }
            Err(Broken) => {
                findings.add(item.path(), IN_DOUBT);
                is_broken = true;
            }
        }
    }
    let meaning = |is_listed| match (is_listed, is_broken) {
        (true, _) => Meaning::Meant,
        (false, true) => Meaning::Doubtful,
        (false, false) => Meaning::Unsaid,
    };
    Directions { ingress: meaning(ingress), egress: meaning(egress) }
}

/// What is done about a `policyTypes` of which not all is understood.
const IN_DOUBT: &str = "the policy isolates in both directions, and allows nothing in one that is not listed";

/// What a policy still does of which nothing is known but its namespace.
fn all_isolated(api: ApiGeneration, key: PolicyKey) -> NetworkPolicy {
    NetworkPolicy {
        key,
        revision: Revision::default(),
        api,
        pod_selector: Selector::default(),
        ingress: Some(Vec::new()),
        egress: match api {
            ApiGeneration::V1 => Some(Vec::new()),
            ApiGeneration::First => None,
        },
    }
}

fn isolates_all(api: ApiGeneration) -> &'static str {
    match api {
        ApiGeneration::V1 => "all pods of the namespace are isolated in both directions, and nothing is allowed",
        ApiGeneration::First => "nothing is allowed",
    }
}
