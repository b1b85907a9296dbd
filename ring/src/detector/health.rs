//! Who says that it is not well. It steers who is asked first, and no more.

use alloc::vec::Vec;

use super::{Detector, MS};
use crate::effect::{Effect, Now};
use crate::gossip::Health;
use crate::local::Local;
use crate::view::Name;

/// How long a machine's word that it is unwell counts. It says so again much sooner, for as long as it is.
const UNWELL_FOR: u64 = 10_000 * MS;
/// How often it says so again.
const UNWELL_AGAIN: u64 = 2_000 * MS;

impl Detector {
    /// Members that say they are not well, how they are, and since when. It steers who is asked first, and no more.
    pub(crate) fn unwell(&self, local: &Local) -> Vec<(Name, Health, Now)> {
        let Some(present) = local.newest() else { return Vec::new() };
        let unwell = self.peers.iter().filter(|peer| present.index_of(peer.machine).is_some());
        unwell.filter_map(|peer| Some((peer.machine.name, peer.health, peer.unwell?.0))).collect()
    }

    /// How this machine is, as it finds itself: told to all, at once if it has changed.
    pub(crate) fn on_health(
        &mut self,
        local: &mut Local,
        now: Now,
        health: Health,
        effects: &mut Vec<Effect>,
    ) {
        let changed = self.health.is_unwell() != health.is_unwell();
        self.health = health;
        if !self.is_on(local, now) {
            return;
        }
        let again = health.is_unwell() && self.word.1.plus(UNWELL_AGAIN) <= now.mono;
        if changed || again {
            // Rises over restarts, as a clock does; and if the clock goes back, its word that it is unwell runs out.
            let seconds = u32::try_from(now.wall / (1_000 * MS)).unwrap_or(u32::MAX);
            self.word = (seconds.max(self.word.0.saturating_add(1)), now.mono);
            self.rumours.add_health(local.me, self.word.0, health);
            self.urgent |= changed;
            self.burst(local, now, effects);
        }
    }

    /// A member's own word on how it is, maybe passed on by others.
    pub(super) fn hear_health(
        &mut self,
        local: &mut Local,
        now: Now,
        member: u32,
        number: u32,
        health: Health,
    ) {
        let peer = &mut self.peers[member as usize];
        let old = peer.unwell.is_some_and(|(_, heard)| heard.plus(UNWELL_FOR) <= now.mono);
        if number <= peer.word && !old {
            return;
        }
        (peer.word, peer.health) = (number, health);
        let since = peer.unwell.map_or(now, |(since, _)| since);
        let was = peer.unwell.is_some();
        peer.unwell = health.is_unwell().then_some((since, now.mono));
        self.rumours.add_health(peer.machine, number, health);
        self.urgent |= was != health.is_unwell();
        self.note_unwell(local);
    }

    pub(super) fn note_unwell(&self, local: &mut Local) {
        local.unwell.clear();
        let unwell = self.peers.iter().filter(|peer| peer.unwell.is_some());
        local.unwell.extend(unwell.map(|peer| peer.machine.name));
    }

    /// A word that is not said again runs out.
    pub(super) fn forget_old_words(&mut self, local: &mut Local, now: Now) {
        let mut over = false;
        for peer in &mut self.peers {
            over |= peer.unwell.take_if(|(_, heard)| heard.plus(UNWELL_FOR) <= now.mono).is_some();
        }
        if over {
            self.note_unwell(local);
        }
    }
}
