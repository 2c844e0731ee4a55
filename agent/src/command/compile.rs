//! `postern compile`: the table of one node, offline.

use std::io::{self, Write as _};

use compiler::api::NodeName;

use super::{Exit, input};
use crate::args::CompileArgs;
use crate::model::Model;

pub(super) fn run(args: CompileArgs) -> anyhow::Result<Exit> {
    let CompileArgs { files, node, deny } = args;
    let Some(loaded) = input::manifests(&files.paths, files.reading) else { return Ok(Exit::BadInput) };
    input::has_pods(&loaded, "note");
    let model = input::model(&loaded, &[], deny.into());
    let names: Vec<&str> = model.nodes().keys().map(|name| &*name.0).collect();
    let node = match (&node, &names[..]) {
        (Some(node), _) => node.as_str(),
        (None, [only]) => only,
        (None, _) => {
            eprintln!("error: the manifests name several nodes; give one with --node: {}", names.join(", "));
            return Ok(Exit::BadInput);
        }
    };
    match model.nodes().get(&NodeName(node.into())) {
        Some(compiled) => write!(io::stdout(), "{}", compiled.table)?,
        None => {
            eprintln!("note: no pod of the manifests is on node {node} (there are {})", names.join(", "));
            write!(io::stdout(), "{}", Model::table_of_empty_node(deny.into()))?;
        }
    }
    Ok(Exit::Done)
}
