//! What one machine can say of another, or of itself: what it has met, heard and tried.

use bincode::{Decode, Encode};
use ennead_ring::view::Name;
use serde::{Deserialize, Serialize};

use super::Word;
use crate::status::PeerState;

/// What one machine can say of another, or of itself. Times are ages, in milliseconds: no two clocks agree.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Testimony {
    /// Who speaks.
    pub by: Name,
    /// Its clock when it said this, in milliseconds since 1970.
    pub wall_ms: u64,
    /// What it says of itself, where it was asked about itself.
    pub own: Option<Own>,
    /// What it has seen of the machine asked about. Of itself: nothing, but for its `unwell` while its disk is full.
    pub seen: Option<Seen>,
}

/// What a machine says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Own {
    /// This run of the program.
    pub run: u64,
    /// Since it began.
    pub uptime_ms: u64,
    /// Version of the program.
    pub version: String,
    /// How long its disk takes for an fsync while that is not well; else 0.
    pub stalled_ms: u32,
    /// How busy it is, in percent.
    pub load: u8,
    /// Requests that it refused lately, for want of room.
    pub refused: u64,
    /// Since when the disk or the load is as it is.
    pub unwell_ms: u64,
    /// The run before this one, as the data directory tells.
    pub before: Option<Before>,
    /// What happened to it and is over, newest first: the last few.
    pub past: Vec<Happened>,
}

/// Something that happened to a machine and is over, as it tells itself. Times are milliseconds since 1970 by its own
/// clock: they are kept over its runs.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize, Deserialize)]
pub struct Happened {
    /// In a word.
    pub word: Word,
    /// When it began.
    pub from_ms: u64,
    /// When it was over.
    pub until_ms: u64,
    /// In which run of the program.
    pub run: u64,
    /// In a sentence, in which the machine is "it".
    pub what: String,
}

/// A run that is over.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Before {
    /// Which.
    pub run: u64,
    /// Version of the program.
    pub version: String,
    /// How it ended; nothing if it said nothing: then it was killed.
    pub ended: Option<Ended>,
}

/// An orderly end.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Ended {
    /// Why.
    pub reason: String,
    /// True if it could not go on.
    pub failed: bool,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// How far off a machine's clock is to another's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Offset {
    /// Milliseconds by which it is ahead, or behind.
    pub ms: i64,
    /// How long ago that was found.
    pub ago_ms: u64,
    /// For how long it has been far off, if it is.
    pub far_ms: Option<u64>,
}

/// A silence that is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Silence {
    /// For how long it lasted.
    pub for_ms: u64,
    /// How long ago it was over.
    pub ago_ms: u64,
    /// Which run of the program fell silent.
    pub run: u64,
    /// What the first knock in it said.
    pub knock: Option<Knock>,
}

/// What one machine has seen of another.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Seen {
    /// What its failure detector says.
    pub state: PeerState,
    /// Since the first probe that was not answered; 0 while it is up.
    pub silent_ms: u64,
    /// Whose probes were not answered: the first few.
    pub by: Vec<Name>,
    /// Since it was last heard.
    pub heard_ms: Option<u64>,
    /// The last run of it that was met, and the one before.
    pub runs: Vec<Met>,
    /// Since when there is no connection, though one is wanted.
    pub lost_ms: Option<u64>,
    /// How the last connection ended, or the last dial failed, since it was last met.
    pub end: Option<Ending>,
    /// Its word of farewell, since it was last met.
    pub farewell: Option<Ending>,
    /// What the last knocks said, since it was last met.
    pub knock: Option<Knock>,
    /// Its last silence.
    pub silence: Option<Silence>,
    /// What its clock says.
    pub clock: Option<Offset>,
    /// Its own word that it is not well: of fsync milliseconds, load, and for how long. No milliseconds: its disk is full.
    pub unwell: Option<(u32, u8, u64)>,
    /// The crash report that it sent with its last words, as JSON.
    pub last_words: Option<String>,
    /// It is no member any more: whether it went as it had been asked to, and how long ago.
    pub gone: Option<(bool, u64)>,
}

/// A run of a machine's program, as its hello told it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Met {
    /// Which run.
    pub run: u64,
    /// Version of the program.
    pub version: String,
    /// How long ago it was first met.
    pub ago_ms: u64,
    /// True if the run said farewell.
    pub farewell: bool,
}

/// How a connection ended, or why there was none.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Ending {
    /// What kind of an end.
    pub kind: EndKind,
    /// In words.
    pub text: String,
    /// How long ago.
    pub ago_ms: u64,
}

/// Kinds of ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum EndKind {
    /// The process said that it ends.
    Farewell,
    /// The other end answered, and not as a member of this cluster and version would.
    Incompatible,
    /// Nothing came back.
    Silence,
    /// Something else.
    Other,
}

/// What became of a datagram to a port of the machine's, and to ports nobody listens at on the same host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Knock {
    /// At its own port.
    pub port: Knocked,
    /// At others of its host.
    pub host: Knocked,
    /// How long ago.
    pub ago_ms: u64,
}

/// See [`Knock`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Knocked {
    /// The host says that nobody listens there.
    Refused,
    /// Nothing came back.
    Silent,
    /// The network says that there is no such host or no way to it.
    NoRoute,
}
