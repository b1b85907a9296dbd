//! One machine's memory of one key: what it promised and what it accepted.

use alloc::sync::Arc;

use crate::effect::{Limits, Loaded, Ticket};
use crate::merge::Take;
use crate::message::{Answer, Copied};
use crate::mutant::{Mutant, Rules};
use crate::quorum::SlotSet;
use crate::rare::{Rare, met, met_if};
use crate::stamp::{Ballot, Record, Stamp, State};
use crate::view::Incarnation;

/// The acceptor of all the slots of a key that this machine owns: one record and one promise serve them all.
#[derive(Debug)]
pub(crate) struct Acceptor {
    /// In memory only. Invariant: not above the ceiling on disk, so forgetting it in a crash is safe (A4).
    promised: Ballot,
    record: Option<Record>,
    /// The record's own ticket, while it may not be durable yet: nothing that rests on it is told before.
    ticket: Option<Ticket>,
    /// R3: the record on disk is unreadable.
    mute: bool,
    rules: Rules,
}

/// What an acceptor says to an Accept.
pub(crate) enum Accepted {
    /// It holds it now: make this durable, then answer.
    Now(Record),
    /// An answer that needs no write.
    Answer(Answer, SlotSet),
}

impl Acceptor {
    /// From what is on disk: promised is the record's ballot (A4).
    pub(crate) fn new(found: Loaded, rules: Rules) -> Self {
        let (record, mute) = match found {
            Loaded::Nothing => (None, false),
            Loaded::Record(record) => (Some(record), false),
            Loaded::Unreadable => (None, true),
        };
        let promised = record.as_ref().map_or(Ballot::ZERO, |r| r.stamp.ballot);
        Self { promised, record, ticket: None, mute, rules }
    }

    /// As it is after some promise and some record.
    #[cfg(test)]
    pub(crate) fn remembering(promised: Ballot, record: Option<Record>, rules: Rules) -> Self {
        Self { promised, record, ticket: None, mute: false, rules }
    }

    /// Promises to accept nothing below `ballot`, and tells what was accepted last.
    ///
    /// Refuses at or below the floor, below the present promise, and at or below the record's ballot, naming
    /// the ballot to beat. No write is due: the caller has drawn the ceiling at or above `ballot`.
    /// Source: PROTOCOL A1; G3 for an absent key.
    pub(crate) fn prepare(&mut self, ballot: Ballot, voting: SlotSet, limits: &Limits) -> (Answer, SlotSet) {
        if self.mute {
            met(Rare::R3MutePrepare);
            return (Answer::Mute, SlotSet::EMPTY);
        }
        let low = ballot < self.promised && !self.rules.broken(Mutant::A1LowPromise);
        let recorded = self.record.as_ref().is_some_and(|r| ballot <= r.stamp.ballot);
        let floor = ballot.time <= limits.floor;
        if floor || low || recorded || self.below_bound(ballot, limits) {
            met_if(floor, Rare::A1BelowFloor);
            met_if(low, Rare::A1BelowPromise);
            met_if(recorded, Rare::A1BelowRecord);
            met_if(!(floor || low || recorded), Rare::G3PrepareBelowBound);
            return (self.refusal(limits), SlotSet::EMPTY);
        }
        met_if(ballot == self.promised, Rare::A1Again);
        self.promised = ballot;
        let answer = Answer::Promised { ballot, record: self.record.clone(), bound: limits.bound };
        (answer, voting)
    }

    /// Holds this state, unless a higher ballot was promised.
    ///
    /// A state of the same ballot at or above it is already held: that is said again, with the votes of the
    /// record. Source: PROTOCOL A2; R3 for a mute machine, which is whole again after this.
    pub(crate) fn accept(
        &mut self,
        stamp: Stamp,
        state: &Arc<State>,
        voting: SlotSet,
        limits: &Limits,
    ) -> Accepted {
        if self.holds(stamp)
            && let Some(held) = &self.record
        {
            let votes = held.votes.intersection(voting);
            met(if held.stamp.n > stamp.n { Rare::A2HeldLater } else { Rare::A2HeldAgain });
            met_if(votes.is_empty(), Rare::A2HeldAsHearsay);
            return Accepted::Answer(Answer::Held { stamp: held.stamp }, votes);
        }
        let low = stamp.ballot < self.promised && !self.rules.broken(Mutant::A2LowAccept);
        let recorded =
            self.record.as_ref().is_some_and(|r| stamp <= r.stamp && !self.rules.broken(Mutant::A2LowAccept));
        let ballot = stamp.ballot;
        let floor = ballot.time <= limits.floor;
        if floor || low || recorded || self.below_bound(ballot, limits) {
            met_if(floor, Rare::A2BelowFloor);
            met_if(low, Rare::A2BelowPromise);
            met_if(!(floor || low || recorded), Rare::G3AcceptBelowBound);
            return Accepted::Answer(self.refusal(limits), SlotSet::EMPTY);
        }
        met_if(ballot > self.promised, Rare::A2Unpromised);
        met_if(self.mute, Rare::R3Whole);
        met_if(voting.is_empty(), Rare::A2NoVote);
        self.promised = self.promised.max(ballot);
        self.mute = false;
        let record = Record { stamp, state: state.clone(), votes: voting };
        self.record = Some(record.clone());
        Accepted::Now(record)
    }

    /// True if it holds this state, or a later one of the same ballot: to accept it costs nothing.
    pub(crate) fn holds(&self, stamp: Stamp) -> bool {
        self.record.as_ref().is_some_and(|r| r.stamp.ballot == stamp.ballot && r.stamp.n >= stamp.n)
    }

