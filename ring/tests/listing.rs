//! Listings (L1 to L4): what machines tell, and what is counted of it.

#[path = "listing/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};

use ennead_ring::effect::{Effect, Input};
use ennead_ring::gathering::{Heard, Next, Verdict};
use ennead_ring::message::{Addr, ListPage, ListValue, Message, Outcome};
use ennead_ring::mutant::{Mutant, Rules};
use ennead_ring::{Gathering, Key, Loaded, SlotSet, may_be_lost, quorum_of};
use proptest::prelude::*;
use world::{
    Held, ask, epoch, in_zone, key, loaded, node, now, owners, page, pages, slots, told, view, zoned,
};

#[test]
fn l1_l2_and_l4_are_kept_and_their_mutants_noticed() {
    type Rule = fn(Rules) -> Option<String>;
    let rules: [(Mutant, Rule); 5] = [
        (Mutant::L1Late, world::a_page_is_worth_what_the_machine_was),
        (Mutant::L2Few, world::four_of_nine_do_not_tell_a_range),
        (Mutant::L2Few, world::two_zones_in_part_are_more_than_one_whole),
        (Mutant::L2Unsynced, world::who_is_not_synced_tells_nothing),
        (Mutant::L4Mixed, world::views_are_not_mixed),
    ];
    for (mutant, rule) in rules {
        assert_eq!(rule(Rules::default()), None, "{mutant:?}");
        assert!(rule(Rules::without(Some(mutant))).is_some(), "{mutant:?} lives");
    }
}

/// What the machines hold of one key: the number of a state that five slots or more hold, 0 for none; and for each
/// owner, whether it is one of those, holds an older state, a newer one that was never chosen, or what it cannot read.
#[derive(Clone, Debug)]
struct Drawn {
    settled: u64,
    holds: Vec<u8>,
    hearsay: Vec<bool>,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    (0..8u64, proptest::collection::vec(0..10u8, 24), proptest::collection::vec(any::<bool>(), 24))
        .prop_map(|(settled, holds, hearsay)| Drawn { settled, holds, hearsay })
}

