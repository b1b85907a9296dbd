//! One key, some machines, some views: what each machine remembers, what is under way, and all that may happen.
//!
//! Whatever was asked may arrive at any time, any number of times or never, and an answer is as old as one likes when it
//! is counted. So nothing needs to be lost: a machine that does not act any more is lost. The code that runs is the code
//! that is shipped, as far as it is pure: placement, `Acceptor`, `History`, `judge`, `Tally`, `Reader`. What
//! `Local`, `Merge` and `Coordinator` do around them is written anew here, in a few lines each.

use alloc::sync::Arc;
use alloc::vec::Vec;

pub(super) use acts::Act;

use super::explorer::Small;
use super::ground::{BALLOTS, Ground, MACHINES, Page, VIEWS, account, ballot, epoch, machine, number_of};
use crate::acceptor::{Accepted, Acceptor};
use crate::effect::Limits;
use crate::history::{Concern, Telling, Track, Verdict, judge};
use crate::merge::Take;
use crate::message::{Answer, Bound, Purpose};
use crate::mutant::Mutant;
use crate::quorum::{SlotSet, Tally};
use crate::stamp::{Hlc, Record, Stamp, State};

mod acts;
mod claims;

/// A record: the ballot whose first state it is, and its votes.
type Held = Option<(u8, SlotSet)>;
/// Votes, by the view in which they were given and the ballot of the record they were given with; 0 is "none", and the
/// last is "none" of a machine that dropped the collected tombstone, or heard of it (G3).
type Votes = [[SlotSet; BALLOTS + 2]; VIEWS];
const GONE: usize = BALLOTS + 1;

/// What a machine remembers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Memory {
    /// The newest view adopted.
    view: u8,
    /// The last view it knows to be settled.
    settled: u8,
    /// The views, one bit each, in which it came to be synced for all it owned.
    synced: u8,
    /// Its pass over the keys began when the view before was known to be settled (S4).
    handoff: bool,
    promised: u8,
    /// The highest ballot promised or accepted in this life.
    highest: u8,
    floor: u8,
    bound: u8,
    record: Held,
    /// What a crash would bring back: used by `S7Early` alone.
    on_disk: Option<(u8, u8, u8, Held)>,
}

/// What one machine told another (S3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Told {
    synced: u8,
    highest: u8,
    bound: u8,
    record: Held,
}

/// A write under a ballot of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Round {
    promises: Votes,
    /// `Some` once it leads: what its one state was computed from, 0 being nothing.
    base: Option<u8>,
    /// The slots that hold its state, by the view in which that was answered.
    held: [SlotSet; VIEWS],
}

/// A read for a client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Reading {
    /// What had been answered when it began, a bit for each ballot.
    began_after: Option<u8>,
    copies: Votes,
}

/// See the module's caption.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct World {
    machines: [Memory; MACHINES],
    /// `told[asker][teller]`, in the asker's view.
    told: [[Option<Told>; MACHINES]; MACHINES],
    /// The machines, one bit each, that said in a view that they are synced.
    words: [u8; VIEWS],
    rounds: [Round; BALLOTS],
    reading: Reading,
    reads: u8,
    restarts: u8,
    /// G2: all slots voted for the tombstone of this ballot, in this view.
    collected: Option<(u8, u8)>,
    /// The ballots, one bit each, whose state somebody was told: chosen, or read.
    answered: u8,
}

fn stamp(number: u8) -> Stamp {
    Stamp { ballot: ballot(number), n: 1 }
}

fn number(stamp: Stamp) -> u8 {
    stamp.ballot.time.nanos() as u8
}

fn limits(memory: &Memory) -> Limits {
    let time = |n: u8| Hlc::from_nanos(u64::from(n));
    let bound = Bound { time: time(memory.bound), version: 0 };
    Limits { ceiling: Hlc::MAX, floor: time(memory.floor), bound }
}

impl Ground {
    fn votes_of(&self, m: u8, memory: &Memory) -> SlotSet {
        self.votes(m, memory.settled, memory.view, memory.synced)
    }

