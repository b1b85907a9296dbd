//! Who answers: probes, suspicion, and the doubt whether it is oneself that is slow.
//!
//! Progress only, never safety (V7): what it finds steers who is asked first and what people are shown. The ideas are
//! those of SWIM and Lifeguard. Each period a machine probes one other, in a random order that comes to everybody; who
//! does not answer in time is probed through three others; who answers none of them is suspected, which is gossiped. A
//! suspect that lives refutes it under a higher number, and whoever speaks is alive at once to those who hear it.
//! Probes, answers and gossip cost each machine the same however many there are.

use alloc::vec::Vec;
use core::mem;

use crate::effect::{Effect, Mono, Now};
use crate::gossip::{Gossip, Health, News, Rumours, Said, silence};
use crate::local::Local;
use crate::message::{Addr, Ask, Message};
use crate::view::{Epoch, Machine, Name};

const MS: u64 = 1_000_000;
/// Shortest and longest wait for an answer to a probe, before one's own slowness stretches it.
const WAIT: (u64, u64) = (50 * MS, 2_000 * MS);
/// The wait where no answer has been measured yet: there may be a handshake to make.
const FIRST_WAIT: u64 = 200 * MS;
/// Others asked to probe a machine that does not answer; others told at once of news.
const FEW: usize = 3;
/// Probes of a machine that nobody else says anything about either, before it is suspected.
const TRIES: u8 = 3;
/// A wake-up this late says that this machine stood still, or is too busy to judge others.
const LATE: u64 = 25 * MS;
/// Waits are stretched by up to one more than this.
const MAX_SLOWNESS: u64 = 8;
/// Probes remembered: those under way, and those whose answer would still tell how long answers take.
const MAX_PROBES: usize = 64;
/// How long a late answer is still measured.
const FORGET_AFTER: u64 = 10_000 * MS;
/// Machines named as not having been answered by a suspect.
const MAX_WITNESSES: usize = 8;
/// While a suspicion has fewer witnesses than this, who hears of it looks for himself.
const ENOUGH_WITNESSES: usize = 3;
/// How long a machine's word that it is unwell counts. It says so again much sooner, for as long as it is.
const UNWELL_FOR: u64 = 10_000 * MS;
/// How often it says so again.
const UNWELL_AGAIN: u64 = 2_000 * MS;
/// Time between two bursts of news.
const BETWEEN_BURSTS: u64 = 20 * MS;

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
    probes: Vec<Probe>,
    rumours: Rumours,
    /// Suspicions of this machine that it has refuted.
    refuted: u32,
    /// How little it may trust its own clockwork: 0 is well.
    slowness: u64,
    burst_after: Mono,
    /// When it last came back from standing still: what it knew before is old.
    awake: Mono,
    /// How this machine is, which of its words on that was the last, and when it said so.
    health: Health,
    word: (u32, Mono),
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
        }
    }
}

#[derive(Debug)]
struct Doubt {
    since: Now,
    by: Vec<Name>,
    down: bool,
}

#[derive(Debug)]
struct Probe {
    ask: Ask,
    whom: u32,
    sent: Now,
    /// When the first of these tries left.
    since: Now,
    tries: u8,
    /// This machine overslept its time once.
    waited_again: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Direct {
        until: Mono,
        /// Whoever asked for this probe, and under which number.
        asker: Option<(u32, Ask)>,
    },
    Indirect {
        until: Mono,
        asked: usize,
        /// Of these, so many said that they get no answer either.
        vain: usize,
    },
    /// Judged; an answer would only be measured.
    Over,
}

