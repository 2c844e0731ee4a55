//! The kinds that are watched, and how their objects are decoded.

use std::borrow::Cow;
use std::fmt::Debug;

use compiler::api::{
    Namespace, NamespaceWire, NetworkPolicy, Parsed, Pod, PodKey, PodWire, PolicyKey, Str, parse_network_policy,
};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_json::Value;

/// A kind of the API, as it is watched.
pub(super) trait Kind: Sized + Send + Sync + 'static {
    /// What is decoded of an object. Decoding one never fails on a type, so that one odd object does not stop a list.
    type Wire: DeserializeOwned + Clone + Debug + Send + Sync;
    /// What the compiler knows of an object.
    type Model: Send;
    /// What names an object.
    type Key: Ord + Clone + Send;

    /// `kind`
    const KIND: &'static str;
    /// The API group; empty for the core.
    const GROUP: &'static str;
    /// As in the path of the API.
    const PLURAL: &'static str;

    /// `metadata.resourceVersion`
    fn resource_version(wire: &Self::Wire) -> Option<&str>;
    /// Makes the model.
    fn parse(wire: Self::Wire) -> Parsed<Self::Model>;
    /// The name.
    fn key(model: &Self::Model) -> Self::Key;
}

/// An object as it comes from the watch.
pub(super) struct Watched<K: Kind> {
    /// What kube needs of an object, which is `resourceVersion` and nothing else.
    meta: ObjectMeta,
    /// What the compiler needs.
    pub(super) wire: K::Wire,
}

/// `v1` Pods.
pub(super) struct Pods;

/// `v1` Namespaces. The objects are hardly more than their metadata.
pub(super) struct Namespaces;

/// `networking.k8s.io/v1` NetworkPolicies.
pub(super) struct NetworkPolicies;

// === impl Watched ===

impl<'de, K: Kind> Deserialize<'de> for Watched<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = K::Wire::deserialize(deserializer)?;
        let resource_version = K::resource_version(&wire).map(str::to_owned);
        Ok(Watched { meta: ObjectMeta { resource_version, ..ObjectMeta::default() }, wire })
    }
}

impl<K: Kind> Clone for Watched<K> {
    fn clone(&self) -> Self {
        Watched { meta: self.meta.clone(), wire: self.wire.clone() }
    }
}

impl<K: Kind> Debug for Watched<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.wire.fmt(f)
    }
}

impl<K: Kind> Resource for Watched<K> {
    type DynamicType = ();
    // Also for Namespaces: a scope is about which paths can be asked for, and all of them are asked for all objects.
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        K::KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        K::GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

// === impl Kind ===

impl Kind for Pods {
    type Wire = PodWire;
    type Model = Pod;
    type Key = PodKey;

    const KIND: &'static str = "Pod";
    const GROUP: &'static str = "";
    const PLURAL: &'static str = "pods";

    fn resource_version(wire: &PodWire) -> Option<&str> {
        wire.resource_version()
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
    const GROUP: &'static str = "";
    const PLURAL: &'static str = "namespaces";

    fn resource_version(wire: &NamespaceWire) -> Option<&str> {
        wire.resource_version()
    }

    fn parse(wire: NamespaceWire) -> Parsed<Namespace> {
        wire.parse()
    }

    fn key(namespace: &Namespace) -> Str {
        namespace.name.clone()
    }
}

impl Kind for NetworkPolicies {
    type Wire = Value;
    type Model = NetworkPolicy;
    type Key = PolicyKey;

    const KIND: &'static str = "NetworkPolicy";
    const GROUP: &'static str = "networking.k8s.io";
    const PLURAL: &'static str = "networkpolicies";

    fn resource_version(wire: &Value) -> Option<&str> {
        wire.pointer("/metadata/resourceVersion")?.as_str()
    }

    fn parse(mut wire: Value) -> Parsed<NetworkPolicy> {
        // The server's book-keeping is most of a small object.
        if let Some(Value::Object(metadata)) = wire.get_mut("metadata") {
            metadata.remove("managedFields");
        }
        parse_network_policy(&wire)
    }

    fn key(policy: &NetworkPolicy) -> PolicyKey {
        policy.key.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_any_shape_is_decoded() {
        let odd =
            r#"{"metadata":{"name":"web","namespace":"shop","resourceVersion":"7","labels":{"app":7}},"spec":[]}"#;
        let watched: Watched<Pods> = serde_json::from_str(odd).unwrap();
        assert_eq!(watched.meta().resource_version.as_deref(), Some("7"));
        let parsed = Pods::parse(watched.wire);
        assert_eq!(Pods::key(&parsed.value).to_string(), "shop/web");
        assert_eq!(parsed.findings.len(), 2, "{:?}", parsed.findings);
    }

    #[test]
    fn the_watch_of_policies_goes_on_from_their_version() {
        let policy = r#"{"metadata":{"name":"a","resourceVersion":"9"},"spec":{"podSelector":{}}}"#;
        let watched: Watched<NetworkPolicies> = serde_json::from_str(policy).unwrap();
        assert_eq!(watched.meta().resource_version.as_deref(), Some("9"));
    }
}
