//! The judges are judged: histories known to be right and known to be wrong, and one judge against the other.

use ennead_sim::checker::{Call, If, Op, Reply, exhaust, judge};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// `(call, reply, start, end)`, each by another client.
fn history(calls: &[(Call, Reply, u64, u64)]) -> Vec<Op> {
    let op = |(who, &(call, reply, start, end)): (usize, &(Call, Reply, u64, u64))| {
        let end = if reply == Reply::Unknown { u64::MAX } else { end };
        Op { who: who as u32, call, reply, start, end }
    };
    calls.iter().enumerate().map(op).collect()
}

fn put(value: u64) -> Call {
    Call::Put(value, If::Any)
}

#[track_caller]
fn right(calls: &[(Call, Reply, u64, u64)]) {
    let ops = history(calls);
    assert_eq!(judge(&ops), Ok(()));
    assert!(exhaust(&ops, true), "the slow judge disagrees");
    assert!(exhaust(&ops, false), "the slow judge without versions disagrees");
}

/// Wrong by its values alone.
#[track_caller]
fn wrong(calls: &[(Call, Reply, u64, u64)]) {
    let ops = history(calls);
    assert!(judge(&ops).is_err(), "the fast judge saw nothing");
    assert!(!exhaust(&ops, true), "the slow judge saw nothing");
    assert!(!exhaust(&ops, false), "the slow judge without versions saw nothing");
}

/// Wrong only by its versions.
#[track_caller]
fn wrong_version(calls: &[(Call, Reply, u64, u64)]) {
    let ops = history(calls);
    assert!(judge(&ops).is_err(), "the fast judge saw nothing");
    assert!(!exhaust(&ops, true), "the slow judge saw nothing");
}

use Reply::{Absent, Counted, Done, Found, Mismatch, Never, Nothing, Unknown};
const GET: Call = Call::Get;
const DEL: Call = Call::Delete(If::Any);

#[test]
fn one_after_the_other_is_right() {
    right(&[
        (GET, Nothing(Some(0)), 1, 2),
        (put(10), Done(1), 3, 4),
        (GET, Found(10, 1), 5, 6),
        (DEL, Done(2), 7, 8),
        (GET, Nothing(None), 9, 10),
        (GET, Nothing(Some(2)), 11, 12),
        (DEL, Absent, 13, 14),
        (Call::Put(20, If::Absent), Done(3), 15, 16),
        (Call::Put(30, If::Version(3)), Done(4), 17, 18),
        (Call::Put(40, If::Version(3)), Mismatch(Some(4)), 19, 20),
    ]);
}

#[test]
fn a_read_beside_a_write_may_see_either() {
    right(&[(put(10), Done(1), 1, 10), (GET, Nothing(None), 2, 3), (GET, Found(10, 1), 4, 5)]);
}

#[test]
fn a_stale_read_is_wrong() {
    wrong(&[(put(10), Done(1), 1, 2), (put(20), Done(2), 3, 4), (GET, Found(10, 1), 5, 6)]);
}

#[test]
fn a_lost_write_is_wrong() {
    wrong(&[(put(10), Done(1), 1, 2), (GET, Nothing(None), 3, 4)]);
    wrong(&[(put(10), Done(1), 1, 2), (GET, Nothing(Some(0)), 3, 4)]);
}

#[test]
fn a_read_that_flips_back_is_wrong() {
    wrong(&[(put(10), Unknown, 1, 0), (GET, Found(10, 1), 2, 3), (GET, Nothing(None), 4, 5)]);
    wrong(&[
        (put(10), Done(1), 1, 2),
        (put(20), Unknown, 3, 0),
        (GET, Found(20, 2), 4, 5),
        (GET, Found(10, 1), 6, 7),
    ]);
}

#[test]
fn a_write_applied_twice_is_wrong() {
    wrong(&[
        (put(10), Done(1), 1, 2),
        (put(20), Done(2), 3, 4),
        (GET, Found(20, 2), 5, 6),
        (GET, Found(10, 3), 7, 8),
    ]);
    wrong_version(&[(put(10), Done(1), 1, 2), (GET, Found(10, 1), 3, 4), (GET, Found(10, 2), 5, 6)]);
}

#[test]
fn a_value_from_nowhere_is_wrong() {
    wrong(&[(GET, Found(10, 1), 1, 2)]);
    wrong(&[(put(10), Never, 1, 2), (GET, Found(10, 1), 3, 4)]);
}