    /// What a quorum is, is for the tally to say.
    fn reached(&self, votes: impl Iterator<Item = (u8, SlotSet)>) -> bool {
        let mut tally = Tally::new(self.rules);
        votes.for_each(|(view, slots)| tally.add(epoch(view), slots));
        tally.reached(self.slots)
    }

    /// C1: a quorum of promises, the highest record of which is this one. Promises may be lost: so any of them. Where
    /// none told a record, what the bounds told stand for.
    fn may_lead(&self, world: &World, round: &Round, base: usize) -> bool {
        let first = self.rules.broken(Mutant::C1AnyBase);
        let counted = |record: usize| match record {
            GONE => base != 0,
            record if base == GONE => record == 0,
            record => record <= base || first,
        };
        let told = |record: usize| round.promises.iter().any(|view| !view[record].is_empty());
        let stranger = |record: usize| {
            self.rules.broken(Mutant::C1Stranger)
                && (0..self.machines).any(|m| self.is_stranger(world, m, record))
        };
        let votes = round.promises.iter().enumerate().flat_map(|(view, by_record)| {
            let votes = by_record.iter().enumerate().filter(|(record, _)| counted(*record));
            votes.map(move |(_, slots)| (view as u8, *slots))
        });
        (base == 0 || told(base) || stranger(base)) && self.reached(votes)
    }

    /// C1Stranger: an owner that votes for nothing, and holds this record, which may be void.
    fn is_stranger(&self, world: &World, m: u8, record: usize) -> bool {
        let memory = &world.machines[usize::from(m)];
        let holds = memory.record.is_some_and(|(held, _)| usize::from(held) == record);
        holds && self.votes_of(m, memory).is_empty() && !self.slots_of(m, memory.view).is_empty()
    }

    /// What its answer "none", or its record, counts under.
    fn told_as(memory: &Memory) -> usize {
        match memory.record {
            Some((record, _)) => usize::from(record),
            None if memory.bound > 0 => GONE,
            None => 0,
        }
    }

    /// G2: all nine slots vote for it in this view, which is settled.
    fn may_be_collected(&self, world: &World, number: u8, view: u8) -> bool {
        let votes =
            (0..self.machines).map(|m| (m, &world.machines[usize::from(m)])).map(|(m, memory)| match memory
                .record
            {
                Some((record, votes)) if record == number && memory.view == view => {
                    let owned = self.slots_of(m, view);
                    let hearsay = self.rules.broken(Mutant::G2Hearsay);
                    if hearsay { owned } else { votes.intersection(self.votes_of(m, memory)) }
                }
                _ => SlotSet::EMPTY,
            });
        let votes = votes.fold(SlotSet::EMPTY, SlotSet::union);
        let five = self.rules.broken(Mutant::G2Five) && self.reached([(view, votes)].into_iter());
        (votes == SlotSet::all(self.slots) || five) && (view == 0 || self.is_settled(world, view))
    }

    /// G2, G3: whoever has adopted that view, and holds exactly that.
    fn collect(&self, world: &mut World, at: u8) {
        let Some((number, view)) = world.collected else { return };
        let memory = &mut world.machines[usize::from(at)];
        if memory.view < view {
            return;
        }
        self.note_settled(memory, view);
        let mut acceptor = self.acceptor(memory);
        if acceptor.forget(stamp(number)).is_some() {
            if !self.rules.broken(Mutant::G3NoBound) {
                memory.bound = memory.bound.max(number);
            }
            Self::remember(memory, &acceptor);
        }
    }

    /// Who is to be told what by whom (S2): the members, and whoever else owned slots in views not yet settled.
    fn tells(&self, world: &World, from: u8, to: u8) -> bool {
        let (asker, teller) = (&world.machines[usize::from(to)], &world.machines[usize::from(from)]);
        let syncs = asker.synced >> asker.view & 1 == 0 && self.is_in_ring(to, asker.view);
        // S3, V4: told at the asker's view.
        syncs
            && from != to
            && teller.view == asker.view
            && (asker.settled..=asker.view).any(|view| self.is_in_ring(from, view))
    }

