//! What machines say to each other, and how it prints.
#![allow(missing_docs, reason = "the fields of a message are explained where it is")]

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use bincode::{Decode, Encode};

use crate::digest::Digest;
use crate::effect::Account;
use crate::gossip::Gossip;
use crate::key::Key;
use crate::quorum::SlotSet;
use crate::roll::{Note, Roll};
use crate::stamp::{Ballot, Hlc, Record, RequestId, Stamp, State, Uncountable};
use crate::view::{ClusterId, Epoch, Machine, Name, View};
use crate::zone::Zone;

/// Ties an answer to what was asked. Drawn by who asks; means nothing to who answers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct Ask(pub u64);

/// Who speaks or is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Addr {
    /// A machine that proved its name; which incarnation it is, it says itself.
    Machine(Machine),
    /// A client, by the number that the transport gave to its connection.
    Client(u64),
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(m) => write!(f, "{m}"),
            Self::Client(n) => write!(f, "client {n}"),
        }
    }
}

/// A message under the cluster id and epoch of its sender (V4). An answer's votes count at this epoch (Q2).
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Envelope {
    /// The sender's cluster; `None` from a blank machine, or a client that has not fetched a view.
    pub cluster: Option<ClusterId>,
    /// The sender's epoch when it spoke.
    pub epoch: Epoch,
    /// What it says.
    pub message: Message,
}

/// Everything that is said.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Message {
    /// A1: promise to accept nothing below `ballot`, and tell what you hold.
    Prepare { ask: Ask, key: Key, ballot: Ballot },
    /// A2: hold this state under this stamp.
    Accept { ask: Ask, key: Key, stamp: Stamp, state: Arc<State> },
    /// A3: tell what you hold; a value longer than `inline` bytes as its length only.
    Read { ask: Ask, key: Key, inline: u32 },
    /// The answer to those three, with the slots it votes for (Q1).
    Answer { ask: Ask, votes: SlotSet, answer: Answer },
    /// Coordinate this for me (section 12). `within` is how long, in milliseconds, the asker still waits.
    /// `handed` is true where another coordinator passed it on: it is not passed on again.
    Request { ask: Ask, key: Key, op: Op, within: u32, handed: bool },
    /// What came of a request.
    Outcome { ask: Ask, outcome: Outcome },
    /// F1: a blank machine offers itself to be taken along, with so many virtual peers, from this zone. `gathers` is true where it was
    /// told to initialise a cluster itself, and would rather come to one that is there already.
    Blank { weight: u32, zone: Zone, gathers: bool },
    /// F1: view 1, which takes you along; also told to a member that asks as if it were blank.
    Birth { view: Arc<View> },
    /// F1: why a blank machine is not taken along.
    NotTaken { reason: String },
    /// V4: what is your newest view?
    ViewAsk { ask: Ask },
    /// V4: this is.
    ViewTold { ask: Ask, view: Arc<View> },
    /// V4: what are the views after this one?
    ViewsAsk { after: Epoch },
    /// V4: these, or where that one is too old, all from the last settled one on.
    ViewsTold { views: Vec<Arc<View>>, settled: Epoch },
    /// V2: promise to accept no view after this one below `ballot`, and tell what you accepted.
    DecreePrepare { ask: Ask, ballot: Ballot },
    /// V2: accept this as the next view.
    DecreeAccept { ask: Ask, ballot: Ballot, view: Arc<View> },
    /// The answer to those two, from a warden.
    DecreeAnswer { ask: Ask, answer: DecreeAnswer },
    /// V7: somebody wants the membership changed.
    Wish { ask: Ask, wish: Wish },
    /// The wish is passed on to the wardens, or refused for this reason.
    Wished { ask: Ask, refused: Option<String> },
    /// T1, M2: how far I am in this view.
    Word { synced: bool, warm: bool },
    /// T1: this view is settled.
    Settled { epoch: Epoch },
    /// S3: tell me of the keys after `after` what you hold, as far as it concerns me.
    Tell { ask: Ask, request: Box<TellRequest> },
    /// S3: this.
    Told { ask: Ask, page: Box<Page> },
    /// What you hold for these keys, whole.
    Fetch { ask: Ask, keys: Vec<Key> },
    /// This; a key that is missing did not fit.
    Fetched { ask: Ask, records: Vec<(Key, Option<Record>)> },
    /// G2: all nine slots voted for this tombstone in that settled view.
    Collect { key: Key, stamp: Stamp, epoch: Epoch },
    /// Section 12: are you there? Unlike the transport's ping, the loop that runs the protocol answers.
    Probe { ask: Ask, gossip: Gossip },
    /// I get no answer from `whom`. Do you, within so many milliseconds?
    ProbeFor { ask: Ask, whom: Machine, within: u32, gossip: Gossip },
    /// I am here; `reached` is false where this answers a [`ProbeFor`](Self::ProbeFor) and I get none either.
    /// Also said unasked, for the gossip in it.
    Alive { ask: Ask, reached: bool, gossip: Gossip },
    /// F2: an operator says that these machines are gone for good, though five slots of some keys are lost with them.
    /// Answered by [`Wished`](Self::Wished).
    Force { ask: Ask, machines: Vec<Machine> },
    /// L1: a client lists keys: tell what you hold of those after `after`.
    List { ask: Ask, request: Box<ListRequest> },
    /// L1: this.
    Listed { ask: Ask, page: Box<ListPage> },
    /// S3: a warden calls the roll: to whom may you have something to tell, after a change of the view or for the comparison of
    /// copies?
    RollCall { ask: Ask, check: bool },
    /// S3: to these.
    RollNoted { ask: Ask, note: Box<Note> },
    /// S3: who has nothing to tell me, for this?
    RollAsk { ask: Ask, purpose: Purpose },
    /// S3: these.
    Roll { ask: Ask, roll: Box<Roll> },
}

