//! The links of the node, by what is routed to them.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::api::LinkName;

/// A link of the node, and what the node routes there. The ports of bridges are links too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// Its name.
    pub name: LinkName,
    /// Whether it is a bridge, behind whose ports there may be many.
    pub is_bridge: bool,
    /// The destinations of its routes: of a bridge all, else those to one address. Ascending, each once.
    pub prefixes: Vec<IpNet>,
    /// The ports of a bridge that may lead to pods, by name.
    pub ports: Vec<Port>,
    /// Whether a network plugin may have made it for a pod: a virtual cable over which the node routes nothing but to single
    /// addresses.
    pub is_cable: bool,
}

/// A port of a bridge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Its name.
    pub name: LinkName,
    /// The addresses that are known to be behind it. Ascending, each once.
    pub addresses: Vec<IpAddr>,
}

/// All links, by name.
pub type Links = Arc<Vec<Link>>;

/// Whether one of these addresses is routed to a link that leads there alone.
pub(super) fn lead_to(links: &[Link], addresses: &[IpAddr]) -> bool {
    let is_led_to = |prefix: &IpNet| addresses.contains(&prefix.addr());
    links.iter().any(|link| !link.is_bridge && link.prefixes.iter().any(is_led_to))
}
