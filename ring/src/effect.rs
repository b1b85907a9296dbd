//! What goes into a node and what comes out: the whole border of the protocol.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bincode::{Decode, Encode};

use crate::gossip::Health;
use crate::key::Key;
use crate::message::{Addr, Bound, Envelope};
use crate::stamp::{Ballot, Hlc, Record};
use crate::view::{Epoch, Name, View};

/// A reading of the timers' clock: nanoseconds since some start. Never goes back; means nothing elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Mono(pub u64);

impl Mono {
    /// This much later.
    pub const fn plus(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// The first of these, if there is one. Asked after every input: a fold, which compiles to a few comparisons.
    pub(crate) fn first<const N: usize>(times: [Option<Self>; N]) -> Option<Self> {
        times.into_iter().fold(None, |first, time| match (first, time) {
            (Some(first), Some(time)) => Some(first.min(time)),
            (first, time) => first.or(time),
        })
    }
}

/// What time it is, twice. `mono` drives timers; `wall` feeds the hybrid clock and expiry, nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// For timers.
    pub mono: Mono,
    /// Nanoseconds since 1970, as the machine believes.
    pub wall: u64,
}

/// The number of a thing to be made durable: they rise by one, and are made durable in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Ticket(pub u64);

/// What storage found under a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Loaded {
    /// No record was ever kept, or it was dropped.
    Nothing,
    /// This one.
    Record(Record),
    /// There is one and its checksum fails: the machine goes mute for the key (R3). Never `Nothing`.
    Unreadable,
}

/// Something happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// A message arrived.
    Message {
        /// From whom: proven by its certificate, as far as the name goes.
        from: Addr,
        /// What it says.
        envelope: Box<Envelope>,
    },
    /// The answer to [`Effect::Load`].
    Loaded {
        /// The key asked for.
        key: Key,
        /// What is there.
        found: Loaded,
    },
    /// The answer to [`Effect::Scan`].
    Scanned {
        /// Which scan.
        scan: Scan,
        /// The next keys in order, with what is there for each.
        found: Vec<(Key, Loaded)>,
        /// True if there are none after these.
        end: bool,
        /// Keys kept in all, roughly.
        total: u64,
    },
    /// Nothing can be told to this machine at present (`false`), or it can again. A hint, never evidence.
    Reachable {
        /// Which machine.
        name: Name,
        /// Whether.
        reachable: bool,
    },
    /// How this machine finds itself: what its disk does, and how busy it is. Told now and then, and when it changes.
    Health(Health),
    /// The time that [`wake_at`](crate::Node::wake_at) named has come.
    Wake,
}

/// Numbers that bound what a machine takes part in; kept durably (PROTOCOL section 4).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Encode, Decode)]
pub struct Limits {
    /// It promises, accepts and proposes no ballot above this time.
    pub ceiling: Hlc,
    /// It takes part in no ballot at or below this time.
    pub floor: Hlc,
    /// G3.
    pub bound: Bound,
}

/// What a machine can tell of the views it was in (S3, T1); kept durably.
#[derive(Clone, PartialEq, Eq, Default, Debug, Encode, Decode)]
pub struct Account {
    /// The last view that it knows to be settled. Nothing is known of earlier ones.
    pub settled: Epoch,
    /// The views, from that one on, in which it came to be synced for all that it owned.
    pub synced: Vec<Epoch>,
    /// It handed its data over and left: it does not come back by itself.
    pub left: bool,
}

/// A warden's memory of the decree on the view after `epoch` (V2); kept durably until that view is adopted.
#[derive(Clone, PartialEq, Eq, Default, Debug, Encode, Decode)]
pub struct Decree {
    /// The view whose wardens decide.
    pub epoch: Epoch,
    /// The highest ballot promised.
    pub promised: Ballot,
    /// What was accepted last, and under which ballot.
    pub accepted: Option<(Ballot, Arc<View>)>,
}

/// The number of a scan: means something to who asked for it only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Scan(pub u64);

/// Something to be made durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// This is what the machine holds for the key, instead of whatever it held.
    Record {
        /// The key.
        key: Key,
        /// The record.
        record: Record,
    },
    /// The limits, instead of the former ones.
    Limits(Limits),
    /// The machine holds nothing for the key any more, whatever it held (T2, G2).
    Forget {
        /// The key.
        key: Key,
    },
    /// The newest view adopted (V3). Views are kept since the last settled one.
    View(Arc<View>),
    /// What it can tell of its views, instead of the former account. Views before `settled` may be forgotten (T2).
    Account(Account),
    /// The decree on the next view, instead of the former one (V2).
    Decree(Decree),
}

/// Something to be done. Effects are carried out in order; one with `after` waits until that ticket, and so
/// every ticket before it, is durable. That is the whole durability rule: fsync before anyone is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Make this durable. Tickets are handed out in the order of these effects.
    Persist {
        /// Its number.
        ticket: Ticket,
        /// What.
        change: Change,
    },
    /// Tell this, once `after` is durable. To oneself it comes back as an input: a vote for oneself takes
    /// the same road as any other. What cannot be delivered is dropped.
    Send {
        /// To whom.
        to: Addr,
        /// What; already stamped with the epoch it was decided at.
        envelope: Box<Envelope>,
        /// Not before this is on disk.
        after: Option<Ticket>,
    },
    /// Look this key up, as of all the changes persisted so far, and answer with [`Input::Loaded`].
    Load {
        /// Which key.
        key: Key,
    },
    /// Look at the keys after `after` in their order, as of all the changes persisted so far, and answer with
    /// [`Input::Scanned`]: side work, which loads go before.
    Scan {
        /// Which scan.
        scan: Scan,
        /// From the first key with `None`.
        after: Option<Key>,
        /// At most so many keys...
        keys: usize,
        /// ...and no further key once so many bytes have come together.
        bytes: usize,
    },
}
