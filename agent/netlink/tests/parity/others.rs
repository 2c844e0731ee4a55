//! What others have in nf_tables, as nft made it.

use netlink::{OtherChain, RawHook};

use super::support::{commit_new, nft_load, open};
use super::tables::everything;

const OTHERS: &str = "
table ip filter {
    chain FORWARD { type filter hook forward priority filter; policy drop; ct state established accept; }
    chain INPUT { type filter hook input priority filter; policy accept; }
    chain user { }
}
table inet late {
    chain forward { type filter hook forward priority 5; policy accept; }
}
table ip6 raw {
    chain PREROUTING { type filter hook prerouting priority raw; ip6 daddr fd00::10 notrack; udp dport 53 notrack; }
}
table netdev edge {
    chain ingress { type filter hook ingress device lo priority 0; policy drop; }
}
";

pub(crate) fn what_others_have_is_told() {
    let mut connection = open();
    assert_eq!(connection.other_tables("postern").unwrap(), []);
    commit_new(&mut connection, &everything());
    assert_eq!(connection.other_tables("postern").unwrap(), [], "ours is not another's");
    nft_load(OTHERS);
    let found = connection.other_tables("postern").unwrap();
    let names: Vec<_> = found.iter().map(|table| format!("{} {}", table.family, table.name)).collect();
    assert_eq!(names, ["inet late", "ip filter", "ip6 raw"]);
    let chain = |name: &str, hook, priority, drops| OtherChain { hook, priority, name: name.to_owned(), drops };
    assert_eq!(found[0].chains, [chain("forward", RawHook::Forward, 5, false)]);
    let of_filter = [chain("INPUT", RawHook::Input, 0, false), chain("FORWARD", RawHook::Forward, 0, true)];
    assert_eq!(found[1].chains, of_filter);
    assert_eq!(found[2].untracking, ["PREROUTING"], "once, however many rules");
    assert!(found[1].untracking.is_empty());
}
