//! What others have in nf_tables that decides about the same packets.

use std::collections::BTreeMap;

use super::{ATTEMPTS, Connection, query};
use crate::Error;
use crate::attr::AttrReader;
use crate::constants::{LIST_ELEM, chain, flowtable, msg, nf, nfproto, rule};
use crate::message::Message;
use crate::raw::RawHook;

/// A table of somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherTable {
    /// `ip`, `ip6`, `inet`, `bridge` and the like, as nft calls it.
    pub family: &'static str,
    /// Its name.
    pub name: String,
    /// Its base chains on hooks of packets, in the order of their hooks and priorities.
    pub chains: Vec<OtherChain>,
    /// Its flow tables: flows that are in one pass by all hooks but ingress.
    pub flow_tables: Vec<String>,
    /// The chains with a rule that keeps packets from connection tracking.
    pub untracking: Vec<String>,
}

/// A base chain of somebody else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OtherChain {
    /// Where packets meet it.
    pub hook: RawHook,
    /// Lower runs first.
    pub priority: i32,
    /// Its name.
    pub name: String,
    /// Whether it refuses what its rules do not let pass.
    pub drops: bool,
}

impl Connection {
    /// The tables of the network namespace but those named so, by family and name.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell, or others write without end.
    pub fn other_tables(&mut self, but: &str) -> Result<Vec<OtherTable>, Error> {
        let mut found = Found::default();
        for (what, kind) in [
            ("chains of others", msg::GETCHAIN),
            ("flow tables of others", msg::GETFLOWTABLE),
            ("rules of others", msg::GETRULE),
        ] {
            self.read_all(what, kind, &mut found)?;
        }
        let others = found.tables.into_iter().filter(|((_, name), _)| name != but);
        let named = others.filter_map(|((family, name), parts)| {
            let Parts { mut chains, mut flow_tables, mut untracking } = parts;
            chains.sort_unstable();
            flow_tables.sort_unstable();
            untracking.sort_unstable();
            untracking.dedup();
            Some(OtherTable { family: family_name(family)?, name, chains, flow_tables, untracking })
        });
        Ok(named.collect())
    }

    /// One dump of all families, again where somebody wrote meanwhile.
    fn read_all(&mut self, what: &'static str, kind: u16, found: &mut Found) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let before = found.clone();
            if query::dump_all(self, what, kind, |message| found.take(message))? {
                return Ok(());
            }
            *found = before;
        }
        Err(Error::Unsettled { attempts: ATTEMPTS })
    }
}

#[derive(Debug, Clone, Default)]
struct Found {
    tables: BTreeMap<(u8, String), Parts>,
}

#[derive(Debug, Clone, Default)]
struct Parts {
    chains: Vec<OtherChain>,
    flow_tables: Vec<String>,
    untracking: Vec<String>,
}

impl Found {
    fn take(&mut self, message: &Message<'_>) {
        let a = message.attributes();
        match message.nftables() {
            // Chains of netdev have numbers of their own for their hooks, and see no packet that is passed on.
            Some(msg::NEWCHAIN) if message.family() != nfproto::NETDEV => {
                if let (Some(table), Some(base)) = (a.string(chain::TABLE), base_chain(a)) {
                    self.of(message, table).chains.push(base);
                }
            }
            Some(msg::NEWFLOWTABLE) => {
                if let (Some(table), Some(name)) = (a.string(flowtable::TABLE), a.string(flowtable::NAME)) {
                    self.of(message, table).flow_tables.push(name.to_owned());
                }
            }
            Some(msg::NEWRULE) if untracks(a) => {
                if let (Some(table), Some(chain)) = (a.string(rule::TABLE), a.string(rule::CHAIN)) {
                    self.of(message, table).untracking.push(chain.to_owned());
                }
            }
            Some(_) | None => {}
        }
    }

    fn of(&mut self, message: &Message<'_>, table: &str) -> &mut Parts {
        self.tables.entry((message.family(), table.to_owned())).or_default()
    }
}

