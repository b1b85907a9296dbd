//! What a change of the ring moves, against what it must: bytes on the wire, both ways, and time.
//!
//! `cargo bench -p ennead-ring --bench moves -- [KEYS] [VALUE BYTES]` (20000 and 256). Ten machines in one thread, with their
//! real messages, in the real encoding; disks and the network do not delay anything but by 0.2 ms a message, so what
//! takes time is the protocol's own waiting, and "CPU" what the nodes spent.
//!
//! The minimum is each record that a machine lacks at the end, once, with its key, stamp and state: what it did not
//! hold under that stamp when the move began. Settling rounds give new stamps: a comparison that puts any lists all copies
//! of those keys. It puts some after a death in so small a ring: where one key's slots changed hands in a chain of more than
//! four, no five that kept theirs tell its record as votes, and the dead cannot say how it voted (S6).
#![allow(missing_docs, reason = "a program")]
#![allow(clippy::print_stdout, reason = "a table, for people")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ennead_ring::effect::{Account, Change, Decree, Effect, Input, Limits, Mono, Now};
use ennead_ring::message::{Addr, Ask, Envelope, Message, Purpose};
use ennead_ring::mutant::Rules;
use ennead_ring::node::{Birth, PROBE_EVERY, Setup, Tuning};
use ennead_ring::{
    Ballot, Chain, ClusterId, Epoch, Hlc, Incarnation, Key, Loaded, Machine, Member, Name, Node, Record,
    Ring, SlotSet, Stamp, State, View, Zone,
};

const MS: u64 = 1_000_000;
const SEC: u64 = 1_000 * MS;
const BEGIN: u64 = 10_000 * SEC;
const HOP: u64 = MS / 5;
const WEIGHT: u32 = 32;

fn machine(n: usize) -> Machine {
    let name: Name = format!("10.0.0.{n}").parse().expect("a name");
    Machine { name, incarnation: Incarnation::new(n as u64) }
}

fn view(machines: impl Iterator<Item = usize>) -> Arc<View> {
    let member = |n| Member::up(machine(n), WEIGHT);
    let members = machines.map(member).collect();
    Arc::new(View::new(ClusterId::new(7), Epoch::FIRST, 9, members, Vec::new()).expect("a view"))
}

#[derive(Default)]
struct Disk {
    records: BTreeMap<Key, Record>,
    views: Vec<Arc<View>>,
    account: Account,
    limits: Limits,
    decree: Decree,
}

/// Something that happens, in the order of time and then of its number.
struct Event(u64, u64, usize, Input);

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

#[derive(Default)]
struct World {
    nodes: BTreeMap<usize, Node>,
    disks: BTreeMap<usize, Disk>,
    events: BinaryHeap<Reverse<Event>>,
    now: u64,
    number: u64,
    /// Bytes of frames by what they carry.
    wire: BTreeMap<String, (u64, u64)>,
    /// For what a machine asked to be told, by the number of its question.
    asked: BTreeMap<(usize, Ask), Purpose>,
    cpu: Duration,
}

impl World {
    fn clock(&self) -> Now {
        Now { mono: Mono(self.now), wall: self.now }
    }

    fn start(&mut self, n: usize, birth: Birth) {
        let disk = self.disks.entry(n).or_default();
        let setup = Setup {
            me: machine(n),
            weight: WEIGHT,
            zone: Zone::NONE,
            limits: disk.limits,
            views: disk.views.clone(),
            account: disk.account.clone(),
            decree: disk.decree.clone(),
            birth,
            tuning: Tuning {
                probe_every: PROBE_EVERY,
                patience: 2 * SEC,
                down_after: SEC,
                check_every: 0,
                move_rate: 1 << 40,
                ..Tuning::default()
            },
            seed: n as u64,
            rules: Rules::default(),
        };
        let node = Node::new(setup, self.clock());
        self.nodes.insert(n, node);
        self.feed(n, Input::Wake);
    }

    fn push(&mut self, at: u64, n: usize, input: Input) {
        self.number += 1;
        self.events.push(Reverse(Event(at, self.number, n, input)));
    }

    fn feed(&mut self, n: usize, input: Input) {
        let now = self.clock();
        let Some(node) = self.nodes.get_mut(&n) else { return };
        let (mut effects, begun) = (Vec::new(), Instant::now());
        node.handle(now, input, &mut effects);
        self.cpu += begun.elapsed();
        self.carry_out(n, effects);
    }

