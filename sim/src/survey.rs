//! How all machines stand at set moments, and what each of them believes of the others.

use ennead_ring::Name;

use crate::computer::Role;
use crate::world::World;

/// How things stood at one moment. Machines have numbers: the first is 1.
#[derive(Clone, Default, Debug)]
pub struct Survey {
    /// Virtual nanoseconds.
    pub at: u64,
    /// Views after the first.
    pub views: u64,
    /// Members of the newest view.
    pub members: Vec<usize>,
    /// Nobody is on the way in or out, and everybody is synced.
    pub at_rest: bool,
    /// All copies of every key are equal, on disk and voted for.
    pub alike: bool,
    /// Calls of the workload that were answered by then.
    pub ok: u64,
    /// Those that were not.
    pub failed: u64,
    /// Every machine.
    pub machines: Vec<Stand>,
}

/// How one machine stands.
#[derive(Clone, Default, Debug)]
pub struct Stand {
    /// The id of its incarnation.
    pub incarnation: u64,
    /// Its process runs, or stands still.
    pub runs: bool,
    /// It is synced for all it owns.
    pub synced: bool,
    /// Bytes that this process has taken in of others.
    pub taken: u64,
    /// Members that it believes not alive, and how many missed their answers, as it knows.
    pub suspects: Vec<(usize, usize)>,
    /// Members whose answers about keys do not come, and how many wait for them.
    pub late: Vec<(usize, usize)>,
    /// Members that say of themselves that they are not well.
    pub unwell: Vec<usize>,
}

impl World {
    pub(super) fn survey(&mut self) {
        let members = match &self.views.newest {
            Some(newest) => newest.view.members().iter().map(|m| self.number(m.machine.name)).collect(),
            None => Vec::new(),
        };
        let survey = Survey {
            at: self.now,
            views: self.views.count().saturating_sub(1),
            members,
            at_rest: self.unsettled().is_none(),
            alike: self.uneven().is_none(),
            ok: self.metrics.ok,
            failed: self.metrics.failed,
            machines: (0..self.computers.len()).map(|m| self.stand(m)).collect(),
        };
        self.surveys.push(survey);
    }

    fn stand(&self, m: usize) -> Stand {
        let computer = &self.computers[m];
        let incarnation = computer.me.incarnation.id();
        let Some(node) = &computer.node else { return Stand { incarnation, ..Stand::default() } };
        Stand {
            incarnation,
            runs: computer.role != Role::Dead,
            synced: node.is_synced(),
            taken: node.taken_bytes(),
            suspects: node.suspects().iter().map(|s| (self.number(s.name), s.by.len())).collect(),
            late: node.late().iter().map(|(name, by)| (self.number(*name), by.len())).collect(),
            unwell: node.unwell().iter().map(|(name, ..)| self.number(*name)).collect(),
        }
    }

    fn number(&self, name: Name) -> usize {
        self.by_name[&name] + 1
    }
}
