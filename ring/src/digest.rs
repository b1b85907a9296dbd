//! Digests of ranges of keys: a machine says what it believes another to hold, and is told only where that is wrong.
//!
//! The asker cuts the keys that the teller is to tell into ranges, and claims for each that the teller holds just what
//! it holds itself: one digest. The teller computes the same of what it has. If the two are equal, it has told all of
//! the range in a few bytes, "none" for any other key in it included.
//!
//! Else it lists what is not as claimed, which it finds with a sketch that comes with the claim: of what
//! it holds itself those entries whose elements the asker has not, and of the asker's elements those that it has not. What is
//! left should be the same on both sides; a second digest, of what the teller did not list, shows the asker that it is. So a
//! sketch is a guess, and only digests count: two elements that are the same number by chance cost a further question.
//! Where more differs than the sketch has room for, nothing is told of the range, and it is asked for again.
//!
//! What a claim rests on does not matter, since only equal digests count. And they prove what they cover, no more: the
//! keys, their stamps, and of each record that it votes for the slots for which the teller was to speak.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::mem;

use bincode::{Decode, Encode};
use md5::{Digest as _, Md5};

use crate::key::Key;
use crate::message::{Claim, Differs, Entry, Held};
use crate::mutant::{Mutant, Rules};
use crate::quorum::{MAX_SLOTS, SlotSet};
use crate::rare::{Rare, met, met_if};
use crate::sketch::{self, Roots, Sketch};
use crate::telling::record_bytes;

/// Claims of one question: one bit each in the answer.
pub(crate) const CLAIMS: usize = 64;
/// Keys of a range, at most and at least: a range costs some 40 bytes, and its sketch two for each element.
const WIDTH: (usize, usize) = (512, 4);
/// Elements of a range that differ, at most, for which it is cut: what a sketch costs to make grows with them.
const APART: usize = 32;
/// Room in a sketch, at least: a changed key is two elements, and one more is needed to know that these are all.
const ROOM: usize = 5;
/// Keys of a range that a teller holds before it lists them: more than anybody claims. Their states, so many bytes at most:
/// further ones are fetched.
const FOUND: usize = 2 * WIDTH.0;
const STATES: usize = 1 << 20;

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
        let Some(fixed) = digested(key, held, covered, self.rules) else {
            self.mute = true;
            return;
        };
        self.md5.update(fixed);
        self.md5.update(key.as_bytes());
    }

    /// The digest of the range, and on to the next one.
    fn end(&mut self) -> Option<Digest> {
        let next = Self::new(self.salt, self.rules);
        let Self { md5, mute, .. } = core::mem::replace(self, next);
        (!mute).then(|| Digest(md5.finalize().into()))
    }
}

/// What is digested of an entry beside its key; `None` if it is unreadable.
fn digested(key: &Key, held: &Held, covered: SlotSet, rules: Rules) -> Option<[u8; 27]> {
    let Held::Record { stamp, votes, tombstone, .. } = held else { return None };
    // S3ClaimVotes: a digest that says nothing of votes.
    let votes = if rules.broken(Mutant::S3ClaimVotes) { 0 } else { votes.intersection(covered).bits() };
    let mut fixed = [0; 27];
    fixed[..4].copy_from_slice(&(key.as_bytes().len() as u32).to_le_bytes());
    fixed[4..12].copy_from_slice(&stamp.ballot.time.nanos().to_le_bytes());
    fixed[12..20].copy_from_slice(&stamp.ballot.by.id().to_le_bytes());
    fixed[20..24].copy_from_slice(&stamp.n.to_le_bytes());
    fixed[24..26].copy_from_slice(&votes.to_le_bytes());
    fixed[26] = u8::from(*tombstone);
    Some(fixed)
}

