//! The keys in their order, from what the machines tell of them: whoever lists merges their pages, and counts (L2, L3).
//!
//! Pure: pages go in, keys come out, each with what five slots say of it. Holds no more than the pages that are put in
//! and not yet used up; [`wants`](Gathering::wants) says whose next page there is room for.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use crate::key::Key;
use crate::message::{ListPage, ListRecord, ListValue};
use crate::mutant::{Mutant, Rules};
use crate::placement::Owners;
use crate::position::Chain;
use crate::quorum::{SlotSet, Tally, quorum_of};
use crate::stamp::Stamp;
use crate::view::{Epoch, View};

/// Keys of one machine that wait to be counted: its next page is not asked for before they are fewer.
const AHEAD: usize = 256;

/// See the module's caption. Of one view: another view's pages begin another gathering, where this one got to (L4).
///
/// **When a range is told** (L2). A key that nobody names may be any key, so the question is of all keys at once: do those
/// who have told the range own a quorum of the slots of each? Let `W` be the others, and `w(k)` the slots of key `k` that
/// `W` owns. `Shares::most_owned(W)` is at least `w(k)` for every `k`, since placement gives each machine one slot in
/// each full round, and in the last one no machine two and no zone more than its room; so it adds up, zone by zone, the
/// lesser of the machines of `W` there and the room, and no more than there are slots in that round. Hence:
///
/// - *Enough.* If `most_owned(W) <= S - quorum`, those who told own a quorum of the slots of every key. What was chosen for
///   a key in this view, or carried over into it, is known to a quorum, which shares a slot with theirs: one of them named
///   the key, or reports what replaced it. A key that none of them named has a quorum of votes for "none".
/// - *Needed.* `most_owned` is exact: if it is more, some key has a quorum of its slots in `W`, or so many that those who
///   told are none; a value that `W` alone holds would be left out, and nobody could tell.
///
/// So a zone that is away whole leaves every range told, however many machines it has, where it owns four slots of a key
/// at most; and without zones this is the table of section 2.
#[derive(Debug)]
pub struct Gathering {
    view: Arc<View>,
    rules: Rules,
    prefix: Vec<u8>,
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
        let done = after.map_or(Reach::Start, Reach::Upto);
        let frontier = done.clone();
        Self { view, rules, prefix: prefix.to_vec(), done, frontier, tellers: BTreeMap::new() }
    }

    /// How many of these members must tell a range, from the first on, so that it is told; `None` if all of them are too
    /// few.
    pub fn needed(&self, members: &[u32]) -> Option<usize> {
        let slots = self.view.slots();
        // Whoever is not of the ring owns nothing.
        let mut place = vec![usize::MAX; self.view.members().len()];
        for (i, member) in members.iter().enumerate().rev() {
            if let Some(place) = place.get_mut(*member as usize) {
                *place = i;
            }
        }
        let shares = self.view.ring().shares();
        let few = u8::from(self.rules.broken(Mutant::L2Few));
        let suffice = |first: usize| {
            let others = self.ring().filter(|member| place[*member as usize] >= first);
            slots - shares.most_owned(others) + few >= quorum_of(slots)
        };
        // The more have told, the fewer slots are left to the others.
        let (mut too_few, mut enough) = (0, members.len());
        if !suffice(enough) {
            return None;
        }
        while too_few < enough {
            let middle = too_few.midpoint(enough);
            if suffice(middle) { enough = middle } else { too_few = middle + 1 }
        }
        Some(enough)
    }

    /// The members of the ring.
    fn ring(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(self.view.members()).filter(|(_, m)| m.in_ring()).map(|(i, _)| i)
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
        let mut told: Vec<(&Reach, u32)> =
            self.tellers.iter().map(|(member, t)| (&t.upto, *member)).collect();
        told.sort_unstable_by(|a, b| b.cmp(a));
        let members: Vec<u32> = told.iter().map(|(_, member)| *member).collect();
        if let Some(last) = self.needed(&members).and_then(|needed| told.get(needed.saturating_sub(1))) {
            self.frontier = last.0.clone();
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
        self.ring().filter(|&member| !told(member)).collect()
    }

    /// Slots that have told of the next key, at least, whichever it is.
    pub fn votes(&self) -> u8 {
        self.view.slots() - self.view.ring().shares().most_owned(self.silent().into_iter())
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
