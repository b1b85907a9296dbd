//! A lead on one key: a ballot that five promised, and the chain of states proposed under it.
//!
//! Source: PROTOCOL B2, C1 to C4.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use crate::effect::{Mono, Now};
use crate::message::{Copied, Message, Op, Outcome};
use crate::mutant::{Mutant, Rules};
use crate::quorum::{Tally, hopeless};
use crate::rare::{Rare, met, met_if};
use crate::register::Draft;
use crate::stamp::{Ballot, Stamp, State};
use crate::turn::{Round, Turn, Vote, Waiting};

/// A ballot that a quorum promised, and the chain of states proposed under it (B2).
#[derive(Debug)]
pub(crate) struct Lead {
    pub(crate) ballot: Ballot,
    /// Number of the last state proposed; 0 while that is the base.
    n: u32,
    /// The last state proposed, chosen or not.
    last: Arc<State>,
    /// Stamp of the base; `None` if a quorum told "none".
    base: Option<Stamp>,
    /// The base was seen to be chosen, by so many votes, for requests up to this one.
    proven: Option<(u64, u8)>,
    flights: VecDeque<Flight>,
    /// The last Accept chosen: late refusals of it still tell of higher floors. What rests on it still are settling rounds,
    /// which want every slot.
    landed: Option<Flight>,
    /// Somebody refused: take a new ballot, above theirs, once the flights have landed.
    pub(crate) retiring: bool,
    /// The state it began from, for a mutant (B2).
    base_state: Option<Arc<State>>,
}

/// A question under a lead, and the answers that rest on it.
#[derive(Debug)]
struct Flight {
    what: What,
    round: Round,
    tally: Tally,
    /// Answers that leave once the state they rest on is chosen (C2).
    resting: Vec<(Waiting, Outcome)>,
}

#[derive(Debug)]
enum What {
    /// State n, proposed by an Accept.
    Accept { n: u32, state: Arc<State> },
    /// No change was due: five say that the last state is still what they hold. A lead may have been
    /// superseded without knowing it, so no answer rests on its memory alone.
    Confirm { least: Option<Stamp> },
}

impl What {
    fn is_accept(&self) -> bool {
        matches!(self, Self::Accept { .. })
    }

    /// The number of the state proposed; 0 if none is.
    fn number(&self) -> u32 {
        match self {
            Self::Accept { n, .. } => *n,
            Self::Confirm { .. } => 0,
        }
    }

    /// Bytes of values on the way to each owner.
    fn bytes(&self) -> usize {
        match self {
            Self::Accept { state, .. } => state.value.as_ref().map_or(0, |v| v.len()),
            Self::Confirm { .. } => 0,
        }
    }
}

impl Flight {
    /// Of one that is chosen: settling rounds are told how many slots hold it, once there is nobody more to hear.
    fn answer_settled(&mut self, turn: &mut Turn<'_>) {
        if self.tally.votes() == turn.owners.slots() || self.round.heard_enough(turn) {
            self.answer_all(turn);
        }
    }

    fn answer_all(&mut self, turn: &mut Turn<'_>) {
        let votes = self.tally.votes();
        for (waiting, outcome) in mem::take(&mut self.resting) {
            turn.answer(&waiting, outcome.by(votes));
        }
    }
}

impl Lead {
    /// A lead whose chain begins at the highest record that a quorum of promises told, or at none.
    pub(crate) fn new(
        ballot: Ballot,
        last: Arc<State>,
        base: Option<Stamp>,
        proven: Option<(u64, u8)>,
        rules: Rules,
    ) -> Self {
        let base_state = rules.broken(Mutant::B2Fork).then(|| last.clone());
        let flights = VecDeque::new();
        Self { ballot, n: 0, last, base, proven, flights, landed: None, retiring: false, base_state }
    }

