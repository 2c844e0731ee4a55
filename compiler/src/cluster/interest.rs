//! Which pods of other nodes have to be known.
//!
//! ```text
//! policies in use -> Interest: what their selectors mean -> plan: a bounded number of watches that bring at least that
//! ```

mod plan;
mod query;

use std::collections::BTreeSet;

use super::{Namespaces, PodScope, State};
use crate::api::{
    Direction, NamespaceScope, NetworkPolicy, Peer, Peers, PodSelector, PortMatch, Ports, Rule, Selector,
};

pub use plan::MOST_WATCHES;
pub use query::PodQuery;
use query::telling;

/// Past this many namespaces a `namespaceSelector` is not asked for one by one.
const MOST_NAMESPACES: usize = 16;
/// Past this many different questions labels are left out of them: whoever writes more means a good part of the pods.
const MOST_QUERIES: usize = 512;
/// The same for the values of labels in them.
const MOST_VALUES: usize = 4096;

/// The pods elsewhere that policies speak about, as the questions that their selectors are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    queries: BTreeSet<PodQuery>,
    /// How many values of labels there are in them.
    values: usize,
}

impl Interest {
    /// What the policies that select a local pod need to know.
    pub fn of(state: &State) -> Interest {
        let mut interest = Interest::default();
        // The peers of named ports are peers of the same rules.
        if state.memberships().endpoints().keys().any(|port| port.pods == PodScope::All) {
            interest.put(PodQuery::of_all());
        }
        for selector in state.memberships().members().keys().flat_map(|peers| peers.selectors()) {
            interest.add(selector, state.namespaces());
        }
        interest
    }

    /// What a policy would need to know if it selected a local pod, whether the state holds it or not.
    pub fn of_policy(policy: &NetworkPolicy, namespaces: &Namespaces) -> Interest {
        let mut interest = Interest::default();
        for direction in Direction::ALL {
            for rule in policy.rules(direction).unwrap_or_default() {
                if needs_everything(direction, rule) {
                    interest.put(PodQuery::of_all());
                }
                let Peers::These(peers) = &rule.peers else { continue };
                peers.iter().filter_map(Peer::pods).for_each(|selector| interest.add(selector, namespaces));
            }
        }
        interest
    }

    /// What all of them need to know.
    #[must_use]
    pub fn and<'a>(&'a self, others: impl Iterator<Item = &'a Interest>) -> Interest {
        let mut all = self.clone();
        others.flat_map(|other| &other.queries).for_each(|query| all.put(query.clone()));
        all
    }

    /// Whether nothing is of interest.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    /// What is not brought by watches that ask for this.
    #[must_use]
    pub fn missing<'a>(&self, known: impl Iterator<Item = &'a PodQuery> + Clone) -> Interest {
        self.queries.iter().filter(|query| !query.is_covered_by(known.clone())).cloned().collect()
    }

    /// Whether a watch brings any of what is of interest, so that it is not for nothing.
    pub fn wants(&self, watch: &PodQuery) -> bool {
        self.queries.iter().any(|query| watch.is_part_of(query))
    }

    fn add(&mut self, selector: &PodSelector, namespaces: &Namespaces) {
        let PodSelector { namespaces: scope, pods } = selector;
        let query = |namespace| PodQuery { namespace, labels: pods.clone() };
        match scope {
            NamespaceScope::Named(name) => self.put(query(Some(name.clone()))),
            NamespaceScope::Selected(labels) if labels.is_everything() => self.put(query(None)),
            NamespaceScope::Selected(labels) => {
                let matching = namespaces.iter().filter(|namespace| labels.matches(&namespace.labels));
                let names: Vec<_> = matching.map(|namespace| &namespace.name).take(MOST_NAMESPACES + 1).collect();
                if names.len() > MOST_NAMESPACES {
                    self.put(query(None));
                } else {
                    names.into_iter().for_each(|name| self.put(query(Some(name.clone()))));
                }
            }
        }
    }

    fn put(&mut self, query: PodQuery) {
        let whole = query.namespace.clone().map(PodQuery::of_namespace);
        if self.queries.contains(&PodQuery::of_all()) || whole.is_some_and(|whole| self.queries.contains(&whole)) {
            return;
        }
        if query.labels.is_everything() {
            self.queries.retain(|known| !query.covers(known));
            self.values = self.queries.iter().map(values_in).sum();
        }
        let values = values_in(&query);
        if self.queries.insert(query) {
            self.values += values;
            if self.is_large(MOST_QUERIES) {
                self.widen();
            }
        }
    }

    fn is_large(&self, most_queries: usize) -> bool {
        self.queries.len() > most_queries || self.values > MOST_VALUES
    }

    /// Leaves labels out: those of one namespace first, and then all.
    fn widen(&mut self) {
        let whole = |query: PodQuery| PodQuery { labels: Selector::default(), ..query };
        let queries = std::mem::take(&mut self.queries).into_iter();
        self.queries = queries.map(|query| if query.namespace.is_some() { whole(query) } else { query }).collect();
        self.values = self.queries.iter().map(values_in).sum();
        if self.is_large(MOST_QUERIES / 2) {
            *self = Interest { queries: BTreeSet::from([PodQuery::of_all()]), values: 0 };
        }
    }
}

impl FromIterator<PodQuery> for Interest {
    fn from_iter<I: IntoIterator<Item = PodQuery>>(queries: I) -> Self {
        let mut interest = Interest::default();
        queries.into_iter().for_each(|query| interest.put(query));
        interest
    }
}

/// How many values there are of the label that tells most.
fn values_in(query: &PodQuery) -> usize {
    telling(&query.labels).map_or(0, |(_, values)| values.len())
}

/// Whether named ports are looked up in all pods: those of destinations that no selector names.
fn needs_everything(direction: Direction, rule: &Rule) -> bool {
    let has_names = match &rule.ports {
        Ports::Any => false,
        Ports::These(ports) => ports.iter().any(|port| matches!(port.port, PortMatch::Named(_))),
    };
    let has_anybody = match &rule.peers {
        Peers::Any => true,
        Peers::These(peers) => peers.iter().any(|peer| matches!(peer, Peer::IpBlock(_))),
    };
    direction == Direction::Egress && has_names && has_anybody
}

#[cfg(test)]
mod tests;
