//! Test-only: the heart of the protocol in small, exhaustively. Every order of promises, votes, changes of view, syncs,
//! settling, collection, restarts and reads that a few machines can have is gone through, with the code that is shipped;
//! and with each rule switched off that can show here, some order must go wrong.
//!
//! `cargo test -p ennead-ring --lib model -- --nocapture` prints the states of each world, and each mutant's shortest
//! road to ruin. `MODEL_STATES=40000000 cargo test -p ennead-ring --lib model -- --ignored --nocapture` goes through
//! larger worlds, or as many of their states.
#![allow(clippy::print_stdout, reason = "a table, for people")]

use alloc::format;
use alloc::string::String;
use core::fmt::Display;
use std::println;
use std::time::Instant;

use crate::mutant::{Mutant, Rules};
use decrees::Council;
use explorer::{Explored, explore};
use ground::{Ground, Page, Size};

mod decrees;
mod explorer;
mod ground;
mod world;

/// What happens in a world; who owns the slots of its one key in view after view; how much else happens; and how many
/// states it has at least, in thousands: a world that has become smaller shows less than it says.
struct Small(&'static str, &'static [&'static str], Size, usize);

const WORLDS: &[Small] = &[
    Small("nothing moves", &["ABC"], size(2, 2, 1), 125),
    Small("three writes", &["ABC"], size(3, 0, 0), 9),
    Small("collected", &["ABC"], size(2, 1, 1).collecting(), 439),
    Small("one for another", &["ABC", "ABD"], size(2, 0, 0), 92),
    Small("one for another, read", &["ABC", "ABD"], size(1, 1, 0).settling(), 264),
    Small("one becomes three", &["AAA", "ABC"], size(2, 0, 1).settling(), 159),
    Small("two become three", &["ABA", "ABC"], size(2, 0, 0), 5),
    Small("one of two for another", &["ABA", "CBC"], size(2, 1, 1), 174),
    Small("one of two, settled", &["ABA", "CBC"], size(2, 0, 1).settling(), 38),
    Small("one of two, three writes", &["ABA", "CBC"], size(3, 0, 0), 29),
    Small("away and back", &["ABA", "CBC", "ABA"], size(2, 0, 0).settling(), 324),
    Small("moved twice", &["ABA", "CBC", "DBD"], size(2, 0, 0), 49),
    Small("all new, and back", &["AAA", "BBB", "AAA"], size(2, 1, 0).settling(), 12),
    Small("collected and moved", &["ABA", "CBC"], size(2, 1, 0).settling().collecting(), 409),
    Small("collected in between", &["AAA", "BBB", "AAA"], size(3, 0, 0).settling().collecting(), 136),
    Small("collected while away", &["ABA", "CBC", "ABA"], size(2, 0, 0).settling().collecting(), 1_169),
];

const LARGE: &[Small] = &[
    Small("three writes, read and restarted", &["ABC"], size(3, 1, 1), 0),
    Small("one for another, read and restarted", &["ABC", "ABD"], size(2, 1, 1).settling(), 0),
    Small("away and back, three writes", &["ABA", "CBC", "ABA"], size(3, 0, 0).settling(), 0),
    Small("moved twice, settled", &["ABA", "CBC", "DBD"], size(2, 0, 1).settling(), 0),
    Small("a slot moved twice", &["ABC", "DBC", "EBC"], size(2, 0, 0), 0),
];

/// A rule switched off: one that the code can do without in a test, or one of the page.
#[derive(Clone, Copy, Debug)]
enum Off {
    Rule(Mutant),
    Page(Page),
}

/// What happens; who owns the wardens' slots in the first view, and in those that may be proposed; ballots, decrees, restarts;
/// and how many states it has at least, in thousands.
struct Decreed(&'static str, &'static [&'static str], (u8, u8, u8), usize);

const DECREES: &[Decreed] = &[
    Decreed("a view is decided", &["ABC", "ABC", "ABD"], (3, 1, 1), 75),
    Decreed("by two", &["AAB", "AAB", "ABC"], (3, 1, 1), 7),
    Decreed("two views are decided", &["ABC", "ABC", "ABD"], (3, 2, 0), 155),
    Decreed("the wardens change", &["ABC", "ABD", "DBC"], (3, 2, 0), 162),
];

/// A rule switched off where views are decided: one of the code, or that a proposal is bound by what was accepted before.
const DECREES_OFF: &[(Option<Mutant>, &str)] = &[
    (Some(Mutant::V2NoQuorum), "a view is decided"),
    (Some(Mutant::V2Forgets), "a view is decided"),
    (Some(Mutant::V2Stale), "two views are decided"),
    (Some(Mutant::Q2Four), "by two"),
    (None, "a view is decided"),
];

/// Where each shows. Those of `Mutant` that are not here need what these worlds have not: durability by ticket, several
/// states under one ballot, requests, an operator who forces a view; or more steps than they have (S3Late, S5HoldsAll, G2Five, G2Hearsay): the
/// simulator notices those.
const OFF: &[(Off, &str)] = &[
    (Off::Rule(Mutant::Q2MixedEpochs), "one for another, read"),
    (Off::Rule(Mutant::Q2Four), "nothing moves"),
    (Off::Rule(Mutant::A1LowPromise), "two become three"),
    (Off::Rule(Mutant::A2LowAccept), "two become three"),
    (Off::Rule(Mutant::A4NoFloor), "nothing moves"),
    (Off::Rule(Mutant::C1AnyBase), "two become three"),
    (Off::Rule(Mutant::C1Stranger), "collected in between"),
    (Off::Rule(Mutant::D1Four), "nothing moves"),
    (Off::Rule(Mutant::S1Unbroken), "away and back"),
    (Off::Rule(Mutant::S4NoCover), "two become three"),
    (Off::Rule(Mutant::S5Lowest), "one of two, three writes"),
    (Off::Rule(Mutant::S5NoFloor), "two become three"),
    (Off::Rule(Mutant::S5NoBound), "collected in between"),
    (Off::Rule(Mutant::S5OwnVoid), "collected in between"),
    (Off::Rule(Mutant::S6CopyIsVote), "two become three"),
    (Off::Rule(Mutant::S7Early), "one of two, settled"),
    (Off::Rule(Mutant::G3NoBound), "collected"),
    (Off::Page(Page::SettledByOne), "away and back"),
    (Off::Page(Page::DroppedAtOnce), "all new, and back"),
    (Off::Page(Page::FormerOwnersUnheard), "all new, and back"),
];

const fn size(ballots: u8, reads: u8, restarts: u8) -> Size {
    Size { ballots, reads, restarts, settles: false, collects: false }
}

/// Goes through a world with every rule kept; the number of its states, and whether these are all.
fn live(Small(name, tables, size, _): &Small, most: usize) -> (usize, bool) {
    let ground = Ground::new(tables, *size, Rules::default(), None);
    let began = Instant::now();
    match explore(&ground, most) {
        Explored::Well { states, end } => {
            let all = if end { "all states" } else { "states, of more" };
            let tables = ground.tables();
            println!("{name:38} {tables:14} {states:>9} {all}, {:.1} s", began.elapsed().as_secs_f32());
            (states, end)
        }
        Explored::Ill { road, what, .. } => {
            panic!("{name}, owners {}: {what}\n{}", ground.tables(), told(&road))
        }
    }
}

fn told<A: Display>(road: &[A]) -> String {
    road.iter().enumerate().map(|(i, act)| format!("  {:>2} {act}\n", i + 1)).collect()
}

#[test]
fn no_order_of_events_in_any_small_world_breaks_a_claim() {
    for small in WORLDS {
        let (states, end) = live(small, usize::MAX);
        let least = small.3 * 1_000;
        assert!(end && states >= least, "{}: {states} states, and there were more than {least}", small.0);
    }
}

impl Decreed {
    fn council(&self, broken: Option<Mutant>, unbound: bool) -> Council {
        let Self(_, tables, (ballots, decrees, restarts), _) = *self;
        Council { tables, ballots, decrees, restarts, rules: Rules::without(broken), unbound }
    }
}

#[test]
fn no_order_of_events_decides_two_views_after_one() {
    for decreed in DECREES {
        let (name, began) = (decreed.0, Instant::now());
        match explore(&decreed.council(None, false), usize::MAX) {
            Explored::Well { states, .. } => {
                println!("{name:38} {states:>9} all states, {:.1} s", began.elapsed().as_secs_f32());
                let least = decreed.3 * 1_000;
                assert!(states >= least, "{name}: {states} states, and there were more than {least}");
            }
            Explored::Ill { road, what, .. } => panic!("{name}: {what}\n{}", told(&road)),
        }
    }
}

#[test]
fn with_a_rule_of_decrees_switched_off_two_views_are_decided_after_one() {
    for (broken, name) in DECREES_OFF {
        let decreed = DECREES.iter().find(|decreed| decreed.0 == *name).expect("a world");
        let council = decreed.council(*broken, broken.is_none());
        let Explored::Ill { states, road, what } = explore(&council, usize::MAX) else {
            panic!("{broken:?} goes unnoticed where {name}");
        };
        println!("{broken:?} where {name}, after {states} states: {what}\n{}", told(&road));
    }
}

#[test]
#[ignore = "minutes, and some GiB"]
fn nor_in_larger_ones() {
    let most = std::env::var("MODEL_STATES").ok().and_then(|text| text.parse().ok());
    for small in LARGE {
        live(small, most.unwrap_or(5_000_000));
    }
}

#[test]
fn with_a_rule_switched_off_some_order_of_events_goes_wrong() {
    for (off, name) in OFF {
        let (mutant, page) = match *off {
            Off::Rule(mutant) => (Some(mutant), None),
            Off::Page(page) => (None, Some(page)),
        };
        let Small(_, tables, size, _) = WORLDS.iter().find(|small| small.0 == *name).expect("a world");
        let ground = Ground::new(tables, *size, Rules::without(mutant), page);
        let Explored::Ill { states, road, what } = explore(&ground, usize::MAX) else {
            panic!("{off:?} goes unnoticed where {name}: {}", ground.tables());
        };
        println!("{off:?} in {}, after {states} states: {what}\n{}", ground.tables(), told(&road));
    }
}
