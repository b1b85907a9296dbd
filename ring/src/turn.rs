//! One input's turn at one key: what a coordinator or a reading may touch while it handles it.

use alloc::vec::Vec;

use crate::effect::{Effect, Mono, Now, Ticket};
use crate::key::Key;
use crate::local::Local;
use crate::message::{Addr, Ask, Change, Message, Op, Outcome, Write};
use crate::mutant::Mutant;
use crate::placement::Owners;
use crate::quorum::SlotSet;
use crate::rare::{Rare, met_if};
use crate::stamp::{Ballot, Hlc};
use crate::view::{Epoch, Name};

/// See the module's caption.
pub(crate) struct Turn<'a> {
    pub(crate) local: &'a mut Local,
    pub(crate) effects: &'a mut Vec<Effect>,
    pub(crate) now: Now,
    pub(crate) key: &'a Key,
    pub(crate) owners: &'a Owners,
    /// What this machine's own acceptor has promised for the key.
    pub(crate) promised: Ballot,
    /// Bytes of the value that it holds: what others are likely to hold too.
    pub(crate) held: usize,
}

/// Who answered a question, and with which votes (Q1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vote {
    /// The member that answered.
    pub(crate) by: u32,
    /// Its epoch when it answered: where its votes count (Q2).
    pub(crate) epoch: Epoch,
    pub(crate) ask: Ask,
    /// The slots it votes for.
    pub(crate) slots: SlotSet,
}

/// A request that has not been answered.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) from: Addr,
    pub(crate) ask: Ask,
    pub(crate) op: Op,
    pub(crate) deadline: Mono,
    /// Another coordinator passed it on: it goes no further.
    pub(crate) handed: bool,
    /// An Accept with it may be on its way somewhere: its failure is unknown, no longer nothing (C4).
    pub(crate) sent: bool,
    /// Its place in the order of arrival at this key.
    pub(crate) seq: u64,
    /// When it came.
    pub(crate) since: Mono,
}

impl Waiting {
    /// Bytes of the value that it carries.
    pub(crate) fn value_bytes(&self) -> usize {
        match &self.op {
            Op::Write(Write { change: Change::Put { value, .. }, .. }) => value.len(),
            _ => 0,
        }
    }

    /// Bytes of memory that it takes, roughly.
    pub(crate) fn cost(&self) -> usize {
        const FRAME: usize = 256;
        FRAME + self.value_bytes()
    }

    /// From now on it may take effect through an Accept that is out there, whatever a later try says: so its
    /// failure is unknown (C4), and a comparison that fails in a later try is final only once it is remembered.
    pub(crate) fn mark_sent(&mut self) {
        self.sent = true;
        if let Op::Write(write) = &mut self.op {
            write.again = true;
        }
    }
}

/// A question put to several machines: whom it went to, who has answered, when to ask again.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) ask: Ask,
    heard: Vec<u32>,
    /// When it was first put.
    pub(crate) begun: Mono,
    pub(crate) resend_at: Mono,
    gap: u64,
    /// Slots of those who refused.
    pub(crate) refused: SlotSet,
}

/// How long, in nanoseconds, a value of so many bytes may take to a machine that lives: 5 MB a second, since
/// eight others are sent the same, and all write it to their disks.
pub(crate) fn travel(bytes: usize) -> u64 {
    // A peer may claim any length.
    (bytes as u64).saturating_mul(200)
}

/// A question is put again at the latest when one of so many parts of the time for it is over.
pub(crate) const IN_TIME: u64 = 4;
/// Longest pause between two repetitions of a question, if what it carries needs no longer.
const MAX_GAP: u64 = 1_000_000_000;

