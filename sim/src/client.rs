//! Who calls: one call at a time, the same request id in every retry, and a note of what was told.
//!
//! Like the real one (`src/client/`) it computes owners by the newest view that it knows, and asks for a newer one when
//! an answer bears a higher epoch or two tries fail (section 12).

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use ennead_ring::message::{
    Answer, Ask, Change, Condition, Copied, Envelope, Found, Message, Op as Wish, Outcome, Write,
};
use ennead_ring::{Epoch, Hlc, Name, Reader, RequestId, number};
use rand::RngExt;

use crate::checker::{Call, If, Op, Reply};
use crate::counting;
use crate::events::Event;
use crate::faults::log_uniform;
use crate::report::{Called, said};
use crate::views::Seen;
use crate::world::World;
use crate::{MS, SEC};

/// Machines of a large cluster that are asked for a newer view.
const ASKED: usize = 16;
/// How long until a view that nobody told is asked for again.
const ASK_AGAIN: u64 = 300 * MS;

/// One client.
pub(crate) struct Client {
    /// Calls it has yet to make of its own choice.
    pub(crate) left: u32,
    /// Calls it was told to make; each must succeed.
    pub(crate) script: VecDeque<(usize, Script)>,
    pub(crate) scripted: bool,
    skew: i64,
    last_time: Hlc,
    /// Tells a timer that is still wanted from one that is not.
    token: u64,
    doing: Option<Doing>,
    /// The last version it was told of each key: what it compares with.
    versions: HashMap<usize, u64, foldhash::fast::FixedState>,
    /// The newest view it knows.
    known: Option<Rc<Seen>>,
    /// It asked for a newer one then.
    refreshing: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Script {
    Get,
    DirectGet,
    Put,
    Delete,
}

/// The call under way.
struct Doing {
    key: usize,
    call: Call,
    /// Its place in the order of events.
    start: u64,
    begun: u64,
    deadline: u64,
    id: RequestId,
    ttl: Option<u64>,
    /// Requests sent and not answered.
    /// With each, whether it said that it was not the first try.
    asks: Vec<(Ask, bool)>,
    /// Requests sent that were never answered with certainty: each may still be acted upon.
    open: u32,
    sent: u32,
    /// Whoever still has the request will find that it has been answered.
    settled: bool,
    /// Where the next try goes.
    slot: usize,
    direct: Option<Direct>,
    /// One copy is enough, of whoever answers this.
    one: Option<Ask>,
    /// See [`Called::refused`].
    refused: Option<(&'static str, u64)>,
}

/// A read that counts for itself (D1, D2).
struct Direct {
    ask: Ask,
    reader: Reader,
    wide: bool,
}

impl Client {
    pub(crate) fn new(left: u32, skew: i64) -> Self {
        Self {
            left,
            script: VecDeque::new(),
            scripted: false,
            skew,
            last_time: Hlc::ZERO,
            token: 0,
            doing: None,
            versions: HashMap::default(),
            known: None,
            refreshing: None,
        }
    }

    /// True if it has a call under way at this key.
    pub(crate) fn is_at(&self, key: usize) -> bool {
        self.doing.as_ref().is_some_and(|doing| doing.key == key)
    }

    pub(crate) fn idle(&self) -> bool {
        self.doing.is_none() && self.left == 0 && self.script.is_empty()
    }
}

/// A number tells a value from all others; the rest makes it as long as values are.
pub(crate) fn bytes_of(value: u64, size: usize) -> Arc<[u8]> {
    let mut bytes = vec![0; size.max(8)];
    bytes[..8].copy_from_slice(&value.to_be_bytes());
    bytes.into()
}

pub(crate) fn value_of(bytes: &[u8], counter: bool) -> u64 {
    if counter {
        return number::of(Some(bytes)).expect("a counter is a number") as u64;
    }
    u64::from_be_bytes(*bytes.first_chunk().expect("clients store eight bytes or more"))
}

impl World {
    /// A new id: by the client's own clock, never the same, and after `after`.
    fn request_id(&mut self, c: usize, after: Hlc) -> RequestId {
        let wall = self.wall(self.clients[c].skew);
        let mine = Hlc::from_nanos(wall).max(after).max(self.clients[c].last_time.plus(1));
        self.clients[c].last_time = mine;
        RequestId { time: mine, random: self.rng.random() }
    }

