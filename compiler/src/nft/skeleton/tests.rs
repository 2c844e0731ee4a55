//! What every table has.

use super::*;

/// The rules of a chain, and where it hangs.
fn chain(table: &Table, name: &str) -> Vec<String> {
    let chain = &table.chains[&ChainName::from_kernel(name)];
    let base = chain.base.map(|base| format!("{:?} {} {:?}", base.hook, base.priority, base.policy));
    base.into_iter().chain(chain.rules.iter().map(ToString::to_string)).collect()
}

fn skeleton(deny: Deny) -> Table {
    let mut table = Table::default();
    add_to(&mut table, deny, None);
    table.chains.extend(base_chains(KnownLinks::default()));
    table
}

#[test]
fn what_comes_from_a_link_is_judged_by_the_link() {
    let mut table = Table::default();
    table.chains.extend(base_chains(KnownLinks { checked: true, egress: true, shared: true }));
    table.chains.extend([own_source(None)]);
    let rules = [
        "ct state established,related accept",
        "iifname @links jump own-source",
        "ip6 saddr fe80::/10 iifname vmap @egress-links",
        "ip6 saddr fe80::/10 iifname @shared-links goto deny-egress",
    ];
    for name in ["egress", "to-node"] {
        assert_eq!(chain(&table, name)[1..5], rules);
    }
    assert!(!chain(&table, "ingress").concat().contains("iifname"));
    assert_eq!(
        chain(&table, "own-source"),
        [
            "ip6 hoplimit 255 icmpv6 type 133-137 return comment \"neighbour discovery\"",
            "ip saddr 0.0.0.0 udp dport 67 return comment \"DHCP\"",
            "ip saddr 0.0.0.0 counter name \"refused-source\" drop",
            "fib saddr . iif oif missing counter name \"refused-source\" drop",
        ]
    );
}

#[test]
fn base_chains_let_known_flows_pass_and_look_up_the_local_end() {
    let table = skeleton(Deny::Drop);
    let known = "ct state established,related accept";
    let egress = ["ip saddr vmap @egress-pods-v4", "ip6 saddr vmap @egress-pods-v6"];
    let ingress = ["ip daddr vmap @ingress-pods-v4", "ip6 daddr vmap @ingress-pods-v6"];
    assert_eq!(chain(&table, "egress"), ["Forward 0 Accept", known, egress[0], egress[1]]);
    assert_eq!(chain(&table, "ingress"), ["Forward 1 Accept", known, ingress[0], ingress[1]]);
    assert_eq!(chain(&table, "to-node"), ["Input 0 Accept", known, egress[0], egress[1]]);
    let names: Vec<String> = table.chains.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["deny-egress", "deny-ingress", "egress", "exempt", "ingress", "to-node"]);
    assert_eq!(
        table.counters.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["denied-egress", "denied-ingress", "refused-source"]
    );
}

#[test]
fn what_is_refused_is_counted_and_dropped_or_answered() {
    for direction in ["egress", "ingress"] {
        let start = ["jump exempt".to_owned(), format!("counter name \"denied-{direction}\"")];
        let with = |end: &[&str]| start.iter().cloned().chain(end.iter().map(ToString::to_string)).collect::<Vec<_>>();
        let name = format!("deny-{direction}");
        assert_eq!(chain(&skeleton(Deny::Drop), &name), with(&["drop"]));
        let answers = ["meta l4proto tcp reject with tcp reset", "reject with icmpx admin-prohibited"];
        assert_eq!(chain(&skeleton(Deny::Reject), &name), with(&answers));
    }
}

#[test]
fn what_no_policy_may_block() {
    assert_eq!(
        chain(&skeleton(Deny::Drop), "exempt"),
        [
            "ip6 hoplimit 255 icmpv6 type 133-137 accept comment \"neighbour discovery\"",
            "ip saddr . ip daddr @self-v4 accept comment \"a pod to itself\"",
            "ip6 saddr . ip6 daddr @self-v6 accept comment \"a pod to itself\"",
        ]
    );
}
