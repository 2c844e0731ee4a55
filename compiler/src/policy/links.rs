//! Which link leads to which local pod, and what that says about the packets that come from there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::LocalPod;
use crate::api::{LinkName, PodKey, Str};
use crate::cluster::Links;

/// Whose packets must have a source that the node routes to the link from which they come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OwnAddresses {
    /// Those of all local pods but the pods of these namespaces, which route for others.
    All {
        /// The namespaces.
        except: BTreeSet<Str>,
    },
    /// The same, of pods that are isolated in some direction.
    Isolated {
        /// The namespaces.
        except: BTreeSet<Str>,
    },
    /// Nobody's.
    #[default]
    Off,
}

/// The links that lead to local pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodLinks {
    /// The links that lead to one pod each, with the pod.
    pub own: BTreeMap<LinkName, PodKey>,
    /// Those of them whose packets must have a source that the node routes there.
    pub checked: BTreeSet<LinkName>,
    /// The links behind which there are several pods, one of them isolated: bridges, whose ports the rules do not see.
    pub shared: BTreeSet<LinkName>,
}

impl PodLinks {
    pub(super) fn of(links: &Links, pods: &[LocalPod], own_addresses: &OwnAddresses) -> PodLinks {
        let mut found = PodLinks::default();
        if links.is_empty() {
            return found;
        }
        let by_address: BTreeMap<IpAddr, &LocalPod> =
            pods.iter().flat_map(|pod| pod.addresses.iter().map(move |address| (*address, pod))).collect();
        for link in links.iter() {
            if link.is_bridge {
                let is_behind = |address: &IpAddr| link.prefixes.iter().any(|prefix| prefix.contains(address));
                if pods.iter().any(|pod| pod.is_isolated() && pod.addresses.iter().any(is_behind)) {
                    found.shared.insert(link.name);
                }
                continue;
            }
            let behind: BTreeMap<&PodKey, &LocalPod> = link
                .prefixes
                .iter()
                .filter_map(|prefix| by_address.get(&prefix.addr()))
                .map(|pod| (&pod.key, *pod))
                .collect();
            let mut pods = behind.into_values();
            match (pods.next(), pods.next()) {
                (None, _) => {}
                (Some(pod), None) => {
                    found.own.insert(link.name, pod.key.clone());
                    if own_addresses.concern(pod) {
                        found.checked.insert(link.name);
                    }
                }
                (Some(one), Some(another)) => {
                    if [one, another].into_iter().chain(pods).any(LocalPod::is_isolated) {
                        found.shared.insert(link.name);
                    }
                }
            }
        }
        found
    }
}

impl OwnAddresses {
    fn concern(&self, pod: &LocalPod) -> bool {
        match self {
            OwnAddresses::All { except } => !except.contains(&pod.key.namespace),
            OwnAddresses::Isolated { except } => pod.is_isolated() && !except.contains(&pod.key.namespace),
            OwnAddresses::Off => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Event, Link};
    use crate::policy::Resolver;
    use crate::testing::{pod, policy, state};

    fn link(name: &str, is_bridge: bool, prefixes: &[&str]) -> Link {
        let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
        Link { name: LinkName::new(name).unwrap(), is_bridge, prefixes }
    }

    fn names(links: &BTreeSet<LinkName>) -> Vec<String> {
        links.iter().map(ToString::to_string).collect()
    }

    /// A deny-all pod and a free one with links of their own, two behind one link, one behind a bridge.
    fn links(own_addresses: OwnAddresses) -> PodLinks {
        let state = state([
            policy("a/deny").selects("app=shut").ingress([]).into(),
            pod("a/shut").labels("app=shut").ip("10.0.0.1").ip("fd00::1").into(),
            pod("b/free").ip("10.0.0.2").into(),
            pod("a/one").labels("app=shut").ip("10.0.0.3").into(),
            pod("a/two").ip("10.0.0.4").into(),
            pod("a/port").labels("app=shut").ip("10.1.0.1").into(),
            pod("a/far").ip("10.0.0.5").elsewhere().into(),
            Event::Links(vec![
                link("cni0", true, &["10.1.0.0/24"]),
                link("docker0", true, &["172.17.0.0/16"]),
                link("tunnel", false, &["10.0.0.5/32"]),
                link("veth1", false, &["10.0.0.1/32", "fd00::1/128"]),
                link("veth2", false, &["10.0.0.2/32"]),
                link("veth3", false, &["10.0.0.3/32", "10.0.0.4/32"]),
            ]),
        ]);
        (*Resolver::checking(own_addresses).resolve(&state).links).clone()
    }

    #[test]
    fn a_link_is_a_pods_if_its_address_is_routed_there() {
        let found = links(OwnAddresses::Off);
        let own: Vec<String> = found.own.iter().map(|(link, pod)| format!("{link} {pod}")).collect();
        assert_eq!(own, ["veth1 a/shut", "veth2 b/free"]);
        assert_eq!((names(&found.shared), names(&found.checked)), (vec!["cni0".into(), "veth3".into()], vec![]));
    }

    #[test]
    fn whose_sources_are_checked() {
        let except = || BTreeSet::from(["b".into()]);
        let none = BTreeSet::new;
        for (own_addresses, expected) in [
            (OwnAddresses::All { except: none() }, &["veth1", "veth2"][..]),
            (OwnAddresses::All { except: except() }, &["veth1"]),
            (OwnAddresses::Isolated { except: none() }, &["veth1"]),
            (OwnAddresses::Isolated { except: BTreeSet::from(["a".into()]) }, &[]),
        ] {
            assert_eq!(names(&links(own_addresses.clone()).checked), expected, "{own_addresses:?}");
        }
    }
}
