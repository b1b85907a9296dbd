//! One computer: a node's process, from its start to its crash, over the disk that outlives it.

use ennead_ring::effect::{Change, Effect, Input, Mono, Now, Ticket};
use ennead_ring::message::{Addr, Envelope, Message};
use ennead_ring::node::{Birth, Setup};
use ennead_ring::{Epoch, Machine, Node, Zone};
use rand::RngExt;

use crate::disk::Disk;
use crate::events::{Event, Fault};
use crate::faults::log_uniform;
use crate::report;
use crate::script::What;
use crate::world::{PROGRESS, World};
use crate::{MS, SEC, US};

/// What becomes of a computer, as its operators want it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// It does not run, and belongs to no cluster: not bought yet, or decommissioned.
    Out,
    /// It is wanted as a member.
    In,
    /// It was told to leave, and runs until it is no longer needed.
    Going,
    /// It will never run again.
    Dead,
}

/// One computer: what is on its disk, and the process on it while it runs.
pub(crate) struct Computer {
    pub(crate) me: Machine,
    pub(super) role: Role,
    /// It is to begin anew: from a backup, if there is one.
    pub(super) reborn: Option<bool>,
    pub(super) birth: Birth,
    pub(crate) disk: Disk,
    /// A backup that may be restored one day.
    pub(super) image: Option<Disk>,
    /// The newest view handed to storage in this life: V3 counts from there.
    pub(super) stands: Epoch,
    pub(crate) node: Option<Box<Node>>,
    pub(super) life: u32,
    /// What its timers' clock showed when virtual time was zero.
    pub(super) mono: u64,
    /// How far its wall clock is off.
    pub(super) skew: i64,
    pub(super) paused_until: u64,
    /// Until then it has no power.
    pub(super) down_until: u64,
    /// Until then its fsyncs take so many times as long as else.
    pub(super) slow: (f64, u64),
    /// The weight and the zone that it is to have.
    pub(super) place: (u32, Zone),
    /// Until then what it has sent is on its way out.
    pub(super) sending_until: u64,
    /// When its node wants to be woken.
    pub(super) due: Option<u64>,
    /// The wake-up under way: then, or before.
    pub(super) wake: Option<u64>,
    /// Wake-ups in a row that left it as due as before.
    pub(super) restless: u32,
    /// Sends that wait for a ticket.
    pub(super) waiting: Vec<(Ticket, Addr, Box<Envelope>)>,
}

impl World {
    /// A process starts from what its disk holds.
    pub(super) fn start(&mut self, m: usize) {
        let wall = self.wall(self.computers[m].skew);
        let seed = self.rng.random();
        let mono = self.rng.random_range(0..1_000_000 * SEC);
        let rotten = self.spoil(m);
        let birth = self.birth_of(m);
        let computer = &mut self.computers[m];
        computer.mono = mono;
        (computer.due, computer.wake) = (None, None);
        computer.restless = 0;
        computer.stands = computer.disk.epoch();
        let setup = Setup {
            me: computer.me,
            weight: computer.place.0,
            zone: computer.place.1,
            limits: computer.disk.limits,
            views: computer.disk.views.clone(),
            account: computer.disk.account.clone(),
            decree: computer.disk.decree.clone(),
            birth,
            tuning: self.profile.tuning.clone(),
            seed,
            rules: self.profile.rules,
        };
        let now = Now { mono: Mono(mono + self.now), wall };
        let stands = computer.stands;
        computer.node = Some(Box::new(Node::new(setup, now)));
        self.record(m, |world| Some(world.starts(m, seed)));
        self.note(|| {
            let rot = if rotten > 0 { ", a record unreadable" } else { "" };
            format!("s{} starts, at e{stands}{rot}", m + 1)
        });
        self.set_wake(m);
        self.tell_reachable(m, true);
    }

