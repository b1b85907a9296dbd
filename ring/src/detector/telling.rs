//! What a machine says of others and believes of what they say: news on every probe, and in bursts.

use alloc::vec::Vec;
use core::mem;

use super::{Detector, MS};
use crate::effect::{Effect, Mono, Now};
use crate::gossip::{Gossip, News, Said, silence};
use crate::local::Local;
use crate::message::{Addr, Ask, Message};
use crate::rare::{Rare, met, met_if};
use crate::view::Machine;

/// Others asked to probe a machine that does not answer; others told at once of news.
const FEW: usize = 3;
/// Time between two bursts of news.
const BETWEEN_BURSTS: u64 = 20 * MS;

impl Detector {
    pub(super) fn learn(&mut self, local: &mut Local, now: Now, gossip: &Gossip) {
        for news @ News { of, refuted, said } in gossip.news() {
            // Four of five words on health were heard before, from somebody else.
            let may_repeat = matches!(said, Said::Late { .. } | Said::Health(_));
            if may_repeat && self.last.has(news) {
                continue;
            }
            let Some(member) = local.present().index_of(*of) else { continue };
            if let Said::Late { by, ms } = *said {
                self.hear_late(local, now, member, by, *refuted, ms);
                continue;
            }
            if Some(member) == local.present().me {
                if matches!(said, Said::Silent { .. }) && *refuted >= self.refuted {
                    met(Rare::DetectorRefutes);
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
                    let doubted = peer.notes.as_mut().is_some_and(|notes| {
                        notes.silent = None;
                        notes.doubt.is_some()
                    });
                    if doubted {
                        met(Rare::DetectorHearsRefutation);
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
                    met_if(peer.heard.is_some_and(|heard| heard > since.mono), Rare::DetectorKnowsBetter);
                    if peer.heard.is_none_or(|heard| heard <= since.mono) {
                        if *refuted > peer.refuted {
                            // It refuted what was said before.
                            peer.refuted = *refuted;
                            peer.notes().doubt = None;
                        }
                        self.doubt(local, member, since, by);
                    }
                }
                _ => {}
            }
        }
    }

    /// A few others at random, of those who are believed alive.
    pub(super) fn some(&self, local: &mut Local, but: Option<u32>) -> Vec<u32> {
        let (me, last) = (local.present().me, self.peers.len() as u64 - 1);
        let mut some = Vec::new();
        // Tries enough to find them where most are alive, and an end where none is.
        for _ in 0..32 {
            let member = local.up_to(last) as u32;
            let fit = Some(member) != me && Some(member) != but && !some.contains(&member);
            if fit && self.peers[member as usize].doubt().is_none() {
                some.push(member);
            }
            if some.len() == FEW {
                break;
            }
        }
        some
    }

    /// Says something to a member, and the news with it: first of all what is said of itself.
    pub(super) fn tell(
        &mut self,
        local: &mut Local,
        now: Now,
        to: u32,
        effects: &mut Vec<Effect>,
        message: impl FnOnce(Gossip) -> Message,
    ) {
        let machine: Machine = local.present().machine(to);
        let peer = &self.peers[to as usize];
        let of_it = peer.doubt().and_then(|doubt| {
            let by = *doubt.by.first()?;
            Some(silence(machine, peer.refuted, Some((by, doubt.since.mono)), now.mono))
        });
        let gossip = self.rumours.pick(of_it, self.peers.len(), now.mono);
        local.send(Addr::Machine(machine), message(gossip), None, effects);
    }

    /// Tells a few others at once what cannot wait for the next probe. They do the same, if it is news to them.
    pub(super) fn burst(&mut self, local: &mut Local, now: Now, effects: &mut Vec<Effect>) {
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
