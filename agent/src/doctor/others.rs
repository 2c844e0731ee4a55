//! Others who decide about the same packets.

use std::fs;
use std::path::Path;

use compiler::nft::TABLE;
use netlink::{Connection, OtherTable, Ownership, RawHook};

use super::Check;

/// The priority of our chains of what pods receive; that of what they send is one less.
const OURS: i32 = 1;
/// How many names a line holds.
const MOST_NAMED: usize = 8;

pub(super) fn checks() -> Vec<Check> {
    let tables = Connection::open(Ownership::Plain).and_then(|mut connection| connection.other_tables(TABLE));
    let mut checks = match tables {
        Ok(tables) => of_tables(&tables),
        Err(error) => vec![Check::note(
            "other tables",
            format!("not read: {:#}", anyhow::Error::from(error)),
            "what other firewalls of the node drop is not known to this command",
            "run this with CAP_NET_ADMIN in the node's network namespace: as root of the node, or in the agent's pod",
        )],
    };
    checks.extend(legacy(Path::new("/proc/net")));
    checks
}

fn of_tables(tables: &[OtherTable]) -> Vec<Check> {
    let of_flows = |table: &OtherTable| table.flow_tables.iter().map(|name| named(table, name)).collect::<Vec<_>>();
    let of_untracked = |table: &OtherTable| table.untracking.iter().map(|name| named(table, name)).collect::<Vec<_>>();
    let dropping = tables.iter().flat_map(|table| {
        let chains = table.chains.iter().filter(|chain| chain.drops && chain.hook == RawHook::Forward);
        chains.map(|chain| {
            let order = if chain.priority < OURS { "before" } else { "after" };
            format!("{} (priority {}, {order} ours)", named(table, &chain.name), chain.priority)
        })
    });
    let mut checks = Vec::new();
    let mut add = |what: &'static str, names: Vec<String>, why, remedy| {
        if !names.is_empty() {
            checks.push(Check::note(what, listed(&names), why, remedy));
        }
    };
    add(
        "drop at forward",
        dropping.collect(),
        "what these chains do not let pass themselves is dropped, though policies allow it: no accept overrides another's drop",
        "see that they accept what goes to and from pods, such as Docker's FORWARD by iptables -P FORWARD ACCEPT",
    );
    add(
        "offload",
        tables.iter().flat_map(of_flows).collect(),
        "flows that are in a flow table pass by the rules: they are judged when they begin, and are not cut when policies change",
        "keep flows of pods out of it, if policies must cut open flows",
    );
    add(
        "notrack",
        tables.iter().flat_map(of_untracked).collect(),
        "what is not tracked has no known flow: each packet is judged by itself, and so are answers, which nothing may allow",
        "see that it is only for addresses that no policy is about, such as those of NodeLocal DNSCache",
    );
    if checks.is_empty() {
        checks.push(Check::ok("other tables", format!("{} of others, and none of them is in the way", tables.len())));
    }
    checks
}

fn named(table: &OtherTable, name: &str) -> String {
    format!("{} {} {name}", table.family, table.name)
}

fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(MOST_NAMED);
    let listed = names.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{listed} and {more} more") } else { listed }
}

/// Tables of the iptables that does without nf_tables, which shows them to nobody else. `proc` is `/proc/net`.
fn legacy(proc: &Path) -> Option<Check> {
    let names = |file: &str, command: &str| {
        let text = fs::read_to_string(proc.join(file)).unwrap_or_default();
        text.lines().map(|name| format!("{command} {name}")).collect::<Vec<_>>()
    };
    let tables = [names("ip_tables_names", "iptables"), names("ip6_tables_names", "ip6tables")].concat();
    (!tables.is_empty()).then(|| {
        Check::note(
            "legacy iptables",
            listed(&tables),
            "nf_tables does not show what these do: a policy DROP of their FORWARD, or NOTRACK in raw, is not seen here",
            "look with iptables-legacy -S and ip6tables-legacy -S",
        )
    })
}

#[cfg(test)]
mod tests {
    use netlink::OtherChain;

    use super::*;
    use crate::doctor::State;

    fn table(chains: Vec<OtherChain>) -> OtherTable {
        OtherTable { family: "ip", name: "filter".to_owned(), chains, flow_tables: vec![], untracking: vec![] }
    }

    fn chain(hook: RawHook, priority: i32, drops: bool) -> OtherChain {
        OtherChain { hook, priority, name: "C".to_owned(), drops }
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let quiet = table(vec![chain(RawHook::Forward, 0, false), chain(RawHook::Input, 0, true)]);
        assert_eq!(of_tables(&[quiet])[0].state, State::Ok);
        let drops = table(vec![chain(RawHook::Forward, 0, true), chain(RawHook::Forward, 5, true)]);
        let found = &of_tables(&[drops])[0].found;
        assert_eq!(found, "ip filter C (priority 0, before ours), ip filter C (priority 5, after ours)");
        let others = OtherTable { flow_tables: vec!["f".into()], untracking: vec!["raw".into()], ..table(vec![]) };
        let told: Vec<_> = of_tables(&[others]).into_iter().map(|check| (check.check, check.found)).collect();
        assert_eq!(told, [("offload", "ip filter f".to_owned()), ("notrack", "ip filter raw".to_owned())]);
    }

    #[test]
    fn tables_that_nf_tables_does_not_show_are_named() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(legacy(folder.path()), None);
        fs::write(folder.path().join("ip_tables_names"), "raw\nfilter\n").unwrap();
        assert_eq!(legacy(folder.path()).unwrap().found, "iptables raw, iptables filter");
    }
}
