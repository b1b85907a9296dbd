use ennead_ring::{ClusterId, Epoch};
use proptest::prelude::*;

use super::*;

fn name(n: usize) -> Name {
    format!("10.0.{}.{}", n / 250, n % 250 + 1).parse().expect("a name")
}

fn member(n: usize, weight: u32, state: MemberState) -> Member {
    let machine = Machine { name: name(n), incarnation: Incarnation::new(n as u64 + 1) };
    Member { state, ..Member::up(machine, weight) }
}

fn view_of(members: Vec<Member>, slots: u8) -> View {
    View::new(ClusterId::new(1), Epoch::FIRST, slots, members, Vec::new()).expect("a view")
}

fn view(machines: usize) -> View {
    view_of((0..machines).map(|n| member(n, 64, MemberState::Up)).collect(), 9)
}

fn plan(view: &View, change: &Change) -> Plan {
    Plan::of(view, change, &BTreeMap::new(), &BTreeSet::new()).expect("a plan")
}

#[test]
fn the_table_of_the_protocol() {
    let table = [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (6, 2), (7, 2), (8, 3), (9, 4), (10, 4), (1_000, 4)];
    for (machines, lost) in table {
        assert_eq!(tolerable(machines, 9), lost, "{machines} machines");
    }
    assert_eq!(tolerable(3, 3), 1);
    assert_eq!(tolerable(0, 9), 0);
}

#[test]
fn of_nine_machines_one_leaves_and_the_eight_others_share_its_ninth() {
    let nine = view(9);
    let records = nine.members().iter().map(|m| (m.machine.name, 900)).collect();
    let plan = Plan::of(&nine, &Change::Leave(vec![name(3)]), &records, &BTreeSet::new()).expect("a plan");
    assert_eq!((plan.machines, plan.machines_after), (9, 8));
    assert_eq!((plan.tolerates, plan.tolerates_after), (4, 3));
    // Nine machines hold every key, and so do eight of them: nothing has to be copied.
    assert_eq!((plan.keys, plan.records), (Some(900), Some(0)));
    let share = |n: usize| plan.shares.iter().find(|s| s.name == name(n)).expect("a share");
    assert!((share(3).before - 1.0 / 9.0).abs() < 1e-9 && share(3).after == 0.0);
    assert!(plan.moved >= 1.0 / 9.0, "its slots move at least: {}", plan.moved);
}

#[test]
fn a_first_second_machine_takes_four_slots_of_nine_of_every_key() {
    let plan = plan(&view(1), &Change::Join(vec![(name(1), 64)]));
    assert_eq!((plan.machines, plan.machines_after), (1, 2));
    let slots = |n: usize| plan.shares.iter().find(|s| s.name == name(n)).map(|s| s.after);
    let (old, new) = (slots(0).expect("a share"), slots(1).expect("a share"));
    assert!((4.0 / 9.0 - 1e-9..=5.0 / 9.0 + 1e-9).contains(&new), "four or five of each key's nine: {new}");
    assert!((old + new - 1.0).abs() < 1e-9);
    assert_eq!(plan.flows.len(), 1);
    assert!((plan.shares[1].takes - 1.0).abs() < 1e-9, "it takes a copy of every key");
}

#[test]
fn three_to_four_machines_pause_most_keys_for_a_moment_and_ten_to_eleven_few() {
    // PROTOCOL section 6: "3 to 4 machines: five or more slots of 65 to 80 % of keys".
    let few = plan(&view(3), &Change::Join(vec![(name(3), 64)]));
    assert!((0.5..0.9).contains(&few.paused), "{}", few.paused);
    let many = plan(&view(30), &Change::Join(vec![(name(30), 64)]));
    assert!(many.paused < 0.05, "{}", many.paused);
    assert!(many.moved < 3.0 / 31.0, "{}", many.moved);
}

