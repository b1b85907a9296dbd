//! A whole zone fails at once: where machines name their zones, no operation does, and nothing is lost.

use ennead_sim::{Faults, Kind, Profile, Scenario, Summary, run};

/// Machines in three zones, and ten minutes in which each of these loses power now and then for up to two minutes.
fn three_zones(peers: usize, seed: u64) -> Scenario {
    let mut scenario = Scenario { peers, hours: 1.0 / 6.0, seed, keys: 100, ..Scenario::default() };
    (scenario.network.zones, scenario.network.zone_delay_ms) = (3, 1.0);
    scenario.workload.rate = 30.0;
    scenario.faults = Faults::These(vec![Kind::Zone]);
    scenario
}

fn ten_minutes(peers: usize, named: bool, seed: u64) -> (Summary, u64) {
    let scenario = three_zones(peers, seed);
    let result = run(
        seed,
        |rng| {
            let mut profile = scenario.profile(rng);
            profile.named = named;
            profile
        },
        false,
    );
    let struck = result.as_ref().map_or(0, |report| report.probes.get("zone failed").copied().unwrap_or(0));
    (Summary::of(&scenario, &result, 1.0, 1.0), struck)
}

#[test]
fn a_zone_of_three_or_of_five_fails_and_no_operation_does() {
    let mut struck = 0;
    // In (9, 1) and (9, 12) a comparison's first try does not mend all: its ballot is older than who came back.
    for (peers, seed) in [(9, 1), (9, 2), (9, 12), (15, 3), (15, 4)] {
        let (summary, times) = ten_minutes(peers, true, seed);
        struck += times;
        assert_eq!(summary.failure, None, "{peers} machines, seed {seed}");
        assert_eq!((summary.failed, summary.lost_acked), (0, 0), "{peers} machines, seed {seed}");
    }
    assert!(struck >= 8, "zones failed {struck} times");
}

/// L2: each key of a listing is judged like a read of that key, and so is each that is not in it.
#[test]
fn every_key_of_a_listing_is_linearizable_while_a_zone_of_five_is_away_and_it_does_not_wait_for_it() {
    let mut without = 0;
    for seed in [3, 4, 5] {
        let scenario = three_zones(15, seed);
        let report = match run(seed, |rng| Profile { lists: true, ..scenario.profile(rng) }, false) {
            Ok(report) => report,
            Err(failure) => panic!("{failure}"),
        };
        let met = |what| report.probes.get(what).copied().unwrap_or(0);
        assert!(met("listed") >= 10 && met("listing given up") == 0, "seed {seed}: {:?}", report.probes);
        without += met("listed without more than any that may be lost");
    }
    assert!(without >= 3, "{without} while a zone was away");
}

/// The same zones, of which the machines say nothing: five machines that fail together own five slots of some keys.
#[test]
fn where_no_zone_is_named_operations_fail() {
    let (summary, struck) = ten_minutes(15, false, 3);
    assert_eq!(summary.failure, None, "nothing is lost all the same");
    assert!(struck > 0 && summary.failed > 0, "{struck} times, {} failed", summary.failed);
}
