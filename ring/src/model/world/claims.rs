//! What must be true in a small world, whatever happened.

use super::{GONE, Reading, World, stamp};
use crate::message::Copied;
use crate::model::ground::{BALLOTS, Forced, Ground, epoch, machine};
use crate::quorum::SlotSet;
use crate::reader::Reader;

const FORKED: &str = "two answers, neither of which goes on from the other";
const WAITS: &str = "a machine that was told by all who are left waits for those that were forced out";
const STALE: &str = "a read misses what was answered before it began";

impl Ground {
    /// True if the state of `later` was computed from that of `earlier`, or is it.
    fn goes_on_from(world: &World, later: u8, earlier: u8) -> bool {
        let mut at = later;
        while at != earlier && at != 0 {
            at = world.rounds[usize::from(at) - 1].base.unwrap_or(0);
        }
        at == earlier
    }

    /// Claim 1: the answers are one chain.
    pub(super) fn answer(world: &mut World, number: u8) -> Result<(), &'static str> {
        let answered = world.answered;
        let others = move |n: &u8| answered >> n & 1 == 1;
        let alike = |n| Self::goes_on_from(world, n, number) || Self::goes_on_from(world, number, n);
        if !(1..=BALLOTS as u8).filter(others).all(alike) {
            return Err(FORKED);
        }
        if number != 0 {
            world.answered |= 1 << number;
            // Nobody counts any more.
            world.rounds[usize::from(number) - 1].held = Default::default();
        }
        Ok(())
    }

    pub(super) fn settle_round(&self, world: &mut World, number: u8) -> Result<(), &'static str> {
        let held = world.rounds[usize::from(number) - 1].held;
        let held = held.iter().enumerate().map(|(view, slots)| (view as u8, *slots));
        // F2: what was answered before may be lost, and only here.
        let counted = |view| self.forced.is_none_or(|forced| !forced.is_loss || view >= forced.view);
        match self.reached(held.filter(|(view, _)| counted(*view))) {
            true => Self::answer(world, number),
            false => Ok(()),
        }
    }

    /// D1, D2: the real reader says whether the copies settle it.
    pub(super) fn settle_read(&self, world: &mut World) -> Result<(), &'static str> {
        let collected = world.collected.map_or(0, |(number, _)| number);
        for record in 0..=self.size.ballots {
            let told = (record > 0).then(|| stamp(record));
            let copied = match told {
                None => Copied::None,
                Some(stamp) => {
                    let votes = SlotSet::EMPTY;
                    Copied::Summary { stamp, version: 0, bytes: 0, expires: None, votes }
                }
            };
            let settles = |gone: bool| {
                let mut reader = Reader::with_rules(self.slots, self.rules);
                for (view, copies) in world.reading.copies.iter().enumerate() {
                    let gone = if gone && record == 0 { copies[GONE] } else { SlotSet::EMPTY };
                    let votes = copies[usize::from(record)].union(gone);
                    reader.hear(machine(0).name, epoch(view as u8), votes, copied.clone());
                }
                reader.settled() == Some(told)
            };
            // "None" is what was before the first write, or what was collected.
            let value = match record {
                0 if settles(false) => 0,
                0 => collected,
                record => record,
            };
            if !settles(true) {
                continue;
            }
            let began_after = world.reading.began_after.unwrap_or(0);
            let mut before = (1..=BALLOTS as u8).filter(|n| began_after >> n & 1 == 1);
            if !before.all(|n| Self::goes_on_from(world, value, n)) {
                return Err(STALE);
            }
            world.reading = Reading::default();
            world.reads += 1;
            return Self::answer(world, value);
        }
        Ok(())
    }

    /// F2: what somebody holds in the forced view is known there; and nobody waits for the named, once all others told.
    pub(super) fn after_forcing(&self, world: &mut World, forced: &Forced) -> Result<(), &'static str> {
        for at in 0..self.machines {
            let memory = world.machines[usize::from(at)];
            if memory.view < forced.view {
                continue;
            }
            if let Some((number, _)) = memory.record {
                world.rounds[usize::from(number) - 1].carried = true;
            }
            let syncs = memory.synced >> memory.view & 1 == 0 && self.is_in_ring(at, memory.view);
            let told = &world.told[usize::from(at)];
            let owned = |m: &u8| (memory.settled..=memory.view).any(|view| self.is_in_ring(*m, view));
            let left = |m: &u8| *m != at && !forced.names(*m) && owned(m);
            let all = (0..self.machines).filter(left).all(|m| told[usize::from(m)].is_some());
            if syncs && all && self.judged(world, at).is_none() {
                return Err(WAITS);
            }
        }
        Ok(())
    }
}
