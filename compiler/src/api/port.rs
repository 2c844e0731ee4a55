//! Protocols and ports.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Str;

/// A protocol that NetworkPolicy knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// The default.
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

/// One entry of `ports` of a rule: `protocol`, `port`, `endPort`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// `protocol`, TCP where absent.
    pub protocol: Protocol,
    /// What `port` and `endPort` say together.
    pub port: PortMatch,
}

/// Which ports of a protocol are meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortMatch {
    /// No `port`: all of them.
    Any,
    /// A number, or a number and `endPort`.
    Numbers(PortRange),
    /// A name, to be looked up in the destination pod.
    Named(Str),
}

/// Ports from first to last, inclusive, in host order. `first <= last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port; the same as `first` for a single port.
    pub last: u16,
}

impl Protocol {
    /// All protocols, in the order of their names in the API's documentation.
    pub const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

    /// The number of the protocol (IANA protocol numbers).
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// The name as the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PortRange {
    /// All ports.
    pub const ALL: PortRange = PortRange { first: 0, last: u16::MAX };

    /// One port.
    pub fn single(port: u16) -> PortRange {
        PortRange { first: port, last: port }
    }

    /// Whether the port lies in the range.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for PortRange {
    /// As nft writes it: `80` or `80-90`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_have_their_numbers() {
        // IANA, "Assigned Internet Protocol Numbers".
        assert_eq!(Protocol::ALL.map(Protocol::number), [6, 17, 132]);
    }
}
