//! A machine: all of the protocol, driven by one input at a time.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::effect::{Effect, Input, Limits, Mono, Now};
use crate::view::{Machine, Name, View};

/// How a machine without a cluster comes to one (F1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Birth {
    /// It has one: restored views say which. With none, it waits to be asked by nobody and says so.
    None,
    /// It is blank and offers itself to these, again and again.
    Join(Vec<Name>),
    /// It is view 1: itself and these blank machines, once each has offered itself.
    Init {
        /// The machines to take along.
        with: Vec<Name>,
        /// Slots of each key, odd.
        slots: u8,
    },
}

/// What may be tuned: progress and cost, never safety.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// How long until an unanswered Prepare, Accept or Read is sent again; doubles each time. Default 50 ms.
    pub resend_after: u64,
    /// How far ahead of the clock the ceiling is raised. Default 3 s. A restart cannot take part in ballots
    /// until its clock has passed the old ceiling, or a proposer jumps above it: which costs one round trip.
    pub ceiling_ahead: u64,
    /// First wait after a ballot was beaten; doubles up to a second, at random. Default 2 ms.
    pub backoff: u64,
    /// Accepts of one key that may be under way at once (C3). Default 4.
    pub pipeline: usize,
    /// Keys whose register is kept in memory. Default 20,000.
    pub cells: usize,
    /// Requests that may wait for one key, above which more are answered `Overloaded`. Default 10,000.
    pub waiting_per_key: usize,
    /// Longest value accepted from a client, in bytes. Default 8 MiB.
    pub max_value: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        const MS: u64 = 1_000_000;
        Self {
            resend_after: 50 * MS,
            ceiling_ahead: 3_000 * MS,
            backoff: 2 * MS,
            pipeline: 4,
            cells: 20_000,
            waiting_per_key: 10_000,
            max_value: 8 << 20,
        }
    }
}

/// What a machine starts from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its name, and the incarnation of its data directory.
    pub me: Machine,
    /// Its positions on the ring, should it be taken into a view.
    pub weight: u32,
    /// From stable storage; all zero on a new directory.
    pub limits: Limits,
    /// From stable storage: the views since the last settled one, newest last. Empty on a blank machine.
    pub views: Vec<Arc<View>>,
    /// How it comes to a cluster if it has none.
    pub birth: Birth,
    /// Progress and cost.
    pub tuning: Tuning,
    /// For backoff, cluster ids and hash tables: the node draws nothing from anywhere else.
    pub seed: u64,
    /// Test-only: the rule that this node breaks.
    #[cfg(feature = "mutants")]
    pub mutant: Option<crate::mutant::Mutant>,
}

/// Why a node wants to be woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// A round has not been answered by all: send again, back off, or give up at the deadline.
    Round,
    /// A blank machine offers itself again.
    Birth,
}

/// A machine.
#[derive(Debug)]
pub struct Node {}

impl Node {
    /// A machine that has just started: everything that is not in `setup` is forgotten (R1).
    pub fn new(_setup: Setup, _now: Now) -> Self {
        Self {}
    }

    /// Takes one input; what is to be done about it is appended to `effects`, to be carried out in order.
    pub fn handle(&mut self, _now: Now, _input: Input, _effects: &mut Vec<Effect>) {}

    /// When to send [`Input::Wake`], and why; `None` if nothing is due ever.
    pub fn wake_at(&self) -> Option<(Mono, Why)> {
        None
    }

    /// The newest view adopted.
    pub fn view(&self) -> Option<&Arc<View>> {
        None
    }

    /// Walks the whole state and panics at anything that cannot be: the simulator calls it after every input.
    pub fn check(&self) {}
}
