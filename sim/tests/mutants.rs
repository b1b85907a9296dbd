//! Each rule, switched off, must be noticed: a suite that lets a mutant live does not test its rule.
//!
//! `cargo test -p ennead-sim --test mutants -- --nocapture` prints how many seeds each took, and how it showed.
//! `MUTANT=C2Early` runs one; with `KEEP=1` its world with every rule kept, which must live
//! (`KEEP=seed=99`: of that seed, the trace). Q2MixedEpochs is killed by counting votes alone, too.
#![allow(clippy::print_stdout, reason = "a table, for people")]

#[path = "mutants/directed.rs"]
mod directed;
#[path = "mutants/forced.rs"]
mod forced;
#[path = "../../ring/tests/forced/world.rs"]
mod forced_world;
#[path = "../../ring/tests/listing/world.rs"]
mod listing;
#[path = "mutants/shrunk.rs"]
mod shrunk;
#[path = "mutants/table.rs"]
mod table;

use ennead_ring::mutant::{Mutant, Rules};
use ennead_ring::{Epoch, SlotSet, Tally};
use ennead_sim::{Counters, MS, Profile, SEC, run};
use rand::rngs::StdRng;
use table::Kill;

/// Seeds that each mutant is given.
const BUDGET: u64 = 3_000;

/// True of the rules that matter only where membership changes.
fn is_of_views(mutant: Mutant) -> bool {
    use Mutant as M;
    matches!(
        mutant,
        M::V2NoQuorum
            | M::V2Forgets
            | M::V2Stale
            | M::V5Stranger
            | M::S1Unbroken
            | M::S1Moved
            | M::S4NoCover
            | M::S5Lowest
            | M::S5NoFloor
            | M::S5NoBound
            | M::S5OwnVoid
            | M::S3Late
            | M::S3NoteSilent
            | M::S5HoldsAll
            | M::S3AnyClaim
            | M::S3ClaimVotes
            | M::S3AnyRest
            | M::S6CopyIsVote
            | M::S7Early
            | M::G2Five
            | M::G2Unsynced
            | M::G2Hearsay
            | M::G3NoBound
            | M::C1Stranger
    )
}

