//! Who answers: probes, suspicion, and the doubt whether it is oneself that is slow.
//!
//! Progress only, never safety (V7): what it finds steers who is asked first and what people are shown. The ideas are
//! those of SWIM and Lifeguard. Each period a machine probes one other, in a random order that comes to everybody; who
//! does not answer in time is probed through three others; who answers none of them is suspected, which is gossiped. A
//! suspect that lives refutes it under a higher number, and whoever speaks is alive at once to those who hear it.
//! Probes, answers and gossip cost each machine the same however many there are.
//!
//! | file | one idea |
//! |---|---|
//! | `probing` | whose turn it is, how long an answer may take, what its absence means |
//! | `suspicion` | who is not believed alive, on whose word, and for how long |
//! | `health` | who lives, and says that it is not well |
//! | `lateness` | who answers probes, and of whom others say that its answers about keys do not come |
//! | `telling` | what is said of others, and what of it is believed |

mod health;
mod lateness;
mod probing;
mod suspicion;
mod telling;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::mem;

use lateness::Lateness;
use probing::{Probe, WAIT};
use suspicion::Doubt;
pub use suspicion::{Standing, Suspect};

use crate::effect::{Effect, Mono, Now};
use crate::gossip::{Gossip, Health, Rumours};
use crate::local::Local;
use crate::message::Message;
use crate::rare::{Rare, met, met_if};
use crate::view::{Epoch, Machine, Name};

const MS: u64 = 1_000_000;
/// All members are looked through so seldom that it takes each the same however many there are: every probe of nine,
/// every four seconds among a thousand.
const WALK_FOR_EACH: u64 = 4 * MS;
/// A wake-up this late says that this machine stood still, or is too busy to judge others.
const LATE: u64 = 25 * MS;
/// Waits are stretched by up to one more than this.
const MAX_SLOWNESS: u64 = 8;

/// See the module's caption.
#[derive(Debug, Default)]
pub(crate) struct Detector {
    /// The view that `peers` are the members of, in its order. What is known of a machine is carried over into
    /// every view that has it: a change of the membership makes nobody alive again.
    epoch: Epoch,
    peers: Vec<Peer>,
    /// Members to probe, from the end: a random order, drawn again when all have had their turn.
    order: Vec<u32>,
    next: Option<Mono>,
    /// When one of those that it does not believe alive is probed out of turn.
    doubted_next: Mono,
    probes: Vec<Probe>,
    rumours: Rumours,
    /// Suspicions of this machine that it has refuted.
    refuted: u32,
    /// How little it may trust its own clockwork: 0 is well.
    slowness: u64,
    burst_after: Mono,
    /// When all members are looked through again.
    walk_at: Mono,
    /// When it last came back from standing still: what it knew before is old.
    awake: Mono,
    /// How this machine is, and when it last said that it is not well.
    health: Health,
    said: Mono,
    /// The number of its last word, on itself or on whom it waits for.
    word: u32,
    /// Members of whose health or answers something is kept, in order: of thousands, a few.
    noted: Vec<u32>,
    /// Something new is to be told at once.
    urgent: bool,
    /// Somebody is suspected who was not.
    lost: bool,
}

#[derive(Debug)]
struct Peer {
    machine: Machine,
    /// When it last spoke, or was heard by somebody asked to listen.
    heard: Option<Mono>,
    /// Suspicions that it has refuted, as far as is known.
    refuted: u32,
    /// Time to answer and its deviation, smoothed, in nanoseconds.
    answer: Option<(u64, u64)>,
    /// When the first probe left that it missed since it was heard.
    silent: Option<Now>,
    doubt: Option<Doubt>,
    /// How it says it is: the number of its last word, what that was, since when it is not well, and when it was heard.
    word: u32,
    health: Health,
    unwell: Option<(Now, Mono)>,
    /// Since when it has no room for values, and when that was last heard.
    full: Option<(Now, Mono)>,
    lateness: Lateness,
}

