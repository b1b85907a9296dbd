//! What of the book cannot be run here: said, and checked otherwise as far as that goes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::blocks::{Kind, Why, blocks};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The commands of one sort, and where they are.
fn commands(why: Why) -> Vec<(String, String)> {
    let blocks = blocks().into_iter().filter(|block| block.kind == Kind::NotHere(why));
    let commands = blocks.flat_map(|block| {
        let steps = block.steps.clone();
        steps.into_iter().map(move |step| (block.place(step.line), step.command))
    });
    commands.collect()
}

fn say(place: &str, command: &str, why: &str) {
    eprintln!("NOT RUN: {place}: {command}: {why}");
}

#[test]
fn compose_commands_name_services_and_profiles_that_there_are() {
    let text = std::fs::read_to_string(root().join("docker-compose.yml")).expect("docker-compose.yml");
    let services = text.split_once("\nservices:\n").and_then(|(_, rest)| rest.split_once("\nnetworks:\n"));
    let services = services.expect("services").0;
    let names: BTreeSet<&str> = services
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':'))
        .filter(|name| !name.starts_with([' ', '#']))
        .collect();
    assert!(names.contains("ennead9") && names.contains("kvctl"), "{names:?}");
    let profiles: BTreeSet<&str> = services
        .lines()
        .filter_map(|line| line.trim().strip_prefix("profiles: [")?.strip_suffix(']'))
        .collect();
    let all = commands(Why::Docker);
    assert!(!all.is_empty());
    for (place, command) in all {
        say(
            &place,
            &command,
            "it needs a Docker engine; cli/tests/compose.rs does such things where there is one",
        );
        let mut words = command.strip_prefix("docker compose ").expect("a compose command").split(' ');
        let mut verb = words.next().expect("a verb");
        if verb == "--profile" {
            let profile = words.next().expect("a profile");
            assert!(profiles.contains(profile), "{place}: there is no profile {profile}");
            verb = words.next().expect("a verb");
        }
        let service = words.find(|word| !word.starts_with('-'));
        match (verb, service) {
            ("up" | "down", None) => {}
            ("up" | "run" | "pause" | "unpause" | "kill" | "start" | "stop" | "restart", Some(service)) => {
                assert!(names.contains(service), "{place}: there is no service {service}");
            }
            _ => panic!("{place}: what does {command:?} do?"),
        }
    }
}

#[test]
fn the_unit_that_the_book_installs_is_a_good_one() {
    let unit = root().join("packaging/ennead@.service");
    for (place, command) in commands(Why::Systemd) {
        say(&place, &command, "it needs a computer whose first process is systemd");
        let verb = command.split(' ').next().expect("a program");
        assert!(["systemctl", "journalctl"].contains(&verb), "{place}: {command}");
        let named = command.split(' ').find(|word| word.contains('@'));
        assert!(named.is_none_or(|name| name.starts_with("ennead@10.0.0.")), "{place}: {command}");
    }
    // The program is where a package would put it: here it is the one under test.
    let daemon = Path::new(env!("CARGO_BIN_EXE_kvctl")).with_file_name("ennead");
    let text = std::fs::read_to_string(unit).expect("the unit");
    let text = text.replace("/usr/bin/ennead", &daemon.display().to_string());
    let dir = tempfile::tempdir().expect("a temporary folder");
    let copy = dir.path().join("ennead@10.0.0.4.service");
    std::fs::write(&copy, text).expect("a file");
    match Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output() {
        Err(why) => eprintln!("SKIPPED: no systemd-analyze here ({why}), so the unit was not verified"),
        Ok(said) => {
            let said = String::from_utf8_lossy(&said.stderr).into_owned();
            // Of other units on this computer it may complain too; older versions pass over the steps, as the unit says.
            let older =
                |line: &str| ["'RestartSteps'", "'RestartMaxDelaySec'"].iter().any(|key| line.contains(key));
            let about: Vec<&str> =
                said.lines().filter(|line| line.contains("ennead@") && !older(line)).collect();
            assert!(about.is_empty(), "{about:#?}");
        }
    }
}

#[test]
fn what_changes_this_computer_names_files_that_there_are() {
    for why in [Why::Root, Why::Build] {
        for (place, command) in commands(why) {
            say(&place, &command, "it would change this computer, or build what runs here");
            for word in command.split(' ').filter(|word| word.starts_with("packaging/")) {
                assert!(root().join(word).exists(), "{place}: there is no {word}");
            }
        }
    }
}