/// The swarm's profile, bent towards where the rule matters.
fn profile(rng: &mut StdRng, mutant: Mutant) -> Profile {
    let mut p = if is_of_views(mutant) { Profile::moving(rng) } else { Profile::draw(rng) };
    match mutant {
        // Who asks goes by the roll.
        Mutant::S3NoteSilent => p.tuning.roll_above = 0,
        // A crash must fall between an answer and its sync.
        Mutant::A2Unsynced => {
            p.crash_every = 100 * MS;
            p.sync = 20 * MS;
            p.survive = 0.0;
            p.power_cut = 0.5;
        }
        // A restart, and then a ballot from before it.
        Mutant::A4NoFloor => {
            (p.machines, p.slots, p.keys) = (3, 3, 1);
            p.crash_every = 50 * MS;
            p.down_for = 20 * MS;
            p.power_cut = 0.0;
            p.delay = 5 * MS;
            p.tail = 0.3;
            p.tail_delay = 500 * MS;
            p.think = 5 * MS;
            p.stray = 1.0;
        }
        // A coarse clock, so that a proposer that dies among its Accepts finds the same instant after its restart.
        Mutant::B1BallotTwice => {
            (p.machines, p.slots, p.keys) = (5, 5, 1);
            (p.crash_every, p.power_cut, p.crash_in_handle) = (0, 0.0, 0.02);
            p.down_for = 2 * MS;
            p.tick = SEC;
            p.tuning.ceiling_ahead = 10 * MS;
            (p.skew, p.jump_every, p.client_skew, p.rot) = (0, 0, 0, 0.0);
            (p.delay, p.tail, p.tail_delay, p.drop) = (MS, 0.3, 200 * MS, 0.1);
            (p.sync, p.slow_sync) = (MS, 0.0);
            (p.think, p.patience, p.deadline) = (5 * MS, 50 * MS, 200 * MS);
            (p.clients, p.calls, p.stray) = (6, 40, 1.0);
        }
        Mutant::I2NoHorizon => {
            p.keys = 1;
            p.clients = 6;
            p.calls = 120;
            p.think = MS;
            p.tail = 0.2;
            p.tail_delay = 5 * SEC;
            p.client_skew = 120 * SEC;
        }
        // Promises that only a crash can lose: the ceiling is always late, and machines die all the time.
        Mutant::A1Unsynced => {
            (p.machines, p.slots, p.keys) = (3, 3, 1);
            p.tuning.ceiling_ahead = 2;
            (p.sync, p.slow_sync, p.slow_sync_for) = (10 * MS, 0.3, 100 * MS);
            (p.crash_every, p.crash_in_handle, p.down_for, p.survive) = (0, 0.05, 2 * MS, 0.0);
            (p.clients, p.calls, p.deadline) = (6, 60, SEC);
            (p.tail, p.tail_delay, p.stray) = (0.3, 300 * MS, 1.0);
            (p.skew, p.tick, p.rot, p.think) = (0, 1, 0.0, 5 * MS);
        }
        // Many keys, room for few.
        Mutant::A1Evicted => {
            (p.machines, p.slots, p.keys, p.clients) = (3, 3, 5, 6);
            p.tuning.cells = 2;
            (p.tail, p.tail_delay, p.stray, p.drop) = (0.3, 300 * MS, 1.0, 0.2);
            (p.think, p.calls) = (5 * MS, 100);
        }
        Mutant::A3Unsynced => {
            (p.machines, p.slots, p.keys, p.clients) = (3, 3, 5, 6);
            p.tuning.cells = 2;
            (p.sync, p.slow_sync, p.slow_sync_for, p.load) = (20 * MS, 0.3, 300 * MS, 10_000);
            (p.crash_every, p.down_for, p.survive, p.power_cut) = (100 * MS, 10 * MS, 0.0, 0.5);
            (p.think, p.stray, p.rot) = (5 * MS, 1.0, 0.0);
        }
        // Leases that are compared with.
        Mutant::I5Version => {
            (p.counters, p.touches, p.compares) = (Counters::None, 30, 40);
        }
        // Counters, and clients that ask twice.
        Mutant::I6Now => counting(&mut p),
        Mutant::I3Failure => {
            (p.keys, p.compares, p.deletes, p.clients) = (1, 70, 30, 6);
            (p.tail, p.tail_delay, p.stray) = (0.3, SEC, 0.5);
            (p.patience, p.deadline, p.think) = (30 * MS, 5 * SEC, 10 * MS);
        }
        // Reads that help while the chain goes on.
        Mutant::D3Later => {
            (p.machines, p.slots, p.keys, p.clients, p.calls) = (3, 3, 1, 6, 100);
            (p.reads, p.direct_reads, p.stray, p.think) = (50, 0, 0.7, 5 * MS);
            (p.tail, p.tail_delay, p.drop) = (0.3, 200 * MS, 0.1);
            (p.tuning.resend_after, p.patience) = (10 * MS, 300 * MS);
        }
        // Coordinators that beat one another, and clients without patience.
        Mutant::C4Denied => {
            (p.machines, p.slots, p.keys) = (3, 3, 1);
            (p.clients, p.stray, p.think) = (6, 1.0, 5 * MS);
            p.deadline = p.patience;
        }
        Mutant::V4Cluster => p.forge = 0.1,
        // Wardens that cannot hear one another, and much to decide.
        Mutant::V2NoQuorum | Mutant::V2Forgets | Mutant::V2Stale => {
            (p.founders, p.machines, p.slots, p.fewest) = (3, 8, 9, 2);
            (p.join_every, p.leave_every, p.together) = (500 * MS, SEC, 0.0);
            (p.wipe_every, p.die_every, p.freeze_every) = (0, 0, 2 * SEC);
            (p.cut_every, p.cut_for, p.split_every) = (300 * MS, 2 * SEC, 0);
            (p.crash_every, p.down_for, p.power_cut) = (300 * MS, 100 * MS, 0.0);
            (p.tuning.probe_every, p.tuning.down_after) = (50 * MS, 200 * MS);
            (p.tail, p.tail_delay, p.drop) = (0.2, 3 * SEC, 0.2);
            (p.clients, p.calls) = (1, 20);
        }
        // Keys that are collected, and machines that bring back what they held before.
        Mutant::C1Stranger | Mutant::S5OwnVoid | Mutant::G2Five => {
            (p.founders, p.machines, p.slots, p.keys, p.fewest) = (3, 6, 9, 1, 3);
            (p.join_every, p.leave_every, p.wipe_every, p.die_every) = (SEC, 1_500 * MS, SEC, 0);
            (p.restore, p.rot, p.drop) = (1.0, 0.0, 0.1);
            (p.tuning.check_every, p.tuning.collect_after) = (200 * MS, 50 * MS);
            (p.clients, p.calls, p.think, p.deletes, p.stray) = (4, 150, 100 * MS, 40, 0.5);
            (p.skew, p.jump_every, p.tick) = (0, 0, 1);
        }
        // Keys that are collected by machines whose own disks are slow, and that lose power meanwhile.
        Mutant::G2Unsynced => {
            (p.founders, p.machines, p.slots, p.keys, p.fewest) = (5, 5, 5, 1, 5);
            (p.join_every, p.leave_every, p.wipe_every, p.die_every) = (0, 0, 0, 0);
            (p.freeze_every, p.split_every, p.place_every, p.cut_every, p.drop) = (0, 0, 0, 0, 0.0);
            (p.disaster_every, p.zone_every, p.pause_every, p.tail) = (0, 0, 0, 0.0);
            (p.tuning.check_every, p.tuning.collect_after) = (100 * MS, 20 * MS);
            (p.sync, p.slow_sync, p.slow_sync_for) = (5 * MS, 0.4, 2 * SEC);
            (p.crash_every, p.down_for, p.power_cut, p.survive) = (200 * MS, 50 * MS, 0.0, 0.0);
            (p.clients, p.calls, p.think, p.deletes, p.reads) = (2, 150, 100 * MS, 50, 20);
            (p.compares, p.direct_reads, p.gives_up, p.rot, p.ttl) = (0, 0, 0.0, 0.0, 0.0);
            (p.skew, p.jump_every, p.tick, p.counters) = (0, 0, 1, Counters::None);
        }
        // States that few hold when the few others change.
        Mutant::S6CopyIsVote | Mutant::S5NoFloor => {
            (p.founders, p.machines, p.slots, p.keys, p.fewest) = (3, 6, 3, 1, 2);
            (p.join_every, p.leave_every, p.wipe_every, p.die_every) = (SEC, SEC, SEC, 0);
            (p.clients, p.calls, p.think, p.stray) = (6, 200, 20 * MS, 1.0);
            (p.deletes, p.compares, p.reads, p.direct_reads) = (5, 30, 20, 30);
            (p.tail, p.tail_delay, p.drop) = (0.3, 500 * MS, 0.2);
            (p.freeze_every, p.split_every, p.cut_every) = (0, 0, 0);
            (p.skew, p.jump_every, p.tick) = (0, 0, 1);
        }
        // Members that stay, and whose slots do not.
        Mutant::S1Moved => {
            (p.founders, p.machines, p.fewest, p.keys) = (5, 5, 5, 2);
            (p.place_every, p.zones, p.zone_every) = (500 * MS, 1, 0);
            (p.join_every, p.leave_every, p.wipe_every, p.die_every) = (0, 0, 0, 0);
            (p.clients, p.calls, p.think, p.stray) = (4, 150, 50 * MS, 0.5);
        }
        Mutant::R3Blind => {
            p.rot = 0.5;
            p.crash_every = 100 * MS;
            p.down_for = 50 * MS;
        }
        Mutant::G1NoTombstone => p.deletes = 30,
        Mutant::F1TellFirst => {
            p.dirty_birth = true;
            p.crash_every = 50 * MS;
            p.crash_in_handle = 0.05;
            p.sync = 20 * MS;
            p.survive = 0.0;
            p.machines = 3;
            p.slots = 3;
        }
        _ => {}
    }
    p
}

