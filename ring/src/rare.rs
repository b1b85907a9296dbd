//! Test-only: rare turns of the protocol by name, and how often a thread has taken each. Tests that never take one do not
//! test it, whatever else they show: `sim/tests/sim.rs` asks for all of them.

/// This turn was taken. Costs nothing in a build without the feature `mutants`.
#[inline]
pub(crate) fn met(rare: Rare) {
    #[cfg(feature = "mutants")]
    counts::add(rare);
    #[cfg(not(feature = "mutants"))]
    let _ = rare;
}

/// The same, if that is so.
#[inline]
pub(crate) fn met_if(so: bool, rare: Rare) {
    if so {
        met(rare);
    }
}

/// How often this thread has taken each since it was last asked; none in a build without the feature `mutants`.
pub fn take() -> impl Iterator<Item = (Rare, u64)> {
    #[cfg(feature = "mutants")]
    let times = counts::take();
    #[cfg(not(feature = "mutants"))]
    let times: [u64; 0] = [];
    let taken = times.into_iter().zip(Rare::ALL).filter(|(times, _)| *times > 0);
    taken.map(|(times, rare)| (*rare, times))
}

#[cfg(feature = "mutants")]
mod counts {
    extern crate std;

    use core::cell::Cell;

    use super::Rare;

    const NONE: [u64; Rare::ALL.len()] = [0; Rare::ALL.len()];

    std::thread_local! {
        static TIMES: [Cell<u64>; NONE.len()] = const { [const { Cell::new(0) }; NONE.len()] };
    }

    pub(super) fn add(rare: Rare) {
        TIMES.with(|times| times[rare as usize].update(|times| times + 1));
    }

    pub(super) fn take() -> [u64; NONE.len()] {
        TIMES.with(|times| core::array::from_fn(|i| times[i].take()))
    }
}

/// The turns: those that a cluster takes whose machines never change, and those that need views that do.
macro_rules! turns {
    (always { $(#[doc = $a:literal] $always:ident,)+ } moving { $(#[doc = $m:literal] $moving:ident,)+ }) => {
        /// A turn of the protocol that is rarely taken: the rule of PROTOCOL.md it is about, and what happens.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Rare {
            $(#[doc = $a] $always,)+
            $(#[doc = $m] $moving,)+
        }

        impl Rare {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$always,)+ $(Self::$moving,)+];

            /// True of those that need views that change.
            pub const fn is_of_views(self) -> bool {
                matches!(self, $(Self::$moving)|+)
            }

            /// What it is called.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$always => stringify!($always),)+
                    $(Self::$moving => stringify!($moving),)+
                }
            }

            /// The rule, and what happens.
            pub const fn told(self) -> &'static str {
                match self {
                    $(Self::$always => $a,)+
                    $(Self::$moving => $m,)+
                }
            }
        }
    };
}

