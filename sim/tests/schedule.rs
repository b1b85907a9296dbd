//! What a scenario's `[[at]]` may say, what it is told if that cannot be, and that it happens.

use ennead_sim::{Act, Call, Faults, MS, Network, Profile, Report, Scenario, Set, Summary, Timed, run};

/// A minute and 48 seconds of five machines to which nothing happens by chance.
fn quiet(rest: &str) -> String {
    format!("peers = 5\nhours = 0.03\nkeys = 20\nfaults = \"none\"\n{rest}")
}

fn error(rest: &str) -> String {
    Scenario::parse(&quiet(rest)).expect_err(rest)
}

#[test]
fn what_is_said_of_a_time_happens_then() {
    let text = quiet(
        "[[at]]\ns = 5\ndo = \"kill\"\nmachines = [3]\nfor_s = 2\n\
         [[at]]\ns = 20\ndo = \"kill-for-good\"\nmachines = [2]\n\
         [[at]]\ns = 25\ndo = \"remove\"\nmachines = [2]\n\
         [[at]]\ns = 40\ndo = \"join\"\nmachines = [6, 7]\n\
         [[at]]\ns = 70\ndo = \"leave\"\nmachines = [1]\n",
    );
    let scenario = Scenario::parse(&text).expect("a scenario");
    assert_eq!(scenario.at.len(), 5);
    assert_eq!((scenario.at[0].act, scenario.at[0].for_s), (Act::Kill, Some(2.0)));
    let result = run(scenario.seed, |rng| scenario.profile(rng), false);
    let s = Summary::of(&scenario, &result, 1.0, 1.0);
    assert_eq!(s.failure, None);
    assert_eq!((s.joins, s.leaves, s.lost, s.failed), (2, 1, 1, 0), "{s:?}");
    // One is switched off once it has left.
    assert_eq!(s.crashes, 3, "{s:?}");
}

#[test]
fn each_thing_that_can_be_scheduled_can_be_run() {
    for &act in Act::ALL {
        let (machines, lasts) = match act {
            Act::Join => (vec![6], None),
            Act::Power => (Vec::new(), Some(1.0)),
            Act::Remove | Act::KillForGood | Act::Clock | Act::Leave => (vec![2], None),
            _ => (vec![2], Some(1.0)),
        };
        let mut timed = Timed { for_s: lasts, ..Timed::new(2.0, act, machines) };
        timed.times = (act == Act::SlowDisk).then_some(100.0);
        timed.by_s = (act == Act::Clock).then_some(-3_600.0);
        let mut scenario = Scenario {
            peers: 5,
            hours: 0.003,
            keys: 5,
            faults: Faults::Set(Set::None),
            ..Scenario::default()
        };
        if act == Act::Remove {
            scenario.at.push(Timed::new(1.0, Act::KillForGood, [2]));
        }
        scenario.at.push(timed);
        assert_eq!(scenario.check(), Ok(()), "{act:?}");
        let name = format!("scheduled: {} of", act.told().0);
        let report =
            run(7, |rng| scenario.profile(rng), true).unwrap_or_else(|failure| panic!("{act:?}: {failure}"));
        assert!(report.trace.iter().any(|line| line.contains(&name)), "{act:?}");
        assert!(!report.trace.iter().any(|line| line.contains("nothing is done")), "{act:?}");
    }
}

#[test]
fn a_schedule_that_cannot_be_names_its_line_and_what_could_be() {
    let cases: &[(&str, &[&str])] = &[
        ("[[at]]\ns = 5\ndo = \"kil\"\nmachines = [3]\n", &["line 7", "kil", "kill-for-good", "slow-disk"]),
        ("[[at]]\ns = 5\ndo = \"kill\"\nmachine = [3]\n", &["line 8", "machine", "machines", "for_s"]),
        ("[[at]]\ndo = \"leave\"\nmachines = [3]\n", &["line 5", "missing field `s`"]),
        ("[[at]]\ns = 5\ndo = \"kill\"\nmachines = [3]\n", &["line 5", "at 5 s, kill", "needs for_s"]),
        ("[[at]]\ns = 5\ndo = \"leave\"\nmachines = [3]\nfor_s = 1\n", &["line 5", "leave takes no for_s"]),
        ("[[at]]\ns = 5\ndo = \"leave\"\n", &["line 5", "leave needs machines"]),
        ("[[at]]\ns = 200\ndo = \"leave\"\nmachines = [3]\n", &["line 5", "at 200 s", "from 0 to 108 s"]),
        ("[[at]]\ns = 100\ndo = \"pause\"\nmachines = [3]\nfor_s = 9\n", &["line 5", "from 0 to 8"]),
        ("[[at]]\ns = 5\ndo = \"leave\"\nmachines = [6]\n", &["line 5", "machine 6 is none", "1 to 5"]),
        ("[[at]]\ns = 5\ndo = \"leave\"\nmachines = [0]\n", &["line 5", "machine 0 is none"]),
        (
            "[[at]]\ns = 5\ndo = \"join\"\nmachines = [5]\n",
            &["line 5", "machine 5 is in already", "6 to 10000"],
        ),
        (
            "[[at]]\ns = 5\ndo = \"remove\"\nmachines = [5]\n",
            &["line 5", "machine 5 lives", "killed for good"],
        ),
        ("[[at]]\ns = 5\ndo = \"clock\"\nmachines = [5]\n", &["line 5", "needs by_s"]),
        (
            "[[at]]\ns = 5\ndo = \"slow-disk\"\nmachines = [5]\nfor_s = 1\n",
            &["line 5", "needs times", "10000"],
        ),
        (
            "[[at]]\ns = 5\ndo = \"clock\"\nmachines = [5]\nby_s = 1\ntimes = 2\n",
            &["times for slow-disk alone"],
        ),
        (
            "[[at]]\ns = 9\ndo = \"kill\"\nmachines = [2]\nfor_s = 1\n\
             [[at]]\ns = 8\ndo = \"kill-for-good\"\nmachines = [2]\n",
            &["line 5", "machine 2 is dead by then"],
        ),
    ];
    for (rest, parts) in cases {
        let error = error(rest);
        for part in *parts {
            assert!(error.contains(part), "{error}\nsays nothing of {part:?}");
        }
    }
    // A flag may say what a file did not.
    let text = quiet("[[at]]\ns = 5\ndo = \"leave\"\nmachines = [4]\n");
    let scenario = Scenario { peers: 3, ..Scenario::parse(&text).expect("a scenario") };
    assert!(scenario.check().is_err_and(|error| error.contains("machine 4 is none")));
}

