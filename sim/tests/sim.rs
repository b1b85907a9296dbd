//! The real nodes in a simulated world, thousands of runs, each from its own seed.
//!
//! `cargo test -p ennead-sim --test sim` runs a fixed set of seeds. To run others:
//!
//! | command (before it, the variable) | what |
//! |---|---|
//! | `SIM_SEED=8841 ... one_seed -- --nocapture` | one seed, with its trace if it fails |
//! | `SIM_SEED=m8841 ...` | the same with machines that come and go |
//! | `SIM_SEED=l8841 ...` | with somebody who lists all keys, too |
//! | `SIM_SEED=f8841 ...` | with values that are fetched apart from their keys, and keys that come and go |
//! | `SIM_LINES=500 ...` | so many lines of the trace of a failure; 40 if nobody says |
//! | `SIM_TRACE=1 SIM_SEED=8841 ...` | its trace in any case |
//! | `SIM_SLOW=700 ...` | names the seeds in which a call took so many milliseconds after healing |
//! | `SIM_SEEDS=1000..9000 ... soak -- --nocapture` | these; `m1000..9000` with machines that come and go |
//! | `SIM_STATE=soak.txt ... soak -- --nocapture` | fresh seeds of every kind, until it is stopped or for `SIM_SECONDS`; goes on where the file says |
//! | `SIM_SECONDS=600 SIM_FROM=m1000 ... soak -- --nocapture` | as many as ten minutes take, from 1000 on |
#![allow(clippy::print_stdout, reason = "a soak tells how far it is")]

#[path = "sim/probes.rs"]
mod probes;
#[path = "sim/resume.rs"]
mod resume;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ennead_sim::{Failure, MS, Profile, Report, run};
use rand::rngs::StdRng;

/// Whether membership changes in a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Still,
    Moving,
    /// Moving, and somebody lists all keys meanwhile.
    Listing,
    /// Moving, where all values are fetched apart from their keys, and keys come and go: meets what is rarest elsewhere.
    Fetching,
}

impl Kind {
    fn run(self, seed: u64, trace: bool) -> Result<Report, Failure> {
        match self {
            Self::Still => run(seed, Profile::draw, trace),
            Self::Moving => run(seed, Profile::moving, trace),
            Self::Listing => run(seed, |rng| Profile { lists: true, ..Profile::moving(rng) }, trace),
            Self::Fetching => run(seed, fetching, trace),
        }
    }

    /// `m` before a number stands for moving, `l` for listing, `f` for fetching.
    fn parse(text: &str) -> (Self, &str) {
        let kinds = [('m', Self::Moving), ('l', Self::Listing), ('f', Self::Fetching)];
        let named = kinds.into_iter().find_map(|(letter, kind)| Some((kind, text.strip_prefix(letter)?)));
        named.unwrap_or((Self::Still, text))
    }
}

/// See [`Kind::Fetching`].
fn fetching(rng: &mut StdRng) -> Profile {
    let mut p = Profile::moving(rng);
    (p.tuning.inline, p.tuning.check_every, p.tuning.collect_after) = (0, 500 * MS, 50 * MS);
    (p.deletes, p.keys) = (40, 5);
    p
}

/// Runs it again, with its trace, and tells.
fn explain(kind: Kind, failure: &Failure) -> String {
    let again = kind.run(failure.seed, true);
    let trace = match &again {
        Ok(report) => &report.trace,
        Err(failure) => &failure.trace,
    };
    if std::env::var_os("SIM_TRACE").is_some() {
        for line in trace {
            println!("{line}");
        }
    }
    let lines = std::env::var("SIM_LINES").ok().and_then(|s| s.parse().ok()).unwrap_or(40);
    let last = trace.iter().rev().take(lines).rev().map(|l| format!("  {l}\n")).collect::<String>();
    format!("{last}{failure}")
}

