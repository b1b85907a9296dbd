//! Mutants whose breach was made small: scripts of a few dozen steps, in `sim/tests/shrunk/`, each of which shows a broken
//! rule, and shows nothing where it is kept.
//!
//! | command | what |
//! |---|---|
//! | `SHRINK=D3Later cargo test -p ennead-sim --test mutants shrink_one -- --nocapture` | hunts this mutant, makes the seed small, and writes the script |
//! | `SHRINK=D3Later KEEP=1 ...` | the same in that mutant's world with every rule kept, if that fails |
//! | `SHRINK=8841 ...` | the same of a seed of `sim.rs` that fails with every rule kept; `m8841` where membership changes |
//! | `SHRINK_PLAYS=20000 ...` | acts scripts out so many times at most; 4,000 if nobody says |
//! | `SHRINK_TRIES=500 ...` | looks for a failure in each smaller world among so many seeds; 30 if nobody says |

use std::path::{Path, PathBuf};

use ennead_ring::mutant::{Mutant, Rules};
use ennead_sim::{Profile, Script, Shrunk, run, shrink};
use rand::rngs::StdRng;

use crate::table::rule;
use crate::{BUDGET, profile};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shrunk")
}

/// The scripts, and which rule each shows broken.
fn scripts() -> Vec<(String, Option<Mutant>, Script)> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder()).expect("sim/tests/shrunk").map(|e| e.expect("a file").path()).collect();
    files.sort();
    let script = |path: PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("text");
        let mutant = Mutant::ALL.iter().copied().find(|mutant| format!("{mutant:?}") == name);
        let script = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, mutant, script)
    };
    files.into_iter().map(script).collect()
}

#[test]
fn shrunk_scripts_fail_without_their_rule_and_hold_with_it() {
    let scripts = scripts();
    assert!(scripts.len() >= 5, "scripts are missing");
    let mut failed = Vec::new();
    for (name, mutant, script) in scripts {
        // Where the rule is kept things go another way: steps that need what did not happen are passed over.
        if let Err(what) = script.play(Rules::default()) {
            failed.push(format!("{name} fails with every rule kept: {what}"));
        }
        let Some(mutant) = mutant else { continue };
        if script.play(Rules::without(Some(mutant))).is_ok() {
            failed.push(format!("{name} does not show it any more: shrink it anew, SHRINK={name}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_script_is_the_same_when_it_is_read_back() {
    for (name, _, script) in scripts() {
        assert_eq!(script.to_string().parse::<Script>().as_ref(), Ok(&script), "{name}");
    }
}

#[test]
fn a_script_that_makes_no_sense_is_refused_with_its_line() {
    for (text, what) in [
        ("machines 1 2\n----\n0.1 s3 wakes\n", "there are 2 machines"),
        ("machines 1\n----\n0.1 s1 sings\n", "line 3"),
        ("machines 1\n----\nsoon s1 wakes\n", "line 3: \"soon\" is no time in seconds"),
        ("machines one\n", "line 1: \"one\" is no number here"),
        ("machines 1\ntuned colour 3\n", "line 2: colour cannot be tuned"),
        ("machines 1 2\nfounders 3\n", "founders is 3, and there are 2 machines"),
        ("machines 1 2\nfounders 0\n", "make no view"),
        ("machines 1 2\nslots 4\n", "make no view"),
        ("machines 1\n----\n0.1 s1 is told that s2.0 leaves\n", "line 3"),
        ("machines 1\n----\n0.1 s1 starts, seed 7, joins you\n", "\"you\" is no machine"),
        ("machines 1\n----\n0.1 call 1 -> s1: sing\n", "line 3: \"sing\" is nothing to ask"),
    ] {
        let error = text.parse::<Script>().expect_err("it makes no sense");
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn shrink_one() {
    let Ok(wanted) = std::env::var("SHRINK") else { return };
    let number =
        |name: &str, usual: usize| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usual);
    let (plays, tries) = (number("SHRINK_PLAYS", 4_000), number("SHRINK_TRIES", 30) as u64);
    // Panics are how some of them show.
    std::panic::set_hook(Box::new(|_| {}));
    let (moving, number) = wanted.strip_prefix('m').map_or((false, &*wanted), |number| (true, number));
    let (mutant, shrunk) = match number.parse() {
        Ok(seed) if moving => (None, shrink(seed, &|rng| Profile::moving(rng), tries, plays)),
        Ok(seed) => (None, shrink(seed, &|rng| Profile::draw(rng), tries, plays)),
        Err(_) => {
            let named = |mutant: &&Mutant| format!("{mutant:?}") == wanted;
            let mutant = *Mutant::ALL.iter().find(named).expect("SHRINK is a mutant, or a seed");
            // Its world may fail with every rule kept, too: then that is what is to be looked at.
            let kept = std::env::var_os("KEEP").is_some();
            let broken = Rules::without(Some(mutant).filter(|_| !kept));
            let profile = |rng: &mut StdRng| Profile { rules: broken, ..profile(rng, mutant) };
            let seed = (0..BUDGET).find(|seed| run(*seed, profile, false).is_err()).expect("it lives");
            (Some(mutant).filter(|_| !kept), shrink(seed, &profile, tries, plays))
        }
    };
    let _ = std::panic::take_hook();
    let shrunk = shrunk.unwrap_or_else(|why| panic!("{wanted} cannot be made small: {why}"));
    let text = text(mutant, &shrunk);
    println!("{text}");
    if let Err(what) = shrunk.script.play(Rules::default())
        && mutant.is_some()
    {
        panic!("it fails with every rule kept, too: {what}");
    }
    std::fs::write(folder().join(format!("{wanted}.txt")), text).expect("it is written");
}

fn text(mutant: Option<Mutant>, shrunk: &Shrunk) -> String {
    let Shrunk { seed, less, what, steps: (before, after), script } = shrunk;
    let rule = mutant.map_or(String::new(), |mutant| format!("# {}\n", rule(mutant)));
    let what = what.lines().map(|line| format!("# {line}\n")).collect::<String>();
    format!(
        "{rule}{what}# Seed {seed}, {}: of {before} things that happened to machines, these {after} are enough.\n{script}",
        less.join(", ")
    )
}
