//! The world around the nodes: one queue of events in virtual time, one random generator, nothing else.

use std::cell::Cell;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ennead_ring::effect::{Effect, Input, Mono, Now, Ticket};
use ennead_ring::message::{Addr, Answer, Copied, Envelope, Message, Outcome};
use ennead_ring::mutant::Rules;
use ennead_ring::node::{Birth, Setup};
use ennead_ring::placement::Ring;
use ennead_ring::{Chain, ClusterId, Incarnation, Key, Loaded, Machine, Name, Node, SlotSet, State, View};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::checker::{self, Call, If, Op, Reply};
use super::client::{Client, Script};
use super::disk::Disk;
use super::faults::{Profile, log_uniform};
use super::{MS, SEC, US};

/// November 2026: where the wall clocks start.
const BIRTH: i128 = 1_795_000_000_000_000_000;
/// However slow, a run's faults end by then.
const LONGEST: u64 = 60 * SEC;

/// What happens next.
pub(crate) enum Event {
    /// A message arrives at a machine.
    Deliver {
        to: usize,
        from: Addr,
        envelope: Box<Envelope>,
    },
    /// A message arrives at a client.
    Tell {
        client: usize,
        from: Name,
        envelope: Box<Envelope>,
    },
    /// Something inside a process: it dies with it.
    Inside {
        machine: usize,
        life: u32,
        input: Input,
    },
    Synced {
        machine: usize,
        life: u32,
    },
    Wake {
        machine: usize,
        life: u32,
    },
    Client {
        client: usize,
        token: u64,
    },
    Fault(Fault),
}

/// What goes wrong next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Cut,
    Uncut,
    Crash,
    Restart(usize),
    Pause,
    Jump,
    Lie,
}

struct Scheduled {
    at: u64,
    seq: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    /// The earliest is the greatest: the heap hands out its greatest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.seq).cmp(&(self.at, self.seq))
    }
}

/// One computer: what is on its disk, and the process on it while it runs.
struct Computer {
    me: Machine,
    birth: Birth,
    disk: Disk,
    node: Option<Node>,
    life: u32,
    /// What its timers' clock showed when virtual time was zero.
    mono: u64,
    /// How far its wall clock is off.
    skew: i64,
    paused_until: u64,
    /// The wake-up under way.
    wake: Option<u64>,
    /// Wake-ups in a row that left it as due as before.
    restless: u32,
    /// Sends that wait for a ticket.
    waiting: Vec<(Ticket, Addr, Box<Envelope>)>,
}

/// How many of what a run had.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) answered: u64,
    pub(crate) unknown: u64,
    pub(crate) never: u64,
    pub(crate) crashes: u64,
    pub(crate) cuts: u64,
    pub(crate) messages: u64,
    pub(crate) rotten: u64,
    /// Of the audit: its longest call, in nanoseconds.
    pub(crate) slowest: u64,
}

/// A run that went well.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// Two runs alike have the same.
    pub(crate) digest: u64,
    pub(crate) steps: u64,
    pub(crate) virtual_time: u64,
    pub(crate) counts: Counts,
    /// How often each kind of thing was said.
    pub(crate) probes: BTreeMap<&'static str, u64>,
    pub(crate) trace: Vec<String>,
    pub(crate) histories: Vec<Vec<Op>>,
}

/// A run that did not.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) step: u64,
    pub(crate) at: u64,
    pub(crate) what: String,
    pub(crate) trace: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, step, at, what, .. } = self;
        let (s, ms) = (at / SEC, at % SEC / MS);
        writeln!(f, "seed {seed}, step {step}, {s}.{ms:03} s: {what}")?;
        write!(f, "again: SIM_SEED={seed} cargo test -p ennead-ring --test sim one_seed -- --nocapture")
    }
}

/// Everything.
pub(crate) struct World {
    pub(crate) profile: Profile,
    pub(crate) rng: StdRng,
    pub(crate) now: u64,
    pub(crate) clients: Vec<Client>,
    pub(crate) keys: Vec<Key>,
    /// The machines that own each key, by lowest slot; empty until there is a view.
    pub(crate) owners: Vec<Vec<usize>>,
    pub(crate) view: Option<Arc<View>>,
    pub(crate) histories: Vec<Vec<Op>>,
    /// Puts with an expiry: key, value, start.
    pub(crate) expiring: Vec<(usize, u64, u64)>,
    pub(crate) last_ask: u64,
    pub(crate) counts: Counts,
    probes: BTreeMap<&'static str, u64>,
    computers: Vec<Computer>,
    by_name: HashMap<Name, usize>,
    queue: BinaryHeap<Scheduled>,
    seq: u64,
    stamps: u64,
    values: u64,
    steps: u64,
    digest: u64,
    /// `cut[from][to]`; clients come after the machines.
    cut: Vec<Vec<bool>>,
    faulty: bool,
    failure: Option<String>,
    cluster: Option<ClusterId>,
    effects: Vec<Effect>,
    trace: Option<Vec<String>>,
}

