//! Rules of a NetworkPolicy, and their peers.

use crate::api::findings::{Broken, Findings};
use crate::api::reader::{Fields, Reader};
use crate::api::{
    ApiGeneration, Direction, IpBlock, NamespaceScope, Peer, PeerList, Peers, PodSelector, Ports, Rule, Selector, Str,
};

use super::address::network;
use super::port::port;
use super::selector::selector;

/// What the rules of one policy have in common.
pub(super) struct RuleContext<'a> {
    /// Which generation of the API the policy was written for.
    pub(super) api: ApiGeneration,
    /// The namespace of the policy.
    pub(super) namespace: &'a Str,
}

/// Reads `ingress` or `egress`; a list that cannot be read has no rules.
pub(super) fn rules(
    list: &Reader<'_>,
    direction: Direction,
    context: &RuleContext<'_>,
    findings: &mut Findings,
) -> Vec<Rule> {
    let Ok(items) = list.items(findings) else {
        findings.add(list.path(), "nothing is allowed by it");
        return Vec::new();
    };
    items.iter().enumerate().map(|(index, item)| rule(item, index, direction, context, findings)).collect()
}

/// Reads one rule; one that cannot be read allows nothing.
fn rule(
    item: &Reader<'_>,
    index: usize,
    direction: Direction,
    context: &RuleContext<'_>,
    findings: &mut Findings,
) -> Rule {
    let nothing = Rule { index, peers: Peers::These(PeerList::default()), ports: Ports::These(Vec::new()) };
    let Ok(fields) = item.fields(findings) else {
        return nothing;
    };
    let peers_field = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let unknown = fields.unknown(&[peers_field, "ports"]);
    for name in &unknown {
        // Without the misspelt field the rule would say less, and so allow more.
        findings.add(
            fields.path_of(name),
            format!("is not a field of a rule ({peers_field}, ports); the rule allows nothing"),
        );
    }
    let peers = peers(&fields, peers_field, context, findings);
    let ports = ports(&fields, context.api, findings);
    if unknown.is_empty() { Rule { index, peers, ports } } else { nothing }
}

fn peers(fields: &Fields<'_>, name: &str, context: &RuleContext<'_>, findings: &mut Findings) -> Peers {
    match entries(fields, name, context.api, findings) {
        Entries::All => Peers::Any,
        Entries::These(items) => {
            Peers::These(items.iter().filter_map(|item| peer(item, context, findings).ok()).collect())
        }
    }
}

fn ports(fields: &Fields<'_>, api: ApiGeneration, findings: &mut Findings) -> Ports {
    match entries(fields, "ports", api, findings) {
        Entries::All => Ports::Any,
        Entries::These(items) => Ports::These(items.iter().filter_map(|item| port(item, api, findings).ok()).collect()),
    }
}

/// The entries of a list of which one must match.
enum Entries<'a> {
    /// Nothing is listed, so everything matches.
    All,
    /// These.
    These(Vec<Reader<'a>>),
}

/// Reads `from`, `to` or `ports`; a list that cannot be read matches nothing.
fn entries<'a>(fields: &Fields<'a>, name: &'a str, api: ApiGeneration, findings: &mut Findings) -> Entries<'a> {
    let Some(list) = fields.get(name) else {
        return Entries::All;
    };
    match list.items(findings) {
        Ok(items) if items.is_empty() => match api {
            ApiGeneration::V1 => Entries::All,
            // "If this field is not provided, this rule matches all sources. If this field is empty, this rule
            // matches no sources", and the same of ports: the API reference of extensions/v1beta1 in
            // Kubernetes 1.3. From 1.6 on that reference says of both that they match all.
            ApiGeneration::First => Entries::These(items),
        },
        Ok(items) => Entries::These(items),
        Err(Broken) => {
            findings.add(list.path(), "nothing matches it");
            Entries::These(Vec::new())
        }
    }
}

