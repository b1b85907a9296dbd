//! The daemon's command line, run as a program: settings and whence they come, errors, exit codes.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

fn ennead(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ennead"));
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("ENNEAD_") {
            command.env_remove(variable);
        }
    }
    command.args(arguments).envs(environment.iter().copied()).output().expect("a run")
}

/// The exit code and what was said on stderr.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let output = ennead(arguments, &[]);
    assert!(output.stdout.is_empty(), "talk belongs on stderr");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("ennead.toml");
    std::fs::write(&path, text).expect("a file in it");
    (dir, path)
}

#[test]
fn config_prints_what_is_in_force_and_whence() {
    let (_dir, path) = file("data = '/var/lib/ennead'\nvirtual-peers = 128\n");
    let path = path.display().to_string();
    let arguments = ["config", "--listen", "127.0.0.1", "--config", &path, "--json"];
    let output = ennead(&arguments, &[("ENNEAD_LOG_FORMAT", "json")]);
    assert!(output.status.success());
    let settings: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for (setting, value, from) in [
        ("listen", Value::from("127.0.0.1"), "flag"),
        ("log-format", "json".into(), "environment"),
        ("data", "/var/lib/ennead".into(), "file"),
        ("virtual-peers", "128".into(), "file"),
        ("slots", "9".into(), "default"),
        ("join", Value::Null, "unset"),
    ] {
        assert_eq!(settings[setting]["value"], value, "{setting}");
        assert_eq!(settings[setting]["from"], from, "{setting}");
    }
    let text = ennead(&arguments[..5], &[]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.lines().any(|l| l.starts_with("data") && l.ends_with(&format!("file {path}"))), "{text}");
}

#[test]
fn config_refuses_what_serve_would_refuse() {
    let (code, said) = refused(&["config", "--slots", "8"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("flag --slots") && said.contains("odd number"), "{said}");
    let (_dir, path) = file("virtual_peers = 128\n");
    let (code, said) = refused(&["config", "--config", &path.display().to_string()]);
    assert_eq!(code, Some(2));
    assert!(said.contains("virtual_peers = 128") && said.contains("virtual-peers"), "{said}");
}

#[test]
fn serve_names_what_is_missing_and_every_way_to_give_it() {
    let (code, said) = refused(&["serve"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("--listen") && said.contains("ENNEAD_LISTEN"), "{said}");
}

#[test]
fn flags_of_later_days_are_unknown_today() {
    for flag in ["--redis", "--workers"] {
        let (code, said) = refused(&["serve", flag, "x"]);
        assert_eq!(code, Some(2));
        assert!(said.contains("unexpected argument"), "{said}");
    }
}

#[test]
fn init_and_join_exclude_each_other() {
    let needed = ["serve", "--listen", "127.0.88.1", "--data", "d", "--certs", "c"];
    let both = [&needed[..], &["--init", "--join", "127.0.88.2"]].concat();
    let (code, said) = refused(&both);
    assert_eq!(code, Some(2));
    assert!(said.contains("flag --init and flag --join exclude each other"), "{said}");
}

#[test]
fn help_tells_variables_and_defaults() {
    let output = ennead(&["serve", "--help"], &[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success());
    assert!(text.contains("ENNEAD_VIRTUAL_PEERS") && text.contains("default: 64"), "{text}");
    assert!(!text.contains("die-with-parent"), "not for people");
}
