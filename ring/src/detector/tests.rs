//! The detector of one machine, driven by hand.

use alloc::sync::Arc;
use alloc::vec;

use super::*;
use crate::effect::{Account, Decree, Limits};
use crate::gossip::{News, Said};
use crate::message::{Addr, Ask};
use crate::mutant::Rules;
use crate::node::{Birth, PROBE_EVERY, Setup, Tuning};
use crate::view::{ClusterId, Incarnation, Member, View};

fn machine(i: u8) -> Machine {
    Machine { name: Name::new(([10, 0, 0, i], 9595).into()), incarnation: Incarnation::new(u64::from(i)) }
}

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms * MS), wall: 1_700_000_000_000 * MS + ms * MS }
}

fn view(number: u32, of: &[u8]) -> Arc<View> {
    let member = |i: &u8| Member::up(machine(*i), 4);
    let epoch = Epoch { number, ..Epoch::FIRST };
    Arc::new(View::new(ClusterId::new(1), epoch, 9, of.iter().map(member).collect(), vec![]).unwrap())
}

/// Machine 1's detector, and what it needs.
fn of_machine_1(members: &[u8]) -> (Detector, Local) {
    let setup = Setup {
        me: machine(1),
        weight: 4,
        zone: crate::zone::Zone::NONE,
        limits: Limits::default(),
        views: vec![view(1, members)],
        account: Account::default(),
        decree: Decree::default(),
        birth: Birth::None,
        tuning: Tuning { probe_every: PROBE_EVERY, ..Tuning::default() },
        seed: 7,
        rules: Rules::default(),
    };
    (Detector::default(), Local::new(&setup, at(0)))
}

fn silent(of: u8, refuted: u32, by: u8, age: u32) -> Gossip {
    let said = Said::Silent { by: machine(by).name, age };
    Gossip::new([News { of: machine(of), refuted, said }])
}

fn told(detector: &mut Detector, local: &mut Local, now: Now, from: u8, gossip: Gossip) -> Vec<Effect> {
    let mut effects = Vec::new();
    let from = local.present().index_of(machine(from)).unwrap();
    detector.heard(local, now, from);
    let message = Message::Alive { ask: Ask(0), reached: true, gossip };
    detector.on_message(local, now, from, message, &mut effects);
    effects
}

/// Lets its time pass in steps, as a machine does that is well, with everybody in `alive` heard: who is asked to probe
/// another gets no answer.
fn pass(detector: &mut Detector, local: &mut Local, from: u64, to: u64, alive: &[u8]) {
    let mut effects = Vec::new();
    for ms in (from..to).step_by(10) {
        for i in alive {
            let member = local.present().index_of(machine(*i)).unwrap();
            detector.heard(local, at(ms), member);
        }
        for (from, ask) in mem::take(&mut effects).iter().filter_map(asked_to_probe) {
            if alive.iter().any(|i| machine(*i) == from) {
                let from = local.present().index_of(from).unwrap();
                let no = Message::Alive { ask, reached: false, gossip: Gossip::default() };
                detector.on_message(local, at(ms), from, no, &mut Vec::new());
            }
        }
        detector.on_time(local, at(ms), &mut effects);
    }
}

/// Who would be dropped, before anybody is looked at once more.
fn dead(detector: &mut Detector, local: &mut Local, ms: u64) -> Vec<Name> {
    let dead = detector.dead(local, at(ms), &mut Vec::new());
    dead.into_iter().map(|machine| machine.name).collect()
}

/// The same, a second later.
fn dead_after_a_look(detector: &mut Detector, local: &mut Local, ms: u64, alive: &[u8]) -> Vec<Name> {
    dead(detector, local, ms);
    pass(detector, local, ms, ms + 1_000, alive);
    dead(detector, local, ms + 1_000)
}

/// Who is probed, under which number.
fn probed(effect: &Effect) -> Option<(Machine, Ask)> {
    match effect {
        Effect::Send { to: Addr::Machine(to), envelope, .. } => match &envelope.message {
            Message::Probe { ask, .. } => Some((*to, *ask)),
            _ => None,
        },
        _ => None,
    }
}

