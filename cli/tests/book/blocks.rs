//! The fenced blocks of the book, in the order in which a reader meets them.
//!
//! What the word behind the fence says:
//!
//! | fence | what is done with it |
//! |---|---|
//! | `console` | each line that begins with `$ ` is run; the lines below it are what it prints |
//! | `console,exits-N` | the same, and the last command ends with exit code N |
//! | `console,goes-on` | one command that goes on running while the reader reads on |
//! | `console,docker`, `console,systemd`, `console,root`, `console,build` | not run here: see [`Why`] |
//! | `toml,file=NAME` | written to the file NAME |
//! | `rust`, `rust,no_run` | compiled by the documentation tests of the library |
//! | `text`, `yaml` | shown, and nothing else |

use std::path::{Path, PathBuf};

/// Why a block is not run here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// It needs a Docker engine: `cli/tests/compose.rs` does what it says. Services and profiles are looked up.
    Docker,
    /// It needs a computer whose first process is systemd. The unit that it names is verified.
    Systemd,
    /// It changes the computer it runs on.
    Root,
    /// It builds the programs that run here.
    Build,
}

/// What a block is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Run,
    GoesOn,
    NotHere(Why),
    File(String),
    Shown,
}

/// A command, and what the book shows of its output.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) line: usize,
    pub(crate) command: String,
    pub(crate) shown: Vec<String>,
    pub(crate) exits: i32,
}

#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) page: String,
    pub(crate) line: usize,
    pub(crate) kind: Kind,
    pub(crate) text: String,
    pub(crate) steps: Vec<Step>,
}

impl Block {
    /// Where a person looks for it.
    pub(crate) fn place(&self, line: usize) -> String {
        format!("docs/src/{}:{line}", self.page)
    }
}

/// The folder of the book's pages.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src")
}

/// The pages in the order of the summary.
pub(crate) fn pages() -> Vec<String> {
    let summary = std::fs::read_to_string(folder().join("SUMMARY.md")).expect("SUMMARY.md");
    let links = summary.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()));
    links.collect()
}

/// All blocks of the book.
pub(crate) fn blocks() -> Vec<Block> {
    pages().iter().flat_map(|page| of_page(page, &read(page))).collect()
}

pub(crate) fn read(page: &str) -> String {
    std::fs::read_to_string(folder().join(page)).unwrap_or_else(|e| panic!("docs/src/{page}: {e}"))
}

/// The blocks of one page.
pub(crate) fn of_page(page: &str, text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (number, line) in (1..).zip(text.lines()) {
        match (line.strip_prefix("```"), open) {
            (Some(info), false) => {
                let (kind, _) =
                    kind(info).unwrap_or_else(|| panic!("docs/src/{page}:{number}: what is {info:?}?"));
                let (page, text, steps) = (page.to_owned(), String::new(), Vec::new());
                blocks.push(Block { page, line: number, kind, text, steps });
                open = true;
            }
            (Some(_), true) => open = false,
            (None, true) => {
                let block = blocks.last_mut().expect("an open block");
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, false) => {}
        }
    }
    assert!(!open, "docs/src/{page}: the last block does not end");
    for block in &mut blocks {
        if matches!(block.kind, Kind::Run | Kind::GoesOn | Kind::NotHere(_)) {
            block.steps = steps(block);
        }
    }
    let infos = text.lines().filter_map(|line| kind(line.strip_prefix("```")?)).map(|(_, exits)| exits);
    for (block, exits) in blocks.iter_mut().zip(infos) {
        if let Some(last) = block.steps.last_mut() {
            last.exits = exits;
        }
    }
    blocks
}

/// What the words behind a fence mean, and the exit code of the last command.
fn kind(info: &str) -> Option<(Kind, i32)> {
    let kind = match info.split_once(',').unwrap_or((info, "")) {
        ("console", "") => Kind::Run,
        ("console", "goes-on") => Kind::GoesOn,
        ("console", "docker") => Kind::NotHere(Why::Docker),
        ("console", "systemd") => Kind::NotHere(Why::Systemd),
        ("console", "root") => Kind::NotHere(Why::Root),
        ("console", "build") => Kind::NotHere(Why::Build),
        ("console", word) => return Some((Kind::Run, word.strip_prefix("exits-")?.parse().ok()?)),
        ("toml", word) => Kind::File(word.strip_prefix("file=")?.to_owned()),
        ("rust", "" | "no_run") | ("text" | "yaml", "") => Kind::Shown,
        _ => return None,
    };
    Some((kind, 0))
}

/// The commands of a block. One that ends with a backslash goes on in the next line.
fn steps(block: &Block) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut goes_on = false;
    for (number, line) in (block.line + 1..).zip(block.text.lines()) {
        let last = steps.last_mut();
        if let Some(step) = last.filter(|_| goes_on) {
            step.command.push_str(&format!("\n{line}"));
        } else if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { line: number, command: command.to_owned(), shown: Vec::new(), exits: 0 });
        } else {
            let step = steps.last_mut();
            let step = step.unwrap_or_else(|| panic!("{}: output of no command", block.place(number)));
            step.shown.push(line.to_owned());
            continue;
        }
        goes_on = line.ends_with('\\');
    }
    assert!(!steps.is_empty(), "{}: no command begins with '$ '", block.place(block.line));
    steps
}