    /// S4, S5, S6: what the asker makes of all that it was told; `None` while it may not go on.
    fn judged(&self, world: &World, at: u8) -> Option<Option<Verdict>> {
        let memory = &world.machines[usize::from(at)];
        let told = &world.told[usize::from(at)];
        let me = machine(at);
        let history = self.history(memory.settled, memory.view);
        let owners = self.owners(memory.settled, memory.view);
        let everyone = (0..self.machines)
            .filter(|m| *m != at && (memory.settled..=memory.view).any(|view| self.is_in_ring(*m, view)));
        let without: Vec<_> = everyone.filter(|m| told[usize::from(*m)].is_none()).map(machine).collect();
        let synced = |other, at_epoch: crate::view::Epoch| {
            let view = at_epoch.number - 1;
            let synced = match told[usize::from(number_of(other))] {
                Some(told) => told.synced,
                None if other == me => memory.synced,
                None => 0,
            };
            synced >> view & 1 == 1
        };
        let unheard = |m: &crate::view::Machine| !self.is_in_ring(number_of(*m), memory.view);
        let needed: Vec<_> = match self.page {
            Some(Page::FormerOwnersUnheard) => without.iter().copied().filter(|m| !unheard(m)).collect(),
            _ => without.clone(),
        };
        if !history.is_covered_without(me, &needed, synced) {
            return None;
        }
        let last_synced = (0..VIEWS as u8).rev().find(|view| memory.synced >> view & 1 == 1);
        let since = account(memory.settled, last_synced.map_or(0, |view| 1 << view));
        let asked = history.track(me, &since);
        let concern = Concern {
            purpose: Purpose::Sync,
            handoff: memory.handoff,
            without: &without,
            asker: me,
            track: &asked,
        };
        let tracks: Vec<(Track, Held)> = (0..self.machines)
            .filter(|m| {
                let places = history.track(machine(*m), &account(memory.settled, 0));
                history.is_told(
                    &concern,
                    (owners, history.next_owners(&self.chain).as_ref()),
                    (machine(*m), &places),
                )
            })
            .filter_map(|m| told[usize::from(m)].map(|told| (m, told)))
            .map(|(m, told)| (history.track(machine(m), &account(memory.settled, told.synced)), told.record))
            .collect();
        let telling = |record: &Held| record.map(|(record, votes)| (stamp(record), votes));
        let others: Vec<Telling<'_>> =
            tracks.iter().map(|(track, record)| Telling { track, record: telling(record) }).collect();
        let mine = history.track(me, &account(memory.settled, memory.synced));
        let own = Telling { track: &mine, record: telling(&memory.record) };
        let verdict = judge(&history, owners, &own, &others);
        Some((!verdict.gained.is_empty()).then_some(verdict))
    }

    fn state(&self) -> Arc<State> {
        Arc::new(State::default())
    }

    /// The real acceptor, as this machine remembers it.
    fn acceptor(&self, memory: &Memory) -> Acceptor {
        let record =
            memory.record.map(|(record, votes)| Record { stamp: stamp(record), state: self.state(), votes });
        Acceptor::remembering(ballot(memory.promised), record, self.rules)
    }

    fn remember(memory: &mut Memory, acceptor: &Acceptor) {
        memory.promised = acceptor.promised().time.nanos() as u8;
        let record = acceptor.held().unwrap_or_else(|| unreachable!("no record of the model is unreadable"));
        memory.record = record.map(|record| (number(record.stamp), record.votes));
    }

    fn prepare(&self, world: &mut World, at: u8, number: u8) {
        let memory = &mut world.machines[usize::from(at)];
        let voting = self.votes_of(at, memory);
        let mut acceptor = self.acceptor(memory);
        let (answer, votes) = acceptor.prepare(ballot(number), voting, &limits(memory));
        if !matches!(answer, Answer::Promised { .. }) {
            return;
        }
        let promises = &mut world.rounds[usize::from(number) - 1].promises[usize::from(memory.view)];
        let told = &mut promises[Self::told_as(memory)];
        // A promise that nobody needs only makes the machine refuse more: without it, more can go wrong.
        if !votes.is_subset(*told) {
            *told = told.union(votes);
            Self::remember(memory, &acceptor);
            memory.highest = memory.highest.max(number);
        }
    }

