//! What happens at set times: which machines are struck, by what, when, and for how long.

use serde::Deserialize;

use crate::SEC;

/// Machines of a run, at most.
const MOST: usize = 10_000;

/// Something that happens at a set time: an `[[at]]` of a scenario.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timed {
    /// When, in virtual seconds since the start.
    pub s: f64,
    /// What.
    #[serde(rename = "do")]
    pub act: Act,
    /// Whom it strikes, by number: the first machine is 1. For [`Act::Split`] the one camp.
    #[serde(default)]
    pub machines: Vec<usize>,
    /// How long it lasts, in virtual seconds; for [`Act::Kill`] and the like: until the process runs again.
    pub for_s: Option<f64>,
    /// Of [`Act::Split`]: so many clients, the first ones, are in that camp, too. All others are in the other one.
    pub clients: Option<usize>,
    /// Of [`Act::SlowDisk`]: so many times as long as else an fsync takes, 1 to 10,000.
    pub times: Option<f64>,
    /// Of [`Act::Clock`]: by how much the wall clock jumps, in seconds; below 0: backwards.
    pub by_s: Option<f64>,
    /// Where in its file it was said, in bytes from the start, so that an error can name the line.
    #[serde(skip)]
    pub offset: Option<usize>,
}

/// What is done at a set time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// The process dies, and runs again later.
    Kill,
    /// The machine never runs again, and what it held is lost.
    KillForGood,
    /// The machine loses its disk, and begins anew, as a new incarnation: at once, or later.
    Wipe,
    /// The process stands still.
    Pause,
    /// Each of these is cut off from everybody, clients too.
    Cut,
    /// These on the one side, all others on the other.
    Split,
    /// All machines, or these, lose power at once, and are back together.
    Power,
    /// An fsync fails: the process ends, and what it wrote is still in memory for the next one.
    FailDisk,
    /// Every fsync takes many times as long as else.
    SlowDisk,
    /// The disk has no room for values.
    FullDisk,
    /// The wall clock jumps.
    Clock,
    /// An operator has it hand over and leave.
    Leave,
    /// An operator says that it is gone for good, as it is.
    Remove,
    /// A spare machine comes in, or one that had left or was gone for good: then with an empty disk.
    Join,
}

impl Act {
    /// All there are.
    pub const ALL: &[Self] = &[
        Self::Kill,
        Self::KillForGood,
        Self::Wipe,
        Self::Pause,
        Self::Cut,
        Self::Split,
        Self::Power,
        Self::FailDisk,
        Self::SlowDisk,
        Self::FullDisk,
        Self::Clock,
        Self::Leave,
        Self::Remove,
        Self::Join,
    ];

    /// What it is called, and what it does.
    pub const fn told(self) -> (&'static str, &'static str) {
        match self {
            Self::Kill => ("kill", "the process dies, and runs again after for_s"),
            Self::KillForGood => ("kill-for-good", "it never runs again, and what it held is lost"),
            Self::Wipe => ("wipe", "it loses its disk and begins anew, after for_s if that is given"),
            Self::Pause => ("pause", "the process stands still"),
            Self::Cut => ("cut", "each of these is cut off from everybody"),
            Self::Split => ("split", "these, and the first few clients, from all others"),
            Self::Power => ("power", "all, or these, lose power, and are back together after for_s"),
            Self::FailDisk => ("fail-disk", "an fsync fails and the process ends; it runs again after for_s"),
            Self::SlowDisk => ("slow-disk", "every fsync takes so many times as long as else"),
            Self::FullDisk => ("full-disk", "the disk has no room for values"),
            Self::Clock => ("clock", "the wall clock jumps by by_s"),
            Self::Leave => ("leave", "an operator has it hand over and leave"),
            Self::Remove => ("remove", "an operator says of one that was killed for good that it is gone"),
            Self::Join => ("join", "a spare one comes in, or one that had left or was killed for good"),
        }
    }

    /// Whether it takes a time: it must, it may, it must not.
    const fn lasts(self) -> Option<bool> {
        match self {
            Self::Kill | Self::Pause | Self::Cut | Self::Split | Self::Power => Some(true),
            Self::FailDisk | Self::SlowDisk | Self::FullDisk => Some(true),
            Self::Wipe => Some(false),
            Self::KillForGood | Self::Clock | Self::Leave | Self::Remove | Self::Join => None,
        }
    }
}

impl Timed {
    /// Something that happens so many seconds after the start, to these machines; the first one is 1.
    pub fn new(s: f64, act: Act, machines: impl IntoIterator<Item = usize>) -> Self {
        let machines = machines.into_iter().collect();
        Self { s, act, machines, for_s: None, clients: None, times: None, by_s: None, offset: None }
    }

