//! What a machine has besides its keys: its clock, its ceiling, its view, the numbers it hands out.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::HashMap;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::effect::{Change, Effect, Limits, Now, Ticket};
use crate::key::Key;
use crate::message::{Addr, Ask, Envelope, Message};
use crate::mutant::{Mutant, Rules};
use crate::node::{Setup, Tuning};
use crate::placement::{Owners, Ring};
use crate::position::Chain;
use crate::quorum::{SlotSet, Tally, quorum_of};
use crate::reader::Reader;
use crate::stamp::{Ballot, Hlc};
use crate::sync::Synced;
use crate::view::{Epoch, Incarnation, Machine, Name, View};

/// A view and what follows from it.
#[derive(Debug)]
pub(crate) struct Present {
    pub(crate) view: Arc<View>,
    pub(crate) ring: Ring,
    /// This machine's place among the members; `None` once it is not one of them (V5).
    pub(crate) me: Option<u32>,
}

impl Present {
    fn new(view: Arc<View>, me: Machine) -> Self {
        let index = view.has(me).then(|| view.index_of(me.name)).flatten();
        Self { ring: Ring::of(&view), me: index.map(|i| i as u32), view }
    }

    pub(crate) fn machine(&self, member: u32) -> Machine {
        self.view.members()[member as usize].machine
    }

    /// The place of exactly this incarnation.
    pub(crate) fn index_of(&self, machine: Machine) -> Option<u32> {
        let index = self.view.index_of(machine.name)?;
        (self.machine(index as u32) == machine).then_some(index as u32)
    }

    /// The place of the member that took this ballot.
    pub(crate) fn proposer(&self, by: Incarnation) -> Option<u32> {
        self.view.members().iter().position(|m| m.machine.incarnation == by).map(|i| i as u32)
    }
}

/// See the module's caption.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) me: Machine,
    pub(crate) weight: u32,
    pub(crate) tuning: Tuning,
    pub(crate) present: Option<Present>,
    pub(crate) synced: Synced,
    pub(crate) limits: Limits,
    /// Raised ceilings and the ticket that makes each durable, lowest first. Invariant: the last is
    /// `limits.ceiling`.
    ceilings: VecDeque<(Hlc, Option<Ticket>)>,
    /// The latest clock reading given out or seen.
    clock: Hlc,
    /// V3: nothing is told before the newest view is durable.
    barrier: Option<Ticket>,
    next_ticket: u64,
    next_ask: u64,
    /// Which key an expected answer is for.
    pub(crate) asked: HashMap<Ask, Key, foldhash::fast::FixedState>,
    /// What the requests that are not answered yet cost in memory: see `Waiting::cost`.
    pub(crate) waiting_bytes: usize,
    /// Members that the transport says cannot be told anything at present.
    unreachable: Vec<Name>,
    /// Members that the detector does not believe alive.
    pub(crate) doubted: Vec<Name>,
    /// Members that say they are not well.
    pub(crate) unwell: Vec<Name>,
    rng: SmallRng,
    pub(crate) rules: Rules,
}

impl Local {
    pub(crate) fn new(setup: &Setup, now: Now) -> Self {
        let rules = setup.rules;
        let mut rng = SmallRng::seed_from_u64(setup.seed);
        let mut limits = setup.limits;
        // A4: what was promised is forgotten, so refuse all that may have been. R1: nothing else is lost.
        if !rules.broken(Mutant::A4NoFloor) {
            limits.floor = limits.ceiling;
        }
        let mut local = Self {
            me: setup.me,
            weight: setup.weight,
            tuning: setup.tuning.clone(),
            present: None,
            synced: Synced::default(),
            limits,
            ceilings: VecDeque::from([(limits.ceiling, None)]),
            // The HLC is never behind a time on disk.
            clock: limits.ceiling.max(limits.bound.time),
            barrier: None,
            next_ticket: 0,
            // Answers to a former life may still come, and name no key: they must meet no question of this one.
            next_ask: rng.random::<u64>() >> 1,
            asked: HashMap::with_hasher(foldhash::fast::FixedState::with_seed(setup.seed)),
            waiting_bytes: 0,
            unreachable: Vec::new(),
            doubted: Vec::new(),
            unwell: Vec::new(),
            rng,
            rules,
        };
        if rules.broken(Mutant::B1BallotTwice) {
            local.clock = Hlc::ZERO;
        }
        local.see_wall(now);
        if let Some(view) = setup.views.last() {
            local.stand_in(view.clone());
        }
        local
    }

