//! What rustables reads of what we wrote.

use std::sync::Arc;

use compiler::nft::{ChainName, Field, Match, Rule, Stmt};
use rustables::{list_chains_for_table, list_rules_for_chain, list_tables};

use super::support::{commit_new, open};
use super::tables::{UNHOOKED, chain_name, everything};

/// rustables knows the registers of 16 bytes only, which leaves concatenations out, no named objects, no direction of a
/// flow, no limits of sets, no log, and no `fib`, for which there is a chain.
fn is_known(rule: &Rule) -> bool {
    let wide = |field: &Field| matches!(field, Field::Endpoint(_) | Field::Pair(_) | Field::Flow(_));
    !rule.stmts.iter().any(|stmt| match stmt {
        Stmt::Match(Match::In(field, _)) | Stmt::VerdictMap(field, _) => wide(field),
        Stmt::CounterName(_) | Stmt::Log(..) | Stmt::Match(Match::Original | Match::Limit(..) | Match::NotIn(..)) => {
            true
        }
        Stmt::Match(_) | Stmt::Counter | Stmt::Reject(_) | Stmt::Verdict(_) => false,
    })
}

pub(crate) fn rustables_reads_tables_chains_and_rules() {
    let mut expected = everything();
    expected.chains.remove(&chain_name(UNHOOKED));
    let main = expected.chains.get_mut(&chain_name("b-main")).unwrap();
    Arc::make_mut(main).rules.retain(is_known);
    assert!(main.rules.len() > 30);
    commit_new(&mut open(), &expected);
    let tables = list_tables().unwrap();
    let [table] = &tables[..] else { panic!("{tables:?}") };
    assert_eq!(table.get_name().map(String::as_str), Some("postern"));
    let chains = list_chains_for_table(table).unwrap();
    assert_eq!(chains.len(), expected.chains.len());
    for chain in &chains {
        let name = chain.get_name().unwrap();
        let ours = &expected.chains[&ChainName::from_kernel(name)];
        let hook =
            chain.get_hook().map(|hook| (*hook.get_class().unwrap(), hook.get_priority().unwrap().cast_signed()));
        assert_eq!(hook, ours.base.map(|base| (base.hook as u32, base.priority)), "{name}");
        let rules = list_rules_for_chain(chain).unwrap();
        assert_eq!(rules.len(), ours.rules.len(), "{name}");
        for (rule, ours) in rules.iter().zip(&ours.rules) {
            let comment = ours.comment.as_ref().map(|comment| comment.as_str());
            // Type 0, the length with the closing NUL, and the text.
            let text = rule.get_userdata().map(|data| std::str::from_utf8(&data[2..data.len() - 1]).unwrap());
            assert_eq!(text, comment);
        }
    }
}