    fn new_ask(&mut self) -> Ask {
        self.last_ask += 1;
        Ask(self.last_ask)
    }

    /// The machines that own a key's slots, as far as this client knows: one entry a slot, the lowest first.
    fn owners_known(&self, c: usize, key: usize) -> Vec<usize> {
        match &self.clients[c].known {
            Some(seen) => seen.owners(key).map(|machine| self.by_name[&machine.name]).collect(),
            None => Vec::new(),
        }
    }

    /// Whether or not somebody says so, there may be a newer view: asks all that it knows of, or some of very many, and one
    /// more.
    fn refresh(&mut self, c: usize) {
        if self.clients[c].refreshing.is_some_and(|at| at + ASK_AGAIN > self.now) {
            return;
        }
        self.clients[c].refreshing = Some(self.now);
        let mut to: Vec<usize> = match &self.clients[c].known {
            Some(seen) => seen.view.members().iter().map(|m| self.by_name[&m.machine.name]).collect(),
            None => Vec::new(),
        };
        if to.len() > ASKED {
            let (from, step) = (self.rng.random_range(0..to.len()), to.len() / ASKED);
            to = (0..ASKED).map(|i| to[(from + i * step) % to.len()]).collect();
        }
        // One that it was told of when it was set up.
        let other = self.rng.random_range(0..self.profile.machines);
        let other = self.someone_up(other);
        if !to.contains(&other) {
            to.push(other);
        }
        for m in to {
            let ask = self.new_ask();
            self.client_sends(c, m, Message::ViewAsk { ask });
        }
    }

    fn client_timer(&mut self, c: usize, after: u64) {
        self.clients[c].token += 1;
        let token = self.clients[c].token;
        self.schedule(after, Event::Client { client: c, token });
    }

    /// Lets a client begin, after a pause.
    pub(crate) fn client_start(&mut self, c: usize) {
        let pause = self.rng.random_range(0..=self.profile.think);
        if self.clients[c].known.is_none() {
            self.clients[c].known.clone_from(&self.views.newest);
        }
        self.client_timer(c, pause);
    }

    /// Its timer went off: the next call, or the next try.
    pub(crate) fn client_wakes(&mut self, c: usize, token: u64) {
        if self.clients[c].token != token {
            return;
        }
        if self.clients[c].known.is_none() {
            self.clients[c].known.clone_from(&self.views.newest);
        }
        let Some(doing) = &mut self.clients[c].doing else { return self.next_call(c) };
        if self.now >= doing.deadline {
            return self.give_up(c);
        }
        if let Some(direct) = &mut doing.direct {
            // First the rest of the owners, then a coordinator.
            if !direct.wide {
                direct.wide = true;
                let quorum = usize::from(self.profile.slots / 2 + 1);
                let (ask, key) = (direct.ask, doing.key);
                for owner in self.owners_known(c, key).into_iter().skip(quorum) {
                    self.direct_ask(c, key, owner, ask);
                }
                let most = if self.clients[c].scripted { 100 * MS } else { self.profile.patience };
                let wait = self.rng.random_range(0..=most);
                return self.client_timer(c, wait);
            }
            doing.direct = None;
        }
        let one = doing.one.is_some();
        doing.slot += 1;
        if doing.slot >= 2 {
            self.refresh(c);
        }
        if one { self.ask_one(c) } else { self.try_once(c) }
    }

