//! A few machines without faults or chance: messages arrive at once and in order, unless a test loses them; disks are
//! at once durable, unless a test holds them; time passes only where a test waits.
//!
//! Machines are numbers: 4 is 10.0.0.4, and its incarnation is 4; 104 has the same name and another incarnation. Where
//! no process of a machine runs, a test may speak as it. Views are written as `"1 2 3- 4+"`: 3 is leaving, 4 joining.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ennead_ring::effect::{Account, Change, Decree, Effect, Input, Mono, Now, Ticket};
use ennead_ring::message::{
    Addr, Ask, Bound, Change as Wanted, Condition, Envelope, Message, Op, Outcome, Purpose, TellRequest,
    Wish, Write,
};
use ennead_ring::mutant::{Mutant, Rules};
use ennead_ring::node::{Birth, Setup, Tuning};
use ennead_ring::{
    Ballot, Chain, ClusterId, Epoch, Hlc, Incarnation, Key, Limits, Loaded, Machine, Member, MemberState,
    Name, Node, Record, RequestId, Ring, SlotSet, Stamp, State, View, Zone,
};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SEC: u64 = 1_000 * MS;
/// When every test begins.
pub(crate) const BEGIN: u64 = 10_000 * SEC;
const CLUSTER: ClusterId = ClusterId::new(7);
const WEIGHT: u32 = 8;

thread_local! {
    /// The rule that the machines of this thread's test break.
    pub(crate) static BROKEN: Cell<Option<Mutant>> = const { Cell::new(None) };
}

pub(crate) fn machine(n: u64) -> Machine {
    let name: Name = format!("10.0.0.{}", n % 100).parse().expect("a name");
    Machine { name, incarnation: Incarnation::new(n) }
}

pub(crate) fn epoch(number: u32) -> Epoch {
    Epoch { number, ..Epoch::FIRST }
}

/// `view(2, "1 2 3- 4+")`.
pub(crate) fn view(number: u32, members: &str) -> Arc<View> {
    let member = |word: &str| {
        let state = match word.chars().last() {
            Some('+') => MemberState::Joining,
            Some('-') => MemberState::Leaving,
            _ => MemberState::Up,
        };
        let n = word.trim_end_matches(['+', '-']).parse().expect("a machine's number");
        Member { state, ..Member::up(machine(n), WEIGHT) }
    };
    let members = members.split_whitespace().map(member).collect();
    Arc::new(View::new(CLUSTER, epoch(number), 9, members, Vec::new()).expect("a view"))
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).expect("a key")
}

/// The slots of a key that a machine owns in a view.
pub(crate) fn slots_of(view: &View, key: &Key, n: u64) -> SlotSet {
    let owners = Ring::of(view).owners(&Chain::of(key.as_bytes(), view.slots()));
    let member = view.index_of(machine(n).name).filter(|_| view.has(machine(n)));
    member.map_or(SlotSet::EMPTY, |m| owners.slots_of(m as u32))
}

/// The first key of which this is true.
pub(crate) fn find_key(like: impl Fn(&Key) -> bool) -> Key {
    (0..100_000).map(|i| key(&format!("k{i}"))).find(like).expect("such a key")
}

/// A stamp of so many seconds, proposed by a machine.
pub(crate) fn stamp(seconds: u64, by: u64) -> Stamp {
    let ballot = Ballot { time: Hlc::from_nanos(seconds * SEC), by: Incarnation::new(by) };
    Stamp { ballot, n: 1 }
}

pub(crate) fn record(stamp: Stamp, value: Option<&str>, votes: SlotSet) -> Record {
    let value = value.map(|v| v.as_bytes().into());
    Record { stamp, state: Arc::new(State { version: 1, value, ..State::default() }), votes }
}

/// One machine: its disk, and the process on it while it runs.
#[derive(Default)]
pub(crate) struct Computer {
    pub(crate) node: Option<Node>,
    pub(crate) records: BTreeMap<Key, Loaded>,
    pub(crate) limits: Limits,
    pub(crate) views: Vec<Arc<View>>,
    pub(crate) account: Account,
    pub(crate) decree: Decree,
    pub(crate) birth: Option<Birth>,
    /// What its wall clock is ahead.
    pub(crate) skew: u64,
    pending: VecDeque<(Ticket, Change)>,
    /// Its disk makes nothing durable at present.
    held: bool,
    waiting: Vec<(Ticket, Said)>,
}

