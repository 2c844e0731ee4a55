//! One flow, as it is printed.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use compiler::api::escaped;
use netlink::conntrack::{Change, Count, Entry};
use serde::Serialize;

use super::protocol::ProtocolName;
use super::{Judged, Names, Owner};
use crate::kernel::as_policies_see;
use crate::probes::SideAnswer;

/// One flow: a line of JSON as it stands here, or of text by [`fmt::Display`]. What is not known is left out.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    /// `new` or `ended`, where flows are watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'static str>,
    /// The protocol's name, or its number.
    protocol: String,
    /// Who sent the first packet.
    client: End,
    /// Who answers.
    server: End,
    /// Where the client sends to, if something on the way translates that to the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_to: Option<End>,
    /// Whether the flow could begin now, as far as this node knows.
    allowed: bool,
    /// What the client's side says.
    egress: SideAnswer,
    /// What the server's side says.
    ingress: SideAnswer,
    /// What TCP or SCTP is at.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    /// Whether an answer was seen.
    replied: bool,
    /// Whether the kernel keeps the entry even when its table is full.
    assured: bool,
    /// Packets from the client and from the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    packets: Option<Counts>,
    /// Their bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<Counts>,
    /// Seconds since it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<u64>,
    /// Seconds until it ends, if there are no more packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<u32>,
    /// The zone of connection tracking, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<u16>,
}

/// An end of a flow.
#[derive(Debug, Serialize)]
struct End {
    /// `namespace/name` of a pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
    /// The name of a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// `namespace/name` of a Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    address: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

/// A number for each direction.
#[derive(Debug, Serialize)]
struct Counts {
    from_client: u64,
    from_server: u64,
}

impl Line {
    /// `now` is in nanoseconds since 1970.
    pub(super) fn new(change: Option<Change>, entry: &Entry, judged: Judged, names: &mut Names, now: u64) -> Line {
        let Entry { flow, state, is_replied, is_assured, counts, began, timeout } = *entry;
        let seen = as_policies_see(&flow);
        let Judged { index: _, client, server, egress, ingress } = judged;
        let allowed = egress.allowed && ingress.allowed;
        let sent_to = flow.original.destination;
        let is_translated =
            (sent_to, flow.original.ports.map(|(_, port)| port)) != (seen.server, seen.ports.map(|(_, server)| server));
        let counted = |of: fn(&Count) -> u64| {
            counts
                .as_ref()
                .map(|[from_client, from_server]| Counts { from_client: of(from_client), from_server: of(from_server) })
        };
        Line {
            event: change.map(|change| match change {
                Change::Begun => "new",
                Change::Ended => "ended",
            }),
            protocol: ProtocolName(flow.protocol).to_string(),
            client: End::new(seen.client, seen.ports.map(|(client, _)| client), client, names),
            server: End::new(seen.server, seen.ports.map(|(_, server)| server), server, names),
            sent_to: is_translated.then(|| End {
                pod: None,
                node: None,
                service: names.service(sent_to),
                address: sent_to,
                port: flow.original.ports.map(|(_, port)| port),
            }),
            allowed,
            egress,
            ingress,
            state,
            replied: is_replied,
            assured: is_assured,
            packets: counted(|count| count.packets),
            bytes: counted(|count| count.bytes),
            age_seconds: began.map(|began| now.saturating_sub(began) / 1_000_000_000),
            timeout_seconds: timeout,
            zone: (flow.zone != 0).then_some(flow.zone),
        }
    }
}

impl End {
    fn new(address: IpAddr, port: Option<u16>, owner: Option<Owner>, names: &mut Names) -> End {
        let (pod, node) = match owner {
            Some(Owner::Pod(pod)) => (Some(pod), None),
            Some(Owner::Node(node)) => (None, Some(node)),
            None => (None, names.node(address)),
        };
        End { pod, node, service: None, address, port }
    }
}

impl fmt::Display for End {
    /// `shop/web:4000`, `node/n1:4000`, `svc/shop/db:80`, `[2001:db8::1]:443`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let End { pod, node, service, address, port } = self;
        let (kind, name) = match (pod, node, service) {
            (Some(pod), _, _) => ("", pod),
            (None, Some(node), _) => ("node/", node),
            (None, None, Some(service)) => ("svc/", service),
            (None, None, None) => {
                return match port {
                    Some(port) => SocketAddr::new(*address, *port).fmt(f),
                    None => address.fmt(f),
                };
            }
        };
        write!(f, "{kind}{}", escaped(name))?;
        port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Display for Line {
    /// `refused TCP shop/web:4000 -> svc/shop/db:80 -> shop/db-0:8080, ESTABLISHED, ..; egress: ..; ingress: ..`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(event) = self.event {
            write!(f, "{event:<5} ")?;
        }
        let verdict = if self.allowed { "allowed" } else { "refused" };
        write!(f, "{verdict} {} {}", self.protocol, self.client)?;
        if let Some(sent_to) = &self.sent_to {
            write!(f, " -> {sent_to}")?;
        }
        write!(f, " -> {}", self.server)?;
        if let Some(state) = self.state {
            write!(f, ", {state}")?;
        }
        match (self.replied, self.assured) {
            (false, _) => f.write_str(", unreplied")?,
            (true, true) => f.write_str(", assured")?,
            (true, false) => {}
        }
        for (counts, unit) in [(&self.packets, "packets"), (&self.bytes, "bytes")] {
            if let Some(Counts { from_client, from_server }) = counts {
                write!(f, ", {from_client}+{from_server} {unit}")?;
            }
        }
        if let Some(age) = self.age_seconds {
            write!(f, ", age {}", Span(age))?;
        }
        if let Some(left) = self.timeout_seconds {
            write!(f, ", {} left", Span(left.into()))?;
        }
        if let Some(zone) = self.zone {
            write!(f, ", zone {zone}")?;
        }
        for (direction, side) in [("egress", &self.egress), ("ingress", &self.ingress)] {
            write!(f, "; {direction}: {}", escaped(&side.reason()))?;
            for quarantined in &side.quarantined {
                write!(f, " (quarantined: {})", escaped(quarantined))?;
            }
        }
        Ok(())
    }
}

/// Seconds in two units: `45s`, `3m12s`, `4d23h`.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (minutes, hours) = (self.0 / 60, self.0 / 3600);
        match self.0 {
            0..60 => write!(f, "{}s", self.0),
            60..3600 => write!(f, "{minutes}m{}s", self.0 % 60),
            3600..86_400 => write!(f, "{hours}h{}m", minutes % 60),
            86_400.. => write!(f, "{}d{}h", hours / 24, hours % 24),
        }
    }
}

#[cfg(test)]
mod tests;
