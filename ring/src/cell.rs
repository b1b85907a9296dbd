//! One key on this machine: its acceptor, and whatever the machine does for clients there.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::acceptor::{Accepted, Acceptor};
use crate::coordinator::Coordinator;
use crate::effect::{Change, Mono, Now};
use crate::key::Key;
use crate::local::Local;
use crate::merge::Take;
use crate::message::{self, Addr, Answer, Bound, Message, Op, Outcome, Write};
use crate::mutant::Mutant;
use crate::placement::Owners;
use crate::quorum::SlotSet;
use crate::rare::{Rare, met, met_if};
use crate::reading::Readings;
use crate::stamp::{Hlc, Record, Stamp, State};
use crate::turn::{Turn, Vote, Waiting};

/// Longest that a request may wait, whatever its sender says: 10 minutes.
const LONGEST: u64 = 600_000_000_000;

/// Nothing is collected that was written so far ahead of this machine's clock: a day, as in section 12.
const FAR_AHEAD: u64 = 24 * 3_600 * 1_000_000_000;
/// See the module's caption.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) owners: Owners,
    pub(crate) acceptor: Acceptor,
    pub(crate) coordinator: Coordinator,
    pub(crate) readings: Readings,
    pub(crate) timer: Option<Mono>,
    /// Bytes of values here, when last counted.
    pub(crate) bytes: usize,
}

impl Cell {
    pub(crate) fn on_message(&mut self, turn: &mut Turn<'_>, from: Addr, message: Message, came: Mono) {
        let was = self.acceptor.holds_tombstone();
        self.answer(turn, from, message, came);
        self.note_tombstone(turn, was);
    }

    /// What this machine holds has changed, perhaps.
    fn note_tombstone(&self, turn: &mut Turn<'_>, was: bool) {
        let is = self.acceptor.holds_tombstone();
        if was != is {
            turn.local.tombstones.changed(turn.key, was, is);
        }
    }

    fn answer(&mut self, turn: &mut Turn<'_>, from: Addr, message: Message, came: Mono) {
        let voting = turn.local.voting(turn.key, turn.owners);
        let owner = turn.local.present().me.is_some_and(|me| !turn.owners.slots_of(me).is_empty());
        match message {
            // No slot of the key is ours: who asks is behind, and hears so by the epoch of this.
            Message::Prepare { ask, .. } | Message::Accept { ask, .. } if !owner => {
                met(Rare::A1NoOwner);
                let message = Message::Answer { ask, votes: SlotSet::EMPTY, answer: Answer::Mute };
                turn.local.send(from, message, None, turn.effects);
            }
            Message::Prepare { ask, ballot, .. } => {
                let (answer, votes) = self.acceptor.prepare(ballot, voting, &turn.local.limits);
                let line = match &answer {
                    // A1: durable is the ceiling, so that the promise need not be.
                    Answer::Promised { .. } => {
                        turn.local.note_promised(ballot);
                        turn.local.cover(ballot.time, turn.effects)
                    }
                    _ => None,
                };
                met_if(line.is_some(), Rare::A1PromiseWaits);
                let line = if turn.local.rules.broken(Mutant::A1Unsynced) { None } else { line };
                let after = line.max(self.acceptor.ticket());
                turn.local.send(from, Message::Answer { ask, votes, answer }, after, turn.effects);
            }
            // Not to accept is always allowed; said at once, so that nobody waits. A tombstone takes what is kept for it.
            Message::Accept { ask, stamp, state, .. }
                if !self.acceptor.holds(stamp) && !turn.local.takes(from, stamp, &state) =>
            {
                let message = Message::Answer { ask, votes: SlotSet::EMPTY, answer: Answer::NoRoom };
                turn.local.send(from, message, None, turn.effects);
            }
            Message::Accept { ask, stamp, state, .. } => {
                let (votes, answer, line) =
                    match self.acceptor.accept(stamp, &state, voting, &turn.local.limits) {
                        Accepted::Answer(answer, votes) => (votes, answer, None),
                        Accepted::Now(record) => {
                            // The ceiling first: a record above it must never be found after a restart (A4).
                            let line = turn.local.cover(stamp.ballot.time, turn.effects);
                            turn.local.note_promised(stamp.ballot);
                            let votes = record.votes;
                            turn.local.counts.tombstones += u64::from(record.state.value.is_none());
                            let change = Change::Record { key: turn.key.clone(), record };
                            let ticket = turn.local.persist(change, turn.effects);
                            self.acceptor.set_ticket(ticket);
                            (votes, Answer::Held { stamp }, line)
                        }
                    };
                let after = line.max(self.acceptor.ticket());
                let after = if turn.local.rules.broken(Mutant::A2Unsynced) { None } else { after };
                turn.local.send(from, Message::Answer { ask, votes, answer }, after, turn.effects);
            }
            Message::Read { ask, inline, .. } => {
                let (mut answer, votes) = self.acceptor.read(inline, voting);
                turn.local.counts.copies += 1;
                if matches!(from, Addr::Client(_)) {
                    spare_requests(&mut answer);
                }
                let after = self.acceptor.ticket();
                turn.local.send(from, Message::Answer { ask, votes, answer }, after, turn.effects);
            }
            Message::Request { ask, op, within, handed, .. } => {
                let deadline = came.plus((u64::from(within) * 1_000_000).min(LONGEST));
                let waiting = Waiting { from, ask, op, deadline, handed, sent: false, seq: 0, since: came };
                self.on_request(turn, waiting);
            }
            Message::Collect { stamp, .. } => self.on_collect(turn, stamp),
            // `Node::on_message` routes nothing else here.
            _ => {}
        }
        // A vote of our own may have ended our lead.
        turn.promised = self.acceptor.promised();
    }

