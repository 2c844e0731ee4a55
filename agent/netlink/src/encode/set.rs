//! Sets, verdict maps and their elements.

use compiler::nft::{Comment, Family, Filled, Key, KeyType, MapElement, Set, SetName, TABLE, VerdictMap};

use super::key::{KeyBytes, elements_of};
use crate::attr::AttrWriter;
use crate::batch::{Batch, NewMessage};
use crate::constants::{LIST_ELEM, data, datatype, elem, set, udata};
use crate::expr::encode_verdict;

/// A list of elements ends at this length, so that one element more still fits the `u16` of an attribute's length:
/// an element holds at most a key of 44 bytes (twice, for a range), a name and a comment of 255 bytes each, and
/// headers.
const LIST_LIMIT: usize = 64_000;
/// A second in the unit of `NFTA_SET_TIMEOUT`.
pub(crate) const MILLISECONDS: u64 = 1000;

/// What the kernel and `nft` call a type of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SetType {
    /// `NFTA_SET_KEY_TYPE`, for `nft` to print.
    pub(crate) datatype: u32,
    /// `NFTA_SET_KEY_LEN`
    pub(crate) key_len: u32,
    /// `NFT_SET_*`
    pub(crate) flags: u32,
    /// The lengths of the parts of a concatenation, without padding.
    fields: &'static [u32],
}

/// The kernel's and nft's words for a type of keys.
pub(crate) fn set_type(key_type: KeyType) -> SetType {
    use datatype::{BITS, INET_PROTOCOL, INET_SERVICE};
    match key_type {
        KeyType::Address(family) => {
            SetType { datatype: address(family), key_len: address_len(family), flags: 0, fields: &[] }
        }
        KeyType::AddressRange(family) => {
            SetType { datatype: address(family), key_len: address_len(family), flags: set::F_INTERVAL, fields: &[] }
        }
        KeyType::PortRange => SetType { datatype: INET_SERVICE, key_len: 2, flags: set::F_INTERVAL, fields: &[] },
        KeyType::Endpoint(family) => SetType {
            datatype: (address(family) << (2 * BITS)) | (INET_PROTOCOL << BITS) | INET_SERVICE,
            key_len: address_len(family) + 8,
            flags: set::F_CONCAT,
            fields: match family {
                Family::V4 => &[4, 1, 2],
                Family::V6 => &[16, 1, 2],
            },
        },
        KeyType::Pair(family) => SetType {
            datatype: (address(family) << BITS) | address(family),
            key_len: 2 * address_len(family),
            flags: set::F_CONCAT,
            fields: match family {
                Family::V4 => &[4, 4],
                Family::V6 => &[16, 16],
            },
        },
        KeyType::Link => SetType { datatype: datatype::IFNAME, key_len: 16, flags: 0, fields: &[] },
        KeyType::Flow(family) => SetType {
            datatype: [address(family), INET_PROTOCOL, INET_SERVICE, INET_SERVICE]
                .into_iter()
                .fold(address(family), |types, next| (types << BITS) | next),
            key_len: 2 * address_len(family) + 12,
            flags: set::F_CONCAT,
            fields: match family {
                Family::V4 => &[4, 4, 1, 2, 2],
                Family::V6 => &[16, 16, 1, 2, 2],
            },
        },
    }
}

pub(super) fn put_set(batch: &mut Batch, new: NewMessage, name: &SetName, added: &Set) {
    let Set { key_type, comment, keys: _, filled } = added;
    put_header(
        batch,
        new,
        TABLE,
        &Header { name, key_type: *key_type, comment: comment.as_ref(), filled: *filled, is_map: false },
    );
}

/// The same in a table of another name.
pub(crate) fn put_set_of(
    batch: &mut Batch,
    new: NewMessage,
    table: &str,
    name: &SetName,
    key_type: KeyType,
    filled: Filled,
) {
    put_header(batch, new, table, &Header { name, key_type, comment: None, filled: Some(filled), is_map: false });
}

pub(super) fn put_map(batch: &mut Batch, new: NewMessage, name: &SetName, map: &VerdictMap) {
    let VerdictMap { key_type, comment, elements: _ } = map;
    put_header(
        batch,
        new,
        TABLE,
        &Header { name, key_type: *key_type, comment: comment.as_ref(), filled: None, is_map: true },
    );
}

/// What is said of a set or map when it is made.
struct Header<'a> {
    name: &'a SetName,
    key_type: KeyType,
    comment: Option<&'a Comment>,
    filled: Option<Filled>,
    is_map: bool,
}

