//! Sets, verdict maps and their elements.

use std::collections::BTreeMap;
use std::sync::Arc;

use compiler::nft::{Comment, Family, Filled, Key, KeyType, MapElement, Set, TableFamily, VerdictMap};

use super::key::{decode_bound, decode_key, range};
use crate::attr::AttrReader;
use crate::constants::{LIST_ELEM, data, elem, set, udata};
use crate::encode::{MILLISECONDS, set_type};
use crate::expr::decode_verdict;

/// A set or map whose elements are still coming.
#[derive(Debug)]
pub(super) struct SetBuilder {
    family: TableFamily,
    key_type: KeyType,
    comment: Option<Comment>,
    filled: Option<Filled>,
    content: Content,
    /// An element of a map came twice.
    repeats: bool,
}

/// What is known of the elements.
#[derive(Debug)]
enum Content {
    Keys(Vec<Key>),
    /// Starts (`false`) and ends (`true`) of ranges; an end is the value behind the last one.
    Bounds(Vec<(u128, bool)>),
    Elements(BTreeMap<Key, MapElement>),
    /// The starts of ranges with what they lead to, and their ends with nothing, each the value behind the last one.
    Led(Vec<(u128, Option<MapElement>)>),
}

/// What a builder makes.
#[derive(Debug)]
pub(super) enum Built {
    Set(Set),
    Map(VerdictMap),
}

/// Every type of keys.
const KEY_TYPES: [KeyType; 12] = [
    KeyType::Address(Family::V4),
    KeyType::Address(Family::V6),
    KeyType::AddressRange(Family::V4),
    KeyType::AddressRange(Family::V6),
    KeyType::PortRange,
    KeyType::Endpoint(Family::V4),
    KeyType::Endpoint(Family::V6),
    KeyType::Pair(Family::V4),
    KeyType::Pair(Family::V6),
    KeyType::Flow(Family::V4),
    KeyType::Flow(Family::V6),
    KeyType::Link,
];

/// The flags of a set that packets fill.
const FILLED: u32 = set::F_EVAL | set::F_TIMEOUT;

impl SetBuilder {
    /// A set of the table of a family without its elements; `None` is one that postern never makes.
    pub(super) fn new(family: TableFamily, a: AttrReader<'_>) -> Option<SetBuilder> {
        let flags = a.be32(set::FLAGS).unwrap_or(0);
        let (datatype, key_len) = (a.be32(set::KEY_TYPE)?, a.be32(set::KEY_LEN)?);
        let is_map = flags & set::F_MAP != 0;
        let key_type = KEY_TYPES.into_iter().find(|key_type| {
            let known = set_type(*key_type);
            // `nft` leaves the flag of a concatenation out where the set holds no ranges.
            let same_flags = (flags | (known.flags & set::F_CONCAT)) & !(set::F_MAP | FILLED) == known.flags;
            known.datatype == datatype && known.key_len == key_len && same_flags
        })?;
        let verdicts = a.be32(set::DATA_TYPE) == Some(set::DATA_VERDICT);
        if is_map != verdicts || a.has(set::EXPR) || a.has(set::EXPRESSIONS) {
            return None;
        }
        let comment = a.comment(set::USERDATA, udata::SET_COMMENT).ok()?;
        // Sets that are not for packets to fill have no size, so that none is ever full.
        let size = a.nested(set::DESC).and_then(|desc| desc.be32(set::DESC_SIZE));
        let filled = match (flags & FILLED, a.be64(set::TIMEOUT), size) {
            (0, None, None) => None,
            (FILLED, Some(timeout), Some(size)) if !is_map && timeout.is_multiple_of(MILLISECONDS) => {
                Some(Filled { size, timeout: u32::try_from(timeout / MILLISECONDS).ok()? })
            }
            (..) => return None,
        };
        let content = match (is_map, key_type.is_interval()) {
            (true, true) => Content::Led(Vec::new()),
            (true, false) => Content::Elements(BTreeMap::new()),
            (false, true) => Content::Bounds(Vec::new()),
            (false, false) => Content::Keys(Vec::new()),
        };
        Some(SetBuilder {
            family,
            key_type,
            comment: comment.map(Comment::from_kernel),
            content,
            filled,
            repeats: false,
        })
    }