    /// Whoever belongs to a cluster needs none; told to join again after it left, it does.
    pub(super) fn birth_of(&self, m: usize) -> Birth {
        let computer = &self.computers[m];
        match &computer.birth {
            Birth::Join(seeds) if computer.role == Role::In => Birth::Join(seeds.clone()),
            birth if computer.disk.views.is_empty() => birth.clone(),
            _ => Birth::None,
        }
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
            let held = self.slots_where(key, |w, i| {
                i != m && w.computers[i].role != Role::Dead && !w.computers[i].disk.is_rotten(w.keys.get(key))
            });
            if held > self.profile.slots / 2 && self.computers[m].disk.rot(&self.keys.get(key).clone()) {
                rotten += 1;
                self.counts.rotten += 1;
            }
        }
        rotten
    }

    pub(super) fn crash(&mut self, m: usize) {
        self.die(
            m,
            |w, unsynced| {
                if w.rng.random_bool(w.profile.survive) { w.rng.random_range(0..=unsynced) } else { 0 }
            },
        );
    }

    /// An fsync fails. The process ends, having told nothing of what that was to write. All of it is in the system's memory,
    /// and the process that comes next makes it durable before it tells of it (R2).
    pub(super) fn fail_disk(&mut self, m: usize) {
        self.die(m, |_, unsynced| unsynced);
    }

    /// A process dies, and so many of its unsynced changes survive.
    fn die(&mut self, m: usize, survivors: impl FnOnce(&mut Self, usize) -> usize) {
        self.add_moved(m);
        if self.computers[m].node.take().is_none() {
            return;
        }
        self.watch(m);
        let computer = &mut self.computers[m];
        computer.life += 1;
        computer.waiting.clear();
        let unsynced = computer.disk.unsynced();
        let survive = survivors(self, unsynced);
        self.record(m, |_| Some(What::Dies { survive }));
        let notes = self.computers[m].disk.crash(survive);
        self.durable(m, notes);
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

    pub(super) fn feed(&mut self, m: usize, input: Input) {
        let Some(mut node) = self.computers[m].node.take() else { return };
        self.steps += 1;
        PROGRESS.set((self.steps, self.now));
        self.mix_input(m, &input);
        self.record_input(m, &input);
        self.probe(&input);
        if self.trace.is_some() {
            let line = match &input {
                Input::Message { from, envelope } => {
                    format!("s{} <- {} {}", m + 1, self.label(*from), report::describe(envelope))
                }
                other => format!("s{} <- {}", m + 1, report::happened(other)),
            };
            self.note(|| line);
        }
        let now = self.clock_of(m);
        let mut effects = std::mem::take(&mut self.effects);
        let collecting = matches!(&input, Input::Message { envelope, .. }
            if matches!(envelope.message, Message::Collect { .. }));
        node.handle(now, input, &mut effects);
        if collecting
            && effects.iter().any(|e| matches!(e, Effect::Persist { change: Change::Forget { .. }, .. }))
        {
            self.met("tombstone collected");
        }
        if self.profile.check {
            node.check();
        }
        if self.profile.hang.is_some() {
            self.probe_late(m, &node);
        }
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

    /// Somebody at the machine itself asks its node for something.
    pub(super) fn at_node(&mut self, m: usize, ask: impl FnOnce(&mut Node, Now, &mut Vec<Effect>)) {
        let now = self.clock_of(m);
        let Some(node) = &mut self.computers[m].node else { return };
        let mut effects = Vec::new();
        ask(node, now, &mut effects);
        for effect in effects {
            self.carry_out(m, effect);
        }
        self.set_wake(m);
    }

    fn clock_of(&self, m: usize) -> Now {
        let computer = &self.computers[m];
        Now { mono: Mono(computer.mono + self.now), wall: self.wall(computer.skew) }
    }

    fn carry_out(&mut self, m: usize, effect: Effect) {
        match effect {
            Effect::Persist { ticket, change } => {
                if self.trace.is_some() {
                    let line = format!("s{} persists {} as {}", m + 1, report::written(&change), ticket.0);
                    self.note(|| line);
                }
                self.writes(m, &change);
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
            Effect::Scan { scan, after, keys, bytes } => {
                let (found, end, total) = self.computers[m].disk.scan(after.as_ref(), keys, bytes);
                let wait = log_uniform(&mut self.rng, US, self.profile.load * 4);
                let life = self.computers[m].life;
                let input = Input::Scanned { scan, found, end, total };
                self.schedule(wait, Event::Inside { machine: m, life, input });
            }
        }
    }

    fn start_sync(&mut self, m: usize) {
        let slow = self.faulty && self.rng.random_bool(self.profile.slow_sync);
        let most = if slow { self.profile.slow_sync_for } else { self.profile.sync };
        let mut after = log_uniform(&mut self.rng, 10 * US, most);
        if let Some((_, from, until)) = self.profile.hang.filter(|(hangs, ..)| *hangs == m)
            && (from..until).contains(&self.now)
        {
            after = until - self.now;
        }
        let (times, until) = self.computers[m].slow;
        if until > self.now {
            after = ((after as f64 * times) as u64).min(until - self.now + after);
        }
        let life = self.computers[m].life;
        self.schedule(after, Event::Synced { machine: m, life });
    }

    pub(super) fn synced(&mut self, m: usize, life: u32) {
        if self.computers[m].life != life || self.computers[m].node.is_none() {
            return;
        }
        self.record(m, |_| Some(What::Syncs));
        let notes = self.computers[m].disk.sync_done();
        self.durable(m, notes);
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

    fn set_wake(&mut self, m: usize) {
        let computer = &mut self.computers[m];
        let due = computer.node.as_deref().and_then(Node::wake_at);
        computer.due = due.map(|(mono, _)| mono.0.saturating_sub(computer.mono));
        self.wake_when_due(m);
    }

    /// There is nearly always one under way that comes no later: it is what looks again.
    fn wake_when_due(&mut self, m: usize) {
        let computer = &mut self.computers[m];
        let Some(at) = computer.due.map(|due| due.max(self.now)) else { return };
        if computer.wake.is_some_and(|wake| wake <= at) {
            return;
        }
        computer.wake = Some(at);
        let life = computer.life;
        self.schedule(at - self.now, Event::Wake { machine: m, life });
    }

    pub(super) fn wake(&mut self, m: usize, life: u32) {
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
        if computer.due.is_none_or(|due| due > self.now) {
            return self.wake_when_due(m);
        }
        self.feed(m, Input::Wake);
        let computer = &mut self.computers[m];
        computer.restless = if computer.wake == Some(self.now) { computer.restless + 1 } else { 0 };
        if computer.restless > 1_000 {
            self.fail(format!("s{} wants to be woken at once, for ever", m + 1));
        }
    }

    pub(super) fn tell_reachable(&mut self, about: usize, reachable: bool) {
        // A thousand machines have no connection to most others: only probes tell.
        if self.profile.hints == 0.0 && self.profile.born {
            return;
        }
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
}