#[test]
fn distances_clocks_and_hot_keys_are_what_they_say_or_are_refused() {
    let cases: &[(&str, &[&str])] = &[
        (
            "[network]\nzones = 3\ndistances = [[0, 1], [1, 0]]\n",
            &["network.distances", "[2, 2]", "zones is 3"],
        ),
        ("[network]\nzones = 2\ndistances = [[0, -1], [1, 0]]\n", &["network.distances", "-1", "0 to 1000"]),
        (
            "[network]\nzones = 2\nzone_delay_ms = 1\ndistances = [[0, 1], [1, 0]]\n",
            &["network.distances", "zone_delay_ms"],
        ),
        ("[clock]\nskew_s = -1\n", &["clock.skew_s is -1", "31536000"]),
        ("[clock]\njumps_a_day = 4\n", &["clock.jumps_a_day needs clock.skew_s"]),
        ("[clock]\njump = 4\n", &["line 6", "jump", "jumps_a_day"]),
        ("[workload]\nhot_keys = 21\nhot_share = 50\n", &["workload.hot_keys is 21", "0 to 20"]),
        ("[workload]\nhot_keys = 3\n", &["workload.hot_keys is 3", "hot_share 0"]),
        ("[workload]\nhot_keys = 3\nhot_share = 150\n", &["workload.hot_share is 150", "0 to 100"]),
    ];
    for (rest, parts) in cases {
        let error = error(rest);
        for part in *parts {
            assert!(error.contains(part), "{error}\nsays nothing of {part:?}");
        }
    }
    let text = quiet(
        "[workload]\nhot_keys = 3\nhot_share = 50\n[clock]\nskew_s = 2\njumps_a_day = 1000\n\
         [network]\nzones = 2\ndistances = [[0, 20], [40, 1]]\n",
    );
    let scenario = Scenario::parse(&text).expect("a scenario");
    let run = |scenario: &Scenario| {
        let profile = |rng: &mut _| Profile { surveys: vec![0], ..scenario.profile(rng) };
        run(1, profile, true).unwrap_or_else(|failure| panic!("{failure}"))
    };
    let report = run(&scenario);
    let network = Network { distances: Vec::new(), ..scenario.network.clone() };
    let near = run(&Scenario { network, ..scenario });
    // Operations on the first three of twenty keys, of which each tells its key: a half, not three twentieths.
    let begun: Vec<&String> = report.trace.iter().filter(|line| line.contains(" begins ")).collect();
    let hot = begun.iter().filter(|l| [0, 1, 2].iter().any(|k| l.ends_with(&format!("of key {k}")))).count();
    let share = hot as f64 / begun.len() as f64;
    assert!((0.45..0.55).contains(&share), "{share} of {}", begun.len());
    let jumps = report.trace.iter().filter(|line| line.contains("clock jumps to")).count();
    assert!((2..=20).contains(&jumps), "{jumps} jumps where about six are due");
    // Five machines in two zones: the quorum of most keys needs the other zone, 20 ms there and 40 back.
    let (near, far) = (median(&near), median(&report));
    assert!(near < 10 * MS && far > 40 * MS, "writes take {near} ns near by and {far} ns far away");
}

/// Of writes.
fn median(report: &Report) -> u64 {
    let writes = report.calls.iter().filter(|called| called.call != Call::Get);
    let mut took: Vec<u64> = writes.map(|called| called.took).collect();
    took.sort_unstable();
    took[took.len() / 2]
}
