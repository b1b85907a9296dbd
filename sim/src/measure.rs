//! What a run is measured by: how soon failures were seen, what moved and what had to, and how it went over time.

use ennead_ring::{Machine, MemberState, Stamp, View, told_bytes};

use crate::MS;
use crate::computer::Role;
use crate::events::Event;
use crate::least::{At, Gain};
use crate::views::Seen;
use crate::world::World;

/// Witnesses whose word a warden acts on (V7).
const WITNESSES: usize = 3;
/// How often it is looked whether a machine that died is suspected by so many.
const LOOK: u64 = 20 * MS;

/// The figures of a run.
#[derive(Clone, Default, Debug)]
pub struct Metrics {
    /// Calls of the workload that were answered.
    pub ok: u64,
    /// Calls that were not, within their deadline: of unknown outcome, or told that nothing was changed.
    pub failed: u64,
    /// Machines that came into the ring.
    pub joins: u64,
    /// Machines that handed over and left.
    pub leaves: u64,
    /// Machines that lost all they had, and those that died for good.
    pub lost: u64,
    /// In the end more were lost at once than may be (claim 4), and not made up for: no answer and no copy is promised.
    pub overdrawn: bool,
    /// From the death of a process to the moment at which the warden who acts has three witnesses, in nanoseconds.
    pub detected: Vec<u64>,
    /// Machines that ran and were wanted, and were dropped all the same.
    pub false_evictions: u64,
    /// Bytes that machines took in of each other.
    pub bytes_moved: u64,
    /// Bytes that machines had to take in of what they came to own: see `least`.
    pub bytes_minimum: u64,
    /// How it went.
    pub samples: Vec<Sample>,
}

/// How things stood at one moment, and what had happened by then since the last one.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sample {
    /// Virtual nanoseconds.
    pub at: u64,
    /// Processes that run.
    pub up: usize,
    /// Members.
    pub members: usize,
    /// Machines that the first warden suspects.
    pub suspects: usize,
    /// Members that are not synced, or copy ahead.
    pub moving: usize,
    /// Views there were.
    pub views: u64,
    /// Calls answered, and not.
    pub ok: u64,
    /// See `ok`.
    pub failed: u64,
    /// Processes that died.
    pub crashes: u64,
}

/// A process that died, and is not known to have.
pub(super) struct Watched {
    machine: Machine,
    at: u64,
}

impl Metrics {
    /// This share of those who died was suspected no later; in milliseconds.
    pub fn detect_ms(&self, share: f64) -> Option<u64> {
        let mut all = self.detected.clone();
        all.sort_unstable();
        let at = ((all.len() as f64 * share).ceil() as usize).max(1) - 1;
        all.get(at).map(|nanos| nanos / MS)
    }
}

impl World {
    /// The machine that acts on what is suspected: the owner of `\0view`'s lowest slot that runs.
    fn acting_warden(&self) -> Option<usize> {
        let newest = self.views.newest.as_ref()?;
        let runs = |m: &usize| {
            let c = &self.computers[*m];
            c.node.is_some() && c.paused_until <= self.now
        };
        newest.wardens().map(|machine| self.by_name[&machine.name]).find(runs)
    }

    /// A process died.
    pub(super) fn watch(&mut self, m: usize) {
        let machine = self.computers[m].me;
        let member = self.views.newest.as_ref().is_some_and(|n| n.in_ring(machine));
        if !self.profile.born || !member || !self.faulty {
            return;
        }
        if self.watched.is_empty() {
            self.schedule(LOOK, Event::Look);
        }
        self.watched.push(Watched { machine, at: self.now });
    }

    pub(super) fn look(&mut self) {
        let suspects = match self.acting_warden().and_then(|m| self.computers[m].node.as_ref()) {
            Some(node) => node.suspects(),
            None => Vec::new(),
        };
        let now = self.now;
        for Watched { machine, at } in std::mem::take(&mut self.watched) {
            let computer = &self.computers[self.by_name[&machine.name]];
            let back = computer.me != machine || computer.node.is_some();
            let member = self.views.newest.as_ref().is_some_and(|n| n.in_ring(machine));
            let seen = suspects.iter().any(|s| s.name == machine.name && s.by.len() >= WITNESSES);
            if seen {
                self.metrics.detected.push(now - at);
            } else if member && !back {
                self.watched.push(Watched { machine, at });
            }
        }
        if !self.watched.is_empty() {
            self.schedule(LOOK, Event::Look);
        }
    }

