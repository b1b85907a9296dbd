//! A machine: all of the protocol, driven by one input at a time.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::mem;

use hashbrown::HashMap;

use crate::acceptor::{Accepted, Acceptor};
use crate::birth::Stage;
use crate::coordinator::Coordinator;
use crate::counts::Counts;
use crate::detector::{Detector, Suspect};
use crate::effect::{Account, Change, Decree, Effect, Input, Limits, Loaded, Mono, Now};
use crate::fetching::Fetchings;
use crate::forced::{self, Force};
use crate::gossip::Health;
use crate::key::Key;
use crate::local::Local;
use crate::merge::{Act, Move, Take};
use crate::message::{self, Addr, Answer, Bound, Envelope, Message, Op, Outcome, Write};
use crate::mutant::Mutant;
use crate::placement::Owners;
use crate::quorum::SlotSet;
use crate::reading::Readings;
use crate::stamp::{Ballot, Hlc, Record, Stamp, State};
use crate::sync::{CheckProgress, Sync, Want};
use crate::telling::Tellings;
use crate::turn::{Turn, Vote, Waiting};
use crate::view::{Epoch, Machine, Name, View};
use crate::warden::Warden;

/// How a machine without a cluster comes to one (F1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Birth {
    /// It has one: restored views say which. With none, it waits to be asked by nobody and says so.
    None,
    /// It is blank and offers itself to these, again and again.
    Join(Vec<Name>),
    /// It is view 1: itself and these blank machines, once each has offered itself.
    Init {
        /// The machines to take along.
        with: Vec<Name>,
        /// Slots of each key, odd.
        slots: u8,
    },
}

/// What may be tuned: progress and cost, never safety.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// How long until an unanswered Prepare, Accept or Read is sent again; doubles each time. Default 50 ms.
    pub resend_after: u64,
    /// How far ahead of the clock the ceiling is raised. Default 3 s. A restart cannot take part in ballots
    /// until its clock has passed the old ceiling, or a proposer jumps above it: which costs one round trip.
    pub ceiling_ahead: u64,
    /// First wait after a ballot was beaten; doubles up to a second, at random. Default 2 ms.
    pub backoff: u64,
    /// Accepts of one key that may be under way at once (C3). Default 4.
    pub pipeline: usize,
    /// Values up to this long, in bytes, are read from all owners at once; longer ones from one that votes for the
    /// settled stamp. Default 64 KiB.
    pub inline: u32,
    /// Keys whose register is kept in memory. Default 20,000.
    pub cells: usize,
    /// Bytes of values kept in memory with them, roughly. Default 64 MiB.
    pub cell_bytes: usize,
    /// Requests that may wait for one key, above which more are answered `Overloaded`. Default 10,000.
    pub waiting_per_key: usize,
    /// Bytes of values in all requests that are not answered yet, above which more are answered `Overloaded`; a
    /// request without a value counts for a little too. Default 256 MiB.
    pub waiting_bytes: usize,
    /// Longest value accepted from a client, in bytes. Default 8 MiB.
    pub max_value: usize,
    /// How often one other machine is probed (section 12). 0: never, and nobody is suspected. Default 0; a machine
    /// that runs takes [`PROBE_EVERY`].
    pub probe_every: u64,
    /// How long a machine is suspected before it counts as down. Default 2 s.
    pub down_after: u64,
    /// How long a machine is down before it is dropped from the view (V7). Default 30 s: longer than a restart. Shorter
    /// restores nine copies sooner, and moves data for machines that would have come back.
    pub patience: u64,
    /// Bytes a second that one machine takes in ahead of a move, or for the comparison of copies. Default 32 MiB.
    pub move_rate: u64,
    /// How long after one comparison of all copies the next begins. Default 10 minutes. 0: only when asked for.
    pub check_every: u64,
    /// How old a tombstone is before it may be collected (G2). Default 5 minutes.
    pub collect_after: u64,
}

/// How often a machine probes another where nobody said otherwise: 250 ms.
pub const PROBE_EVERY: u64 = 250_000_000;

impl Default for Tuning {
    fn default() -> Self {
        const MS: u64 = 1_000_000;
        Self {
            resend_after: 50 * MS,
            ceiling_ahead: 3_000 * MS,
            backoff: 2 * MS,
            pipeline: 4,
            inline: 64 << 10,
            cells: 20_000,
            cell_bytes: 64 << 20,
            waiting_per_key: 10_000,
            waiting_bytes: 256 << 20,
            max_value: 8 << 20,
            probe_every: 0,
            down_after: 2_000 * MS,
            patience: 30_000 * MS,
            move_rate: 32 << 20,
            check_every: 600_000 * MS,
            collect_after: 300_000 * MS,
        }
    }
}

/// What a machine starts from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its name, and the incarnation of its data directory.
    pub me: Machine,
    /// Its positions on the ring, should it be taken into a view.
    pub weight: u32,
    /// From stable storage; all zero on a new directory.
    pub limits: Limits,
    /// From stable storage: the views since the last settled one, newest last. Empty on a blank machine.
    pub views: Vec<Arc<View>>,
    /// From stable storage: what it can tell of its views.
    pub account: Account,
    /// From stable storage: the decree on the next view, as far as it has taken part in it.
    pub decree: Decree,
    /// How it comes to a cluster if it has none.
    pub birth: Birth,
    /// Progress and cost.
    pub tuning: Tuning,
    /// For backoff, cluster ids and hash tables: the node draws nothing from anywhere else.
    pub seed: u64,
    /// Test-only: which rules it keeps. `Rules::default()` is all of them.
    pub rules: crate::mutant::Rules,
}

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

