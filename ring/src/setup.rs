//! What a machine starts from, and what of it may be tuned.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::effect::{Account, Decree, Limits};
use crate::view::{Machine, Name, View};
use crate::zone::Zone;

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
    /// How long until an unanswered Prepare, Accept or Read is sent again, at least: longer where answers take long lately.
    /// Doubles each time. Default 50 ms.
    pub resend_after: u64,
    /// How far ahead of the clock the ceiling is raised. Default 3 s. A restart cannot take part in ballots
    /// until its clock has passed the old ceiling, or a proposer jumps above it: which costs one round trip.
    pub ceiling_ahead: u64,
    /// First wait after a ballot was beaten; doubles up to a second, at random. Default 2 ms.
    pub backoff: u64,
    /// Accepts of one key that may be under way at once (C3). Default 4.
    pub pipeline: usize,
    /// Values up to this long, in bytes, are read from all owners at once; longer ones from one that votes for the
    /// settled stamp. Default 64 KiB.
    pub inline: u32,
    /// Keys whose register is kept in memory. Default 20,000.
    pub cells: usize,
    /// Bytes of values kept in memory with them, roughly. Default 64 MiB.
    pub cell_bytes: usize,
    /// Requests that may wait for one key, above which more are answered `Overloaded`. Default 10,000.
    pub waiting_per_key: usize,
    /// Bytes of values in all requests that are not answered yet, above which more are answered `Overloaded`; a
    /// request without a value counts for a little too. Default 256 MiB.
    pub waiting_bytes: usize,
    /// Longest value accepted from a client, in bytes. Default 8 MiB.
    pub max_value: usize,
    /// How often one other machine is probed (section 12). 0: never, and nobody is suspected. Default 0; a machine
    /// that runs takes [`PROBE_EVERY`].
    pub probe_every: u64,
    /// How long a machine is suspected before it counts as down. Default 2 s.
    pub down_after: u64,
    /// How long a machine is down before it is dropped from the view (V7). Default 30 s: longer than a restart. Shorter
    /// restores nine copies sooner, and moves data for machines that would have come back.
    pub patience: u64,
    /// Bytes a second that one machine takes in ahead of a move, or for the comparison of copies; a quarter of it while
    /// clients have work for the machine. What its silent slots wait for is bounded by all of it, and only then. Default
    /// 32 MiB.
    pub move_rate: u64,
    /// How long after one comparison of all copies the next begins. Default 10 minutes. 0: only when asked for.
    pub check_every: u64,
    /// Among more members than this, who is to be told of keys goes by the roll, instead of asking everybody. Default 64.
    pub roll_above: usize,
    /// How old a tombstone is before it may be collected (G2). Default 5 minutes.
    pub collect_after: u64,
}

/// How often a machine probes another where nobody said otherwise: 250 ms.
pub const PROBE_EVERY: u64 = 250_000_000;

impl Default for Tuning {
    fn default() -> Self {
        const MS: u64 = 1_000_000;
        Self {
            resend_after: 50 * MS,
            ceiling_ahead: 3_000 * MS,
            backoff: 2 * MS,
            pipeline: 4,
            inline: 64 << 10,
            cells: 20_000,
            cell_bytes: 64 << 20,
            waiting_per_key: 10_000,
            waiting_bytes: 256 << 20,
            max_value: 8 << 20,
            probe_every: 0,
            down_after: 2_000 * MS,
            patience: 30_000 * MS,
            move_rate: 32 << 20,
            check_every: 600_000 * MS,
            roll_above: 64,
            collect_after: 300_000 * MS,
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
    /// Its zone, likewise.
    pub zone: Zone,
    /// From stable storage; all zero on a new directory.
    pub limits: Limits,
    /// From stable storage: the views since the last settled one, newest last. Empty on a blank machine.
    pub views: Vec<Arc<View>>,
    /// From stable storage: what it can tell of its views.
    pub account: Account,
    /// From stable storage: the decree on the next view, as far as it has taken part in it.
    pub decree: Decree,
    /// How it comes to a cluster if it has none.
    pub birth: Birth,
    /// Progress and cost.
    pub tuning: Tuning,
    /// For backoff, cluster ids and hash tables: the node draws nothing from anywhere else.
    pub seed: u64,
    /// Test-only: which rules it keeps. `Rules::default()` is all of them.
    pub rules: crate::mutant::Rules,
}