/// Who is asked to probe another, under which number.
fn asked_to_probe(effect: &Effect) -> Option<(Machine, Ask)> {
    match effect {
        Effect::Send { to: Addr::Machine(to), envelope, .. } => match &envelope.message {
            Message::ProbeFor { ask, .. } => Some((*to, *ask)),
            _ => None,
        },
        _ => None,
    }
}

#[test]
fn a_view_change_carries_over_what_is_known_of_who_stays() {
    let (mut detector, mut local) = of_machine_1(&[1, 3, 5, 7, 9]);
    pass(&mut detector, &mut local, 0, 1_000, &[3, 7, 9]);
    told(&mut detector, &mut local, at(1_000), 3, silent(5, 0, 3, 500));
    told(&mut detector, &mut local, at(1_000), 7, silent(5, 0, 7, 300));
    let before = detector.suspects(&local);
    assert!(before.iter().any(|s| s.name == machine(5).name), "{before:?}");

    // Everybody's place changes, one leaves, two come.
    local.adopt(view(2, &[1, 2, 4, 5, 7, 9]), Epoch::ZERO, &mut Vec::new());
    assert_eq!(detector.suspects(&local), before, "before its first turn in it, too");
    assert_eq!(dead(&mut detector, &mut local, 1_000), []);
    pass(&mut detector, &mut local, 1_010, 1_200, &[2, 4, 7, 9]);
    let after = detector.suspects(&local);
    let [suspect] = &after[..] else { panic!("{after:?}") };
    assert_eq!(suspect.name, machine(5).name);
    assert!(suspect.since.mono <= Mono(500 * MS), "it is silent since before: {suspect:?}");
    assert!(!suspect.by.contains(&machine(3).name), "who left is no witness: {suspect:?}");
    assert!(!local.is_well(local.present().index_of(machine(5)).unwrap()));

    // It speaks: cleared under its new place, as under its old one.
    let five = local.present().index_of(machine(5)).unwrap();
    detector.heard(&mut local, at(1_300), five);
    assert_eq!(detector.suspects(&local), []);
    assert!(local.is_well(five));
}

#[test]
fn a_new_incarnation_of_a_suspect_is_no_suspect() {
    let (mut detector, mut local) = of_machine_1(&[1, 2, 3, 4]);
    told(&mut detector, &mut local, at(1_000), 3, silent(2, 0, 3, 500));
    assert_eq!(detector.suspects(&local).len(), 1);
    let mut members = view(2, &[1, 2, 3, 4]).members().to_vec();
    members[1].machine.incarnation = Incarnation::new(99);
    let epoch = Epoch { number: 2, ..Epoch::FIRST };
    let next = View::new(ClusterId::new(1), epoch, 9, members, vec![]).unwrap();
    local.adopt(Arc::new(next), Epoch::ZERO, &mut Vec::new());
    assert_eq!(detector.suspects(&local), []);
    pass(&mut detector, &mut local, 1_000, 1_050, &[3, 4]);
    assert_eq!(detector.suspects(&local), []);
    assert!(local.is_well(1));
}

#[test]
fn dead_is_who_is_down_for_longer_than_the_patience_by_three_witnesses() {
    let (mut detector, mut local) = of_machine_1(&[1, 2, 3, 4, 5]);
    let alive = [2, 3, 4];
    pass(&mut detector, &mut local, 0, 40_000, &alive);
    let [own] = &detector.suspects(&local)[..] else { panic!("{:?}", detector.suspects(&local)) };
    assert_eq!((own.state, own.by.as_slice()), (Standing::Down, &[machine(1).name][..]));
    let one = "one witness of four that live";
    assert_eq!(dead_after_a_look(&mut detector, &mut local, 40_000, &alive), [], "{one}");
    told(&mut detector, &mut local, at(41_000), 2, silent(5, 0, 2, 39_000));
    assert_eq!(dead_after_a_look(&mut detector, &mut local, 41_000, &alive), [], "two");
    told(&mut detector, &mut local, at(42_000), 3, silent(5, 0, 3, 1_000));
    let since = detector.suspects(&local)[0].since;
    assert!(since.mono <= Mono(2_000 * MS), "since the first probe missed: {since:?}");
    // The patience runs from when it fell silent.
    local.tuning.patience = 45_000 * MS;
    assert_eq!(dead_after_a_look(&mut detector, &mut local, 42_000, &alive), []);
    local.tuning.patience = 30_000 * MS;
    assert_eq!(dead_after_a_look(&mut detector, &mut local, 43_000, &alive), [machine(5).name]);
}