impl Stage {
    fn until(self) -> Option<Mono> {
        match self {
            Self::Direct { until, .. } | Self::Indirect { until, .. } => Some(until),
            Self::Over => None,
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
        let mut known = mem::take(&mut self.peers);
        let before: Vec<Machine> = known.iter().map(|peer| peer.machine).collect();
        let place = |old: u32| present.index_of(*before.get(old as usize)?);
        for member in present.view.members() {
            let old = known.iter().position(|peer| peer.machine == member.machine);
            let mut peer = old.map_or_else(|| Peer::new(member.machine), |at| known.swap_remove(at));
            if let Some(doubt) = &mut peer.doubt {
                // Only members are witnesses. With none left it is looked into anew.
                doubt.by.retain(|by| present.view.index_of(*by).is_some());
            }
            peer.doubt.take_if(|doubt| doubt.by.is_empty());
            self.peers.push(peer);
        }
        self.probes.retain_mut(|probe| {
            let Some(whom) = place(probe.whom) else { return false };
            probe.whom = whom;
            match &mut probe.stage {
                Stage::Direct { asker: Some((asker, _)), .. } => match place(*asker) {
                    Some(at) => *asker = at,
                    // Nobody waits for what comes of it.
                    None => return false,
                },
                // Helpers may have left: those who stay, or the time, decide.
                Stage::Direct { asker: None, .. } | Stage::Indirect { .. } | Stage::Over => {}
            }
            true
        });
        self.order = mem::take(&mut self.order).into_iter().filter_map(place).collect();
        // Those who are new have their turn first: nobody has heard of them.
        let new = |peer: &&Peer| peer.machine != local.me && !before.contains(&peer.machine);
        self.order.extend(self.peers.iter().filter(new).filter_map(|peer| present.index_of(peer.machine)));
        self.rumours.keep(|machine| present.index_of(machine).is_some());
        local.doubted.clear();
        let doubted = self.peers.iter().filter(|peer| peer.doubt.is_some());
        local.doubted.extend(doubted.map(|peer| peer.machine.name));
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

    fn due(&self) -> Option<Mono> {
        self.probes.iter().filter_map(|p| p.stage.until()).chain(self.next).min()
    }

    /// Members that are not believed alive.
    pub(crate) fn suspects(&self, local: &Local) -> Vec<Suspect> {
        let Some(present) = local.newest() else { return Vec::new() };
        let suspect = self.peers.iter().filter_map(|peer| {
            let Doubt { since, by, down } = peer.doubt.as_ref()?;
            // Until it has gone on in a new view, it may know machines that have left.
            present.index_of(peer.machine)?;
            let state = if *down { Standing::Down } else { Standing::Suspect };
            Some(Suspect { name: peer.machine.name, state, since: *since, by: by.clone() })
        });
        suspect.collect()
    }

    /// V7: members that have counted as down for longer than `patience`, and since when they are silent.
    ///
    /// On the word of three witnesses, or of all who are believed alive where they are fewer: one machine that is cut
    /// off from another drops nobody. Empty for a moment after this machine stood still itself: what it knew
    /// before may have been refuted while it did not listen.
    pub(crate) fn dead(&self, local: &Local, now: Now, patience: u64) -> Vec<(u32, Now)> {
        let Some(present) = local.newest() else { return Vec::new() };
        if self.epoch != present.view.epoch() || self.awake.plus(local.tuning.down_after) > now.mono {
            return Vec::new();
        }
        let alive = self.peers.iter().filter(|peer| peer.doubt.is_none()).count();
        let enough = alive.min(ENOUGH_WITNESSES);
        let dead = self.peers.iter().filter_map(|peer| {
            let Doubt { since, by, down } = peer.doubt.as_ref()?;
            let is_dead = *down && by.len() >= enough && since.mono.plus(patience) <= now.mono;
            is_dead.then_some((present.index_of(peer.machine)?, *since))
        });
        dead.collect()
    }

    /// When a machine was last heard.
    pub(crate) fn last_heard(&self, name: Name) -> Option<Mono> {
        self.peers.iter().find(|peer| peer.machine.name == name)?.heard
    }

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
    fn hear_health(&mut self, local: &mut Local, now: Now, member: u32, number: u32, health: Health) {
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

    fn note_unwell(&self, local: &mut Local) {
        local.unwell.clear();
        let unwell = self.peers.iter().filter(|peer| peer.unwell.is_some());
        local.unwell.extend(unwell.map(|peer| peer.machine.name));
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
            self.clear(local, member);
        }
    }

    fn clear(&mut self, local: &mut Local, member: u32) {
        let machine = local.present().machine(member);
        self.peers[member as usize].doubt = None;
        self.rumours.clear(machine);
        local.doubted.retain(|name| *name != machine.name);
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

    /// Somebody answers a probe, or says what came of one that was asked of him.
    fn answered(
        &mut self,
        local: &mut Local,
        now: Now,
        from: u32,
        ask: Ask,
        reached: bool,
        effects: &mut Vec<Effect>,
    ) {
        let Some(at) = self.probes.iter().position(|p| p.ask == ask) else { return };
        let probe = &mut self.probes[at];
        let whom = probe.whom;
        if from == whom {
            let took = now.mono.0.saturating_sub(probe.sent.mono.0);
            let Probe { stage, .. } = self.probes.swap_remove(at);
            let answer = &mut self.peers[whom as usize].answer;
            *answer = Some(match *answer {
                None => (took, took / 2),
                Some((mean, deviation)) => ((mean * 7 + took) / 8, (deviation * 3 + took.abs_diff(mean)) / 4),
            });
            if let Stage::Direct { asker, .. } = stage {
                self.slowness = self.slowness.saturating_sub(1);
                if let Some((to, ask)) = asker {
                    self.tell(local, now, to, effects, |gossip| Message::Alive {
                        ask,
                        reached: true,
                        gossip,
                    });
                }
            }
        } else if let Stage::Indirect { asked, vain, .. } = &mut probe.stage {
            if reached {
                probe.stage = Stage::Over;
                self.heard(local, now, whom);
            } else {
                *vain += 1;
                if *vain >= *asked {
                    let since = probe.since;
                    probe.stage = Stage::Over;
                    self.judge(local, now, whom, since, effects);
                }
            }
        }
    }

    fn learn(&mut self, local: &mut Local, now: Now, gossip: &Gossip) {
        for News { of, refuted, said } in gossip.news() {
            let Some(member) = local.present().index_of(*of) else { continue };
            if Some(member) == local.present().me {
                if matches!(said, Said::Silent { .. }) && *refuted >= self.refuted {
                    self.refuted = refuted.saturating_add(1);
                    self.rumours.add(*of, self.refuted, None);
                    self.urgent = true;
                }
                continue;
            }
            if let Said::Health(health) = *said {
                self.hear_health(local, now, member, *refuted, health);
                continue;
            }
            let peer = &mut self.peers[member as usize];
            match *said {
                Said::Alive if *refuted > peer.refuted => {
                    peer.refuted = *refuted;
                    peer.silent = None;
                    if peer.doubt.is_some() {
                        self.clear(local, member);
                        self.urgent = true;
                    }
                    self.rumours.add(*of, *refuted, None);
                }
                Said::Silent { by, age } if *refuted >= peer.refuted => {
                    let ago = u64::from(age) * MS;
                    let since = Now {
                        mono: Mono(now.mono.0.saturating_sub(ago)),
                        wall: now.wall.saturating_sub(ago),
                    };
                    // Heard here since then: whoever suspects it will hear of it too.
                    if peer.heard.is_none_or(|heard| heard <= since.mono) {
                        if *refuted > peer.refuted {
                            // It refuted what was said before.
                            peer.refuted = *refuted;
                            peer.doubt = None;
                        }
                        self.doubt(local, member, since, by);
                    }
                }
                _ => {}
            }
        }
    }

    // -- suspicion -----------------------------------------------------------------------------------

    /// This machine has no answer from a member, nor has anybody that it asked to try.
    fn judge(&mut self, local: &mut Local, now: Now, whom: u32, since: Now, effects: &mut Vec<Effect>) {
        self.doubt(local, whom, since, local.me.name);
        // It may live after all: then it should know what is said of it.
        self.tell(local, now, whom, effects, |gossip| Message::Alive { ask: Ask(0), reached: true, gossip });
    }

    fn doubt(&mut self, local: &mut Local, member: u32, since: Now, by: Name) {
        let machine = local.present().machine(member);
        let peer = &mut self.peers[member as usize];
        let own = by == local.me.name && peer.doubt.as_ref().is_some_and(|doubt| doubt.by.contains(&by));
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
                    doubt.by.push(by);
                    if since.mono < doubt.since.mono {
                        doubt.since = since;
                    }
                }
            }
            self.rumours.add(machine, peer.refuted, Some((by, since.mono)));
        }
        let witnesses = peer.doubt.as_ref().map_or(0, |doubt| doubt.by.len());
        if witnesses < ENOUGH_WITNESSES && peer.silent.is_none() {
            // Not on one machine's word: it is the next to be probed.
            self.order.retain(|m| *m != member);
            self.order.push(member);
        }
    }

