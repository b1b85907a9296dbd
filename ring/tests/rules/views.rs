//! Section 3: views.

use std::collections::BTreeSet;
use std::sync::Arc;

use ennead_ring::effect::Decree;
use ennead_ring::message::{Answer, DecreeAnswer, Envelope, Message, Wish};
use ennead_ring::node::Birth;
use ennead_ring::{
    Ballot, Chain, ClusterId, Incarnation, Machine, Member, MemberState, Ring, SlotSet, View, Zone,
};

use super::stage::{MS, SEC, Stage, epoch, key, machine, record, slots_of, stamp, view};

fn ballot(seconds: u64, by: u64) -> Ballot {
    stamp(seconds, by).ballot
}

/// The votes of an answer.
fn votes(envelope: Option<Envelope>) -> Option<SlotSet> {
    match envelope?.message {
        Message::Answer { votes, .. } => Some(votes),
        _ => None,
    }
}

fn views_told(to: u64, stage: &mut Stage, from: u64, views: &[std::sync::Arc<View>], settled: u32) {
    let at = views.last().expect("a view").epoch().number;
    let message = Message::ViewsTold { views: views.to_vec(), settled: epoch(settled) };
    stage.say_as(from, at, to, message);
}

// -- V1 ----------------------------------------------------------------------------------------------

#[test]
pub(crate) fn v1_the_ring_is_of_up_and_leaving_members_the_next_of_up_and_joining_ones() {
    let view = view(1, "1 2- 3+");
    let (ring, next) = (Ring::of(&view), Ring::next_of(&view).expect("it is another"));
    let mut owners = (BTreeSet::new(), BTreeSet::new());
    for i in 0..200 {
        let chain = Chain::of(format!("{i}").as_bytes(), 9);
        owners.0.extend(ring.owners(&chain).machines());
        owners.1.extend(next.owners(&chain).machines());
    }
    assert_eq!(owners, (BTreeSet::from([0, 1]), BTreeSet::from([0, 2])));
}

#[test]
pub(crate) fn v1_a_view_has_a_name_and_an_incarnation_once_and_nobody_who_was_forced_out() {
    let one = view(1, "1 2").members().to_vec();
    let twin = view(1, "102").members().to_vec();
    let make = |members, out| View::new(ClusterId::new(7), epoch(1), 9, members, out);
    assert!(make([one.clone(), twin].concat(), vec![]).is_err());
    assert!(make(one.clone(), vec![Incarnation::new(2)]).is_err());
    assert!(make(one, vec![Incarnation::new(3)]).is_ok());
}

// -- V2 ----------------------------------------------------------------------------------------------

#[test]
pub(crate) fn v2_a_view_is_decided_by_five_warden_slots_and_by_no_fewer() {
    let mut stage = Stage::born("1 2 3");
    stage.start_all();
    stage.lose(|s| s.kind().starts_with("decree_") && s.from != s.to);
    stage.wish(1, Wish::Leave { machine: machine(3) }, 8 * SEC, |_| false);
    assert!(!stage.said(0, 0, "decree_prepare").is_empty(), "nobody has tried");
    assert_eq!([1, 2, 3].map(|n| stage.epoch(n)), [1, 1, 1]);
    stage.heal();
    stage.wish(1, Wish::Leave { machine: machine(3) }, 15 * SEC, |s| s.epoch(1) > 1);
    assert!(stage.epoch(1) > 1);
}

#[test]
pub(crate) fn v2_a_wardens_promise_and_accept_are_durable_before_anyone_is_told() {
    let mut stage = Stage::born("1 2 3");
    stage.start(2);
    let ask = stage.ask();
    let next = view(2, "1 2 3-");
    for message in [
        Message::DecreePrepare { ask, ballot: ballot(10_001, 1) },
        Message::DecreeAccept { ask, ballot: ballot(10_001, 1), view: next },
    ] {
        stage.hold_disk(2);
        let answers = stage.say_as(1, 1, 2, message);
        assert!(answers.iter().all(|s| s.kind() != "decree_answer"), "{answers:?}");
        let told = stage.said(2, 1, "decree_answer").len();
        stage.sync_disk(2);
        assert_eq!(stage.said(2, 1, "decree_answer").len(), told + 1);
    }
}

