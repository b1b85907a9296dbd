//! The keys in their order, from what the machines tell of them: whoever lists merges their pages, and counts (L2, L3).
//!
//! Pure: pages go in, keys come out, each with what five slots say of it. Holds no more than the pages that are put in
//! and not yet used up; [`wants`](Gathering::wants) says whose next page there is room for.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::history::may_be_lost;
use crate::key::Key;
use crate::message::{ListPage, ListRecord, ListValue};
use crate::mutant::{Mutant, Rules};
use crate::placement::Owners;
use crate::position::Chain;
use crate::quorum::{SlotSet, Tally};
use crate::stamp::Stamp;
use crate::view::{Epoch, View};

/// Keys of one machine that wait to be counted: its next page is not asked for before they are fewer.
const AHEAD: usize = 256;

/// See the module's caption. Of one view: another view's pages begin another gathering, where this one got to (L4).
#[derive(Debug)]
pub struct Gathering {
    view: Arc<View>,
    rules: Rules,
    prefix: Vec<u8>,
    /// Machines that must have told a range.
    needed: usize,
    /// All keys up to here have been given out, or are none.
    done: Reach,
    /// All keys up to here have been told by enough machines.
    frontier: Reach,
    tellers: BTreeMap<u32, Teller>,
}

/// How far something goes in the order of the keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Reach {
    Start,
    Upto(Key),
    End,
}

/// A machine, and what it told that has not been counted yet.
#[derive(Debug)]
struct Teller {
    keys: VecDeque<(Key, Option<ListRecord>)>,
    upto: Reach,
}

/// What became of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// It is taken into account.
    Taken,
    /// It is not what is waited for: it came twice, or late.
    Stray,
    /// The machine is in an earlier view than this gathering; it will follow.
    Behind,
    /// The machine is in a later view: this gathering comes to nothing more (L4).
    Ahead,
    /// The machine does not vote for all it owns at present (L2).
    NotSynced,
    /// No page can be like this.
    Malformed,
}

/// What comes next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// This key, and what five slots say of it.
    Key(Key, Verdict),
    /// Further pages are needed.
    Wait,
    /// There are no more keys.
    End,
}

/// What the machines' votes for a key come to (L3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Five slots vote for this record (D2); with its value where any machine told it.
    Settled(ListRecord),
    /// Five slots vote for "none", or for a tombstone.
    None,
    /// Neither: only a read tells.
    Unclear,
}

impl Gathering {
    /// Of keys that begin with `prefix`, after `after`; from the first with `None`.
    pub fn new(view: Arc<View>, prefix: &[u8], after: Option<Key>) -> Self {
        Self::with_rules(view, prefix, after, Rules::default())
    }

    #[doc(hidden)]
    pub fn with_rules(view: Arc<View>, prefix: &[u8], after: Option<Key>, rules: Rules) -> Self {
        let machines = view.members().iter().filter(|m| m.in_ring()).count();
        let few = usize::from(rules.broken(Mutant::L2Few));
        let needed = machines - may_be_lost(machines, view.slots()) - few;
        let done = after.map_or(Reach::Start, Reach::Upto);
        let frontier = done.clone();
        Self { view, rules, prefix: prefix.to_vec(), needed, done, frontier, tellers: BTreeMap::new() }
    }

    /// Machines that must tell: all of the ring's but as many as may be lost at once.
    pub fn needed(&self) -> usize {
        self.needed
    }

    /// The last key that has been given out, or is known to be none: where another gathering goes on.
    pub fn done(&self) -> Option<&Key> {
        match &self.done {
            Reach::Upto(key) => Some(key),
            Reach::Start | Reach::End => None,
        }
    }

    /// After which key a member's next page is wanted; `None` while there is no room for it, or no more to tell.
    pub fn wants(&self, member: u32) -> Option<Option<Key>> {
        let (reach, waiting) = match self.tellers.get(&member) {
            // What has been given out meanwhile is no use any more.
            Some(teller) => ((&teller.upto).max(&self.done), teller.keys.len()),
            None => (&self.done, 0),
        };
        match reach {
            _ if waiting > AHEAD => None,
            Reach::Start => Some(None),
            Reach::Upto(key) => Some(Some(key.clone())),
            Reach::End => None,
        }
    }

    /// Takes a page into account that a member told at an epoch.
    pub fn hear(&mut self, member: u32, epoch: Epoch, page: ListPage) -> Heard {
        // Q2: votes of two epochs are never added up.
        if epoch != self.view.epoch() && !self.rules.broken(Mutant::L4Mixed) {
            return if epoch > self.view.epoch() { Heard::Ahead } else { Heard::Behind };
        }
        if !page.synced && !self.rules.broken(Mutant::L2Unsynced) {
            return Heard::NotSynced;
        }
        if !self.view.members().get(member as usize).is_some_and(|m| m.in_ring()) {
            return Heard::Stray;
        }
        let after = page.after.map_or(Reach::Start, Reach::Upto);
        let upto = page.upto.map_or(Reach::End, Reach::Upto);
        // What it leaves out beyond what is done would be taken for "none".
        let goes_on = match self.tellers.get(&member) {
            Some(teller) => teller.upto == after || (teller.upto < after && after <= self.done),
            None => after <= self.done,
        };
        if !goes_on {
            return Heard::Stray;
        }
        if !is_well_formed(&self.prefix, &after, &page.keys, &upto) {
            return Heard::Malformed;
        }
        let teller = self
            .tellers
            .entry(member)
            .or_insert_with(|| Teller { keys: VecDeque::new(), upto: Reach::Start });
        teller.keys.extend(page.keys.into_iter().filter(|(key, _)| is_beyond(key, &self.done)));
        teller.upto = upto;
        self.see_frontier();
        Heard::Taken
    }

