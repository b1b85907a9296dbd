//! Collection and bounds (G2, G3), damage (R3).

use ennead_ring::effect::Change;
use ennead_ring::message::{Answer, Change as Wanted, Copied, Held, Message, Outcome};
use ennead_ring::{Hlc, Key, Loaded, SlotSet};

use super::stage::{BEGIN, SEC, Stage, epoch, find_key, key, record, slots_of, stamp, view};

/// Three machines, and a tombstone of 100 s that these hold with their votes and those as hearsay.
fn buried(voters: &[u64], hearsay: &[u64]) -> (Stage, Key) {
    let (mut stage, k) = (Stage::born("1 2 3"), key("k"));
    for &n in voters.iter().chain(hearsay) {
        let votes = if voters.contains(&n) { slots_of(&view(1, "1 2 3"), &k, n) } else { SlotSet::EMPTY };
        stage.put(n, &k, record(stamp(100, 1), None, votes));
    }
    (stage, k)
}

fn answer(envelope: Option<ennead_ring::message::Envelope>) -> (SlotSet, Answer) {
    match envelope.map(|e| e.message) {
        Some(Message::Answer { votes, answer, .. }) => (votes, answer),
        other => panic!("no answer: {other:?}"),
    }
}

// -- G2 ----------------------------------------------------------------------------------------------

#[test]
pub(crate) fn g2_a_tombstone_that_all_slots_vote_for_in_a_settled_view_is_collected() {
    let (mut stage, k) = buried(&[1, 2, 3], &[]);
    stage.start_all();
    stage.check_all();
    stage.wait(SEC);
    for n in 1..=3 {
        assert!(stage.holds(n, &k).is_none());
        let bound = stage.computers[&n].limits.bound;
        assert!(bound.time >= Hlc::from_nanos(100 * SEC) && bound.version == 1, "{bound:?}");
    }
}

#[test]
pub(crate) fn g2_not_before_all_nine_slots_vote() {
    for (voters, hearsay) in [(vec![1, 2], vec![]), (vec![1, 2], vec![3])] {
        let (mut stage, _) = buried(&voters, &hearsay);
        stage.start_all();
        stage.check_all();
        stage.wait(5 * SEC);
        assert!(stage.said(0, 0, "collect").is_empty(), "{voters:?} {hearsay:?}");
    }
}

/// The first owner compares copies, and so collects. Its own it reads as written, durable or not.
#[test]
pub(crate) fn g2_not_before_the_collectors_own_vote_is_durable() {
    let k = key("k");
    let first =
        (1..=3).find(|n| slots_of(&view(1, "1 2 3"), &k, *n).iter().any(|slot| slot == 1)).expect("an owner");
    let others: Vec<u64> = (1..=3).filter(|n| *n != first).collect();
    let (mut stage, k) = buried(&others, &[]);
    stage.start_all();
    stage.hold_disk(first);
    // A reader brings it, say (D3).
    let (ask, state) = (stage.ask(), record(stamp(100, 1), None, SlotSet::EMPTY).state);
    let brought = Message::Accept { ask, key: k.clone(), stamp: stamp(100, 1), state };
    assert_eq!(stage.answer_to(others[0], 1, first, brought), None, "held, and not on disk");
    stage.check_all();
    stage.wait(5 * SEC);
    let voted =
        |change: &&Change| matches!(change, Change::Record { record, .. } if !record.votes.is_empty());
    assert!(stage.unsynced(first).iter().any(voted), "its vote is written");
    assert!(stage.said(first, 0, "collect").is_empty());
    assert!(others.iter().all(|n| stage.holds(*n, &k).is_some()));
    stage.sync_disk(first);
    stage.check_all();
    stage.wait(5 * SEC);
    assert!((1..=3).all(|n| stage.holds(n, &k).is_none()));
}

