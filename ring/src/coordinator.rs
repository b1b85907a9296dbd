//! Who changes a key: requests that wait, the way to a lead, hand-over between coordinators.
//!
//! Any machine may coordinate any key; by habit it is the owner of the lowest slot believed alive.
//! Source: PROTOCOL section 4 (B1, B2, C1 to C4) and section 12.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use crate::effect::{Mono, Ticket};
use crate::lead::Lead;
use crate::message::{Answer, Ask, Bound, Copied, Message, Outcome};
use crate::mutant::Mutant;
use crate::quorum::{Tally, hopeless};
use crate::rare::{Rare, met, met_if};
use crate::reader::Reader;
use crate::register;
use crate::stamp::{Ballot, Record};
use crate::turn::{IN_TIME, Round, Turn, Vote, Waiting, travel};

/// Requests merged into one Accept at most. Each stays on the state's list for a while (I1): more would push
/// one another off it.
const BATCH: usize = 32;
/// Longest random wait after a beaten ballot.
const MAX_BACKOFF: u64 = 1_000_000_000;
/// How long requests go straight to the coordinator that answered the last one handed over.
const FAVOUR: u64 = 1_000_000_000;

/// The coordinator of one key on this machine. All of it is memory and dies with the process (B1).
#[derive(Debug, Default)]
pub(crate) struct Coordinator {
    /// Requests that are in no round, oldest first.
    waiting: VecDeque<Waiting>,
    stage: Stage,
    /// Requests given to another coordinator.
    handed: Vec<Handed>,
    /// The highest ballot that refused us.
    beat: Ballot,
    backoff: u64,
    favourite: Option<Favourite>,
    /// Not later than the first deadline among all requests here.
    deadline: Option<Mono>,
    arrivals: u64,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    /// Beaten: waits a random time, so that duels end.
    Resting(Mono),
    Preparing(Box<Preparing>),
    Leading(Box<Lead>),
}

/// A ballot on its way to a quorum of promises.
#[derive(Debug)]
struct Preparing {
    ballot: Ballot,
    after: Option<Ticket>,
    round: Round,
    promises: Tally,
    /// The promises' records as a read: five votes for one stamp mean that it is chosen already.
    told: Reader,
    /// The highest-stamped record of all promises, hearsay included (C1).
    base: Option<Record>,
    bound: Bound,
    /// Requests up to this one arrived before the round began.
    covers: u64,
}

#[derive(Debug)]
struct Handed {
    ask: Ask,
    to: u32,
    back_at: Mono,
    waiting: Waiting,
}

#[derive(Debug)]
struct Favourite {
    member: u32,
    until: Mono,
}

impl Coordinator {
    /// Takes a request. It is answered by exactly one `Outcome`, by its deadline.
    pub(crate) fn submit(&mut self, turn: &mut Turn<'_>, mut waiting: Waiting) {
        if self.waiting.len() + self.handed.len() >= turn.local.tuning.waiting_per_key {
            turn.answer(&waiting, Outcome::Overloaded { retry_after: 50 });
            return;
        }
        if let Some(full) = turn.full_for(&waiting.op) {
            turn.answer(&waiting, Outcome::NoRoom { full });
            return;
        }
        if self.waiting.is_empty() && matches!(self.stage, Stage::Resting(_)) {
            met(Rare::C1RestCutShort);
            // The duel that we rest from is over: those who fought it have gone elsewhere or given up.
            (self.stage, self.backoff) = (Stage::Idle, 0);
        }
        self.arrivals += 1;
        waiting.seq = self.arrivals;
        self.deadline = Some(self.deadline.map_or(waiting.deadline, |d| d.min(waiting.deadline)));
        let favourite = self.favourite.as_ref().filter(|f| f.until > turn.now.mono).map(|f| f.member);
        match favourite.filter(|member| turn.local.is_well(*member)).or_else(|| turn.heir()) {
            // Where five are not there, a write that stays here has an outcome: it changed nothing (C4).
            Some(to) if !waiting.handed && turn.has_quorum_alive() => {
                met(Rare::C1ToTheFavourite);
                self.hand_over(turn, to, waiting);
            }
            other => {
                met_if(other.is_some() && !waiting.handed, Rare::C4NotHandedOver);
                self.waiting.push_back(waiting);
            }
        }
        self.advance(turn);
    }

