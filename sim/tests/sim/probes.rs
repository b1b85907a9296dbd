//! Rare states, by name: the fixed seeds must meet each of them, or they test less than they seem to.

use std::collections::BTreeMap;

use ennead_ring::rare::Rare;

/// What is seen of the world whose machines never change.
const ALWAYS: &[&str] = &[
    "accept",
    "birth",
    "blank",
    "copies differ until they are compared",
    "copy",
    "done",
    "handed over",
    "held",
    "hint",
    "loaded",
    "mismatch",
    "mute",
    "no quorum",
    "no value",
    "not tried",
    "nothing to delete",
    "overloaded",
    "prepare",
    "promised",
    "read",
    "refused",
    "too late",
    "unknown",
    "unreadable",
    "value",
    "wake",
];

/// What is seen only where membership changes.
const MOVING: &[&str] = &[
    "answered without a vote",
    "charged to a forced recovery",
    "checks",
    "copies ahead",
    "decree contention",
    "died for good",
    "dropped",
    "five owners lost",
    "forced by all who stay",
    "forced by decree",
    "hearsay made a vote",
    "hearsay taken",
    "joined",
    "left",
    "more lost than promised",
    "not taken",
    "place changed",
    "rejoined with data",
    "restored from a backup",
    "scanned",
    "skipped to a settled view",
    "spared by a forced recovery",
    "sync by handoff",
    "sync by recovery",
    "sync over several views",
    "tombstone collected",
    "view after an unsettled one",
    "view settled",
    "voted before all was synced",
    "wiped",
    "wiped and taken in again",
    "zone failed",
];

/// What a cluster meets whose machines never change.
pub(crate) fn always() -> impl Iterator<Item = &'static str> {
    let turns = Rare::ALL.iter().filter(|turn| !turn.is_of_views()).map(|turn| turn.name());
    ALWAYS.iter().copied().chain(turns)
}

/// What only one meets whose machines do.
pub(crate) fn of_views() -> impl Iterator<Item = &'static str> {
    let turns = Rare::ALL.iter().filter(|turn| turn.is_of_views()).map(|turn| turn.name());
    MOVING.iter().copied().chain(turns)
}

/// One that these seeds never met fails the run.
pub(crate) fn all_are_met(wanted: &[&'static str], met: &BTreeMap<&'static str, u64>) {
    let missed: Vec<_> = wanted.iter().filter(|name| !met.contains_key(**name)).collect();
    println!("{} of {} probes reached", wanted.len() - missed.len(), wanted.len());
    assert!(missed.is_empty(), "no seed met {missed:?}");
}

/// A line each, the rarest first.
pub(crate) fn print(met: &BTreeMap<&'static str, u64>) {
    let mut all: Vec<_> = met.iter().map(|(name, times)| (times, name)).collect();
    all.sort();
    for (times, name) in all {
        let told = Rare::ALL.iter().find(|turn| turn.name() == *name).map_or("", |turn| turn.told());
        println!("{times:>12}  {name:30} {}", told.trim());
    }
}

/// As many as `TESTING` wants, and each its own.
#[test]
fn there_are_150_probes() {
    let mut all: Vec<_> = always().chain(of_views()).collect();
    let named = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), named, "a probe is named twice");
    assert!(named >= 150, "{named} probes");
}