    // -- views ---------------------------------------------------------------------------------------

    /// V3: adopts a view: durable before anything more is said.
    pub(crate) fn adopt(&mut self, view: Arc<View>, effects: &mut Vec<Effect>) {
        let ticket = self.persist(Change::View(view.clone()), effects);
        self.barrier = Some(ticket);
        if self.rules.broken(Mutant::F1TellFirst) {
            self.barrier = None;
        }
        self.stand_in(view);
    }

    fn stand_in(&mut self, view: Arc<View>) {
        self.synced = Synced::at_birth(&view);
        self.present = Some(Present::new(view, self.me));
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.present.as_ref().map_or(Epoch::ZERO, |p| p.view.epoch())
    }

    /// The view that this machine takes part in; only called where there is one.
    pub(crate) fn present(&self) -> &Present {
        self.present.as_ref().expect("a machine without a view routes nothing to a key")
    }

    pub(crate) fn slots(&self) -> u8 {
        self.present().view.slots()
    }

    /// Slots that make a quorum, for messages to people; counting is [`crate::Tally`]'s.
    pub(crate) fn needed(&self) -> u8 {
        quorum_of(self.slots())
    }

    pub(crate) fn owners_of(&self, key: &Key) -> Owners {
        let present = self.present();
        present.ring.owners(&Chain::of(key.as_bytes(), present.view.slots()))
    }

    /// Q1: the slots of a key that this machine votes for.
    pub(crate) fn voting(&self, owners: &Owners) -> SlotSet {
        match self.present().me {
            Some(me) => self.synced.voting(owners.slots_of(me)),
            None => SlotSet::EMPTY,
        }
    }

    // -- clock and ceiling ---------------------------------------------------------------------------

    /// The hybrid clock is never behind the wall clock...
    pub(crate) fn see_wall(&mut self, now: Now) {
        self.clock = self.clock.max(Hlc::from_nanos(now.wall));
    }

    /// ...nor behind a time seen in a message.
    pub(crate) fn see(&mut self, time: Hlc) {
        if !self.rules.broken(Mutant::B1BallotTwice) {
            self.clock = self.clock.max(time);
        }
    }

    /// B1: a ballot never taken before, above the floor, above `beat`, and not above the ceiling once the
    /// returned ticket is durable. `None` at the end of time.
    pub(crate) fn fresh_ballot(
        &mut self,
        beat: Ballot,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Option<(Ballot, Option<Ticket>)> {
        self.see_wall(now);
        self.see(beat.time.max(self.limits.floor));
        self.clock = self.clock.next()?;
        let ballot = Ballot { time: self.clock, by: self.me.incarnation };
        let after = self.cover(ballot.time, effects);
        Some((ballot, after))
    }

    /// Draws the ceiling at or above `time`. Whatever takes part in a ballot of that time waits for the
    /// returned ticket.
    pub(crate) fn cover(&mut self, time: Hlc, effects: &mut Vec<Effect>) -> Option<Ticket> {
        self.see(time);
        // Raised while there is still room below it, so that the wait is rare.
        if time.plus(self.tuning.ceiling_ahead / 2) > self.limits.ceiling && self.limits.ceiling < Hlc::MAX {
            self.limits.ceiling = time.plus(self.tuning.ceiling_ahead).max(self.limits.ceiling);
            let ticket = self.persist(Change::Limits(self.limits), effects);
            self.ceilings.push_back((self.limits.ceiling, Some(ticket)));
            if self.ceilings.len() > 8 {
                // The next one's ticket is later: waiting for it instead is never too short.
                self.ceilings.pop_front();
            }
        }
        let line = self.ceilings.iter().find(|(ceiling, _)| *ceiling >= time);
        let (_, ticket) = line.expect("the last ceiling is at or above every time covered");
        *ticket
    }

    /// R3: takes part in nothing that it may have taken part in before.
    pub(crate) fn raise_floor(&mut self, effects: &mut Vec<Effect>) {
        self.limits.floor = self.limits.ceiling;
        self.persist(Change::Limits(self.limits), effects);
    }

    /// Refuses every ballot that some forgotten promise may have been above (see `Node::rotate`).
    pub(crate) fn raise_floor_in_memory(&mut self, promised: Hlc) {
        debug_assert!(promised <= self.limits.ceiling, "a promise above the ceiling");
        self.limits.floor = self.limits.floor.max(promised);
    }

    // -- what is handed out --------------------------------------------------------------------------

    pub(crate) fn persist(&mut self, change: Change, effects: &mut Vec<Effect>) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        effects.push(Effect::Persist { ticket, change });
        ticket
    }

