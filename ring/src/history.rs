//! The views since the last settled one, and what follows from them: who voted for which slot, what a machine votes
//! for (S1), what is covered (S4), what a record told is worth (S5, S6). Pure.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::effect::Account;
use crate::key::Key;
use crate::message::Purpose;
use crate::mutant::{Mutant, Rules};
use crate::placement::Owners;
use crate::position::Chain;
use crate::quorum::{SlotSet, Tally, quorum_of};
use crate::rare::{Rare, met_if};
use crate::stamp::Stamp;
use crate::view::{Epoch, Incarnation, Machine, View};

/// A view and what follows from it.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Present {
    pub(crate) view: Arc<View>,
    /// This machine's place among the members; `None` once it is not one of them (V5).
    pub(crate) me: Option<u32>,
}

impl Present {
    pub(crate) fn new(view: Arc<View>, me: Machine) -> Self {
        let index = view.has(me).then(|| view.index_of(me.name)).flatten();
        Self { me: index.map(|i| i as u32), view }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.view.epoch()
    }

    pub(crate) fn machine(&self, member: u32) -> Machine {
        self.view.members()[member as usize].machine
    }

    /// The place of exactly this incarnation.
    pub(crate) fn index_of(&self, machine: Machine) -> Option<u32> {
        let index = self.view.index_of(machine.name)?;
        (self.machine(index as u32) == machine).then_some(index as u32)
    }

    /// The place of the member that took this ballot.
    pub(crate) fn proposer(&self, by: Incarnation) -> Option<u32> {
        self.view.members().iter().position(|m| m.machine.incarnation == by).map(|i| i as u32)
    }

    pub(crate) fn owners(&self, key: &Key) -> Owners {
        self.view.ring().owners(&self.chain(key))
    }

    pub(crate) fn chain(&self, key: &Key) -> Chain {
        Chain::of(key.as_bytes(), self.view.slots())
    }

    /// The machines in its ring.
    pub(crate) fn ring_members(&self) -> impl Iterator<Item = Machine> + '_ {
        self.view.members().iter().filter(|m| m.in_ring()).map(|m| m.machine)
    }
}

/// A machine's place in each view of a history, and whether it came to be synced there for all it owned.
#[derive(Clone, Debug)]
pub(crate) struct Track(Vec<(Option<u32>, bool)>);

/// See the module's caption. The last view is the present one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct History<'a> {
    pub(crate) views: &'a [Present],
    pub(crate) rules: Rules,
}