#[test]
fn a_wrongly_failed_comparison_is_wrong() {
    // The key had that very version all along,
    wrong_version(&[(put(10), Done(1), 1, 2), (Call::Put(20, If::Version(1)), Mismatch(Some(1)), 3, 4)]);
    // or had no value at all,
    wrong(&[(Call::Put(20, If::Absent), Mismatch(Some(1)), 3, 4)]);
    // or the state it failed against was never chosen.
    wrong(&[
        (put(10), Done(1), 1, 2),
        (put(20), Unknown, 3, 0),
        (Call::Put(30, If::Version(1)), Mismatch(Some(2)), 4, 5),
        (GET, Found(10, 1), 6, 7),
        (put(40), Done(2), 8, 9),
    ]);
    wrong(&[(put(10), Done(1), 1, 2), (DEL, Absent, 3, 4)]);
}

#[test]
fn a_comparison_that_should_have_failed_is_wrong() {
    wrong(&[
        (put(10), Done(1), 1, 2),
        (Call::Put(20, If::Version(1)), Done(2), 3, 4),
        (Call::Put(30, If::Version(1)), Done(3), 5, 6),
        (GET, Found(30, 3), 7, 8),
    ]);
    wrong(&[(put(10), Done(1), 1, 2), (Call::Put(20, If::Absent), Done(2), 3, 4)]);
    // Both of two racing ones, even.
    wrong(&[
        (put(10), Done(1), 1, 2),
        (Call::Put(20, If::Version(1)), Done(2), 3, 9),
        (Call::Put(30, If::Version(1)), Done(3), 4, 8),
    ]);
}

#[test]
fn versions_that_fall_or_repeat_are_wrong() {
    wrong_version(&[(put(10), Done(2), 1, 2), (put(20), Done(1), 3, 4)]);
    wrong_version(&[(put(10), Done(1), 1, 4), (put(20), Done(1), 2, 3)]);
    wrong_version(&[(put(10), Done(0), 1, 2)]);
}

#[test]
fn an_unknown_outcome_may_come_late_or_never() {
    right(&[(put(10), Unknown, 1, 0), (GET, Nothing(None), 2, 3), (GET, Found(10, 1), 4, 5)]);
    right(&[(put(10), Unknown, 1, 0), (GET, Nothing(None), 2, 3), (put(20), Done(1), 4, 5)]);
    right(&[
        (put(10), Done(1), 1, 2),
        (DEL, Unknown, 3, 0),
        (GET, Found(10, 1), 4, 5),
        (GET, Nothing(None), 6, 7),
        (put(20), Done(3), 8, 9),
    ]);
}

#[test]
fn an_unknown_delete_explains_nothing_before_it_began() {
    wrong(&[(put(10), Done(1), 1, 2), (GET, Nothing(None), 3, 4), (DEL, Unknown, 5, 0)]);
}

#[test]
fn an_unknown_delete_happens_once() {
    wrong(&[
        (put(10), Done(1), 1, 2),
        (DEL, Unknown, 3, 0),
        (GET, Nothing(None), 4, 5),
        (put(20), Done(3), 6, 7),
        (GET, Nothing(None), 8, 9),
    ]);
    // And it takes a version: there is none between 1 and 2.
    wrong_version(&[
        (put(10), Done(1), 1, 2),
        (DEL, Unknown, 3, 0),
        (GET, Nothing(None), 4, 5),
        (put(20), Done(2), 6, 7),
    ]);
}

#[test]
fn a_version_only_spoken_of_needs_a_write_that_may_have_made_it() {
    right(&[
        (put(10), Done(1), 1, 2),
        (put(20), Unknown, 3, 0),
        (Call::Put(30, If::Version(1)), Mismatch(Some(2)), 4, 5),
    ]);
    wrong_version(&[(put(10), Done(1), 1, 2), (Call::Put(30, If::Absent), Mismatch(Some(2)), 4, 5)]);
}

fn incr(by: i64) -> Call {
    Call::Incr(by)
}

const TOUCH: Call = Call::Touch(If::Any);

#[test]
fn a_touch_leaves_a_value_its_version() {
    right(&[
        (TOUCH, Absent, 1, 2),
        (put(10), Done(1), 3, 4),
        (TOUCH, Done(1), 5, 6),
        (Call::Touch(If::Version(1)), Done(1), 7, 8),
        (GET, Found(10, 1), 9, 10),
        (Call::Touch(If::Version(2)), Mismatch(Some(1)), 11, 12),
    ]);
    wrong_version(&[(put(10), Done(1), 1, 2), (TOUCH, Done(2), 3, 4)]);
    wrong_version(&[(put(10), Done(1), 1, 2), (TOUCH, Done(1), 3, 4), (GET, Found(10, 2), 5, 6)]);
    wrong(&[(put(10), Done(1), 1, 2), (TOUCH, Absent, 3, 4)]);
    wrong(&[(TOUCH, Done(1), 1, 2)]);
}