    /// Applies requests in order to the last state and asks the owners to hold the result (C3, B2); if they
    /// change nothing, asks whether the last state is still what they hold.
    pub(crate) fn propose(&mut self, turn: &mut Turn<'_>, batch: Vec<Waiting>) {
        let rules = turn.local.rules;
        let from = self.base_state.as_ref().filter(|_| self.n > 0).unwrap_or(&self.last);
        let mut draft = Draft::of(from, rules);
        let wall = turn.wall();
        let mut resting: Vec<(Waiting, Outcome)> = batch
            .into_iter()
            .map(|waiting| {
                turn.note_queued(&waiting);
                let outcome = draft.apply(&waiting.op, wall);
                (waiting, outcome)
            })
            .collect();
        let (state, changed) = draft.done();
        if turn.local.rules.broken(Mutant::C2Early)
            || (!changed && turn.local.rules.broken(Mutant::C2StaleCompare))
        {
            for (waiting, outcome) in resting.drain(..) {
                turn.answer(&waiting, outcome);
            }
        }
        let newest = resting.iter().map(|(w, _)| w.seq).max().unwrap_or(0);
        if !changed
            && self.n == 0
            && let Some((_, votes)) = self.proven.filter(|(covers, _)| newest <= *covers)
        {
            met(Rare::D4AnsweredByPromises);
            // D4: the promises themselves showed the base to be chosen, after these requests had arrived.
            for (waiting, outcome) in resting {
                turn.answer(&waiting, outcome.by(votes));
            }
            return;
        }
        for (waiting, outcome) in &mut resting {
            // What the last state contains is out there, whoever sent it; what it does not contain was not sent.
            if outcome.is_applied() {
                waiting.mark_sent();
            }
        }
        let what = if changed || (self.n == 0 && self.proven.is_none()) {
            met_if(!changed, Rare::D4AcceptWithoutChange);
            let Some(n) = self.next_number() else {
                unreachable!("a lead at its last number proposes nothing")
            };
            self.last = state;
            What::Accept { n, state: self.last.clone() }
        } else if self.n == 0 {
            met(Rare::C2BaseConfirmed);
            What::Confirm { least: self.base }
        } else {
            met(Rare::C2LastConfirmed);
            What::Confirm { least: Some(Stamp { ballot: self.ballot, n: self.n }) }
        };
        let round = Round::new(turn, what.bytes(), first_deadline(&resting));
        let flight = Flight { what, round, tally: turn.local.tally(), resting };
        self.ask(turn, &flight);
        self.flights.push_back(flight);
    }

    /// The number of the next state. With the last one there is, the lead ends: numbers that began again would
    /// be answered "held" by who holds a higher one.
    fn next_number(&mut self) -> Option<u32> {
        self.n = self.n.checked_add(1)?;
        self.retiring |= self.n == u32::MAX;
        Some(self.n)
    }

    fn ask(&self, turn: &mut Turn<'_>, flight: &Flight) {
        let (ask, key) = (flight.round.ask, turn.key.clone());
        match &flight.what {
            What::Accept { n, state } => {
                let stamp = Stamp { ballot: self.ballot, n: *n };
                let after = turn.local.cover(self.ballot.time, turn.effects);
                let message = Message::Accept { ask, key, stamp, state: state.clone() };
                turn.ask_owners(&flight.round, &message, after);
            }
            What::Confirm { .. } => {
                turn.ask_owners(&flight.round, &Message::Read { ask, key, inline: 0 }, None);
            }
        }
    }

    pub(crate) fn resend(&mut self, turn: &mut Turn<'_>) {
        let mut flights = mem::take(&mut self.flights);
        for flight in &mut flights {
            if !flight.round.is_due(turn.now) {
                continue;
            }
            // Asking again helps nobody to hold what five may lack: the Accept of it may have been given up; or all
            // hold it, and too few voted for their slots when they took it (Q1). So D4: the last state once more,
            // under its next number.
            let confirms = matches!(flight.what, What::Confirm { .. });
            let vain = confirms || flight.round.heard_all(turn.owners);
            met_if(confirms, Rare::D4ConfirmedInVain);
            met_if(!vain, Rare::C2AcceptSentAgain);
            if vain && let Some(n) = self.next_number() {
                turn.local.forget(flight.round.ask);
                flight.what = What::Accept { n, state: self.last.clone() };
                flight.round = Round::new(turn, flight.what.bytes(), first_deadline(&flight.resting));
                flight.tally = turn.local.tally();
            }
            self.ask(turn, flight);
        }
        self.flights = flights;
        if let Some(mut landed) = self.landed.take() {
            if !landed.resting.is_empty() && landed.round.is_due(turn.now) {
                landed.answer_settled(turn);
                if !landed.resting.is_empty() {
                    self.ask(turn, &landed);
                }
            }
            self.landed = Some(landed);
        }
    }