fn put_header(batch: &mut Batch, new: NewMessage, table: &str, header: &Header<'_>) {
    let Header { name, key_type, comment, filled, is_map } = *header;
    let SetType { datatype, key_len, flags, fields } = set_type(key_type);
    let flags = if is_map { flags | set::F_MAP } else { flags };
    let flags = if filled.is_some() { flags | set::F_EVAL | set::F_TIMEOUT } else { flags };
    // The kernel wants a number by which later messages of the batch could name the set; ours use its name.
    let id = batch.set_id();
    batch.add(new, |w| {
        w.string(set::TABLE, table);
        w.string(set::NAME, name.as_str());
        w.be32(set::FLAGS, flags);
        w.be32(set::KEY_TYPE, datatype);
        w.be32(set::KEY_LEN, key_len);
        if is_map {
            w.be32(set::DATA_TYPE, set::DATA_VERDICT);
            w.be32(set::DATA_LEN, set::VERDICT_LEN);
        }
        w.be32(set::ID, id);
        if !fields.is_empty() || filled.is_some() {
            w.nest(set::DESC, |w| {
                if let Some(filled) = filled {
                    w.be32(set::DESC_SIZE, filled.size);
                }
                if !fields.is_empty() {
                    w.nest(set::DESC_CONCAT, |w| put_fields(w, fields));
                }
            });
        }
        if let Some(filled) = filled {
            w.be64(set::TIMEOUT, u64::from(filled.timeout) * MILLISECONDS);
        }
        let comment = comment.map(|comment| (udata::SET_COMMENT, comment.as_str()));
        // Without it nft would print the names of links as if they were empty.
        let byte_order = (udata::SET_KEYBYTEORDER, udata::HOST_ORDER);
        let numbers = if key_type == KeyType::Link { &[byte_order][..] } else { &[] };
        w.user_data(set::USERDATA, numbers, comment);
    });
}

fn put_fields(writer: &mut AttrWriter<'_>, fields: &[u32]) {
    for len in fields {
        writer.nest(LIST_ELEM, |w| w.be32(set::FIELD_LEN, *len));
    }
}

pub(super) fn put_keys(batch: &mut Batch, new: NewMessage, name: &SetName, keys: &[Key]) {
    put_lists(batch, new, name, keys, |w, key| {
        let (start, end) = elements_of(key);
        w.nest(LIST_ELEM, |w| put_key(w, &start));
        put_end(w, end.as_ref());
    });
}

pub(super) fn put_elements(batch: &mut Batch, new: NewMessage, name: &SetName, elements: &[(Key, MapElement)]) {
    put_lists(batch, new, name, elements, |w, (key, element)| {
        let (start, end) = elements_of(key);
        w.nest(LIST_ELEM, |w| {
            put_key(w, &start);
            w.nest(elem::DATA, |w| encode_verdict(w, &element.verdict));
            if let Some(comment) = &element.comment {
                w.comment(elem::USERDATA, udata::COMMENT, comment.as_str());
            }
        });
        put_end(w, end.as_ref());
    });
}

/// The element behind a range, where there is one. In a map it has no verdict.
fn put_end(writer: &mut AttrWriter<'_>, end: Option<&KeyBytes>) {
    if let Some(end) = end {
        writer.nest(LIST_ELEM, |w| {
            put_key(w, end);
            w.be32(elem::FLAGS, elem::F_INTERVAL_END);
        });
    }
}

/// As many messages as the items need.
fn put_lists<T>(
    batch: &mut Batch,
    new: NewMessage,
    name: &SetName,
    items: &[T],
    mut put: impl FnMut(&mut AttrWriter<'_>, &T),
) {
    let mut first = 0;
    while let Some(rest) = items.get(first..).filter(|rest| !rest.is_empty()) {
        let mut written = 0;
        batch.add(NewMessage { first, ..new }, |w| {
            w.string(elem::LIST_SET, name.as_str());
            w.string(elem::LIST_TABLE, TABLE);
            written = w.nest_while(elem::LIST_ELEMENTS, LIST_LIMIT, rest, &mut put);
        });
        first += written;
    }
}

pub(super) fn put_delete(batch: &mut Batch, delete: NewMessage, name: &SetName) {
    batch.add(delete, |w| {
        w.string(set::TABLE, TABLE);
        w.string(set::NAME, name.as_str());
    });
}

fn put_key(writer: &mut AttrWriter<'_>, key: &KeyBytes) {
    writer.nest(elem::KEY, |w| w.bytes(data::VALUE, key.as_slice()));
}

fn address(family: Family) -> u32 {
    match family {
        Family::V4 => datatype::IPADDR,
        Family::V6 => datatype::IP6ADDR,
    }
}

fn address_len(family: Family) -> u32 {
    match family {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}