/// The records that machines hold, so that what is settled is held by a quorum.
fn hold(view: &ennead_ring::View, key: &Key, drawn: &Drawn, machines: &mut [Held]) {
    let mut votes = SlotSet::EMPTY;
    let mut newer = SlotSet::EMPTY;
    for member in owners(view, key) {
        let own = slots(view, key, member);
        let i = member as usize;
        // The settled state's quorum first; then whatever was drawn.
        if votes.len() < quorum_of(view.slots()) {
            votes = votes.union(own);
            if drawn.settled > 0 {
                machines[i].insert(key.clone(), Some(told(drawn.settled, own)));
            }
            continue;
        }
        let record = match drawn.holds[i] {
            0..3 if drawn.settled > 0 => Some(told(drawn.settled, own)),
            3..5 if drawn.settled > 1 => Some(told(drawn.settled - 1, own)),
            5..7 if newer.union(own).len() < quorum_of(view.slots()) => {
                newer = newer.union(own);
                Some(told(drawn.settled + 1, if drawn.hearsay[i] { SlotSet::EMPTY } else { own }))
            }
            7 => None,
            _ => continue,
        };
        machines[i].insert(key.clone(), record);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

    /// Whoever is silent, as long as these may be lost together, and in whatever pieces the others tell: the keys come in
    /// order, each once; one that is settled is told as it is, or left to a read; what was never chosen is told by nobody.
    /// Is one more silent, with whom they may not be lost, nothing that is missing is passed over.
    #[test]
    fn what_five_slots_hold_is_found_and_nothing_else(
        sizes_of_zones in proptest::collection::vec(1..7usize, 1..5),
        named in any::<bool>(),
        too_many in any::<bool>(),
        all in proptest::collection::btree_map("[a-d]{1,3}", drawn(), 0..20),
        silent in Just((0..24usize).collect::<Vec<_>>()).prop_shuffle(),
        fewer in 0..24usize,
        sizes in proptest::collection::vec(1..6usize, 24),
        order in proptest::collection::vec(0..24usize, 0..200),
        from in proptest::option::of("[a-d]{1,2}"),
    ) {
        let machines: usize = sizes_of_zones.iter().sum();
        let view = if named { zoned(1, &sizes_of_zones) } else { view(1, 1..=machines as u64) };
        let mut holds = vec![Held::new(); machines];
        for (text, drawn) in &all {
            hold(&view, &key(text), drawn, &mut holds);
        }
        // As many as may be lost, or fewer; or one more than may be.
        let ring = view.ring();
        let may_be = |silent: &[u32]| ring.shares().can_lose(silent.iter().copied());
        let mut gone: Vec<u32> = Vec::new();
        for member in silent.into_iter().filter(|m| *m < machines) {
            gone.push(member as u32);
            if !may_be(&gone) && !too_many {
                gone.pop();
            } else if !may_be(&gone) {
                break;
            }
        }
        if !too_many {
            gone.truncate(fewer);
        }
        let waits = !may_be(&gone);
        let silent: BTreeSet<usize> = gone.iter().map(|m| *m as usize).collect();
        let from = from.map(|text| key(&text));
        let mut gathering = Gathering::new(view.clone(), b"", from.clone());
        let mut found: Vec<(Key, Verdict)> = Vec::new();
        let mut turns = order.into_iter().chain((0..machines).cycle());
        let over = 'over: loop {
            // Pages come in any order, until all that tell have told.
            let tells = |m: &usize| *m < machines && !silent.contains(m);
            if !(0..machines).any(|m| tells(&m) && gathering.wants(m as u32).is_some()) {
                break false;
            }
            let Some(member) = turns.find(tells) else { break false };
            if let Some(after) = gathering.wants(member as u32) {
                let told = page(&holds[member], after, sizes[member]);
                prop_assert_eq!(gathering.hear(member as u32, epoch(1), told), Heard::Taken);
            }
            loop {
                match gathering.next() {
                    Next::Key(key, verdict) => found.push((key, verdict)),
                    Next::Wait => break,
                    Next::End => break 'over true,
                }
            }
        };
        prop_assert_eq!(over, !waits, "it ends where enough machines tell, and nowhere else");
        if waits {
            let named = gathering.silent();
            prop_assert!(gone.iter().all(|member| named.contains(member)), "{:?} are waited for, not {:?}", gone, named);
        }
        prop_assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, each once");
        let found: BTreeMap<Key, Verdict> = found.into_iter().collect();
        for (text, drawn) in &all {
            let key = key(text);
            let (wanted, verdict) = (from.as_ref().is_none_or(|from| key > *from), found.get(&key));
            match verdict {
                Some(Verdict::Settled(record)) => {
                    prop_assert_eq!(record.version, drawn.settled, "{}", key);
                    prop_assert!(drawn.settled % 3 != 0, "a tombstone is no value");
                }
                Some(Verdict::None) => prop_assert!(drawn.settled % 3 == 0, "{} has a value", key),
                Some(Verdict::Unclear) => {}
                None => prop_assert!(!wanted || waits || drawn.settled == 0, "{} is missing", key),
            }
        }
    }

    #[test]
    fn nothing_comes_between_the_last_key_before_a_prefix_and_the_prefix(
        prefix in proptest::collection::vec(any::<u8>(), 0..5), other in proptest::collection::vec(any::<u8>(), 1..8),
    ) {
        let (before, other) = (Key::last_before(&prefix), Key::new(&other).expect("a key"));
        let begins = Key::new(&prefix).ok();
        prop_assert!(before.as_ref() < begins.as_ref() || begins.is_none());
        // Every key is before it, or has the prefix or what comes after.
        prop_assert!(Some(&other) <= before.as_ref() || other.as_bytes() >= prefix.as_slice());
    }
}