/// An entry as an element of a sketch: a hash under the salt of the question, of which nothing is asked but that it seldom
/// gives two entries the same number, however alike their keys and stamps are. Products are folded, high half onto low: in
/// the low half alone, what keys differ in is mostly lost.
fn element(salt: u64, entry: &Entry, covered: SlotSet, rules: Rules) -> Option<u16> {
    let fixed = digested(&entry.key, &entry.held, covered, rules)?;
    let fold = |hash: u64, word: u64| {
        let product = u128::from(hash ^ word) * 0x9E37_79B9_7F4A_7C15;
        product as u64 ^ (product >> 64) as u64
    };
    let mut hash = salt;
    for word in fixed.chunks(8).chain(entry.key.as_bytes().chunks(8)) {
        let mut bytes = [0; 8];
        bytes[..word.len()].copy_from_slice(word);
        hash = fold(hash, u64::from_le_bytes(bytes));
    }
    Some((fold(hash, salt) % 65_535) as u16 + 1)
}

/// How questions are cut, by how much was not as claimed of late: keys looked at, and elements that differed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    keys: usize,
    apart: usize,
    /// The next ranges are listed, as far as they differ: no sketch is large enough.
    lists: bool,
}

impl Cut {
    /// Before anything is known. `stale` if what is held is likely to be old.
    pub(crate) const fn new(stale: bool) -> Self {
        Self { keys: 1024, apart: if stale { 128 } else { 0 }, lists: false }
    }

    fn apart_of(self, keys: usize) -> usize {
        (keys * self.apart).div_ceil(self.keys)
    }

    /// Keys of a range.
    fn width(self) -> usize {
        (self.keys * APART / self.apart.max(1)).clamp(WIDTH.1, WIDTH.0)
    }

    /// Room in the sketch of a range: the mean, and for twice its deviation where elements come in pairs.
    fn room(self) -> usize {
        let mean = self.apart_of(self.width());
        if self.lists { 0 } else { (3 + mean + 2 * (2 * mean).isqrt()).clamp(ROOM, sketch::MOST) }
    }

    /// What a page has shown.
    fn saw(&mut self, keys: usize, apart: usize) {
        (self.keys, self.apart, self.lists) = (self.keys + keys, self.apart + apart, false);
        while self.keys > 2048 {
            (self.keys, self.apart) = (self.keys / 2, self.apart / 2);
        }
    }

    /// More differed than there was room for, everywhere.
    fn saw_too_much(&mut self) {
        let (width, room) = (self.width(), self.room());
        (self.keys, self.apart) = (width, 2 * room);
        self.lists = room == sketch::MOST || room == 0;
    }
}

/// What an asker believes that a teller holds, range by range.
#[derive(Debug)]
pub(crate) struct Beliefs {
    salt: u64,
    ranges: Vec<Range>,
    cut: Cut,
    rules: Rules,
}

#[derive(Debug)]
struct Range {
    /// `None`: to the end.
    upto: Option<Key>,
    entries: Vec<Entry>,
}

/// What an answer says, with what was believed.
#[derive(Debug)]
pub(crate) struct Unfolded {
    /// What is told, in order. Between two parts, what was told is not what was digested: it is asked for again.
    pub(crate) parts: Vec<Part>,
    /// All that was claimed was right.
    pub(crate) right: bool,
    /// How to cut the next question.
    pub(crate) cut: Cut,
}

/// A run of keys of which all is told.
#[derive(Debug)]
pub(crate) struct Part {
    /// `None`: from where the question begins.
    pub(crate) after: Option<Key>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) upto: ToldTo,
}

impl Part {
    const fn after(after: Option<Key>) -> Self {
        Self { after, entries: Vec::new(), upto: ToldTo::AsSaid }
    }
}

/// How far a part goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ToldTo {
    /// As far as the answer says.
    AsSaid,
    /// To the end of a range, or, with `None`, not even the first one.
    Range(Option<Key>),
}

