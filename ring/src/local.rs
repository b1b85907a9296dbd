//! What a machine has besides its keys: its clock, its ceiling, its view, the numbers it hands out.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::HashMap;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::answers::Answers;
use crate::counts::Counts;
use crate::effect::{Account, Change, Effect, Limits, Now, Ticket};
use crate::history::{History, Present, Track};
use crate::key::Key;
use crate::message::{Addr, Ask, Bound, Envelope, Message};
use crate::mutant::{Mutant, Rules};
use crate::node::{Birth, Setup, Tuning};
use crate::placement::Owners;
use crate::quorum::{SlotSet, Tally, quorum_of};
use crate::rare::{Rare, met, met_if};
use crate::reader::Reader;
use crate::stamp::{Ballot, Hlc, Stamp, State};
use crate::tombstones::Tombstones;
use crate::view::{Epoch, Incarnation, Machine, MemberState, Name, View};
use crate::zone::Zone;

/// How long after a client's request a machine counts as serving clients.
const SERVES_FOR: u64 = 100_000_000;
/// Bytes of values that a machine without room takes from readers (see `takes`), and one value more.
const HELPED: u64 = 4 << 20;

/// See the module's caption.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Local {
    pub(crate) me: Machine,
    /// Its weight and zone, should it be taken into a view.
    pub(crate) place: (u32, Zone),
    /// Where it was told to join, for when nobody of the views it knows is there any more.
    pub(crate) seeds: Vec<Name>,
    pub(crate) tuning: Tuning,
    /// The views since the last settled one, the present one last; none on a blank machine.
    views: Vec<Present>,
    /// What it can tell of them.
    pub(crate) account: Account,
    pub(crate) limits: Limits,
    /// The highest ballot promised or accepted in this life; those before are at or below the floor (A4).
    promised: Ballot,
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
    /// Requests answered `Overloaded`.
    pub(crate) turned_away: u64,
    /// Members that the transport says cannot be told anything at present.
    unreachable: Vec<Name>,
    /// Members that the detector does not believe alive.
    pub(crate) doubted: Vec<Name>,
    /// Members that are not well: they say so, or those who wait for their answers do.
    pub(crate) unwell: Vec<Name>,
    /// The same of this machine.
    pub(crate) is_unwell: bool,
    /// Members that say their disks have no room for values.
    pub(crate) full: Vec<Name>,
    /// The same of this machine: it takes none.
    pub(crate) is_full: bool,
    /// Bytes of values taken all the same, to help a read (D3).
    helped: u64,
    /// When it last heard of a client's request, or of a round for one.
    served: Option<crate::Mono>,
    /// How long members take to answer.
    pub(crate) answers: Answers,
    /// Work done, for whoever looks from outside.
    pub(crate) counts: Counts,
    pub(crate) tombstones: Tombstones,
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
            place: (setup.weight, setup.zone),
            seeds: match &setup.birth {
                Birth::Join(seeds) => seeds.iter().copied().filter(|name| *name != setup.me.name).collect(),
                _ => Vec::new(),
            },
            tuning: setup.tuning.clone(),
            views: Vec::new(),
            // Told to join again, it does.
            account: Account {
                left: setup.account.left && !matches!(setup.birth, Birth::Join(_)),
                ..setup.account.clone()
            },
            limits,
            promised: Ballot::ZERO,
            ceilings: VecDeque::from([(limits.ceiling, None)]),
            // The HLC is never behind a time on disk.
            clock: limits.ceiling.max(limits.bound.time),
            barrier: None,
            next_ticket: 0,
            // Answers to a former life may still come, and name no key: they must meet no question of this one.
            next_ask: rng.random::<u64>() >> 1,
            asked: HashMap::with_hasher(foldhash::fast::FixedState::with_seed(setup.seed)),
            waiting_bytes: 0,
            turned_away: 0,
            unreachable: Vec::new(),
            doubted: Vec::new(),
            unwell: Vec::new(),
            counts: Counts::default(),
            tombstones: Tombstones::default(),
            is_unwell: false,
            full: Vec::new(),
            is_full: false,
            helped: 0,
            served: None,
            answers: Answers::default(),
            rng,
            rules,
        };
        if rules.broken(Mutant::B1BallotTwice) {
            local.clock = Hlc::ZERO;
        }
        local.see_wall(now);
        local.restore(&setup.views);
        local
    }

    // -- views ---------------------------------------------------------------------------------------

    /// The views found on disk. Only a jump to a settled view (V3) leaves a gap, and what was before it counts no more:
    /// the account that says so may not have made it to the disk.
    fn restore(&mut self, views: &[Arc<View>]) {
        let from = views.windows(2).rposition(|w| !w[0].is_before(&w[1])).map_or(0, |gap| gap + 1);
        let views = &views[from..];
        let Some(first) = views.first() else { return };
        let first = first.epoch();
        self.account.settled = self.account.settled.max(first);
        self.account.synced.retain(|epoch| *epoch >= first);
        self.views = views.iter().map(|view| Present::new(view.clone(), self.me)).collect();
        let settled = self.account.settled;
        self.views.retain(|p| p.epoch() >= settled);
        self.answers.begin_anew();
    }

    /// V3: adopts a view: durable before anything more is said. In order: it is the one after the present view, or a
    /// settled one that this machine was not in the ring of, or the first there is.
    pub(crate) fn adopt(&mut self, view: Arc<View>, settled: Epoch, effects: &mut Vec<Effect>) {
        let follows = self.newest().is_some_and(|p| p.view.is_before(&view));
        let present = Present::new(view.clone(), self.me);
        let was_leaving = self.newest().is_some_and(|p| {
            p.me.is_some_and(|me| p.view.members()[me as usize].state == MemberState::Leaving)
        });
        let mut account = self.account.clone();
        account.left = present.me.is_none() && (account.left || was_leaving);
        met_if(account.left && !self.account.left, Rare::M3Left);
        if !follows {
            // What it was synced for is past: it begins from here, synced for nothing.
            self.views.clear();
            let born = view.epoch() == Epoch::FIRST;
            account.synced = if born { Vec::from([Epoch::FIRST]) } else { Vec::new() };
            account.settled = if born { Epoch::FIRST } else { settled };
        }
        let mut ticket = self.persist(Change::View(view), effects);
        if account != self.account {
            // After the view: a settled view that is not on disk would leave the machine without any.
            self.account = account;
            ticket = self.persist(Change::Account(self.account.clone()), effects);
        }
        self.barrier = Some(ticket);
        if self.rules.broken(Mutant::F1TellFirst) {
            self.barrier = None;
        }
        self.answers.begin_anew();
        self.views.push(present);
        self.stay_synced(effects);
    }

    /// S1: synced in the view before, and owning nothing more in this one: synced.
    pub(crate) fn stay_synced(&mut self, effects: &mut Vec<Effect>) {
        let [.., before, present] = &self.views[..] else { return };
        let was = self.account.synced.last() == Some(&before.epoch());
        let stay = || before.ring_members().eq(present.ring_members());
        let same = before.view.same_ring(&present.view) || self.rules.broken(Mutant::S1Moved) && stay();
        met_if(!was && same, Rare::S1NotSyncedBefore);
        if was && present.me.is_some() && same {
            met(Rare::S1StaysSynced);
            self.account.synced.push(present.epoch());
            let ticket = self.persist(Change::Account(self.account.clone()), effects);
            self.barrier = Some(ticket);
        }
    }

    /// S7: all that this machine owns in the present view is here. It votes for it once that is durable.
    pub(crate) fn become_synced(&mut self, promised: Ballot, bound: Bound, effects: &mut Vec<Effect>) {
        met_if(promised.time > self.limits.floor, Rare::S5FloorRises);
        met_if(bound.time > self.limits.bound.time, Rare::S5BoundRises);
        met_if(promised.time > self.limits.ceiling, Rare::S5CeilingRises);
        if !self.rules.broken(Mutant::S5NoFloor) {
            self.raise_floor_to(promised.time);
        }
        if !self.rules.broken(Mutant::S5NoBound) {
            self.limits.bound = self.limits.bound.max(bound);
        }
        self.persist_limits(effects);
        let epoch = self.epoch();
        if self.account.synced.last() != Some(&epoch) {
            self.account.synced.push(epoch);
        }
        let ticket = self.persist(Change::Account(self.account.clone()), effects);
        if !self.rules.broken(Mutant::S7Early) {
            self.barrier = Some(ticket);
        }
    }

    /// T1, T2: a view is settled. What was told of earlier ones is forgotten. False if that is nothing new.
    pub(crate) fn note_settled(&mut self, epoch: Epoch, effects: &mut Vec<Effect>) -> bool {
        // F2: one of another branch says nothing of this one's.
        if epoch <= self.account.settled || !self.views.iter().any(|p| p.epoch() == epoch) {
            return false;
        }
        met_if(epoch < self.epoch(), Rare::T1EarlierViewSettled);
        self.account.settled = epoch;
        self.account.synced.retain(|e| *e >= epoch);
        self.views.retain(|p| p.epoch() >= epoch);
        let ticket = self.persist(Change::Account(self.account.clone()), effects);
        self.barrier = self.barrier.max(Some(ticket));
        true
    }

    /// True if the present view is settled, as far as is known here.
    pub(crate) fn is_settled(&self) -> bool {
        self.account.settled == self.epoch()
    }

    /// True if it votes for all that it owns in the present view.
    pub(crate) fn is_synced(&self) -> bool {
        self.account.synced.last() == Some(&self.epoch()) && self.newest().is_some_and(|p| p.me.is_some())
    }

    pub(crate) fn history(&self) -> History<'_> {
        History { views: &self.views, rules: self.rules }
    }

    /// Another machine's places in the views, where it was last synced for all it owned in the view `since`.
    pub(crate) fn tracks_of(&self, machine: Machine, since: Option<Epoch>) -> Track {
        self.track_of(machine, since.into_iter().collect())
    }

    /// Another machine's places in the views, where it was synced for all it owned in these.
    pub(crate) fn track_of(&self, machine: Machine, synced: Vec<Epoch>) -> Track {
        self.history().track(machine, &Account { synced, ..Account::default() })
    }

    /// Another machine's places in the views, whatever it voted for.
    pub(crate) fn places_of(&self, machine: Machine) -> Track {
        self.history().track(machine, &Account::default())
    }

    #[cfg(test)]
    pub(crate) fn clock(&self) -> Hlc {
        self.clock
    }

    #[cfg(test)]
    pub(crate) fn present_mut(&mut self) -> &mut Present {
        self.views.last_mut().expect("a test has a view")
    }

    /// The present view, if there is any.
    pub(crate) fn newest(&self) -> Option<&Present> {
        self.views.last()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.newest().map_or(Epoch::ZERO, Present::epoch)
    }

    /// The view that this machine takes part in; only called where there is one.
    pub(crate) fn present(&self) -> &Present {
        self.newest().expect("a machine without a view routes nothing to a key")
    }

    pub(crate) fn slots(&self) -> u8 {
        self.present().view.slots()
    }

    /// Slots that make a quorum, for messages to people; counting is [`crate::Tally`]'s.
    pub(crate) fn needed(&self) -> u8 {
        quorum_of(self.slots())
    }

    pub(crate) fn owners_of(&self, key: &Key) -> Owners {
        self.present().owners(key)
    }

    /// The slots of a key that a member of the present view owned in this one. Of a view that is not known, none: whoever
    /// is asked in a newer one comes to that before he answers (V4).
    pub(crate) fn owned_in(&self, epoch: Epoch, key: &Key, member: u32) -> SlotSet {
        let machine = self.present().machine(member);
        let view = self.views.iter().find(|p| p.epoch() == epoch);
        view.and_then(|p| Some(p.owners(key).slots_of(p.index_of(machine)?))).unwrap_or(SlotSet::EMPTY)
    }

    /// Q1: the slots of a key that this machine votes for: those that it has owned in every view since the last one
    /// in which it was synced for all it owned (S1).
    pub(crate) fn voting(&self, key: &Key, owners: &Owners) -> SlotSet {
        let Some(me) = self.present().me else { return SlotSet::EMPTY };
        if self.account.synced.last() == Some(&self.epoch()) {
            return owners.slots_of(me);
        }
        let history = self.history();
        let owners = history.owners(&self.present().chain(key));
        let track = history.track(self.me, &self.account);
        history.votes(&track, &owners)
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
        met_if(beat.time.max(self.limits.floor).nanos() > now.wall, Rare::B1ClockIsBehind);
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

    /// S5: takes part in nothing at or below this time. Raising the floor raises the ceiling (A4).
    fn raise_floor_to(&mut self, time: Hlc) {
        self.limits.floor = self.limits.floor.max(time);
        self.limits.ceiling = self.limits.ceiling.max(self.limits.floor);
        self.see(time);
    }

    fn persist_limits(&mut self, effects: &mut Vec<Effect>) {
        let ticket = self.persist(Change::Limits(self.limits), effects);
        if self.ceilings.back().is_some_and(|(ceiling, _)| *ceiling != self.limits.ceiling) {
            self.ceilings.push_back((self.limits.ceiling, Some(ticket)));
        }
    }

    /// G3: this is about to be forgotten.
    pub(crate) fn raise_bound(&mut self, bound: Bound, effects: &mut Vec<Effect>) {
        if !self.rules.broken(Mutant::G3NoBound) {
            self.limits.bound = self.limits.bound.max(bound);
            self.persist(Change::Limits(self.limits), effects);
        }
    }

    /// This ballot was promised or accepted.
    pub(crate) fn note_promised(&mut self, ballot: Ballot) {
        self.promised = self.promised.max(ballot);
    }

    /// S3: at or above every ballot that this machine may have promised.
    pub(crate) fn highest_promised(&self) -> Ballot {
        self.promised.max(Ballot { time: self.limits.floor, by: Incarnation::new(u64::MAX) })
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
        let envelope =
            Envelope { cluster: self.newest().map(|p| p.view.cluster()), epoch: self.epoch(), message };
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

    /// A client's request is here, or a round for one.
    pub(crate) fn note_served(&mut self, now: Now) {
        self.served = Some(now.mono);
    }

    /// True while clients have work for this machine: side work leaves it to them.
    pub(crate) fn serves(&self, now: Now) -> bool {
        self.served.is_some_and(|at| at.plus(SERVES_FOR) > now.mono)
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

    /// How long an answer is waited for before a question is put again: longer than they take lately, and so long at most.
    pub(crate) fn patience(&self, most: u64) -> u64 {
        self.tuning.resend_after.max(self.answers.patience().min(most))
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

    /// What the detector believes; never evidence.
    pub(crate) fn is_alive(&self, member: u32) -> bool {
        !self.doubted.contains(&self.present().machine(member).name)
    }

    /// A hint whether an answer may come at all; never evidence.
    pub(crate) fn is_reachable(&self, member: u32) -> bool {
        let name = self.present().machine(member).name;
        ![&self.unreachable, &self.doubted].iter().any(|names| names.contains(&name))
    }

    /// A hint for choosing whom to ask first; never evidence.
    pub(crate) fn is_well(&self, member: u32) -> bool {
        self.is_reachable(member) && !self.unwell.contains(&self.present().machine(member).name)
    }

    /// False if it says that its disk has no room for a value; never evidence of what it holds.
    pub(crate) fn has_room(&self, member: u32) -> bool {
        let machine = self.present().machine(member);
        if machine == self.me { !self.is_full } else { !self.full.contains(&machine.name) }
    }

    /// The disk has room for values, or has none.
    pub(crate) fn note_room(&mut self, is_full: bool) {
        if !is_full {
            self.helped = 0;
        }
        self.is_full = is_full;
    }

    /// True if there is room for this state. Without room, what others proposed is taken from readers who bring it to five
    /// (D3), or whatever was under way when the last disk ran full could not even be read; such values are few.
    pub(crate) fn takes(&mut self, from: Addr, stamp: Stamp, state: &State) -> bool {
        let Some(value) = state.value.as_ref().filter(|_| self.is_full) else { return true };
        let helps = matches!(from, Addr::Machine(reader) if reader.incarnation != stamp.ballot.by);
        let takes = helps && self.helped < HELPED;
        if takes {
            self.helped += value.len() as u64;
        }
        takes
    }

    pub(crate) fn check(&self) {
        assert!(self.limits.floor <= self.limits.ceiling, "the floor is above the ceiling");
        assert_eq!(self.ceilings.back().map(|c| c.0), Some(self.limits.ceiling), "the ceiling is not drawn");
    }
}
