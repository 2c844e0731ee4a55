//! What is printed of a question between several pods: those flows together that come out alike, for the same reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use super::output::{Shown, sides};
use crate::probes::{Answer, EndpointAnswer, SideAnswer};

/// How many names stand in a line.
const SHOWN: usize = 8;

/// How many groups are printed: what nobody reads.
const MOST_GROUPS: usize = 200;

/// Flows that come out alike.
struct Group<'a> {
    flows: Vec<(&'a EndpointAnswer, &'a Shown<'a>)>,
}

/// Prints the flows of an answer, first those that are refused. `shown` holds one part for each.
pub(super) fn text(out: &mut impl Write, answer: &Answer, shown: &[Shown<'_>]) -> io::Result<()> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut by_outcome: BTreeMap<String, usize> = BTreeMap::new();
    for flow in answer.endpoints.iter().zip(shown) {
        let at = *by_outcome.entry(outcome(flow.0)?).or_insert(groups.len());
        match groups.get_mut(at) {
            Some(group) => group.flows.push(flow),
            None => groups.push(Group { flows: vec![flow] }),
        }
    }
    groups.sort_by_key(|group| group.flows[0].0.allowed);
    let mut proposed = Vec::new();
    let others = groups.split_off(MOST_GROUPS.min(groups.len()));
    for group in groups {
        let (first, shown) = group.flows[0];
        let word = if first.allowed { "allowed" } else { "refused" };
        writeln!(out, "  {} {word}: {}", group.flows.len(), group.names())?;
        let clients: BTreeSet<&str> = group.flows.iter().map(|(_, shown)| shown.ends[0]).collect();
        let servers: BTreeSet<&str> = group.flows.iter().map(|(_, shown)| shown.ends[1]).collect();
        let ends = [and_others(shown.ends[0], clients.len()), and_others(shown.ends[1], servers.len())];
        let of_group = Shown { ends: [&ends[0], &ends[1]], paths: shown.paths };
        sides(out, "    ", [&first.egress, &first.ingress], &of_group, &mut proposed)?;
    }
    if !others.is_empty() {
        let flows: usize = others.iter().map(|group| group.flows.len()).sum();
        writeln!(out, "  and {flows} flows more, for {} other reasons: --output json has all", others.len())?;
    }
    Ok(())
}

/// How a flow comes out and for what reasons, as a key that is the same for flows that are alike.
fn outcome(flow: &EndpointAnswer) -> io::Result<String> {
    // Which rule comes nearest, and what is made of it, may go by the name of the pod.
    let plain = |side: &SideAnswer| SideAnswer { nearest: None, ..side.clone() };
    let outcome = (flow.allowed, flow.port, plain(&flow.egress), plain(&flow.ingress));
    Ok(serde_json::to_string(&outcome)?)
}

fn and_others(end: &str, all: usize) -> String {
    match all - 1 {
        0 => end.to_owned(),
        others => format!("{end} and {others} more"),
    }
}

impl Group<'_> {
    /// `shop/web-0, shop/web-1 -> shop/db-0 port 5432`; without the client where the question names one.
    fn names(&self) -> String {
        let port = self.flows[0].0.port.map_or(String::new(), |port| format!(" port {port}"));
        let servers: BTreeSet<&str> = self.flows.iter().map(|(flow, _)| &*flow.endpoint).collect();
        let clients: BTreeSet<&str> = self.flows.iter().filter_map(|(flow, _)| flow.client.as_deref()).collect();
        let is_every_pair = clients.len() * servers.len() == self.flows.len();
        match (clients.is_empty(), is_every_pair) {
            (true, _) => format!("{}{port}", listed(servers.into_iter())),
            (false, true) => format!("{} -> {}{port}", listed(clients.into_iter()), listed(servers.into_iter())),
            (false, false) => {
                let pair = |flow: &EndpointAnswer| {
                    format!("{} -> {}", flow.client.as_deref().unwrap_or_default(), flow.endpoint)
                };
                let pairs: Vec<String> = self.flows.iter().map(|(flow, _)| pair(flow)).collect();
                format!("{}{port}", listed(pairs.iter().map(String::as_str)))
            }
        }
    }
}

/// The first names, and how many more there are.
fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.take(SHOWN).collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
