//! Moves in two views (M1 to M3), birth and growth (section 11), handing over (section 12).

use ennead_ring::message::{Entry, Envelope, Held, Message, Outcome, Wish};
use ennead_ring::node::Birth;
use ennead_ring::{Key, SlotSet};

use super::stage::{BEGIN, MS, SEC, Stage, epoch, find_key, key, machine, record, slots_of, stamp, view};

/// Three machines that hold some keys, and a fourth that offers itself.
fn joining() -> (Stage, Vec<Key>) {
    let mut stage = Stage::born("1 2 3");
    stage.computers.insert(4, Default::default());
    let keys: Vec<Key> = (0..20).map(|i| key(&format!("{i}"))).collect();
    for k in &keys {
        for n in 1..=3 {
            stage.put(n, k, record(stamp(100, 1), Some("v"), slots_of(&view(1, "1 2 3"), k, n)));
        }
    }
    stage.at(4).birth = Some(Birth::Join(vec![machine(2).name]));
    (stage, keys)
}

// -- M1, M2, M3 --------------------------------------------------------------------------------------

#[test]
pub(crate) fn m1_who_joins_is_announced_first_and_copies_ahead_without_votes() {
    let (mut stage, keys) = joining();
    // Nobody hears that it is warm.
    stage.lose(|s| s.is(4, 0) && s.kind() == "word");
    stage.start_all();
    stage.wait(10 * SEC);
    assert_eq!(stage.node(1).view(), Some(&view(2, "1 2 3 4+")));
    let mine = |k: &&Key| !slots_of(&view(3, "1 2 3 4"), k, 4).is_empty();
    assert!(keys.iter().any(|k| mine(&k)));
    for k in keys.iter().filter(mine) {
        let held = stage.holds(4, k).expect("copied ahead");
        assert_eq!((held.stamp, held.votes), (stamp(100, 1), SlotSet::EMPTY));
    }
}

/// How long the fourth machine copies ahead, in virtual time, while clients ask it for something each so often.
fn copies_ahead_for(clients: Option<u64>) -> u64 {
    let (mut stage, _) = joining();
    // Some pages of it.
    for k in (0..800).map(|i| key(&format!("long-{i}"))) {
        for n in 1..=3 {
            let votes = slots_of(&view(1, "1 2 3"), &k, n);
            stage.put(n, &k, record(stamp(100, 1), Some(&"v".repeat(4_000)), votes));
        }
    }
    stage.tuning.move_rate = 128 << 10;
    stage.start_all();
    stage.until(60 * SEC, |s| s.epoch(4) == 2);
    assert_eq!(stage.epoch(4), 2, "it is announced");
    let begun = stage.now;
    while stage.epoch(4) == 2 && stage.now < begun + 3_600 * SEC {
        if clients.is_some() {
            stage.put_value(4, &key("asked for"), "v");
        }
        stage.until(clients.unwrap_or(SEC), |s| s.epoch(4) == 3);
    }
    assert_eq!(stage.epoch(4), 3, "it goes on, however slowly");
    stage.now - begun
}

#[test]
pub(crate) fn m1_copying_ahead_leaves_three_quarters_to_clients_while_there_are_any() {
    let (alone, beside) = (copies_ahead_for(None), copies_ahead_for(Some(50 * MS)));
    assert!(alone > 2 * SEC, "it is the rate that it waits for: {alone} ns");
    assert!((alone * 3..=alone * 5).contains(&beside), "{alone} ns alone, {beside} ns beside clients");
    // Now and then is not all the time.
    let rarely = copies_ahead_for(Some(30 * SEC));
    assert!(rarely < alone * 2, "{alone} ns alone, {rarely} ns where clients come twice a minute");
}

#[test]
pub(crate) fn m2_the_next_ring_becomes_the_ring_once_all_of_it_are_warm_and_not_before() {
    let (mut stage, _) = joining();
    stage.lose(|s| s.is(0, 4) && s.kind() == "told");
    stage.start_all();
    stage.wait(20 * SEC);
    assert_eq!(stage.node(1).view(), Some(&view(2, "1 2 3 4+")));
    assert!(stage.node(1).is_settled());
    stage.heal();
    stage.until(10 * SEC, |s| s.epoch(1) == 3);
    assert_eq!(stage.node(1).view(), Some(&view(3, "1 2 3 4")));
}

