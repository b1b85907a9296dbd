//! What is made of one key, of which all has been told: S5 and S6, M1, or the comparison of its copies.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::{Act, Merge, Owned, Place, TRY_AGAIN, Take, Wanted};
use crate::effect::Now;
use crate::history::{Concern, Telling, Verdict, judge};
use crate::key::Key;
use crate::local::Local;
use crate::message::{Entry, Held, Purpose};
use crate::mutant::Mutant;
use crate::quorum::SlotSet;
use crate::rare::{Rare, met, met_if};
use crate::stamp::{Hlc, Stamp};
use crate::view::Machine;

impl Merge {
    /// One key, of which all has been told. False if it cannot be decided yet.
    pub(super) fn decide(&mut self, local: &mut Local, now: Now, key: &Key, acts: &mut Vec<Act>) -> bool {
        let own = pop_if(&mut self.own.buffer, |o| o.key == *key);
        let mut told: Vec<(usize, Entry)> = Vec::new();
        for (i, teller) in self.tellers.iter_mut().enumerate().filter(|(_, t)| !t.out) {
            told.extend(pop_if(&mut teller.source.buffer, |e| e.key == *key).map(|e| (i, e)));
        }
        let unreadable = told.iter().any(|(_, e)| e.held == Held::Unreadable);
        match self.purpose {
            Purpose::Check => self.compare(local, now, key, own, &told, acts),
            // Nobody has it for this machine: whatever is held stays as it is.
            Purpose::Ahead | Purpose::Copy if told.is_empty() => {}
            _ if matches!(own, Some(Owned { record: None, .. })) => {
                // R3: mute for this key, until a round that did without it has written it anew.
            }
            _ if unreadable => {
                if self.handoff {
                    // The one who should tell cannot: all others must.
                    self.handoff = false;
                    let at = self.at.clone();
                    self.restart(at);
                    return false;
                }
                let mute = told.iter().filter(|(_, e)| e.held == Held::Unreadable);
                let mute: Vec<Machine> = mute.map(|(i, _)| self.tellers[*i].machine).collect();
                let without: Vec<Machine> =
                    self.without.iter().copied().chain(mute.iter().copied()).collect();
                if self.purpose == Purpose::Sync && !self.is_covered_without(local, &without) {
                    let at = self.at.clone();
                    self.restart(at);
                    self.not_before = now.mono.plus(TRY_AGAIN);
                    return false;
                }
                self.take(local, key, own, told, &mute, acts);
            }
            _ => self.take(local, key, own, told, &[], acts),
        }
        true
    }

    /// S5, S6, M1.
    fn take(
        &mut self,
        local: &mut Local,
        key: &Key,
        own: Option<Owned>,
        mut told: Vec<(usize, Entry)>,
        mute: &[Machine],
        acts: &mut Vec<Act>,
    ) {
        let (place, own) = match own {
            Some(Owned { place, record, .. }) => (place, record.map(|(stamp, votes, _)| (stamp, votes))),
            None => (Place::of(local, key), None),
        };
        let verdict = self.verdict(local, &place, own, &told, mute);
        let Some(Verdict { gained, best, granted, own_is_void }) = verdict else { return };
        let void = if own_is_void { own.map(|(stamp, _)| stamp) } else { None };
        let (purpose, epoch) = (self.purpose, self.epoch);
        let mut take = Take { purpose, epoch, stamp: best, state: None, gained, granted, void };
        match (best, own) {
            (None, None) => return,
            (None, Some(_)) if !own_is_void => return,
            (None, Some(_)) => met(Rare::S5OwnIsVoid),
            (Some(best), Some((stamp, votes))) if stamp == best => {
                self.keys += 1;
                if votes.minus(gained).union(granted) == votes {
                    return;
                }
            }
            (Some(best), _) => {
                self.keys += 1;
                let holds = |e: &Entry| matches!(&e.held, Held::Record { stamp, .. } if *stamp == best);
                let whole = |e: &Entry| matches!(&e.held, Held::Record { state: Some(_), .. }) && holds(e);
                if let Some(at) = told.iter().position(|(_, e)| whole(e)) {
                    if let Held::Record { state, .. } = told.swap_remove(at).1.held {
                        take.state = state;
                    }
                } else if let Some((i, _)) = told.iter().find(|(_, e)| holds(e)) {
                    met(Rare::M2ValueIsFetched);
                    let from = self.tellers[*i].machine;
                    self.wanted.insert(key.clone(), Wanted { take, from, asked: false });
                    return;
                } else {
                    return;
                }
            }
        }
        self.taking += 1;
        acts.push(Act::Take(key.clone(), take));
    }