thread_local! {
    /// How far the run got, should it panic.
    static PROGRESS: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// Runs a cluster through what `profile` says, from this seed.
///
/// # Errors
/// A claim did not hold, or something panicked.
pub(crate) fn run(
    seed: u64,
    profile: impl FnOnce(&mut StdRng) -> Profile,
    trace: bool,
) -> Result<Report, Failure> {
    let mut rng = StdRng::seed_from_u64(seed);
    let profile = profile(&mut rng);
    let lines = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let kept = lines.clone();
    PROGRESS.set((0, 0));
    let result = catch_unwind(AssertUnwindSafe(move || {
        let mut world = World::new(rng, profile, trace);
        let result = world.live();
        *kept.borrow_mut() = world.trace.take().unwrap_or_default();
        result.map(|()| Report {
            digest: world.digest,
            steps: world.steps,
            virtual_time: world.now,
            counts: world.counts,
            probes: std::mem::take(&mut world.probes),
            trace: Vec::new(),
            histories: std::mem::take(&mut world.histories),
        })
    }));
    let trace = lines.take();
    let what = match result {
        Ok(Ok(report)) => return Ok(Report { trace, ..report }),
        Ok(Err(what)) => what,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            format!("panic: {}", text.unwrap_or_default())
        }
    };
    let (step, at) = PROGRESS.get();
    Err(Failure { seed, step, at, what, trace })
}

impl World {
    fn new(mut rng: StdRng, profile: Profile, trace: bool) -> Self {
        let names: Vec<Name> =
            (1..=profile.machines).map(|i| format!("10.0.0.{i}").parse().expect("a name")).collect();
        let skew = |rng: &mut StdRng, most: u64| {
            if most == 0 { 0 } else { rng.random_range(-(most as i64)..=most as i64) }
        };
        let computers: Vec<Computer> = names
            .iter()
            .enumerate()
            .map(|(i, &name)| Computer {
                me: Machine { name, incarnation: Incarnation::new(rng.random_range(1..u64::MAX)) },
                birth: match i {
                    0 => Birth::Init { with: names[1..].to_vec(), slots: profile.slots },
                    _ => Birth::Join(vec![names[0]]),
                },
                disk: Disk::default(),
                node: None,
                life: 0,
                mono: 0,
                skew: skew(&mut rng, profile.skew),
                paused_until: 0,
                wake: None,
                restless: 0,
                waiting: Vec::new(),
            })
            .collect();
        let clients: Vec<Client> = (0..profile.clients)
            .map(|_| Client::new(profile.calls, skew(&mut rng, profile.client_skew), profile.keys))
            .collect();
        let keys: Vec<Key> =
            (0..profile.keys).map(|i| Key::new(format!("key-{i}")).expect("a key")).collect();
        // An auditor for each key joins when all is healed.
        let ends = profile.machines + profile.clients + profile.keys;
        Self {
            now: 0,
            clients,
            owners: vec![Vec::new(); keys.len()],
            histories: vec![Vec::new(); keys.len()],
            keys,
            view: None,
            expiring: Vec::new(),
            last_ask: 0,
            probes: BTreeMap::new(),
            counts: Counts::default(),
            by_name: names.iter().enumerate().map(|(i, &n)| (n, i)).collect(),
            computers,
            queue: BinaryHeap::new(),
            seq: 0,
            stamps: 0,
            values: 0,
            steps: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            cut: vec![vec![false; ends]; ends],
            faulty: profile.dirty_birth,
            failure: None,
            cluster: None,
            effects: Vec::new(),
            trace: trace.then(Vec::new),
            profile,
            rng,
        }
    }