#[test]
fn who_answers_the_last_look_is_not_dropped() {
    for through_another in [false, true] {
        // All others have said so, at once after it fell silent, and machine 1 has not looked since.
        let (mut detector, mut local) = of_machine_1(&[1, 2, 3, 4, 5]);
        detector.is_on(&mut local, at(0));
        for by in [2, 3, 4] {
            told(&mut detector, &mut local, at(40_000), by, silent(5, 0, by, 39_000));
        }
        detector.note_down(&local, at(40_000));
        let mut effects = Vec::new();
        assert_eq!(detector.dead(&mut local, at(40_000), &mut effects), []);
        let mut answer = effects.iter().find_map(probed).expect("it is looked at");
        assert_eq!(answer.0, machine(5));
        if through_another {
            (10..400).step_by(10).for_each(|ms| detector.on_time(&mut local, at(40_000 + ms), &mut effects));
            answer = effects.iter().find_map(asked_to_probe).expect("others are asked");
        }
        let from = local.present().index_of(answer.0).unwrap();
        let alive = Message::Alive { ask: answer.1, reached: true, gossip: Gossip::default() };
        detector.heard(&mut local, at(40_400), from);
        detector.on_message(&mut local, at(40_400), from, alive, &mut Vec::new());
        assert_eq!(detector.suspects(&local), [], "through another: {through_another}");
        assert_eq!(dead(&mut detector, &mut local, 40_410), []);
    }
}

#[test]
fn a_message_lost_long_ago_is_no_part_of_a_silence() {
    let (mut detector, mut local) = of_machine_1(&[1, 2, 3, 4, 5]);
    // A probe for somebody else, at the beginning, whose answer was lost; 5 lives on, and machine 1 hears nothing of it.
    let since = |detector: &Detector, local: &Local| detector.suspects(local)[0].since.mono;
    detector.is_on(&mut local, at(0));
    detector.peers[4].notes().missed(at(100));
    told(&mut detector, &mut local, at(60_000), 3, silent(5, 0, 3, 200));
    assert_eq!(since(&detector, &local), at(59_800).mono);
    let [suspect] = &detector.suspects(&local)[..] else { panic!() };
    assert_eq!(suspect.by, [machine(3).name], "nor is one who missed it then a witness");
    // One that was missed just before the suspicion is part of it.
    let (mut detector, mut local) = of_machine_1(&[1, 2, 3, 4, 5]);
    detector.is_on(&mut local, at(0));
    detector.peers[4].notes().missed(at(59_000));
    told(&mut detector, &mut local, at(60_000), 3, silent(5, 0, 3, 200));
    assert_eq!(since(&detector, &local), at(59_000).mono);
    assert_eq!(detector.suspects(&local)[0].by.len(), 2);
}

#[test]
fn one_who_misses_a_suspect_asks_others_before_he_says_so_too() {
    let (mut detector, mut local) = of_machine_1(&[1, 2, 3, 4, 5, 6]);
    pass(&mut detector, &mut local, 0, 100, &[2, 3, 4, 5, 6]);
    told(&mut detector, &mut local, at(110), 3, silent(5, 0, 3, 5));
    let mut effects = Vec::new();
    for ms in (120..1_000).step_by(10) {
        for alive in [2, 3, 4, 6] {
            let member = local.present().index_of(machine(alive)).unwrap();
            detector.heard(&mut local, at(ms), member);
        }
        detector.on_time(&mut local, at(ms), &mut effects);
        if let Some((helper, ask)) = effects.iter().find_map(asked_to_probe) {
            let by = &detector.suspects(&local)[0].by;
            assert_eq!(*by, [machine(3).name], "not on its own missing answer");
            let helper = local.present().index_of(helper).unwrap();
            let reached = Message::Alive { ask, reached: true, gossip: Gossip::default() };
            detector.on_message(&mut local, at(ms + 5), helper, reached, &mut Vec::new());
            assert_eq!(detector.suspects(&local), [], "it lives: another reaches it");
            return;
        }
    }
    panic!("it asked nobody");
}