/// Somebody said something.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) from: Addr,
    pub(crate) to: Addr,
    pub(crate) envelope: Box<Envelope>,
}

impl Said {
    /// True if this machine said it to that one; 0 is anyone.
    pub(crate) fn is(&self, from: u64, to: u64) -> bool {
        let is = |addr: Addr, n| n == 0 || matches!(addr, Addr::Machine(m) if m.name == machine(n).name);
        is(self.from, from) && is(self.to, to)
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.envelope.message.kind()
    }
}

enum Flight {
    Said(Said),
    Inside(u64, Input),
}

type Loses = Box<dyn Fn(&Said) -> bool>;

pub(crate) struct Stage {
    pub(crate) computers: BTreeMap<u64, Computer>,
    pub(crate) tuning: Tuning,
    pub(crate) now: u64,
    /// All that was said, lost or not.
    pub(crate) log: Vec<Said>,
    flights: VecDeque<Flight>,
    loses: Option<Loses>,
    asks: u64,
    rules: Rules,
}

impl Stage {
    /// These machines, with nothing on their disks.
    pub(crate) fn new(machines: impl IntoIterator<Item = u64>) -> Self {
        let tuning = Tuning { check_every: 0, ..Tuning::default() };
        Self {
            computers: machines.into_iter().map(|n| (n, Computer::default())).collect(),
            tuning,
            now: BEGIN,
            log: Vec::new(),
            flights: VecDeque::new(),
            loses: None,
            asks: 1_000,
            rules: Rules::without(BROKEN.get()),
        }
    }

    /// All members of view 1, running: it is settled, and all are synced in it.
    pub(crate) fn born(members: &str) -> Self {
        let first = view(1, members);
        let numbers: Vec<u64> = first.members().iter().map(|m| m.machine.incarnation.id()).collect();
        let mut stage = Self::new(numbers.clone());
        for n in numbers {
            stage.place(n, std::slice::from_ref(&first), 1, &[1]);
        }
        stage
    }

    /// What a machine's disk holds of views.
    pub(crate) fn place(&mut self, n: u64, views: &[Arc<View>], settled: u32, synced: &[u32]) {
        let computer = self.at(n);
        computer.views = views.to_vec();
        computer.account = Account {
            settled: epoch(settled),
            synced: synced.iter().map(|e| epoch(*e)).collect(),
            left: false,
        };
    }

    /// What a machine's disk holds for a key.
    pub(crate) fn put(&mut self, n: u64, key: &Key, record: Record) {
        let computer = self.at(n);
        // As if it had accepted it: under its ceiling.
        computer.limits.ceiling = computer.limits.ceiling.max(record.stamp.ballot.time);
        computer.records.insert(key.clone(), Loaded::Record(record));
    }

    /// What is on a machine's disk for a key, durable or not.
    pub(crate) fn holds(&self, n: u64, key: &Key) -> Option<Record> {
        match self.load(n, key) {
            Loaded::Record(record) => Some(record),
            _ => None,
        }
    }

    pub(crate) fn at(&mut self, n: u64) -> &mut Computer {
        self.computers.get_mut(&n).unwrap_or_else(|| panic!("no machine {n}"))
    }

    pub(crate) fn node(&self, n: u64) -> &Node {
        self.computers[&n].node.as_ref().unwrap_or_else(|| panic!("machine {n} does not run"))
    }

    /// The epoch that a machine is at.
    pub(crate) fn epoch(&self, n: u64) -> u32 {
        self.node(n).view().map_or(0, |v| v.epoch().number)
    }

    fn clock(&self, n: u64) -> Now {
        Now { mono: Mono(self.now), wall: self.now + self.computers[&n].skew }
    }

    /// Its process starts from what the disk holds.
    pub(crate) fn start(&mut self, n: u64) {
        let (now, tuning, rules) = (self.clock(n), self.tuning.clone(), self.rules);
        let computer = self.at(n);
        assert!(computer.node.is_none(), "machine {n} runs");
        let setup = Setup {
            me: machine(n),
            weight: WEIGHT,
            zone: Zone::NONE,
            limits: computer.limits,
            views: computer.views.clone(),
            account: computer.account.clone(),
            decree: computer.decree.clone(),
            birth: computer.birth.clone().unwrap_or(Birth::None),
            tuning,
            seed: n,
            rules,
        };
        computer.node = Some(Node::new(setup, now));
    }

