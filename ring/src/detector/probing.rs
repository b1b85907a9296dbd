//! Probes: whose turn it is, how long an answer may take, what its absence means.

use alloc::vec::Vec;

use super::suspicion::Doubt;
use super::{Detector, MAX_SLOWNESS, MS};
use crate::effect::{Effect, Mono, Now};
use crate::local::Local;
use crate::message::{Ask, Message};
use crate::rare::{Rare, met};

/// Shortest and longest wait for an answer to a probe, before one's own slowness stretches it.
pub(super) const WAIT: (u64, u64) = (50 * MS, 2_000 * MS);
/// The wait where no answer has been measured yet: there may be a handshake to make.
const FIRST_WAIT: u64 = 200 * MS;
/// Probes of a machine that nobody else says anything about either, before it is suspected.
const TRIES: u8 = 3;
/// Probes remembered: those under way, and those whose answer would still tell how long answers take.
const MAX_PROBES: usize = 64;
/// Of these, so many may be the last looks at machines that are about to be dropped.
const LOOKS: usize = 16;
/// How long a late answer is still measured.
const FORGET_AFTER: u64 = 10_000 * MS;

/// How often one of those that are not believed alive is probed, where their turn would come later. Who stood still while a
/// suspicion was refuted hears of that from nobody, and would hold on to it until then: minutes among a thousand.
const DOUBTED_AGAIN: u64 = 5_000 * MS;

#[derive(Debug)]
pub(super) struct Probe {
    ask: Ask,
    whom: u32,
    sent: Now,
    /// When the first of these tries left.
    since: Now,
    tries: u8,
    /// How long the answer may take.
    wait: u64,
    /// This machine overslept its time once.
    waited_again: bool,
    stage: Stage,
}

impl Probe {
    fn new(whom: u32, now: Now, wait: u64, asker: Option<(u32, Ask)>) -> Self {
        let stage = Stage::Direct { until: now.mono.plus(wait), asker };
        // Its number comes when it is sent.
        let ask = Ask(0);
        Self { ask, whom, sent: now, since: now, tries: 1, wait, waited_again: false, stage }
    }

    /// In a new view everybody's place is another. False if nobody waits any more for what comes of it.
    pub(super) fn move_to(&mut self, place: impl Fn(u32) -> Option<u32>) -> bool {
        let Some(whom) = place(self.whom) else { return false };
        self.whom = whom;
        match &mut self.stage {
            Stage::Direct { asker: Some((asker, _)), .. } => match place(*asker) {
                Some(at) => *asker = at,
                None => return false,
            },
            // Helpers may have left: those who stay, or the time, decide.
            Stage::Direct { asker: None, .. } | Stage::Indirect { .. } | Stage::Over => {}
        }
        true
    }
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
    pub(super) fn due(&self) -> Option<Mono> {
        self.probes.iter().filter_map(|p| p.stage.until()).chain(self.next).min()
    }

    /// The answers may be here, unread: whoever stood still waits for them again, and blames nobody.
    pub(super) fn wait_again(&mut self, now: Now) {
        // Once each: who is always late must still come to a judgement.
        for probe in self.probes.iter_mut().filter(|p| !p.waited_again) {
            if let Stage::Direct { until, .. } | Stage::Indirect { until, .. } = &mut probe.stage
                && *until <= now.mono
            {
                met(Rare::DetectorOverslept);
                *until = now.mono.plus(WAIT.0);
                probe.waited_again = true;
            }
        }
    }

    /// Judges who has not answered in time.
    pub(super) fn judge_all(&mut self, local: &mut Local, now: Now, effects: &mut Vec<Effect>) {
        while let Some(at) =
            self.probes.iter().position(|p| p.stage.until().is_some_and(|until| until <= now.mono))
        {
            self.missed(local, now, at, effects);
        }
        self.probes.retain(|p| p.stage.until().is_some() || p.sent.mono.plus(FORGET_AFTER) > now.mono);
    }