    // -- probes --------------------------------------------------------------------------------------

    /// Probes whose turn it is, judges who has not answered.
    pub(crate) fn on_time(&mut self, local: &mut Local, now: Now, effects: &mut Vec<Effect>) {
        if !self.is_on(local, now) {
            return;
        }
        let late = self.due().map_or(0, |due| now.mono.0.saturating_sub(due.0));
        if late >= local.tuning.down_after / 2 {
            self.awake = now.mono;
        }
        if late >= LATE {
            // The answers may be here, unread: whoever stood still waits for them again, and blames nobody.
            self.slowness = (self.slowness + 1 + late / local.tuning.probe_every).min(MAX_SLOWNESS);
            // Once each: who is always late must still come to a judgement.
            for probe in self.probes.iter_mut().filter(|p| !p.waited_again) {
                if let Stage::Direct { until, .. } | Stage::Indirect { until, .. } = &mut probe.stage
                    && *until <= now.mono
                {
                    *until = now.mono.plus(WAIT.0);
                    probe.waited_again = true;
                }
            }
        }
        while let Some(at) =
            self.probes.iter().position(|p| p.stage.until().is_some_and(|until| until <= now.mono))
        {
            self.missed(local, now, at, effects);
        }
        if self.next.is_some_and(|next| next <= now.mono) {
            // Not all in step, however they were started.
            let every = local.tuning.probe_every;
            self.next = Some(now.mono.plus(every - every / 16 + local.up_to(every / 8)));
            self.probes.retain(|p| p.stage.until().is_some() || p.sent.mono.plus(FORGET_AFTER) > now.mono);
            if late < LATE {
                for doubt in self.peers.iter_mut().filter_map(|peer| peer.doubt.as_mut()) {
                    doubt.down |= doubt.since.mono.plus(local.tuning.down_after) <= now.mono;
                }
            }
            let mut over = false;
            for peer in &mut self.peers {
                over |= peer.unwell.take_if(|(_, heard)| heard.plus(UNWELL_FOR) <= now.mono).is_some();
            }
            if over {
                self.note_unwell(local);
            }
            if let Some(whom) = self.choose(local, now) {
                self.probe(local, now, whom, None, effects);
            }
        }
        self.burst(local, now, effects);
    }

