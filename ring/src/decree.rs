//! How wardens decide the next view: single-decree Paxos, votes weighted by slots (V2).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::effect::{Change, Decree, Effect, Mono, Now, Ticket};
use crate::key::Key;
use crate::local::Local;
use crate::message::{Addr, Ask, DecreeAnswer, Message};
use crate::mutant::Mutant;
use crate::placement::Owners;
use crate::quorum::Tally;
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
pub(crate) struct Decrees {
    /// As it is on disk, or will be before anyone is told.
    acceptor: Decree,
    /// The ticket of that.
    ticket: Option<Ticket>,
    proposal: Option<Box<Proposal>>,
    beat: Ballot,
    rest_until: Mono,
}

#[derive(Debug)]
struct Proposal {
    ask: Ask,
    ballot: Ballot,
    after: Option<Ticket>,
    view: Arc<View>,
    /// The highest-balloted view that some warden had accepted: it must be proposed instead.
    bound_to: Option<(Ballot, Arc<View>)>,
    accepting: bool,
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
        let beat = self.beat.max(self.acceptor.promised);
        let Some((ballot, after)) = local.fresh_ballot(beat, now, effects) else { return };
        let proposal = Proposal {
            ask: local.number(),
            ballot,
            after,
            view,
            bound_to: None,
            accepting: false,
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
            self.proposal = None;
        } else if proposal.resend_at <= now.mono {
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
                (ask, DecreeAnswer::Refused { beat: self.acceptor.promised }, None)
            }
            Message::DecreePrepare { ask, ballot } => {
                self.acceptor.promised = ballot;
                let accepted = self.acceptor.accepted.clone();
                (ask, DecreeAnswer::Promised { ballot, accepted }, self.persist(local, effects))
            }
            Message::DecreeAccept { ask, ballot, view } => {
                // A peer's lie, or an error of ours: no view that can follow this one.
                if !local.present().view.is_before(&view) {
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
        let wardens = wardens(local);
        let (epoch, slots) = (local.epoch(), wardens.slots_of(from));
        let enough = |tally: &Tally| {
            tally.reached(wardens.slots())
                || local.rules.broken(Mutant::V2NoQuorum) && tally.votes() * 3 >= wardens.slots()
        };
        match answer {
            DecreeAnswer::Promised { ballot, accepted }
                if ballot == proposal.ballot && !proposal.accepting =>
            {
                proposal.hear(from);
                proposal.tally.add(epoch, slots);
                let above =
                    |(b, _): &(Ballot, Arc<View>)| proposal.bound_to.as_ref().is_none_or(|(o, _)| b > o);
                if let Some(accepted) = accepted.filter(above) {
                    proposal.bound_to = Some(accepted);
                }
                if enough(&proposal.tally) {
                    if let Some((_, view)) = proposal.bound_to.take() {
                        proposal.view = view;
                    }
                    proposal.accepting = true;
                    proposal.tally = local.tally();
                    proposal.heard.clear();
                    proposal.resend_at = now.mono.plus(RESEND);
                    proposal.ask(local, effects);
                }
                None
            }
            DecreeAnswer::Accepted { ballot } if ballot == proposal.ballot && proposal.accepting => {
                proposal.hear(from);
                proposal.tally.add(epoch, slots);
                enough(&proposal.tally).then(|| proposal.view.clone())
            }
            DecreeAnswer::Refused { beat } => {
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

impl Proposal {
    fn hear(&mut self, member: u32) {
        if !self.heard.contains(&member) {
            self.heard.push(member);
        }
    }

    fn ask(&self, local: &mut Local, effects: &mut Vec<Effect>) {
        let (ask, ballot) = (self.ask, self.ballot);
        let wardens = wardens(local);
        for member in wardens.machines().filter(|m| !self.heard.contains(m)) {
            let message = match self.accepting {
                false => Message::DecreePrepare { ask, ballot },
                true => Message::DecreeAccept { ask, ballot, view: self.view.clone() },
            };
            local.send_to(member, message, self.after, effects);
        }
    }
}
