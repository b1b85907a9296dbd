//! A machine: all of the protocol, driven by one input at a time.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use hashbrown::HashMap;

use crate::birth::Stage;
use crate::cell::Cell;
use crate::counts::Counts;
use crate::detector::{Detector, Suspect};
use crate::doubt;
use crate::effect::{Account, Effect, Input, Limits, Mono, Now};
use crate::fetching::Fetchings;
use crate::gossip::Health;
use crate::key::Key;
use crate::listing::Listings;
use crate::local::Local;
use crate::merge::{Act, Move, Take};
use crate::message::{Addr, Change, Message, Op};
use crate::mutant::Mutant;
use crate::quorum::SlotSet;
use crate::roll::Rolls;
pub use crate::setup::{Birth, PROBE_EVERY, Setup, Tuning};
use crate::stamp::Stamp;
use crate::sync::{CheckProgress, Sync, Want};
use crate::telling::Tellings;
use crate::view::{Machine, Name, View};
use crate::warden::Warden;

mod hearing;
mod keys;
mod views;

/// Why a node wants to be woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// A round has not been answered by all: send again, back off, or give up at the deadline.
    Round,
    /// A blank machine offers itself again.
    Birth,
    /// Another machine is to be probed, or should have answered by now.
    Probe,
    /// The wardens are to be told something, or to be asked again.
    Warden,
    /// A page or a value has not come, or the next one is due.
    Sync,
}

type Table<V> = HashMap<Key, V, foldhash::fast::FixedState>;

/// A machine.
#[derive(Debug)]
pub struct Node {
    local: Local,
    birth: Stage,
    detector: Detector,
    warden: Warden,
    sync: Sync,
    tellings: Tellings,
    fetchings: Fetchings,
    rolls: Rolls,
    listings: Listings,
    /// Keys used lately. When they are many they become `old`, and the former `old` ones are dropped, as far
    /// as nothing would be forgotten: a cache of two generations.
    young: Table<Entry>,
    old: Table<Entry>,
    /// Bytes of values in `young`.
    young_bytes: usize,
    /// How many keys, and how many bytes, `young` may have before it becomes `old`.
    room: (usize, usize),
    /// Bytes of values in messages that wait for storage.
    loading_bytes: usize,
    /// When a key wants to be woken. An entry may be too early, never too late.
    timers: BTreeSet<(Mono, Key)>,
    /// F2, R2: why it may take part no more under this incarnation.
    cast_out: Option<String>,
    /// What another machine says of the views, and cannot be so.
    objection: Option<String>,
    was_unwell: bool,
}

/// What is in memory of a key.
#[derive(Debug)]
enum Entry {
    /// Storage is being asked; what is to be done waits for it in order.
    Loading(Vec<Work>),
    Here(Box<Cell>),
}

/// Something to be done at a key.
#[derive(Debug)]
enum Work {
    /// Somebody says something.
    /// Since when it waits: the time for its answer has begun.
    Message { from: Addr, message: Message, came: Mono },
    /// S5, S6, M1: a pass has brought this.
    Take(Take),
    /// T2: this record is for nothing.
    Forget(Stamp),
    /// Another machine asked for what is held here, under this number.
    Give(u64),
}

impl Work {
    /// Bytes of the value that it carries for somebody who can ask again.
    fn bytes(&self) -> usize {
        match self {
            Self::Message { message: Message::Accept { state, .. }, .. } => {
                state.value.as_ref().map_or(0, |v| v.len())
            }
            Self::Message { message: Message::Request { op: Op::Write(write), .. }, .. } => {
                match &write.change {
                    Change::Put { value, .. } => value.len(),
                    Change::Delete | Change::Touch { .. } | Change::Incr { .. } => 0,
                }
            }
            _ => 0,
        }
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        match self {
            Self::Loading(_) => 0,
            Self::Here(cell) => cell.bytes,
        }
    }
}

