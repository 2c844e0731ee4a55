//! Services in a node: what kube-proxy does, as far as policies meet it. Destinations are translated before the forward
//! hook, and a pod that reaches itself through a Service comes back with the node's address.
//!
//! kube-proxy takes one endpoint of several by chance. Here the packet says by its DSCP which one, so that each is tried.

use std::net::IpAddr;

use compiler::api::{NodeName, Protocol};
use compiler::nft::{Comment, Family};
use netlink::expr::{Base, CmpOp, Data, Expr, MetaKey, NatKind, Register};
use netlink::{ChainKind, Error, RawBase, RawBatch, RawHook};

use super::open;
use crate::model::Endpoint;
use lab::Netns;

/// The name of the table, which is not the agent's.
const TABLE: &str = "services";
/// How many endpoints of a Service can be told apart: the values of a DSCP. Further ones have their turn in a later round.
pub(super) const AT_A_TIME: usize = 64;

/// The DSCP of packets to the endpoint with this place.
pub(super) fn dscp(index: usize) -> u8 {
    u8::try_from(index % AT_A_TIME).expect("a number below 64 fits 8 bits")
}

/// Sets up in a node the endpoints whose turn it is, in the place of those of another round.
pub(super) fn translate(netns: &Netns, node: &NodeName, endpoints: &[Endpoint], round: usize) -> Result<(), Error> {
    if endpoints.is_empty() {
        return Ok(());
    }
    let nat = |hook, priority| Some(RawBase { kind: ChainKind::Nat, hook, priority });
    // Added first, so that there is one to delete.
    let mut batch = RawBatch::new(TABLE)
        .add_table()
        .delete_table()
        .add_table()
        .add_chain("prerouting", nat(RawHook::Prerouting, -100))
        .add_chain("output", nat(RawHook::Output, -100))
        .add_chain("postrouting", nat(RawHook::Postrouting, 100));
    let is_here = |endpoint: &&Endpoint| endpoint.only_on.as_ref().is_none_or(|only| only == node);
    let has_turn = |endpoint: &&Endpoint| endpoint.index / AT_A_TIME == round;
    for endpoint in endpoints.iter().filter(is_here).filter(has_turn) {
        let comment = Some(Comment::new(&format!("{} {}", endpoint.service, endpoint.port)));
        batch = batch
            .add_rule("prerouting", to_endpoint(endpoint), comment.clone())
            .add_rule("output", to_endpoint(endpoint), comment)
            .add_rule("postrouting", hairpin(endpoint.address), None);
    }
    open(netns)?.commit_raw(&batch).map(|_| ())
}

/// `ip daddr <service> ip dscp <place> tcp dport <port> dnat ip to <address>:<target>`
fn to_endpoint(endpoint: &Endpoint) -> Vec<Expr> {
    let Endpoint { service, protocol, port, address, target, index, .. } = *endpoint;
    let mut exprs = address_is(service, End::Destination);
    exprs.extend(dscp_is(Family::of(service), dscp(index)));
    exprs.extend(port_is(protocol, port));
    exprs.extend([
        Expr::Immediate { dreg: Register::R1, data: octets(address) },
        Expr::Immediate { dreg: Register::R2, data: Data::of(target.to_be_bytes()) },
        Expr::Nat {
            kind: NatKind::Destination,
            family: Family::of(address),
            address: Some(Register::R1),
            port: Some(Register::R2),
        },
    ]);
    exprs
}

/// `ip saddr <pod> ip daddr <pod> masquerade`
fn hairpin(pod: IpAddr) -> Vec<Expr> {
    let mut exprs = address_is(pod, End::Source);
    exprs.extend(address_is(pod, End::Destination).into_iter().skip(FAMILY_TEST));
    exprs.push(Expr::Masquerade);
    exprs
}

/// Which address of a packet.
#[derive(Clone, Copy)]
enum End {
    Source,
    Destination,
}

/// How many expressions of [`address_is`] look at the family.
const FAMILY_TEST: usize = 2;

fn address_is(address: IpAddr, end: End) -> Vec<Expr> {
    // NFPROTO_IPV4 and NFPROTO_IPV6 of linux/netfilter.h; offsets by RFC 791 and RFC 8200.
    let (family, offset, len) = match (address, end) {
        (IpAddr::V4(_), End::Source) => (2, 12, 4),
        (IpAddr::V4(_), End::Destination) => (2, 16, 4),
        (IpAddr::V6(_), End::Source) => (10, 8, 16),
        (IpAddr::V6(_), End::Destination) => (10, 24, 16),
    };
    vec![
        Expr::Meta { key: MetaKey::NfProto, dreg: Register::R1 },
        equals(Data::of([family])),
        Expr::Payload { base: Base::Network, offset, len, dreg: Register::R1 },
        equals(octets(address)),
    ]
}

/// `ip dscp <value>` or `ip6 dscp <value>`
fn dscp_is(family: Family, value: u8) -> Vec<Expr> {
    // RFC 791: the upper six bits of the second octet. RFC 8200: four bits for the version, and then the same six.
    let (offset, mask, shifted) = match family {
        Family::V4 => (1, Data::of([0xfc]), Data::of([value << 2])),
        Family::V6 => (0, Data::of([0x0f, 0xc0]), Data::of((u16::from(value) << 6).to_be_bytes())),
    };
    let (len, zero) = match family {
        Family::V4 => (1, Data::of([0])),
        Family::V6 => (2, Data::of([0, 0])),
    };
    vec![
        Expr::Payload { base: Base::Network, offset, len, dreg: Register::R1 },
        Expr::Bitwise { sreg: Register::R1, dreg: Register::R1, mask, xor: zero },
        equals(shifted),
    ]
}

fn port_is(protocol: Protocol, port: u16) -> Vec<Expr> {
    vec![
        Expr::Meta { key: MetaKey::L4Proto, dreg: Register::R1 },
        equals(Data::of([protocol.number()])),
        Expr::Payload { base: Base::Transport, offset: 2, len: 2, dreg: Register::R1 },
        equals(Data::of(port.to_be_bytes())),
    ]
}

fn equals(data: Data) -> Expr {
    Expr::Cmp { sreg: Register::R1, op: CmpOp::Eq, data }
}

fn octets(address: IpAddr) -> Data {
    match address {
        IpAddr::V4(address) => Data::of(address.octets()),
        IpAddr::V6(address) => Data::of(address.octets()),
    }
}