    fn next_call(&mut self, c: usize) {
        let key;
        let call;
        let (mut direct, mut one) = (false, false);
        if let Some((k, script)) = self.clients[c].script.pop_front() {
            key = k;
            call = match script {
                Script::Get => Call::Get,
                Script::DirectGet => {
                    direct = true;
                    Call::Get
                }
                Script::Put => Call::Put(self.next_value(), If::Any),
                Script::Delete => Call::Delete(If::Any),
            };
        } else if self.clients[c].left > 0 {
            self.clients[c].left -= u32::from(!self.profile.endless);
            key = self.popular_key();
            let known = self.clients[c].versions.get(&key).copied().unwrap_or(0);
            let condition = if !self.rng.random_bool(f64::from(self.profile.compares) / 100.0) {
                If::Any
            } else if known == 0 || self.rng.random_bool(0.3) {
                If::Absent
            } else {
                If::Version(known)
            };
            let (reads, deletes) = (self.profile.reads, self.profile.deletes);
            let dice = self.rng.random_range(0..100);
            let touches = 100 - self.profile.touches.min(100);
            call = if dice < reads {
                Call::Get
            } else if dice < reads + self.profile.direct_reads {
                direct = true;
                Call::Get
            } else if dice < reads + self.profile.direct_reads + deletes {
                Call::Delete(if condition == If::Absent { If::Any } else { condition })
            } else if (touches.saturating_sub(self.profile.ones)..touches).contains(&dice) {
                one = true;
                Call::Get
            } else if dice >= touches {
                Call::Touch(if condition == If::Absent { If::Any } else { condition })
            } else {
                Call::Put(self.next_value(), condition)
            };
        } else {
            return;
        }
        let counter = self.profile.is_counter(key);
        let call = if counter { of_counter(call) } else { call };
        let id = self.request_id(c, Hlc::ZERO);
        let start = self.stamp();
        let gives_up = !self.clients[c].scripted && self.rng.random_bool(self.profile.gives_up);
        let patience = if gives_up {
            self.rng.random_range(0..=self.profile.delay * 8)
        } else if self.clients[c].scripted {
            10 * SEC
        } else {
            self.profile.deadline
        };
        self.clients[c].doing = Some(Doing {
            key,
            call,
            start,
            begun: self.now,
            deadline: self.now + patience,
            id,
            ttl: None,
            asks: Vec::new(),
            open: 0,
            sent: 0,
            settled: false,
            slot: 0,
            direct: None,
            one: None,
            refused: None,
        });
        // A counter that expires begins anew, and nobody can say when.
        let expires = matches!(call, Call::Put(..) | Call::Touch(_))
            && !counter
            && !self.clients[c].scripted
            && self.rng.random_bool(self.profile.ttl);
        if expires && let Some(doing) = &mut self.clients[c].doing {
            doing.ttl = Some(log_uniform(&mut self.rng, 1, self.profile.longest_ttl));
        }
        self.note(|| format!("client {c} begins {call:?} of key {key}"));
        self.record_call(c, key, call);
        if one {
            self.ask_one(c);
        } else if direct {
            let ask = self.new_ask();
            self.record_ask(c, ask);
            if let Some(doing) = &mut self.clients[c].doing {
                doing.direct = Some(Direct { ask, reader: Reader::new(self.profile.slots), wide: false });
            }
            let quorum = usize::from(self.profile.slots / 2 + 1);
            for owner in self.owners_known(c, key).into_iter().take(quorum) {
                self.direct_ask(c, key, owner, ask);
            }
            let most = if self.clients[c].scripted { 50 * MS } else { self.profile.patience / 2 };
            let hedge = self.rng.random_range(0..=most);
            self.client_timer(c, hedge);
        } else {
            self.try_once(c);
        }
    }

    /// A key, the first ones more often than the others where the profile says so.
    fn popular_key(&mut self) -> usize {
        let Some(&all) = self.popularity.last() else { return self.rng.random_range(0..self.profile.keys) };
        let dice = self.rng.random_range(0.0..all);
        self.popularity.partition_point(|&upto| upto <= dice).min(self.profile.keys - 1)
    }

