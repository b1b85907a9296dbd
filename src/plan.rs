//! What a change of the membership would move, told before it is made. Pure: the same view gives the same plan.

use std::collections::{BTreeMap, BTreeSet};

use ennead_ring::view::{MAX_MEMBERS, Machine, Member, MemberState, Name, View, ViewError};
use ennead_ring::{Chain, Incarnation, Ring, Zone, quorum_of};

use crate::zones::{Stand, zones};

/// Keys that stand for all: a share is then told within about half a percent.
const SAMPLE: u32 = 10_000;

/// A change that somebody thinks of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// These machines come in, with so many positions each.
    Join(Vec<(Name, u32)>),
    /// These hand over what they hold, and go.
    Leave(Vec<Name>),
    /// These are gone; the others restore what they held.
    Remove(Vec<Name>),
    /// This one gets so many positions.
    Weight(Name, u32),
}

/// Why there is nothing to plan.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    /// It is not a member.
    #[error("{0} is not a member of this cluster")]
    NoSuchMachine(Name),
    /// It is one already.
    #[error("{0} is a member of this cluster already")]
    Already(Name),
    /// Nobody would be left.
    #[error("no machine would be left in the ring, and the data with none")]
    NobodyLeft,
    /// The ring after it would be none.
    #[error("there can be no such ring: {0}")]
    NoRing(String),
}

/// A part of the data on its way from one machine to another.
#[derive(Clone, PartialEq, Debug)]
pub struct Flow {
    /// Who owns these slots now. Of a machine that is gone, the others tell what it held.
    pub from: Name,
    /// Who owns them then.
    pub to: Name,
    /// Slots, of all slots of all keys: 0 to 1.
    pub slots: f64,
}

/// What one machine owns and holds, now and then.
#[derive(Clone, PartialEq, Debug)]
pub struct Share {
    /// Which machine.
    pub name: Name,
    /// Its slots now, of all slots of all keys: 0 to 1. They add up to 1 over all machines.
    pub before: f64,
    /// And then.
    pub after: f64,
    /// Keys that it has to copy, of all keys: it holds none of their slots now.
    pub takes: f64,
}

/// What a change would do.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// Machines in the ring now.
    pub machines: usize,
    /// And then.
    pub machines_after: usize,
    /// Of those, how many may be lost at once: now.
    pub tolerates: usize,
    /// And then. Until all of it is moved, the lower of the two.
    pub tolerates_after: usize,
    /// Zones all of which can fail now, with what does not vote at present, and could not then.
    pub bound: Vec<Zone>,
    /// Slots that get another owner, of all: 0 to 1.
    pub moved: f64,
    /// Who gives to whom, the largest first.
    pub flows: Vec<Flow>,
    /// Every machine of either ring, in order of their names.
    pub shares: Vec<Share>,
    /// Keys of which, right after the change, fewer than five slots vote: they wait for their sync, a moment
    /// where data was copied ahead. Of all keys: 0 to 1.
    pub paused: f64,
    /// Changes under way already, which are part of this plan.
    pub pending: Vec<(Name, MemberState)>,
    /// Keys in the cluster, about; `None` if no machine told how many records it has.
    pub keys: Option<u64>,
    /// Records to be copied from machine to machine, about.
    pub records: Option<u64>,
}

/// Machines that may be lost at once, of so many: the table of PROTOCOL section 2, for any number of slots.
///
/// Slots are shared evenly, some machines owning one more than others; lost are those that own the most.
pub fn tolerable(machines: usize, slots: u8) -> usize {
    let quorum = usize::from(quorum_of(slots));
    let slots = usize::from(slots);
    let Some(share) = slots.checked_div(machines) else { return 0 };
    let larger = slots % machines;
    let mut spare = slots.saturating_sub(quorum);
    let mut lost = 0;
    for machine in 0..machines {
        let owns = share + usize::from(machine < larger);
        if owns == 0 {
            break;
        }
        match spare.checked_sub(owns) {
            Some(left) => (spare, lost) = (left, lost + 1),
            None => break,
        }
    }
    lost
}

/// Each machine's part of all slots of all keys, in the order of [`View::members`]: 0 for who is not in the ring.
pub fn shares(view: &View) -> Vec<f64> {
    let ring = Ring::of(view);
    let mut owned = vec![0u64; view.members().len()];
    for chain in sample(view.slots()) {
        let owners = ring.owners(&chain);
        (1..=view.slots()).for_each(|slot| owned[owners.owner(slot) as usize] += 1);
    }
    let all = f64::from(SAMPLE) * f64::from(view.slots());
    owned.into_iter().map(|n| n as f64 / all).collect()
}

/// The keys that stand for all; the same every time.
fn sample(slots: u8) -> impl Iterator<Item = Chain> {
    (0..SAMPLE).map(move |i| Chain::of(&i.to_be_bytes(), slots))
}