fn all(kind: Kind, seeds: impl Iterator<Item = u64>, limit: Option<Duration>) -> BTreeMap<&'static str, u64> {
    let begun = Instant::now();
    let slow = std::env::var("SIM_SLOW").ok().and_then(|s| s.parse().ok()).unwrap_or(10_000);
    let (mut runs, mut steps, mut time, mut answered, mut unknown, mut crashes) =
        (0u64, 0u64, 0u64, 0u64, 0u64, 0u64);
    let mut failures = Vec::new();
    let (mut probes, mut slowest) = (BTreeMap::<&'static str, u64>::new(), 0);
    let (mut views, mut rest, mut even) = (0, 0, 0);
    for seed in seeds {
        if limit.is_some_and(|limit| begun.elapsed() > limit) {
            break;
        }
        runs += 1;
        match kind.run(seed, false) {
            Ok(report) => {
                steps += report.steps;
                time += report.virtual_time;
                answered += report.counts.answered;
                unknown += report.counts.unknown;
                crashes += report.counts.crashes;
                slowest = slowest.max(report.counts.slowest);
                views += report.counts.views;
                rest = rest.max(report.counts.rest);
                even = even.max(report.counts.even);
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
    if kind == Kind::Moving {
        println!(
            "{views} views; at rest at most {} ms after healing, all alike after {} more",
            rest / MS,
            even / MS
        );
    }
    probes::print(&probes);
    if let Some(failure) = failures.first() {
        panic!("{}", explain(kind, failure));
    }
    probes
}

/// So many seeds, and then as many more of another kind as it takes until each of these states was met: the rarest come once
/// in thousands. A state that as many seeds again do not meet is not tested.
fn until_all_are_met(kind: Kind, seeds: u64, rest: Kind, wanted: &[&'static str]) {
    let (mut met, step) = (all(kind, 0..seeds, None), seeds / 20);
    for next in (0..seeds).step_by(step as usize) {
        if wanted.iter().all(|name| met.contains_key(name)) {
            break;
        }
        for (what, times) in all(rest, seeds + next..seeds + next + step, None) {
            *met.entry(what).or_default() += times;
        }
    }
    probes::all_are_met(wanted, &met);
}

#[test]
fn every_key_is_linearizable_through_any_faults() {
    until_all_are_met(Kind::Still, 6_000, Kind::Still, &probes::always().collect::<Vec<_>>());
}

#[test]
fn every_key_is_linearizable_while_machines_come_and_go() {
    until_all_are_met(Kind::Moving, 1_000, Kind::Fetching, &probes::of_views().collect::<Vec<_>>());
}

/// L1 to L4: each key of a listing is a read of that key, and so is each that is not in it.
#[test]
fn every_key_of_a_listing_is_linearizable_while_machines_come_and_go() {
    let met = all(Kind::Listing, 0..600, None);
    for wanted in ["listed", "listed and unclear", "listed without its value", "listing in two views"] {
        assert!(met.contains_key(wanted), "no seed met {wanted:?}");
    }
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

/// A question is not put again while its answer takes no longer than others: whoever is far away, or has much to do, would have
/// everything to do twice.
#[test]
fn who_answers_late_is_not_asked_twice() {
    let (mut asked, mut again) = (0, 0);
    for seed in 0..5 {
        let far = Profile { delay: 80 * MS, calls: 200, patience: 2_000 * MS, ..Profile::calm() };
        let report = run(seed, |_| far, false).unwrap_or_else(|failure| panic!("{failure}"));
        let count = |name: &str| report.probes.get(name).copied().unwrap_or(0);
        // Of nine each.
        asked += (count("accept") + count("prepare") + count("read")) / 9;
        again += count("C1PrepareSentAgain") + count("C2AcceptSentAgain");
    }
    assert!(again * 10 < asked, "{again} of {asked} questions were put again");
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
    for (kind, seed) in [(Kind::Still, 1), (Kind::Still, 17), (Kind::Still, 39), (Kind::Moving, 5)] {
        let digest = |trace| kind.run(seed, trace).map(|r| (r.digest, r.steps)).map_err(|f| (f.step, f.what));
        assert_eq!(digest(false), digest(true), "seed {seed} ran differently the second time");
    }
}

#[test]
fn one_seed() {
    let Ok(text) = std::env::var("SIM_SEED") else { return };
    let (kind, number) = Kind::parse(&text);
    let Ok(seed) = number.parse() else { return };
    match kind.run(seed, std::env::var_os("SIM_TRACE").is_some()) {
        Err(failure) => panic!("{}", explain(kind, &failure)),
        Ok(report) => {
            for line in &report.trace {
                println!("{line}");
            }
            println!("{:?}\n{:?}", report.counts, report.probes);
        }
    }
}

#[test]
fn soak() {
    let text = |name: &str| std::env::var(name).ok();
    let seconds = || text("SIM_SECONDS").and_then(|s| s.parse().ok());
    if let Some(file) = text("SIM_STATE") {
        resume::soak(file.as_ref(), seconds().map(Duration::from_secs));
    } else if let Some(range) = text("SIM_SEEDS") {
        let (kind, range) = Kind::parse(&range);
        if let Some((from, to)) = range.split_once("..")
            && let (Ok(from), Ok(to)) = (from.parse(), to.parse())
        {
            all(kind, from..to, None);
        }
    } else if let Some(seconds) = seconds() {
        let from = text("SIM_FROM").unwrap_or("1000000".to_string());
        let (kind, from) = Kind::parse(&from);
        all(kind, from.parse().unwrap_or(1_000_000).., Some(Duration::from_secs(seconds)));
    }
}
