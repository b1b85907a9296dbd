//! Section 6: sync, and what is forgotten once a view is settled.

use std::collections::BTreeSet;

use ennead_ring::message::{Answer, Ask, Held, Message, Page, Purpose, TellRequest};
use ennead_ring::{Account, Key, Record, SlotSet, View};

use super::stage::{MS, SEC, Said, Stage, epoch, find_key, key, machine, record, slots_of, stamp, view};

const NINE: &str = "1 2 3 4 5 6 7 8 9";
/// Nine is gone, and 10 came.
const TENTH: &str = "1 2 3 4 5 6 7 8 10";

fn all_of(n: impl IntoIterator<Item = u64>) -> Vec<u64> {
    n.into_iter().collect()
}

/// View 1 is settled, and all its members were synced in it; these machines are in view 2 now, and not yet synced.
fn moved(first: &str, second: &str, machines: &[u64]) -> Stage {
    let (first, second) = (view(1, first), view(2, second));
    let mut stage = Stage::new(machines.iter().copied());
    for &n in machines {
        let synced: &[u32] = if first.has(machine(n)) { &[1] } else { &[] };
        stage.place(n, &[first.clone(), second.clone()], 1, synced);
    }
    stage
}

/// A key of which the tenth machine owns the slot that was the ninth's, and all others what they did.
fn tenths(first: &View, second: &View) -> Key {
    let stays = |k: &Key, n| slots_of(first, k, n) == slots_of(second, k, n);
    find_key(|k| (1..=8).all(|n| stays(k, n)))
}

fn pages(said: &[Said]) -> Vec<Page> {
    let page = |s: &Said| match &s.envelope.message {
        Message::Told { page, .. } => Some((**page).clone()),
        _ => None,
    };
    said.iter().filter_map(page).collect()
}

fn ask_of(said: &Said) -> Option<Ask> {
    match said.envelope.message {
        Message::Tell { ask, .. } | Message::Told { ask, .. } => Some(ask),
        _ => None,
    }
}

fn requests(stage: &Stage, from: u64) -> Vec<(Said, TellRequest)> {
    let request = |s: &&Said| match &s.envelope.message {
        Message::Tell { request, .. } => Some(((*s).clone(), (**request).clone())),
        _ => None,
    };
    stage.log.iter().filter(|s| s.is(from, 0)).filter_map(|s| request(&s)).collect()
}

// -- S1 ----------------------------------------------------------------------------------------------

#[test]
pub(crate) fn s1_an_owner_that_owned_the_slot_synced_in_the_view_before_is_synced_in_the_new_one() {
    let (first, second) = (view(1, "1 2 3"), view(2, "1 2 3 4"));
    let mut stage = moved("1 2 3", "1 2 3 4", &[1, 2, 3, 4]);
    for n in 1..=4 {
        stage.start(n);
    }
    for i in 0..200 {
        let k = key(&format!("{i}"));
        for n in 1..=4 {
            let both = slots_of(&first, &k, n).intersection(slots_of(&second, &k, n));
            assert_eq!(stage.node(n).votes_for(&k), both, "{n}, {k}");
        }
    }
}

#[test]
pub(crate) fn s1_ownership_that_was_broken_even_for_one_epoch_is_not_synced() {
    let views = [view(1, "1 2 3 4"), view(2, "1 2 3"), view(3, "1 2 3 4")];
    let mut stage = Stage::new(1..=4);
    for n in 1..=4 {
        stage.place(n, &views, 1, &[1]);
        stage.start(n);
    }
    for i in 0..100 {
        let k = key(&format!("{i}"));
        assert_eq!(stage.node(4).votes_for(&k), SlotSet::EMPTY, "{k}");
        for n in 1..=3 {
            let kept =
                views.iter().map(|v| slots_of(v, &k, n)).reduce(SlotSet::intersection).unwrap_or_default();
            assert_eq!(stage.node(n).votes_for(&k), kept, "{n}, {k}");
        }
    }
}