/// All keys are counted up, and most requests come more than once.
fn counting(p: &mut Profile) {
    (p.counters, p.touches, p.disaster_every) = (Counters::All, 0, 0);
    (p.keys, p.clients, p.calls, p.reads, p.direct_reads) = (1, 5, 40, 10, 10);
    (p.tail, p.tail_delay, p.stray) = (0.3, SEC, 0.5);
    (p.patience, p.deadline, p.think) = (30 * MS, 5 * SEC, 10 * MS);
}

/// I2: what each incr was counted for.
#[test]
fn an_incr_that_is_counted_twice_is_noticed() {
    let world = |rng: &mut StdRng, broken| {
        let mut p = Profile { rules: Rules::without(broken), ..Profile::draw(rng) };
        counting(&mut p);
        p
    };
    let twice = Some(Mutant::I2NoDedup);
    let failure = (0..20).find_map(|seed| run(seed, |rng| world(rng, twice), false).err());
    let what = failure.expect("20 seeds, and nobody noticed").what;
    assert!(what.contains("claim 1"), "{what}");
    for seed in 0..20 {
        let kept = run(seed, |rng| world(rng, None), false);
        assert!(kept.is_ok(), "seed {seed}: {:?}", kept.err().map(|failure| failure.what));
    }
}

/// Rules driven by hand, and the mutants that they kill.
type Directed = (Mutant, fn(Rules) -> Option<String>);
const DIRECTED: [Directed; 19] = [
    (Mutant::V2Forgets, directed::a_restarted_warden_remembers),
    (Mutant::V2Stale, directed::a_warden_that_went_on_answers_with_the_view),
    (Mutant::S6CopyIsVote, directed::a_copy_is_no_vote),
    (Mutant::S3Late, directed::a_page_is_worth_the_account_it_was_read_under),
    (Mutant::S3RollUnsynced, directed::who_was_not_synced_asks_everybody),
    (Mutant::S3NoteUnsynced, directed::who_was_not_synced_cannot_note),
    (Mutant::S5HoldsAll, directed::who_is_not_told_holds_nothing),
    (Mutant::F2Late, forced::what_was_asked_for_before_is_refused),
    (Mutant::F2Returns, forced::who_was_named_falls_silent),
    (Mutant::F2Alone, forced::all_who_stay_agree),
    (Mutant::F2Blind, forced::a_forced_view_that_may_be_out_there_is_finished_first),
    (Mutant::F2Waits, forced::nobody_waits_for_the_named),
    (Mutant::F2Covers, forced::the_named_make_up_for_nobody),
    (Mutant::R2Stale, forced::who_forgot_a_settled_view_takes_no_part),
    (Mutant::V3Unlawful, forced::no_view_is_adopted_that_cannot_be),
    (Mutant::L1Late, listing::a_page_is_worth_what_the_machine_was),
    (Mutant::L2Few, listing::four_of_nine_do_not_tell_a_range),
    (Mutant::L2Unsynced, listing::who_is_not_synced_tells_nothing),
    (Mutant::L4Mixed, listing::views_are_not_mixed),
];

