//! What survives a crash: what was synced, and some first part of what was not.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ennead_ring::effect::Change;
use ennead_ring::{Key, Limits, Loaded, Record, Ticket, View};

/// One machine's disk.
#[derive(Default)]
pub(crate) struct Disk {
    durable: BTreeMap<Key, Kept>,
    pub(crate) limits: Limits,
    pub(crate) views: Vec<Arc<View>>,
    /// Written, not yet durable; tickets rise by one.
    pending: VecDeque<(Ticket, Change)>,
    last: Option<Ticket>,
    /// The sync under way makes all up to this ticket durable.
    syncing: Option<Ticket>,
    /// Up to here all is durable.
    synced: Option<Ticket>,
}

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

    /// The sync under way is complete. The views that it made durable.
    pub(crate) fn sync_done(&mut self) -> Vec<Arc<View>> {
        let upto = self.syncing.take().expect("a sync was under way");
        let mut views = Vec::new();
        while let Some((ticket, _)) = self.pending.front()
            && *ticket <= upto
        {
            let (_, change) = self.pending.pop_front().expect("it was there");
            if let Change::View(view) = &change {
                views.push(view.clone());
            }
            self.apply(change);
        }
        self.synced = Some(upto);
        views
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Record { key, record } => {
                self.durable.insert(key, Kept { record, readable: true });
            }
            Change::Limits(limits) => self.limits = limits,
            Change::View(view) => self.views.push(view),
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

    /// The process is gone. The first `survive` unsynced changes made it to the disk all the same. The views among them.
    pub(crate) fn crash(&mut self, survive: usize) -> Vec<Arc<View>> {
        let mut views = Vec::new();
        for (_, change) in std::mem::take(&mut self.pending).into_iter().take(survive) {
            if let Change::View(view) = &change {
                views.push(view.clone());
            }
            self.apply(change);
        }
        (self.last, self.syncing, self.synced) = (None, None, None);
        views
    }

    /// As of all that was written, durable or not.
    pub(crate) fn load(&self, key: &Key) -> Loaded {
        let written = self.pending.iter().rev().find_map(|(_, change)| match change {
            Change::Record { key: k, record } if k == key => Some(record.clone()),
            _ => None,
        });
        if let Some(record) = written {
            return Loaded::Record(record);
        }
        match self.durable.get(key) {
            None => Loaded::Nothing,
            Some(kept) if kept.readable => Loaded::Record(kept.record.clone()),
            Some(_) => Loaded::Unreadable,
        }
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

    /// True if the record of a key is spoiled.
    pub(crate) fn is_rotten(&self, key: &Key) -> bool {
        self.durable.get(key).is_some_and(|kept| !kept.readable)
    }
}