    pub(crate) fn start_all(&mut self) {
        for n in self.computers.keys().copied().collect::<Vec<_>>() {
            self.start(n);
        }
        self.settle();
    }

    /// Its process dies, and what was not durable with it.
    pub(crate) fn crash(&mut self, n: u64) {
        self.crash_after(n, 0);
    }

    /// The same, though the first so many changes made it to the disk.
    pub(crate) fn crash_after(&mut self, n: u64, survive: usize) {
        self.flights.retain(|f| !matches!(f, Flight::Inside(m, _) if *m == n));
        let computer = self.at(n);
        (computer.node, computer.held) = (None, false);
        computer.waiting.clear();
        let pending = std::mem::take(&mut computer.pending);
        for (_, change) in pending.into_iter().take(survive) {
            computer.apply(change);
        }
    }

    /// From now on its disk makes nothing durable.
    pub(crate) fn hold_disk(&mut self, n: u64) {
        self.at(n).held = true;
    }

    /// What its disk has not made durable yet, in order.
    pub(crate) fn unsynced(&self, n: u64) -> Vec<&Change> {
        self.computers[&n].pending.iter().map(|(_, change)| change).collect()
    }

    /// All that it was given is durable, and will be at once.
    pub(crate) fn sync_disk(&mut self, n: u64) {
        let computer = self.at(n);
        computer.held = false;
        computer.sync();
        for (_, said) in std::mem::take(&mut computer.waiting) {
            self.say(said);
        }
        self.settle();
    }

    /// From now on such messages are lost.
    pub(crate) fn lose(&mut self, loses: impl Fn(&Said) -> bool + 'static) {
        self.loses = Some(Box::new(loses));
    }

    /// Nothing is lost any more.
    pub(crate) fn heal(&mut self) {
        self.loses = None;
    }

    // -- what a test says ----------------------------------------------------------------------------

    pub(crate) fn ask(&mut self) -> Ask {
        self.asks += 1;
        Ask(self.asks)
    }

    /// A machine that does not run, or somebody who pretends to be one, says this at an epoch. All that comes of it at
    /// once, from the machine it was said to.
    pub(crate) fn say_as(&mut self, from: u64, at: u32, to: u64, message: Message) -> Vec<Said> {
        let envelope = Envelope { cluster: Some(CLUSTER), epoch: epoch(at), message };
        self.say_raw(from, to, envelope)
    }

    pub(crate) fn say_raw(&mut self, from: u64, to: u64, envelope: Envelope) -> Vec<Said> {
        let before = self.log.len();
        let input = Input::Message { from: Addr::Machine(machine(from)), envelope: Box::new(envelope) };
        self.feed(to, input);
        self.settle();
        self.log[before..].iter().filter(|s| s.is(to, 0)).cloned().collect()
    }

    /// The same; the one answer to it.
    pub(crate) fn answer_to(&mut self, from: u64, at: u32, to: u64, message: Message) -> Option<Envelope> {
        let said = self.say_as(from, at, to, message);
        // What it would say in any case is no answer.
        let unasked = ["tell", "told", "settled", "word", "probe", "blank"];
        let mut answers = said.into_iter().filter(|s| s.is(to, from) && !unasked.contains(&s.kind()));
        let answer = answers.next();
        assert!(answers.next().is_none(), "two answers");
        answer.map(|s| *s.envelope)
    }

    pub(crate) fn read(&mut self, from: u64, at: u32, to: u64, key: &Key) -> Option<Envelope> {
        let ask = self.ask();
        self.answer_to(from, at, to, Message::Read { ask, key: key.clone(), inline: 1_000 })
    }

    pub(crate) fn prepare(
        &mut self,
        from: u64,
        at: u32,
        to: u64,
        key: &Key,
        ballot: Ballot,
    ) -> Option<Envelope> {
        let ask = self.ask();
        self.answer_to(from, at, to, Message::Prepare { ask, key: key.clone(), ballot })
    }

    pub(crate) fn accept(
        &mut self,
        from: u64,
        at: u32,
        to: u64,
        key: &Key,
        stamp: Stamp,
    ) -> Option<Envelope> {
        let ask = self.ask();
        let state = record(stamp, Some("accepted"), SlotSet::EMPTY).state;
        self.answer_to(from, at, to, Message::Accept { ask, key: key.clone(), stamp, state })
    }

