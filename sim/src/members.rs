//! Machines that come, go, die for good, lose their disks and come back: and the operator who has it so.

use ennead_ring::effect::Input;
use ennead_ring::message::{Addr, Ask, Envelope, Message, Wish};
use ennead_ring::node::Birth;
use ennead_ring::{Epoch, Incarnation, Machine, MemberState, Name, Record};
use rand::RngExt;

use crate::computer::Role;
use crate::disk::Disk;
use crate::events::{Event, Fault};
use crate::faults::log_uniform;
use crate::script::What;
use crate::world::World;
use crate::{MS, SEC};

/// Tombstones that seem to be from so far in the future are not collected.
const FAR_AHEAD: u64 = 24 * 3_600 * SEC;

/// The operator's address: no client has that number.
pub(super) const OPERATOR: u64 = 1_000_000;

impl World {
    /// Machines that are to be members, as far as they can be.
    pub(super) fn wanted(&self) -> usize {
        self.computers.iter().filter(|c| c.role == Role::In).count()
    }

    fn pick(&mut self, fits: impl Fn(&Self, usize) -> bool) -> Option<usize> {
        let all: Vec<usize> = (0..self.computers.len()).filter(|&m| fits(self, m)).collect();
        if all.is_empty() { None } else { Some(all[self.rng.random_range(0..all.len())]) }
    }

    /// A few machines to join through: members that run, where there are any.
    fn seeds(&mut self, but: usize, few: usize) -> Vec<Name> {
        let good = |w: &Self, m: usize| {
            let c = &w.computers[m];
            let member = w.views.newest.as_ref().is_none_or(|n| n.view.has(c.me));
            m != but && c.role == Role::In && c.node.is_some() && member
        };
        let mut seeds = Vec::new();
        for _ in 0..few {
            if let Some(m) = self.pick(good) {
                seeds.push(self.computers[m].me.name);
            }
        }
        if seeds.is_empty()
            && let Some(newest) = &self.views.newest
        {
            seeds.extend(newest.ring().map(|m| m.name));
        }
        seeds.sort();
        seeds.dedup();
        seeds
    }

    /// A machine that does not belong to the cluster, or left it, comes in; sometimes all that there are.
    pub(super) fn let_in(&mut self) {
        let all = self.rng.random_bool(self.profile.together);
        let out = |w: &Self, m: usize| w.computers[m].role == Role::Out;
        while let Some(m) = self.pick(out) {
            // One that left may come back with what it has on disk, or as new.
            let fresh = self.computers[m].disk.views.is_empty() || self.rng.random_bool(0.5);
            if fresh {
                self.renew(m, None);
            }
            self.join(m);
            if !all {
                return;
            }
        }
    }

    pub(super) fn join(&mut self, m: usize) {
        self.computers[m].role = Role::In;
        self.computers[m].birth = Birth::Join(self.seeds(m, 3));
        // It left, and does not come back by itself: somebody says that it should.
        if std::mem::take(&mut self.computers[m].disk.account.left) {
            self.record(m, |_| Some(What::Wanted));
        }
        self.note(|| format!("s{} is to join", m + 1));
        self.start(m);
    }

    /// Another disk, that of a backup or a blank one; another incarnation.
    pub(super) fn renew(&mut self, m: usize, backup: Option<Disk>) {
        let id = self.rng.random_range(1..u64::MAX);
        let computer = &mut self.computers[m];
        computer.me.incarnation = Incarnation::new(id);
        let restored = backup.is_some();
        computer.disk = backup.unwrap_or_default();
        computer.image = None;
        self.record_anew(m, restored);
    }

    /// A machine is told to leave.
    pub(super) fn let_go(&mut self) {
        if self.wanted() <= self.profile.fewest {
            return;
        }
        if let Some(m) = self.pick(|w, m| w.computers[m].role == Role::In) {
            self.computers[m].role = Role::Going;
            self.note(|| format!("s{} is to leave", m + 1));
        }
    }

    /// A machine whose data may be lost for good now (claim 4).
    fn loseable(&mut self) -> Option<usize> {
        let going: Vec<Machine> =
            self.computers.iter().filter(|c| c.role == Role::Going).map(|c| c.me).collect();
        self.pick(|w, m| {
            let c = &w.computers[m];
            matches!(c.role, Role::In | Role::Going)
                && w.wanted() > usize::from(c.role == Role::In)
                && (w.profile.overdraw || w.views.can_lose(c.me, &going))
        })
    }

    pub(super) fn lose(&mut self, m: usize) {
        self.views.lose(self.computers[m].me);
        self.metrics.lost += 1;
        self.computers[m].role = Role::Dead;
        self.crash(m);
        self.record(m, |_| Some(What::Lost));
    }

