//! What kubelet, the scheduler and the namespace controller would do, done by the test.

use std::net::IpAddr;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};

use super::ControlPlane;

/// A pod with one container that exposes no port, scheduled on a node.
///
/// # Panics
///
/// Never: the object has the form of a Pod.
pub fn pod(namespace: &str, name: &str, node: &str, labels: &[(&str, &str)]) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"namespace": namespace, "name": name, "labels": object(labels)},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "example.test/main"}]},
    }))
    .expect("the object above has the form of a Pod")
}

impl ControlPlane {
    /// Creates a Namespace with labels; the server adds `kubernetes.io/metadata.name`.
    ///
    /// # Errors
    ///
    /// If the server refuses, as for every call here.
    pub async fn create_namespace(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let metadata = ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        Api::<Namespace>::all(self.client()).create(&PostParams::default(), &namespace).await?;
        Ok(())
    }

    /// Sets labels of a Namespace and takes away those without a value; the others stay.
    ///
    /// # Errors
    ///
    /// If the Namespace does not exist.
    pub async fn label_namespace(&self, name: &str, labels: &[(&str, Option<&str>)]) -> Result<()> {
        let patch = Patch::Merge(json!({"metadata": {"labels": object(labels)}}));
        Api::<Namespace>::all(self.client()).patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Deletes a Namespace as the namespace controller does: first what is in it, then its finalizer.
    ///
    /// # Errors
    ///
    /// If the Namespace does not exist.
    pub async fn delete_namespace(&self, name: &str) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client());
        namespaces.delete(name, &DeleteParams::default()).await?;
        self.empty::<NetworkPolicy>(name).await?;
        self.empty::<Pod>(name).await?;
        let mut terminating = namespaces.get(name).await?;
        terminating.spec.get_or_insert_default().finalizers = None;
        namespaces.replace_subresource("finalize", name, &PostParams::default(), &terminating).await?;
        Ok(())
    }

    /// Deletes at once every object of a kind in a namespace.
    async fn empty<K>(&self, namespace: &str) -> Result<()>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        let objects: Api<K> = Api::namespaced(self.client(), namespace);
        for object in objects.list(&ListParams::default()).await? {
            objects.delete(&object.name_any(), &DeleteParams::default().grace_period(0)).await?;
        }
        Ok(())
    }

    /// Creates a pod as the scheduler leaves it: on a node, without an address.
    ///
    /// # Errors
    ///
    /// If the server refuses it.
    pub async fn create_pod(&self, pod: &Pod) -> Result<()> {
        self.pods(pod.namespace().as_deref().unwrap_or("default")).create(&PostParams::default(), pod).await?;
        Ok(())
    }

    /// Creates a pod and reports it as running with these addresses.
    ///
    /// # Errors
    ///
    /// If the server refuses it.
    pub async fn run_pod(&self, pod: &Pod, addresses: &[IpAddr]) -> Result<()> {
        self.create_pod(pod).await?;
        let namespace = pod.namespace().unwrap_or_else(|| "default".to_owned());
        self.set_pod_status(&namespace, &pod.name_any(), "Running", addresses).await
    }

    /// Reports a pod's phase and addresses (all of them: an empty list takes them away), as kubelet does.
    ///
    /// # Errors
    ///
    /// If the pod does not exist.
    pub async fn set_pod_status(&self, namespace: &str, name: &str, phase: &str, addresses: &[IpAddr]) -> Result<()> {
        let all: Vec<Value> = addresses.iter().map(|address| json!({"ip": address})).collect();
        self.patch_pod_status(namespace, name, json!({"phase": phase, "podIP": addresses.first(), "podIPs": all})).await
    }

    /// Reports the addresses of a pod's node; for a hostNetwork pod they are its own too.
    ///
    /// # Errors
    ///
    /// If the pod does not exist.
    pub async fn set_host_addresses(&self, namespace: &str, name: &str, addresses: &[IpAddr]) -> Result<()> {
        let all: Vec<Value> = addresses.iter().map(|address| json!({"ip": address})).collect();
        self.patch_pod_status(namespace, name, json!({"hostIP": addresses.first(), "hostIPs": all})).await
    }

    /// Ends a pod's containers with success; it keeps its addresses, as with kubelet.
    ///
    /// # Errors
    ///
    /// If the pod does not exist.
    pub async fn finish_pod(&self, namespace: &str, name: &str) -> Result<()> {
        self.patch_pod_status(namespace, name, json!({"phase": "Succeeded"})).await
    }

    async fn patch_pod_status(&self, namespace: &str, name: &str, status: Value) -> Result<()> {
        // A strategic merge would keep the addresses that are not named; the last ones reported are the only ones.
        let patch = Patch::Merge(json!({ "status": status }));
        self.pods(namespace).patch_status(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Sets labels of a pod and takes away those without a value; the others stay.
    ///
    /// # Errors
    ///
    /// If the pod does not exist.
    pub async fn label_pod(&self, namespace: &str, name: &str, labels: &[(&str, Option<&str>)]) -> Result<()> {
        let patch = Patch::Merge(json!({"metadata": {"labels": object(labels)}}));
        self.pods(namespace).patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Asks for a pod's end: it is terminating until [`ControlPlane::delete_pod`].
    ///
    /// # Errors
    ///
    /// If the pod does not exist.
    pub async fn terminate_pod(&self, namespace: &str, name: &str) -> Result<()> {
        self.pods(namespace).delete(name, &DeleteParams::default().grace_period(30)).await?;
        Ok(())
    }

    /// Deletes a pod at once.
    ///
    /// # Errors
    ///
    /// If the pod does not exist.
    pub async fn delete_pod(&self, namespace: &str, name: &str) -> Result<()> {
        self.pods(namespace).delete(name, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }

    /// Deletes a NetworkPolicy; [`ControlPlane::apply`] creates and replaces them.
    ///
    /// # Errors
    ///
    /// If the NetworkPolicy does not exist.
    pub async fn delete_policy(&self, namespace: &str, name: &str) -> Result<()> {
        let policies: Api<NetworkPolicy> = Api::namespaced(self.client(), namespace);
        policies.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client(), namespace)
    }
}

/// A JSON object of pairs; in a merge patch a value of `None` removes the key.
fn object<V: Clone + Into<Value>>(pairs: &[(&str, V)]) -> Value {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone().into())).collect::<serde_json::Map<_, _>>().into()
}
