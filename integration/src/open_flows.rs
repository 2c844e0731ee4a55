//! What a table says about open flows, apart from what the objects mean.

use std::sync::Arc;

use compiler::nft::{Chain, Match, SetName, Stmt, Table};

/// The table without its sets and rules about open flows: these depend on what was in force before, and go when nothing
/// is left of it.
pub fn without_open_flows(table: &Table) -> Table {
    let mut table = table.clone();
    for name in table.sets.keys().filter(|name| is_about_open_flows(name)).cloned().collect::<Vec<_>>() {
        table.sets.remove(&name);
    }
    let looks_flows_up = |stmt: &Stmt| matches!(stmt, Stmt::Match(Match::In(_, set)) if is_about_open_flows(set));
    for (name, chain) in table.chains.clone() {
        if chain.rules.iter().any(|rule| rule.stmts.iter().any(looks_flows_up)) {
            let mut others = Chain::clone(&chain);
            others.rules.retain(|rule| !rule.stmts.iter().any(looks_flows_up));
            table.chains.insert(name, Arc::new(others));
        }
    }
    table
}

fn is_about_open_flows(set: &SetName) -> bool {
    ["cut-", "rejudged-"].iter().any(|start| set.as_str().starts_with(start))
}
