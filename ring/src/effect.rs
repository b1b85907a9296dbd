//! What goes into a node and what comes out: the whole border of the protocol.

use alloc::boxed::Box;

use bincode::{Decode, Encode};

use crate::key::Key;
use crate::message::{Addr, Bound, Envelope};
use crate::stamp::{Hlc, Record};
use crate::view::{Name, View};

/// A reading of the timers' clock: nanoseconds since some start. Never goes back; means nothing elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Mono(pub u64);

impl Mono {
    /// This much later.
    pub const fn plus(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
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
    /// Nothing can be told to this machine at present (`false`), or it can again. A hint, never evidence.
    Reachable {
        /// Which machine.
        name: Name,
        /// Whether.
        reachable: bool,
    },
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
    /// The newest view adopted (V3). Views are kept since the last settled one.
    View(alloc::sync::Arc<View>),
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
}
