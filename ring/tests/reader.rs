//! One read: what settles it, what does not, and that it can always tell what it settled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ennead_ring::message::Copied;
use ennead_ring::{Ballot, Epoch, Hlc, Incarnation, Name, Reader, Record, SlotSet, Stamp, State, quorum_of};
use proptest::prelude::*;

fn machine(n: u8) -> Name {
    format!("10.0.0.{n}").parse().expect("a name")
}

fn stamp(n: u32) -> Stamp {
    Stamp { ballot: Ballot { time: Hlc::from_nanos(7), by: Incarnation::new(1) }, n }
}

/// What a machine tells that holds state n; 0 is nothing.
fn holds(n: u32) -> Copied {
    if n == 0 {
        return Copied::None;
    }
    let state = State { version: u64::from(n), value: Some(Arc::from([n as u8])), ..State::default() };
    Copied::Whole(Record { stamp: stamp(n), state: Arc::new(state), votes: SlotSet::all(9) })
}

fn slot(n: u8) -> SlotSet {
    SlotSet::from_iter([n])
}

#[test]
fn five_equal_answers_settle_a_read() {
    let mut reader = Reader::new(9);
    for n in 1..=5 {
        assert_eq!(reader.settled(), None);
        reader.hear(machine(n), Epoch::FIRST, slot(n), holds(3));
    }
    assert_eq!(reader.settled(), Some(Some(stamp(3))));
}

#[test]
fn five_that_hold_nothing_settle_a_read() {
    let mut reader = Reader::new(9);
    for n in 1..=5 {
        reader.hear(machine(n), Epoch::FIRST, slot(n), Copied::None);
    }
    assert_eq!(reader.settled(), Some(None));
}

#[test]
fn a_stamp_found_on_only_four_slots_settles_nothing() {
    let mut reader = Reader::new(9);
    for n in 1..=9 {
        reader.hear(machine(n), Epoch::FIRST, slot(n), holds(if n <= 4 { 2 } else { 0 }));
    }
    // Five hold nothing, though; without one of them nobody has five.
    assert_eq!(reader.settled(), Some(None));
    let mut reader = Reader::new(9);
    for n in 1..=8 {
        reader.hear(machine(n), Epoch::FIRST, slot(n), holds(if n <= 4 { 2 } else { 0 }));
    }
    assert_eq!((reader.settled(), reader.highest()), (None, Some(stamp(2))));
}

#[test]
fn hearsay_is_heard_and_not_counted() {
    let mut reader = Reader::new(9);
    for n in 1..=9 {
        reader.hear(machine(n), Epoch::FIRST, if n <= 4 { slot(n) } else { SlotSet::EMPTY }, holds(2));
    }
    assert_eq!((reader.settled(), reader.highest()), (None, Some(stamp(2))));
}

/// Found by the simulator (seed 1069630): the copy was replaced, and the read answered that there was no value.
#[test]
fn a_settled_stamp_has_a_copy_whatever_its_machines_told_since() {
    let mut reader = Reader::new(3);
    reader.hear(machine(1), Epoch::FIRST, slot(1), holds(6));
    reader.hear(machine(1), Epoch::FIRST, slot(1), holds(5));
    reader.hear(machine(2), Epoch::FIRST, slot(2), holds(6));
    reader.hear(machine(2), Epoch::FIRST, slot(2), holds(7));
    assert_eq!(reader.settled(), Some(Some(stamp(6))));
    assert_eq!(reader.copy_of(Some(stamp(6))), Some(&holds(6)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_read_settles_what_the_obvious_count_settles(
        slots in prop::sample::select(vec![3u8, 5, 9]),
        answers in proptest::collection::vec((1u8..=9, 1u32..3, 0u32..4), 0..24),
    ) {
        let mut reader = Reader::new(slots);
        let mut votes: BTreeMap<(u32, u32), BTreeSet<u8>> = BTreeMap::new();
        for (n, epoch, state) in answers {
            if n > slots {
                continue;
            }
            reader.hear(machine(n), Epoch { number: epoch, ..Epoch::FIRST }, slot(n), holds(state));
            votes.entry((epoch, state)).or_default().insert(n);
        }
        let needed = usize::from(quorum_of(slots));
        let settled: BTreeSet<u32> = votes.iter().filter(|(_, v)| v.len() >= needed).map(|((_, s), _)| *s).collect();
        match reader.settled() {
            None => prop_assert!(settled.is_empty()),
            Some(found) => {
                prop_assert!(settled.contains(&found.map_or(0, |s| s.n)));
                prop_assert_eq!(reader.copy_of(found), Some(&holds(found.map_or(0, |s| s.n))));
            }
        }
    }
}