    /// S5, S6, M1: what others told of the key.
    pub(crate) fn on_take(&mut self, turn: &mut Turn<'_>, take: Take) {
        let was = self.acceptor.holds_tombstone();
        let Some(record) = self.acceptor.take(take) else { return };
        self.note_tombstone(turn, was);
        let change = match record {
            Some(record) => {
                // The ceiling first: a record above it must never be found after a restart (A4).
                turn.local.cover(record.stamp.ballot.time, turn.effects);
                Change::Record { key: turn.key.clone(), record }
            }
            None => Change::Forget { key: turn.key.clone() },
        };
        let ticket = turn.local.persist(change, turn.effects);
        self.acceptor.set_ticket(ticket);
        turn.promised = self.acceptor.promised();
    }

    /// T2: nobody needs the record here any more.
    pub(crate) fn on_forget(&mut self, turn: &mut Turn<'_>, stamp: Stamp) {
        // It may have come to own the key since.
        let owner = turn.local.present().me.is_some_and(|me| !turn.owners.slots_of(me).is_empty());
        let was = self.acceptor.holds_tombstone();
        if !owner && self.acceptor.forget(stamp).is_some() {
            self.note_tombstone(turn, was);
            met(Rare::T2Swept);
            let ticket = turn.local.persist(Change::Forget { key: turn.key.clone() }, turn.effects);
            self.acceptor.set_ticket(ticket);
        }
    }

    /// G2, G3: all slots voted for this tombstone: it goes, and leaves the bound.
    fn on_collect(&mut self, turn: &mut Turn<'_>, stamp: Stamp) {
        let Some(Record { state, .. }) = self.acceptor.tombstone(stamp) else {
            met(Rare::G2NotHeld);
            return;
        };
        let ids = state.recent.iter().map(|applied| applied.id.time);
        let time = ids.chain([stamp.ballot.time, state.horizon]).fold(Hlc::ZERO, Hlc::max);
        if time > Hlc::from_nanos(turn.now.wall).plus(FAR_AHEAD) {
            // A clock far off: the bound is the machine's, and would refuse new keys until that time comes.
            return;
        }
        met(Rare::G2Collected);
        let bound = Bound { time, version: state.version };
        turn.local.raise_bound(bound, turn.effects);
        self.acceptor.forget(stamp);
        let ticket = turn.local.persist(Change::Forget { key: turn.key.clone() }, turn.effects);
        self.acceptor.set_ticket(ticket);
        self.coordinator.on_collected(turn);
    }