    /// The next in the order; who has just spoken needs no probe, unless all have.
    fn choose(&mut self, local: &mut Local, now: Now) -> Option<u32> {
        let me = local.present().me?;
        let mut spoken = None;
        for _ in 0..2 {
            while let Some(member) = self.order.pop() {
                let heard = self.peers[member as usize].heard;
                if heard.is_some_and(|heard| heard.plus(local.tuning.probe_every) > now.mono) {
                    spoken = spoken.or(Some(member));
                } else if !self.is_probing(member) {
                    return Some(member);
                }
            }
            if spoken.is_some() {
                break;
            }
            self.order = (0..self.peers.len() as u32).filter(|m| *m != me).collect();
            for i in (1..self.order.len()).rev() {
                self.order.swap(i, local.up_to(i as u64) as usize);
            }
        }
        spoken
    }

    fn is_probing(&self, member: u32) -> bool {
        self.probes.iter().any(|p| p.whom == member && p.stage.until().is_some())
    }

    /// How long `member` may take to answer.
    fn wait(&self, member: u32) -> u64 {
        let usual = self.peers[member as usize].answer.map(|(mean, deviation)| mean + 4 * deviation);
        usual.unwrap_or(FIRST_WAIT).clamp(WAIT.0, WAIT.1) * (1 + self.slowness)
    }

    /// Probes a member, perhaps for somebody who gave so long.
    fn probe(
        &mut self,
        local: &mut Local,
        now: Now,
        whom: u32,
        asker: Option<(u32, Ask, u64)>,
        effects: &mut Vec<Effect>,
    ) {
        let wait = asker.map_or(self.wait(whom), |(_, _, within)| within);
        let asker = asker.map(|(asker, ask, _)| (asker, ask));
        let stage = Stage::Direct { until: now.mono.plus(wait), asker };
        self.send_probe(
            local,
            now,
            Probe { ask: Ask(0), whom, sent: now, since: now, tries: 1, waited_again: false, stage },
            effects,
        );
    }

    fn send_probe(&mut self, local: &mut Local, now: Now, mut probe: Probe, effects: &mut Vec<Effect>) {
        if self.probes.len() >= MAX_PROBES {
            match self.probes.iter().position(|p| p.stage.until().is_none()) {
                Some(over) => drop(self.probes.remove(over)),
                // Too much to do: its turn comes again, and who asked for it asks others too.
                None => return,
            }
        }
        let (ask, whom) = (local.number(), probe.whom);
        probe.ask = ask;
        self.probes.push(probe);
        self.tell(local, now, whom, effects, |gossip| Message::Probe { ask, gossip });
    }

