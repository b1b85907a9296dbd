//! Whether clients should be sent to this machine; pure.

use std::time::{Duration, Instant};

use ennead_ring::quorum_of;

use crate::snapshot::{Place, Snapshot};
use crate::status::PeerState;
use crate::units::{show_duration, show_size};

/// A core loop that has said nothing for so long does not answer clients at once.
const LATE: Duration = Duration::from_secs(5);
/// One that has said nothing for so long will not by itself.
const DEAD: Duration = Duration::from_secs(30);

/// Why the program should be started again; nothing if it lives.
pub(super) fn dead(snapshot: Option<&Snapshot>, now: Instant) -> Option<String> {
    let age = now.saturating_duration_since(snapshot?.at);
    (age >= DEAD).then(|| format!("its core loop has not moved for {}", show_duration(age)))
}

/// Why clients should be sent elsewhere; nothing if they are welcome. Whatever is asked here is answered all the same.
pub(super) fn unready(snapshot: Option<&Snapshot>, room: Option<u64>, now: Instant) -> Vec<String> {
    let Some(snapshot) = snapshot else { return vec!["it has only just begun".to_owned()] };
    let mut why = Vec::new();
    let age = now.saturating_duration_since(snapshot.at);
    if age >= LATE {
        why.push(format!("its core loop has not moved for {}", show_duration(age)));
    }
    let status = &snapshot.status;
    match snapshot.place {
        Place::Blank => why.push("it is in no view: it belongs to no cluster yet".to_owned()),
        Place::Outside => why.push(format!("it is in no view: it is not a member at epoch {}", status.epoch)),
        Place::Joining => why.push("it is not synced: it is on its way in, and owns nothing yet".to_owned()),
        Place::Leaving => why.push("it is leaving the ring".to_owned()),
        Place::InRing => {}
    }
    if status.synced_slots < status.slots {
        let (synced, slots) = (status.synced_slots, status.slots);
        why.push(format!("it is not synced: it votes at {synced} of its {slots} positions"));
    }
    if let Some(view) = &snapshot.view {
        let machines = view.members().iter().filter(|m| m.in_ring()).count();
        let lost = |name| {
            status.peers.iter().any(|p| p.name == name && (!p.reachable || p.state == PeerState::Down))
        };
        let reached = view.members().iter().filter(|m| m.in_ring() && !lost(m.machine.name)).count();
        let (slots, needed) = (usize::from(view.slots()), usize::from(quorum_of(view.slots())));
        // Of nine slots, so many are on machines that are reached, on average: with nine machines, exactly.
        if reached * slots < needed * machines {
            why.push(format!("fewer than a quorum can be reached: {reached} of {machines} machines"));
        }
    }
    if snapshot.health.full {
        let left = room.map(|room| format!(": {} are left", show_size(room))).unwrap_or_default();
        why.push(format!("its disk is full{left}; it takes no values"));
    }
    why
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ennead_ring::counts::Counts;
    use ennead_ring::{ClusterId, Epoch, Health, Incarnation, Machine, Member, Name, View};

    use super::*;
    use crate::status::{CheckStatus, Figures, MachineStatus, PeerStatus};

    fn machine(n: usize) -> Machine {
        let name: Name = format!("10.0.0.{n}").parse().expect("a name");
        Machine { name, incarnation: Incarnation::new(n as u64) }
    }

    /// Machine 1 of so many, which reaches all but the last few.
    fn snapshot(machines: usize, lost: usize) -> Snapshot {
        let member = |n| Member::up(machine(n), 64);
        let members = (1..=machines).map(member).collect();
        let view = View::new(ClusterId::new(1), Epoch::FIRST, 9, members, Vec::new()).expect("a view");
        let peer = |n| PeerStatus {
            name: machine(n).name,
            reachable: n + lost <= machines,
            since_ms: 0,
            reason: None,
            state: PeerState::Up,
            silent_ms: 0,
            by: Vec::new(),
            late_by: Vec::new(),
        };
        let status = MachineStatus {
            machine: machine(1),
            cluster: Some(ClusterId::new(1)),
            epoch: Epoch::FIRST,
            settled: Epoch::FIRST,
            version: "0.1.0".to_owned(),
            uptime_ms: 60_000,
            slots: 64,
            synced_slots: 64,
            peers: (2..=machines).map(peer).collect(),
            records: 0,
            clients: 0,
            part_restarts: 0,
            moves: Vec::new(),
            check: CheckStatus::default(),
            taken_bytes: 0,
            objections: Vec::new(),
            figures: Figures::default(),
        };
        Snapshot {
            at: Instant::now(),
            place: Place::InRing,
            status,
            view: Some(Arc::new(view)),
            views: 1,
            health: Health::default(),
            counts: Counts::default(),
            tombstones: None,
            transport: Default::default(),
            storage: Default::default(),
            messages: Vec::new(),
            parked: 0,
            lines: 0,
            waited: Default::default(),
            turned: Default::default(),
            swamped: 0,
            certificates: crate::transport::Certificates { expires: 0, renewed: 0, refused: None },
            ahead: 0,
            clocks: [0, 0],
            clock: None,
            restarts: [0, 0],
        }
    }

    fn why(snapshot: &Snapshot) -> String {
        unready(Some(snapshot), Some(1 << 40), snapshot.at).join("; ")
    }

    #[test]
    fn a_machine_is_ready_while_it_reaches_a_quorum_and_not_one_machine_less() {
        // As many may be lost as leave five of nine slots.
        for (machines, may) in [(1, 0), (3, 1), (4, 1), (5, 2), (6, 2), (8, 3), (9, 4)] {
            assert_eq!(why(&snapshot(machines, may)), "", "{may} of {machines}");
            if machines > 1 {
                let said = why(&snapshot(machines, may + 1));
                assert!(said.starts_with("fewer than a quorum can be reached"), "{machines}: {said}");
            }
        }
    }

    #[test]
    fn each_reason_is_said() {
        let with = |change: &dyn Fn(&mut Snapshot)| {
            let mut changed = snapshot(9, 0);
            change(&mut changed);
            why(&changed)
        };
        assert!(with(&|s| s.place = Place::Blank).contains("in no view"));
        assert!(with(&|s| s.place = Place::Outside).contains("in no view"));
        assert!(with(&|s| s.place = Place::Joining).contains("not synced"));
        assert!(with(&|s| s.place = Place::Leaving).contains("leaving"));
        assert!(with(&|s| s.status.synced_slots = 0).contains("votes at 0 of its 64 positions"));
        let fine = snapshot(9, 0);
        let full = Snapshot { health: Health { full: true, ..Health::default() }, ..snapshot(9, 0) };
        assert!(unready(Some(&full), Some(1 << 20), full.at)[0].contains("disk is full: 1MiB are left"));
        assert!(unready(None, None, fine.at)[0].contains("only just begun"));
    }

    #[test]
    fn a_core_loop_that_stands_still_is_late_and_then_dead() {
        let fine = snapshot(9, 0);
        let after = |seconds| fine.at + Duration::from_secs(seconds);
        assert!(unready(Some(&fine), None, after(4)).is_empty());
        assert!(unready(Some(&fine), None, after(6))[0].contains("has not moved for"));
        assert_eq!(dead(Some(&fine), after(6)), None);
        assert!(dead(Some(&fine), after(31)).is_some());
        assert_eq!(dead(None, after(31)), None, "opening a large store takes a while");
    }
}
