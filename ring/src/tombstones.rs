//! How many tombstones this machine holds, for whoever looks from outside.
//!
//! A sweep looks at each record once and counts (T2 has one after every start and every settled view); from then on each
//! change that makes a tombstone, or ends one, is counted as it is made. Nothing is looked up for it. What changes while
//! the piece of the sweep that its key is in is on its way from the disk may be missed until the next sweep.

use crate::effect::Loaded;
use crate::key::Key;

/// See the module's caption.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Tombstones {
    held: Option<u64>,
    look: Option<Look>,
}

/// A sweep under way.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
struct Look {
    /// It has looked at every key up to here.
    upto: Option<Key>,
    held: u64,
}

impl Tombstones {
    /// Tombstones held; `None` before the first sweep came to its end.
    pub(crate) fn held(&self) -> Option<u64> {
        self.held
    }

    /// A sweep begins, from the first key on.
    pub(crate) fn begin(&mut self) {
        self.look = Some(Look::default());
    }

    /// The sweep has found these next; that was all, if it is at its end.
    pub(crate) fn found(&mut self, found: &[(Key, Loaded)], end: bool) {
        let Some(look) = &mut self.look else { return };
        let is_one = |(_, loaded): &&(Key, Loaded)| matches!(loaded, Loaded::Record(record) if record.state.value.is_none());
        look.held += found.iter().filter(is_one).count() as u64;
        if let Some((key, _)) = found.last() {
            look.upto = Some(key.clone());
        }
        if end {
            self.held = self.look.take().map(|look| look.held);
        }
    }

    /// A key's record has changed: whether it was a tombstone, and is one.
    pub(crate) fn changed(&mut self, key: &Key, was: bool, is: bool) {
        let looked = self.look.as_mut().filter(|look| look.upto.as_ref().is_some_and(|upto| key <= upto));
        for held in self.held.as_mut().into_iter().chain(looked.map(|look| &mut look.held)) {
            *held = held.saturating_add(u64::from(is)).saturating_sub(u64::from(was));
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::sync::Arc;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::quorum::SlotSet;
    use crate::stamp::{Record, Stamp, State};

    fn key(n: u8) -> Key {
        Key::new([n]).unwrap()
    }

    fn loaded(tombstone: bool) -> Loaded {
        let value = (!tombstone).then(|| Arc::from(&b"x"[..]));
        let state = Arc::new(State { value, ..State::default() });
        Loaded::Record(Record { stamp: Stamp::default(), votes: SlotSet::EMPTY, state })
    }

    /// Changes one key: to a value, a tombstone, or nothing.
    fn change(tombstones: &mut Tombstones, store: &mut BTreeMap<Key, bool>, n: u8, to: Option<bool>) {
        let was = match to {
            Some(tombstone) => store.insert(key(n), tombstone),
            None => store.remove(&key(n)),
        };
        tombstones.changed(&key(n), was == Some(true), to == Some(true));
    }

    proptest! {
        /// Whatever changes before, between and after the pieces of a sweep.
        #[test]
        fn what_is_told_is_what_is_held(
            changes in proptest::collection::vec((any::<u8>(), proptest::option::of(any::<bool>())), 1..400),
            begins in 0usize..200, piece in 1usize..40, between in 0usize..20,
        ) {
            let (mut tombstones, mut store) = (Tombstones::default(), BTreeMap::new());
            let mut changes = changes.into_iter();
            let mut some = |tombstones: &mut Tombstones, store: &mut BTreeMap<Key, bool>, n: usize| {
                changes.by_ref().take(n).for_each(|(n, to)| change(tombstones, store, n, to));
            };
            some(&mut tombstones, &mut store, begins);
            prop_assert_eq!(tombstones.held(), None);
            // A second one corrects nothing that the first got right.
            for _ in 0..2 {
                tombstones.begin();
                let mut after: Option<Key> = None;
                loop {
                    let left = store.iter().filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
                    let found: Vec<_> = left.take(piece).map(|(key, is)| (key.clone(), loaded(*is))).collect();
                    let end = found.len() < piece;
                    after = found.last().map(|(key, _)| key.clone()).or(after);
                    tombstones.found(&found, end);
                    if end {
                        break;
                    }
                    some(&mut tombstones, &mut store, between);
                }
                let held = |store: &BTreeMap<Key, bool>| store.values().filter(|is| **is).count() as u64;
                prop_assert_eq!(tombstones.held(), Some(held(&store)));
                some(&mut tombstones, &mut store, between);
                prop_assert_eq!(tombstones.held(), Some(held(&store)));
            }
        }
    }
}