#[test]
fn a_counter_counts_each_call_once() {
    right(&[
        (GET, Nothing(None), 1, 2),
        (incr(1), Counted(1, 1), 3, 4),
        (incr(2), Counted(3, 2), 5, 6),
        (TOUCH, Done(2), 7, 8),
        (incr(4), Unknown, 9, 0),
        (GET, Found(3, 2), 10, 11),
        (GET, Found(7, 3), 12, 13),
    ]);
    // Lost,
    wrong(&[(incr(1), Counted(1, 1), 1, 2), (incr(2), Counted(2, 2), 3, 4)]);
    wrong(&[(incr(1), Counted(1, 1), 1, 2), (GET, Nothing(None), 3, 4)]);
    // counted twice, as a whole or when its outcome was unknown,
    wrong(&[(incr(1), Counted(1, 1), 1, 2), (GET, Found(2, 2), 3, 4)]);
    wrong(&[(incr(1), Unknown, 1, 0), (incr(4), Counted(6, 3), 2, 3)]);
    // told the number of another,
    wrong(&[(incr(1), Counted(3, 1), 1, 4), (incr(2), Counted(3, 2), 2, 3)]);
    // counted although it never was to be, or before it was asked for.
    wrong(&[(incr(1), Never, 1, 2), (GET, Found(1, 1), 3, 4)]);
    wrong(&[(GET, Found(1, 1), 1, 2), (incr(1), Unknown, 3, 0)]);
}

/// What a counter with many callers might answer; then, where `lies` says so, something else.
fn random_counting(seed: u64, calls: usize, lies: f64) -> Vec<Op> {
    let mut rng = StdRng::seed_from_u64(seed);
    let width = rng.random_range(1..12);
    let mut ops = Vec::new();
    let (mut number, mut version) = (0, 0);
    for i in 0..calls as u64 {
        let at = 1_000 + i * 10;
        let (start, end) = (at - rng.random_range(0..width * 10), at + rng.random_range(0..width * 10));
        let lie = rng.random_bool(lies);
        let call = match rng.random_range(0..10) {
            0..6 => incr(1 << (i % 40)),
            _ => GET,
        };
        let mut reply = match call {
            Call::Incr(by) => {
                // Lost although acknowledged; counted twice.
                let times = if lie { [0, 2][rng.random_range(0..2)] } else { 1 };
                (number, version) = (number + times * by, version + times as u64);
                Counted(number, version.max(1))
            }
            _ if version == 0 => Nothing(None),
            _ => Found(number as u64 + u64::from(lie && rng.random_bool(0.3)), version),
        };
        if rng.random_bool(0.3) {
            if let (Call::Incr(by), true) = (call, !lie && rng.random_bool(0.5)) {
                // Nobody knows that it was never tried.
                (number, version) = (number - by, version - 1);
            }
            reply = Unknown;
        }
        let end = if reply == Unknown { u64::MAX } else { end * 1000 + 500 + i };
        ops.push(Op { who: i as u32, call, reply, start: start * 1000 + i, end });
    }
    ops
}

#[test]
fn both_judges_agree_on_random_counters() {
    let (mut good, mut bad) = (0, 0);
    for seed in 0..30_000u64 {
        let calls = 3 + (seed % 10) as usize;
        let lies = [0.0, 0.05, 0.2][seed as usize % 3];
        let ops = random_counting(seed, calls, lies);
        if !ops.iter().any(|op| matches!(op.call, Call::Incr(_))) {
            continue;
        }
        let (fast, slow) = (judge(&ops), exhaust(&ops, true));
        let listing = || ops.iter().map(|op| format!("  {op}\n")).collect::<String>();
        assert_eq!(fast.is_ok(), slow, "seed {seed}: fast says {fast:?}\n{}", listing());
        assert!(slow || lies > 0.0, "seed {seed}: a counter's own history refused\n{}", listing());
        if slow { good += 1 } else { bad += 1 }
    }
    assert!(good > 10_000 && bad > 2_000, "{good} right, {bad} wrong");
}

#[test]
fn long_counts_are_judged_at_once() {
    for seed in 0..20 {
        assert_eq!(judge(&random_counting(seed, 3_000, 0.0)), Ok(()), "seed {seed}");
    }
}