impl Round {
    /// A question whose way there and back takes so many bytes of values to or from each machine. What is still
    /// on its way, or waits for its turn there, is not sent again: that would only delay it. But it is in time for whoever gives
    /// up first.
    pub(crate) fn new(turn: &mut Turn<'_>, bytes: usize, deadline: Option<Mono>) -> Self {
        let left = deadline.map_or(u64::MAX, |deadline| deadline.0.saturating_sub(turn.now.mono.0));
        let gap = turn.local.patience(left / IN_TIME).saturating_add(travel(bytes));
        let resend_at = turn.now.mono.plus(gap);
        let (ask, begun) = (turn.local.ask(turn.key), turn.now.mono);
        Self { ask, heard: Vec::new(), begun, resend_at, gap, refused: SlotSet::EMPTY }
    }

    /// Q2: an answer of an older epoch than ours counts among its own, and is asked for again.
    pub(crate) fn hear(&mut self, turn: &Turn<'_>, vote: Vote) {
        if vote.epoch >= turn.local.epoch() {
            self.note(vote.by);
        }
    }

    /// This member need not be asked.
    pub(crate) fn note(&mut self, member: u32) {
        if !self.heard.contains(&member) {
            self.heard.push(member);
        }
    }

    /// This member says no.
    pub(crate) fn refuse(&mut self, turn: &Turn<'_>, member: u32) {
        self.note(member);
        self.refused = self.refused.union(turn.owners.slots_of(member));
    }

    pub(crate) fn has_heard(&self, member: u32) -> bool {
        self.heard.contains(&member)
    }

    pub(crate) fn heard_all(&self, owners: &Owners) -> bool {
        owners.machines().all(|m| self.heard.contains(&m))
    }

    /// True if it is not worth waiting for more: all have answered, or five slots' owners and everybody who is well.
    pub(crate) fn heard_enough(&self, turn: &Turn<'_>) -> bool {
        let heard = |m: &u32| self.heard.contains(m);
        turn.owners.machines().all(|m| heard(&m) || !turn.local.is_well(m))
            && (self.heard_all(turn.owners) || turn.is_quorum(heard))
    }

    /// True if some refused and the others have not made five by the time they are asked again. They may never:
    /// the dead answer nothing, and who refused this ballot does so for ever. A higher one may have five.
    pub(crate) fn is_stuck(&self, now: Now) -> bool {
        self.resend_at <= now.mono && !self.refused.is_empty()
    }

    /// True if it is time to ask again those who have not answered; the next pause is twice as long.
    pub(crate) fn is_due(&mut self, now: Now) -> bool {
        let due = self.resend_at <= now.mono;
        if due {
            self.gap = self.gap.saturating_mul(2).min(MAX_GAP).max(self.gap);
            self.resend_at = now.mono.plus(self.gap);
        }
        due
    }
}

