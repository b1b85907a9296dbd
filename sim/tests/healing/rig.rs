//! A cluster as these tests want it: a quiet network, clients that go on, and what is asked of a run that went well.

use ennead_sim::{Call, Called, Profile, Reply, Report, SEC, Timed, run};

use ennead_ring::node::PROBE_EVERY;

/// How long a client waits for an answer, in all.
const DEADLINE: u64 = 2 * SEC;

/// A run. Times are in seconds.
pub(crate) struct Rig {
    pub(crate) founders: usize,
    pub(crate) machines: usize,
    pub(crate) keys: usize,
    pub(crate) value_size: usize,
    pub(crate) clients: usize,
    /// Operations a second, all in all.
    pub(crate) rate: f64,
    /// Of 100: reads of one copy.
    pub(crate) ones: u32,
    pub(crate) span: f64,
    /// How long machines wait before they drop one.
    pub(crate) patience: f64,
    pub(crate) schedule: Vec<Timed>,
    pub(crate) surveys: Vec<f64>,
}

impl Default for Rig {
    fn default() -> Self {
        Self {
            founders: 9,
            machines: 9,
            keys: 40,
            value_size: 64,
            clients: 4,
            rate: 25.0,
            ones: 0,
            span: 60.0,
            patience: 30.0,
            schedule: Vec::new(),
            surveys: Vec::new(),
        }
    }
}

impl Rig {
    fn profile(&self) -> Profile {
        let nanos = |s: f64| (s * SEC as f64) as u64;
        let mut p = Profile::calm();
        (p.founders, p.machines, p.fewest, p.weight) = (self.founders, self.machines, 1, 16);
        (p.born, p.endless, p.hints, p.stray, p.survive) = (true, true, 0.0, 0.0, 0.0);
        (p.tuning.probe_every, p.tuning.patience) = (PROBE_EVERY, nanos(self.patience));
        (p.keys, p.value_size) = (self.keys, self.value_size);
        (p.clients, p.think) = (self.clients, nanos(2.0 * self.clients as f64 / self.rate));
        (p.ones, p.deadline) = (self.ones, DEADLINE);
        p.span = nanos(self.span);
        p.schedule.clone_from(&self.schedule);
        p.surveys = self.surveys.iter().copied().map(nanos).collect();
        p
    }

    /// Every key was one register, nothing acknowledged was lost, every claim held, and in the end all copies were alike.
    pub(crate) fn run(&self, seed: u64) -> Report {
        run(seed, |_| self.profile(), false).unwrap_or_else(|failure| panic!("{failure} (of this test)"))
    }
}

/// Calls that ended between these times.
pub(crate) fn calls(report: &Report, from: f64, until: f64) -> impl Iterator<Item = &Called> {
    report.calls.iter().filter(move |called| {
        let ended = called.at as f64 / SEC as f64;
        (from..until).contains(&ended)
    })
}

/// What came of some calls.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Sums {
    /// Reads of one copy that were answered.
    pub(crate) ones: usize,
    /// Those that were not.
    pub(crate) ones_failed: usize,
    /// Other calls that were.
    pub(crate) answered: usize,
    /// Writes that were told "no quorum" before anything else, within their deadline.
    pub(crate) too_few: usize,
    /// Writes that were not answered, those included.
    pub(crate) writes_failed: usize,
    /// Calls that were not, those included.
    pub(crate) failed: usize,
}

/// Of calls that ended between these times, those of clients that are so.
pub(crate) fn sums(report: &Report, from: f64, until: f64, who: impl Fn(usize) -> bool) -> Sums {
    let mut sums = Sums::default();
    for called in calls(report, from, until).filter(|called| who(called.client)) {
        let failed = matches!(called.reply, Reply::Unknown | Reply::Never);
        sums.failed += usize::from(failed);
        let write = called.call != Call::Get;
        sums.writes_failed += usize::from(failed && write);
        let too_few = called.refused.is_some_and(|(word, after)| word == "no quorum" && after <= DEADLINE);
        sums.too_few += usize::from(failed && write && too_few);
        sums.ones += usize::from(called.one && !failed);
        sums.ones_failed += usize::from(called.one && failed);
        sums.answered += usize::from(!called.one && !failed);
    }
    sums
}