#[test]
fn who_came_last_has_a_turn_among_the_others() {
    let members: Vec<u8> = (1..=200).collect();
    let mut turns = Vec::new();
    for seed in 0..20 {
        let (mut detector, mut local) = of_machine_1(&members);
        local.me = machine(1);
        for _ in 0..seed {
            local.random();
        }
        pass(&mut detector, &mut local, 0, 1_000, &[]);
        let all: Vec<u8> = (1..=201).collect();
        local.adopt(view(2, &all), Epoch::ZERO, &mut Vec::new());
        detector.is_on(&mut local, at(1_000));
        let places = detector.order.iter().rev().enumerate().filter(|(_, m)| **m == 200);
        let places: Vec<usize> = places.map(|(place, _)| place).collect();
        let [0, second] = places[..] else { panic!("{places:?}") };
        turns.push(second);
    }
    let early = turns.iter().filter(|turn| **turn < 100).count();
    assert!((3..=17).contains(&early), "anywhere among the others: {turns:?}");
}

#[test]
fn who_stood_still_for_seconds_is_waited_for_no_longer_than_before() {
    let (mut detector, mut local) = of_machine_1(&[1, 2]);
    let mut effects = Vec::new();
    let mut ms = 0;
    let mut answer_after = |took: u64| {
        effects.clear();
        let ask = loop {
            detector.on_time(&mut local, at(ms), &mut effects);
            if let Some((_, ask)) = effects.iter().find_map(probed) {
                break ask;
            }
            ms += 10;
        };
        ms += took;
        let alive = Message::Alive { ask, reached: true, gossip: Gossip::default() };
        detector.heard(&mut local, at(ms), 1);
        detector.on_message(&mut local, at(ms), 1, alive, &mut Vec::new());
        detector.slowness = 0;
        detector.wait(1) / MS
    };
    let usual = (0..20).map(|_| answer_after(2)).last().unwrap();
    let stood_still = answer_after(4_000);
    assert!(stood_still <= 4 * usual, "{usual} ms, then {stood_still} ms");
    // Who is that far away is waited for, after a few answers.
    let far = (0..20).map(|_| answer_after(400)).last().unwrap();
    assert!((400..=2_000).contains(&far), "{far} ms");
}

#[test]
fn where_fewer_live_all_of_them_are_witnesses() {
    let (mut detector, mut local) = of_machine_1(&[1, 2, 3]);
    pass(&mut detector, &mut local, 0, 40_000, &[2]);
    let not_yet = "2 lives and has not said so";
    assert_eq!(dead_after_a_look(&mut detector, &mut local, 40_000, &[2]), [], "{not_yet}");
    told(&mut detector, &mut local, at(41_000), 2, silent(3, 0, 2, 38_000));
    assert_eq!(dead_after_a_look(&mut detector, &mut local, 41_000, &[2]), [machine(3).name]);
    let (mut alone, mut local) = of_machine_1(&[1, 2]);
    pass(&mut alone, &mut local, 0, 40_000, &[]);
    assert_eq!(dead_after_a_look(&mut alone, &mut local, 40_000, &[]), [machine(2).name]);
}

#[test]
fn who_stood_still_itself_calls_nobody_dead_until_it_has_listened() {
    let (mut detector, mut local) = of_machine_1(&[1, 2]);
    pass(&mut detector, &mut local, 0, 3_000, &[]);
    assert_eq!(detector.suspects(&local)[0].state, Standing::Down);
    // A minute under SIGSTOP.
    pass(&mut detector, &mut local, 63_000, 63_100, &[]);
    assert_eq!(dead(&mut detector, &mut local, 63_100), []);
    pass(&mut detector, &mut local, 63_100, 66_000, &[]);
    assert_eq!(dead_after_a_look(&mut detector, &mut local, 66_000, &[]), [machine(2).name]);
}

