//! Faults by name, and how often each strikes a cluster of so many machines.

use rand::RngExt;
use rand::rngs::StdRng;
use serde::Deserialize;

use crate::faults::Profile;
use crate::{MS, SEC};

const HOUR: u64 = 3_600 * SEC;

/// A kind of fault that may be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A process dies, and is back within 20 s; each machine's once a day.
    Crash,
    /// All machines lose power at once, four times in the run.
    Power,
    /// A tenth of the machines stand still for 0.1 to 30 s, every ten minutes.
    Stall,
    /// A machine is cut off, one way or both, for up to 5 s; each once a day.
    Cut,
    /// Two camps, or a share of all links cut, for up to 20 s, eight times in the run.
    Partition,
    /// One message in a thousand is lost.
    Loss,
    /// One message in a hundred takes up to half a second, and is overtaken by others.
    Delay,
    /// One message in a thousand comes twice.
    Duplicate,
    /// One message in ten thousand comes again up to 30 s later.
    Replay,
    /// Clocks are up to 5 s off, and jump twice a day.
    Clock,
    /// One fsync in 200 takes up to a second.
    SlowDisk,
    /// An fsync fails and the process ends, with what it wrote still in memory; each machine's once a day.
    FailingDisk,
    /// A disk has no room for a second up to a minute; each machine's four times a day.
    FullDisk,
    /// A crash leaves some first part of what was not synced, not nothing.
    Torn,
    /// A restart finds one record in 500 unreadable.
    Rot,
    /// One message in 2,000 is followed by a forgery of it.
    Forge,
    /// All machines of a zone lose power at once, and are back together 12 to 120 s later; four times in the run.
    Zone,
}

impl Kind {
    /// All there are.
    pub const ALL: &[Self] = &[
        Self::Crash,
        Self::Power,
        Self::Stall,
        Self::Cut,
        Self::Partition,
        Self::Loss,
        Self::Delay,
        Self::Duplicate,
        Self::Replay,
        Self::Clock,
        Self::SlowDisk,
        Self::FailingDisk,
        Self::FullDisk,
        Self::Torn,
        Self::Rot,
        Self::Forge,
        Self::Zone,
    ];

    /// What there is in a data centre on an ordinary day.
    pub const USUAL: &[Self] = &[
        Self::Crash,
        Self::Stall,
        Self::Cut,
        Self::Loss,
        Self::Delay,
        Self::Duplicate,
        Self::Replay,
        Self::Clock,
        Self::SlowDisk,
        Self::Torn,
    ];

    /// What it is called, and what it does.
    pub const fn told(self) -> (&'static str, &'static str) {
        match self {
            Self::Crash => ("crash", "a process dies and is back within 20 s; each machine's once a day"),
            Self::Power => ("power", "all machines lose power at once, four times in the run"),
            Self::Stall => {
                ("stall", "a tenth of the machines stand still for 0.1 to 30 s, every ten minutes")
            }
            Self::Cut => ("cut", "a machine is cut off, one way or both, for up to 5 s; each once a day"),
            Self::Partition => {
                ("partition", "two camps, or a share of all links, for up to 20 s, eight times in the run")
            }
            Self::Loss => ("loss", "one message in a thousand is lost"),
            Self::Delay => {
                ("delay", "one message in a hundred takes up to half a second, and is overtaken by others")
            }
            Self::Duplicate => ("duplicate", "one message in a thousand comes twice"),
            Self::Replay => ("replay", "one message in ten thousand comes again up to 30 s later"),
            Self::Clock => ("clock", "clocks are up to 5 s off, and jump twice a day"),
            Self::SlowDisk => ("slow-disk", "one fsync in 200 takes up to a second"),
            Self::FailingDisk => (
                "failing-disk",
                "an fsync fails and the process ends, what it wrote still in memory; each once a day",
            ),
            Self::FullDisk => {
                ("full-disk", "a disk has no room for 1 to 60 s; each machine's four times a day")
            }
            Self::Torn => ("torn", "a crash leaves some first part of what was not synced, not nothing"),
            Self::Rot => ("rot", "a restart finds one record in 500 unreadable"),
            Self::Forge => ("forge", "one message in 2,000 is followed by a forgery of it"),
            Self::Zone => {
                ("zone", "all machines of a zone lose power at once for 12 to 120 s; four times in the run")
            }
        }
    }

    pub(crate) fn apply(self, p: &mut Profile) {
        let machines = p.machines.max(1) as u64;
        match self {
            Self::Crash => {
                p.crash_every = 24 * HOUR / machines;
                p.down_for = 20 * SEC;
            }
            Self::Power => {
                // Rather all of them now and then than each for itself.
                (p.crash_every, p.power_cut, p.down_for) = (p.span / 4, 1.0, 20 * SEC);
            }
            Self::Stall => p.stall_every = 600 * SEC / machines.div_ceil(10),
            Self::Cut => (p.cut_every, p.cut_for, p.cut_single) = (24 * HOUR / machines, 5 * SEC, true),
            Self::Partition => (p.cut_every, p.cut_for, p.cut_single) = (p.span / 8, 20 * SEC, false),
            Self::Loss => p.drop = 0.001,
            Self::Delay => (p.tail, p.tail_delay) = (0.01, 500 * MS),
            Self::Duplicate => p.duplicate = 0.001,
            Self::Replay => (p.replay, p.replay_delay) = (0.0001, 30 * SEC),
            Self::Clock => (p.skew, p.jump_every) = (5 * SEC, 12 * HOUR / machines),
            Self::SlowDisk => (p.slow_sync, p.slow_sync_for) = (0.005, SEC),
            Self::FailingDisk => (p.fail_every, p.down_for) = (24 * HOUR / machines, 20 * SEC),
            Self::FullDisk => p.full_every = 6 * HOUR / machines,
            Self::Torn => p.survive = 0.5,
            Self::Rot => p.rot = 0.002,
            Self::Forge => p.forge = 0.0005,
            // Where all stand in one, it is everybody: that is `power`.
            Self::Zone if p.zones < 3 => {}
            Self::Zone => (p.zone_every, p.zone_down) = (p.span / 4, 120 * SEC),
        }
    }
}

/// Some of all there are, as the seed draws them (swarm testing).
pub(crate) fn swarm(rng: &mut StdRng) -> Vec<Kind> {
    Kind::ALL.iter().copied().filter(|_| rng.random_bool(0.5)).collect()
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|kind| kind.told().0 == text);
        found.ok_or_else(|| {
            let all: Vec<&str> = Self::ALL.iter().map(|kind| kind.told().0).collect();
            format!("\"{text}\" is no fault: there are {}", all.join(", "))
        })
    }
}
