//! Test-only: rules that can be switched off, to show that the tests notice.

/// The rules that whoever holds this keeps: all of them, in a build without the feature `mutants`, where
/// this takes no room and every question about it is answered at compile time.
#[derive(Clone, Copy, Default, Debug)]
pub struct Rules {
    #[cfg(feature = "mutants")]
    broken: Option<Mutant>,
}

impl Rules {
    /// All but one.
    #[cfg(feature = "mutants")]
    pub const fn without(broken: Option<Mutant>) -> Self {
        Self { broken }
    }

    /// True if a test has switched this rule off.
    #[inline]
    pub(crate) fn broken(self, mutant: Mutant) -> bool {
        #[cfg(feature = "mutants")]
        let broken = self.broken == Some(mutant);
        #[cfg(not(feature = "mutants"))]
        let broken = {
            let _ = mutant;
            false
        };
        broken
    }
}

/// A rule of PROTOCOL.md, broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// Q2: votes of different epochs are added up.
    Q2MixedEpochs,
    /// Q2: four of nine are a quorum.
    Q2Four,
    /// A1: a Prepare below the promise is promised.
    A1LowPromise,
    /// A2: an Accept below the promise is accepted.
    A2LowAccept,
    /// A2: answers "held" before it is on disk.
    A2Unsynced,
    /// B1: the process forgets its ceiling, and may use a ballot twice.
    B1BallotTwice,
    /// B2: a further state is computed from the one before the last.
    B2Fork,
    /// C1: the base is the first promise's record, not the highest.
    C1AnyBase,
    /// C2: an answer leaves before its state is chosen.
    C2Early,
    /// C2: a failed comparison is answered from the lead, without asking anyone.
    C2StaleCompare,
    /// D3: a read answers with the highest record seen, without helping it to five.
    D3NoHelp,
    /// D1: a read is content with four equal answers.
    D1Four,
    /// I2: requests are not recognised when they come again.
    I2NoDedup,
    /// I2: the horizon is ignored: forgotten requests are applied again.
    I2NoHorizon,
    /// A4: after a restart the floor stays where it was.
    A4NoFloor,
    /// R3: an unreadable record is taken for none.
    R3Blind,
    /// G1: a delete forgets the record instead of writing a tombstone.
    G1NoTombstone,
    /// F1: view 1 is told before it is durable.
    F1TellFirst,
    /// A1: promises before the ceiling that covers the promise is on disk.
    A1Unsynced,
    /// A1: a promise is forgotten when its key is dropped from memory.
    A1Evicted,
    /// A3: tells a record that was read back before it was durable.
    A3Unsynced,
    /// C4: says that nothing was changed of a write that was sent.
    C4Denied,
    /// D3: a helper counts those who hold a later state, and answers with the earlier one.
    D3Later,
    /// I3: the failure of a retried request is not remembered.
    I3Failure,
    /// V4: obeys messages of another cluster.
    V4Cluster,
    /// V2: a view is decided by a minority of the wardens.
    V2NoQuorum,
    /// V2: a restarted warden has forgotten what it accepted.
    V2Forgets,
    /// V2: a warden answers about a decree that it has passed.
    V2Stale,
    /// V5: a machine that is no member takes part in rounds.
    V5Stranger,
    /// S1: ownership that was broken counts as synced again.
    S1Unbroken,
    /// S4: a slot is synced from whoever tells, covered or not.
    S4NoCover,
    /// S5: the lowest-stamped record told is taken.
    S5Lowest,
    /// S5: the floor does not rise to the ballot promised.
    S5NoFloor,
    /// S5: the bound does not rise to the bound told.
    S5NoBound,
    /// S5: what a machine holds from before the last settled view counts.
    S5OwnVoid,
    /// S3: a machine that has become synced tells what it held before as if it had been.
    S3Late,
    /// S3: a note for the roll names nobody.
    S3NoteSilent,
    /// S3: a machine that was not synced throughout notes as if it had been.
    S3NoteUnsynced,
    /// S3: who was not synced in the view before goes by the roll, too.
    S3RollUnsynced,
    /// S3: whatever is claimed of what a machine holds is taken to be right.
    S3AnyClaim,
    /// S3: a digest says nothing of votes.
    S3ClaimVotes,
    /// S3: what is not listed of a range that differs is taken to be right.
    S3AnyRest,
    /// S5: an owner holds what is proposed before it has been told of the key.
    S5HoldsAll,
    /// S6: every record taken is a vote.
    S6CopyIsVote,
    /// S7: votes before what it took is durable.
    S7Early,
    /// G2: a tombstone that five slots hold is collected.
    G2Five,
    /// G2: holders count, whether they voted or not.
    G2Hearsay,
    /// G2: of whoever collects it counts what is not on disk yet.
    G2Unsynced,
    /// G3: a tombstone is dropped and leaves no bound.
    G3NoBound,
    /// C1: the record of a machine that votes for nothing is a base.
    C1Stranger,
    /// F2: after a forced view, what was asked for before it is answered.
    F2Late,
    /// F2: who was forced out goes on under its incarnation.
    F2Returns,
    /// F2: a forced view is adopted when one who stays agrees.
    F2Alone,
    /// F2: what another operator forced, and somebody accepted, is passed over.
    F2Blind,
    /// F2: a lost machine's silence is waited for, as if it could still tell.
    F2Waits,
    /// F2: the named make up for others that are silent.
    F2Covers,
    /// R2: a machine whose disk is older than its word goes on.
    R2Stale,
    /// V3: a view is adopted that no decree can have made of the one before.
    V3Unlawful,
    /// I5: a touch makes a new version.
    I5Version,
    /// I6: a retry is told what the counter is now, not what it gave.
    I6Now,
    /// L1: a page is told as of now, whatever the machine was when its records were read.
    L1Late,
    /// L2: a range counts as told with one machine fewer than are needed.
    L2Few,
    /// L2: a machine that is not synced counts among those who told.
    L2Unsynced,
    /// L4: what was told in an earlier view is counted in this one.
    L4Mixed,
    /// S1: where slots move only between machines that stay, each counts as synced for what it gains.
    S1Moved,
}

