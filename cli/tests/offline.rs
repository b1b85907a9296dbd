//! Everything kvctl does without a cluster, run as a program: output, exit codes, messages.

use std::process::Output;

use assert_cmd::Command;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, starts_with};
use serde_json::Value;

/// The machines of PROTOCOL section 2.
const S1: &str = "235.23.34.12";
const MACHINES: &str = "235.23.34.12,223.23.141.53,122.67.12.23";

fn kvctl(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("kvctl").expect("the program under test");
    for variable in ["KVCTL_PEERS", "KVCTL_CERTS", "KVCTL_AS", "KVCTL_TIMEOUT"] {
        command.env_remove(variable);
    }
    command.args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    kvctl(arguments).output().expect("a run")
}

#[test]
fn locate_knows_the_answers_of_the_seed_talk() {
    let arguments = ["locate", "mail-23412", "--machines", MACHINES, "--virtual-peers", "1", "--json"];
    let output = run(&arguments);
    assert!(output.status.success());
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["key"], "mail-23412");
    let slots = answer["slots"].as_array().expect("slots");
    assert_eq!(slots.len(), 9);
    let slot = |i: usize| {
        let part = |name: &str| slots[i][name].as_str().expect("a text").to_string();
        (slots[i]["slot"].as_u64(), part("position"), part("owner"))
    };
    assert_eq!(slot(0), (Some(1), "B91AF709D7C1E6988FCEE7ADF7094A26".into(), "122.67.12.23".into()));
    assert_eq!(slot(1), (Some(2), "D604E7A54DC18FD7AC70D12468C34B63".into(), S1.into()));
    // Three machines, nine slots: three each.
    for machine in MACHINES.split(',') {
        assert_eq!(slots.iter().filter(|s| s["owner"] == machine).count(), 3, "{machine}");
    }
}

#[test]
fn locate_in_text_is_a_table_on_stdout() {
    kvctl(&["locate", "mail-23412", "--machines", MACHINES])
        .assert()
        .success()
        .stdout(starts_with("SLOT  POSITION").and(contains("B91AF709D7C1E6988FCEE7ADF7094A26  122.67.12.23")))
        .stderr("");
}