    /// What all this makes of the key; `None` if it is no concern of this machine.
    fn verdict(
        &self,
        local: &Local,
        place: &Place,
        own: Option<(Stamp, SlotSet)>,
        told: &[(usize, Entry)],
        mute: &[Machine],
    ) -> Option<Verdict> {
        let history = local.history();
        let Place { owners, next } = place;
        let concern = self.concern(local);
        let mut others = Vec::with_capacity(self.tellers.len());
        for (i, teller) in self.tellers.iter().enumerate() {
            let track = &teller.track;
            let is_told = || history.is_told(&concern, (owners, next.as_ref()), (teller.machine, track));
            if teller.out || mute.contains(&teller.machine) || !is_told() {
                continue;
            }
            let record = told.iter().find(|(t, _)| *t == i).and_then(|(_, e)| match e.held {
                Held::Record { stamp, votes, .. } => Some((stamp, votes)),
                Held::Unreadable => None,
            });
            others.push(Telling { track, record });
        }
        let rolled = self.rolled_of(local, place, mute);
        others.extend(rolled.iter().map(|track| Telling { track, record: None }));
        let mine = Telling { track: &self.mine, record: own };
        match self.purpose {
            Purpose::Ahead | Purpose::Copy => {
                // M1: plain data, no votes. What it holds is compared by its stamp alone: it counts for nothing.
                let concerns = others.iter().any(|t| t.record.is_some());
                let best = others.iter().filter_map(|t| t.record).map(|(stamp, _)| stamp).max();
                let newer = best.is_some_and(|best| own.is_none_or(|(stamp, _)| best > stamp));
                (concerns && newer).then_some(Verdict {
                    gained: SlotSet::EMPTY,
                    best,
                    granted: SlotSet::EMPTY,
                    own_is_void: false,
                })
            }
            _ => {
                let verdict = judge(&history, owners, &mine, &others);
                (!verdict.gained.is_empty()).then_some(verdict)
            }
        }
    }

    pub(super) fn concern<'a>(&'a self, local: &Local) -> Concern<'a> {
        Concern {
            purpose: self.purpose,
            handoff: self.handoff,
            without: &self.without,
            asker: local.me,
            track: &self.track,
        }
    }

    /// Are all copies of a key alike, and voted for by all its slots? Its first owner asks.
    fn compare(
        &mut self,
        local: &Local,
        now: Now,
        key: &Key,
        own: Option<Owned>,
        told: &[(usize, Entry)],
        acts: &mut Vec<Act>,
    ) {
        let present = local.present();
        let owners = own
            .as_ref()
            .and_then(|own| own.place.owners.last().copied())
            .unwrap_or_else(|| present.owners(key));
        if present.me.is_none() || owners.machines().next() != present.me {
            return;
        }
        self.keys += 1;
        let slots = |machine| present.index_of(machine).map_or(SlotSet::EMPTY, |i| owners.slots_of(i));
        let others = told.iter().filter_map(|(i, entry)| match &entry.held {
            Held::Record { stamp, votes, tombstone, .. } => {
                Some((self.tellers[*i].machine, *stamp, *votes, *tombstone))
            }
            Held::Unreadable => None,
        });
        let unreadable = own.as_ref().is_some_and(|o| o.record.is_none()) || !told.is_empty();
        let wall = Hlc::from_nanos(now.wall);
        let expired = own.as_ref().and_then(|o| o.expires).is_some_and(|at| at <= wall);
        let own =
            own.and_then(|o| o.record).map(|(stamp, votes, tombstone)| (local.me, stamp, votes, tombstone));
        let copies: Vec<(Machine, Stamp, SlotSet, bool)> = others.chain(own).collect();
        let all = SlotSet::all(owners.slots());
        let Some(best) = copies.iter().map(|c| c.1).max() else {
            // Only unreadable ones: the owners that can read say "none", and five of them are a quorum.
            if unreadable {
                self.unlike += 1;
                acts.push(Act::Settle(key.clone()));
            }
            return;
        };
        let rules = local.rules;
        let votes = copies.iter().filter(|c| c.1 == best).map(|(machine, _, votes, _)| {
            if rules.broken(Mutant::G2Hearsay) {
                slots(*machine)
            } else {
                votes.intersection(slots(*machine))
            }
        });
        let votes = votes.fold(SlotSet::EMPTY, SlotSet::union);
        let tombstone = copies.iter().any(|c| c.1 == best && c.3);
        let enough = votes == all || rules.broken(Mutant::G2Five) && votes.len() * 2 > all.len();
        let old = best.ballot.time.plus(local.tuning.collect_after) <= wall;
        met_if(tombstone && enough && !old, Rare::G2TooYoung);
        met_if(tombstone && !enough, Rare::G2NotAllVote);
        met_if(expired, Rare::G4NobodyAsks);
        if tombstone && enough && old && local.is_settled() {
            acts.push(Act::Collect(key.clone(), best));
        } else if votes != all || expired {
            // G4: nobody may ever ask for an expired value again; whoever settles it deletes it on the way.
            self.unlike += u64::from(votes != all);
            acts.push(Act::Settle(key.clone()));
        }
    }
}

fn pop_if<T>(queue: &mut VecDeque<T>, f: impl FnOnce(&T) -> bool) -> Option<T> {
    if queue.front().is_some_and(f) { queue.pop_front() } else { None }
}