    /// Whether the elements are the kernel's business.
    pub(super) fn is_filled(&self) -> bool {
        self.filled.is_some()
    }

    /// Takes a list of elements; `false` where one is not ours. What packets have put in is passed over.
    pub(super) fn elements(&mut self, list: AttrReader<'_>) -> bool {
        if self.is_filled() {
            return true;
        }
        let mut known = true;
        for (kind, element) in list {
            known &= kind == LIST_ELEM && self.element(AttrReader::new(element)).is_some();
        }
        known
    }

    fn element(&mut self, a: AttrReader<'_>) -> Option<()> {
        let mut key = None;
        let mut flags = 0;
        let mut verdict = None;
        for (kind, value) in a {
            match kind {
                elem::KEY => key = AttrReader::new(value).get(data::VALUE),
                elem::FLAGS => flags = u32::from_be_bytes(value.try_into().ok()?),
                elem::DATA => verdict = Some(decode_verdict(self.family, AttrReader::new(value))?),
                elem::TIMEOUT | elem::EXPR | elem::EXPRESSIONS | elem::OBJREF | elem::KEY_END => return None,
                // The comment is read below; how much time is left and padding say nothing.
                _ => {}
            }
        }
        let (key, is_end) = (key?, flags == elem::F_INTERVAL_END);
        if flags & !elem::F_INTERVAL_END != 0 {
            return None;
        }
        let comment = a.comment(elem::USERDATA, udata::COMMENT).ok()?;
        match &mut self.content {
            Content::Bounds(bounds) => {
                if comment.is_some() {
                    return None;
                }
                bounds.push((decode_bound(self.key_type, key)?, is_end));
            }
            Content::Keys(keys) => {
                if is_end || comment.is_some() {
                    return None;
                }
                keys.push(decode_key(self.key_type, key)?);
            }
            Content::Led(bounds) => {
                let led = |verdict| MapElement { verdict, comment: comment.map(Comment::from_kernel) };
                let element = if is_end { None } else { Some(led(verdict?)) };
                bounds.push((decode_bound(self.key_type, key)?, element));
            }
            Content::Elements(elements) => {
                let element = MapElement { verdict: verdict?, comment: comment.map(Comment::from_kernel) };
                self.repeats |= elements.insert(decode_key(self.key_type, key)?, element).is_some();
            }
        }
        Some(())
    }

    /// The set, `None` where starts and ends of ranges do not go together, and whether an element came twice.
    pub(super) fn finish(self) -> (Option<Built>, bool) {
        let SetBuilder { family: _, key_type, comment, filled, content, repeats } = self;
        match content {
            Content::Led(bounds) => {
                let map = |elements| VerdictMap { key_type, comment, elements: Arc::new(elements) };
                (led_ranges(key_type, bounds).map(map).map(Built::Map), false)
            }
            Content::Elements(elements) => {
                (Some(Built::Map(VerdictMap { key_type, comment, elements: Arc::new(elements) })), repeats)
            }
            Content::Keys(mut keys) => {
                keys.sort_unstable();
                let all = keys.len();
                keys.dedup();
                let repeats = keys.len() != all;
                (Some(Built::Set(Set { key_type, comment, keys: Arc::new(keys), filled })), repeats)
            }
            Content::Bounds(bounds) => {
                let keys = ranges(key_type, bounds);
                (keys.map(|keys| Built::Set(Set { key_type, comment, keys: Arc::new(keys), filled })), false)
            }
        }
    }
}

/// Pairs starts with ends.
fn ranges(key_type: KeyType, mut bounds: Vec<(u128, bool)>) -> Option<Vec<Key>> {
    // Where one range ends and the next starts at the same value, the end comes first.
    bounds.sort_unstable_by_key(|(value, is_end)| (*value, !is_end));
    let mut keys = Vec::with_capacity(bounds.len().div_ceil(2));
    let mut open = None;
    for (value, is_end) in bounds {
        match (open, is_end) {
            (None, false) => open = Some(value),
            (Some(first), true) => {
                keys.push(range(key_type, first, value.checked_sub(1))?);
                open = None;
            }
            // `nft` marks what lies below the first range by an end at zero.
            (None, true) if value == 0 => {}
            (None, true) | (Some(_), false) => return None,
        }
    }
    if let Some(first) = open {
        keys.push(range(key_type, first, None)?);
    }
    Some(keys)
}