    fn direct_ask(&mut self, c: usize, key: usize, owner: usize, ask: Ask) {
        let message = Message::Read { ask, key: self.keys.get(key).clone(), inline: 1 << 20 };
        self.client_sends(c, owner, message);
    }

    fn client_sends(&mut self, c: usize, to: usize, message: Message) {
        // A client that has fetched no view names none.
        let blind = self.rng.random_bool(0.2);
        let (cluster, epoch) = match &self.clients[c].known {
            Some(seen) if !blind => (Some(seen.view.cluster()), seen.epoch()),
            _ => (None, Epoch::ZERO),
        };
        self.send_from_client(c, to, Envelope { cluster, epoch, message });
    }

    /// Asks the next owner for what it holds.
    fn ask_one(&mut self, c: usize) {
        let ask = self.new_ask();
        let Some(doing) = &mut self.clients[c].doing else { return };
        doing.one = Some(ask);
        let (key, slot, left) = (doing.key, doing.slot, doing.deadline.saturating_sub(self.now));
        let owners = self.owners_known(c, key);
        if !owners.is_empty() {
            self.direct_ask(c, key, owners[slot % owners.len()], ask);
        }
        self.client_timer(c, (self.profile.patience / 4).min(left).max(MS));
    }

    /// An owner told what it holds: no claim about the key, so it is counted and not judged.
    fn conclude_one(&mut self, c: usize) {
        let Some(doing) = self.clients[c].doing.take() else { return };
        self.metrics.ok += 1;
        self.counts.answered += 1;
        self.write_down(c, &doing, Reply::Nothing(None));
        self.client_start(c);
    }

    /// Kept of a run of which somebody wants to know.
    fn write_down(&mut self, client: usize, doing: &Doing, reply: Reply) {
        if !self.profile.surveys.is_empty() && !self.clients[client].scripted {
            let (at, took, one) = (self.now, self.now - doing.begun, doing.one.is_some());
            let (call, refused) = (doing.call, doing.refused);
            self.calls.push(Called { client, at, took, call, reply, one, refused });
        }
    }

    /// Asks the next coordinator, under the same id.
    fn try_once(&mut self, c: usize) {
        let ask = self.new_ask();
        self.record_ask(c, ask);
        let patience = if self.clients[c].scripted { SEC } else { self.profile.patience };
        let Some(doing) = &mut self.clients[c].doing else { return };
        let left = doing.deadline.saturating_sub(self.now);
        let patience = patience.min(left).max(MS);
        let again = doing.sent > 0;
        doing.asks.push((ask, again));
        doing.open += 1;
        doing.sent += 1;
        let (key, slot) = (doing.key, doing.slot);
        let wish = match doing.call {
            Call::Get => Wish::Read,
            Call::Put(value, condition) => Wish::Write(Write {
                id: doing.id,
                again,
                condition: condition_of(condition),
                change: Change::Put { value: bytes_of(value, self.profile.value_size), ttl: doing.ttl },
            }),
            Call::Delete(condition) => Wish::Write(Write {
                id: doing.id,
                again,
                condition: condition_of(condition),
                change: Change::Delete,
            }),
            Call::Touch(condition) => Wish::Write(Write {
                id: doing.id,
                again,
                condition: condition_of(condition),
                change: Change::Touch { ttl: doing.ttl },
            }),
            Call::Incr(by) => Wish::Write(Write {
                id: doing.id,
                again,
                condition: Condition::Any,
                change: Change::Incr { by },
            }),
        };
        // Less than it will in truth wait, so that it often hears what came of it.
        let within = (patience * 3 / 4 / MS).max(1) as u32;
        let owners = self.owners_known(c, key);
        let stray = owners.is_empty() || self.rng.random_bool(self.profile.stray);
        let to =
            if stray { self.rng.random_range(0..self.profile.machines) } else { owners[slot % owners.len()] };
        // An auditor measures the cluster, not its own luck in finding who is up.
        let to = if self.clients[c].scripted { self.someone_up(to) } else { to };
        let message =
            Message::Request { ask, key: self.keys.get(key).clone(), op: wish, within, handed: false };
        self.client_sends(c, to, message);
        self.client_timer(c, patience);
    }