    /// The time for an answer is over.
    fn missed(&mut self, local: &mut Local, now: Now, at: usize, effects: &mut Vec<Effect>) {
        let Probe { ask, whom, sent, since, tries, stage, .. } = self.probes[at];
        self.probes[at].stage = Stage::Over;
        let wait = self.wait(whom);
        let peer = &mut self.peers[whom as usize];
        if peer.heard.is_some_and(|heard| heard > sent.mono) {
            return;
        }
        match stage {
            Stage::Over => {}
            Stage::Direct { asker: Some((to, ask)), .. } => {
                peer.silent.get_or_insert(sent);
                self.tell(local, now, to, effects, |gossip| Message::Alive { ask, reached: false, gossip });
            }
            Stage::Direct { asker: None, .. } => {
                let suspected = peer.doubt.is_some();
                let first = *peer.silent.get_or_insert(since);
                let helpers = if suspected { Vec::new() } else { self.some(local, Some(whom)) };
                if helpers.is_empty() {
                    self.judge(local, now, whom, if suspected { since } else { first }, effects);
                    return;
                }
                let (machine, within) = (local.present().machine(whom), (wait / MS) as u32);
                for helper in &helpers {
                    self.tell(local, now, *helper, effects, |gossip| Message::ProbeFor {
                        ask,
                        whom: machine,
                        within,
                        gossip,
                    });
                }
                let until = now.mono.plus(2 * wait);
                self.probes[at].stage = Stage::Indirect { until, asked: helpers.len(), vain: 0 };
            }
            Stage::Indirect { vain: 0, .. } if tries < TRIES => {
                // Nobody answers: it may be this machine that nobody hears, or that is too slow to listen.
                self.slowness = (self.slowness + 1).min(MAX_SLOWNESS);
                let stage = Stage::Direct { until: now.mono.plus(self.wait(whom)), asker: None };
                let probe =
                    Probe { ask, whom, sent: now, since, tries: tries + 1, waited_again: false, stage };
                self.send_probe(local, now, probe, effects);
            }
            Stage::Indirect { .. } => self.judge(local, now, whom, since, effects),
        }
    }

    /// A few others at random, of those who are believed alive.
    fn some(&self, local: &mut Local, but: Option<u32>) -> Vec<u32> {
        let (me, last) = (local.present().me, self.peers.len() as u64 - 1);
        let mut some = Vec::new();
        // Tries enough to find them where most are alive, and an end where none is.
        for _ in 0..32 {
            let member = local.up_to(last) as u32;
            let fit = Some(member) != me && Some(member) != but && !some.contains(&member);
            if fit && self.peers[member as usize].doubt.is_none() {
                some.push(member);
            }
            if some.len() == FEW {
                break;
            }
        }
        some
    }

    // -- what is told --------------------------------------------------------------------------------

    /// Says something to a member, and the news with it: first of all what is said of itself.
    fn tell(
        &mut self,
        local: &mut Local,
        now: Now,
        to: u32,
        effects: &mut Vec<Effect>,
        message: impl FnOnce(Gossip) -> Message,
    ) {
        let machine: Machine = local.present().machine(to);
        let peer = &self.peers[to as usize];
        let of_it = peer.doubt.as_ref().and_then(|doubt| {
            let by = *doubt.by.first()?;
            Some(silence(machine, peer.refuted, Some((by, doubt.since.mono)), now.mono))
        });
        let gossip = self.rumours.pick(of_it, self.peers.len(), now.mono);
        local.send(Addr::Machine(machine), message(gossip), None, effects);
    }

