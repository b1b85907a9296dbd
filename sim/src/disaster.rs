//! More machines are lost for good than any key bears, and an operator forces the others on (F2). What may be lost by that
//! is charged: of the keys concerned, and of no others.

use ennead_ring::message::{Addr, Ask, Envelope, Message};
use ennead_ring::{Epoch, Machine};
use rand::RngExt;

use crate::MS;
use crate::checker::{Call, If, Op, Reply};
use crate::chosen::Chosen;
use crate::computer::{Computer, Role};
use crate::events::Event;
use crate::members::OPERATOR;
use crate::views::{bears, ring_of};
use crate::world::World;

/// What the operator knows, and what has become of it.
#[derive(Default)]
pub(crate) struct Disaster {
    /// Who is to be forced out and is not yet.
    pub(crate) named: Vec<Machine>,
    /// Of each key, the places in the order of events at which it may have lost what it was.
    pub(crate) charged: Vec<Vec<u64>>,
}

impl World {
    /// Some machines of the ring are gone at once, with their disks: more than may be lost.
    pub(super) fn lose_many(&mut self) {
        let Some(newest) = self.views.newest.clone() else { return };
        let here = |w: &Self, m: usize| {
            let c = &w.computers[m];
            newest.ring().any(|one| one == c.me) && !w.views.is_lost(c.me)
        };
        let mut left: Vec<usize> = (0..self.computers.len()).filter(|&m| here(self, m)).collect();
        let gone = newest.ring().filter(|m| self.views.is_lost(*m)).count();
        let least = (bears(newest.ring().count(), self.profile.slots) + 1).saturating_sub(gone).max(1);
        if !self.disaster.named.is_empty() || left.len() <= least {
            return;
        }
        // One is left that knows that it owns something: else all is lost, and nobody to ask.
        let owns = |c: &Computer| c.disk.views.last().is_some_and(|v| ring_of(v).any(|one| one == c.me));
        let good = |m: &usize| self.computers[*m].role == Role::In && owns(&self.computers[*m]);
        let stays = left.iter().copied().filter(good).collect::<Vec<_>>();
        if stays.is_empty() {
            return;
        }
        let stays = stays[self.rng.random_range(0..stays.len())];
        left.retain(|&m| m != stays);
        for _ in 0..self.rng.random_range(least..=left.len()) {
            let m = left.swap_remove(self.rng.random_range(0..left.len()));
            self.note(|| format!("s{} is lost for good, with many", m + 1));
            self.lose(m);
        }
        self.disaster.named = self.views.missed();
        self.met("five owners lost");
    }

    /// As `kvctl recover` does, once a second: one of those that are left is told, until a view shows it.
    pub(super) fn force(&mut self) {
        let Some(newest) = self.views.newest.clone() else { return };
        self.disaster.named.retain(|m| !newest.view.has_forced_out(m.incarnation));
        if !self.disaster.named.is_empty() {
            // Who was lost while that was said, or is still missed though it was dropped, is named as well.
            let mut missed = self.views.missed();
            missed.retain(|machine| (0..self.computers.len()).any(|m| self.knows(m, *machine)));
            self.disaster.named = missed;
        } else if !newest.view.forced_out().is_empty() && !self.faulty {
            self.disaster.named = self.waited_for();
        }
        if self.disaster.named.is_empty() {
            return;
        }
        let runs = |m: &&usize| {
            let c = &self.computers[**m];
            c.node.is_some() && newest.view.has(c.me) && c.role != Role::Dead
        };
        let all: Vec<usize> = (0..self.computers.len()).collect();
        let left: Vec<usize> = all.iter().filter(runs).copied().collect();
        // The most advanced, or another operator asks another one.
        let first = left.iter().copied().max_by_key(|m| self.computers[*m].disk.epoch());
        let any = match self.rng.random_bool(0.3) && !left.is_empty() {
            true => Some(left[self.rng.random_range(0..left.len())]),
            false => None,
        };
        for to in [first, any].into_iter().flatten() {
            self.last_ask += 1;
            let named = self.disaster.named.iter().copied();
            let machines: Vec<Machine> = named.filter(|machine| self.knows(to, *machine)).collect();
            if machines.is_empty() {
                continue;
            }
            let message = Message::Force { ask: Ask(self.last_ask), machines };
            let envelope = Box::new(Envelope { cluster: None, epoch: Epoch::ZERO, message });
            let input = ennead_ring::effect::Input::Message { from: Addr::Client(OPERATOR), envelope };
            let life = self.computers[to].life;
            let after = self.rng.random_range(MS..=20 * MS);
            self.schedule(after, Event::Inside { machine: to, life, input });
        }
    }