/// An acceptor's answer.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Answer {
    /// A1: promised; this is what I hold (votes for the record are inside it), and the bound below which
    /// an absent key may have been forgotten (I4, G3).
    Promised { ballot: Ballot, record: Option<Record>, bound: Bound },
    /// A2: I hold a state of that ballot at or above the one asked for, under this stamp.
    Held { stamp: Stamp },
    /// A1, A2, A4: no; this is the ballot to beat.
    Refused { beat: Ballot },
    /// A3: what I hold.
    Copy(Copied),
    /// R3: my record of this key is unreadable. I say nothing about it.
    Mute,
    /// My disk has no room for this value: I do not hold it, and did nothing.
    NoRoom,
    /// Not looked at, since too much is waiting: ask me again after so many milliseconds, or somebody else.
    Busy { retry_after: u32 },
}

/// A warden's answer about the next view (V2).
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum DecreeAnswer {
    /// It will accept nothing below `ballot`; this is what it accepted.
    Promised { ballot: Ballot, accepted: Option<(Ballot, Arc<View>)> },
    /// It accepted the view of this ballot.
    Accepted { ballot: Ballot },
    /// No; this is the ballot to beat.
    Refused { beat: Ballot },
}

/// A change of the membership that somebody wants (V7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub enum Wish {
    /// This machine wants to come in, with so many positions, from this zone.
    Join { machine: Machine, weight: u32, zone: Zone },
    /// This machine is to hand its data over and go.
    Leave { machine: Machine },
    /// This machine is gone for good.
    Remove { machine: Machine },
    /// F2: this machine is gone for good, and is to be done without, whatever was lost with it.
    Force { machine: Machine },
    /// This member is to have so many positions, and to be of this zone.
    Place { machine: Machine, weight: u32, zone: Zone },
}

impl Wish {
    /// Whom it is about.
    pub const fn machine(&self) -> Machine {
        match *self {
            Self::Join { machine, .. }
            | Self::Leave { machine }
            | Self::Remove { machine }
            | Self::Force { machine }
            | Self::Place { machine, .. } => machine,
        }
    }
}

