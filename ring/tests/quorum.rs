//! What counts as five, against the obvious way to count.

use std::collections::{BTreeMap, BTreeSet};

use ennead_ring::{Epoch, SlotSet, Tally, quorum_of};
use proptest::prelude::*;

fn epoch(number: u32) -> Epoch {
    Epoch { number, ..Epoch::FIRST }
}

fn slots(of: &[u8]) -> SlotSet {
    of.iter().copied().collect()
}

#[test]
fn a_quorum_is_more_than_half() {
    assert_eq!([1, 3, 5, 7, 9, 15].map(quorum_of), [1, 2, 3, 4, 5, 8]);
}

#[test]
fn five_votes_of_one_epoch_are_a_quorum_and_four_are_not() {
    let mut tally = Tally::default();
    tally.add(epoch(1), slots(&[1, 2]));
    tally.add(epoch(1), slots(&[4, 9]));
    assert!(!tally.reached(9));
    tally.add(epoch(1), slots(&[3]));
    assert!(tally.reached(9));
}

#[test]
fn votes_of_two_epochs_are_never_added_up() {
    let mut tally = Tally::default();
    tally.add(epoch(1), slots(&[1, 2, 3, 4]));
    tally.add(epoch(2), slots(&[5, 6, 7, 8]));
    assert!(!tally.reached(9));
    assert_eq!(tally.votes(), 4);
    tally.add(epoch(2), slots(&[1]));
    assert!(tally.reached(9));
}

#[test]
fn a_vote_heard_twice_counts_once() {
    let mut tally = Tally::default();
    for _ in 0..9 {
        tally.add(epoch(1), slots(&[1, 2]));
    }
    assert_eq!(tally.votes(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_tally_counts_as_the_obvious_way_does(
        total in prop::sample::select(vec![1u8, 3, 5, 9, 15]),
        answers in proptest::collection::vec((1u32..4, proptest::collection::btree_set(1u8..=15, 0..6)), 0..12),
    ) {
        let mut tally = Tally::default();
        let mut obvious: BTreeMap<u32, BTreeSet<u8>> = BTreeMap::new();
        for (number, votes) in answers {
            let votes: BTreeSet<u8> = votes.into_iter().filter(|&s| s <= total).collect();
            tally.add(epoch(number), votes.iter().copied().collect());
            obvious.entry(number).or_default().extend(votes);
        }
        let most = obvious.values().map(BTreeSet::len).max().unwrap_or(0);
        prop_assert_eq!(usize::from(tally.votes()), most);
        prop_assert_eq!(tally.reached(total), 2 * most > usize::from(total));
    }

    #[test]
    fn a_slot_set_is_a_set(
        a in proptest::collection::btree_set(1u8..=15, 0..15), b in proptest::collection::btree_set(1u8..=15, 0..15),
    ) {
        let (x, y): (SlotSet, SlotSet) = (a.iter().copied().collect(), b.iter().copied().collect());
        prop_assert_eq!(x.iter().collect::<BTreeSet<u8>>(), a.clone());
        prop_assert_eq!(usize::from(x.len()), a.len());
        prop_assert_eq!(x.union(y).iter().collect::<BTreeSet<u8>>(), &a | &b);
        prop_assert_eq!(x.intersection(y).iter().collect::<BTreeSet<u8>>(), &a & &b);
        prop_assert_eq!(x.is_subset(y), a.is_subset(&b));
        prop_assert!((1..=15).all(|slot| x.has(slot) == a.contains(&slot)));
    }
}