    /// One life of the world: birth, load and faults, healing, audit, judgement.
    fn live(&mut self) -> Result<(), String> {
        for m in 0..self.computers.len() {
            self.start(m);
        }
        if self.faulty {
            self.start_faults();
        } else {
            self.run_while(10 * SEC, |w| !w.born())?;
            if !self.born() {
                return Err("no cluster was born within 10 s".to_string());
            }
            self.faulty = true;
            self.start_faults();
        }
        for c in 0..self.clients.len() {
            self.client_start(c);
        }
        self.run_while(LONGEST, |w| !w.clients.iter().all(Client::idle))?;
        self.heal();
        // Whoever had not finished may do so now; then the audit.
        for client in &mut self.clients {
            client.left = 0;
        }
        let grace = self.profile.deadline + self.profile.replay_delay.min(5 * SEC);
        self.run_while(grace, |w| !w.clients.iter().all(Client::idle) || !w.born())?;
        if !self.born() {
            return Err("healed, and yet no cluster was born".to_string());
        }
        // A sync that was slow when all was healed is slow to its end.
        let hung = self.profile.slow_sync_for;
        self.run_while(hung, |_| true)?;
        if !self.profile.doomed {
            self.audit();
        }
        self.run_while(300 * SEC, |w| !w.clients.iter().all(Client::idle))?;
        if !self.clients.iter().all(Client::idle) {
            return Err("claim 3: the audit did not end".to_string());
        }
        self.expire();
        for (key, history) in self.histories.iter_mut().enumerate() {
            history.sort_by_key(|op| op.start);
            if let Err(fault) = checker::judge(history) {
                return Err(format!("claim 1: key {key}: {fault}"));
            }
        }
        Ok(())
    }

    /// G4: whoever finds a value past its expiry, by his own clock, deletes it. Clocks mean nothing here, so that
    /// may happen at any time after the put began, or never: a conditional delete of unknown outcome.
    fn expire(&mut self) {
        for (key, value, start) in std::mem::take(&mut self.expiring) {
            let history = &mut self.histories[key];
            let version = history.iter().find_map(|op| match (op.call, op.reply) {
                (Call::Put(v, _), Reply::Done(version)) | (Call::Get, Reply::Found(v, version))
                    if v == value =>
                {
                    Some(version)
                }
                _ => None,
            });
            let condition = version.map_or(If::Any, If::Version);
            let (call, reply) = (Call::Delete(condition), Reply::Unknown);
            history.push(Op { who: 999, call, reply, start, end: u64::MAX });
        }
    }

    fn run_while(&mut self, at_most: u64, mut wanted: impl FnMut(&Self) -> bool) -> Result<(), String> {
        let until = self.now.saturating_add(at_most);
        while wanted(self) {
            match self.queue.peek() {
                Some(next) if next.at <= until => {}
                _ => {
                    self.now = until;
                    return Ok(());
                }
            }
            let Some(next) = self.queue.pop() else { return Ok(()) };
            self.now = next.at;
            PROGRESS.set((self.steps, self.now));
            self.happen(next.event);
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
        }
        Ok(())
    }

    pub(crate) fn schedule(&mut self, after: u64, event: Event) {
        self.seq += 1;
        self.queue.push(Scheduled { at: self.now + after, seq: self.seq, event });
    }

    /// The next place in the order of events.
    pub(crate) fn stamp(&mut self) -> u64 {
        self.stamps += 1;
        self.stamps
    }

    pub(crate) fn next_value(&mut self) -> u64 {
        self.values += 1;
        self.values
    }