/// What may be lost where machines are lost for good, more than may be (F2).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Loss {
    /// Keys of which these machines own five or more slots, of all keys: 0 to 1. What was acknowledged of them may be
    /// lost.
    pub doubtful: f64,
    /// Keys of which they own all slots, of all keys: 0 to 1.
    pub gone: f64,
    /// How many keys `doubtful` is, about; `None` if nobody told how many records it has.
    pub keys: Option<u64>,
}

/// What may be lost with these machines. `records` is what the others say that they hold.
pub fn loss(view: &View, lost: &BTreeSet<Name>, records: &BTreeMap<Name, u64>) -> Loss {
    let ring = Ring::of(view);
    let (mut doubtful, mut gone) = (0u32, 0u32);
    let mut held: BTreeMap<Name, u64> = BTreeMap::new();
    for chain in sample(view.slots()) {
        let owned = Owned::of(view, &ring, &chain);
        let with_them = owned.slots.iter().filter(|name| lost.contains(name)).count();
        doubtful += u32::from(with_them >= usize::from(quorum_of(view.slots())));
        gone += u32::from(with_them == owned.slots.len());
        owned.machines().into_iter().for_each(|name| *held.entry(name).or_default() += 1);
    }
    let share = |n: u32| f64::from(n) / f64::from(SAMPLE);
    let of_keys = |n: u64| n as f64 / f64::from(SAMPLE);
    let told = held.iter().filter_map(|(name, held)| Some((*records.get(name)?, of_keys(*held))));
    let (told, held) = told.fold((0, 0.0), |(t, h), (records, held)| (t + records, h + held));
    let keys = (held > 0.0).then(|| (told as f64 / held * share(doubtful)).round() as u64);
    Loss { doubtful: share(doubtful), gone: share(gone), keys }
}

impl Plan {
    /// What `change` would do to the cluster of this view.
    ///
    /// `records` is what machines say that they hold, and `silent` who does not vote at present: those that do
    /// not answer, or are not synced.
    ///
    /// # Errors
    /// A change that makes no sense here.
    pub fn of(
        view: &View,
        change: &Change,
        records: &BTreeMap<Name, u64>,
        silent: &BTreeSet<Name>,
    ) -> Result<Self, PlanError> {
        let next = after(view, change)?;
        let pending = view.members().iter().filter(|m| m.state != MemberState::Up);
        let (now, then) = (Ring::of(view), Ring::of(&next));
        let mut count = Count::default();
        for chain in sample(view.slots()) {
            count.add(&Owned::of(view, &now, &chain), &Owned::of(&next, &then, &chain), silent);
        }
        let bound = bound(view, &next, silent);
        Ok(count.plan(view, &next, bound, records, pending.map(|m| (m.machine.name, m.state)).collect()))
    }
}

/// The view in which the change, and all that is under way already, has been carried out.
fn after(view: &View, change: &Change) -> Result<View, PlanError> {
    let (gone, come): (&[Name], &[(Name, u32)]) = match change {
        Change::Join(names) => (&[], names),
        Change::Leave(names) | Change::Remove(names) => (names, &[]),
        Change::Weight(..) => (&[], &[]),
    };
    if let Some(name) = gone.iter().find(|name| view.index_of(**name).is_none()) {
        return Err(PlanError::NoSuchMachine(*name));
    }
    if let Some((name, _)) = come.iter().find(|(name, _)| view.index_of(*name).is_some()) {
        return Err(PlanError::Already(*name));
    }
    let stays = |m: &&Member| m.state != MemberState::Leaving && !gone.contains(&m.machine.name);
    let up = |m: &Member| Member::new(m.machine, m.next_place(), MemberState::Up);
    let mut members: Vec<Member> = view.members().iter().filter(stays).map(up).collect();
    if let Change::Weight(name, weight) = change {
        let member = members.iter_mut().find(|m| m.machine.name == *name);
        member.ok_or(PlanError::NoSuchMachine(*name))?.weight = *weight;
    }
    if members.is_empty() && come.is_empty() {
        return Err(PlanError::NobodyLeft);
    }
    // Incarnations that nobody has: a view wants each of them different, and placement does not look at them.
    let taken: BTreeSet<u64> = view.members().iter().map(|m| m.machine.incarnation.id()).collect();
    let mut free = (1..=2 * MAX_MEMBERS as u64).filter(|id| !taken.contains(id));
    for &(name, weight) in come {
        let incarnation = Incarnation::new(free.next().unwrap_or_default());
        let machine = Machine { name, incarnation };
        members.push(Member::up(machine, weight));
    }
    view.with_members(members).map_err(|e| match e {
        ViewError::Twice(machine) => PlanError::Already(machine.name),
        other => PlanError::NoRing(other.to_string()),
    })
}