    /// "Held (b, m)" counts for every state of the chain up to m (C2).
    pub(crate) fn held(&mut self, turn: &Turn<'_>, vote: Vote, held: Stamp) {
        if held.ballot != self.ballot {
            return;
        }
        for flight in self.flights.iter_mut().chain(&mut self.landed) {
            if matches!(flight.what, What::Accept { n, .. } if n <= held.n) {
                met_if(flight.round.ask != vote.ask, Rare::C2LaterHoldsEarlier);
                flight.tally.add(vote.epoch, vote.slots);
            }
            if flight.round.ask == vote.ask {
                flight.round.hear(turn, vote);
            }
        }
    }

    /// A copy told to a Confirm: a vote if it is still the state meant. Returns the ballot that has come
    /// above ours, if one has.
    pub(crate) fn confirmed(&mut self, turn: &Turn<'_>, vote: Vote, copied: &Copied) -> Option<Ballot> {
        let flight = self.flights.iter_mut().find(|f| f.round.ask == vote.ask)?;
        let What::Confirm { least } = flight.what else { return None };
        let told = copied.stamp();
        match told {
            Some(t) if t.ballot > self.ballot => return Some(t.ballot),
            // Still the state meant, or a later one of this chain: proposed after these requests arrived, and
            // held only by who holds the state meant.
            _ if told == least || told.is_some_and(|t| t.ballot == self.ballot && told > least) => {
                met_if(told != least, Rare::C2ConfirmedByLater);
                flight.tally.add(vote.epoch, vote.slots);
                flight.round.hear(turn, vote);
            }
            // It does not hold the state yet: it is asked again.
            _ => met(Rare::C2ConfirmedByNone),
        }
        None
    }

    /// An owner has no room for a state: it is not asked again before all have answered.
    pub(crate) fn no_room(&mut self, turn: &Turn<'_>, vote: Vote) {
        let flights = self.flights.iter_mut().chain(&mut self.landed);
        for flight in flights.filter(|f| f.round.ask == vote.ask) {
            flight.round.hear(turn, vote);
        }
    }

    /// Notes a refusal of one of this lead's questions; false if it is of none.
    pub(crate) fn refused(&mut self, turn: &Turn<'_>, vote: Vote) -> bool {
        if let Some(flight) = self.flights.iter_mut().find(|f| f.round.ask == vote.ask) {
            flight.round.refuse(turn, vote.by);
        } else if let Some(landed) = self.landed.as_mut().filter(|f| f.round.ask == vote.ask) {
            met(Rare::C1LateRefusal);
            landed.round.refuse(turn, vote.by);
        } else {
            return false;
        }
        self.retiring = true;
        true
    }

    /// Answers what rests on chosen states; true if anything landed.
    pub(crate) fn land(&mut self, turn: &mut Turn<'_>) -> bool {
        let slots = turn.owners.slots();
        let mut landed = false;
        while let Some(at) = self.flights.iter().position(|f| f.tally.reached(slots)) {
            let Some(flight) = self.flights.remove(at) else { break };
            met_if(at > 0, Rare::C2LandedOutOfOrder);
            landed = true;
            let votes = flight.tally.votes();
            let nanos = turn.since(flight.round.begun);
            let counts = &mut turn.local.counts;
            counts.decided(votes);
            if flight.what.is_accept() {
                counts.hold.note(nanos)
            } else {
                counts.read.note(nanos)
            }
            let Flight { what, round, tally, resting } = flight;
            // One that wants every slot waits on, beside the lead, until all that can be heard are.
            let (settling, resting): (Vec<_>, Vec<_>) =
                resting.into_iter().partition(|(waiting, _)| waiting.op == Op::Settle && what.is_accept());
            for (waiting, outcome) in resting {
                turn.answer(&waiting, outcome.by(votes));
            }
            match what {
                What::Accept { .. } => self.keep(turn, Flight { what, round, tally, resting: settling }),
                What::Confirm { .. } => turn.local.forget(round.ask),
            }
        }
        if let Some(landed) = &mut self.landed {
            landed.answer_settled(turn);
        }
        landed
    }