    fn carry_out(&mut self, n: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Persist { change, .. } => {
                    let disk = self.disks.entry(n).or_default();
                    match change {
                        Change::Record { key, record } => drop(disk.records.insert(key, record)),
                        Change::Forget { key } => drop(disk.records.remove(&key)),
                        Change::Limits(limits) => disk.limits = limits,
                        Change::View(view) => disk.views.push(view),
                        Change::Account(account) => {
                            disk.views.retain(|view| view.epoch() >= account.settled);
                            disk.account = account;
                        }
                        Change::Decree(decree) => disk.decree = decree,
                    }
                }
                Effect::Send { to: Addr::Machine(to), envelope, .. } => self.send(n, to, envelope),
                Effect::Send { .. } => {}
                Effect::Load { key } => {
                    let found = self.disks[&n].records.get(&key);
                    let found = found.map_or(Loaded::Nothing, |record| Loaded::Record(record.clone()));
                    self.push(self.now, n, Input::Loaded { key, found });
                }
                Effect::Scan { scan, after, keys, bytes } => {
                    let records = &self.disks[&n].records;
                    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
                    let (mut found, mut sum, mut end) = (Vec::new(), 0, true);
                    for (key, record) in records.range((from, Bound::Unbounded)) {
                        if found.len() >= keys || sum >= bytes {
                            end = false;
                            break;
                        }
                        sum += record.state.value.as_ref().map_or(0, |value| value.len());
                        found.push((key.clone(), Loaded::Record(record.clone())));
                    }
                    let total = records.len() as u64;
                    self.push(self.now, n, Input::Scanned { scan, found, end, total });
                }
            }
        }
    }

    fn send(&mut self, from: usize, to: Machine, envelope: Box<Envelope>) {
        // Who offers itself knows names only.
        let Some(to) = self.disks.keys().copied().find(|n| machine(*n).name == to.name) else { return };
        if from != to {
            let of = |purpose: Option<&Purpose>| match purpose {
                Some(Purpose::Ahead) => ", ahead",
                Some(Purpose::Copy) => ", copied first",
                Some(Purpose::Sync) => ", sync",
                Some(Purpose::Check) => ", comparison",
                None => "",
            };
            let what = match &envelope.message {
                Message::Tell { ask, request } => {
                    self.asked.insert((from, *ask), request.purpose);
                    format!("asked{}", of(Some(&request.purpose)))
                }
                Message::Told { ask, .. } => {
                    format!("told{}", of(self.asked.get(&(to, *ask))))
                }
                Message::Fetch { .. } | Message::Fetched { .. } => "values fetched".into(),
                Message::Prepare { .. }
                | Message::Accept { .. }
                | Message::Request { .. }
                | Message::Answer { .. } => "rounds (settling)".into(),
                _ => String::new(),
            };
            if !what.is_empty() {
                let config = bincode::config::standard();
                let bytes = 4 + bincode::encode_to_vec(&*envelope, config).expect("it encodes").len() as u64;
                let (frames, sum) = self.wire.entry(what).or_default();
                (*frames, *sum) = (*frames + 1, *sum + bytes);
            }
        }
        let hop = if from == to { 0 } else { HOP };
        self.push(self.now + hop, to, Input::Message { from: Addr::Machine(machine(from)), envelope });
    }

    /// Until that is so; panics after ten minutes of their time.
    fn until(&mut self, what: &str, enough: impl Fn(&Self) -> bool) {
        let last = self.now + 600 * SEC;
        while !enough(self) {
            let wake = |(n, node): (&usize, &Node)| Some((node.wake_at()?.0.0, *n));
            let wake = self.nodes.iter().filter_map(wake).min();
            let next = self.events.peek().map(|Reverse(event)| event.0);
            match (wake, next) {
                (Some((at, n)), next) if next.is_none_or(|next| at < next) => {
                    self.now = self.now.max(at);
                    self.feed(n, Input::Wake);
                }
                (_, Some(_)) => {
                    let Some(Reverse(Event(at, _, n, input))) = self.events.pop() else { break };
                    self.now = self.now.max(at);
                    self.feed(n, input);
                }
                _ => break,
            }
            assert!(self.now < last, "{what}: it does not come");
        }
    }

    fn is_settled_with(&self, machines: usize) -> bool {
        self.nodes.values().all(|node| {
            let ring = node.view().map_or(0, |view| view.members().iter().filter(|m| m.in_ring()).count());
            ring == machines && node.is_settled() && node.is_synced()
        })
    }

    fn check(&mut self) {
        let rounds = |world: &Self| world.nodes.values().map(|n| n.check_progress().rounds).min();
        let before = rounds(self);
        for n in self.nodes.keys().copied().collect::<Vec<_>>() {
            let (now, mut effects) = (self.clock(), Vec::new());
            if let Some(node) = self.nodes.get_mut(&n) {
                node.start_check(now, &mut effects);
            }
            self.carry_out(n, effects);
        }
        self.until("a comparison", |world| rounds(world) > before);
        // Settling rounds that are under way.
        let until = self.now + SEC;
        self.until("the end of the rounds", |world| world.now >= until);
    }
}

