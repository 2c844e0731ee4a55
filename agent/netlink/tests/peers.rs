//! What we write, byte for byte beside what libnftnl writes of the same objects.

#![allow(clippy::unwrap_used, reason = "what fails in a test is to stop it there")]

use std::ffi::CStr;
use std::net::Ipv4Addr;
use std::sync::Arc;

use compiler::api::{PortRange, Protocol};
use compiler::diff::{Generation, Op, Transaction};
use compiler::nft::{
    BaseChain, Chain, ChainName, ChainPolicy, Comment, CtState, Family, Field, Hook, Key, KeyType, Match, Rule, Set,
    SetName, Stmt, TableFamily, Verdict,
};
use netlink::Encoder;
use nftnl::expr::{Bitwise, IcmpCode, RejectionType};
use nftnl::{FinalizedBatch, MsgType, ProtoFamily, nft_expr};

/// An attribute: its type, and a value or more attributes. libnftnl leaves whatever was in memory in the padding, so
/// bytes are compared without it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Attr {
    Value(u16, Vec<u8>),
    Nest(u16, Vec<Attr>),
}

/// A message: its type, and what follows the header of nfnetlink.
type Body = (u16, Vec<Attr>);

/// The length of `struct nlmsghdr` and `struct nfgenmsg`.
const HEADER: usize = 20;
const NESTED: u16 = 0x8000;

