//! What the transport counts. Labels are bounded: nobody outside can make them grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::CloseCode;
use super::lanes::Lengths;

/// Counts since the endpoint was made, but for what is said to be of now.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct TransportStats {
    /// Restarts of the listener and of diallers.
    pub part_restarts: u32,
    /// Whether the listener lives, now.
    pub listening: bool,
    /// Connections with machines, now.
    pub connections: usize,
    /// Connections of clients, now.
    pub clients: usize,
    /// Dials tried.
    pub dials: u64,
    /// Dials that came to nothing.
    pub dials_failed: u64,
    /// Connections ended, or not taken, because the other end did wrong: by reason, those above zero.
    pub refusals: Vec<(CloseCode, u64)>,
    /// Frames that did not fit into a queue, were too old once there was a connection, or had nowhere to go.
    pub dropped: u64,
    /// Frames that wait to be written, on the lanes for nearly everything, for large values, and for pings: now.
    pub waiting: [u64; 3],
    /// Frames that came in.
    pub frames_in: u64,
    /// Frames written.
    pub frames_out: u64,
    /// Bytes of the frames that came in.
    pub bytes_in: u64,
    /// Bytes of the frames written.
    pub bytes_out: u64,
}

impl TransportStats {
    /// Refusals for this reason.
    pub fn refused(&self, code: CloseCode) -> u64 {
        self.refusals.iter().find(|(c, _)| *c == code).map_or(0, |(_, n)| *n)
    }
}

/// The counters themselves.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) dials: AtomicU64,
    pub(super) dials_failed: AtomicU64,
    pub(super) dropped: AtomicU64,
    /// Of now.
    pub(super) waiting: Arc<Lengths>,
    pub(super) frames_in: AtomicU64,
    pub(super) frames_out: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    refusals: [AtomicU64; CloseCode::ALL.len()],
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Relaxed);
    }

    pub(super) fn refused(&self, code: CloseCode) {
        if let Some(i) = CloseCode::ALL.iter().position(|c| *c == code) {
            Self::add(&self.refusals[i], 1);
        }
    }

    pub(super) fn read(&self, connections: usize, clients: usize) -> TransportStats {
        let all = CloseCode::ALL.iter().zip(&self.refusals);
        TransportStats {
            part_restarts: 0,
            listening: false,
            connections,
            clients,
            dials: self.dials.load(Relaxed),
            dials_failed: self.dials_failed.load(Relaxed),
            refusals: all.map(|(c, n)| (*c, n.load(Relaxed))).filter(|(_, n)| *n > 0).collect(),
            dropped: self.dropped.load(Relaxed),
            waiting: self.waiting.each_ref().map(|n| n.load(Relaxed)),
            frames_in: self.frames_in.load(Relaxed),
            frames_out: self.frames_out.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
        }
    }
}