#[test]
fn l2_more_silent_than_may_be_are_waited_for_and_named() {
    let mut gathering = Gathering::new(view(1, 1..=9), b"", None);
    let holds: Held = [(key("a"), Some(told(1, SlotSet::all(9))))].into();
    for member in 0..4 {
        gathering.hear(member, epoch(1), page(&holds, None, 9));
    }
    assert_eq!(gathering.next(), Next::Wait);
    assert_eq!((gathering.votes(), gathering.silent()), (4, vec![4, 5, 6, 7, 8]));
}

#[test]
fn l2_a_zone_of_five_may_be_silent_and_one_machine_besides() {
    let view = zoned(1, &[5, 5, 5]);
    let (away, others) = (in_zone(&view, 0), [in_zone(&view, 1), in_zone(&view, 2)].concat());
    assert_eq!(may_be_lost(15, 9), 4, "by the table it is one too many");
    let mut gathering = Gathering::new(view.clone(), b"", None);
    assert_eq!(gathering.needed(&others), Some(9), "the best nine of the ten");
    let mixed: Vec<u32> = (0..5).flat_map(|i| [away[i], others[i], others[5 + i]]).collect();
    assert_eq!(gathering.needed(&mixed), Some(11), "of machines of all zones, all but four");
    assert_eq!(gathering.needed(&others[..8]), None);
    let holds: Held = [(key("a"), Some(told(1, SlotSet::all(9))))].into();
    for member in &others[..8] {
        gathering.hear(*member, epoch(1), page(&holds, None, 9));
    }
    assert_eq!(gathering.next(), Next::Wait, "a zone and two machines own five slots of some key");
    assert_eq!((gathering.votes(), gathering.silent().len()), (4, 7));
    gathering.hear(others[8], epoch(1), page(&holds, None, 9));
    assert!(matches!(gathering.next(), Next::Key(found, Verdict::Settled(_)) if found == key("a")));
    assert_eq!(gathering.next(), Next::End);
}

#[test]
fn l4_a_page_of_another_view_is_not_counted() {
    let mut gathering = Gathering::new(view(2, 1..=9), b"", None);
    assert_eq!(gathering.hear(0, epoch(1), page(&Held::new(), None, 9)), Heard::Behind);
    assert_eq!(gathering.hear(0, epoch(3), page(&Held::new(), None, 9)), Heard::Ahead);
}

#[test]
fn a_page_that_cannot_be_is_not_counted() {
    let held = |texts: &[&str]| texts.iter().map(|text| (key(text), None)).collect::<Vec<_>>();
    let good =
        ListPage { synced: true, after: Some(key("pa")), keys: vec![], upto: Some(key("pz")), total: 0 };
    let hear = |page: ListPage| Gathering::new(view(1, 1..=9), b"p", Some(key("pa"))).hear(0, epoch(1), page);
    assert_eq!(hear(ListPage { keys: held(&["pb", "pc"]), ..good.clone() }), Heard::Taken);
    for keys in [&["pc", "pb"][..], &["pb", "pb"], &["pa"], &["q"], &["pzz"], &["\0pb"]] {
        assert_eq!(hear(ListPage { keys: held(keys), ..good.clone() }), Heard::Malformed, "{keys:?}");
    }
    assert_eq!(hear(ListPage { upto: Some(key("pa")), ..good.clone() }), Heard::Malformed, "it gets nowhere");
    assert_eq!(hear(ListPage { after: Some(key("pb")), ..good }), Heard::Stray, "it leaves a gap");
    let mut gathering = Gathering::new(view(1, 1..=9), b"", None);
    assert_eq!(
        gathering.hear(77, epoch(1), page(&Held::new(), None, 1)),
        Heard::Stray,
        "a member that is none"
    );
}

