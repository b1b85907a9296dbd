//! What a machine tells of itself: the material of `kvctl status`.

use bincode::{Decode, Encode};
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
}
