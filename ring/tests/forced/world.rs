//! A small world for forced recoveries: machines, disks, a network that loses nothing but what is cut.
#![allow(dead_code, reason = "two tests use it, each a part")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ennead_ring::effect::{Change, Effect};
use ennead_ring::message::{self, Addr, Ask, Condition, Envelope, Message, Op, Outcome, Write};
use ennead_ring::mutant::Rules;
use ennead_ring::node::{Birth, PROBE_EVERY, Setup, Tuning};
use ennead_ring::view::{ClusterId, Epoch, Incarnation, Machine, Member};
use ennead_ring::{
    Account, Chain, Decree, Hlc, Input, Key, Limits, Loaded, Mono, Name, Node, Now, Record, RequestId, Ring,
    View, Zone,
};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SEC: u64 = 1_000 * MS;
const ME: Addr = Addr::Client(1);

/// What a machine keeps.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) limits: Limits,
    pub(crate) views: Vec<Arc<View>>,
    pub(crate) account: Account,
    pub(crate) decree: Decree,
    pub(crate) records: BTreeMap<Key, Record>,
}

pub(crate) struct World {
    pub(crate) machines: Vec<Machine>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) nodes: Vec<Option<Node>>,
    pub(crate) queue: VecDeque<(usize, Input)>,
    pub(crate) cut: BTreeSet<(usize, usize)>,
    pub(crate) now: u64,
    pub(crate) asks: u64,
    pub(crate) rules: Rules,
    pub(crate) answers: BTreeMap<Ask, Message>,
}

impl World {
    pub(crate) fn new(count: usize) -> Self {
        Self::with(count, Rules::default())
    }

