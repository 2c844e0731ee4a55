//! Who may talk to whom, by port: of one cluster, or of two side by side.
//!
//! Pods that are alike to every policy are one party, and so are the addresses outside that no policy tells apart. Between
//! two parties each port is judged as `explain` judges it; of the ports that no rule and no container port tells apart, one is asked
//! for all. So what is said is said of every pod and of every port.
//!
//! ```text
//! parties  clusters         -> who there is (blocks: outside)
//! judging  two parties      -> the open ports between them
//! reasons  two parties      -> why, in the words of explain
//! changes  two clusters     -> what opens and what closes
//! traffic  changes, flows   -> what is cut, and what passes again
//! text     either           -> what people read
//! page     either           -> the same, with the reasons, for a browser
//! ```

mod blocks;
pub mod changes;
mod judging;
pub mod page;
mod parties;
mod ports;
mod reasons;
pub mod text;
pub mod traffic;

use std::collections::BTreeSet;
use std::thread;

use compiler::api::{PodKey, WorkloadKey};
use ipnet::IpNet;

use crate::model::{EndError, EndKind, Model, Named, nearest};
pub use judging::Open;
pub use parties::Party;
use parties::{Everybody, OUTSIDE, everybody};
pub use ports::Ports;
pub use reasons::{Reason, Why};

/// Into how many parts each thread's work is cut, for some pairs take longer than others.
const CHUNKS: usize = 16;

/// Who may talk to whom.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// Everybody: by namespace and name, and last who is outside.
    pub parties: Vec<Party>,
    /// The pairs, by client and then by server.
    pub cells: Vec<Cell>,
    /// How many of the CIDRs that policies name are no parties, for there are too many.
    pub left_out: usize,
    /// What is to be said besides.
    pub notes: Vec<String>,
}

/// A client, a server, and what is open between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// The client's place among the parties.
    pub from: usize,
    /// The server's.
    pub to: usize,
    /// What is open in each cluster; nothing where either is not there.
    pub open: Vec<Open>,
}

/// Which pairs are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// All.
    All,
    /// Those with a party by this name: `deploy/shop/web`, `ns/shop`, `shop/web-0`, an address outside.
    Of(Named),
}

impl Matrix {
    /// Why each port between the ends of a cell is open or closed in each cluster, of which this is the matrix.
    pub fn reasons(&self, models: &[&Model], cell: &Cell, with_nearest: bool) -> Vec<Vec<Reason>> {
        let ends = [&self.parties[cell.from], &self.parties[cell.to]];
        let of_model =
            |(index, model): (usize, &&Model)| reasons::reasons(model, index, ends, cell.from == cell.to, with_nearest);
        models.iter().enumerate().map(of_model).collect()
    }

    /// Judges all pairs of clusters of which `filter` leaves one side at least.
    ///
    /// # Errors
    ///
    /// If the filter names nobody.
    pub fn of(models: &[&Model], filter: &Filter) -> Result<Matrix, EndError> {
        let Everybody { parties, left_out, notes } = everybody(models);
        let wanted: BTreeSet<usize> =
            (0..parties.len()).filter(|index| filter.is_met_by(&parties[*index], models)).collect();
        if let (Filter::Of(named), true) = (filter, wanted.is_empty()) {
            let name = name_of(named);
            let near = nearest(&name, parties.iter().map(|party| bare(&party.name).to_owned()));
            return Err(EndError::NoSuch("end", format!("{name} among those whom policies are about{near}")));
        }
        let is_asked = |from: usize, to: usize| {
            let is_inside = parties[from].namespace.is_some() || parties[to].namespace.is_some();
            is_inside && (wanted.contains(&from) || wanted.contains(&to))
        };
        let of_pair = |from: usize, to: usize| {
            if !is_asked(from, to) {
                return None;
            }
            let open: Vec<Option<Open>> = (0..models.len())
                .map(|index| judging::open(models[index], index, &parties[from], &parties[to], from == to))
                .collect();
            let is_there = open.iter().any(Option::is_some);
            let open = open.into_iter().map(Option::unwrap_or_default).collect();
            is_there.then_some(Cell { from, to, open })
        };
        let all: Vec<(usize, usize)> =
            (0..parties.len()).flat_map(|from| (0..parties.len()).map(move |to| (from, to))).collect();
        let cells = side_by_side(&all, |(from, to)| of_pair(*from, *to)).into_iter().flatten().collect();
        Ok(Matrix { parties, cells, left_out, notes })
    }
}

