//! Tables that are built of expressions.

use compiler::nft::{Comment, Family};
use netlink::expr::{Base, CmpOp, CtKey, Data, Expr, MetaKey, NatKind, NumgenKind, Register};
use netlink::{ChainKind, Errno, RawBase, RawBatch, RawHook};

use super::support::{kernel, nft, open};

fn services() -> RawBatch {
    let nat = |hook, priority| Some(RawBase { kind: ChainKind::Nat, hook, priority });
    let equal = |data| Expr::Cmp { sreg: Register::R1, op: CmpOp::Eq, data };
    let load = |base, offset, len| Expr::Payload { base, offset, len, dreg: Register::R1 };
    let to_service = || {
        vec![
            Expr::Meta { key: MetaKey::NfProto, dreg: Register::R1 },
            equal(Data::of([2])),
            load(Base::Network, 16, 4),
            equal(Data::of([10, 96, 0, 10])),
            Expr::Meta { key: MetaKey::L4Proto, dreg: Register::R1 },
            equal(Data::of([17])),
            load(Base::Transport, 2, 2),
            equal(Data::of(53u16.to_be_bytes())),
        ]
    };
    let endpoint = |last, port: u16| {
        [
            Expr::Immediate { dreg: Register::R1, data: Data::of([10, 244, 0, last]) },
            Expr::Immediate { dreg: Register::R2, data: Data::of(port.to_be_bytes()) },
            Expr::Nat {
                kind: NatKind::Destination,
                family: Family::V4,
                address: Some(Register::R1),
                port: Some(Register::R2),
            },
        ]
    };
    let mut balanced = to_service();
    balanced.extend([
        Expr::Numgen { dreg: Register::R1, kind: NumgenKind::Random, modulus: 2, offset: 0 },
        equal(Data::of(0u32.to_ne_bytes())),
    ]);
    balanced.extend(endpoint(2, 5353));
    let mut rest = to_service();
    rest.extend(endpoint(3, 5353));
    let hairpin = vec![
        Expr::Ct { key: CtKey::Status, dreg: Register::R1 },
        Expr::Bitwise {
            sreg: Register::R1,
            dreg: Register::R1,
            mask: Data::of(32u32.to_ne_bytes()),
            xor: Data::of([0; 4]),
        },
        Expr::Cmp { sreg: Register::R1, op: CmpOp::Neq, data: Data::of([0; 4]) },
        Expr::Masquerade,
    ];
    let port = Expr::Immediate { dreg: Register::R1, data: Data::of(8080u16.to_be_bytes()) };
    let redirect = vec![
        Expr::Meta { key: MetaKey::L4Proto, dreg: Register::R1 },
        equal(Data::of([6])),
        load(Base::Transport, 2, 2),
        Expr::Range {
            sreg: Register::R1,
            negated: true,
            first: Data::of(80u16.to_be_bytes()),
            last: Data::of(90u16.to_be_bytes()),
        },
        port,
        Expr::Redirect { port: Some(Register::R1) },
    ];
    RawBatch::new("services")
        .add_table()
        .delete_table()
        .add_table()
        .add_chain("prerouting", nat(RawHook::Prerouting, -100))
        .add_chain("output", nat(RawHook::Output, -100))
        .add_chain("postrouting", nat(RawHook::Postrouting, 100))
        .add_chain("filter", Some(RawBase { kind: ChainKind::Filter, hook: RawHook::Forward, priority: 0 }))
        .add_chain("regular", None)
        .add_rule("prerouting", balanced, Some(Comment::new("kube-system/dns")))
        .add_rule("prerouting", rest, None)
        .add_rule("output", redirect, None)
        .add_rule("postrouting", hairpin, None)
}

pub(crate) fn services_are_translated() {
    let mut connection = open();
    // Twice: the batch replaces what it made before.
    for _ in 0..2 {
        let committed = connection.commit_raw(&services()).unwrap();
        assert_eq!(committed.generation, connection.generation().unwrap());
    }
    let listing = nft(&["list", "table", "inet", "services"]);
    let rules = [
        "type nat hook prerouting priority dstnat; policy accept;",
        "type nat hook output priority -100; policy accept;",
        "type nat hook postrouting priority srcnat; policy accept;",
        "ip daddr 10.96.0.10 udp dport 53 numgen random mod 2 0 dnat ip to 10.244.0.2:5353 comment \"kube-system/dns\"",
        "ip daddr 10.96.0.10 udp dport 53 dnat ip to 10.244.0.3:5353",
        "tcp dport != 80-90 redirect to :8080",
        "ct status dnat masquerade",
    ];
    for rule in rules {
        assert!(listing.lines().any(|line| line.trim() == rule), "{rule}\n{listing}");
    }
    assert_eq!(connection.dump().unwrap().table, None, "that table is not ours");
}

pub(crate) fn errors_name_the_message() {
    let error =
        open().commit_raw(&RawBatch::new("services").add_table().add_rule("nowhere", vec![], None)).unwrap_err();
    let found: Vec<_> = error.refusals().iter().map(|refusal| (refusal.op, refusal.errno)).collect();
    assert_eq!(found, [(1, Errno::NOENT)]);
    assert!(error.to_string().contains("add a rule to chain services nowhere"), "{error}");
}

pub(crate) fn whether_a_rule_would_be_taken_is_known() {
    let mut connection = open();
    let before = connection.generation().unwrap();
    assert_eq!(connection.supports_source_routes().unwrap(), kernel() >= (5, 19));
    assert!(connection.supports_denials().unwrap());
    assert_eq!(connection.generation().unwrap(), before, "nothing was changed");
    assert!(!nft(&["list", "tables"]).contains("probe"));
}
