//! What the ordered store does not hold yet: changes waiting for an fsync, and changes waiting to be applied.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use ennead_ring::{Key, Loaded, Record, View};

use super::ordered::{Kept, Meta, read_kept};

/// What an entry costs in memory beside its bytes, roughly.
const ENTRY_BYTES: usize = 160;

/// Durable changes, the last one of each key.
#[derive(Default)]
pub(super) struct Layer {
    pub(super) records: BTreeMap<Key, Kept>,
    /// With the number that orders them.
    pub(super) views: Vec<(u64, Arc<View>)>,
    /// As of the last change in it.
    pub(super) meta: Meta,
    /// Memory it takes, roughly.
    pub(super) bytes: usize,
    /// Bytes of journal that its changes took: a key written a thousand times is one record here.
    pub(super) journalled: usize,
}

impl Layer {
    pub(super) fn insert(&mut self, key: Key, kept: Kept) {
        let frame = ENTRY_BYTES + key.as_bytes().len();
        self.bytes += frame + kept.len();
        if let Some(old) = self.records.insert(key, kept) {
            self.bytes -= frame + old.len();
        }
    }

    /// This layer, and in its place an empty one that carries on from it.
    pub(super) fn take(&mut self) -> Self {
        let next = Self { meta: self.meta, ..Self::default() };
        std::mem::replace(self, next)
    }
}

/// All of them: a key is looked up in `pending`, then `active`, then `frozen`, then the ordered store.
#[derive(Default)]
pub(super) struct Overlay {
    /// Not durable yet; with the number of the change.
    pub(super) pending: BTreeMap<Key, (u64, Record)>,
    /// Durable in the journal.
    pub(super) active: Layer,
    /// Likewise; being applied to the ordered store.
    pub(super) frozen: Option<Arc<Layer>>,
}

impl Overlay {
    /// What is there for the key; `None` leaves it to the ordered store.
    pub(super) fn get(&self, key: &Key) -> Option<Loaded> {
        if let Some((_, record)) = self.pending.get(key) {
            return Some(Loaded::Record(record.clone()));
        }
        let frozen = || self.frozen.as_ref().and_then(|layer| layer.records.get(key));
        self.active.records.get(key).or_else(frozen).map(|kept| read_kept(key, kept))
    }

    /// The first `limit` keys after `after`, with what is there for each.
    pub(super) fn after(&self, after: Option<&Key>, limit: usize) -> BTreeMap<Key, Loaded> {
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let mut found = BTreeMap::new();
        // From the oldest layer to the newest, so that the newest stays.
        for layer in self.frozen.as_deref().into_iter().chain([&self.active]) {
            for (key, kept) in layer.records.range::<Key, _>(range).take(limit) {
                found.insert(key.clone(), read_kept(key, kept));
            }
        }
        for (key, (_, record)) in self.pending.range::<Key, _>(range).take(limit) {
            found.insert(key.clone(), Loaded::Record(record.clone()));
        }
        found
    }

    /// Memory of what is durable and not applied, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.active.bytes + self.frozen.as_ref().map_or(0, |layer| layer.bytes)
    }
}