    /// S3: all of what it holds that concerns the asker, who was never synced.
    pub(crate) fn tell(&mut self, from: u64, at: u32, to: u64) -> Vec<Said> {
        let ask = self.ask();
        let request = TellRequest {
            purpose: Purpose::Sync,
            after: None,
            claims: Vec::new(),
            salt: 0,
            since: None,
            handoff: false,
            without: Vec::new(),
        };
        let said = self.say_as(from, at, to, Message::Tell { ask, request: Box::new(request) });
        said.into_iter().filter(|s| s.is(to, from) && s.kind() != "tell").collect()
    }

    /// A client's request at a machine; what came of it within so long.
    pub(crate) fn request(&mut self, n: u64, key: &Key, op: Op, within: u64) -> Option<Outcome> {
        let (ask, before) = (self.ask(), self.log.len());
        let ms = (within / MS) as u32;
        let message = Message::Request { ask, key: key.clone(), op, within: ms, handed: false };
        let envelope = Box::new(Envelope { cluster: Some(CLUSTER), epoch: Epoch::ZERO, message });
        self.feed(n, Input::Message { from: Addr::Client(1), envelope });
        let outcome = |stage: &Self| {
            stage.log[before..].iter().find_map(|s| match &s.envelope.message {
                Message::Outcome { ask: a, outcome } if *a == ask && s.to == Addr::Client(1) => {
                    Some(outcome.clone())
                }
                _ => None,
            })
        };
        self.until(within + SEC, |stage| outcome(stage).is_some());
        outcome(self)
    }

    pub(crate) fn write(&mut self, n: u64, key: &Key, change: Wanted) -> Option<Outcome> {
        self.asks += 1;
        let id = RequestId { time: Hlc::from_nanos(self.now), random: self.asks };
        let write = Write { id, again: false, condition: Condition::Any, change };
        self.request(n, key, Op::Write(write), 5 * SEC)
    }

    pub(crate) fn put_value(&mut self, n: u64, key: &Key, value: &str) -> Option<Outcome> {
        self.write(n, key, Wanted::Put { value: value.as_bytes().into(), ttl: None })
    }

    /// An operator's wish, said to a machine each second until it has been waited for so long.
    pub(crate) fn wish(&mut self, n: u64, wish: Wish, wait: u64, mut enough: impl FnMut(&Self) -> bool) {
        for _ in 0..wait / SEC {
            let ask = self.ask();
            let message = Message::Wish { ask, wish };
            let envelope = Box::new(Envelope { cluster: Some(CLUSTER), epoch: Epoch::ZERO, message });
            self.feed(n, Input::Message { from: Addr::Client(1), envelope });
            self.until(SEC, &mut enough);
            if enough(self) {
                return;
            }
        }
    }

    // -- what happens --------------------------------------------------------------------------------

    fn load(&self, n: u64, key: &Key) -> Loaded {
        let computer = &self.computers[&n];
        let unsynced = computer.pending.iter().rev().find_map(|(_, change)| match change {
            Change::Record { key: k, record } if k == key => Some(Loaded::Record(record.clone())),
            Change::Forget { key: k } if k == key => Some(Loaded::Nothing),
            _ => None,
        });
        unsynced.unwrap_or_else(|| computer.records.get(key).cloned().unwrap_or(Loaded::Nothing))
    }

    fn say(&mut self, said: Said) {
        self.log.push(said.clone());
        if !self.loses.as_ref().is_some_and(|loses| loses(&said)) {
            self.flights.push_back(Flight::Said(said));
        }
    }

    fn feed(&mut self, n: u64, input: Input) {
        // Time passes a little with everything that happens.
        self.now += 1_000;
        let now = self.clock(n);
        let mut effects = Vec::new();
        let Some(node) = self.at(n).node.as_mut() else { return };
        node.handle(now, input, &mut effects);
        node.check();
        self.carry_out(n, effects);
    }

    /// An operator wants all copies compared, by all machines.
    pub(crate) fn check_all(&mut self) {
        for n in self.computers.keys().copied().collect::<Vec<_>>() {
            let (now, mut effects) = (self.clock(n), Vec::new());
            if let Some(node) = self.at(n).node.as_mut() {
                node.start_check(now, &mut effects);
            }
            self.carry_out(n, effects);
        }
        self.settle();
    }