impl History<'_> {
    /// The owners of a key's slots in each view.
    pub(crate) fn owners(&self, chain: &Chain) -> Vec<Owners> {
        self.views.iter().map(|p| p.view.ring().owners(chain)).collect()
    }

    /// M1: those in the next ring, where one is announced.
    pub(crate) fn next_owners(&self, chain: &Chain) -> Option<Owners> {
        self.present().view.next_ring().map(|ring| ring.owners(chain))
    }

    pub(crate) fn track(&self, machine: Machine, account: &Account) -> Track {
        let place = |p: &Present| {
            let index = p.index_of(machine).filter(|i| p.view.members()[*i as usize].in_ring());
            (index, index.is_some() && account.synced.contains(&p.epoch()))
        };
        Track(self.views.iter().map(place).collect())
    }

    /// S3: the slots that a machine voted for in view `at` of these: where it came to be synced for all it owned, those;
    /// elsewhere, those of the view before that it still owned (S1).
    pub(crate) fn voted(&self, track: &Track, owners: &[Owners], at: usize) -> SlotSet {
        let mut before = SlotSet::EMPTY;
        let mut ever = SlotSet::EMPTY;
        for ((index, synced), owners) in track.0.iter().zip(owners).take(at + 1) {
            let owned = index.map_or(SlotSet::EMPTY, |i| owners.slots_of(i));
            before = match synced {
                true => owned,
                // S1Unbroken: ownership that was broken counts as synced again.
                false if self.rules.broken(Mutant::S1Unbroken) => ever.intersection(owned),
                false => before.intersection(owned),
            };
            ever = ever.union(before);
        }
        before
    }

    /// The slots that a machine votes for in the present view.
    pub(crate) fn votes(&self, track: &Track, owners: &[Owners]) -> SlotSet {
        self.voted(track, owners, self.views.len() - 1)
    }

    /// True if it voted for any slot in any of the views.
    pub(crate) fn ever_voted(&self, track: &Track, owners: &[Owners]) -> bool {
        let mut places = track.0.iter().zip(owners);
        places
            .any(|((index, synced), owners)| *synced && index.is_some_and(|i| !owners.slots_of(i).is_empty()))
    }

    /// True if a machine came to be synced in every view before the present one whose ring it was in.
    pub(crate) fn voted_throughout(&self, machine: Machine, account: &Account) -> bool {
        let Track(places) = self.track(machine, account);
        places[..places.len() - 1].iter().all(|(place, synced)| place.is_none() || *synced)
    }

    /// S4, for every key at once: true if every earlier view is covered for all slots, though these machines tell
    /// nothing. Those may be missing in each view that may be lost in it (section 2): whatever slots they own, five
    /// others are told for each. Or those in a later view, where the others that tell were synced for all they owned
    /// (`synced`): they have told "voted" in a view that is not earlier.
    pub(crate) fn is_covered_without(
        &self,
        asker: Machine,
        without: &[Machine],
        synced: impl Fn(Machine, Epoch) -> bool,
    ) -> bool {
        if self.rules.broken(Mutant::S4NoCover) {
            return true;
        }
        // F2: who was forced out counts as having told that it voted, and holds nothing...
        let waits = self.rules.broken(Mutant::F2Waits);
        let named = |m: &Machine| self.present().view.has_forced_out(m.incarnation) && !waits;
        let silent = |m: &Machine| *m != asker && without.contains(m) && !named(m);
        let enough = |p: &Present, missing: &dyn Fn(&Machine) -> bool| {
            let members = (0..).zip(p.view.members()).filter(|(_, m)| m.in_ring() && missing(&m.machine));
            p.view.ring().shares().can_lose(members.map(|(i, _)| i))
        };
        let covers = |m: &Machine| named(m) && !self.rules.broken(Mutant::F2Covers);
        // ...but it makes up for nobody who may yet tell: what five voted for, one of them named and four silent, would be
        // forgotten, and nobody would have counted it among what may be lost.
        let covered =
            |p: &Present| !p.ring_members().any(|m| silent(&m)) || enough(p, &|m| silent(m) || covers(m));
        let (_, earlier) = self.views.split_last().unwrap_or_else(|| unreachable!("there is a present view"));
        if without.is_empty() || earlier.iter().all(covered) {
            return true;
        }
        // From the present view backwards: what covers one covers those before it.
        let mut later = false;
        for (h, p) in self.views.iter().enumerate().rev() {
            met_if(h < earlier.len() && later && !covered(p), Rare::S4CoveredByALaterView);
            if h < earlier.len() && !later && !covered(p) {
                return false;
            }
            let not_told = |m: &Machine| silent(m) || !synced(*m, p.epoch());
            later = later || enough(p, &not_told);
        }
        true
    }
}

/// Machines of so many that may be lost at once: the table of section 2.
pub fn may_be_lost(machines: usize, slots: u8) -> usize {
    let (slots, spare) = (usize::from(slots), usize::from(slots - quorum_of(slots)));
    if machines == 0 {
        return 0;
    }
    // Even shares: the first `more` machines own one slot more than the others.
    let (share, more) = (slots / machines, slots % machines);
    let worst = |lost: usize| lost * share + lost.min(more);
    (0..=machines).take_while(|lost| worst(*lost) <= spare).last().unwrap_or(0)
}

/// What one machine tells of one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Telling<'a> {
    /// Its places, view by view.
    pub(crate) track: &'a Track,
    /// Its record's stamp and votes; `None` if it holds none.
    pub(crate) record: Option<(Stamp, SlotSet)>,
}