#[test]
fn rules_driven_by_hand_are_kept() {
    for (mutant, rule) in DIRECTED {
        assert_eq!(rule(Rules::default()), None, "{mutant:?}'s rule");
    }
}

/// How it shows.
fn hunt(mutant: Mutant) -> Option<Kill> {
    let begun = std::time::Instant::now();
    let kill = |seeds, failed, what| Kill { seeds, failed, what, wall: begun.elapsed().as_secs_f64() };
    if let Some((_, rule)) = DIRECTED.iter().find(|(of, _)| *of == mutant) {
        return rule(Rules::without(Some(mutant))).map(|what| kill(0, None, what));
    }
    if mutant == Mutant::Q2MixedEpochs {
        return mixed_epochs_are_noticed().map(|what| kill(0, None, what));
    }
    let run = |seed, broken| {
        let profile = |rng: &mut StdRng| Profile { rules: Rules::without(broken), ..profile(rng, mutant) };
        run(seed, profile, false).err().map(|failure| (failure.at, failure.what))
    };
    if let Ok(kept) = std::env::var("KEEP") {
        if let Some(seed) = kept.strip_prefix("seed=").and_then(|seed| seed.parse().ok()) {
            return told(seed, mutant).map(|what| kill(1, None, what));
        }
        let failed = (0..BUDGET).find_map(|seed| Some((seed, run(seed, None)?)));
        return failed.map(|(seed, (at, what))| kill(seed + 1, Some((seed, at)), what));
    }
    for seed in 0..BUDGET {
        let Some((at, what)) = run(seed, Some(mutant)) else { continue };
        // It is the mutant that fails, not the world that was made for it.
        if let Some((_, what)) = run(seed, None) {
            panic!("seed {seed} of {mutant:?} fails with every rule kept: {what}");
        }
        return Some(kill(seed + 1, Some((seed, at)), what));
    }
    None
}

/// One seed of a mutant's world with every rule kept, and its trace.
fn told(seed: u64, mutant: Mutant) -> Option<String> {
    let failure = run(seed, |rng| profile(rng, mutant), true).err()?;
    for line in &failure.trace {
        println!("{line}");
    }
    Some(failure.what)
}

/// Two views' owners can be disjoint: four votes in each must not make five.
fn mixed_epochs_are_noticed() -> Option<String> {
    let mut tally = Tally::new(Rules::without(Some(Mutant::Q2MixedEpochs)));
    tally.add(Epoch::FIRST, SlotSet::from_iter([1, 2, 3, 4]));
    tally.add(Epoch { number: 2, ..Epoch::FIRST }, SlotSet::from_iter([5, 6, 7, 8]));
    tally.reached(9).then(|| "four and four votes of two epochs were a quorum (tests/quorum.rs)".to_string())
}

#[test]
fn every_mutant_is_killed() {
    let only = std::env::var("MUTANT").ok();
    // Panics are how some of them die: no need to print each.
    std::panic::set_hook(Box::new(|_| {}));
    let (mut alive, mut kills) = (Vec::new(), Vec::new());
    for &mutant in Mutant::ALL {
        let name = format!("{mutant:?}");
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        match hunt(mutant) {
            Some(kill) => {
                let short: String = kill.what.chars().take(110).collect();
                println!("{name:15} {:5} seeds {:6.2} s  {short}", kill.seeds, kill.wall);
                kills.push((mutant, kill));
            }
            None => {
                println!("{name:15} alive after {BUDGET} seeds");
                alive.push(name);
            }
        }
    }
    let _ = std::panic::take_hook();
    assert!(alive.is_empty(), "nobody noticed: {alive:?}");
    if std::env::var("MUTANTS").is_ok_and(|wish| wish == "write") {
        table::write(&kills);
    }
}
