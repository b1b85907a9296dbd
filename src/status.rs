//! What a machine tells of itself: the material of `kvctl status`.

use bincode::{Decode, Encode};
use ennead_ring::counts::Histogram;
use ennead_ring::message::Purpose;
use ennead_ring::view::{ClusterId, Epoch, Machine, Name};

/// One machine's own account.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct MachineStatus {
    /// Who speaks.
    pub machine: Machine,
    /// Its cluster, if it has one.
    pub cluster: Option<ClusterId>,
    /// Its newest view's epoch.
    pub epoch: Epoch,
    /// The last view that it knows to be settled (T1).
    pub settled: Epoch,
    /// Version of the program.
    pub version: String,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Its positions on the ring, and for how many of them it is synced: where it votes.
    pub slots: u32,
    /// See `slots`.
    pub synced_slots: u32,
    /// What it can tell of each other member.
    pub peers: Vec<PeerStatus>,
    /// Records it holds.
    pub records: u64,
    /// Connections of clients.
    pub clients: u32,
    /// Restarts of its parts since it started.
    pub part_restarts: u32,
    /// What it takes in from others at present.
    pub moves: Vec<MoveStatus>,
    /// How its comparison of copies goes.
    pub check: CheckStatus,
    /// Bytes of values that it has taken in from others since it started.
    pub taken_bytes: u64,
    /// What it was told lately that cannot be so, and what a person should look at: two forced recoveries that went apart
    /// (F2), another process under a machine's name (V6).
    pub objections: Vec<String>,
    /// How much it does, and how fast.
    pub figures: Figures,
}

/// How much a machine does: counted since its core loop began, but for what is of now.
#[derive(Clone, PartialEq, Eq, Default, Debug, Encode, Decode)]
pub struct Figures {
    /// Its clock, in milliseconds since 1970.
    pub wall_ms: u64,
    /// Writes that it coordinated.
    pub writes: u64,
    /// Reads that it coordinated.
    pub reads: u64,
    /// Copies that it told to readers.
    pub copies: u64,
    /// Of the writes and reads, those that ended for want of votes, time or room; and what clients were told to come back
    /// with later, reads of a copy included.
    pub failed: u64,
    /// How long its writes took, in microseconds by powers of two.
    pub write_micros: Histogram,
    /// How long its reads took.
    pub read_micros: Histogram,
    /// How long its disk took for an fsync.
    pub fsync_micros: Histogram,
    /// Requests that it has not answered yet, and what waits in clients' lines: now.
    pub waiting: u64,
    /// Changes that are not durable yet: now.
    pub queued: u64,
    /// Bytes of frames that came in, since it started.
    pub bytes_in: u64,
    /// Bytes of frames written, since it started.
    pub bytes_out: u64,
    /// Bytes of its ordered store on disk: now.
    pub store_bytes: u64,
}

/// Data on its way to the machine that tells of it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct MoveStatus {
    /// For what.
    pub purpose: Purpose,
    /// Keys taken so far.
    pub keys: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Keys looked at so far, of about `total`: how far it is.
    pub looked: u64,
    /// See `looked`; 0 while nobody knows.
    pub total: u64,
    /// Milliseconds since it began.
    pub since_ms: u64,
    /// Who tells.
    pub from: Vec<Name>,
    /// Who of them does not answer.
    pub waits_for: Vec<Name>,
}

/// How a machine's comparison of copies goes: of the keys whose first slot it owns, with all who hold them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Encode, Decode)]
pub struct CheckStatus {
    /// Rounds that came to their end since it started.
    pub rounds: u64,
    /// True while a round is under way.
    pub running: bool,
    /// Keys looked at: in the round under way, or in the last.
    pub keys: u64,
    /// Keys whose copies were not alike, or not all voted for.
    pub unlike: u64,
    /// Settling rounds that brought a key to all its slots, since it started.
    pub mended: u64,
    /// Deleted keys forgotten everywhere (G2), since it started.
    pub collected: u64,
}

/// One machine as another sees it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct PeerStatus {
    /// Which.
    pub name: Name,
    /// Whether there is a connection, or none was needed so far.
    pub reachable: bool,
    /// Milliseconds since that last changed.
    pub since_ms: u64,
    /// Why it went away, in its own words where it said any.
    pub reason: Option<String>,
    /// Whether it answers probes.
    pub state: PeerState,
    /// Milliseconds since the first probe that it did not answer; 0 while it is up.
    pub silent_ms: u64,
    /// Machines whose probes it did not answer: the first few.
    pub by: Vec<Name>,
    /// Machines that its answers about keys do not come to, though it may answer probes: the first few. It is asked last.
    pub late_by: Vec<Name>,
}

/// What the failure detector of one machine says of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum PeerState {
    /// It answers, or nobody says otherwise.
    Up,
    /// It does not answer, asked directly and through others, and has not refuted that.
    Suspect,
    /// The same, for longer than a machine that lives would leave it so. No data moves for it.
    Down,
}