/// Longest that a request may wait, whatever its sender says: 10 minutes.
const LONGEST: u64 = 600_000_000_000;

/// Nothing is collected that was written so far ahead of this machine's clock: a day, as in section 12.
const FAR_AHEAD: u64 = 24 * 3_600 * 1_000_000_000;

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
    /// Keys used lately. When they are many they become `old`, and the former `old` ones are dropped, as far
    /// as nothing would be forgotten: a cache of two generations.
    young: Table<Entry>,
    old: Table<Entry>,
    /// Bytes of values in `young`.
    young_bytes: usize,
    /// How many keys, and how many bytes, `young` may have before it becomes `old`.
    room: (usize, usize),
    /// When a key wants to be woken. An entry may be too early, never too late.
    timers: BTreeSet<(Mono, Key)>,
    /// F2: why it may take part no more under this incarnation.
    cast_out: Option<String>,
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
    Message { from: Addr, message: Message },
    /// S5, S6, M1: a pass has brought this.
    Take(Take),
    /// T2: this record is for nothing.
    Forget(Stamp),
    /// Another machine asked for what is held here, under this number.
    Give(u64),
}

impl Entry {
    fn bytes(&self) -> usize {
        match self {
            Self::Loading(_) => 0,
            Self::Here(cell) => cell.bytes,
        }
    }
}

/// One key on this machine: its acceptor, and whatever it does for clients there.
#[derive(Debug)]
struct Cell {
    owners: Owners,
    acceptor: Acceptor,
    coordinator: Coordinator,
    readings: Readings,
    timer: Option<Mono>,
    /// Bytes of values here, when last counted.
    bytes: usize,
}

