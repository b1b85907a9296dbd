//! The ring heals itself: what is struck at set times, and how it stands after that.
#![allow(missing_docs, clippy::print_stdout, reason = "tests")]

#[path = "healing/rig.rs"]
mod rig;

use ennead_sim::{Act, Report, SEC, Survey, Timed};
use rig::{Rig, sums};

/// How long machines wait before they drop one.
const PATIENCE: f64 = 30.0;

/// Machines by number, from one to the other.
fn numbers(from: usize, to: usize) -> std::ops::RangeInclusive<usize> {
    from..=to
}

/// One, three in a single view, nine, twelve, and nine again; each key can be used all the while.
#[test]
fn a_ring_of_one_grows_to_three_nine_and_twelve_and_shrinks_to_nine_and_no_operation_fails() {
    for seed in 1..=2 {
        let rig = Rig {
            founders: 1,
            machines: 12,
            span: 150.0,
            schedule: vec![
                Timed::new(10.0, Act::Join, numbers(2, 3)),
                Timed::new(30.0, Act::Join, numbers(4, 9)),
                Timed::new(60.0, Act::Join, numbers(10, 12)),
                Timed::new(100.0, Act::Leave, numbers(2, 4)),
            ],
            surveys: vec![9.0, 29.0, 59.0, 99.0, 149.0],
            ..Rig::default()
        };
        let report = rig.run(seed);
        let members: Vec<usize> = report.surveys.iter().map(|survey| survey.members.len()).collect();
        assert_eq!(members, [1, 3, 9, 12, 9], "seed {seed}");
        assert!(report.surveys.iter().all(|survey| survey.at_rest), "seed {seed}: {:?}", report.surveys);
        assert_eq!(report.surveys[4].members, [1, 5, 6, 7, 8, 9, 10, 11, 12], "seed {seed}");
        assert_eq!(report.metrics.failed, 0, "seed {seed}: of {}", report.metrics.ok);
        assert!(report.metrics.ok > 2_000, "seed {seed}: {}", report.metrics.ok);
        assert_eq!((report.metrics.joins, report.metrics.leaves), (11, 3), "seed {seed}");
    }
}

/// V7: three say so within a second; it is dropped after the patience and not before; then nine copies again, by themselves.
#[test]
fn a_machine_that_dies_for_good_is_seen_at_once_dropped_after_the_patience_and_made_up_for() {
    for seed in 1..=2 {
        let (dies, four) = (10.0, 70.0);
        let rig = Rig {
            founders: 10,
            machines: 10,
            span: 80.0,
            schedule: vec![
                Timed::new(dies, Act::KillForGood, [4]),
                Timed::new(four, Act::KillForGood, [1, 3, 6, 10]),
            ],
            surveys: [dies - 0.1, dies + PATIENCE - 0.1, dies + PATIENCE + 8.0]
                .into_iter()
                .chain(
                    // An operation that is under way has not reached all nine.
                    (0..10).map(|n| four - 1.0 + f64::from(n) * 0.05),
                )
                .collect(),
            ..Rig::default()
        };
        let report = rig.run(seed);
        let detected = &report.metrics.detected;
        assert!(detected.len() >= 5, "seed {seed}: {detected:?}");
        assert!(detected[0] < SEC, "seed {seed}: three said so after {} ns", detected[0]);
        let [before, still, dropped, later @ ..] = &report.surveys[..] else { panic!("surveys") };
        assert!(before.members.contains(&4) && before.alike, "seed {seed}");
        assert!(still.members.contains(&4) && still.views == 0, "seed {seed}: dropped too soon");
        assert!(!dropped.members.contains(&4), "seed {seed}: not dropped");
        assert_eq!(later[0].members.len(), 9, "seed {seed}");
        assert!(later.iter().any(|survey| survey.at_rest && survey.alike), "seed {seed}: not nine copies");
        // No key has less than five of its slots, and the patience is not over.
        assert_eq!(report.metrics.failed, 0, "seed {seed}: of {}", report.metrics.ok);
        let then = sums(&report, four, 80.0, |_| true);
        assert!(then.answered > 100, "seed {seed}: once four were dead {then:?}");
        assert_eq!(report.metrics.lost, 5, "seed {seed}");
        assert_eq!(report.metrics.false_evictions, 0, "seed {seed}");
    }
}

