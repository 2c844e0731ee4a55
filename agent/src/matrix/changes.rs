//! What opens and what closes between two clusters: before, and after.

use super::{Matrix, Open, Party};

/// What changes between a client and a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The client's place among the parties.
    pub from: usize,
    /// The server's.
    pub to: usize,
    /// What is open after, and was not before.
    pub opens: Open,
    /// What was open before, and is not after.
    pub closes: Open,
}

/// The pairs of a matrix of two clusters between which something changes.
pub fn changes(matrix: &Matrix) -> Vec<Change> {
    let change = |cell: &super::Cell| {
        let [before, after] = &cell.open[..] else { return None };
        let [before, after] = [before.of_families_of(after), after.of_families_of(before)];
        let (opens, closes) = (after.minus(&before), before.minus(&after));
        let is_change = !opens.is_none() || !closes.is_none();
        is_change.then_some(Change { from: cell.from, to: cell.to, opens, closes })
    };
    matrix.cells.iter().filter_map(change).collect()
}

/// Who is in one of the two clusters only: `comes` or `goes`. CIDRs come and go with the policies that name them.
pub fn arrivals(matrix: &Matrix) -> impl Iterator<Item = (&'static str, &Party)> {
    matrix.parties.iter().filter_map(|party| match (&party.members[..], party.namespace.is_some()) {
        ([None, Some(_)], true) => Some(("comes", party)),
        ([Some(_), None], true) => Some(("goes", party)),
        (_, _) => None,
    })
}