#[test]
fn a_suspect_that_lives_refutes_it_and_is_cleared_where_it_never_spoke_itself() {
    // Machine 1 hears from 3 that 2 is silent; and 2 hears that this is said of it.
    let (mut one, mut of_one) = of_machine_1(&[1, 2, 3, 4]);
    told(&mut one, &mut of_one, at(1_000), 3, silent(2, 0, 3, 200));
    assert_eq!(one.suspects(&of_one).len(), 1);
    let (mut two, mut of_two) = of_machine_1(&[1, 2, 3, 4]);
    of_two.me = machine(2);
    of_two.present_mut().me = Some(1);
    let effects = told(&mut two, &mut of_two, at(1_000), 3, silent(2, 0, 3, 200));
    let refuted = effects.iter().find_map(|effect| match effect {
        Effect::Send { envelope, .. } => match &envelope.message {
            Message::Alive { gossip, .. } => Some(gossip.clone()),
            _ => None,
        },
        _ => None,
    });
    let refuted = refuted.expect("it says at once that it lives");
    let news = News { of: machine(2), refuted: 1, said: Said::Alive };
    assert!(refuted.news().contains(&news), "{refuted:?}");
    // By way of 4, which passes it on: 2 itself has said nothing to 1.
    told(&mut one, &mut of_one, at(1_100), 4, refuted);
    assert_eq!(one.suspects(&of_one), []);
    // What was said before is untrue from now on; what is said after it counts anew.
    told(&mut one, &mut of_one, at(1_200), 3, silent(2, 0, 3, 300));
    assert_eq!(one.suspects(&of_one), []);
    told(&mut one, &mut of_one, at(1_300), 3, silent(2, 1, 3, 10));
    assert_eq!(one.suspects(&of_one).len(), 1);
}

#[test]
fn who_is_not_in_the_view_knows_nobody() {
    let (mut detector, mut local) = of_machine_1(&[1, 2, 3]);
    pass(&mut detector, &mut local, 0, 10_000, &[3]);
    assert_eq!(detector.suspects(&local).len(), 1);
    local.adopt(view(2, &[2, 3, 4]), Epoch::ZERO, &mut Vec::new());
    detector.on_time(&mut local, at(10_000), &mut Vec::new());
    local.adopt(view(3, &[1, 2, 3]), Epoch::ZERO, &mut Vec::new());
    pass(&mut detector, &mut local, 10_000, 10_010, &[3]);
    assert_eq!(detector.suspects(&local), [], "it has not listened in between");
}

#[test]
fn who_is_unwell_says_so_and_is_asked_last_until_it_is_well() {
    let told_by = |effects: &[Effect]| {
        let gossip = effects.iter().find_map(|effect| match effect {
            Effect::Send { envelope, .. } => match &envelope.message {
                Message::Alive { gossip, .. } => Some(gossip.clone()),
                _ => None,
            },
            _ => None,
        });
        gossip.expect("it is told at once")
    };
    let (mut two, mut of_two) = of_machine_1(&[1, 2, 3, 4]);
    of_two.me = machine(2);
    of_two.present_mut().me = Some(1);
    let (mut one, mut of_one) = of_machine_1(&[1, 2, 3, 4]);
    let (stalled, well) = (Health { stalled_ms: 1_500, load: 3, ..Health::default() }, Health::default());
    let mut effects = Vec::new();
    two.on_health(&mut of_two, at(1_000), stalled, &mut effects);
    // By way of 3, who passes it on at once.
    let passed = told(&mut one, &mut of_one, at(1_010), 3, told_by(&effects));
    assert!(told_by(&passed).news().iter().any(|news| news.said == Said::Health(stalled)), "{passed:?}");
    assert_eq!(one.unwell(&of_one), [(machine(2).name, stalled, at(1_010))]);
    assert!(!of_one.is_well(1));
    assert_eq!((one.suspects(&of_one).len(), dead(&mut one, &mut of_one, 90_000).len()), (0, 0), "it lives");

    // A view change does not make it well.
    of_one.adopt(view(2, &[1, 2, 3, 4, 5]), Epoch::ZERO, &mut Vec::new());
    pass(&mut one, &mut of_one, 1_020, 1_100, &[2, 3, 4, 5]);
    assert!(!of_one.is_well(1));

    let before = told_by(&effects);
    effects.clear();
    two.on_health(&mut of_two, at(2_000), well, &mut effects);
    told(&mut one, &mut of_one, at(2_010), 3, told_by(&effects));
    assert!(of_one.is_well(1) && one.unwell(&of_one).is_empty());
    told(&mut one, &mut of_one, at(2_020), 4, before);
    assert!(of_one.is_well(1), "an older word, late");
}

