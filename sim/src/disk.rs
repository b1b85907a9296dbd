//! What survives a crash: what was synced, and some first part of what was not.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ennead_ring::effect::{Account, Change, Decree};
use ennead_ring::{Epoch, Key, Limits, Loaded, Record, Ticket, View};

/// One machine's disk.
#[derive(Default)]
pub(crate) struct Disk {
    durable: BTreeMap<Key, Kept>,
    pub(crate) limits: Limits,
    /// Since the last settled one that the account names, newest last.
    pub(crate) views: Vec<Arc<View>>,
    pub(crate) account: Account,
    pub(crate) decree: Decree,
    /// Written, not yet durable; tickets rise by one.
    pending: VecDeque<(Ticket, Change)>,
    last: Option<Ticket>,
    /// The sync under way makes all up to this ticket durable.
    syncing: Option<Ticket>,
    /// Up to here all is durable.
    synced: Option<Ticket>,
}

#[derive(Clone)]
struct Kept {
    record: Record,
    /// False: its checksum fails.
    readable: bool,
}

impl Disk {
    /// Queues a change. True if a sync has to be started for it.
    pub(crate) fn write(&mut self, ticket: Ticket, change: Change) -> bool {
        if let Some(last) = self.last {
            assert_eq!(ticket.0, last.0 + 1, "tickets rise by one");
        }
        self.last = Some(ticket);
        self.pending.push_back((ticket, change));
        self.start_sync()
    }

    /// Begins to make all that is queued durable, as one group. False if that is under way, or nothing is queued.
    pub(crate) fn start_sync(&mut self) -> bool {
        if self.syncing.is_some() || self.pending.is_empty() {
            return false;
        }
        self.syncing = self.last;
        true
    }

    /// True while what was queued is being made durable.
    pub(crate) fn is_syncing(&self) -> bool {
        self.syncing.is_some()
    }

    /// The sync under way is complete. What it made durable besides records.
    pub(crate) fn sync_done(&mut self) -> Vec<Change> {
        let upto = self.syncing.take().expect("a sync was under way");
        let mut notes = Vec::new();
        while let Some((ticket, _)) = self.pending.front()
            && *ticket <= upto
        {
            let (_, change) = self.pending.pop_front().expect("it was there");
            self.apply(change, &mut notes);
        }
        self.synced = Some(upto);
        notes
    }

    fn apply(&mut self, change: Change, notes: &mut Vec<Change>) {
        match change {
            Change::Record { key, record } => {
                self.durable.insert(key, Kept { record, readable: true });
            }
            Change::Forget { ref key } => {
                self.durable.remove(key);
                notes.push(change);
            }
            Change::Limits(limits) => self.limits = limits,
            Change::View(ref view) => {
                self.views.push(view.clone());
                notes.push(change);
            }
            Change::Account(ref account) => {
                self.account = account.clone();
                // T2: what may be forgotten is. The view that it stands in stays in any case.
                let newest = self.views.last().map(|v| v.epoch());
                self.views.retain(|v| v.epoch() >= account.settled || Some(v.epoch()) == newest);
                notes.push(change);
            }
            Change::Decree(ref decree) => {
                self.decree = decree.clone();
                notes.push(change);
            }
        }
    }

    /// True once this ticket is durable.
    pub(crate) fn is_durable(&self, ticket: Ticket) -> bool {
        assert!(
            self.last.is_some_and(|last| ticket <= last),
            "waits for {ticket:?}, which was never handed out"
        );
        self.synced.is_some_and(|synced| ticket <= synced)
    }

    /// How many changes a crash would find unsynced.
    pub(crate) fn unsynced(&self) -> usize {
        self.pending.len()
    }

