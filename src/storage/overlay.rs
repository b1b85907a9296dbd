//! What the ordered store does not hold yet: changes waiting for an fsync, and changes waiting to be applied.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use ennead_ring::{Account, Decree, Key, Loaded, Record, View};

use super::ordered::{Kept, Meta, read_kept};

/// What an entry costs in memory beside its bytes, roughly.
const ENTRY_BYTES: usize = 160;

/// Durable changes, the last one of each key.
#[derive(Default)]
pub(super) struct Layer {
    /// `None` is a key forgotten: whatever an older layer or the ordered store has for it counts no more.
    pub(super) records: BTreeMap<Key, Option<Kept>>,
    /// With the number that orders them.
    pub(super) views: Vec<(u64, Arc<View>)>,
    /// `None` leaves it to older layers.
    pub(super) account: Option<Account>,
    /// `None` leaves it to older layers.
    pub(super) decree: Option<Decree>,
    /// As of the last change in it.
    pub(super) meta: Meta,
    /// Memory it takes, roughly.
    pub(super) bytes: usize,
    /// Bytes of journal that its changes took: a key written a thousand times is one record here.
    pub(super) journalled: usize,
}

impl Layer {
    pub(super) fn insert(&mut self, key: Key, kept: Option<Kept>) {
        let length = |kept: &Option<Kept>| kept.as_ref().map_or(0, |kept| kept.len());
        let frame = ENTRY_BYTES + key.as_bytes().len();
        self.bytes += frame + length(&kept);
        if let Some(old) = self.records.insert(key, kept) {
            self.bytes -= frame + length(&old);
        }
    }

    /// This layer, and in its place an empty one that carries on from it.
    pub(super) fn take(&mut self) -> Self {
        let next = Self { meta: self.meta, ..Self::default() };
        std::mem::replace(self, next)
    }
}

/// What a layer has for a key.
#[derive(Clone)]
pub(super) enum Found {
    Forgotten,
    Kept(Kept),
    /// Not durable yet.
    Record(Record),
}

impl Found {
    fn durable(kept: &Option<Kept>) -> Self {
        kept.clone().map_or(Self::Forgotten, Self::Kept)
    }

    /// Bytes of what is there, roughly.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Forgotten => 0,
            Self::Kept(kept) => kept.len(),
            Self::Record(record) => size_of::<Record>() + record.state.value.as_ref().map_or(0, |v| v.len()),
        }
    }

    pub(super) fn read(self, key: &Key) -> Loaded {
        match self {
            Self::Forgotten => Loaded::Nothing,
            Self::Kept(kept) => read_kept(key, &kept),
            Self::Record(record) => Loaded::Record(record),
        }
    }
}

/// A stretch of the overlay: all that it has for the keys after some key, up to `upto`.
pub(super) struct Stretch {
    pub(super) found: BTreeMap<Key, Found>,
    /// `None` if the overlay has nothing beyond.
    pub(super) upto: Option<Key>,
}

/// All of them: a key is looked up in `pending`, then `active`, then `frozen`, then the ordered store.
#[derive(Default)]
pub(super) struct Overlay {
    /// Not durable yet; with the number of the change.
    pub(super) pending: BTreeMap<Key, (u64, Option<Record>)>,
    /// Durable in the journal.
    pub(super) active: Layer,
    /// Likewise; being applied to the ordered store.
    pub(super) frozen: Option<Arc<Layer>>,
}

impl Overlay {
    /// What is there for the key; `None` leaves it to the ordered store.
    pub(super) fn get(&self, key: &Key) -> Option<Loaded> {
        if let Some((_, record)) = self.pending.get(key) {
            return Some(record.clone().map_or(Loaded::Nothing, Loaded::Record));
        }
        let frozen = || self.frozen.as_ref().and_then(|layer| layer.records.get(key));
        self.active.records.get(key).or_else(frozen).map(|kept| Found::durable(kept).read(key))
    }

    /// What there is for the keys after `after`, until some layer has told of `limit` of them.
    pub(super) fn after(&self, after: Option<&Key>, limit: usize) -> Stretch {
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let mut stretch = Stretch { found: BTreeMap::new(), upto: None };
        // From the oldest layer to the newest, so that the newest stays.
        for layer in self.frozen.as_deref().into_iter().chain([&self.active]) {
            let items = layer.records.range::<Key, _>(range);
            stretch.take_in(items.map(|(key, kept)| (key, Found::durable(kept))), limit);
        }
        let items = self.pending.range::<Key, _>(range);
        let read = |record: &Option<Record>| record.clone().map_or(Found::Forgotten, Found::Record);
        stretch.take_in(items.map(|(key, (_, record))| (key, read(record))), limit);
        // What lies beyond the shortest of the layers' stretches may lack what that layer has there.
        if let Some(upto) = &stretch.upto {
            stretch.found.retain(|key, _| key <= upto);
        }
        stretch
    }

    /// Memory of what is durable and not applied, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.active.bytes + self.frozen.as_ref().map_or(0, |layer| layer.bytes)
    }
}

impl Stretch {
    fn take_in<'a>(&mut self, mut items: impl Iterator<Item = (&'a Key, Found)>, limit: usize) {
        let mut last = None;
        for (key, found) in items.by_ref().take(limit) {
            self.found.insert(key.clone(), found);
            last = Some(key);
        }
        if let Some(last) = last
            && items.next().is_some()
            && self.upto.as_ref().is_none_or(|upto| last < upto)
        {
            self.upto = Some(last.clone());
        }
    }
}