/// One machine is asked, and storage finds these keys.
fn tells(prefix: &str, values: Option<Vec<u64>>, found: Vec<(Key, Loaded)>) -> ListPage {
    let mut node = node(1, &view(1, 1..=9), Rules::default());
    let effects = ask(&mut node, prefix.as_bytes(), values);
    let Some(Effect::Scan { scan, after, .. }) = effects.first().cloned() else { panic!("{effects:?}") };
    assert!(after.is_none_or(|after| after.as_bytes() < prefix.as_bytes() || prefix.is_empty()));
    let mut effects = Vec::new();
    node.handle(now(), Input::Scanned { scan, found, end: true, total: 5 }, &mut effects);
    pages(&effects)[0].clone()
}

#[test]
fn l1_a_page_has_the_keys_that_begin_so_and_what_is_held() {
    let found = ["m/1", "m/2", "n"].map(|text| (key(text), loaded(4, "hello"))).to_vec();
    let page = tells("m/", None, [found, vec![]].concat());
    assert!(page.synced && page.upto.is_none(), "{page:?}");
    assert_eq!(page.keys.iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>(), ["m/1", "m/2"]);
    let record = page.keys[0].1.as_ref().expect("a record");
    assert_eq!((record.version, &record.value), (4, &ListValue::Bytes(5)), "values were not asked for");
    let page = tells("", None, vec![(key("a"), Loaded::Unreadable)]);
    assert_eq!(page.keys, [(key("a"), None)], "R3: it says that it cannot say");
}

#[test]
fn l1_each_value_is_told_by_the_first_owner_that_is_asked() {
    let view = view(1, 1..=9);
    let own = |text: &str| owners(&view, &key(text))[0] == 0;
    let texts: Vec<String> = (0..40).map(|i| format!("k{i:02}")).collect();
    let found: Vec<_> = texts.iter().map(|text| (key(text), loaded(4, "hello"))).collect();
    let whole = |page: &ListPage| -> Vec<bool> {
        let record = |(_, record): &(Key, Option<ennead_ring::message::ListRecord>)| {
            matches!(record.as_ref().expect("a record").value, ListValue::Whole(_))
        };
        page.keys.iter().map(record).collect()
    };
    let page = tells("", Some(vec![]), found.clone());
    assert_eq!(whole(&page), texts.iter().map(|text| own(text)).collect::<Vec<_>>());
    let alone = tells("", Some((2..=9).collect()), found);
    assert!(whole(&alone).iter().all(|whole| *whole), "all others are left out");
}

#[test]
fn l1_a_prefix_that_is_the_clusters_own_is_refused_and_so_is_too_much_at_once() {
    let mut node = node(1, &view(1, 1..=9), Rules::default());
    let outcome = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::Send { envelope, .. } => match &envelope.message {
                Message::Outcome { outcome, .. } => Some(outcome.clone()),
                _ => None,
            },
            _ => None,
        })
    };
    assert!(matches!(outcome(&ask(&mut node, b"\0view", None)), Some(Outcome::Refused(_))));
    assert!(matches!(outcome(&ask(&mut node, &[7; 20_000], None)), Some(Outcome::Refused(_))));
    let many = Some((0..4_097).map(|n| n % 9 + 1).collect());
    assert!(matches!(outcome(&ask(&mut node, b"k", many)), Some(Outcome::Refused(_))));
    let mut refused = 0;
    for number in 0..40u64 {
        let request = ennead_ring::message::ListRequest {
            after: Some(key(&format!("k{number}"))),
            prefix: Vec::new(),
            bytes: 1,
            within: 1_000,
            values: None,
        };
        let message = Message::List { ask: ennead_ring::message::Ask(9), request: Box::new(request) };
        let effects = world::hear(&mut node, Addr::Client(2), 1, message);
        refused += u64::from(matches!(outcome(&effects), Some(Outcome::Overloaded { .. })));
    }
    assert_eq!(refused, 24, "sixteen of one client are under way");
}
