//! What the core loop lets others see of it: its status, what it publishes, and what it counts for that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ennead_ring::counts::{OUTCOMES, WRITES};
use ennead_ring::view::Name;
use ennead_ring::{MemberState, Standing, Suspect};

use super::{Core, now};
use crate::clock::{since_1970, unix_ms};
use crate::snapshot::{Place, Snapshot};
use crate::status::{Figures, MachineStatus, PeerState, PeerStatus};
use crate::storage::StorageStats;
use crate::transport::{Certificates, TransportStats};
use crate::units::show_size;
use crate::{program, progress};

/// Certificates that expire so soon, in seconds, are told of: 30 days.
const EXPIRES_SOON: i64 = 30 * 86_400;
/// Between two publications.
const EVERY: Duration = Duration::from_secs(1);
/// How long "lately" is, at least; twice as long at most.
const LATELY: Duration = Duration::from_secs(60);
/// Requests that ended so have failed: a comparison that does not hold, or an absent key, is an answer.
const FAILED: [&str; 5] = ["no_quorum", "unknown", "overloaded", "refused", "no_room"];

/// What is counted for those who look.
#[derive(Default)]
pub(super) struct Look {
    due: Option<Instant>,
    /// By kind: heard, said. As many as there are kinds.
    messages: BTreeMap<&'static str, [u64; 2]>,
    /// The furthest that a time was ahead of this clock: before the last turn, and since.
    ahead: [u64; 2],
    turned: Option<Instant>,
}

impl Look {
    pub(super) fn heard(&mut self, kind: &'static str) {
        self.messages.entry(kind).or_default()[0] += 1;
    }

    pub(super) fn said(&mut self, kind: &'static str) {
        self.messages.entry(kind).or_default()[1] += 1;
    }

    /// Somebody named a time so many nanoseconds ahead.
    pub(super) fn time(&mut self, ahead: u64) {
        self.ahead[1] = self.ahead[1].max(ahead);
    }

    fn ahead(&mut self, now: Instant) -> u64 {
        if self.turned.is_none_or(|at| now.duration_since(at) >= LATELY) {
            (self.ahead, self.turned) = ([self.ahead[1], 0], Some(now));
        }
        self.ahead[0].max(self.ahead[1])
    }
}

