//! The table of mutants, `docs/mutants.md`: the rule that each breaks, and what it took to notice.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use ennead_ring::mutant::Mutant;
use ennead_sim::SEC;

/// How a mutant was noticed.
pub(crate) struct Kill {
    /// Runs it took; none if its rule is driven by hand.
    pub(crate) seeds: u64,
    /// The run that failed, and when in its virtual time.
    pub(crate) failed: Option<(u64, u64)>,
    pub(crate) what: String,
    pub(crate) wall: f64,
}

const HEAD: &str = "\
# Mutants: each rule switched off, and what it took to notice

Written by `MUTANTS=write cargo test -p ennead-sim --test mutants every_mutant -- --nocapture`, which also fails if one of
them lives; with `MUTANT=C2Early` its row alone. A run is one seed of the simulator, in a world bent towards where the rule matters (`profile` in
`sim/tests/mutants.rs`); the same seed with every rule kept must hold. \"By hand\" drives single machines
(`sim/tests/mutants/`): its breach shows once in a million runs, or only inside one machine. Times are those of a debug build on two
cores that others used too.

| mutant | the rule, broken | runs | virtual s | wall s | what was seen |
|---|---|---|---|---|---|
";

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/mutants.md")
}

/// What `ring/src/mutant.rs` says of it.
pub(crate) fn rule(mutant: Mutant) -> String {
    let source = include_str!("../../../ring/src/mutant.rs");
    let mut said = String::new();
    for line in source.lines().map(str::trim) {
        match line.strip_prefix("/// ") {
            Some(words) => said = if said.is_empty() { words.to_owned() } else { format!("{said} {words}") },
            None if line == format!("{mutant:?},") => return said,
            None => said.clear(),
        }
    }
    panic!("{mutant:?} is not in ring/src/mutant.rs, or says nothing");
}

fn row(mutant: Mutant, kill: &Kill) -> String {
    let what: String = kill.what.chars().take(90).collect();
    let what = what.lines().next().unwrap_or_default().replace('|', "/");
    let (runs, time) = match kill.failed {
        Some((_, at)) => (kill.seeds.to_string(), format!("{:.1}", at as f64 / SEC as f64)),
        None => ("by hand".to_owned(), String::new()),
    };
    format!("| {mutant:?} | {} | {runs} | {time} | {:.2} | {what} |", rule(mutant), kill.wall)
}

/// Writes these anew; the others stay as they are.
pub(crate) fn write(kills: &[(Mutant, Kill)]) {
    let former = std::fs::read_to_string(file()).unwrap_or_default();
    let mut text = HEAD.to_owned();
    for mutant in Mutant::ALL {
        let begins = format!("| {mutant:?} |");
        let new = kills.iter().find(|(of, _)| of == mutant).map(|(mutant, kill)| row(*mutant, kill));
        let row = new.or_else(|| former.lines().find(|line| line.starts_with(&begins)).map(str::to_owned));
        if let Some(row) = row {
            let _ = writeln!(text, "{row}");
        }
    }
    std::fs::write(file(), text).expect("docs/mutants.md is written");
}

#[test]
fn the_table_has_every_mutant_and_says_what_its_rule_is() {
    let text = std::fs::read_to_string(file()).expect("docs/mutants.md");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    let again = "MUTANTS=write cargo test -p ennead-sim --test mutants every_mutant";
    for mutant in Mutant::ALL {
        let begins = format!("| {mutant:?} | {} |", rule(*mutant));
        assert!(
            rows.iter().any(|row| row.starts_with(&begins)),
            "{mutant:?} is not in docs/mutants.md: {again}"
        );
    }
    assert_eq!(rows.len(), Mutant::ALL.len(), "docs/mutants.md has others: {again}");
    assert!(rows.len() >= 40, "{} mutants", rows.len());
}