/// S7: what it was it is no more; it votes only once it is synced (the claims look at each vote).
#[test]
fn a_machine_that_loses_its_disk_comes_back_as_another_incarnation_and_is_synced() {
    for seed in 1..=2 {
        let rig = Rig {
            span: 40.0,
            schedule: vec![Timed::new(10.0, Act::Wipe, [5]).lasting(2.0)],
            surveys: vec![9.0, 11.0, 39.0],
            ..Rig::default()
        };
        let report = rig.run(seed);
        let [before, away, back] = &report.surveys[..] else { panic!("surveys") };
        assert!(before.machines[4].synced && !away.machines[4].runs, "seed {seed}");
        assert_ne!(before.machines[4].incarnation, back.machines[4].incarnation, "seed {seed}");
        assert_eq!(back.members, numbers(1, 9).collect::<Vec<_>>(), "seed {seed}");
        assert!(back.machines[4].synced && back.at_rest, "seed {seed}: {back:?}");
        assert!(back.machines[4].taken > 0, "seed {seed}: it began with nothing");
        assert!(report.probes.contains_key("wiped and taken in again"), "seed {seed}");
        assert_eq!(report.metrics.failed, 0, "seed {seed}");
    }
}

/// The sixth of ten is away from 150 s on, for so long. Nearly all keys were written by then, and few are meanwhile.
fn away(act: Act, patience: f64, seconds: f64, seed: u64) -> Report {
    let rig = Rig {
        founders: 10,
        machines: 10,
        keys: 150,
        value_size: 1_024,
        rate: 4.0,
        span: 190.0,
        patience,
        schedule: vec![Timed::new(150.0, act, [6]).lasting(seconds)],
        surveys: vec![149.0, 154.9, 150.0 + seconds - 0.1, 150.0 + seconds + 15.0],
        ..Rig::default()
    };
    rig.run(seed)
}

#[test]
fn a_pause_of_five_seconds_moves_no_data_and_fails_no_operation() {
    for seed in 1..=2 {
        let report = away(Act::Pause, 30.0, 5.0, seed);
        let [before, during, _, after] = &report.surveys[..] else { panic!("surveys") };
        assert!(during.machines[0].suspects.iter().any(|(m, _)| *m == 6), "seed {seed}: nobody missed it");
        assert_eq!(report.counts.views, 0, "seed {seed}");
        assert_eq!(report.metrics.failed, 0, "seed {seed}: of {}", report.metrics.ok);
        let taken = |survey: &Survey| survey.machines.iter().map(|m| m.taken).collect::<Vec<_>>();
        assert_eq!(taken(before), taken(after), "seed {seed}");
        assert!(after.machines.iter().all(|m| m.suspects.is_empty()), "seed {seed}: it is suspected yet");
    }
}

#[test]
fn who_stands_still_for_longer_than_the_patience_is_dropped_and_comes_back_with_what_it_has() {
    for seed in 1..=2 {
        let [paused, wiped] = [Act::Pause, Act::Wipe].map(|act| away(act, 8.0, 15.0, seed));
        for report in [&paused, &wiped] {
            let [before, during, dropped, after] = &report.surveys[..] else { panic!("surveys") };
            assert!(before.members.contains(&6) && during.members.contains(&6), "seed {seed}");
            assert!(!dropped.members.contains(&6), "seed {seed}: not dropped");
            assert!(after.members.contains(&6) && after.machines[5].synced, "seed {seed}: not back");
            assert_eq!(report.metrics.failed, 0, "seed {seed}: of {}", report.metrics.ok);
        }
        let of = |report: &Report, survey: usize| report.surveys[survey].machines[5].clone();
        assert_eq!(of(&paused, 0).incarnation, of(&paused, 3).incarnation, "seed {seed}");
        assert!(paused.probes.contains_key("rejoined with data"), "seed {seed}");
        let (took, whole) = (of(&paused, 3).taken - of(&paused, 0).taken, of(&wiped, 3).taken);
        println!("seed {seed}: {took} bytes with its data, {whole} without");
        assert!(
            whole > 50_000 && took * 4 < whole,
            "seed {seed}: {took} bytes with its data, {whole} without"
        );
    }
}