#[test]
fn slots_of_those_who_do_not_vote_count_as_paused() {
    let nine = view(9);
    let silent = (4..9).map(name).collect();
    let change = Change::Remove(vec![name(8)]);
    let with = Plan::of(&nine, &change, &BTreeMap::new(), &silent).expect("a plan");
    assert_eq!(with.paused, 1.0, "of four that vote no key has five slots");
    assert!(plan(&nine, &change).paused < 1.0);
}

#[test]
fn what_is_under_way_already_is_part_of_the_plan() {
    let mut members: Vec<Member> = (0..10).map(|n| member(n, 64, MemberState::Up)).collect();
    members[4].state = MemberState::Leaving;
    members.push(member(10, 64, MemberState::Joining));
    let plan = plan(&view_of(members, 9), &Change::Leave(vec![name(0)]));
    assert_eq!((plan.machines, plan.machines_after), (10, 9));
    assert_eq!(plan.pending, [(name(4), MemberState::Leaving), (name(10), MemberState::Joining)]);
    let after = |n: usize| plan.shares.iter().find(|s| s.name == name(n)).map_or(0.0, |s| s.after);
    assert_eq!((after(0), after(4)), (0.0, 0.0));
    assert!((after(10) - 1.0 / 9.0).abs() < 1e-9);
}

#[test]
fn changes_that_make_no_sense_are_told_apart() {
    let of = |view: &View, change| Plan::of(view, &change, &BTreeMap::new(), &BTreeSet::new());
    assert_eq!(of(&view(3), Change::Leave(vec![name(7)])), Err(PlanError::NoSuchMachine(name(7))));
    assert_eq!(of(&view(3), Change::Join(vec![(name(1), 64)])), Err(PlanError::Already(name(1))));
    assert_eq!(of(&view(1), Change::Remove(vec![name(0)])), Err(PlanError::NobodyLeft));
    let weightless = of(&view(1), Change::Join(vec![(name(1), 0)]));
    assert!(matches!(weightless, Err(PlanError::NoRing(_))), "{weightless:?}");
    let twice = of(&view(1), Change::Join(vec![(name(1), 1), (name(1), 1)]));
    assert_eq!(twice, Err(PlanError::Already(name(1))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn shares_add_up_and_flows_explain_them(
        machines in 1usize..24,
        weights in proptest::collection::vec(1u32..100, 26),
        slots in proptest::sample::select(vec![1u8, 3, 9]),
        join in any::<bool>(),
        which in 0usize..24,
    ) {
        let members = (0..machines).map(|n| member(n, weights[n], MemberState::Up)).collect();
        let view = view_of(members, slots);
        let change = match join || machines == 1 {
            true => Change::Join(vec![(name(machines), weights[machines])]),
            false => Change::Leave(vec![name(which % machines)]),
        };
        let plan = plan(&view, &change);
        let sum = |of: &dyn Fn(&Share) -> f64| plan.shares.iter().map(of).sum::<f64>();
        prop_assert!((sum(&|s| s.before) - 1.0).abs() < 1e-9);
        prop_assert!((sum(&|s| s.after) - 1.0).abs() < 1e-9);
        let flows: f64 = plan.flows.iter().map(|f| f.slots).sum();
        prop_assert!((flows - plan.moved).abs() < 1e-9);
        for share in &plan.shares {
            let given: f64 = plan.flows.iter().filter(|f| f.from == share.name).map(|f| f.slots).sum();
            let taken: f64 = plan.flows.iter().filter(|f| f.to == share.name).map(|f| f.slots).sum();
            prop_assert!((share.after - share.before - (taken - given)).abs() < 1e-9, "{}", share.name);
        }
        for (member, share) in view.members().iter().zip(shares(&view)) {
            let told = plan.shares.iter().find(|s| s.name == member.machine.name).map_or(0.0, |s| s.before);
            prop_assert!((told - share).abs() < 1e-9);
        }
        prop_assert!((0.0..=1.0).contains(&plan.paused));
    }
}
