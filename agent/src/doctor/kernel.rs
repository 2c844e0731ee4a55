//! The kernel of the node: what it can do, and how it is set.

use std::fs;
use std::path::Path;

use super::Check;
use crate::kernel::bridge::{self, Bridges};
use crate::kernel::{is_before, supports_bridge_tables, supports_denials, supports_source_routes};
use crate::links;

/// The oldest kernel on which the table can be made: it has comments on objects.
const OLDEST: (u32, u32) = (5, 10);
/// From this one on nobody but its owner edits the table.
const OWNERS: (u32, u32) = (6, 9);
/// From how many percent on the table of connection tracking counts as full: what comes then may not find room.
const NEARLY_FULL: u64 = 90;

pub(super) fn checks() -> Vec<Check> {
    let proc = Path::new("/proc/sys");
    let mut checks = vec![release(&rustix::system::uname().release().to_string_lossy())];
    checks.extend(features());
    checks.push(connection_tracking(proc));
    checks.push(bridges(bridge::look(has_bridge_with_ports())));
    checks.push(forwarding(proc));
    checks.push(reverse_paths(proc, supports_source_routes().unwrap_or(false)));
    checks
}

fn release(release: &str) -> Check {
    let found = format!("Linux {release}");
    let upgrade = "run a newer kernel";
    if is_before(OLDEST) {
        return Check::wrong("kernel", found, "before 5.10 the table cannot be made: it has no comments", upgrade);
    }
    if is_before(OWNERS) {
        let why =
            "before 6.9 everybody with CAP_NET_ADMIN can edit the table; the agent repairs it within about a second";
        return Check::note("kernel", found, why, upgrade);
    }
    Check::ok("kernel", found)
}

/// Something that nf_tables must know for some of what the agent does.
struct Feature {
    supports: fn() -> Result<bool, netlink::Error>,
    name: &'static str,
    /// What is lost without it.
    why: &'static str,
    remedy: &'static str,
}

const FEATURES: [Feature; 3] = [
    Feature {
        supports: supports_source_routes,
        name: "nft_fib_inet",
        why: "pods may send with addresses of others: nothing can say whether a source is routed to its link",
        remedy: "run Linux 5.19 or later with the module nft_fib_inet",
    },
    Feature {
        supports: supports_bridge_tables,
        name: "nf_tables for bridges",
        why: "what pods of one bridge send to many at once, or in tagged frames, is not judged",
        remedy: "run a kernel with CONFIG_NF_TABLES_BRIDGE (module nf_tables_bridge, or built in)",
    },
    Feature {
        supports: supports_denials,
        name: "nft_log, nft_limit and nfnetlink_log",
        why: "nobody is told of refused packets (postern denials)",
        remedy: "run a kernel with these modules",
    },
];

fn features() -> Vec<Check> {
    let (mut missing, mut known) = (Vec::new(), Vec::new());
    for Feature { supports, name, why, remedy } in FEATURES {
        match supports() {
            Ok(true) => known.push(name),
            Ok(false) => missing.push(Check::note("nf_tables", format!("the kernel has no {name}"), why, remedy)),
            Err(error) => {
                return vec![Check::note(
                    "nf_tables",
                    format!("cannot be asked: {:#}", anyhow::Error::from(error)),
                    "what the kernel knows cannot be told by this command",
                    "run this with CAP_NET_ADMIN in the node's network namespace: as root of the node, or in the agent's pod",
                )];
            }
        }
    }
    if missing.is_empty() { vec![Check::ok("nf_tables", format!("knows {}", known.join(", ")))] } else { missing }
}

/// `proc` is `/proc/sys`.
fn connection_tracking(proc: &Path) -> Check {
    let number = |name: &str| -> Option<u64> { read(proc, &format!("net/netfilter/{name}"))?.parse().ok() };
    let (Some(count), Some(most)) = (number("nf_conntrack_count"), number("nf_conntrack_max")) else {
        return Check::wrong(
            "connection tracking",
            "nf_conntrack is not there",
            "answers of allowed connections are known by it: without it the table cannot be made",
            "load the module nf_conntrack",
        );
    };
    let found = format!("{count} of {most} entries");
    if most > 0 && count.saturating_mul(100) >= most.saturating_mul(NEARLY_FULL) {
        return Check::wrong(
            "connection tracking",
            found,
            "where it is full the kernel drops new connections, whatever policies allow",
            "raise net.netfilter.nf_conntrack_max, or find who opens so many (postern flows)",
        );
    }
    Check::ok("connection tracking", found)
}

