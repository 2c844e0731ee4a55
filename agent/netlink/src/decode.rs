//! The kernel's dumps as a table.
//!
//! A [`Decoder`] takes the messages of a dump in the kernel's order: objects before what refers to them is not
//! needed, but a set before its elements and a chain before its rules. Whatever is not in our vocabulary is
//! remembered by name as foreign. No bytes make it panic.

mod chain;
mod key;
mod set;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use compiler::nft::{Chain, ChainName, CounterName, SetName, TABLE, Table, TableFamily};

use crate::attr::AttrReader;
use crate::constants::{chain as chain_attr, counter, elem, flowtable, msg, obj, rule, set as set_attr, table};
use crate::message::{Message, Messages, family_number};
use set::{Built, SetBuilder};

/// Builds the tables from the messages of a dump.
#[derive(Debug, Default)]
pub struct Decoder {
    tables: BTreeMap<TableFamily, TableHeader>,
    counters: BTreeMap<CounterName, Count>,
    sets: BTreeMap<SetName, SetBuilder>,
    chains: BTreeMap<ChainName, Chain>,
    /// Names of what is not ours, each once.
    foreign: BTreeSet<String>,
}

/// What a decoder made of a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The tables; `None` where there was neither.
    pub table: Option<Table>,
    /// The names of what is not ours in it, ascending.
    pub foreign: Vec<String>,
    /// A set showed one of its elements twice, so that others may be missing: the kernel was moving them into a
    /// bigger hash table, which it does on its own for some milliseconds after a load. To be dumped again.
    pub is_torn: bool,
}

/// The value of a counter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets counted.
    pub packets: u64,
    /// Bytes counted, from the network header on.
    pub bytes: u64,
}

/// What the kernel says about the table itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableHeader {
    /// `NFT_TABLE_F_*`
    pub(crate) flags: u32,
    /// The netlink port of the owner.
    pub(crate) owner: Option<u32>,
}

// === impl TableHeader ===

impl TableHeader {
    /// Whether it has flags that we never set. A dormant table, above all, does nothing: nobody may take it for ours.
    pub(crate) fn is_odd(self) -> bool {
        self.flags & !(table::F_OWNER | table::F_PERSIST) != 0
    }
}

// === impl Decoder ===

impl Decoder {
    /// Takes the messages of one datagram. Those about other tables are passed over.
    pub fn datagram(&mut self, bytes: &[u8]) {
        for message in Messages::new(bytes) {
            self.message(&message);
        }
    }

    /// Makes the table of what was taken.
    pub fn finish(mut self) -> Decoded {
        if self.tables.is_empty() {
            return Decoded { table: None, foreign: Vec::new(), is_torn: false };
        }
        if self.tables.values().any(|header| header.is_odd()) {
            self.foreign.insert(TABLE.to_owned());
        }
        let mut table = Table { counters: self.counters.into_keys().collect(), ..Table::default() };
        let mut is_torn = false;
        for (name, builder) in self.sets {
            let (built, torn) = builder.finish();
            is_torn |= torn;
            match built {
                Some(Built::Set(set)) => drop(table.sets.insert(name, Arc::new(set))),
                Some(Built::Map(map)) => drop(table.maps.insert(name, Arc::new(map))),
                None => drop(self.foreign.insert(name.to_string())),
            }
        }
        table.chains = self.chains.into_iter().map(|(name, chain)| (name, Arc::new(chain))).collect();
        // Table bridge is there if something is in it, and never without the other.
        let families = if table.has_bridge() { &TableFamily::ALL[..] } else { &[TableFamily::Inet] };
        if !self.tables.keys().eq(families) {
            self.foreign.insert(TABLE.to_owned());
        }
        Decoded { table: Some(table), foreign: self.foreign.into_iter().collect(), is_torn }
    }

    pub(crate) fn message(&mut self, message: &Message<'_>) {
        let Some(kind) = message.nftables() else { return };
        let attributes = message.attributes();
        let (table_attr, name_attr) = match kind {
            msg::NEWTABLE => (table::NAME, table::NAME),
            msg::NEWCHAIN => (chain_attr::TABLE, chain_attr::NAME),
            msg::NEWRULE => (rule::TABLE, rule::CHAIN),
            msg::NEWSET => (set_attr::TABLE, set_attr::NAME),
            msg::NEWSETELEM => (elem::LIST_TABLE, elem::LIST_SET),
            msg::NEWOBJ => (obj::TABLE, obj::NAME),
            msg::NEWFLOWTABLE => (flowtable::TABLE, flowtable::NAME),
            _ => return,
        };
        let of_message = |family: &TableFamily| family_number(*family) == message.family();
        let Some(family) = TableFamily::ALL.into_iter().find(of_message) else { return };
        if attributes.string(table_attr) != Some(TABLE) {
            return;
        }
        let Some(name) = attributes.string(name_attr) else {
            // An object without a name that is text: nothing can be said about it but that it is there.
            self.foreign.insert(TABLE.to_owned());
            return;
        };
        let known = match kind {
            msg::NEWTABLE => {
                self.tables.insert(family, table_header(attributes));
                true
            }
            msg::NEWCHAIN => self.chain(ChainName::in_table(family, name), attributes),
            msg::NEWRULE => self.rule(&ChainName::in_table(family, name), attributes),
            msg::NEWSET => self.set(SetName::in_table(family, name), attributes),
            msg::NEWSETELEM => self.elements(&SetName::in_table(family, name), attributes),
            msg::NEWOBJ => self.counter(CounterName::in_table(family, name), attributes),
            // Flow tables are never ours.
            _ => false,
        };
        if !known {
            self.foreign.insert(name.to_owned());
        }
    }