#[test]
pub(crate) fn s1_who_stays_synced_says_so_only_once_that_is_durable() {
    let mut stage = Stage::born("1 2 3");
    stage.start(1);
    stage.hold_disk(1);
    // The ring is the same: all stay synced.
    let told = Message::ViewsTold { views: vec![view(2, "1 2 3-")], settled: epoch(1) };
    stage.say_as(2, 2, 1, told);
    assert!(stage.node(1).is_synced());
    stage.wait(SEC);
    assert!(stage.said(1, 0, "word").is_empty());
    // The view made it to the disk, the account did not.
    let views = stage.unsynced(1).len() - 1;
    stage.crash_after(1, views);
    stage.start(1);
    stage.wait(SEC);
    let account = &stage.computers[&1].account;
    let words = stage.said(1, 2, "word");
    let synced = |s: &&&Said| matches!(s.envelope.message, Message::Word { synced: true, .. });
    assert!(!words.iter().any(|s| synced(&s)) || account.synced.contains(&epoch(2)), "{account:?}");
}

// -- S2 ----------------------------------------------------------------------------------------------

#[test]
pub(crate) fn s2_asks_all_members_and_whoever_else_owned_slots_in_views_not_yet_settled() {
    let mut stage = Stage::new([5]);
    stage.place(5, &[view(1, "1 2 3 6+"), view(2, "1 2 4"), view(3, "2 4 5")], 1, &[]);
    stage.start_all();
    // Nobody answers: nothing is copied first.
    stage.wait(3 * SEC);
    let asks = |n: &u64| requests(&stage, 5).iter().any(|(s, r)| s.is(5, *n) && r.purpose == Purpose::Sync);
    let asked: BTreeSet<u64> = (1..=6).filter(asks).collect();
    assert_eq!(asked, BTreeSet::from([1, 2, 3, 4]));
}

// -- S3 ----------------------------------------------------------------------------------------------

#[test]
pub(crate) fn s3_tells_only_once_it_has_adopted_the_askers_view() {
    let mut stage = Stage::born("1 2 3 4+");
    stage.start(1);
    let said = stage.tell(4, 2, 1);
    assert!(pages(&said).is_empty() && said.iter().any(|s| s.kind() == "views_ask"), "{said:?}");
    let views = vec![view(2, "1 2 3 4")];
    stage.say_as(4, 2, 1, Message::ViewsTold { views, settled: epoch(1) });
    let told = stage.tell(4, 2, 1);
    assert_eq!(
        told.iter().filter(|s| s.kind() == "told").map(|s| s.envelope.epoch).collect::<Vec<_>>(),
        [epoch(2)]
    );
    // Nor for a view that it has left behind.
    assert!(pages(&stage.tell(2, 1, 1)).is_empty());
}

#[test]
pub(crate) fn s3_tells_its_records_with_their_votes_what_it_promised_its_bound_and_its_views() {
    let (first, k) = (view(1, "1 2 3"), key("k"));
    let mut stage = moved("1 2 3", "1 2 3 4", &[1]);
    let kept = record(stamp(100, 2), Some("v"), slots_of(&first, &k, 1));
    stage.put(1, &k, kept.clone());
    stage.set_bound(1, 50, 6);
    stage.start(1);
    let high = stamp(10_001, 2).ballot;
    stage.prepare(2, 2, 1, &key("other"), high);
    let told = stage.tell(4, 2, 1);
    let [page] = &pages(&told)[..] else { panic!("{told:?}") };
    let held = Held::Record {
        stamp: kept.stamp,
        votes: kept.votes,
        tombstone: false,
        state: Some(kept.state.clone()),
    };
    assert_eq!(page.entries.iter().map(|e| (&e.key, &e.held)).collect::<Vec<_>>(), [(&k, &held)]);
    assert!(page.promised >= high);
    assert_eq!((page.bound.time.nanos(), page.bound.version), (50 * SEC, 6));
    let account = Account { settled: epoch(1), synced: vec![epoch(1)], left: false };
    assert_eq!(page.account, account, "synced in view 1, and not yet in view 2");
    // Closed: "none" for every other key.
    assert_eq!(page.upto, None);
}

