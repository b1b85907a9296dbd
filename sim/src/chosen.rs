//! What was chosen, as somebody knows who hears every vote: and whether five who vote could have forgotten it.
//!
//! The checker sees a lost write when somebody misses it. This sees it at once: no five slots that vote in the newest
//! view may lack a state that five slots held in some view (PROTOCOL 13, why claim 1 holds, (i) to (iii)).

use std::collections::{BTreeMap, VecDeque};

use ennead_ring::message::{Answer, Copied};
use ennead_ring::quorum::MAX_SLOTS;
use ennead_ring::{Ballot, Epoch, Key, Machine, SlotSet, Stamp, quorum_of};

use crate::disk::Disk;
use crate::views::{Keys, Seen, Views};
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

    /// A machine's vote is on its way to whoever asked, while views before that one need not be looked into.
    pub(crate) fn voted(&mut self, epoch: Epoch, votes: SlotSet, answer: &Answer, slots: u8, settled: Epoch) {
        let stamp = match answer {
            Answer::Promised { ballot, .. } => {
                self.promised(epoch, *ballot, votes, slots);
                self.forget_before(settled);
                None
            }
            Answer::Held { stamp } => Some(*stamp),
            Answer::Copy(Copied::Whole(record)) => Some(record.stamp),
            Answer::Copy(Copied::Summary { stamp, .. }) => Some(*stamp),
            _ => None,
        };
        if let Some(stamp) = stamp {
            self.held(epoch, stamp, votes, slots);
        }
    }
}

/// Claim 2, of one key: what is wrong, if a quorum of the slots that vote in the newest view lacks what was chosen.
pub(crate) fn forgotten<'a>(
    views: &Views,
    (k, key, chosen): (usize, &Key, &Chosen),
    slots: u8,
    disk_of: impl Fn(Machine) -> Option<&'a Disk>,
) -> Option<String> {
    let (newest, chosen) = (views.newest.as_ref()?, chosen.stamp?);
    let mut lacking = SlotSet::EMPTY;
    for machine in newest.owners_once(k) {
        let Some(disk) = disk_of(machine) else { continue };
        let lacks = match disk.durable_copy(key) {
            Some((record, readable)) => readable && record.stamp < chosen,
            None => disk.limits.bound.time < chosen.ballot.time,
        };
        if lacks && !views.is_lost(machine) {
            lacking = lacking.union(views.may_vote(machine, newest.epoch(), k));
        }
    }
    (lacking.len() >= quorum_of(slots)).then(|| {
        format!(
            "claim 2: {chosen} of key {k} was chosen, and slots {lacking:?}, which vote in e{}, lack it",
            newest.epoch()
        )
    })
}

/// S5: a machine that has become synced refuses what was promised away on behalf of the slots that it gained. What is wrong,
/// if it does not.
pub(crate) fn takes_part(
    views: &Views,
    seen: &Seen,
    (me, disk): (Machine, &Disk),
    keys: &Keys,
    chosen: &[Chosen],
) -> Option<String> {
    if views.settled >= seen.epoch() {
        return None;
    }
    let mut missed = None;
    for k in seen.keys_of(me) {
        let owned = seen.owned(me, k);
        for (&epoch, (ballot, slots)) in chosen[k].sworn.range(views.settled..seen.epoch()).rev() {
            let own = views.may_vote(me, epoch, k);
            // One promise serves all slots of a machine: if it is among those who promised, it remembers.
            let among = !own.intersection(*slots).is_empty();
            let gained = if among { SlotSet::EMPTY } else { owned.intersection(*slots).minus(own) };
            let record = disk.durable_record(keys.get(k)).map_or(Ballot::ZERO, |r| r.stamp.ballot);
            let barred = disk.limits.floor.max(disk.limits.bound.time).max(record.time);
            if !gained.is_empty() && barred < ballot.time {
                missed = Some(format!(
                    "S5: {me} is synced in e{} for slots {gained:?} of key {k}, which promised {ballot} in e{epoch}, and \
                     would take part in ballots up to it",
                    seen.epoch()
                ));
            }
        }
    }
    missed
}

impl World {
    /// S5: a machine has become synced.
    pub(super) fn knows_promises(&mut self, m: usize, seen: &Seen) {
        let computer = &self.computers[m];
        let (me, disk) = (computer.me, &computer.disk);
        if let Some(what) = takes_part(&self.views, seen, (me, disk), &self.keys, &self.chosen) {
            self.fail(what);
        }
    }

    /// Claim 2, at a moment at which somebody began to vote for these keys, or forgot something.
    pub(super) fn nothing_is_forgotten(&mut self, keys: impl IntoIterator<Item = usize>) {
        let disk_of = |machine: Machine| {
            let computer = &self.computers[self.by_name[&machine.name]];
            (computer.me == machine).then_some(&computer.disk)
        };
        let of = |k: usize| (k, self.keys.get(k), &self.chosen[k]);
        let slots = self.profile.slots;
        let lost = keys.into_iter().filter_map(|k| forgotten(&self.views, of(k), slots, disk_of)).last();
        if let Some(what) = lost {
            self.fail(what);
        }
    }
}