    /// This machine is not well any more: what it has not begun to propose goes to an owner that is.
    pub(crate) fn give_away(&mut self, turn: &mut Turn<'_>) {
        let Some(to) = turn.heir().filter(|_| turn.has_quorum_alive()) else { return };
        if matches!(self.stage, Stage::Preparing(_)) {
            self.stand_down(turn);
        }
        self.hand_all_over(turn, to);
        self.advance(turn);
    }

    /// True while this machine leads the key, as far as it knows.
    pub(crate) fn leads(&self, promised: Ballot) -> bool {
        matches!(&self.stage, Stage::Leading(lead) if lead.ballot >= promised && !lead.retiring)
    }

    /// Starts whatever can be started.
    fn advance(&mut self, turn: &mut Turn<'_>) {
        loop {
            match &mut self.stage {
                // C1: a promise of our own above the lead ends it.
                Stage::Leading(lead) if turn.promised > lead.ballot => {
                    met(Rare::C1OwnPromiseEndsLead);
                    self.beat = self.beat.max(turn.promised);
                    self.beaten(turn);
                }
                Stage::Leading(lead) if lead.retiring && lead.in_flight() == 0 => {
                    met(Rare::C1RetiringLeadEnds);
                    self.stand_down(turn);
                }
                // Five are not there, as far as is known: an Accept now would be of unknown outcome (C4), while a Prepare
                // changes nothing.
                Stage::Leading(lead)
                    if lead.in_flight() == 0 && !self.waiting.is_empty() && !turn.has_quorum_alive() =>
                {
                    met(Rare::C4LeadGivenUpWithoutFive);
                    self.stand_down(turn);
                }
                Stage::Leading(lead) => {
                    let full = lead.in_flight() >= turn.local.tuning.pipeline;
                    if self.waiting.is_empty() || full || lead.retiring {
                        met_if(!self.waiting.is_empty() && full, Rare::C3PipelineFull);
                        return;
                    }
                    let batch = self.waiting.len().min(BATCH);
                    let batch = self.waiting.drain(..batch).filter(|waiting| wanted(turn, waiting));
                    let batch: Vec<_> = batch.collect();
                    if !batch.is_empty() {
                        met_if(lead.in_flight() > 0, Rare::C3Pipelined);
                        met_if(batch.len() > 1, Rare::C3Batch);
                        met_if(batch.len() == BATCH, Rare::C3FullBatch);
                        lead.propose(turn, batch);
                    }
                }
                Stage::Idle if !self.waiting.is_empty() => self.prepare(turn),
                Stage::Resting(until) if *until <= turn.now.mono => self.stage = Stage::Idle,
                Stage::Idle | Stage::Resting(_) | Stage::Preparing(_) => return,
            }
        }
    }

    /// C1: asks all owners to promise a fresh ballot.
    fn prepare(&mut self, turn: &mut Turn<'_>) {
        let beat = self.beat.max(turn.promised);
        let Some((ballot, after)) = turn.local.fresh_ballot(beat, turn.now, turn.effects) else {
            let reason = "the hybrid clock is at its end: a peer's clock must have been far off";
            for waiting in mem::take(&mut self.waiting) {
                turn.answer(&waiting, Outcome::Refused(reason.into()));
            }
            return;
        };
        let held = turn.held;
        let round = Round::new(turn, held, self.deadline);
        let message = Message::Prepare { ask: round.ask, key: turn.key.clone(), ballot };
        turn.ask_owners(&round, &message, after);
        self.stage = Stage::Preparing(Box::new(Preparing {
            ballot,
            after,
            round,
            promises: turn.local.tally(),
            told: turn.local.reader(),
            base: None,
            bound: Bound::default(),
            covers: self.arrivals,
        }));
    }

