//! Maps of which a copy shares all that has not changed since.

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

/// The keys under which two maps do not hold the same. What they share is not looked at, so that it costs as much as
/// differs, and not as much as there is.
pub(crate) fn changed_keys<'a, K: Ord, V: PartialEq>(
    before: &'a OrdMap<K, V>,
    now: &'a OrdMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    before.diff(now).map(|item| match item {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) | DiffItem::Update { new: (key, _), .. } => key,
    })
}
