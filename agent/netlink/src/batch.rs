//! The bytes of one transaction, between BATCH_BEGIN and BATCH_END.

use compiler::diff::Generation;
use compiler::nft::TableFamily;
use rustix::io::Errno;

use crate::attr::{AttrReader, AttrWriter};
use crate::constants::{LIST_ELEM, elem, msg, nfnl, nl, rule};
use crate::expr::Expr;
use crate::message::{self, Ack, Header, Message};

/// A batch that messages are being added to.
#[derive(Debug)]
pub(crate) struct Batch {
    buffers: Buffers,
    sequence: u32,
    changes: bool,
}

/// A batch that can be sent.
#[derive(Debug)]
pub(crate) struct FinalizedBatch {
    buffers: Buffers,
    sequence: u32,
    changes: bool,
}

/// Memory that goes from one batch to the next, so that a small batch allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    /// Scratch space for the expressions of one rule.
    pub(crate) exprs: Vec<Expr>,
}

/// Where a message of a batch comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The place of its first byte.
    start: usize,
    /// The operation that it belongs to.
    pub(crate) op: usize,
    /// The first of the operation's keys or rules that it carries.
    pub(crate) first: usize,
}

/// One message to add.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewMessage {
    /// `NFT_MSG_*`
    pub(crate) kind: u16,
    /// `NLM_F_*`
    pub(crate) flags: u16,
    /// The family of the table that it is about.
    pub(crate) family: TableFamily,
    /// The operation that it belongs to.
    pub(crate) op: usize,
    /// The first of the operation's keys or rules that it carries.
    pub(crate) first: usize,
    /// Whether the kernel, if it takes the message, surely counts it as a change of the ruleset.
    pub(crate) changes: bool,
}

/// What the kernel's answers say about a batch.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// The batch as a whole was refused.
    pub(crate) whole: Option<Errno>,
    /// Messages that were refused, in the order of the batch: where each comes from, why, and which attribute.
    pub(crate) refused: Vec<(Slot, Errno, Option<usize>)>,
    /// The last message was processed: not yet a proof that the batch was committed.
    pub(crate) last: bool,
    /// BATCH_END was processed, which the kernel says after the commit (Linux 6.10 and newer).
    pub(crate) end: bool,
    /// Receiving failed, so that answers may be missing.
    pub(crate) lost: Option<Errno>,
}

// === impl Buffers ===

impl Buffers {
    /// The bytes of the batch that was built last.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

// === impl Batch ===

impl Batch {
    /// Starts a batch. With a generation the kernel refuses it (ERESTART) if that is not the present one.
    pub(crate) fn begin(mut buffers: Buffers, sequence: u32, generation: Option<Generation>) -> Batch {
        buffers.bytes.clear();
        buffers.slots.clear();
        let header =
            Header { kind: nfnl::MSG_BATCH_BEGIN, flags: 0, sequence, family: 0, resource: nfnl::SUBSYS_NFTABLES };
        message::write(&mut buffers.bytes, header, |w| {
            if let Some(generation) = generation {
                w.be32(nfnl::BATCH_GENID, generation.0);
            }
        });
        Batch { buffers, sequence, changes: false }
    }

    /// Adds a message about a table.
    pub(crate) fn add(&mut self, new: NewMessage, attributes: impl FnOnce(&mut AttrWriter<'_>)) {
        let header = Header {
            kind: message::nftables(new.kind),
            flags: new.flags,
            sequence: self.sequence.wrapping_add(self.next_sequence()),
            family: message::family_number(new.family),
            resource: 0,
        };
        let start = message::write(&mut self.buffers.bytes, header, attributes);
        self.buffers.slots.push(Slot { start, op: new.op, first: new.first });
        self.changes |= new.changes;
    }

    /// A number that no other set of this batch has.
    pub(crate) fn set_id(&self) -> u32 {
        self.next_sequence()
    }

    /// Scratch space for the expressions of one rule; give it back with [`Batch::restore_exprs`].
    pub(crate) fn take_exprs(&mut self) -> Vec<Expr> {
        std::mem::take(&mut self.buffers.exprs)
    }

    pub(crate) fn restore_exprs(&mut self, mut exprs: Vec<Expr>) {
        exprs.clear();
        self.buffers.exprs = exprs;
    }

    /// Ends the batch. Two answers are asked for: that of the end, which newer kernels give, and that of the last
    /// message, which all kernels give.
    pub(crate) fn finalize(mut self) -> FinalizedBatch {
        if let Some(last) = self.buffers.slots.last() {
            let flags = last.start + 6;
            let ack = nl::F_ACK.to_ne_bytes();
            self.buffers.bytes[flags] |= ack[0];
            self.buffers.bytes[flags + 1] |= ack[1];
        }
        let header = Header {
            kind: nfnl::MSG_BATCH_END,
            flags: nl::F_ACK,
            sequence: self.sequence.wrapping_add(self.next_sequence()),
            family: 0,
            resource: nfnl::SUBSYS_NFTABLES,
        };
        message::write(&mut self.buffers.bytes, header, |_| {});
        FinalizedBatch { buffers: self.buffers, sequence: self.sequence, changes: self.changes }
    }

    /// Gives the bytes so far, without an end: the kernel tries such a batch and then takes it back.
    pub(crate) fn into_trial(self) -> FinalizedBatch {
        let mut batch = self.finalize();
        batch.buffers.bytes.truncate(batch.buffers.bytes.len() - nl::NFGEN_HEADER);
        batch
    }

    /// The next sequence number, counted from that of the begin.
    fn next_sequence(&self) -> u32 {
        u32::try_from(self.buffers.slots.len() + 1).expect("a batch of 2^32 messages does not fit memory")
    }
}

// === impl FinalizedBatch ===

impl FinalizedBatch {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffers.bytes
    }