    fn on_request(&mut self, turn: &mut Turn<'_>, waiting: Waiting) {
        turn.local.waiting_bytes += waiting.cost();
        turn.local.counts.waiting += 1;
        turn.local.counts.retries += u64::from(matches!(&waiting.op, Op::Write(write) if write.again));
        if turn.local.present().me.is_none() {
            met(Rare::V5RequestNotHere);
            turn.answer(&waiting, Outcome::NotHere);
        } else if turn.local.waiting_bytes > turn.local.tuning.waiting_bytes {
            turn.answer(&waiting, Outcome::Overloaded { retry_after: 50 });
        } else if waiting.deadline <= turn.now.mono {
            // Its time passed while the key was looked for on the disk.
            turn.give_up(&waiting, 0, None);
        } else if let Some(reason) = unacceptable(turn, &waiting) {
            turn.answer(&waiting, Outcome::Refused(reason));
        } else if matches!(waiting.op, Op::Read) && !self.coordinator.leads(turn.promised) {
            self.readings.submit(turn, waiting);
        } else {
            met_if(matches!(waiting.op, Op::Read), Rare::C2ReadThroughLead);
            self.coordinator.submit(turn, waiting);
        }
    }

    pub(crate) fn on_answer(&mut self, turn: &mut Turn<'_>, mut vote: Vote, answer: Answer) {
        // Nobody votes for slots that are not his in the view that he names, whatever he says.
        let owned = match vote.epoch == turn.local.epoch() {
            true => turn.owners.slots_of(vote.by),
            false => turn.local.owned_in(vote.epoch, turn.key, vote.by),
        };
        turn.local.counts.false_votes += u64::from(!vote.slots.is_subset(owned));
        vote.slots = vote.slots.intersection(owned);
        if self.readings.expects(vote.ask) {
            let reads = self.readings.on_answer(turn, vote, answer);
            self.settle(turn, reads);
        } else {
            self.coordinator.on_answer(turn, vote, answer);
        }
    }

    /// D4: reads that the copies did not settle.
    pub(crate) fn settle(&mut self, turn: &mut Turn<'_>, reads: Vec<Waiting>) {
        for waiting in reads {
            met(Rare::D4ReadToCoordinator);
            self.coordinator.submit(turn, waiting);
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.coordinator.is_idle() && self.readings.is_idle()
    }

    /// Bytes of the values that it would keep while idle; one that acceptor and lead share counts once.
    pub(crate) fn count_bytes(&self) -> usize {
        let (held, led) = (self.acceptor.value(), self.coordinator.value());
        let shared = matches!((held, led), (Some(held), Some(led)) if Arc::ptr_eq(held, led));
        let bytes = |value: Option<&Arc<[u8]>>| value.map_or(0, |v| v.len());
        bytes(held) + if shared { 0 } else { bytes(led) }
    }

    pub(crate) fn drop_from(
        &mut self,
        key: &Key,
        now: Now,
        local: &mut Local,
        timers: &mut BTreeSet<(Mono, Key)>,
    ) {
        if let Some(timer) = self.timer.take() {
            timers.remove(&(timer, key.clone()));
        }
        let (owners, promised, held) = (self.owners, self.acceptor.promised(), self.acceptor.value_bytes());
        let mut effects = Vec::new();
        let mut turn = Turn { local, effects: &mut effects, now, key, owners: &owners, promised, held };
        self.coordinator.retire(&mut turn);
        debug_assert!(effects.is_empty(), "an idle coordinator has nothing to say");
    }
}

/// A client has no use for the requests that a state remembers; they are often longer than its value.
fn spare_requests(answer: &mut Answer) {
    if let Answer::Copy(message::Copied::Whole(record)) = answer {
        let State { version, ref value, expires, horizon, .. } = *record.state;
        record.state =
            Arc::new(State { version, value: value.clone(), expires, recent: Vec::new(), horizon });
    }
}

/// Why a client's request is refused before anything is tried.
fn unacceptable(turn: &Turn<'_>, waiting: &Waiting) -> Option<Box<str>> {
    // Whoever may read anything may read those.
    if matches!((waiting.from, &waiting.op), (Addr::Client(_), Op::Write(_))) && turn.key.is_reserved() {
        return Some("keys that begin with a zero byte are the cluster's own".into());
    }
    match &waiting.op {
        Op::Write(Write { change: message::Change::Put { value, .. }, .. })
            if value.len() > turn.local.tuning.max_value =>
        {
            let (bytes, most) = (value.len(), turn.local.tuning.max_value);
            Some(format!("the value has {bytes} bytes; this machine takes at most {most}").into())
        }
        _ => None,
    }
}
