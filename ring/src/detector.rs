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

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::mem;

use lateness::Lateness;
use probing::{Probe, WAIT};
use suspicion::{Doubt, SAME};
pub use suspicion::{Standing, Suspect};

use crate::effect::{Effect, Mono, Now};
use crate::gossip::{Gossip, Health, Last, Rumours};
use crate::local::Local;
use crate::message::Message;
use crate::rare::{Rare, met, met_if};
use crate::view::{Epoch, Machine, Name, View};

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
    view: Option<Arc<View>>,
    peers: Vec<Peer>,
    /// Members to probe, from the end: a random order, drawn again when all have had their turn.
    order: Vec<u32>,
    next: Option<Mono>,
    /// When one of those that it does not believe alive is probed out of turn.
    doubted_next: Mono,
    probes: Vec<Probe>,
    rumours: Rumours,
    last: Last,
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

/// A member: what nearly every message touches, in few bytes. A large ring has thousands, and one machine hears them all in turn.
#[derive(Debug, Default)]
struct Peer {
    /// When it last spoke, or was heard by somebody asked to listen.
    heard: Option<Mono>,
    /// Suspicions that it has refuted, as far as is known.
    refuted: u32,
    /// Time to answer and its deviation, smoothed, in nanoseconds: up to four seconds.
    answer: Option<(u32, u32)>,
    /// What there is of few members.
    notes: Option<Box<Notes>>,
}

/// What is kept of a member that has not been well all the time.
#[derive(Debug, Default)]
struct Notes {
    /// When the first probe left that it missed since it was heard.
    silent: Option<Now>,
    doubt: Option<Doubt>,
    /// How it says it is: the number of its last word and when it was heard, what that was, since when it is not well, and
    /// when that was heard.
    word: Option<(u32, Mono)>,
    health: Health,
    unwell: Option<(Now, Mono)>,
    /// Since when it has no room for values, and when that was last heard.
    full: Option<(Now, Mono)>,
    lateness: Lateness,
    /// V7: this machine looked once more after the patience, through others too, and nobody reaches it.
    looked_in_vain: bool,
}

impl Notes {
    fn is_empty(&self) -> bool {
        let Self { silent, doubt, word, health: _, unwell, full, lateness, looked_in_vain } = self;
        (silent.is_none() && doubt.is_none() && !looked_in_vain && word.is_none())
            && (unwell.is_none() && full.is_none() && lateness.is_empty())
    }

    /// A probe that left then was not answered. Since when it misses them.
    fn missed(&mut self, sent: Now) -> Now {
        self.forget_missed_before(sent.mono);
        *self.silent.get_or_insert(sent)
    }

    /// What was missed long before is no part of a silence: nobody knows whether it spoke in between.
    fn forget_missed_before(&mut self, since: Mono) {
        self.silent.take_if(|silent| silent.mono.plus(SAME) < since);
    }
}

impl Peer {
    fn notes(&mut self) -> &mut Notes {
        self.notes.get_or_insert_default()
    }

    fn doubt(&self) -> Option<&Doubt> {
        self.notes.as_ref()?.doubt.as_ref()
    }

    fn lateness(&self) -> Option<&Lateness> {
        Some(&self.notes.as_ref()?.lateness)
    }

    /// V7: a probe that left then is the look after which it may be dropped.
    fn is_last_look(&self, local: &Local, sent: Mono) -> bool {
        self.notes.as_ref().is_some_and(|notes| {
            let over = notes.doubt.as_ref().map(|doubt| doubt.since.mono.plus(local.tuning.patience));
            !notes.looked_in_vain && over.is_some_and(|over| over <= sent)
        })
    }
}