    pub(crate) fn send(
        &mut self,
        to: Addr,
        message: Message,
        after: Option<Ticket>,
        effects: &mut Vec<Effect>,
    ) {
        let envelope = Envelope {
            cluster: self.present.as_ref().map(|p| p.view.cluster()),
            epoch: self.epoch(),
            message,
        };
        let after = after.max(self.barrier);
        effects.push(Effect::Send { to, envelope: Box::new(envelope), after });
    }

    pub(crate) fn send_to(
        &mut self,
        member: u32,
        message: Message,
        after: Option<Ticket>,
        effects: &mut Vec<Effect>,
    ) {
        let to = Addr::Machine(self.present().machine(member));
        self.send(to, message, after, effects);
    }

    /// The last ticket handed out: whoever waits for it waits for everything persisted so far.
    pub(crate) fn last_ticket(&self) -> Option<Ticket> {
        (self.next_ticket > 0).then_some(Ticket(self.next_ticket))
    }

    /// A number for a question about `key`; answers to it find their way until [`forget`](Self::forget).
    pub(crate) fn ask(&mut self, key: &Key) -> Ask {
        let ask = self.number();
        self.asked.insert(ask, key.clone());
        ask
    }

    /// A number for a question that is about no key.
    pub(crate) fn number(&mut self) -> Ask {
        self.next_ask += 1;
        Ask(self.next_ask)
    }

    pub(crate) fn forget(&mut self, ask: Ask) {
        self.asked.remove(&ask);
    }

    /// A count of votes, empty.
    pub(crate) fn tally(&self) -> Tally {
        Tally::new(self.rules)
    }

    /// A read of a key, with nothing heard.
    pub(crate) fn reader(&self) -> Reader {
        Reader::with_rules(self.slots(), self.rules)
    }

    /// A random duration up to this long.
    pub(crate) fn up_to(&mut self, nanos: u64) -> u64 {
        self.rng.random_range(0..=nanos)
    }

    pub(crate) fn random(&mut self) -> u64 {
        self.rng.random()
    }

    // -- who can be reached --------------------------------------------------------------------------

    pub(crate) fn note_reachable(&mut self, name: Name, reachable: bool) {
        self.unreachable.retain(|n| *n != name);
        if !reachable {
            self.unreachable.push(name);
        }
    }

    /// A hint for choosing coordinators; never evidence.
    pub(crate) fn is_reachable(&self, member: u32) -> bool {
        let name = self.present().machine(member).name;
        let bad = [&self.unreachable, &self.doubted, &self.unwell];
        !bad.iter().any(|names| names.contains(&name))
    }

    pub(crate) fn check(&self) {
        assert!(self.limits.floor <= self.limits.ceiling, "the floor is above the ceiling");
        assert_eq!(self.ceilings.back().map(|c| c.0), Some(self.limits.ceiling), "the ceiling is not drawn");
    }
}
