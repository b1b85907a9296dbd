//! F2: machines with five slots of some key are lost for good; an operator says so. In a small world of its own.
#![allow(missing_docs, reason = "tests")]

#[path = "forced/world.rs"]
mod world;

use ennead_ring::message::{Op, Outcome};
use ennead_ring::mutant::Rules;
use ennead_ring::view::{Epoch, Incarnation, Machine};
use ennead_ring::{Key, SlotSet};
use world::{SEC, World};

#[test]
fn nothing_goes_on_without_five_of_nine_until_they_are_forced_out() {
    let mut world = World::new(9);
    let keys = world.fill();
    let lost = [4, 5, 6, 7, 8];
    assert!(world.force(0, &lost).is_some_and(|why| why.contains("answers")));
    world.lose(lost);
    world.run(40 * SEC);
    assert_eq!(world.view(0).epoch(), Epoch::FIRST, "nobody is dropped while five are missing");
    assert!(!matches!(world.put(0, &keys[0], b"no"), Some(Outcome::Done { .. })));
    let why = world.force(0, &[3, 4, 5, 6, 7, 8]);
    assert!(why.is_some_and(|why| why.contains("answers")));
    let why = world.force(0, &[5, 6, 7, 8]);
    assert_eq!(why, None, "five wardens are left, so it is their decree");
    world.run(2 * SEC);
    assert_eq!(world.view(0).epoch(), Epoch::FIRST, "but the fifth does not answer");

    assert_eq!(world.force(0, &lost), None);
    world.run(SEC);
    let epoch = world.view(0).epoch();
    assert_eq!((epoch.generation, epoch.number), (1, 2));
    world.run(5 * SEC);
    assert_eq!(world.force(0, &lost), None, "it is done already");
    for i in 0..4 {
        assert_eq!(world.view(i).epoch(), epoch);
        assert!(world.node(i).is_synced() && world.node(i).is_settled(), "machine {i}");
    }
    // The first was tried without five: it may have taken effect since.
    for key in &keys[1..] {
        assert_eq!(world.get(1, key), key.as_bytes());
    }
    for key in &keys {
        let done = world.put(2, key, b"new");
        assert!(matches!(done, Some(Outcome::Done { .. })), "{done:?}");
        assert_eq!(world.get(3, key), b"new");
    }
}

#[test]
fn who_was_forced_out_takes_no_part_when_it_returns() {
    let mut world = World::new(9);
    let keys = world.fill();
    let lost = [4, 5, 6, 7, 8];
    world.lose(lost);
    assert_eq!(world.force(0, &lost), None);
    world.run(3 * SEC);
    world.start(4);
    world.run(3 * SEC);
    let why = world.node(4).is_forced_out().map(str::to_owned);
    assert!(why.is_some_and(|why| why.contains("forced out")));
    assert_eq!(world.node(4).votes_for(&keys[0]), SlotSet::EMPTY);
    assert_eq!(world.view(0).members().len(), 4);
    // It knows, and so it does after another start: from its disk, or from the others again.
    world.start(4);
    world.run(3 * SEC);
    assert!(world.node(4).is_forced_out().is_some());
    // All five together would be a quorum of the old view, were they not told.
    (5..9).for_each(|i| world.start(i));
    world.run(3 * SEC);
    (5..9).for_each(|i| assert!(world.node(i).is_forced_out().is_some(), "machine {i}"));
    for key in &keys {
        assert_eq!(world.get(0, key), key.as_bytes());
    }
}

#[test]
fn two_generations_forced_apart_never_mix() {
    let mut world = World::new(9);
    let keys = world.fill();
    for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        world.cut.insert((a, b));
    }
    world.lose(4..9);
    assert!(world.force(0, &[4, 5, 6, 7, 8]).is_some_and(|why| why.contains("name them too")));
    assert_eq!(world.force(0, &[2, 3, 4, 5, 6, 7, 8]), None);
    assert_eq!(world.force(2, &[0, 1, 4, 5, 6, 7, 8]), None);
    world.run(3 * SEC);
    let (one, other) = (world.view(0).epoch(), world.view(2).epoch());
    assert_ne!(one.fork, other.fork);
    assert!(matches!(world.put(0, &keys[0], b"one"), Some(Outcome::Done { .. })));
    assert!(matches!(world.put(2, &keys[0], b"other"), Some(Outcome::Done { .. })));
    world.cut.clear();
    world.run(5 * SEC);
    for (i, epoch) in [(0, one), (1, one), (2, other), (3, other)] {
        assert_eq!((world.view(i).epoch(), world.node(i).is_forced_out()), (epoch, None), "machine {i}");
    }
    // Nobody but an operator can say which of the two goes on: whoever hears of the other says so.
    world.tell(2, 0);
    world.tell(0, 2);
    world.run(SEC);
    for i in [0, 2] {
        let said = world.node(i).objection().unwrap_or_default().to_owned();
        assert!(said.contains("two forced recoveries went apart"), "machine {i}: {said}");
    }
    assert_eq!((world.view(0).epoch(), world.view(2).epoch()), (one, other));
    assert_eq!(world.get(1, &keys[0]), b"one");
    assert_eq!(world.get(3, &keys[0]), b"other");
}

