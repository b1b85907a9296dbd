//! F2: machines with five slots of some key are lost for good; an operator says so. In a small world of its own.
#![allow(missing_docs, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ennead_ring::effect::{Change, Effect};
use ennead_ring::message::{self, Addr, Ask, Condition, Envelope, Message, Op, Outcome, Write};
use ennead_ring::mutant::Rules;
use ennead_ring::node::{Birth, PROBE_EVERY, Setup, Tuning};
use ennead_ring::view::{ClusterId, Epoch, Incarnation, Machine, Member, MemberState};
use ennead_ring::{
    Account, Decree, Hlc, Input, Key, Limits, Loaded, Mono, Name, Node, Now, Record, RequestId, SlotSet, View,
};

const MS: u64 = 1_000_000;
const SEC: u64 = 1_000 * MS;
const ME: Addr = Addr::Client(1);

/// What a machine keeps.
#[derive(Clone, Default)]
struct Disk {
    limits: Limits,
    views: Vec<Arc<View>>,
    account: Account,
    decree: Decree,
    records: BTreeMap<Key, Record>,
}

struct World {
    machines: Vec<Machine>,
    disks: Vec<Disk>,
    nodes: Vec<Option<Node>>,
    queue: VecDeque<(usize, Input)>,
    cut: BTreeSet<(usize, usize)>,
    now: u64,
    asks: u64,
    answers: BTreeMap<Ask, Message>,
}

impl World {
    fn new(count: usize) -> Self {
        let machine = |i: usize| Machine {
            name: Name::new(([10, 0, 0, i as u8 + 1], 9595).into()),
            incarnation: Incarnation::new(i as u64 + 1),
        };
        let machines: Vec<Machine> = (0..count).map(machine).collect();
        let member = |m: &Machine| Member { machine: *m, weight: 4, next_weight: 4, state: MemberState::Up };
        let members = machines.iter().map(member).collect();
        let view = Arc::new(View::new(ClusterId::new(1), Epoch::FIRST, 9, members, Vec::new()).unwrap());
        let account = Account { settled: Epoch::FIRST, synced: vec![Epoch::FIRST], left: false };
        let disk = Disk { views: vec![view], account, ..Disk::default() };
        let mut world = Self {
            disks: vec![disk; count],
            nodes: (0..count).map(|_| None).collect(),
            machines,
            queue: VecDeque::new(),
            cut: BTreeSet::new(),
            now: SEC,
            asks: 0,
            answers: BTreeMap::new(),
        };
        (0..count).for_each(|i| world.start(i));
        world.run(SEC);
        world
    }

    fn clock(&self) -> Now {
        Now { mono: Mono(self.now), wall: 1_700_000_000 * SEC + self.now }
    }

    fn start(&mut self, i: usize) {
        let disk = &self.disks[i];
        let setup = Setup {
            me: self.machines[i],
            weight: 4,
            limits: disk.limits,
            views: disk.views.clone(),
            account: disk.account.clone(),
            decree: disk.decree.clone(),
            birth: Birth::None,
            tuning: Tuning { probe_every: PROBE_EVERY, ..Tuning::default() },
            seed: 7 + i as u64,
            rules: Rules::default(),
        };
        self.nodes[i] = Some(Node::new(setup, self.clock()));
    }

    fn node(&self, i: usize) -> &Node {
        self.nodes[i].as_ref().expect("it runs")
    }

    fn view(&self, i: usize) -> Arc<View> {
        self.node(i).view().expect("it has a view").clone()
    }

    fn feed(&mut self, i: usize, input: Input) {
        let now = self.clock();
        let Some(node) = self.nodes[i].as_mut() else { return };
        let mut effects = Vec::new();
        node.handle(now, input, &mut effects);
        node.check();
        for effect in effects {
            let disk = &mut self.disks[i];
            match effect {
                Effect::Persist { change, .. } => match change {
                    Change::Limits(limits) => disk.limits = limits,
                    Change::View(view) => disk.views.push(view),
                    Change::Account(account) => disk.account = account,
                    Change::Decree(decree) => disk.decree = decree,
                    Change::Record { key, record } => drop(disk.records.insert(key, record)),
                    Change::Forget { key } => drop(disk.records.remove(&key)),
                },
                Effect::Load { key } => {
                    let found = disk.records.get(&key).cloned().map_or(Loaded::Nothing, Loaded::Record);
                    self.queue.push_back((i, Input::Loaded { key, found }));
                }
                Effect::Scan { scan, after, .. } => {
                    let rest = disk.records.iter().filter(|(key, _)| after.as_ref().is_none_or(|a| *key > a));
                    let found = rest.map(|(k, r)| (k.clone(), Loaded::Record(r.clone()))).collect();
                    let total = disk.records.len() as u64;
                    self.queue.push_back((i, Input::Scanned { scan, found, end: true, total }));
                }
                Effect::Send { to: Addr::Client(_), envelope, .. } => match &envelope.message {
                    Message::Outcome { ask, .. } | Message::Wished { ask, .. } => {
                        self.answers.insert(*ask, envelope.message);
                    }
                    _ => {}
                },
                Effect::Send { to: Addr::Machine(to), envelope, .. } => {
                    let at = self.machines.iter().position(|m| m.name == to.name).expect("a machine");
                    let from = Addr::Machine(self.machines[i]);
                    if !self.cut.contains(&(i.min(at), i.max(at))) {
                        self.queue.push_back((at, Input::Message { from, envelope }));
                    }
                }
            }
        }
    }