impl Node {
    /// A machine that has just started: everything that is not in `setup` is forgotten (R1).
    pub fn new(setup: Setup, now: Now) -> Self {
        let local = Local::new(&setup, now);
        let hasher = foldhash::fast::FixedState::with_seed(setup.seed);
        let own = local.newest().map(|p| [p.view.clone()]);
        Self {
            cast_out: own.and_then(|own| doubt::cast_out(local.me, &own[0], &own, local.rules)),
            objection: None,
            birth: Stage::new(&setup.birth, &local, now),
            detector: Detector::default(),
            warden: Warden::new(setup.decree.clone(), now),
            sync: Sync::new(&local, now),
            tellings: Tellings::default(),
            fetchings: Fetchings::default(),
            rolls: Rolls::default(),
            listings: Listings::default(),
            local,
            young: HashMap::with_hasher(hasher.clone()),
            old: HashMap::with_hasher(hasher),
            young_bytes: 0,
            loading_bytes: 0,
            room: (setup.tuning.cells / 2, setup.tuning.cell_bytes / 2),
            timers: BTreeSet::new(),
            was_unwell: false,
        }
    }

    /// Takes one input; what is to be done about it is appended to `effects`, to be carried out in order.
    pub fn handle(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        // F2: it may never vote or tell again.
        if self.cast_out.is_some() {
            return;
        }
        self.local.see_wall(now);
        match input {
            Input::Message { from, envelope } => self.on_message(now, from, *envelope, effects),
            Input::Loaded { key, found } => self.on_loaded(now, key, found, effects),
            Input::Reachable { name, reachable } => {
                self.local.note_reachable(name, reachable);
                let member = self.local.newest().and_then(|p| p.view.index_of(name)).map(|i| i as u32);
                match member {
                    Some(member) if reachable => self.detector.heard(&mut self.local, now, member),
                    Some(member) => {
                        self.detector.on_unreachable(&mut self.local, now, member, effects);
                    }
                    None => {}
                }
                if !reachable {
                    self.take_back(now, effects);
                }
            }
            Input::Scanned { scan, mut found, end, total } => {
                let local = &mut self.local;
                if local.newest().is_some()
                    && !self.tellings.on_scanned(local, now, scan, (&mut found, end, total), effects)
                    && !self.rolls.on_scanned(local, scan, (&mut found, end), effects)
                    && !self.listings.on_scanned(local, now, scan, (&mut found, end, total), effects)
                {
                    let mut wants = Vec::new();
                    self.sync.on_scanned(local, now, scan, &mut found, end, &mut wants);
                    self.carry_out(now, wants, effects);
                }
            }
            Input::Health(health) => self.detector.on_health(&mut self.local, now, health, effects),
            Input::Wake => self.on_time(now, effects),
        }
        if self.detector.take_lost() {
            self.take_back(now, effects);
        }
        let was_unwell = mem::replace(&mut self.was_unwell, self.local.is_unwell);
        if self.local.is_unwell && !was_unwell {
            self.give_away(now, effects);
        }
        self.go_on(now, effects);
    }

    /// When to send [`Input::Wake`], and why; `None` if nothing is due ever.
    pub fn wake_at(&self) -> Option<(Mono, Why)> {
        if self.cast_out.is_some() {
            return None;
        }
        let mut first = self.timers.first().map(|(at, _)| (*at, Why::Round));
        let mut or = |at: Option<Mono>, why: Why| {
            if let Some(at) = at
                && first.is_none_or(|(earlier, _)| at < earlier)
            {
                first = Some((at, why));
            }
        };
        or(self.birth.wake_at(), Why::Birth);
        or(self.detector.wake_at(&self.local), Why::Probe);
        or(self.warden.wake_at(&self.local, self.sync.standing(&self.local)), Why::Warden);
        or(self.sync.wake_at(&self.local), Why::Sync);
        or(self.rolls.wake_at(), Why::Sync);
        first
    }

    /// Who it is.
    pub fn machine(&self) -> Machine {
        self.local.me
    }

    /// The newest view adopted.
    pub fn view(&self) -> Option<&Arc<View>> {
        self.local.newest().map(|p| &p.view)
    }

