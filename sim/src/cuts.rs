//! Links that are cut: machines from all others, one way or both, two camps, or any links at all.

use rand::RngExt;

use crate::MS;
use crate::events::{Event, Fault};
use crate::faults::log_uniform;
use crate::world::World;

/// Links cut together. Ends are numbered: machines, then clients.
pub(crate) enum Cut {
    /// One machine, from everybody; or only what it says, or only what it hears.
    One { machine: usize, says: bool, hears: bool },
    /// Two camps, by a bit for each end.
    Camps(Vec<bool>),
    /// Of so many links this share, each told by a hash: ends may be thousands, and their links millions.
    Links { share: f64, salt: u64 },
    /// As scheduled, by its place there: one side from the other, by a bit for each end; or each of the one from everybody.
    Timed { number: usize, side: Vec<bool>, alone: bool },
}

impl Cut {
    fn has(&self, from: usize, to: usize) -> bool {
        match self {
            Self::One { machine, says, hears } => *says && from == *machine || *hears && to == *machine,
            // An end that came later is in the first camp.
            Self::Camps(side) => side.get(from).unwrap_or(&false) != side.get(to).unwrap_or(&false),
            Self::Timed { side, alone, .. } => {
                // An end that came later is on the other side.
                let [from, to] = [from, to].map(|end| *side.get(end).unwrap_or(&false));
                if *alone { from || to } else { from != to }
            }
            Self::Links { share, salt } => {
                let link = (from as u64) << 32 | to as u64;
                let mut x = (link ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
                ((x ^ (x >> 32)) >> 11) as f64 / ((1u64 << 53) as f64) < *share
            }
        }
    }
}

impl World {
    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        from != to && self.cuts.iter().any(|cut| cut.has(from, to))
    }

    /// What chance has cut is mended.
    pub(crate) fn mend(&mut self) {
        self.note(|| "all links mended".to_string());
        self.cuts.retain(|cut| matches!(cut, Cut::Timed { .. }));
    }

    /// What this one of the schedule has cut is mended.
    pub(crate) fn mend_timed(&mut self, n: usize) {
        self.note(|| "scheduled: links mended".to_string());
        self.cuts.retain(|cut| !matches!(cut, Cut::Timed { number, .. } if *number == n));
    }

    /// Cuts some links, for up to so long.
    pub(crate) fn sever(&mut self, machine: usize, longest: u64) {
        self.counts.cuts += 1;
        let kind = self.rng.random_range(0..if self.profile.cut_single { 3 } else { 5 });
        let ends = self.profile.machines + self.clients.len();
        self.cuts.push(match kind {
            0..3 => Cut::One { machine, says: kind != 2, hears: kind != 1 },
            3 => Cut::Camps((0..ends).map(|_| self.rng.random_bool(0.5)).collect()),
            _ => Cut::Links { share: self.rng.random_range(0.05..0.6), salt: self.rng.random() },
        });
        let after = log_uniform(&mut self.rng, 10 * MS, longest);
        self.note(|| format!("cut: kind {kind}, s{}, for {} ms", machine + 1, after / MS));
        self.schedule(after, Event::Fault(Fault::Uncut));
    }
}