impl Detector {
    /// Begins, or goes on in a view that has been adopted. False if there is nobody to probe.
    pub(crate) fn is_on(&mut self, local: &mut Local, now: Now) -> bool {
        let Some(present) = local.newest() else { return false };
        let (epoch, members) = (present.view.epoch(), present.view.members().len());
        if local.tuning.probe_every == 0 || present.me.is_none() || members < 2 {
            // Who does not listen knows nothing, and remembers nothing when it begins again.
            if self.view.is_some() {
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
        if self.epoch() != epoch {
            self.go_on(local, now);
        }
        true
    }

    /// V3: takes over what is known of the machines that are in both views, and forgets the others.
    fn go_on(&mut self, local: &mut Local, now: Now) {
        let present = local.present();
        let former = self.view.replace(present.view.clone());
        let before = former.as_ref().map_or(&[][..], |view| view.members());
        let known = mem::take(&mut self.peers);
        let mut places = vec![None; known.len()];
        // Both are in the order of the names: one walk along the two.
        let mut known = (0..).zip(before).zip(known).peekable();
        let mut new = Vec::new();
        for (at, member) in (0..).zip(present.view.members()) {
            while known.next_if(|((_, former), _)| former.machine.name < member.machine.name).is_some() {}
            let Some(((place, _), mut peer)) =
                known.next_if(|((_, former), _)| former.machine == member.machine)
            else {
                new.push(at);
                self.peers.push(Peer::default());
                continue;
            };
            places[place] = Some(at);
            if let Some(notes) = &mut peer.notes {
                // Only members are witnesses. With none left it is looked into anew.
                let is_member = |by| present.view.index_of(by).is_some();
                notes.doubt.take_if(|doubt| {
                    doubt.by.retain(|by| is_member(*by));
                    doubt.by.is_empty()
                });
                notes.lateness.keep(is_member);
            }
            peer.notes.take_if(|notes| notes.is_empty());
            self.peers.push(peer);
        }
        let place = |old: u32| places.get(old as usize).copied().flatten();
        let probes = self.probes.len();
        self.probes.retain_mut(|probe| probe.move_to(place));
        met_if(self.probes.len() < probes, Rare::DetectorForgetsAProbe);
        met_if(self.peers.iter().any(|peer| peer.doubt().is_some()), Rare::DetectorDoubtOutlivesView);
        self.order = mem::take(&mut self.order).into_iter().filter_map(place).collect();
        new.retain(|member| Some(*member) != present.me);
        // Of a machine that was no member it took nothing in.
        self.last = Last::default();
        self.rumours.keep(|machine| present.index_of(machine).is_some());
        let doubted = present.view.members().iter().zip(&self.peers);
        let doubted = doubted.filter(|(_, peer)| peer.doubt().is_some());
        local.doubted = doubted.map(|(member, _)| member.machine.name).collect();
        self.noted = (0..self.peers.len() as u32).filter(|m| self.is_noted(*m)).collect();
        self.note_unwell(local);
        if self.next.is_none() {
            self.next = Some(now.mono.plus(local.up_to(local.tuning.probe_every)));
            self.order.clear();
            return;
        }
        // Those who are new have a turn among the others, whose order may last for minutes: nobody would look at one that dies
        // soon after it came. And the first turn: nobody has heard of them.
        for &member in &new {
            let at = local.up_to(self.order.len() as u64) as usize;
            self.order.insert(at, member);
        }
        self.order.extend(new);
    }

    /// Of the view that it goes by.
    fn epoch(&self) -> Epoch {
        self.view.as_ref().map_or(Epoch::ZERO, |view| view.epoch())
    }

    /// The member at this place in it.
    fn machine(&self, member: u32) -> Machine {
        self.view.as_ref().expect("it has members").members()[member as usize].machine
    }

    /// When it wants to be woken; at once, to begin.
    pub(crate) fn wake_at(&self, local: &Local) -> Option<Mono> {
        let present = local.newest()?;
        if local.tuning.probe_every == 0 || present.me.is_none() || present.view.members().len() < 2 {
            return None;
        }
        if self.epoch() != present.view.epoch() {
            return Some(Mono::default());
        }
        self.due()
    }

    /// When a machine was last heard.
    pub(crate) fn last_heard(&self, name: Name) -> Option<Mono> {
        self.peers[self.view.as_ref()?.index_of(name)?].heard
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
        if let Some(notes) = &mut peer.notes {
            notes.silent = None;
            if notes.doubt.is_some() {
                met(Rare::DetectorSuspectSpeaks);
                self.clear(local, member);
            }
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