    /// An acceptor's answer to one of this coordinator's questions.
    pub(crate) fn on_answer(&mut self, turn: &mut Turn<'_>, vote: Vote, answer: Answer) {
        match &mut self.stage {
            Stage::Preparing(p) if p.round.ask == vote.ask => {
                // Who does not vote for all its slots yet is asked again: it may by then (section 6).
                if vote.slots == turn.owners.slots_of(vote.by) || !matches!(answer, Answer::Promised { .. }) {
                    p.round.hear(turn, vote);
                } else {
                    met(Rare::C1PromiseAskedAgain);
                }
                match answer {
                    Answer::Promised { ballot, record, bound } if ballot == p.ballot => {
                        p.promised(turn, vote, record, bound);
                        if p.promises.reached(turn.owners.slots()) {
                            self.lead(turn);
                        }
                    }
                    Answer::Refused { beat } => {
                        turn.local.see(beat.time);
                        self.beat = self.beat.max(beat);
                        p.round.refuse(turn, vote.by);
                        if hopeless(turn.owners.slots(), p.round.refused) {
                            met(Rare::C1PrepareHopeless);
                            self.beaten(turn);
                        }
                    }
                    _ => {}
                }
            }
            Stage::Leading(lead) => match answer {
                Answer::Refused { beat } => {
                    turn.local.see(beat.time);
                    if lead.refused(turn, vote) {
                        self.beat = self.beat.max(beat);
                        if lead.is_lost(turn.owners.slots()) {
                            met(Rare::C1LeadLost);
                            self.beaten(turn);
                        }
                    }
                }
                Answer::Held { stamp } => {
                    lead.held(turn, vote, stamp);
                    self.land(turn);
                }
                Answer::Copy(copied) => {
                    if let Some(above) = lead.confirmed(turn, vote, &copied) {
                        met(Rare::C2Superseded);
                        self.beat = self.beat.max(above);
                        self.beaten(turn);
                    } else {
                        self.land(turn);
                    }
                }
                Answer::NoRoom => lead.no_room(turn, vote),
                Answer::Promised { .. } | Answer::Mute | Answer::Busy { .. } => {}
            },
            _ => {}
        }
        self.advance(turn);
    }

    /// A quorum has promised: its highest record is the base of the chain (C1).
    fn lead(&mut self, turn: &mut Turn<'_>) {
        let Stage::Preparing(p) = mem::take(&mut self.stage) else { return };
        turn.local.forget(p.round.ask);
        let nanos = turn.since(p.round.begun);
        turn.local.counts.promise.note(nanos);
        turn.local.counts.decided(p.promises.votes());
        let base = p.base.as_ref().map(|r| r.stamp);
        let last = match p.base {
            Some(record) => record.state,
            None => Arc::new(register::absent(p.bound)),
        };
        let proven = (p.told.settled() == Some(base)).then(|| (p.covers, p.told.votes()));
        met(match (base, proven) {
            (None, _) => Rare::C1BaseNone,
            (Some(_), Some(_)) => Rare::D4BaseChosen,
            (Some(_), None) => Rare::C1BaseUnchosen,
        });
        let lead = Lead::new(p.ballot, last, base, proven, turn.local.rules);
        self.stage = Stage::Leading(Box::new(lead));
    }

    /// Lets the answers go whose state is chosen.
    fn land(&mut self, turn: &mut Turn<'_>) {
        let Stage::Leading(lead) = &mut self.stage else { return };
        if lead.land(turn) {
            self.backoff = 0;
        }
    }