#[test]
fn who_went_on_where_the_forced_view_did_not_needs_a_new_incarnation() {
    let mut world = World::new(9);
    world.fill();
    // One is dropped by decree, and machine 0 does not hear of it.
    world.lose([8]);
    world.run(20 * SEC);
    world.cut.extend((1..9).map(|i| (0, i)));
    world.run(15 * SEC);
    assert_eq!((world.view(1).epoch().number, world.view(0).epoch().number), (2, 1));
    world.lose([4, 5, 6, 7]);
    // The least advanced is chosen, and told that all others are gone.
    assert_eq!(world.force(0, &[3, 4, 5, 6, 7, 8, 2, 1]), None);
    world.run(SEC);
    world.cut.clear();
    world.run(3 * SEC);
    assert_eq!(world.view(0).members().len(), 1);
    (1..4).for_each(|i| assert!(world.node(i).is_forced_out().is_some(), "machine {i}"));
}

#[test]
fn with_five_warden_slots_left_it_is_a_decree_like_any_other() {
    let mut world = World::new(14);
    let keys = world.fill();
    // Five machines that leave the wardens five of their slots.
    let wardens = {
        let view = world.view(0);
        let ring = ennead_ring::Ring::of(&view);
        let owners = ring.owners(&ennead_ring::Chain::of(b"\0view", 9));
        (0..14).filter(|i| !owners.slots_of(*i as u32).is_empty()).collect::<Vec<usize>>()
    };
    let others = (0..14).filter(|i| !wardens.contains(i));
    let lost: Vec<usize> = others.take(5).collect();
    assert_eq!(lost.len(), 5);
    let here = wardens[0];
    world.lose(lost.clone());
    world.run(40 * SEC);
    assert_eq!(world.view(here).members().len(), 14, "nobody is dropped while five are missing");
    assert_eq!(world.force(here, &lost), None);
    world.run(5 * SEC);
    let view = world.view(here);
    assert_eq!((view.epoch().generation, view.epoch().number), (0, 2));
    assert_eq!((view.members().len(), view.forced_out().len()), (9, 5));
    assert!(world.node(here).is_settled());
    let mut kept = 0;
    for key in &keys {
        if wardens.iter().any(|i| world.disks[*i].records.contains_key(key)) {
            kept += 1;
            assert_eq!(world.get(here, key), key.as_bytes());
        }
        let done = world.put(here, key, b"new");
        assert!(matches!(done, Some(Outcome::Done { .. })), "{done:?}");
    }
    assert!(kept > 0);
}

#[test]
fn a_view_that_one_machine_took_on_its_own_before_it_died_is_found_and_followed() {
    let mut world = World::new(9);
    let keys = world.fill();
    let lost = [4, 5, 6, 7, 8];
    world.lose(lost);
    let forced = world.force_and_die(0, &lost);
    // Nobody has heard of it. Whoever is asked next finishes it first: it is not for the next operator to make a second.
    for i in 1..4 {
        assert_eq!(world.view(i).epoch(), Epoch::FIRST, "machine {i}");
    }
    world.run(5 * SEC);
    let all = [0, 4, 5, 6, 7, 8];
    assert_eq!(world.force(1, &all), None);
    world.run(2 * SEC);
    assert_eq!(world.view(1).epoch(), forced, "what was begun is finished");
    world.run(5 * SEC);
    assert_eq!(world.force(1, &all), None, "asked again, it goes on from there");
    world.run(10 * SEC);
    assert_eq!(world.view(1).members().len(), 3);
    assert!((1..4).all(|i| world.view(i).epoch() == world.view(1).epoch()));
    // The first one comes back: its view is in the past of the others', and names it.
    world.start(0);
    world.run(3 * SEC);
    assert!(world.node(0).is_forced_out().is_some_and(|why| why.contains("forced out")));
    assert!((0..4).all(|i| world.node(i).objection().is_none()), "nothing went apart");
    for key in &keys {
        assert_eq!(world.get(2, key), key.as_bytes());
    }
}

