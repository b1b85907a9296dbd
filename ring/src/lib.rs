//! The protocol of ennead: what a machine remembers, promises, answers and counts.
//!
//! No clock, socket, disk, thread or randomness lives here: inputs go in, effects come out ([`Node`]).
//! The rules cited in these pages (A1, Q2, ...) are those of PROTOCOL.md. Modules in reading order:
//!
//! | module | one idea |
//! |---|---|
//! | [`position`] | 128-bit positions; a key's chain of nine |
//! | [`view`], [`zone`] | who belongs: members, incarnations, epochs; machines that may fail together |
//! | [`shares`] | how many slots of a key a machine and a zone own at most; pure |
//! | `circle` | positions in order, and whose is the highest not above another |
//! | [`placement`] | which machine owns which slot in a view; pure |
//! | [`key`], [`stamp`] | keys; ballots and stamps: the order of versions |
//! | [`number`] | a value as a whole number: what a counter is |
//! | [`quorum`] | what counts as five; nothing else counts votes |
//! | [`message`] | what machines say to each other, and how it prints |
//! | [`effect`] | what goes into a node and what comes out |
//! | [`gossip`], [`detector`] | what machines say of each other; who answers |
//! | `history` | the views since the last settled one: who voted for what, what is covered; pure |
//! | `listing`, [`gathering`] | what a machine tells a client that lists keys, and how the client counts it |
//! | [`digest`] | what another is believed to hold, and told only where that is wrong |
//! | `sketch` | sketches of sets: in what two of them differ; pure |
//! | `merge`, `sync`, `telling`, `fetching` | what a machine takes in when the ring changes, and what it tells others |
//! | `decree`, `membership`, `warden` | how the next view is decided, which it should be, who proposes |
//! | [`counts`], `tombstones` | what a machine counts of its work, and of its tombstones, for whoever looks from outside |
//! | `forced`, `doubt` | what an operator forces; what shows a machine that it may take part no more |
//! | `setup`, `cell` | what a machine starts from; one key on it |
//! | [`node`] | all of the above, driven by one input at a time |
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod acceptor;
mod answers;
mod birth;
mod cell;
mod circle;
mod coordinator;
pub mod counts;
mod decree;
pub mod detector;
pub mod digest;
mod doubt;
pub mod effect;
mod fetching;
mod forced;
pub mod gathering;
pub mod gossip;
mod history;
pub mod key;
mod lead;
mod listing;
mod local;
mod membership;
mod mending;
mod merge;
pub mod message;
#[cfg(test)]
mod model;
pub mod mutant;
pub mod node;
pub mod number;
mod pace;
pub mod placement;
pub mod position;
pub mod quorum;
pub mod rare;
pub mod reader;
mod reading;
mod register;
pub mod roll;
mod setup;
pub mod shares;
mod sketch;
pub mod stamp;
mod sync;
mod telling;
mod tombstones;
mod turn;
pub mod view;
mod warden;
pub mod zone;

pub use detector::{Standing, Suspect};
pub use effect::{Account, Change, Decree, Effect, Input, Limits, Loaded, Mono, Now, Scan, Ticket};
pub use gathering::Gathering;
pub use gossip::Health;
pub use history::may_be_lost;
pub use key::{Key, KeyError};
pub use merge::Move;
pub use node::Node;
pub use placement::{Owners, Ring};
pub use position::{Chain, Position};
pub use quorum::{SlotSet, Tally, quorum_of};
pub use reader::Reader;
pub use shares::Shares;
pub use stamp::{Ballot, Hlc, Record, RequestId, Stamp, State};
pub use sync::CheckProgress;
pub use telling::told_bytes;
pub use view::{ClusterId, Epoch, Incarnation, Machine, Member, MemberState, Name, View};
pub use zone::{Zone, ZoneError};
