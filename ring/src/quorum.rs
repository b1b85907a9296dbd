//! What counts as five. Nothing else in ennead counts votes.

use core::fmt;

use alloc::vec::Vec;
use bincode::{Decode, Encode};

use crate::mutant::{Mutant, Rules};
use crate::rare::{Rare, met_if};
use crate::view::Epoch;

/// Most slots a cluster can be created with. A key's slots fit into one machine word.
pub const MAX_SLOTS: usize = 15;
/// Slots of a key where nobody said otherwise.
pub const DEFAULT_SLOTS: u8 = 9;

/// Slots that make a quorum among so many: five of nine.
pub const fn quorum_of(slots: u8) -> u8 {
    slots / 2 + 1
}

const _: () = assert!(2 * quorum_of(DEFAULT_SLOTS) == DEFAULT_SLOTS + 1);
const _: () = assert!(MAX_SLOTS <= 16);

/// A set of slots of one key, numbered from 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Encode, Decode)]
pub struct SlotSet(u16);

impl SlotSet {
    /// No slot.
    pub const EMPTY: Self = Self(0);

    /// The first `slots` slots.
    pub const fn all(slots: u8) -> Self {
        Self(((1u32 << slots) - 1) as u16)
    }

    /// This set and slot `slot` (1 is the first).
    pub const fn with(self, slot: u8) -> Self {
        assert!(slot >= 1 && slot as usize <= MAX_SLOTS);
        Self(self.0 | 1 << (slot - 1))
    }

    /// True if `slot` is in the set.
    pub const fn has(self, slot: u8) -> bool {
        slot >= 1 && slot as usize <= MAX_SLOTS && self.0 >> (slot - 1) & 1 == 1
    }

    /// As a number: slot 1 is its lowest bit.
    pub(crate) const fn bits(self) -> u16 {
        self.0
    }

    /// Slots in either.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Slots in both.
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Slots of this set that are not in `other`.
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// True if every slot of this set is in `other`.
    pub const fn is_subset(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// How many slots.
    pub const fn len(self) -> u8 {
        self.0.count_ones() as u8
    }

    /// True if there is no slot in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The slots in order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (1..=MAX_SLOTS as u8).filter(move |&slot| self.has(slot))
    }
}

impl FromIterator<u8> for SlotSet {
    fn from_iter<I: IntoIterator<Item = u8>>(slots: I) -> Self {
        slots.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Votes for one thing (a promise, a stamp, "none"), gathered from answers.
///
/// A quorum is five distinct slots from answers stamped with **one and the same epoch** (Q2): votes of
/// different epochs are kept apart and never added up. Two views' owners can be disjoint, so five votes
/// out of two views prove nothing.
#[derive(Clone, Default, Debug)]
pub struct Tally {
    /// One entry per epoch heard: in nearly every round there is one.
    by_epoch: Vec<(Epoch, SlotSet)>,
    rules: Rules,
}

impl Tally {
    /// No vote yet.
    pub fn new(rules: Rules) -> Self {
        Self { by_epoch: Vec::new(), rules }
    }

    /// Counts an answer's votes. The same answer heard twice counts once.
    pub fn add(&mut self, epoch: Epoch, votes: SlotSet) {
        if votes.is_empty() {
            return;
        }
        let epoch = if self.rules.broken(Mutant::Q2MixedEpochs) { Epoch::ZERO } else { epoch };
        match self.by_epoch.iter_mut().find(|(e, _)| *e == epoch) {
            Some((_, slots)) => *slots = slots.union(votes),
            None => {
                met_if(!self.by_epoch.is_empty(), Rare::Q2TwoEpochs);
                self.by_epoch.push((epoch, votes));
            }
        }
    }

    /// The most slots that one epoch's answers voted with.
    pub fn votes(&self) -> u8 {
        self.by_epoch.iter().map(|(_, slots)| slots.len()).max().unwrap_or(0)
    }

    /// True once a quorum of a key with so many slots has voted.
    pub fn reached(&self, slots: u8) -> bool {
        let needed = if self.rules.broken(Mutant::Q2Four) { quorum_of(slots) - 1 } else { quorum_of(slots) };
        self.votes() >= needed
    }
}

/// True if so many slots have refused that the others are no quorum any more.
pub(crate) fn hopeless(slots: u8, refused: SlotSet) -> bool {
    slots - refused.len() < quorum_of(slots)
}
