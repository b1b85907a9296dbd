//! Which machine owns which slot in a view. Pure: the same view and key give the same owners everywhere.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use once_cell::race::OnceBox;

use crate::position::{Chain, Position};
use crate::quorum::{MAX_SLOTS, SlotSet};
use crate::view::{Member, MemberState, View};

/// The ring of a view: every position of its members, in order.
///
/// 20 bytes a position and a directory of at most 8 MiB: 10^7 positions take 199 MiB. A lookup reads one
/// directory entry and a handful of neighbours, whatever the size.
/// Source: PROTOCOL section 2.
#[derive(Clone, Debug)]
pub struct Ring {
    /// In order of position, then of machine (two machines on one position: never seen, still decided alike).
    points: Vec<Point>,
    /// `directory[b]` is the first point whose position's leading bits are at least `b`.
    directory: Vec<u32>,
    /// A position's leading bits are its topmost 64 bits shifted right by this.
    shift: u32,
    /// Machines that have a point.
    machines: u32,
    slots: u8,
}

/// A position as four words, most significant first, so that the struct needs no padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Point {
    position: [u32; 4],
    member: u32,
}

const _: () = assert!(size_of::<Point>() == 20);

const MAX_DIRECTORY_BITS: u32 = 21;

fn words(position: Position) -> [u32; 4] {
    let p = position.to_u128();
    [(p >> 96) as u32, (p >> 64) as u32, (p >> 32) as u32, p as u32]
}

/// A position's leading bits: its entry in the directory.
fn leading(position: [u32; 4], shift: u32) -> usize {
    ((u64::from(position[0]) << 32 | u64::from(position[1])) >> shift) as usize
}

impl Ring {
    /// The ring of a view: its up and leaving members with their present weights.
    ///
    /// Each position is computed twice (about 400 ns in all), so that building needs no memory beyond the result.
    pub fn of(view: &View) -> Self {
        let members = view.members().iter().enumerate().filter(|(_, m)| m.in_ring());
        Self::build(members.map(|(i, m)| (i as u32, m, m.weight)), view.slots())
    }

    /// The ring towards which data is copied ahead (M1): up and joining members with their next weights. `None` where
    /// that is the ring there is, or where nobody would be left in it.
    pub fn next_of(view: &View) -> Option<Self> {
        let moves = |m: &Member| m.state != MemberState::Up || m.weight != m.next_weight;
        let stays = |m: &Member| m.state != MemberState::Leaving;
        if !view.members().iter().any(moves) || !view.members().iter().any(stays) {
            return None;
        }
        let members = view.members().iter().enumerate().filter(|(_, m)| stays(m));
        Some(Self::build(members.map(|(i, m)| (i as u32, m, m.next_weight)), view.slots()))
    }

    fn build<'a>(members: impl Iterator<Item = (u32, &'a Member, u32)> + Clone, slots: u8) -> Self {
        let total: u64 = members.clone().map(|(_, _, weight)| u64::from(weight)).sum();
        assert!(total > 0 && total < u64::from(u32::MAX), "a ring of {total} positions");
        // Four points a directory entry, at least two entries so that the shift stays below 64.
        let bits = ((total / 4).max(2).ilog2()).clamp(1, MAX_DIRECTORY_BITS);
        let shift = 64 - bits;
        let bucket = |p: [u32; 4]| leading(p, shift);

        // Count, then place: a bucket sort, since MD5 spreads positions evenly.
        let mut directory = vec![0u32; (1 << bits) + 1];
        for_each_point(members.clone(), |point| directory[bucket(point.position) + 1] += 1);
        for b in 1..directory.len() {
            directory[b] += directory[b - 1];
        }
        let mut next = directory.clone();
        let mut points = vec![Point { position: [0; 4], member: 0 }; total as usize];
        for_each_point(members.clone(), |point| {
            let place = &mut next[bucket(point.position)];
            points[*place as usize] = point;
            *place += 1;
        });
        for b in 1..directory.len() {
            points[directory[b - 1] as usize..directory[b] as usize].sort_unstable();
        }
        Self { points, directory, shift, machines: members.count() as u32, slots }
    }

    /// Who owns each slot of a key: for each slot in order, the machine with the highest position not above
    /// the slot's, or on down the ring to the first machine that has no slot of this key yet in this round.
    pub fn owners(&self, chain: &Chain) -> Owners {
        debug_assert_eq!(chain.positions().len(), self.slots as usize);
        let mut owners = Owners { by_slot: [0; MAX_SLOTS], slots: self.slots };
        // Owners of the present round are by_slot[round..slot].
        let mut round = 0;
        for (slot, position) in chain.positions().iter().enumerate() {
            if slot - round == self.machines as usize {
                round = slot;
            }
            let mut at = self.at_or_below(*position);
            while owners.by_slot[round..slot].contains(&self.points[at].member) {
                at = at.checked_sub(1).unwrap_or(self.points.len() - 1);
            }
            owners.by_slot[slot] = self.points[at].member;
        }
        owners
    }

    /// The point with the highest position not above this one; the highest of all if there is none (it wraps).
    fn at_or_below(&self, position: Position) -> usize {
        let position = words(position);
        let bucket = leading(position, self.shift);
        let (from, to) = (self.directory[bucket] as usize, self.directory[bucket + 1] as usize);
        let above = from + self.points[from..to].partition_point(|p| p.position <= position);
        above.checked_sub(1).unwrap_or(self.points.len() - 1)
    }

    /// Positions on the ring.
    pub fn positions(&self) -> usize {
        self.points.len()
    }

    /// Bytes of memory that the ring takes.
    pub fn bytes(&self) -> usize {
        self.points.capacity() * size_of::<Point>() + self.directory.capacity() * size_of::<u32>()
    }
}

/// The rings that follow from a view, computed when they are first needed, once for all that share the view: a
/// thousand simulated machines would otherwise compute, and keep, a thousand of them.
#[derive(Default)]
pub(crate) struct Rings {
    now: OnceBox<Ring>,
    next: OnceBox<Option<Ring>>,
}

impl Rings {
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

fn for_each_point<'a>(members: impl Iterator<Item = (u32, &'a Member, u32)>, mut f: impl FnMut(Point)) {
    for (index, member, weight) in members {
        let mut position = Position::of(member.machine.name.to_string().as_bytes());
        for _ in 0..weight {
            f(Point { position: words(position), member: index });
            position = position.next();
        }
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
