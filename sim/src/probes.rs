//! Rare states that a run has met: those of the world, noted as they are seen, and the turns of the protocol.

use std::collections::BTreeMap;

use ennead_ring::rare;

use crate::world::World;

/// A run begins: what others on this thread have met is not its.
pub(super) fn forget_rare() {
    rare::take().for_each(drop);
}

impl World {
    /// Something rare happened.
    pub(super) fn met(&mut self, what: &'static str) {
        *self.probes.entry(what).or_default() += 1;
    }

    /// All that it has met, and how often.
    pub(super) fn rare(&mut self) -> BTreeMap<&'static str, u64> {
        let mut met: BTreeMap<_, _> = self.probes.drain().collect();
        met.extend(rare::take().map(|(turn, times)| (turn.name(), times)));
        met
    }
}