    pub(crate) fn with(count: usize, rules: Rules) -> Self {
        let machine = |i: usize| Machine {
            name: Name::new(([10, 0, 0, i as u8 + 1], 9595).into()),
            incarnation: Incarnation::new(i as u64 + 1),
        };
        let machines: Vec<Machine> = (0..count).map(machine).collect();
        let member = |m: &Machine| Member::up(*m, 4);
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
            rules,
            answers: BTreeMap::new(),
        };
        (0..count).for_each(|i| world.start(i));
        world.run(SEC);
        world
    }

    pub(crate) fn clock(&self) -> Now {
        Now { mono: Mono(self.now), wall: 1_700_000_000 * SEC + self.now }
    }

    pub(crate) fn start(&mut self, i: usize) {
        let disk = &self.disks[i];
        let setup = Setup {
            me: self.machines[i],
            weight: 4,
            zone: Zone::NONE,
            limits: disk.limits,
            views: disk.views.clone(),
            account: disk.account.clone(),
            decree: disk.decree.clone(),
            birth: Birth::Join(vec![self.machines[0].name]),
            tuning: Tuning { probe_every: PROBE_EVERY, ..Tuning::default() },
            seed: 7 + i as u64,
            rules: self.rules,
        };
        self.nodes[i] = Some(Node::new(setup, self.clock()));
    }

    pub(crate) fn node(&self, i: usize) -> &Node {
        self.nodes[i].as_ref().expect("it runs")
    }

    pub(crate) fn view(&self, i: usize) -> Arc<View> {
        self.node(i).view().expect("it has a view").clone()
    }

    pub(crate) fn feed(&mut self, i: usize, input: Input) {
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

    pub(crate) fn run(&mut self, time: u64) {
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

    pub(crate) fn ask(
        &mut self,
        i: usize,
        message: impl FnOnce(Ask) -> Message,
        within: u64,
    ) -> Option<Message> {
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

    pub(crate) fn request(&mut self, i: usize, key: &Key, op: Op) -> Option<Outcome> {
        let key = key.clone();
        let request = |ask| Message::Request { ask, key, op, within: 4_000, handed: false };
        match self.ask(i, request, 5 * SEC)? {
            Message::Outcome { outcome, .. } => Some(outcome),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn put(&mut self, i: usize, key: &Key, value: &[u8]) -> Option<Outcome> {
        let id = RequestId { time: Hlc::from_nanos(self.clock().wall), random: self.asks };
        let change = message::Change::Put { value: value.into(), ttl: None };
        self.request(i, key, Op::Write(Write { id, again: false, condition: Condition::Any, change }))
    }

    pub(crate) fn get(&mut self, i: usize, key: &Key) -> Vec<u8> {
        match self.request(i, key, Op::Read) {
            Some(Outcome::Value(Some(found))) => found.value.to_vec(),
            other => panic!("{key}: {other:?}"),
        }
    }

    /// The reason why it is refused, if it is.
    pub(crate) fn force(&mut self, i: usize, lost: &[usize]) -> Option<String> {
        let machines = lost.iter().map(|m| self.machines[*m]).collect();
        self.force_out(i, machines)
    }

    pub(crate) fn force_out(&mut self, i: usize, machines: Vec<Machine>) -> Option<String> {
        match self.ask(i, |ask| Message::Force { ask, machines }, SEC) {
            Some(Message::Wished { refused, .. }) => refused,
            other => panic!("{other:?}"),
        }
    }

    /// Says it, and waits for nothing.
    pub(crate) fn say_force(&mut self, i: usize, lost: &[usize]) -> Ask {
        self.asks += 1;
        let (ask, machines) = (Ask(self.asks), lost.iter().map(|m| self.machines[*m]).collect());
        let message = Message::Force { ask, machines };
        let envelope = Box::new(Envelope { cluster: None, epoch: Epoch::ZERO, message });
        self.queue.push_back((i, Input::Message { from: ME, envelope }));
        ask
    }

    /// What came of that.
    pub(crate) fn refusal(&mut self, ask: Ask) -> Option<String> {
        match self.answers.remove(&ask) {
            Some(Message::Wished { refused, .. }) => refused,
            other => panic!("{other:?}"),
        }
    }

    /// Machine `i` forces, adopts the view, and dies before anybody has heard of it. Returns that view's epoch.
    pub(crate) fn force_and_die(&mut self, i: usize, lost: &[usize]) -> Epoch {
        self.say_force(i, lost);
        let end = self.now + 3 * SEC;
        while self.view(i).epoch().generation == 0 && self.now < end {
            self.run(5 * MS);
        }
        let epoch = self.view(i).epoch();
        // What it has just said is lost with it.
        let own = self.machines[i];
        self.queue.retain(
            |(_, input)| !matches!(input, Input::Message { from: Addr::Machine(m), .. } if *m == own),
        );
        self.nodes[i] = None;
        epoch
    }

    /// Of a key that nobody would count as one that may be lost, five hold a write: one of them is lost and forced out, the
    /// four others are cut off. Returns those four, one of the rest, and the key.
    pub(crate) fn where_one_holder_is_lost_and_four_are_cut_off(
        rules: Rules,
    ) -> (Self, Vec<usize>, usize, Key) {
        let mut world = Self::with(14, rules);
        let view = world.view(0);
        let ring = Ring::of(&view);
        let owners = |key: &[u8]| -> Vec<usize> {
            let owners = ring.owners(&Chain::of(key, 9));
            (1..=9).map(|slot| owners.owner(slot) as usize).collect()
        };
        let wardens = owners(b"\0view");
        let lost: Vec<usize> = (0..14).filter(|i| !wardens.contains(i)).collect();
        // Few of a key's owners are among the lost: nobody would count it as one that may be lost.
        let keys = (0..).map(|n| Key::new(format!("key-{n}")).expect("a key"));
        let key = keys.into_iter().find(|key| {
            let named = owners(key.as_bytes()).iter().filter(|i| lost.contains(i)).count();
            (1..=4).contains(&named)
        });
        let key = key.expect("such a key");
        let (named, kept): (Vec<usize>, Vec<usize>) =
            owners(key.as_bytes()).into_iter().partition(|i| lost.contains(i));
        // Five hold a write: one that will be lost, and four that will be cut off when the others are forced out.
        let away = kept[..4].to_vec();
        let holders: Vec<usize> = away.iter().chain(&named[..1]).copied().collect();
        world.cut_apart(&holders);
        let done = world.put(away[0], &key, b"acknowledged");
        assert!(matches!(done, Some(Outcome::Done { .. })), "{done:?}");
        world.cut.clear();
        world.cut_apart(&away);
        world.lose(lost.clone());
        let here = *wardens.iter().find(|i| !away.contains(i)).expect("a warden");
        while world.force(here, &lost).is_some() {
            world.run(SEC);
        }
        world.run(10 * SEC);
        assert_eq!((world.view(here).members().len(), world.view(here).forced_out().len()), (9, 5));
        (world, away, here, key)
    }

    /// These hear one another and nobody else.
    pub(crate) fn cut_apart(&mut self, these: &[usize]) {
        for i in 0..self.machines.len() {
            let others = (0..i).filter(|j| these.contains(j) != these.contains(&i));
            self.cut.extend(others.map(|j| (j, i)));
        }
    }

    /// Machine `to` hears a word of machine `from`, as of a member who has not heard of any change.
    pub(crate) fn tell(&mut self, from: usize, to: usize) {
        let view = self.view(from);
        let message = Message::Settled { epoch: view.epoch() };
        let envelope = Envelope { cluster: Some(view.cluster()), epoch: view.epoch(), message };
        let from = Addr::Machine(self.machines[from]);
        self.queue.push_back((to, Input::Message { from, envelope: Box::new(envelope) }));
    }

    /// A blank machine that offers itself.
    pub(crate) fn add_joining(&mut self) -> usize {
        let i = self.machines.len();
        let name = Name::new(([10, 0, 0, i as u8 + 1], 9595).into());
        self.machines.push(Machine { name, incarnation: Incarnation::new(i as u64 + 1) });
        self.disks.push(Disk::default());
        self.nodes.push(None);
        self.start(i);
        i
    }

    pub(crate) fn fill(&mut self) -> Vec<Key> {
        let keys: Vec<Key> = (0..20).map(|n| Key::new(format!("key-{n}")).unwrap()).collect();
        for key in &keys {
            let done = self.put(0, key, key.as_bytes());
            assert!(matches!(done, Some(Outcome::Done { .. })), "{done:?}");
        }
        // All nine have it, not only five.
        self.run(SEC);
        keys
    }

    pub(crate) fn lose(&mut self, machines: impl IntoIterator<Item = usize>) {
        machines.into_iter().for_each(|i| self.nodes[i] = None);
        self.run(5 * SEC);
    }
}