    /// The same, for so many seconds.
    #[must_use]
    pub fn lasting(self, for_s: f64) -> Self {
        Self { for_s: Some(for_s), ..self }
    }

    /// When, in nanoseconds.
    pub(crate) fn at(&self) -> u64 {
        nanos(self.s)
    }

    /// How long, in nanoseconds.
    pub(crate) fn lasts(&self) -> u64 {
        nanos(self.for_s.unwrap_or(0.0))
    }

    /// All but whether there are such machines.
    fn fits(&self, end: f64) -> Result<(), String> {
        let name = self.act.told().0;
        if !(0.0..end).contains(&self.s) {
            return Err(format!("the run is from 0 to {end} s"));
        }
        match (self.act.lasts(), self.for_s) {
            (Some(true), None) => return Err(format!("{name} needs for_s: how many seconds it lasts")),
            (None, Some(_)) => return Err(format!("{name} takes no for_s")),
            (_, Some(last)) if !(last >= 0.0 && self.s + last <= end) => {
                return Err(format!("for_s is {last}: it is from 0 to {}, where the run ends", end - self.s));
            }
            _ => {}
        }
        match (self.act, self.clients, self.times, self.by_s) {
            (Act::SlowDisk, None, Some(times), None) if (1.0..=10_000.0).contains(&times) => {}
            (Act::SlowDisk, None, _, None) => return Err("slow-disk needs times, from 1 to 10000".into()),
            (Act::Clock, None, None, Some(by)) if by.abs() <= 31_536_000.0 => {}
            (Act::Clock, None, None, _) => {
                return Err("clock needs by_s: seconds from -31536000 to 31536000, a year".into());
            }
            (Act::Split, _, None, None) | (_, None, None, None) => {}
            _ => {
                return Err(
                    "clients is for split alone, times for slow-disk alone, by_s for clock alone".into()
                );
            }
        }
        if self.machines.is_empty() && self.act != Act::Power {
            return Err(format!("{name} needs machines: a list of numbers from 1"));
        }
        Ok(())
    }
}

fn nanos(s: f64) -> u64 {
    (s * SEC as f64) as u64
}

/// Machines that there must be besides the first `peers`: the last that joins.
pub(crate) fn machines(schedule: &[Timed], peers: usize) -> usize {
    let joins = schedule.iter().filter(|timed| timed.act == Act::Join);
    joins.flat_map(|timed| &timed.machines).copied().fold(peers, usize::max)
}

/// True of what can be, in a run of so many machines that ends then.
///
/// # Errors
/// The first that cannot be, by its place; and what could.
pub(crate) fn check(schedule: &[Timed], peers: usize, end: f64) -> Result<(), (usize, String)> {
    let wrong = |n: usize, what: String| {
        let Timed { s, act, .. } = &schedule[n];
        (n, format!("at {s} s, {}: {what}", act.told().0))
    };
    for (n, timed) in schedule.iter().enumerate() {
        timed.fits(end).map_err(|what| wrong(n, what))?;
    }
    // In the order in which they happen: what is not there yet, or no more, cannot be struck.
    let mut order: Vec<usize> = (0..schedule.len()).collect();
    order.sort_by(|a, b| schedule[*a].s.total_cmp(&schedule[*b].s));
    for (place, &n) in order.iter().enumerate() {
        for &m in &schedule[n].machines {
            let mut before = order[..place].iter().map(|&n| &schedule[n]).rev();
            let last = before.find(|timed| {
                let changes = matches!(timed.act, Act::Join | Act::Leave | Act::KillForGood);
                changes && timed.machines.contains(&m)
            });
            possible(schedule[n].act, m, last.map(|timed| timed.act), peers)
                .map_err(|what| wrong(n, what))?;
        }
    }
    Ok(())
}

/// Whether this can happen to this machine, to which that happened before.
fn possible(act: Act, m: usize, last: Option<Act>, peers: usize) -> Result<(), String> {
    let there = match last {
        Some(last) => last == Act::Join,
        None => m <= peers,
    };
    match act {
        _ if m == 0 || m > MOST => Err(format!("machine {m} is none: they are 1 to {peers}")),
        Act::Join if !there => Ok(()),
        Act::Join => Err(format!("machine {m} is in already: the spare ones are {} to {MOST}", peers + 1)),
        Act::Remove if last == Some(Act::KillForGood) => Ok(()),
        Act::Remove => Err(format!("machine {m} lives: it is to be killed for good before")),
        _ if there => Ok(()),
        _ if last == Some(Act::Leave) => Err(format!("machine {m} has left by then")),
        _ if last == Some(Act::KillForGood) => Err(format!("machine {m} is dead by then")),
        _ => Err(format!("machine {m} is none: they are 1 to {peers}, and those that join before")),
    }
}
