//! Pods of which whoever asks an agent tells it: as the API writes them, and no more of them than rules look at.

use compiler::api::{Pod, PodWire};
use serde_json::{Value, json};

/// The most that is told of one pod, in bytes of JSON: its labels may be long, and a question is bounded.
const LONGEST: usize = 64 * 1024;

/// What is told of a pod; `None` where it is too much.
pub fn told(pod: &Pod) -> Option<Value> {
    let labels: serde_json::Map<String, Value> =
        pod.labels.iter().map(|(key, value)| (key.to_string(), json!(&**value))).collect();
    // Names are unique in a container, and need not be in a pod.
    let containers: Vec<Value> = pod
        .ports
        .iter()
        .map(|port| json!({"ports": [{"name": &*port.name, "protocol": port.protocol, "containerPort": port.number}]}))
        .collect();
    let told = json!({
        "metadata": {"namespace": &*pod.key.namespace, "name": &*pod.key.name, "labels": labels},
        "spec": {"containers": containers},
        "status": {"podIPs": pod.ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>()},
    });
    (told.to_string().len() <= LONGEST).then_some(told)
}

/// The pod of which that was told; `None` where it is none.
pub fn heard(told: &Value) -> Option<Pod> {
    serde_json::from_value::<PodWire>(told.clone()).ok().map(|pod| pod.parse().value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rules_look_at_is_told() {
        let object = json!({
            "metadata": {"namespace": "shop", "name": "web", "labels": {"app": "web", "empty": ""}},
            "spec": {"nodeName": "n2", "containers": [
                {"ports": [{"name": "http", "containerPort": 80}, {"name": "dns", "protocol": "UDP", "containerPort": 53}]},
                {"ports": [{"name": "http", "containerPort": 8080}]},
            ]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
        });
        let pod = heard(&object).unwrap();
        let again = heard(&told(&pod).unwrap()).unwrap();
        assert_eq!((&again.key, &again.labels, &again.ips), (&pod.key, &pod.labels, &pod.ips));
        assert_eq!((again.ports.len(), &again.ports), (3, &pod.ports));
        assert!(heard(&json!("nonsense")).is_none());
    }

    #[test]
    fn too_much_is_not_told() {
        let labels: serde_json::Map<String, Value> =
            (0..3_000).map(|i| (format!("label-{i}"), json!("x".repeat(63)))).collect();
        let pod = heard(&json!({"metadata": {"namespace": "shop", "name": "web", "labels": labels}})).unwrap();
        assert!(told(&pod).is_none());
    }
}