impl Beliefs {
    /// Ranges of these keys, cut so, the last of them up to `upto`; fewer keys where that would be too many ranges.
    pub(crate) fn new(
        salt: u64,
        cut: Cut,
        entries: impl Iterator<Item = Entry>,
        upto: Option<Key>,
        rules: Rules,
    ) -> Self {
        let mut ranges: Vec<Range> = Vec::new();
        let mut open: Vec<Entry> = Vec::new();
        for entry in entries {
            if open.len() >= cut.width() {
                let upto = open.last().map(|last| last.key.clone());
                ranges.push(Range { upto, entries: mem::take(&mut open) });
                if ranges.len() == CLAIMS {
                    return Self { salt, ranges, cut, rules };
                }
            }
            open.push(entry);
        }
        ranges.push(Range { upto, entries: open });
        Self { salt, ranges, cut, rules }
    }

    /// The claims. A range of which the asker holds nothing is told with all states if it wants them (`whole`).
    pub(crate) fn claims(&self, whole: bool) -> Vec<Claim> {
        let mut digester = Digester::new(self.salt, self.rules);
        let claim = |range: &Range| {
            range.entries.iter().for_each(|entry| digester.add(&entry.key, &entry.held, ALL));
            let digest = digester.end().filter(|_| !(whole && range.entries.is_empty()));
            // Of which it holds nothing, all has to be listed.
            let mut sketch = Sketch::new(if range.entries.is_empty() { 0 } else { self.cut.room() });
            range.entries.iter().filter_map(|entry| self.element(entry)).for_each(|e| sketch.add(e));
            Claim { upto: range.upto.clone(), digest, sketch: sketch.to_bytes() }
        };
        self.ranges.iter().map(claim).collect()
    }

    fn element(&self, entry: &Entry) -> Option<u16> {
        element(self.salt, entry, ALL, self.rules)
    }

    /// All that was told: what was listed, and what was believed where that was right. `None` if the answer makes no sense.
    pub(crate) fn unfold(
        &self,
        answer: Answered,
        listed: Vec<Entry>,
        upto: Option<&Key>,
    ) -> Option<Unfolded> {
        let Answered { agreed, differs, beyond } = answer;
        let ends_by = |range: &Range| match (&range.upto, upto) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(end), Some(upto)) => end <= upto,
        };
        let within = |key: &Key, range: &Range| range.upto.as_ref().is_none_or(|end| key <= end);
        if !differs.is_sorted_by(|one, other| one.claim < other.claim) {
            return None;
        }
        let mut listed = listed.into_iter().peekable();
        let mut differs = differs.into_iter().peekable();
        let (mut parts, mut part) = (Vec::new(), Part::after(None));
        let (mut right, mut seen, mut apart) = (true, 0, 0);
        let mut before = None;
        for (i, range) in self.ranges.iter().enumerate() {
            let ends = ends_by(range);
            let differ = differs.next_if(|differ| usize::from(differ.claim) == i);
            let mut here = Vec::new();
            while let Some(entry) = listed.next_if(|entry| within(&entry.key, range)) {
                here.push(entry);
            }
            let is_beyond = beyond >> i & 1 == 1;
            if (is_beyond || differ.is_some()) && !ends {
                return None;
            }
            if agreed >> i & 1 == 1 {
                if !ends || !here.is_empty() || differ.is_some() || is_beyond {
                    return None;
                }
                seen += range.entries.len();
                part.entries.extend(range.entries.iter().cloned());
            } else if is_beyond || differ.is_some() {
                right = false;
                seen += range.entries.len();
                apart += match &differ {
                    Some(differ) => here.len() + differ.gone.len() / 2,
                    None => 2 * self.cut.room(),
                };
                if let Some(told) = differ.and_then(|differ| self.mend(range, here, &differ)) {
                    met(Rare::S3SketchTells);
                    part.entries.extend(told);
                } else {
                    met_if(is_beyond, Rare::S3SketchTooSmall);
                    // Too much, or two elements that are the same number, or a lie.
                    part.upto = ToldTo::Range(before);
                    parts.push(mem::replace(&mut part, Part::after(range.upto.clone())));
                    if range.upto.is_none() {
                        break;
                    }
                }
            } else {
                right &= !ends;
                part.entries.extend(here);
            }
            before = range.upto.clone();
        }
        if differs.next().is_some() {
            return None;
        }
        if parts.is_empty() || part.after.is_some() {
            part.entries.extend(listed);
            parts.push(part);
        }
        let is_told = |part: &Part| match &part.upto {
            ToldTo::AsSaid => part.after.is_none() || part.after.as_ref() != upto,
            ToldTo::Range(ends) => *ends != part.after,
        };
        // Ranges that are left open one after the other are one.
        let mut first = true;
        let nothing = !parts.iter().any(is_told);
        parts.retain(|part| mem::take(&mut first) || is_told(part));
        let mut cut = self.cut;
        if nothing {
            cut.saw_too_much()
        } else {
            cut.saw(seen, apart)
        }
        Some(Unfolded { parts, right, cut })
    }

    /// What the teller holds in this range: of what was believed, all but what it says is gone and what it lists otherwise. `None`
    /// if that is not what it digested.
    fn mend(&self, range: &Range, listed: Vec<Entry>, differ: &Differs) -> Option<Vec<Entry>> {
        let gone = Roots::from_bytes(&differ.gone);
        let otherwise: BTreeSet<Key> = listed.iter().map(|entry| entry.key.clone()).collect();
        let stays = |entry: &&Entry| {
            !otherwise.contains(&entry.key) && !self.element(entry).is_some_and(|element| gone.has(element))
        };
        let mut told: Vec<Entry> = range.entries.iter().filter(stays).cloned().collect();
        let mut digester = Digester::new(self.salt, self.rules);
        told.iter().for_each(|entry| digester.add(&entry.key, &entry.held, ALL));
        // S3AnyRest: what is not listed is taken to be right.
        if digester.end() != Some(differ.digest) && !self.rules.broken(Mutant::S3AnyRest) {
            return None;
        }
        told.extend(listed);
        told.sort_by(|one, other| one.key.cmp(&other.key));
        Some(told)
    }
}