    fn accept(&self, world: &mut World, at: u8, number: u8) {
        let memory = &mut world.machines[usize::from(at)];
        let voting = self.votes_of(at, memory);
        // S5: until it has been told all of the key.
        if voting.is_empty() && !self.rules.broken(Mutant::S5HoldsAll) {
            return;
        }
        let mut acceptor = self.acceptor(memory);
        let votes = match acceptor.accept(stamp(number), &self.state(), voting, &limits(memory)) {
            Accepted::Now(record) => {
                memory.highest = memory.highest.max(number);
                // Durable before it is answered, and so is all before it.
                memory.on_disk = None;
                record.votes
            }
            Accepted::Answer(Answer::Held { .. }, votes) => votes,
            Accepted::Answer(..) => return,
        };
        Self::remember(memory, &acceptor);
        if world.answered >> number & 1 == 0 {
            let held = &mut world.rounds[usize::from(number) - 1].held[usize::from(memory.view)];
            *held = held.union(votes);
        }
    }

    /// What it was asked before it is asked again, in the view it is in now. At once: an answer more does no harm to who
    /// wants to go wrong, and to give it later is to give it twice.
    fn answer_again(&self, world: &mut World, at: u8) -> Result<(), &'static str> {
        let Memory { promised, record, .. } = world.machines[usize::from(at)];
        if promised > 0 && world.rounds[usize::from(promised) - 1].base.is_none() {
            self.prepare(world, at, promised);
        }
        match record {
            Some((number, _)) => {
                self.accept(world, at, number);
                self.settle_round(world, number)
            }
            None => Ok(()),
        }
    }

    fn read(&self, world: &mut World, at: u8) {
        let memory = &world.machines[usize::from(at)];
        let (answer, votes) = self.acceptor(memory).read(0, self.votes_of(at, memory));
        if !matches!(answer, Answer::Copy(_)) {
            return;
        }
        world.reading.began_after.get_or_insert(world.answered);
        let cell = &mut world.reading.copies[usize::from(memory.view)][Self::told_as(memory)];
        *cell = cell.union(votes);
    }

    /// V3, S1.
    fn adopt(&self, world: &mut World, at: u8) {
        world.told[usize::from(at)] = Default::default();
        let memory = &mut world.machines[usize::from(at)];
        let (before, view) = (memory.view, memory.view + 1);
        memory.view = view;
        memory.handoff = memory.settled == before;
        memory.on_disk = None;
        // Where no slot of this key is gained, the sync of the others changes nothing of it but what it may claim.
        let gained = self.slots_of(at, view).minus(self.votes_of(at, memory));
        if gained.is_empty() && self.is_in_ring(at, view) {
            memory.synced |= 1 << view;
            world.words[usize::from(view)] |= 1 << at;
        }
    }

    /// V3: behind even the last settled view, it begins from that one, synced for nothing.
    fn begin(&self, world: &mut World, at: u8, view: u8) {
        world.told[usize::from(at)] = Default::default();
        let memory = &mut world.machines[usize::from(at)];
        (memory.view, memory.settled, memory.synced) = (view, view, 0);
        (memory.handoff, memory.on_disk) = (false, None);
    }

    fn tell(&self, world: &mut World, from: u8, to: u8) {
        let Memory { settled, synced, highest, floor, bound, record, view, .. } =
            world.machines[usize::from(from)];
        let told = &mut world.told[usize::from(to)][usize::from(from)];
        let highest = highest.max(floor);
        *told = Some(match *told {
            None => Told { synced, highest, bound, record },
            // A later page: the record was told, and counts as what it was then.
            Some(former) => {
                let late = self.rules.broken(Mutant::S3Late) || former.synced >> view & 1 == 1;
                let synced = if late { synced } else { synced & !(1 << view) };
                let highest = highest.max(former.highest);
                Told { synced, highest, bound: bound.max(former.bound), record: former.record }
            }
        });
        self.note_settled(&mut world.machines[usize::from(to)], settled);
    }

    /// S5, S6, S7.
    fn sync(&self, world: &mut World, at: u8) {
        let Some(verdict) = self.judged(world, at) else { return };
        let told = || world.told[usize::from(at)].iter().flatten();
        let promised = told().map(|told| told.highest).max().unwrap_or(0);
        let bound = told().map(|told| told.bound).max().unwrap_or(0);
        let memory = &mut world.machines[usize::from(at)];
        let before = (memory.synced, memory.floor, memory.bound, memory.record);
        if let Some(Verdict { gained, best, granted, own_is_void }) = verdict {
            let own = memory.record.map(|(record, _)| stamp(record));
            let state = best.filter(|best| Some(*best) != own).map(|_| self.state());
            let void = own.filter(|_| own_is_void);
            let purpose = Purpose::Sync;
            let take = Take { purpose, epoch: epoch(memory.view), stamp: best, state, gained, granted, void };
            let mut acceptor = self.acceptor(memory);
            if acceptor.take(take).is_some() {
                Self::remember(memory, &acceptor);
            }
        }
        if !self.rules.broken(Mutant::S5NoFloor) {
            memory.floor = memory.floor.max(promised);
        }
        if !self.rules.broken(Mutant::S5NoBound) {
            memory.bound = memory.bound.max(bound);
        }
        memory.synced |= 1 << memory.view;
        if self.rules.broken(Mutant::S7Early) {
            memory.on_disk.get_or_insert(before);
        }
        world.words[usize::from(memory.view)] |= 1 << at;
        world.told[usize::from(at)] = Default::default();
    }

    /// T1: every machine of its ring has said so.
    fn is_settled(&self, world: &World, view: u8) -> bool {
        let said = |m: u8| world.words[usize::from(view)] >> m & 1 == 1;
        let mut ring = (0..self.machines).filter(|m| self.is_in_ring(*m, view));
        if self.page == Some(Page::SettledByOne) { ring.any(said) } else { ring.all(said) }
    }

    /// T2.
    fn note_settled(&self, memory: &mut Memory, view: u8) {
        if view > memory.settled {
            memory.settled = view;
            memory.synced &= !0 << view;
            memory.on_disk = None;
        }
    }

    /// T2: no slot of the key is the machine's, nor did it vote for one since the last settled view.
    fn is_for_nothing(&self, m: u8, memory: &Memory) -> bool {
        if memory.record.is_none() || !self.slots_of(m, memory.view).is_empty() {
            return false;
        }
        let history = self.history(memory.settled, memory.view);
        let track = history.track(machine(m), &account(memory.settled, memory.synced));
        self.page == Some(Page::DroppedAtOnce)
            || !history.ever_voted(&track, self.owners(memory.settled, memory.view))
    }

    /// R1, A4.
    fn restart(&self, world: &mut World, at: u8) {
        world.told[usize::from(at)] = Default::default();
        world.restarts += 1;
        let memory = &mut world.machines[usize::from(at)];
        let ceiling = memory.highest.max(memory.promised).max(memory.floor);
        if let Some((synced, floor, bound, record)) = memory.on_disk.take() {
            (memory.synced, memory.floor, memory.bound, memory.record) = (synced, floor, bound, record);
        }
        if !self.rules.broken(Mutant::A4NoFloor) {
            memory.floor = ceiling;
        }
        memory.promised = memory.record.map_or(0, |(record, _)| record);
        memory.highest = 0;
        memory.handoff = memory.view > 0 && memory.settled == memory.view - 1;
    }
}