fn base_chain(a: AttrReader<'_>) -> Option<OtherChain> {
    let hook = a.nested(chain::HOOK)?;
    let number = hook.be32(chain::HOOK_HOOKNUM)?;
    let hooks = [RawHook::Prerouting, RawHook::Input, RawHook::Forward, RawHook::Output, RawHook::Postrouting];
    Some(OtherChain {
        hook: hooks.into_iter().find(|known| *known as u32 == number)?,
        priority: hook.be32(chain::HOOK_PRIORITY)?.cast_signed(),
        name: a.string(chain::NAME)?.to_owned(),
        drops: a.be32(chain::POLICY).is_some_and(|policy| policy.cast_signed() == nf::DROP),
    })
}

/// Whether a rule has `notrack`, or `-j CT --notrack` and `-j NOTRACK` of iptables-nft, which the kernel has as a target.
fn untracks(a: AttrReader<'_>) -> bool {
    let list = a.nested(rule::EXPRESSIONS).unwrap_or(AttrReader::new(&[]));
    list.filter(|(kind, _)| *kind == LIST_ELEM).any(|(_, value)| {
        let expr = AttrReader::new(value);
        match expr.string(rule::EXPR_NAME) {
            Some("notrack") => true,
            Some("target") => expr.nested(rule::EXPR_DATA).is_some_and(|data| match data.string(rule::TARGET_NAME) {
                Some("NOTRACK") => true,
                Some("CT") => {
                    let flags = data.get(rule::TARGET_INFO).and_then(<[u8]>::first_chunk);
                    flags.is_some_and(|flags| u16::from_ne_bytes(*flags) & rule::CT_NOTRACK != 0)
                }
                Some(_) | None => false,
            }),
            Some(_) | None => false,
        }
    })
}

/// The name by which nft calls a family; `None` for those whose chains see no packets that are routed or bridged.
fn family_name(number: u8) -> Option<&'static str> {
    match number {
        nfproto::INET => Some("inet"),
        nfproto::IPV4 => Some("ip"),
        nfproto::IPV6 => Some("ip6"),
        nfproto::BRIDGE => Some("bridge"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::AttrWriter;
    use crate::message::{Header, Messages, nftables, write};

    /// What is found in a message of family `ip`.
    fn found(kind: u16, attributes: impl FnOnce(&mut AttrWriter<'_>)) -> Parts {
        let mut bytes = Vec::new();
        let header = Header { kind: nftables(kind), flags: 0, sequence: 1, family: nfproto::IPV4, resource: 0 };
        write(&mut bytes, header, attributes);
        let mut found = Found::default();
        Messages::new(&bytes).for_each(|message| found.take(&message));
        found.tables.remove(&(nfproto::IPV4, "t".to_owned())).unwrap_or_default()
    }

    /// Not every kernel has them to be tried with.
    #[test]
    fn flow_tables_and_targets_of_iptables_are_read() {
        let flow_table = found(msg::NEWFLOWTABLE, |w| {
            w.string(flowtable::TABLE, "t");
            w.string(flowtable::NAME, "fast");
        });
        assert_eq!(flow_table.flow_tables, ["fast"]);
        let rule_with = |expr: &str, target: Option<&str>, flags: u16| {
            found(msg::NEWRULE, |w| {
                w.string(rule::TABLE, "t");
                w.string(rule::CHAIN, "PREROUTING");
                w.nest(rule::EXPRESSIONS, |w| {
                    w.nest(LIST_ELEM, |w| {
                        w.string(rule::EXPR_NAME, expr);
                        w.nest(rule::EXPR_DATA, |w| {
                            target.iter().for_each(|name| w.string(rule::TARGET_NAME, name));
                            w.bytes(rule::TARGET_INFO, &[&flags.to_ne_bytes()[..], &[0; 6]].concat());
                        });
                    });
                });
            })
            .untracking
        };
        assert_eq!(rule_with("target", Some("NOTRACK"), 0), ["PREROUTING"]);
        assert_eq!(rule_with("target", Some("CT"), 1), ["PREROUTING"]);
        assert_eq!(rule_with("notrack", None, 0), ["PREROUTING"]);
        assert!(rule_with("target", Some("LOG"), 1).is_empty() && rule_with("target", Some("CT"), 2).is_empty());
        assert!(rule_with("counter", None, 1).is_empty());
    }
}