    /// A view came after another: who was dropped though it lived, and what has to move.
    pub(super) fn weigh(&mut self, before: &Seen, after: &Seen) {
        for member in before.view.members().iter().filter(|m| m.state == MemberState::Up) {
            let computer = &self.computers[self.by_name[&member.machine.name]];
            let lives = computer.me == member.machine && computer.node.is_some() && computer.role == Role::In;
            let told = self.removals.contains(&member.machine);
            if lives && !told && !after.view.has(member.machine) {
                self.metrics.false_evictions += 1;
                self.note(|| format!("{} is dropped, and lives", member.machine));
            }
        }
        if self.profile.born {
            self.look_what_came();
        }
        if before.view.same_ring(&after.view) {
            return;
        }
        let (come, gone) =
            (in_ring_but_not(&after.view, &before.view), in_ring_but_not(&before.view, &after.view));
        self.metrics.joins += come;
        self.metrics.leaves +=
            gone.min(before.view.members().iter().filter(|m| m.state == MemberState::Leaving).count() as u64);
        if !self.profile.born {
            return;
        }
        let mut least = std::mem::take(&mut self.least);
        let newest = |at: At| self.newest_of(at.0, before).map(|(newest, bytes)| Gain { at, newest, bytes });
        least.change(after.new_owners(before).filter_map(newest), before.new_owners(after), |at| {
            self.held(at)
        });
        self.least = least;
    }

    /// What of all that has to move has come by now.
    pub(super) fn look_what_came(&mut self) {
        let mut least = std::mem::take(&mut self.least);
        least.look(|at| self.held(at));
        self.metrics.bytes_minimum = least.bytes();
        self.least = least;
    }

    /// The record of a key on this machine's disk.
    fn held(&self, (key, machine): At) -> Option<Stamp> {
        let computer = &self.computers[self.by_name[&machine.name]];
        let record = computer.disk.durable_record(self.keys.get(key));
        record.filter(|_| computer.me == machine).map(|record| record.stamp)
    }

    /// A key's newest record, and what it takes as those who take it in count it; `None` if there is none.
    fn newest_of(&self, k: usize, view: &Seen) -> Option<(Stamp, u64)> {
        let key = self.keys.get(k);
        let records = view.owners_once(k).filter_map(|machine| {
            let computer = &self.computers[self.by_name[&machine.name]];
            computer.disk.durable_record(key).filter(|_| computer.me == machine)
        });
        let newest = records.max_by_key(|record| record.stamp)?;
        Some((newest.stamp, told_bytes(key, &newest.state)))
    }

    /// A process is about to end: what it took in counts.
    pub(super) fn add_moved(&mut self, m: usize) {
        if let Some(node) = &self.computers[m].node {
            self.metrics.bytes_moved += node.taken_bytes();
        }
    }

    pub(super) fn sample(&mut self) {
        let Some(newest) = self.views.newest.clone() else { return };
        let warden = self.acting_warden().and_then(|m| self.computers[m].node.as_ref());
        let runs = self.computers.iter().filter_map(|c| c.node.as_ref());
        let moving = runs.clone().filter(|node| !node.is_synced() && newest.view.has(node.machine())).count();
        let sample = Sample {
            at: self.now,
            up: runs.count(),
            members: newest.view.members().len(),
            suspects: warden.map_or(0, |node| node.suspects().len()),
            moving,
            views: self.views.count(),
            ok: self.metrics.ok,
            failed: self.metrics.failed,
            crashes: self.counts.crashes,
        };
        self.metrics.samples.push(sample);
    }
}

/// Machines in the ring of the one and not of the other.
fn in_ring_but_not(one: &View, other: &View) -> u64 {
    let in_other = |machine: Machine| {
        other.index_of(machine.name).is_some_and(|i| {
            let member = &other.members()[i];
            member.machine == machine && member.in_ring()
        })
    };
    one.members().iter().filter(|m| m.in_ring() && !in_other(m.machine)).count() as u64
}
