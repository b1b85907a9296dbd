//! Twins: what an asker makes of an answer, against what the teller holds.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec;

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

fn cuts() -> impl Strategy<Value = Cut> {
    (1..40usize, 0..40usize, prop::bool::weighted(0.2)).prop_map(|(keys, apart, lists)| Cut {
        keys,
        apart,
        lists,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 600, ..ProptestConfig::default() })]

    /// S3: whatever was claimed and wherever the page breaks off, what is unfolded is what the teller holds, with the
    /// votes that the digest covers.
    #[test]
    fn what_is_unfolded_is_what_the_teller_holds(
        (asker, teller) in stores(),
        cut in cuts(),
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
        let rules = Rules::default();
        let beliefs = Beliefs::new(7, cut, believed, upto.map(key), rules);
        let mut checking = Checking::new(7, beliefs.claims(false), rules);
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
        if broken_off && passed.is_none() && after.is_none() {
            return Ok(());
        }
        let end = passed.clone().or(after.map(key)).filter(|_| broken_off);
        let told_to = if checking.is_over() {
            checking.upto().cloned()
        } else {
            let begins = checking.break_off(end.as_ref(), &mut listed);
            if checking.is_over() && broken_off || checking.breaks_off() {
                checking.upto().cloned()
            } else {
                begins.or(end)
            }
        };
        let (full, too_much) = (listed.len(), checking.answered.beyond);
        let unfolded = beliefs.unfold(checking.answered, listed, told_to.as_ref()).expect("an answer that makes sense");
        prop_assert!(too_much == 0 || unfolded.parts.len() > 1 || unfolded.parts[0].upto != ToldTo::AsSaid);
        // Not even the first range, or as far as that one goes.
        let Some(Part { entries: told, upto, .. }) = unfolded.parts.into_iter().next() else { unreachable!() };
        let told_to = match upto {
            ToldTo::AsSaid => told_to,
            ToldTo::Range(Some(upto)) => Some(upto),
            ToldTo::Range(None) => {
                prop_assert!(told.is_empty());
                return Ok(());
            }
        };
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
        cut in cuts(),
        agreed in any::<u64>(),
        differs in prop::collection::vec((0..6u8, any::<[u8; 16]>(), prop::collection::vec(any::<u8>(), 0..300)), 0..4),
        beyond in any::<u64>(),
        upto in prop::option::of(0..500u16),
    ) {
        let believed = asker.iter().map(|(n, copy)| entry(*n, *copy));
        let beliefs = Beliefs::new(7, cut, believed, None, Rules::default());
        let listed: Vec<Entry> = other.iter().map(|(n, copy)| entry(*n, *copy)).collect();
        let most = listed.len() + asker.len();
        let differ = |(claim, digest, gone)| Differs { claim, digest: Digest(digest), gone };
        let answered = Answered { agreed, differs: differs.into_iter().map(differ).collect(), beyond };
        if let Some(told) = beliefs.unfold(answered, listed, upto.map(key).as_ref()) {
            prop_assert!(told.parts.iter().map(|part| part.entries.len()).sum::<usize>() <= most);
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
    assert_eq!((listed.len(), checking.answered.agreed), (100, 0));
}

/// One question and its answer: what is told, the bytes of the claims and of what was said of them, the entries listed.
fn exchange(
    (asker, teller): (&BTreeMap<u16, Copy>, &BTreeMap<u16, Copy>),
    (after, upto): (Option<Key>, Option<Key>),
    (salt, cut, rules): (u64, Cut, Rules),
) -> (Unfolded, Option<Key>, usize, usize) {
    let asked = |n: &u16| {
        after.as_ref().is_none_or(|after| key(*n) > *after)
            && upto.as_ref().is_none_or(|upto| key(*n) <= *upto)
    };
    let believed = asker.iter().filter(|(n, _)| asked(n)).map(|(n, copy)| entry(*n, *copy));
    let beliefs = Beliefs::new(salt, cut, believed, upto.clone(), rules);
    let claims = beliefs.claims(false);
    let mut bytes = claims.iter().map(|claim| 22 + claim.sketch.len()).sum::<usize>();
    let (mut checking, mut listed) = (Checking::new(salt, claims, rules), Vec::new());
    for (n, copy) in teller.iter().filter(|(n, _)| asked(n)) {
        checking.come_to(&key(*n), &mut listed);
        if checking.is_over() {
            break;
        }
        checking.add(entry(*n, *copy), ALL, &mut listed);
    }
    let over = checking.is_over();
    checking.break_off(None, &mut listed);
    bytes += checking.answered.differs.iter().map(|differ| 20 + differ.gone.len()).sum::<usize>();
    let entries = listed.len();
    let upto = if over || checking.breaks_off() { checking.upto().cloned() } else { upto };
    let told = beliefs.unfold(checking.answered, listed, upto.as_ref()).expect("it makes sense");
    (told, upto, bytes, entries)
}

/// Asks until all of a store is told: the bytes, and the entries listed.
fn exchange_all(asker: &BTreeMap<u16, Copy>, teller: &BTreeMap<u16, Copy>, salt: u64) -> (usize, usize) {
    let (mut cut, mut bytes, mut listed) = (Cut::new(true), 0, 0);
    let mut open: Vec<(Option<Key>, Option<Key>)> = vec![(None, None)];
    for round in 0..100 {
        let Some((after, upto)) = open.pop() else { return (bytes, listed) };
        let asked = (salt + round, cut, Rules::default());
        let (told, said, more, entries) = exchange((asker, teller), (after.clone(), upto.clone()), asked);
        (bytes, listed, cut) = (bytes + more, listed + entries, told.cut);
        // What is left between the parts, and after the last one.
        let mut at = after.clone();
        let last = told.parts.len() - 1;
        for (i, Part { after: begins, upto: ends, .. }) in told.parts.into_iter().enumerate() {
            if begins.is_some() {
                open.push((at, begins));
            }
            let done = ends == ToldTo::AsSaid && (said.is_none() || said == upto);
            at = match ends {
                ToldTo::AsSaid => said.clone(),
                ToldTo::Range(ends) => ends.or(after.clone()),
            };
            if i == last && !done {
                open.push((at.clone(), upto.clone()));
            }
        }
    }
    panic!("it comes to no end");
}

#[test]
fn what_differs_is_listed_and_little_else() {
    let store: BTreeMap<u16, Copy> = (0..4000).map(|n| (n, (1, 7, false))).collect();
    for (every, most) in [(4000, 2_200), (100, 3_000), (14, 4_000), (2, 45_000), (1, 80_000)] {
        let mut other = store.clone();
        other.extend((0..4000).step_by(every).map(|n| (n, (2, 7, false))));
        let (bytes, listed) = exchange_all(&store, &other, 7);
        // Now and then one that has the same number as one of these.
        let differ = 4000usize.div_ceil(every);
        assert!((differ..=differ + 4 + differ / 10).contains(&listed), "{listed} of {differ}");
        assert!(bytes <= most, "one of {every} differs: {bytes} bytes");
    }
    // Most of what there is, the asker has never seen; and the other way round.
    let few: BTreeMap<u16, Copy> = store.iter().step_by(50).map(|(n, copy)| (*n, *copy)).collect();
    assert!(exchange_all(&few, &store, 7).1 >= 3920);
    assert!(exchange_all(&store, &few, 7).1 < 5, "what is gone is not listed");
}

/// Two elements that are the same number fall out of a sketch; the second digest shows that something is missing.
#[test]
fn a_collision_costs_a_question_and_no_write() {
    let (old, new) = ((1, 7, false), (2, 7, false));
    let same = |salt: &u64| {
        let number = |copy| element(*salt, &entry(5, copy), ALL, Rules::default());
        number(old) == number(new)
    };
    let salt = (0..10_000_000).find(same).expect("one in 65,535");
    let asker: BTreeMap<u16, Copy> = (0..20).map(|n| (n, old)).collect();
    let mut teller = asker.clone();
    teller.insert(5, new);
    teller.insert(7, new);
    let ask = |salt, rules| exchange((&asker, &teller), (None, None), (salt, Cut::new(false), rules)).0;
    let told = ask(salt, Rules::default());
    assert_eq!(told.parts.len(), 1);
    assert_eq!(
        (&told.parts[0].upto, told.parts[0].entries.len()),
        (&ToldTo::Range(None), 0),
        "nothing is told"
    );
    let told = ask(salt + 1, Rules::default());
    assert_eq!((told.parts.len(), &told.parts[0].upto), (1, &ToldTo::AsSaid));
    let held: Vec<Entry> = teller.iter().map(|(n, copy)| entry(*n, *copy)).collect();
    assert_eq!(told.parts[0].entries, held);
    let told = ask(salt, Rules::without(Some(Mutant::S3AnyRest)));
    assert_ne!(told.parts[0].entries, held, "without the second digest, a write is lost");
}

/// Keys that are counted up, and stamps that follow one another, are told apart as well as chance would: of 40 entries, before
/// and after a change of each, one time in twenty two are one number. (In the low half of a product alone: one in four.)
#[test]
fn entries_that_are_much_alike_are_different_elements() {
    let element = |salt, n, time| element(salt, &entry(n, (time, 7, false)), ALL, Rules::default());
    let twice = |salt: &u64| {
        let from = (salt % 97) as u16 * 40;
        let both = (from..from + 40).flat_map(|n| [element(*salt, n, 1), element(*salt, n, 2)]);
        both.collect::<BTreeSet<_>>().len() < 80
    };
    let salts = (0..2_000u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ n);
    let twice = salts.filter(twice).count();
    assert!(twice < 150, "{twice} of 2,000");
}
