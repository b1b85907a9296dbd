//! What can happen next, and in which order it does.

use ennead_ring::Name;
use ennead_ring::effect::Input;
use ennead_ring::message::{Addr, Envelope};

/// What happens next.
pub(crate) enum Event {
    /// A message arrives at a machine.
    Deliver {
        to: usize,
        from: Addr,
        envelope: Box<Envelope>,
    },
    /// A message arrives at a client.
    Tell {
        client: usize,
        from: Name,
        envelope: Box<Envelope>,
    },
    /// Something inside a process: it dies with it.
    Inside {
        machine: usize,
        life: u32,
        input: Input,
    },
    Synced {
        machine: usize,
        life: u32,
    },
    Wake {
        machine: usize,
        life: u32,
    },
    Client {
        client: usize,
        token: u64,
    },
    /// The operator looks after the cluster.
    Operator,
    /// Has anybody seen who died?
    Look,
    Fault(Fault),
}

/// What goes wrong next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Cut,
    Uncut,
    Crash,
    Restart(usize),
    Pause,
    Jump,
    Lie,
    /// A machine joins.
    Join,
    /// One is told to leave.
    Leave,
    /// One never runs again.
    Die,
    /// More are lost for good than any key bears.
    Disaster,
    /// One loses its disk.
    Wipe,
    /// It begins anew.
    Reborn(usize),
    /// A backup is made.
    BackUp,
    /// One stands still for longer than the others wait.
    Freeze,
    /// Some are cut off for longer than that.
    Split,
    /// The next change of a steady flow.
    Churn,
    /// One of a few that are often slow stands still.
    Stall,
    /// All of a zone lose power.
    Zone,
    /// A member's weight or zone is changed.
    Place,
}

pub(super) struct Scheduled {
    pub(super) at: u64,
    pub(super) seq: u64,
    pub(super) event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    /// The earliest is the greatest: the heap hands out its greatest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.seq).cmp(&(self.at, self.seq))
    }
}
