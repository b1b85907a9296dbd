//! How many slots of one key a machine and a zone own at most: what placement keeps to, and what is left of every
//! key where some are lost. Pure.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

use crate::quorum::quorum_of;
use crate::zone::Zone;

/// The shares of one ring.
///
/// Machines own even shares: some rounds in which each owns one slot, and a last one for the slots that are left over.
/// In that one no zone gets so many that it owns more than the share of zones: the fewest slots of a key with which all
/// of them find an owner. Where a machine names no zone, there is one zone.
/// Source: PROTOCOL section 2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shares {
    slots: u8,
    machines: usize,
    /// By member, its zone's place in `zones`; empty where there is one zone.
    zone_of: Vec<u32>,
    /// In order of their names.
    zones: Vec<Zone>,
    /// By zone, how many slots of the last round it may own. Invariant: together at least as many as there are, and none
    /// more than it has machines, so whoever looks for an owner finds one.
    rooms: Vec<u8>,
}

impl Shares {
    /// Those of the ring of these members, given with their zones. A member's number is its index in the view.
    pub fn of(members: impl Iterator<Item = (u32, Zone)> + Clone, slots: u8) -> Self {
        let mut sizes: BTreeMap<Zone, usize> = BTreeMap::new();
        members.clone().for_each(|(_, zone)| *sizes.entry(zone).or_default() += 1);
        let machines = sizes.values().sum();
        if sizes.contains_key(&Zone::NONE) {
            sizes = BTreeMap::from([(Zone::NONE, machines)]);
        }
        let rooms = rooms(&sizes.values().copied().collect::<Vec<_>>(), machines, slots);
        let zones: Vec<Zone> = sizes.into_keys().collect();
        let mut zone_of = Vec::new();
        if zones.len() > 1 {
            zone_of = vec![0; members.clone().map(|(member, _)| member as usize + 1).max().unwrap_or(0)];
            members.for_each(|(member, zone)| {
                zone_of[member as usize] = zones.partition_point(|other| *other < zone) as u32;
            });
        }
        Self { slots, machines, zone_of, zones, rooms }
    }

    /// Machines in the ring.
    pub fn machines(&self) -> usize {
        self.machines
    }

    /// The zones over which keys are spread, in order of their names; fewer than two, if they are over none.
    pub fn zones(&self) -> &[Zone] {
        &self.zones
    }

    /// The place of this member's zone among the [`zones`](Self::zones).
    pub(crate) fn zone_of(&self, member: u32) -> u32 {
        self.zone_of.get(member as usize).copied().unwrap_or(0)
    }

    /// True if this zone may own one more slot of the last round, besides those that `owners` have in it.
    pub(crate) fn has_room(&self, owners: &[u32], zone: u32) -> bool {
        let owned = owners.iter().filter(|owner| self.zone_of(**owner) == zone).count();
        owned < usize::from(self.rooms[zone as usize])
    }

    /// The most slots of any one key that these members, all of them in the ring, own together. Exact: some key is
    /// placed so, where there are keys enough.
    pub fn most_owned(&self, members: impl Iterator<Item = u32>) -> u8 {
        let mut lost = vec![0usize; self.rooms.len()];
        members.for_each(|member| lost[self.zone_of(member) as usize] += 1);
        let Some(rounds) = usize::from(self.slots).checked_div(self.machines) else { return 0 };
        let rest = usize::from(self.slots) - rounds * self.machines;
        let last = lost.iter().zip(&self.rooms).map(|(lost, room)| (*lost).min(usize::from(*room)));
        (rounds * lost.iter().sum::<usize>() + last.sum::<usize>().min(rest)) as u8
    }

    /// How many members more may be lost besides these, all of them in the ring, whichever they are, with a quorum of
    /// slots left of every key; `None` if some key may be without one already.
    pub fn spare(&self, members: impl Iterator<Item = u32>) -> Option<usize> {
        let lost: BTreeSet<u32> = members.collect();
        let owned = self.most_owned(lost.iter().copied());
        let mut left = usize::from((self.slots - quorum_of(self.slots)).checked_sub(owned)?);
        let Some(rounds) = usize::from(self.slots).checked_div(self.machines) else { return Some(0) };
        // Each one more takes its slots of the rounds and, while some are left of the last, one of those: then a zone may
        // own more of them and has a machine more, since rooms suffice for all and none is larger than its zone.
        let mut rest = usize::from(self.slots - owned) - rounds * (self.machines - lost.len());
        let mut spare = 0;
        while spare < self.machines - lost.len() {
            let Some(less) = left.checked_sub(rounds + rest.min(1)) else { break };
            (left, rest, spare) = (less, rest.saturating_sub(1), spare + 1);
        }
        Some(spare)
    }

    /// True if of every key a quorum of slots is left without these members, all of them in the ring.
    pub fn can_lose(&self, members: impl Iterator<Item = u32>) -> bool {
        self.slots - self.most_owned(members) >= quorum_of(self.slots)
    }
}

/// By zone, how many slots of the last round it may own, given how many machines each has.
fn rooms(sizes: &[usize], machines: usize, slots: u8) -> Vec<u8> {
    let slots = usize::from(slots);
    let Some(rounds) = slots.checked_div(machines) else { return Vec::new() };
    let rest = slots - rounds * machines;
    let room = |share: usize, size: usize| share.saturating_sub(rounds * size).min(size);
    let suffices = |share: &usize| sizes.iter().map(|size| room(*share, *size)).sum::<usize>() >= rest;
    let share = (0..=slots).find(suffices).unwrap_or(slots);
    sizes.iter().map(|size| room(share, *size) as u8).collect()
}
