//! What waits to be told: those told least first, newer before older.

use alloc::vec::Vec;

/// Most pieces in one pile; above it those told most are forgotten, the older first.
const MAX: usize = 128;

/// See the module's caption. A piece is moved in memory only when it comes: each message that carries news looks at the
/// first few of all that waits, and a large ring sends little else.
#[derive(Debug)]
pub(super) struct Pile<T> {
    /// How often each has been told, and its place below: in the order in which they are told.
    order: Vec<(u8, u8)>,
    pieces: Vec<T>,
}

impl<T> Default for Pile<T> {
    fn default() -> Self {
        Self { order: Vec::new(), pieces: Vec::new() }
    }
}

impl<T: Copy> Pile<T> {
    /// Something new goes before all else.
    pub(super) fn add(&mut self, piece: T) {
        let place = if self.pieces.len() < MAX {
            self.pieces.push(piece);
            self.pieces.len() as u8 - 1
        } else {
            let Some((_, place)) = self.order.pop() else { return };
            self.pieces[usize::from(place)] = piece;
            place
        };
        self.order.insert(0, (0, place));
    }

    /// Only these stay.
    pub(super) fn retain(&mut self, stays: impl Fn(&T) -> bool) {
        // From the last place down: what is moved into a gap has been looked at.
        for place in (0..self.pieces.len()).rev() {
            if !stays(&self.pieces[place]) {
                self.order.retain(|(_, p)| usize::from(*p) != place);
                self.remove(place);
            }
        }
    }

    /// Forgets the piece at this place, which is no more in the order.
    fn remove(&mut self, place: usize) {
        self.pieces.swap_remove(place);
        let moved = self.pieces.len() as u8;
        if let Some((_, p)) = self.order.iter_mut().find(|(_, p)| *p == moved) {
            *p = place as u8;
        }
    }

    /// The next ones to tell, so many at most. What has now been told `often` is forgotten, and what `each` finds too old to be
    /// told.
    pub(super) fn tell(&mut self, most: usize, often: u8, mut each: impl FnMut(&T) -> bool) {
        let most = most.min(self.order.len());
        for (told, place) in &mut self.order[..most] {
            if !each(&self.pieces[usize::from(*place)]) {
                *told = often;
            }
        }
        // From the last one back: of those told equally often, the first told goes first again.
        for at in (0..most).rev() {
            let (told, place) = self.order[at];
            let told = told.saturating_add(1);
            if told >= often {
                self.order.remove(at);
                self.remove(usize::from(place));
            } else {
                let before = self.order[at + 1..].partition_point(|(other, _)| *other < told);
                self.order[at..=at + before].rotate_left(1);
                self.order[at + before] = (told, place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn told(pile: &mut Pile<u32>, most: usize, often: u8) -> Vec<u32> {
        let mut told = Vec::new();
        pile.tell(most, often, |piece| {
            told.push(*piece);
            true
        });
        told
    }

    #[test]
    fn those_told_least_go_first_and_newer_before_older() {
        let mut pile = Pile::default();
        (1..=3).for_each(|n| pile.add(n));
        assert_eq!(told(&mut pile, 2, 9), [3, 2]);
        assert_eq!(told(&mut pile, 2, 9), [1, 3]);
        pile.add(4);
        assert_eq!(told(&mut pile, 9, 9), [4, 1, 2, 3]);
        assert_eq!(told(&mut pile, 9, 9), [4, 1, 2, 3]);
    }

    #[test]
    fn what_was_told_often_enough_is_forgotten() {
        let mut pile = Pile::default();
        (1..=3).for_each(|n| pile.add(n));
        assert_eq!(told(&mut pile, 1, 2), [3]);
        assert_eq!(told(&mut pile, 3, 2), [2, 1, 3]);
        assert_eq!(told(&mut pile, 3, 2), [2, 1]);
        assert_eq!(told(&mut pile, 3, 2), vec![0u32; 0]);
    }

    #[test]
    fn what_is_too_old_is_forgotten_untold() {
        let mut pile = Pile::default();
        (1..=4).for_each(|n| pile.add(n));
        let mut told = Vec::new();
        pile.tell(3, 9, |n| {
            let young = n % 2 == 0;
            told.extend(young.then_some(*n));
            young
        });
        assert_eq!(told, [4, 2]);
        pile.tell(9, 9, |n| {
            told.push(*n);
            true
        });
        assert_eq!(told, [4, 2, 1, 4, 2], "1 had no turn yet, 3 is gone");
    }

    #[test]
    fn a_full_pile_forgets_what_was_told_most() {
        let mut pile = Pile::default();
        (0..MAX as u32).for_each(|n| pile.add(n));
        assert_eq!(told(&mut pile, 1, 9), [127]);
        pile.add(500);
        let all = told(&mut pile, 999, 9);
        assert_eq!((all.len(), all[0], all.contains(&127), all.contains(&0)), (MAX, 500, false, true));
    }

    #[test]
    fn what_is_withdrawn_is_not_told() {
        let mut pile = Pile::default();
        (0..10).for_each(|n| pile.add(n));
        pile.retain(|n| n % 3 == 0);
        assert_eq!(told(&mut pile, 9, 9), [9, 6, 3, 0]);
        pile.add(1);
        assert_eq!(told(&mut pile, 9, 9), [1, 9, 6, 3, 0]);
    }
}
