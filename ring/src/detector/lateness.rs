//! Who answers probes, and whose answers about keys do not come: each who waits for them says so, and says when they come.
//!
//! Three who say so are believed, or all others where they are fewer; but not by one who gets answers in time himself. So
//! it is refuted by answers, and by nothing else. It steers who is asked first, and no more: nobody is dropped for it.

use alloc::vec::Vec;
use core::mem;

use super::health::{REMEMBERED, UNWELL_AGAIN, UNWELL_FOR};
use super::suspicion::{ENOUGH_WITNESSES, MAX_WITNESSES};
use super::{Detector, Peer};
use crate::effect::{Mono, Now};
use crate::gossip::Said;
use crate::local::Local;
use crate::view::Name;

/// What is known of one machine's answers.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    /// How long they take to come here, in milliseconds, and when that was last looked at and told; `None`: they come.
    here: Option<Here>,
    /// They are seen to come here as they should. Looked at where others say otherwise.
    prompt: bool,
    /// Others, who said what of them.
    others: Vec<Waits>,
}

#[derive(Debug)]
struct Here {
    ms: u32,
    /// When this machine last said so; `None`: enough others do.
    said: Option<Mono>,
}

/// The word of one who waits for a machine's answers.
#[derive(Debug)]
struct Waits {
    by: Name,
    /// Which of his words this is.
    number: u32,
    /// How long they take; 0: they come again, or this was not said again. Kept, so that an older word is known for what it
    /// is.
    ms: u32,
    heard: Mono,
}

impl Lateness {
    /// How many others wait.
    fn waiting(&self) -> usize {
        self.others.iter().filter(|wait| wait.ms > 0).count()
    }

    /// True if nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.here.is_none() && self.others.is_empty()
    }

    fn look(&mut self, local: &Local, now: Now, member: u32) {
        // What a machine sees of its own answers is no proof that they arrive.
        self.prompt = Some(member) != local.present().me && local.answers.is_prompt(now.mono, member);
    }

    /// A word that is not said again runs out. True if there was one.
    pub(super) fn forget_old_witnesses(&mut self, now: Now) -> bool {
        let mut over = false;
        for wait in &mut self.others {
            let old = wait.ms > 0 && wait.heard.plus(UNWELL_FOR) <= now.mono;
            wait.ms = if old { 0 } else { wait.ms };
            over |= old;
        }
        self.others.retain(|wait| wait.heard.plus(REMEMBERED) > now.mono);
        over
    }

    /// Only these are witnesses from now on.
    pub(super) fn keep(&mut self, is_member: impl Fn(Name) -> bool) {
        self.others.retain(|wait| is_member(wait.by));
    }
}

impl Detector {
    /// True if this machine gets no answers in time from a member, or hears so from enough others.
    pub(super) fn is_late(&self, member: u32) -> bool {
        let Some(of) = self.peers.get(member as usize).and_then(Peer::lateness) else { return false };
        let enough = ENOUGH_WITNESSES.min(self.peers.len().saturating_sub(1));
        of.here.is_some() || !of.prompt && of.waiting() >= enough
    }

    /// Members whose answers do not come, and who waits for them for how many milliseconds: the first few.
    pub(crate) fn late(&self, local: &Local) -> Vec<(Name, Vec<(Name, u32)>)> {
        let Some(present) = local.newest() else { return Vec::new() };
        let late = (0..self.peers.len() as u32).filter(|m| self.is_late(*m)).map(|m| {
            let of = self.peers[m as usize].lateness();
            let here = of.iter().flat_map(|of| &of.here).map(|here| (local.me.name, here.ms));
            let others = of.iter().flat_map(|of| &of.others).filter(|wait| wait.ms > 0);
            (self.machine(m).name, here.chain(others.map(|wait| (wait.by, wait.ms))).collect())
        });
        late.filter(|(name, _)| present.view.index_of(*name).is_some()).collect()
    }

    /// Looks whose answers are late here, and tells it.
    pub(super) fn judge_answers(&mut self, local: &mut Local, now: Now) {
        let late = local.answers.late(now.mono, self.slowness);
        // Of all others there is nothing to tell, and was not.
        for (member, _) in &late {
            self.note(*member);
        }
        for member in mem::take(&mut self.noted) {
            let ms = late.iter().find(|(m, _)| *m == member).map(|(_, ms)| *ms);
            let notes = self.peers[member as usize].notes();
            // Of who answers no probes either, worse is known already.
            let lives = notes.doubt.is_none();
            let of = &mut notes.lateness;
            of.look(local, now, member);
            let waiting = of.waiting();
            let (was, said) = (of.here.is_some(), of.here.as_ref().and_then(|here| here.said));
            // Nobody else hears of a hiccup that is over at the next look; and a few are enough to say so: all would fill
            // every message with it.
            let due = match said {
                Some(at) => ms.is_none() || lives && at.plus(UNWELL_AGAIN) <= now.mono,
                None => was && ms.is_some() && lives && waiting < ENOUGH_WITNESSES,
            };
            of.here = ms.map(|ms| Here { ms, said: if due { Some(now.mono) } else { said } });
            if due {
                let number = self.next_word(now);
                let said = Said::Late { by: local.me.name, ms: ms.unwrap_or(0) };
                self.rumours.add_health(now.mono, self.machine(member), number, said);
                self.urgent |= was != ms.is_some();
            }
            if self.is_noted(member) {
                self.noted.push(member);
            }
        }
        self.note_unwell(local);
    }

    /// Somebody waits for a member's answers, or does no more.
    pub(super) fn hear_late(
        &mut self,
        local: &mut Local,
        now: Now,
        member: u32,
        by: Name,
        number: u32,
        ms: u32,
    ) {
        // Nearly all that is heard of a machine was heard before.
        let others = self.peers[member as usize].lateness().map(|of| &of.others[..]).unwrap_or_default();
        let known = others.iter().find(|wait| wait.by == by);
        if known.map_or(ms == 0, |wait| number <= wait.number)
            || by == local.me.name
            || local.present().view.index_of(by).is_none()
        {
            return;
        }
        let was = self.is_late(member);
        let machine = self.machine(member);
        let of = &mut self.peers[member as usize].notes().lateness;
        if of.waiting() == 0 {
            of.look(local, now, member);
        }
        let others = &mut of.others;
        match others.iter_mut().find(|wait| wait.by == by) {
            Some(wait) => (wait.number, wait.ms, wait.heard) = (number, ms, now.mono),
            None => {
                if others.len() >= MAX_WITNESSES {
                    let done = (0..others.len()).filter(|at| others[*at].ms == 0);
                    let Some(oldest) = done.min_by_key(|at| others[*at].heard) else { return };
                    others.swap_remove(oldest);
                }
                others.push(Waits { by, number, ms, heard: now.mono });
            }
        }
        self.rumours.add_health(now.mono, machine, number, Said::Late { by, ms });
        self.note(member);
        self.urgent |= was != self.is_late(member);
        self.note_unwell_of(local, member);
    }
}
