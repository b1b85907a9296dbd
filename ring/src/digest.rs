//! Digests of ranges of keys: a machine says what it believes another to hold, and is told only where that is wrong.
//!
//! The asker cuts the keys that the teller is to tell into ranges, and claims for each that the teller holds just what
//! it holds itself: one digest. The teller computes the same of what it has. If the two are equal, it has told all of
//! the range in a few bytes, "none" for any other key in it included; else it lists what it holds.
//!
//! What a claim rests on does not matter, since only equal digests count. And they prove what they cover, no more: the
//! keys, their stamps, and of each record that it votes for the slots for which the teller was to speak.

use alloc::vec::Vec;

use bincode::{Decode, Encode};
use md5::{Digest as _, Md5};

use crate::key::Key;
use crate::message::{Claim, Entry, Held};
use crate::mutant::{Mutant, Rules};
use crate::quorum::{MAX_SLOTS, SlotSet};

/// Claims of one question: one bit each in the answer.
pub(crate) const CLAIMS: usize = 64;
/// Keys of a range, at most and at least: a range costs some 30 bytes, and a key that is listed some 50. Where much
/// differs, ranges become short.
pub(crate) const WIDTH: (usize, usize) = (64, 4);

const ALL: SlotSet = SlotSet::all(MAX_SLOTS as u8);

/// A digest of what a machine holds in a range, under the salt of the question.
///
/// MD5 is no shelter from those who choose what is digested, and clients choose keys; but they would have to know the
/// salt. It is drawn for one question, after all that is digested was there, and goes to one machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Digest(pub [u8; 16]);

#[derive(Clone, Debug)]
struct Digester {
    md5: Md5,
    salt: u64,
    /// Something unreadable is in the range: equal to nothing (R3).
    mute: bool,
    rules: Rules,
}

impl Digester {
    fn new(salt: u64, rules: Rules) -> Self {
        Self { md5: Md5::new_with_prefix(salt.to_le_bytes()), salt, mute: false, rules }
    }

    /// Of the votes, those for `covered` count.
    fn add(&mut self, key: &Key, held: &Held, covered: SlotSet) {
        let Held::Record { stamp, votes, tombstone, .. } = held else {
            self.mute = true;
            return;
        };
        // S3ClaimVotes: a digest that says nothing of votes.
        let votes =
            if self.rules.broken(Mutant::S3ClaimVotes) { 0 } else { votes.intersection(covered).bits() };
        let key = key.as_bytes();
        let mut fixed = [0; 27];
        fixed[..4].copy_from_slice(&(key.len() as u32).to_le_bytes());
        fixed[4..12].copy_from_slice(&stamp.ballot.time.nanos().to_le_bytes());
        fixed[12..20].copy_from_slice(&stamp.ballot.by.id().to_le_bytes());
        fixed[20..24].copy_from_slice(&stamp.n.to_le_bytes());
        fixed[24..26].copy_from_slice(&votes.to_le_bytes());
        fixed[26] = u8::from(*tombstone);
        self.md5.update(fixed);
        self.md5.update(key);
    }

    /// The digest of the range, and on to the next one.
    fn end(&mut self) -> Option<Digest> {
        let next = Self::new(self.salt, self.rules);
        let Self { md5, mute, .. } = core::mem::replace(self, next);
        (!mute).then(|| Digest(md5.finalize().into()))
    }
}

/// What an asker believes that a teller holds, range by range.
#[derive(Debug)]
pub(crate) struct Beliefs {
    pub(crate) salt: u64,
    ranges: Vec<Range>,
}

#[derive(Debug)]
struct Range {
    /// `None`: to the end.
    upto: Option<Key>,
    entries: Vec<Entry>,
}

impl Beliefs {
    /// Ranges of so many of these keys, the last of them up to `upto`; fewer keys where that would be too many ranges.
    pub(crate) fn new(
        salt: u64,
        width: usize,
        entries: impl Iterator<Item = Entry>,
        upto: Option<Key>,
    ) -> Self {
        let mut ranges: Vec<Range> = Vec::new();
        let mut open: Vec<Entry> = Vec::new();
        for entry in entries {
            if open.len() >= width {
                let upto = open.last().map(|last| last.key.clone());
                ranges.push(Range { upto, entries: core::mem::take(&mut open) });
                if ranges.len() == CLAIMS {
                    return Self { salt, ranges };
                }
            }
            open.push(entry);
        }
        ranges.push(Range { upto, entries: open });
        Self { salt, ranges }
    }