/// What a machine makes of all that it was told of a key (S5, S6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    /// The slots that it owns and does not vote for yet.
    pub(crate) gained: SlotSet,
    /// The highest stamp that counts.
    pub(crate) best: Option<Stamp>,
    /// Those of the slots gained for which that record is a vote.
    pub(crate) granted: SlotSet,
    /// What the machine holds itself does not count: it goes unless it is the same.
    pub(crate) own_is_void: bool,
}

/// S5 and S6 for one key. `own` is the asker's own telling; `others` is what everyone else tells who tells anything.
pub(crate) fn judge(
    history: &History<'_>,
    owners: &[Owners],
    own: &Telling<'_>,
    others: &[Telling<'_>],
) -> Verdict {
    let last = history.views.len() - 1;
    let me = own.track.0[last].0;
    let owned = me.map_or(SlotSet::EMPTY, |i| owners[last].slots_of(i));
    let gained = owned.minus(history.votes(own.track, owners));
    let all = || others.iter().chain([own]);
    // S5: what a machine holds counts if it voted for any slot of the key since the last settled view.
    let counts = |t: &Telling<'_>| t.record.is_some() && history.ever_voted(t.track, owners);
    // S5OwnVoid: what this machine holds from before the last settled view counts like anything else.
    let own_counts = counts(own) || own.record.is_some() && history.rules.broken(Mutant::S5OwnVoid);
    let own_is_void = own.record.is_some() && !own_counts;
    let stamps = others.iter().filter(|t| counts(t)).chain(own_counts.then_some(own));
    let stamps = stamps.filter_map(|t| t.record.map(|(stamp, _)| stamp));
    let best = if history.rules.broken(Mutant::S5Lowest) { stamps.min() } else { stamps.max() };
    let Some(stamp) = best else {
        return Verdict { gained, best, granted: SlotSet::EMPTY, own_is_void };
    };
    if history.rules.broken(Mutant::S6CopyIsVote) {
        return Verdict { gained, best, granted: gained, own_is_void };
    }
    let told_as_vote =
        |t: &Telling<'_>, slot| t.record.is_some_and(|(s, votes)| s == stamp && votes.has(slot));
    // S6b: a quorum of the present view told it as votes (Q1, Q2).
    let mut tally = Tally::new(history.rules);
    for telling in all() {
        if let Some((s, votes)) = telling.record
            && s == stamp
        {
            let voting = history.votes(telling.track, owners);
            tally.add(history.views[last].epoch(), votes.intersection(voting));
        }
    }
    let by_quorum = tally.reached(owners[last].slots());
    let granted = gained.iter().filter(|&slot| {
        // S6a: from the view before backwards, the first owner that voted for the slot; who never did is passed over.
        let voter = (0..last).rev().find_map(|h| {
            let owner = owners[h].owner(slot);
            match all().find(|t| t.track.0[h].0 == Some(owner)) {
                None => Some(None),
                Some(t) if history.voted(t.track, owners, h).has(slot) => Some(Some(t)),
                Some(_) => None,
            }
        });
        met_if(by_quorum, Rare::S6ToldByAQuorum);
        met_if(!by_quorum && matches!(voter, Some(Some(_))), Rare::S6ToldByTheLastVoter);
        met_if(!by_quorum && matches!(voter, Some(None)), Rare::S6LastVoterIsSilent);
        by_quorum || voter.flatten().is_some_and(|t| told_as_vote(t, slot))
    });
    Verdict { gained, best, granted: granted.collect(), own_is_void }
}

/// What a request to be told is about, as the asker and the teller both see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Concern<'a> {
    pub(crate) purpose: Purpose,
    /// The view before is settled, so who owned a slot in it speaks for that slot alone (S4).
    pub(crate) handoff: bool,
    /// Machines that tell nothing.
    pub(crate) without: &'a [Machine],
    pub(crate) asker: Machine,
    pub(crate) track: &'a Track,
}

