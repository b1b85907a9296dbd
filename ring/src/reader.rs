//! One read: ask five, ask the rest, and say whether the answers settle it (D1, D2).

use alloc::vec::Vec;

use crate::message::Copied;
use crate::mutant::{Mutant, Rules};
use crate::quorum::{SlotSet, Tally};
use crate::rare::{Rare, met_if};
use crate::stamp::Stamp;
use crate::view::{Epoch, Name};

/// Gathers the copies that machines told, and counts their votes per stamp.
#[derive(Clone, Debug)]
pub struct Reader {
    slots: u8,
    /// Votes for each stamp told, and for "none"; with a copy of each, since a machine that told it may tell
    /// another later.
    tallies: Vec<(Option<Stamp>, Tally, Copied)>,
    heard: Vec<Heard>,
    rules: Rules,
}

/// One machine's latest answer.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Who answered.
    pub machine: Name,
    /// The slots it voted for, for this copy.
    pub votes: SlotSet,
    /// What it told.
    pub copied: Copied,
}

impl Reader {
    /// A read of a key with so many slots.
    pub fn new(slots: u8) -> Self {
        Self::with_rules(slots, Rules::default())
    }

    pub(crate) fn with_rules(slots: u8, rules: Rules) -> Self {
        Self { slots, tallies: Vec::new(), heard: Vec::new(), rules }
    }

    /// Takes an answer into account. An answer that carries no votes is heard, and counts for nothing (Q1).
    pub fn hear(&mut self, machine: Name, epoch: Epoch, votes: SlotSet, copied: Copied) {
        let stamp = copied.stamp();
        match self.tallies.iter_mut().find(|(s, ..)| *s == stamp) {
            Some((_, tally, copy)) => {
                tally.add(epoch, votes);
                if matches!(copy, Copied::Summary { .. }) {
                    *copy = copied.clone();
                }
            }
            None => {
                let mut tally = Tally::new(self.rules);
                tally.add(epoch, votes);
                self.tallies.push((stamp, tally, copied.clone()));
            }
        }
        let other = |h: &Heard| h.machine == machine && h.copied.stamp() != stamp;
        met_if(self.heard.iter().any(other), Rare::D1ToldAnother);
        self.heard.retain(|h| h.machine != machine);
        self.heard.push(Heard { machine, votes, copied });
    }

    /// The stamp (or "none") that five slots vote for, if the answers so far show it (D1, D2).
    pub fn settled(&self) -> Option<Option<Stamp>> {
        // D1Four: a read that is content with four.
        let slots = if self.rules.broken(Mutant::D1Four) { self.slots - 2 } else { self.slots };
        self.tallies.iter().find(|(_, tally, _)| tally.reached(slots)).map(|(stamp, ..)| *stamp)
    }

    /// Votes for the settled answer; the most votes that any answer has if none is settled.
    pub fn votes(&self) -> u8 {
        self.tallies.iter().map(|(_, tally, _)| tally.votes()).max().unwrap_or(0)
    }

    /// The votes for this stamp so far: what a helper starts from (D3).
    pub(crate) fn tally_of(&self, stamp: Stamp) -> Tally {
        self.tallies
            .iter()
            .find(|(s, ..)| *s == Some(stamp))
            .map(|(_, tally, _)| tally.clone())
            .unwrap_or_default()
    }

    /// A copy with this stamp, whole if any machine told it whole.
    pub fn copy_of(&self, stamp: Option<Stamp>) -> Option<&Copied> {
        self.tallies.iter().find(|(s, ..)| *s == stamp).map(|(.., copy)| copy)
    }

    /// The highest stamp told by anyone, voted for or not.
    pub fn highest(&self) -> Option<Stamp> {
        self.tallies.iter().filter_map(|(stamp, ..)| *stamp).max()
    }

    /// Every machine's latest answer, in the order they came.
    pub fn heard(&self) -> &[Heard] {
        &self.heard
    }
}