    pub(crate) fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>12.6} {:>6} {}", self.now as f64 / 1e9, self.steps, line()));
        }
    }

    fn mix(&mut self, number: u64) {
        self.digest = (self.digest ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    /// A wall clock that is off by so much.
    pub(crate) fn wall(&self, skew: i64) -> u64 {
        let exact = (BIRTH + i128::from(self.now) + i128::from(skew)) as u64;
        exact - exact % self.profile.tick
    }

    /// This machine, or the next one that runs.
    pub(crate) fn someone_up(&self, m: usize) -> usize {
        let machines = self.computers.len();
        (m..m + machines).map(|i| i % machines).find(|&i| self.computers[i].node.is_some()).unwrap_or(m)
    }

    /// True once every computer has a view on its disk.
    fn born(&self) -> bool {
        self.view.is_some() && self.computers.iter().all(|c| !c.disk.views.is_empty())
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { to, from, envelope } => {
                let awake = self.computers[to].paused_until;
                if awake > self.now {
                    self.schedule(awake - self.now, Event::Deliver { to, from, envelope });
                    return;
                }
                self.feed(to, Input::Message { from, envelope });
            }
            Event::Tell { client, from, envelope } => {
                self.mix(client as u64 + 7_000);
                self.client_hears(client, from, *envelope);
            }
            Event::Inside { machine, life, input } => {
                let computer = &self.computers[machine];
                if computer.life != life || computer.node.is_none() {
                    return;
                }
                if computer.paused_until > self.now {
                    let wait = computer.paused_until - self.now;
                    self.schedule(wait, Event::Inside { machine, life, input });
                    return;
                }
                self.feed(machine, input);
            }
            Event::Synced { machine, life } => self.synced(machine, life),
            Event::Wake { machine, life } => self.wake(machine, life),
            Event::Client { client, token } => self.client_wakes(client, token),
            Event::Fault(fault) => {
                if self.faulty || matches!(fault, Fault::Restart(_)) {
                    self.strike(fault);
                }
            }
        }
    }

    // Machines.

    /// A process starts from what its disk holds.
    fn start(&mut self, m: usize) {
        let wall = self.wall(self.computers[m].skew);
        let seed = self.rng.random();
        let mono = self.rng.random_range(0..1_000_000 * SEC);
        let rotten = self.spoil(m);
        let computer = &mut self.computers[m];
        computer.mono = mono;
        computer.wake = None;
        computer.restless = 0;
        let setup = Setup {
            me: computer.me,
            weight: self.profile.weight,
            limits: computer.disk.limits,
            views: computer.disk.views.clone(),
            birth: if computer.disk.views.is_empty() { computer.birth.clone() } else { Birth::None },
            tuning: self.profile.tuning.clone(),
            seed,
            rules: Rules::without(self.profile.mutant),
        };
        let now = Now { mono: Mono(mono + self.now), wall };
        computer.node = Some(Node::new(setup, now));
        self.note(|| format!("s{} starts{}", m + 1, if rotten > 0 { ", a record unreadable" } else { "" }));
        self.set_wake(m);
        self.tell_reachable(m, true);
    }

    /// Some records may not be readable again; never so many of a key that it can never be read.
    fn spoil(&mut self, m: usize) -> u32 {
        let mut rotten = 0;
        if !self.faulty || self.profile.rot == 0.0 {
            return 0;
        }
        for key in 0..self.keys.len() {
            if !self.rng.random_bool(self.profile.rot) {
                continue;
            }
            let held = self.slots_where(key, |w, i| i != m && !w.computers[i].disk.is_rotten(&w.keys[key]));
            if held > self.profile.slots / 2 && self.computers[m].disk.rot(&self.keys[key].clone()) {
                rotten += 1;
                self.counts.rotten += 1;
            }
        }
        rotten
    }

    /// Slots of a key whose owners are so.
    fn slots_where(&self, key: usize, wanted: impl Fn(&Self, usize) -> bool) -> u8 {
        self.owners[key].iter().filter(|&&i| wanted(self, i)).count() as u8
    }

    fn crash(&mut self, m: usize) {
        if self.computers[m].node.take().is_none() {
            return;
        }
        let computer = &mut self.computers[m];
        computer.life += 1;
        computer.waiting.clear();
        let unsynced = computer.disk.unsynced();
        let survive =
            if self.rng.random_bool(self.profile.survive) { self.rng.random_range(0..=unsynced) } else { 0 };
        let views = self.computers[m].disk.crash(survive);
        self.durable_views(views);
        self.counts.crashes += 1;
        self.note(|| format!("s{} crashes; {survive} of {unsynced} unsynced changes survive", m + 1));
        let down = log_uniform(&mut self.rng, MS, self.profile.down_for.max(MS));
        self.schedule(down, Event::Fault(Fault::Restart(m)));
        if self.rng.random_bool(0.2) {
            let jump = self.random_skew();
            self.computers[m].skew = jump;
        }
        self.tell_reachable(m, false);
    }

    fn feed(&mut self, m: usize, input: Input) {
        let Some(mut node) = self.computers[m].node.take() else { return };
        self.steps += 1;
        PROGRESS.set((self.steps, self.now));
        self.mix_input(m, &input);
        self.probe(&input);
        if self.trace.is_some() {
            let line = match &input {
                Input::Message { from, envelope } => {
                    format!("s{} <- {} {}", m + 1, self.label(*from), describe(envelope))
                }
                other => format!("s{} <- {other:?}", m + 1),
            };
            self.note(|| line);
        }
        let computer = &self.computers[m];
        let now = Now { mono: Mono(computer.mono + self.now), wall: self.wall(computer.skew) };
        let mut effects = std::mem::take(&mut self.effects);
        node.handle(now, input, &mut effects);
        node.check();
        self.computers[m].node = Some(node);
        let dies = self.faulty
            && self.profile.crash_in_handle > 0.0
            && self.rng.random_bool(self.profile.crash_in_handle);
        let last = if dies { self.rng.random_range(0..=effects.len()) } else { effects.len() };
        for effect in effects.drain(..).take(last) {
            self.carry_out(m, effect);
        }
        effects.clear();
        self.effects = effects;
        if dies {
            self.crash(m);
        } else {
            self.set_wake(m);
        }
    }

    fn carry_out(&mut self, m: usize, effect: Effect) {
        match effect {
            Effect::Persist { ticket, change } => {
                self.note(|| format!("s{} persists {ticket:?}", m + 1));
                if self.computers[m].disk.write(ticket, change) {
                    self.start_sync(m);
                }
            }
            Effect::Send { to, envelope, after } => {
                if let Some(ticket) = after
                    && !self.computers[m].disk.is_durable(ticket)
                {
                    self.computers[m].waiting.push((ticket, to, envelope));
                    return;
                }
                self.send(m, to, envelope);
            }
            Effect::Load { key } => {
                let found = self.computers[m].disk.load(&key);
                let after = log_uniform(&mut self.rng, US, self.profile.load);
                let life = self.computers[m].life;
                self.schedule(after, Event::Inside { machine: m, life, input: Input::Loaded { key, found } });
            }
        }
    }

    fn start_sync(&mut self, m: usize) {
        let slow = self.faulty && self.rng.random_bool(self.profile.slow_sync);
        let most = if slow { self.profile.slow_sync_for } else { self.profile.sync };
        let after = log_uniform(&mut self.rng, 10 * US, most);
        let life = self.computers[m].life;
        self.schedule(after, Event::Synced { machine: m, life });
    }

    fn synced(&mut self, m: usize, life: u32) {
        if self.computers[m].life != life || self.computers[m].node.is_none() {
            return;
        }
        let views = self.computers[m].disk.sync_done();
        self.durable_views(views);
        let computer = &mut self.computers[m];
        let mut free = Vec::new();
        for (ticket, to, envelope) in std::mem::take(&mut computer.waiting) {
            if computer.disk.is_durable(ticket) {
                free.push((to, envelope));
            } else {
                computer.waiting.push((ticket, to, envelope));
            }
        }
        for (to, envelope) in free {
            self.send(m, to, envelope);
        }
        if self.computers[m].disk.start_sync() {
            self.start_sync(m);
        }
    }

    /// F1: there is one cluster, whoever crashed while it was born.
    fn durable_views(&mut self, views: Vec<Arc<View>>) {
        for view in views {
            if *self.cluster.get_or_insert(view.cluster()) != view.cluster() {
                self.fail("F1: machines of one birth belong to two clusters".to_string());
            }
            if self.view.is_none() {
                let ring = Ring::of(&view);
                for (key, owners) in self.keys.iter().zip(&mut self.owners) {
                    let slots = ring.owners(&Chain::of(key.as_bytes(), view.slots()));
                    // One entry a slot: a machine with two slots is asked twice as often.
                    *owners = (1..=view.slots())
                        .map(|s| self.by_name[&view.members()[slots.owner(s) as usize].machine.name])
                        .collect();
                }
                self.view = Some(view);
            }
        }
    }

    fn set_wake(&mut self, m: usize) {
        let computer = &mut self.computers[m];
        let Some((mono, _)) = computer.node.as_ref().and_then(Node::wake_at) else { return };
        let at = mono.0.saturating_sub(computer.mono).max(self.now);
        if computer.wake.is_some_and(|wake| wake <= at) {
            return;
        }
        computer.wake = Some(at);
        let life = computer.life;
        self.schedule(at - self.now, Event::Wake { machine: m, life });
    }

    fn wake(&mut self, m: usize, life: u32) {
        let computer = &mut self.computers[m];
        if computer.life != life || computer.wake.is_none_or(|at| at > self.now) {
            return;
        }
        if computer.paused_until > self.now {
            let wait = computer.paused_until - self.now;
            computer.wake = Some(computer.paused_until);
            self.schedule(wait, Event::Wake { machine: m, life });
            return;
        }
        computer.wake = None;
        let due = |c: &Computer, now: u64| {
            c.node.as_ref().and_then(Node::wake_at).is_some_and(|(mono, _)| mono.0 <= c.mono + now)
        };
        if !due(computer, self.now) {
            return self.set_wake(m);
        }
        self.feed(m, Input::Wake);
        let computer = &mut self.computers[m];
        computer.restless = if due(computer, self.now) { computer.restless + 1 } else { 0 };
        if computer.restless > 1_000 {
            self.fail(format!("s{} wants to be woken at once, for ever", m + 1));
        }
    }

    fn tell_reachable(&mut self, about: usize, reachable: bool) {
        let name = self.computers[about].me.name;
        for m in 0..self.computers.len() {
            if m == about || self.computers[m].node.is_none() {
                continue;
            }
            if !self.faulty || self.rng.random_bool(self.profile.hints) {
                let after = log_uniform(&mut self.rng, MS, 200 * MS);
                let life = self.computers[m].life;
                self.schedule(
                    after,
                    Event::Inside { machine: m, life, input: Input::Reachable { name, reachable } },
                );
            }
        }
    }

    // The network.

    fn send(&mut self, m: usize, to: Addr, envelope: Box<Envelope>) {
        let from = Addr::Machine(self.computers[m].me);
        if self.trace.is_some() {
            let line = format!("s{} -> {} {}", m + 1, self.label(to), describe(&envelope));
            self.note(|| line);
        }
        match to {
            Addr::Machine(machine) => {
                let Some(&i) = self.by_name.get(&machine.name) else { return };
                if i == m {
                    let life = self.computers[m].life;
                    let input = Input::Message { from, envelope };
                    return self.schedule(US, Event::Inside { machine: m, life, input });
                }
                self.transmit(m, i, Event::Deliver { to: i, from, envelope });
            }
            // A forger has no use for an answer.
            Addr::Client(n) if n as usize >= self.clients.len() => {}
            Addr::Client(n) => {
                let client = n as usize;
                let end = self.profile.machines + client;
                let from = self.computers[m].me.name;
                self.transmit(m, end, Event::Tell { client, from, envelope });
            }
        }
    }

    pub(crate) fn send_from_client(&mut self, c: usize, to: usize, envelope: Envelope) {
        let from = Addr::Client(c as u64);
        let end = self.profile.machines + c;
        self.transmit(end, to, Event::Deliver { to, from, envelope: Box::new(envelope) });
    }

    fn transmit(&mut self, from: usize, to: usize, event: Event) {
        self.counts.messages += 1;
        if !self.faulty {
            let after = self.rng.random_range(self.profile.delay.min(MS) / 2..=self.profile.delay.min(MS));
            return self.schedule(after, event);
        }
        // A request travels on a stream of its own: lost or late, but never twice.
        let once = matches!(&event, Event::Deliver { envelope, .. } if matches!(envelope.message, Message::Request { .. }));
        if !once && self.rng.random_bool(self.profile.replay) {
            let after = log_uniform(&mut self.rng, 10 * MS, self.profile.replay_delay);
            self.schedule(after, copy(&event));
        }
        if self.profile.forge > 0.0
            && self.rng.random_bool(self.profile.forge)
            && let Some(forged) = self.forge(&event)
        {
            let after = self.delay();
            self.schedule(after, forged);
        }
        if self.cut[from][to] || self.rng.random_bool(self.profile.drop) {
            return;
        }
        if !once && self.rng.random_bool(self.profile.duplicate) {
            let after = self.delay();
            self.schedule(after, copy(&event));
        }
        let after = self.delay();
        self.schedule(after, event);
    }

    /// The same message with another content, from somebody who has no right to it.
    fn forge(&mut self, event: &Event) -> Option<Event> {
        let Event::Deliver { to, from, envelope } = event else { return None };
        let Addr::Machine(machine) = *from else { return None };
        let mut envelope = envelope.clone();
        match &mut envelope.message {
            Message::Accept { state, stamp, .. } => {
                let mut other = State::clone(state);
                (other.value, other.version) = (Some([0xff; 8].into()), other.version + 1);
                *state = Arc::new(other);
                stamp.n += 1;
            }
            Message::Prepare { ballot, .. } => ballot.time = ballot.time.plus(60 * SEC),
            Message::Answer { votes, answer, .. } => {
                *votes = SlotSet::all(self.profile.slots);
                match answer {
                    Answer::Held { stamp } => stamp.n += 1,
                    Answer::Promised { record, .. } => *record = None,
                    Answer::Copy(copied) => *copied = Copied::None,
                    Answer::Refused { .. } | Answer::Mute => {}
                }
            }
            Message::Outcome { outcome, .. } => *outcome = Outcome::Done { version: 999_999, votes: 9 },
            _ => return None,
        }
        let from = match self.rng.random_range(0..3) {
            0 => Addr::Client(9_999),
            1 => {
                let incarnation = Incarnation::new(machine.incarnation.id() ^ 1);
                Addr::Machine(Machine { incarnation, ..machine })
            }
            _ => {
                envelope.cluster = Some(ClusterId::new(self.rng.random()));
                *from
            }
        };
        Some(Event::Deliver { to: *to, from, envelope })
    }

    fn delay(&mut self) -> u64 {
        if self.rng.random_bool(self.profile.tail) {
            log_uniform(&mut self.rng, MS, self.profile.tail_delay)
        } else {
            self.rng.random_range(self.profile.delay / 2..=self.profile.delay)
        }
    }

    // Faults.

    fn start_faults(&mut self) {
        self.next_fault(Fault::Cut);
        self.next_fault(Fault::Crash);
        self.next_fault(Fault::Pause);
        self.next_fault(Fault::Jump);
        self.next_fault(Fault::Lie);
    }

    fn next_fault(&mut self, fault: Fault) {
        let every = match fault {
            Fault::Cut => self.profile.cut_every,
            Fault::Crash => self.profile.crash_every,
            Fault::Pause => self.profile.pause_every,
            Fault::Jump => self.profile.jump_every,
            Fault::Lie => self.profile.lie_every,
            Fault::Uncut | Fault::Restart(_) => return,
        };
        if every > 0 {
            let after = self.rng.random_range(0..=2 * every);
            self.schedule(after, Event::Fault(fault));
        }
    }

    fn random_skew(&mut self) -> i64 {
        let most = self.profile.skew as i64;
        if most == 0 { 0 } else { self.rng.random_range(-most..=most) }
    }

    fn strike(&mut self, fault: Fault) {
        let machines = self.computers.len();
        let m = self.rng.random_range(0..machines);
        self.next_fault(fault);
        match fault {
            Fault::Cut => {
                self.counts.cuts += 1;
                let ends = self.cut.len();
                let kind = self.rng.random_range(0..5);
                let odds = self.rng.random_range(0.05..0.6);
                let side: Vec<bool> = (0..ends).map(|_| self.rng.random_bool(0.5)).collect();
                for from in 0..ends {
                    for to in 0..ends {
                        let cut = match kind {
                            // One machine, from everybody; or only what it says, or only what it hears.
                            0 => from == m || to == m,
                            1 => from == m,
                            2 => to == m,
                            // Two camps.
                            3 => side[from] != side[to],
                            // Any links.
                            _ => self.rng.random_bool(odds),
                        };
                        self.cut[from][to] |= cut && from != to;
                    }
                }
                self.note(|| format!("cut: kind {kind}, s{}", m + 1));
                let after = log_uniform(&mut self.rng, 10 * MS, self.profile.cut_for);
                self.schedule(after, Event::Fault(Fault::Uncut));
            }
            Fault::Uncut => {
                self.note(|| "all links mended".to_string());
                self.uncut();
            }
            Fault::Crash => {
                if self.rng.random_bool(self.profile.power_cut) {
                    for m in 0..machines {
                        self.crash(m);
                    }
                } else {
                    self.crash(m);
                }
            }
            Fault::Restart(m) => {
                if self.computers[m].node.is_none() {
                    self.start(m);
                }
            }
            Fault::Pause => {
                let pause = log_uniform(&mut self.rng, 10 * MS, 3 * SEC);
                self.computers[m].paused_until = self.now + pause;
                self.note(|| format!("s{} pauses", m + 1));
            }
            Fault::Jump => {
                let skew = self.random_skew();
                self.computers[m].skew = skew;
                self.note(|| format!("s{}: clock jumps to {skew}", m + 1));
            }
            Fault::Lie => {
                let about = self.rng.random_range(0..machines);
                let name = self.computers[about].me.name;
                let reachable = self.rng.random_bool(0.3);
                let life = self.computers[m].life;
                if about != m {
                    let input = Input::Reachable { name, reachable };
                    self.schedule(0, Event::Inside { machine: m, life, input });
                }
            }
        }
    }

    fn uncut(&mut self) {
        for row in &mut self.cut {
            row.fill(false);
        }
    }

    /// Faults stop. Everybody is back, or all but as many as may be missing.
    fn heal(&mut self) {
        self.note(|| "healed".to_string());
        self.faulty = false;
        self.uncut();
        let away: Vec<usize> =
            if self.profile.stay_down && self.born() { self.may_be_missing() } else { Vec::new() };
        for m in 0..self.computers.len() {
            self.computers[m].paused_until = 0;
            if away.contains(&m) {
                self.crash(m);
                // Not to come back: the restart under way finds another life.
                self.computers[m].birth = Birth::None;
                self.queue_without_restart(m);
            } else if self.computers[m].node.is_none() {
                self.start(m);
            }
        }
        for m in 0..self.computers.len() {
            let up = self.computers[m].node.is_some();
            self.tell_reachable(m, up);
        }
    }

    fn queue_without_restart(&mut self, m: usize) {
        let queue = std::mem::take(&mut self.queue);
        self.queue = queue
            .into_iter()
            .filter(|s| !matches!(s.event, Event::Fault(Fault::Restart(i)) if i == m))
            .collect();
    }

    /// Machines without which every key still has its five.
    fn may_be_missing(&mut self) -> Vec<usize> {
        let mut away = Vec::new();
        for _ in 0..self.profile.machines {
            let m = self.rng.random_range(0..self.profile.machines);
            if away.contains(&m) {
                continue;
            }
            away.push(m);
            let enough = (0..self.keys.len())
                .all(|key| self.slots_where(key, |_, i| !away.contains(&i)) > self.profile.slots / 2);
            if !enough {
                away.pop();
            }
        }
        away
    }

    /// Every key must be readable and writable, from everywhere.
    fn audit(&mut self) {
        // Where there is room for few keys, the floor rises with each that is dropped: several at a time would
        // refuse one another's ballots for ever. Then one auditor goes from key to key.
        let together = self.profile.tuning.cells >= 4 * self.keys.len();
        let keys: Vec<usize> = (0..self.keys.len()).collect();
        for keys in keys.chunks(if together { 1 } else { keys.len() }) {
            let c = self.clients.len();
            // Its clock is ahead of all others: no request of its is too late.
            let ahead = (self.profile.client_skew + self.profile.tick + SEC) as i64;
            let mut client = Client::new(0, ahead, self.keys.len());
            client.scripted = true;
            let script = [
                Script::Get,
                Script::DirectGet,
                Script::Put,
                Script::DirectGet,
                Script::Get,
                Script::Delete,
                Script::Get,
                Script::Put,
                Script::Get,
            ];
            for &key in keys {
                client.script.extend(script.map(|s| (key, s)));
            }
            self.clients.push(client);
            self.client_start(c);
        }
    }

    // The trace.

    fn label(&self, addr: Addr) -> String {
        match addr {
            Addr::Machine(machine) => match self.by_name.get(&machine.name) {
                Some(i) => format!("s{}", i + 1),
                None => machine.to_string(),
            },
            Addr::Client(n) => format!("client {n}"),
        }
    }

    fn probe(&mut self, input: &Input) {
        let what = match input {
            Input::Message { envelope, .. } => match &envelope.message {
                Message::Request { handed: true, .. } => "handed over",
                Message::Outcome { outcome, .. } => said(outcome),
                message => message.kind(),
            },
            Input::Loaded { found: Loaded::Unreadable, .. } => "unreadable",
            Input::Loaded { .. } => "loaded",
            Input::Reachable { .. } => "hint",
            Input::Wake => "wake",
        };
        *self.probes.entry(what).or_default() += 1;
    }

    /// A client was told this.
    pub(crate) fn probe_outcome(&mut self, outcome: &Outcome) {
        *self.probes.entry(said(outcome)).or_default() += 1;
    }

    fn mix_input(&mut self, m: usize, input: &Input) {
        self.mix(self.now);
        self.mix(m as u64);
        match input {
            Input::Message { from, envelope } => {
                let from = match from {
                    Addr::Machine(machine) => self.by_name.get(&machine.name).map_or(0, |&i| i as u64),
                    Addr::Client(n) => 1_000 + n,
                };
                self.mix(from);
                for byte in envelope.message.kind().bytes() {
                    self.mix(u64::from(byte));
                }
                if let Some(ballot) = envelope.message.ballot() {
                    self.mix(ballot.time.nanos());
                }
            }
            Input::Loaded { .. } => self.mix(1),
            Input::Reachable { reachable, .. } => self.mix(2 + u64::from(*reachable)),
            Input::Wake => self.mix(4),
        }
    }
}

