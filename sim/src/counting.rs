//! Was the key one counter? The judge of keys that are counted up, where a value does not name the write that made it.
//!
//! Versions give the order of what was seen. Each number must be the one before plus what the calls between them added:
//! the one that was told its number, and calls of unknown outcome, each of which may have been counted once or never.
//! A version that only touches were told of is judged by its place in time, and by nothing else.
//! The calls of a run add different powers of two (as far as there are any), so a sum tells which of them it contains.

use std::collections::{BTreeMap, BTreeSet};

use crate::checker::{Call, Fault, If, Op, Reply};

/// Sums that are tried before the search is given up.
const BUDGET: u32 = 2_000_000;

/// What the n-th call of a run adds.
pub(crate) fn addend(n: u64) -> i64 {
    1 << (n % 40)
}

/// A version that somebody was told of.
#[derive(Debug)]
struct Seen {
    /// `None`: only its version was told.
    number: Option<i64>,
    /// The call that made it, and what that added; else a call of unknown outcome did.
    made: Option<(usize, i64)>,
    /// The last start and the first end of the calls that were told of it.
    start: u64,
    end: u64,
}

/// Calls of unknown outcome that must have been counted between two numbers.
#[derive(Clone, Copy, Debug)]
struct Gap {
    /// What they added.
    sum: i64,
    /// How many they are, as versions tell; of those before the first version, how many at most.
    most: u64,
    fewer: bool,
    /// Each began before this.
    before: u64,
}

/// Judges the history of a key that is counted up, read and touched, and nothing else.
pub(crate) fn judge(ops: &[Op]) -> Result<(), Fault> {
    let (seen, nothing) = read_replies(ops)?;
    in_order(ops, &seen, nothing)?;
    let gaps = gaps(ops, &seen)?;
    let unknown = |op: &Op| match (op.call, op.reply) {
        (Call::Incr(by), Reply::Unknown) => Some((by, op.start)),
        _ => None,
    };
    let mut hidden: Vec<(i64, u64)> = ops.iter().filter_map(unknown).collect();
    // The largest first: what is left of a sum then says soon that it cannot be had.
    hidden.sort_by_key(|&(by, start)| (std::cmp::Reverse(by), start));
    let powers = hidden.iter().all(|(by, _)| by.count_ones() == 1);
    let used = vec![false; hidden.len()];
    let mut search = Search { used, hidden, powers, gaps: &gaps, budget: BUDGET, stuck: 0 };
    match search.fill(0) {
        true => Ok(()),
        false => {
            // A history that cannot be judged passes for no proof either.
            let spent = if search.budget == 0 { " (search cut short)" } else { "" };
            Err(format!("not one counter: nobody can have added {:?}{spent}", gaps[search.stuck]))
        }
    }
}

/// The versions told of, and the last start of a call that saw no value.
fn read_replies(ops: &[Op]) -> Result<(BTreeMap<u64, Seen>, u64), Fault> {
    let mut seen: BTreeMap<u64, Seen> = BTreeMap::new();
    let mut nothing = 0;
    for (i, op) in ops.iter().enumerate() {
        let (version, number, made) = match (op.call, op.reply) {
            (Call::Incr(by), Reply::Counted(number, version)) => (version, Some(number), Some((i, by))),
            (Call::Get, Reply::Found(number, version)) => (version, Some(number as i64), None),
            (Call::Touch(wanted), Reply::Done(version)) if allows(wanted, version) => (version, None, None),
            (Call::Touch(If::Version(wanted)), Reply::Mismatch(Some(version))) if wanted != version => {
                (version, None, None)
            }
            (Call::Get, Reply::Nothing(_)) | (Call::Touch(_), Reply::Absent | Reply::Mismatch(None)) => {
                nothing = nothing.max(op.start);
                continue;
            }
            (_, Reply::Unknown | Reply::Never) => continue,
            _ => return Err(format!("no answer to that call of a counter: {op}")),
        };
        if version == 0 {
            return Err(format!("version 0 is that of no write: {op}"));
        }
        let at = seen.entry(version).or_insert(Seen { number: None, made: None, start: 0, end: u64::MAX });
        if at.number.is_some() && number.is_some() && at.number != number {
            return Err(format!("one version, two numbers: {op}; the other is {:?}", at.number));
        }
        if let (Some((other, _)), Some(_)) = (at.made, made) {
            return Err(format!("one version for two calls: {op}; and {}", ops[other]));
        }
        at.number = at.number.or(number);
        at.made = at.made.or(made);
        (at.start, at.end) = (at.start.max(op.start), at.end.min(op.end));
    }
    Ok((seen, nothing))
}

