//! Positions in order, each somebody's, and whose is the highest not above another.

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Display;

use crate::position::Position;

/// The positions of some machines, or of some zones.
///
/// 20 bytes a position and a directory of at most 8 MiB: 10^7 positions take 199 MiB. A lookup reads one
/// directory entry and a handful of neighbours, whatever the size.
#[derive(Clone, Debug)]
pub(crate) struct Circle {
    /// In order of position, then of owner (two owners on one position: never seen, still decided alike).
    points: Vec<Point>,
    /// `directory[b]` is the first point whose position's leading bits are at least `b`.
    directory: Vec<u32>,
    /// A position's leading bits are its topmost 64 bits shifted right by this.
    shift: u32,
}

/// A position as four words, most significant first, so that the struct needs no padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Point {
    position: [u32; 4],
    owner: u32,
}

const _: () = assert!(size_of::<Point>() == 20);

const MAX_DIRECTORY_BITS: u32 = 21;
/// Up to so many positions, 5 MiB of them, are kept while the circle is built.
const KEPT: u64 = 1 << 18;

fn words(position: Position) -> [u32; 4] {
    let p = position.to_u128();
    [(p >> 96) as u32, (p >> 64) as u32, (p >> 32) as u32, p as u32]
}

/// A position's leading bits: its entry in the directory.
fn leading(position: [u32; 4], shift: u32) -> usize {
    ((u64::from(position[0]) << 32 | u64::from(position[1])) >> shift) as usize
}

impl Circle {
    /// The circle of these owners, each with its name and the number of its positions.
    ///
    /// Where they are many, each position is computed twice (about 400 ns in all), so that building needs no memory beyond
    /// the result.
    pub(crate) fn of<N: Display>(owners: impl Iterator<Item = (u32, N, u32)> + Clone) -> Self {
        Self::build(owners, KEPT)
    }

    fn build<N: Display>(owners: impl Iterator<Item = (u32, N, u32)> + Clone, kept: u64) -> Self {
        let total: u64 = owners.clone().map(|(_, _, weight)| u64::from(weight)).sum();
        assert!(total > 0 && total < u64::from(u32::MAX), "a ring of {total} positions");
        // Four points a directory entry, at least two entries so that the shift stays below 64.
        let bits = ((total / 4).max(2).ilog2()).clamp(1, MAX_DIRECTORY_BITS);
        let shift = 64 - bits;
        let bucket = |p: [u32; 4]| leading(p, shift);

        // Count, then place: a bucket sort, since MD5 spreads positions evenly.
        let mut directory = vec![0u32; (1 << bits) + 1];
        let all = (total <= kept).then(|| {
            let mut all = Vec::with_capacity(total as usize);
            for_each_point(owners.clone(), |point| all.push(point));
            all
        });
        let each = |f: &mut dyn FnMut(Point)| match &all {
            Some(all) => all.iter().for_each(|point| f(*point)),
            None => for_each_point(owners.clone(), f),
        };
        each(&mut |point| directory[bucket(point.position) + 1] += 1);
        for b in 1..directory.len() {
            directory[b] += directory[b - 1];
        }
        let mut next = directory.clone();
        let mut points = vec![Point { position: [0; 4], owner: 0 }; total as usize];
        each(&mut |point| {
            let place = &mut next[bucket(point.position)];
            points[*place as usize] = point;
            *place += 1;
        });
        for b in 1..directory.len() {
            points[directory[b - 1] as usize..directory[b] as usize].sort_unstable();
        }
        Self { points, directory, shift }
    }

    /// The owner of the highest position not above this one, or on down the circle the first that fits: one has to.
    pub(crate) fn find(&self, position: Position, fits: impl Fn(u32) -> bool) -> u32 {
        let mut at = self.at_or_below(position);
        while !fits(self.points[at].owner) {
            at = at.checked_sub(1).unwrap_or(self.points.len() - 1);
        }
        self.points[at].owner
    }

    /// The point with the highest position not above this one; the highest of all if there is none (it wraps).
    fn at_or_below(&self, position: Position) -> usize {
        let position = words(position);
        let bucket = leading(position, self.shift);
        let (from, to) = (self.directory[bucket] as usize, self.directory[bucket + 1] as usize);
        let above = from + self.points[from..to].partition_point(|p| p.position <= position);
        above.checked_sub(1).unwrap_or(self.points.len() - 1)
    }

    pub(crate) fn positions(&self) -> usize {
        self.points.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.points.capacity() * size_of::<Point>() + self.directory.capacity() * size_of::<u32>()
    }
}

fn for_each_point<N: Display>(owners: impl Iterator<Item = (u32, N, u32)>, mut f: impl FnMut(Point)) {
    for (owner, name, weight) in owners {
        let mut position = Position::of(name.to_string().as_bytes());
        for _ in 0..weight {
            f(Point { position: words(position), owner });
            position = position.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_whether_positions_are_kept_or_computed_twice() {
        let owners = (0..40u32).map(|i| (i, i, 1 + i * 7));
        let (kept, twice) = (Circle::build(owners.clone(), KEPT), Circle::build(owners, 0));
        assert_eq!((kept.points, kept.directory), (twice.points, twice.directory));
    }
}
