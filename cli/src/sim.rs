//! A cluster in one thread, for hours or days of its own time: what would become of it, in figures.

use std::fs;
use std::time::{Duration, Instant};

use ennead_sim::{Failure as Broken, Metrics, Report, Scenario, Summary, run_telling, timeline};
use serde_json::json;

use crate::Verdict;
use crate::args::{Sim, SimCli};
use crate::failure::Failure;
use crate::output::Output;

/// How often a line of progress is written.
const TELL: Duration = Duration::from_millis(250);

/// Runs it, and tells what came of it. Exit code 1 if a claim did not hold.
pub(crate) fn run(cli: SimCli, output: &mut Output) -> Result<Verdict, Failure> {
    let scenario = scenario(&cli)?;
    let begun = Instant::now();
    let before = cpu();
    let mut told = begun;
    let hours = scenario.hours;
    let result = run_telling(scenario.seed, |rng| scenario.profile(rng), false, &mut |metrics| {
        if told.elapsed() >= TELL {
            told = Instant::now();
            output.progress(&progress(metrics, hours, begun.elapsed()));
        }
    });
    output.progress("");
    let summary =
        Summary::of(&scenario, &result, begun.elapsed().as_secs_f64(), (cpu() - before).as_secs_f64());
    if let Some(path) = &cli.sim.svg {
        let picture = timeline::svg(&title(&scenario), metrics(&result));
        fs::write(path, picture).map_err(|e| {
            Failure::Usage(format!("the run is over, but {} cannot be written: {e}", path.display()))
        })?;
    }
    if output.json {
        output.print_json(&json!(summary))?;
    } else {
        output.data(text(&scenario, &summary).as_bytes())?;
    }
    Ok(if summary.failure.is_none() { Verdict::Yes } else { Verdict::No })
}

/// The file, and what flags say besides.
fn scenario(cli: &SimCli) -> Result<Scenario, Failure> {
    let Sim { hours, churn, keys, seed, faults, rate, scenario, .. } = &cli.sim;
    let mut all = match scenario {
        None => Scenario::default(),
        Some(path) => {
            let text = fs::read_to_string(path)
                .map_err(|e| Failure::Usage(format!("cannot read {}: {e}", path.display())))?;
            Scenario::parse(&text).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))?
        }
    };
    all.peers = cli.peers.unwrap_or(all.peers);
    all.hours = hours.unwrap_or(all.hours);
    all.churn = churn.unwrap_or(all.churn);
    all.keys = keys.map_or(all.keys, |keys| usize::try_from(keys).unwrap_or(usize::MAX));
    all.seed = seed.unwrap_or(all.seed);
    all.workload.rate = rate.unwrap_or(all.workload.rate);
    if let Some(faults) = faults {
        all.faults = faults.clone();
    }
    all.check().map_err(Failure::Usage)?;
    Ok(all)
}

fn metrics(result: &Result<Report, Broken>) -> &Metrics {
    match result {
        Ok(report) => &report.metrics,
        Err(broken) => &broken.metrics,
    }
}

/// Time of the processor that this thread has taken.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn progress(metrics: &Metrics, hours: f64, spent: Duration) -> String {
    let Some(last) = metrics.samples.last() else { return String::new() };
    let now = last.at as f64 / 1e9;
    let share = (now / (hours * 3_600.0)).min(1.0);
    let left = spent.as_secs_f64() * (1.0 - share) / share.max(1e-9);
    format!(
        "{:3.0} %  {}  {} up, {} members, {} suspected  {} views, {} crashes  {} ok, {} failed  {:.0} to 1, {:.0} s left",
        100.0 * share,
        clock(now),
        last.up,
        last.members,
        last.suspects,
        last.views,
        last.crashes,
        last.ok,
        last.failed,
        now / spent.as_secs_f64().max(1e-9),
        left
    )
}

fn clock(seconds: f64) -> String {
    let seconds = seconds as u64;
    format!("{}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

fn title(scenario: &Scenario) -> String {
    let Scenario { peers, hours, seed, churn, .. } = scenario;
    format!("{peers} machines, {hours} h, {churn} changes of the membership an hour, seed {seed}")
}

fn text(scenario: &Scenario, s: &Summary) -> String {
    let ms = |ms: Option<u64>| ms.map_or("none died".to_string(), |ms| format!("{ms} ms"));
    let share = |part: u64, of: u64| if of == 0 { 100.0 } else { 100.0 * part as f64 / of as f64 };
    let moved = match s.bytes_minimum {
        0 => format!("{} bytes", s.bytes_moved),
        least => {
            format!("{} bytes, {:.2} times the least", s.bytes_moved, s.bytes_moved as f64 / least as f64)
        }
    };
    let held = match &s.failure {
        None if s.overdrawn => {
            "every key linearizable, one chain of views; MORE MACHINES WERE LOST than may be at once, \
                                and with them what only they held"
                .to_string()
        }
        None => "every key linearizable, nothing acknowledged lost, one chain of views, all copies alike"
            .to_string(),
        Some(what) => format!("DOES NOT HOLD: {what}"),
    };
    let digest = s.digest.as_ref().map_or(String::new(), |digest| format!(", digest {digest}"));
    let Scenario { peers, hours, seed, .. } = scenario;
    format!(
        "{held}\n\
         {peers} machines for {hours} h: {:.0} s in {:.1} s ({:.1} of the processor), {:.0} to 1\n\
         operations   {} of {} answered, {:.3} %\n\
         membership   {} came, {} left, {} lost; {} views; {} crashes\n\
         detection    half within {}, 99 of 100 within {}; {} dropped that lived\n\
         moved        {moved}\n\
         seed         {seed}{digest}\n",
        s.virtual_s,
        s.wall_s,
        s.cpu_s,
        s.virtual_s / s.cpu_s.max(1e-9),
        s.ok,
        s.ops,
        share(s.ok, s.ops),
        s.joins,
        s.leaves,
        s.lost,
        s.views,
        s.crashes,
        ms(s.detect_ms.p50),
        ms(s.detect_ms.p99),
        s.false_evictions,
    )
}
