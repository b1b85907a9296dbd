//! Which view this machine is in: offers, views told, and what begins anew with each.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Entry, Node};
use crate::birth::Stage;
use crate::doubt;
use crate::effect::{Effect, Now};
use crate::forced::{self, Force};
use crate::key::Key;
use crate::message::{Addr, Ask, Message};
use crate::mutant::Mutant;
use crate::rare::{Rare, met, met_if};
use crate::view::{Epoch, Machine, View};
use crate::zone::Zone;

impl Node {
    /// A machine offers itself: it has no view, or was dropped from one.
    pub(super) fn on_offer(
        &mut self,
        now: Now,
        machine: Machine,
        epoch: Epoch,
        place: (u32, Zone),
        effects: &mut Vec<Effect>,
    ) {
        if self.local.present().view.has(machine) {
            met(Rare::F1HasLostTheWord);
            // It was taken along, and has not heard or has lost the word.
            self.tell_views(machine, epoch, effects);
            return;
        }
        if epoch > Epoch::ZERO && epoch < self.local.epoch() {
            self.tell_views(machine, epoch, effects);
        }
        let refused = self.warden.on_offer(&mut self.local, now, machine, place, effects);
        if let Some(reason) = refused {
            self.local.send(Addr::Machine(machine), Message::NotTaken { reason }, None, effects);
        }
    }

    /// V4: the views after that one, or where that is too old, all since the last settled one.
    pub(super) fn tell_views(&mut self, to: Machine, after: Epoch, effects: &mut Vec<Effect>) {
        let all = || self.local.history().views.iter().map(|p| p.view.clone());
        let known = self.local.history().views.iter().any(|p| p.epoch() == after);
        met(if known { Rare::V4MissingViewsTold } else { Rare::V4AllViewsTold });
        let views = if known { all().filter(|v| v.epoch() > after).collect() } else { all().collect() };
        let settled = self.local.account.settled;
        self.local.send(Addr::Machine(to), Message::ViewsTold { views, settled }, None, effects);
    }

    /// V3: adopts the views told, one by one and in order.
    pub(super) fn on_views(
        &mut self,
        now: Now,
        from: Machine,
        views: &[Arc<View>],
        settled: Epoch,
        effects: &mut Vec<Effect>,
    ) {
        let (me, rules) = (self.local.me, self.local.rules);
        self.cast_out = doubt::forgotten(me, Some(&self.local.present().view), views, settled, rules);
        if self.cast_out.is_some() {
            return;
        }
        let mut adopted = false;
        for view in views {
            let own = &self.local.present().view;
            if own.is_apart_from(view) {
                self.objection = Some(forced::apart(own.epoch(), from, view.epoch()));
                break;
            }
            let lawful = own.may_become(view) || self.local.rules.broken(Mutant::V3Unlawful);
            let follows = own.is_before(view) && lawful;
            // Behind even the last settled view: it was not in that one's ring, and begins from it.
            let jump = own.is_in_past_of(view) && own.slots() == view.slots() && view.epoch() == settled;
            met_if(follows && adopted, Rare::V3SeveralAtOnce);
            met_if(jump && !follows && !adopted, Rare::V3Jump);
            if follows || jump && !adopted {
                self.local.adopt(view.clone(), settled, effects);
                adopted = true;
            } else if own.is_before(view) {
                self.objection = Some(format!(
                    "{from} says that epoch {} follows epoch {}, and no decree can have made it: it was not adopted. Look \
                     at the log of {from}",
                    view.epoch(),
                    own.epoch()
                ));
                break;
            }
        }
        if adopted {
            self.begin_anew(now, effects);
        }
        self.settle(now, settled, effects);
        self.cast_out = doubt::cast_out(me, &self.local.present().view, views, rules);
    }

    /// F2: an operator's last resort.
    pub(super) fn on_force(
        &mut self,
        now: Now,
        from: Addr,
        ask: Ask,
        machines: &[Machine],
        effects: &mut Vec<Effect>,
    ) {
        let refused = match forced::force(&mut self.local, machines) {
            Force::Done => None,
            Force::Refused(reason) => Some(reason),
            Force::Wishes(wishes) => {
                for wish in wishes {
                    self.warden.relay(&mut self.local, now, wish, effects);
                }
                None
            }
            Force::View(view) => {
                let unheard = self.warden.decrees.force(&mut self.local, now, view, effects);
                forced::disagreed(&unheard)
            }
        };
        self.local.send(from, Message::Wished { ask, refused }, None, effects);
    }

    /// V2: the wardens have decided. Everybody concerned is told; who does not hear it, hears of the epoch.
    pub(super) fn decided(&mut self, now: Now, view: Arc<View>, effects: &mut Vec<Effect>) {
        if self.local.present().view.is_before(&view) {
            self.follow(now, view, effects);
        }
    }

    /// The next view is known here first: durable, then told.
    fn follow(&mut self, now: Now, view: Arc<View>, effects: &mut Vec<Effect>) {
        let present = self.local.present();
        let all: BTreeSet<Machine> =
            present.view.members().iter().chain(view.members()).map(|m| m.machine).collect();
        let before = present.epoch();
        self.local.adopt(view, Epoch::ZERO, effects);
        let me = self.local.me;
        for machine in all.into_iter().filter(|m| *m != me) {
            self.tell_views(machine, before, effects);
        }
        self.begin_anew(now, effects);
    }

    /// A view was adopted: everything under way in the one before begins anew in this one.
    fn begin_anew(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.birth = Stage::in_view(&self.local, now);
        // Its members are numbered as those of the present view are.
        self.detector.is_on(&mut self.local, now);
        self.warden.begin_anew(&self.local, now);
        self.tellings.forget();
        self.fetchings.forget();
        self.rolls.forget();
        self.sync.begin_anew(&self.local, now);
        let keys: Vec<Key> = self.young.keys().chain(self.old.keys()).cloned().collect();
        for key in keys {
            let owners = self.local.owners_of(&key);
            if let Some(Entry::Here(cell)) = self.young.get_mut(&key).or_else(|| self.old.get_mut(&key)) {
                cell.owners = owners;
            }
            self.at(now, &key, effects, |cell, turn| {
                cell.coordinator.on_view(turn);
                cell.readings.on_view(turn);
            });
        }
    }

    /// T1: this view is settled, somebody says.
    pub(super) fn settle(&mut self, now: Now, epoch: Epoch, effects: &mut Vec<Effect>) {
        if self.local.note_settled(epoch, effects) {
            self.sync.on_settled(&self.local, now);
        }
    }

    /// It may have come to its first view.
    pub(super) fn born(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.local.newest().is_some() {
            self.begin_anew(now, effects);
        }
    }
}