/// What is to be told, and for what.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct TellRequest {
    /// For what.
    pub purpose: Purpose,
    /// Keys after this one; from the first with `None`.
    pub after: Option<Key>,
    /// What this machine is believed to hold, in order. It tells up to the end of the last of these, at most.
    pub claims: Vec<Claim>,
    /// Drawn for these claims alone.
    pub salt: u64,
    /// The last view in which the asker was synced for all it owned.
    pub since: Option<Epoch>,
    /// True if the view before is settled: then who owned a slot in it tells of that slot alone (S4).
    pub handoff: bool,
    /// Machines that tell nothing: others must tell in their place.
    pub without: Vec<Machine>,
}

/// Of the keys from where the claim before ends, up to `upto`, what the asker believes another machine to hold.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Claim {
    /// `None`: to the end.
    pub upto: Option<Key>,
    /// Of all that the machine is to tell of these keys. `None`: the asker holds nothing of them, and wants states too.
    pub digest: Option<Digest>,
    /// A sketch of the same: sums of 16 bits, little-endian. Empty: where the digest is wrong, all is to be listed.
    pub sketch: Vec<u8>,
}

/// A claim that is wrong, in what is listed and in what is gone.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Differs {
    /// Which of the claims, from 0.
    pub claim: u8,
    /// Of what the machine is to tell of these keys and does not list, since it is as claimed.
    pub digest: Digest,
    /// The polynomial whose roots are the elements that the asker's sketch has and the machine's has not.
    pub gone: Vec<u8>,
}

/// For what a machine wants to be told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub enum Purpose {
    /// S2 to S7: to vote for the slots that it has come to own.
    Sync,
    /// M1: to hold, before it owns them, what the slots of its next ring hold.
    Ahead,
    /// M1, of the ring there is: to hold what an owner should, before that is synced.
    Copy,
    /// To see that all copies of the keys it is the first owner of are alike and voted for.
    Check,
}

/// S3: a part of what a machine tells, in the order of the keys.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Page {
    /// What it can tell of its views.
    pub account: Account,
    /// The highest ballot it may have promised.
    pub promised: Ballot,
    /// Its bound.
    pub bound: Bound,
    /// The claims that are right, one bit each from the lowest: what they claim is told.
    pub agreed: u64,
    /// The claims of which only what is not as claimed is listed, in order.
    pub differs: Vec<Differs>,
    /// The claims that are wrong in more than their sketches have room for, one bit each: of their keys nothing is told.
    pub beyond: u64,
    /// Keys, in order. For every other key up to `upto` it tells "none".
    pub entries: Vec<Entry>,
    /// Told up to here; `None`: to the end.
    pub upto: Option<Key>,
    /// Keys looked at for this, and keys it has in all, roughly.
    pub looked: u32,
    pub total: u64,
}

/// S3: what a machine tells of one key.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Entry {
    pub key: Key,
    pub held: Held,
}

/// What it holds.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Held {
    /// This record; the state where it was asked for.
    Record { stamp: Stamp, votes: SlotSet, tombstone: bool, state: Option<Arc<State>> },
    /// R3: it cannot say.
    Unreadable,
}

/// L1: what of its keys a machine is to tell a client.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ListRequest {
    /// Keys after this one; from the first with `None`.
    pub after: Option<Key>,
    /// Keys that begin so, and that are not the cluster's own.
    pub prefix: Vec<u8>,
    /// A page is sent once it has so many bytes.
    pub bytes: u32,
    /// How long, in milliseconds, the client waits for it.
    pub within: u32,
    /// Tell the values too of those keys whose first owner you are, leaving these machines out.
    pub values: Option<Vec<Name>>,
}