    /// How many messages stand between begin and end.
    pub(crate) fn messages(&self) -> usize {
        self.buffers.slots.len()
    }

    /// Whether a commit of it surely counts as a change of the ruleset.
    pub(crate) fn changes(&self) -> bool {
        self.changes
    }

    /// The sequence number behind the last one that is used.
    pub(crate) fn next_sequence(&self) -> u32 {
        let used = u32::try_from(self.buffers.slots.len() + 2).expect("the batch was numbered with 32 bits");
        self.sequence.wrapping_add(used)
    }

    /// Takes note of an answer; one to another batch is passed over.
    pub(crate) fn answer(&self, ack: Ack, answers: &mut Answers) {
        let Ok(place) = usize::try_from(ack.sequence.wrapping_sub(self.sequence)) else { return };
        let count = self.messages();
        match (place, ack.errno) {
            (0, Some(errno)) => answers.whole = answers.whole.or(Some(errno)),
            (0, None) => {}
            (place, Some(errno)) if place <= count => {
                answers.refused.push((self.buffers.slots[place - 1], errno, ack.offset));
            }
            (place, None) if place <= count => answers.last |= place == count,
            (place, Some(errno)) if place == count + 1 => answers.whole = answers.whole.or(Some(errno)),
            (place, None) if place == count + 1 => answers.end = true,
            _ => {}
        }
    }

    /// Which element of the message's list of set elements holds the attribute at `offset` of the message.
    pub(crate) fn element_at(&self, slot: Slot, offset: usize) -> Option<usize> {
        let message = self.message(slot)?;
        if !matches!(message.nftables()?, msg::NEWSETELEM | msg::DELSETELEM) {
            return None;
        }
        Some(in_list(&message, elem::LIST_ELEMENTS, offset)?.0)
    }

    /// The name of the rule's expression that holds the attribute at `offset` of the message.
    pub(crate) fn expression_at(&self, slot: Slot, offset: usize) -> Option<&str> {
        let message = self.message(slot)?;
        if message.nftables()? != msg::NEWRULE {
            return None;
        }
        in_list(&message, rule::EXPRESSIONS, offset)?.1.string(rule::EXPR_NAME)
    }

    /// Where the message at this place comes from.
    #[cfg(test)]
    pub(crate) fn slot(&self, place: usize) -> Slot {
        self.buffers.slots[place]
    }

    fn message(&self, slot: Slot) -> Option<Message<'_>> {
        message::Messages::new(self.buffers.bytes.get(slot.start..)?).next()
    }

    /// The memory, for the next batch.
    pub(crate) fn into_buffers(self) -> Buffers {
        self.buffers
    }
}

/// The element of a message's list that holds the attribute at `offset` of the message: its place, and what is in it.
fn in_list<'a>(message: &Message<'a>, list: u16, offset: usize) -> Option<(usize, AttrReader<'a>)> {
    let within = offset.checked_sub(nl::NFGEN_HEADER)?;
    let (start, _, value) = message.attributes().positions().find(|(_, kind, _)| *kind == list)?;
    // The list's own header is 4 bytes long, as is that of every element.
    let within = within.checked_sub(start + 4)?;
    let elements = AttrReader::new(value).positions().filter(|(_, kind, _)| *kind == LIST_ELEM);
    let mut numbered = elements.enumerate();
    let (place, (_, _, element)) =
        numbered.find(|(_, (start, _, element))| (*start..start + 4 + element.len()).contains(&within))?;
    Some((place, AttrReader::new(element)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(messages: usize) -> FinalizedBatch {
        let mut batch = Batch::begin(Buffers::default(), u32::MAX - 1, Some(Generation(5)));
        for op in 0..messages {
            batch.add(
                NewMessage { kind: msg::NEWTABLE, flags: 0, family: TableFamily::Inet, op, first: 0, changes: false },
                |_| {},
            );
        }
        batch.finalize()
    }

    fn ack(sequence: u32, errno: Option<Errno>) -> Ack {
        Ack { sequence, errno, offset: None }
    }

    #[test]
    fn answers_find_their_message_across_the_wrap_of_the_sequence() {
        let batch = batch(3);
        assert_eq!(batch.next_sequence(), 3);
        let mut answers = Answers::default();
        for (sequence, errno) in [(u32::MAX, Some(Errno::NOENT)), (1, None), (2, None), (77, Some(Errno::BUSY))] {
            batch.answer(ack(sequence, errno), &mut answers);
        }
        let refused: Vec<_> = answers.refused.iter().map(|(slot, errno, _)| (slot.op, *errno)).collect();
        assert_eq!(refused, [(0, Errno::NOENT)]);
        assert!(answers.last && answers.end && answers.whole.is_none());
    }

    #[test]
    fn an_error_of_begin_is_about_the_whole() {
        let batch = batch(1);
        let mut answers = Answers::default();
        batch.answer(ack(u32::MAX - 1, Some(Errno::PERM)), &mut answers);
        assert_eq!(answers.whole, Some(Errno::PERM));
        assert!(!answers.last && !answers.end);
    }

    #[test]
    fn only_the_last_message_and_the_end_ask_for_an_answer() {
        let batch = batch(3);
        let asked: Vec<bool> =
            message::Messages::new(batch.bytes()).map(|message| message.flags & nl::F_ACK != 0).collect();
        assert_eq!(asked, [false, false, false, true, true]);
    }
}
