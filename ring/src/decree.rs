//! How the next view is decided: single-decree Paxos among the wardens, votes weighted by slots (V2); where they are lost
//! for good, among all who stay (F2).
//!
//! Both are one decree, with one acceptor on each machine. A view that an operator forces needs everybody who stays in it,
//! twice: so whoever forces another one with any of them finds the first, and finishes it before anything else.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use crate::effect::{Change, Decree, Effect, Mono, Now, Ticket};
use crate::key::Key;
use crate::local::Local;
use crate::message::{Addr, Ask, DecreeAnswer, Message};
use crate::mutant::Mutant;
use crate::placement::Owners;
use crate::quorum::Tally;
use crate::rare::{Rare, met, met_if};
use crate::stamp::Ballot;
use crate::view::{Machine, View};

const MS: u64 = 1_000_000;
/// How long until unanswered wardens are asked again.
const RESEND: u64 = 150 * MS;
/// How long a proposal may take before it is given up; whoever still wants it proposes again.
const GIVE_UP: u64 = 3_000 * MS;
/// Longest random wait after a ballot was beaten.
const REST: u64 = 400 * MS;

/// The key whose owners are a view's wardens.
pub(crate) fn warden_key() -> Key {
    Key::new(b"\0view").unwrap_or_else(|_| unreachable!("five bytes are a key"))
}

/// The wardens of the present view.
pub(crate) fn wardens(local: &Local) -> Owners {
    local.present().owners(&warden_key())
}

/// This machine's part in the decree on the view after its own.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Decrees {
    /// As it is on disk, or will be before anyone is told.
    acceptor: Decree,
    /// The ticket of that.
    ticket: Option<Ticket>,
    proposal: Option<Box<Proposal>>,
    beat: Ballot,
    rest_until: Mono,
    /// F2: who did not agree to the view last forced, when that was given up.
    unheard: Vec<Machine>,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Proposal {
    ask: Ask,
    ballot: Ballot,
    after: Option<Ticket>,
    view: Arc<View>,
    /// The highest-balloted view that some warden had accepted: it must be proposed instead.
    bound_to: Option<(Ballot, Arc<View>)>,
    accepting: bool,
    /// F2: who has to agree, each of them; `None`: five of the wardens' slots.
    all: Option<Vec<u32>>,
    tally: Tally,
    heard: Vec<u32>,
    resend_at: Mono,
    until: Mono,
}

impl Decrees {
    pub(crate) fn new(restored: Decree) -> Self {
        Self {
            acceptor: restored,
            ticket: None,
            proposal: None,
            beat: Ballot::ZERO,
            rest_until: Mono::default(),
            unheard: Vec::new(),
        }
    }

    /// The view has changed: a fresh acceptor for the next decree.
    pub(crate) fn begin_anew(&mut self) {
        *self = Self::new(Decree::default());
    }

    /// True if it may propose now.
    pub(crate) fn is_free(&self, now: Now) -> bool {
        self.proposal.is_none() && self.rest_until <= now.mono
    }

    /// When something is to be sent again.
    pub(crate) fn wake_at(&self) -> Option<Mono> {
        self.proposal.as_ref().map(|p| p.resend_at)
    }

    /// Proposes a view to the wardens of the present one.
    pub(crate) fn propose(
        &mut self,
        local: &mut Local,
        now: Now,
        view: Arc<View>,
        effects: &mut Vec<Effect>,
    ) {
        self.begin(local, now, view, None, effects);
    }

    /// F2: proposes a view that an operator forces to all who stay in it. Says who did not agree when it was last tried,
    /// once; asked again, it is tried again.
    pub(crate) fn force(
        &mut self,
        local: &mut Local,
        now: Now,
        view: Arc<View>,
        effects: &mut Vec<Effect>,
    ) -> Vec<Machine> {
        let mut unheard = mem::take(&mut self.unheard);
        unheard.retain(|machine| view.has(*machine));
        let busy = self.proposal.as_ref().is_some_and(|p| p.all.is_some());
        if unheard.is_empty() && !busy {
            self.rest_until = now.mono;
            let all = staying(local, &view);
            self.begin(local, now, view, Some(all), effects);
        }
        unheard
    }

    fn begin(
        &mut self,
        local: &mut Local,
        now: Now,
        view: Arc<View>,
        all: Option<Vec<u32>>,
        effects: &mut Vec<Effect>,
    ) {
        let beat = self.beat.max(self.acceptor.promised);
        let Some((ballot, after)) = local.fresh_ballot(beat, now, effects) else { return };
        let proposal = Proposal {
            ask: local.number(),
            ballot,
            after,
            view,
            bound_to: None,
            accepting: false,
            all,
            tally: local.tally(),
            heard: Vec::new(),
            resend_at: now.mono.plus(RESEND),
            until: now.mono.plus(GIVE_UP),
        };
        proposal.ask(local, effects);
        self.proposal = Some(Box::new(proposal));
    }