/// L1: a part of what a machine tells a client, in the order of the keys. It is worth what the machine was when it read
/// its records: synced, at the epoch of the envelope.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ListPage {
    /// True if it votes for all the slots that it owns; else nothing is told.
    pub synced: bool,
    /// As it was asked.
    pub after: Option<Key>,
    /// Keys, in order, with the records held, or `None` where it cannot say (R3). Of every other key up to `upto` it
    /// tells "none".
    pub keys: Vec<(Key, Option<ListRecord>)>,
    /// Told up to here; `None`: to the end.
    pub upto: Option<Key>,
    /// Keys that it has in all, roughly.
    pub total: u64,
}

/// A record as told to a client that lists keys.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ListRecord {
    pub stamp: Stamp,
    pub votes: SlotSet,
    pub version: u64,
    pub expires: Option<Hlc>,
    pub value: ListValue,
}

/// A value as told to a client that lists keys.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum ListValue {
    /// There is none: a tombstone.
    None,
    /// One of so many bytes.
    Bytes(u64),
    /// This one.
    Whole(Arc<[u8]>),
}

/// A3: a record as told to a reader.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Copied {
    /// I have no record.
    None,
    /// This record, whole.
    Whole(Record),
    /// A record whose value is longer than was asked for: without the value and the requests.
    Summary { stamp: Stamp, version: u64, bytes: u64, expires: Option<Hlc>, votes: SlotSet },
}

impl Copied {
    /// Under which stamp; `None` if there is no record.
    pub fn stamp(&self) -> Option<Stamp> {
        match self {
            Self::None => None,
            Self::Whole(record) => Some(record.stamp),
            Self::Summary { stamp, .. } => Some(*stamp),
        }
    }

    /// Which version; 0 if there is no record.
    pub fn version(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Whole(record) => record.state.version,
            Self::Summary { version, .. } => *version,
        }
    }

    /// True if a reader would be told a value: neither absent nor a tombstone.
    pub fn has_value(&self) -> bool {
        match self {
            Self::None => false,
            Self::Whole(record) => record.state.value.is_some(),
            Self::Summary { .. } => true,
        }
    }
}

/// G3: at or above everything in any tombstone that a machine has dropped.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Encode, Decode)]
pub struct Bound {
    /// At or above the ballots and request times. For a key without a record, ballots at or below are refused.
    pub time: Hlc,
    /// At or above the versions, so that a key's version never falls.
    pub version: u64,
}

impl Bound {
    /// The higher of the two, in both readings.
    pub fn max(self, other: Self) -> Self {
        Self { time: self.time.max(other.time), version: self.version.max(other.version) }
    }
}

/// What a client wants of a key.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Op {
    /// The settled state (D1 to D4).
    Read,
    /// A change, applied at most once under its id (I1 to I4).
    Write(Write),
    /// No change, and yet a new stamp: what some slots lack or hold as hearsay becomes a vote of all (S6).
    Settle,
}

/// A change that a client asks for.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Write {
    /// The same in every retry.
    pub id: RequestId,
    /// True if an earlier try of this id may still be under way somewhere, or an Accept of one out there. A
    /// failure is then remembered like a success: otherwise that try could succeed after its client was told
    /// that the comparison failed.
    pub again: bool,
    /// Only if this holds.
    pub condition: Condition,
    /// What to do.
    pub change: Change,
}

/// What must be true of the key for a write to be applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Condition {
    /// Nothing.
    Any,
    /// There is no value.
    Absent,
    /// There is a value, of this version.
    Version(u64),
}

/// What a write does to the key.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Change {
    /// Stores a value, which expires after so many milliseconds if any are given (by the coordinator's clock).
    Put { value: Arc<[u8]>, ttl: Option<u64> },
    /// Removes the value (G1).
    Delete,
    /// I5: gives the value another expiry, after so many milliseconds, or with `None` no expiry any more. Value and
    /// version stay.
    Touch { ttl: Option<u64> },
    /// I6: adds to the number that the value is in decimal text; an absent key counts as 0. The expiry stays.
    Incr { by: i64 },
}

/// A value as a client sees it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Found {
    /// The value.
    pub value: Arc<[u8]>,
    /// Its version.
    pub version: u64,
    /// When it expires, if it does.
    pub expires: Option<Hlc>,
}