#[test]
pub(crate) fn v2_a_restarted_warden_remembers_what_it_promised_and_accepted() {
    let mut stage = Stage::born("1 2 3");
    stage.start(2);
    let (ask, next, high) = (stage.ask(), view(2, "1 2 3-"), ballot(10_002, 1));
    stage.say_as(1, 1, 2, Message::DecreePrepare { ask, ballot: high });
    stage.say_as(1, 1, 2, Message::DecreeAccept { ask, ballot: high, view: next.clone() });
    stage.crash(2);
    stage.start(2);
    let low = stage.answer_to(3, 1, 2, Message::DecreePrepare { ask, ballot: ballot(10_001, 3) });
    let refused = Message::DecreeAnswer { ask, answer: DecreeAnswer::Refused { beat: high } };
    assert_eq!(low.map(|e| e.message), Some(refused));
    let higher = ballot(10_003, 3);
    let told = stage.answer_to(3, 1, 2, Message::DecreePrepare { ask, ballot: higher });
    let answer = DecreeAnswer::Promised { ballot: higher, accepted: Some((high, next)) };
    assert_eq!(told.map(|e| e.message), Some(Message::DecreeAnswer { ask, answer }));
}

#[test]
pub(crate) fn v2_what_a_warden_of_the_five_accepted_is_what_the_next_proposer_proposes() {
    let mut stage = Stage::born("1 2 3");
    let accepted = view(2, "1 2- 3");
    stage.at(2).decree = Decree {
        epoch: epoch(1),
        promised: ballot(9_000, 1),
        accepted: Some((ballot(9_000, 1), accepted.clone())),
    };
    // Without machine 1, the five are of both.
    stage.start(2);
    stage.start(3);
    stage.wish(3, Wish::Leave { machine: machine(1) }, 15 * SEC, |s| s.epoch(3) > 1);
    assert_eq!(stage.node(3).view(), Some(&accepted));
}

#[test]
pub(crate) fn v2_a_warden_that_has_adopted_the_next_view_answers_with_it() {
    let mut stage = Stage::born("1 2 3");
    let (first, second) = (view(1, "1 2 3"), view(2, "1 2 3-"));
    stage.place(2, &[first, second.clone()], 1, &[1, 2]);
    stage.start(2);
    let ask = stage.ask();
    for message in [
        Message::DecreePrepare { ask, ballot: ballot(10_001, 1) },
        Message::DecreeAccept { ask, ballot: ballot(10_001, 1), view: view(2, "1- 2 3") },
    ] {
        let answer = stage.answer_to(1, 1, 2, message).map(|e| e.message);
        let told = Message::ViewsTold { views: vec![second.clone()], settled: epoch(1) };
        assert_eq!(answer, Some(told));
    }
}

// -- V3 ----------------------------------------------------------------------------------------------

