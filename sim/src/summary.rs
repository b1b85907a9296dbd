//! A run in a few figures, for programs.

use serde::Serialize;

use crate::SEC;
use crate::measure::Metrics;
use crate::report::{Failure, Report};
use crate::scenario::Scenario;

/// What `kvctl sim --json` prints.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Summary {
    /// By which the run is met again.
    pub seed: u64,
    /// Machines.
    pub peers: usize,
    /// Seconds in the world.
    pub virtual_s: f64,
    /// Seconds outside.
    pub wall_s: f64,
    /// Seconds of the processor.
    pub cpu_s: f64,
    /// Calls of the workload.
    pub ops: u64,
    /// Of those, answered.
    pub ok: u64,
    /// Of those, not answered within their deadline, or told that nothing was changed.
    pub failed: u64,
    /// Every key was one register.
    pub linearizable: bool,
    /// Acknowledged writes that were lost: none, or as many as were missed before the run ended.
    pub lost_acked: u64,
    /// Machines that came into the ring.
    pub joins: u64,
    /// Machines that handed over and left.
    pub leaves: u64,
    /// Processes that died.
    pub crashes: u64,
    /// Machines that lost their disks, or died for good.
    pub lost: u64,
    /// More of them at once than may be: then acknowledged writes may be lost, and nothing says that they were not.
    pub overdrawn: bool,
    /// Views after the first.
    pub views: u64,
    /// From death to agreed suspicion.
    pub detect_ms: Quantiles,
    /// Machines that lived and were dropped.
    pub false_evictions: u64,
    /// Bytes that machines took in of each other.
    pub bytes_moved: u64,
    /// Bytes of what they came to own.
    pub bytes_minimum: u64,
    /// Two runs alike have the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What did not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Half of them were no longer than this, and 99 of a hundred no longer than that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Quantiles {
    /// The median.
    pub p50: Option<u64>,
    /// 99 of a hundred.
    pub p99: Option<u64>,
}

impl Summary {
    /// Of a run that took so long.
    pub fn of(scenario: &Scenario, result: &Result<Report, Failure>, wall_s: f64, cpu_s: f64) -> Self {
        let (metrics, virtual_time): (&Metrics, u64) = match result {
            Ok(report) => (&report.metrics, report.virtual_time),
            Err(failure) => (&failure.metrics, failure.at),
        };
        let failure = result.as_ref().err().map(|failure| failure.what.clone());
        let evicted = metrics.false_evictions;
        let failure = failure.or_else(|| {
            (evicted > 0 && !scenario.keeps_somebody_silent())
                .then(|| format!("V7: machines that lived and were dropped: {evicted}"))
        });
        let says = |claim: &str| failure.as_ref().is_some_and(|what| what.starts_with(claim));
        let last = metrics.samples.last();
        let counted = result.as_ref().ok().map(|report| report.counts);
        Self {
            seed: scenario.seed,
            peers: scenario.peers,
            virtual_s: virtual_time as f64 / SEC as f64,
            wall_s,
            cpu_s,
            ops: metrics.ok + metrics.failed,
            ok: metrics.ok,
            failed: metrics.failed,
            linearizable: !says("claim 1"),
            lost_acked: u64::from(says("claim 2")),
            joins: metrics.joins,
            leaves: metrics.leaves,
            crashes: counted.map_or(last.map_or(0, |s| s.crashes), |c| c.crashes),
            lost: metrics.lost,
            overdrawn: metrics.overdrawn,
            views: counted.map_or(last.map_or(0, |s| s.views), |c| c.views),
            detect_ms: Quantiles { p50: metrics.detect_ms(0.5), p99: metrics.detect_ms(0.99) },
            false_evictions: metrics.false_evictions,
            bytes_moved: metrics.bytes_moved,
            bytes_minimum: metrics.bytes_minimum,
            digest: result.as_ref().ok().map(|report| format!("{:016x}", report.digest)),
            failure,
        }
    }
}