    /// The process is gone. The first `survive` unsynced changes made it to the disk all the same: what they were
    /// besides records.
    pub(crate) fn crash(&mut self, survive: usize) -> Vec<Change> {
        let mut notes = Vec::new();
        for (_, change) in std::mem::take(&mut self.pending).into_iter().take(survive) {
            self.apply(change, &mut notes);
        }
        (self.last, self.syncing, self.synced) = (None, None, None);
        notes
    }

    /// What a backup made now would hold, once it is restored under a new incarnation: data, and no claims. What
    /// its former self could tell of its views is not this one's to tell.
    pub(crate) fn image(&self) -> Self {
        Self {
            durable: self.durable.clone(),
            limits: self.limits,
            views: self.views.clone(),
            ..Self::default()
        }
    }

    /// The epoch of the newest durable view.
    pub(crate) fn epoch(&self) -> Epoch {
        self.views.last().map_or(Epoch::ZERO, |v| v.epoch())
    }

    /// As of all that was written, durable or not.
    pub(crate) fn load(&self, key: &Key) -> Loaded {
        self.unsynced_of(key).unwrap_or_else(|| self.durable_of(key))
    }

    fn unsynced_of(&self, key: &Key) -> Option<Loaded> {
        self.pending.iter().rev().find_map(|(_, change)| match change {
            Change::Record { key: k, record } if k == key => Some(Loaded::Record(record.clone())),
            Change::Forget { key: k } if k == key => Some(Loaded::Nothing),
            _ => None,
        })
    }

    fn durable_of(&self, key: &Key) -> Loaded {
        match self.durable.get(key) {
            None => Loaded::Nothing,
            Some(kept) if kept.readable => Loaded::Record(kept.record.clone()),
            Some(_) => Loaded::Unreadable,
        }
    }

    /// The keys of which a crash would not lose the record.
    pub(crate) fn durable_keys(&self) -> impl Iterator<Item = &Key> {
        self.durable.keys()
    }

    /// What a crash would not lose.
    pub(crate) fn durable_record(&self, key: &Key) -> Option<&Record> {
        self.durable.get(key).map(|kept| &kept.record)
    }

    /// The keys after `after` in order, as of all that was written: at most so many, and no further one once so many
    /// bytes have come together. Then whether these are the last, and how many keys there are in all.
    pub(crate) fn scan(
        &self,
        after: Option<&Key>,
        keys: usize,
        bytes: usize,
    ) -> (Vec<(Key, Loaded)>, bool, u64) {
        let written = self.pending.iter().filter_map(|(_, change)| match change {
            Change::Record { key, .. } => Some(key),
            _ => None,
        });
        let all: std::collections::BTreeSet<&Key> = self.durable.keys().chain(written).collect();
        let total = all.len() as u64;
        let (mut found, mut size) = (Vec::new(), 0);
        for key in all.into_iter().filter(|key| after.is_none_or(|after| *key > after)) {
            let loaded = match self.load(key) {
                Loaded::Nothing => continue,
                loaded => loaded,
            };
            if found.len() >= keys || size >= bytes {
                return (found, false, total);
            }
            size += key.as_bytes().len();
            if let Loaded::Record(record) = &loaded {
                size += record.state.value.as_ref().map_or(0, |v| v.len());
            }
            found.push((key.clone(), loaded));
        }
        (found, true, total)
    }

    /// Spoils the record of a key: its checksum fails until it is written again. False if there is none.
    pub(crate) fn rot(&mut self, key: &Key) -> bool {
        match self.durable.get_mut(key) {
            Some(kept) => {
                kept.readable = false;
                true
            }
            None => false,
        }
    }

    /// What a crash would not lose, and whether its checksum holds.
    pub(crate) fn durable_copy(&self, key: &Key) -> Option<(&Record, bool)> {
        self.durable.get(key).map(|kept| (&kept.record, kept.readable))
    }

    /// True if the record of a key is spoiled.
    pub(crate) fn is_rotten(&self, key: &Key) -> bool {
        self.durable.get(key).is_some_and(|kept| !kept.readable)
    }
}