/// What came of a request. Every variant says what is now true of the key.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Outcome {
    /// The write is on the disks of five slots, as this version. `votes` slots held it when this was said.
    Done { version: u64, votes: u8 },
    /// The settled value, or that there is none.
    Value(Option<Found>),
    /// The condition does not hold: the key has this version, or no value. Nothing was changed.
    Mismatch { version: Option<u64> },
    /// There was nothing to delete, or to touch. Nothing was changed.
    Absent,
    /// I2: the id is too old to tell whether it was applied; never applied from now on.
    TooLate { horizon: Hlc },
    /// Too few slots answered, and no Accept was sent: nothing was changed. Retrying is safe.
    NoQuorum { votes: u8, needed: u8, silent: Vec<Name> },
    /// C4: an Accept went out, and too few slots said that they hold it. It may yet take effect.
    /// Retrying under the same id is safe.
    Unknown { votes: u8, needed: u8, silent: Vec<Name> },
    /// Not tried, since too much is waiting. Nothing was changed; try again after so many milliseconds.
    Overloaded { retry_after: u32 },
    /// Not tried, for this reason. Nothing was changed.
    Refused(Box<str>),
    /// Not tried: this machine is in no view, or no longer in it. Another one may; nothing was changed.
    NotHere,
    /// I6: the counter became this number, which is on the disks of five slots as this version.
    Counted { version: u64, value: i64, votes: u8 },
    /// I6: the key's value, of this version, cannot be counted up. Nothing was changed.
    Uncountable { version: u64, why: Uncountable },
    /// Not tried: the disks of these owners have no room for the value, and the others are not five slots' owners. Nothing
    /// was changed.
    NoRoom { full: Vec<Name> },
}

impl Outcome {
    /// True if it says that a request was applied.
    pub const fn is_applied(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Counted { .. })
    }

    /// The same, with so many votes for the state it rests on.
    pub(crate) fn by(self, votes: u8) -> Self {
        match self {
            Self::Done { version, .. } => Self::Done { version, votes },
            Self::Counted { version, value, .. } => Self::Counted { version, value, votes },
            other => other,
        }
    }
}