/// Reads one entry of `from` or `to`. One that the API refuses matches nothing.
fn peer(item: &Reader<'_>, context: &RuleContext<'_>, findings: &mut Findings) -> Result<Peer, Broken> {
    let fields = item.fields(findings)?;
    let mut broken = None;
    for name in fields.unknown(&["podSelector", "namespaceSelector", "ipBlock"]) {
        let reason = "is not a field of a peer (podSelector, namespaceSelector, ipBlock); the peer matches nothing";
        broken = Some(findings.broken(fields.path_of(name), reason));
    }
    let pods = fields.get("podSelector");
    let namespaces = fields.get("namespaceSelector");
    let peer = match (&pods, &namespaces, fields.get("ipBlock")) {
        (None, None, None) => {
            let reason = "needs a podSelector, a namespaceSelector or an ipBlock; the peer matches nothing";
            return Err(broken.unwrap_or_else(|| findings.broken(fields.path(), reason)));
        }
        (None, None, Some(block)) => match context.api {
            ApiGeneration::V1 => Peer::IpBlock(ip_block(&block, findings)?),
            ApiGeneration::First => {
                let reason = "was not yet in extensions/v1beta1 of Kubernetes 1.3; the peer matches nothing";
                return Err(findings.broken(block.path(), reason));
            }
        },
        (_, _, Some(block)) => {
            return Err(findings.broken(block.path(), "cannot stand beside a selector; the peer matches nothing"));
        }
        (Some(_), Some(namespaces), None) if context.api == ApiGeneration::First => {
            let reason = "cannot stand beside podSelector in extensions/v1beta1; the peer matches nothing";
            return Err(findings.broken(namespaces.path(), reason));
        }
        (pods, namespaces, None) => {
            // Both are read before either counts, so that each finding is there.
            let pods = pods.as_ref().map(|pods| whole_selector(pods, findings));
            let namespaces = namespaces.as_ref().map(|namespaces| whole_selector(namespaces, findings));
            Peer::Pods(PodSelector {
                namespaces: match namespaces {
                    Some(namespaces) => NamespaceScope::Selected(namespaces?),
                    None => NamespaceScope::Named(context.namespace.clone()),
                },
                pods: pods.transpose()?.unwrap_or_default(),
            })
        }
    };
    broken.map_or(Ok(peer), Err)
}

/// A selector of peers: with a requirement left out it would let in more than was meant.
fn whole_selector(reader: &Reader<'_>, findings: &mut Findings) -> Result<Selector, Broken> {
    let read = selector(reader, findings);
    if read.is_broken {
        return Err(findings.broken(reader.path(), "cannot be understood; the peer matches nothing"));
    }
    Ok(read.selector)
}

/// Reads `ipBlock`. A broken exception breaks the block: without it, more would match than was meant.
fn ip_block(reader: &Reader<'_>, findings: &mut Findings) -> Result<IpBlock, Broken> {
    let read = ip_block_parts(reader, findings);
    if read.is_err() {
        findings.add(reader.path(), "cannot be understood; the peer matches nothing");
    }
    read
}

fn ip_block_parts(reader: &Reader<'_>, findings: &mut Findings) -> Result<IpBlock, Broken> {
    let fields = reader.fields(findings)?;
    let mut broken = None;
    for name in fields.unknown(&["cidr", "except"]) {
        broken = Some(findings.broken(fields.path_of(name), "is not a field of an ipBlock (cidr, except)"));
    }
    let cidr = match fields.get("cidr") {
        Some(cidr) => cidr.text(findings).and_then(|text| network(text, cidr.path(), findings)),
        None => Err(findings.broken(fields.path_of("cidr"), "is missing")),
    };
    let mut except = Vec::new();
    if let Some(list) = fields.get("except") {
        for item in list.items(findings)? {
            match item.text(findings).and_then(|text| network(text, item.path(), findings)) {
                Ok(network) => except.push((item, network)),
                Err(Broken) => broken = Some(Broken),
            }
        }
    }
    let cidr = cidr?;
    for (item, network) in &except {
        // The API wants a strict part of the cidr. IpNet::contains is false between the families.
        if !cidr.contains(network) || cidr == *network {
            broken = Some(findings.broken(item.path(), format!("{network} is not within {cidr}, as a part of it")));
        }
    }
    let except = except.into_iter().map(|(_, network)| network).collect();
    broken.map_or(Ok(IpBlock { cidr, except }), Err)
}