#[test]
pub(crate) fn m2_sync_then_sends_stamps_and_votes_and_no_state_that_is_there() {
    let (mut stage, keys) = joining();
    stage.start_all();
    stage.until(20 * SEC, |s| s.node(4).is_synced() && s.node(4).is_settled() && s.epoch(4) == 3);
    assert_eq!(stage.epoch(4), 3);
    let sync = || stage.log.iter().filter(|s| s.is(0, 4) && s.envelope.epoch == epoch(3));
    let states = |e: &Entry| matches!(e.held, Held::Record { state: Some(_), .. });
    for said in sync() {
        match &said.envelope.message {
            Message::Told { page, .. } => assert!(!page.entries.iter().any(states)),
            Message::Fetched { .. } => panic!("a value that was there is fetched"),
            _ => {}
        }
    }
    for k in &keys {
        let votes = stage.holds(4, k).map_or(SlotSet::EMPTY, |r| r.votes);
        assert_eq!(votes, slots_of(&view(3, "1 2 3 4"), k, 4));
    }
}

#[test]
pub(crate) fn m3_who_has_left_runs_without_votes_until_the_view_without_it_is_settled() {
    let mut stage = Stage::born("1 2 3 4");
    let k = key("k");
    stage.start_all();
    stage.lose(|s| s.is(1, 0) && s.kind() == "word" && s.envelope.epoch == epoch(3));
    stage.wish(1, Wish::Leave { machine: machine(4) }, 20 * SEC, |s| s.epoch(4) == 3);
    assert_eq!(stage.node(4).view(), Some(&view(3, "1 2 3")));
    stage.wait(10 * SEC);
    assert!(!stage.node(4).has_left(), "view 3 is not settled");
    assert_eq!(stage.node(4).votes_for(&k), SlotSet::EMPTY);
    stage.heal();
    stage.until(10 * SEC, |s| s.node(4).has_left());
    assert!(stage.node(4).has_left());
    // It does not come back by itself.
    stage.wait(10 * SEC);
    assert_eq!(stage.epoch(1), 3);
}

// -- F1, growth --------------------------------------------------------------------------------------

/// The first is told to take these along; the others offer themselves to it.
fn unborn(with: &[u64], all: u64) -> Stage {
    let mut stage = Stage::new(1..=all);
    let with = with.iter().map(|n| machine(*n).name).collect();
    stage.at(1).birth = Some(Birth::Init { with, slots: 9 });
    for n in 2..=all {
        stage.at(n).birth = Some(Birth::Join(vec![machine(1).name]));
    }
    stage
}

#[test]
pub(crate) fn f1_view_1_is_the_initiator_and_those_it_was_told_to_take_along() {
    let mut stage = unborn(&[2, 3], 4);
    stage.start_all();
    stage.until(SEC, |s| (1..=3).all(|n| s.epoch(n) == 1));
    let members: Vec<_> = stage.node(3).view().expect("a view").members().iter().map(|m| m.machine).collect();
    assert_eq!(members, [machine(1), machine(2), machine(3)]);
    assert_eq!(stage.epoch(4), 0);
}

#[test]
pub(crate) fn f1_view_1_is_durable_at_the_initiator_before_it_is_told() {
    let mut stage = unborn(&[2, 3], 3);
    stage.hold_disk(1);
    stage.start_all();
    stage.wait(SEC);
    assert!(stage.node(1).view().is_some() && stage.said(1, 0, "birth").is_empty());
    assert_eq!([2, 3].map(|n| stage.epoch(n)), [0, 0]);
    stage.sync_disk(1);
    assert_eq!([2, 3].map(|n| stage.epoch(n)), [1, 1]);
}

#[test]
pub(crate) fn f1_a_blank_machine_adopts_one_cluster_once_and_refuses_every_other() {
    let mut stage = unborn(&[2], 3);
    stage.at(3).birth = Some(Birth::Init { with: vec![], slots: 9 });
    let seeds = vec![machine(1).name, machine(3).name];
    stage.at(2).birth = Some(Birth::Join(seeds));
    stage.start_all();
    stage.wait(5 * SEC);
    let cluster = |stage: &Stage, n| stage.node(n).view().map(|v| v.cluster());
    let own = cluster(&stage, 2);
    assert!(own.is_some() && cluster(&stage, 3).is_some() && cluster(&stage, 1) != cluster(&stage, 3));
    // Durably: also after a restart, whoever else offers it a place.
    stage.crash(2);
    stage.start(2);
    stage.wait(5 * SEC);
    let others = stage.node(if own == cluster(&stage, 1) { 3 } else { 1 }).view().expect("a view").clone();
    stage.say_raw(
        3,
        2,
        Envelope { cluster: None, epoch: epoch(1), message: Message::Birth { view: others } },
    );
    assert_eq!(cluster(&stage, 2), own);
}

