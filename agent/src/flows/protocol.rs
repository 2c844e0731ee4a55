//! The names of protocols.

use std::fmt;
use std::str::FromStr;

/// Numbers and names (IANA protocol numbers) of what connection tracking knows by itself.
const NAMES: [(u8, &str); 8] =
    [(1, "ICMP"), (6, "TCP"), (17, "UDP"), (33, "DCCP"), (47, "GRE"), (58, "ICMPv6"), (132, "SCTP"), (136, "UDPLITE")];

/// A protocol by its number in the IP header; prints as its name if it has one here, else as its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProtocolName(pub(super) u8);

/// A protocol that is asked for: by name, where ICMP is that of both families, or by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolFilter(u8);

impl ProtocolFilter {
    /// Whether a protocol is meant.
    pub fn is(self, number: u8) -> bool {
        self.0 == number || self.0 == 1 && number == 58
    }
}

impl FromStr for ProtocolFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<ProtocolFilter, String> {
        let by_name = NAMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text)).map(|(number, _)| *number);
        let number = by_name.or_else(|| text.parse().ok());
        number
            .map(ProtocolFilter)
            .ok_or_else(|| "not a protocol (TCP, UDP, SCTP, ICMP, or a number up to 255)".to_owned())
    }
}

impl fmt::Display for ProtocolFilter {
    /// The number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_have_names_and_numbers() {
        let filter = |text: &str| text.parse::<ProtocolFilter>();
        assert!(filter("icmp").unwrap().is(58) && filter("icmp").unwrap().is(1) && !filter("58").unwrap().is(1));
        assert!(filter("tcp").unwrap().is(6) && filter("50").unwrap().is(50));
        assert!(filter("tpc").is_err() && filter("256").is_err() && filter("").is_err());
        assert_eq!([58, 50].map(|number| ProtocolName(number).to_string()), ["ICMPv6", "50"]);
    }
}