impl Mutant {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Q2MixedEpochs,
        Self::Q2Four,
        Self::A1LowPromise,
        Self::A2LowAccept,
        Self::A2Unsynced,
        Self::B1BallotTwice,
        Self::B2Fork,
        Self::C1AnyBase,
        Self::C2Early,
        Self::C2StaleCompare,
        Self::D3NoHelp,
        Self::D1Four,
        Self::I2NoDedup,
        Self::I2NoHorizon,
        Self::A4NoFloor,
        Self::R3Blind,
        Self::G1NoTombstone,
        Self::F1TellFirst,
        Self::A1Unsynced,
        Self::A1Evicted,
        Self::A3Unsynced,
        Self::C4Denied,
        Self::D3Later,
        Self::I3Failure,
        Self::V4Cluster,
        Self::V2NoQuorum,
        Self::V2Forgets,
        Self::V2Stale,
        Self::V5Stranger,
        Self::S1Unbroken,
        Self::S4NoCover,
        Self::S5Lowest,
        Self::S5NoFloor,
        Self::S5NoBound,
        Self::S5OwnVoid,
        Self::S3Late,
        Self::S3NoteSilent,
        Self::S3NoteUnsynced,
        Self::S3RollUnsynced,
        Self::S3AnyClaim,
        Self::S3ClaimVotes,
        Self::S3AnyRest,
        Self::S5HoldsAll,
        Self::S6CopyIsVote,
        Self::S7Early,
        Self::G2Five,
        Self::G2Hearsay,
        Self::G2Unsynced,
        Self::G3NoBound,
        Self::C1Stranger,
        Self::F2Late,
        Self::F2Returns,
        Self::F2Alone,
        Self::F2Blind,
        Self::F2Waits,
        Self::F2Covers,
        Self::R2Stale,
        Self::V3Unlawful,
        Self::I5Version,
        Self::I6Now,
        Self::L1Late,
        Self::L2Few,
        Self::L2Unsynced,
        Self::L4Mixed,
        Self::S1Moved,
    ];
}