    fn run(&mut self, time: u64) {
        let end = self.now + time;
        while self.now < end {
            self.now += 5 * MS;
            for i in 0..self.nodes.len() {
                let due = self.nodes[i].as_ref().and_then(Node::wake_at);
                if due.is_some_and(|(at, _)| at.0 <= self.now) {
                    self.feed(i, Input::Wake);
                }
            }
            for _ in 0..self.queue.len() {
                let (i, input) = self.queue.pop_front().expect("counted");
                self.feed(i, input);
            }
        }
    }

    fn ask(&mut self, i: usize, message: impl FnOnce(Ask) -> Message, within: u64) -> Option<Message> {
        self.asks += 1;
        let ask = Ask(self.asks);
        let envelope = Envelope { cluster: None, epoch: Epoch::ZERO, message: message(ask) };
        self.queue.push_back((i, Input::Message { from: ME, envelope: Box::new(envelope) }));
        let end = self.now + within;
        while self.now < end && !self.answers.contains_key(&ask) {
            self.run(5 * MS);
        }
        self.answers.remove(&ask)
    }

    fn request(&mut self, i: usize, key: &Key, op: Op) -> Option<Outcome> {
        let key = key.clone();
        let request = |ask| Message::Request { ask, key, op, within: 4_000, handed: false };
        match self.ask(i, request, 5 * SEC)? {
            Message::Outcome { outcome, .. } => Some(outcome),
            other => panic!("{other:?}"),
        }
    }

    fn put(&mut self, i: usize, key: &Key, value: &[u8]) -> Option<Outcome> {
        let id = RequestId { time: Hlc::from_nanos(self.clock().wall), random: self.asks };
        let change = message::Change::Put { value: value.into(), ttl: None };
        self.request(i, key, Op::Write(Write { id, again: false, condition: Condition::Any, change }))
    }

    fn get(&mut self, i: usize, key: &Key) -> Vec<u8> {
        match self.request(i, key, Op::Read) {
            Some(Outcome::Value(Some(found))) => found.value.to_vec(),
            other => panic!("{key}: {other:?}"),
        }
    }

    /// The reason why it is refused, if it is.
    fn force(&mut self, i: usize, lost: &[usize]) -> Option<String> {
        let machines = lost.iter().map(|m| self.machines[*m]).collect();
        match self.ask(i, |ask| Message::Force { ask, machines }, SEC) {
            Some(Message::Wished { refused, .. }) => refused,
            other => panic!("{other:?}"),
        }
    }

    fn fill(&mut self) -> Vec<Key> {
        let keys: Vec<Key> = (0..20).map(|n| Key::new(format!("key-{n}")).unwrap()).collect();
        for key in &keys {
            let done = self.put(0, key, key.as_bytes());
            assert!(matches!(done, Some(Outcome::Done { .. })), "{done:?}");
        }
        // All nine have it, not only five.
        self.run(SEC);
        keys
    }

    fn lose(&mut self, machines: impl IntoIterator<Item = usize>) {
        machines.into_iter().for_each(|i| self.nodes[i] = None);
        self.run(5 * SEC);
    }
}

#[test]
fn nothing_goes_on_without_five_of_nine_until_they_are_forced_out() {
    let mut world = World::new(9);
    let keys = world.fill();
    let lost = [4, 5, 6, 7, 8];
    assert!(world.force(0, &lost).is_some_and(|why| why.contains("answers")));
    world.lose(lost);
    world.run(40 * SEC);
    assert_eq!(world.view(0).epoch(), Epoch::FIRST, "nobody is dropped while five are missing");
    assert!(!matches!(world.put(0, &keys[0], b"no"), Some(Outcome::Done { .. })));
    let why = world.force(0, &[3, 4, 5, 6, 7, 8]);
    assert!(why.is_some_and(|why| why.contains("answers")));
    let why = world.force(0, &[5, 6, 7, 8]);
    assert_eq!(why, None, "five wardens are left, so it is their decree");
    world.run(2 * SEC);
    assert_eq!(world.view(0).epoch(), Epoch::FIRST, "but the fifth does not answer");

    assert_eq!(world.force(0, &lost), None);
    let epoch = world.view(0).epoch();
    assert_eq!((epoch.generation, epoch.number), (1, 2));
    world.run(5 * SEC);
    assert_eq!(world.force(0, &lost), None, "it is done already");
    for i in 0..4 {
        assert_eq!(world.view(i).epoch(), epoch);
        assert!(world.node(i).is_synced() && world.node(i).is_settled(), "machine {i}");
    }
    // The first was tried without five: it may have taken effect since.
    for key in &keys[1..] {
        assert_eq!(world.get(1, key), key.as_bytes());
    }
    for key in &keys {
        let done = world.put(2, key, b"new");
        assert!(matches!(done, Some(Outcome::Done { .. })), "{done:?}");
        assert_eq!(world.get(3, key), b"new");
    }
}

