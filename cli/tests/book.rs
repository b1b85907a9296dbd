//! The book in `docs/` tells the truth: its commands are run in the order in which a reader meets them, by one reader
//! in one folder, and what they print is compared with what it shows; its links lead somewhere.

#![allow(missing_docs, clippy::print_stderr, reason = "tests")]

#[path = "book/blocks.rs"]
mod blocks;
#[path = "book/elsewhere.rs"]
mod elsewhere;
#[path = "book/links.rs"]
mod links;
#[path = "book/shell.rs"]
mod shell;
#[path = "book/shown.rs"]
mod shown;

use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use blocks::{Block, Kind, Step, blocks, folder, read};
use shell::{Ended, Shell};
use shown::is_as_shown;

#[test]
fn every_command_of_the_book_does_what_it_shows() {
    if let Err(why) = UdpSocket::bind(("127.0.135.1", 0)) {
        return eprintln!("SKIPPED: no address 127.0.135.1 here ({why}), so no command of the book was run");
    }
    let daemon = Path::new(env!("CARGO_BIN_EXE_kvctl")).with_file_name("ennead");
    assert!(daemon.exists(), "there is no {}: cargo build --workspace makes it", daemon.display());
    let mut shell = Shell::new();
    if !shell.has_terminal {
        eprintln!(
            "NOT COMPARED: there is no `script` here to make a terminal, so what commands print was not looked at"
        );
    }
    for block in blocks() {
        match &block.kind {
            Kind::File(name) => std::fs::write(shell.home().join(name), &block.text).expect("a file"),
            Kind::Run => block.steps.iter().for_each(|step| run(&mut shell, &block, step)),
            Kind::GoesOn => go_on(&mut shell, &block),
            Kind::NotHere(_) | Kind::Shown => {}
        }
    }
    let drawn = std::fs::read_to_string(shell.home().join("ring.svg")).expect("the book draws the ring");
    let kept = folder().join("ring.svg");
    let is_same = std::fs::read_to_string(&kept).is_ok_and(|kept| kept == drawn);
    if !is_same && std::env::var_os("BOOK_TAKE_OVER").is_some() {
        std::fs::write(&kept, drawn).expect("a file");
        return;
    }
    assert!(is_same, "docs/src/ring.svg is not what kvctl draws; BOOK_TAKE_OVER=1 takes over what it does");
}

/// Commands that only look. Beside other tests a machine is suspected now and then: they may look again.
const LOOKS: [&str; 9] = [
    "kvctl status",
    "kvctl members",
    "kvctl moves",
    "kvctl top",
    "kvctl why",
    "kvctl check",
    "kvctl get",
    "curl --silent http:",
    "curl --silent --fail http:",
];
/// For how long.
const LOOKS_FOR: Duration = Duration::from_secs(60);

fn run(shell: &mut Shell, block: &Block, step: &Step) {
    let (begun, looks) = (Instant::now(), LOOKS.iter().any(|look| step.command.starts_with(look)));
    let Ended { code, printed } = loop {
        let ended = shell.run(&step.command);
        let compared = shell.has_terminal && !step.shown.is_empty();
        let as_shown = !compared || is_as_shown(&step.shown, &ended.printed);
        if !looks || begun.elapsed() > LOOKS_FOR || (ended.code == Some(step.exits) && as_shown) {
            break ended;
        }
        std::thread::sleep(Duration::from_secs(1));
    };
    let told = || {
        let place = block.place(step.line);
        let (printed, others) = (printed.join("\n"), shell.last_words());
        format!("{place}\n$ {}\n{printed}\n\nprograms that go on have said last:\n{others}", step.command)
    };
    assert_eq!(code, Some(step.exits), "exit code of {}", told());
    if shell.has_terminal && !step.shown.is_empty() {
        let shown = || step.shown.join("\n");
        assert!(is_as_shown(&step.shown, &printed), "not as shown: {}\n\nshown is:\n{}", told(), shown());
    }
}

fn go_on(shell: &mut Shell, block: &Block) {
    let [step] = block.steps.as_slice() else { panic!("{}: one command goes on", block.place(block.line)) };
    let as_shown = |printed: &[String]| step.shown.is_empty() || is_as_shown(&step.shown, printed);
    let Ended { code, printed } = shell.start(&step.command, as_shown);
    let (place, said) = (block.place(step.line), printed.join("\n"));
    assert_eq!(code, None, "{place}: it has ended: {said}");
    assert!(as_shown(&printed), "{place}: not as shown:\n{said}");
}

#[test]
fn figures_are_those_of_the_readme() {
    let readme = std::fs::read_to_string(folder().join("../../README.md")).expect("README.md");
    let sizing = read("sizing.md");
    let rows = |text: &str| -> Vec<String> {
        let rows = text.lines().filter(|line| line.contains("| put |") || line.contains("| get |"));
        rows.map(|row| row.trim_end_matches([' ', '|']).to_owned()).collect()
    };
    let (here, there) = (rows(&sizing), rows(&readme));
    assert_eq!((here.len(), there.len()), (6, 6));
    for (here, there) in here.iter().zip(&there) {
        assert!(there.starts_with(here), "the README says {there}");
    }
}

#[test]
fn every_verdict_has_its_section() {
    use ennead::verdict::Word;
    let all = [
        Word::Exit,
        Word::Panic,
        Word::Killed,
        Word::HostDown,
        Word::Unreachable,
        Word::Partitioned,
        Word::Paused,
        Word::DiskStalled,
        Word::DiskFailed,
        Word::Overloaded,
        Word::Clock,
        Word::Incompatible,
        Word::Upgraded,
        Word::Left,
        Word::DiskFull,
    ];
    let page = read("why.md");
    for word in all {
        assert!(page.contains(&format!("\n### {}\n", word.word())), "{}", word.word());
    }
}

#[test]
fn every_alert_has_its_section() {
    let rules =
        std::fs::read_to_string(folder().join("../../packaging/prometheus/alerts.yml")).expect("rules");
    let named: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let page = read("alerts.md");
    let told: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(told, named, "docs/src/alerts.md tells of the alerts in their order");
}
