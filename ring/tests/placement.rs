//! Who owns what: the known answers of PROTOCOL section 2, and a twin that does it the obvious way.

use ennead_ring::placement::Ring;
use ennead_ring::{Chain, ClusterId, Epoch, Incarnation, Machine, Member, MemberState, Name, Position, View};
use proptest::prelude::*;

fn member(name: &str, weight: u32, id: u64) -> Member {
    let machine = Machine { name: name.parse::<Name>().expect("a name"), incarnation: Incarnation::new(id) };
    Member { machine, weight, next_weight: weight, state: MemberState::Up }
}

fn view(slots: u8, members: Vec<Member>) -> View {
    View::new(ClusterId::new(1), Epoch::FIRST, slots, members, Vec::new()).expect("a view")
}

/// The seed talk's machines, with one position each.
fn talk() -> View {
    view(9, vec![member("235.23.34.12", 1, 1), member("223.23.141.53", 1, 2), member("122.67.12.23", 1, 3)])
}

fn owner(view: &View, key: &str, slot: u8) -> String {
    let owners = Ring::of(view).owners(&Chain::of(key.as_bytes(), view.slots()));
    view.members()[owners.owner(slot) as usize].machine.name.to_string()
}

#[test]
fn a_machine_sits_at_the_md5_of_its_name() {
    let at = |text: &str| Position::of(text.as_bytes()).to_string();
    assert_eq!(at("235.23.34.12"), "C82D4DB065065DBDCDADFBC5A727208E");
    assert_eq!(at("223.23.141.53"), "099340C20A42E004716233AB216761C3");
    assert_eq!(at("122.67.12.23"), "A0E607462A563C4D8CCDB8194E3DEC8B");
}

#[test]
fn a_slot_sits_at_the_md5_of_the_one_before() {
    let chain = Chain::of(b"mail-23412", 9);
    assert_eq!(chain.positions()[0].to_string(), "B91AF709D7C1E6988FCEE7ADF7094A26");
    assert_eq!(chain.positions()[1].to_string(), "D604E7A54DC18FD7AC70D12468C34B63");
}

#[test]
fn a_slot_belongs_to_the_highest_position_not_above_it() {
    assert_eq!(owner(&talk(), "mail-23412", 1), "122.67.12.23");
    assert_eq!(owner(&talk(), "mail-23412", 2), "235.23.34.12");
}

/// All positions in order; for each slot, down from it to the first machine that has none in this round.
fn obvious(view: &View, key: &[u8]) -> Vec<usize> {
    let mut points: Vec<(u128, usize)> = Vec::new();
    for (i, m) in view.members().iter().enumerate().filter(|(_, m)| m.state != MemberState::Joining) {
        let mut position = Position::of(m.machine.name.to_string().as_bytes());
        for _ in 0..m.weight {
            points.push((position.to_u128(), i));
            position = Position::of(&position.to_u128().to_be_bytes());
        }
    }
    points.sort_unstable();
    let machines = view.members().iter().filter(|m| m.state != MemberState::Joining).count();
    let (mut owners, mut round): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut slot = Position::of(key).to_u128();
    for _ in 0..view.slots() {
        if round.len() == machines {
            round.clear();
        }
        let below = points.iter().rev().filter(|(p, _)| *p <= slot);
        let above = points.iter().rev().filter(|(p, _)| *p > slot);
        let owner =
            below.chain(above).map(|(_, i)| *i).find(|i| !round.contains(i)).expect("a machine is left");
        round.push(owner);
        owners.push(owner);
        slot = Position::of(&slot.to_be_bytes()).to_u128();
    }
    owners
}

fn members() -> impl Strategy<Value = Vec<Member>> {
    let one = (1u32..200, 0u8..4);
    proptest::collection::vec(one, 1..40).prop_map(|all| {
        let state = |i: usize, s: u8| match s {
            0 if i > 0 => MemberState::Joining,
            1 => MemberState::Leaving,
            _ => MemberState::Up,
        };
        all.iter()
            .enumerate()
            .map(|(i, &(weight, s))| Member {
                state: state(i, s),
                ..member(&format!("10.{}.0.{}", i % 3, i + 1), weight, i as u64 + 1)
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn owners_are_those_of_the_obvious_way(
        members in members(),
        slots in prop::sample::select(vec![1u8, 3, 5, 9, 15]),
        keys in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 1..20),
    ) {
        let view = view(slots, members);
        let ring = Ring::of(&view);
        for key in keys {
            let owners = ring.owners(&Chain::of(&key, slots));
            let fast: Vec<usize> = (1..=slots).map(|s| owners.owner(s) as usize).collect();
            prop_assert_eq!(&fast, &obvious(&view, &key));
            // Shares are even: nobody has two slots more than another.
            let machines = view.members().iter().enumerate().filter(|(_, m)| m.in_ring());
            let shares: Vec<u8> = machines.map(|(i, _)| owners.slots_of(i as u32).len()).collect();
            prop_assert_eq!(shares.iter().map(|&n| u32::from(n)).sum::<u32>(), u32::from(slots));
            prop_assert!(shares.iter().max().unwrap_or(&0) - shares.iter().min().unwrap_or(&0) <= 1);
        }
    }

    #[test]
    fn the_order_in_which_members_are_named_changes_nothing(
        mut members in members(), seed: u64, key in proptest::collection::vec(any::<u8>(), 1..20),
    ) {
        let chain = Chain::of(&key, 9);
        let before = view(9, members.clone());
        let turn = (seed % members.len() as u64) as usize;
        members.rotate_left(turn);
        let after = view(9, members);
        prop_assert_eq!(&before, &after);
        prop_assert_eq!(Ring::of(&before).owners(&chain), Ring::of(&after).owners(&chain));
    }
}