    pub(crate) fn on_time(&mut self, local: &mut Local, now: Now, effects: &mut Vec<Effect>) {
        let Some(proposal) = &mut self.proposal else { return };
        if proposal.until <= now.mono {
            met(Rare::V2GivenUp);
            let unheard = proposal.all.iter().flatten().filter(|m| !proposal.heard.contains(m));
            self.unheard = unheard.map(|m| local.present().machine(*m)).collect();
            self.proposal = None;
        } else if proposal.resend_at <= now.mono {
            met(Rare::V2SentAgain);
            proposal.resend_at = now.mono.plus(RESEND);
            proposal.ask(local, effects);
        }
    }

    /// A warden is asked about the next view. The caller has seen to it that both speak at the present epoch.
    pub(crate) fn on_question(
        &mut self,
        local: &mut Local,
        from: Machine,
        message: Message,
        effects: &mut Vec<Effect>,
    ) {
        let epoch = local.epoch();
        if self.acceptor.epoch != epoch {
            self.acceptor = Decree { epoch, ..Decree::default() };
        }
        let (ask, answer, after) = match message {
            Message::DecreePrepare { ask, ballot } | Message::DecreeAccept { ask, ballot, .. }
                if ballot < self.acceptor.promised =>
            {
                met(Rare::V2BelowPromise);
                (ask, DecreeAnswer::Refused { beat: self.acceptor.promised }, None)
            }
            Message::DecreePrepare { ask, ballot } => {
                self.acceptor.promised = ballot;
                let accepted = self.acceptor.accepted.clone();
                met_if(accepted.is_some(), Rare::V2PromiseTellsAccepted);
                (ask, DecreeAnswer::Promised { ballot, accepted }, self.persist(local, effects))
            }
            Message::DecreeAccept { ask, ballot, view } => {
                // A peer's lie, or an error of ours: no view that can follow this one. Or who is said to be lost is heard.
                let forced = is_forced(local, &view);
                if !local.present().view.may_become(&view) || forced && !stands(local, &view) {
                    met_if(forced, Rare::F2LostIsHeard);
                    return;
                }
                // F2: all who stay may have agreed to it, and somebody may have gone on.
                let bound = self.acceptor.accepted.as_ref().is_some_and(|(_, v)| stands(local, v));
                if bound && !forced {
                    return;
                }
                self.acceptor.promised = ballot;
                self.acceptor.accepted = Some((ballot, view));
                (ask, DecreeAnswer::Accepted { ballot }, self.persist(local, effects))
            }
            _ => return,
        };
        local.send(Addr::Machine(from), Message::DecreeAnswer { ask, answer }, after, effects);
    }

    /// Promises and accepts are durable before anyone is told (V2).
    fn persist(&mut self, local: &mut Local, effects: &mut Vec<Effect>) -> Option<Ticket> {
        if local.rules.broken(Mutant::V2Forgets) {
            return None;
        }
        self.ticket = Some(local.persist(Change::Decree(self.acceptor.clone()), effects));
        self.ticket
    }

    /// A warden of the present view answers. Returns the view that is decided by this.
    pub(crate) fn on_answer(
        &mut self,
        local: &mut Local,
        now: Now,
        from: u32,
        ask: Ask,
        answer: DecreeAnswer,
        effects: &mut Vec<Effect>,
    ) -> Option<Arc<View>> {
        let proposal = self.proposal.as_mut().filter(|p| p.ask == ask)?;
        match answer {
            DecreeAnswer::Promised { ballot, accepted }
                if ballot == proposal.ballot && !proposal.accepting =>
            {
                proposal.hear(local, from);
                if let Some(accepted) = accepted.filter(|found| proposal.is_bound_by(local, found)) {
                    met_if(accepted.1 != proposal.view, Rare::V2BoundToAnother);
                    proposal.bound_to = Some(accepted);
                }
                if !proposal.has_enough(local) {
                    return None;
                }
                match (proposal.bound_to.take(), &mut proposal.all) {
                    // The wardens' slots cannot decide what all who stay were asked for: it is for an operator to go on.
                    (Some((_, view)), None) if is_forced(local, &view) => {
                        self.proposal = None;
                        return None;
                    }
                    (Some((_, view)), all) => {
                        if let Some(all) = all {
                            let others = staying(local, &view);
                            all.retain(|m| others.contains(m));
                        }
                        proposal.view = view;
                    }
                    (None, _) => {}
                }
                proposal.accepting = true;
                proposal.tally = local.tally();
                proposal.heard.clear();
                proposal.resend_at = now.mono.plus(RESEND);
                proposal.ask(local, effects);
                None
            }
            DecreeAnswer::Accepted { ballot } if ballot == proposal.ballot && proposal.accepting => {
                proposal.hear(local, from);
                proposal.has_enough(local).then(|| proposal.view.clone())
            }
            DecreeAnswer::Refused { beat } => {
                met(if proposal.accepting { Rare::V2AcceptBeaten } else { Rare::V2PrepareBeaten });
                local.see(beat.time);
                self.beat = self.beat.max(beat);
                self.proposal = None;
                self.rest_until = now.mono.plus(local.up_to(REST));
                None
            }
            _ => None,
        }
    }
}

