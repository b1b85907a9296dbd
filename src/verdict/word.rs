//! The verdict in one word.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// The verdict in one word.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// It ended, and said why.
    Exit,
    /// It panicked.
    Panic,
    /// Its process ended without a word.
    Killed,
    /// Its host is not there.
    HostDown,
    /// Nothing comes back from its host: it may be the host or the network.
    Unreachable,
    /// Some reach it, some do not.
    Partitioned,
    /// Its process is there and stands still.
    Paused,
    /// Its disk takes much too long.
    DiskStalled,
    /// Its disk, or what is on it, failed.
    DiskFailed,
    /// It is asked for more than it can do.
    Overloaded,
    /// Its clock is far off.
    Clock,
    /// It speaks another version, or is of another cluster.
    Incompatible,
    /// It was restarted with another version.
    Upgraded,
    /// It handed its data over and went.
    Left,
    /// Its disk has no room for values: it takes none, and goes on with everything else.
    DiskFull,
}

impl Word {
    /// As `kvctl why` prints it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Panic => "panic",
            Self::Killed => "killed",
            Self::HostDown => "host_down",
            Self::Unreachable => "unreachable",
            Self::Partitioned => "partitioned",
            Self::Paused => "paused",
            Self::DiskStalled => "disk_stalled",
            Self::DiskFailed => "disk_failed",
            Self::Overloaded => "overloaded",
            Self::Clock => "clock",
            Self::Incompatible => "incompatible",
            Self::Upgraded => "upgraded",
            Self::Left => "left",
            Self::DiskFull => "disk_full",
        }
    }
}
