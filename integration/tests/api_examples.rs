//! The examples of `networking.k8s.io/v1` through a real API server: what their probes expect comes true there as well.
//!
//! Those of the first generation are of an API that no server offers any more; they are tried from files alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::fs;
use std::net::IpAddr;

use anyhow::{Context, Result};
use compiler::api::Object;
use compiler::nft::Deny;
use integration::examples::{self, Example};
use integration::node::Node;
use lab::isolated;
use postern::files;
use postern::model::{End, Model};

/// Namespaces that a server always has.
const LASTING: [&str; 2] = ["default", "kube-system"];

/// The manifests of an example for a cluster with one node, where no Service is translated.
fn manifests(example: &Example) -> Result<String> {
    let mut files: Vec<_> = fs::read_dir(&example.folder)?.map(|file| Ok(file?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    // Namespaces stand in the first.
    files.sort_by_key(|file| !file.ends_with("cluster.yaml"));
    let mut documents = Vec::new();
    for file in files {
        let text = fs::read_to_string(file)?.replace("nodeName: node-2", "nodeName: node-1");
        documents.extend(text.split("\n---\n").filter(|text| !text.contains("kind: Service\n")).map(str::to_owned));
    }
    Ok(documents.join("\n---\n"))
}

/// The probes as lines of expectations between addresses.
fn lines(example: &Example, model: &Model) -> Result<Vec<(IpAddr, IpAddr, String)>> {
    let mut lines = Vec::new();
    for probe in &example.probes {
        let (source, destination) = model.pair(&probe.src, &probe.dst)?;
        if matches!(model.end(destination), End::Service(_)) {
            continue;
        }
        let port = probe.port.map_or_else(|| "ICMP".to_owned(), |port| format!("{port}/{}", probe.protocol));
        let expected = if probe.allowed == Some(true) { "allowed" } else { "refused" };
        lines.push((source, destination, format!("{source} -> {destination} {port}: {expected}")));
    }
    Ok(lines)
}

/// Creates the objects of an example, waits until its probes come out as expected, and takes everything away again.
async fn run(node: &mut Node, example: &Example) -> Result<()> {
    let objects = files::load(std::slice::from_ref(&example.folder)).objects;
    let model = Model::new(&objects, Deny::Drop);
    let pods: Vec<_> = model.pods().map(|pod| (pod.key.to_string(), pod.clone())).collect();
    node.api.apply(&manifests(example)?).await?;
    for (name, pod) in &pods {
        node.attach(name, &pod.ips).await?;
        node.report(name).await?;
    }
    let lines = lines(example, &model)?;
    for address in lines.iter().flat_map(|(source, destination, _)| [*source, *destination]) {
        if node.lab.endpoint(address).is_none() {
            node.lab.add_outside(address).await?;
        }
    }
    node.until(&lines.iter().map(|(_, _, line)| line.as_str()).collect::<Vec<_>>()).await?;

    for object in &objects {
        if let Object::NetworkPolicy(policy) = object {
            node.api.delete_policy(&policy.key.namespace, &policy.key.name).await?;
        }
    }
    for (name, pod) in &pods {
        node.api.delete_pod(&pod.key.namespace, &pod.key.name).await?;
        node.detach(name).await?;
    }
    for object in &objects {
        if let Object::Namespace(namespace) = object
            && !LASTING.contains(&&*namespace.name)
        {
            node.api.delete_namespace(&namespace.name).await?;
        }
    }
    Ok(())
}

#[test]
fn the_examples_come_true_through_the_api() {
    isolated(async {
        let test = async |mut node: Node| {
            let mut served = examples::all().unwrap();
            served.retain(|example| {
                !fs::read_to_string(example.folder.join("cluster.yaml")).unwrap().contains("net.beta.kubernetes.io")
            });
            served.retain(|example| !manifests(example).unwrap().contains("extensions/v1beta1"));
            assert!(served.len() >= 20, "{}", served.len());
            for example in served {
                let result = run(&mut node, &example).await.with_context(|| example.name.clone());
                result.unwrap_or_else(|error| panic!("{error:?}\n{}", node.agent.log().unwrap()));
            }
        };
        Node::run(test).await.unwrap();
    });
}
