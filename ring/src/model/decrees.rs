//! Views decided one after the other (V2, V3), in small: wardens that promise, accept, adopt and restart; proposers, each
//! of which wants another view than the one before; and never two views after one.
//!
//! As in the other model, what was asked may arrive at any time or never, and who does not act any more is lost. The count
//! of votes is the shipped one; what `Decrees` does with it is written anew in a few lines. Who proposes does not matter,
//! only in which view he does.

use alloc::vec::Vec;
use core::fmt;

use super::explorer::Small;
use super::ground::letter;
use crate::mutant::{Mutant, Rules};
use crate::quorum::{SlotSet, Tally};
use crate::view::Epoch;

const MACHINES: usize = 4;
const BALLOTS: usize = 3;
/// Views after the first.
const DECREES: usize = 2;

/// Who owns the wardens' slots: in the first view, and in each that may be proposed.
pub(super) struct Council {
    pub(super) tables: &'static [&'static str],
    pub(super) ballots: u8,
    pub(super) decrees: u8,
    pub(super) restarts: u8,
    pub(super) rules: Rules,
    /// A proposal goes on with its own view, whatever some warden accepted before.
    pub(super) unbound: bool,
}

/// The views adopted after the first, by their number in `tables`; 0: not yet.
type Views = [u8; DECREES];

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Warden {
    views: Views,
    /// Its part in the decree after its newest view, and with it on its disk.
    promised: u8,
    accepted: Option<(u8, u8)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Proposal {
    after: Views,
    view: u8,
    bound_to: Option<(u8, u8)>,
    promises: SlotSet,
    accepting: bool,
    accepts: SlotSet,
}

/// See the module's caption.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Scene {
    wardens: [Warden; MACHINES],
    proposals: [Option<Proposal>; BALLOTS],
    /// Those that five wardens' slots accepted: after which views, and which.
    decided: [Option<(Views, u8)>; BALLOTS],
    restarts: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
    Propose { by: u8, ballot: u8 },
    Promise { at: u8, ballot: u8 },
    Lead { ballot: u8 },
    Accept { at: u8, ballot: u8 },
    Adopt { at: u8, ballot: u8 },
    Restart { at: u8 },
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Propose { by, ballot } => write!(f, "{} takes ballot {ballot}", letter(by)),
            Self::Promise { at, ballot } => write!(f, "{} promises ballot {ballot}", letter(at)),
            Self::Lead { ballot } => write!(f, "ballot {ballot} has its promises"),
            Self::Accept { at, ballot } => write!(f, "{} accepts ballot {ballot}", letter(at)),
            Self::Adopt { at, ballot } => write!(f, "{} adopts what ballot {ballot} decided", letter(at)),
            Self::Restart { at } => write!(f, "{} restarts", letter(at)),
        }
    }
}

/// How many of them there are.
fn count(views: Views) -> usize {
    views.iter().take_while(|view| **view > 0).count()
}

impl Council {
    /// The wardens of the newest of these.
    fn slots_of(&self, views: Views, machine: u8) -> SlotSet {
        let newest = count(views).checked_sub(1).map_or(0, |last| views[last]);
        let owners = self.tables[usize::from(newest)].bytes();
        owners.zip(1..).filter(|(owner, _)| *owner == b'A' + machine).map(|(_, slot)| slot).collect()
    }

    fn reached(&self, votes: SlotSet) -> bool {
        let slots = self.tables[0].len() as u8;
        let mut tally = Tally::new(self.rules);
        tally.add(Epoch::FIRST, votes);
        let few = self.rules.broken(Mutant::V2NoQuorum) && tally.votes() * 3 >= slots;
        tally.reached(slots) || few
    }

    /// V2: only while that view is its own.
    fn answers(&self, warden: &Warden, proposal: &Proposal) -> bool {
        let passed = count(warden.views) > count(proposal.after);
        warden.views == proposal.after || passed && self.rules.broken(Mutant::V2Stale)
    }
}

impl Small for Council {
    type State = Scene;
    type Act = Act;

    fn first(&self) -> Scene {
        Scene {
            wardens: Default::default(),
            proposals: Default::default(),
            decided: Default::default(),
            restarts: 0,
        }
    }