#[test]
pub(crate) fn s3_what_it_held_before_it_was_synced_it_tells_as_never_voted() {
    let (first, second) = (view(1, "1 2 3"), view(2, "1 2 3 4 5"));
    let k = find_key(|k| !slots_of(&second, k, 4).is_empty() && !slots_of(&second, k, 5).is_empty());
    let mut stage = moved("1 2 3", "1 2 3 4 5", &[1, 2, 3, 4, 5]);
    for n in 1..=3 {
        stage.put(n, &k, record(stamp(100, 1), Some("v"), slots_of(&first, &k, n)));
    }
    stage.put(4, &k, record(stamp(100, 1), Some("v"), SlotSet::EMPTY));
    // It looks for one who asks, and becomes synced after that.
    stage.lose(|s| s.is(0, 4) && s.kind() == "told");
    stage.start_all();
    stage.wait(MS);
    let before = pages(&stage.tell(5, 2, 4));
    assert!(before.iter().all(|p| !p.account.synced.contains(&epoch(2))), "{before:?}");
    stage.heal();
    stage.until(5 * SEC, |s| s.node(4).is_synced());
    assert!(stage.node(4).is_synced());
    let mut now = Vec::new();
    for _ in 0..6 {
        now.extend(pages(&stage.tell(5, 2, 4)));
        stage.wait(SEC);
    }
    // Whether a page says "synced" or not: if it does, it has what it was synced with.
    let held = |p: &Page| p.entries.iter().find(|e| e.key == k).map(|e| e.held.clone());
    let with_votes = |p: &Page| matches!(held(p), Some(Held::Record { votes, .. }) if !votes.is_empty());
    assert!(now.iter().all(|p| !p.account.synced.contains(&epoch(2)) || with_votes(p)), "{now:?}");
    assert!(now.iter().any(|p| p.account.synced.contains(&epoch(2))), "{now:?}");
}

/// Machines 1 to 3 are in view 1 and 2, machine 4 is new and has copied these keys ahead.
fn copied_ahead(keys: &[Key]) -> Stage {
    let (first, second) = (view(1, "1 2 3"), view(2, "1 2 3 4"));
    let mut stage = moved("1 2 3", "1 2 3 4", &[1, 2, 3, 4]);
    for k in keys {
        for n in 1..=3 {
            stage.put(n, k, record(stamp(100, 1), Some("v"), slots_of(&first, k, n)));
        }
        if !slots_of(&second, k, 4).is_empty() {
            stage.put(4, k, record(stamp(100, 1), Some("v"), SlotSet::EMPTY));
        }
    }
    stage
}

fn some_keys() -> Vec<Key> {
    (0..300).map(|i| key(&format!("k{i:03}"))).collect()
}

#[test]
pub(crate) fn s3_what_is_believed_and_right_is_told_by_its_digest_alone() {
    let (keys, second) = (some_keys(), view(2, "1 2 3 4"));
    let mut stage = copied_ahead(&keys);
    stage.start_all();
    stage.until(5 * SEC, |s| s.node(4).is_synced());
    let listed: usize = pages(&stage.log).iter().map(|page| page.entries.len()).sum();
    assert_eq!(listed, 0, "nothing has to be named");
    for k in &keys {
        let votes = stage.holds(4, k).map_or(SlotSet::EMPTY, |r| r.votes);
        assert_eq!(votes, slots_of(&second, k, 4), "all that it owns was voted for: {k}");
    }
}

#[test]
pub(crate) fn s3_what_is_believed_and_wrong_is_told_as_it_is() {
    believed_and_wrong(40);
}

#[test]
pub(crate) fn s3_what_is_not_listed_is_proven() {
    believed_and_wrong(3);
}

/// Of one key in so many.
fn believed_and_wrong(every: usize) {
    let (keys, second) = (some_keys(), view(2, "1 2 3 4"));
    let mut stage = copied_ahead(&keys);
    let first = view(1, "1 2 3");
    let gained = |k: &&Key| !slots_of(&second, k, 4).is_empty();
    let changed: Vec<&Key> = keys.iter().filter(gained).step_by(every).collect();
    for (i, k) in changed.iter().enumerate() {
        for n in 1..=3 {
            let votes = slots_of(&first, k, n);
            match i % 3 {
                // Written since it was copied.
                0 => stage.put(n, k, record(stamp(200, 2), Some("w"), votes)),
                // Held without votes.
                1 => stage.put(n, k, record(stamp(100, 1), Some("v"), SlotSet::EMPTY)),
                // Collected, with a bound that speaks of it.
                _ => drop(stage.at(n).records.remove(*k)),
            }
        }
    }
    stage.start_all();
    stage.until(5 * SEC, |s| s.node(4).is_synced());
    for (i, k) in changed.iter().enumerate() {
        let held = stage.holds(4, k);
        let voted = held.as_ref().map_or(SlotSet::EMPTY, |r| r.votes);
        match i % 3 {
            0 => assert_eq!(held.map(|r| (r.stamp, r.votes)), Some((stamp(200, 2), slots_of(&second, k, 4)))),
            1 => assert_eq!(voted, SlotSet::EMPTY, "a copy of hearsay is no vote"),
            _ => assert_eq!(held, None, "what it held from before counts for nothing"),
        }
    }
}