    /// A machine is gone for good.
    pub(super) fn let_die(&mut self) {
        if self.wanted() <= self.profile.fewest {
            return;
        }
        let Some(m) = self.loseable() else { return };
        let told = self.rng.random_bool(self.profile.remove);
        self.note(|| format!("s{} dies for good{}", m + 1, if told { ", and is to be removed" } else { "" }));
        self.lose(m);
        if told {
            self.removals.push(self.computers[m].me);
        }
        self.met("died for good");
    }

    /// A machine loses its disk, or finds an old one in its place, and begins anew.
    pub(super) fn wipe(&mut self) {
        let Some(m) = self.loseable() else { return };
        let restored = self.rng.random_bool(self.profile.restore);
        self.lose(m);
        self.note(|| {
            format!("s{} loses its disk{}", m + 1, if restored { "; a backup will do" } else { "" })
        });
        self.computers[m].reborn = Some(restored);
        let after = log_uniform(&mut self.rng, MS, self.profile.tuning.down_after * 4);
        self.schedule(after, Event::Fault(Fault::Reborn(m)));
    }

    pub(super) fn reborn(&mut self, m: usize) {
        let Some(restored) = self.computers[m].reborn.take() else { return };
        let image = self.computers[m].image.take();
        let disk = image.filter(|_| restored);
        self.met(if disk.is_some() { "restored from a backup" } else { "wiped" });
        self.renew(m, disk);
        self.join(m);
    }

    /// A backup is made.
    pub(super) fn back_up(&mut self, m: usize) {
        let computer = &mut self.computers[m];
        if computer.role != Role::Dead {
            computer.image = Some(computer.disk.image());
            self.record(m, |_| Some(What::BackedUp));
        }
    }

    /// Once a second: repeats what is not done yet, and switches off who is not needed any more.
    pub(super) fn operate(&mut self) {
        self.schedule(SEC, Event::Operator);
        self.force();
        self.begin_anew();
        if self.profile.churn_every > 0 {
            self.replace_the_dead();
        }
        let Some(newest) = self.views.newest.clone() else { return };
        for m in 0..self.computers.len() {
            let machine = self.computers[m].me;
            if self.computers[m].role != Role::Going {
                continue;
            }
            let place = newest.view.index_of(machine.name).map(|i| newest.view.members()[i]);
            let leaving = place.is_some_and(|p| p.state == MemberState::Leaving);
            if newest.view.has(machine) && !leaving {
                self.wish(Wish::Leave { machine });
            } else if self.views.is_free(machine) {
                self.note(|| format!("s{} is switched off", m + 1));
                self.computers[m].role = Role::Out;
                self.crash(m);
            }
        }
        for m in 0..self.computers.len() {
            // Nobody whom it knows is there any more: it is told of others.
            let computer = &self.computers[m];
            let there = |name: &Name| newest.view.index_of(*name).is_some();
            let told = matches!(&computer.birth, Birth::Join(to) if to.iter().any(there));
            let view = computer.node.as_ref().and_then(|node| node.view());
            let knows = view.is_some_and(|v| v.members().iter().any(|m| newest.view.has(m.machine)));
            let runs = computer.role == Role::In && computer.node.is_some();
            // Or it left when an old wish of its last stay came late.
            let left = computer.disk.account.left;
            if runs && !newest.view.has(computer.me) && (left || !told && !knows) {
                self.crash(m);
                self.computers[m].birth = Birth::Join(self.seeds(m, 5));
                self.start(m);
            }
        }
        self.wish_places();
        for machine in std::mem::take(&mut self.removals) {
            if newest.view.has(machine) {
                self.wish(Wish::Remove { machine });
                self.removals.push(machine);
            }
        }
    }

    pub(super) fn wish(&mut self, wish: Wish) {
        let Some(to) = self.pick(|w, m| w.computers[m].role == Role::In && w.computers[m].node.is_some())
        else {
            return;
        };
        self.last_ask += 1;
        let message = Message::Wish { ask: Ask(self.last_ask), wish };
        let envelope = Box::new(Envelope { cluster: None, epoch: Epoch::ZERO, message });
        let life = self.computers[to].life;
        let input = Input::Message { from: Addr::Client(OPERATOR), envelope };
        self.schedule(MS, Event::Inside { machine: to, life, input });
    }

