//! What `kvctl sim` runs: scenarios, their errors, their figures, their picture.

use ennead_sim::{Act, Faults, Kind, SEC, Scenario, Set, Summary, Timed, run, timeline};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn short() -> Scenario {
    Scenario { peers: 12, hours: 0.05, keys: 50, churn: 600.0, ..Scenario::default() }
}

#[test]
fn one_seed_has_one_digest() {
    let digest = |seed| {
        let scenario = Scenario { seed, ..short() };
        let report = run(seed, |rng| scenario.profile(rng), false);
        report.map(|report| (report.digest, report.steps)).map_err(|failure| failure.what)
    };
    let first = digest(5);
    assert_eq!(first, digest(5));
    assert!(first.is_ok_and(|(_, steps)| steps > 1_000));
    assert_ne!(digest(5), digest(6));
}

/// Bit for bit, on any machine and however it was compiled. Whatever changes what a node does or how lots are drawn changes
/// these, and may: what is printed here is then the new one.
#[test]
fn a_digest_is_the_same_everywhere() {
    let digests = [short(), Scenario { faults: Faults::Set(Set::All), ..short() }].map(|scenario| {
        let report = run(scenario.seed, |rng| scenario.profile(rng), false).expect("it holds");
        format!("{:016x}", report.digest)
    });
    assert_eq!(digests, ["6661b00facfa531f", "f6622bf989d49444"]);
}

#[test]
fn disks_that_fail_and_disks_that_are_full_lose_nothing() {
    let mut said = 0;
    for seed in 0..4 {
        let scenario = Scenario { seed, hours: 0.02, faults: Faults::These(vec![Kind::Crash]), ..short() };
        let disks = |rng: &mut StdRng| {
            let (fail_every, full_every) = (SEC, SEC);
            ennead_sim::Profile { fail_every, full_every, check: true, ..scenario.profile(rng) }
        };
        let report = run(seed, disks, false).unwrap_or_else(|failure| panic!("{failure}"));
        said += report.probes.get("no room").copied().unwrap_or(0);
        assert!(report.counts.crashes > 10, "seed {seed}: {} crashes", report.counts.crashes);
    }
    assert!(said > 500, "no room, said {said} times");
}

/// V7: to drop a machine that lives is a failure, but where the schedule has it silent for as long as the others wait.
#[test]
fn v7_a_machine_that_lives_and_is_dropped_fails_the_run() {
    let pause = |s| vec![Timed::new(20.0, Act::Pause, [2]).lasting(s)];
    let of = |s: f64| Scenario {
        peers: 9,
        hours: 0.05,
        keys: 50,
        at: pause(s),
        faults: "none".parse().unwrap(),
        ..Scenario::default()
    };
    let ran = |scenario: &Scenario| run(scenario.seed, |rng| scenario.profile(rng), false);
    let rightly = ran(&of(60.0));
    let summary = |scenario: &Scenario| Summary::of(scenario, &rightly, 1.0, 1.0);
    assert_eq!(summary(&of(60.0)).false_evictions, 1, "{rightly:?}");
    assert_eq!(summary(&of(60.0)).failure, None);
    // The same run, had the schedule been this.
    let failure = summary(&of(20.0)).failure.expect("it was dropped");
    assert!(failure.starts_with("V7: ") && failure.ends_with(": 1"), "{failure}");
    assert_eq!(Summary::of(&of(20.0), &ran(&of(20.0)), 1.0, 1.0).failure, None);
}

/// What the figures of a thousand machines and a day are aims for, in a tenth of both: see the README.
#[test]
fn half_an_hour_of_a_hundred_machines_evicts_nobody_and_moves_no_more_than_it_must() {
    let scenario = Scenario { peers: 100, hours: 0.5, churn: 60.0, ..Scenario::default() };
    let result = run(scenario.seed, |rng| scenario.profile(rng), false);
    let summary = Summary::of(&scenario, &result, 1.0, 1.0);
    assert_eq!(summary.failure, None);
    assert!(summary.ok as f64 >= 0.999 * summary.ops as f64, "{summary:?}");
    assert_eq!(summary.false_evictions, 0, "a tenth stands still for up to 30 s now and then: {summary:?}");
    assert!(summary.detect_ms.p50.is_some_and(|ms| ms <= 3_000), "{summary:?}");
    assert!(summary.detect_ms.p99.is_some_and(|ms| ms <= 6_000), "{summary:?}");
    assert!(
        summary.lost > 5 && summary.bytes_moved as f64 <= 1.1 * summary.bytes_minimum as f64,
        "{summary:?}"
    );
}