turns! {
    always {
        /// A1: the same ballot is promised again.
        A1Again,
        /// A1: a Prepare at or below the floor is refused.
        A1BelowFloor,
        /// A1: a Prepare below the promise is refused.
        A1BelowPromise,
        /// A1: a Prepare at or below the record's ballot is refused.
        A1BelowRecord,
        /// A1: too many keys are in memory for their promises alone: the floor rises above these.
        A1PromisesDropped,
        /// A1: a promise waits for the ceiling that covers it.
        A1PromiseWaits,
        /// A2: an Accept at or below the floor is refused.
        A2BelowFloor,
        /// A2: an Accept below the promise is refused.
        A2BelowPromise,
        /// A2: the same state is accepted again.
        A2HeldAgain,
        /// A2: a later state of the same ballot is held already.
        A2HeldLater,
        /// A2: an Accept is taken whose ballot this machine never promised.
        A2Unpromised,
        /// A3: a long value is told as its length.
        A3Summary,
        /// B1: a ballot has to be above a time that the wall clock has not come to.
        B1ClockIsBehind,
        /// B2: nobody waits for an Accept any more, and the chain goes on from it.
        B2FlightForNobody,
        /// C1: a quorum tells no record: the chain begins at none.
        C1BaseNone,
        /// C1: the base of a chain is not known to be chosen.
        C1BaseUnchosen,
        /// C1: a ballot is beaten by a floor, not by a rival.
        C1BeatenByFloor,
        /// C1: an Accept is refused that five hold already.
        C1LateRefusal,
        /// C1: so many refuse an Accept that five never will hold it.
        C1LeadLost,
        /// C1: some refuse an Accept, and the others are not heard.
        C1LeadStuck,
        /// C1: a beaten coordinator hands its requests to the one who beat it.
        C1MakesWay,
        /// C1: a coordinator's own acceptor has promised a higher ballot.
        C1OwnPromiseEndsLead,
        /// C1: nobody waits for what a ballot was prepared for.
        C1PrepareForNobody,
        /// C1: so many refuse a Prepare that five never will promise.
        C1PrepareHopeless,
        /// C1: a Prepare is sent again to those not heard.
        C1PrepareSentAgain,
        /// C1: some refuse a Prepare, and the others are not heard.
        C1PrepareStuck,
        /// C1: who promises without voting for all its slots is asked again.
        C1PromiseAskedAgain,
        /// C1: a request comes while the machine rests from a duel.
        C1RestCutShort,
        /// C1: a beaten coordinator rests.
        C1Rests,
        /// C1: a refused lead ends once what is in flight has landed.
        C1RetiringLeadEnds,
        /// C1: a request goes straight to another coordinator.
        C1ToTheFavourite,
        /// C1: two promises tell of different records.
        C1TwoRecordsTold,
        /// C2: an Accept is sent again to those not heard.
        C2AcceptSentAgain,
        /// C2: five are asked whether the base is still what they hold.
        C2BaseConfirmed,
        /// C2: a later state confirms the one asked for.
        C2ConfirmedByLater,
        /// C2: who is asked to confirm a state holds another.
        C2ConfirmedByNone,
        /// C2: a later state is chosen before an earlier one is answered.
        C2LandedOutOfOrder,
        /// C2: five are asked whether a lead's last state is still what they hold.
        C2LastConfirmed,
        /// C2: who holds a later state counts for an earlier one.
        C2LaterHoldsEarlier,
        /// C2: a read is answered by a lead.
        C2ReadThroughLead,
        /// C2: a lead is superseded by a ballot that it had not heard of.
        C2Superseded,
        /// C3: several requests make one Accept.
        C3Batch,
        /// C3: as many requests as one Accept takes wait.
        C3FullBatch,
        /// C3: a request waits for an Accept to land.
        C3PipelineFull,
        /// C3: an Accept leaves before the one before it has landed.
        C3Pipelined,
        /// C4: a request's time is over while another coordinator has it.
        C4HandedExpired,
        /// C4: another coordinator gives a request back untried.
        C4HandedIsNotTried,
        /// C4: another coordinator does not answer: its requests are taken back.
        C4HandedTakenBack,
        /// C4: of a write that was sent, nobody says that nothing was changed.
        C4NotDenied,
        /// D1: the value asked for is no longer what its holder has.
        D1HolderHasAnother,
        /// D1: another holder is asked for a long value.
        D1NextHolderAsked,
        /// D1: none is left to ask for a long value.
        D1NoHolderLeft,
        /// D1: five vote for "none".
        D1None,
        /// D1: several reads share a round.
        D1SharedRound,
        /// D1: a machine's later answer tells another record.
        D1ToldAnother,
        /// D1: a read waits for the next round, since the present one may be older than it.
        D1WaitsForNextRound,
        /// D2: a read asks again those not heard.
        D2AsksTheRest,
        /// D2: five vote for a stamp, and another machine holds a higher one.
        D2SettledBelowTheHighest,
        /// D3: a read's help brings a record to five.
        D3Helped,
        /// D3: a read's help is refused.
        D3HelpRefused,
        /// D3: a read's help is not answered in time.
        D3HelpUnheard,
        /// D3: a read's help meets a later state.
        D3LaterHeld,
        /// D3: a read has heard of no record, and of "none" from too few.
        D3NothingToHelp,
        /// D4: a state is proposed that changes nothing.
        D4AcceptWithoutChange,
        /// D4: the promises alone answer.
        D4AnsweredByPromises,
        /// D4: the promises show that the base is chosen.
        D4BaseChosen,
        /// D4: too few confirm a state: it is proposed once more.
        D4ConfirmedInVain,
        /// D4: a read's copies do not settle it: a round does.
        D4ReadToCoordinator,
        /// V7: who stood still drops nobody for a while.
        DetectorJustAwake,
        /// F1: a member has lost the word of its view, and offers itself.
        F1HasLostTheWord,
        /// F1: a blank machine offers itself again.
        F1OffersTwice,
        /// F1: a blank machine is told its first view.
        F1TakenAlong,
        /// G4: a round finds a value past its expiry, and deletes it.
        G4ExpiredOnTheWay,
        /// G4: a read finds a value past its expiry.
        G4ReadFindsExpired,
        /// I1: a request drops off the list.
        I1Forgotten,
        /// I1: more than sixteen requests are listed, for they are young.
        I1YoungKept,
        /// I2: a request comes again, and was applied.
        I2Recognised,
        /// I2: a request is not later than the horizon.
        I2TooLate,
        /// I3: a retried request's failure is listed.
        I3FailureListed,
        /// I3: a request comes again, and had failed.
        I3FailureRemembered,
        /// A3: a key is wanted while it is being read.
        LoadIsShared,
        /// R3: a record cannot be read.
        R3Mute,
        /// R3: a mute machine is asked to promise.
        R3MutePrepare,
        /// R3: a mute machine is asked to tell.
        R3MuteRead,
        /// R3: a read hears a mute machine.
        R3ReaderHearsMute,
        /// R3: an Accept makes a mute machine whole.
        R3Whole,
        /// S3: something believed of a teller is wrong: it is told.
        S3ClaimWrong,
        /// S5: who has not been told of a key does not hold what is proposed.
        S5HoldsNothingYet,
        /// V4: who asks is behind all views known: it is told all.
        V4AllViewsTold,
        /// V4: another cluster's word.
        V4OtherCluster,
        /// V5: who is no member is not heard.
        V5StrangerUnheard,
    }
    moving {
        /// A1: who owns no slot of the key is asked to take part.
        A1NoOwner,
        /// A2: a state is held already, without a vote.
        A2HeldAsHearsay,
        /// A2: an owner that votes for none of its slots accepts.
        A2NoVote,
        /// C1: a promise tells a record without a vote.
        C1HearsayIsHeard,
        /// C1: the record of a machine that votes for nothing is no base.
        C1StrangerPassedOver,
        /// C4: five are not believed there: a lead is given up for a Prepare, which changes nothing.
        C4LeadGivenUpWithoutFive,
        /// C4: five are not believed there: a request stays where its outcome is known.
        C4NotHandedOver,
        /// G2: a comparison waits for a machine that tells nothing.
        CheckLacksATeller,
        /// G2: copies that were unlike are settled anew.
        CheckMended,
        /// G2: after a settling round some slot still lacks the state: the key is tried again.
        CheckNotMended,
        /// V7: a suspicion is carried over into a new view.
        DetectorDoubtOutlivesView,
        /// V7: nobody answers: a machine doubts itself first.
        DetectorDoubtsItself,
        /// V7: who was probed, or asked for it, is no member of the new view.
        DetectorForgetsAProbe,
        /// V7: a further machine gets no answer from a suspect.
        DetectorFurtherWitness,
        /// V7: no answer to a probe, and yet it spoke.
        DetectorHeardOtherwise,
        /// V7: a suspicion is refuted by the suspect's word, through others.
        DetectorHearsRefutation,
        /// V7: a rumour of silence is older than what was heard here.
        DetectorKnowsBetter,
        /// V7: a machine that is about to be dropped is looked at once more.
        DetectorLooksOnceMore,
        /// V7: none of those asked to probe it reaches a machine.
        DetectorNobodyReachesIt,
        /// V7: who overslept an answer's time waits for it once more.
        DetectorOverslept,
        /// V7: a machine is reached through another one only.
        DetectorReachedThroughAnother,
        /// V7: a machine hears that it is suspected, and refutes it.
        DetectorRefutes,
        /// V7: a machine sees that it stood still.
        DetectorStoodStill,
        /// V7: a suspect is heard.
        DetectorSuspectSpeaks,
        /// V7: a machine is down, on the word of too few.
        DetectorTooFewWitnesses,
        /// F1: one machine alone lets others in.
        F1OneGrows,
        /// F2: what was asked for before a forced view is not answered.
        F2AskedBeforeIt,
        /// F2: who was forced out speaks.
        F2ForcedOutSpeaks,
        /// F2: who is said to be lost is heard.
        F2LostIsHeard,
        /// G2: a tombstone is collected.
        G2Collected,
        /// G2: a tombstone is not voted for by all slots.
        G2NotAllVote,
        /// G2: a Collect finds another record, or none.
        G2NotHeld,
        /// G2: a tombstone is too young to be collected.
        G2TooYoung,
        /// G3: an Accept from before a collection is refused.
        G3AcceptBelowBound,
        /// G3: a lead ends, for its tombstone was collected.
        G3LeadRetires,
        /// G3: a Prepare from before a collection is refused.
        G3PrepareBelowBound,
        /// G4: a comparison finds a value past its expiry.
        G4NobodyAsks,
        /// I4: a request is not later than the bound of an absent key.
        I4TooLateForAbsent,
        /// M1: a machine has copied all that it will own.
        M1CopiedAhead,
        /// M1: a machine that was joining is dropped.
        M1JoiningDropped,
        /// M1: nothing is to be copied ahead, where each machine owns each key.
        M1OwnsAll,
        /// M1: several join in one view.
        M1SeveralJoin,
        /// M2: what was copied ahead was for another ring.
        M2AnotherRing,
        /// M2: one comes and another goes in one view.
        M2ComeAndGo,
        /// M2: a new owner has copied ahead: it syncs at once.
        M2CopiedAhead,
        /// M2: a new owner has nothing: it copies before it syncs.
        M2NothingCopied,
        /// M2: an announced ring waits for who is not warm.
        M2NotYetWarm,
        /// M2: a value is fetched from one of those who told its stamp.
        M2ValueIsFetched,
        /// M2: all are warm: the next ring becomes the ring.
        M2Warm,
        /// M3: one that has left asks whether it is still needed.
        M3AsksWhetherSettled,
        /// M3: one that has left is needed no more.
        M3Gone,
        /// M3: one that was leaving died.
        M3LeavingDied,
        /// M3: a machine has left.
        M3Left,
        /// Q2: a question of an older epoch is answered.
        Q2QuestionOfAnOlderView,
        /// Q2: one round gathers votes of two epochs.
        Q2TwoEpochs,
        /// S1: the ring stays as it is, but the machine was not synced.
        S1NotSyncedBefore,
        /// S1: the ring stays as it is, and the machine stays synced.
        S1StaysSynced,
        /// S2: a former member does not answer: others tell in its place.
        S2FormerMemberLeftOut,
        /// S2: who was left out is believed alive again.
        S2HeardAgain,
        /// S2: a member does not answer: others tell in its place.
        S2LeftOut,
        /// S2: who was left out tells after all.
        S2SpeaksAgain,
        /// S2: who was to send values is gone: all is told anew.
        S2ValuesLostOnTheWay,
        /// S3: several wait for one reading of the disk.
        S3ChunkIsShared,
        /// S3: all that is believed of a teller is right.
        S3ClaimsRight,
        /// S3: of a range that differs only what differs is told.
        S3SketchTells,
        /// S3: nothing is told of a range, for more differs than its sketch has room for.
        S3SketchTooSmall,
        /// S3: telling is asked, or told, in another view.
        S3OfAnotherView,
        /// S3: a page is asked for again while it is being made.
        S3PageInTheMaking,
        /// S3: a page was read before its teller was synced.
        S3ReadBeforeItWasSynced,
        /// S3: a teller became synced between two of its pages.
        S3SyncedSinceItTold,
        /// S4: a view is covered by a later one alone.
        S4CoveredByALaterView,
        /// S4: a sync waits for who is needed.
        S4Waits,
        /// S5: the bound rises to the bound told.
        S5BoundRises,
        /// S5: the floor rises above the ceiling, which rises with it.
        S5CeilingRises,
        /// S5: a record was told, and is gone when it is fetched.
        S5FetchedIsGone,
        /// S5: the floor rises to the ballots promised.
        S5FloorRises,
        /// S5: what a machine holds by now is newer than what it was told.
        S5OwnIsNewer,
        /// S5: what a machine holds does not count, and nobody else has it.
        S5OwnIsVoid,
        /// S5: a record that does not count is dropped.
        S5VoidDropped,
        /// S5: a record that does not count is replaced.
        S5VoidReplaced,
        /// S6: a value that is fetched is newer than what was told: hearsay.
        S6FetchedIsNewer,
        /// S6: the last who voted for a slot tells nothing.
        S6LastVoterIsSilent,
        /// S6: what a machine holds becomes a vote, or ceases to be one.
        S6OwnMadeVote,
        /// S6: a record is taken as hearsay.
        S6TakenAsHearsay,
        /// S6: a record is taken as a vote.
        S6TakenAsVote,
        /// S6: a quorum told a record as votes.
        S6ToldByAQuorum,
        /// S6: the last who voted for a slot tells of it.
        S6ToldByTheLastVoter,
        /// T1: a view is known to be settled after the next one was adopted.
        T1EarlierViewSettled,
        /// T1: a machine that is not synced is told that its view is settled.
        T1SettledBeforeItsWord,
        /// T1: a page tells that a view is settled.
        T1SettledIsTold,
        /// T1: a machine says how far it is in an older view.
        T1WordOfAnOlderView,
        /// T2: a record that is for nothing is dropped.
        T2Swept,
        /// V2: a view that was proposed is beaten by a higher ballot.
        V2AcceptBeaten,
        /// V2: a warden that has gone on answers with the view.
        V2AnsweredWithTheView,
        /// V2: a warden refuses a ballot below its promise.
        V2BelowPromise,
        /// V2: a warden had accepted another view: that one is proposed.
        V2BoundToAnother,
        /// V2: a proposal of a view is given up.
        V2GivenUp,
        /// S3: a pass goes by the roll.
        S3ByRoll,
        /// S3: a machine cannot say in its note who gained what, and is asked.
        S3NoteCannotSay,
        /// S3: a former member does not answer the roll.
        S3RollHasOneSilent,
        /// S3: who asks a warden for the roll asks again.
        S3RollAskedAgain,
        /// S3: a machine is called again.
        S3RollCalledAgain,
        /// S3: no warden is heard, and everybody is asked.
        S3RollGivenUp,
        /// S3: a roll is told without those who are not heard.
        S3RollWithoutSome,
        /// V2: a ballot for a view is beaten.
        V2PrepareBeaten,
        /// V2: a warden's promise tells what it accepted.
        V2PromiseTellsAccepted,
        /// V2: wardens that are not heard are asked again.
        V2SentAgain,
        /// V3: a view changes while an Accept is in flight.
        V3AcceptBeginsAnew,
        /// V3: a blank machine is told several views.
        V3BornIntoSeveral,
        /// V3: a view changes during a comparison.
        V3CheckEnds,
        /// V3: a view changes while a machine copies ahead.
        V3CopyAheadBeginsAnew,
        /// V3: a view changes while an owner copies.
        V3CopyBeginsAnew,
        /// V3: a view changes while another coordinator has a request.
        V3HandedComesBack,
        /// V3: a machine skips to a settled view.
        V3Jump,
        /// V3: a view changes during a Prepare.
        V3PrepareBeginsAnew,
        /// V3: a view changes during a read.
        V3ReadBeginsAnew,
        /// V3: a machine adopts several views at once.
        V3SeveralAtOnce,
        /// V3: a view changes during a sync.
        V3SyncBeginsAnew,
        /// V4: a machine hears of a later view, and asks for it.
        V4Behind,
        /// V4: a machine is told the views it lacks.
        V4MissingViewsTold,
        /// V4: who is no member of the present view speaks in an older one.
        V4NoMemberAnyMore,
        /// V5: a machine that was dropped offers itself again.
        V5OffersItselfAgain,
        /// V5: a client asks a machine that is in no view.
        V5RequestNotHere,
        /// V5: a machine is dropped while clients wait for it.
        V5WaitingNotHere,
        /// V6: a machine is dropped on an operator's word, or its successor's.
        V6DroppedOnAWish,
        /// V6: a machine offers itself, and its namesake is believed alive.
        V6NamesakeLives,
        /// V7: a machine is dropped while the view is not settled.
        V7DropsWhileUnsettled,
        /// V7: the next warden acts, since the first does not.
        V7NextWardenActs,
        /// V7: the dead stay until those who live are synced.
        V7SyncsFirst,
        /// V7: nobody is dropped while too many are missing.
        V7TooManyMissing,
        /// V7: a wish waits until the view is settled.
        V7WaitsUntilSettled,
        /// V7: a wish is still one in the next view.
        V7WishOutlivesView,
        /// V7: a wish is refused.
        V7WishRefused,
        /// V7: a view is not proposed whose wardens are not heard.
        V7WithoutFiveWardens,
    }
}
