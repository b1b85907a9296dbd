//! A pass that goes by the roll: who has told "none" by it, and who is asked all the same.

use alloc::vec::Vec;
use core::mem;

use super::{Merge, Owned, Place, Source, Teller, Upto};
use crate::history::Track;
use crate::local::Local;
use crate::message::{Ask, Purpose};
use crate::rare::{Rare, met};
use crate::roll::{self, Roll};
use crate::view::{Epoch, Machine};

impl Merge {
    /// The roll: who has nothing to tell has told it. Returns the view that is known to be settled; `None` if nobody asked.
    pub(crate) fn on_roll(
        &mut self,
        local: &mut Local,
        from: Machine,
        ask: Ask,
        roll: &Roll,
    ) -> Option<Epoch> {
        self.asking.take_if(|asking| asking.is(local, from, ask))?;
        met(Rare::S3ByRoll);
        self.stirred = true;
        let present = local.present();
        let (rolled, others): (Vec<Machine>, Vec<Machine>) =
            mem::take(&mut self.rolled).into_iter().partition(|machine| match present.index_of(*machine) {
                Some(member) => roll.has_nothing(member),
                None => roll.former.contains(machine),
            });
        (self.rolled, self.noted) = (rolled, roll.settled);
        for machine in others {
            let mut teller = Teller::new(local, self.purpose, machine);
            if teller.member.is_none() && roll.silent.contains(&machine) {
                met(Rare::S3RollHasOneSilent);
                teller.out = true;
                self.without.push(machine);
            }
            self.tellers.push(teller);
        }
        // Nobody has anything, this machine included.
        if present.me.is_some_and(|me| roll.has_nothing(me)) && self.tellers.iter().all(|t| t.out) {
            self.own.upto = Upto::End;
        }
        self.promised = self.promised.max(roll.promised);
        self.bound = self.bound.max(roll.bound);
        local.see(roll.promised.time);
        Some(roll.settled)
    }

    /// No roll: all who may have something to tell are asked.
    pub(super) fn ask_everybody(&mut self, local: &Local) {
        let rolled = mem::take(&mut self.rolled);
        self.tellers.extend(rolled.into_iter().map(|machine| Teller::new(local, self.purpose, machine)));
        self.tellers.sort_by_key(|teller| teller.machine);
    }

    /// Whoever should hold what this machine has compared is asked, though he noted nothing of it: there may be keys since then.
    pub(super) fn ask_owners(&mut self, local: &Local, owned: &[Owned]) {
        let present = local.present();
        for owners in owned.iter().filter_map(|owned| owned.place.owners.last()) {
            if owners.machines().next() != present.me {
                continue;
            }
            for machine in owners.machines().map(|member| present.machine(member)) {
                if let Ok(at) = self.rolled.binary_search(&machine) {
                    self.rolled.remove(at);
                    let mut teller = Teller::new(local, self.purpose, machine);
                    teller.source = Source::from(self.at.clone());
                    let at = self.tellers.partition_point(|teller| teller.machine < machine);
                    self.tellers.insert(at, teller);
                }
            }
        }
    }

    /// Of those who have told "none" by the roll, whoever was to tell of this key (S4 needs no others).
    pub(super) fn rolled_of(&self, local: &Local, place: &Place, mute: &[Machine]) -> Vec<Track> {
        if self.rolled.is_empty() || self.purpose != Purpose::Sync {
            return Vec::new();
        }
        let (history, concern) = (local.history(), self.concern(local));
        let owners =
            history.views.iter().zip(&place.owners).flat_map(|(p, o)| o.machines().map(|m| p.machine(m)));
        let mut owners: Vec<Machine> = owners.collect();
        owners.sort_unstable();
        owners.dedup();
        let rolled = owners.into_iter().filter(|m| self.rolled.binary_search(m).is_ok() && !mute.contains(m));
        rolled
            .map(|machine| (machine, roll::told_nothing(local, machine, self.noted)))
            .filter(|(m, track)| history.is_told(&concern, (&place.owners, place.next.as_ref()), (*m, track)))
            .map(|(_, track)| track)
            .collect()
    }
}