    /// Tells a few others at once what cannot wait for the next probe. They do the same, if it is news to them.
    fn burst(&mut self, local: &mut Local, now: Now, effects: &mut Vec<Effect>) {
        if mem::take(&mut self.urgent) && self.burst_after <= now.mono {
            self.burst_after = now.mono.plus(BETWEEN_BURSTS);
            for to in self.some(local, None) {
                self.tell(local, now, to, effects, |gossip| Message::Alive {
                    ask: Ask(0),
                    reached: true,
                    gossip,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use alloc::vec;

    use super::*;
    use crate::effect::{Account, Decree, Limits};
    use crate::mutant::Rules;
    use crate::node::{Birth, PROBE_EVERY, Setup, Tuning};
    use crate::view::{ClusterId, Incarnation, Member, MemberState, View};

    const PATIENCE: u64 = 30_000 * MS;

    fn machine(i: u8) -> Machine {
        Machine { name: Name::new(([10, 0, 0, i], 9595).into()), incarnation: Incarnation::new(u64::from(i)) }
    }

    fn at(ms: u64) -> Now {
        Now { mono: Mono(ms * MS), wall: 1_700_000_000_000 * MS + ms * MS }
    }

    fn view(number: u32, of: &[u8]) -> Arc<View> {
        let member =
            |i: &u8| Member { machine: machine(*i), weight: 4, next_weight: 4, state: MemberState::Up };
        let epoch = Epoch { number, ..Epoch::FIRST };
        Arc::new(View::new(ClusterId::new(1), epoch, 9, of.iter().map(member).collect(), vec![]).unwrap())
    }

    /// Machine 1's detector, and what it needs.
    fn of_machine_1(members: &[u8]) -> (Detector, Local) {
        let setup = Setup {
            me: machine(1),
            weight: 4,
            limits: Limits::default(),
            views: vec![view(1, members)],
            account: Account::default(),
            decree: Decree::default(),
            birth: Birth::None,
            tuning: Tuning { probe_every: PROBE_EVERY, ..Tuning::default() },
            seed: 7,
            rules: Rules::default(),
        };
        (Detector::default(), Local::new(&setup, at(0)))
    }

    fn silent(of: u8, refuted: u32, by: u8, age: u32) -> Gossip {
        let said = Said::Silent { by: machine(by).name, age };
        Gossip::new([News { of: machine(of), refuted, said }])
    }

    fn told(detector: &mut Detector, local: &mut Local, now: Now, from: u8, gossip: Gossip) -> Vec<Effect> {
        let mut effects = Vec::new();
        let from = local.present().index_of(machine(from)).unwrap();
        detector.heard(local, now, from);
        let message = Message::Alive { ask: Ask(0), reached: true, gossip };
        detector.on_message(local, now, from, message, &mut effects);
        effects
    }

    /// Lets its time pass in steps, as a machine does that is well, with everybody in `alive` heard.
    fn pass(detector: &mut Detector, local: &mut Local, from: u64, to: u64, alive: &[u8]) {
        for ms in (from..to).step_by(10) {
            for i in alive {
                let member = local.present().index_of(machine(*i)).unwrap();
                detector.heard(local, at(ms), member);
            }
            detector.on_time(local, at(ms), &mut Vec::new());
        }
    }

    fn dead(detector: &Detector, local: &Local, ms: u64) -> Vec<Name> {
        let dead = detector.dead(local, at(ms), PATIENCE);
        dead.into_iter().map(|(member, _)| local.present().machine(member).name).collect()
    }

    #[test]
    fn a_view_change_carries_over_what_is_known_of_who_stays() {
        let (mut detector, mut local) = of_machine_1(&[1, 3, 5, 7, 9]);
        pass(&mut detector, &mut local, 0, 1_000, &[3, 7, 9]);
        told(&mut detector, &mut local, at(1_000), 3, silent(5, 0, 3, 500));
        told(&mut detector, &mut local, at(1_000), 7, silent(5, 0, 7, 300));
        let before = detector.suspects(&local);
        assert!(before.iter().any(|s| s.name == machine(5).name), "{before:?}");

        // Everybody's place changes, one leaves, two come.
        local.adopt(view(2, &[1, 2, 4, 5, 7, 9]), Epoch::ZERO, &mut Vec::new());
        assert_eq!(detector.suspects(&local), before, "before its first turn in it, too");
        assert_eq!(dead(&detector, &local, 1_000), []);
        pass(&mut detector, &mut local, 1_010, 1_200, &[2, 4, 7, 9]);
        let after = detector.suspects(&local);
        let [suspect] = &after[..] else { panic!("{after:?}") };
        assert_eq!(suspect.name, machine(5).name);
        assert!(suspect.since.mono <= Mono(500 * MS), "it is silent since before: {suspect:?}");
        assert!(!suspect.by.contains(&machine(3).name), "who left is no witness: {suspect:?}");
        assert!(!local.is_reachable(local.present().index_of(machine(5)).unwrap()));

        // It speaks: cleared under its new place, as under its old one.
        let five = local.present().index_of(machine(5)).unwrap();
        detector.heard(&mut local, at(1_300), five);
        assert_eq!(detector.suspects(&local), []);
        assert!(local.is_reachable(five));
    }

    #[test]
    fn a_new_incarnation_of_a_suspect_is_no_suspect() {
        let (mut detector, mut local) = of_machine_1(&[1, 2, 3, 4]);
        told(&mut detector, &mut local, at(1_000), 3, silent(2, 0, 3, 500));
        assert_eq!(detector.suspects(&local).len(), 1);
        let mut members = view(2, &[1, 2, 3, 4]).members().to_vec();
        members[1].machine.incarnation = Incarnation::new(99);
        let epoch = Epoch { number: 2, ..Epoch::FIRST };
        let next = View::new(ClusterId::new(1), epoch, 9, members, vec![]).unwrap();
        local.adopt(Arc::new(next), Epoch::ZERO, &mut Vec::new());
        assert_eq!(detector.suspects(&local), []);
        pass(&mut detector, &mut local, 1_000, 1_050, &[3, 4]);
        assert_eq!(detector.suspects(&local), []);
        assert!(local.is_reachable(1));
    }

    #[test]
    fn dead_is_who_is_down_for_longer_than_the_patience_by_three_witnesses() {
        let (mut detector, mut local) = of_machine_1(&[1, 2, 3, 4, 5]);
        let alive = [2, 3, 4];
        pass(&mut detector, &mut local, 0, 40_000, &alive);
        let [own] = &detector.suspects(&local)[..] else { panic!("{:?}", detector.suspects(&local)) };
        assert_eq!((own.state, own.by.as_slice()), (Standing::Down, &[machine(1).name][..]));
        assert_eq!(dead(&detector, &local, 40_000), [], "one witness of four that live");
        told(&mut detector, &mut local, at(40_000), 2, silent(5, 0, 2, 39_000));
        assert_eq!(dead(&detector, &local, 40_000), [], "two");
        told(&mut detector, &mut local, at(40_000), 3, silent(5, 0, 3, 1_000));
        assert_eq!(dead(&detector, &local, 40_000), [machine(5).name]);
        let since = detector.dead(&local, at(40_000), PATIENCE)[0].1;
        assert!(since.mono <= Mono(2_000 * MS), "since the first probe missed: {since:?}");
        // The patience runs from when it fell silent.
        assert_eq!(detector.dead(&local, at(40_000), 45_000 * MS), []);
    }

    #[test]
    fn where_fewer_live_all_of_them_are_witnesses() {
        let (mut detector, mut local) = of_machine_1(&[1, 2, 3]);
        pass(&mut detector, &mut local, 0, 40_000, &[2]);
        assert_eq!(dead(&detector, &local, 40_000), [], "2 lives and has not said so");
        told(&mut detector, &mut local, at(40_000), 2, silent(3, 0, 2, 38_000));
        assert_eq!(dead(&detector, &local, 40_000), [machine(3).name]);
        let (mut alone, mut local) = of_machine_1(&[1, 2]);
        pass(&mut alone, &mut local, 0, 40_000, &[]);
        assert_eq!(dead(&alone, &local, 40_000), [machine(2).name]);
    }

    #[test]
    fn who_stood_still_itself_calls_nobody_dead_until_it_has_listened() {
        let (mut detector, mut local) = of_machine_1(&[1, 2]);
        pass(&mut detector, &mut local, 0, 3_000, &[]);
        assert_eq!(detector.suspects(&local)[0].state, Standing::Down);
        // A minute under SIGSTOP.
        pass(&mut detector, &mut local, 63_000, 63_100, &[]);
        assert_eq!(dead(&detector, &local, 63_100), []);
        pass(&mut detector, &mut local, 63_100, 66_000, &[]);
        assert_eq!(dead(&detector, &local, 66_000), [machine(2).name]);
    }

    #[test]
    fn a_suspect_that_lives_refutes_it_and_is_cleared_where_it_never_spoke_itself() {
        // Machine 1 hears from 3 that 2 is silent; and 2 hears that this is said of it.
        let (mut one, mut of_one) = of_machine_1(&[1, 2, 3, 4]);
        told(&mut one, &mut of_one, at(1_000), 3, silent(2, 0, 3, 200));
        assert_eq!(one.suspects(&of_one).len(), 1);
        let (mut two, mut of_two) = of_machine_1(&[1, 2, 3, 4]);
        of_two.me = machine(2);
        of_two.present_mut().me = Some(1);
        let effects = told(&mut two, &mut of_two, at(1_000), 3, silent(2, 0, 3, 200));
        let refuted = effects.iter().find_map(|effect| match effect {
            Effect::Send { envelope, .. } => match &envelope.message {
                Message::Alive { gossip, .. } => Some(gossip.clone()),
                _ => None,
            },
            _ => None,
        });
        let refuted = refuted.expect("it says at once that it lives");
        let news = News { of: machine(2), refuted: 1, said: Said::Alive };
        assert!(refuted.news().contains(&news), "{refuted:?}");
        // By way of 4, which passes it on: 2 itself has said nothing to 1.
        told(&mut one, &mut of_one, at(1_100), 4, refuted);
        assert_eq!(one.suspects(&of_one), []);
        // What was said before is untrue from now on; what is said after it counts anew.
        told(&mut one, &mut of_one, at(1_200), 3, silent(2, 0, 3, 300));
        assert_eq!(one.suspects(&of_one), []);
        told(&mut one, &mut of_one, at(1_300), 3, silent(2, 1, 3, 10));
        assert_eq!(one.suspects(&of_one).len(), 1);
    }

    #[test]
    fn who_is_not_in_the_view_knows_nobody() {
        let (mut detector, mut local) = of_machine_1(&[1, 2, 3]);
        pass(&mut detector, &mut local, 0, 10_000, &[3]);
        assert_eq!(detector.suspects(&local).len(), 1);
        local.adopt(view(2, &[2, 3, 4]), Epoch::ZERO, &mut Vec::new());
        detector.on_time(&mut local, at(10_000), &mut Vec::new());
        local.adopt(view(3, &[1, 2, 3]), Epoch::ZERO, &mut Vec::new());
        pass(&mut detector, &mut local, 10_000, 10_010, &[3]);
        assert_eq!(detector.suspects(&local), [], "it has not listened in between");
    }
    #[test]
    fn who_is_unwell_says_so_and_is_asked_last_until_it_is_well() {
        let told_by = |effects: &[Effect]| {
            let gossip = effects.iter().find_map(|effect| match effect {
                Effect::Send { envelope, .. } => match &envelope.message {
                    Message::Alive { gossip, .. } => Some(gossip.clone()),
                    _ => None,
                },
                _ => None,
            });
            gossip.expect("it is told at once")
        };
        let (mut two, mut of_two) = of_machine_1(&[1, 2, 3, 4]);
        of_two.me = machine(2);
        of_two.present_mut().me = Some(1);
        let (mut one, mut of_one) = of_machine_1(&[1, 2, 3, 4]);
        let (stalled, well) = (Health { stalled_ms: 1_500, load: 3 }, Health::default());
        let mut effects = Vec::new();
        two.on_health(&mut of_two, at(1_000), stalled, &mut effects);
        // By way of 3, who passes it on at once.
        let passed = told(&mut one, &mut of_one, at(1_010), 3, told_by(&effects));
        assert!(told_by(&passed).news().iter().any(|news| news.said == Said::Health(stalled)), "{passed:?}");
        assert_eq!(one.unwell(&of_one), [(machine(2).name, stalled, at(1_010))]);
        assert!(!of_one.is_reachable(1));
        assert_eq!((one.suspects(&of_one).len(), dead(&one, &of_one, 90_000).len()), (0, 0), "it lives");

        // A view change does not make it well.
        of_one.adopt(view(2, &[1, 2, 3, 4, 5]), Epoch::ZERO, &mut Vec::new());
        pass(&mut one, &mut of_one, 1_020, 1_100, &[2, 3, 4, 5]);
        assert!(!of_one.is_reachable(1));

        let before = told_by(&effects);
        effects.clear();
        two.on_health(&mut of_two, at(2_000), well, &mut effects);
        told(&mut one, &mut of_one, at(2_010), 3, told_by(&effects));
        assert!(of_one.is_reachable(1) && one.unwell(&of_one).is_empty());
        told(&mut one, &mut of_one, at(2_020), 4, before);
        assert!(of_one.is_reachable(1), "an older word, late");
    }

    #[test]
    fn a_word_that_is_not_said_again_runs_out() {
        let (mut one, mut local) = of_machine_1(&[1, 2]);
        let said = Said::Health(Health { stalled_ms: 900, load: 0 });
        let gossip = Gossip::new([News { of: machine(2), refuted: 7, said }]);
        told(&mut one, &mut local, at(1_000), 2, gossip);
        assert_eq!(one.unwell(&local).len(), 1);
        pass(&mut one, &mut local, 1_000, 12_000, &[2]);
        assert!(one.unwell(&local).is_empty() && local.is_reachable(1));
    }
}
