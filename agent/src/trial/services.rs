//! Services in a node: what kube-proxy does, as far as policies meet it. Destinations are translated before the forward
//! hook, and a pod that reaches itself through a Service comes back with the node's address.

use std::net::IpAddr;

use compiler::api::Protocol;
use compiler::nft::{Comment, Family};
use netlink::expr::{Base, CmpOp, Data, Expr, MetaKey, NatKind, Register};
use netlink::{ChainKind, Error, RawBase, RawBatch, RawHook};

use super::open;
use crate::model::{Endpoint, Model};
use lab::Netns;

/// The name of the table, which is not the agent's.
const TABLE: &str = "services";

/// Sets up the Services of a model in a node.
pub(super) fn translate(netns: &Netns, model: &Model) -> Result<(), Error> {
    let endpoints = model.endpoints();
    if endpoints.is_empty() {
        return Ok(());
    }
    let nat = |hook, priority| Some(RawBase { kind: ChainKind::Nat, hook, priority });
    let mut batch = RawBatch::new(TABLE)
        .add_table()
        .add_chain("prerouting", nat(RawHook::Prerouting, -100))
        .add_chain("output", nat(RawHook::Output, -100))
        .add_chain("postrouting", nat(RawHook::Postrouting, 100));
    for endpoint in &endpoints {
        let comment = Some(Comment::new(&format!("{} {}", endpoint.service, endpoint.port)));
        batch = batch
            .add_rule("prerouting", to_endpoint(endpoint), comment.clone())
            .add_rule("output", to_endpoint(endpoint), comment)
            .add_rule("postrouting", hairpin(endpoint.address), None);
    }
    open(netns)?.commit_raw(&batch).map(|_| ())
}

/// `ip daddr <service> tcp dport <port> dnat ip to <address>:<target>`
fn to_endpoint(endpoint: &Endpoint) -> Vec<Expr> {
    let Endpoint { service, protocol, port, address, target } = *endpoint;
    let mut exprs = address_is(service, End::Destination);
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
