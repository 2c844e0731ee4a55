//! Ports and protocols.

use crate::api::findings::{Broken, Findings, quoted};
use crate::api::lenient::Lenient;
use crate::api::reader::Reader;
use crate::api::{ApiGeneration, Port, PortMatch, PortRange, Protocol, Str};

use super::syntax::is_port_name;

/// Reads an entry of `ports` of a rule.
pub(super) fn port(reader: &Reader<'_>, api: ApiGeneration, findings: &mut Findings) -> Result<Port, Broken> {
    let fields = reader.fields(findings)?;
    let known: &[&str] = match api {
        ApiGeneration::V1 => &["protocol", "port", "endPort"],
        // Kubernetes 1.3 had no ranges.
        ApiGeneration::First => &["protocol", "port"],
    };
    let mut broken = None;
    for name in fields.unknown(known) {
        // A field that narrows the entry in a way that is not known here must not be read as if it were absent.
        broken = Some(findings.broken(fields.path_of(name), "is not a field of a port; the entry matches nothing"));
    }
    let protocol = match fields.get("protocol") {
        Some(field) => policy_protocol(&field, api, findings),
        None => Ok(Protocol::Tcp),
    };
    let port = match (fields.get("port"), fields.get("endPort")) {
        (Some(port), end_port) => port_match(&port, end_port.as_ref(), findings),
        (None, None) => Ok(PortMatch::Any),
        (None, Some(end_port)) => {
            Err(findings.broken(end_port.path(), "needs a number in port; the entry matches nothing"))
        }
    };
    let (protocol, port) = (protocol?, port?);
    broken.map_or(Ok(Port { protocol, port }), Err)
}

/// A `containerPort` and the like; `None` with a finding where there is none.
pub(super) fn number(wire: Lenient<i64>, field: impl Fn() -> String, findings: &mut Findings) -> Option<u16> {
    if wire == Lenient::Absent {
        findings.add(field(), "is missing; the entry is left out");
        return None;
    }
    let number = wire.read(findings, &field)?;
    let port = port_number(number);
    if port.is_none() {
        findings.add(field(), format!("{}; the entry is left out", not_a_port(number)));
    }
    port
}

/// The protocol of a container port or of a Service's port: TCP where absent; `None` with a finding where it is
/// not known.
pub(super) fn protocol(wire: Lenient<Str>, field: impl Fn() -> String, findings: &mut Findings) -> Option<Protocol> {
    if wire == Lenient::Absent {
        return Some(Protocol::Tcp);
    }
    let text = wire.read(findings, &field)?;
    let protocol = known_protocol(&text);
    if protocol.is_none() {
        findings.add(field(), format!("{}; the entry is left out", not_a_protocol(&text)));
    }
    protocol
}

/// What is said of a number that is no port.
pub(super) fn not_a_port(number: impl std::fmt::Display) -> String {
    format!("{number} is not a port (1 to 65535)")
}

/// What is said of a text that no port has for its name.
pub(super) fn not_a_port_name(name: &str) -> String {
    format!(
        "{} is not the name of a port (up to 15 lower-case letters, digits and single dashes, at least one letter)",
        quoted(name)
    )
}

/// The protocol of this name.
pub(super) fn known_protocol(name: &str) -> Option<Protocol> {
    Protocol::ALL.into_iter().find(|protocol| protocol.as_str() == name)
}

/// The number as a port.
pub(super) fn port_number(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|&port| port > 0)
}

fn policy_protocol(field: &Reader<'_>, api: ApiGeneration, findings: &mut Findings) -> Result<Protocol, Broken> {
    let text = field.text(findings)?;
    let is_meant = |protocol: &Protocol| match api {
        ApiGeneration::V1 => protocol.as_str() == text,
        // The examples of that time write "tcp", and its API had no SCTP.
        ApiGeneration::First => *protocol != Protocol::Sctp && protocol.as_str().eq_ignore_ascii_case(text),
    };
    Protocol::ALL.into_iter().find(is_meant).ok_or_else(|| {
        let reason = match api {
            ApiGeneration::V1 => not_a_protocol(text),
            ApiGeneration::First => format!("{} is not a protocol (TCP, UDP)", quoted(text)),
        };
        findings.broken(field.path(), format!("{reason}; the entry matches nothing"))
    })
}

fn port_match(port: &Reader<'_>, end_port: Option<&Reader<'_>>, findings: &mut Findings) -> Result<PortMatch, Broken> {
    if let Some(name) = port.value().as_str() {
        if !is_port_name(name) {
            return Err(findings.broken(port.path(), format!("{}; the entry matches nothing", not_a_port_name(name))));
        }
        return match end_port {
            None => Ok(PortMatch::Named(Str::from(name))),
            Some(end_port) => {
                Err(findings.broken(end_port.path(), "cannot stand beside a name in port; the entry matches nothing"))
            }
        };
    }
    let first = policy_port_number(port, "a number or a name", findings)?;
    let last = match end_port {
        Some(end_port) => policy_port_number(end_port, "a number", findings)?,
        None => first,
    };
    if let Some(end_port) = end_port.filter(|_| last < first) {
        return Err(
            findings.broken(end_port.path(), format!("{last} is less than port {first}; the entry matches nothing"))
        );
    }
    Ok(PortMatch::Numbers(PortRange { first, last }))
}

fn policy_port_number(field: &Reader<'_>, due: &str, findings: &mut Findings) -> Result<u16, Broken> {
    let Some(number) = field.value().as_number() else { return Err(field.wrong_type(due, findings)) };
    number
        .as_i64()
        .and_then(port_number)
        .ok_or_else(|| findings.broken(field.path(), format!("{}; the entry matches nothing", not_a_port(number))))
}

fn not_a_protocol(text: &str) -> String {
    format!("{} is not a protocol (TCP, UDP, SCTP)", quoted(text))
}
