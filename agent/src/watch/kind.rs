//! The kinds that are watched, and how their objects are decoded.

use compiler::api::{
    Json, Namespace, NamespaceWire, NetworkPolicy, Parsed, Pod, PodKey, PodWire, PolicyKey, Str, changed_at,
    parse_network_policy,
};
use serde::de::DeserializeOwned;

/// A kind of the API, as it is watched.
pub(super) trait Kind: Sized + Send + Sync + 'static {
    /// What is decoded of an object. Decoding one never fails on a type, so that one odd object does not stop a list.
    type Wire: DeserializeOwned + Send;
    /// What the compiler knows of an object.
    type Model: Send;
    /// What names an object.
    type Key: Ord + Clone + Send + Sync;

    /// `kind`
    const KIND: &'static str;
    /// The path of the API to all objects, or to those of a namespace.
    fn path(namespace: Option<&str>) -> String;

    /// `metadata.resourceVersion`
    fn resource_version(wire: &Self::Wire) -> Option<&str>;
    /// When it was last changed, in seconds since 1970, see [`changed_at`].
    fn changed_at(wire: &Self::Wire) -> Option<i64>;
    /// Makes the model.
    fn parse(wire: Self::Wire) -> Parsed<Self::Model>;
    /// What names it.
    fn key(model: &Self::Model) -> Self::Key;
}

/// `v1` Pods.
pub(super) struct Pods;

/// `v1` Namespaces. The objects are hardly more than their metadata.
pub(super) struct Namespaces;

/// `networking.k8s.io/v1` NetworkPolicies.
pub(super) struct NetworkPolicies;

// === impl Kind ===

impl Kind for Pods {
    type Wire = PodWire;
    type Model = Pod;
    type Key = PodKey;

    const KIND: &'static str = "Pod";

    fn path(namespace: Option<&str>) -> String {
        path("/api/v1", namespace, "pods")
    }

    fn resource_version(wire: &PodWire) -> Option<&str> {
        wire.resource_version()
    }

    fn changed_at(wire: &PodWire) -> Option<i64> {
        wire.changed_at()
    }

    fn parse(wire: PodWire) -> Parsed<Pod> {
        wire.parse()
    }

    fn key(pod: &Pod) -> PodKey {
        pod.key.clone()
    }
}

impl Kind for Namespaces {
    type Wire = NamespaceWire;
    type Model = Namespace;
    type Key = Str;

    const KIND: &'static str = "Namespace";

    fn path(namespace: Option<&str>) -> String {
        path("/api/v1", namespace, "namespaces")
    }

    fn resource_version(wire: &NamespaceWire) -> Option<&str> {
        wire.resource_version()
    }

    fn changed_at(wire: &NamespaceWire) -> Option<i64> {
        wire.changed_at()
    }

    fn parse(wire: NamespaceWire) -> Parsed<Namespace> {
        wire.parse()
    }

    fn key(namespace: &Namespace) -> Str {
        namespace.name.clone()
    }
}

impl Kind for NetworkPolicies {
    type Wire = Json;
    type Model = NetworkPolicy;
    type Key = PolicyKey;

    const KIND: &'static str = "NetworkPolicy";

    fn path(namespace: Option<&str>) -> String {
        path("/apis/networking.k8s.io/v1", namespace, "networkpolicies")
    }

    fn resource_version(wire: &Json) -> Option<&str> {
        wire.at(&["metadata", "resourceVersion"])?.as_str()
    }

    fn changed_at(wire: &Json) -> Option<i64> {
        changed_at(wire)
    }

    fn parse(wire: Json) -> Parsed<NetworkPolicy> {
        parse_network_policy(&wire)
    }

    fn key(policy: &NetworkPolicy) -> PolicyKey {
        policy.key.clone()
    }
}

fn path(group: &str, namespace: Option<&str>, plural: &str) -> String {
    match namespace {
        Some(namespace) => format!("{group}/namespaces/{namespace}/{plural}"),
        None => format!("{group}/{plural}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_any_shape_is_decoded() {
        let odd =
            r#"{"metadata":{"name":"web","namespace":"shop","resourceVersion":"7","labels":{"app":7}},"spec":[]}"#;
        let wire: PodWire = serde_json::from_str(odd).unwrap();
        assert_eq!(Pods::resource_version(&wire), Some("7"));
        let parsed = Pods::parse(wire);
        assert_eq!(Pods::key(&parsed.value).to_string(), "shop/web");
        assert_eq!(parsed.findings.len(), 2, "{:?}", parsed.findings);
    }

    #[test]
    fn the_watch_of_policies_goes_on_from_their_version() {
        let policy = r#"{"metadata":{"name":"a","resourceVersion":"9"},"spec":{"podSelector":{}}}"#;
        assert_eq!(NetworkPolicies::resource_version(&serde_json::from_str(policy).unwrap()), Some("9"));
    }

    #[test]
    fn paths_are_those_of_the_api() {
        assert_eq!(Pods::path(Some("shop")), "/api/v1/namespaces/shop/pods");
        assert_eq!(Namespaces::path(None), "/api/v1/namespaces");
        assert_eq!(NetworkPolicies::path(None), "/apis/networking.k8s.io/v1/networkpolicies");
    }
}
