//! Where the chains and maps of groups stand in the table.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::super::{Chain, ChainName, Family, Table};
use super::super::by_peer::ByPeer;
use super::super::dispatch::Group;
use super::{Lowered, State};
#[cfg(test)]
use crate::work::{self, Work};

/// Where groups are placed.
pub(super) struct Place<'a> {
    lists: &'a mut BTreeMap<ChainName, usize>,
    table: &'a mut Table,
    /// What was taken out, and is put back where it is still the same.
    spare: Table,
}

// === impl Place ===

impl<'a> Place<'a> {
    /// A table, and how many groups lead to the chain of each list in it.
    pub(super) fn new(lists: &'a mut BTreeMap<ChainName, usize>, table: &'a mut Table) -> Place<'a> {
        Place { lists, table, spare: Table::default() }
    }

    /// Brings what stands in the table in line with a group.
    pub(super) fn bring_up(&mut self, lowered: &mut Lowered, is_by_peer: bool, families: &[Family]) {
        let broad = &lowered.broad.0;
        let naming = lowered.naming.as_ref().filter(|_| is_by_peer);
        let stands = match (&lowered.by_peer, naming) {
            (Some(known), Some(_)) => known.broad() == broad,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        match lowered.state {
            State::Placed | State::Behind if stands => return self.catch_up(lowered),
            State::Placed | State::Behind | State::New => {}
        }
        #[cfg(test)]
        work::count(Work::GroupLowered);
        let Group { direction, isolated_by, .. } = &*lowered.group;
        let now = naming.map(|naming| ByPeer::new(*direction, families, isolated_by, naming, broad.clone()));
        self.take_out(lowered);
        lowered.by_peer = now;
        self.put_in(lowered);
    }

    /// Puts a group into the table.
    fn put_in(&mut self, lowered: &mut Lowered) {
        let name = &lowered.group.chain;
        let chain = lowered.chain();
        self.put_chain(name, &Arc::new(chain));
        if let Some(by_peer) = &mut lowered.by_peer {
            self.put_maps(by_peer);
            self.put_lists(by_peer);
        }
        lowered.state = State::Placed;
    }

    /// Brings what stands in the table in line with the group's elements.
    fn catch_up(&mut self, lowered: &mut Lowered) {
        if let Some(by_peer) = lowered.by_peer.as_mut().filter(|_| lowered.state == State::Behind) {
            self.put_maps(by_peer);
            self.put_lists(by_peer);
        }
        lowered.state = State::Placed;
    }

    /// Takes a group out of the table, if it is there.
    pub(super) fn take_out(&mut self, lowered: &Lowered) {
        if lowered.state == State::New {
            return;
        }
        let name = &lowered.group.chain;
        self.spare.chains.extend(self.table.chains.remove(name).map(|chain| (name.clone(), chain)));
        let Some(by_peer) = &lowered.by_peer else { return };
        for name in by_peer.maps().keys() {
            self.spare.maps.extend(self.table.maps.remove(name).map(|map| (name.clone(), map)));
        }
        by_peer.told_lists().for_each(|name| self.drop_list(name));
    }

    fn put_maps(&mut self, by_peer: &ByPeer) {
        for (name, map) in by_peer.maps() {
            let known = self.spare.maps.get(name).filter(|known| *known == map);
            self.table.maps.insert(name.clone(), known.unwrap_or(map).clone());
        }
    }

    fn put_lists(&mut self, by_peer: &mut ByPeer) {
        let changes = by_peer.take_changes();
        for (name, chain) in changes.come {
            let users = self.lists.entry(name.clone()).or_default();
            *users += 1;
            if *users == 1 {
                self.put_chain(&name, &chain);
            }
        }
        changes.gone.iter().for_each(|name| self.drop_list(name));
    }

    fn put_chain(&mut self, name: &ChainName, chain: &Arc<Chain>) {
        let known = self.spare.chains.get(name).filter(|known| *known == chain);
        self.table.chains.insert(name.clone(), known.unwrap_or(chain).clone());
    }

    /// Ends a group's use of the chain of a list.
    fn drop_list(&mut self, name: &ChainName) {
        let Some(users) = self.lists.get_mut(name) else { return };
        *users -= 1;
        if *users == 0 {
            self.lists.remove(name);
            self.spare.chains.extend(self.table.chains.remove(name).map(|chain| (name.clone(), chain)));
        }
    }
}
