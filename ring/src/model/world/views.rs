//! Views adopted, and what machines take over from one another then: who tells whom what, and what is made of it.

use alloc::vec::Vec;

use super::{Held, Memory, Told, World, stamp};
use crate::history::{Concern, Telling, Track, Verdict, judge};
use crate::merge::Take;
use crate::message::Purpose;
use crate::model::ground::{Ground, Page, VIEWS, account, epoch, machine, number_of};
use crate::mutant::Mutant;

impl Ground {
    /// Who is to be told what by whom (S2): the members, and whoever else owned slots in views not yet settled.
    pub(super) fn tells(&self, world: &World, from: u8, to: u8) -> bool {
        let (asker, teller) = (&world.machines[usize::from(to)], &world.machines[usize::from(from)]);
        let syncs = asker.synced >> asker.view & 1 == 0 && self.is_in_ring(to, asker.view);
        // S3, V4: told at the asker's view.
        syncs
            && from != to
            && teller.view == asker.view
            && !self.is_lost(world, from)
            && (asker.settled..=asker.view).any(|view| self.is_in_ring(from, view))
    }

    /// S4, S5, S6: what the asker makes of all that it was told; `None` while it may not go on.
    pub(super) fn judged(&self, world: &World, at: u8) -> Option<Option<Verdict>> {
        let memory = &world.machines[usize::from(at)];
        let told = &world.told[usize::from(at)];
        let me = machine(at);
        let history = self.history(memory.settled, memory.view);
        let owners = self.owners(memory.settled, memory.view);
        let everyone = (0..self.machines)
            .filter(|m| *m != at && (memory.settled..=memory.view).any(|view| self.is_in_ring(*m, view)));
        let without: Vec<_> = everyone.filter(|m| told[usize::from(*m)].is_none()).map(machine).collect();
        let synced = |other, at_epoch: crate::view::Epoch| {
            let view = at_epoch.number - 1;
            let synced = match told[usize::from(number_of(other))] {
                Some(told) => told.synced,
                None if other == me => memory.synced,
                None => 0,
            };
            synced >> view & 1 == 1
        };
        let unheard = |m: &crate::view::Machine| !self.is_in_ring(number_of(*m), memory.view);
        let needed: Vec<_> = match self.page {
            Some(Page::FormerOwnersUnheard) => without.iter().copied().filter(|m| !unheard(m)).collect(),
            _ => without.clone(),
        };
        if !history.is_covered_without(me, &needed, synced) {
            return None;
        }
        let last_synced = (0..VIEWS as u8).rev().find(|view| memory.synced >> view & 1 == 1);
        let since = account(memory.settled, last_synced.map_or(0, |view| 1 << view));
        let asked = history.track(me, &since);
        let concern = Concern {
            purpose: Purpose::Sync,
            handoff: memory.handoff,
            without: &without,
            asker: me,
            track: &asked,
        };
        let tracks: Vec<(Track, Held)> = (0..self.machines)
            .filter(|m| {
                let places = history.track(machine(*m), &account(memory.settled, 0));
                history.is_told(
                    &concern,
                    (owners, history.next_owners(&self.chain).as_ref()),
                    (machine(*m), &places),
                )
            })
            .filter_map(|m| told[usize::from(m)].map(|told| (m, told)))
            .map(|(m, told)| (history.track(machine(m), &account(memory.settled, told.synced)), told.record))
            .collect();
        let telling = |record: &Held| record.map(|(record, votes)| (stamp(record), votes));
        let others: Vec<Telling<'_>> =
            tracks.iter().map(|(track, record)| Telling { track, record: telling(record) }).collect();
        let mine = history.track(me, &account(memory.settled, memory.synced));
        let own = Telling { track: &mine, record: telling(&memory.record) };
        let verdict = judge(&history, owners, &own, &others);
        Some((!verdict.gained.is_empty()).then_some(verdict))
    }

    /// V3, S1.
    pub(super) fn adopt(&self, world: &mut World, at: u8) {
        world.told[usize::from(at)] = Default::default();
        let memory = &mut world.machines[usize::from(at)];
        let (before, view) = (memory.view, memory.view + 1);
        memory.view = view;
        memory.handoff = memory.settled == before;
        (memory.decided, memory.on_disk) = (false, None);
        // Where no slot of this key is gained, the sync of the others changes nothing of it but what it may claim.
        let gained = self.slots_of(at, view).minus(self.votes_of(at, memory));
        // S1Moved: members that stay count as synced, whatever slots moved.
        let stay =
            |before| (0..self.machines).all(|m| self.is_in_ring(m, before) == self.is_in_ring(m, view));
        let moved = self.rules.broken(Mutant::S1Moved) && memory.synced >> before & 1 == 1 && stay(before);
        if (gained.is_empty() || moved) && self.is_in_ring(at, view) {
            memory.synced |= 1 << view;
            world.words[usize::from(view)] |= 1 << at;
        }
    }

