//! Whether packets between two pods of one bridge meet the rules.
//!
//! A bridge hands frames on without asking netfilter, unless `br_netfilter` is loaded and its sysctls say so. Network
//! plugins that put pods on a bridge (flannel's `cni0`) therefore need `net.bridge.bridge-nf-call-iptables = 1`, and the
//! same for IPv6. The agent sets them where it may, and is loud where it may not.

use std::fs;
use std::path::Path;

use compiler::nft::Family;

/// The sysctls, by the path below `/proc/sys`. nftables' `inet` hooks are reached by the same path as iptables'.
const SYSCTLS: [&str; 2] = ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"];

/// What was found, and done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bridges {
    /// There is no bridge with anything on it, or its packets meet the rules.
    Filtered,
    /// They did not, and do now: these sysctls were set.
    Repaired(Vec<&'static str>),
    /// They do not.
    Unfiltered {
        /// What to do about it.
        reason: String,
    },
}

/// Looks, and sets what is off.
pub fn check() -> Bridges {
    check_in(Path::new("/proc/sys"), Path::new("/sys/class/net"))
}

/// Looks, and sets nothing: what is off and matters. Whether there is a bridge with a port may be known already; what is
/// mounted at `/sys` may be of another network namespace.
pub fn look(is_known_to_have_ports: bool) -> Bridges {
    if is_known_to_have_ports || has_bridge(Path::new("/sys/class/net")) {
        look_in(Path::new("/proc/sys"))
    } else {
        Bridges::Filtered
    }
}

fn look_in(sysctls: &Path) -> Bridges {
    let settings = SYSCTLS.map(|name| (name, fs::read_to_string(sysctls.join(name))));
    let off = settings.iter().find_map(|(name, value)| match value {
        Ok(value) if value.trim() == "0" => Some(format!("{} is 0", name.replace('/', "."))),
        Ok(_) => None,
        Err(_) => Some(format!("{} is missing; load the module br_netfilter", name.replace('/', "."))),
    });
    off.map_or(Bridges::Filtered, |reason| Bridges::Unfiltered { reason })
}

/// The sysctl that keeps what passes over bridges in one family from the rules, if one does.
pub fn unfiltered(family: Family) -> Option<String> {
    let [v4, v6] = SYSCTLS;
    let name = match family {
        Family::V4 => v4,
        Family::V6 => v6,
    };
    let value = fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap_or_default();
    (value.trim() != "1").then(|| name.replace('/', "."))
}

fn check_in(sysctls: &Path, links: &Path) -> Bridges {
    let mut repaired = Vec::new();
    for name in SYSCTLS {
        let path = sysctls.join(name);
        let setting = name.replace('/', ".");
        match fs::read_to_string(&path) {
            Ok(value) if value.trim() == "0" => match fs::write(&path, "1") {
                Ok(()) => repaired.push(name),
                Err(error) if has_bridge(links) => {
                    return Bridges::Unfiltered { reason: format!("{setting} is 0 and cannot be set ({error})") };
                }
                // Without a bridge it does not matter yet. With the first one it is told.
                Err(_) => {}
            },
            Ok(_) => {}
            Err(_) if has_bridge(links) => {
                return Bridges::Unfiltered { reason: format!("{setting} is missing; load the module br_netfilter") };
            }
            Err(_) => {}
        }
    }
    if repaired.is_empty() { Bridges::Filtered } else { Bridges::Repaired(repaired) }
}

/// Whether there is a bridge with at least one port.
fn has_bridge(links: &Path) -> bool {
    let Ok(links) = fs::read_dir(links) else { return false };
    links.flatten().any(|link| {
        let ports = fs::read_dir(link.path().join("brif"));
        link.path().join("bridge").exists() && ports.is_ok_and(|mut ports| ports.next().is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with these values of the two sysctls, and a bridge with or without a port.
    fn machine(values: Option<[&str; 2]>, has_port: bool) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("sysctl/net/bridge")).unwrap();
        for (name, value) in SYSCTLS.iter().zip(values.into_iter().flatten()) {
            fs::write(folder.path().join("sysctl").join(name), value).unwrap();
        }
        fs::create_dir_all(folder.path().join("links/cni0/bridge")).unwrap();
        fs::create_dir_all(folder.path().join("links/cni0/brif")).unwrap();
        if has_port {
            fs::create_dir_all(folder.path().join("links/cni0/brif/veth0")).unwrap();
        }
        folder
    }

    fn check_on(machine: &tempfile::TempDir) -> Bridges {
        check_in(&machine.path().join("sysctl"), &machine.path().join("links"))
    }

    #[test]
    fn what_is_off_is_set() {
        let machine = machine(Some(["0\n", "1\n"]), true);
        assert_eq!(check_on(&machine), Bridges::Repaired(vec![SYSCTLS[0]]));
        assert_eq!(fs::read_to_string(machine.path().join("sysctl").join(SYSCTLS[0])).unwrap(), "1");
        assert_eq!(check_on(&machine), Bridges::Filtered);
    }

    #[test]
    fn who_only_looks_sets_nothing() {
        let look_on = |machine: &tempfile::TempDir| look_in(&machine.path().join("sysctl"));
        let off = machine(Some(["1\n", "0\n"]), true);
        let reason = "net.bridge.bridge-nf-call-ip6tables is 0".to_owned();
        assert_eq!(look_on(&off), Bridges::Unfiltered { reason });
        assert_eq!(fs::read_to_string(off.path().join("sysctl").join(SYSCTLS[1])).unwrap(), "0\n");
        assert_eq!(look_on(&machine(Some(["1\n", "1\n"]), true)), Bridges::Filtered);
    }

    #[test]
    fn a_missing_module_matters_once_a_bridge_has_a_port() {
        assert_eq!(check_on(&machine(None, false)), Bridges::Filtered);
        let Bridges::Unfiltered { reason } = check_on(&machine(None, true)) else { panic!("not seen") };
        assert_eq!(reason, "net.bridge.bridge-nf-call-iptables is missing; load the module br_netfilter");
    }
}