    /// True if a machine runs and has this one in a view: only so an operator hears of it.
    fn knows(&self, m: usize, machine: Machine) -> bool {
        let node = self.computers[m].node.as_ref();
        node.is_some_and(|node| node.history().any(|view| view.has(machine)))
    }

    /// Whom those that are left wait for in vain, as `kvctl moves` says: it left in order, or was dropped, and who knew that
    /// nobody needed it any more is lost.
    fn waited_for(&mut self) -> Vec<Machine> {
        let mut missed: Vec<Machine> = Vec::new();
        for node in self.computers.iter().filter_map(|c| c.node.as_ref()).filter(|node| !node.is_synced()) {
            let Some(present) = node.view() else { continue };
            let members = node.history().flat_map(|view| view.members()).map(|m| m.machine);
            let gone = |m: &Machine| {
                let computer = &self.computers[self.by_name[&m.name]];
                computer.me != *m || computer.node.is_none()
            };
            missed.extend(members.filter(|m| gone(m) && !present.has_forced_out(m.incarnation)));
        }
        missed.sort();
        missed.dedup();
        if !missed.is_empty() {
            self.met("named because it is waited for");
        }
        missed
    }

    /// Whoever was left behind by a forced view falls silent, and begins again as another machine (F2).
    pub(super) fn begin_anew(&mut self) {
        for m in 0..self.computers.len() {
            let Some(node) = &self.computers[m].node else { continue };
            let Some(why) = node.is_forced_out().map(str::to_owned) else { continue };
            if !why.contains("left behind") {
                // Nobody puts an old disk back here, and those that are named are gone.
                self.fail(format!("F2, R2: s{} falls silent: {why}", m + 1));
                return;
            }
            self.met("left behind by a forced recovery");
            self.lose(m);
            self.renew(m, None);
            self.join(m);
        }
    }

    /// The first view is adopted that forces them out: keys of which it may have taken five slots, in any view that was not
    /// settled, may have lost what was last acknowledged. All others have to be as they were.
    pub(super) fn charge(&mut self) {
        let at = self.stamp();
        for key in 0..self.keys.len() {
            if !self.views.may_have_lost(self.keys.get(key)) {
                self.met("spared by a forced recovery");
                continue;
            }
            self.note(|| format!("key {key} may have been lost"));
            self.met("charged to a forced recovery");
            self.disaster.charged[key].push(at);
            self.chosen[key] = Chosen::default();
        }
    }
}

/// A key's history, cut where it may have lost what it was: in each part it is one register, which begins as anything that
/// somebody had asked for before.
pub(crate) fn parts(history: &[Op], cuts: &[u64]) -> Vec<Vec<Op>> {
    let bounds = || [0].into_iter().chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([u64::MAX]);
    bounds().zip(ends).map(|(from, to)| part(history, from, to)).collect()
}

fn part(history: &[Op], from: u64, to: u64) -> Vec<Op> {
    let began = history.iter().filter(|op| op.start < to);
    let within = |op: &Op| op.start >= from && (op.end <= to || to == u64::MAX);
    let mut ops = Vec::new();
    for op in began {
        let applied = matches!(op.reply, Reply::Done(_) | Reply::Unknown)
            && !matches!(op.call, Call::Get | Call::Touch(_));
        let call = match op.call {
            Call::Put(value, _) => Call::Put(value, If::Any),
            Call::Delete(_) => Call::Delete(If::Any),
            Call::Get | Call::Touch(_) | Call::Incr(_) => op.call,
        };
        if within(op) {
            ops.push(*op);
        } else if applied {
            ops.push(Op { call, reply: Reply::Unknown, end: u64::MAX, ..*op });
        }
    }
    ops
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::judge;

    fn op(call: Call, reply: Reply, start: u64) -> Op {
        Op { who: 1, call, reply, start, end: start + 1 }
    }

    #[test]
    fn what_was_lost_may_be_missed_after_the_cut_and_not_before_it() {
        let history = [
            op(Call::Put(1, If::Any), Reply::Done(1), 10),
            op(Call::Put(2, If::Any), Reply::Done(2), 20),
            op(Call::Get, Reply::Found(1, 1), 40),
            op(Call::Put(3, If::Any), Reply::Done(2), 50),
            op(Call::Get, Reply::Found(3, 2), 60),
        ];
        let right =
            |history: &[Op], cuts: &[u64]| parts(history, cuts).iter().all(|part| judge(part).is_ok());
        assert!(!right(&history, &[]), "a write is lost");
        assert!(right(&history, &[30]));
        assert!(!right(&history, &[55]), "before it was lost");
        // What is acknowledged after the cut is not lost.
        let again = [&history[..4], &[op(Call::Get, Reply::Found(1, 1), 60)]].concat();
        assert!(!right(&again, &[30]));
    }
}