/// What an answer says of the claims, beside what it lists.
#[derive(Clone, Default, Debug)]
pub(crate) struct Answered {
    /// The claims that are right.
    pub(crate) agreed: u64,
    /// Those of which only what is not as claimed is listed.
    pub(crate) differs: Vec<Differs>,
    /// Those that differ in more than their sketches have room for.
    pub(crate) beyond: u64,
}

/// A teller's way through the claims of one question, key by key.
#[derive(Debug)]
pub(crate) struct Checking {
    claims: Vec<Claim>,
    salt: u64,
    /// The claim whose range is open.
    at: usize,
    digester: Digester,
    /// What was found in that range, with the votes that a digest covers.
    found: Vec<(Entry, SlotSet)>,
    /// The open range has more than anybody claims, and is listed as it comes.
    lists: bool,
    /// Bytes of the states in that range.
    states: usize,
    /// The page ends with this claim: too many sketches were too small.
    last: Option<usize>,
    pub(crate) answered: Answered,
    rules: Rules,
}

impl Checking {
    pub(crate) fn new(salt: u64, mut claims: Vec<Claim>, rules: Rules) -> Self {
        if claims.is_empty() {
            claims.push(Claim { upto: None, digest: None, sketch: Vec::new() });
        }
        claims.truncate(CLAIMS);
        let digester = Digester::new(salt, rules);
        Self {
            claims,
            salt,
            at: 0,
            digester,
            found: Vec::new(),
            lists: false,
            states: 0,
            last: None,
            answered: Answered::default(),
            rules,
        }
    }

    /// True if there is nothing more to tell.
    pub(crate) fn is_over(&self) -> bool {
        self.at >= self.claims.len() || self.last.is_some()
    }

    /// True if it is over before the last claim.
    pub(crate) fn breaks_off(&self) -> bool {
        self.last.is_some_and(|last| last + 1 < self.claims.len())
    }