    /// This Accept is chosen. Of two the later one is kept, with what rests on both: who holds it holds the earlier (C2).
    fn keep(&mut self, turn: &mut Turn<'_>, mut flight: Flight) {
        if let Some(mut other) = self.landed.take() {
            if other.what.number() > flight.what.number() {
                mem::swap(&mut other, &mut flight);
            }
            turn.local.forget(other.round.ask);
            flight.resting.append(&mut other.resting);
        }
        self.landed = Some(flight);
    }

    /// Gives up on requests past their deadline. A flight that nobody waits for any more is dropped; the chain goes
    /// on from its last state all the same (B2).
    pub(crate) fn expire(&mut self, turn: &mut Turn<'_>, mut keep: impl FnMut(&Waiting) -> bool) {
        for flight in &mut self.flights {
            let (stay, gone): (Vec<_>, Vec<_>) =
                mem::take(&mut flight.resting).into_iter().partition(|(waiting, _)| keep(waiting));
            flight.resting = stay;
            for (waiting, _) in &gone {
                turn.give_up(waiting, flight.tally.votes(), Some(&flight.round));
            }
        }
        if let Some(landed) = &mut self.landed {
            let (stay, gone) =
                mem::take(&mut landed.resting).into_iter().partition(|(waiting, _)| keep(waiting));
            landed.resting = gone;
            landed.answer_all(turn);
            landed.resting = stay;
        }
        let local = &mut *turn.local;
        self.flights.retain(|flight| {
            let wanted = !flight.resting.is_empty();
            if !wanted {
                met(Rare::B2FlightForNobody);
                local.forget(flight.round.ask);
            }
            wanted
        });
    }

    /// Ends the lead: what was asked of it, in the old order.
    pub(crate) fn end(mut self, turn: &mut Turn<'_>) -> VecDeque<Waiting> {
        if let Some(landed) = &mut self.landed {
            landed.answer_all(turn);
        }
        for flight in self.landed.iter().chain(&self.flights) {
            turn.local.forget(flight.round.ask);
        }
        self.flights.into_iter().flat_map(|f| f.resting).map(|(waiting, _)| waiting).collect()
    }

    /// Questions under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// The oldest question under way, and its votes.
    pub(crate) fn oldest(&self) -> Option<(&Round, u8)> {
        self.flights.front().map(|f| (&f.round, f.tally.votes()))
    }

    /// True if some question was refused by so many that five will never answer it.
    pub(crate) fn is_lost(&self, slots: u8) -> bool {
        self.flights.iter().any(|f| hopeless(slots, f.round.refused))
    }

    /// True if some question was refused by some, and is unheard by too many others.
    pub(crate) fn is_stuck(&self, now: Now) -> bool {
        self.flights.iter().any(|f| f.round.is_stuck(now))
    }

    /// When the next question is to be asked again.
    pub(crate) fn wake_at(&self) -> Option<Mono> {
        let landed = self.landed.iter().filter(|f| !f.resting.is_empty());
        self.flights.iter().chain(landed).map(|f| f.round.resend_at).min()
    }

    /// True if nobody waits for anything here.
    pub(crate) fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.landed.as_ref().is_none_or(|f| f.resting.is_empty())
    }

    /// The value that the next state will be computed from.
    pub(crate) fn value(&self) -> Option<&Arc<[u8]>> {
        self.last.value.as_ref()
    }
}

/// When the first of those who wait gives up.
fn first_deadline(resting: &[(Waiting, Outcome)]) -> Option<Mono> {
    resting.iter().map(|(waiting, _)| waiting.deadline).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::Hlc;
    use crate::view::Incarnation;

    /// FOUND 10: who went on from 1 would be answered "held" by who holds a higher number of the same ballot.
    #[test]
    fn b2_numbers_do_not_begin_again_a_lead_ends_with_its_last() {
        let ballot = Ballot { time: Hlc::from_nanos(7), by: Incarnation::new(1) };
        let mut lead = Lead::new(ballot, Arc::default(), None, None, Rules::default());
        assert_eq!((lead.next_number(), lead.retiring), (Some(1), false));
        lead.n = u32::MAX - 1;
        assert_eq!((lead.next_number(), lead.retiring), (Some(u32::MAX), true), "no further batch is taken");
        assert_eq!((lead.next_number(), lead.next_number()), (None, None));
        assert_eq!(lead.n, u32::MAX);
    }
}