    /// The claims. A range of which the asker holds nothing is told with all states if it wants them (`whole`).
    pub(crate) fn claims(&self, whole: bool, rules: Rules) -> Vec<Claim> {
        let mut digester = Digester::new(self.salt, rules);
        let claim = |range: &Range| {
            range.entries.iter().for_each(|entry| digester.add(&entry.key, &entry.held, ALL));
            let digest = digester.end().filter(|_| !(whole && range.entries.is_empty()));
            Claim { upto: range.upto.clone(), digest }
        };
        self.ranges.iter().map(claim).collect()
    }

    /// All that was told: what was listed, and what was believed where that was right; and if all of it was. `None` if
    /// the answer makes no sense.
    pub(crate) fn unfold(
        &self,
        agreed: u64,
        listed: Vec<Entry>,
        upto: Option<&Key>,
    ) -> Option<(Vec<Entry>, bool)> {
        let ends_by = |range: &Range| match (&range.upto, upto) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(end), Some(upto)) => end <= upto,
        };
        let within = |key: &Key, range: &Range| range.upto.as_ref().is_none_or(|end| key <= end);
        let mut listed = listed.into_iter().peekable();
        let (mut told, mut right) = (Vec::new(), true);
        for (i, range) in self.ranges.iter().enumerate() {
            if agreed >> i & 1 == 0 {
                right &= !ends_by(range);
                while let Some(entry) = listed.next_if(|entry| within(&entry.key, range)) {
                    told.push(entry);
                }
            } else if ends_by(range) && listed.peek().is_none_or(|entry| !within(&entry.key, range)) {
                told.extend(range.entries.iter().cloned());
            } else {
                return None;
            }
        }
        told.extend(listed);
        Some((told, right))
    }
}

/// A teller's way through the claims of one question, key by key.
#[derive(Debug)]
pub(crate) struct Checking {
    claims: Vec<Claim>,
    /// The claim whose range is open.
    at: usize,
    digester: Digester,
    /// What was found in that range.
    found: Vec<Entry>,
    pub(crate) agreed: u64,
    rules: Rules,
}

impl Checking {
    pub(crate) fn new(salt: u64, mut claims: Vec<Claim>, rules: Rules) -> Self {
        if claims.is_empty() {
            claims.push(Claim { upto: None, digest: None });
        }
        claims.truncate(CLAIMS);
        let digester = Digester::new(salt, rules);
        Self { claims, at: 0, digester, found: Vec::new(), agreed: 0, rules }
    }

    /// True if there is nothing more to tell.
    pub(crate) fn is_over(&self) -> bool {
        self.at >= self.claims.len()
    }

    /// Told up to here, if it is over; `None`: to the end.
    pub(crate) fn upto(&self) -> Option<&Key> {
        self.claims.last().and_then(|claim| claim.upto.as_ref())
    }

    /// True if states are wanted in this range.
    pub(crate) fn is_whole(&self) -> bool {
        self.claims.get(self.at).is_some_and(|claim| claim.digest.is_none())
    }

    /// The next key is this one: ranges that end before it are closed. What is to be listed goes to `list`.
    pub(crate) fn come_to(&mut self, key: &Key, list: &mut Vec<Entry>) {
        self.close_while(|end| end < key, list);
    }

    /// In the open range, this is told. Of its votes, a digest covers those for `covered`.
    pub(crate) fn add(&mut self, entry: Entry, covered: SlotSet, list: &mut Vec<Entry>) {
        if self.is_whole() {
            list.push(entry);
            return;
        }
        self.digester.add(&entry.key, &entry.held, covered);
        self.found.push(entry);
        if self.found.len() > WIDTH.0 {
            // More than anybody claims: listed as it comes.
            self.digester.mute = true;
            list.append(&mut self.found);
        }
    }

    /// The page ends after this key: what was found of an open range is listed. `None`: there are no further keys.
    pub(crate) fn break_off(&mut self, upto: Option<&Key>, list: &mut Vec<Entry>) {
        match upto {
            Some(upto) => self.close_while(|end| end <= upto, list),
            None => {
                while !self.is_over() {
                    self.close(list)
                }
            }
        }
        list.append(&mut self.found);
    }

    fn close_while(&mut self, ends: impl Fn(&Key) -> bool, list: &mut Vec<Entry>) {
        while self.claims.get(self.at).is_some_and(|claim| claim.upto.as_ref().is_some_and(&ends)) {
            self.close(list);
        }
    }

    fn close(&mut self, list: &mut Vec<Entry>) {
        let digest = self.digester.end();
        let claimed = self.claims[self.at].digest;
        // S3AnyClaim: whatever is claimed is taken to be right.
        if claimed.is_some() && (digest == claimed || self.rules.broken(Mutant::S3AnyClaim)) {
            self.agreed |= 1 << self.at;
            self.found.clear();
        }
        list.append(&mut self.found);
        self.at += 1;
    }
}

#[cfg(test)]
mod tests;