    fn carry_out(&mut self, n: u64, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Persist { ticket, change } => {
                    let computer = self.at(n);
                    computer.pending.push_back((ticket, change));
                    if !computer.held {
                        computer.sync();
                    }
                }
                Effect::Send { to, envelope, after } => {
                    let said = Said { from: Addr::Machine(machine(n)), to, envelope };
                    let computer = self.at(n);
                    let first = computer.pending.front().map(|(ticket, _)| *ticket);
                    match (after, first) {
                        (Some(after), Some(first)) if after >= first => computer.waiting.push((after, said)),
                        _ => self.say(said),
                    }
                }
                Effect::Load { key } => {
                    let found = self.load(n, &key);
                    self.flights.push_back(Flight::Inside(n, Input::Loaded { key, found }));
                }
                Effect::Scan { scan, after, keys, bytes } => {
                    let computer = &self.computers[&n];
                    let pending = computer.pending.iter().filter_map(|(_, change)| match change {
                        Change::Record { key, .. } => Some(key),
                        _ => None,
                    });
                    let all: BTreeSet<&Key> = computer.records.keys().chain(pending).collect();
                    let rest = all.into_iter().filter(|k| after.as_ref().is_none_or(|a| *k > a));
                    let mut found: Vec<(Key, Loaded)> = rest.map(|k| (k.clone(), self.load(n, k))).collect();
                    let total = found.len() as u64;
                    let mut left = bytes;
                    let mut fits = |(_, loaded): &(Key, Loaded)| {
                        let fits = left > 0;
                        left = left.saturating_sub(size(loaded));
                        fits
                    };
                    found.truncate(found.iter().take(keys).take_while(|one| fits(one)).count());
                    let end = found.len() as u64 == total;
                    let input = Input::Scanned { scan, found, end, total };
                    self.flights.push_back(Flight::Inside(n, input));
                }
            }
        }
    }

    /// Until nobody has anything more to say.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            match self.flights.pop_front() {
                None => return,
                Some(Flight::Inside(n, input)) => self.feed(n, input),
                Some(Flight::Said(Said { from, to: Addr::Machine(to), envelope })) => {
                    let mut named = self.computers.iter().filter(|(n, _)| machine(**n).name == to.name);
                    let runs = named.find(|(_, c)| c.node.is_some()).map(|(n, _)| *n);
                    if let Some(n) = runs {
                        self.feed(n, Input::Message { from, envelope });
                    }
                }
                Some(Flight::Said(_)) => {}
            }
        }
        panic!("they never stop talking");
    }

    /// Lets so much time pass, or less if that is enough.
    pub(crate) fn until(&mut self, wait: u64, mut enough: impl FnMut(&Self) -> bool) {
        let until = self.now + wait;
        self.settle();
        while !enough(self) {
            let due = |(n, c): (&u64, &Computer)| Some((c.node.as_ref()?.wake_at()?.0, *n));
            match self.computers.iter().filter_map(due).min() {
                Some((at, n)) if at.0 <= until => {
                    self.now = self.now.max(at.0);
                    self.feed(n, Input::Wake);
                    self.settle();
                }
                _ => {
                    self.now = self.now.max(until);
                    return;
                }
            }
        }
    }

    pub(crate) fn wait(&mut self, wait: u64) {
        self.until(wait, |_| false);
    }

    /// Messages of a kind that were said from one to another; 0 is anyone.
    pub(crate) fn said(&self, from: u64, to: u64, kind: &str) -> Vec<&Said> {
        self.log.iter().filter(|s| s.is(from, to) && s.kind() == kind).collect()
    }

    pub(crate) fn set_bound(&mut self, n: u64, seconds: u64, version: u64) {
        let time = Hlc::from_nanos(seconds * SEC);
        let limits = &mut self.at(n).limits;
        limits.bound = Bound { time, version };
        limits.ceiling = limits.ceiling.max(time);
    }
}

/// Bytes of a value, as far as there is one.
fn size(loaded: &Loaded) -> usize {
    match loaded {
        Loaded::Record(record) => record.state.value.as_ref().map_or(0, |value| value.len()),
        _ => 0,
    }
}

impl Computer {
    fn sync(&mut self) {
        for (_, change) in std::mem::take(&mut self.pending) {
            self.apply(change);
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Record { key, record } => drop(self.records.insert(key, Loaded::Record(record))),
            Change::Forget { key } => drop(self.records.remove(&key)),
            Change::Limits(limits) => self.limits = limits,
            Change::View(view) => self.views.push(view),
            Change::Account(account) => {
                self.views.retain(|v| v.epoch() >= account.settled);
                self.account = account;
            }
            Change::Decree(decree) => self.decree = decree,
        }
    }
}