// -- S4 ----------------------------------------------------------------------------------------------

#[test]
pub(crate) fn s4_handoff_the_owner_before_alone_covers_everything() {
    let (first, second) = (view(1, "1 2 3"), view(2, "1 2 3 4"));
    let mut stage = moved("1 2 3", "1 2 3 4", &[1, 2, 3, 4]);
    let keys: Vec<Key> = (0..20).map(|i| key(&format!("{i}"))).collect();
    for k in &keys {
        for n in 1..=3 {
            stage.put(n, k, record(stamp(100, 1), Some("v"), slots_of(&first, k, n)));
        }
    }
    stage.start_all();
    stage.until(5 * SEC, |s| s.node(4).is_synced());
    let requests = requests(&stage, 4);
    let mut sync = requests.iter().filter(|(_, r)| r.purpose == Purpose::Sync).peekable();
    assert!(sync.peek().is_some() && sync.all(|(_, r)| r.handoff));
    let copies = requests.iter().filter(|(_, r)| r.purpose == Purpose::Copy);
    let copies: Vec<Ask> = copies.filter_map(|(said, _)| ask_of(said)).collect();
    let told = |s: &&Said| s.is(0, 4) && s.kind() == "told" && ask_of(s).is_none_or(|a| !copies.contains(&a));
    for said in stage.log.iter().filter(told) {
        let teller = (1..=3).find(|n| said.is(*n, 4)).expect("a teller");
        for entry in pages(std::slice::from_ref(said)).iter().flat_map(|p| &p.entries) {
            let gained = slots_of(&second, &entry.key, 4);
            let owned = slots_of(&first, &entry.key, teller);
            assert!(!owned.intersection(gained).is_empty(), "{teller} told of {}", entry.key);
        }
    }
    for k in &keys {
        let votes = stage.holds(4, k).map_or(SlotSet::EMPTY, |r| r.votes);
        assert_eq!(votes, slots_of(&second, k, 4), "all that it owns was voted for: {k}");
    }
}

#[test]
pub(crate) fn s4_recovery_five_others_cover_the_slot_of_one_that_is_gone() {
    let (first, second) = (view(1, NINE), view(2, TENTH));
    let k = tenths(&first, &second);
    for alive in [8, 5] {
        let machines: Vec<u64> = all_of((1..=alive).chain([10]));
        let mut stage = moved(NINE, TENTH, &machines);
        stage.tuning.probe_every = 250 * MS;
        for &n in &machines[..alive as usize] {
            stage.put(n, &k, record(stamp(100, 1), Some("v"), slots_of(&first, &k, n)));
        }
        stage.start_all();
        stage.until(20 * SEC, |s| s.node(10).is_synced());
        assert!(stage.node(10).is_synced(), "{alive} of nine are there");
        let held = stage.holds(10, &k).expect("a record");
        assert_eq!((held.stamp, held.votes), (stamp(100, 1), slots_of(&second, &k, 10)));
    }
}

#[test]
pub(crate) fn s4_waits_while_five_are_missing() {
    let mut stage = moved(NINE, "1 2 3 4 10", &[1, 2, 3, 4, 5, 10]);
    for n in [1, 2, 3, 4, 10] {
        stage.start(n);
    }
    stage.wait(60 * SEC);
    assert!(!stage.node(10).is_synced(), "five of view 1 have told nothing");
    stage.start(5);
    stage.until(30 * SEC, |s| s.node(10).is_synced());
    assert!(stage.node(10).is_synced(), "four may be lost");
}

#[test]
pub(crate) fn s4_voted_in_a_later_view_covers_the_earlier_ones() {
    // View 1's others are gone; those of view 2 were synced in it, and that is enough.
    let views = [view(1, NINE), view(2, "1 2 3"), view(3, "1 2 3 10")];
    let mut stage = Stage::new([1, 2, 3, 10]);
    for n in 1..=3 {
        stage.place(n, &views, 1, &[1, 2]);
    }
    stage.place(10, &views, 1, &[]);
    stage.start_all();
    stage.until(20 * SEC, |s| s.node(10).is_synced());
    assert!(stage.node(10).is_synced());
}