    /// The limits last persisted.
    pub fn limits(&self) -> Limits {
        self.local.limits
    }

    /// True if it votes for all the slots it owns (section 6).
    pub fn is_synced(&self) -> bool {
        self.local.is_synced()
    }

    /// The views since the last settled one, newest last.
    pub fn history(&self) -> impl Iterator<Item = &Arc<View>> {
        self.local.history().views.iter().map(|p| &p.view)
    }

    /// What it can tell of its views.
    pub fn account(&self) -> &Account {
        &self.local.account
    }

    /// True if the present view is settled, as far as this machine knows (T1).
    pub fn is_settled(&self) -> bool {
        self.local.newest().is_some() && self.local.is_settled()
    }

    /// True if it handed its data over and is needed no more (M3): the view that it is not in is settled.
    pub fn has_left(&self) -> bool {
        self.local.account.left && self.local.is_settled()
    }

    /// F2: why this machine may take part no more under its incarnation: an operator forced it out, or a forced recovery
    /// went on without views that it has adopted. From then on it is silent.
    pub fn is_forced_out(&self) -> Option<&str> {
        self.cast_out.as_deref()
    }

    /// What another machine said last of the views, and cannot be so: nothing was done about it, and somebody should
    /// look. F2: that two forced recoveries went apart, say.
    pub fn objection(&self) -> Option<&str> {
        self.objection.as_deref()
    }

    /// Q1: the slots of a key that it votes for now.
    pub fn votes_for(&self, key: &Key) -> SlotSet {
        match self.local.newest() {
            Some(_) if self.cast_out.is_none() => self.local.voting(key, &self.local.owners_of(key)),
            _ => SlotSet::EMPTY,
        }
    }

    /// Bytes of values that it has taken in from others since it started.
    pub fn taken_bytes(&self) -> u64 {
        self.sync.taken_bytes()
    }

    /// What it has done so far, counted.
    pub fn counts(&self) -> &Counts {
        &self.local.counts
    }

    /// Tombstones that it holds; `None` until its records were swept once. See `tombstones`.
    pub fn tombstones(&self) -> Option<u64> {
        self.local.tombstones.held()
    }

    /// What it is taking in at present.
    pub fn moves(&self) -> Vec<Move> {
        self.sync.moves()
    }

    /// Compares all copies of the keys that it is the first owner of, as soon as nothing moves.
    pub fn start_check(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.sync.check_now();
        self.go_on(now, effects);
    }

    /// How far that is.
    pub fn check_progress(&self) -> CheckProgress {
        self.sync.progress()
    }

    /// Machines that `--init --with` still waits for.
    pub fn awaited(&self) -> Vec<Name> {
        self.birth.awaited()
    }

    /// Members that do not answer, as far as this machine knows. Never evidence of what they hold or promised.
    pub fn suspects(&self) -> Vec<Suspect> {
        self.detector.suspects(&self.local)
    }

    /// When a machine was last heard, if it was: by itself, or by somebody who was asked to listen.
    pub fn heard(&self, name: Name) -> Option<Mono> {
        self.detector.last_heard(name)
    }

    /// Members that say they are not well, or that their disk is full; how they are, and since when.
    pub fn unwell(&self) -> Vec<(Name, Health, Now)> {
        self.detector.unwell(&self.local)
    }

    /// Members whose answers about keys do not come, though they may answer probes; who waits for them, and how many
    /// milliseconds they take.
    pub fn late(&self) -> Vec<(Name, Vec<(Name, u32)>)> {
        self.detector.late(&self.local)
    }

    /// True if this machine is not well, by its own word or by that of who waits for its answers: it coordinates nothing
    /// that another owner can.
    pub fn is_unwell(&self) -> bool {
        self.local.is_unwell
    }

    /// Requests that it has not tried since too much was waiting: answered `Overloaded` since it started.
    pub fn turned_away(&self) -> u64 {
        self.local.turned_away
    }