/// Pairs starts with ends, where what starts may end what was before.
fn led_ranges(key_type: KeyType, mut bounds: Vec<(u128, Option<MapElement>)>) -> Option<BTreeMap<Key, MapElement>> {
    // Where one range ends and the next starts at the same value, the end comes first.
    bounds.sort_by_key(|(value, element)| (*value, element.is_some()));
    let mut elements = BTreeMap::new();
    let mut open: Option<(u128, MapElement)> = None;
    for (value, element) in bounds {
        match (open.take(), &element) {
            (Some((first, before)), _) => {
                // `nft` leaves the end out where the next range touches.
                let last = value.checked_sub(1).filter(|last| first <= *last)?;
                elements.insert(range(key_type, first, Some(last))?, before);
            }
            (None, None) if value > 0 => return None,
            (None, _) => {}
        }
        open = element.map(|element| (value, element));
    }
    if let Some((first, element)) = open {
        elements.insert(range(key_type, first, None)?, element);
    }
    Some(elements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use compiler::api::PortRange;
    use compiler::nft::Verdict;

    fn ports(first: u16, last: u16) -> Key {
        Key::Ports(PortRange { first, last })
    }

    #[test]
    fn starts_and_ends_make_ranges_in_any_order() {
        let found = ranges(KeyType::PortRange, vec![(91, true), (443, false), (80, false), (444, true), (0, true)]);
        assert_eq!(found, Some(vec![ports(80, 90), ports(443, 443)]));
    }

    #[test]
    fn ranges_may_touch_and_reach_the_top() {
        let found = ranges(KeyType::PortRange, vec![(0, false), (10, true), (10, false), (20, true), (65535, false)]);
        assert_eq!(found, Some(vec![ports(0, 9), ports(10, 19), ports(65535, 65535)]));
        let all = ranges(KeyType::AddressRange(Family::V6), vec![(0, false)]).unwrap();
        assert_eq!(
            all,
            [Key::V6Range("::".parse().unwrap(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap())]
        );
    }

    #[test]
    fn a_start_or_end_alone_is_not_ours() {
        assert_eq!(ranges(KeyType::PortRange, vec![(80, false), (90, false), (100, true)]), None);
        assert_eq!(ranges(KeyType::PortRange, vec![(80, false), (90, true), (100, true)]), None);
    }

    #[test]
    fn ranges_that_lead_somewhere_end_where_the_next_starts() {
        let led = |verdict| Some(MapElement { verdict, comment: None });
        let (accept, drop) = (|| led(Verdict::Accept), || led(Verdict::Drop));
        let found = |bounds| led_ranges(KeyType::PortRange, bounds);
        let expected = |ranges: &[(u16, u16, Verdict)]| {
            let element = |verdict: &Verdict| MapElement { verdict: verdict.clone(), comment: None };
            Some(ranges.iter().map(|(first, last, verdict)| (ports(*first, *last), element(verdict))).collect())
        };
        let two = expected(&[(80, 90, Verdict::Accept), (91, 99, Verdict::Drop)]);
        assert_eq!(found(vec![(0, None), (91, drop()), (100, None), (80, accept()), (91, None)]), two);
        assert_eq!(found(vec![(80, accept()), (91, drop()), (100, None)]), two, "as nft writes it");
        assert_eq!(found(vec![(80, accept())]), expected(&[(80, 65535, Verdict::Accept)]));
        assert_eq!(found(vec![(0, drop())]), expected(&[(0, 65535, Verdict::Drop)]));
        assert_eq!(found(vec![(80, accept()), (80, drop()), (90, None)]), None, "twice the same start");
        assert_eq!(found(vec![(80, accept()), (90, None), (95, None)]), None, "an end of nothing");
    }
}
