//! Who is not believed alive, on whose word; who has been silent for so long that it may be dropped (V7).

use alloc::vec::Vec;

use super::{Detector, MS};
use crate::effect::{Effect, Mono, Now};
use crate::local::Local;
use crate::message::{Ask, Message};
use crate::rare::{Rare, met, met_if};
use crate::view::{Machine, Name};

/// Machines named as not having been answered by a suspect.
pub(super) const MAX_WITNESSES: usize = 8;
/// While a suspicion has fewer witnesses than this, who hears of it looks for himself.
pub(super) const ENOUGH_WITNESSES: usize = 3;
/// A probe missed so long before a silence is no part of it.
pub(super) const SAME: u64 = 5_000 * MS;

/// How a member that is not believed alive stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It answers no probes, directly or through others, and has not refuted that.
    Suspect,
    /// The same, for so long ([`Tuning::down_after`](crate::node::Tuning)) that it counts as down.
    Down,
}

/// A member that is not believed alive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Suspect {
    /// Which.
    pub name: Name,
    /// How bad it is.
    pub state: Standing,
    /// When the first probe left that it did not answer, by the clocks of the machine asked.
    pub since: Now,
    /// Whose probes it did not answer: the first few, in the order in which they were heard of.
    pub by: Vec<Name>,
}

#[derive(Debug)]
pub(super) struct Doubt {
    pub(super) since: Now,
    pub(super) by: Vec<Name>,
    pub(super) down: bool,
}

impl Doubt {
    pub(super) fn has_enough_witnesses(&self) -> bool {
        self.by.len() >= ENOUGH_WITNESSES
    }
}

impl Detector {
    /// Members that are not believed alive.
    pub(crate) fn suspects(&self, local: &Local) -> Vec<Suspect> {
        let Some(present) = local.newest() else { return Vec::new() };
        let suspect = (0..).zip(&self.peers).filter_map(|(member, peer)| {
            let Doubt { since, by, down } = peer.doubt()?;
            let machine = self.machine(member);
            // Until it has gone on in a new view, it may know machines that have left.
            present.index_of(machine)?;
            let state = if *down { Standing::Down } else { Standing::Suspect };
            Some(Suspect { name: machine.name, state, since: *since, by: by.clone() })
        });
        suspect.collect()
    }

    /// V7: members that have counted as down for longer than the patience, and that were looked at in vain once more after
    /// it. Looks at those who were not.
    ///
    /// On the word of three witnesses, or of all who are believed alive where they are fewer: one machine that is cut
    /// off from another drops nobody. Empty for a moment after this machine stood still itself: what it knew
    /// before may have been refuted while it did not listen.
    pub(crate) fn dead(&mut self, local: &mut Local, now: Now, effects: &mut Vec<Effect>) -> Vec<Machine> {
        let (mut dead, mut look_at) = (Vec::new(), Vec::new());
        let Some(present) = local.newest() else { return dead };
        if self.epoch() != present.view.epoch() || self.awake.plus(local.tuning.down_after) > now.mono {
            met(Rare::DetectorJustAwake);
            return dead;
        }
        let alive = self.peers.iter().filter(|peer| peer.doubt().is_none()).count();
        let enough = alive.min(ENOUGH_WITNESSES);
        for (member, notes) in (0..).zip(&self.peers).filter_map(|(m, peer)| Some((m, peer.notes.as_ref()?)))
        {
            let Some(Doubt { since, by, down: true }) = &notes.doubt else { continue };
            met_if(by.len() < enough, Rare::DetectorTooFewWitnesses);
            if by.len() < enough || since.mono.plus(local.tuning.patience) > now.mono {
                continue;
            }
            if notes.looked_in_vain {
                dead.push(present.machine(member));
            } else {
                look_at.push(member);
            }
        }
        self.look_once_more(local, now, look_at, effects);
        dead
    }

    /// A probe that left then was in vain, through others too.
    pub(super) fn looked(&mut self, local: &Local, whom: u32, sent: Mono) {
        let peer = &mut self.peers[whom as usize];
        if peer.is_last_look(local, sent) {
            peer.notes().looked_in_vain = true;
        }
    }

    /// This machine has no answer from a member, nor has anybody that it asked to try.
    pub(super) fn judge(
        &mut self,
        local: &mut Local,
        now: Now,
        whom: u32,
        since: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.doubt(local, whom, since, local.me.name);
        // It may live after all: then it should know what is said of it.
        self.tell(local, now, whom, effects, |gossip| Message::Alive { ask: Ask(0), reached: true, gossip });
    }

    pub(super) fn doubt(&mut self, local: &mut Local, member: u32, since: Now, by: Name) {
        let machine = local.present().machine(member);
        let refuted = self.peers[member as usize].refuted;
        let peer = self.peers[member as usize].notes();
        let own = by == local.me.name && peer.doubt.as_ref().is_some_and(|doubt| doubt.by.contains(&by));
        peer.forget_missed_before(since.mono);
        let missed = peer.silent.filter(|_| !own).map(|silent| (local.me.name, silent));
        for (by, since) in [Some((by, since)), missed].into_iter().flatten() {
            match &mut peer.doubt {
                None => {
                    peer.doubt = Some(Doubt { since, by: Vec::from([by]), down: false });
                    local.doubted.retain(|name| *name != machine.name);
                    local.doubted.push(machine.name);
                    (self.urgent, self.lost) = (true, true);
                }
                // What one says is said again, of a later probe: whoever heard the suspect after the first one that it
                // missed did not count that.
                Some(_) if own => {}
                Some(doubt) if doubt.by.contains(&by) || doubt.by.len() >= MAX_WITNESSES => continue,
                Some(doubt) => {
                    met(Rare::DetectorFurtherWitness);
                    doubt.by.push(by);
                    if since.mono < doubt.since.mono {
                        doubt.since = since;
                    }
                    // Who says the same as enough others is not news: where many fall silent, it would crowd out what is.
                    if doubt.by.len() > ENOUGH_WITNESSES {
                        continue;
                    }
                }
            }
            self.rumours.add(machine, refuted, Some((by, since.mono)));
        }
        let witnesses = peer.doubt.as_ref().map_or(0, |doubt| doubt.by.len());
        if witnesses < ENOUGH_WITNESSES && peer.silent.is_none() {
            // Not on one machine's word: it is the next to be probed.
            self.order.retain(|m| *m != member);
            self.order.push(member);
        }
    }

    /// Whoever has been suspected for long enough counts as down.
    pub(super) fn note_down(&mut self, local: &Local, now: Now) {
        let view = &local.present().view;
        for member in local.doubted.iter().filter_map(|name| view.index_of(*name)) {
            if let Some(doubt) = &mut self.peers[member].notes().doubt {
                doubt.down |= doubt.since.mono.plus(local.tuning.down_after) <= now.mono;
            }
        }
    }

    pub(super) fn clear(&mut self, local: &mut Local, member: u32) {
        let machine = local.present().machine(member);
        let notes = self.peers[member as usize].notes();
        (notes.doubt, notes.looked_in_vain) = (None, false);
        self.rumours.clear(machine);
        local.doubted.retain(|name| *name != machine.name);
    }
}
