//! Who lists: one pass over all keys after the other. Each key of a pass is judged like a read that lasted as long as
//! the pass: also one that is not in it, which then had no value (L1 to L4).

use std::collections::BTreeMap;
use std::rc::Rc;

use ennead_ring::gathering::{Heard, Next, Verdict};
use ennead_ring::message::{Ask, Envelope, ListRequest, ListValue, Message};
use ennead_ring::{Gathering, Key, Name, may_be_lost};
use rand::RngExt;

use crate::checker::{Call, Op, Reply};
use crate::client::value_of;
use crate::events::Event;
use crate::views::Seen;
use crate::world::World;
use crate::{MS, SEC};

/// Passes of a run: each adds to every key's history, which has to be judged.
const PASSES: u32 = 25;
/// How long a pass may take before it is given up.
const LONGEST: u64 = 20 * SEC;

/// The one that lists.
#[derive(Default)]
pub(crate) struct Lister {
    passes: u32,
    pass: Option<Pass>,
    /// Tells a timer that is still wanted from one that is not.
    token: u64,
}

struct Pass {
    ask: Ask,
    /// Its place in the order of events.
    start: u64,
    begun: u64,
    seen: Rc<Seen>,
    gathering: Gathering,
    /// Keys that nothing has been told of yet.
    open: BTreeMap<Key, usize>,
}

impl World {
    /// Its number among the clients.
    pub(crate) fn lister_number(&self) -> usize {
        self.clients.len()
    }

    fn lister_timer(&mut self, after: u64) {
        let Some(lister) = &mut self.lister else { return };
        lister.token += 1;
        let (client, token) = (self.clients.len(), lister.token);
        self.schedule(after, Event::Client { client, token });
    }

    /// Lets it begin, after a pause.
    pub(crate) fn lister_start(&mut self) {
        if self.lister.is_none() {
            return;
        }
        // In a scenario, all along: what befalls the cluster befalls some of them.
        let most = match self.profile.endless {
            true => 2 * self.profile.span / u64::from(PASSES),
            false => self.profile.think + 50 * MS,
        };
        let pause = self.rng.random_range(0..=most);
        self.lister_timer(pause);
    }

    /// Its timer went off: the next pass, or whoever has not told is asked again.
    pub(crate) fn lister_wakes(&mut self, token: u64) {
        let Some(lister) = &mut self.lister else { return };
        if lister.token != token {
            return;
        }
        if lister.pass.as_ref().is_some_and(|pass| pass.begun + LONGEST < self.now) {
            lister.pass = None;
            *self.probes.entry("listing given up").or_default() += 1;
        }
        let Some(newest) = self.views.newest.clone() else { return self.lister_timer(100 * MS) };
        let (passes, under_way) = (lister.passes, lister.pass.is_some());
        if !under_way {
            if passes >= PASSES || !self.faulty {
                return;
            }
            self.begin_pass(newest);
        } else if let Some(pass) = self.lister.as_mut().and_then(|lister| lister.pass.as_mut())
            && newest.epoch() > pass.seen.epoch()
        {
            // L4.
            pass.gathering = Gathering::with_rules(
                newest.view.clone(),
                b"",
                pass.gathering.done().cloned(),
                self.profile.rules,
            );
            pass.seen = newest;
            *self.probes.entry("listing in two views").or_default() += 1;
        }
        self.lister_asks();
        let wait = self.rng.random_range(MS..=self.profile.patience.max(2 * MS));
        self.lister_timer(wait);
    }

    fn begin_pass(&mut self, seen: Rc<Seen>) {
        self.last_ask += 1;
        let (ask, start) = (Ask(self.last_ask), self.stamp());
        let gathering = Gathering::with_rules(seen.view.clone(), b"", None, self.profile.rules);
        let open = self.keys.iter().cloned().zip(0..).collect();
        let pass = Pass { ask, start, begun: self.now, seen, gathering, open };
        if let Some(lister) = &mut self.lister {
            lister.passes += 1;
            lister.pass = Some(pass);
        }
    }

