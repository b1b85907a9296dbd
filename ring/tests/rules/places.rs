//! Members that stay and change their place: their weight, their zone (V1, V7, M1, M2, S1).

use std::sync::Arc;

use ennead_ring::message::{Envelope, Message, Wish};
use ennead_ring::{Epoch, Key, Member, View, Zone};

use super::stage::{SEC, Stage, epoch, key, machine, record, slots_of, stamp, view};

fn zone(name: &str) -> Zone {
    name.parse().expect("a zone")
}

/// The view of this epoch after a machine's place was changed so.
fn changed(number: u32, members: &str, n: u64, change: impl Fn(&mut Member)) -> Arc<View> {
    let before = view(number - 1, members);
    let mut members = before.members().to_vec();
    members.iter_mut().filter(|m| m.machine == machine(n)).for_each(change);
    Arc::new(before.successor(members, Vec::new()).expect("a view"))
}

/// What an operator is told who wishes this.
fn refusal(stage: &mut Stage, wish: Wish) -> Option<String> {
    stage.wish(1, wish, SEC, |_| true);
    let told = stage.log.iter().rev().find_map(|s| match &s.envelope.message {
        Message::Wished { refused, .. } => Some(refused.clone()),
        _ => None,
    });
    told.expect("an answer")
}

fn member(stage: &Stage, n: u64) -> Member {
    let view = stage.node(1).view().expect("a view");
    *view.members().iter().find(|m| m.machine == machine(n)).expect("a member")
}

#[test]
pub(crate) fn m1_another_place_is_announced_and_copied_ahead_before_slots_move() {
    let mut stage = Stage::born("1 2 3 4");
    let keys: Vec<Key> = (0..20).map(|i| key(&format!("{i}"))).collect();
    for k in &keys {
        for n in 1..=4 {
            stage.put(n, k, record(stamp(100, 1), Some("v"), slots_of(&view(1, "1 2 3 4"), k, n)));
        }
    }
    stage.start_all();
    let (before, after) = ((8, Zone::NONE), (64, zone("a")));
    let wish = Wish::Place { machine: machine(2), weight: 64, zone: zone("a") };
    stage.wish(1, wish, 10 * SEC, |s| s.epoch(1) == 2);
    assert_eq!((member(&stage, 2).place(), member(&stage, 2).next_place()), (before, after));
    stage.until(20 * SEC, |s| s.epoch(1) == 3 && (1..=4).all(|n| s.node(n).is_settled()));
    assert_eq!((member(&stage, 2).place(), member(&stage, 2).next_place()), (after, after));
    let now = stage.node(1).view().expect("a view").clone();
    let moved = |k: &&Key| slots_of(&now, k, 2) != slots_of(&view(1, "1 2 3 4"), k, 2);
    assert!(keys.iter().any(|k| moved(&k)), "nothing moves");
    for k in &keys {
        for n in 1..=4 {
            assert_eq!(stage.node(n).votes_for(k), slots_of(&now, k, n), "{n}, {k}");
        }
    }
}

/// Four machines, of which 2 becomes eight times as heavy: each is told of both views, and of nothing else.
#[test]
pub(crate) fn s1_slots_that_move_between_machines_that_stay_are_silent_until_they_are_synced() {
    let first = changed(2, "1 2 3 4", 2, |m| m.next_weight = 64);
    let second = changed(3, "1 2 3 4", 2, |m| (m.weight, m.next_weight) = (64, 64));
    let mut stage = Stage::born("1 2 3 4");
    let mut gained = false;
    for n in 1..=4 {
        stage.start(n);
        let views = vec![first.clone(), second.clone()];
        let other = n % 4 + 1;
        // Whoever else runs by now says nothing.
        stage.lose(|s| s.kind() != "views_told");
        stage.say_as(other, 3, n, Message::ViewsTold { views, settled: epoch(1) });
        assert_eq!(stage.epoch(n), 3);
        for i in 0..200 {
            let k = key(&format!("{i}"));
            let (before, after) = (slots_of(&first, &k, n), slots_of(&second, &k, n));
            gained |= !after.minus(before).is_empty();
            assert_eq!(stage.node(n).votes_for(&k), before.intersection(after), "{n}, {k}");
        }
        stage.crash(n);
    }
    assert!(gained);
}

#[test]
pub(crate) fn v7_a_place_that_cannot_be_is_refused_and_of_two_the_later_counts() {
    let mut stage = Stage::born("1 2 3-");
    stage.start(1);
    let refused = |stage: &mut Stage, n, weight| {
        refusal(stage, Wish::Place { machine: machine(n), weight, zone: Zone::NONE })
    };
    assert!(refused(&mut stage, 2, 0).is_some_and(|why| why.contains("0 virtual peers")));
    assert!(refused(&mut stage, 2, 1 << 20).is_some_and(|why| why.contains("1048576 virtual peers")));
    assert!(refused(&mut stage, 3, 8).is_some_and(|why| why.contains("leaving")));
    assert!(refused(&mut stage, 7, 8).is_some_and(|why| why.contains("not in the view")));

    let mut stage = Stage::born("1 2 3");
    stage.start_all();
    for weight in [16, 32] {
        assert_eq!(refused(&mut stage, 2, weight), None);
    }
    stage.until(20 * SEC, |s| s.epoch(1) >= 3);
    assert_eq!((stage.epoch(1), member(&stage, 2).place()), (3, (32, Zone::NONE)));
    stage.wait(20 * SEC);
    assert_eq!(stage.epoch(1), 3, "the earlier one comes back");
}

/// Section 2: keys are spread over zones once every machine names one, in one move; then nobody comes who names none.
#[test]
pub(crate) fn v7_zones_count_once_all_are_named_and_who_names_none_does_not_come_in_then() {
    let mut stage = Stage::born("1 2 3 4 5 6 7 8 9 10 11 12");
    stage.start_all();
    let plain = view(1, "1 2 3 4 5 6 7 8 9 10 11 12");
    let placed = |stage: &Stage| {
        let now = stage.node(1).view().expect("a view").clone();
        let moved = (0..50).map(|i| key(&format!("{i}")));
        moved.filter(|k| (1..=12).any(|n| slots_of(&now, k, n) != slots_of(&plain, k, n))).count()
    };
    let named = |n: u64| zone(&format!("z{}", n % 3));
    for n in 1..=12 {
        let wish = Wish::Place { machine: machine(n), weight: 8, zone: named(n) };
        assert_eq!(refusal(&mut stage, wish), None);
        stage.until(60 * SEC, |s| member(s, n).zone == named(n) && s.node(1).is_settled());
        assert_eq!(member(&stage, n).zone, named(n));
        assert_eq!(placed(&stage) > 0, n == 12, "{n} named");
    }
    let back = Wish::Place { machine: machine(5), weight: 8, zone: Zone::NONE };
    assert!(refusal(&mut stage, back).is_some_and(|why| why.contains("--zone")));
    let blank = Message::Blank { weight: 8, zone: Zone::NONE, gathers: false };
    let said = stage.say_raw(13, 1, Envelope { cluster: None, epoch: Epoch::ZERO, message: blank });
    let refused = said
        .iter()
        .any(|s| matches!(&s.envelope.message, Message::NotTaken { reason } if reason.contains("--zone")));
    assert!(refused, "{said:?}");
}
