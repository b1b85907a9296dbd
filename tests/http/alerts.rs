//! The alert rules fire for what they are for: Prometheus' own tool tries them, where it is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/prometheus")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(folder().join(file)).expect("a file of packaging/prometheus")
}

#[test]
fn rules_are_well_formed_and_fire_when_they_should() {
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        match Command::new("promtool").args(arguments).current_dir(folder()).output() {
            Err(why) => return eprintln!("SKIPPED: no promtool here ({why}), so no alert was tried"),
            Ok(said) => assert!(
                said.status.success(),
                "promtool {arguments:?}: {}{}",
                String::from_utf8_lossy(&said.stdout),
                String::from_utf8_lossy(&said.stderr)
            ),
        }
    }
}

#[test]
fn each_rule_is_tried_silent_and_firing() {
    let rules = read("alerts.yml");
    let named: BTreeSet<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(named.len() > 10, "{named:?}");
    let tests = read("alerts_test.yml");
    // A line of its own expects silence; a block with exp_alerts expects that it fires.
    let named_in =
        |line: &str| line.split_once("alertname: ").map(|(_, name)| name.trim_end_matches(" }").to_owned());
    let (silent, firing): (Vec<&str>, Vec<&str>) =
        tests.lines().filter(|line| line.contains("alertname: ")).partition(|line| line.ends_with(" }"));
    for (what, lines) in [("silent", silent), ("firing", firing)] {
        let tried: BTreeSet<String> = lines.into_iter().filter_map(named_in).collect();
        let missing: Vec<_> = named.iter().filter(|name| !tried.contains(**name)).collect();
        assert!(missing.is_empty(), "not tried {what}: {missing:?}");
    }
}
