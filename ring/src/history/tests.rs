//! Twins: what the history says, against the page read aloud, on random views.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::stamp::{Ballot, Hlc};
use crate::view::{ClusterId, Member, MemberState, Name};
use crate::zone::Zone;

type Place = (u32, Zone);

/// A weight, and one of three zones or none.
fn place() -> impl Strategy<Value = Place> {
    let zone =
        prop::sample::select(&["-", "-", "a", "b", "c"][..]).prop_map(|name| name.parse().expect("a zone"));
    (1..4u32, zone)
}

fn machine(n: u8) -> Machine {
    let name: Name = format!("10.0.0.{n}").parse().expect("a name");
    Machine { name, incarnation: Incarnation::new(u64::from(n)) }
}

fn epoch(number: usize) -> Epoch {
    Epoch { number: number as u32 + 1, ..Epoch::FIRST }
}

/// A view of these machines, in so many zones.
fn present(number: usize, members: &[u8], zones: u8) -> Present {
    let zone = |n: u8| format!("z{}", n % zones).parse().expect("a zone");
    let up = |n: &u8| Member::new(machine(*n), (2, zone(*n)), MemberState::Up);
    let members = members.iter().map(up).collect();
    let view = View::new(ClusterId::new(1), epoch(number), 9, members, Vec::new()).expect("a view");
    Present::new(Arc::new(view), machine(1))
}

/// Views of machines 1 to 12, in one zone or several; in which of them each was synced; what each holds: a stamp of 1 to 3, as votes or not.
#[derive(Clone, Debug)]
struct World {
    views: Vec<Vec<u8>>,
    zones: u8,
    synced: BTreeMap<u8, Vec<bool>>,
    held: BTreeMap<u8, Option<(u8, bool)>>,
    key: u32,
}

fn world() -> impl Strategy<Value = World> {
    let members = proptest::sample::subsequence((2..=12u8).collect::<Vec<u8>>(), 0..=11)
        .prop_map(|others| core::iter::once(1).chain(others).collect::<Vec<u8>>());
    let each = |n: u8| (Just(n), proptest::collection::vec(any::<bool>(), 4));
    let holds = |n: u8| (Just(n), proptest::option::of((1..=3u8, any::<bool>())));
    (
        proptest::collection::vec(members, 2..=4),
        1..=4u8,
        (1..=12u8).map(each).collect::<Vec<_>>(),
        (1..=12u8).map(holds).collect::<Vec<_>>(),
        any::<u32>(),
    )
        .prop_map(|(views, zones, synced, held, key)| World {
            views,
            zones,
            synced: synced.into_iter().collect(),
            held: held.into_iter().collect(),
            key,
        })
}

impl World {
    fn presents(&self) -> Vec<Present> {
        self.views.iter().enumerate().map(|(i, members)| present(i, members, self.zones)).collect()
    }

    fn account(&self, n: u8) -> Account {
        let synced = self.synced[&n].iter().enumerate().filter(|(_, s)| **s).map(|(i, _)| epoch(i)).collect();
        Account { settled: epoch(0), synced, left: false }
    }

    /// S1, S3, read aloud: it voted for the slot in view `at` if it owned it there and was synced, or owned it there
    /// and voted for it in the view before.
    fn voted(&self, owners: &BTreeMap<(usize, u8), u8>, n: u8, slot: u8, at: usize) -> bool {
        owners[&(at, slot)] == n && (self.synced[&n][at] || at > 0 && self.voted(owners, n, slot, at - 1))
    }
}

