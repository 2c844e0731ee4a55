//! Namespaces.

use serde_json::Value;

use crate::api::findings::Findings;
use crate::api::wire::NamespaceWire;
use crate::api::{Namespace, Parsed};

use super::meta::{Scope, meta};

/// The annotation by which Kubernetes 1.3 isolated a namespace.
const NETWORK_POLICY_ANNOTATION: &str = "metadata.annotations[net.beta.kubernetes.io/network-policy]";

impl NamespaceWire {
    /// Reads the Namespace; what is broken in it is left out.
    pub fn parse(self) -> Parsed<Namespace> {
        self.parse_as("unnamed")
    }

    /// The same; a Namespace without a name goes by `stand_in`.
    pub(super) fn parse_as(self, stand_in: &str) -> Parsed<Namespace> {
        let (meta, mut findings) = meta("Namespace", Scope::Cluster, self.metadata, stand_in);
        let is_annotated = meta.annotations.network_policy.is_present();
        let annotation = meta.annotations.network_policy.read(&mut findings, || NETWORK_POLICY_ANNOTATION.into());
        let default_deny_ingress = match annotation {
            Some(text) => is_default_deny(&text, &mut findings),
            None => is_annotated,
        };
        let value = Namespace { name: meta.name, labels: meta.labels, default_deny_ingress };
        Parsed { value, findings: findings.into_vec() }
    }
}

/// Whether `{"ingress":{"isolation":"DefaultDeny"}}` is said. What cannot be understood isolates.
///
/// Source: the documentation of network policies of Kubernetes 1.3. `DefaultDeny` was the only isolation; without
/// one, all traffic was allowed.
fn is_default_deny(text: &str, findings: &mut Findings) -> bool {
    let isolates = |findings: &mut Findings, reason: &str| {
        let wanted = r#"such as {"ingress":{"isolation":"DefaultDeny"}}"#;
        findings.add(NETWORK_POLICY_ANNOTATION, format!("{reason}, {wanted}; the namespace is isolated for ingress"));
        true
    };
    let Ok(Value::Object(policy)) = serde_json::from_str::<Value>(text) else {
        return isolates(findings, "is not a JSON object");
    };
    let ingress = match policy.get("ingress") {
        None | Some(Value::Null) if policy.keys().all(|key| key == "ingress") => return false,
        None | Some(Value::Null) => return isolates(findings, "has fields that are not known"),
        Some(Value::Object(ingress)) => ingress,
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            return isolates(findings, "has an ingress that is not an object");
        }
    };
    match ingress.get("isolation").map(Value::as_str) {
        Some(Some("DefaultDeny")) => true,
        None if ingress.is_empty() => false,
        None | Some(Some(_) | None) => isolates(findings, "has an isolation that is not known"),
    }
}