fn attributes(mut bytes: &[u8]) -> Vec<Attr> {
    let mut found = Vec::new();
    while let [l0, l1, k0, k1, ..] = bytes {
        let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let kind = u16::from_ne_bytes([*k0, *k1]);
        let value = &bytes[4..length];
        found.push(match kind & NESTED {
            0 => Attr::Value(kind, value.to_vec()),
            _ => Attr::Nest(kind & !NESTED, attributes(value)),
        });
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    found
}

fn bodies(mut bytes: &[u8]) -> Vec<Body> {
    let mut found = Vec::new();
    while let Some((length, _)) = bytes.split_first_chunk::<4>() {
        let length = u32::from_ne_bytes(*length) as usize;
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        found.push((kind, attributes(&bytes[HEADER..length])));
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    // The begin and the end of the batch.
    found[1..found.len() - 1].to_vec()
}

fn ours(ops: Vec<Op>) -> Vec<Body> {
    bodies(Encoder::default().encode(&Transaction::new(ops, None), Generation(1)))
}

fn theirs(batch: &FinalizedBatch) -> Vec<Body> {
    // libnftnl hands out a batch in pages, of which the tests fill one.
    let pages: Vec<&[u8]> = batch.into_iter().collect();
    let [page] = pages[..] else { panic!("{} pages", pages.len()) };
    bodies(page)
}

/// Takes an attribute out of the data of every expression of this name, and tells how often.
fn take_out_of_expressions(bodies: &mut [Body], name: &str, kind: u16) -> usize {
    let mut taken = 0;
    for (_, body) in bodies {
        let Some(Attr::Nest(_, list)) = body.iter_mut().find(|attr| matches!(attr, Attr::Nest(4, _))) else { continue };
        for element in list {
            let Attr::Nest(_, parts) = element else { continue };
            let [Attr::Value(1, found), Attr::Nest(2, data)] = &mut parts[..] else { continue };
            if found.strip_suffix(&[0]) == Some(name.as_bytes()) {
                let before = data.len();
                data.retain(|attr| !matches!(attr, Attr::Value(found, _) if *found == kind));
                taken += before - data.len();
            }
        }
    }
    taken
}

fn table() -> nftnl::Table {
    nftnl::Table::new(c"postern", ProtoFamily::Inet)
}

/// A rule of ours and one of libnftnl's, in the same chain.
#[track_caller]
fn same_rule(stmts: Vec<Stmt>, comment: Option<&'static CStr>, build: impl FnOnce(&mut nftnl::Rule<'_>)) {
    let table = table();
    let chain = nftnl::Chain::new(c"main", &table);
    let mut rule = nftnl::Rule::new(&chain);
    build(&mut rule);
    if let Some(comment) = comment {
        rule.set_comment(comment).unwrap();
    }
    let mut batch = nftnl::Batch::new();
    batch.add(&rule, MsgType::Add);
    let comment = comment.map(|comment| Comment::new(comment.to_str().unwrap()));
    let rules = vec![Rule { stmts, comment }];
    let chain = Chain { base: None, comment: None, rules };
    let mut ours = ours(vec![Op::AddRules(ChainName::from_kernel("main"), Arc::new(chain))]);
    // The crate leaves to the kernel what nft says: counters start at zero, and the operation of bitwise is the first.
    for (name, kinds) in [("counter", &[1, 2][..]), ("bitwise", &[6])] {
        for kind in kinds {
            take_out_of_expressions(&mut ours, name, *kind);
        }
    }
    assert_eq!(ours, theirs(&batch.finalize()));
}

#[test]
fn tables() {
    let mut batch = nftnl::Batch::new();
    batch.add(&table(), MsgType::Add);
    assert_eq!(ours(vec![Op::AddTable(TableFamily::Inet)]), theirs(&batch.finalize()));
}

#[test]
fn chains() {
    let table = table();
    let regular = nftnl::Chain::new(c"regular", &table);
    let mut base = nftnl::Chain::new(c"base", &table);
    base.set_hook(nftnl::Hook::Forward, -5);
    base.set_policy(nftnl::Policy::Drop);
    base.set_type(nftnl::ChainType::Filter);
    let mut batch = nftnl::Batch::new();
    batch.add(&regular, MsgType::Add);
    batch.add(&base, MsgType::Add);
    batch.add(&regular, MsgType::Del);
    let hook = BaseChain { hook: Hook::Forward, priority: -5, policy: ChainPolicy::Drop };
    let ours = ours(vec![
        Op::AddChain(ChainName::from_kernel("regular"), Arc::new(Chain::default())),
        Op::AddChain(ChainName::from_kernel("base"), Arc::new(Chain { base: Some(hook), ..Chain::default() })),
        Op::DeleteChain(ChainName::from_kernel("regular")),
    ]);
    assert_eq!(ours, theirs(&batch.finalize()));
}

#[test]
fn elements() {
    let table = table();
    let mut set = nftnl::set::Set::<Ipv4Addr>::new_named(c"pods", 1, &table, ProtoFamily::Inet);
    let addresses = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
    addresses.iter().for_each(|address| set.add(address));
    let mut batch = nftnl::Batch::new();
    batch.add_iter(set.elems_iter(), MsgType::Add);
    let mut theirs = theirs(&batch.finalize());
    // libnftnl numbers the set of a list besides naming it (NFTA_SET_ELEM_LIST_SET_ID), and numbers the elements of a
    // list, each of which is NFTA_LIST_ELEM (1) in the kernel's eyes.
    let (_, list) = &mut theirs[0];
    list.retain(|attr| !matches!(attr, Attr::Value(4, _)));
    let Some(Attr::Nest(3, elements)) = list.last_mut() else { panic!("{list:?}") };
    for element in elements {
        let Attr::Nest(kind, _) = element else { panic!("{element:?}") };
        *kind = 1;
    }
    let keys = addresses.map(Key::V4).to_vec();
    assert_eq!(ours(vec![Op::AddKeys(SetName::from_kernel("pods"), keys)]), theirs);
}

#[test]
fn set_headers() {
    let table = table();
    let set = nftnl::set::Set::<Ipv4Addr>::new_named(c"pods", 1, &table, ProtoFamily::Inet);
    let mut batch = nftnl::Batch::new();
    batch.add(&set, MsgType::Add);
    let mut ours = ours(vec![Op::AddSet(
        SetName::from_kernel("pods"),
        Arc::new(Set { key_type: KeyType::Address(Family::V4), comment: None, keys: Arc::default(), filled: None }),
    )]);
    // We always write the flags (NFTA_SET_FLAGS), libnftnl only if there are some.
    let flags = ours[0].1.remove(2);
    assert_eq!(flags, Attr::Value(3, vec![0; 4]));
    assert_eq!(ours, theirs(&batch.finalize()));
}

#[test]
fn ports_and_verdicts() {
    let port = Stmt::Match(Match::Port(Protocol::Tcp, PortRange::single(8080)));
    let goto = Stmt::Verdict(Verdict::Goto(ChainName::from_kernel("leaf")));
    same_rule(vec![port, Stmt::Counter, goto], Some(c"ingress[0]"), |rule| {
        rule.add_expr(&nft_expr!(meta l4proto));
        rule.add_expr(&nft_expr!(cmp == 6u8));
        rule.add_expr(&nft_expr!(payload tcp dport));
        rule.add_expr(&nft_expr!(cmp == 8080u16.to_be()));
        rule.add_expr(&nft_expr!(counter));
        rule.add_expr(&nftnl::expr::Verdict::Goto { chain: c"leaf".to_owned() });
    });
    for (ours, theirs) in [
        (Verdict::Accept, nftnl::expr::Verdict::Accept),
        (Verdict::Drop, nftnl::expr::Verdict::Drop),
        (Verdict::Return, nftnl::expr::Verdict::Return),
        (Verdict::Jump(ChainName::from_kernel("x")), nftnl::expr::Verdict::Jump { chain: c"x".to_owned() }),
    ] {
        same_rule(vec![Stmt::Verdict(ours)], None, |rule| rule.add_expr(&theirs));
    }
}

#[test]
fn states() {
    let states = Stmt::Match(Match::CtState(vec![CtState::Established, CtState::Related]));
    same_rule(vec![states, Stmt::Verdict(Verdict::Accept)], None, |rule| {
        rule.add_expr(&nft_expr!(ct state));
        rule.add_expr(&Bitwise::new(6u32, 0u32));
        rule.add_expr(&nft_expr!(cmp != 0u32));
        rule.add_expr(&nft_expr!(verdict accept));
    });
}

#[test]
fn addresses() {
    let table = table();
    let set = nftnl::set::Set::<Ipv4Addr>::new_named(c"pods", 1, &table, ProtoFamily::Inet);
    let chain = nftnl::Chain::new(c"main", &table);
    let mut rule = nftnl::Rule::new(&chain);
    rule.add_expr(&nft_expr!(meta nfproto));
    rule.add_expr(&nft_expr!(cmp == 2u8));
    rule.add_expr(&nft_expr!(payload ipv4 saddr));
    rule.add_expr(&nft_expr!(lookup & set));
    let mut batch = nftnl::Batch::new();
    batch.add(&rule, MsgType::Add);
    let mut theirs = theirs(&batch.finalize());
    // libnftnl numbers the set (NFTA_LOOKUP_SET_ID) besides naming it.
    assert_eq!(take_out_of_expressions(&mut theirs, "lookup", 4), 1);
    let lookup = vec![Stmt::Match(Match::In(Field::Source(Family::V4), SetName::from_kernel("pods")))];
    let chain = Chain { base: None, comment: None, rules: vec![Rule { stmts: lookup, comment: None }] };
    let ours = ours(vec![Op::AddRules(ChainName::from_kernel("main"), Arc::new(chain))]);
    assert_eq!(ours, theirs);
}

#[test]
fn rejects() {
    let admin_prohibited = Stmt::Reject(compiler::nft::Reject::AdminProhibited);
    same_rule(vec![admin_prohibited], None, |rule| {
        let with = RejectionType::Icmp(IcmpCode::AdminProhibited);
        rule.add_expr(&nftnl::expr::Verdict::Reject(with));
    });
    same_rule(vec![Stmt::Reject(compiler::nft::Reject::TcpReset)], None, |rule| {
        rule.add_expr(&nftnl::expr::Verdict::Reject(RejectionType::TcpRst));
    });
}
