//! The alert rules fire for what they are for, and what the board asks is well-formed: Prometheus' own tool tries them, where
//! it is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/prometheus")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(folder().join(file)).expect("a file of packaging/prometheus")
}

/// Runs Prometheus' own tool, which must be content; false if it is not here.
fn promtool(folder: &Path, arguments: [&str; 3]) -> bool {
    let said: Output = match Command::new("promtool").args(arguments).current_dir(folder).output() {
        Ok(said) => said,
        Err(why) => {
            eprintln!("SKIPPED: no promtool here ({why}), so this was not tried: {arguments:?}");
            return false;
        }
    };
    assert!(
        said.status.success(),
        "promtool {arguments:?}: {}{}",
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr)
    );
    true
}

#[test]
fn rules_are_well_formed_and_fire_when_they_should() {
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        if !promtool(&folder(), arguments) {
            return;
        }
    }
}

/// All that a board asks.
fn expressions(of: &Value) -> Vec<&str> {
    match of {
        Value::Object(fields) => {
            let own = fields.get("expr").and_then(Value::as_str);
            own.into_iter().chain(fields.values().flat_map(expressions)).collect()
        }
        Value::Array(all) => all.iter().flat_map(expressions).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn what_the_board_asks_is_well_formed() {
    let board: Value = serde_json::from_str(&read("../grafana/dashboard.json")).expect("JSON");
    let asked = expressions(&board);
    assert!(asked.len() > 20, "{asked:?}");
    // Prometheus' tool takes no expression alone: as rules, it reads them all.
    let mut rules = "groups:\n  - name: board\n    rules:\n".to_owned();
    for (n, asked) in asked.into_iter().enumerate() {
        let asked = asked.replace("$job", "ennead").replace("$__rate_interval", "1m");
        assert!(!asked.contains('$'), "a variable that is not known here: {asked}");
        // A text of JSON is one of YAML.
        rules += &format!("      - {{ record: \"board:asks_{n}\", expr: {} }}\n", Value::String(asked));
    }
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("board.yml"), rules).expect("a file");
    promtool(dir.path(), ["check", "rules", "board.yml"]);
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
