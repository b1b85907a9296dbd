//! A key's state, and how requests change it: conditions, versions, exactly-once, expiry.

use alloc::sync::Arc;

use crate::message::{Bound, Change, Condition, Found, Op, Outcome, Write};
use crate::mutant::{Mutant, Rules};
use crate::rare::{Rare, met, met_if};
use crate::stamp::{Applied, Came, Hlc, RequestId, State};

/// Requests that a state always remembers (I1).
pub(crate) const REMEMBERED: usize = 16;
/// Requests that it remembers at most, while they are younger than [`YOUNG`].
pub(crate) const REMEMBERED_YOUNG: usize = 64;
/// How young, in nanoseconds.
pub(crate) const YOUNG: u64 = 60_000_000_000;

/// The state of a key that nobody has a record of. What may have been forgotten of it lies at or below the
/// bound told by a quorum of promises (I4).
pub(crate) fn absent(bound: Bound) -> State {
    State { version: bound.version, horizon: bound.time, ..State::default() }
}

/// True if the state has a value that is past its expiry by this clock (G4).
pub(crate) fn is_expired(state: &State, wall: Hlc) -> bool {
    state.value.is_some() && state.expires.is_some_and(|at| at <= wall)
}

/// A next state in the making: requests are applied to it one after the other (C3).
pub(crate) struct Draft {
    state: State,
    changed: bool,
    rules: Rules,
}

impl Draft {
    pub(crate) fn of(state: &State, rules: Rules) -> Self {
        Self { state: state.clone(), changed: false, rules }
    }

    /// The state, and whether anything was changed.
    pub(crate) fn done(self) -> (Arc<State>, bool) {
        (Arc::new(self.state), self.changed)
    }

    /// Applies one request and tells what will have come of it once this state is chosen (C2).
    pub(crate) fn apply(&mut self, op: &Op, wall: Hlc) -> Outcome {
        // G4: whoever finds a state past its expiry deletes it, here on the way to doing something else.
        if is_expired(&self.state, wall) {
            met(Rare::G4ExpiredOnTheWay);
            self.change(None, None);
        }
        match op {
            Op::Read => Outcome::Value(self.found()),
            Op::Settle => {
                // The same state under a new stamp, and be it that there is none: a machine that cannot read what it
                // holds of the key is whole again only by an Accept (R3). What is left is a tombstone like any other.
                self.changed = true;
                Outcome::Done { version: self.state.version, votes: 0 }
            }
            Op::Write(write) => self.write(write, wall),
        }
    }

    fn write(&mut self, write: &Write, wall: Hlc) -> Outcome {
        if let Some(applied) = self.state.recent.iter().find(|a| a.id == write.id)
            && !self.rules.broken(Mutant::I2NoDedup)
        {
            met(match applied.came {
                Came::Version(_) => Rare::I2Recognised,
                Came::Mismatch(_) | Came::Absent => Rare::I3FailureRemembered,
            });
            return match applied.came {
                Came::Version(version) => Outcome::Done { version, votes: 0 },
                Came::Mismatch(version) => Outcome::Mismatch { version },
                Came::Absent => Outcome::Absent,
            };
        }
        let forgotten = write.id.time <= self.state.horizon;
        if forgotten && !self.rules.broken(Mutant::I2NoHorizon) && !self.rules.broken(Mutant::I2NoDedup) {
            met(if self.state.recent.is_empty() { Rare::I4TooLateForAbsent } else { Rare::I2TooLate });
            return Outcome::TooLate { horizon: self.state.horizon };
        }
        let version = self.state.value.is_some().then_some(self.state.version);
        let holds = match write.condition {
            Condition::Any => true,
            Condition::Absent => version.is_none(),
            Condition::Version(wanted) => version == Some(wanted),
        };
        if !holds {
            self.remember_failure(write, Came::Mismatch(version), wall);
            return Outcome::Mismatch { version };
        }
        match &write.change {
            Change::Put { value, ttl } => {
                let expires = ttl.map(|ms| wall.plus(ms.saturating_mul(1_000_000)));
                self.change(Some(value.clone()), expires);
            }
            Change::Delete if version.is_none() => {
                self.remember_failure(write, Came::Absent, wall);
                return Outcome::Absent;
            }
            Change::Delete => self.change(None, None),
        }
        self.remember(write.id, Came::Version(self.state.version), wall);
        Outcome::Done { version: self.state.version, votes: 0 }
    }

    fn change(&mut self, value: Option<Arc<[u8]>>, expires: Option<Hlc>) {
        if value.is_none() && self.rules.broken(Mutant::G1NoTombstone) {
            self.state = State::default();
        } else {
            // No life has so many changes; a record that a peer made up may say so.
            self.state.version = self.state.version.saturating_add(1);
            self.state.value = value;
            self.state.expires = expires;
        }
        self.changed = true;
    }

    /// A failure is final only if no other try of the request can succeed later. One that may still be under
    /// way (it is `again`) will find this and say the same.
    fn remember_failure(&mut self, write: &Write, came: Came, wall: Hlc) {
        if write.again && !self.rules.broken(Mutant::I3Failure) {
            met(Rare::I3FailureListed);
            self.remember(write.id, came, wall);
            self.changed = true;
        }
    }

    fn remember(&mut self, id: RequestId, came: Came, wall: Hlc) {
        let recent = &mut self.state.recent;
        recent.push(Applied { id, came });
        let young = |applied: &Applied| applied.id.time.plus(YOUNG) > wall;
        let mut drop = 0;
        while recent.len() - drop > REMEMBERED
            && (recent.len() - drop > REMEMBERED_YOUNG || !young(&recent[drop]))
        {
            self.state.horizon = self.state.horizon.max(recent[drop].id.time);
            drop += 1;
        }
        met_if(drop > 0, Rare::I1Forgotten);
        met_if(recent.len() - drop > REMEMBERED, Rare::I1YoungKept);
        recent.drain(..drop);
    }

    fn found(&self) -> Option<Found> {
        let value = self.state.value.clone()?;
        Some(Found { value, version: self.state.version, expires: self.state.expires })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_a_peer_made_up_overflows_nothing() {
        let last = State { version: u64::MAX, value: Some(Arc::from([1u8].as_slice())), ..State::default() };
        let mut draft = Draft::of(&last, Rules::default());
        let id = RequestId { time: Hlc::from_nanos(1), random: 1 };
        let write = Write { id, again: false, condition: Condition::Any, change: Change::Delete };
        assert_eq!(draft.apply(&Op::Write(write), Hlc::ZERO), Outcome::Done { version: u64::MAX, votes: 0 });
    }
}