#[test]
fn a_full_disk_is_told_with_since_when_and_is_no_reason_to_be_asked_last() {
    let (mut one, mut local) = of_machine_1(&[1, 2, 3]);
    let full = Health { full: true, ..Health::default() };
    let say = |refuted, health| Gossip::new([News { of: machine(2), refuted, said: Said::Health(health) }]);
    told(&mut one, &mut local, at(1_000), 2, say(7, full));
    told(&mut one, &mut local, at(3_000), 2, say(8, full));
    assert_eq!(one.unwell(&local), [(machine(2).name, full, at(1_000))], "since it was said first");
    assert!(local.is_well(1) && !local.has_room(1));
    told(&mut one, &mut local, at(4_000), 2, say(9, Health::default()));
    assert!(one.unwell(&local).is_empty() && local.has_room(1));
}

#[test]
fn a_word_that_is_not_said_again_runs_out() {
    let (mut one, mut local) = of_machine_1(&[1, 2]);
    let said = Said::Health(Health { stalled_ms: 900, ..Health::default() });
    let gossip = Gossip::new([News { of: machine(2), refuted: 7, said }]);
    told(&mut one, &mut local, at(1_000), 2, gossip);
    assert_eq!(one.unwell(&local).len(), 1);
    pass(&mut one, &mut local, 1_000, 12_000, &[2]);
    assert!(one.unwell(&local).is_empty() && local.is_well(1));
}

/// What this machine says of how others are, beside its own words.
fn passed_on(effects: &[Effect]) -> Vec<News> {
    let gossip = effects.iter().filter_map(|effect| match effect {
        Effect::Send { envelope, .. } => match &envelope.message {
            Message::Alive { gossip, .. } | Message::Probe { gossip, .. } => Some(gossip.news()),
            _ => None,
        },
        _ => None,
    });
    let health = |news: &News| matches!(news.said, Said::Health(_) | Said::Late { .. });
    gossip.flatten().copied().filter(health).collect()
}

#[test]
fn a_word_that_has_run_out_is_not_news_when_somebody_says_it_late() {
    let (mut one, mut local) = of_machine_1(&[1, 2, 3, 4, 5, 6]);
    let said = Said::Health(Health { stalled_ms: 900, ..Health::default() });
    let unwell = |number| Gossip::new([News { of: machine(6), refuted: number, said }]);
    let words = [late(2, 7, 3, 900), late(2, 7, 4, 900), late(2, 7, 5, 900), unwell(7)];
    let heard = words.clone().map(|word| told(&mut one, &mut local, at(1_000), 3, word));
    assert!(heard.iter().any(|effects| !passed_on(effects).is_empty()), "news is");
    let all_well = |local: &Local| local.is_well(1) && local.is_well(5);
    for (number, ms) in [(2, 12_000), (3, 30_000), (4, 60_000)] {
        // What was heard last, word for word, is not remembered in another view.
        local.adopt(view(number, &[1, 2, 3, 4, 5, 6]), Epoch::ZERO, &mut Vec::new());
        pass(&mut one, &mut local, ms - 11_000, ms, &[2, 3, 4, 5, 6]);
        for word in words.clone() {
            // Whoever stood still in between still has it to tell.
            let effects = told(&mut one, &mut local, at(ms), 4, word);
            assert_eq!(passed_on(&effects), [], "at {ms}");
            assert!(all_well(&local), "at {ms}");
        }
    }
    // A clock went back by hours, and who says it begins with lower numbers: after a while they count.
    pass(&mut one, &mut local, 60_000, 62_000, &[2, 3, 4, 5, 6]);
    told(&mut one, &mut local, at(62_000), 6, unwell(3));
    assert!(local.is_well(1) && !local.is_well(5));
}

/// Machine `by` says that the answers of `of` take so long.
fn late(of: u8, number: u32, by: u8, ms: u32) -> Gossip {
    let said = Said::Late { by: machine(by).name, ms };
    Gossip::new([News { of: machine(of), refuted: number, said }])
}