    /// Told up to here, if it is over; `None`: to the end.
    pub(crate) fn upto(&self) -> Option<&Key> {
        let last = self.last.unwrap_or(self.claims.len() - 1);
        self.claims[last].upto.as_ref()
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
    pub(crate) fn add(&mut self, mut entry: Entry, covered: SlotSet, list: &mut Vec<Entry>) {
        if self.is_whole() {
            list.push(entry);
            return;
        }
        if let Held::Record { state: Some(bytes), .. } = &entry.held {
            self.states += record_bytes(bytes);
        }
        if let Held::Record { state, .. } = &mut entry.held {
            state.take_if(|_| self.states > STATES);
        }
        self.digester.add(&entry.key, &entry.held, covered);
        self.found.push((entry, covered));
        self.lists |= self.found.len() > FOUND;
        if self.lists {
            self.list_found(list);
        }
    }

    /// The page ends after this key. `None`: there are no further keys. What was found of an open range is listed if it is the
    /// first one; else it is left to the next page, and this one ends where the range begins: then that is returned.
    pub(crate) fn break_off(&mut self, upto: Option<&Key>, list: &mut Vec<Entry>) -> Option<Key> {
        match upto {
            Some(upto) => self.close_while(|end| end <= upto, list),
            None => {
                while !self.is_over() {
                    self.close(list)
                }
            }
        }
        let before = self.at.checked_sub(1).filter(|_| !self.lists && !self.found.is_empty());
        let begins = before.and_then(|before| self.claims[before].upto.clone());
        if begins.is_some() {
            self.found.clear();
        }
        self.list_found(list);
        begins
    }

    fn close_while(&mut self, ends: impl Fn(&Key) -> bool, list: &mut Vec<Entry>) {
        while !self.is_over() && self.claims[self.at].upto.as_ref().is_some_and(&ends) {
            self.close(list);
        }
    }

    fn list_found(&mut self, list: &mut Vec<Entry>) {
        list.extend(self.found.drain(..).map(|(entry, _)| entry));
    }

    fn close(&mut self, list: &mut Vec<Entry>) {
        let digest = self.digester.end().filter(|_| !self.lists);
        let claim = &self.claims[self.at];
        // S3AnyClaim: whatever is claimed is taken to be right.
        if claim.digest.is_some() && (digest == claim.digest || self.rules.broken(Mutant::S3AnyClaim)) {
            self.answered.agreed |= 1 << self.at;
            self.found.clear();
        } else if claim.digest.is_some() && !claim.sketch.is_empty() && !self.lists {
            match self.differing(&claim.sketch) {
                Some(roots) => self.list_differing(roots, list),
                None => {
                    self.found.clear();
                    self.answered.beyond |= 1 << self.at;
                    if self.answered.beyond.count_ones() as usize > 1 + self.at / 8 {
                        self.last = Some(self.at);
                    }
                }
            }
        }
        self.list_found(list);
        (self.lists, self.states) = (false, 0);
        self.at += 1;
    }

    fn element(&self, (entry, covered): &(Entry, SlotSet)) -> Option<u16> {
        element(self.salt, entry, *covered, self.rules)
    }

    /// The elements that only one side has; `None` if the sketch has no room for them.
    fn differing(&self, claimed: &[u8]) -> Option<Roots> {
        let mut sketch = Sketch::from_bytes(claimed);
        self.found.iter().filter_map(|found| self.element(found)).for_each(|element| sketch.add(element));
        // S3AnyRest: a sketch that is too small says that nothing differs.
        sketch.roots().or(self.rules.broken(Mutant::S3AnyRest).then(|| Sketch::new(0).roots()).flatten())
    }

    fn list_differing(&mut self, roots: Roots, list: &mut Vec<Entry>) {
        let mut gone = roots.clone();
        for found in mem::take(&mut self.found) {
            match self.element(&found) {
                // R3: unreadable, and so never as claimed.
                None => list.push(found.0),
                Some(element) if roots.has(element) => {
                    if gone.has(element) {
                        gone.take_out(element);
                    }
                    list.push(found.0);
                }
                Some(_) => self.digester.add(&found.0.key, &found.0.held, found.1),
            }
        }
        let Some(digest) = self.digester.end() else { unreachable!("what is unreadable is listed") };
        self.answered.differs.push(Differs { claim: self.at as u8, digest, gone: gone.to_bytes() });
    }
}

#[cfg(test)]
mod tests;