impl History<'_> {
    /// F2: from this epoch on, nobody is forced out who is not forced out now. What was asked for in an earlier one may
    /// rest on promises that the lost have taken with them.
    pub(crate) fn forced_at(&self) -> Option<Epoch> {
        let out = self.present().view.forced_out().len();
        let first = self.views.iter().find(|p| p.view.forced_out().len() == out)?;
        (out > 0).then(|| first.epoch())
    }

    fn present(&self) -> &Present {
        self.views.last().unwrap_or_else(|| unreachable!("there is a present view"))
    }

    /// True if this machine, whose track is `places`, is to tell of this key. Asker and teller compute the same, so
    /// silence about a key that is to be told means "none", and about another means nothing.
    ///
    /// Views that the teller has forgotten as settled (T2) are forgotten by the asker with its page; as long as the
    /// asker knows fewer, the teller tells more than is asked for.
    pub(crate) fn is_told(
        &self,
        concern: &Concern<'_>,
        (owners, next): (&[Owners], Option<&Owners>),
        (teller, places): (Machine, &Track),
    ) -> bool {
        let present = self.present();
        let (last, now) = (self.views.len() - 1, owners[owners.len() - 1]);
        let owned = |at: usize| places.0[at].0.is_some_and(|i| owners[at].is_owner(i));
        match concern.purpose {
            Purpose::Sync => {
                let Some(me) = present.index_of(concern.asker) else { return false };
                let gained = now.slots_of(me).minus(self.votes(concern.track, owners));
                // S4 is about earlier views: who owned no slot of the key in one is not needed for it. Often he is about to
                // sync himself, and what he has copied so far would spoil claims.
                if gained.is_empty() || !(0..last.max(1)).any(owned) {
                    return false;
                }
                if !concern.handoff || last == 0 {
                    return true;
                }
                let before = &self.views[last - 1];
                gained.iter().any(|slot| {
                    let owner = before.machine(owners[last - 1].owner(slot));
                    owner == teller || owner == concern.asker || concern.without.contains(&owner)
                })
            }
            Purpose::Ahead => {
                let (Some(next), Some(me)) = (next, present.index_of(concern.asker)) else { return false };
                // Who owns a slot of the key already has its record.
                if now.is_owner(me) {
                    return false;
                }
                let gained = next.slots_of(me);
                let present_owner = |slot| present.machine(now.owner(slot));
                gained.iter().any(|slot| {
                    let owner = present_owner(slot);
                    owner == teller
                        || concern.without.contains(&owner) && self.first(concern, &now) == Some(teller)
                })
            }
            Purpose::Copy => {
                let Some(me) = present.index_of(concern.asker).filter(|me| now.is_owner(*me)) else {
                    return false;
                };
                // Who owned a slot of the key in the last settled view has its record, and so has who votes for one.
                let had = concern.track.0[0].0.is_some_and(|i| owners[0].is_owner(i));
                if had
                    || last == 0
                    || !self.votes(concern.track, owners).intersection(now.slots_of(me)).is_empty()
                {
                    return false;
                }
                let mut able = owners[0].machines().map(|m| self.views[0].machine(m));
                let able = able.find(|m| present.index_of(*m).is_some() && !concern.without.contains(m));
                able == Some(teller)
            }
            Purpose::Check => owned(last) && self.first(concern, &now) == Some(concern.asker),
        }
    }

    /// The slots for which a digest says whether the teller votes for them: those from which the asker may take its
    /// own over (S6); in a comparison, all that it owns.
    pub(crate) fn digested(&self, purpose: Purpose, owners: &[Owners], places: &Track) -> SlotSet {
        let last = self.views.len() - 1;
        let at = match purpose {
            Purpose::Sync => last.saturating_sub(1),
            Purpose::Ahead | Purpose::Copy => return SlotSet::EMPTY,
            Purpose::Check => last,
        };
        places.0[at].0.map_or(SlotSet::EMPTY, |i| owners[at].slots_of(i))
    }

    /// The first owner that is not left out.
    fn first(&self, concern: &Concern<'_>, owners: &Owners) -> Option<Machine> {
        let mut machines = owners.machines().map(|m| self.present().machine(m));
        machines.find(|m| !concern.without.contains(m))
    }
}

#[cfg(test)]
mod tests;