#[test]
fn who_was_forced_out_takes_no_part_when_it_returns() {
    let mut world = World::new(9);
    let keys = world.fill();
    let lost = [4, 5, 6, 7, 8];
    world.lose(lost);
    assert_eq!(world.force(0, &lost), None);
    world.run(3 * SEC);
    world.start(4);
    world.run(3 * SEC);
    let why = world.node(4).is_forced_out().map(str::to_owned);
    assert!(why.is_some_and(|why| why.contains("forced out")));
    assert_eq!(world.node(4).votes_for(&keys[0]), SlotSet::EMPTY);
    assert_eq!(world.view(0).members().len(), 4);
    // It knows, and so it does after another start: from its disk, or from the others again.
    world.start(4);
    world.run(3 * SEC);
    assert!(world.node(4).is_forced_out().is_some());
    // All five together would be a quorum of the old view, were they not told.
    (5..9).for_each(|i| world.start(i));
    world.run(3 * SEC);
    (5..9).for_each(|i| assert!(world.node(i).is_forced_out().is_some(), "machine {i}"));
    for key in &keys {
        assert_eq!(world.get(0, key), key.as_bytes());
    }
}

#[test]
fn two_generations_forced_apart_never_mix() {
    let mut world = World::new(9);
    let keys = world.fill();
    for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        world.cut.insert((a, b));
    }
    world.lose(4..9);
    assert!(world.force(0, &[4, 5, 6, 7, 8]).is_some_and(|why| why.contains("name them too")));
    assert_eq!(world.force(0, &[2, 3, 4, 5, 6, 7, 8]), None);
    assert_eq!(world.force(2, &[0, 1, 4, 5, 6, 7, 8]), None);
    world.run(3 * SEC);
    let (one, other) = (world.view(0).epoch(), world.view(2).epoch());
    assert_ne!(one.fork, other.fork);
    assert!(matches!(world.put(0, &keys[0], b"one"), Some(Outcome::Done { .. })));
    assert!(matches!(world.put(2, &keys[0], b"other"), Some(Outcome::Done { .. })));
    world.cut.clear();
    world.run(5 * SEC);
    for (i, epoch) in [(0, one), (1, one), (2, other), (3, other)] {
        assert_eq!((world.view(i).epoch(), world.node(i).is_forced_out()), (epoch, None), "machine {i}");
    }
    assert_eq!(world.get(1, &keys[0]), b"one");
    assert_eq!(world.get(3, &keys[0]), b"other");
}

#[test]
fn who_went_on_where_the_forced_view_did_not_needs_a_new_incarnation() {
    let mut world = World::new(9);
    world.fill();
    // One is dropped by decree, and machine 0 does not hear of it.
    world.lose([8]);
    world.run(20 * SEC);
    world.cut.extend((1..9).map(|i| (0, i)));
    world.run(15 * SEC);
    assert_eq!((world.view(1).epoch().number, world.view(0).epoch().number), (2, 1));
    world.lose([4, 5, 6, 7]);
    // The least advanced is chosen, and told that all others are gone.
    assert_eq!(world.force(0, &[3, 4, 5, 6, 7, 8, 2, 1]), None);
    world.cut.clear();
    world.run(3 * SEC);
    assert_eq!(world.view(0).members().len(), 1);
    (1..4).for_each(|i| assert!(world.node(i).is_forced_out().is_some(), "machine {i}"));
}

#[test]
fn with_five_warden_slots_left_it_is_a_decree_like_any_other() {
    let mut world = World::new(14);
    let keys = world.fill();
    // Five machines that leave the wardens five of their slots.
    let wardens = {
        let view = world.view(0);
        let ring = ennead_ring::Ring::of(&view);
        let owners = ring.owners(&ennead_ring::Chain::of(b"\0view", 9));
        (0..14).filter(|i| !owners.slots_of(*i as u32).is_empty()).collect::<Vec<usize>>()
    };
    let others = (0..14).filter(|i| !wardens.contains(i));
    let lost: Vec<usize> = others.take(5).collect();
    assert_eq!(lost.len(), 5);
    let here = wardens[0];
    world.lose(lost.clone());
    world.run(40 * SEC);
    assert_eq!(world.view(here).members().len(), 14, "nobody is dropped while five are missing");
    assert_eq!(world.force(here, &lost), None);
    world.run(5 * SEC);
    let view = world.view(here);
    assert_eq!((view.epoch().generation, view.epoch().number), (0, 2));
    assert_eq!((view.members().len(), view.forced_out().len()), (9, 5));
    assert!(world.node(here).is_settled());
    let mut kept = 0;
    for key in &keys {
        if wardens.iter().any(|i| world.disks[*i].records.contains_key(key)) {
            kept += 1;
            assert_eq!(world.get(here, key), key.as_bytes());
        }
        let done = world.put(here, key, b"new");
        assert!(matches!(done, Some(Outcome::Done { .. })), "{done:?}");
    }
    assert!(kept > 0);
}
