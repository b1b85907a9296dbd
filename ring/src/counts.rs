//! What a machine counts of its work, for whoever looks at it from outside: no rule reads any of it.

use crate::message::{Change, Op, Outcome};
use crate::quorum::MAX_SLOTS;

/// Buckets by powers of two, of microseconds: bucket i counts what took at least 2^i and less than 2^(i+1); the first
/// also what took less, the last also what took more.
pub type Histogram = [u64; 32];

/// How long something took, each time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Timings {
    /// How often it took how long.
    pub buckets: Histogram,
    /// All of it together, in nanoseconds.
    pub nanos: u64,
}

impl Timings {
    /// It took so many nanoseconds once more.
    pub fn note(&mut self, nanos: u64) {
        let micros = (nanos / 1_000).max(1);
        self.buckets[(micros.ilog2() as usize).min(self.buckets.len() - 1)] += 1;
        self.nanos = self.nanos.saturating_add(nanos);
    }
}

/// The kinds of requests, in the order in which [`Counts`] keeps them; writes by what they do to the key, first.
pub const KINDS: [&str; 6] = ["put", "delete", "touch", "incr", "read", "settle"];
/// How many of them are writes; reads are the next.
pub const WRITES: usize = 4;
/// What came of requests, in the order in which [`Counts`] keeps them.
pub const OUTCOMES: [&str; 10] = [
    "done",
    "mismatch",
    "absent",
    "too_late",
    "no_quorum",
    "unknown",
    "overloaded",
    "refused",
    "not_here",
    "no_room",
];

/// Counts since the node began, but for `waiting`, which is of now.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Requests answered, by kind and outcome.
    pub answered: [[u64; OUTCOMES.len()]; KINDS.len()],
    /// How long they took, by kind: from when the node was handed them to their answer.
    pub took: [Timings; KINDS.len()],
    /// Requests that are not answered yet.
    pub waiting: u64,
    /// Writes that came under an id for the second time or more: a client's retries.
    pub retries: u64,
    /// Requests passed on to another coordinator.
    pub handed: u64,
    /// Copies told to readers.
    pub copies: u64,
    /// From when the node was handed a request until something is asked of the owners for it.
    pub queue: Timings,
    /// From a Prepare until five have promised: the network, and no disk (C1).
    pub promise: Timings,
    /// From an Accept until five hold it: the network, and the disks of five (C2).
    pub hold: Timings,
    /// From a Read to all owners until five votes settle it (D2), a lead's confirmation included.
    pub read: Timings,
    /// Votes there were when a question was decided, by their number: five, or more where one machine has several.
    pub votes: [u64; MAX_SLOTS + 1],
    /// Questions asked again, because too few had answered in time.
    pub asked_again: u64,
    /// Ballots given up for a higher one.
    pub beaten: u64,
    /// Reads that helped the highest record to five votes (D3).
    pub helped: u64,
    /// Tombstones written.
    pub tombstones: u64,
    /// Answers with votes for slots that are not their machine's: counted without those.
    pub false_votes: u64,
}

impl Counts {
    /// A request was answered so, so many nanoseconds after it came.
    pub(crate) fn answered(&mut self, op: &Op, outcome: &Outcome, nanos: u64) {
        let kind = kind(op);
        self.waiting = self.waiting.saturating_sub(1);
        self.answered[kind][number(outcome)] += 1;
        self.took[kind].note(nanos);
    }

    /// How long writes took, of all kinds together.
    pub fn writes_took(&self) -> Histogram {
        core::array::from_fn(|i| self.took[..WRITES].iter().map(|took| took.buckets[i]).sum())
    }

    /// A question was decided by so many votes.
    pub(crate) fn decided(&mut self, votes: u8) {
        self.votes[usize::from(votes).min(MAX_SLOTS)] += 1;
    }
}

/// Its place in [`KINDS`].
pub fn kind(op: &Op) -> usize {
    match op {
        Op::Write(write) => match write.change {
            Change::Put { .. } => 0,
            Change::Delete => 1,
            Change::Touch { .. } => 2,
            Change::Incr { .. } => 3,
        },
        Op::Read => WRITES,
        Op::Settle => WRITES + 1,
    }
}

/// Its place in [`OUTCOMES`].
fn number(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Done { .. } | Outcome::Counted { .. } | Outcome::Value(_) => 0,
        Outcome::Mismatch { .. } => 1,
        Outcome::Absent => 2,
        Outcome::TooLate { .. } => 3,
        Outcome::NoQuorum { .. } => 4,
        Outcome::Unknown { .. } => 5,
        Outcome::Overloaded { .. } => 6,
        Outcome::Refused(_) | Outcome::Uncountable { .. } => 7,
        Outcome::NotHere => 8,
        Outcome::NoRoom { .. } => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Condition, Write};
    use crate::stamp::{Hlc, RequestId};

    #[test]
    fn every_duration_has_a_bucket() {
        let mut timings = Timings::default();
        for nanos in [0, 999, 1_999, 2_000, 3_999_999, u64::MAX] {
            timings.note(nanos);
        }
        let buckets = timings.buckets;
        assert_eq!((buckets[0], buckets[1], buckets[11], buckets[31]), (3, 1, 1, 1));
    }

    #[test]
    fn an_answer_is_counted_by_kind_and_outcome() {
        let mut counts = Counts { waiting: 1, ..Counts::default() };
        counts.answered(&Op::Read, &Outcome::NotHere, 5_000);
        assert_eq!(counts.answered[WRITES][8], 1);
        assert_eq!((OUTCOMES[8], KINDS[WRITES], counts.waiting), ("not_here", "read", 0));
        assert_eq!(counts.took[WRITES].buckets[2], 1);
        assert_eq!((KINDS[kind(&Op::Settle)], counts.writes_took()), ("settle", [0; 32]));
    }

    #[test]
    fn writes_are_counted_by_what_they_do_to_the_key() {
        let put = Change::Put { value: (*b"x").into(), ttl: None };
        let changes = [put, Change::Delete, Change::Touch { ttl: None }, Change::Incr { by: 1 }];
        let mut counts = Counts::default();
        for (at, change) in changes.into_iter().enumerate() {
            let id = RequestId { time: Hlc::ZERO, random: 1 };
            let op = Op::Write(Write { id, again: false, condition: Condition::Any, change });
            assert_eq!((kind(&op), KINDS[at]), (at, ["put", "delete", "touch", "incr"][at]));
            counts.answered(&op, &Outcome::Absent, 5_000);
        }
        assert_eq!(counts.writes_took()[2], WRITES as u64);
    }
}