fn stamp_of(n: u8) -> Stamp {
    Stamp { ballot: Ballot { time: Hlc::from_nanos(u64::from(n)), by: Incarnation::new(1) }, n: 1 }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn voted_and_judge_are_what_s3_s5_and_s6_say(world in world()) {
        let presents = world.presents();
        let history = History { views: &presents, rules: Rules::default() };
        let key = Key::new(format!("{}", world.key)).expect("a key");
        let chain = presents[0].chain(&key);
        let owners = history.owners(&chain);
        let last = presents.len() - 1;
        // Who owns which slot in which view, by number.
        let mut by = BTreeMap::new();
        for (v, p) in presents.iter().enumerate() {
            for slot in 1..=9 {
                by.insert((v, slot), p.machine(owners[v].owner(slot)).incarnation.id() as u8);
            }
        }
        let set = |f: &dyn Fn(u8) -> bool| (1..=9u8).filter(|s| f(*s)).collect::<SlotSet>();
        let tracks: BTreeMap<u8, Track> =
            (1..=12).map(|n| (n, history.track(machine(n), &world.account(n)))).collect();
        let voted = |n: u8, slot: u8, at: usize| world.voted(&by, n, slot, at);
        for n in 1..=12 {
            for at in 0..=last {
                prop_assert_eq!(history.voted(&tracks[&n], &owners, at), set(&|s| voted(n, s, at)));
            }
        }
        // Everybody who was ever a member tells; votes are of slots that it voted for at some time.
        let ever = |n: u8, s: u8| (0..=last).any(|at| voted(n, s, at));
        let record = |n: u8| world.held[&n].map(|(s, votes)| (stamp_of(s), set(&|slot| votes && ever(n, slot))));
        let tells = |n: &u8| world.views.iter().any(|v| v.contains(n));
        let telling = |n: u8| Telling { track: &tracks[&n], record: record(n) };
        let others: Vec<Telling<'_>> = (2..=12).filter(tells).map(telling).collect();
        let verdict = judge(&history, &owners, &telling(1), &others);

        let gained = set(&|s| by[&(last, s)] == 1 && !voted(1, s, last));
        prop_assert_eq!(verdict.gained, gained);
        // S5: of those who voted for any slot, the highest.
        let counts = |n: u8| (1..=9).any(|s| ever(n, s));
        let best = (1..=12).filter(tells).filter(|n| counts(*n)).filter_map(|n| world.held[&n]).map(|h| h.0).max();
        prop_assert_eq!(verdict.best, best.map(stamp_of));
        prop_assert_eq!(verdict.own_is_void, world.held[&1].is_some() && !counts(1));
        // S6.
        let told = |n: u8, slot| record(n).is_some_and(|(s, votes)| Some(s) == verdict.best && votes.has(slot));
        let five = (1..=9).filter(|s| voted(by[&(last, *s)], *s, last) && told(by[&(last, *s)], *s)).count() >= 5;
        let last_voter = |s: u8| (0..last).rev().map(|h| (h, by[&(h, s)])).find(|(h, n)| voted(*n, s, *h));
        let granted = set(&|s| {
            gained.has(s) && best.is_some() && (five || last_voter(s).is_some_and(|(_, n)| told(n, s)))
        });
        prop_assert_eq!(verdict.granted, granted);
    }

    /// Claim 3 and 4 rest on it: whoever is left out, five slots of every earlier view are told for every key.
    #[test]
    fn covered_without_some_means_that_each_slot_is_told_or_five_others_are(
        world in world(),
        without in proptest::sample::subsequence((2..=12u8).collect::<Vec<u8>>(), 0..=6),
    ) {
        let presents = world.presents();
        let history = History { views: &presents, rules: Rules::default() };
        let key = Key::new(format!("{}", world.key)).expect("a key");
        let owners = history.owners(&presents[0].chain(&key));
        let gone: Vec<Machine> = without.iter().map(|n| machine(*n)).collect();
        let number = |m: Machine| m.incarnation.id() as u8;
        let synced = |m: Machine, e: Epoch| world.synced[&number(m)][e.number as usize - 1];
        if history.is_covered_without(machine(1), &gone, synced) {
            let last = presents.len() - 1;
            let owner = |v: usize, s: u8| presents[v].machine(owners[v].owner(s));
            for h in 0..last {
                // S4: told by the owner in h, or anyone has told "voted" for it in a view that is not earlier.
                let is_told = |s: u8| {
                    !gone.contains(&owner(h, s))
                        || (h..=last).any(|v| !gone.contains(&owner(v, s)) && synced(owner(v, s), epoch(v)))
                };
                let told = (1..=9).filter(|s| is_told(*s)).count();
                prop_assert!(told >= 5, "view {h}: {told} slots are told");
                for s in 1..=9u8 {
                    prop_assert!(is_told(s) || (1..=9).filter(|t| *t != s && is_told(*t)).count() >= 5);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    /// M1: the next ring is the ring of the view in which those who come have come, and those who go are gone.
    #[test]
    fn the_next_ring_is_the_ring_of_the_view_after_the_move(
        states in proptest::collection::vec((0..3u8, place(), place()), 1..12),
        key in any::<u32>(),
    ) {
        let state = |s| [MemberState::Up, MemberState::Joining, MemberState::Leaving][usize::from(s)];
        let member = |(i, (s, now, next)): (usize, &(u8, Place, Place))| Member {
            next_weight: next.0, next_zone: next.1, ..Member::new(machine(i as u8 + 1), *now, state(*s))
        };
        let members: Vec<Member> = states.iter().enumerate().map(member).collect();
        let make = |members: Vec<Member>| View::new(ClusterId::new(1), epoch(0), 9, members, Vec::new());
        let Ok(now) = make(members.clone()) else { return Ok(()) };
        let stay = members.iter().filter(|m| m.state != MemberState::Leaving);
        let moved = make(stay.map(|m| Member::new(m.machine, m.next_place(), MemberState::Up)).collect());
        let moves = members.iter().any(|m| m.state != MemberState::Up || m.place() != m.next_place());
        let next = now.next_ring();
        prop_assert_eq!(next.is_some(), moves && moved.is_ok());
        let (Some(next), Ok(moved)) = (next, moved) else { return Ok(()) };
        let chain = Chain::of(format!("{key}").as_bytes(), 9);
        let (ahead, after) = (next.owners(&chain), moved.ring().owners(&chain));
        for slot in 1..=9 {
            let name = |view: &View, member: u32| view.members()[member as usize].machine;
            prop_assert_eq!(name(&now, ahead.owner(slot)), name(&moved, after.owner(slot)));
        }
    }

    /// S4: in a handoff, for each slot gained, the owner before tells; or all do, where he is left out.
    #[test]
    fn in_a_handoff_the_owner_before_tells_and_in_his_place_everybody(
        world in world(),
        without in proptest::sample::subsequence((2..=12u8).collect::<Vec<u8>>(), 0..=3),
        handoff in any::<bool>(),
    ) {
        let presents = world.presents();
        let history = History { views: &presents, rules: Rules::default() };
        let chain = Chain::of(format!("{}", world.key).as_bytes(), 9);
        let owners = history.owners(&chain);
        let last = presents.len() - 1;
        let account = Account { synced: Vec::new(), ..world.account(1) };
        let track = history.track(machine(1), &account);
        let without: Vec<Machine> = without.iter().map(|n| machine(*n)).collect();
        let (purpose, asker) = (Purpose::Sync, machine(1));
        let concern = Concern { purpose, handoff, without: &without, asker, track: &track };
        let owner = |v: usize, s: u8| presents[v].machine(owners[v].owner(s));
        let gained: Vec<u8> = (1..=9).filter(|s| owner(last, *s) == asker).collect();
        for n in 2..=12 {
            let needed = |s: &u8| {
                let before = owner(last - 1, *s);
                !handoff || before == machine(n) || before == asker || without.contains(&before)
            };
            let places = history.track(machine(n), &Account::default());
            let told = history.is_told(&concern, (&owners, history.next_owners(&chain).as_ref()), (machine(n), &places));
            // S4: nobody needs him who owned no slot of the key in any earlier view.
            let owned = (0..last).any(|v| (1..=9).any(|s| owner(v, s) == machine(n)));
            prop_assert_eq!(told, owned && gained.iter().any(needed), "machine {}", n);
        }
    }
}

/// The table of section 2, by trying all ways to lose so many.
#[test]
fn so_many_may_be_lost_that_five_slots_are_left_whoever_they_are() {
    for slots in [1u8, 3, 5, 9, 15] {
        for machines in 1..=12usize {
            let share =
                |m: usize| usize::from(slots) / machines + usize::from(m < usize::from(slots) % machines);
            let left = |gone: u32| (0..machines).filter(|m| gone >> m & 1 == 0).map(share).sum::<usize>();
            let bears = |lost: u32| {
                (0..1u32 << machines)
                    .filter(|gone| gone.count_ones() == lost)
                    .all(|gone| left(gone) >= usize::from(quorum_of(slots)))
            };
            let most =
                (0..=machines as u32).take_while(|lost| bears(*lost)).last().expect("none is always borne");
            assert_eq!(may_be_lost(machines, slots), most as usize, "{machines} machines, {slots} slots");
        }
    }
    assert_eq!([1, 2, 3, 4, 5, 6, 7, 8, 9, 99].map(|m| may_be_lost(m, 9)), [0, 0, 1, 1, 2, 2, 2, 3, 4, 4]);
}