impl Message {
    /// One word, for logs and counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Prepare { .. } => "prepare",
            Self::Accept { .. } => "accept",
            Self::Read { .. } => "read",
            Self::Answer { answer, .. } => match answer {
                Answer::Promised { .. } => "promised",
                Answer::Held { .. } => "held",
                Answer::Refused { .. } => "refused",
                Answer::Copy(_) => "copy",
                Answer::Mute => "mute",
                Answer::NoRoom => "no_room",
                Answer::Busy { .. } => "busy",
            },
            Self::Request { .. } => "request",
            Self::Outcome { .. } => "outcome",
            Self::Blank { .. } => "blank",
            Self::Birth { .. } => "birth",
            Self::NotTaken { .. } => "not_taken",
            Self::ViewAsk { .. } => "view_ask",
            Self::ViewTold { .. } => "view_told",
            Self::ViewsAsk { .. } => "views_ask",
            Self::ViewsTold { .. } => "views_told",
            Self::DecreePrepare { .. } => "decree_prepare",
            Self::DecreeAccept { .. } => "decree_accept",
            Self::DecreeAnswer { .. } => "decree_answer",
            Self::Wish { .. } => "wish",
            Self::Wished { .. } => "wished",
            Self::Word { .. } => "word",
            Self::Settled { .. } => "settled",
            Self::Tell { .. } => "tell",
            Self::Told { .. } => "told",
            Self::Fetch { .. } => "fetch",
            Self::Fetched { .. } => "fetched",
            Self::Collect { .. } => "collect",
            Self::Probe { .. } => "probe",
            Self::ProbeFor { .. } => "probe_for",
            Self::Alive { .. } => "alive",
            Self::Force { .. } => "force",
            Self::List { .. } => "list",
            Self::Listed { .. } => "listed",
            Self::RollCall { .. } => "roll_call",
            Self::RollNoted { .. } => "roll_noted",
            Self::RollAsk { .. } => "roll_ask",
            Self::Roll { .. } => "roll",
        }
    }

    /// The key it is about, if it names one.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Prepare { key, .. }
            | Self::Accept { key, .. }
            | Self::Read { key, .. }
            | Self::Request { key, .. }
            | Self::Collect { key, .. } => Some(key),
            _ => None,
        }
    }

    /// The ballot it is about, if it names one.
    pub fn ballot(&self) -> Option<Ballot> {
        match self {
            Self::Prepare { ballot, .. }
            | Self::DecreePrepare { ballot, .. }
            | Self::DecreeAccept { ballot, .. } => Some(*ballot),
            Self::DecreeAnswer { answer, .. } => match answer {
                DecreeAnswer::Promised { ballot, .. } | DecreeAnswer::Accepted { ballot } => Some(*ballot),
                DecreeAnswer::Refused { beat } => Some(*beat),
            },
            Self::Told { page, .. } => Some(page.promised),
            Self::RollNoted { note, .. } => Some(note.promised),
            Self::Roll { roll, .. } => Some(roll.promised),
            Self::Accept { stamp, .. } => Some(stamp.ballot),
            Self::Answer { answer, .. } => match answer {
                Answer::Promised { ballot, .. } => Some(*ballot),
                Answer::Held { stamp } => Some(stamp.ballot),
                Answer::Refused { beat } => Some(*beat),
                Answer::Copy(copied) => copied.stamp().map(|s| s.ballot),
                Answer::Mute | Answer::NoRoom | Answer::Busy { .. } => None,
            },
            _ => None,
        }
    }

    /// The time of the ballot or of the request that it is about: what somebody's clock said.
    pub fn time(&self) -> Option<Hlc> {
        match self {
            Self::Request { op: Op::Write(write), .. } => Some(write.id.time),
            _ => self.ballot().map(|ballot| ballot.time),
        }
    }

    /// Bytes of values it carries: what the transport sends on the side when it is much.
    pub fn value_bytes(&self) -> usize {
        let of = |state: &State| state.value.as_ref().map_or(0, |v| v.len());
        match self {
            Self::Accept { state, .. } => of(state),
            Self::Answer { answer: Answer::Promised { record: Some(record), .. }, .. }
            | Self::Answer { answer: Answer::Copy(Copied::Whole(record)), .. } => of(&record.state),
            Self::Request { op: Op::Write(Write { change: Change::Put { value, .. }, .. }), .. } => {
                value.len()
            }
            Self::Outcome { outcome: Outcome::Value(Some(found)), .. } => found.value.len(),
            Self::Told { page, .. } => {
                let states = page.entries.iter().filter_map(|entry| match &entry.held {
                    Held::Record { state, .. } => state.as_deref(),
                    Held::Unreadable => None,
                });
                states.map(of).sum()
            }
            Self::Fetched { records, .. } => {
                records.iter().filter_map(|(_, record)| Some(of(&record.as_ref()?.state))).sum()
            }
            Self::Listed { page, .. } => {
                let value = |record: &ListRecord| match &record.value {
                    ListValue::Whole(value) => value.len(),
                    ListValue::None | ListValue::Bytes(_) => 0,
                };
                page.keys.iter().filter_map(|(_, record)| record.as_ref().map(value)).sum()
            }
            _ => 0,
        }
    }
}

/// One line, as in golden conversations and trace logs. Never shows a key or a value.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind())?;
        if let Some(key) = self.key() {
            write!(f, " {}", key.digest())?;
        }
        match self {
            Self::Answer { votes, .. } => write!(f, " votes {votes:?}")?,
            Self::Accept { stamp, .. } => write!(f, " #{}", stamp.n)?,
            _ => {}
        }
        match self.ballot() {
            Some(ballot) => write!(f, " {ballot}"),
            None => Ok(()),
        }
    }
}
