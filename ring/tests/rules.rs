//! The rules of views, sync, moves, collection and birth (PROTOCOL sections 3, 6, 9 to 12), one by one.
//!
//! The simulator walks all of them under faults; these tests read as the page does, each named after its rule. At the
//! end, mutants are put to them.

#[path = "rules/comparison.rs"]
mod comparison;
#[path = "rules/deletion.rs"]
mod deletion;
#[path = "rules/moves.rs"]
mod moves;
#[path = "rules/places.rs"]
mod places;
#[path = "rules/stage.rs"]
mod stage;
#[path = "rules/sync.rs"]
mod sync;
#[path = "rules/views.rs"]
mod views;

use ennead_ring::mutant::Mutant;

/// A rule's test, as a function.
type Test = (&'static str, fn());

/// True if the test fails where the machines break this rule.
fn notices(test: Test, mutant: Mutant) -> bool {
    stage::BROKEN.set(Some(mutant));
    let failed = std::panic::catch_unwind(test.1).is_err();
    stage::BROKEN.set(None);
    failed
}

macro_rules! tests {
    ($($module:ident::$name:ident),* $(,)?) => { &[$((stringify!($name), $module::$name as fn())),*] };
}

/// Each rule of these sections that can be switched off, and the tests that notice.
const NOTICED: &[(Mutant, &[Test])] = &[
    (Mutant::V2NoQuorum, tests![views::v2_a_view_is_decided_by_five_warden_slots_and_by_no_fewer]),
    (Mutant::V2Forgets, tests![views::v2_a_restarted_warden_remembers_what_it_promised_and_accepted]),
    (Mutant::V2Stale, tests![views::v2_a_warden_that_has_adopted_the_next_view_answers_with_it]),
    (Mutant::V4Cluster, tests![views::v4_another_clusters_word_is_refused]),
    (Mutant::V5Stranger, tests![views::v5_only_members_take_part_in_rounds]),
    (
        Mutant::F1TellFirst,
        tests![
            views::v3_a_view_is_durable_before_its_machine_speaks_at_the_new_epoch,
            moves::f1_view_1_is_durable_at_the_initiator_before_it_is_told,
        ],
    ),
    (Mutant::S1Unbroken, tests![sync::s1_ownership_that_was_broken_even_for_one_epoch_is_not_synced]),
    (
        Mutant::S1Moved,
        tests![places::s1_slots_that_move_between_machines_that_stay_are_silent_until_they_are_synced],
    ),
    (Mutant::S3AnyClaim, tests![sync::s3_what_is_believed_and_wrong_is_told_as_it_is]),
    (Mutant::S3ClaimVotes, tests![sync::s3_what_is_believed_and_wrong_is_told_as_it_is]),
    (Mutant::S3AnyRest, tests![sync::s3_what_is_not_listed_is_proven]),
    (Mutant::S4NoCover, tests![sync::s4_waits_while_five_are_missing]),
    (Mutant::S5Lowest, tests![sync::s5_takes_the_highest_stamped_record_of_those_who_voted]),
    (Mutant::S5NoFloor, tests![sync::s5_the_floor_rises_to_the_highest_ballot_promised]),
    (Mutant::S5NoBound, tests![sync::s5_the_bound_rises_to_the_highest_bound_told]),
    (Mutant::S5OwnVoid, tests![sync::s5_own_record_from_before_the_last_settled_view_is_void]),
    (
        Mutant::S6CopyIsVote,
        tests![
            sync::s6a_a_copy_is_a_vote_only_for_slots_whose_last_voter_told_it_as_one,
            sync::s6a_every_later_owner_must_have_told_that_it_never_voted,
            sync::s6b_five_votes_told_make_it_a_vote_and_four_do_not,
        ],
    ),
    (Mutant::S7Early, tests![sync::s7_votes_only_once_record_floor_and_the_mark_are_durable]),
    (Mutant::G2Five, tests![deletion::g2_not_before_all_nine_slots_vote]),
    (Mutant::G2Hearsay, tests![deletion::g2_not_before_all_nine_slots_vote]),
    (Mutant::G2Unsynced, tests![deletion::g2_not_before_the_collectors_own_vote_is_durable]),
    (
        Mutant::G3NoBound,
        tests![
            deletion::g3_the_bound_refuses_late_ballots_for_keys_without_a_record,
            deletion::g3_a_keys_version_never_falls,
            deletion::g2_whoever_is_told_to_collect_notes_that_the_view_is_settled_and_raises_the_bound_first,
        ],
    ),
    (Mutant::R3Blind, tests![deletion::r3_an_unreadable_record_makes_the_machine_mute_for_its_key]),
];

#[test]
fn every_rule_that_is_switched_off_is_noticed_by_its_tests() {
    let asleep = NOTICED.iter().flat_map(|(mutant, tests)| {
        tests
            .iter()
            .filter(|test| !notices(**test, *mutant))
            .map(move |test| format!("{mutant:?}: {}", test.0))
    });
    let asleep: Vec<String> = asleep.collect();
    assert!(asleep.is_empty(), "these notice nothing: {asleep:#?}");
}
