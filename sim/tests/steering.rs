//! A machine answers every probe, and its answers about keys do not come: it is asked last, and nobody is dropped.
#![allow(missing_docs, clippy::print_stdout, reason = "tests")]

use ennead_ring::node::PROBE_EVERY;
use ennead_sim::{MS, Profile, Report, SEC, run};

/// When the fsyncs of one machine hang, and until when.
const HANGS: (u64, u64) = (5 * SEC, 35 * SEC);
/// After so long everybody should know.
const SOON: u64 = 1_500 * MS;

/// Nine machines, writes and reads through coordinators, no fault but that.
fn nine(seed: u64, hangs: Option<usize>) -> Report {
    let profile = |_: &mut _| {
        let mut p = Profile::calm();
        p.tuning.probe_every = PROBE_EVERY;
        (p.keys, p.clients, p.calls) = (48, 4, 2_000);
        (p.direct_reads, p.stray, p.deadline) = (0, 0.0, 2 * SEC);
        p.hang = hangs.map(|m| (m, HANGS.0, HANGS.1));
        p
    };
    run(seed, profile, false).unwrap_or_else(|failure| panic!("{failure}"))
}

/// How long calls took that ended between these times: of a thousand, the 500th, the 990th and the longest.
fn times(report: &Report, from: u64, until: u64) -> (u64, u64, u64) {
    let ended = report.took.iter().filter(|(at, _)| (from..until).contains(at));
    let mut took: Vec<u64> = ended.map(|(_, took)| *took).collect();
    took.sort_unstable();
    assert!(took.len() > 1_000, "{} calls in that time", took.len());
    (took[took.len() / 2], took[took.len() * 99 / 100], took[took.len() - 1])
}

#[test]
fn a_machine_whose_fsyncs_hang_delays_nobody_and_stays_a_member() {
    for seed in 0..2 {
        let (well, hung) = (nine(seed, None), nine(seed, Some(seed as usize)));
        assert_eq!((hung.counts.unknown, hung.counts.never), (0, 0), "seed {seed}: every call is answered");
        assert_eq!(hung.counts.views, 0, "seed {seed}: nobody is dropped");
        for met in ["called late by three", "knows that it is late", "handed over"] {
            assert!(hung.probes.contains_key(met), "seed {seed}: never {met}");
        }
        assert!(!hung.probes.contains_key("called late, and is not"), "seed {seed}");
        assert!(!well.probes.contains_key("called late"), "seed {seed}");
        let until = HANGS.1 - SEC;
        let (healthy, before) = (times(&well, HANGS.0 + SOON, until), times(&hung, HANGS.0, until));
        let after = times(&hung, HANGS.0 + SOON, until);
        println!(
            "seed {seed}: ns p50, p99, longest: healthy {healthy:?}; hung {before:?}, once known {after:?}"
        );
        // A request to the hung one is handed on: two more ways through a network of up to a millisecond each.
        assert!(
            after.1 <= healthy.1 * 2,
            "seed {seed}: p99 {} us, healthy {} us",
            after.1 / 1_000,
            healthy.1 / 1_000
        );
    }
}