#[test]
pub(crate) fn g2_not_before_the_view_is_settled() {
    let (mut stage, k) = buried(&[1, 2, 3], &[]);
    for n in 1..=3 {
        stage.place(n, &[view(1, "1 2 3"), view(2, "1 2 3-")], 1, &[1, 2]);
    }
    stage.lose(|s| s.is(3, 0) && s.kind() == "word");
    stage.start_all();
    stage.check_all();
    stage.wait(5 * SEC);
    assert!(!stage.node(1).is_settled() && stage.said(0, 0, "collect").is_empty());
    assert!(stage.holds(1, &k).is_some());
}

#[test]
pub(crate) fn g2_not_before_the_tombstone_is_some_minutes_old() {
    let (mut stage, k) = (Stage::born("1 2 3"), key("k"));
    stage.start_all();
    stage.put_value(1, &k, "v");
    stage.write(1, &k, Wanted::Delete);
    stage.check_all();
    stage.wait(5 * SEC);
    assert!(stage.said(0, 0, "collect").is_empty());
    stage.wait(stage.tuning.collect_after);
    stage.check_all();
    stage.wait(5 * SEC);
    assert!((1..=3).all(|n| stage.holds(n, &k).is_none()));
}

#[test]
pub(crate) fn g2_who_holds_another_stamp_or_has_not_adopted_the_view_ignores_it() {
    let (mut stage, k) = buried(&[1], &[]);
    stage.start(1);
    for (stamp, at) in [(stamp(99, 1), 1), (stamp(101, 1), 1), (stamp(100, 1), 2)] {
        stage.say_as(2, 1, 1, Message::Collect { key: k.clone(), stamp, epoch: epoch(at) });
        assert!(stage.holds(1, &k).is_some(), "{stamp} of view {at}");
    }
}

#[test]
pub(crate) fn g2_whoever_is_told_to_collect_notes_that_the_view_is_settled_and_raises_the_bound_first() {
    let (mut stage, k) = buried(&[1], &[]);
    stage.place(1, &[view(1, "1 2 3"), view(2, "1 2 3-")], 1, &[1, 2]);
    stage.start(1);
    stage.hold_disk(1);
    stage.say_as(2, 2, 1, Message::Collect { key: k.clone(), stamp: stamp(100, 1), epoch: epoch(2) });
    assert_eq!(stage.node(1).account().settled, epoch(2));
    let changes = stage.unsynced(1);
    let at = |f: &dyn Fn(&Change) -> bool| changes.iter().position(|c| f(c));
    let bound = at(&|c| matches!(c, Change::Limits(l) if l.bound.time >= Hlc::from_nanos(100 * SEC)));
    let dropped = at(&|c| matches!(c, Change::Forget { .. })).expect("it is dropped");
    assert!(bound.is_some_and(|bound| bound < dropped), "{changes:?}");
    // Whatever part of that a crash leaves, the record or the bound is there.
    stage.crash_after(1, dropped);
    assert!(stage.holds(1, &k).is_some() && stage.computers[&1].limits.bound.version == 1);
}

// -- G3 ----------------------------------------------------------------------------------------------

#[test]
pub(crate) fn g3_the_bound_refuses_late_ballots_for_keys_without_a_record() {
    let (mut stage, k) = (Stage::born("1 2 3"), key("k"));
    stage.start_all();
    stage.put_value(1, &k, "v");
    let late = stamp(BEGIN / SEC + 1, 2);
    stage.wait(2 * SEC);
    stage.write(1, &k, Wanted::Delete);
    stage.wait(stage.tuning.collect_after + SEC);
    stage.check_all();
    stage.wait(5 * SEC);
    assert!((1..=3).all(|n| stage.holds(n, &k).is_none()));
    // What was said before the delete arrives after the collection.
    for n in 1..=3 {
        let from = n % 3 + 1;
        stage.crash(from);
        assert!(matches!(answer(stage.accept(from, 1, n, &k, late)).1, Answer::Refused { .. }));
        assert!(matches!(answer(stage.prepare(from, 1, n, &k, late.ballot)).1, Answer::Refused { .. }));
        stage.start(from);
    }
}