    /// The deadline has passed.
    fn give_up(&mut self, c: usize) {
        let Some(doing) = &self.clients[c].doing else { return };
        let reply = if doing.sent > 0 && doing.open == 0 { Reply::Never } else { Reply::Unknown };
        if self.clients[c].scripted {
            self.fail(format!(
                "claim 3: after healing, no answer within 10 s to {:?} of key {}",
                doing.call, doing.key
            ));
        }
        self.conclude(c, reply);
    }

    /// Notes what the call came to, and goes on to the next one.
    fn conclude(&mut self, c: usize, reply: Reply) {
        let Some(doing) = self.clients[c].doing.take() else { return };
        let (end, start) = (self.stamp(), doing.start);
        self.note(|| {
            format!("client {c} concludes {:?} of key {}: {reply:?} [{start}..{end}]", doing.call, doing.key)
        });
        let op = Op { who: c as u32, call: doing.call, reply, start, end };
        self.write_down(c, &doing, reply);
        if !self.profile.endless {
            self.took.push((self.now, self.now - doing.begun));
        }
        if self.clients[c].scripted {
            self.counts.slowest = self.counts.slowest.max(self.now + 10 * SEC - doing.deadline);
        }
        if doing.ttl.is_some() {
            self.expiring.push((doing.key, op));
        }
        let history = &mut self.histories[doing.key];
        match reply {
            Reply::Unknown if doing.call == Call::Get => {}
            Reply::Unknown => history.push(Op { end: u64::MAX, ..op }),
            // Told "no" to its first try while a later one may still be under way: the answer was true, and the
            // write may yet be applied.
            Reply::Mismatch(_) | Reply::Absent if doing.open > 0 && !doing.settled => {
                history.push(op);
                history.push(Op { reply: Reply::Unknown, end: u64::MAX, ..op });
            }
            _ => history.push(op),
        }
        self.judge_so_far(doing.key);
        if !self.clients[c].scripted {
            match reply {
                Reply::Unknown | Reply::Never => self.metrics.failed += 1,
                _ => self.metrics.ok += 1,
            }
        }
        match reply {
            Reply::Unknown => self.counts.unknown += 1,
            Reply::Never => self.counts.never += 1,
            _ => self.counts.answered += 1,
        }
        let told = match reply {
            Reply::Done(version)
            | Reply::Counted(_, version)
            | Reply::Found(_, version)
            | Reply::Mismatch(Some(version)) => Some(version),
            _ => None,
        };
        if let Some(version) = told {
            self.clients[c].versions.insert(doing.key, version);
        }
        self.client_start(c);
    }

    /// Something arrived for a client.
    pub(crate) fn client_hears(&mut self, c: usize, from: Name, envelope: Envelope) {
        if self.clients[c].known.as_ref().is_some_and(|known| known.epoch() < envelope.epoch) {
            self.refresh(c);
        }
        self.record_told(from, &envelope);
        let client = &mut self.clients[c];
        if let Message::ViewTold { view, .. } = &envelope.message {
            if client.known.as_ref().is_none_or(|known| known.epoch() < view.epoch()) {
                // Who tells a view has it on disk.
                client.known = self.views.get(view.epoch()).cloned();
                client.refreshing = None;
            }
            return;
        }
        let Some(doing) = &mut client.doing else { return };
        match envelope.message {
            Message::Answer { ask, answer: Answer::Copy(_), .. } if doing.one == Some(ask) => {
                self.conclude_one(c);
            }
            Message::Answer { ask, votes, answer: Answer::Copy(copied) } => {
                let Some(direct) = doing.direct.as_mut().filter(|d| d.ask == ask) else { return };
                // Nobody votes for slots that are not his, whatever he says.
                let votes = match &client.known {
                    Some(seen) if seen.epoch() == envelope.epoch => {
                        votes.intersection(seen.owned_by(from, doing.key))
                    }
                    _ => votes,
                };
                direct.reader.hear(from, envelope.epoch, votes, copied);
                let Some(stamp) = direct.reader.settled() else { return };
                let reply = match direct.reader.copy_of(stamp) {
                    Some(Copied::None) => Reply::Nothing(None),
                    Some(Copied::Whole(record)) => match &record.state.value {
                        Some(value) => {
                            let counter = self.profile.is_counter(doing.key);
                            Reply::Found(value_of(value, counter), record.state.version)
                        }
                        // I4: where tombstones are collected, the version of what is not there may rise by itself.
                        None if self.profile.moves() => Reply::Nothing(None),
                        None => Reply::Nothing(Some(record.state.version)),
                    },
                    other => {
                        let what = format!("a settled read of a short value tells {other:?}");
                        return self.fail(what);
                    }
                };
                self.conclude(c, reply);
            }
            Message::Outcome { ask, outcome } => {
                let Some(at) = doing.asks.iter().position(|&(a, _)| a == ask) else { return };
                let (_, again) = doing.asks.swap_remove(at);
                self.probe_outcome(&outcome);
                self.client_told(c, again, outcome);
            }
            _ => {}
        }
    }