    /// The ballot cannot win any more: its requests wait again, in their old order. They go to whoever beat
    /// us, if that is an owner that can be reached; else we rest and try above all ballots told.
    fn beaten(&mut self, turn: &mut Turn<'_>) {
        turn.local.counts.beaten += 1;
        self.stand_down(turn);
        let by = turn.local.present().proposer(self.beat.by);
        match by {
            Some(m) if Some(m) == turn.local.present().me => {}
            Some(m)
                if !turn.owners.slots_of(m).is_empty()
                    && turn.local.is_well(m)
                    && turn.has_quorum_alive() =>
            {
                met(Rare::C1MakesWay);
                self.hand_all_over(turn, m);
                self.rest(turn);
            }
            Some(_) => {
                met(Rare::C1Rests);
                self.rest(turn);
            }
            // Refused by a floor, not by a rival: nobody to make way for.
            None => met(Rare::C1BeatenByFloor),
        }
    }

    fn rest(&mut self, turn: &mut Turn<'_>) {
        self.backoff = (self.backoff * 2).clamp(turn.local.tuning.backoff, MAX_BACKOFF);
        let wait = turn.local.up_to(self.backoff);
        self.stage = Stage::Resting(turn.now.mono.plus(wait));
    }

    /// Gives the ballot up; what it was asked to do waits again.
    fn stand_down(&mut self, turn: &mut Turn<'_>) {
        match mem::take(&mut self.stage) {
            Stage::Preparing(p) => turn.local.forget(p.round.ask),
            Stage::Leading(lead) => {
                let mut back = lead.end(turn);
                back.append(&mut self.waiting);
                self.waiting = back;
            }
            Stage::Idle | Stage::Resting(_) => {}
        }
    }

    /// G3: the key's tombstone is gone, and ballots up to the bound, that of a lead among them, are refused for it now.
    pub(crate) fn on_collected(&mut self, turn: &mut Turn<'_>) {
        if let Stage::Leading(lead) = &mut self.stage {
            met(Rare::G3LeadRetires);
            // What is in flight may still be told: the tombstone itself, say.
            lead.retiring = true;
            self.advance(turn);
        }
    }

    /// A view was adopted: the owners may be others. What is under way begins anew; a lead is worth one round trip.
    pub(crate) fn on_view(&mut self, turn: &mut Turn<'_>) {
        match &self.stage {
            Stage::Preparing(_) => met(Rare::V3PrepareBeginsAnew),
            Stage::Leading(lead) if lead.in_flight() > 0 => met(Rare::V3AcceptBeginsAnew),
            Stage::Leading(_) | Stage::Idle | Stage::Resting(_) => {}
        }
        self.stand_down(turn);
        self.favourite = None;
        for Handed { ask, mut waiting, .. } in mem::take(&mut self.handed) {
            met(Rare::V3HandedComesBack);
            turn.local.forget(ask);
            // It may have been proposed.
            waiting.handed = true;
            waiting.mark_sent();
            self.waiting.push_back(waiting);
        }
        if turn.local.present().me.is_none() {
            // V5: nobody takes part in a round of a machine that is not in the view.
            for waiting in mem::take(&mut self.waiting) {
                met(Rare::V5WaitingNotHere);
                turn.answer(&waiting, Outcome::NotHere);
            }
        }
        self.advance(turn);
    }

    // -- other coordinators --------------------------------------------------------------------------

    /// All that waits here, and was not handed over before.
    fn hand_all_over(&mut self, turn: &mut Turn<'_>, to: u32) {
        let (go, stay) = mem::take(&mut self.waiting).into_iter().partition::<Vec<_>, _>(|w| !w.handed);
        self.waiting = stay.into();
        for waiting in go {
            self.hand_over(turn, to, waiting);
        }
    }

    fn hand_over(&mut self, turn: &mut Turn<'_>, to: u32, waiting: Waiting) {
        let ask = turn.local.ask(turn.key);
        let left = waiting.deadline.0.saturating_sub(turn.now.mono.0);
        let message = Message::Request {
            ask,
            key: turn.key.clone(),
            op: waiting.op.clone(),
            within: u32::try_from(left / 1_000_000).unwrap_or(u32::MAX),
            handed: true,
        };
        turn.local.send_to(to, message, None, turn.effects);
        turn.local.counts.handed += 1;
        let patience = turn.local.patience(left / IN_TIME) * 4 + travel(waiting.value_bytes());
        let back_at = turn.now.mono.plus(patience);
        self.handed.push(Handed { ask, to, back_at, waiting });
    }