/// What comes of each of many, in their order, by all processors.
fn side_by_side<T: Sync, R: Send>(all: &[T], each: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let chunk = all.len().div_ceil(threads * CHUNKS).max(1);
    let chunks: Vec<&[T]> = all.chunks(chunk).collect();
    let of_thread = |thread: usize| {
        let mine = (thread..chunks.len()).step_by(threads);
        mine.map(|place| (place, chunks[place].iter().map(&each).collect::<Vec<R>>())).collect::<Vec<_>>()
    };
    let mut done: Vec<(usize, Vec<R>)> = thread::scope(|scope| {
        let of_thread = &of_thread;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || of_thread(thread))).collect();
        running.into_iter().flat_map(|thread| thread.join().expect("judging does not panic")).collect()
    });
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().flat_map(|(_, results)| results).collect()
}

/// The pods of a cluster that have to be tried, each with what it is called: of a workload's that are alike two, by the name of
/// the workload, and every pod that is of none.
pub fn to_be_tried(model: &Model) -> Vec<(String, PodKey)> {
    let parties = everybody(&[model]).parties;
    let of_party = |party: Party| {
        let most = if party.workload.is_some() { 2 } else { usize::MAX };
        let name = party.name.strip_prefix("pod/").map(str::to_owned);
        let pods: Vec<PodKey> = party.pods(0).iter().take(most).cloned().collect();
        pods.into_iter().map(move |pod| match (&party.workload, &name) {
            (Some(_), None) => (party.name.clone(), pod),
            // Pods that are not like the others of their workload go by the first of them.
            (Some(_), Some(first)) => (first.clone(), pod),
            (None, _) => (pod.to_string(), pod),
        })
    };
    let mut tried: Vec<(String, PodKey)> = parties.into_iter().flat_map(of_party).collect();
    tried.sort_by(|(a_name, a), (b_name, b)| (&a.namespace, a_name, a).cmp(&(&b.namespace, b_name, b)));
    tried
}

impl Filter {
    fn is_met_by(&self, party: &Party, models: &[&Model]) -> bool {
        let Filter::Of(named) = self else { return true };
        let has_pod = |namespace: &str, name: &str| {
            let pods = party.members.iter().flatten().flat_map(|members| &members.pods);
            pods.into_iter().any(|pod| &*pod.namespace == namespace && &*pod.name == name)
        };
        match named {
            Named::Address(address) if party.namespace.is_none() => {
                let network = if party.name == OUTSIDE { None } else { party.name.parse::<IpNet>().ok() };
                network.is_some_and(|network| network.contains(address))
            }
            Named::Plain { name, .. } if party.name == OUTSIDE => name == OUTSIDE,
            Named::Address(address) => party.members.iter().zip(models).any(|(members, model)| {
                let pods = members.iter().flat_map(|members| &members.pods);
                pods.filter_map(|pod| model.pod(pod)).any(|pod| pod.ips.contains(address))
            }),
            Named::Plain { namespace, name } => has_pod(namespace, name),
            Named::Of { kind: EndKind::Pod, namespace, name, .. } => has_pod(namespace, name),
            Named::Of { kind: EndKind::Namespace, name, .. } => party.namespace.as_deref() == Some(name),
            Named::Of { kind: EndKind::Workload(kind), namespace, name, .. } => {
                let key = WorkloadKey { kind: *kind, namespace: namespace.as_str().into(), name: name.as_str().into() };
                party.workload.as_ref() == Some(&key)
            }
            Named::Of { kind: EndKind::Service | EndKind::Node, .. } => false,
        }
    }
}

/// A name as it is said again.
fn name_of(named: &Named) -> String {
    match named {
        Named::Address(address) => address.to_string(),
        Named::Plain { namespace, name } => format!("{namespace}/{name}"),
        Named::Of { kind: EndKind::Node | EndKind::Namespace, name, .. } => name.clone(),
        Named::Of { namespace, name, .. } => format!("{namespace}/{name}"),
    }
}

/// The name of a party without its kind.
fn bare(name: &str) -> &str {
    name.split_once('/').map_or(name, |(_, bare)| bare)
}

#[cfg(test)]
mod tests;