impl Peer {
    fn new(machine: Machine) -> Self {
        Self {
            machine,
            heard: None,
            refuted: 0,
            answer: None,
            silent: None,
            doubt: None,
            word: 0,
            health: Health::default(),
            unwell: None,
            full: None,
            lateness: Lateness::default(),
        }
    }
}

impl Detector {
    /// Begins, or goes on in a view that has been adopted. False if there is nobody to probe.
    pub(crate) fn is_on(&mut self, local: &mut Local, now: Now) -> bool {
        let Some(present) = local.newest() else { return false };
        let (epoch, members) = (present.view.epoch(), present.view.members().len());
        if local.tuning.probe_every == 0 || present.me.is_none() || members < 2 {
            // Who does not listen knows nothing, and remembers nothing when it begins again.
            if self.epoch != Epoch::ZERO {
                let (refuted, slowness) = (self.refuted, self.slowness);
                let (health, word) = (self.health, self.word);
                *self = Self { refuted, slowness, health, word, ..Self::default() };
                local.doubted.clear();
                local.unwell.clear();
                local.full.clear();
                local.is_unwell = health.is_unwell();
            }
            return false;
        }
        if self.epoch != epoch {
            self.go_on(local, now);
        }
        true
    }

    /// V3: takes over what is known of the machines that are in both views, and forgets the others.
    fn go_on(&mut self, local: &mut Local, now: Now) {
        let present = local.present();
        self.epoch = present.view.epoch();
        let known = mem::take(&mut self.peers);
        let before: Vec<Machine> = known.iter().map(|peer| peer.machine).collect();
        let place = |old: u32| present.index_of(*before.get(old as usize)?);
        // Both are in the order of the names: one walk along the two.
        let mut known = known.into_iter().peekable();
        for member in present.view.members() {
            while known.next_if(|peer| peer.machine.name < member.machine.name).is_some() {}
            let old = known.next_if(|peer| peer.machine == member.machine);
            let mut peer = old.unwrap_or_else(|| Peer::new(member.machine));
            if let Some(doubt) = &mut peer.doubt {
                // Only members are witnesses. With none left it is looked into anew.
                doubt.by.retain(|by| present.view.index_of(*by).is_some());
            }
            peer.doubt.take_if(|doubt| doubt.by.is_empty());
            peer.lateness.keep(|by| present.view.index_of(by).is_some());
            self.peers.push(peer);
        }
        let probes = self.probes.len();
        self.probes.retain_mut(|probe| probe.move_to(place));
        met_if(self.probes.len() < probes, Rare::DetectorForgetsAProbe);
        met_if(self.peers.iter().any(|peer| peer.doubt.is_some()), Rare::DetectorDoubtOutlivesView);
        self.order = mem::take(&mut self.order).into_iter().filter_map(place).collect();
        // Those who are new have their turn first: nobody has heard of them.
        let known = |machine: Machine| {
            before.binary_search_by_key(&machine.name, |m| m.name).is_ok_and(|i| before[i] == machine)
        };
        let new = |peer: &&Peer| peer.machine != local.me && !known(peer.machine);
        self.order.extend(self.peers.iter().filter(new).filter_map(|peer| present.index_of(peer.machine)));
        self.rumours.keep(|machine| present.index_of(machine).is_some());
        local.doubted.clear();
        let doubted = self.peers.iter().filter(|peer| peer.doubt.is_some());
        local.doubted.extend(doubted.map(|peer| peer.machine.name));
        self.noted = (0..self.peers.len() as u32).filter(|m| self.is_noted(*m)).collect();
        self.note_unwell(local);
        if self.next.is_none() {
            self.next = Some(now.mono.plus(local.up_to(local.tuning.probe_every)));
            self.order.clear();
        }
    }

    /// When it wants to be woken; at once, to begin.
    pub(crate) fn wake_at(&self, local: &Local) -> Option<Mono> {
        let present = local.newest()?;
        if local.tuning.probe_every == 0 || present.me.is_none() || present.view.members().len() < 2 {
            return None;
        }
        if self.epoch != present.view.epoch() {
            return Some(Mono::default());
        }
        self.due()
    }

