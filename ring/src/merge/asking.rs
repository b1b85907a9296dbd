//! What a pass asks: tellers for their next pages, machines for the values it has been told of.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{Asked, FEW, Fetch, Merge, Owned, Place, RESEND, SCAN, SCANS, TRY_AGAIN, Teller, Upto, WANTED};
use crate::digest::Beliefs;
use crate::effect::{Effect, Now, Scan};
use crate::key::Key;
use crate::local::Local;
use crate::message::{Addr, Entry, Held, Message, Purpose, TellRequest};
use crate::view::Machine;

impl Merge {
    /// Asks for whatever is missing, and again for what has not come.
    pub(super) fn ask(&mut self, local: &mut Local, now: Now, effects: &mut Vec<Effect>) {
        if let Some(asking) = &mut self.asking {
            if asking.go_on(local, now, self.purpose, effects) {
                return;
            }
            self.asking = None;
            self.ask_everybody(local);
        }
        let may_go_on = self.may_go_on(local);
        if self.scans == 0 && self.own.buffer.len() < FEW && self.own.upto != Upto::End {
            self.scans = if self.purpose == Purpose::Sync { SCANS.0 } else { SCANS.1 };
        }
        if self.scans > 0
            && self.own_scan.is_none()
            && let Upto::Key(after) = self.own.upto.clone()
        {
            let scan = Scan(local.number().0);
            self.own_scan = Some(scan);
            effects.push(Effect::Scan { scan, after, keys: SCAN.0, bytes: SCAN.1 });
        }
        for i in 0..self.tellers.len() {
            let teller = &self.tellers[i];
            if teller.out && may_go_on {
                // Left out: tried now and then, where the pass cannot go on without it.
                self.tellers[i].asked = None;
                continue;
            }
            match &teller.asked {
                Some(asked) if asked.again > now.mono => continue,
                Some(_) => {}
                None if self.not_before > now.mono || !self.is_next(teller) => continue,
                None => {
                    let asked = self.question(local, now, teller);
                    self.tellers[i].asked = Some(asked);
                }
            }
            let teller = &mut self.tellers[i];
            let Some(asked) = &mut teller.asked else { continue };
            if asked.again <= now.mono {
                asked.gap = (asked.gap * 2).min(RESEND.1);
            }
            asked.again = now.mono.plus(asked.gap);
            let message = Message::Tell { ask: asked.ask, request: asked.request.clone() };
            local.send(Addr::Machine(teller.machine), message, None, effects);
        }
        self.fetch(local, now, effects);
    }

    /// True if it should be asked for its next page: there is little left of the last one, and the machine has seen what
    /// it holds itself where that begins, and on from there.
    pub(super) fn is_next(&self, teller: &Teller) -> bool {
        let few = self.scans == 0 && teller.source.buffer.len() < FEW;
        match (&teller.source.upto, &self.own.upto) {
            (Upto::End, _) => false,
            (Upto::Key(_), Upto::End) => few,
            (Upto::Key(told), Upto::Key(seen)) => few && told < seen,
        }
    }

    /// What to ask it next: everything after what it has told, up to where the machine has seen its own keys.
    fn question(&self, local: &mut Local, now: Now, teller: &Teller) -> Asked {
        let (ask, salt) = (local.number(), local.random());
        let Upto::Key(after) = teller.source.upto.clone() else { unreachable!("it has told to the end") };
        // Or to where it has told what comes then.
        let upto = match (teller.source.later.front(), &self.own.upto) {
            (Some(later), _) => Some(later.after.clone()),
            (None, Upto::Key(seen)) => seen.clone(),
            (None, Upto::End) => None,
        };
        let (history, concern) = (local.history(), self.concern(local));
        let from = self.own.buffer.partition_point(|own| Some(&own.key) <= after.as_ref());
        let to = |own: &&Owned| upto.as_ref().is_none_or(|upto| own.key <= *upto);
        let believed = self.own.buffer.range(from..).take_while(to).filter_map(
            |Owned { key, place, record, .. }| {
                let (stamp, _, tombstone) = (*record)?;
                let Place { owners, next } = place;
                let told =
                    history.is_told(&concern, (owners, next.as_ref()), (teller.machine, &teller.track));
                let votes = history.digested(self.purpose, owners, &teller.track);
                let held = Held::Record { stamp, votes, tombstone, state: None };
                told.then(|| Entry { key: key.clone(), held })
            },
        );
        let beliefs = Beliefs::new(salt, teller.cut, believed, upto.clone(), local.rules);
        let request = TellRequest {
            purpose: self.purpose,
            after,
            // Elsewhere many tell of a key: its state is fetched from one.
            claims: beliefs.claims(matches!(self.purpose, Purpose::Ahead | Purpose::Copy)),
            salt,
            since: self.since,
            handoff: self.handoff,
            without: self.without.clone(),
        };
        let gap = if teller.out { TRY_AGAIN } else { RESEND.0 };
        Asked { ask, request: Box::new(request), beliefs, again: now.mono.plus(gap), gap }
    }

    fn fetch(&mut self, local: &mut Local, now: Now, effects: &mut Vec<Effect>) {
        for fetch in &mut self.fetches {
            if fetch.again <= now.mono {
                fetch.again = now.mono.plus((RESEND.0 << fetch.tries.min(4)).min(RESEND.1));
                fetch.tries += 1;
                let message = Message::Fetch { ask: fetch.ask, keys: fetch.keys.clone() };
                local.send(Addr::Machine(fetch.from), message, None, effects);
            }
        }
        let mut by: BTreeMap<Machine, Vec<Key>> = BTreeMap::new();
        for (key, wanted) in self.wanted.iter_mut().filter(|(_, w)| !w.asked) {
            let keys = by.entry(wanted.from).or_default();
            if keys.len() < WANTED.1 {
                keys.push(key.clone());
                wanted.asked = true;
            }
        }
        for (from, keys) in by {
            let ask = local.number();
            let message = Message::Fetch { ask, keys: keys.clone() };
            local.send(Addr::Machine(from), message, None, effects);
            self.fetches.push(Fetch { ask, from, keys, again: now.mono.plus(RESEND.0), tries: 1 });
        }
    }
}