fn allows(condition: If, version: u64) -> bool {
    match condition {
        If::Any => true,
        If::Absent => false,
        If::Version(wanted) => wanted == version,
    }
}

/// Versions rise with time: no call that saw a later one ended before a call that saw an earlier one began.
fn in_order(ops: &[Op], seen: &BTreeMap<u64, Seen>, nothing: u64) -> Result<(), Fault> {
    let mut latest = nothing;
    for (version, at) in seen {
        // Who made a version did so before all others saw it.
        latest = latest.max(at.made.map_or(0, |(i, _)| ops[i].start));
        if at.end < latest {
            return Err(format!("version {version} was seen before an earlier one was gone: {at:?}"));
        }
        latest = latest.max(at.start);
    }
    Ok(())
}

fn gaps(ops: &[Op], seen: &BTreeMap<u64, Seen>) -> Result<Vec<Gap>, Fault> {
    let mut gaps = Vec::new();
    let (mut number, mut version) = (0, None);
    let mut end = u64::MAX;
    let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
    for (&v, at) in seen.iter().rev() {
        end = end.min(at.end);
        ends.insert(v, end);
    }
    for (&v, at) in seen {
        let Some(now) = at.number else { continue };
        let own = at.made.map_or(0, |(_, by)| by);
        let sum = now.wrapping_sub(number).wrapping_sub(own);
        // A key's first version may be any: what was collected is not forgotten of the others (I4).
        let (most, fewer) = (v - version.unwrap_or(0) - u64::from(at.made.is_some()), version.is_none());
        let before = ends[&v];
        if sum < 0 || most == 0 && sum != 0 {
            let maker = at.made.map_or_else(String::new, |(i, _)| format!(": {}", ops[i]));
            return Err(format!("version {v} is {now}, which is not {number} and what was added{maker}"));
        }
        if sum > 0 || most > 0 && !fewer {
            gaps.push(Gap { sum, most, fewer, before });
        }
        (number, version) = (now, Some(v));
    }
    Ok(gaps)
}

struct Search<'a> {
    /// Calls of unknown outcome: what each would add, and when it began.
    hidden: Vec<(i64, u64)>,
    used: Vec<bool>,
    /// All of them add powers of two.
    powers: bool,
    gaps: &'a [Gap],
    budget: u32,
    /// The furthest gap that was reached.
    stuck: usize,
}

/// What has come of trying.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tried {
    /// All gaps are filled.
    Filled,
    /// This gap can be filled, and a later one then cannot.
    Later,
    /// This gap cannot be filled so.
    Never,
}

impl Search<'_> {
    /// Fills this gap and all later ones.
    fn fill(&mut self, gap: usize) -> bool {
        let Some(&Gap { sum, most, .. }) = self.gaps.get(gap) else { return true };
        self.stuck = self.stuck.max(gap);
        self.part(gap, 0, (sum, most), &mut BTreeSet::new()) == Tried::Filled
    }

    /// Fills what this gap still lacks with calls from the `from`-th on. `dead` is what cannot be had from where: it
    /// holds as long as this gap is worked on, since calls from there on are used by earlier gaps alone.
    fn part(
        &mut self,
        gap: usize,
        from: usize,
        left: (i64, u64),
        dead: &mut BTreeSet<(usize, i64, u64)>,
    ) -> Tried {
        let (Gap { fewer, before, .. }, (sum, most)) = (self.gaps[gap], left);
        if sum == 0 && (most == 0 || fewer) {
            return if self.fill(gap + 1) { Tried::Filled } else { Tried::Later };
        }
        // So many powers of two have no more ones in their sum.
        let hopeless = sum <= 0 || most == 0 || self.powers && u64::from(sum.count_ones()) > most;
        if hopeless || self.budget == 0 || dead.contains(&(from, sum, most)) {
            return Tried::Never;
        }
        self.budget -= 1;
        let (mut tried, mut came) = (None, Tried::Never);
        for i in from..self.hidden.len() {
            let (by, start) = self.hidden[i];
            // Of two that add the same, one is as good as the other.
            if self.used[i] || by > sum || start > before || tried == Some(by) {
                continue;
            }
            if by.saturating_mul(i64::try_from(most).unwrap_or(i64::MAX)) < sum {
                break;
            }
            tried = Some(by);
            self.used[i] = true;
            match self.part(gap, i + 1, (sum - by, most - 1), dead) {
                Tried::Filled => return Tried::Filled,
                Tried::Later => came = Tried::Later,
                Tried::Never => {}
            }
            self.used[i] = false;
        }
        if came == Tried::Never {
            dead.insert((from, sum, most));
        }
        came
    }
}