    /// V3: behind even the last settled view, it begins from that one, synced for nothing.
    pub(super) fn begin(&self, world: &mut World, at: u8, view: u8) {
        world.told[usize::from(at)] = Default::default();
        let memory = &mut world.machines[usize::from(at)];
        (memory.view, memory.settled, memory.synced) = (view, view, 0);
        (memory.handoff, memory.decided, memory.on_disk) = (false, false, None);
    }

    pub(super) fn tell(&self, world: &mut World, from: u8, to: u8) {
        let Memory { settled, synced, highest, floor, bound, record, view, .. } =
            world.machines[usize::from(from)];
        let told = &mut world.told[usize::from(to)][usize::from(from)];
        let highest = highest.max(floor);
        *told = Some(match *told {
            None => Told { synced, highest, bound, record },
            // A later page, or the same one sent late: the record was read before, and counts as what it was then.
            Some(former) => {
                let late = self.rules.broken(Mutant::S3Late) || former.synced >> view & 1 == 1;
                let synced = if late { synced } else { synced & !(1 << view) };
                let highest = highest.max(former.highest);
                Told { synced, highest, bound: bound.max(former.bound), record: former.record }
            }
        });
        self.note_settled(&mut world.machines[usize::from(to)], settled);
    }

    /// S5, S6: the pass comes to the key.
    pub(super) fn decide(&self, world: &mut World, at: u8) {
        let Some(verdict) = self.judged(world, at) else { return };
        let memory = &mut world.machines[usize::from(at)];
        memory.decided = true;
        if let Some(Verdict { gained, best, granted, own_is_void }) = verdict {
            let own = memory.record.map(|(record, _)| stamp(record));
            let state = best.filter(|best| Some(*best) != own).map(|_| self.state());
            let void = own.filter(|_| own_is_void);
            let purpose = Purpose::Sync;
            let take = Take { purpose, epoch: epoch(memory.view), stamp: best, state, gained, granted, void };
            let mut acceptor = self.acceptor(memory);
            if acceptor.take(take).is_some() {
                Self::remember(memory, &acceptor);
            }
        }
    }

    /// S5, S7: the pass is over.
    pub(super) fn sync(&self, world: &mut World, at: u8) {
        let before = world.machines[usize::from(at)];
        let before = (before.synced, before.floor, before.bound, before.record);
        if !self.size.slow_passes {
            self.decide(world, at);
        }
        // S3: to its last key, S4 holds.
        let through = || !self.size.slow_passes || self.judged(world, at).is_some();
        if !world.machines[usize::from(at)].decided || !through() {
            return;
        }
        let told = || world.told[usize::from(at)].iter().flatten();
        let promised = told().map(|told| told.highest).max().unwrap_or(0);
        let bound = told().map(|told| told.bound).max().unwrap_or(0);
        let memory = &mut world.machines[usize::from(at)];
        memory.decided = false;
        if !self.rules.broken(Mutant::S5NoFloor) {
            memory.floor = memory.floor.max(promised);
        }
        if !self.rules.broken(Mutant::S5NoBound) {
            memory.bound = memory.bound.max(bound);
        }
        memory.synced |= 1 << memory.view;
        if self.rules.broken(Mutant::S7Early) {
            memory.on_disk.get_or_insert(before);
        }
        world.words[usize::from(memory.view)] |= 1 << at;
        world.told[usize::from(at)] = Default::default();
    }

    /// T1: every machine of its ring has said so.
    pub(super) fn is_settled(&self, world: &World, view: u8) -> bool {
        let said = |m: u8| world.words[usize::from(view)] >> m & 1 == 1;
        let mut ring = (0..self.machines).filter(|m| self.is_in_ring(*m, view));
        if self.page == Some(Page::SettledByOne) { ring.any(said) } else { ring.all(said) }
    }

    /// T2.
    pub(super) fn note_settled(&self, memory: &mut Memory, view: u8) {
        if view > memory.settled {
            memory.settled = view;
            memory.synced &= !0 << view;
            memory.on_disk = None;
        }
    }

    /// T2: no slot of the key is the machine's, nor did it vote for one since the last settled view.
    pub(super) fn is_for_nothing(&self, m: u8, memory: &Memory) -> bool {
        if memory.record.is_none() || !self.slots_of(m, memory.view).is_empty() {
            return false;
        }
        let history = self.history(memory.settled, memory.view);
        let track = history.track(machine(m), &account(memory.settled, memory.synced));
        self.page == Some(Page::DroppedAtOnce)
            || !history.ever_voted(&track, self.owners(memory.settled, memory.view))
    }

    /// F2: it was named, and somebody has adopted the view that says so. (Who comes by that view knows no other.)
    pub(super) fn is_lost(&self, world: &World, m: u8) -> bool {
        let Some(forced) = self.forced.filter(|forced| forced.names(m)) else { return false };
        let adopted = |m: u8| world.machines[usize::from(m)].view >= forced.view;
        (0..self.machines).any(|m| adopted(m) && (0..forced.view).any(|view| self.is_in_ring(m, view)))
    }

    /// F2: nobody who is named is told of the view that says so.
    pub(super) fn may_adopt(&self, m: u8, view: u8) -> bool {
        view <= self.last_view() && self.forced.is_none_or(|forced| view < forced.view || !forced.names(m))
    }
}