#[test]
pub(crate) fn s4_the_highest_settled_view_told_is_adopted_first() {
    let views = [view(1, NINE), view(2, "1 2 3"), view(3, "1 2 3 10")];
    let mut stage = Stage::new([1, 10]);
    stage.place(1, &views[1..], 2, &[2]);
    stage.place(10, &views, 1, &[]);
    stage.start_all();
    stage.until(5 * SEC, |s| s.node(10).account().settled == epoch(2));
    assert_eq!(stage.node(10).account().settled, epoch(2));
}

// -- S5 ----------------------------------------------------------------------------------------------

/// View 2 without the ninth, whose slot of a key the tenth has: some hold a record of 100 s, others one of 200 s.
fn two_stamps(low: &[u64], high: &[u64]) -> (Stage, Key, Option<Record>) {
    let (first, second) = (view(1, NINE), view(2, TENTH));
    let k = tenths(&first, &second);
    let mut stage = moved(NINE, TENTH, &[1, 2, 3, 4, 5, 6, 7, 8, 10]);
    for (machines, seconds) in [(low, 100), (high, 200)] {
        for &n in machines {
            stage.put(n, &k, record(stamp(seconds, 1), Some("v"), slots_of(&first, &k, n)));
        }
    }
    stage.tuning.probe_every = 250 * MS;
    stage.start_all();
    stage.until(20 * SEC, |s| s.node(10).is_synced());
    assert!(stage.node(10).is_synced());
    let held = stage.holds(10, &k);
    (stage, k, held)
}

#[test]
pub(crate) fn s5_takes_the_highest_stamped_record_of_those_who_voted() {
    let (_, _, held) = two_stamps(&[1, 2, 3, 4, 5], &[6]);
    assert_eq!(held.map(|r| r.stamp), Some(stamp(200, 1)));
}

#[test]
pub(crate) fn s5_the_floor_rises_to_the_highest_ballot_promised() {
    let mut stage = moved("1 2 3", "1 2 3 4", &[1, 2, 3, 4]);
    for n in 1..=3 {
        stage.start(n);
    }
    let high = stamp(10_002, 1).ballot;
    stage.prepare(2, 2, 1, &key("k"), high);
    stage.start(4);
    stage.until(SEC, |s| s.node(4).is_synced());
    assert!(stage.node(4).is_synced());
    let limits = stage.computers[&4].limits;
    assert!(limits.floor >= high.time && limits.ceiling >= limits.floor, "{limits:?}");
    // What it would have refused as the owner before, it refuses.
    let second = view(2, "1 2 3 4");
    let k = find_key(|k| !slots_of(&second, k, 4).is_empty());
    let answer = stage.prepare(3, 2, 4, &k, stamp(10_001, 3).ballot).map(|e| e.message);
    assert!(matches!(answer, Some(Message::Answer { answer: Answer::Refused { .. }, .. })), "{answer:?}");
}

#[test]
pub(crate) fn s5_the_bound_rises_to_the_highest_bound_told() {
    let mut stage = moved("1 2 3", "1 2 3 4", &[1, 2, 3, 4]);
    stage.set_bound(2, 500, 7);
    stage.start_all();
    stage.until(SEC, |s| s.node(4).is_synced());
    let bound = stage.computers[&4].limits.bound;
    assert_eq!((bound.time.nanos(), bound.version), (500 * SEC, 7));
}

#[test]
pub(crate) fn s5_own_record_from_before_the_last_settled_view_is_void() {
    let (then, settled, now) = (view(1, "1 2 3 4"), view(5, "1 2 3"), view(6, "1 2 3 4"));
    let k = find_key(|k| !slots_of(&then, k, 4).is_empty());
    for lower in [false, true] {
        let mut stage = Stage::new(1..=4);
        for n in 1..=3 {
            stage.place(n, &[settled.clone(), now.clone()], 5, &[5]);
            if lower {
                stage.put(n, &k, record(stamp(100, 1), Some("new life"), slots_of(&settled, &k, n)));
            }
        }
        stage.place(4, &[settled.clone(), now.clone()], 5, &[]);
        stage.put(4, &k, record(stamp(200, 1), Some("collected since"), slots_of(&then, &k, 4)));
        stage.start_all();
        stage.until(5 * SEC, |s| s.node(4).is_synced());
        assert!(stage.node(4).is_synced());
        let held = stage.holds(4, &k).map(|r| r.stamp);
        assert_eq!(held, lower.then_some(stamp(100, 1)));
    }
}

