//! Which machine owns which slot in a view. Pure: the same view and key give the same owners everywhere.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use once_cell::race::OnceBox;

use crate::circle::Circle;
use crate::position::Chain;
use crate::quorum::{MAX_SLOTS, SlotSet};
use crate::shares::Shares;
use crate::view::{DEFAULT_WEIGHT, Member, MemberState, Name, View};
use crate::zone::Zone;

/// Positions of each zone where there are several. The same for all and for ever, so a machine that comes or goes moves
/// nothing from one zone to another.
const ZONE_WEIGHT: u32 = DEFAULT_WEIGHT;

/// The ring of a view: every position of its members, in order.
///
/// 20 bytes a position, and where there are zones twice that; a lookup reads a few neighbours for each slot, whatever
/// the size.
/// Source: PROTOCOL section 2.
#[derive(Clone, Debug)]
pub struct Ring {
    all: Circle,
    /// Where there are several zones.
    spread: Option<Spread>,
    /// How many slots of a key each machine and each zone may own.
    shares: Shares,
    slots: u8,
}

/// The ring once more, zone by zone.
#[derive(Clone, Debug)]
struct Spread {
    /// Of the zones themselves, by their places in [`Shares::zones`].
    zones: Circle,
    /// By zone, of the machines in it.
    machines: Vec<Circle>,
}

impl Ring {
    /// The ring of a view: its up and leaving members with their present weights and zones.
    pub fn of(view: &View) -> Self {
        let members = (0..).zip(view.members()).filter(|(_, m)| m.in_ring());
        Self::build(members.map(|(i, m)| (i, m.machine.name, m.place())), view.slots())
    }

    /// The ring towards which data is copied ahead (M1): up and joining members with their next weights and zones.
    /// `None` where that is the ring there is, or where nobody would be left in it.
    pub fn next_of(view: &View) -> Option<Self> {
        let moves = |m: &Member| m.state != MemberState::Up || m.place() != m.next_place();
        let stays = |m: &Member| m.state != MemberState::Leaving;
        if !view.members().iter().any(moves) || !view.members().iter().any(stays) {
            return None;
        }
        let members = (0..).zip(view.members()).filter(|(_, m)| stays(m));
        Some(Self::build(members.map(|(i, m)| (i, m.machine.name, m.next_place())), view.slots()))
    }

    fn build(members: impl Iterator<Item = (u32, Name, (u32, Zone))> + Clone, slots: u8) -> Self {
        let shares = Shares::of(members.clone().map(|(i, _, (_, zone))| (i, zone)), slots);
        let points = members.map(|(i, name, (weight, _))| (i, name, weight));
        let several = shares.zones().len() > 1;
        let spread = several.then(|| Spread {
            zones: Circle::of((0..).zip(shares.zones()).map(|(place, zone)| (place, zone, ZONE_WEIGHT))),
            machines: (0..shares.zones().len() as u32)
                .map(|zone| Circle::of(points.clone().filter(|(i, _, _)| shares.zone_of(*i) == zone)))
                .collect(),
        });
        Self { all: Circle::of(points), spread, shares, slots }
    }

    /// Who owns each slot of a key: for each slot in order, the machine with the highest position not above
    /// the slot's, or on down the ring to the first machine that has no slot of this key yet in this round.
    ///
    /// In a round that is not for every machine, each slot finds its zone first, in the same way: one that has not its
    /// share yet. Then its owner among the machines of that zone.
    pub fn owners(&self, chain: &Chain) -> Owners {
        debug_assert_eq!(chain.positions().len(), self.slots as usize);
        let mut owners = Owners { by_slot: [0; MAX_SLOTS], slots: self.slots };
        // Owners of the present round are by_slot[round..slot].
        let mut round = 0;
        for (slot, position) in chain.positions().iter().enumerate() {
            if slot - round == self.shares.machines() {
                round = slot;
            }
            let last = usize::from(self.slots) - round < self.shares.machines();
            let taken = &owners.by_slot[round..slot];
            let circle = match self.spread.as_ref().filter(|_| last) {
                None => &self.all,
                Some(spread) => {
                    let zone = spread.zones.find(*position, |zone| self.shares.has_room(taken, zone));
                    &spread.machines[zone as usize]
                }
            };
            owners.by_slot[slot] = circle.find(*position, |member| !taken.contains(&member));
        }
        owners
    }

    /// How many slots of a key each machine and each zone may own.
    pub fn shares(&self) -> &Shares {
        &self.shares
    }

    /// Positions on the ring.
    pub fn positions(&self) -> usize {
        self.all.positions()
    }

    /// Bytes of memory that the ring takes.
    pub fn bytes(&self) -> usize {
        let zones = self.spread.iter().flat_map(|spread| spread.machines.iter().chain([&spread.zones]));
        self.all.bytes() + zones.map(Circle::bytes).sum::<usize>()
    }
}

/// What follows from a view, computed when it is first needed, once for all that share the view: a thousand simulated
/// machines would otherwise compute, and keep, a thousand of them.
#[derive(Default)]
pub(crate) struct Rings {
    places: OnceBox<HashMap<Name, u32, FixedState>>,
    now: OnceBox<Ring>,
    next: OnceBox<Option<Ring>>,
}

impl Rings {
    /// The place of each member. Every message's sender is looked up, and every machine that is spoken of.
    pub(crate) fn places(&self, view: &View) -> &HashMap<Name, u32, FixedState> {
        let places = || view.members().iter().map(|m| m.machine.name).zip(0..).collect();
        self.places.get_or_init(|| Box::new(places()))
    }

    pub(crate) fn now(&self, view: &View) -> &Ring {
        self.now.get_or_init(|| Box::new(Ring::of(view)))
    }

    pub(crate) fn next(&self, view: &View) -> Option<&Ring> {
        self.next.get_or_init(|| Box::new(Ring::next_of(view))).as_ref()
    }
}

/// They add nothing to what a view is.
impl PartialEq for Rings {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Rings {}
impl Clone for Rings {
    fn clone(&self) -> Self {
        Self::default()
    }
}
impl fmt::Debug for Rings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rings")
    }
}

/// The owners of one key's slots, as indices into [`View::members`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owners {
    by_slot: [u32; MAX_SLOTS],
    slots: u8,
}

impl Owners {
    /// Slots of the key.
    pub fn slots(&self) -> u8 {
        self.slots
    }

    /// The member that owns this slot (1 is the first).
    pub fn owner(&self, slot: u8) -> u32 {
        assert!(slot >= 1 && slot <= self.slots, "slot {slot} of {}", self.slots);
        self.by_slot[slot as usize - 1]
    }

    /// The slots that this member owns: none for most members of a large cluster.
    pub fn slots_of(&self, member: u32) -> SlotSet {
        (1..=self.slots).filter(|&slot| self.owner(slot) == member).collect()
    }

    /// True if this member owns any slot.
    pub fn is_owner(&self, member: u32) -> bool {
        self.by_slot[..self.slots as usize].contains(&member)
    }

    /// The owners, each once, in order of their lowest slots.
    pub fn machines(&self) -> impl Iterator<Item = u32> + '_ {
        let by_slot = &self.by_slot[..self.slots as usize];
        by_slot.iter().enumerate().filter(|(i, m)| !by_slot[..*i].contains(m)).map(|(_, m)| *m)
    }
}
