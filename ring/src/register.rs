//! A key's state, and how requests change it: conditions, versions, exactly-once, expiry, counting.

use alloc::sync::Arc;

use crate::message::{Bound, Change, Condition, Found, Op, Outcome, Write};
use crate::mutant::{Mutant, Rules};
use crate::number;
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

/// When what is stored now expires; the ttl is in milliseconds.
fn expiry(ttl: Option<u64>, wall: Hlc) -> Option<Hlc> {
    ttl.map(|ms| wall.plus(ms.saturating_mul(1_000_000)))
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
                Came::Version(_) | Came::Counted { .. } => Rare::I2Recognised,
                Came::Mismatch(_) | Came::Absent | Came::Uncountable { .. } => Rare::I3FailureRemembered,
            });
            return self.remembered(applied.came);
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
                self.change(Some(value.clone()), expiry(*ttl, wall));
            }
            Change::Delete | Change::Touch { .. } if version.is_none() => {
                self.remember_failure(write, Came::Absent, wall);
                return Outcome::Absent;
            }
            Change::Delete => self.change(None, None),
            Change::Touch { ttl } => self.touch(*ttl, wall),
            Change::Incr { by } => return self.count(write, *by, wall),
        }
        self.remember(write.id, Came::Version(self.state.version), wall);
        Outcome::Done { version: self.state.version, votes: 0 }
    }

    /// I2: what came of it when it was applied.
    fn remembered(&self, came: Came) -> Outcome {
        match came {
            Came::Version(version) => Outcome::Done { version, votes: 0 },
            Came::Mismatch(version) => Outcome::Mismatch { version },
            Came::Absent => Outcome::Absent,
            Came::Counted { version, mut value } => {
                if self.rules.broken(Mutant::I6Now) {
                    value = number::of(self.state.value.as_deref()).unwrap_or(value);
                }
                Outcome::Counted { version, value, votes: 0 }
            }
            Came::Uncountable { version, why } => Outcome::Uncountable { version, why },
        }
    }

    /// I5: who holds a lease goes on under the version that it was given.
    fn touch(&mut self, ttl: Option<u64>, wall: Hlc) {
        self.state.expires = expiry(ttl, wall);
        if self.rules.broken(Mutant::I5Version) {
            self.state.version = self.state.version.saturating_add(1);
        }
        self.changed = true;
    }

    /// I6: the list keeps the number that this gave, so that a retry hears the same.
    fn count(&mut self, write: &Write, by: i64, wall: Hlc) -> Outcome {
        match number::add(self.state.value.as_deref(), by) {
            Ok(value) => {
                self.change(Some(number::text(value)), self.state.expires);
                let version = self.state.version;
                self.remember(write.id, Came::Counted { version, value }, wall);
                Outcome::Counted { version, value, votes: 0 }
            }
            Err(why) => {
                let version = self.state.version;
                self.remember_failure(write, Came::Uncountable { version, why }, wall);
                Outcome::Uncountable { version, why }
            }
        }
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
    use alloc::collections::BTreeMap;
    use alloc::string::ToString;

    use proptest::prelude::*;

    use super::*;
    use crate::stamp::Uncountable;

    fn write(id: u64, change: Change) -> Write {
        let id = RequestId { time: Hlc::from_nanos(id), random: id };
        Write { id, again: false, condition: Condition::Any, change }
    }

    /// The next state, and what came of the request.
    fn apply(state: &mut Arc<State>, write: Write, wall: u64) -> Outcome {
        let mut draft = Draft::of(state, Rules::default());
        let outcome = draft.apply(&Op::Write(write), Hlc::from_nanos(wall));
        *state = draft.done().0;
        outcome
    }

    fn holding(value: &[u8], version: u64) -> Arc<State> {
        Arc::new(State { version, value: Some(value.into()), ..State::default() })
    }

    #[test]
    fn a_version_that_a_peer_made_up_overflows_nothing() {
        let mut last = holding(&[1], u64::MAX);
        let told = apply(&mut last, write(1, Change::Delete), 0);
        assert_eq!(told, Outcome::Done { version: u64::MAX, votes: 0 });
    }

    #[test]
    fn i5_a_touch_changes_the_expiry_alone() {
        let mut state = holding(b"lease", 4);
        let told = apply(&mut state, write(1, Change::Touch { ttl: Some(7) }), 1_000_000);
        assert_eq!(told, Outcome::Done { version: 4, votes: 0 });
        assert_eq!((state.version, state.expires), (4, Some(Hlc::from_nanos(8_000_000))));
        assert_eq!(state.value.as_deref(), Some(b"lease".as_slice()));
        // A retry of it renews nothing.
        assert_eq!(apply(&mut state, write(1, Change::Touch { ttl: Some(7) }), 5_000_000), told);
        assert_eq!(state.expires, Some(Hlc::from_nanos(8_000_000)));
        apply(&mut state, write(2, Change::Touch { ttl: None }), 5_000_000);
        assert_eq!((state.version, state.expires), (4, None));
    }

    #[test]
    fn i5_what_has_expired_cannot_be_touched() {
        let mut state = holding(b"lease", 4);
        apply(&mut state, write(1, Change::Touch { ttl: Some(7) }), 0);
        let late = Write { again: true, ..write(2, Change::Touch { ttl: Some(7) }) };
        assert_eq!(apply(&mut state, late.clone(), 7_000_000), Outcome::Absent);
        assert_eq!((state.version, state.value.as_deref()), (5, None), "found expired, so deleted (G4)");
        assert_eq!(state.recent.last().map(|a| a.came), Some(Came::Absent));
        apply(&mut state, write(3, Change::Put { value: b"new"[..].into(), ttl: None }), 7_000_000);
        assert_eq!(
            apply(&mut state, late, 7_000_000),
            Outcome::Absent,
            "it failed once, and so for ever (I3)"
        );
    }

    #[test]
    fn i6_what_cannot_be_counted_stays_and_its_failure_is_final() {
        let most = i64::MAX.to_string();
        for (value, why) in
            [(b"ten".as_slice(), Uncountable::NotANumber), (most.as_bytes(), Uncountable::TooLarge)]
        {
            let mut state = holding(value, 3);
            let again = Write { again: true, ..write(9, Change::Incr { by: 1 }) };
            let told = Outcome::Uncountable { version: 3, why };
            assert_eq!(apply(&mut state, again.clone(), 0), told);
            assert_eq!((state.version, state.value.as_deref()), (3, Some(value)));
            apply(&mut state, write(10, Change::Put { value: b"1"[..].into(), ttl: None }), 0);
            assert_eq!(apply(&mut state, again, 0), told);
            assert_eq!(state.value.as_deref(), Some(b"1".as_slice()));
        }
    }

    #[test]
    fn i6_a_counter_keeps_its_expiry() {
        let mut state = Arc::new(State::default());
        apply(&mut state, write(1, Change::Put { value: b"5"[..].into(), ttl: Some(7) }), 0);
        let told = apply(&mut state, write(2, Change::Incr { by: -2 }), 6_000_000);
        assert_eq!(told, Outcome::Counted { version: 2, value: 3, votes: 0 });
        assert_eq!(state.expires, Some(Hlc::from_nanos(7_000_000)));
        let told = apply(&mut state, write(3, Change::Incr { by: -2 }), 7_000_000);
        assert_eq!(told, Outcome::Counted { version: 4, value: -2, votes: 0 }, "it begins anew (G4)");
        assert_eq!(state.expires, None);
    }

    proptest! {
        /// However requests are repeated, each is counted once, and hears the same whenever it asks.
        #[test]
        fn i6_each_request_is_counted_once(calls in prop::collection::vec((1u64..15, -9i64..9), 0..60)) {
            let (mut state, mut told, mut sum) = (Arc::new(State::default()), BTreeMap::new(), 0);
            for (id, by) in calls {
                let outcome = apply(&mut state, write(id, Change::Incr { by }), 0);
                let first = told.entry(id).or_insert_with(|| {
                    sum += by;
                    outcome.clone()
                });
                prop_assert_eq!(&outcome, &*first);
                prop_assert!(outcome.is_applied());
                prop_assert_eq!(number::of(state.value.as_deref()), Some(sum));
            }
            prop_assert_eq!(state.version, told.len() as u64);
        }
    }
}