    /// The next key that enough machines have told of, in order.
    #[allow(clippy::should_implement_trait, reason = "an iterator could not wait for pages")]
    pub fn next(&mut self) -> Next {
        let firsts = self.tellers.values().filter_map(|t| t.keys.front().map(|(key, _)| key));
        match firsts.min() {
            Some(key) if !is_beyond(key, &self.frontier) => {
                let key = key.clone();
                let verdict = self.count(&key);
                self.done = Reach::Upto(key.clone());
                Next::Key(key, verdict)
            }
            _ => {
                if self.frontier > self.done {
                    self.done = self.frontier.clone();
                }
                if self.done == Reach::End { Next::End } else { Next::Wait }
            }
        }
    }

    /// L2: every key up to here has five slots that have told of it.
    fn see_frontier(&mut self) {
        let mut reached: Vec<&Reach> = self.tellers.values().map(|t| &t.upto).collect();
        reached.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(reach) = reached.get(self.needed.saturating_sub(1)) {
            self.frontier = (*reach).clone();
        }
    }

    /// L3: counts what has been told of a key, and is done with it.
    fn count(&mut self, key: &Key) -> Verdict {
        let slots = self.view.slots();
        let owners = self.view.ring().owners(&Chain::of(key.as_bytes(), slots));
        let mut tallies: Vec<(Option<Stamp>, Tally, Option<ListRecord>)> = Vec::new();
        let reach = Reach::Upto(key.clone());
        for (member, teller) in &mut self.tellers {
            let told = match teller.keys.front() {
                Some((first, _)) if first == key => teller.keys.pop_front().map(|(_, record)| record),
                _ => None,
            };
            let Some((record, votes)) = worth(told, &owners, *member, teller.upto >= reach) else { continue };
            let stamp = record.as_ref().map(|r| r.stamp);
            let at = tallies.iter().position(|(s, ..)| *s == stamp).unwrap_or_else(|| {
                tallies.push((stamp, Tally::new(self.rules), None));
                tallies.len() - 1
            });
            let (_, tally, best) = &mut tallies[at];
            tally.add(self.view.epoch(), votes);
            if best.is_none() || record.as_ref().is_some_and(|r| matches!(r.value, ListValue::Whole(_))) {
                *best = record;
            }
        }
        match tallies.into_iter().find(|(_, tally, _)| tally.reached(slots)) {
            None => Verdict::Unclear,
            Some((_, _, Some(record))) if record.value != ListValue::None => Verdict::Settled(record),
            Some(_) => Verdict::None,
        }
    }

    /// Members of the ring that have told of nothing beyond what is done.
    pub fn silent(&self) -> Vec<u32> {
        let told = |member: u32| {
            self.tellers.get(&member).is_some_and(|t| t.upto > self.done || t.upto == Reach::End)
        };
        let members = self.view.members().iter().enumerate().filter(|(_, m)| m.in_ring());
        members.map(|(i, _)| i as u32).filter(|&member| !told(member)).collect()
    }

    /// Slots that have told of the next key, at least, whichever it is.
    pub fn votes(&self) -> u8 {
        let machines = self.view.members().iter().filter(|m| m.in_ring()).count();
        let missing = self.silent().len();
        let slots = usize::from(self.view.slots());
        // Section 2: even shares, and some own one slot more.
        let lost = missing * (slots / machines) + missing.min(slots % machines);
        slots.saturating_sub(lost) as u8
    }
}

/// What a machine's word about a key is worth: the record, and the slots that it votes for with it (Q1). `None` if it
/// has not told of the key. It is synced, so it votes for all it owns; for a record, as far as that is a vote.
fn worth(
    told: Option<Option<ListRecord>>,
    owners: &Owners,
    member: u32,
    reached: bool,
) -> Option<(Option<ListRecord>, SlotSet)> {
    let own = owners.slots_of(member);
    match told {
        Some(Some(record)) => {
            let votes = record.votes.intersection(own);
            Some((Some(record), votes))
        }
        // R3: it says nothing about the key.
        Some(None) => None,
        None if reached => Some((None, own)),
        None => None,
    }
}

fn is_beyond(key: &Key, reach: &Reach) -> bool {
    match reach {
        Reach::Start => true,
        Reach::Upto(upto) => key > upto,
        Reach::End => false,
    }
}

/// True if the keys are in order, each once, and where they should be.
fn is_well_formed(prefix: &[u8], after: &Reach, keys: &[(Key, Option<ListRecord>)], upto: &Reach) -> bool {
    let begins = keys.iter().all(|(key, _)| key.as_bytes().starts_with(prefix) && !key.is_reserved());
    let rises = keys.windows(2).all(|pair| pair[0].0 < pair[1].0);
    let first = keys.first().is_none_or(|(key, _)| is_beyond(key, after));
    let last = keys.last().is_none_or(|(key, _)| !is_beyond(key, upto));
    begins && rises && first && last && upto > after
}
