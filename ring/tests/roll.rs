//! The roll (S3, among many): a note names everybody whom a machine's keys concern, and those who are not named count as told.

use std::collections::BTreeSet;
use std::sync::Arc;

use ennead_ring::effect::{Account, Decree, Effect, Input, Limits, Mono, Now};
use ennead_ring::message::{Addr, Ask, Envelope, Message};
use ennead_ring::mutant::Rules;
use ennead_ring::node::{Birth, Setup, Tuning};
use ennead_ring::roll::Note;
use ennead_ring::stamp::State;
use ennead_ring::view::{Member, MemberState};
use ennead_ring::{
    Ballot, Chain, ClusterId, Epoch, Hlc, Incarnation, Key, Loaded, Machine, Node, Record, Ring, SlotSet,
    Stamp, View, Zone,
};
use proptest::prelude::*;

const WALL: u64 = 1_795_000_000_000_000_000;

fn machine(i: u64) -> Machine {
    let name = format!("10.0.{}.{}", i / 200, i % 200 + 1).parse().expect("a name");
    Machine { name, incarnation: Incarnation::new(i + 1) }
}

/// The members by their numbers, and what they are about to do.
fn view(number: u32, slots: u8, members: &[(u64, MemberState)]) -> Arc<View> {
    let member = |(i, state): &(u64, MemberState)| Member { state: *state, ..Member::up(machine(*i), 4) };
    let epoch = Epoch { number, ..Epoch::FIRST };
    let members = members.iter().map(member).collect();
    Arc::new(View::new(ClusterId::new(1), epoch, slots, members, Vec::new()).expect("a view"))
}

fn now(ms: u64) -> Now {
    Now { mono: Mono(ms * 1_000_000), wall: WALL + ms }
}

/// The note of the first machine, in the last of two views, of these keys.
fn note(views: &[Arc<View>; 2], keys: &[Key]) -> Note {
    let setup = Setup {
        me: machine(0),
        weight: 4,
        zone: Zone::NONE,
        limits: Limits::default(),
        views: views.to_vec(),
        account: Account { settled: views[0].epoch(), synced: vec![views[0].epoch()], left: false },
        decree: Decree::default(),
        birth: Birth::None,
        tuning: Tuning { check_every: 0, ..Tuning::default() },
        seed: 1,
        rules: Rules::default(),
    };
    let mut node = Node::new(setup, now(0));
    let cluster = Some(views[1].cluster());
    let envelope = Envelope {
        cluster,
        epoch: views[1].epoch(),
        message: Message::RollCall { ask: Ask(7), check: false },
    };
    let from = Addr::Machine(machine(1));
    let mut effects = Vec::new();
    node.handle(now(1), Input::Message { from, envelope: Box::new(envelope) }, &mut effects);
    let mut at = 0;
    while let Some(effect) = effects.get(at) {
        if let Effect::Scan { scan, after, keys: most, .. } = effect {
            let from = keys.partition_point(|key| Some(key) <= after.as_ref());
            let found = &keys[from..][..(*most).min(keys.len() - from)];
            let ballot = Ballot { time: Hlc::from_nanos(WALL), by: machine(0).incarnation };
            let record = Record {
                stamp: Stamp { ballot, n: 1 },
                state: Arc::new(State::default()),
                votes: SlotSet::EMPTY,
            };
            let end = from + found.len() == keys.len();
            let found = found.iter().map(|key| (key.clone(), Loaded::Record(record.clone()))).collect();
            let input = Input::Scanned { scan: *scan, found, end, total: keys.len() as u64 };
            node.handle(now(2), input, &mut effects);
        }
        at += 1;
    }
    let noted = effects.into_iter().find_map(|effect| match effect {
        Effect::Send { to, envelope, .. } if to == from => match envelope.message {
            Message::RollNoted { ask: Ask(7), note } => Some(*note),
            _ => None,
        },
        _ => None,
    });
    noted.expect("a note")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_note_names_whoever_gained_a_slot_or_will(
        stay in 2usize..12,
        come in 0usize..4,
        go in 0usize..4,
        slots in prop_oneof![Just(3u8), Just(5), Just(9)],
        states in prop::collection::vec(0u8..6, 16),
        keys in prop::collection::btree_set("[a-z]{1,6}", 0..1200),
    ) {
        let up = |i: usize| (i as u64, MemberState::Up);
        let before: Vec<_> = (0..stay + go).map(up).collect();
        let present: Vec<_> = (0..stay).chain(20..20 + come).map(|i| {
            let state = match states[i % 16] {
                0 if i > 0 => MemberState::Leaving,
                1 if i > 20 => MemberState::Joining,
                _ => MemberState::Up,
            };
            (i as u64, state)
        }).collect();
        let views = [view(1, slots, &before), view(2, slots, &present)];
        let keys: Vec<Key> = keys.iter().map(|key| Key::new(key.as_bytes()).expect("a key")).collect();
        let note = note(&views, &keys);

        let (was, is) = (Ring::of(&views[0]), Ring::of(&views[1]));
        let next = Ring::next_of(&views[1]);
        let owned = |ring: &Ring, view: &View, chain: &Chain, who: Machine| {
            let member = view.members().iter().position(|m| m.machine == who);
            member.map_or(SlotSet::EMPTY, |i| ring.owners(chain).slots_of(i as u32))
        };
        let (mut gained, mut ahead) = (BTreeSet::new(), BTreeSet::new());
        for key in &keys {
            let chain = Chain::of(key.as_bytes(), slots);
            for (i, member) in (0u32..).zip(views[1].members()) {
                let before = owned(&was, &views[0], &chain, member.machine);
                let now = owned(&is, &views[1], &chain, member.machine);
                if !now.minus(before).is_empty() {
                    gained.insert(i);
                }
                let will = next.as_ref().is_some_and(|next| !next.owners(&chain).slots_of(i).is_empty());
                if will && now.is_empty() {
                    ahead.insert(i);
                }
            }
        }
        prop_assert_eq!(note.gained.map(BTreeSet::from_iter), Some(gained));
        prop_assert_eq!(BTreeSet::from_iter(note.ahead), ahead);
    }
}