#[test]
pub(crate) fn s5_own_record_counts_like_any_others_where_it_voted_since() {
    let (first, views) = (view(1, "1 2 3 4"), [view(1, "1 2 3 4"), view(2, "1 2 3"), view(3, "1 2 3 4")]);
    let k = find_key(|k| !slots_of(&first, k, 4).is_empty());
    let mut stage = Stage::new(1..=4);
    for n in 1..=4 {
        stage.place(n, &views, 1, if n == 4 { &[1] } else { &[1, 2] });
    }
    stage.put(4, &k, record(stamp(200, 1), Some("v"), slots_of(&first, &k, 4)));
    stage.start_all();
    stage.until(5 * SEC, |s| s.node(4).is_synced());
    assert!(stage.node(4).is_synced());
    assert_eq!(stage.holds(4, &k).map(|r| r.stamp), Some(stamp(200, 1)));
}

// -- S6 ----------------------------------------------------------------------------------------------

#[test]
pub(crate) fn s6a_a_copy_is_a_vote_only_for_slots_whose_last_voter_told_it_as_one() {
    let (first, second) = (view(1, "1 2 3"), view(2, "1 2 3 4"));
    let from = |k: &Key, n| slots_of(&second, k, 4).intersection(slots_of(&first, k, n));
    let k = find_key(|k| !from(k, 1).is_empty() && !from(k, 2).is_empty());
    let mut stage = moved("1 2 3", "1 2 3 4", &[1, 2, 3, 4]);
    stage.put(1, &k, record(stamp(100, 1), Some("v"), slots_of(&first, &k, 1)));
    stage.put(2, &k, record(stamp(100, 1), Some("v"), SlotSet::EMPTY));
    stage.start_all();
    stage.until(5 * SEC, |s| s.node(4).is_synced());
    assert_eq!(stage.holds(4, &k).map(|r| (r.stamp, r.votes)), Some((stamp(100, 1), from(&k, 1))));
}

#[test]
pub(crate) fn s6a_every_later_owner_must_have_told_that_it_never_voted() {
    // 1 to 5 to 4: what 1 told is a vote if 5 never voted, and hearsay if it did, for something else.
    let views = [view(1, "1 2 3"), view(2, "1 2 3 5"), view(3, "1 2 3 4")];
    let through = |k: &Key| slots_of(&views[0], k, 1).intersection(slots_of(&views[1], k, 5));
    let gained = |k: &Key| through(k).intersection(slots_of(&views[2], k, 4));
    let k = find_key(|k| !gained(k).is_empty());
    for voted in [false, true] {
        let mut stage = Stage::new(1..=5);
        for n in 1..=3 {
            stage.place(n, &views, 1, &[1]);
        }
        stage.place(4, &views, 1, &[]);
        stage.place(5, &views, 1, if voted { &[2] } else { &[] });
        stage.put(1, &k, record(stamp(100, 1), Some("v"), slots_of(&views[0], &k, 1)));
        stage.start_all();
        stage.until(5 * SEC, |s| s.node(4).is_synced());
        assert!(stage.node(4).is_synced());
        let held = stage.holds(4, &k).expect("a record");
        let granted = held.votes.intersection(gained(&k));
        assert_eq!(granted, if voted { SlotSet::EMPTY } else { gained(&k) }, "5 voted: {voted}");
    }
}

#[test]
pub(crate) fn s6b_five_votes_told_make_it_a_vote_and_four_do_not() {
    for (voters, is_vote) in [(vec![1, 2, 3, 4, 5], true), (vec![1, 2, 3, 4], false)] {
        let (_, k, held) = two_stamps(&voters, &[]);
        let votes = if is_vote { slots_of(&view(2, TENTH), &k, 10) } else { SlotSet::EMPTY };
        assert_eq!(held.map(|r| (r.stamp, r.votes)), Some((stamp(100, 1), votes)), "{voters:?}");
    }
}

// -- S7, S8 ------------------------------------------------------------------------------------------