/// What a register with many callers might answer, each call at one instant inside its interval; then, where
/// `lies` says so, something else.
fn random_history(seed: u64, calls: usize, lies: f64) -> Vec<Op> {
    let mut rng = StdRng::seed_from_u64(seed);
    let width = rng.random_range(1..12);
    let mut ops = Vec::new();
    let (mut value, mut version) = (None::<u64>, 0u64);
    let mut past: Vec<(Option<u64>, u64)> = vec![(None, 0)];
    for i in 0..calls as u64 {
        let at = 1_000 + i * 10;
        let (start, end) = (at - rng.random_range(0..width * 10), at + rng.random_range(0..width * 10));
        let condition = match rng.random_range(0..6) {
            0 => If::Absent,
            1 if value.is_some() => If::Version(version),
            2 => match past[past.len().saturating_sub(3)] {
                (Some(_), version) => If::Version(version),
                _ => If::Any,
            },
            _ => If::Any,
        };
        let call = match rng.random_range(0..10) {
            0..4 => Call::Put(i + 100, condition),
            4..6 => Call::Delete(if condition == If::Absent { If::Any } else { condition }),
            6 => Call::Touch(if condition == If::Absent { If::Any } else { condition }),
            _ => Call::Get,
        };
        let lie = rng.random_bool(lies);
        let (seen, seen_version) = if lie { past[rng.random_range(0..past.len())] } else { (value, version) };
        let holds = match call {
            Call::Put(_, If::Any) | Call::Get => true,
            Call::Delete(If::Any) | Call::Touch(If::Any) => seen.is_some(),
            Call::Put(_, If::Absent) => seen.is_none(),
            Call::Delete(If::Absent) | Call::Touch(If::Absent) | Call::Incr(_) => false,
            Call::Put(_, If::Version(v)) | Call::Delete(If::Version(v)) | Call::Touch(If::Version(v)) => {
                seen.is_some() && seen_version == v
            }
        };
        let mut reply = match call {
            Call::Get => match seen {
                Some(value) => Found(value, seen_version),
                None => Nothing(rng.random_bool(0.3).then_some(seen_version)),
            },
            Call::Touch(_) if holds => Done(seen_version),
            _ if holds => Done(version + 1),
            Call::Delete(If::Any) | Call::Touch(If::Any) => Absent,
            _ => Mismatch(seen.map(|_| seen_version)),
        };
        let unknown = rng.random_bool(0.15);
        if let (Done(made), false) = (reply, matches!(call, Call::Touch(_))) {
            // Lost although acknowledged, or never tried.
            let lost = lie && rng.random_bool(0.3) || unknown && rng.random_bool(0.5);
            if !lost {
                (value, version) = (if let Call::Put(value, _) = call { Some(value) } else { None }, made);
                past.push((value, version));
            }
        }
        if unknown {
            reply = Unknown;
        }
        ops.push(Op { who: i as u32, call, reply, start: start * 1000 + i, end: end * 1000 + 500 + i });
    }
    for op in &mut ops {
        if op.reply == Unknown {
            op.end = u64::MAX;
        }
    }
    ops
}

#[test]
fn both_judges_agree_on_random_histories() {
    let (mut good, mut bad, mut by_value) = (0, 0, 0);
    for seed in 0..30_000u64 {
        let calls = 3 + (seed % 12) as usize;
        let lies = [0.0, 0.05, 0.2][seed as usize % 3];
        let ops = random_history(seed, calls, lies);
        let (fast, slow) = (judge(&ops), exhaust(&ops, true));
        let listing = || ops.iter().map(|op| format!("  {op}\n")).collect::<String>();
        assert_eq!(fast.is_ok(), slow, "seed {seed}: fast says {fast:?}\n{}", listing());
        if lies == 0.0 {
            assert!(slow, "seed {seed}: a register's own history refused\n{}", listing());
        }
        // Whoever finds it right with versions finds it right without.
        let values = exhaust(&ops, false);
        assert!(values || !slow, "seed {seed}: right only with versions\n{}", listing());
        by_value += u32::from(!values);
        if slow { good += 1 } else { bad += 1 }
    }
    assert!(
        good > 10_000 && bad > 2_000 && by_value > 1_000,
        "{good} right, {bad} wrong, {by_value} by value"
    );
}

#[test]
fn long_histories_are_judged_at_once() {
    for seed in 0..20 {
        let ops = random_history(seed, 5_000, 0.0);
        assert_eq!(judge(&ops), Ok(()), "seed {seed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Dropping a call that only read never makes a right history wrong.
    #[test]
    fn a_read_less_keeps_a_history_right(seed: u64, drop in 0usize..12) {
        let mut ops = random_history(seed, 12, 0.0);
        if ops[drop].call == Call::Get {
            ops.remove(drop);
        }
        prop_assert_eq!(judge(&ops), Ok(()));
    }
}