fn copy(event: &Event) -> Event {
    match event {
        Event::Deliver { to, from, envelope } => {
            Event::Deliver { to: *to, from: *from, envelope: envelope.clone() }
        }
        Event::Tell { client, from, envelope } => {
            Event::Tell { client: *client, from: *from, envelope: envelope.clone() }
        }
        _ => unreachable!("only messages are copied"),
    }
}

fn describe(envelope: &Envelope) -> String {
    let extra = match &envelope.message {
        Message::Request { op, handed, .. } => format!(" {op:?}{}", if *handed { " handed" } else { "" }),
        Message::Outcome { outcome, .. } => format!(" {outcome:?}"),
        Message::Accept { state, .. } => format!(" version {}", state.version),
        Message::Answer { answer, .. } => format!(" {answer:?}"),
        _ => String::new(),
    };
    let mut line = format!("{}{extra}", envelope.message);
    line.truncate(300);
    line
}

/// An outcome in a word or two.
pub(crate) fn said(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done { .. } => "done",
        Outcome::Value(None) => "no value",
        Outcome::Value(Some(_)) => "value",
        Outcome::Mismatch { .. } => "mismatch",
        Outcome::Absent => "nothing to delete",
        Outcome::TooLate { .. } => "too late",
        Outcome::NoQuorum { .. } => "no quorum",
        Outcome::Unknown { .. } => "unknown",
        Outcome::Overloaded { .. } => "overloaded",
        Outcome::Refused(_) => "not tried",
    }
}
