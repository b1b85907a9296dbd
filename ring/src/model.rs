//! Test-only: the heart of the protocol in small, exhaustively. Every order of promises, votes, changes of view, syncs,
//! settling, collection, restarts and reads that a few machines can have is gone through, with the code that is shipped;
//! and with each rule switched off that can show here, some order must go wrong. Why the others cannot is said in
//! [`ELSEWHERE`].
//!
//! `cargo test -p ennead-ring --lib model -- --nocapture` prints the states of each world, and each mutant's shortest
//! road to ruin. `MODEL_STATES=40000000 cargo test -p ennead-ring --lib model -- --ignored --nocapture` goes through
//! larger worlds, or as many of their states.
#![allow(clippy::print_stdout, reason = "a table, for people")]

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Display;
use std::println;
use std::time::Instant;

use crate::mutant::{Mutant, Rules};
use decrees::Council;
use explorer::{Explored, explore};
use forcing::Survivors;
use ground::{Ground, Page, Size};
use world::Act;

mod decrees;
mod explorer;
mod forcing;
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
    Small("three writes, collected", &["ABC"], size(3, 0, 0).collecting(), 29),
    Small("takes over and collects", &["ABA", "AAA"], size(2, 1, 0).settling().collecting(), 36),
    Small("moved slowly, collected", &["AAA", "BBB"], size(3, 0, 0).collecting().with_slow_passes(), 2),
    Small(
        "two sync, long after",
        &["AAA", "BBB", "ABB", "ABC"],
        size(3, 0, 0).settling().collecting().after(COLLECTED_AND_BACK),
        11,
    ),
    Small("two exchange slots", &["BAB", "ABA"], size(2, 1, 0), 15),
    Small("one is lost", &["ABC", "ABD!C"], size(2, 0, 0), 27),
    Small("most are lost", &["ABC", "AAA!BC"], size(2, 0, 0), 2),
];

