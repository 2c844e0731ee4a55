//! Netlink attributes: appended to a buffer, read from a slice.
//!
//! An attribute is a `u16` length, a `u16` type in host order, and a value that is padded to four bytes; the length
//! counts the header but not the padding. nf_tables writes its integers big endian.

use crate::constants::nl;

const HEADER: usize = 4;

/// Appends attributes to a buffer.
#[derive(Debug)]
pub(crate) struct AttrWriter<'a> {
    buffer: &'a mut Vec<u8>,
}

/// The attributes of a slice, as type and value. Ends at the first one that is malformed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttrReader<'a> {
    bytes: &'a [u8],
}

// === impl AttrWriter ===

impl<'a> AttrWriter<'a> {
    pub(crate) fn new(buffer: &'a mut Vec<u8>) -> Self {
        Self { buffer }
    }

    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.parts(kind, value, &[]);
    }

    /// Strings carry a closing NUL.
    pub(crate) fn string(&mut self, kind: u16, value: &str) {
        self.parts(kind, value.as_bytes(), &[0]);
    }

    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn be64(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// A comment as user data: type, length, text with its NUL.
    pub(crate) fn comment(&mut self, kind: u16, udata: u8, text: &str) {
        self.user_data(kind, &[], Some((udata, text)));
    }

    /// Numbers in host order and a comment as user data, each with type and length; nothing where there are none.
    pub(crate) fn user_data(&mut self, kind: u16, numbers: &[(u8, u32)], comment: Option<(u8, &str)>) {
        if numbers.is_empty() && comment.is_none() {
            return;
        }
        let start = self.open(kind);
        for (udata, number) in numbers {
            self.buffer.extend_from_slice(&[*udata, 4]);
            self.buffer.extend_from_slice(&number.to_ne_bytes());
        }
        if let Some((udata, text)) = comment {
            let len = u8::try_from(text.len() + 1).expect("a comment comes from its constructor or from user data");
            self.buffer.extend_from_slice(&[udata, len]);
            self.buffer.extend_from_slice(text.as_bytes());
            self.buffer.push(0);
        }
        self.close(start);
    }

    /// An attribute that holds attributes.
    pub(crate) fn nest(&mut self, kind: u16, write: impl FnOnce(&mut AttrWriter<'_>)) {
        let start = self.open(kind | nl::ATTR_NESTED);
        write(&mut AttrWriter { buffer: self.buffer });
        self.close(start);
    }

    /// The same, filled from `items` as long as the value stays below `limit`, to which one item may add at most
    /// what the type of the length has left. Gives how many items went in.
    pub(crate) fn nest_while<T>(
        &mut self,
        kind: u16,
        limit: usize,
        items: &[T],
        mut write: impl FnMut(&mut AttrWriter<'_>, &T),
    ) -> usize {
        let start = self.open(kind | nl::ATTR_NESTED);
        let mut written = 0;
        for item in items {
            if self.buffer.len() - start >= limit {
                break;
            }
            write(&mut AttrWriter { buffer: self.buffer }, item);
            written += 1;
        }
        self.close(start);
        written
    }

    fn parts(&mut self, kind: u16, head: &[u8], tail: &[u8]) {
        let start = self.open(kind);
        self.buffer.extend_from_slice(head);
        self.buffer.extend_from_slice(tail);
        self.close(start);
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0, 0]);
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        let len = u16::try_from(self.buffer.len() - start)
            .expect("names and comments are bounded, rules are short, and lists of elements are split");
        self.buffer[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.buffer.resize(self.buffer.len().next_multiple_of(4), 0);
    }
}

// === impl AttrReader ===

impl<'a> AttrReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The value of the first attribute of this type.
    pub(crate) fn get(self, kind: u16) -> Option<&'a [u8]> {
        let mut attributes = self;
        attributes.find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    pub(crate) fn has(self, kind: u16) -> bool {
        self.get(kind).is_some()
    }

    pub(crate) fn nested(self, kind: u16) -> Option<AttrReader<'a>> {
        self.get(kind).map(AttrReader::new)
    }

    pub(crate) fn byte(self, kind: u16) -> Option<u8> {
        let [byte] = self.get(kind)? else { return None };
        Some(*byte)
    }

    pub(crate) fn be16(self, kind: u16) -> Option<u16> {
        Some(u16::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    pub(crate) fn be32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    pub(crate) fn be64(self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    pub(crate) fn string(self, kind: u16) -> Option<&'a str> {
        let value = self.get(kind)?;
        std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
    }

    /// The text of a comment in user data. `Err` is a comment that is no text; other values are passed over,
    /// because they only tell `nft` how to print.
    pub(crate) fn comment(self, kind: u16, udata: u8) -> Result<Option<&'a str>, NotText> {
        let mut rest = self.get(kind).unwrap_or(&[]);
        while let [found, len, tail @ ..] = rest {
            let Some((value, after)) = tail.split_at_checked(usize::from(*len)) else { break };
            if *found == udata {
                let text = value.strip_suffix(&[0]).unwrap_or(value);
                return std::str::from_utf8(text).map(Some).map_err(|_| NotText);
            }
            rest = after;
        }
        Ok(None)
    }

    /// The place in this slice at which the next attribute begins, and the attribute.
    pub(crate) fn positions(self) -> impl Iterator<Item = (usize, u16, &'a [u8])> {
        let whole = self.bytes.len();
        let mut rest = self;
        std::iter::from_fn(move || {
            let at = whole - rest.bytes.len();
            rest.next().map(|(kind, value)| (at, kind, value))
        })
    }
}