    /// Another coordinator answered a request that was handed to it.
    pub(crate) fn on_outcome(&mut self, turn: &mut Turn<'_>, ask: Ask, outcome: Outcome) {
        let Some(at) = self.handed.iter().position(|h| h.ask == ask) else { return };
        let Handed { to, mut waiting, .. } = self.handed.swap_remove(at);
        turn.local.forget(ask);
        if let Outcome::Refused(_) | Outcome::Overloaded { .. } | Outcome::NotHere | Outcome::NoRoom { .. } =
            outcome
        {
            met(Rare::C4HandedIsNotTried);
            // Not its fault: try it here.
            self.favourite = None;
            waiting.handed = true;
            self.waiting.push_back(waiting);
        } else {
            self.favourite = Some(Favourite { member: to, until: turn.now.mono.plus(FAVOUR) });
            turn.answer(&waiting, outcome);
        }
        self.advance(turn);
    }

    // -- time ----------------------------------------------------------------------------------------

    /// Asks again, takes back, gives up: whatever is due.
    pub(crate) fn on_time(&mut self, turn: &mut Turn<'_>) {
        if self.deadline.is_some_and(|d| d <= turn.now.mono) {
            self.expire(turn);
        }
        self.take_back(turn);
        match &mut self.stage {
            Stage::Preparing(p) => {
                if p.round.is_stuck(turn.now) {
                    met(Rare::C1PrepareStuck);
                    self.beaten(turn);
                } else if p.round.is_due(turn.now) {
                    met(Rare::C1PrepareSentAgain);
                    let message =
                        Message::Prepare { ask: p.round.ask, key: turn.key.clone(), ballot: p.ballot };
                    turn.ask_owners(&p.round, &message, p.after);
                }
            }
            Stage::Leading(lead) if lead.is_stuck(turn.now) => {
                met(Rare::C1LeadStuck);
                self.beaten(turn);
            }
            Stage::Leading(lead) => lead.resend(turn),
            Stage::Idle | Stage::Resting(_) => {}
        }
        self.advance(turn);
    }

    /// Requests whose new coordinator does not answer come back. It may have proposed them.
    fn take_back(&mut self, turn: &mut Turn<'_>) {
        let (local, now) = (&*turn.local, turn.now.mono);
        let late = |h: &Handed| h.back_at <= now || !local.is_reachable(h.to);
        if !self.handed.iter().any(late) {
            return;
        }
        let (back, stay) = mem::take(&mut self.handed).into_iter().partition::<Vec<_>, _>(late);
        self.handed = stay;
        self.favourite = None;
        met(Rare::C4HandedTakenBack);
        for Handed { ask, mut waiting, .. } in back {
            turn.local.forget(ask);
            waiting.handed = true;
            waiting.mark_sent();
            self.waiting.push_back(waiting);
        }
    }

    /// Answers every request whose deadline has passed, with what is known (C4).
    fn expire(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        let mut next: Option<Mono> = None;
        let mut keep = |waiting: &Waiting| {
            let alive = waiting.deadline > now;
            if alive {
                next = Some(next.map_or(waiting.deadline, |d| d.min(waiting.deadline)));
            }
            alive
        };
        let (stay, gone): (Vec<_>, Vec<_>) = mem::take(&mut self.waiting).into_iter().partition(&mut keep);
        self.waiting = stay.into();
        let (votes, round) = match &self.stage {
            Stage::Preparing(p) => (p.promises.votes(), Some(&p.round)),
            Stage::Leading(lead) => match lead.oldest() {
                Some((round, votes)) => (votes, Some(round)),
                None => (0, None),
            },
            Stage::Idle | Stage::Resting(_) => (0, None),
        };
        for waiting in &gone {
            turn.give_up(waiting, votes, round);
        }
        if let Stage::Leading(lead) = &mut self.stage {
            lead.expire(turn, &mut keep);
        }
        let (stay, gone): (Vec<_>, Vec<_>) =
            mem::take(&mut self.handed).into_iter().partition(|h| keep(&h.waiting));
        self.handed = stay;
        for Handed { ask, waiting, .. } in gone {
            met(Rare::C4HandedExpired);
            turn.local.forget(ask);
            turn.give_up(&Waiting { sent: true, ..waiting }, 0, None);
        }
        self.deadline = next;
        if self.waiting.is_empty() && matches!(self.stage, Stage::Preparing(_)) {
            met(Rare::C1PrepareForNobody);
            self.stand_down(turn);
        }
    }

