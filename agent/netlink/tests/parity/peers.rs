//! What rustables reads of what we wrote.

use compiler::nft::Table;
use rustables::{list_chains_for_table, list_rules_for_chain, list_tables};

use super::support::{commit_new, open};
use super::tables::everything;

pub(crate) fn rustables_reads_tables_chains_and_rules() {
    let expected: Table = everything();
    commit_new(&mut open(), &expected);
    let tables = list_tables().unwrap();
    let [table] = &tables[..] else { panic!("{tables:?}") };
    assert_eq!(table.get_name().map(String::as_str), Some("postern"));
    let chains = list_chains_for_table(table).unwrap();
    assert_eq!(chains.len(), expected.chains.len());
    for chain in &chains {
        let name = chain.get_name().unwrap();
        let ours = &expected.chains[&compiler::nft::ChainName::from_kernel(name)];
        let hook =
            chain.get_hook().map(|hook| (*hook.get_class().unwrap(), hook.get_priority().unwrap().cast_signed()));
        assert_eq!(hook, ours.base.map(|base| (base.hook as u32, base.priority)), "{name}");
        if ours.rules.is_empty() {
            assert!(list_rules_for_chain(chain).unwrap().is_empty());
        }
    }
}
