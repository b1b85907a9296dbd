//! What was heard last, word for word: a large ring says everything many times.

use alloc::vec::Vec;
use core::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::News;

/// Words remembered, each in a place of its own hash: the last that came there.
const PLACES: usize = 128;

/// See the module's caption. By hashes of 64 bits: that one word is taken for another happens once in 10^17, and then a hint
/// is missed that will be said again.
#[derive(Debug, Default)]
pub(crate) struct Last(Vec<u64>);

impl Last {
    /// True if it has been heard lately; from now on it has.
    pub(crate) fn has(&mut self, news: &News) -> bool {
        self.0.resize(PLACES, 0);
        let hash = FixedState::default().hash_one(news);
        let place = &mut self.0[hash as usize % PLACES];
        core::mem::replace(place, hash) == hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::Said;
    use crate::view::{Incarnation, Machine, Name};

    #[test]
    fn a_word_is_known_when_it_comes_again_and_another_is_not() {
        let name = Name::new(([10, 0, 0, 1], 9595).into());
        let of = Machine { name, incarnation: Incarnation::new(1) };
        let word = |refuted, ms| News { of, refuted, said: Said::Late { by: name, ms } };
        let mut last = Last::default();
        assert!(!last.has(&word(1, 5)));
        assert!(last.has(&word(1, 5)));
        assert!(!last.has(&word(2, 5)) && !last.has(&word(2, 0)));
    }
}