    /// Machines that are better asked last: suspects, and those that are not well, itself among them.
    pub fn shunned(&self) -> Vec<Name> {
        let own = self.local.is_unwell.then_some(self.local.me.name);
        let mut shunned: Vec<Name> =
            self.local.doubted.iter().chain(&self.local.unwell).copied().chain(own).collect();
        shunned.sort_unstable();
        shunned.dedup();
        shunned
    }

    /// Whatever can go on without waiting goes on.
    fn go_on(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let mut wants = Vec::new();
        self.sync.advance(&mut self.local, now, effects, &mut wants);
        if !wants.is_empty() {
            self.carry_out(now, wants, effects);
        }
    }

    fn carry_out(&mut self, now: Now, wants: Vec<Want>, effects: &mut Vec<Effect>) {
        for want in wants {
            match want {
                Want::Pass(Act::Take(key, take)) => self.route(now, key, Work::Take(take), effects),
                Want::Pass(Act::Collect(key, stamp)) => {
                    let owners = self.local.owners_of(&key);
                    let epoch = self.local.epoch();
                    // G2, "durably": the others told what is on their disks, and of its own it read what was only written.
                    let durable = !self.local.rules.broken(Mutant::G2Unsynced);
                    let after = self.local.last_ticket().filter(|_| durable);
                    for member in owners.machines() {
                        let message = Message::Collect { key: key.clone(), stamp, epoch };
                        self.local.send_to(member, message, after, effects);
                    }
                }
                Want::Pass(Act::Settled(epoch)) => self.settle(now, epoch, effects),
                Want::Pass(Act::Settle(_)) => {}
                Want::Forget(key, stamp) => self.route(now, key, Work::Forget(stamp), effects),
                Want::Synced => {}
            }
        }
    }

    // -- time ----------------------------------------------------------------------------------------

    fn on_time(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let blank = self.local.newest().is_none();
        self.birth.on_time(&mut self.local, now, effects);
        if blank {
            self.born(now, effects);
        }
        self.detector.on_time(&mut self.local, now, effects);
        if self.local.newest().is_some() {
            let dead = |local: &mut Local, effects: &mut Vec<Effect>| self.detector.dead(local, now, effects);
            let standing = self.sync.standing(&self.local);
            self.warden.on_time(&mut self.local, now, standing, dead, effects);
            self.rolls.on_time(&mut self.local, now, effects);
        }
        while let Some((at, key)) = self.timers.first().cloned() {
            if at > now.mono {
                break;
            }
            self.timers.remove(&(at, key.clone()));
            self.at(now, &key, effects, |cell, turn| {
                cell.timer = None;
                cell.coordinator.on_time(turn);
                let reads = cell.readings.on_time(turn);
                cell.settle(turn, reads);
            });
        }
    }

    /// Walks the whole state and panics at anything that cannot be: the simulator calls it after every input.
    pub fn check(&self) {
        self.local.check();
        let mut timed = 0;
        for (key, entry) in self.young.iter().chain(&self.old) {
            let Entry::Here(cell) = entry else { continue };
            cell.acceptor.check(&self.local.limits);
            timed += usize::from(cell.timer.is_some());
            let due = Mono::first([cell.coordinator.wake_at(), cell.readings.wake_at()]);
            assert!(due.is_none() || cell.timer <= due && cell.timer.is_some(), "{key}: nobody wakes it");
        }
        for (at, key) in &self.timers {
            let entry = self.young.get(key).or_else(|| self.old.get(key));
            let is = matches!(entry, Some(Entry::Here(cell)) if cell.timer == Some(*at));
            assert!(is, "{key}: a timer is not the one of its key");
        }
        // One of each key, so of each that has one.
        assert_eq!(timed, self.timers.len(), "a timer is not set");
        assert_eq!(
            self.young_bytes,
            self.young.values().map(Entry::bytes).sum::<usize>(),
            "bytes miscounted"
        );
        for key in self.local.asked.values() {
            let here = self.young.get(key).or_else(|| self.old.get(key));
            assert!(
                matches!(here, Some(Entry::Here(_))),
                "{key}: an answer is expected for a key that is gone"
            );
        }
    }
}
