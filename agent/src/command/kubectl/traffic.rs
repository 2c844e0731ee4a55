//! The traffic of all nodes, for whoever wants to know what a change means for it.

use std::collections::BTreeSet;

use anyhow::Result;
use compiler::api::Protocol;
use serde_json::Value;

use super::each::gather;
use super::fleet::Fleet;
use crate::lookup::AgentPod;
use crate::matrix::traffic::{Seen, SeenEnd, Traffic};

/// What connections are at that have ended, though connection tracking keeps them for a while.
const OVER: [&str; 2] = ["TIME_WAIT", "CLOSE"];

/// Asks all agents for the open flows of their pods, and for what was refused in the last ten minutes. Which of them gave no
/// answer is said, and is the second of what comes back.
pub(super) fn traffic(fleet: &mut Fleet) -> Result<(Traffic, bool)> {
    let json = || ["--output=json".to_owned()];
    let flows = gather(fleet, |agent: &AgentPod| agent.command("flows", &["--admin-address"], json()))?;
    let denials = gather(fleet, |agent: &AgentPod| agent.command("denials", &["--socket"], json()))?;
    // What keeps a node from the one keeps it from the other, mostly, and is said once.
    if flows.failures().is_empty() {
        denials.tell_failures()
    } else {
        flows.tell_failures()
    }
    let is_whole = flows.failures().is_empty() && denials.failures().is_empty();
    let mut known = BTreeSet::new();
    let mut traffic = Traffic::default();
    for (node, line) in &flows.lines {
        let Ok(flow) = serde_json::from_str::<Value>(line) else { continue };
        // A flow between two nodes is told by both; and what a node sends to its pods no policy cuts.
        let ends = [&flow["client"], &flow["server"]];
        let identity = (ends.map(Value::to_string), flow["protocol"].to_string());
        let is_over = flow["state"].as_str().is_some_and(|state| OVER.contains(&state));
        if !is_over && ends[0]["node"] != **node && known.insert(identity) {
            traffic.flows.extend(seen(ends, &flow["protocol"], &flow["server"]["port"], 1));
        }
    }
    for (_, line) in &denials.lines {
        let Ok(denial) = serde_json::from_str::<Value>(line) else { continue };
        if denial["reason"] == "policy" {
            let ends = [&denial["source"], &denial["destination"]];
            let count = denial["count"].as_u64().unwrap_or(1);
            traffic.refused.extend(seen(ends, &denial["protocol"], &denial["port"], count));
        }
    }
    Ok((traffic, is_whole))
}

fn seen(ends: [&Value; 2], protocol: &Value, port: &Value, count: u64) -> Option<Seen> {
    let end = |end: &Value| {
        let pod = end["pod"].as_str().map(str::to_owned);
        Some(SeenEnd { pod, address: end["address"].as_str()?.parse().ok()? })
    };
    let [client, server] = ends.map(end);
    let transport = Protocol::ALL.into_iter().find(|known| Some(known.as_str()) == protocol.as_str());
    let port = port.as_u64().and_then(|port| u16::try_from(port).ok());
    // Of a transport's packet that shows no port nothing can be said.
    let port = match (transport, port) {
        (Some(protocol), Some(port)) => Some((protocol, port)),
        (Some(_), None) => return None,
        (None, _) => None,
    };
    Some(Seen { ends: [client?, server?], port, count })
}
