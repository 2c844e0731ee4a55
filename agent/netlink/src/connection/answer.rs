//! What the kernel's answers mean for a transaction.

use compiler::diff::{Generation, Op, Transaction};
use compiler::nft::Key;
use rustix::io::Errno;

use crate::batch::{FinalizedBatch, Slot};
use crate::encode::elements_of;
use crate::{At, Refusal};

/// The generation behind this one; 0 is left out (`nf_tables_commit`).
pub(super) fn next_generation(generation: Generation) -> Generation {
    Generation(generation.0.checked_add(1).unwrap_or(1))
}

/// What was refused, from the message of the transaction's batch that the kernel names, and the attribute in it.
pub(crate) fn refusal(
    transaction: &Transaction,
    slot: Slot,
    errno: Errno,
    offset: Option<usize>,
    batch: &FinalizedBatch,
) -> Refusal {
    let op = &transaction.ops()[slot.op];
    let at = locate(op, slot, offset.and_then(|offset| batch.element_at(slot, offset)));
    let expression = offset.and_then(|offset| batch.expression_at(slot, offset)).map(str::to_owned);
    Refusal { op: slot.op, what: op.to_string(), at, expression, errno }
}

/// The part of an operation that a message carried, narrowed to one key by the place of the element in its list.
fn locate(op: &Op, slot: Slot, element: Option<usize>) -> At {
    match op {
        Op::AddRules(..) => At::Rule(slot.first),
        Op::AddKeys(_, keys) | Op::DeleteKeys(_, keys) | Op::DeleteMapElements(_, keys) => {
            key_of_element(keys.iter().skip(slot.first).copied(), element)
        }
        Op::AddMapElements(_, elements) => {
            key_of_element(elements.iter().map(|(key, _)| *key).skip(slot.first), element)
        }
        Op::DestroyTables
        | Op::AddTable(_)
        | Op::DeleteTable(_)
        | Op::AddCounter(_)
        | Op::AddSet(..)
        | Op::AddMap(..)
        | Op::AddChain(..)
        | Op::FlushChain(_)
        | Op::DeleteChain(_)
        | Op::DeleteSet(_)
        | Op::DeleteMap(_)
        | Op::DeleteCounter(_) => At::Whole,
    }
}

/// A key is one element, or two if it is a range that does not reach the top.
fn key_of_element(keys: impl Iterator<Item = Key>, element: Option<usize>) -> At {
    let Some(mut left) = element else { return At::Whole };
    for key in keys {
        let elements = 1 + usize::from(elements_of(&key).1.is_some());
        if left < elements {
            return At::Key(key);
        }
        left -= elements;
    }
    At::Whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use compiler::api::PortRange;
    use compiler::nft::{Chain, ChainName, CtState, Match, Rule, Stmt, Verdict};

    use crate::Error;
    use crate::batch::{Batch, Buffers};
    use crate::encode::{Context, Held, encode};
    use crate::message::Messages;

    #[test]
    fn elements_lead_back_to_their_range() {
        let keys = [(80, 90), (443, 443), (65535, 65535)].map(|(first, last)| Key::Ports(PortRange { first, last }));
        let found: Vec<At> = (0..6).map(|element| key_of_element(keys.into_iter(), Some(element))).collect();
        let [a, b, c] = keys.map(At::Key);
        assert_eq!(found, [a, a, b, b, c, At::Whole]);
    }

    #[test]
    fn an_expression_that_the_kernel_does_not_know_is_named() {
        let rule = Rule {
            stmts: [Stmt::Match(Match::CtState(vec![CtState::Established])), Stmt::Verdict(Verdict::Accept)].to_vec(),
            comment: None,
        };
        let chain = Chain { rules: vec![rule], ..Chain::default() };
        let ops = vec![Op::AddRules(ChainName::from_kernel("forward"), Arc::new(chain))];
        let transaction = Transaction::new(ops, None);
        let mut batch = Batch::begin(Buffers::default(), 1, None);
        encode(&mut batch, &transaction, Context { table_flags: 0, held: Held { inet: true, bridge: false } });
        let batch = batch.finalize();
        let begin = Messages::new(batch.bytes()).next().unwrap().whole.len();
        let refused = |name: &[u8]| {
            // The kernel points at the element of the list, behind whose header that of the name stands.
            let name = batch.bytes()[begin..].windows(name.len()).position(|bytes| bytes == name).unwrap();
            let slot = batch.slot(0);
            Error::Refused(vec![refusal(&transaction, slot, Errno::NOENT, Some(name - 8), &batch)])
        };
        let error = refused(b"ct\0");
        assert_eq!(error.missing_expression(), Some("ct"));
        let text = error.to_string();
        assert!(text.contains("chain forward at rule 0, expression ct: "), "{text}");
        // The same errno of a jump is about the chain that it leads to.
        assert_eq!(refused(b"immediate\0").missing_expression(), None);
    }

    #[test]
    fn generations_leave_zero_out() {
        assert_eq!(next_generation(Generation(7)), Generation(8));
        assert_eq!(next_generation(Generation(u32::MAX)), Generation(1));
    }
}