#[test]
fn two_operators_who_force_at_once_make_one_view_after_the_other() {
    for seed in 0..20 {
        let mut world = World::new(9);
        world.fill();
        world.lose(4..9);
        world.run(seed * SEC / 7);
        let lost = [4, 5, 6, 7, 8];
        // The second believes that machine 3 is lost as well; it is only slow to answer him.
        let (one, other) = (world.say_force(0, &lost), world.say_force(1, &lost));
        world.run(3 * SEC);
        assert!(world.refusal(one).is_none() || world.refusal(other).is_none());
        let epoch = world.view(0).epoch();
        assert_eq!(epoch.generation, 1, "seed {seed}");
        assert!((1..4).all(|i| world.view(i).epoch() == epoch), "seed {seed}: one view for all");
        assert!((0..4).all(|i| world.node(i).objection().is_none()), "seed {seed}");
    }
}

#[test]
fn a_machine_that_hears_one_of_the_lost_does_not_agree_and_the_operator_is_told_who() {
    let mut world = World::new(9);
    world.fill();
    // Machine 4 lives, and only machine 3 hears it.
    world.lose(5..9);
    for i in [0, 1, 2] {
        world.cut.insert((i, 4));
    }
    world.run(5 * SEC);
    let lost = [4, 5, 6, 7, 8];
    let told = (0..6).find_map(|_| {
        let why = world.force(0, &lost);
        world.run(SEC);
        why
    });
    let why = told.expect("a reason");
    assert!(why.contains("answers") || why.contains("10.0.0.4 would stay"), "{why}");
    assert!((0..5).all(|i| world.view(i).epoch() == Epoch::FIRST));
    // It dies after all: the same word works.
    world.lose([4]);
    world.cut.clear();
    while world.force(0, &lost).is_some() {
        world.run(SEC);
    }
    world.run(3 * SEC);
    assert!((0..4).all(|i| world.view(i).epoch().generation == 1));
}

#[test]
fn a_machine_that_does_not_answer_any_more_is_named_and_nothing_is_forced_without_it() {
    let mut world = World::new(9);
    world.fill();
    let lost = [4, 5, 6, 7, 8];
    world.lose(lost);
    // It has only just died, and is still believed alive.
    world.nodes[3] = None;
    assert_eq!(world.force(0, &lost), None);
    world.run(4 * SEC);
    assert_eq!(world.view(0).epoch(), Epoch::FIRST, "not without machine 3");
    let why = world.force(0, &lost).expect("a reason");
    assert!(why.contains("10.0.0.4"), "{why}");
    assert_eq!(world.force(0, &[3, 4, 5, 6, 7, 8]), None);
    world.run(3 * SEC);
    assert_eq!(world.view(0).members().len(), 3);
}

#[test]
fn forced_twice_the_first_generation_is_in_the_past_of_the_second() {
    let mut world = World::new(9);
    let keys = world.fill();
    world.lose(4..9);
    assert_eq!(world.force(0, &[4, 5, 6, 7, 8]), None);
    world.run(5 * SEC);
    let disk = world.disks[3].clone();
    world.lose([2, 3]);
    let done = world.force(0, &[2, 3]);
    assert_eq!(done, None);
    world.run(5 * SEC);
    assert_eq!(world.view(0).members().len(), 2);
    let generation = world.view(0).epoch().generation;
    assert!(world.view(1).epoch() == world.view(0).epoch() && (1..=2).contains(&generation));
    for key in &keys {
        assert_eq!(world.get(1, key), key.as_bytes());
    }
    // From the second generation's past, and from before both: both are told that they were named.
    world.disks[3] = disk;
    world.start(3);
    world.start(5);
    world.run(3 * SEC);
    for i in [3, 5] {
        assert!(world.node(i).is_forced_out().is_some_and(|why| why.contains("forced out")), "machine {i}");
    }
}

#[test]
fn a_machine_that_slept_through_two_forced_recoveries_and_was_never_named_begins_from_the_settled_view() {
    let mut world = World::new(9);
    let keys = world.fill();
    // Machine 8 is dropped by decree while it is cut off: nobody needs to name it.
    world.cut.extend((0..8).map(|i| (i, 8)));
    world.run(60 * SEC);
    assert_eq!(world.view(0).members().len(), 8);
    world.lose(3..8);
    assert_eq!(world.force(0, &[3, 4, 5, 6, 7]), None);
    world.run(5 * SEC);
    world.lose([2]);
    assert_eq!(world.force(0, &[2]), None);
    world.run(40 * SEC);
    assert!(world.node(0).is_settled());
    world.cut.clear();
    world.run(20 * SEC);
    assert_eq!((world.node(8).is_forced_out(), world.node(8).objection()), (None, None));
    assert!(world.view(0).has(world.machines[8]), "it was only dropped, and joins again (V5)");
    world.run(20 * SEC);
    assert!(world.node(8).is_synced());
    for key in &keys {
        assert_eq!(world.get(8, key), key.as_bytes());
    }
}