/// Two that are alike here do the same, whatever numbers their tickets have.
#[cfg(test)]
impl core::hash::Hash for Decrees {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        let view = |(ballot, view): &(Ballot, Arc<View>)| (*ballot, view.epoch());
        let accepted = self.acceptor.accepted.as_ref().map(view);
        (self.acceptor.epoch, self.acceptor.promised, accepted).hash(state);
        (self.beat, self.rest_until, &self.unheard, self.proposal.is_some()).hash(state);
        if let Some(p) = &self.proposal {
            let mut heard = p.heard.clone();
            heard.sort_unstable();
            (p.ask, p.ballot, p.view.epoch(), p.bound_to.as_ref().map(view)).hash(state);
            (p.accepting, &p.all, heard, p.resend_at, p.until).hash(state);
        }
    }
}

impl Proposal {
    fn hear(&mut self, local: &Local, member: u32) {
        self.tally.add(local.epoch(), wardens(local).slots_of(member));
        if !self.heard.contains(&member) {
            self.heard.push(member);
        }
    }

    /// V2: five of the wardens' slots. F2: everybody who stays.
    fn has_enough(&self, local: &Local) -> bool {
        let slots = local.slots();
        match &self.all {
            Some(_) if local.rules.broken(Mutant::F2Alone) => !self.heard.is_empty(),
            Some(all) => all.iter().all(|m| self.heard.contains(m)),
            None => {
                let few = local.rules.broken(Mutant::V2NoQuorum) && self.tally.votes() * 3 >= slots;
                self.tally.reached(slots) || few
            }
        }
    }

    /// True if what somebody accepted is to be proposed instead: the highest. What an operator forces is bound by what
    /// another one did, and by nothing that the lost may have decided.
    fn is_bound_by(&self, local: &Local, (ballot, view): &(Ballot, Arc<View>)) -> bool {
        let counts = match is_forced(local, view) {
            true => stands(local, view) && !local.rules.broken(Mutant::F2Blind),
            false => self.all.is_none(),
        };
        counts && self.bound_to.as_ref().is_none_or(|(other, _)| ballot > other)
    }

    fn ask(&self, local: &mut Local, effects: &mut Vec<Effect>) {
        let (ask, ballot) = (self.ask, self.ballot);
        let asked = match &self.all {
            Some(all) => all.clone(),
            None => wardens(local).machines().collect(),
        };
        for member in asked.into_iter().filter(|m| !self.heard.contains(m)) {
            let message = match self.accepting {
                false => Message::DecreePrepare { ask, ballot },
                true => Message::DecreeAccept { ask, ballot, view: self.view.clone() },
            };
            local.send_to(member, message, self.after, effects);
        }
    }
}

/// F2: true of a view that opens a generation.
fn is_forced(local: &Local, view: &View) -> bool {
    view.epoch().generation > local.epoch().generation
}

/// F2: true of a view that opens a generation, keeps this machine, and names nobody who is heard: one that is was not
/// lost, and what was begun on that word is void.
fn stands(local: &Local, view: &View) -> bool {
    let members = local.present().view.members();
    let mut named = (0..members.len()).filter(|m| !view.has(members[*m].machine));
    is_forced(local, view) && view.has(local.me) && named.all(|m| !local.is_alive(m as u32))
}

/// F2: who has to agree to it: all that are in its ring.
fn staying(local: &Local, view: &View) -> Vec<u32> {
    let stay = view.members().iter().filter(|m| m.in_ring());
    stay.filter_map(|m| local.present().index_of(m.machine)).collect()
}