#[test]
pub(crate) fn g3_a_keys_version_never_falls() {
    let (mut stage, k) = buried(&[1, 2, 3], &[]);
    stage.start_all();
    stage.check_all();
    stage.wait(5 * SEC);
    assert!((1..=3).all(|n| stage.holds(n, &k).is_none()));
    let done = stage.put_value(2, &k, "again");
    assert!(matches!(done, Some(Outcome::Done { version: 2, .. })), "{done:?}");
}

// -- R3 ----------------------------------------------------------------------------------------------

#[test]
pub(crate) fn r3_an_unreadable_record_makes_the_machine_mute_for_its_key() {
    let (mut stage, k) = (Stage::born("1 2 3"), key("k"));
    stage.put(1, &k, record(stamp(100, 1), Some("v"), slots_of(&view(1, "1 2 3"), &k, 1)));
    stage.at(1).records.insert(k.clone(), Loaded::Unreadable);
    stage.start(1);
    let ballot = stamp(BEGIN / SEC + 1, 2).ballot;
    assert_eq!(answer(stage.prepare(2, 1, 1, &k, ballot)), (SlotSet::EMPTY, Answer::Mute));
    assert_eq!(answer(stage.read(2, 1, 1, &k)), (SlotSet::EMPTY, Answer::Mute));
    let limits = stage.computers[&1].limits;
    assert_eq!(limits.floor, limits.ceiling, "it may have promised anything");
    // Other keys are none of its trouble.
    assert_eq!(answer(stage.read(2, 1, 1, &key("other"))).1, Answer::Copy(Copied::None));
}

#[test]
pub(crate) fn r3_tells_that_it_cannot_tell() {
    let k = key("k");
    let mut stage = Stage::new([1]);
    stage.place(1, &[view(1, "1 2 3"), view(2, "1 2 3 4")], 1, &[1]);
    stage.at(1).records.insert(k.clone(), Loaded::Unreadable);
    stage.start(1);
    let told = stage.tell(4, 2, 1);
    let Some(Message::Told { page, .. }) = told.last().map(|s| &s.envelope.message) else {
        panic!("{told:?}")
    };
    assert_eq!(page.entries.iter().map(|e| (&e.key, &e.held)).collect::<Vec<_>>(), [(&k, &Held::Unreadable)]);
}

#[test]
pub(crate) fn r3_the_comparison_mends_a_copy_that_only_its_asker_has_and_cannot_read() {
    let first = view(1, "1 2 3");
    let k = find_key(|k| slots_of(&first, k, 1).has(1));
    let mut stage = Stage::born("1 2 3");
    stage.at(1).records.insert(k.clone(), Loaded::Unreadable);
    stage.start_all();
    stage.check_all();
    stage.wait(5 * SEC);
    assert_ne!(stage.at(1).records.get(&k), Some(&Loaded::Unreadable), "still mute");
    let ballot = stamp(BEGIN / SEC + 100, 2).ballot;
    assert_ne!(answer(stage.prepare(2, 1, 1, &k, ballot)).1, Answer::Mute);
}

#[test]
pub(crate) fn r3_is_whole_again_after_an_accept_of_a_round_that_did_without_it() {
    let (mut stage, k) = (Stage::born("1 2 3"), key("k"));
    let first = view(1, "1 2 3");
    for n in 1..=3 {
        stage.put(n, &k, record(stamp(100, 1), Some("v"), slots_of(&first, &k, n)));
    }
    stage.at(1).records.insert(k.clone(), Loaded::Unreadable);
    stage.start_all();
    let done = stage.put_value(2, &k, "w");
    assert!(matches!(done, Some(Outcome::Done { version: 2, .. })), "{done:?}");
    let held = stage.holds(1, &k).expect("a record");
    assert_eq!((held.state.version, held.votes), (2, slots_of(&first, &k, 1)));
}