impl Core<'_> {
    /// Publishes how it is, if it is time to.
    pub(super) fn publish(&mut self) {
        let at = Instant::now();
        let Some(publish) = self.parts.publish.filter(|_| self.look.due.is_none_or(|due| due <= at)) else {
            return;
        };
        self.look.due = Some(at + EVERY);
        let snapshot = Snapshot {
            at,
            place: self.place(),
            status: self.status(),
            view: self.node.view().cloned(),
            views: self.node.history().count(),
            health: self.beat.health(at),
            counts: self.node.counts().clone(),
            tombstones: self.node.tombstones(),
            transport: self.parts.transport.stats(),
            storage: self.parts.storage.stats(),
            messages: self.look.messages.iter().map(|(kind, counts)| (*kind, *counts)).collect(),
            certificates: self.parts.transport.certificates(),
            parked: self.gate.held(),
            lines: self.border.waiting() as u64,
            waited: *self.border.waited(),
            turned: *self.border.turned(),
            swamped: self.swamped,
            ahead: self.look.ahead(at),
            clocks: self.parts.why.evidence.clocks(),
            clock: self.parts.why.evidence.own_clock(),
            restarts: self.parts.restarts,
        };
        publish.send_replace(Some(Arc::new(snapshot)));
    }

    fn place(&self) -> Place {
        let Some(view) = self.node.view() else { return Place::Blank };
        match view.members().iter().find(|m| m.machine == self.parts.me).map(|m| m.state) {
            None => Place::Outside,
            Some(MemberState::Joining) => Place::Joining,
            Some(MemberState::Leaving) => Place::Leaving,
            Some(_) => Place::InRing,
        }
    }

    pub(super) fn status(&self) -> MachineStatus {
        let peers_of = self.parts.peers.borrow();
        let peers = &*peers_of;
        let view = self.node.view();
        let members = view.map(|v| v.members()).unwrap_or_default();
        let own = members.iter().find(|m| m.machine == self.parts.me);
        let slots = own.filter(|m| m.in_ring()).map_or(0, |m| m.weight);
        let others = members.iter().map(|m| m.machine.name).filter(|name| *name != self.parts.me.name);
        let (mono, mut suspects) = (now(self.parts.started).mono, self.node.suspects());
        let mut late: BTreeMap<Name, Vec<Name>> = BTreeMap::new();
        for (name, by) in self.node.late() {
            late.insert(name, by.into_iter().map(|(by, _)| by).collect());
        }
        let peers = others.map(|name| {
            let peer = peers.of.get(&name);
            let suspect = suspects.iter().position(|s| s.name == name).map(|at| suspects.swap_remove(at));
            let (state, silent_ms, by) = match suspect {
                None => (PeerState::Up, 0, Vec::new()),
                Some(Suspect { state, since, by, .. }) => {
                    let state = match state {
                        Standing::Suspect => PeerState::Suspect,
                        Standing::Down => PeerState::Down,
                    };
                    (state, mono.0.saturating_sub(since.mono.0) / 1_000_000, by)
                }
            };
            PeerStatus {
                name,
                reachable: peer.is_none_or(|p| p.reachable),
                since_ms: peer.map_or(self.parts.started, |p| p.since).elapsed().as_millis() as u64,
                reason: peer.and_then(|p| p.reason.clone()),
                state,
                silent_ms,
                by,
                late_by: late.remove(&name).unwrap_or_default(),
            }
        });
        let (transport, storage) = (self.parts.transport.stats(), self.parts.storage.stats());
        MachineStatus {
            machine: self.parts.me,
            cluster: view.map(|v| v.cluster()),
            epoch: view.map(|v| v.epoch()).unwrap_or_default(),
            settled: self.node.account().settled,
            version: program::version().to_owned(),
            uptime_ms: self.parts.started.elapsed().as_millis() as u64,
            slots,
            synced_slots: if self.node.is_synced() { slots } else { 0 },
            peers: peers.collect(),
            records: storage.records,
            clients: transport.clients as u32,
            part_restarts: self.parts.restarts.iter().sum::<u32>()
                + transport.part_restarts
                + self.parts.web.map_or(0, |web| web.restarts()),
            taken_bytes: self.node.taken_bytes(),
            moves: progress::moves(&self.node, mono),
            check: progress::check(&self.node),
            objections: {
                let own = self.short_of_room().into_iter().chain(self.certificates());
                own.chain(peers_of.objections()).collect()
            },
            figures: self.figures(&transport, &storage),
        }
    }

    /// What a person should do about this machine's certificates.
    fn certificates(&self) -> Option<String> {
        let Certificates { expires, refused, .. } = self.parts.transport.certificates();
        let left = expires.saturating_sub(since_1970().as_secs() as i64);
        let renew = "renew them with `kvctl certs renew`";
        match refused {
            Some(why) => Some(format!("its certificates in the folder are not used: {why}")),
            None if left < 0 => Some(format!("its certificates are past their time: {renew}")),
            None if left < EXPIRES_SOON => {
                Some(format!("its certificates are good for {} days more: {renew}", left / 86_400))
            }
            None => None,
        }
    }

    /// What a person should do about this machine's disk.
    fn short_of_room(&self) -> Option<String> {
        let (free, needed) = self.parts.storage.room();
        let text = || {
            let (free, needed) = (show_size(free), show_size(needed));
            format!(
                "its disk is full: {free} are left, and {needed} are kept for what must be written; values are refused, reads go on"
            )
        };
        self.parts.storage.is_short_of_room().then(text)
    }

    fn figures(&self, transport: &TransportStats, storage: &StorageStats) -> Figures {
        let counts = self.node.counts();
        let reads_and_writes = counts.answered[..=WRITES].iter();
        let outcomes = reads_and_writes.flat_map(|answered| OUTCOMES.iter().zip(answered));
        let failed: u64 = outcomes.filter(|(outcome, _)| FAILED.contains(outcome)).map(|(_, n)| *n).sum();
        Figures {
            wall_ms: unix_ms(),
            writes: counts.answered[..WRITES].iter().flatten().sum(),
            reads: counts.answered[WRITES].iter().sum(),
            copies: counts.copies,
            failed: failed + self.border.turned_away(),
            write_micros: counts.writes_took(),
            read_micros: counts.took[WRITES].buckets,
            fsync_micros: storage.fsync_micros,
            waiting: counts.waiting + self.border.waiting() as u64,
            queued: storage.queued,
            bytes_in: transport.bytes_in,
            bytes_out: transport.bytes_out,
            store_bytes: storage.record_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_far_ahead_is_forgotten_after_two_minutes_at_most() {
        let (mut look, begun) = (Look::default(), Instant::now());
        look.time(7);
        assert_eq!(look.ahead(begun), 7);
        look.time(5);
        assert_eq!(look.ahead(begun + LATELY), 5);
        assert_eq!(look.ahead(begun + 2 * LATELY), 0);
    }
}