#[test]
fn a_quarter_of_an_hour_of_churn_loses_nothing_and_is_measured() {
    let scenario = Scenario { hours: 0.25, churn: 240.0, ..short() };
    let result = run(scenario.seed, |rng| scenario.profile(rng), false);
    let summary = Summary::of(&scenario, &result, 1.0, 1.0);
    assert_eq!(summary.failure, None);
    assert!(summary.linearizable && summary.lost_acked == 0);
    assert_eq!(summary.ops, summary.ok + summary.failed);
    assert!(summary.joins > 0 && summary.views > 5 && summary.bytes_minimum > 0, "{summary:?}");
    let picture = timeline::svg("a < b", &result.expect("it holds").metrics);
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    assert!(picture.contains("a &lt; b") && picture.matches("<path ").count() == 8);
}

#[test]
fn a_long_run_is_judged_as_it_goes_and_keeps_no_more_than_its_end() {
    let scenario = Scenario { hours: 0.02, keys: 2, churn: 0.0, ..short() };
    let report = run(scenario.seed, |rng| scenario.profile(rng), false).expect("it holds");
    let kept: usize = report.histories.iter().map(Vec::len).sum();
    assert!(report.metrics.ok > 6_000, "{} calls", report.metrics.ok);
    assert!(kept < 3_000, "{kept} calls of {} are kept", report.metrics.ok);
}

#[test]
fn a_scenario_says_what_it_says_and_leaves_the_rest_as_it_is() {
    let text = "peers = 30\nhours = 2\nfaults = [\"crash\", \"slow-disk\"]\n[network]\nzones = 3\n";
    let scenario = Scenario::parse(text).expect("a scenario");
    assert_eq!((scenario.peers, scenario.hours, scenario.network.zones), (30, 2.0, 3));
    assert_eq!(scenario.faults, Faults::These(vec![Kind::Crash, Kind::SlowDisk]));
    assert_eq!(scenario.keys, Scenario::default().keys);
    let none = Scenario::parse("faults = \"none\"").expect("a scenario");
    assert_eq!(none.faults, Faults::Set(Set::None));
}

#[test]
fn an_error_in_a_scenario_names_its_line_and_its_field() {
    let error = Scenario::parse("peers = 9\nhuors = 24\n").expect_err("no such field");
    assert!(error.contains("line 2") && error.contains("huors") && error.contains("hours"), "{error}");
    let error = Scenario::parse("[workload]\nreads = \"half\"\n").expect_err("no number");
    assert!(error.contains("line 2") && error.contains("reads"), "{error}");
    let error = Scenario::parse("[workload]\nreads = 90\ndeletes = 20\n").expect_err("too many");
    assert!(error.contains("workload.reads") && error.contains("110"), "{error}");
    assert!(Scenario::parse("slots = 4").expect_err("even").contains("slots is 4"));
    let error = "crash,flood".parse::<Faults>().expect_err("no such fault");
    assert!(error.contains("\"flood\"") && error.contains("slow-disk"), "{error}");
}

/// Lines of a scenario as nobody means them, and bytes of it turned. What is taken can be run.
#[test]
fn no_text_makes_a_scenario_panic() {
    const KEYS: &str = "peers hours seed keys churn faults virtual_peers slots [workload] rate reads deletes compares \
                        expiring zipf hot_keys value_size [network] zones distances bandwidth [disk] sync_ms \
                        [clock] skew_s jumps_a_day [[at]] s do machines for_s times peers.keys";
    const VALUES: &str = "0 1 9 -1 0.5 nan inf -inf 1e308 4294967295 18446744073709551616 true \"all\" \"crash\" \
                          [\"crash\",\"rot\"] [] [1] [[1]] \"kill-for-good\" {} \"\" 2026-11-24 0x7fffffffffffffff 100 \"\"\"";
    let (keys, values): (Vec<&str>, Vec<&str>) = (KEYS.split(' ').collect(), VALUES.split(' ').collect());
    let mut rng = StdRng::seed_from_u64(7);
    let mut taken = 0;
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..rng.random_range(0..6) {
            let (key, value) =
                (keys[rng.random_range(0..keys.len())], values[rng.random_range(0..values.len())]);
            text += &if key.starts_with('[') { format!("{key}\n") } else { format!("{key} = {value}\n") };
        }
        let mut bytes = text.into_bytes();
        if !bytes.is_empty() && rng.random_bool(0.3) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random();
        }
        let text = String::from_utf8_lossy(&bytes);
        match Scenario::parse(&text) {
            Ok(scenario) => {
                scenario.profile(&mut rng);
                taken += 1;
            }
            Err(error) => assert!(!error.is_empty(), "refused without a reason: {text}"),
        }
    }
    assert!(taken > 1_000, "{taken} were scenarios");
}
