//! The real nodes in a simulated world, thousands of runs, each from its own seed.
//!
//! `cargo test -p ennead-ring --test sim` runs a fixed set of seeds. To run others:
//!
//! | command (before it, the variable) | what |
//! |---|---|
//! | `SIM_SEED=8841 ... one_seed -- --nocapture` | one seed, with its trace if it fails |
//! | `SIM_TRACE=1 SIM_SEED=8841 ...` | its trace in any case |
//! | `SIM_SLOW=700 ...` | names the seeds in which a call took so many milliseconds after healing |
//! | `SIM_SEEDS=1000..9000 ... soak -- --nocapture` | these |
//! | `SIM_SECONDS=600 SIM_FROM=1000 ... soak -- --nocapture` | as many as ten minutes take, from 1000 on |
#![allow(clippy::print_stdout, reason = "a soak tells how far it is")]

#[path = "sim/mod.rs"]
mod sim;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sim::report::{Failure, Report};
use sim::{MS, Profile, run};

fn swarm(seed: u64) -> Result<Report, Failure> {
    run(seed, Profile::draw, false)
}

/// Runs it again, with its trace, and tells.
fn explain(seed: u64, failure: &Failure) -> String {
    let again = run(seed, Profile::draw, true);
    let trace = match &again {
        Ok(report) => &report.trace,
        Err(failure) => &failure.trace,
    };
    if std::env::var_os("SIM_TRACE").is_some() {
        for line in trace {
            println!("{line}");
        }
    }
    let last = trace.iter().rev().take(40).rev().map(|l| format!("  {l}\n")).collect::<String>();
    format!("{last}{failure}")
}

fn all(seeds: impl Iterator<Item = u64>, limit: Option<Duration>) -> BTreeMap<&'static str, u64> {
    let begun = Instant::now();
    let slow = std::env::var("SIM_SLOW").ok().and_then(|s| s.parse().ok()).unwrap_or(10_000);
    let (mut runs, mut steps, mut time, mut answered, mut unknown, mut crashes) =
        (0u64, 0u64, 0u64, 0u64, 0u64, 0u64);
    let mut failures = Vec::new();
    let (mut probes, mut slowest) = (BTreeMap::<&'static str, u64>::new(), 0);
    for seed in seeds {
        if limit.is_some_and(|limit| begun.elapsed() > limit) {
            break;
        }
        runs += 1;
        match swarm(seed) {
            Ok(report) => {
                steps += report.steps;
                time += report.virtual_time;
                answered += report.counts.answered;
                unknown += report.counts.unknown;
                crashes += report.counts.crashes;
                slowest = slowest.max(report.counts.slowest);
                if report.counts.slowest > slow * MS {
                    println!("seed {seed}: slowest {} ms after healing", report.counts.slowest / MS);
                }
                for (what, times) in report.probes {
                    *probes.entry(what).or_default() += times;
                }
            }
            Err(failure) => {
                println!("{failure}");
                failures.push(failure);
                if failures.len() >= 10 {
                    break;
                }
            }
        }
    }
    let spent = begun.elapsed().as_secs_f64();
    let seconds = time as f64 / 1e9;
    println!(
        "{runs} seeds, {steps} steps, {answered} calls answered, {unknown} unknown, {crashes} crashes; \
         {seconds:.0} simulated seconds in {spent:.1} s: {:.0} to 1; {} failures",
        seconds / spent,
        failures.len()
    );
    println!("slowest call after healing: {} ms", slowest / MS);
    println!("{probes:?}");
    if let Some(failure) = failures.first() {
        panic!("{}", explain(failure.seed, failure));
    }
    probes
}

/// What a few hundred seeds must have met, or they test less than they seem to.
const PROBES: &[&str] = &[
    "accept",
    "birth",
    "blank",
    "copy",
    "done",
    "handed over",
    "held",
    "hint",
    "loaded",
    "mismatch",
    "mute",
    "no quorum",
    "no value",
    "not tried",
    "nothing to delete",
    "overloaded",
    "prepare",
    "promised",
    "read",
    "refused",
    "too late",
    "unknown",
    "unreadable",
    "value",
    "wake",
];

#[test]
fn every_key_is_linearizable_through_any_faults() {
    let met = all(0..6_000, None);
    let missed: Vec<_> = PROBES.iter().filter(|p| !met.contains_key(**p)).collect();
    assert!(missed.is_empty(), "no seed met {missed:?}");
}

#[test]
fn a_cluster_without_faults_answers_everything() {
    for seed in 0..20 {
        match run(seed, |_| Profile::calm(), false) {
            Ok(report) => assert_eq!((report.counts.unknown, report.counts.never), (0, 0), "seed {seed}"),
            Err(failure) => panic!("{failure}"),
        }
    }
}

/// Clocks centuries off, some at the end of time: nothing need succeed, and still nothing may be wrong.
#[test]
fn the_end_of_time_loses_nothing() {
    for seed in 0..150 {
        let result = run(
            seed,
            |rng| {
                let mut p = Profile::draw(rng);
                p.skew = 260 * 365 * 86_400 * 1_000 * MS;
                (p.doomed, p.tick) = (true, 1);
                p.jump_every = 1_000 * MS;
                p
            },
            false,
        );
        if let Err(failure) = result {
            panic!("{failure} (with the clocks of this test)");
        }
    }
}

#[test]
fn one_seed_is_one_history() {
    for seed in [1, 17, 39] {
        let digest = |trace| {
            run(seed, Profile::draw, trace).map(|r| (r.digest, r.steps)).map_err(|f| (f.step, f.what))
        };
        assert_eq!(digest(false), digest(true), "seed {seed} ran differently the second time");
    }
}

#[test]
fn one_seed() {
    let Some(seed) = std::env::var("SIM_SEED").ok().and_then(|s| s.parse().ok()) else { return };
    if let Err(failure) = swarm(seed) {
        panic!("{}", explain(seed, &failure));
    }
    if std::env::var_os("SIM_TRACE").is_some()
        && let Ok(report) = run(seed, Profile::draw, true)
    {
        for line in report.trace {
            println!("{line}");
        }
    }
}

#[test]
fn soak() {
    let number = |name: &str| std::env::var(name).ok().and_then(|s| s.parse::<u64>().ok());
    if let Some((from, to)) = std::env::var("SIM_SEEDS").ok().as_deref().and_then(|s| s.split_once(".."))
        && let (Ok(from), Ok(to)) = (from.parse(), to.parse())
    {
        all(from..to, None);
    } else if let Some(seconds) = number("SIM_SECONDS") {
        let from = number("SIM_FROM").unwrap_or(1_000_000);
        all(from.., Some(Duration::from_secs(seconds)));
    }
}