impl Small for Ground {
    type State = World;
    type Act = Act;

    fn first(&self) -> World {
        let mut machines = [Memory::default(); MACHINES];
        for m in (0..self.machines).filter(|m| self.is_in_ring(*m, 0)) {
            machines[usize::from(m)].synced = 1;
        }
        // Who comes later knows nothing of any view before.
        for m in 0..self.machines {
            let views = 0..=self.last_view();
            machines[usize::from(m)].view = views.filter(|view| self.is_in_ring(m, *view)).min().unwrap_or(0);
        }
        World {
            machines,
            told: Default::default(),
            words: Default::default(),
            rounds: Default::default(),
            reading: Reading::default(),
            reads: 0,
            restarts: 0,
            collected: None,
            answered: 0,
        }
    }

    fn acts(&self, world: &World, acts: &mut Vec<Act>) {
        for number in 1..=self.size.ballots {
            let round = &world.rounds[usize::from(number) - 1];
            if round.base.is_some() {
                continue;
            }
            let collected = world.collected.map_or(0, |(number, _)| number);
            let bases = (0..=GONE).filter(|base| self.may_lead(world, round, *base));
            let state = |base: usize| if base == GONE { collected } else { base as u8 };
            acts.extend(bases.map(|base| Act::Lead { ballot: number, base: state(base) }));
        }
        if self.size.collects && world.collected.is_none() {
            let all = (1..=self.size.ballots).filter(|n| world.rounds[usize::from(*n) - 1].base.is_some());
            let all = all.flat_map(|ballot| (0..=self.last_view()).map(move |view| (ballot, view)));
            let all = all.filter(|(ballot, view)| self.may_be_collected(world, *ballot, *view));
            acts.extend(all.map(|(ballot, view)| Act::Vote { ballot, view }));
        }
        for at in 0..self.machines {
            let memory = &world.machines[usize::from(at)];
            if !self.slots_of(at, memory.view).is_empty() {
                let rounds = (1..=self.size.ballots).zip(&world.rounds);
                acts.extend(rounds.map(|(ballot, round)| match round.base {
                    None => Act::Prepare { at, ballot },
                    Some(_) => Act::Accept { at, ballot },
                }));
                if world.reads < self.size.reads {
                    acts.push(Act::Read { at });
                }
            }
            if memory.view < self.last_view() {
                acts.push(Act::Adopt { at });
            }
            let settled = |view: &u8| self.size.settles && self.is_settled(world, *view);
            acts.extend(
                (memory.view + 2..=self.last_view()).filter(settled).map(|view| Act::Begin { at, view }),
            );
            let news = memory.settled + 1..=memory.view;
            acts.extend(news.filter(settled).map(|view| Act::Settle { at, view }));
            acts.extend(
                (0..self.machines)
                    .filter(|m| self.tells(world, *m, at))
                    .map(|from| Act::Tell { from, to: at }),
            );
            if memory.synced >> memory.view & 1 == 0 && self.is_in_ring(at, memory.view) {
                acts.push(Act::Sync { at });
            }
            if self.is_for_nothing(at, memory) {
                acts.push(Act::Forget { at });
            }
            if world.collected.is_some_and(|(number, _)| memory.record.is_some_and(|r| r.0 == number)) {
                acts.push(Act::Collect { at });
            }
            if memory.on_disk.is_some() {
                acts.push(Act::Durable { at });
            }
            if world.restarts < self.size.restarts {
                acts.push(Act::Restart { at });
            }
        }
    }