    fn acts(&self, scene: &Scene, acts: &mut Vec<Act>) {
        let machines = 0..MACHINES as u8;
        let next = scene.proposals.iter().position(Option::is_none).map(|n| n as u8 + 1);
        for at in machines {
            let warden = &scene.wardens[usize::from(at)];
            // The first of those that are in the same view. Ballots are taken in their order: their numbers are names.
            let first = scene.wardens[..usize::from(at)].iter().all(|other| other.views != warden.views);
            if let Some(ballot) = next.filter(|n| *n <= self.ballots)
                && first
                && count(warden.views) < usize::from(self.decrees)
            {
                acts.push(Act::Propose { by: at, ballot });
            }
            for (proposal, ballot) in scene.proposals.iter().zip(1..) {
                let Some(proposal) = proposal else { continue };
                if self.answers(warden, proposal) && !self.slots_of(proposal.after, at).is_empty() {
                    acts.push(match proposal.accepting {
                        false => Act::Promise { at, ballot },
                        true => Act::Accept { at, ballot },
                    });
                }
            }
            for (decided, ballot) in scene.decided.iter().zip(1..) {
                if decided.is_some_and(|(after, _)| after == warden.views) {
                    acts.push(Act::Adopt { at, ballot });
                }
            }
            // Who restarts has all on its disk: nothing changes by that, unless a rule is broken.
            if scene.restarts < self.restarts && warden.promised > 0 && self.rules.broken(Mutant::V2Forgets) {
                acts.push(Act::Restart { at });
            }
        }
        for (proposal, ballot) in scene.proposals.iter().zip(1..) {
            if proposal.as_ref().is_some_and(|p| !p.accepting && self.reached(p.promises)) {
                acts.push(Act::Lead { ballot });
            }
        }
    }

    fn step(&self, scene: &mut Scene, act: Act) -> Result<(), &'static str> {
        match act {
            Act::Propose { by, ballot } => {
                let after = scene.wardens[usize::from(by)].views;
                let view = 1 + (ballot - 1) % (self.tables.len() as u8 - 1);
                let (promises, accepts) = (SlotSet::EMPTY, SlotSet::EMPTY);
                let proposal = Proposal { after, view, bound_to: None, promises, accepting: false, accepts };
                scene.proposals[usize::from(ballot) - 1] = Some(proposal);
            }
            Act::Promise { at, ballot } => {
                let warden = &mut scene.wardens[usize::from(at)];
                let Some(proposal) = &mut scene.proposals[usize::from(ballot) - 1] else { return Ok(()) };
                if ballot < warden.promised {
                    return Ok(());
                }
                warden.promised = ballot;
                proposal.promises = proposal.promises.union(self.slots_of(proposal.after, at));
                proposal.bound_to = proposal.bound_to.max(warden.accepted);
            }
            Act::Lead { ballot } => {
                let Some(proposal) = &mut scene.proposals[usize::from(ballot) - 1] else { return Ok(()) };
                if let Some((_, view)) = proposal.bound_to.take().filter(|_| !self.unbound) {
                    proposal.view = view;
                }
                (proposal.accepting, proposal.promises) = (true, SlotSet::EMPTY);
            }
            Act::Accept { at, ballot } => {
                let warden = &mut scene.wardens[usize::from(at)];
                let Some(proposal) = &mut scene.proposals[usize::from(ballot) - 1] else { return Ok(()) };
                if ballot < warden.promised {
                    return Ok(());
                }
                (warden.promised, warden.accepted) = (ballot, Some((ballot, proposal.view)));
                proposal.accepts = proposal.accepts.union(self.slots_of(proposal.after, at));
                if self.reached(proposal.accepts) {
                    let (after, view) = (proposal.after, proposal.view);
                    scene.decided[usize::from(ballot) - 1] = Some((after, view));
                    let others = scene.decided.iter().flatten();
                    if others.into_iter().any(|(same, other)| *same == after && *other != view) {
                        return Err("two views are decided after one");
                    }
                }
            }
            Act::Adopt { at, ballot } => {
                let Some((after, view)) = scene.decided[usize::from(ballot) - 1] else { return Ok(()) };
                let mut views = after;
                views[count(after)] = view;
                // A fresh acceptor for the next decree.
                scene.wardens[usize::from(at)] = Warden { views, ..Warden::default() };
            }
            Act::Restart { at } => {
                scene.restarts += 1;
                let warden = &mut scene.wardens[usize::from(at)];
                *warden = Warden { views: warden.views, ..Warden::default() };
            }
        }
        Ok(())
    }
}
