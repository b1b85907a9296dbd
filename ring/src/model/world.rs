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
use super::ground::{BALLOTS, Ground, MACHINES, VIEWS, ballot, epoch};
use crate::acceptor::{Accepted, Acceptor};
use crate::effect::Limits;
use crate::message::{Answer, Bound};
use crate::mutant::Mutant;
use crate::quorum::{SlotSet, Tally};
use crate::stamp::{Hlc, Record, Stamp, State};

mod acts;
mod claims;
mod views;

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
    /// That pass has decided the key: see `Size::slow_passes`.
    decided: bool,
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
    /// F2: the view in which it came to lead; and whether somebody held its state in the forced view, so that anyone may
    /// carry it there (D3).
    led_in: u8,
    carried: bool,
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

    /// The first view in which a quorum promised it.
    fn promised_in(&self, round: &Round) -> u8 {
        let quorum = |view: &u8| {
            let votes = round.promises[usize::from(*view)].iter().copied();
            self.reached(votes.map(|votes| (*view, votes)))
        };
        (0..=self.last_view()).find(quorum).unwrap_or(0)
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
        // S5: until it has been told all of the key.
        if !self.may_hold(world, at, number) && !self.rules.broken(Mutant::S5HoldsAll) {
            return;
        }
        // F2: it was sent before the forced view.
        if self.is_late(world, at, number) && !self.rules.broken(Mutant::F2Late) {
            return;
        }
        let memory = &mut world.machines[usize::from(at)];
        let voting = self.votes_of(at, memory);
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

    /// S5: it votes for some slot of the key, or has been told all of it, and nothing that this ballot is below.
    fn may_hold(&self, world: &World, at: u8, number: u8) -> bool {
        let memory = &world.machines[usize::from(at)];
        let told = world.told[usize::from(at)].iter().flatten();
        let above = told.map(|told| told.highest.max(told.bound)).max().unwrap_or(0);
        !self.votes_of(at, memory).is_empty() || memory.decided && number > above
    }

    /// F2: this machine is in the forced view, and the round came to lead in one before. Who holds its state there is told
    /// of it like anyone.
    fn is_late(&self, world: &World, at: u8, number: u8) -> bool {
        let (view, round) = (world.machines[usize::from(at)].view, world.rounds[usize::from(number) - 1]);
        let forced = self.history(0, view).forced_at().map(|forced| forced.number as u8 - 1);
        forced.is_some_and(|forced| round.led_in < forced && !round.carried)
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

    fn beginning(&self) -> World {
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
        (memory.highest, memory.decided) = (0, false);
        memory.handoff = memory.view > 0 && memory.settled == memory.view - 1;
    }
}

impl Ground {
    fn happens(&self, world: &mut World, act: Act) -> Result<(), &'static str> {
        match act {
            Act::Prepare { at, ballot } => self.prepare(world, at, ballot),
            Act::Lead { ballot, base } => {
                let round = &mut world.rounds[usize::from(ballot) - 1];
                let led_in = self.forced.map_or(0, |_| self.promised_in(round));
                *round = Round { base: Some(base), led_in, ..Round::default() };
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
            Act::Decide { at } => self.decide(world, at),
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

impl Small for Ground {
    type State = World;
    type Act = Act;

    fn first(&self) -> World {
        let mut world = self.beginning();
        for act in self.size.opening {
            let mut acts = Vec::new();
            self.acts(&world, &mut acts);
            assert!(acts.contains(act), "{act} cannot happen in this opening");
            self.step(&mut world, *act).expect("an opening in which all is well");
        }
        world
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
        for at in (0..self.machines).filter(|m| !self.is_lost(world, *m)) {
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
            if self.may_adopt(at, memory.view + 1) {
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
                acts.push(match self.size.slow_passes && !memory.decided {
                    true => Act::Decide { at },
                    false => Act::Sync { at },
                });
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
        self.happens(world, act)?;
        self.forced.map_or(Ok(()), |forced| self.after_forcing(world, &forced))
    }
}
