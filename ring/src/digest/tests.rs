//! Twins: what an asker makes of an answer, against what the teller holds.

use alloc::collections::BTreeMap;
use alloc::format;

use proptest::prelude::*;

use super::*;
use crate::stamp::{Ballot, Hlc, Stamp};
use crate::view::Incarnation;

/// Stamp, votes, unreadable.
type Copy = (u64, u16, bool);

fn key(n: u16) -> Key {
    Key::new(format!("{n:05}")).expect("a key")
}

fn entry(n: u16, (time, votes, unreadable): Copy) -> Entry {
    let ballot = Ballot { time: Hlc::from_nanos(time), by: Incarnation::new(1) };
    let votes = (1..=3).filter(|slot| votes >> (slot - 1) & 1 == 1).collect();
    let held = match unreadable {
        true => Held::Unreadable,
        false => Held::Record { stamp: Stamp { ballot, n: 1 }, votes, tombstone: time == 0, state: None },
    };
    Entry { key: key(n), held }
}

/// Up to 300 keys of a store, and how another differs from it at a few of them.
fn stores() -> impl Strategy<Value = (BTreeMap<u16, Copy>, BTreeMap<u16, Copy>)> {
    let copy = || (0..3u64, 0..8u16, prop::bool::weighted(0.02));
    let keys = prop::collection::btree_map(0..500u16, copy(), 0..300);
    let changes = prop::collection::vec((0..500u16, prop::option::of(copy())), 0..8);
    (keys, changes).prop_map(|(one, changes)| {
        let mut other = one.clone();
        for (key, change) in changes {
            match change {
                Some(copy) => other.insert(key, copy),
                None => other.remove(&key),
            };
        }
        (one, other)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 600, ..ProptestConfig::default() })]

    /// S3: whatever was claimed and wherever the page breaks off, what is unfolded is what the teller holds, with the
    /// votes that the digest covers.
    #[test]
    fn what_is_unfolded_is_what_the_teller_holds(
        (asker, teller) in stores(),
        width in 1..=WIDTH.0,
        after in prop::option::of(0..500u16),
        upto in prop::option::of(0..500u16),
        breaks in prop::option::of(0..500u16),
    ) {
        let covered = SlotSet::from_iter([1, 2]);
        let beyond = |n: &u16| after.is_none_or(|after| *n > after);
        // What votes the teller has for the third slot is nobody's business, and never told by a digest.
        let believed = asker.iter().filter(|(n, (_, _, unreadable))| {
            beyond(n) && upto.is_none_or(|upto| **n <= upto) && !unreadable
        });
        let believed = believed.map(|(n, (time, votes, _))| entry(*n, (*time, votes & 3, false)));
        let beliefs = Beliefs::new(7, width, believed, upto.map(key));
        let rules = Rules::default();
        let mut checking = Checking::new(7, beliefs.claims(false, rules), rules);
        let mut listed = Vec::new();
        let mut passed = None;
        for (n, copy) in teller.iter().filter(|(n, _)| beyond(n)) {
            if breaks.is_some_and(|at| *n > at) {
                break;
            }
            checking.come_to(&key(*n), &mut listed);
            if checking.is_over() {
                break;
            }
            passed = Some(key(*n));
            checking.add(entry(*n, *copy), covered, &mut listed);
        }
        let broken_off = breaks.is_some() && !checking.is_over();
        let end = if broken_off { passed.clone().or(after.map(key)) } else { None };
        let over = checking.is_over();
        let told_to = if over { checking.upto().cloned() } else { end.clone() };
        if broken_off && passed.is_none() && after.is_none() {
            return Ok(());
        }
        checking.break_off(if over { checking.upto().cloned() } else { end }.as_ref(), &mut listed);
        let full = listed.len();
        let (told, _) = beliefs.unfold(checking.agreed, listed, told_to.as_ref()).expect("an answer that makes sense");
        let held: Vec<(Key, Entry)> = teller.iter().filter(|(n, _)| beyond(n)).map(|(n, c)| (key(*n), entry(*n, *c))).collect();
        let expected: Vec<&Entry> = held
            .iter()
            .filter(|(key, _)| told_to.as_ref().is_none_or(|upto| key <= upto))
            .map(|(_, entry)| entry)
            .collect();
        prop_assert_eq!(told.len(), expected.len());
        for (told, held) in told.iter().zip(expected) {
            prop_assert_eq!(&told.key, &held.key);
            match (&told.held, &held.held) {
                (Held::Record { stamp, votes, tombstone, .. }, Held::Record { stamp: s, votes: v, tombstone: t, .. }) => {
                    prop_assert_eq!((stamp, tombstone), (s, t));
                    prop_assert_eq!(votes.intersection(covered), v.intersection(covered));
                    prop_assert!(votes.is_subset(*v), "told a vote that there is not");
                }
                (told, held) => prop_assert_eq!(told, held),
            }
        }
        // Stores that are alike where the teller looked cost nothing.
        let alike = |(n, (s, v, _)): (&u16, &Copy)| (*n, *s, *v & 3);
        let (mine, theirs) = (asker.iter().map(alike), teller.iter().map(alike));
        if !broken_off && mine.eq(theirs) && teller.values().chain(asker.values()).all(|(_, _, unreadable)| !unreadable)
            && beliefs.ranges.len() < CLAIMS
        {
            prop_assert_eq!(full, 0);
        }
    }

    /// A peer may answer anything: it is refused, or understood as something in the order of the keys it gave.
    #[test]
    fn any_answer_is_refused_or_understood(
        (asker, other) in stores(),
        agreed in any::<u64>(),
        upto in prop::option::of(0..500u16),
    ) {
        let believed = asker.iter().map(|(n, copy)| entry(*n, *copy));
        let beliefs = Beliefs::new(7, 10, believed, None);
        let listed: Vec<Entry> = other.iter().map(|(n, copy)| entry(*n, *copy)).collect();
        let most = listed.len() + asker.len();
        if let Some((told, _)) = beliefs.unfold(agreed, listed, upto.map(key).as_ref()) {
            prop_assert!(told.len() <= most);
        }
    }
}

#[test]
fn a_question_without_claims_is_told_everything() {
    let mut checking = Checking::new(1, Vec::new(), Rules::default());
    let mut listed = Vec::new();
    for n in 0..100 {
        checking.come_to(&key(n), &mut listed);
        checking.add(entry(n, (1, 1, false)), SlotSet::EMPTY, &mut listed);
    }
    checking.break_off(None, &mut listed);
    assert_eq!((listed.len(), checking.agreed), (100, 0));
}