/// The zones that can fail as a whole in one view and not in the other.
fn bound(view: &View, next: &View, silent: &BTreeSet<Name>) -> Vec<Zone> {
    let can_fail = |view: &View| -> BTreeSet<Zone> {
        let stand = |m: &Member| {
            let lost = silent.contains(&m.machine.name).then_some("silent");
            m.in_ring().then_some(Stand { name: m.machine.name, zone: m.zone, lost })
        };
        let members: Vec<Option<Stand>> = view.members().iter().map(stand).collect();
        let all = zones(view.ring().shares(), view.slots(), &members);
        all.into_iter().filter(|zone| zone.can_fail).map(|zone| zone.name).collect()
    };
    let then = can_fail(next);
    let there = |zone: &Zone| next.members().iter().any(|m| m.zone == *zone);
    can_fail(view).into_iter().filter(|zone| !then.contains(zone) && there(zone)).collect()
}

/// Who owns one key's slots, by name: the members of two views are numbered differently.
struct Owned {
    slots: Vec<Name>,
}

impl Owned {
    fn of(view: &View, ring: &Ring, chain: &Chain) -> Self {
        let owners = ring.owners(chain);
        let name = |slot| view.members()[owners.owner(slot) as usize].machine.name;
        Self { slots: (1..=owners.slots()).map(name).collect() }
    }

    fn machines(&self) -> BTreeSet<Name> {
        self.slots.iter().copied().collect()
    }
}

/// What the sample has shown so far.
#[derive(Default)]
struct Count {
    keys: u64,
    slots: u64,
    paused: u64,
    flows: BTreeMap<(Name, Name), u64>,
    owned: BTreeMap<Name, (u64, u64)>,
    /// Keys that a machine holds now, and keys that it has to copy.
    held: BTreeMap<Name, u64>,
    takes: BTreeMap<Name, u64>,
}

impl Count {
    fn add(&mut self, before: &Owned, after: &Owned, silent: &BTreeSet<Name>) {
        self.keys += 1;
        let mut votes = 0;
        for (from, to) in before.slots.iter().zip(&after.slots) {
            self.slots += 1;
            self.owned.entry(*from).or_default().0 += 1;
            self.owned.entry(*to).or_default().1 += 1;
            match from == to {
                // S1: it owned the slot before, and votes for it without a break.
                true => votes += u8::from(!silent.contains(to)),
                false => *self.flows.entry((*from, *to)).or_default() += 1,
            }
        }
        self.paused += u64::from(votes < quorum_of(before.slots.len() as u8));
        let (now, then) = (before.machines(), after.machines());
        then.difference(&now).for_each(|name| *self.takes.entry(*name).or_default() += 1);
        now.into_iter().for_each(|name| *self.held.entry(name).or_default() += 1);
    }

    fn plan(
        self,
        view: &View,
        next: &View,
        bound: Vec<Zone>,
        records: &BTreeMap<Name, u64>,
        pending: Vec<(Name, MemberState)>,
    ) -> Plan {
        let ring = |v: &View| v.members().iter().filter(|m| m.in_ring()).count();
        let of_slots = |n: u64| n as f64 / self.slots as f64;
        let of_keys = |n: u64| n as f64 / self.keys as f64;
        // Who told how much it holds stands for those who told nothing.
        let told = self.held.iter().filter_map(|(name, held)| Some((*records.get(name)?, of_keys(*held))));
        let (told, held) = told.fold((0, 0.0), |(t, h), (records, held)| (t + records, h + held));
        let keys = (held > 0.0).then(|| told as f64 / held);
        let copies: u64 = self.takes.values().sum();
        let mut flows: Vec<Flow> = self
            .flows
            .iter()
            .map(|((from, to), n)| Flow { from: *from, to: *to, slots: of_slots(*n) })
            .collect();
        flows.sort_by(|a, b| b.slots.total_cmp(&a.slots));
        let share = |(name, (before, after)): (&Name, &(u64, u64))| Share {
            name: *name,
            before: of_slots(*before),
            after: of_slots(*after),
            takes: of_keys(self.takes.get(name).copied().unwrap_or(0)),
        };
        Plan {
            machines: ring(view),
            machines_after: ring(next),
            tolerates: tolerable(ring(view), view.slots()),
            tolerates_after: tolerable(ring(next), view.slots()),
            bound,
            moved: of_slots(self.flows.values().sum()),
            flows,
            shares: self.owned.iter().map(share).collect(),
            paused: of_keys(self.paused),
            pending,
            keys: keys.map(|keys| keys.round() as u64),
            records: keys.map(|keys| (of_keys(copies) * keys).round() as u64),
        }
    }
}

#[cfg(test)]
mod tests;