    /// Asks some of those whose next page is wanted.
    fn lister_asks(&mut self) {
        let Some(pass) = self.lister.as_ref().and_then(|lister| lister.pass.as_ref()) else { return };
        let members = pass.seen.view.members().iter().enumerate().filter(|(_, m)| m.in_ring());
        let wanted: Vec<(Name, Option<Key>)> =
            members.filter_map(|(i, m)| Some((m.machine.name, pass.gathering.wants(i as u32)?))).collect();
        let (ask, cluster, epoch) = (pass.ask, pass.seen.view.cluster(), pass.seen.epoch());
        for (name, after) in wanted {
            if self.rng.random_bool(0.2) {
                continue;
            }
            let request = ListRequest {
                after,
                prefix: Vec::new(),
                bytes: 1,
                within: (self.profile.patience / MS).max(1) as u32,
                values: Some(Vec::new()),
            };
            let message = Message::List { ask, request: Box::new(request) };
            let envelope = Envelope { cluster: Some(cluster), epoch, message };
            let (number, to) = (self.lister_number(), self.by_name[&name]);
            self.send_from_client(number, to, envelope);
        }
    }

    /// Something arrived for it.
    pub(crate) fn lister_hears(&mut self, from: Name, envelope: Envelope) {
        let Message::Listed { ask, page } = envelope.message else { return };
        let Some(pass) = self.lister.as_mut().and_then(|lister| lister.pass.as_mut()) else { return };
        let Some(member) = pass.seen.view.index_of(from).filter(|_| pass.ask == ask) else { return };
        let heard = pass.gathering.hear(member as u32, envelope.epoch, *page);
        if heard == Heard::Malformed {
            return self.fail("a machine told a page that cannot be".to_owned());
        }
        let over = self.lister_counts();
        if over
            && let Some(lister) = &mut self.lister
            && let Some(pass) = lister.pass.take()
        {
            *self.probes.entry("listed").or_default() += 1;
            let view = &pass.seen.view;
            let machines = view.members().iter().filter(|m| m.in_ring()).count();
            if pass.gathering.silent().len() > may_be_lost(machines, view.slots()) {
                *self.probes.entry("listed without more than any that may be lost").or_default() += 1;
            }
            return self.lister_start();
        }
        if heard == Heard::Taken {
            self.lister_asks();
        }
    }

    /// Notes what the pages come to; true at the end of the pass.
    fn lister_counts(&mut self) -> bool {
        let (who, end) = (self.lister_number() as u32, self.stamp());
        let Some(pass) = self.lister.as_mut().and_then(|lister| lister.pass.as_mut()) else { return false };
        let start = pass.start;
        let (mut told, mut left) = (Vec::new(), Vec::new());
        let over = loop {
            match pass.gathering.next() {
                Next::Key(key, verdict) => {
                    // Nobody told of those before it.
                    let beyond = pass.open.split_off(&key);
                    let passed = std::mem::replace(&mut pass.open, beyond);
                    told.extend(passed.into_values().map(|place| (place, Reply::Nothing(None))));
                    let Some(place) = pass.open.remove(&key) else { continue };
                    match reply(verdict, self.profile.is_counter(place)) {
                        Ok(reply) => told.push((place, reply)),
                        Err(why) => left.push(why),
                    }
                }
                Next::Wait => {
                    let done = pass.gathering.done().cloned();
                    pass.open.retain(|key, place| {
                        let passed = Some(key) <= done.as_ref();
                        if passed {
                            told.push((*place, Reply::Nothing(None)));
                        }
                        !passed
                    });
                    break false;
                }
                Next::End => {
                    let rest = std::mem::take(&mut pass.open);
                    told.extend(rest.into_values().map(|place| (place, Reply::Nothing(None))));
                    break true;
                }
            }
        };
        for why in left {
            *self.probes.entry(why).or_default() += 1;
        }
        for (place, reply) in told {
            self.histories[place].push(Op { who, call: Call::Get, reply, start, end });
        }
        over
    }
}

/// What a read would have told; or why it takes a read to tell.
fn reply(verdict: Verdict, counter: bool) -> Result<Reply, &'static str> {
    match verdict {
        Verdict::Settled(record) => match record.value {
            ListValue::Whole(value) => Ok(Reply::Found(value_of(&value, counter), record.version)),
            // Whoever was to tell the value is silent.
            ListValue::Bytes(_) | ListValue::None => Err("listed without its value"),
        },
        Verdict::None => Ok(Reply::Nothing(None)),
        Verdict::Unclear => Err("listed and unclear"),
    }
}