    /// When a machine was last heard.
    pub(crate) fn last_heard(&self, name: Name) -> Option<Mono> {
        self.peers.iter().find(|peer| peer.machine.name == name)?.heard
    }

    /// True once for each time that somebody is suspected who was not.
    pub(crate) fn take_lost(&mut self) -> bool {
        mem::take(&mut self.lost)
    }

    // -- what is heard -------------------------------------------------------------------------------

    /// A member spoke, whatever it said: it is alive.
    pub(crate) fn heard(&mut self, local: &mut Local, now: Now, member: u32) {
        if !self.is_on(local, now) {
            return;
        }
        let peer = &mut self.peers[member as usize];
        peer.heard = Some(now.mono);
        peer.silent = None;
        if peer.doubt.is_some() {
            met(Rare::DetectorSuspectSpeaks);
            self.clear(local, member);
        }
    }

    /// The transport lost a member: it is probed now, not when its turn comes.
    pub(crate) fn on_unreachable(
        &mut self,
        local: &mut Local,
        now: Now,
        member: u32,
        effects: &mut Vec<Effect>,
    ) {
        if self.is_on(local, now) && Some(member) != local.present().me && !self.is_probing(member) {
            self.probe(local, now, member, None, effects);
        }
    }

    /// A member says something about who lives.
    pub(crate) fn on_message(
        &mut self,
        local: &mut Local,
        now: Now,
        from: u32,
        message: Message,
        effects: &mut Vec<Effect>,
    ) {
        if !self.is_on(local, now) {
            // Who does not probe still answers.
            if let Message::Probe { ask, .. } = message {
                let message = Message::Alive { ask, reached: true, gossip: Gossip::default() };
                local.send_to(from, message, None, effects);
            }
            return;
        }
        match message {
            Message::Probe { ask, gossip } => {
                self.learn(local, now, &gossip);
                self.tell(local, now, from, effects, |gossip| Message::Alive { ask, reached: true, gossip });
            }
            Message::ProbeFor { ask, whom, within, gossip } => {
                self.learn(local, now, &gossip);
                let whom = local.present().index_of(whom);
                if let Some(whom) = whom.filter(|whom| Some(*whom) != local.present().me) {
                    let within = (u64::from(within) * MS).clamp(1, WAIT.1);
                    self.probe(local, now, whom, Some((from, ask, within)), effects);
                }
            }
            Message::Alive { ask, reached, gossip } => {
                self.answered(local, now, from, ask, reached, effects);
                self.learn(local, now, &gossip);
            }
            _ => {}
        }
        self.burst(local, now, effects);
    }

    /// Probes whose turn it is, judges who has not answered.
    pub(crate) fn on_time(&mut self, local: &mut Local, now: Now, effects: &mut Vec<Effect>) {
        if !self.is_on(local, now) {
            return;
        }
        let late = self.due().map_or(0, |due| now.mono.0.saturating_sub(due.0));
        if late >= local.tuning.down_after / 2 {
            met(Rare::DetectorStoodStill);
            self.awake = now.mono;
        }
        if late >= LATE {
            self.slowness = (self.slowness + 1 + late / local.tuning.probe_every).min(MAX_SLOWNESS);
            self.wait_again(now);
        }
        self.judge_all(local, now, effects);
        if self.next.is_some_and(|next| next <= now.mono) {
            // Not all in step, however they were started.
            let every = local.tuning.probe_every;
            self.next = Some(now.mono.plus(every - every / 16 + local.up_to(every / 8)));
            if late < LATE {
                self.note_down(local, now);
            }
            if self.walk_at <= now.mono {
                self.walk_at = now.mono.plus(self.peers.len() as u64 * WALK_FOR_EACH);
                self.forget_old_words(local, now);
                if late < LATE {
                    self.judge_answers(local, now);
                }
            }
            if let Some(whom) = self.choose(local, now) {
                self.probe(local, now, whom, None, effects);
            }
        }
        self.burst(local, now, effects);
    }
}
