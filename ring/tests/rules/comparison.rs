//! The comparison of copies (section 14): what it finds unlike it brings to all slots.

use ennead_ring::{Key, SlotSet};

use super::stage::{MS, SEC, Stage, find_key, record, slots_of, stamp, view};

const MEMBERS: &str = "1 2 3";

/// A key whose first slot is the first machine's: it compares, and mends.
fn firsts() -> Key {
    find_key(|k| slots_of(&view(1, MEMBERS), k, 1).has(1))
}

fn is_alike(stage: &Stage, key: &Key) -> bool {
    let copies: Vec<_> = (1..=3).map(|n| stage.holds(n, key).map(|r| r.stamp)).collect();
    copies[0].is_some() && copies.iter().all(|stamp| *stamp == copies[0])
}

#[test]
pub(crate) fn who_refuses_the_ballot_of_a_lead_is_mended_with_the_next_one() {
    let (mut stage, k) = (Stage::born(MEMBERS), firsts());
    stage.start_all();
    stage.put_value(1, &k, "all hold this");
    stage.lose(|s| s.is(1, 3) && s.kind() == "accept");
    stage.put_value(1, &k, "two hold this");
    // Its floor is above the ballot of the first machine's lead now (A4).
    stage.crash(3);
    stage.start(3);
    stage.heal();
    assert!(!is_alike(&stage, &k));
    stage.check_all();
    stage.wait(5 * SEC);
    assert!(is_alike(&stage, &k));
    assert_eq!(stage.node(1).check_progress().mended, 1);
}

#[test]
pub(crate) fn what_was_lost_on_the_way_is_sent_again() {
    let (mut stage, k) = (Stage::born(MEMBERS), firsts());
    stage.start_all();
    stage.lose(|s| s.is(1, 3) && s.kind() == "accept");
    stage.put_value(1, &k, "two hold this");
    stage.check_all();
    stage.wait(20 * MS);
    stage.heal();
    stage.wait(SEC);
    assert!(is_alike(&stage, &k));
    assert_eq!(stage.node(1).check_progress().rounds, 1, "no second comparison");
}

#[test]
pub(crate) fn what_cannot_be_mended_is_tried_again_ever_more_rarely_and_in_bounded_memory() {
    let (mut stage, k) = (Stage::born(MEMBERS), firsts());
    let votes = |n| slots_of(&view(1, MEMBERS), &k, n);
    stage.put(1, &k, record(stamp(100, 1), Some("v"), votes(1)));
    stage.put(2, &k, record(stamp(100, 1), Some("v"), SlotSet::EMPTY));
    stage.lose(|s| s.is(1, 3) && s.kind() == "accept");
    stage.start_all();
    stage.check_all();
    stage.wait(30 * SEC);
    let tries = |stage: &Stage| stage.said(1, 1, "request").len();
    let soon = tries(&stage);
    assert!((3..=6).contains(&soon), "{soon} tries in 30 s");
    stage.wait(1_800 * SEC);
    let later = tries(&stage) - soon;
    assert!((20..=40).contains(&later), "{later} tries in the half an hour after");
    assert_eq!(stage.node(1).check_progress().mended, 0);
    // Found again and again, it is one key all the same.
    for _ in 0..20 {
        stage.check_all();
        stage.wait(10 * SEC);
    }
    let found = tries(&stage);
    stage.wait(1_800 * SEC);
    let later = tries(&stage) - found;
    assert!((20..=40).contains(&later), "{later} tries in half an hour, found twenty times");
    stage.heal();
    stage.wait(70 * SEC);
    assert!(is_alike(&stage, &k));
    assert_eq!(stage.node(1).check_progress().mended, 1);
}

#[test]
pub(crate) fn of_more_than_is_remembered_another_comparison_finds_the_rest() {
    let (mut stage, first) = (Stage::born(MEMBERS), view(1, MEMBERS));
    let keys = (0..).map(|i| Key::new(format!("k{i}")).expect("a key"));
    let keys: Vec<Key> = keys.filter(|k| slots_of(&first, k, 1).has(1)).take(1_100).collect();
    for k in &keys {
        for n in [1, 2] {
            stage.put(n, k, record(stamp(100, 1), Some("v"), slots_of(&first, k, n)));
        }
    }
    stage.lose(|s| s.is(1, 3) && s.kind() == "accept");
    stage.start_all();
    stage.check_all();
    stage.wait(900 * SEC);
    assert_eq!(stage.node(1).check_progress().mended, 0);
    stage.heal();
    stage.wait(120 * SEC);
    let rounds = stage.node(1).check_progress().rounds;
    assert!(rounds >= 2 && keys.iter().all(|k| is_alike(&stage, k)), "{rounds} comparisons");
}
