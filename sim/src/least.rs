//! The least that could have moved: each record once to every machine that came to own it, did not have it any more or
//! had an older one, and has it now.
//!
//! What a machine took in of a move that another view overtook, what it had copied ahead before a client wrote the key
//! anew, and every digest is left out: that is cost, and what a run moved is held against this.

use std::collections::HashMap;

use ennead_ring::{Machine, Stamp};

/// A key, by its number, at a machine.
pub(crate) type At = (usize, Machine);

/// A machine that comes to own a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gain {
    pub(crate) at: At,
    /// The key's newest record then.
    pub(crate) newest: Stamp,
    pub(crate) bytes: u64,
}

/// See the module's caption.
#[derive(Default, Debug)]
pub(crate) struct Least {
    bytes: u64,
    /// What has not come yet.
    owed: HashMap<At, u64>,
    /// What its former owner had when it ceased to be one, for as long as it keeps it.
    kept: HashMap<At, Stamp>,
}

impl Least {
    /// Looks at the disks, which is due before every view: one may be told of what the next ring would take in.
    pub(crate) fn look(&mut self, held: impl Fn(At) -> Option<Stamp>) {
        self.kept.retain(|at, stamp| held(*at) >= Some(*stamp));
        let bytes = &mut self.bytes;
        self.owed.retain(|at, owed| {
            let came = held(*at).is_some();
            *bytes += if came { *owed } else { 0 };
            !came
        });
    }

    /// Another ring: who came to own what, and who ceased to.
    pub(crate) fn change(
        &mut self,
        gained: impl Iterator<Item = Gain>,
        ceased: impl Iterator<Item = At>,
        held: impl Fn(At) -> Option<Stamp>,
    ) {
        for Gain { at, newest, bytes } in gained {
            if self.kept.remove(&at).is_none_or(|kept| kept < newest) {
                self.owed.insert(at, bytes);
            }
        }
        for at in ceased {
            self.owed.remove(&at);
            self.kept.extend(held(at).map(|stamp| (at, stamp)));
        }
    }

    /// Bytes, as [`told_bytes`](ennead_ring::told_bytes) counts them.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::iter::{empty, once};

    use ennead_ring::{Ballot, Hlc, Incarnation, Name};

    use super::*;

    fn machine(number: u8) -> Machine {
        let name = Name::new(([127, 0, 0, number], 9595).into());
        Machine { name, incarnation: Incarnation::new(number.into()) }
    }

    fn stamp(nanos: u64) -> Stamp {
        Stamp { ballot: Ballot { time: Hlc::from_nanos(nanos), ..Ballot::ZERO }, n: 1 }
    }

    fn gain(at: At, newest: u64) -> Gain {
        Gain { at, newest: stamp(newest), bytes: 100 }
    }

    #[test]
    fn what_came_is_counted_once_and_what_never_came_is_not() {
        let (one, other) = ((1, machine(1)), (1, machine(2)));
        let mut least = Least::default();
        least.change([gain(one, 5), gain(other, 5)].into_iter(), empty(), |_| None);
        least.look(|_| None);
        assert_eq!(least.bytes(), 0);
        let has_one = |at| (at == one).then(|| stamp(5));
        least.look(has_one);
        least.look(has_one);
        assert_eq!(least.bytes(), 100);
        // The other ceases to own the key, and nothing came in between.
        least.change(empty(), once(other), has_one);
        least.look(|_| Some(stamp(5)));
        assert_eq!(least.bytes(), 100);
    }

    #[test]
    fn who_kept_the_newest_needs_nothing_and_who_kept_an_older_one_or_dropped_it_does() {
        let at = (1, machine(1));
        let bytes = |kept: Option<u64>, newest| {
            let mut least = Least::default();
            least.change(empty(), once(at), |_| Some(stamp(5)));
            let now = move |_| kept.map(stamp);
            least.look(now);
            // Copied ahead since: it was not there when the move was told of.
            let copied = |_| Some(stamp(newest));
            least.change(once(gain(at, newest)), empty(), copied);
            least.look(copied);
            least.bytes()
        };
        assert_eq!(bytes(Some(5), 5), 0);
        assert_eq!(bytes(Some(5), 6), 100, "written anew since");
        assert_eq!(bytes(None, 5), 100, "dropped since (T2)");
    }

    #[test]
    fn to_have_been_away_once_is_no_reason_to_need_nothing_ever_again() {
        let (former, later) = ((1, machine(1)), (2, machine(1)));
        let mut least = Least::default();
        least.change(empty(), once(former), |_| Some(stamp(5)));
        let all = |_| Some(stamp(5));
        least.look(all);
        least.change([gain(former, 5), gain(later, 5)].into_iter(), empty(), all);
        least.look(all);
        assert_eq!(least.bytes(), 100);
    }
}