#[test]
pub(crate) fn s7_votes_only_once_record_floor_and_the_mark_are_durable() {
    let (first, second) = (view(1, "1 2 3"), view(2, "1 2 3 4"));
    let k = find_key(|k| !slots_of(&second, k, 4).is_empty());
    let other = find_key(|o| *o != k && !slots_of(&second, o, 4).is_empty());
    let mut stage = moved("1 2 3", "1 2 3 4", &[1, 2, 3, 4]);
    for n in 1..=3 {
        stage.put(n, &k, record(stamp(100, 1), Some("v"), slots_of(&first, &k, n)));
        stage.start(n);
    }
    stage.hold_disk(4);
    stage.start(4);
    stage.wait(SEC);
    let mine = |s: &Stage| -> SlotSet {
        let votes = |s: &&Said| match s.envelope.message {
            Message::Answer { votes, .. } => votes,
            _ => SlotSet::EMPTY,
        };
        s.log.iter().filter(|s| s.is(4, 0)).map(|s| votes(&s)).fold(SlotSet::EMPTY, SlotSet::union)
    };
    stage.read(1, 2, 4, &other);
    stage.wait(SEC);
    assert_eq!(mine(&stage), SlotSet::EMPTY);
    assert!(
        stage
            .said(4, 0, "word")
            .iter()
            .all(|s| s.envelope.message == Message::Word { synced: false, warm: true })
    );
    // Dead before that: it holds nothing, and has said nothing else.
    stage.crash(4);
    assert!(stage.holds(4, &k).is_none() && stage.computers[&4].account.synced.is_empty());
    stage.start(4);
    stage.until(5 * SEC, |s| s.node(4).is_synced());
    stage.read(1, 2, 4, &other);
    assert_eq!(mine(&stage), slots_of(&second, &other, 4));
    assert!(stage.holds(4, &k).is_some() && stage.computers[&4].account.synced == [epoch(2)]);
}

/// Ten machines, where the first had a key in view 1 of which it owns no slot in view 2.
fn displaced() -> (Stage, Key) {
    let second = "1 2 3 4 5 6 7 8 9 10";
    let mut stage = moved(NINE, second, &all_of(1..=10));
    let k = find_key(|k| slots_of(&view(2, second), k, 1).is_empty());
    for n in 1..=9 {
        stage.put(n, &k, record(stamp(100, 1), Some("v"), slots_of(&view(1, NINE), &k, n)));
    }
    (stage, k)
}

#[test]
pub(crate) fn s8_a_record_is_kept_until_a_later_view_is_settled_t2_and_goes_then() {
    let (mut stage, k) = displaced();
    stage.lose(|s| s.is(3, 0) && s.kind() == "word");
    stage.start_all();
    stage.wait(5 * SEC);
    assert!(stage.node(10).is_synced() && !stage.node(1).is_settled());
    assert!(stage.holds(1, &k).is_some());
    assert_eq!(stage.node(1).history().count(), 2);
    stage.heal();
    stage.until(5 * SEC, |s| (1..=10).all(|n| s.node(n).is_settled()));
    stage.wait(SEC);
    assert!(stage.holds(1, &k).is_none());
    assert!((2..=10).all(|n| stage.holds(n, &k).is_some()));
    assert_eq!(stage.node(1).history().count(), 1);
}

// -- T1 ----------------------------------------------------------------------------------------------

#[test]
pub(crate) fn t1_a_view_is_settled_once_every_member_of_its_ring_has_said_that_it_is_synced() {
    let mut stage = moved("1 2 3", "1 2 3 4", &[1, 2, 3, 4]);
    for n in 1..=3 {
        stage.start(n);
    }
    stage.wait(10 * SEC);
    assert!((1..=3).all(|n| !stage.node(n).is_settled()));
    // Synced, and not durably: no word.
    stage.hold_disk(4);
    stage.start(4);
    stage.wait(5 * SEC);
    assert!(stage.node(4).is_synced());
    assert!((1..=3).all(|n| !stage.node(n).is_settled()));
    stage.sync_disk(4);
    stage.wait(5 * SEC);
    assert!((1..=4).all(|n| stage.node(n).is_settled() && stage.computers[&n].account.settled == epoch(2)));
}

#[test]
pub(crate) fn t1_a_machine_notes_that_a_view_is_settled_once_it_has_adopted_it() {
    let mut stage = Stage::born("1 2 3 4+");
    stage.start(1);
    stage.say_as(2, 1, 1, Message::Settled { epoch: epoch(2) });
    assert_eq!(stage.node(1).account().settled, epoch(1));
    let views = vec![view(2, "1 2 3 4")];
    stage.say_as(2, 2, 1, Message::ViewsTold { views, settled: epoch(1) });
    stage.say_as(2, 2, 1, Message::Settled { epoch: epoch(2) });
    assert_eq!(stage.node(1).account().settled, epoch(2));
}