    /// The next in the order; who has just spoken needs no probe, unless all have.
    pub(super) fn choose(&mut self, local: &mut Local, now: Now) -> Option<u32> {
        let me = local.present().me?;
        if let Some(member) = self.choose_doubted(local, now) {
            return Some(member);
        }
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

    fn choose_doubted(&mut self, local: &mut Local, now: Now) -> Option<u32> {
        let round = self.peers.len() as u64 * local.tuning.probe_every;
        if local.doubted.is_empty() || round <= DOUBTED_AGAIN || self.doubted_next > now.mono {
            return None;
        }
        self.doubted_next = now.mono.plus(DOUBTED_AGAIN);
        let any = local.up_to(local.doubted.len() as u64 - 1) as usize;
        let member = local.present().view.index_of(local.doubted[any])? as u32;
        (!self.is_probing(member)).then_some(member)
    }

    pub(super) fn is_probing(&self, member: u32) -> bool {
        self.probes.iter().any(|p| p.whom == member && p.stage.until().is_some())
    }

    /// How long `member` may take to answer.
    pub(super) fn wait(&self, member: u32) -> u64 {
        let usual = self.peers[member as usize].answer;
        let usual = usual.map(|(mean, deviation)| u64::from(mean) + 4 * u64::from(deviation));
        usual.unwrap_or(FIRST_WAIT).clamp(WAIT.0, WAIT.1) * (1 + self.slowness)
    }

    /// Probes a member, perhaps for somebody who gave so long.
    pub(super) fn probe(
        &mut self,
        local: &mut Local,
        now: Now,
        whom: u32,
        asker: Option<(u32, Ask, u64)>,
        effects: &mut Vec<Effect>,
    ) {
        let wait = asker.map_or(self.wait(whom), |(_, _, within)| within);
        let probe = Probe::new(whom, now, wait, asker.map(|(asker, ask, _)| (asker, ask)));
        self.send_probe(local, now, probe, effects);
    }

    /// V7: looks once more at those who are about to be dropped, a few at a time.
    pub(super) fn look_once_more(
        &mut self,
        local: &mut Local,
        now: Now,
        at: Vec<u32>,
        effects: &mut Vec<Effect>,
    ) {
        let (under_way, waiting): (Vec<u32>, Vec<u32>) = at.into_iter().partition(|m| self.is_probing(*m));
        for member in waiting.into_iter().take(LOOKS.saturating_sub(under_way.len())) {
            met(Rare::DetectorLooksOnceMore);
            self.probe(local, now, member, None, effects);
        }
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

    /// Somebody answers a probe, or says what came of one that was asked of him.
    pub(super) fn answered(
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
            let Probe { stage, sent, wait, .. } = self.probes.swap_remove(at);
            // Who stood still for seconds is not that far away: if it is, the next answers tell.
            let took = now.mono.0.saturating_sub(sent.mono.0).min(wait);
            let answer = &mut self.peers[whom as usize].answer;
            let took = u32::try_from(took).unwrap_or(u32::MAX);
            *answer = Some(match *answer {
                None => (took, took / 2),
                Some((mean, deviation)) => {
                    let off = took.abs_diff(mean);
                    (mean - mean / 8 + took / 8, deviation - deviation / 4 + off / 4)
                }
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
                met(Rare::DetectorReachedThroughAnother);
                probe.stage = Stage::Over;
                self.heard(local, now, whom);
            } else {
                *vain += 1;
                if *vain >= *asked {
                    met(Rare::DetectorNobodyReachesIt);
                    let (since, sent) = (probe.since, probe.sent);
                    probe.stage = Stage::Over;
                    self.looked(local, whom, sent.mono);
                    self.judge(local, now, whom, since, effects);
                }
            }
        }
    }

    /// The time for an answer is over.
    fn missed(&mut self, local: &mut Local, now: Now, at: usize, effects: &mut Vec<Effect>) {
        let Probe { ask, whom, sent, since, tries, stage, .. } = self.probes[at];
        self.probes[at].stage = Stage::Over;
        let wait = self.wait(whom);
        let peer = &mut self.peers[whom as usize];
        if peer.heard.is_some_and(|heard| heard > sent.mono) {
            met(Rare::DetectorHeardOtherwise);
            return;
        }
        match stage {
            Stage::Over => {}
            Stage::Direct { asker: Some((to, ask)), .. } => {
                peer.notes().missed(sent);
                self.tell(local, now, to, effects, |gossip| Message::Alive { ask, reached: false, gossip });
            }
            Stage::Direct { asker: None, .. } => {
                let suspected = peer.doubt().is_some();
                let first = peer.notes().missed(since);
                // Who is doubted by enough is not asked for through others as well, but to drop it.
                let known = peer.doubt().is_some_and(Doubt::has_enough_witnesses);
                let known = known && !peer.is_last_look(local, sent.mono);
                let helpers = if known { Vec::new() } else { self.some(local, Some(whom)) };
                if helpers.is_empty() {
                    self.looked(local, whom, sent.mono);
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
                met(Rare::DetectorDoubtsItself);
                // Nobody answers: it may be this machine that nobody hears, or that is too slow to listen.
                self.slowness = (self.slowness + 1).min(MAX_SLOWNESS);
                let wait = self.wait(whom);
                let again = Probe { since, tries: tries + 1, ..Probe::new(whom, now, wait, None) };
                self.send_probe(local, now, again, effects);
            }
            Stage::Indirect { vain, .. } => {
                // To drop somebody, others must have said that they get no answer either.
                if vain > 0 {
                    self.looked(local, whom, sent.mono);
                }
                self.judge(local, now, whom, since, effects);
            }
        }
    }
}