impl Node {
    /// A machine that has just started: everything that is not in `setup` is forgotten (R1).
    pub fn new(setup: Setup, now: Now) -> Self {
        let local = Local::new(&setup, now);
        let hasher = foldhash::fast::FixedState::with_seed(setup.seed);
        let views: Vec<Arc<View>> = local.newest().map(|p| p.view.clone()).into_iter().collect();
        Self {
            cast_out: local.newest().and_then(|_| forced::cast_out(&local, &views, Epoch::ZERO)),
            birth: Stage::new(&setup.birth, &local, now),
            detector: Detector::default(),
            warden: Warden::new(setup.decree.clone(), now),
            sync: Sync::new(&local, now),
            tellings: Tellings::default(),
            fetchings: Fetchings::default(),
            local,
            young: HashMap::with_hasher(hasher.clone()),
            old: HashMap::with_hasher(hasher),
            young_bytes: 0,
            room: (setup.tuning.cells / 2, setup.tuning.cell_bytes / 2),
            timers: BTreeSet::new(),
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
        self.go_on(now, effects);
    }

    /// When to send [`Input::Wake`], and why; `None` if nothing is due ever.
    pub fn wake_at(&self) -> Option<(Mono, Why)> {
        if self.cast_out.is_some() {
            return None;
        }
        let round = self.timers.first().map(|(at, _)| (*at, Why::Round));
        let birth = self.birth.wake_at().map(|at| (at, Why::Birth));
        let probe = self.detector.wake_at(&self.local).map(|at| (at, Why::Probe));
        let warden = self.warden.wake_at(&self.local).map(|at| (at, Why::Warden));
        let sync = self.sync.wake_at(&self.local).map(|at| (at, Why::Sync));
        [round, birth, probe, warden, sync].into_iter().flatten().min_by_key(|(at, _)| *at)
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

    /// Members that say they are not well, how, and since when.
    pub fn unwell(&self) -> Vec<(Name, Health, Now)> {
        self.detector.unwell(&self.local)
    }

    // -- messages ------------------------------------------------------------------------------------

    fn on_message(&mut self, now: Now, from: Addr, envelope: Envelope, effects: &mut Vec<Effect>) {
        let Envelope { cluster, epoch, message } = envelope;
        let Some(present) = self.local.newest() else {
            self.on_message_to_blank(now, from, message, effects);
            return;
        };
        // V4: another cluster's word is nothing to us. The transport has refused it already.
        if cluster.is_some_and(|c| c != present.view.cluster()) && !self.local.rules.broken(Mutant::V4Cluster)
        {
            return;
        }
        // F2: two forced generations are two clusters that never mix.
        let own = present.epoch();
        if matches!(from, Addr::Machine(_))
            && epoch.generation == own.generation
            && epoch.fork != own.fork
            && epoch != Epoch::ZERO
        {
            return;
        }
        let member = match from {
            Addr::Machine(machine) => present.index_of(machine),
            Addr::Client(_) => None,
        };
        // F2: who was forced out is told so, and nothing else.
        if let Addr::Machine(machine) = from
            && present.view.has_forced_out(machine.incarnation)
            && !matches!(message, Message::Blank { .. })
        {
            if epoch < own {
                self.tell_views(machine, epoch, effects);
            }
            return;
        }
        if let Some(member) = member {
            self.detector.heard(&mut self.local, now, member);
        }
        let Addr::Machine(machine) = from else {
            self.on_client(now, from, message, effects);
            return;
        };
        match message {
            Message::Blank { weight, .. } => self.on_offer(now, machine, epoch, weight, effects),
            Message::ViewAsk { .. } => self.on_client(now, from, message, effects),
            Message::ViewsAsk { after } => self.tell_views(machine, after, effects),
            Message::ViewsTold { views, settled } => self.on_views(now, &views, settled, effects),
            // V4: who is behind fetches the missing views before it answers. Until then it is silent.
            _ if epoch > self.local.epoch() => {
                if cluster.is_some() {
                    let after = self.local.epoch();
                    self.local.send(from, Message::ViewsAsk { after }, None, effects);
                }
            }
            // V4: who is not a member of our view should know it.
            _ if member.is_none() && epoch < self.local.epoch() && cluster.is_some() => {
                self.tell_views(machine, epoch, effects);
            }
            // Between members and those who were members (S2).
            Message::Tell { .. } | Message::Told { .. } | Message::Fetch { .. } | Message::Fetched { .. } => {
                self.on_telling(now, machine, epoch, message, effects);
            }
            Message::Settled { epoch: settled } if member.is_some() => self.settle(now, settled, effects),
            // Only members take part in rounds, under the incarnation that the view names (V5, V6).
            message => match member {
                Some(member) => self.on_member(now, machine, member, epoch, message, effects),
                None if self.local.rules.broken(Mutant::V5Stranger) => {
                    if let Message::Prepare { ref key, .. } | Message::Accept { ref key, .. } = message {
                        let key = key.clone();
                        self.route(now, key, Work::Message { from, message }, effects);
                    }
                }
                None => {}
            },
        }
    }

    /// True if this machine votes for some slot of the key, or has been told all that it has to know of it.
    fn may_hold(&self, key: &Key, ballot: Ballot) -> bool {
        let local = &self.local;
        local.is_synced()
            || local.rules.broken(Mutant::S5HoldsAll)
            || !local.voting(key, &local.owners_of(key)).is_empty()
            || self.sync.may_hold(local, key, ballot)
    }

    /// A member of the present view speaks, of this epoch or of an earlier one.
    fn on_member(
        &mut self,
        now: Now,
        machine: Machine,
        member: u32,
        epoch: Epoch,
        message: Message,
        effects: &mut Vec<Effect>,
    ) {
        let from = Addr::Machine(machine);
        let current = epoch == self.local.epoch();
        match message {
            // F2: what it rests on may have been lost.
            Message::Prepare { .. } | Message::Accept { .. }
                if self.local.history().forced_at().is_some_and(|forced| epoch < forced) =>
            {
                self.tell_views(machine, epoch, effects);
            }
            Message::Answer { ask, votes, answer } => {
                if let Some(key) = self.local.asked.get(&ask).cloned() {
                    let vote = Vote { by: member, epoch, ask, slots: votes };
                    self.at(now, &key, effects, |cell, turn| cell.on_answer(turn, vote, answer));
                }
            }
            Message::Outcome { ask, outcome } => {
                if let Some(key) = self.local.asked.get(&ask).cloned() {
                    self.at(now, &key, effects, |cell, turn| cell.coordinator.on_outcome(turn, ask, outcome));
                } else {
                    self.sync.on_outcome(ask, &outcome);
                }
            }
            // S5: what is still told of the key may be newer, or collected since.
            Message::Accept { ref key, stamp, .. } if !self.may_hold(key, stamp.ballot) => {}
            Message::Prepare { ref key, .. }
            | Message::Accept { ref key, .. }
            | Message::Read { ref key, .. }
            | Message::Request { ref key, .. } => {
                let key = key.clone();
                self.route(now, key, Work::Message { from, message }, effects);
            }
            Message::Collect { ref key, epoch: settled, .. } => {
                let key = key.clone();
                // G2: whoever has adopted that view notes that it is settled.
                if settled <= self.local.epoch() {
                    self.settle(now, settled, effects);
                    self.route(now, key, Work::Message { from, message }, effects);
                }
            }
            Message::Probe { .. } | Message::ProbeFor { .. } | Message::Alive { .. } => {
                self.detector.on_message(&mut self.local, now, member, message, effects);
            }
            Message::Wish { ask, wish } => {
                self.warden.on_wish(&mut self.local, now, from, ask, wish, effects);
            }
            Message::Word { synced, warm } if current => {
                let settled = self.warden.on_word(&mut self.local, machine, synced, warm, effects);
                if settled {
                    let epoch = self.local.epoch();
                    self.settle(now, epoch, effects);
                    self.warden.tell_settled(&mut self.local, effects);
                }
            }
            // V2: a warden answers about the next view only while this is its own, and who asks has to be in it.
            Message::DecreePrepare { .. } | Message::DecreeAccept { .. }
                if current || self.local.rules.broken(Mutant::V2Stale) =>
            {
                self.warden.decrees.on_question(&mut self.local, machine, message, effects);
            }
            Message::DecreePrepare { .. } | Message::DecreeAccept { .. } | Message::Word { .. } => {
                self.tell_views(machine, epoch, effects);
            }
            Message::DecreeAnswer { ask, answer } if current => {
                let local = &mut self.local;
                if let Some(view) = self.warden.decrees.on_answer(local, now, member, ask, answer, effects) {
                    self.decided(now, view, effects);
                }
            }
            // F1 is over for this machine, and the rest has its own road.
            _ => {}
        }
    }

    /// A client asks; so does whoever offers nothing but a question.
    fn on_client(&mut self, now: Now, from: Addr, message: Message, effects: &mut Vec<Effect>) {
        match message {
            Message::ViewAsk { ask } => {
                let view = self.local.present().view.clone();
                self.local.send(from, Message::ViewTold { ask, view }, None, effects);
            }
            Message::Read { ref key, .. } | Message::Request { ref key, .. } => {
                let key = key.clone();
                self.route(now, key, Work::Message { from, message }, effects);
            }
            Message::Force { ask, machines } => self.on_force(now, from, ask, &machines, effects),
            Message::Wish { ask, wish } => {
                // What is told to the wardens under number 0 is told by machines.
                self.warden.on_wish(&mut self.local, now, from, ask, wish, effects);
            }
            _ => {}
        }
    }

    // -- views ---------------------------------------------------------------------------------------

    /// A machine offers itself: it has no view, or was dropped from one.
    fn on_offer(&mut self, now: Now, machine: Machine, epoch: Epoch, weight: u32, effects: &mut Vec<Effect>) {
        if self.local.present().view.has(machine) {
            // It was taken along, and has not heard or has lost the word.
            self.tell_views(machine, epoch, effects);
            return;
        }
        if epoch > Epoch::ZERO && epoch < self.local.epoch() {
            self.tell_views(machine, epoch, effects);
        }
        let refused = self.warden.on_offer(&mut self.local, now, machine, weight, effects);
        if let Some(reason) = refused {
            self.local.send(Addr::Machine(machine), Message::NotTaken { reason }, None, effects);
        }
    }

    /// V4: the views after that one, or where that is too old, all since the last settled one.
    fn tell_views(&mut self, to: Machine, after: Epoch, effects: &mut Vec<Effect>) {
        let all = || self.local.history().views.iter().map(|p| p.view.clone());
        let known = self.local.history().views.iter().any(|p| p.epoch() == after);
        let views = if known { all().filter(|v| v.epoch() > after).collect() } else { all().collect() };
        let settled = self.local.account.settled;
        self.local.send(Addr::Machine(to), Message::ViewsTold { views, settled }, None, effects);
    }

    /// V3: adopts the views told, one by one and in order.
    fn on_views(&mut self, now: Now, views: &[Arc<View>], settled: Epoch, effects: &mut Vec<Effect>) {
        let mut adopted = false;
        for view in views {
            let present = self.local.present();
            let follows = present.view.is_before(view);
            // Behind even the last settled view: it was not in that one's ring, and begins from it.
            let jump = view.cluster() == present.view.cluster()
                && view.slots() == present.view.slots()
                && view.epoch() > present.epoch()
                // F2: across generations only step by step: a jump does not show where it comes from.
                && view.epoch().is_beside(present.epoch())
                && view.epoch() == settled
                && !adopted;
            if follows || jump {
                self.local.adopt(view.clone(), settled, effects);
                adopted = true;
            }
        }
        if adopted {
            self.begin_anew(now, effects);
        }
        self.settle(now, settled, effects);
        self.cast_out = forced::cast_out(&self.local, views, settled);
    }

    /// F2: an operator's last resort.
    fn on_force(
        &mut self,
        now: Now,
        from: Addr,
        ask: message::Ask,
        machines: &[Machine],
        effects: &mut Vec<Effect>,
    ) {
        let refused = match forced::force(&mut self.local, machines) {
            Force::Done => None,
            Force::Refused(reason) => Some(reason),
            Force::Wishes(wishes) => {
                for wish in wishes {
                    self.warden.relay(&mut self.local, now, wish, effects);
                }
                None
            }
            Force::View(view) => {
                self.follow(now, view, effects);
                None
            }
        };
        self.local.send(from, Message::Wished { ask, refused }, None, effects);
    }

    /// V2: the wardens have decided. Everybody concerned is told; who does not hear it, hears of the epoch.
    fn decided(&mut self, now: Now, view: Arc<View>, effects: &mut Vec<Effect>) {
        if self.local.present().view.is_before(&view) {
            self.follow(now, view, effects);
        }
    }

    /// The next view is known here first: durable, then told.
    fn follow(&mut self, now: Now, view: Arc<View>, effects: &mut Vec<Effect>) {
        let present = self.local.present();
        let all: BTreeSet<Machine> =
            present.view.members().iter().chain(view.members()).map(|m| m.machine).collect();
        let before = present.epoch();
        self.local.adopt(view, Epoch::ZERO, effects);
        let me = self.local.me;
        for machine in all.into_iter().filter(|m| *m != me) {
            self.tell_views(machine, before, effects);
        }
        self.begin_anew(now, effects);
    }

    /// A view was adopted: everything under way in the one before begins anew in this one.
    fn begin_anew(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.birth = Stage::in_view(&self.local, now);
        // Its members are numbered as those of the present view are.
        self.detector.is_on(&mut self.local, now);
        self.warden.begin_anew(&self.local, now);
        self.tellings.forget();
        self.fetchings.forget();
        self.sync.begin_anew(&self.local, now);
        let keys: Vec<Key> = self.young.keys().chain(self.old.keys()).cloned().collect();
        for key in keys {
            let owners = self.local.owners_of(&key);
            if let Some(Entry::Here(cell)) = self.young.get_mut(&key).or_else(|| self.old.get_mut(&key)) {
                cell.owners = owners;
            }
            self.at(now, &key, effects, |cell, turn| {
                cell.coordinator.on_view(turn);
                cell.readings.on_view(turn);
            });
        }
    }

    /// T1: this view is settled, somebody says.
    fn settle(&mut self, now: Now, epoch: Epoch, effects: &mut Vec<Effect>) {
        if self.local.note_settled(epoch, effects) {
            self.sync.on_settled(&self.local, now);
        }
    }

    // -- sync ----------------------------------------------------------------------------------------

    fn on_telling(
        &mut self,
        now: Now,
        machine: Machine,
        epoch: Epoch,
        message: Message,
        effects: &mut Vec<Effect>,
    ) {
        let local = &mut self.local;
        // S3: told at the asker's view or later, and for no other.
        if epoch != local.epoch() {
            return;
        }
        let mut wants = Vec::new();
        match message {
            Message::Tell { ask, request } if local.present().index_of(machine).is_some() => {
                self.tellings.begin(local, now, machine, ask, request, effects);
            }
            Message::Told { ask, page } => {
                self.sync.on_page(local, now, machine, ask, *page, &mut wants);
            }
            Message::Fetch { ask, keys } if local.present().index_of(machine).is_some() => {
                let (number, keys) = self.fetchings.begin(machine, ask, keys);
                for key in keys {
                    self.route(now, key, Work::Give(number), effects);
                }
            }
            Message::Fetched { ask, records } => {
                self.sync.on_fetched(machine, ask, records, &mut wants);
            }
            _ => {}
        }
        self.carry_out(now, wants, effects);
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
                    for member in owners.machines() {
                        let message = Message::Collect { key: key.clone(), stamp, epoch };
                        self.local.send_to(member, message, None, effects);
                    }
                }
                Want::Pass(Act::Settled(epoch)) => self.settle(now, epoch, effects),
                Want::Pass(Act::Settle(_)) => {}
                Want::Forget(key, stamp) => self.route(now, key, Work::Forget(stamp), effects),
                Want::Synced => {}
            }
        }
    }

    /// F1: a blank machine knows nothing and votes for nothing.
    fn on_message_to_blank(&mut self, now: Now, from: Addr, message: Message, effects: &mut Vec<Effect>) {
        match (from, message) {
            (Addr::Machine(machine), Message::Blank { weight, gathers }) => {
                self.birth.on_blank(&mut self.local, machine, weight, gathers, effects);
                self.born(now, effects);
            }
            (Addr::Machine(_), Message::Birth { view }) => {
                self.birth.on_views(&mut self.local, &[view], Epoch::FIRST, effects);
                self.born(now, effects);
            }
            (Addr::Machine(_), Message::ViewsTold { views, settled }) => {
                self.birth.on_views(&mut self.local, &views, settled, effects);
                self.born(now, effects);
            }
            (_, Message::Request { ask, .. } | Message::ViewAsk { ask } | Message::Read { ask, .. }) => {
                let outcome = Outcome::NotHere;
                self.local.send(from, Message::Outcome { ask, outcome }, None, effects);
            }
            _ => {}
        }
    }

    /// It may have come to its first view.
    fn born(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.local.newest().is_some() {
            self.begin_anew(now, effects);
        }
    }

    // -- keys ----------------------------------------------------------------------------------------

    /// Brings something to be done to its key's cell, through storage if it is not in memory.
    fn route(&mut self, now: Now, key: Key, work: Work, effects: &mut Vec<Effect>) {
        if !self.young.contains_key(&key)
            && let Some(entry) = self.old.remove(&key)
        {
            self.young_bytes += entry.bytes();
            self.young.insert(key.clone(), entry);
        }
        match self.young.get_mut(&key) {
            Some(Entry::Here(_)) => {
                self.work(now, &key, work, effects);
            }
            Some(Entry::Loading(waiting)) => {
                // What does not fit is lost like any message: whoever asked asks again.
                if waiting.len() < self.local.tuning.waiting_per_key || !matches!(work, Work::Message { .. })
                {
                    waiting.push(work);
                }
            }
            None => {
                self.rotate(now);
                effects.push(Effect::Load { key: key.clone() });
                self.young.insert(key, Entry::Loading(vec![work]));
            }
        }
    }

    /// Does it at a key that is in memory.
    fn work(&mut self, now: Now, key: &Key, work: Work, effects: &mut Vec<Effect>) {
        match work {
            Work::Message { from, message } => {
                self.at(now, key, effects, |cell, turn| cell.on_message(turn, from, message));
            }
            Work::Take(take) => {
                // Decided in another view: the pass of this one decides it anew.
                if take.epoch == self.local.epoch() {
                    let purpose = take.purpose;
                    self.at(now, key, effects, |cell, turn| cell.on_take(turn, take));
                    self.sync.taken(purpose);
                }
            }
            Work::Give(number) => {
                let entry = self.young.get(key).or_else(|| self.old.get(key));
                let Some(Entry::Here(cell)) = entry else { return };
                let held = cell.acceptor.held();
                self.fetchings.give(&mut self.local, number, key.clone(), held, effects);
            }
            Work::Forget(stamp) => self.at(now, key, effects, |cell, turn| cell.on_forget(turn, stamp)),
        }
    }

    fn on_loaded(&mut self, now: Now, key: Key, found: Loaded, effects: &mut Vec<Effect>) {
        let table = if self.young.contains_key(&key) { &mut self.young } else { &mut self.old };
        let Some(Entry::Loading(_)) = table.get(&key) else { return };
        let found = match found {
            // R3Blind: an unreadable record is taken for none.
            Loaded::Unreadable if self.local.rules.broken(Mutant::R3Blind) => Loaded::Nothing,
            found => found,
        };
        let mut acceptor = Acceptor::new(found, self.local.rules);
        if acceptor.is_mute() {
            // R3: it may have promised or accepted anything up to its ceiling.
            self.local.raise_floor(effects);
        }
        // What was read may not be durable yet: a cell dropped and loaded again forgot which ticket it was.
        if let Some(ticket) = self.local.last_ticket()
            && !self.local.rules.broken(Mutant::A3Unsynced)
        {
            acceptor.set_ticket(ticket);
        }
        let cell = Cell {
            owners: self.local.owners_of(&key),
            acceptor,
            coordinator: Coordinator::default(),
            readings: Readings::default(),
            timer: None,
            bytes: 0,
        };
        let Some(Entry::Loading(waiting)) = table.insert(key.clone(), Entry::Here(Box::new(cell))) else {
            return;
        };
        for work in waiting {
            self.work(now, &key, work, effects);
        }
    }

    /// Does something at a key that is in memory, and sees to its timer afterwards.
    fn at(
        &mut self,
        now: Now,
        key: &Key,
        effects: &mut Vec<Effect>,
        f: impl FnOnce(&mut Cell, &mut Turn<'_>),
    ) {
        let (entry, young) = match self.young.get_mut(key) {
            Some(entry) => (Some(entry), true),
            None => (self.old.get_mut(key), false),
        };
        let Some(Entry::Here(cell)) = entry else { return };
        let (owners, promised, held) = (cell.owners, cell.acceptor.promised(), cell.acceptor.value_bytes());
        let mut turn = Turn { local: &mut self.local, effects, now, key, owners: &owners, promised, held };
        f(cell, &mut turn);
        let bytes = cell.count_bytes();
        let before = mem::replace(&mut cell.bytes, bytes);
        if young {
            self.young_bytes = self.young_bytes + bytes - before;
        }
        let wake = [cell.coordinator.wake_at(), cell.readings.wake_at()].into_iter().flatten().min();
        if let Some(wake) = wake
            && cell.timer.is_none_or(|timer| wake < timer)
        {
            if let Some(timer) = cell.timer.replace(wake) {
                self.timers.remove(&(timer, key.clone()));
            }
            self.timers.insert((wake, key.clone()));
        }
    }

    /// Requests handed to a machine that has just been lost come back now, not when they would be missed.
    fn take_back(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let here = |entry: &Entry| matches!(entry, Entry::Here(cell) if cell.coordinator.has_handed());
        let all = self.young.iter().chain(&self.old);
        let keys: Vec<Key> = all.filter(|(_, entry)| here(entry)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.at(now, &key, effects, |cell, turn| cell.coordinator.on_time(turn));
        }
    }

    /// Makes room: the keys used lately become the old ones, and of the former old ones only those stay that
    /// are busy. A key whose promise is above its record would forget it: those stay too, until they are
    /// many; then the floor rises above them all, which forgets nothing (A1 refuses what they would have).
    fn rotate(&mut self, now: Now) {
        if self.young.len() < self.room.0 && self.young_bytes < self.room.1 {
            return;
        }
        let limit = self.local.tuning.cells / 2;
        let mut left = mem::replace(&mut self.old, mem::take(&mut self.young));
        self.young = HashMap::with_hasher(left.hasher().clone());
        let mut promises: Vec<(Ballot, Key)> = Vec::new();
        left.retain(|key, entry| match entry {
            Entry::Here(cell) if cell.is_idle() => {
                if !cell.acceptor.is_as_on_disk() {
                    promises.push((cell.acceptor.promised(), key.clone()));
                }
                !cell.acceptor.is_as_on_disk() || {
                    cell.drop_from(key, now, &mut self.local, &mut self.timers);
                    false
                }
            }
            _ => true,
        });
        if promises.len() > limit / 2 {
            for (promised, key) in promises {
                if !self.local.rules.broken(Mutant::A1Evicted) {
                    self.local.raise_floor_in_memory(promised.time);
                }
                if let Some(Entry::Here(mut cell)) = left.remove(&key) {
                    cell.drop_from(&key, now, &mut self.local, &mut self.timers);
                }
            }
        }
        self.young.extend(left);
        self.young_bytes = self.young.values().map(Entry::bytes).sum();
        // Many may be busy, and stay: not before as many again have come is it worth to look through them all.
        let bytes = self.local.tuning.cell_bytes / 2;
        self.room = (limit.max(2 * self.young.len()), bytes.max(2 * self.young_bytes));
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
            let patience = self.local.tuning.patience;
            let dead = self.detector.dead(&self.local, now, patience);
            let dead: Vec<Machine> =
                dead.into_iter().map(|(member, _)| self.local.present().machine(member)).collect();
            let standing = self.sync.standing(&self.local);
            self.warden.on_time(&mut self.local, now, standing, &dead, effects);
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
        let mut timers = 0;
        for (key, entry) in self.young.iter().chain(&self.old) {
            let Entry::Here(cell) = entry else { continue };
            cell.acceptor.check(&self.local.limits);
            if let Some(timer) = cell.timer {
                timers += 1;
                assert!(self.timers.contains(&(timer, key.clone())), "{key}: a timer is not set");
            }
            let due = [cell.coordinator.wake_at(), cell.readings.wake_at()].into_iter().flatten().min();
            assert!(due.is_none() || cell.timer <= due && cell.timer.is_some(), "{key}: nobody wakes it");
        }
        assert_eq!(timers, self.timers.len(), "timers of keys that are gone");
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

impl Cell {
    fn on_message(&mut self, turn: &mut Turn<'_>, from: Addr, message: Message) {
        let voting = turn.local.voting(turn.key, turn.owners);
        let owner = turn.local.present().me.is_some_and(|me| !turn.owners.slots_of(me).is_empty());
        match message {
            // No slot of the key is ours: who asks is behind, and hears so by the epoch of this.
            Message::Prepare { ask, .. } | Message::Accept { ask, .. } if !owner => {
                let message = Message::Answer { ask, votes: SlotSet::EMPTY, answer: Answer::Mute };
                turn.local.send(from, message, None, turn.effects);
            }
            Message::Prepare { ask, ballot, .. } => {
                let (answer, votes) = self.acceptor.prepare(ballot, voting, &turn.local.limits);
                let line = match &answer {
                    // A1: durable is the ceiling, so that the promise need not be.
                    Answer::Promised { .. } => {
                        turn.local.note_promised(ballot);
                        turn.local.cover(ballot.time, turn.effects)
                    }
                    _ => None,
                };
                let line = if turn.local.rules.broken(Mutant::A1Unsynced) { None } else { line };
                let after = line.max(self.acceptor.ticket());
                turn.local.send(from, Message::Answer { ask, votes, answer }, after, turn.effects);
            }
            Message::Accept { ask, stamp, state, .. } => {
                let (votes, answer, line) =
                    match self.acceptor.accept(stamp, &state, voting, &turn.local.limits) {
                        Accepted::Answer(answer, votes) => (votes, answer, None),
                        Accepted::Now(record) => {
                            // The ceiling first: a record above it must never be found after a restart (A4).
                            let line = turn.local.cover(stamp.ballot.time, turn.effects);
                            turn.local.note_promised(stamp.ballot);
                            let votes = record.votes;
                            turn.local.counts.tombstones += u64::from(record.state.value.is_none());
                            let change = Change::Record { key: turn.key.clone(), record };
                            let ticket = turn.local.persist(change, turn.effects);
                            self.acceptor.set_ticket(ticket);
                            (votes, Answer::Held { stamp }, line)
                        }
                    };
                let after = line.max(self.acceptor.ticket());
                let after = if turn.local.rules.broken(Mutant::A2Unsynced) { None } else { after };
                turn.local.send(from, Message::Answer { ask, votes, answer }, after, turn.effects);
            }
            Message::Read { ask, inline, .. } => {
                let (mut answer, votes) = self.acceptor.read(inline, voting);
                turn.local.counts.copies += 1;
                if matches!(from, Addr::Client(_)) {
                    spare_requests(&mut answer);
                }
                let after = self.acceptor.ticket();
                turn.local.send(from, Message::Answer { ask, votes, answer }, after, turn.effects);
            }
            Message::Request { ask, op, within, handed, .. } => {
                let deadline = turn.now.mono.plus((u64::from(within) * 1_000_000).min(LONGEST));
                let waiting =
                    Waiting { from, ask, op, deadline, handed, sent: false, seq: 0, since: turn.now.mono };
                self.on_request(turn, waiting);
            }
            Message::Collect { stamp, .. } => self.on_collect(turn, stamp),
            // `Node::on_message` routes nothing else here.
            _ => {}
        }
        // A vote of our own may have ended our lead.
        turn.promised = self.acceptor.promised();
    }

    /// S5, S6, M1: what others told of the key.
    fn on_take(&mut self, turn: &mut Turn<'_>, take: Take) {
        let Some(record) = self.acceptor.take(take) else { return };
        let change = match record {
            Some(record) => {
                // The ceiling first: a record above it must never be found after a restart (A4).
                turn.local.cover(record.stamp.ballot.time, turn.effects);
                Change::Record { key: turn.key.clone(), record }
            }
            None => Change::Forget { key: turn.key.clone() },
        };
        let ticket = turn.local.persist(change, turn.effects);
        self.acceptor.set_ticket(ticket);
        turn.promised = self.acceptor.promised();
    }

    /// T2: nobody needs the record here any more.
    fn on_forget(&mut self, turn: &mut Turn<'_>, stamp: Stamp) {
        // It may have come to own the key since.
        let owner = turn.local.present().me.is_some_and(|me| !turn.owners.slots_of(me).is_empty());
        if !owner && self.acceptor.forget(stamp).is_some() {
            let ticket = turn.local.persist(Change::Forget { key: turn.key.clone() }, turn.effects);
            self.acceptor.set_ticket(ticket);
        }
    }

    /// G2, G3: all slots voted for this tombstone: it goes, and leaves the bound.
    fn on_collect(&mut self, turn: &mut Turn<'_>, stamp: Stamp) {
        let Some(Record { state, .. }) = self.acceptor.tombstone(stamp) else { return };
        let ids = state.recent.iter().map(|applied| applied.id.time);
        let time = ids.chain([stamp.ballot.time, state.horizon]).fold(Hlc::ZERO, Hlc::max);
        if time > Hlc::from_nanos(turn.now.wall).plus(FAR_AHEAD) {
            // A clock far off: the bound is the machine's, and would refuse new keys until that time comes.
            return;
        }
        let bound = Bound { time, version: state.version };
        turn.local.raise_bound(bound, turn.effects);
        self.acceptor.forget(stamp);
        let ticket = turn.local.persist(Change::Forget { key: turn.key.clone() }, turn.effects);
        self.acceptor.set_ticket(ticket);
        self.coordinator.on_collected(turn);
    }

    fn on_request(&mut self, turn: &mut Turn<'_>, waiting: Waiting) {
        turn.local.waiting_bytes += waiting.cost();
        turn.local.counts.waiting += 1;
        turn.local.counts.retries += u64::from(matches!(&waiting.op, Op::Write(write) if write.again));
        if turn.local.present().me.is_none() {
            turn.answer(&waiting, Outcome::NotHere);
        } else if turn.local.waiting_bytes > turn.local.tuning.waiting_bytes {
            turn.answer(&waiting, Outcome::Overloaded { retry_after: 50 });
        } else if let Some(reason) = unacceptable(turn, &waiting) {
            turn.answer(&waiting, Outcome::Refused(reason));
        } else if matches!(waiting.op, Op::Read) && !self.coordinator.leads(turn.promised) {
            self.readings.submit(turn, waiting);
        } else {
            self.coordinator.submit(turn, waiting);
        }
    }

    fn on_answer(&mut self, turn: &mut Turn<'_>, mut vote: Vote, answer: Answer) {
        if vote.epoch == turn.local.epoch() {
            // Nobody votes for slots that are not his, whatever he says.
            vote.slots = vote.slots.intersection(turn.owners.slots_of(vote.by));
        }
        if self.readings.expects(vote.ask) {
            let reads = self.readings.on_answer(turn, vote, answer);
            self.settle(turn, reads);
        } else {
            self.coordinator.on_answer(turn, vote, answer);
        }
    }

    /// D4: reads that the copies did not settle.
    fn settle(&mut self, turn: &mut Turn<'_>, reads: Vec<Waiting>) {
        for waiting in reads {
            self.coordinator.submit(turn, waiting);
        }
    }

    fn is_idle(&self) -> bool {
        self.coordinator.is_idle() && self.readings.is_idle()
    }

    /// Bytes of the values that it would keep while idle; one that acceptor and lead share counts once.
    fn count_bytes(&self) -> usize {
        let (held, led) = (self.acceptor.value(), self.coordinator.value());
        let shared = matches!((held, led), (Some(held), Some(led)) if Arc::ptr_eq(held, led));
        let bytes = |value: Option<&Arc<[u8]>>| value.map_or(0, |v| v.len());
        bytes(held) + if shared { 0 } else { bytes(led) }
    }

    fn drop_from(&mut self, key: &Key, now: Now, local: &mut Local, timers: &mut BTreeSet<(Mono, Key)>) {
        if let Some(timer) = self.timer.take() {
            timers.remove(&(timer, key.clone()));
        }
        let (owners, promised, held) = (self.owners, self.acceptor.promised(), self.acceptor.value_bytes());
        let mut effects = Vec::new();
        let mut turn = Turn { local, effects: &mut effects, now, key, owners: &owners, promised, held };
        self.coordinator.retire(&mut turn);
        debug_assert!(effects.is_empty(), "an idle coordinator has nothing to say");
    }
}

/// A client has no use for the requests that a state remembers; they are often longer than its value.
fn spare_requests(answer: &mut Answer) {
    if let Answer::Copy(message::Copied::Whole(record)) = answer {
        let State { version, ref value, expires, horizon, .. } = *record.state;
        record.state =
            Arc::new(State { version, value: value.clone(), expires, recent: Vec::new(), horizon });
    }
}

/// Why a client's request is refused before anything is tried.
fn unacceptable(turn: &Turn<'_>, waiting: &Waiting) -> Option<Box<str>> {
    // Whoever may read anything may read those.
    if matches!((waiting.from, &waiting.op), (Addr::Client(_), Op::Write(_))) && turn.key.is_reserved() {
        return Some("keys that begin with a zero byte are the cluster's own".into());
    }
    match &waiting.op {
        Op::Write(Write { change: message::Change::Put { value, .. }, .. })
            if value.len() > turn.local.tuning.max_value =>
        {
            let (bytes, most) = (value.len(), turn.local.tuning.max_value);
            Some(format!("the value has {bytes} bytes; this machine takes at most {most}").into())
        }
        _ => None,
    }
}
