//! What can happen next, and in which order it does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

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
}

/// What is to happen, in order of time, and of what was scheduled first. The events lie aside, so that little is moved
/// where they are put in order.
#[derive(Default)]
pub(super) struct Queue {
    order: BinaryHeap<Reverse<(u64, u64, u32)>>,
    events: Vec<Option<Event>>,
    free: Vec<u32>,
    seq: u64,
}

impl Queue {
    pub(super) fn push(&mut self, at: u64, event: Event) {
        self.seq += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            (self.events.len() - 1) as u32
        });
        self.events[place as usize] = Some(event);
        self.order.push(Reverse((at, self.seq, place)));
    }

    /// When the next one is due.
    pub(super) fn next_at(&self) -> Option<u64> {
        self.order.peek().map(|Reverse((at, ..))| *at)
    }

    pub(super) fn pop(&mut self) -> Option<(u64, Event)> {
        let Reverse((at, _, place)) = self.order.pop()?;
        self.free.push(place);
        self.events[place as usize].take().map(|event| (at, event))
    }

    /// Only these will happen.
    pub(super) fn retain(&mut self, wanted: impl Fn(&Event) -> bool) {
        let Self { order, events, free, .. } = self;
        order.retain(|Reverse((.., place))| {
            let event = &mut events[*place as usize];
            let stays = event.as_ref().is_some_and(&wanted);
            if !stays {
                *event = None;
                free.push(*place);
            }
            stays
        });
    }
}