/// Whether the node routes something to a bridge that has ports, as far as that can be read.
fn has_bridge_with_ports() -> bool {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return false };
    let links = runtime.block_on(links::read()).unwrap_or_default();
    links.iter().any(|link| link.is_bridge && !link.ports.is_empty())
}

fn bridges(found: Bridges) -> Check {
    match found {
        // Who only looks repairs nothing.
        Bridges::Filtered | Bridges::Repaired(_) => {
            Check::ok("bridges", "packets between pods of one bridge meet the rules, or there is none")
        }
        Bridges::Unfiltered { reason } => Check::wrong(
            "bridges",
            reason,
            "packets between pods of one bridge meet no rule",
            "load br_netfilter and set net.bridge.bridge-nf-call-iptables and -ip6tables to 1 on the node",
        ),
    }
}

fn forwarding(proc: &Path) -> Check {
    let settings = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];
    let off: Vec<String> = settings
        .iter()
        .filter(|name| read(proc, name).as_deref() == Some("0"))
        .map(|name| name.replace('/', "."))
        .collect();
    if off.is_empty() {
        return Check::ok("forwarding", "is on");
    }
    Check::note(
        "forwarding",
        format!("{} is 0", off.join(", ")),
        "the node passes nothing on between its pods and others in that family, whatever policies allow",
        "set it to 1, unless no pod of the node has addresses of that family",
    )
}

/// Where sources are not checked by the table, the kernel's own check by reverse paths is what is left, of IPv4.
fn reverse_paths(proc: &Path, is_checked: bool) -> Check {
    let value = read(proc, "net/ipv4/conf/all/rp_filter").unwrap_or_default();
    let found = format!("net.ipv4.conf.all.rp_filter is {value}");
    if is_checked || value == "1" {
        let found = if is_checked { "the table checks sources".to_owned() } else { found };
        return Check::ok("sources", found);
    }
    Check::note(
        "sources",
        found,
        "a pod with CAP_NET_RAW may send with the address of another, and this kernel's nf_tables cannot see it",
        "set net.ipv4.conf.all.rp_filter to 1, or run Linux 5.19 or later",
    )
}

fn read(proc: &Path, name: &str) -> Option<String> {
    Some(fs::read_to_string(proc.join(name)).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    fn machine(settings: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in settings {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{value}\n")).unwrap();
        }
        folder
    }

    fn told(check: &Check) -> (State, &str) {
        (check.state, &check.found)
    }

    #[test]
    fn a_table_of_flows_that_is_full_is_wrong() {
        let with =
            |count| machine(&[("net/netfilter/nf_conntrack_count", count), ("net/netfilter/nf_conntrack_max", "1000")]);
        assert_eq!(told(&connection_tracking(with("899").path())), (State::Ok, "899 of 1000 entries"));
        assert_eq!(told(&connection_tracking(with("900").path())), (State::Wrong, "900 of 1000 entries"));
        assert_eq!(connection_tracking(machine(&[]).path()).state, State::Wrong);
    }

    #[test]
    fn settings_are_named_as_sysctl_names_them() {
        let off = machine(&[("net/ipv4/ip_forward", "0"), ("net/ipv6/conf/all/forwarding", "1")]);
        assert_eq!(told(&forwarding(off.path())), (State::Note, "net.ipv4.ip_forward is 0"));
        assert_eq!(forwarding(machine(&[("net/ipv4/ip_forward", "1")]).path()).state, State::Ok);
        assert_eq!(bridges(Bridges::Unfiltered { reason: "no".into() }).state, State::Wrong);
    }

    #[test]
    fn reverse_paths_matter_where_nothing_else_checks() {
        let loose = machine(&[("net/ipv4/conf/all/rp_filter", "2")]);
        assert_eq!(reverse_paths(loose.path(), true).state, State::Ok);
        assert_eq!(told(&reverse_paths(loose.path(), false)), (State::Note, "net.ipv4.conf.all.rp_filter is 2"));
        assert_eq!(reverse_paths(machine(&[("net/ipv4/conf/all/rp_filter", "1")]).path(), false).state, State::Ok);
    }
}
