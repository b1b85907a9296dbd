//! Who took the computer's processors, as the system tells; all zeros where it does not.

use std::fmt;

/// Hundredths of a second, since the start of each.
#[derive(Clone, Copy)]
pub(crate) struct Used {
    generator: u64,
    machines: u64,
    /// Of all processors: busy with whatever, and in all.
    busy: u64,
    all: u64,
}

/// User and system time of a process.
fn of(process: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // After the name, which may hold anything.
    let rest = text.rsplit(')').next().unwrap_or_default();
    rest.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum()
}

impl Used {
    pub(crate) fn now(machines: impl Iterator<Item = u32>) -> Self {
        let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let first = text.lines().next().unwrap_or_default();
        // user nice system idle iowait irq softirq steal; what guests take is in user.
        let times: Vec<u64> =
            first.split_whitespace().skip(1).take(8).filter_map(|n| n.parse().ok()).collect();
        let all = times.iter().sum();
        let idle: u64 = times.iter().skip(3).take(2).sum();
        Self {
            generator: of("self"),
            machines: machines.map(|id| of(&id.to_string())).sum(),
            busy: all - idle,
            all,
        }
    }

    pub(crate) fn since(self, before: &Self) -> Self {
        Self {
            generator: self.generator.saturating_sub(before.generator),
            machines: self.machines.saturating_sub(before.machines),
            busy: self.busy.saturating_sub(before.busy),
            all: self.all.saturating_sub(before.all),
        }
    }
}

impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |of: u64| of as f64 / self.all.max(1) as f64 * 100.0;
        write!(
            f,
            "of the processors' time the generator took {:.0} %, the machines {:.0} %, others and the system {:.0} %, \
             nobody {:.0} %",
            share(self.generator),
            share(self.machines),
            share(self.busy.saturating_sub(self.generator + self.machines)),
            share(self.all.saturating_sub(self.busy)),
        )
    }
}
