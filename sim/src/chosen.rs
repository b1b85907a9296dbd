//! What was chosen, as somebody knows who hears every vote: and whether five who vote could have forgotten it.
//!
//! The checker sees a lost write when somebody misses it. This sees it at once: no five slots that vote in the newest
//! view may lack a state that five slots held in some view (PROTOCOL 13, why claim 1 holds, (i) to (iii)).

use std::collections::{BTreeMap, VecDeque};

use ennead_ring::message::{Answer, Copied};
use ennead_ring::quorum::MAX_SLOTS;
use ennead_ring::{Ballot, Epoch, SlotSet, Stamp, quorum_of};

use crate::views::Seen;
use crate::world::World;

/// One key's votes: for each ballot and epoch, how far each slot has gone. Ballots below the chosen one are dropped.
#[derive(Default)]
pub(crate) struct Chosen {
    tallies: Vec<(Epoch, Ballot, [u32; MAX_SLOTS])>,
    /// The highest stamp that a quorum held.
    pub(crate) stamp: Option<Stamp>,
    /// Of the last few ballots and epochs, the slots that promised.
    promises: VecDeque<(Epoch, Ballot, SlotSet)>,
    /// Of each epoch, the highest ballot that a quorum promised, and by which slots.
    sworn: BTreeMap<Epoch, (Ballot, SlotSet)>,
}

impl Chosen {
    /// Somebody said with these votes that it holds this.
    pub(crate) fn held(&mut self, epoch: Epoch, stamp: Stamp, votes: SlotSet, slots: u8) {
        if self.stamp.is_some_and(|chosen| stamp <= chosen) {
            return;
        }
        let at = self.tallies.iter().position(|(e, b, _)| *e == epoch && *b == stamp.ballot);
        let at = at.unwrap_or_else(|| {
            self.tallies.push((epoch, stamp.ballot, [0; MAX_SLOTS]));
            self.tallies.len() - 1
        });
        let counts = &mut self.tallies[at].2;
        for slot in votes.iter() {
            let n = &mut counts[usize::from(slot) - 1];
            *n = (*n).max(stamp.n);
        }
        let mut sorted = *counts;
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        let n = sorted[usize::from(quorum_of(slots)) - 1];
        let chosen = Stamp { n, ballot: stamp.ballot };
        if n > 0 && self.stamp.is_none_or(|former| chosen > former) {
            self.stamp = Some(chosen);
            self.tallies.retain(|(_, ballot, _)| *ballot >= chosen.ballot);
        }
    }
}

impl Chosen {
    /// Somebody said with these votes that it promises this.
    fn promised(&mut self, epoch: Epoch, ballot: Ballot, votes: SlotSet, slots: u8) {
        let at = self.promises.iter().position(|(e, b, _)| (*e, *b) == (epoch, ballot));
        let at = at.unwrap_or_else(|| {
            self.promises.truncate(7);
            self.promises.push_front((epoch, ballot, SlotSet::EMPTY));
            0
        });
        let all = self.promises[at].2.union(votes);
        self.promises[at].2 = all;
        if all.len() >= quorum_of(slots) && self.sworn.get(&epoch).is_none_or(|(b, _)| *b <= ballot) {
            self.sworn.insert(epoch, (ballot, all));
        }
    }

    /// Whoever becomes synced is asked what he knows of views since the last settled one.
    fn forget_before(&mut self, settled: Epoch) {
        if self.sworn.first_key_value().is_some_and(|(epoch, _)| *epoch < settled) {
            self.sworn = self.sworn.split_off(&settled);
        }
    }
}

impl World {
    /// A machine's vote is on its way to whoever asked.
    pub(super) fn voted(&mut self, key: usize, epoch: Epoch, votes: SlotSet, answer: &Answer) {
        let slots = self.profile.slots;
        let stamp = match answer {
            Answer::Promised { ballot, .. } => {
                self.chosen[key].promised(epoch, *ballot, votes, slots);
                self.chosen[key].forget_before(self.views.settled);
                None
            }
            Answer::Held { stamp } => Some(*stamp),
            Answer::Copy(Copied::Whole(record)) => Some(record.stamp),
            Answer::Copy(Copied::Summary { stamp, .. }) => Some(*stamp),
            _ => None,
        };
        if let Some(stamp) = stamp {
            self.chosen[key].held(epoch, stamp, votes, slots);
        }
    }

    /// S5: a machine has become synced, and refuses what was promised away on behalf of the slots that it gained.
    pub(super) fn knows_promises(&mut self, m: usize, seen: &Seen) {
        if self.views.settled >= seen.epoch() {
            return;
        }
        let computer = &self.computers[m];
        let mut missed = None;
        for k in seen.keys_of(computer.me) {
            let key = self.keys.get(k);
            let owned = seen.owned(computer.me, k);
            for (&epoch, (ballot, slots)) in
                self.chosen[k].sworn.range(self.views.settled..seen.epoch()).rev()
            {
                let own = self.views.may_vote(computer.me, epoch, k);
                // One promise serves all slots of a machine: if it is among those who promised, it remembers.
                let among = !own.intersection(*slots).is_empty();
                let gained = if among { SlotSet::EMPTY } else { owned.intersection(*slots).minus(own) };
                let record = computer.disk.durable_record(key).map_or(Ballot::ZERO, |r| r.stamp.ballot);
                let limits = &computer.disk.limits;
                let barred = limits.floor.max(limits.bound.time).max(record.time);
                if !gained.is_empty() && barred < ballot.time {
                    missed = Some(format!(
                        "S5: s{} is synced in e{} for slots {gained:?} of key {k}, which promised {ballot} in e{epoch}, \
                         and would take part in ballots up to it",
                        m + 1,
                        seen.epoch()
                    ));
                }
            }
        }
        if let Some(what) = missed {
            self.fail(what);
        }
    }

    /// Claim 2, at a moment at which somebody began to vote for these keys, or forgot something.
    pub(super) fn nothing_is_forgotten(&mut self, keys: impl IntoIterator<Item = usize>) {
        let Some(newest) = self.views.newest.clone() else { return };
        let mut lost = None;
        for k in keys {
            let (key, Some(chosen)) = (self.keys.get(k), self.chosen[k].stamp) else { continue };
            let mut lacking = SlotSet::EMPTY;
            for machine in newest.owners_once(k) {
                let computer = &self.computers[self.by_name[&machine.name]];
                let lacks = match computer.disk.durable_copy(key) {
                    Some((record, readable)) => readable && record.stamp < chosen,
                    None => computer.disk.limits.bound.time < chosen.ballot.time,
                };
                if lacks && computer.me == machine && !self.views.is_lost(machine) {
                    lacking = lacking.union(self.views.may_vote(machine, newest.epoch(), k));
                }
            }
            if lacking.len() >= quorum_of(self.profile.slots) {
                lost = Some(format!(
                    "claim 2: {chosen} of key {k} was chosen, and slots {lacking:?}, which vote in e{}, lack it",
                    newest.epoch()
                ));
            }
        }
        if let Some(what) = lost {
            self.fail(what);
        }
    }
}
