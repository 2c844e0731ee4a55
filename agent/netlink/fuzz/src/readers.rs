//! What fuzzers call with bytes of any kind: the ways on which people's objects come in.
//!
//! No bytes may make these panic, hang or take memory out of proportion. The targets of this crate and a test of the
//! agent, which replays what fuzzers found worth keeping, both contain this module.

use std::fs;

use compiler::api::{Item, Json, NamespaceWire, Object, PodWire, parse};
use compiler::nft::Deny;
use postern::files;
use postern::model::Model;
use serde_json::Value;

/// Reads bytes as a file of manifests, and compiles what is in it.
pub(crate) fn manifests(bytes: &[u8]) {
    let path = std::env::temp_dir().join(format!("postern-manifests-{}.yaml", std::process::id()));
    fs::write(&path, bytes).expect("the folder for temporary files takes a file");
    let loaded = files::load(std::slice::from_ref(&path));
    fs::remove_file(&path).expect("the file was just written");
    for text in loaded.errors.iter().map(ToString::to_string).chain(loaded.notes.iter().map(ToString::to_string)) {
        assert!(!text.is_empty());
    }
    compile(&loaded.objects);
}

/// Reads bytes as one object in JSON, of whatever kind it says it is, and compiles it.
pub(crate) fn objects(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Json>(bytes) else { return };
    let objects: Vec<Object> = parse(&value, "stand-in")
        .into_iter()
        .filter_map(|item| match item {
            Item::Object { parsed, .. } => Some(parsed.value),
            Item::Workload(workload) => Some(Object::Pod(workload.value.template)),
            Item::Skipped(_) | Item::Invalid(_) => None,
        })
        .collect();
    compile(&objects);
}

/// Reads bytes as a Pod and as a Namespace from a watch. Only what is no JSON may fail there, for one object that cannot
/// be decoded would stop the whole list.
pub(crate) fn watched(bytes: &[u8]) {
    let decode = |bytes: &[u8]| {
        let pod = serde_json::from_slice::<PodWire>(bytes).map(|pod| pod.parse());
        let namespace = serde_json::from_slice::<NamespaceWire>(bytes).map(|namespace| namespace.parse());
        pod.and(namespace)
    };
    let as_sent = decode(bytes);
    // No server sends a field twice; what is left when one of them is dropped must decode.
    if let Ok(Value::Object(object)) = serde_json::from_slice(bytes) {
        let once = decode(Value::Object(object).to_string().as_bytes());
        assert!(once.is_ok(), "{as_sent:?} {once:?}");
    }
}

fn compile(objects: &[Object]) {
    for node in Model::new(objects, Deny::Drop).nodes().values() {
        assert!(node.table.to_string().starts_with("table inet postern"));
    }
}