#[test]
fn locate_takes_three_slots_and_refuses_what_makes_no_ring() {
    let output = run(&["locate", "k", "--machines", MACHINES, "--slots", "3", "--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["slots"].as_array().map(Vec::len), Some(3));
    for (wrong, said) in [
        (&["--slots", "8"][..], "odd number of slots"),
        (&["--virtual-peers", "0"], "1 to 65536"),
        (&["--machines", S1], "two machines"),
    ] {
        let arguments = [&["locate", "k", "--machines", MACHINES], wrong].concat();
        kvctl(&arguments).assert().code(2).stdout("").stderr(contains(said));
    }
}

#[test]
fn a_name_that_is_none_says_what_would_be() {
    kvctl(&["locate", "k", "--machines", "s1,s2"]).assert().code(2).stderr(contains("write IP or IP:PORT"));
    kvctl(&["--peers", "nobody", "get", "k"]).assert().code(2).stderr(contains("write IP or IP:PORT"));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for wrong in [
        &["get"][..],
        &["put", "k"],
        &["frobnicate"],
        &["get", "k", "--read", "some"],
        &["put", "k", "v", "--ttl", "soon"],
        &["put", "k", "v", "--ttl", "0s"],
        &["put", "k", "v", "--if-version", "1", "--if-absent"],
        &["locate", "k", "--slots", "3"],
        &["bench", "--reads", "101%"],
        &["bench", "--clients", "0"],
        &["certs", "issue", "--dir", "d"],
        &["certs", "issue", "--dir", "d", "--peer", "10.0.0.1", "--client", "me"],
        &["--timeout", "5", "status"],
        &["leave"],
        &["leave", "s3"],
        &["leave", "10.0.0.1", "--plan", "--no-wait"],
        &["remove", "10.0.0.1", "--machines", MACHINES],
        &["ring", "--watch", "--machines", MACHINES],
        &["get", "k", "--copies", "--read", "one", "--certs", "nowhere"],
        &[],
    ] {
        let output = run(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(!output.stderr.is_empty(), "{wrong:?}");
        assert!(output.stdout.is_empty(), "{wrong:?}");
    }
}

#[test]
fn limits_are_checked_before_anyone_is_asked() {
    kvctl(&["put", "", "v", "--certs", "nowhere"]).assert().code(2).stderr(contains("the key is empty"));
    let long = "k".repeat(16_385);
    kvctl(&["get", &long, "--certs", "nowhere"]).assert().code(2).stderr(contains("1 to 16384"));
    kvctl(&["put", "k", "-", "--certs", "nowhere"])
        .write_stdin(vec![0; (8 << 20) + 1])
        .assert()
        .code(2)
        .stderr(contains("longer than 8MiB"));
}

#[test]
fn without_certificates_it_says_where_they_come_from() {
    kvctl(&["get", "k"]).assert().code(2).stderr(contains("--certs DIR").and(contains("KVCTL_CERTS")));
}

#[test]
fn an_error_in_json_is_an_object_on_stdout() {
    let output = run(&["get", "k", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let error: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(error["error"], "invalid");
    assert_eq!(error["outcome"], "unchanged");
    assert!(error["message"].as_str().is_some_and(|m| m.contains("--certs")));
}

#[test]
fn completions_and_manual_pages_are_data() {
    for shell in ["bash", "zsh", "fish"] {
        kvctl(&["completions", shell]).assert().success().stdout(contains("kvctl")).stderr("");
    }
    kvctl(&["man"]).assert().success().stdout(contains(".TH").and(contains("locate")));
    kvctl(&["man", "put"]).assert().success().stdout(contains("if\\-absent"));
    kvctl(&["man", "nothing"]).assert().code(2).stderr(contains("no command nothing"));
}

#[test]
fn help_tells_the_exit_codes() {
    kvctl(&["--help"]).assert().success().stdout(contains("the outcome is unknown"));
    kvctl(&["--version"]).assert().success().stdout(starts_with("kvctl "));
}

#[test]
fn certificates_are_made_once_issued_and_shown() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("certs").display().to_string();
    kvctl(&["certs", "issue", "--dir", &dir, "--peer", "10.0.0.1"])
        .assert()
        .code(2)
        .stderr(contains("kvctl certs init"));
    kvctl(&["certs", "init", "--dir", &dir])
        .assert()
        .success()
        .stdout(contains("ca.pem"))
        .stderr(contains("ca.key"));
    kvctl(&["certs", "init", "--dir", &dir]).assert().code(2).stderr(contains("not overwritten"));
    kvctl(&["certs", "issue", "--dir", &dir, "--peer", "10.0.0.1"]).assert().success();
    kvctl(&["certs", "issue", "--dir", &dir, "--peer", "10.0.0.1"]).assert().code(2);
    kvctl(&["certs", "issue", "--dir", &dir, "--client", "me"]).assert().success();
    kvctl(&["certs", "issue", "--dir", &dir, "--client", "../me"]).assert().code(2);
    for file in
        ["ca.pem", "ca.key", "peers/10.0.0.1.pem", "peers/10.0.0.1.key", "clients/me.pem", "clients/me.key"]
    {
        assert!(folder.path().join("certs").join(file).exists(), "{file}");
    }
    let output = run(&["certs", "show", "--dir", &dir, "--json"]);
    let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let roles: Vec<_> =
        shown["certificates"].as_array().expect("a list").iter().map(|c| c["role"].clone()).collect();
    assert_eq!(roles, ["authority", "peer", "client"]);
    kvctl(&["certs", "show", "--dir", &dir]).assert().success().stdout(contains("peers/10.0.0.1.pem"));
}

#[test]
fn certs_make_makes_what_is_missing_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().display().to_string();
    let make = |peers: &str| {
        let output = run(&["certs", "make", "--dir", &dir, "--peer", peers, "--client", "me", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let made: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        made["files"].as_array().expect("a list").len()
    };
    assert_eq!(make("10.0.0.1,10.0.0.2"), 4, "the authority, two peers, a client");
    let before = std::fs::read(folder.path().join("peers/10.0.0.1.pem")).expect("a certificate");
    assert_eq!(make("10.0.0.1,10.0.0.2"), 0);
    assert_eq!(make("10.0.0.1,10.0.0.2,10.0.0.3"), 1);
    assert_eq!(std::fs::read(folder.path().join("peers/10.0.0.1.pem")).expect("still there"), before);
    // Half a pair is not mended behind one's back, nor is an authority whose key is gone.
    std::fs::remove_file(folder.path().join("peers/10.0.0.2.key")).expect("removed");
    let half = ["certs", "make", "--dir", &dir, "--peer", "10.0.0.2"];
    kvctl(&half).assert().code(2).stderr(contains("10.0.0.2.pem").and(contains("not overwritten")));
    std::fs::remove_file(folder.path().join("ca.key")).expect("removed");
    kvctl(&["certs", "make", "--dir", &dir, "--peer", "10.0.0.4"])
        .assert()
        .code(2)
        .stderr(contains("ca.key"));
}

#[test]
fn issuing_for_peers_with_ports_names_the_port() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().display().to_string();
    kvctl(&["certs", "init", "--dir", &dir]).assert().success();
    kvctl(&["certs", "issue", "--dir", &dir, "--peer", "127.0.0.1:9605"])
        .assert()
        .success()
        .stdout(contains("127.0.0.1:9605.pem"));
}

/// Five machines, three positions each: arcs that can be seen.
const FIVE: &str = "127.0.0.1,127.0.0.2,127.0.0.3,127.0.0.4,127.0.0.5";

#[test]
fn ring_draws_the_circle_and_the_slots_of_a_key() {
    let output = run(&["ring", "--machines", FIVE, "--virtual-peers", "3", "--key", "mail-23412"]);
    assert!(output.status.success());
    let drawn = String::from_utf8(output.stdout).expect("text");
    let golden = include_str!("ring.txt");
    assert_eq!(drawn, golden, "to take it over, write this to cli/tests/ring.txt:\n{drawn}");
    assert!(golden.lines().all(|line| line.chars().count() <= 80) && golden.lines().count() <= 24);
}

#[test]
fn ring_in_json_gives_the_arcs_in_order() {
    let output = run(&["ring", "--machines", MACHINES, "--key", "mail-23412", "--json"]);
    let ring: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let arc = |i: usize| (ring["arcs"][i]["from"].clone(), ring["arcs"][i]["owner"].clone());
    assert_eq!(arc(0), ("099340C20A42E004716233AB216761C3".into(), "223.23.141.53".into()));
    assert_eq!(arc(2), ("C82D4DB065065DBDCDADFBC5A727208E".into(), S1.into()));
    let sum = |part: &str| {
        let machines = ring["machines"].as_array().expect("machines");
        machines.iter().map(|m| m[part].as_f64().expect("a number")).sum::<f64>()
    };
    assert!((sum("circle") - 1.0).abs() < 1e-9 && (sum("slots") - 1.0).abs() < 1e-9);
    assert_eq!(ring["key"]["slots"][0]["owner"], "122.67.12.23");
}

#[test]
fn a_plan_for_machines_imagined_shows_the_move_and_asks_nobody() {
    let nine: Vec<String> = (1..=9).map(|n| format!("10.0.0.{n}")).collect();
    let nine = nine.join(",");
    let arguments = ["leave", "10.0.0.3", "--plan", "--machines", &nine, "--virtual-peers", "64"];
    let output = run(&[&arguments[..], &["--json"]].concat());
    assert!(output.status.success());
    let plan: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&plan["machines"], &plan["machines_after"]), (&9.into(), &8.into()));
    assert_eq!((&plan["tolerates"], &plan["tolerates_after"]), (&4.into(), &3.into()));
    let flows = plan["flows"].as_array().expect("flows");
    let moved: f64 = flows.iter().map(|f| f["slots"].as_f64().expect("a number")).sum();
    assert!((moved - plan["slots_moved"].as_f64().expect("a number")).abs() < 1e-9);
    kvctl(&arguments).assert().success().stdout(
        starts_with("10.0.0.3 leaves: from 9 machines in the ring to 8").and(contains("may fail at once")),
    );
    kvctl(&["remove", "10.0.0.30", "--plan", "--machines", &nine])
        .assert()
        .code(1)
        .stderr(contains("not a member"));
    kvctl(&["leave", S1, "--plan", "--machines", S1])
        .assert()
        .code(2)
        .stderr(contains("no machine would be left"));
}

#[test]
fn a_simulated_cluster_is_told_in_json_and_what_cannot_be_is_refused() {
    let run = |words: &[&str]| {
        assert_cmd::Command::cargo_bin("kvctl")
            .expect("kvctl")
            .arg("sim")
            .args(words)
            .output()
            .expect("it runs")
    };
    let output = run(&["--peers", "5", "--hours", "0.01", "--keys", "20", "--seed", "3", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(output.status.success());
    assert_eq!((&told["seed"], &told["peers"]), (&3.into(), &5.into()));
    assert_eq!((&told["linearizable"], &told["lost_acked"]), (&true.into(), &0.into()));
    let refused = run(&["--peers", "0"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("peers is 0: it is from 1 to 10000"));
}

/// So many machines, four to a zone: what a command's plan is.
fn plan_in_zones(machines: usize, command: &[&str]) -> Value {
    let zoned = |n: usize| format!("10.0.0.{n}@{}", ["a", "b", "c"][(n - 1) / 4]);
    let machines = (1..=machines).map(zoned).collect::<Vec<_>>().join(",");
    let rest = ["--plan", "--machines", &machines, "--virtual-peers", "64", "--json"];
    let output = run(&[command, &rest[..]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// Four, four and one: without the one, either of the others owns five slots of some keys.
#[test]
fn a_plan_names_the_zones_that_could_no_longer_fail() {
    let plan = plan_in_zones(9, &["leave", "10.0.0.9"]);
    assert_eq!(plan["zones_bound"], serde_json::json!(["a", "b"]));
}

#[test]
fn another_weight_moves_slots_within_its_zone_alone() {
    let plan = plan_in_zones(12, &["weight", "10.0.0.1", "256"]);
    assert_eq!(plan["zones_bound"], serde_json::json!([]));
    let part = |n: usize, when: &str| plan["shares"][n][when].as_f64().expect("a share");
    let moved = |n: usize| part(n, "slots_after") - part(n, "slots");
    assert!(moved(0) > 0.01 && (1..4).all(|n| moved(n) < 0.0), "{plan:#}");
    assert!((4..12).all(|n| moved(n).abs() < 1e-9), "{plan:#}");
}

#[test]
fn machines_are_imagined_in_zones() {
    let spread = run(&["ring", "--machines", "10.0.0.1@a,10.0.0.2@b,10.0.0.3@c", "--virtual-peers", "4"]);
    let text = String::from_utf8_lossy(&spread.stdout).into_owned();
    assert!(text.contains("ZONE") && text.contains("a slot finds its zone first"), "{text}");
    let wrong = run(&["locate", "k", "--machines", "10.0.0.1@two words"]);
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(said.contains("\"two words\" names no zone"), "{said}");
}