#[test]
pub(crate) fn f1_whoever_is_told_to_initialise_and_finds_a_cluster_joins_it() {
    let mut stage = unborn(&[2, 3], 3);
    stage.tuning.probe_every = SEC / 4;
    stage.start_all();
    stage.until(SEC, |s| (1..=3).all(|n| s.epoch(n) == 1));
    let cluster = stage.node(2).view().expect("a view").cluster();
    // Its disk is lost; the command that starts it is the same as ever.
    stage.crash(1);
    let birth = stage.computers.remove(&1).and_then(|computer| computer.birth);
    stage.computers.insert(101, Default::default());
    stage.at(101).birth = birth;
    stage.start(101);
    stage.until(60 * SEC, |s| s.node(101).view().is_some_and(|v| v.has(machine(101))));
    assert_eq!(stage.node(101).view().map(|v| v.cluster()), Some(cluster));
}

#[test]
pub(crate) fn f1_two_that_are_told_to_initialise_with_each_other_do_neither_and_say_so() {
    let mut stage = unborn(&[2], 2);
    stage.at(2).birth = Some(Birth::Init { with: vec![machine(1).name], slots: 9 });
    stage.start_all();
    stage.wait(5 * SEC);
    assert_eq!([1, 2].map(|n| stage.epoch(n)), [0, 0]);
    for (from, to) in [(1, 2), (2, 1)] {
        let refused = stage.said(from, to, "not_taken").iter().any(|said| match &said.envelope.message {
            Message::NotTaken { reason } => reason.contains("--join instead of --init"),
            _ => false,
        });
        assert!(refused, "{from} to {to}");
    }
}

#[test]
pub(crate) fn s11_one_machine_grows_to_three_in_a_single_view() {
    let mut stage = unborn(&[], 3);
    stage.start(1);
    stage.wait(SEC);
    stage.start(2);
    stage.wait(SEC);
    stage.start(3);
    stage.until(20 * SEC, |s| s.node(1).view().is_some_and(|v| v.members().len() > 1));
    assert_eq!(stage.node(1).view().map(|v| v.members().len()), Some(3));
    stage.until(20 * SEC, |s| s.epoch(1) == 3 && s.node(1).is_settled());
    let ring = stage.node(1).view().expect("a view").members().iter().filter(|m| m.in_ring()).count();
    assert_eq!((ring, stage.epoch(1)), (3, 3));
}

// -- section 12 --------------------------------------------------------------------------------------

/// Ten machines; the first owns the key, and wrote it with a clock that is ahead; the second owns no slot of it.
fn led() -> (Stage, Key, u64) {
    let members = "1 2 3 4 5 6 7 8 9 10";
    let first = view(1, members);
    let k = find_key(|k| !slots_of(&first, k, 1).is_empty());
    let stranger = (2..=10).find(|n| slots_of(&first, &k, *n).is_empty()).expect("ten machines, nine slots");
    let mut stage = Stage::born(members);
    stage.at(1).skew = SEC;
    stage.start_all();
    let done = stage.put_value(1, &k, "a");
    assert!(matches!(done, Some(Outcome::Done { version: 1, .. })), "{done:?}");
    (stage, k, stranger)
}

#[test]
pub(crate) fn s12_who_is_refused_because_of_a_higher_ballot_hands_over_to_its_proposer() {
    let (mut stage, k, stranger) = led();
    let done = stage.put_value(stranger, &k, "b");
    assert!(matches!(done, Some(Outcome::Done { version: 2, .. })), "{done:?}");
    let handed = stage.said(stranger, 1, "request");
    assert!(handed.iter().any(|s| matches!(s.envelope.message, Message::Request { handed: true, .. })));
}

#[test]
pub(crate) fn s12_where_the_proposer_is_gone_it_prepares_above_all_that_it_was_told() {
    let (mut stage, k, stranger) = led();
    stage.crash(1);
    let done = stage.put_value(stranger, &k, "b");
    assert!(matches!(done, Some(Outcome::Done { version: 2, .. })), "{done:?}");
}

#[test]
pub(crate) fn s12_any_machine_tells_a_client_its_newest_view() {
    let mut stage = Stage::born("1 2 3");
    stage.start_all();
    let ask = stage.ask();
    let told = stage.answer_to(4, 1, 2, Message::ViewAsk { ask }).map(|e| e.message);
    assert_eq!(told, Some(Message::ViewTold { ask, view: view(1, "1 2 3") }));
    assert!(stage.now > BEGIN);
}