    /// All is healed: whoever is to come back does so now, and whoever found no seed is told better ones.
    pub(super) fn bring_back(&mut self) {
        for m in 0..self.computers.len() {
            if self.computers[m].reborn.is_some() {
                self.reborn(m);
            }
        }
        let newest = self.views.newest.clone();
        for m in 0..self.computers.len() {
            let member = newest.as_ref().is_some_and(|n| n.view.has(self.computers[m].me));
            if self.computers[m].role == Role::In && !member {
                let seeds = self.seeds(m, 5);
                self.computers[m].birth = Birth::Join(seeds);
                self.crash(m);
                self.start(m);
            }
        }
    }

    /// What is still to happen before the cluster is as it should be; `None` if it is.
    pub(super) fn unsettled(&self) -> Option<String> {
        let newest = self.views.newest.as_ref()?;
        let view = &newest.view;
        for (m, c) in self.computers.iter().enumerate() {
            let member = view.has(c.me);
            match c.role {
                Role::In if !member => return Some(format!("s{} is not taken in", m + 1)),
                Role::In => {}
                role if member => return Some(format!("s{} ({role:?}) is still a member", m + 1)),
                _ => continue,
            }
            let Some(node) = &c.node else { return Some(format!("s{} does not run", m + 1)) };
            if view.members().iter().any(|member| member.machine == c.me && member.place() != c.place) {
                return Some(format!("s{} has not the weight and the zone that it should", m + 1));
            }
            let epoch = node.view().map_or(Epoch::ZERO, |v| v.epoch());
            if epoch != view.epoch() {
                return Some(format!("s{} stands in e{epoch}, not e{}", m + 1, view.epoch()));
            }
            if !node.is_synced() {
                return Some(format!("s{} is not synced in e{epoch}", m + 1));
            }
        }
        if let Some(stray) =
            view.members().iter().find(|m| self.computers[self.by_name[&m.machine.name]].me != m.machine)
        {
            return Some(format!("{:?}, which is no more, is still a member", stray.machine));
        }
        if !newest.at_rest() {
            return Some(format!("somebody is on the way in or out of {}", super::views::brief(view)));
        }
        if self.views.settled != view.epoch() {
            return Some(format!("e{} is not settled", view.epoch()));
        }
        None
    }

    /// How far the first owner of a key is with comparing its copies.
    fn comparison_of(&self, k: usize) -> String {
        let first = self.views.newest.as_ref().and_then(|newest| newest.owners_once(k).next());
        let Some(m) = first.and_then(|machine| self.by_name.get(&machine.name)) else { return String::new() };
        match &self.computers[*m].node {
            Some(node) => format!(
                "its first owner s{}: {:?}, {:?}, suspects {}",
                m + 1,
                node.check_progress(),
                node.moves(),
                node.suspects().len()
            ),
            None => format!("its first owner s{} is down", m + 1),
        }
    }

    /// A key whose copies are not all alike and voted for, or that somebody else holds; `None` if there is none.
    pub(super) fn uneven(&self) -> Option<String> {
        let newest = self.views.newest.as_ref()?;
        for (k, key) in self.keys.iter().enumerate() {
            let mut first: Option<Option<ennead_ring::Stamp>> = None;
            for machine in newest.owners_once(k) {
                let m = self.by_name[&machine.name];
                let c = &self.computers[m];
                if c.role != Role::In || c.me != machine {
                    continue;
                }
                let owned = newest.owned(c.me, k);
                let record = c.disk.durable_record(key);
                if let Some(record) = record.filter(|r| !owned.is_subset(r.votes)) {
                    let votes = record.votes;
                    return Some(format!(
                        "s{} votes with {votes:?} for its record of key {k}, and owns {owned:?}",
                        m + 1
                    ));
                }
                if c.disk.is_rotten(key) {
                    return Some(format!("s{} cannot read key {k}", m + 1));
                }
                // G2: who finds its time far ahead of his own clock keeps a tombstone.
                let kept = |r: &&Record| r.state.value.is_some() || self.profile.skew < FAR_AHEAD;
                let stamp = record.filter(kept).map(|r| r.stamp);
                if *first.get_or_insert(stamp) != stamp {
                    return Some(format!(
                        "copies of key {k} differ: {first:?} and {stamp:?} (s{}); {}",
                        m + 1,
                        self.comparison_of(k)
                    ));
                }
            }
        }
        for (m, c) in self.computers.iter().enumerate().filter(|(_, c)| c.role == Role::In) {
            let held = c.disk.durable_keys().filter_map(|key| self.keys.place(key));
            if let Some(k) = held.into_iter().find(|&k| newest.owned(c.me, k).is_empty())
                && newest.view.has(c.me)
            {
                return Some(format!("s{} holds key {k}, of which it owns nothing", m + 1));
            }
        }
        None
    }
}
