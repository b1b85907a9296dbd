//! What the core loop publishes of itself, once a second, for whoever looks from outside: nobody who looks makes it wait.

use std::sync::Arc;
use std::time::Instant;

use ennead_ring::counts::{Counts, KINDS, Timings};
use ennead_ring::{Health, View};
use tokio::sync::watch;

use crate::admission::Reason;
use crate::status::MachineStatus;
use crate::storage::StorageStats;
use crate::transport::{Certificates, TransportStats};

/// Where a machine stands towards its cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// It belongs to no cluster yet.
    Blank,
    /// It is not in the view, or not any more.
    Outside,
    /// It is on its way in, and owns nothing yet.
    Joining,
    /// It owns slots.
    InRing,
    /// It owns slots until the others have copied them.
    Leaving,
}

/// All that there is to see.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// When this was so.
    pub(crate) at: Instant,
    pub(crate) place: Place,
    /// What it tells whoever asks.
    pub(crate) status: MachineStatus,
    pub(crate) view: Option<Arc<View>>,
    /// Views kept since the last settled one.
    pub(crate) views: usize,
    pub(crate) health: Health,
    pub(crate) counts: Counts,
    /// Tombstones held, as far as that is known.
    pub(crate) tombstones: Option<u64>,
    pub(crate) transport: TransportStats,
    pub(crate) storage: StorageStats,
    /// Messages by their kind: heard, and said.
    pub(crate) messages: Vec<(&'static str, [u64; 2])>,
    pub(crate) certificates: Certificates,
    /// Answers that wait for the disk before they may leave.
    pub(crate) parked: usize,
    /// What clients asked and has not been looked at.
    pub(crate) lines: u64,
    /// How long what has been looked at waited for that.
    pub(crate) waited: Timings,
    /// What was turned away from there.
    pub(crate) turned: Turned,
    /// Accepts that the disk could not take.
    pub(crate) swamped: u64,
    /// How far the latest time that anybody named was ahead of this machine's clock, lately: in nanoseconds.
    pub(crate) ahead: u64,
    /// How far others' clocks are ahead of this machine's, and behind it, at most: in milliseconds.
    pub(crate) clocks: [u64; 2],
    /// How far its own is ahead of the middle of all, if enough others have told theirs: in milliseconds.
    pub(crate) clock: Option<i64>,
    /// Restarts of parts: the core loop and the storage writer.
    pub(crate) restarts: [u32; 2],
}

/// What clients were told to come back with later: by its kind, the last being reads of one copy; and by why.
pub(crate) type Turned = [[u64; Reason::ALL.len()]; KINDS.len() + 1];

/// Where it is published, and read. Empty until the core loop has begun.
pub(crate) type Published = watch::Receiver<Option<Arc<Snapshot>>>;
/// The other end.
pub(crate) type Publish = watch::Sender<Option<Arc<Snapshot>>>;