/// What A held is deleted and collected while it is away. A will come back in a view that need not settle.
const COLLECTED_AND_BACK: &[Act] = &[
    Act::Prepare { at: 0, ballot: 1 },
    Act::Lead { ballot: 1, base: 0 },
    Act::Accept { at: 0, ballot: 1 },
    Act::Adopt { at: 0 },
    Act::Tell { from: 0, to: 1 },
    Act::Sync { at: 1 },
    Act::Prepare { at: 1, ballot: 2 },
    Act::Lead { ballot: 2, base: 1 },
    Act::Accept { at: 1, ballot: 2 },
    Act::Vote { ballot: 2, view: 1 },
    Act::Collect { at: 1 },
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

/// What happens; how many machines there were, of which two are lost; words of operators, further deaths, proposals given
/// up; and how many states it has at least, in thousands.
struct Lost(&'static str, u8, (u8, u8, u8), usize);

const LOST: &[Lost] =
    &[Lost("one forces, another goes on", 4, (2, 1, 0), 14), Lost("one gives up", 4, (2, 1, 1), 95)];

const LARGE_LOST: &[Lost] =
    &[Lost("one gives up, and tries again", 4, (3, 1, 1), 0), Lost("three are left", 5, (2, 1, 0), 0)];

const LOST_OFF: &[(Mutant, &str)] =
    &[(Mutant::F2Alone, "one forces, another goes on"), (Mutant::F2Blind, "one forces, another goes on")];

/// Where each shows. Those of `Mutant` that are in none of these tables are in [`ELSEWHERE`].
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
    (Off::Rule(Mutant::G2Five), "three writes, collected"),
    (Off::Rule(Mutant::G2Hearsay), "takes over and collects"),
    (Off::Rule(Mutant::S5HoldsAll), "moved slowly, collected"),
    (Off::Rule(Mutant::S3Late), "two sync, long after"),
    (Off::Rule(Mutant::S1Moved), "two exchange slots"),
    (Off::Rule(Mutant::F2Covers), "one is lost"),
    (Off::Rule(Mutant::F2Waits), "most are lost"),
    (Off::Rule(Mutant::F2Late), "most are lost"),
    (Off::Rule(Mutant::G3NoBound), "collected"),
    (Off::Page(Page::SettledByOne), "away and back"),
    (Off::Page(Page::DroppedAtOnce), "all new, and back"),
    (Off::Page(Page::FormerOwnersUnheard), "all new, and back"),
];

/// Why these worlds cannot show the others, all of which the simulator's tests or the rules' own kill.
const ELSEWHERE: &[(&str, &[Mutant])] = &[
    (
        "there is no roll here: everybody is asked",
        &[Mutant::S3NoteSilent, Mutant::S3NoteUnsynced, Mutant::S3RollUnsynced],
    ),
    (
        "whatever changes is durable here at once: there are no tickets, and no memory that a key is dropped from",
        &[
            Mutant::A2Unsynced,
            Mutant::A1Unsynced,
            Mutant::A3Unsynced,
            Mutant::A1Evicted,
            Mutant::F1TellFirst,
            Mutant::B1BallotTwice,
            Mutant::G2Unsynced,
        ],
    ),
    (
        "a ballot has one state here, and nobody's request is in it",
        &[
            Mutant::B2Fork,
            Mutant::C2Early,
            Mutant::C2StaleCompare,
            Mutant::C4Denied,
            Mutant::D3Later,
            Mutant::I2NoDedup,
            Mutant::I2NoHorizon,
            Mutant::I3Failure,
            Mutant::I5Version,
            Mutant::I6Now,
            Mutant::G1NoTombstone,
        ],
    ),
    ("a read is answered by five equal copies here, or not at all", &[Mutant::D3NoHelp]),
    ("no disk is damaged here, and none put back", &[Mutant::R3Blind, Mutant::R2Stale]),
    (
        "what `Node` lets in: here nobody speaks but members, and of views that were decided",
        &[Mutant::V4Cluster, Mutant::V5Stranger, Mutant::V3Unlawful],
    ),
    (
        "what is told is told here, record by record: digests are another model's",
        &[Mutant::S3AnyClaim, Mutant::S3ClaimVotes, Mutant::S3AnyRest],
    ),
    (
        "who was named is no member (V5), is not asked (S2), and comes into no view again (V3): with this rule alone broken \
         nothing here goes wrong, whatever it does. What the rule adds is that its process ends",
        &[Mutant::F2Returns],
    ),
    ("keys are not listed here", &[Mutant::L1Late, Mutant::L2Few, Mutant::L2Unsynced, Mutant::L4Mixed]),
];

const fn size(ballots: u8, reads: u8, restarts: u8) -> Size {
    let (settles, collects, slow_passes) = (false, false, false);
    Size { ballots, reads, restarts, settles, collects, slow_passes, opening: &[] }
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

impl Lost {
    fn survivors(&self, broken: Option<Mutant>) -> Survivors {
        let Self(_, machines, (words, deaths, given_up), _) = *self;
        Survivors { machines, words, deaths, given_up, rules: Rules::without(broken) }
    }
}

fn go_through(lost: &Lost, most: usize) -> (usize, bool) {
    let (name, began) = (lost.0, Instant::now());
    match explore(&lost.survivors(None), most) {
        Explored::Well { states, end } => {
            let all = if end { "all states" } else { "states, of more" };
            println!("{name:38} {states:>9} {all}, {:.1} s", began.elapsed().as_secs_f32());
            (states, end)
        }
        Explored::Ill { road, what, .. } => panic!("{name}: {what}\n{}", told(&road)),
    }
}

#[test]
fn no_order_of_events_forces_two_views_after_one() {
    for lost in LOST {
        let (states, end) = go_through(lost, usize::MAX);
        let least = lost.3 * 1_000;
        assert!(end && states >= least, "{}: {states} states, and there were more than {least}", lost.0);
    }
}

#[test]
fn with_a_rule_of_forcing_switched_off_two_views_are_forced_after_one() {
    for (mutant, name) in LOST_OFF {
        let lost = LOST.iter().find(|lost| lost.0 == *name).expect("a world");
        let Explored::Ill { states, road, what } = explore(&lost.survivors(Some(*mutant)), usize::MAX) else {
            panic!("{mutant:?} goes unnoticed where {name}");
        };
        println!("{mutant:?} where {name}, after {states} states: {what}\n{}", told(&road));
    }
}

#[test]
#[ignore = "minutes, and some GiB"]
fn nor_in_larger_ones() {
    let most = std::env::var("MODEL_STATES").ok().and_then(|text| text.parse().ok());
    for small in LARGE {
        live(small, most.unwrap_or(5_000_000));
    }
    for lost in LARGE_LOST {
        go_through(lost, most.unwrap_or(5_000_000));
    }
}

#[test]
fn every_rule_shows_here_or_it_is_said_why_not() {
    let here = OFF.iter().filter_map(|(off, _)| match off {
        Off::Rule(mutant) => Some(*mutant),
        Off::Page(_) => None,
    });
    let here: Vec<Mutant> = here
        .chain(DECREES_OFF.iter().filter_map(|(mutant, _)| *mutant))
        .chain(LOST_OFF.iter().map(|(mutant, _)| *mutant))
        .collect();
    for mutant in Mutant::ALL {
        let reasons = ELSEWHERE.iter().filter(|(_, mutants)| mutants.contains(mutant)).count();
        let said = if here.contains(mutant) { 0 } else { 1 };
        assert_eq!(
            reasons,
            said,
            "{mutant:?}: shows in {} tables",
            here.iter().filter(|m| *m == mutant).count()
        );
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
        println!("{off:?} in {}, after {states} states: {what}", ground.tables());
        if !size.opening.is_empty() {
            println!("{}  and then", told(size.opening));
        }
        println!("{}", told(&road));
    }
}