#[test]
pub(crate) fn v3_views_are_adopted_one_by_one_and_in_order() {
    let mut stage = Stage::born("1 2 3");
    stage.start(1);
    let (second, third) = (view(2, "1 2 3-"), view(3, "1 2"));
    views_told(1, &mut stage, 2, std::slice::from_ref(&third), 1);
    assert_eq!(stage.epoch(1), 1, "a view is missing between");
    views_told(1, &mut stage, 2, &[second.clone(), third.clone()], 1);
    assert_eq!(stage.epoch(1), 3);
    let numbers: Vec<u32> = stage.node(1).history().map(|v| v.epoch().number).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
pub(crate) fn v3_a_view_is_durable_before_its_machine_speaks_at_the_new_epoch() {
    let mut stage = Stage::born("1 2 3 4+");
    stage.start(1);
    stage.hold_disk(1);
    views_told(1, &mut stage, 2, &[view(2, "1 2 3 4")], 1);
    let (said, ask) = (stage.log.len(), stage.ask());
    assert_eq!(stage.read(2, 2, 1, &key("k")), None);
    assert_eq!(stage.answer_to(2, 2, 1, Message::ViewAsk { ask }), None);
    assert!(stage.log[said..].iter().all(|s| !s.is(1, 0)), "{:?}", &stage.log[said..]);
    // A crash here, and it has never been at that epoch.
    stage.crash(1);
    stage.start(1);
    assert_eq!(stage.epoch(1), 1);
    stage.hold_disk(1);
    views_told(1, &mut stage, 2, &[view(2, "1 2 3 4")], 1);
    assert_eq!(stage.read(2, 2, 1, &key("k")), None);
    stage.sync_disk(1);
    let answers = stage.said(1, 2, "copy");
    assert_eq!(answers.last().map(|s| s.envelope.epoch), Some(epoch(2)));
}

#[test]
pub(crate) fn v3_what_was_answered_before_the_adoption_is_in_all_that_is_told_after_it() {
    let mut stage = Stage::born("1 2 3 4+");
    stage.start(1);
    let k = key("k");
    stage.hold_disk(1);
    assert_eq!(stage.accept(2, 1, 1, &k, stamp(10_001, 2)), None, "held, and not on disk");
    views_told(1, &mut stage, 2, &[view(2, "1 2 3 4")], 1);
    assert!(stage.tell(4, 2, 1).is_empty());
    stage.sync_disk(1);
    let told = stage.said(1, 4, "told");
    let Some(Message::Told { page, .. }) = told.last().map(|s| &s.envelope.message) else {
        panic!("not told")
    };
    assert!(page.entries.iter().any(|e| e.key == k));
    assert!(page.promised >= ballot(10_001, 2));
}

#[test]
pub(crate) fn v3_a_view_that_no_decree_can_have_made_is_not_adopted_and_the_machine_says_so() {
    let stranger = |n: u64| Member::up(Machine { incarnation: Incarnation::new(100 + n), ..machine(n) }, 8);
    let heavier = |n: u64| Member::up(machine(n), 9);
    let elsewhere = |n: u64| Member { zone: "a".parse().expect("a zone"), ..Member::up(machine(n), 8) };
    let first = view(1, "1 2 3 4+");
    let second = |members: Vec<Member>| Arc::new(first.successor(members, Vec::new()).expect("a view"));
    let with = |m: Member| {
        let others = first.members().iter().filter(|o| o.machine.name != m.machine.name);
        second(others.copied().chain([m]).collect())
    };
    let other_cluster = {
        let cluster = ClusterId::new(99);
        Arc::new(View::new(cluster, epoch(2), 9, first.members().to_vec(), Vec::new()).expect("a view"))
    };
    let other_slots = {
        let members = first.members().to_vec();
        Arc::new(View::new(first.cluster(), epoch(2), 7, members, Vec::new()).expect("a view"))
    };
    for (what, view, said) in [
        ("an owner that was never announced (M1)", view(2, "1 2 3 5"), true),
        ("an owner under another incarnation (V6)", with(stranger(3)), true),
        ("an owner that is to join again", view(2, "1 2 3+ 4+"), true),
        ("a weight out of nowhere", with(heavier(2)), true),
        ("a zone out of nowhere", with(elsewhere(2)), true),
        ("a gap", view(3, "1 2 3 4"), false),
        ("another cluster", other_cluster, false),
        ("another number of slots", other_slots, false),
    ] {
        let mut stage = Stage::born("1 2 3 4+");
        stage.start(1);
        views_told(1, &mut stage, 2, &[view], 1);
        assert_eq!(stage.epoch(1), 1, "{what}");
        let objection = stage.node(1).objection().map(str::to_owned);
        assert_eq!(objection.is_some_and(|o| o.contains("no decree can have made it")), said, "{what}");
    }
    // What a decree does make of it.
    for lawful in ["1 2 3 4", "1 2 3 4+ 5+", "1 2- 3", "1 2"] {
        let mut stage = Stage::born("1 2 3 4+");
        stage.start(1);
        views_told(1, &mut stage, 2, &[view(2, lawful)], 1);
        assert_eq!((stage.epoch(1), stage.node(1).objection()), (2, None), "{lawful}");
    }
}

#[test]
pub(crate) fn f2_a_forced_view_takes_away_and_changes_nothing_else_and_nobody_forced_out_comes_back() {
    let first = view(1, "1 2 3 4+");
    let keep = |names: &[u64]| -> Vec<Member> {
        let kept = first.members().iter().filter(|m| names.contains(&m.machine.incarnation.id()));
        kept.copied().collect()
    };
    let out = vec![Incarnation::new(2), Incarnation::new(3)];
    let fair = first.forced(keep(&[1, 4]), out.clone(), 7).expect("a view");
    assert!(first.may_become(&fair));
    let mut up = keep(&[1, 4]);
    up.iter_mut().for_each(|m| m.state = MemberState::Up);
    let come = Member { machine: machine(5), state: MemberState::Joining, ..first.members()[0] };
    let more = [keep(&[1]), vec![come]].concat();
    for (what, members) in [("a joiner is an owner", up), ("somebody comes", more)] {
        assert!(!first.may_become(&first.forced(members, out.clone(), 7).expect("a view")), "{what}");
    }
    // One that is told so is not adopted either.
    let next = fair.successor(fair.members().to_vec(), vec![Incarnation::new(2)]).expect("a view");
    assert!(!fair.may_become(&next), "machine 3 is forgiven");
}

#[test]
pub(crate) fn v3_who_is_behind_the_last_settled_view_begins_from_it_synced_for_nothing() {
    let mut stage = Stage::born("1 2 3 4");
    stage.start(4);
    let settled = view(5, "1 2 3");
    views_told(4, &mut stage, 1, std::slice::from_ref(&settled), 1);
    assert_eq!(stage.epoch(4), 1, "it is not said to be settled");
    let (now, k) = (view(6, "1 2 3 4+"), key("k"));
    views_told(4, &mut stage, 1, &[settled.clone(), now.clone()], 5);
    assert_eq!(stage.node(4).history().cloned().collect::<Vec<_>>(), [settled, now]);
    assert_eq!(stage.node(4).account().settled, epoch(5));
    assert!(stage.node(4).account().synced.is_empty());
    assert_eq!(stage.node(4).votes_for(&k), SlotSet::EMPTY);
    // Also after a restart: the account may be the last thing that it wrote.
    stage.crash(4);
    stage.start(4);
    assert_eq!(stage.node(4).votes_for(&k), SlotSet::EMPTY);
    assert_eq!(stage.node(4).account().settled, epoch(5));
}

#[test]
pub(crate) fn v3_views_since_the_last_settled_one_are_kept_and_served_to_whoever_is_behind() {
    let mut stage = Stage::born("1 2 3");
    let views = [view(1, "1 2 3"), view(2, "1 2 3 4"), view(3, "1 2 3 4 5")];
    stage.place(1, &views, 1, &[1]);
    stage.start(1);
    let told = |e: Option<Envelope>| match e.map(|e| e.message) {
        Some(Message::ViewsTold { views, settled }) => {
            (views.iter().map(|v| v.epoch().number).collect::<Vec<_>>(), settled.number)
        }
        other => panic!("{other:?}"),
    };
    let answer = stage.answer_to(2, 1, 1, Message::ViewsAsk { after: epoch(1) });
    assert_eq!(told(answer), (vec![2, 3], 1));
    stage.say_as(2, 3, 1, Message::Settled { epoch: epoch(3) });
    let answer = stage.answer_to(2, 1, 1, Message::ViewsAsk { after: epoch(1) });
    assert_eq!(told(answer), (vec![3], 3));
}

// -- V4 ----------------------------------------------------------------------------------------------

#[test]
pub(crate) fn v4_another_clusters_word_is_refused() {
    let mut stage = Stage::born("1 2 3");
    stage.start(1);
    let (ask, k) = (stage.ask(), key("k"));
    for message in [
        Message::Read { ask, key: k.clone(), inline: 0 },
        Message::Prepare { ask, key: k, ballot: ballot(10_001, 2) },
        Message::ViewsTold { views: vec![view(2, "1 2")], settled: epoch(1) },
    ] {
        let envelope = Envelope { cluster: Some(ClusterId::new(8)), epoch: epoch(1), message };
        let said = stage.say_raw(2, 1, envelope);
        assert!(said.is_empty(), "{said:?}");
    }
    assert_eq!(stage.epoch(1), 1);
}

#[test]
pub(crate) fn v4_who_is_behind_fetches_the_missing_views_before_it_answers() {
    let mut stage = Stage::born("1 2 3");
    let second = view(2, "1 2 3-");
    stage.place(2, &[view(1, "1 2 3"), second], 1, &[1, 2]);
    stage.start(1);
    let answer = stage.read(2, 2, 1, &key("k")).map(|e| e.message);
    assert_eq!(answer, Some(Message::ViewsAsk { after: epoch(1) }));
    // Now there is somebody who has them.
    stage.start(2);
    let ask = stage.ask();
    stage.say_as(2, 2, 1, Message::Read { ask, key: key("k"), inline: 0 });
    assert_eq!(stage.epoch(1), 2);
}

#[test]
pub(crate) fn v4_who_is_ahead_answers_with_its_own_epoch() {
    let mut stage = Stage::born("1 2 3");
    stage.place(1, &[view(1, "1 2 3"), view(2, "1 2 3-")], 1, &[1, 2]);
    stage.start(1);
    let answer = stage.read(2, 1, 1, &key("k")).expect("an answer");
    assert!(matches!(answer.message, Message::Answer { answer: Answer::Copy(_), .. }));
    assert_eq!(answer.epoch, epoch(2));
}

// -- V5 ----------------------------------------------------------------------------------------------

#[test]
pub(crate) fn v5_a_machine_that_is_not_in_its_newest_view_does_not_vote_but_tells() {
    let mut stage = Stage::born("1 2 3 4");
    let (first, second, k) = (view(1, "1 2 3 4"), view(2, "1 2 3"), key("k"));
    stage.place(4, &[first.clone(), second], 1, &[1]);
    stage.put(4, &k, record(stamp(100, 1), Some("v"), slots_of(&first, &k, 4)));
    stage.start(4);
    assert_eq!(stage.node(4).votes_for(&k), SlotSet::EMPTY);
    for answer in [
        stage.prepare(1, 2, 4, &k, ballot(10_001, 1)),
        stage.accept(1, 2, 4, &k, stamp(10_001, 1)),
        stage.read(1, 2, 4, &k),
    ] {
        assert_eq!(votes(answer).unwrap_or_default(), SlotSet::EMPTY);
    }
    let told = stage.tell(1, 2, 4);
    let Some(Message::Told { page, .. }) = told.last().map(|s| &s.envelope.message) else {
        panic!("{told:?}")
    };
    assert!(page.entries.iter().any(|e| e.key == k));
}

#[test]
pub(crate) fn v5_only_members_take_part_in_rounds() {
    let mut stage = Stage::born("1 2 3");
    stage.start(1);
    for stranger in [4, 102] {
        let (k, high) = (key("k"), stamp(10_001, stranger));
        assert_eq!(stage.prepare(stranger, 1, 1, &k, high.ballot), None);
        assert_eq!(stage.accept(stranger, 1, 1, &k, high), None);
    }
}

#[test]
pub(crate) fn v5_who_was_dropped_may_join_again_under_the_same_incarnation() {
    let mut stage = Stage::born("1 2 3 4");
    stage.tuning.probe_every = 250 * MS;
    for n in 1..=3 {
        stage.place(n, &[view(2, "1 2 3")], 2, &[2]);
    }
    stage.start_all();
    stage.until(30 * SEC, |s| {
        s.node(4).view().is_some_and(|v| v.epoch() > epoch(2) && v.members().len() == 4)
    });
    stage.until(30 * SEC, |s| s.node(4).is_synced() && s.node(4).is_settled());
    assert!(stage.node(1).view().expect("a view").has(machine(4)));
    assert!(stage.node(4).is_synced() && stage.epoch(4) > 3);
}

// -- V6 ----------------------------------------------------------------------------------------------

#[test]
pub(crate) fn v6_a_name_under_a_new_incarnation_drops_the_old_one_in_the_view_that_admits_it() {
    let mut stage = Stage::born("1 2 3 4");
    stage.tuning.probe_every = 250 * MS;
    stage.computers.insert(104, Default::default());
    for n in [1, 2, 3] {
        stage.start(n);
    }
    stage.at(104).birth = Some(Birth::Join(vec![machine(1).name]));
    stage.start(104);
    let admits = |v: &View| v.has(machine(104));
    stage.until(20 * SEC, |s| admits(s.node(1).view().expect("a view")));
    let newest = stage.node(1).view().expect("a view");
    assert!(newest.has(machine(104)) && !newest.has(machine(4)), "{newest:?}");
    assert_eq!(newest.epoch(), epoch(2), "in the same view");
}

#[test]
pub(crate) fn v6_two_live_machines_do_not_share_a_name() {
    let mut stage = Stage::born("1 2 3 4");
    stage.start_all();
    let said = stage.say_raw(
        104,
        1,
        Envelope {
            cluster: None,
            epoch: ennead_ring::Epoch::ZERO,
            message: Message::Blank { weight: 8, zone: Zone::NONE, gathers: false },
        },
    );
    assert!(said.iter().any(|s| s.kind() == "not_taken"), "{said:?}");
    stage.wait(5 * SEC);
    assert_eq!(stage.epoch(1), 1);
}

// -- V7 ----------------------------------------------------------------------------------------------

#[test]
pub(crate) fn v7_a_dead_machine_is_dropped_after_a_patience_that_outlasts_a_restart() {
    let mut stage = Stage::born("1 2 3");
    stage.tuning.probe_every = 250 * MS;
    stage.start_all();
    stage.wait(3 * SEC);
    stage.crash(3);
    stage.wait(25 * SEC);
    stage.start(3);
    stage.wait(30 * SEC);
    assert_eq!(stage.epoch(1), 1, "it was away for less than the patience");
    stage.crash(3);
    stage.until(60 * SEC, |s| s.epoch(1) > 1);
    assert!(!stage.node(1).view().expect("a view").has(machine(3)));
}

#[test]
pub(crate) fn v7_nobody_is_dropped_while_more_are_missing_than_the_table_allows() {
    let mut stage = Stage::born("1 2 3 4 5 6 7 8 9 10 11 12");
    stage.tuning.probe_every = 250 * MS;
    stage.start_all();
    stage.wait(SEC);
    // Five of twelve, of which as few as can be are wardens: those could still decide.
    let first = view(1, "1 2 3 4 5 6 7 8 9 10 11 12");
    let is_warden = |n: &u64| !slots_of(&first, &key("\0view"), *n).is_empty();
    let (wardens, mut gone): (Vec<u64>, Vec<u64>) = (1..=12).partition(is_warden);
    gone.extend(&wardens[..2]);
    for n in &gone {
        stage.crash(*n);
    }
    stage.wait(60 * SEC);
    assert_eq!(stage.epoch(wardens[8]), 1);
    stage.start(gone[4]);
    stage.until(60 * SEC, |s| s.epoch(wardens[8]) > 1);
    stage.wait(5 * SEC);
    let newest = stage.node(wardens[8]).view().expect("a view");
    assert!(gone[..4].iter().all(|n| !newest.has(machine(*n))), "{newest:?}");
}

#[test]
pub(crate) fn v7_who_said_that_it_is_warm_and_died_since_does_not_become_an_owner() {
    let mut stage = Stage::born("1 2 3");
    stage.tuning.probe_every = 250 * MS;
    let now = view(2, "1 2 3 4+ 5+ 6+ 7+ 8+ 9+");
    for n in 1..=3 {
        stage.place(n, &[view(1, "1 2 3"), now.clone()], 1, &[1]);
    }
    stage.start_all();
    // All who join say that they are warm, and die; the view is settled after that.
    stage.lose(|s| s.is(3, 0) && s.kind() == "word");
    for joining in 4..=9 {
        for warden in 1..=3 {
            stage.say_as(joining, 2, warden, Message::Word { synced: false, warm: true });
        }
    }
    stage.wait(10 * SEC);
    stage.heal();
    stage.wait(12 * SEC);
    assert!(stage.node(1).is_settled());
    assert_eq!(stage.epoch(1), 2, "six of nine wardens of the next view are dead");
    stage.until(30 * SEC, |s| s.node(1).view().is_some_and(|v| v.members().len() == 3));
    assert_eq!(stage.node(1).view().map(|v| v.members().to_vec()), Some(view(1, "1 2 3").members().to_vec()));
}

#[test]
pub(crate) fn v7_nobody_proposes_a_view_whose_own_five_warden_slots_it_does_not_hear() {
    let mut stage = Stage::born("1 2 3 4 5 6");
    stage.tuning.probe_every = 250 * MS;
    let now = view(2, "1- 2- 3- 4 5 6");
    for n in 1..=6 {
        stage.place(n, &[view(1, "1 2 3 4 5 6"), now.clone()], 1, &[1, 2]);
    }
    for n in 1..=4 {
        stage.start(n);
    }
    // Two of the three that stay have said that all is there, and died; the view is settled after that.
    stage.lose(|s| s.is(3, 0) && s.kind() == "word");
    for dead in 5..=6 {
        for warden in 1..=4 {
            stage.say_as(dead, 2, warden, Message::Word { synced: true, warm: true });
        }
    }
    stage.wait(10 * SEC);
    stage.heal();
    stage.wait(12 * SEC);
    assert!(stage.node(1).is_settled());
    assert_eq!(stage.epoch(1), 2, "the next view would be of three, of whom two are dead");
}

#[test]
pub(crate) fn v7_an_unsettled_view_is_not_reshaped_except_to_drop_the_dead() {
    let mut stage = Stage::born("1 2 3 4");
    stage.tuning.probe_every = 250 * MS;
    for n in 1..=4 {
        stage.place(n, &[view(1, "1 2 3"), view(2, "1 2 3 4")], 1, if n < 4 { &[1] } else { &[] });
    }
    stage.start_all();
    stage.lose(|s| s.is(4, 0) && s.kind() == "word");
    stage.wish(1, Wish::Leave { machine: machine(2) }, 10 * SEC, |_| false);
    assert_eq!(stage.epoch(1), 2);
    stage.crash(3);
    stage.until(60 * SEC, |s| s.epoch(1) > 2);
    let newest = stage.node(1).view().expect("a view").clone();
    assert_eq!(newest.members(), view(3, "1 2 4").members());
}

#[test]
pub(crate) fn v7_nobody_is_dropped_for_a_while_in_a_view_that_many_are_about_to_be_synced_in() {
    for they_say_so in [false, true] {
        let mut stage = Stage::born("1 2 3 4");
        stage.tuning.probe_every = 250 * MS;
        for n in 1..=4 {
            stage.place(n, &[view(1, "1 2 3"), view(2, "1 2 3 4")], 1, if n < 4 { &[1] } else { &[] });
        }
        stage.start_all();
        stage.lose(|s| s.kind() == "word");
        stage.crash(3);
        stage.wait(2 * SEC);
        let gone = Wish::Remove { machine: machine(3) };
        stage.wish(1, gone, 4 * SEC, |s| s.epoch(1) > 2);
        assert_eq!(stage.epoch(1), 2, "six seconds after it began, and nobody is known to be synced");
        if they_say_so {
            stage.heal();
            stage.wish(1, gone, 3 * SEC, |s| s.epoch(1) > 2);
        } else {
            stage.wish(1, gone, 8 * SEC, |s| s.epoch(1) > 2);
        }
        assert!(!stage.node(1).view().expect("a view").has(machine(3)), "they say so: {they_say_so}");
    }
}

#[test]
pub(crate) fn v7_what_is_pending_is_done_in_one_view() {
    let mut stage = Stage::born("1 2 3");
    stage.start_all();
    for n in 4..=6 {
        let blank = Envelope {
            cluster: None,
            epoch: ennead_ring::Epoch::ZERO,
            message: Message::Blank { weight: 8, zone: Zone::NONE, gathers: false },
        };
        stage.say_raw(n, 1, blank);
    }
    stage.until(5 * SEC, |s| s.epoch(1) > 1);
    assert_eq!(stage.node(1).view(), Some(&view(2, "1 2 3 4+ 5+ 6+")));
}
