//! The keys in memory: a cache of two generations, in front of storage.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::mem;

use hashbrown::HashMap;

use super::{Entry, Node, Work};
use crate::acceptor::Acceptor;
use crate::cell::Cell;
use crate::coordinator::Coordinator;
use crate::effect::{Effect, Loaded, Mono, Now};
use crate::key::Key;
use crate::mutant::Mutant;
use crate::rare::{Rare, met, met_if};
use crate::reading::Readings;
use crate::stamp::Ballot;
use crate::turn::Turn;

impl Node {
    /// Brings something to be done to its key's cell, through storage if it is not in memory.
    pub(super) fn route(&mut self, now: Now, key: Key, work: Work, effects: &mut Vec<Effect>) {
        if matches!(self.young.get(&key), Some(Entry::Here(_))) {
            return self.work(now, &key, work, effects);
        }
        if let Some(entry) = self.old.remove(&key) {
            self.young_bytes += entry.bytes();
            self.young.insert(key.clone(), entry);
        }
        // What does not fit is lost like any message: whoever asked asks again. One value always fits, however long.
        let bytes = work.bytes();
        let fits = bytes == 0
            || self.loading_bytes == 0
            || self.loading_bytes + bytes <= self.local.tuning.waiting_bytes;
        match self.young.get_mut(&key) {
            Some(Entry::Here(_)) => {
                self.work(now, &key, work, effects);
            }
            Some(Entry::Loading(waiting)) => {
                let short = waiting.len() < self.local.tuning.waiting_per_key;
                if (short && fits) || !matches!(work, Work::Message { .. }) {
                    met_if(!waiting.is_empty(), Rare::LoadIsShared);
                    self.loading_bytes += bytes;
                    waiting.push(work);
                }
            }
            None if !fits => {}
            None => {
                self.loading_bytes += bytes;
                self.rotate(now);
                effects.push(Effect::Load { key: key.clone() });
                self.young.insert(key, Entry::Loading(vec![work]));
            }
        }
    }

    /// Does it at a key that is in memory.
    pub(super) fn work(&mut self, now: Now, key: &Key, work: Work, effects: &mut Vec<Effect>) {
        match work {
            Work::Message { from, message, came } => {
                self.at(now, key, effects, |cell, turn| cell.on_message(turn, from, message, came));
            }
            Work::Take(take) => {
                // Decided in another view: the pass of this one decides it anew.
                if take.epoch == self.local.epoch() {
                    let purpose = take.purpose;
                    self.at(now, key, effects, |cell, turn| cell.on_take(turn, take));
                    self.sync.taken(purpose);
                }
            }
            Work::Give(number) => {
                let entry = self.young.get(key).or_else(|| self.old.get(key));
                let Some(Entry::Here(cell)) = entry else { return };
                let held = cell.acceptor.held();
                self.fetchings.give(&mut self.local, number, key.clone(), held, effects);
            }
            Work::Forget(stamp) => self.at(now, key, effects, |cell, turn| cell.on_forget(turn, stamp)),
        }
    }

    pub(super) fn on_loaded(&mut self, now: Now, key: Key, found: Loaded, effects: &mut Vec<Effect>) {
        let table = if self.young.contains_key(&key) { &mut self.young } else { &mut self.old };
        let Some(Entry::Loading(_)) = table.get(&key) else { return };
        let found = match found {
            // R3Blind: an unreadable record is taken for none.
            Loaded::Unreadable if self.local.rules.broken(Mutant::R3Blind) => Loaded::Nothing,
            found => found,
        };
        let mut acceptor = Acceptor::new(found, self.local.rules);
        if acceptor.is_mute() {
            met(Rare::R3Mute);
            // R3: it may have promised or accepted anything up to its ceiling.
            self.local.raise_floor(effects);
        }
        // What was read may not be durable yet: a cell dropped and loaded again forgot which ticket it was.
        if let Some(ticket) = self.local.last_ticket()
            && !self.local.rules.broken(Mutant::A3Unsynced)
        {
            acceptor.set_ticket(ticket);
        }
        let cell = Cell {
            owners: self.local.owners_of(&key),
            acceptor,
            coordinator: Coordinator::default(),
            readings: Readings::default(),
            timer: None,
            bytes: 0,
        };
        let Some(Entry::Loading(waiting)) = table.insert(key.clone(), Entry::Here(Box::new(cell))) else {
            return;
        };
        self.loading_bytes -= waiting.iter().map(Work::bytes).sum::<usize>();
        for work in waiting {
            self.work(now, &key, work, effects);
        }
    }