    fn client_told(&mut self, c: usize, again: bool, outcome: Outcome) {
        let Some(doing) = &mut self.clients[c].doing else { return };
        let read = doing.call == Call::Get;
        if !matches!(outcome, Outcome::Unknown { .. }) {
            doing.open -= 1;
        }
        let reply = match outcome.clone() {
            Outcome::Done { version, .. } => Reply::Done(version),
            Outcome::Counted { version, value, .. } => Reply::Counted(value, version),
            Outcome::Value(Some(Found { value, version, .. })) => {
                Reply::Found(value_of(&value, self.profile.is_counter(doing.key)), version)
            }
            Outcome::Value(None) => Reply::Nothing(None),
            Outcome::Mismatch { version } => {
                doing.settled |= again;
                Reply::Mismatch(version)
            }
            Outcome::Absent => {
                doing.settled |= again;
                Reply::Absent
            }
            Outcome::TooLate { horizon } if doing.sent == 1 && !read => {
                // Never applied: a later id may be tried.
                let id = self.request_id(c, horizon.plus(1));
                if let Some(doing) = &mut self.clients[c].doing {
                    (doing.id, doing.sent) = (id, 0);
                }
                return self.try_once(c);
            }
            Outcome::TooLate { .. } => {
                // It may have been applied before it was forgotten.
                return self.conclude(c, Reply::Unknown);
            }
            Outcome::Uncountable { .. } => {
                let what = format!("I6: a counter is {outcome:?}");
                return self.fail(what);
            }
            Outcome::Unknown { .. }
            | Outcome::NoQuorum { .. }
            | Outcome::Overloaded { .. }
            | Outcome::Refused(_)
            | Outcome::NoRoom { .. }
            | Outcome::NotHere => {
                doing.refused.get_or_insert((said(&outcome), self.now - doing.begun));
                let (call, key) = (doing.call, doing.key);
                if self.clients[c].scripted && !matches!(outcome, Outcome::Overloaded { .. }) {
                    let told = said(&outcome);
                    return self.fail(format!("claim 3: healed, and yet {call:?} of key {key}: {told}"));
                }
                // Not too hot on its heels.
                let pause = self.rng.random_range(MS..=50 * MS).min(self.profile.patience);
                return self.client_timer(c, pause);
            }
        };
        self.conclude(c, reply);
    }
}

/// The same call, as it is made of a counter.
fn of_counter(call: Call) -> Call {
    match call {
        Call::Put(value, _) => Call::Incr(counting::addend(value)),
        Call::Delete(_) => Call::Touch(If::Any),
        other => other,
    }
}

pub(crate) fn condition_of(condition: If) -> Condition {
    match condition {
        If::Any => Condition::Any,
        If::Absent => Condition::Absent,
        If::Version(version) => Condition::Version(version),
    }
}