fn state(bytes: usize, i: usize) -> Arc<State> {
    let value: Vec<u8> = (0..bytes).map(|b| (b * 31 + i) as u8).collect();
    let id = ennead_ring::RequestId { time: Hlc::from_nanos(BEGIN - i as u64), random: u64::MAX - i as u64 };
    let recent = vec![ennead_ring::stamp::Applied { id, came: ennead_ring::stamp::Came::Version(1) }];
    Arc::new(State { version: 1, value: Some(value.into()), recent, ..State::default() })
}

fn record(time: u64, by: usize, state: Arc<State>, votes: SlotSet) -> Record {
    // An incarnation is a random number; a short one would be cheaper to send.
    let by = Incarnation::new(u64::MAX - by as u64);
    Record { stamp: Stamp { ballot: Ballot { time: Hlc::from_nanos(time), by }, n: 1 }, state, votes }
}

/// So many machines that hold so many keys, alike, in a settled view.
fn world(machines: usize, keys: usize, bytes: usize) -> World {
    let mut world = World { now: BEGIN, ..World::default() };
    let first = view(1..=machines);
    for n in 1..=machines {
        let account = Account { settled: Epoch::FIRST, synced: vec![Epoch::FIRST], ..Account::default() };
        let limits = Limits { ceiling: Hlc::from_nanos(BEGIN), ..Limits::default() };
        world.disks.insert(n, Disk { views: vec![first.clone()], account, limits, ..Disk::default() });
    }
    for i in 0..keys {
        let key = Key::new(format!("user-{i:08}")).expect("a key");
        write(&mut world, &first, &key, BEGIN - SEC - i as u64, state(bytes, i), |_| true);
    }
    for n in 1..=machines {
        world.start(n, Birth::None);
    }
    world
}

/// As if this had been written to all its owners but some.
fn write(world: &mut World, view: &View, key: &Key, at: u64, state: Arc<State>, to: impl Fn(usize) -> bool) {
    let owners = Ring::of(view).owners(&Chain::of(key.as_bytes(), 9));
    for member in owners.machines() {
        let n = view.members()[member as usize].machine.incarnation.id() as usize;
        if to(n) {
            let record = record(at, n, state.clone(), owners.slots_of(member));
            // One proposer for all.
            let record = Record {
                stamp: Stamp {
                    ballot: Ballot { by: Incarnation::new(u64::MAX), ..record.stamp.ballot },
                    n: 1,
                },
                ..record
            };
            world.disks.entry(n).or_default().records.insert(key.clone(), record);
        }
    }
}

type Held = BTreeMap<usize, BTreeMap<Key, Stamp>>;

fn held(world: &World) -> Held {
    let stamps = |disk: &Disk| disk.records.iter().map(|(key, r)| (key.clone(), r.stamp)).collect();
    world.disks.iter().map(|(n, disk)| (*n, stamps(disk))).collect()
}

/// What had to move, as bytes and records.
fn minimum(world: &World, before: &Held) -> (u64, u64) {
    let view = world.nodes.values().next().and_then(Node::view).expect("a view").clone();
    let ring = Ring::of(&view);
    let (mut bytes, mut records) = (0, 0);
    let mut owners = BTreeMap::new();
    for n in world.nodes.keys() {
        let me = view.index_of(machine(*n).name).expect("a member") as u32;
        for (key, record) in &world.disks[n].records {
            let owners =
                owners.entry(key.clone()).or_insert_with(|| ring.owners(&Chain::of(key.as_bytes(), 9)));
            let had = before.get(n).and_then(|held| held.get(key));
            if owners.is_owner(me) && had != Some(&record.stamp) {
                let config = bincode::config::standard();
                bytes += bincode::encode_to_vec((key, record), config).expect("it encodes").len() as u64;
                records += 1;
            }
        }
    }
    (bytes, records)
}