/// What tells them apart, as others and they themselves see it; the words that `kvctl why` makes of that are made in
/// `src/verdict`.
#[test]
fn one_that_stands_still_one_that_is_slow_and_one_that_is_cut_off_are_told_apart_within_five_seconds() {
    let (still, slow, cut) = (2, 5, 8);
    for seed in 1..=3 {
        let rig = Rig {
            founders: 12,
            machines: 12,
            span: 40.0,
            schedule: vec![
                Timed::new(20.0, Act::Pause, [still]).lasting(10.0),
                Timed { times: Some(100.0), ..Timed::new(20.0, Act::SlowDisk, [slow]).lasting(10.0) },
                Timed::new(20.0, Act::Cut, [cut]).lasting(10.0),
            ],
            surveys: vec![19.9, 25.0, 39.9],
            ..Rig::default()
        };
        let report = rig.run(seed);
        let [before, now, after] = &report.surveys[..] else { panic!("surveys") };
        for well in [before, after] {
            assert!(well.machines.iter().all(|m| m.suspects.is_empty()), "seed {seed}: {well:?}");
            assert!(well.machines.iter().all(|m| m.unwell.is_empty()), "seed {seed}: {well:?}");
        }
        let of = |m: usize| &now.machines[m - 1];
        for (m, stand) in numbers(1, 12).zip(&now.machines) {
            if [still, cut].contains(&m) {
                continue;
            }
            // Three say of the two that they do not answer, and nobody says that of the slow one...
            let suspects: Vec<usize> = stand.suspects.iter().map(|(m, _)| *m).collect();
            assert_eq!(suspects, [still, cut], "seed {seed}: as s{m} has it");
            assert!(stand.suspects.iter().all(|(_, by)| *by >= 3), "seed {seed}: as s{m} has it");
            // ...of which all know that it is not well.
            assert!(m == slow || stand.unwell == [slow], "seed {seed}: s{m} has {:?}", stand.unwell);
        }
        // The one that stands still suspects nobody. The one that is cut off suspects one after the other, on nobody else's word.
        assert!(of(still).suspects.is_empty(), "seed {seed}: {:?}", of(still).suspects);
        let alone = of(cut).suspects.iter().all(|(_, by)| *by == 1);
        assert!(alone && of(cut).suspects.len() >= 3, "seed {seed}: {:?}", of(cut).suspects);
        assert_eq!(report.counts.views, 0, "seed {seed}");
    }
}

/// Claim 3: the five go on. The four say that they are too few, and what one copy holds can be read of them.
#[test]
fn nine_are_cut_into_five_and_four_of_which_five_go_on_and_four_say_so() {
    for seed in 1..=2 {
        let (from, until) = (20.0, 40.0);
        let rig = Rig {
            clients: 20,
            rate: 200.0,
            schedule: vec![Timed {
                clients: Some(10),
                ..Timed::new(from, Act::Split, numbers(6, 9)).lasting(until - from)
            }],
            span: 70.0,
            surveys: vec![39.9, 69.0, 69.2, 69.4, 69.6, 69.8],
            ones: 20,
            ..Rig::default()
        };
        let report = rig.run(seed);
        let (cut, healed) = (&report.surveys[0], &report.surveys[1..]);
        assert_eq!(cut.views, 0, "seed {seed}: nobody is dropped");
        assert!(healed.iter().any(|survey| survey.at_rest && survey.alike), "seed {seed}: copies differ");
        // Those with the five are answered, each of them; those with the four never are, and are told so.
        let five = sums(&report, from, until, |client| client >= 10);
        // What was under way when they were cut is of unknown outcome.
        let four = sums(&report, from + 3.0, until, |client| client < 10);
        println!("seed {seed}: the five {five:?}, the four {four:?}");
        assert!(five.answered > 100 && five.failed == 0, "seed {seed}: {five:?}");
        assert!(four.answered == 0 && four.writes_failed > 10, "seed {seed}: {four:?}");
        assert_eq!(four.too_few, four.writes_failed, "seed {seed}: {four:?}");
        assert!(four.ones > 10 && four.ones_failed == 0, "seed {seed}: {four:?}");
        assert_eq!(sums(&report, until + 3.0, 70.0, |_| true).failed, 0, "seed {seed}");
    }
}