    /// Tells what is held; a value longer than `inline` bytes as its length only. Source: PROTOCOL A3, Q1.
    pub(crate) fn read(&self, inline: u32, voting: SlotSet) -> (Answer, SlotSet) {
        if self.mute {
            met(Rare::R3MuteRead);
            return (Answer::Mute, SlotSet::EMPTY);
        }
        let Some(record) = &self.record else {
            return (Answer::Copy(Copied::None), voting);
        };
        let votes = record.votes.intersection(voting);
        let bytes = record.state.value.as_ref().map_or(0, |v| v.len() as u64);
        let copied = if bytes <= u64::from(inline) {
            Copied::Whole(record.clone())
        } else {
            met(Rare::A3Summary);
            let State { version, expires, .. } = *record.state;
            Copied::Summary { stamp: record.stamp, version, bytes, expires, votes: record.votes }
        };
        (Answer::Copy(copied), votes)
    }

    /// What others told of the key, after S5 and S6: the record to be made durable, or that there is none any more.
    /// `None` if nothing changes.
    pub(crate) fn take(&mut self, take: Take) -> Option<Option<Record>> {
        if self.mute {
            return None;
        }
        let Take { stamp, state, gained, granted, void, .. } = take;
        let own = self.record.as_ref().map(|r| r.stamp);
        if let Some(record) = &mut self.record
            && Some(record.stamp) == stamp
        {
            let votes = record.votes.minus(gained).union(granted);
            if votes == record.votes {
                return None;
            }
            met(Rare::S6OwnMadeVote);
            record.votes = votes;
            return Some(Some(record.clone()));
        }
        // What it holds is kept if it is the highest; unless it does not count, and is still what did not.
        let is_void = own.is_some() && own == void;
        match (stamp, state) {
            (Some(stamp), Some(state)) if is_void || own.is_none_or(|own| own < stamp) => {
                met(if granted.is_empty() { Rare::S6TakenAsHearsay } else { Rare::S6TakenAsVote });
                met_if(is_void, Rare::S5VoidReplaced);
                let record = Record { stamp, state, votes: granted };
                self.promised = self.promised.max(stamp.ballot);
                self.record = Some(record.clone());
                Some(Some(record))
            }
            (None, _) if is_void => {
                met(Rare::S5VoidDropped);
                self.record = None;
                Some(None)
            }
            _ => {
                met(Rare::S5OwnIsNewer);
                None
            }
        }
    }

    /// The record; `None` if it cannot say (R3).
    pub(crate) fn held(&self) -> Option<Option<Record>> {
        (!self.mute).then(|| self.record.clone())
    }

    /// G2, T2: drops the record with this stamp. What was promised stays. Returns it.
    pub(crate) fn forget(&mut self, stamp: Stamp) -> Option<Record> {
        self.record.take_if(|r| r.stamp == stamp)
    }

    /// True if what it holds is a tombstone.
    pub(crate) fn holds_tombstone(&self) -> bool {
        self.record.as_ref().is_some_and(|r| r.state.value.is_none())
    }

    /// The tombstone with this stamp, if that is what it holds.
    pub(crate) fn tombstone(&self, stamp: Stamp) -> Option<&Record> {
        self.record.as_ref().filter(|r| r.stamp == stamp && r.state.value.is_none())
    }

    /// G3: an absent key may have been forgotten; a ballot from before that is refused.
    fn below_bound(&self, ballot: Ballot, limits: &Limits) -> bool {
        self.record.is_none() && ballot.time <= limits.bound.time
    }

    /// A4: the highest of promised, floor and the record's ballot; the bound where it is what refuses.
    fn refusal(&self, limits: &Limits) -> Answer {
        let record = self.record.as_ref().map_or(Ballot::ZERO, |r| r.stamp.ballot);
        let mut time = limits.floor;
        if self.record.is_none() {
            time = time.max(limits.bound.time);
        }
        let floor = Ballot { time, by: Incarnation::new(u64::MAX) };
        Answer::Refused { beat: floor.max(self.promised).max(record) }
    }

    /// Nothing that rests on the record is told before this is durable.
    pub(crate) fn ticket(&self) -> Option<Ticket> {
        self.ticket
    }

    pub(crate) fn set_ticket(&mut self, ticket: Ticket) {
        self.ticket = Some(ticket);
    }

    /// The value it holds.
    pub(crate) fn value(&self) -> Option<&Arc<[u8]>> {
        self.record.as_ref().and_then(|r| r.state.value.as_ref())
    }

    /// Bytes of the value it holds.
    pub(crate) fn value_bytes(&self) -> usize {
        self.value().map_or(0, |v| v.len())
    }

    pub(crate) fn promised(&self) -> Ballot {
        self.promised
    }

    pub(crate) fn is_mute(&self) -> bool {
        self.mute
    }

    /// True if nothing would be forgotten by loading it from disk again, once its ticket is durable.
    pub(crate) fn is_as_on_disk(&self) -> bool {
        !self.mute && self.promised <= self.record.as_ref().map_or(Ballot::ZERO, |r| r.stamp.ballot)
    }

    pub(crate) fn check(&self, limits: &Limits) {
        assert!(
            self.promised.time <= limits.ceiling,
            "promised {} above ceiling {}",
            self.promised,
            limits.ceiling
        );
        if let Some(record) = &self.record {
            assert!(
                record.stamp.ballot <= self.promised,
                "accepted {} above the promise {}",
                record.stamp,
                self.promised
            );
        }
    }
}