#[test]
fn a_join_that_is_under_way_goes_on_after_a_forced_recovery() {
    let mut world = World::new(9);
    let keys = world.fill();
    let joiner = world.add_joining();
    // It is announced, and five die before it has copied anything.
    while world.view(0).members().len() < 10 {
        world.run(SEC / 10);
    }
    world.lose(4..9);
    assert_eq!(world.force(0, &[4, 5, 6, 7, 8]), None);
    world.run(30 * SEC);
    let view = world.view(0);
    assert_eq!((view.epoch().generation, view.members().len()), (1, 5));
    let member = view.index_of(world.machines[joiner].name).expect("a member");
    assert!(view.members()[member].in_ring(), "{view:?}");
    assert!(world.node(joiner).is_synced() && world.node(0).is_settled());
    for key in &keys {
        assert_eq!(world.get(joiner, key), key.as_bytes());
    }
}

#[test]
fn only_a_machine_of_the_view_writes_a_forced_one() {
    let mut world = World::new(9);
    world.fill();
    world.cut.extend((0..8).map(|i| (i, 8)));
    world.run(60 * SEC);
    world.cut.clear();
    // It was dropped, and knows.
    world.run(SEC / 2);
    let stranger = Machine { name: world.machines[8].name, incarnation: Incarnation::new(99) };
    let why = world.force_out(0, vec![stranger]);
    assert!(why.is_some_and(|why| why.contains("is in no view")), "nobody knows that incarnation");
}

#[test]
fn r2_a_machine_whose_old_data_directory_was_put_back_is_told_so_by_the_view_that_it_forgot() {
    let mut world = World::new(9);
    world.fill();
    let old = world.disks[3].clone();
    world.lose([8]);
    world.run(40 * SEC);
    assert!(world.node(0).is_settled() && world.view(0).members().len() == 8);
    world.nodes[3] = None;
    world.disks[3] = old;
    world.start(3);
    world.run(3 * SEC);
    let why = world.node(3).is_forced_out().map(str::to_owned).unwrap_or_default();
    assert!(why.contains("has forgotten what this machine said"), "{why}");
    let key = Key::new("any").expect("a key");
    assert_eq!(world.node(3).votes_for(&key), SlotSet::EMPTY);
    // The true one goes on as ever.
    world.start(4);
    world.run(3 * SEC);
    assert_eq!(world.node(4).is_forced_out(), None);
}

#[test]
fn s4_the_named_do_not_make_up_for_machines_that_may_yet_tell() {
    let (mut world, away, here, key) = World::where_one_holder_is_lost_and_four_are_cut_off(Rules::default());
    let told = world.request(here, &key, Op::Read);
    assert!(!matches!(told, Some(Outcome::Value(_))), "{told:?}");
    world.cut.clear();
    world.run(10 * SEC);
    assert_eq!(world.get(here, &key), b"acknowledged");
    assert!(away.iter().all(|i| world.node(*i).is_forced_out().is_none()));
}

#[test]
fn s4_who_was_dropped_and_is_still_missed_can_be_named_by_its_name_alone() {
    let (mut world, away, here, key) = World::where_one_holder_is_lost_and_four_are_cut_off(Rules::default());
    // Those four are dead, and dropped: in the newest view nobody misses them, in the one before everybody does.
    world.lose(away.clone());
    world.cut.clear();
    world.run(60 * SEC);
    assert_eq!(world.view(here).members().len(), 5);
    assert!(!world.node(here).is_settled(), "whatever they held may be held by nobody else");
    let names =
        away.iter().map(|i| Machine { incarnation: Incarnation::NONE, ..world.machines[*i] }).collect();
    assert_eq!(world.force_out(here, names), None);
    world.run(10 * SEC);
    assert_eq!(world.view(here).forced_out().len(), 9);
    assert!(world.node(here).is_settled());
    assert!(
        matches!(world.request(here, &key, Op::Read), Some(Outcome::Value(None))),
        "it was counted, and lost"
    );
    let unknown = Machine { name: "10.9.9.9".parse().expect("a name"), incarnation: Incarnation::NONE };
    assert!(world.force_out(here, vec![unknown]).is_some_and(|why| why.contains("is in no view")));
}