/// Records that a machine holds and does not own.
fn left_over(world: &World) -> usize {
    let view = world.nodes[&1].view().expect("a view");
    let ring = Ring::of(view);
    let left = world.nodes.keys().map(|n| {
        let me = view.index_of(machine(*n).name).expect("a member") as u32;
        let keys = world.disks[n].records.keys();
        keys.filter(|key| !ring.owners(&Chain::of(key.as_bytes(), 9)).is_owner(me)).count()
    });
    left.sum()
}

fn report(world: &mut World, title: &str, before: &Held, since: u64) {
    let (least, records) = minimum(world, before);
    let taken: u64 = world.wire.iter().filter(|(w, _)| !w.starts_with("rounds")).map(|(_, w)| w.1).sum();
    let held: usize = world.disks.values().map(|disk| disk.records.len()).sum();
    println!("{title}: {records} records must move of {held}, {least} bytes");
    for (what, (frames, bytes)) in &world.wire {
        println!("    {what:22} {bytes:12} bytes in {frames:7} frames");
    }
    let ratio = if least == 0 { f64::NAN } else { taken as f64 / least as f64 };
    let seconds = (world.now - since) as f64 / SEC as f64;
    let per = world.cpu.as_secs_f64() * 1e6 / held as f64;
    println!(
        "    {taken} bytes moved, {ratio:.3} of the minimum; {seconds:.2} s, CPU {per:.1} us a record held"
    );
    (world.wire, world.cpu) = Default::default();
}

fn main() {
    let mut args = std::env::args().skip(1).filter_map(|arg| arg.parse::<usize>().ok());
    let (keys, bytes) = (args.next().unwrap_or(20_000), args.next().unwrap_or(256));
    println!("{keys} keys, values of {bytes} bytes");

    let mut nine = world(9, keys, bytes);
    nine.check();
    (nine.wire, nine.cpu) = Default::default();
    let (before, since) = (held(&nine), nine.now);
    nine.check();
    report(&mut nine, "nine machines compare all copies, which are alike", &before, since);

    let (before, since) = (held(&nine), nine.now);
    nine.start(10, Birth::Join((1..=9).map(|n| machine(n).name).collect()));
    nine.until("the tenth", |world| world.is_settled_with(10));
    report(&mut nine, "a tenth joins", &before, since);
    let since = nine.now;
    let before = held(&nine);
    nine.check();
    report(&mut nine, "and then all copies are compared", &before, since);

    // It dies for good, once what others handed over to it is dropped: what still lies about would seem to be there already.
    while left_over(&nine) > 0 {
        let later = nine.now + SEC;
        nine.until("a second later", |world| world.now >= later);
    }
    (nine.wire, nine.cpu) = Default::default();
    let (before, since) = (held(&nine), nine.now);
    nine.nodes.remove(&10);
    nine.until("nine again", |world| world.is_settled_with(9));
    report(&mut nine, "the tenth dies for good", &before, since);
    let (before, since) = (held(&nine), nine.now);
    nine.check();
    report(&mut nine, "and then all copies are compared", &before, since);

    // One is dropped, a twentieth of the keys is written, and it is back with its disk.
    let mut ten = world(10, keys, bytes);
    ten.nodes.remove(&10);
    ten.until("it is dropped", |world| world.is_settled_with(9));
    ten.check();
    let view = ten.nodes[&1].view().expect("a view").clone();
    for i in (0..keys).step_by(20) {
        let key = Key::new(format!("user-{i:08}")).expect("a key");
        let at = ten.now;
        write(&mut ten, &view, &key, at, state(bytes, i + 1), |_| true);
    }
    // What was put on their disks, none of them has in memory.
    for n in 1..=9 {
        ten.start(n, Birth::None);
    }
    (ten.wire, ten.cpu) = Default::default();
    let (before, since) = (held(&ten), ten.now);
    ten.start(10, Birth::Join((1..=9).map(|n| machine(n).name).collect()));
    ten.until("it is back", |world| world.is_settled_with(10));
    report(&mut ten, "one returns late, a twentieth of the keys was written", &before, since);
}
