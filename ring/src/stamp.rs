//! Ballots and stamps: the order of versions, and what a record is made of.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use bincode::de::Decoder;
use bincode::error::DecodeError;
use bincode::{Decode, Encode};

use crate::quorum::SlotSet;
use crate::view::Incarnation;

/// A reading of a hybrid logical clock: nanoseconds since 1970, never behind the wall clock nor behind any
/// reading seen in a message or on disk. It orders; it is never trusted to be right (PROTOCOL section 1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode)]
pub struct Hlc(u64);

impl Hlc {
    /// Before every reading.
    pub const ZERO: Self = Self(0);
    /// The last reading there is, in the year 2262. A message with a later one is malformed.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// The reading at so many nanoseconds since 1970; the last one for anything later.
    pub const fn from_nanos(nanos: u64) -> Self {
        if nanos > Self::MAX.0 { Self::MAX } else { Self(nanos) }
    }

    /// Nanoseconds since 1970.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// This much later, or the last reading.
    pub const fn plus(self, nanos: u64) -> Self {
        Self::from_nanos(self.0.saturating_add(nanos))
    }

    /// The next reading; `None` at the end of time.
    pub const fn next(self) -> Option<Self> {
        if self.0 == Self::MAX.0 { None } else { Some(Self(self.0 + 1)) }
    }
}

impl<Context> Decode<Context> for Hlc {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        match u64::decode(decoder)? {
            nanos if nanos <= Self::MAX.0 => Ok(Self(nanos)),
            _ => Err(DecodeError::Other("a clock reading past the year 2262")),
        }
    }
}
bincode::impl_borrow_decode!(Hlc);

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A proposer's ticket to change a key. Ordered by time, then by proposer; never used twice (B1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct Ballot {
    /// When, by the proposer's hybrid clock.
    pub time: Hlc,
    /// The machine that proposes.
    pub by: Incarnation,
}

impl Ballot {
    /// Below every ballot a proposer can take.
    pub const ZERO: Self = Self { time: Hlc::ZERO, by: Incarnation::NONE };
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.time, self.by)
    }
}

impl fmt::Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The name of one state of a key: the ballot it was proposed under and its number in that ballot's chain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct Stamp {
    /// The ballot it was proposed under.
    pub ballot: Ballot,
    /// 1 for the first state proposed under the ballot, and so on (B2).
    pub n: u32,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.ballot, self.n)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What a client calls one request, so that it can be sent again and is applied at most once (I1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct RequestId {
    /// When it was made, by the client's clock.
    pub time: Hlc,
    /// Tells it from others of the same instant.
    pub random: u64,
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.random)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.time, self.random)
    }
}

/// A request that a state remembers having applied, and what came of it (I2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Applied {
    /// The request.
    pub id: RequestId,
    /// What came of it.
    pub came: Came,
}

/// What came of a request that a state remembers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Came {
    /// It made this version.
    Version(u64),
    /// Its comparison failed: the key had this version, or no value.
    Mismatch(Option<u64>),
    /// There was nothing to delete, or to touch.
    Absent,
    /// I6: it made this version, and the counter became this number.
    Counted {
        /// The version it made.
        version: u64,
        /// The number it gave.
        value: i64,
    },
    /// I6: this version could not be counted up.
    Uncountable {
        /// The version the key had.
        version: u64,
        /// Why.
        why: Uncountable,
    },
}

/// Why a value cannot be counted up (I6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Uncountable {
    /// It is no whole number in decimal text, or one outside an i64.
    NotANumber,
    /// The sum would be outside an i64.
    TooLarge,
}

/// What a key is at one stamp.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct State {
    /// Counts the changes of the key's life, deletes included: what users compare and fence with.
    /// Settling a state under a new stamp does not change it.
    pub version: u64,
    /// The value; `None` is a tombstone (G1), or the absent state before any write.
    pub value: Option<Arc<[u8]>>,
    /// When the value expires, by whoever looks (G4).
    pub expires: Option<Hlc>,
    /// The last requests applied, oldest first (I1).
    pub recent: Vec<Applied>,
    /// The latest time of any request that has dropped off `recent` (I1).
    pub horizon: Hlc,
}

/// What a machine holds for a key.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Record {
    /// Which state of the key.
    pub stamp: Stamp,
    /// That state.
    pub state: Arc<State>,
    /// The slots on whose behalf this machine accepted the stamp; without a vote a record is hearsay.
    pub votes: SlotSet,
}
