//! Why ports between two parties are open or closed: what `explain` answers of each port, said once for those of which it
//! says the same.

use compiler::api::{Direction, Protocol};
use compiler::nft::Family;
use compiler::policy::Effort;

use super::judging::{Pair, pairs};
use super::{Party, Ports};
use crate::model::{Model, quarantined};
use crate::near_rule::NearRule;
use crate::probes::SideAnswer;

/// Ports of which the same is said.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    /// The family of which it is said; `None` where there is one, or both are alike.
    pub family: Option<Family>,
    /// The ports.
    pub ports: Ports,
    /// Whether they are open.
    pub allowed: bool,
    /// What the client's side says, and the server's.
    pub sides: [Why; 2],
    /// The one that stands for them, `5432/TCP`.
    pub asked: String,
}

/// What one side says, in the words of `explain`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Why {
    /// `isolated by shop/db; allowed by shop/db ingress[0]`
    pub reason: String,
    /// Which of the policies that isolate it are in quarantine.
    pub quarantined: Vec<String>,
    /// The rule that comes nearest, where policies refuse it and that was wanted.
    pub nearest: Option<String>,
}

/// What is said of all ports from one party to another in the cluster with this place. Nothing, where the matrix has no
/// cell. The nearest rules are sought where that is wanted.
pub(super) fn reasons(
    model: &Model,
    index: usize,
    [from, to]: [&Party; 2],
    is_same: bool,
    with_nearest: bool,
) -> Vec<Reason> {
    let of = pairs(index, from, to, is_same);
    let of = of.map(|pair| pair.map(|pair| of_pair(model, &pair, with_nearest)));
    match of {
        [Some(v4), Some(v6)] if v4 == v6 => v4,
        [Some(v4), Some(v6)] => {
            let of_family = |family, reasons: Vec<Reason>| {
                reasons.into_iter().map(move |reason| Reason { family: Some(family), ..reason })
            };
            of_family(Family::V4, v4).chain(of_family(Family::V6, v6)).collect()
        }
        [Some(reasons), None] | [None, Some(reasons)] => reasons,
        [None, None] => Vec::new(),
    }
}

fn of_pair(model: &Model, pair: &Pair<'_>, with_nearest: bool) -> Vec<Reason> {
    let directions = [Direction::Egress, Direction::Ingress];
    let cuts: Vec<(Protocol, u16)> =
        directions.iter().filter_map(|direction| pair.cuts(model, *direction)).flatten().collect();
    let why = |direction: Direction, port| {
        let judgement = pair.judged(model, direction, port);
        let nearest = || model.nearest(direction, &pair.packet(port), &mut Effort::default());
        let nearest = if with_nearest && !judgement.allowed { nearest() } else { None };
        let why = Why {
            reason: SideAnswer::of(&judgement, direction).reason(),
            quarantined: pair.own_ir(model, direction).map_or(Vec::new(), |ir| quarantined(ir, &judgement)),
            nearest: nearest.map(|nearest| NearRule::of(&nearest, direction).in_words(direction)),
        };
        (judgement.allowed, why)
    };
    let by = Ports::by(&cuts, |port| {
        let [(client_allows, client), (server_allows, server)] = directions.map(|direction| why(direction, port));
        (client_allows && server_allows, [client, server])
    });
    let reason = |((allowed, sides), ports): ((bool, [Why; 2]), Ports)| {
        // A port that the server has says more than the first of many.
        let named = pair.named(model).find(|port| ports.contains(Some(*port)));
        let asked = named.map(|(protocol, port)| format!("{port}/{protocol}")).unwrap_or_else(|| ports.first());
        Reason { family: None, ports, allowed, sides, asked }
    };
    let mut reasons: Vec<Reason> = by.into_iter().map(reason).collect();
    // What is open first, and of the rest last what has no ports.
    reasons.sort_by_key(|reason| (!reason.allowed, !reason.ports.has_ports()));
    reasons
}
