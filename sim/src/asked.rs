//! Which key each question was about that a machine asked another: as much as may still be answered.

use std::collections::HashMap;

/// Questions of one half.
const HALF: usize = 1 << 20;

/// The last million questions or two, in two halves: when the younger one is full, the older one goes.
#[derive(Default)]
pub(crate) struct Asked {
    young: HashMap<u64, u32, foldhash::fast::FixedState>,
    old: HashMap<u64, u32, foldhash::fast::FixedState>,
}

impl Asked {
    pub(crate) fn insert(&mut self, ask: u64, key: usize) {
        if self.young.len() >= HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(ask, key as u32);
    }

    pub(crate) fn get(&self, ask: u64) -> Option<usize> {
        self.young.get(&ask).or_else(|| self.old.get(&ask)).map(|&key| key as usize)
    }
}