    /// Does something at a key that is in memory, and sees to its timer afterwards.
    pub(super) fn at(
        &mut self,
        now: Now,
        key: &Key,
        effects: &mut Vec<Effect>,
        f: impl FnOnce(&mut Cell, &mut Turn<'_>),
    ) {
        let (entry, young) = match self.young.get_mut(key) {
            Some(entry) => (Some(entry), true),
            None => (self.old.get_mut(key), false),
        };
        let Some(Entry::Here(cell)) = entry else { return };
        let (owners, promised, held) = (cell.owners, cell.acceptor.promised(), cell.acceptor.value_bytes());
        let mut turn = Turn { local: &mut self.local, effects, now, key, owners: &owners, promised, held };
        f(cell, &mut turn);
        let bytes = cell.count_bytes();
        let before = mem::replace(&mut cell.bytes, bytes);
        if young {
            self.young_bytes = self.young_bytes + bytes - before;
        }
        let wake = Mono::first([cell.coordinator.wake_at(), cell.readings.wake_at()]);
        if let Some(wake) = wake
            && cell.timer.is_none_or(|timer| wake < timer)
        {
            if let Some(timer) = cell.timer.replace(wake) {
                self.timers.remove(&(timer, key.clone()));
            }
            self.timers.insert((wake, key.clone()));
        }
    }

    /// Requests handed to a machine that has just been lost come back now, not when they would be missed.
    pub(super) fn take_back(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let here = |entry: &Entry| matches!(entry, Entry::Here(cell) if cell.coordinator.has_handed());
        let all = self.young.iter().chain(&self.old);
        let keys: Vec<Key> = all.filter(|(_, entry)| here(entry)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.at(now, &key, effects, |cell, turn| cell.coordinator.on_time(turn));
        }
    }

    /// This machine is not well: what waits for it to coordinate goes to others.
    pub(super) fn give_away(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let here = |entry: &Entry| matches!(entry, Entry::Here(cell) if !cell.coordinator.is_idle());
        let all = self.young.iter().chain(&self.old);
        let keys: Vec<Key> = all.filter(|(_, entry)| here(entry)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.at(now, &key, effects, |cell, turn| cell.coordinator.give_away(turn));
        }
    }

    /// Makes room: the keys used lately become the old ones, and of the former old ones only those stay that
    /// are busy. A key whose promise is above its record would forget it: those stay too, until they are
    /// many; then the floor rises above them all, which forgets nothing (A1 refuses what they would have).
    pub(super) fn rotate(&mut self, now: Now) {
        if self.young.len() < self.room.0 && self.young_bytes < self.room.1 {
            return;
        }
        let limit = self.local.tuning.cells / 2;
        let mut left = mem::replace(&mut self.old, mem::take(&mut self.young));
        self.young = HashMap::with_hasher(left.hasher().clone());
        let mut promises: Vec<(Ballot, Key)> = Vec::new();
        left.retain(|key, entry| match entry {
            Entry::Here(cell) if cell.is_idle() => {
                if !cell.acceptor.is_as_on_disk() {
                    promises.push((cell.acceptor.promised(), key.clone()));
                }
                !cell.acceptor.is_as_on_disk() || {
                    cell.drop_from(key, now, &mut self.local, &mut self.timers);
                    false
                }
            }
            _ => true,
        });
        if promises.len() > limit / 2 {
            met(Rare::A1PromisesDropped);
            for (promised, key) in promises {
                if !self.local.rules.broken(Mutant::A1Evicted) {
                    self.local.raise_floor_in_memory(promised.time);
                }
                if let Some(Entry::Here(mut cell)) = left.remove(&key) {
                    cell.drop_from(&key, now, &mut self.local, &mut self.timers);
                }
            }
        }
        self.young.extend(left);
        self.young_bytes = self.young.values().map(Entry::bytes).sum();
        // Many may be busy, and stay: not before as many again have come is it worth to look through them all.
        let bytes = self.local.tuning.cell_bytes / 2;
        self.room = (limit.max(2 * self.young.len()), bytes.max(2 * self.young_bytes));
    }
}