    /// The headers of the tables that were seen.
    pub(crate) fn headers(&self) -> &BTreeMap<TableFamily, TableHeader> {
        &self.tables
    }

    /// The sets of a table whose elements are still to be read: those that are ours, and that packets do not fill.
    pub(crate) fn set_names(&self, family: TableFamily) -> Vec<SetName> {
        let of_family = self.sets.iter().filter(|(name, set)| name.family() == family && !set.is_filled());
        of_family.map(|(name, _)| name.clone()).collect()
    }

    /// The values of the counters that were seen.
    pub(crate) fn into_counts(self) -> BTreeMap<CounterName, Count> {
        self.counters
    }

    fn chain(&mut self, name: ChainName, attributes: AttrReader<'_>) -> bool {
        let decoded = chain::decode_chain(attributes);
        let known = decoded.is_some();
        self.chains.insert(name, decoded.unwrap_or_default());
        known
    }

    fn rule(&mut self, name: &ChainName, attributes: AttrReader<'_>) -> bool {
        let Some(chain) = self.chains.get_mut(name) else { return false };
        let Some(rule) = chain::decode_rule(name.family(), attributes) else { return false };
        chain.rules.push(rule);
        true
    }

    fn set(&mut self, name: SetName, attributes: AttrReader<'_>) -> bool {
        let Some(builder) = SetBuilder::new(name.family(), attributes) else { return false };
        self.sets.insert(name, builder);
        true
    }

    fn elements(&mut self, set: &SetName, attributes: AttrReader<'_>) -> bool {
        let Some(builder) = self.sets.get_mut(set) else { return false };
        // The message that ends the dump of a set may come without a list.
        attributes.nested(elem::LIST_ELEMENTS).is_none_or(|list| builder.elements(list))
    }

    fn counter(&mut self, name: CounterName, attributes: AttrReader<'_>) -> bool {
        if attributes.be32(obj::TYPE) != Some(obj::TYPE_COUNTER) {
            return false;
        }
        let value = attributes.nested(obj::DATA).unwrap_or(AttrReader::new(&[]));
        let count = Count {
            packets: value.be64(counter::PACKETS).unwrap_or(0),
            bytes: value.be64(counter::BYTES).unwrap_or(0),
        };
        self.counters.insert(name, count);
        true
    }
}

fn table_header(attributes: AttrReader<'_>) -> TableHeader {
    TableHeader { flags: attributes.be32(table::FLAGS).unwrap_or(0), owner: attributes.be32(table::OWNER) }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::encode::Encoder;
    use compiler::diff::{Generation, Op, Transaction};
    use compiler::nft::{Comment, Family, Key, KeyType, MapElement, Set, Verdict, VerdictMap};

    fn key(last: u8) -> Key {
        Key::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    fn decode(ops: Vec<Op>) -> Decoded {
        let mut decoder = Decoder::default();
        decoder.datagram(Encoder::default().encode(&Transaction::new(ops, None), Generation(1)));
        decoder.finish()
    }

    fn add_set(keys: Vec<Key>) -> Op {
        let set = Set { key_type: KeyType::Address(Family::V4), comment: None, keys: Arc::new(keys), filled: None };
        Op::AddSet(SetName::from_kernel("set"), Arc::new(set))
    }

    #[test]
    fn messages_without_a_table_are_no_table() {
        assert_eq!(decode(vec![add_set(vec![])]), Decoded { table: None, foreign: vec![], is_torn: false });
    }

    #[test]
    fn an_element_that_comes_twice_tears_the_dump() {
        let keys = |keys: &[u8]| Op::AddKeys(SetName::from_kernel("set"), keys.iter().copied().map(key).collect());
        let whole = decode(vec![Op::AddTable(TableFamily::Inet), add_set(vec![]), keys(&[3, 1]), keys(&[2])]);
        assert!(!whole.is_torn);
        assert_eq!(*whole.table.unwrap().sets[&SetName::from_kernel("set")].keys, [1, 2, 3].map(key));
        assert!(decode(vec![Op::AddTable(TableFamily::Inet), add_set(vec![]), keys(&[3, 1]), keys(&[2, 3])]).is_torn);

        let map = VerdictMap { key_type: KeyType::Address(Family::V4), comment: None, elements: Arc::default() };
        let name = SetName::from_kernel("map");
        let element = MapElement { verdict: Verdict::Drop, comment: Some(Comment::new("pod")) };
        let add = Op::AddMapElements(name.clone(), vec![(key(1), element)]);
        let once = vec![Op::AddTable(TableFamily::Inet), Op::AddMap(name, Arc::new(map)), add.clone()];
        assert!(!decode(once.clone()).is_torn);
        assert!(decode([once, vec![add]].concat()).is_torn);
    }

    #[test]
    fn a_comment_beside_a_key_is_not_ours() {
        let name = SetName::from_kernel("set");
        let element = MapElement { verdict: Verdict::Drop, comment: Some(Comment::new("pod")) };
        let decoded = decode(vec![
            Op::AddTable(TableFamily::Inet),
            add_set(vec![]),
            Op::AddMapElements(name, vec![(key(1), element)]),
        ]);
        assert_eq!(decoded.foreign, ["set"]);
    }
}