    /// When `on_time` is due.
    pub(crate) fn wake_at(&self) -> Option<Mono> {
        let stage = match &self.stage {
            Stage::Idle => None,
            Stage::Resting(until) => (!self.waiting.is_empty()).then_some(*until),
            Stage::Preparing(p) => Some(p.round.resend_at),
            Stage::Leading(lead) => lead.wake_at(),
        };
        let handed = self.handed.iter().map(|h| h.back_at).min();
        Mono::first([stage, handed, self.deadline])
    }

    /// True if nothing here is waited for. The lead may be forgotten: it costs the next write a round trip.
    pub(crate) fn is_idle(&self) -> bool {
        let still = match &self.stage {
            Stage::Idle | Stage::Resting(_) => true,
            Stage::Preparing(_) => false,
            Stage::Leading(lead) => lead.is_idle(),
        };
        still && self.waiting.is_empty() && self.handed.is_empty()
    }

    /// True if a request is with another coordinator.
    pub(crate) fn has_handed(&self) -> bool {
        !self.handed.is_empty()
    }

    /// The value that the next state will be computed from.
    pub(crate) fn value(&self) -> Option<&Arc<[u8]>> {
        match &self.stage {
            Stage::Leading(lead) => lead.value(),
            _ => None,
        }
    }

    /// Before it is dropped: answers to it find nobody from now on.
    pub(crate) fn retire(&mut self, turn: &mut Turn<'_>) {
        self.stand_down(turn);
    }
}

/// False if a request is answered instead of proposed: nobody waits for it any more, or there is no room for it.
fn wanted(turn: &mut Turn<'_>, waiting: &Waiting) -> bool {
    if waiting.deadline <= turn.now.mono {
        turn.give_up(waiting, 0, None);
        return false;
    }
    match turn.full_for(&waiting.op) {
        Some(full) => turn.answer(waiting, Outcome::NoRoom { full }),
        None => return true,
    }
    false
}

impl Preparing {
    fn promised(&mut self, turn: &Turn<'_>, vote: Vote, record: Option<Record>, bound: Bound) {
        let Vote { by, epoch, slots, .. } = vote;
        self.promises.add(epoch, slots);
        self.bound = self.bound.max(bound);
        let machine = turn.local.present().machine(by).name;
        match record {
            // Who votes for nothing is not one of the five: what it holds may be from before the last settled view.
            Some(_) if slots.is_empty() && !turn.local.rules.broken(Mutant::C1Stranger) => {
                met(Rare::C1StrangerPassedOver);
            }
            Some(record) => {
                let own = record.votes.intersection(slots);
                met_if(own.is_empty(), Rare::C1HearsayIsHeard);
                met_if(
                    self.base.as_ref().is_some_and(|base| base.stamp != record.stamp),
                    Rare::C1TwoRecordsTold,
                );
                self.told.hear(machine, epoch, own, Copied::Whole(record.clone()));
                let keep_first = self.base.is_some() && turn.local.rules.broken(Mutant::C1AnyBase);
                if self.base.as_ref().is_none_or(|base| record.stamp > base.stamp) && !keep_first {
                    self.base = Some(record);
                }
            }
            None => self.told.hear(machine, epoch, slots, Copied::None),
        }
    }
}