impl<'a> Iterator for AttrReader<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [l0, l1, k0, k1, ..] = self.bytes else { return None };
        let len = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let kind = u16::from_ne_bytes([*k0, *k1]) & nl::ATTR_TYPE_MASK;
        let value = self.bytes.get(HEADER..len)?;
        // The last attribute may come without its padding.
        self.bytes = self.bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

/// A comment is not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotText;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut buffer = Vec::new();
        let mut writer = AttrWriter::new(&mut buffer);
        writer.string(1, "abc");
        writer.be32(2, 7);
        writer.nest(3, |writer| {
            writer.bytes(1, &[9]);
            writer.be64(2, 1 << 40);
        });
        writer.comment(4, 7, "why");
        assert_eq!(buffer.len() % 4, 0);
        let reader = AttrReader::new(&buffer);
        assert_eq!(reader.string(1), Some("abc"));
        assert_eq!(reader.be32(2), Some(7));
        let nested = reader.nested(3).unwrap();
        assert_eq!((nested.byte(1), nested.be64(2)), (Some(9), Some(1 << 40)));
        assert_eq!(reader.comment(4, 7), Ok(Some("why")));
        assert_eq!(reader.comment(4, 0), Ok(None));
        assert_eq!(reader.be32(1), Some(u32::from_be_bytes(*b"abc\0")));
        assert_eq!(reader.be64(2), None, "a value of another length is no value");
        assert_eq!(reader.positions().map(|(at, ..)| at).collect::<Vec<_>>(), [0, 8, 16, 40]);
    }

    #[test]
    fn malformed_attributes_end_the_list() {
        for bytes in [&[0u8, 0, 1, 0][..], &[3, 0, 1, 0], &[9, 0, 1, 0, 5], &[4, 0, 1], &[]] {
            assert_eq!(AttrReader::new(bytes).next(), None, "{bytes:?}");
        }
        assert_eq!(AttrReader::new(&[5, 0, 1, 0, 8]).next(), Some((1, &[8][..])), "padding may be left out at the end");
    }

    #[test]
    fn user_data_is_bounded_by_its_own_lengths() {
        let mut buffer = Vec::new();
        AttrWriter::new(&mut buffer).bytes(1, &[1, 4, 1, 0, 0, 0, 0, 200, b'x']);
        assert_eq!(AttrReader::new(&buffer).comment(1, 0), Ok(None));
        buffer.clear();
        AttrWriter::new(&mut buffer).bytes(1, &[1, 1, 1, 0, 2, 0xff, 0]);
        assert_eq!(AttrReader::new(&buffer).comment(1, 0), Err(NotText));
    }
}
