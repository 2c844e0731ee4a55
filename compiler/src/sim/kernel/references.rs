//! What refers to what, and whether it may.

use std::collections::BTreeMap;

use super::Errno;
use super::content::{Content, target};
use crate::nft::{ChainName, CounterName, Field, KeyType, Match, Rule, SetName, Stmt, TableFamily, Verdict};

/// `NFT_JUMP_STACK_SIZE` is 16: the sixteenth jump is one too many.
const MOST_JUMPS: usize = 15;

/// What a statement refers to.
enum Reference<'a> {
    Nothing,
    Counter(&'a CounterName),
    /// A set in which keys of this type are looked up.
    Set(&'a SetName, KeyType),
    /// A set to which keys of this type are added.
    Filled(&'a SetName, KeyType),
    Map(&'a SetName, KeyType),
    Chain(&'a Verdict),
}

fn reference(stmt: &Stmt) -> Reference<'_> {
    match stmt {
        Stmt::Match(Match::In(field, set) | Match::NotIn(field, set)) => Reference::Set(set, field.key_type()),
        Stmt::Match(Match::Limit(field, set, _)) => Reference::Filled(set, field.key_type()),
        Stmt::Match(Match::PortIn(_, set)) => Reference::Set(set, KeyType::PortRange),
        Stmt::VerdictMap(field, map) => Reference::Map(map, Field::key_type(*field)),
        Stmt::CounterName(counter) => Reference::Counter(counter),
        Stmt::Verdict(verdict) => Reference::Chain(verdict),
        Stmt::Match(
            Match::CtState(_)
            | Match::Protocol(_)
            | Match::Port(..)
            | Match::Icmpv6Type(..)
            | Match::HopLimit(_)
            | Match::Original
            | Match::LinkLocalSource
            | Match::SourceIs(_)
            | Match::SourceAstray
            | Match::EtherType(_),
        )
        | Stmt::Counter
        | Stmt::Log(..)
        | Stmt::Reject(_) => Reference::Nothing,
    }
}

impl Content {
    /// Whether everything that a rule of a table refers to is there, in the same table, and of the right type.
    pub(super) fn check_rule(&self, family: TableFamily, rule: &Rule) -> Result<(), Errno> {
        let same_table = |other: TableFamily| (other == family).then_some(()).ok_or(Errno::Enoent);
        for stmt in &rule.stmts {
            match reference(stmt) {
                Reference::Nothing => {}
                Reference::Counter(name) => {
                    same_table(name.family())?;
                    self.counters.get(name).map(drop).ok_or(Errno::Enoent)?;
                }
                Reference::Set(name, looked_up) => {
                    same_table(name.family())?;
                    let held = self.sets.get(name).ok_or(Errno::Enoent)?.key_type;
                    is_searchable(held, looked_up).then_some(()).ok_or(Errno::Einval)?;
                }
                Reference::Filled(name, added) => {
                    same_table(name.family())?;
                    let held = self.sets.get(name).ok_or(Errno::Enoent)?;
                    (held.filled.is_some() && held.key_type == added).then_some(()).ok_or(Errno::Einval)?;
                }
                Reference::Map(name, looked_up) => {
                    same_table(name.family())?;
                    let held = self.maps.get(name).ok_or(Errno::Enoent)?.key_type;
                    is_searchable(held, looked_up).then_some(()).ok_or(Errno::Einval)?;
                }
                Reference::Chain(verdict) => self.check_verdict(family, verdict)?,
            }
        }
        Ok(())
    }

    /// Whether the chain to which a verdict in a table leads is there and can be jumped to.
    pub(super) fn check_verdict(&self, family: TableFamily, verdict: &Verdict) -> Result<(), Errno> {
        let Some(name) = target(verdict) else { return Ok(()) };
        if name.family() != family {
            return Err(Errno::Enoent);
        }
        let chain = self.chains.get(name).ok_or(Errno::Enoent)?;
        if chain.base.is_some() { Err(Errno::Eopnotsupp) } else { Ok(()) }
    }

    /// Whether no way through the chains is too deep or comes back to where it was.
    pub(super) fn check_depth(&self) -> Result<(), Errno> {
        let mut depths = BTreeMap::new();
        self.chains.keys().try_for_each(|name| match self.depth(name, &mut depths)? {
            depth if depth > MOST_JUMPS => Err(Errno::Emlink),
            _ => Ok(()),
        })
    }

    /// How many jumps the deepest way from a chain takes. `depths` has what is known, and `None` for chains on the way
    /// here.
    fn depth<'a>(
        &'a self,
        name: &'a ChainName,
        depths: &mut BTreeMap<&'a ChainName, Option<usize>>,
    ) -> Result<usize, Errno> {
        match depths.get(name) {
            Some(Some(depth)) => return Ok(*depth),
            Some(None) => return Err(Errno::Emlink),
            None => {}
        }
        depths.insert(name, None);
        let mut deepest = 0;
        for stmt in self.chains[name].rules.iter().flat_map(|rule| &rule.stmts) {
            let targets: Vec<&ChainName> = match reference(stmt) {
                Reference::Chain(verdict) => target(verdict).into_iter().collect(),
                Reference::Map(map, _) => {
                    self.maps[map].elements.values().filter_map(|element| target(&element.verdict)).collect()
                }
                Reference::Nothing | Reference::Counter(_) | Reference::Set(..) | Reference::Filled(..) => Vec::new(),
            };
            for target in targets {
                deepest = deepest.max(1 + self.depth(target, depths)?);
            }
        }
        depths.insert(name, Some(deepest));
        Ok(deepest)
    }

    /// Whether a rule or an element leads to a chain, other than from the chain itself.
    pub(super) fn refers_to_chain(&self, name: &ChainName) -> bool {
        let by_rule = self.chains.iter().filter(|(other, _)| *other != name).any(|(_, chain)| {
            let mut stmts = chain.rules.iter().flat_map(|rule| &rule.stmts);
            stmts.any(|stmt| matches!(reference(stmt), Reference::Chain(verdict) if target(verdict) == Some(name)))
        });
        let mut elements = self.maps.values().flat_map(|map| map.elements.values());
        by_rule || elements.any(|element| target(&element.verdict) == Some(name)) || self.released.contains(name)
    }

    /// Whether a rule looks something up in a set or map.
    pub(super) fn refers_to_set(&self, name: &SetName) -> bool {
        self.any_stmt(|stmt| {
            let reference = reference(stmt);
            matches!(reference, Reference::Set(set, _) | Reference::Filled(set, _) | Reference::Map(set, _) if set == name)
        })
    }

    /// Whether a rule counts in a counter.
    pub(super) fn refers_to_counter(&self, name: &CounterName) -> bool {
        self.any_stmt(|stmt| matches!(reference(stmt), Reference::Counter(counter) if counter == name))
    }

    fn any_stmt(&self, holds: impl Fn(&Stmt) -> bool) -> bool {
        self.chains.values().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.stmts).any(holds)
    }
}

/// Whether keys of one type can be looked up in a set of another: an address in a set of ranges of its family, and
/// everything in a set of its own type.
fn is_searchable(held: KeyType, looked_up: KeyType) -> bool {
    match (held, looked_up) {
        (KeyType::AddressRange(held), KeyType::Address(looked_up)) => held == looked_up,
        (held, looked_up) => held == looked_up,
    }
}