#[test]
fn three_who_say_that_answers_do_not_come_are_believed_and_nobody_is_suspected() {
    let (mut one, mut local) = of_machine_1(&[1, 2, 3, 4, 5, 6]);
    for (by, well) in [(3, true), (4, true), (5, false)] {
        told(&mut one, &mut local, at(1_000), by, late(2, 7, by, 900));
        assert_eq!(local.is_well(1), well, "{by}");
    }
    let by = |i: u8| (machine(i).name, 900);
    assert_eq!(one.late(&local), [(machine(2).name, vec![by(3), by(4), by(5)])]);
    assert!(local.is_alive(1) && local.is_reachable(1), "it answers probes");
    assert_eq!((one.suspects(&local).len(), dead(&mut one, &mut local, 90_000).len()), (0, 0));
    // One of them takes it back; his older word, late, changes nothing.
    told(&mut one, &mut local, at(1_100), 5, late(2, 8, 5, 0));
    assert!(local.is_well(1));
    told(&mut one, &mut local, at(1_200), 6, late(2, 7, 5, 900));
    assert!(local.is_well(1));
    told(&mut one, &mut local, at(1_300), 5, late(2, 9, 5, 900));
    assert!(!local.is_well(1));
    pass(&mut one, &mut local, 1_300, 12_000, &[2, 3, 4, 5, 6]);
    assert!(local.is_well(1), "what is not said again runs out");
}

#[test]
fn who_is_no_member_is_no_witness_and_one_witness_counts_once() {
    let (mut one, mut local) = of_machine_1(&[1, 2, 3, 4, 5, 6]);
    for number in 1..6 {
        told(&mut one, &mut local, at(1_000), 3, late(2, number, 3, 900));
        told(&mut one, &mut local, at(1_000), 3, late(2, number, 90 + number as u8, 900));
        // What is said in one's own name is not what one said.
        told(&mut one, &mut local, at(1_000), 3, late(2, number, 1, 900));
    }
    assert!(local.is_well(1));
}

#[test]
fn who_gets_answers_in_time_does_not_believe_that_others_get_none() {
    let (mut one, mut local) = of_machine_1(&[1, 2, 3, 4, 5, 6]);
    let key = crate::Key::new("k").unwrap();
    let state = Arc::new(crate::State::default());
    let answer = |local: &mut Local, ms: u64, number: u64| {
        let accept = Message::Accept {
            ask: Ask(number),
            key: key.clone(),
            stamp: crate::Stamp::default(),
            state: state.clone(),
        };
        local.answers.asked(at(ms).mono, 1, &accept, 0);
        let held = crate::message::Answer::Held { stamp: crate::Stamp::default() };
        local.answers.answered(at(ms + 3).mono, 1, Ask(number), &held);
    };
    answer(&mut local, 900, 1);
    pass(&mut one, &mut local, 1_000, 1_500, &[2, 3, 4, 5, 6]);
    for by in [3, 4, 5] {
        told(&mut one, &mut local, at(1_500), by, late(2, 7, by, 900));
    }
    assert!(local.is_well(1));
}

#[test]
fn who_is_told_by_three_that_its_answers_do_not_come_is_unwell_itself() {
    let (mut one, mut local) = of_machine_1(&[1, 2, 3, 4, 5, 6]);
    for (by, unwell) in [(2, false), (3, false), (4, true)] {
        told(&mut one, &mut local, at(1_000), by, late(1, 7, by, 900));
        assert_eq!(local.is_unwell, unwell, "{by}");
    }
    pass(&mut one, &mut local, 1_000, 12_000, &[2, 3, 4, 5, 6]);
    assert!(!local.is_unwell);
}

#[test]
fn among_many_who_is_doubted_is_probed_before_its_turn() {
    let members: Vec<u8> = (1..=250).collect();
    let (mut detector, mut local) = of_machine_1(&members);
    detector.on_time(&mut local, at(0), &mut Vec::new());
    // Two suspects: nobody says any more that they live.
    for of in [5, 9] {
        told(&mut detector, &mut local, at(1), 2, silent(of, 0, 2, 10));
    }
    let mut probed = Vec::new();
    for ms in (10..20_000).step_by(10) {
        let mut effects = Vec::new();
        detector.on_time(&mut local, at(ms), &mut effects);
        for effect in effects {
            if let Effect::Send { to: crate::message::Addr::Machine(to), envelope, .. } = effect
                && matches!(envelope.message, Message::Probe { .. })
            {
                // All others answer.
                if to != machine(5) && to != machine(9) {
                    let member = local.present().index_of(to).unwrap();
                    detector.heard(&mut local, at(ms), member);
                } else {
                    probed.push(ms);
                }
            }
        }
    }
    assert!(probed.len() >= 3 && probed[0] < 6_000, "{probed:?}, and a round takes a minute");
}
