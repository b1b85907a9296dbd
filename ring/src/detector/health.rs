//! Who says that it is not well. It steers who is asked first, and no more.

use alloc::vec::Vec;
use core::mem;

use super::{Detector, MS, Notes};
use crate::effect::{Effect, Mono, Now};
use crate::gossip::{HEALTH_FOR, Health, Said};
use crate::local::Local;
use crate::view::Name;

/// How long a machine's word that it is unwell counts. It says so again much sooner, for as long as it is.
pub(super) const UNWELL_FOR: u64 = 10_000 * MS;
/// How long it is remembered which of somebody's words was the last: several times as long as one is passed on. An older one
/// that still goes round would seem new otherwise, and be told to all again.
pub(super) const REMEMBERED: u64 = 6 * HEALTH_FOR;
/// How often it says so again.
pub(super) const UNWELL_AGAIN: u64 = 2_000 * MS;

impl Detector {
    /// Members that say they are not well, or that their disk is full: how they are, and since when.
    pub(crate) fn unwell(&self, local: &Local) -> Vec<(Name, Health, Now)> {
        let Some(present) = local.newest() else { return Vec::new() };
        let noted =
            (0..).zip(&self.peers).filter_map(|(member, peer)| Some((member, peer.notes.as_deref()?)));
        let unwell = noted.filter_map(|(member, Notes { health, unwell, full, .. })| {
            let (machine, (since, _)) = (self.machine(member), unwell.or(*full)?);
            present.index_of(machine).map(|_| (machine.name, *health, since))
        });
        unwell.collect()
    }

    /// How this machine is, as it finds itself: told to all, at once if it has changed.
    pub(crate) fn on_health(
        &mut self,
        local: &mut Local,
        now: Now,
        health: Health,
        effects: &mut Vec<Effect>,
    ) {
        let kind = |health: Health| (health.is_unwell(), health.full);
        let changed = kind(self.health) != kind(health);
        self.health = health;
        local.note_room(health.full);
        if !self.is_on(local, now) {
            local.is_unwell = health.is_unwell();
            return;
        }
        let again = kind(health) != (false, false) && self.said.plus(UNWELL_AGAIN) <= now.mono;
        if changed || again {
            self.said = now.mono;
            let number = self.next_word(now);
            self.rumours.add_health(now.mono, local.me, number, Said::Health(health));
            self.urgent |= changed;
            self.note_unwell(local);
            self.burst(local, now, effects);
        }
    }

    /// A number for this machine's next word. It rises over restarts, as a clock does; and if the clock goes back, what it
    /// said before is forgotten after a minute.
    pub(super) fn next_word(&mut self, now: Now) -> u32 {
        let seconds = u32::try_from(now.wall / (1_000 * MS)).unwrap_or(u32::MAX);
        self.word = seconds.max(self.word.saturating_add(1));
        self.word
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
        let machine = self.machine(member);
        let peer = self.peers[member as usize].notes();
        if peer.word.is_some_and(|(last, heard)| number <= last && heard.plus(REMEMBERED) > now.mono) {
            return;
        }
        (peer.word, peer.health) = (Some((number, now.mono)), health);
        let since = |word: Option<(Now, Mono)>| word.map_or(now, |(since, _)| since);
        let was = (peer.unwell.is_some(), peer.full.is_some());
        peer.full = health.full.then_some((since(peer.full), now.mono));
        peer.unwell = health.is_unwell().then_some((since(peer.unwell), now.mono));
        self.rumours.add_health(now.mono, machine, number, Said::Health(health));
        self.urgent |= was != (health.is_unwell(), health.full);
        self.note(member);
        self.note_unwell_of(local, member);
    }

    fn is_unwell(&self, member: u32) -> bool {
        let notes = self.peers[member as usize].notes.as_ref();
        notes.is_some_and(|notes| notes.unwell.is_some()) || self.is_late(member)
    }

    fn is_full(&self, member: u32) -> bool {
        self.peers[member as usize].notes.as_ref().is_some_and(|notes| notes.full.is_some())
    }

    /// Who is unwell, by his own word or by that of who waits for him: asked last from now on.
    pub(super) fn note_unwell(&self, local: &mut Local) {
        let me = local.present().me;
        let unwell = self.noted.iter().filter(|m| Some(**m) != me && self.is_unwell(**m));
        local.unwell.clear();
        local.unwell.extend(unwell.map(|m| self.machine(*m).name));
        let full = self.noted.iter().filter(|m| Some(**m) != me && self.is_full(**m));
        local.full.clear();
        local.full.extend(full.map(|m| self.machine(*m).name));
        local.is_unwell = self.health.is_unwell() || me.is_some_and(|me| self.is_late(me));
    }

    /// Something is kept of this member's health or answers: it is among those that are looked through.
    pub(super) fn note(&mut self, member: u32) {
        if let Err(at) = self.noted.binary_search(&member) {
            self.noted.insert(at, member);
        }
    }

    /// True if there is anything to look at.
    pub(super) fn is_noted(&self, member: u32) -> bool {
        let notes = self.peers[member as usize].notes.as_ref();
        notes.is_some_and(|n| n.unwell.is_some() || n.full.is_some() || !n.lateness.is_empty())
    }

    /// The same where something was said of this member alone.
    pub(super) fn note_unwell_of(&self, local: &mut Local, member: u32) {
        if Some(member) == local.present().me {
            local.is_unwell = self.health.is_unwell() || self.is_late(member);
            return;
        }
        let name = self.machine(member).name;
        keep(&mut local.unwell, name, self.is_unwell(member));
        keep(&mut local.full, name, self.is_full(member));
    }

    /// A word that is not said again runs out.
    pub(super) fn forget_old_words(&mut self, local: &mut Local, now: Now) {
        let mut over = false;
        for &member in &self.noted {
            let Some(peer) = &mut self.peers[member as usize].notes else { continue };
            over |= peer.unwell.take_if(|(_, heard)| heard.plus(UNWELL_FOR) <= now.mono).is_some();
            over |= peer.full.take_if(|(_, heard)| heard.plus(UNWELL_FOR) <= now.mono).is_some();
            over |= peer.lateness.forget_old_witnesses(now);
        }
        let noted = mem::take(&mut self.noted);
        self.noted = noted.into_iter().filter(|member| self.is_noted(*member)).collect();
        if over {
            self.note_unwell(local);
        }
    }
}

/// Has this name in the list, or not. Members are in the order of their names, and so are lists of them.
fn keep(list: &mut Vec<Name>, name: Name, is_in: bool) {
    match (list.binary_search(&name), is_in) {
        (Ok(at), false) => drop(list.remove(at)),
        (Err(at), true) => list.insert(at, name),
        _ => {}
    }
}