impl Turn<'_> {
    pub(crate) fn wall(&self) -> Hlc {
        Hlc::from_nanos(self.now.wall)
    }

    /// True if the owners believed alive make a quorum.
    pub(crate) fn has_quorum_alive(&self) -> bool {
        self.is_quorum(|m| self.local.is_alive(*m))
    }

    /// The owners without room for the value of this request, where those with room do not own a quorum of the slots:
    /// its Accept would be of unknown outcome (C4).
    pub(crate) fn full_for(&self, op: &Op) -> Option<Vec<Name>> {
        let local = &self.local;
        let carries = matches!(op, Op::Write(write) if !matches!(write.change, Change::Delete));
        if !carries || (local.full.is_empty() && !local.is_full) || self.is_quorum(|m| local.has_room(*m)) {
            return None;
        }
        let full = self.owners.machines().filter(|m| !local.has_room(*m));
        Some(full.map(|m| local.present().machine(m).name).collect())
    }

    /// True if these owners own a quorum of the slots.
    fn is_quorum(&self, of: impl Fn(&u32) -> bool) -> bool {
        let mut tally = self.local.tally();
        for member in self.owners.machines().filter(of) {
            tally.add(self.local.epoch(), self.owners.slots_of(member));
        }
        tally.reached(self.owners.slots())
    }

    /// Nanoseconds since then.
    pub(crate) fn since(&self, then: Mono) -> u64 {
        self.now.mono.0.saturating_sub(then.0)
    }

    /// This request waits no more: something is asked of the owners for it.
    pub(crate) fn note_queued(&mut self, waiting: &Waiting) {
        let nanos = self.since(waiting.since);
        self.local.counts.queue.note(nanos);
    }

    /// Who should coordinate in this machine's place: nobody while it is well, or where no other owner is.
    pub(crate) fn heir(&self) -> Option<u32> {
        let me = self.local.present().me;
        let mut owners = self.owners.machines().filter(|m| Some(*m) != me);
        if self.local.is_unwell { owners.find(|m| self.local.is_well(*m)) } else { None }
    }

    /// Asks every owner that the round has not heard.
    pub(crate) fn ask_owners(&mut self, round: &Round, message: &Message, after: Option<Ticket>) {
        let owners = *self.owners;
        self.local.counts.asked_again += u64::from(round.begun != self.now.mono);
        for member in owners.machines() {
            if !round.has_heard(member) {
                self.local.answers.asked(self.now.mono, member, message, self.held);
                self.local.send_to(member, message.clone(), after, self.effects);
            }
        }
    }

    /// The one way out for a request.
    ///
    /// C4: of a write that was sent once, nobody may say any more that it changed nothing; not even another
    /// coordinator, who knows only of his own try.
    pub(crate) fn answer(&mut self, waiting: &Waiting, outcome: Outcome) {
        if matches!(outcome, Outcome::Overloaded { .. }) {
            self.local.turned_away += 1;
        }
        let sent = waiting.sent && !self.local.rules.broken(Mutant::C4Denied);
        let denied = !matches!(
            outcome,
            Outcome::Done { .. }
                | Outcome::Value(_)
                | Outcome::Mismatch { .. }
                | Outcome::Absent
                | Outcome::Unknown { .. }
        );
        met_if(sent && denied && matches!(waiting.op, Op::Write(_)), Rare::C4NotDenied);
        let outcome = match (outcome, &waiting.op) {
            (Outcome::NoQuorum { votes, needed, silent }, Op::Write(_)) if sent => {
                Outcome::Unknown { votes, needed, silent }
            }
            (
                Outcome::TooLate { .. }
                | Outcome::Refused(_)
                | Outcome::Overloaded { .. }
                | Outcome::NoRoom { .. }
                | Outcome::NotHere,
                Op::Write(_),
            ) if sent => Outcome::Unknown { votes: 0, needed: self.local.needed(), silent: Vec::new() },
            (outcome, _) => outcome,
        };
        self.local.waiting_bytes = self.local.waiting_bytes.saturating_sub(waiting.cost());
        self.local.counts.answered(&waiting.op, &outcome, self.since(waiting.since));
        self.local.send(waiting.from, Message::Outcome { ask: waiting.ask, outcome }, None, self.effects);
    }

    /// The owners that a round has not heard, for the error message; all of them where there is no round.
    pub(crate) fn silent(&self, round: Option<&Round>) -> Vec<Name> {
        let present = self.local.present();
        let unheard = self.owners.machines().filter(|m| round.is_none_or(|r| !r.has_heard(*m)));
        unheard.map(|m| present.machine(m).name).collect()
    }

    /// The deadline passed: says what is true of the key (C4).
    pub(crate) fn give_up(&mut self, waiting: &Waiting, votes: u8, round: Option<&Round>) {
        let (needed, silent) = (self.local.needed(), self.silent(round));
        let outcome = match (&waiting.op, waiting.sent) {
            (Op::Write(_), true) => Outcome::Unknown { votes, needed, silent },
            _ => Outcome::NoQuorum { votes, needed, silent },
        };
        self.answer(waiting, outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::travel;

    #[test]
    fn a_length_that_a_peer_made_up_overflows_nothing() {
        assert_eq!(travel(1_000_000), 200_000_000);
        assert_eq!(travel(usize::MAX), u64::MAX);
    }
}