    fn step(&self, world: &mut World, act: Act) -> Result<(), &'static str> {
        match act {
            Act::Prepare { at, ballot } => self.prepare(world, at, ballot),
            Act::Lead { ballot, base } => {
                world.rounds[usize::from(ballot) - 1] = Round { base: Some(base), ..Round::default() };
            }
            Act::Accept { at, ballot } => {
                self.accept(world, at, ballot);
                return self.settle_round(world, ballot);
            }
            Act::Read { at } => {
                self.read(world, at);
                return self.settle_read(world);
            }
            Act::Adopt { at } => {
                self.adopt(world, at);
                return self.answer_again(world, at);
            }
            Act::Begin { at, view } => self.begin(world, at, view),
            Act::Tell { from, to } => self.tell(world, from, to),
            Act::Sync { at } => {
                self.sync(world, at);
                return self.answer_again(world, at);
            }
            Act::Durable { at } => world.machines[usize::from(at)].on_disk = None,
            Act::Settle { at, view } => self.note_settled(&mut world.machines[usize::from(at)], view),
            Act::Vote { ballot, view } => world.collected = Some((ballot, view)),
            Act::Collect { at } => self.collect(world, at),
            Act::Forget { at } => world.machines[usize::from(at)].record = None,
            Act::Restart { at } => self.restart(world, at),
        }
        Ok(())
    }
}
