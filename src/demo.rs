//! `ennead demo`: nine peers, a thousand keys, four killed, nothing lost. For a person to watch.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ennead::client::{Client, Error};
use ennead::cluster::{Base, Cluster, ClusterError, Options};
use ennead::units::show_duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::{FAILED, NOT_STARTED, complain};

/// The key of the seed talk, which the story follows.
const KEY: &str = "mail-23412";
/// Keys beside it.
const MORE_KEYS: usize = 1_000;
/// Operations under way at once.
const AT_ONCE: usize = 32;
/// Keys that are written and read without a pause while machines die, to see the longest gap.
const PROBES: usize = 8;
/// Machines to kill: what nine slots can bear.
const VICTIMS: usize = 4;
/// How long the peers may take to find each other.
const START_WITHIN: Duration = Duration::from_secs(30);
/// The deadline of each operation.
const DEADLINE: Duration = Duration::from_secs(5);

/// Why the demo broke off.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("the client cannot reach the cluster: {0}")]
    Client(#[from] Error),
    #[error("cannot make a temporary folder: {0}")]
    Folder(std::io::Error),
    #[error("cannot find this program: {0}")]
    Program(std::io::Error),
}

/// Tells the story; success only if all of it held.
pub(crate) async fn run() -> ExitCode {
    let (mut interrupt, mut terminate) =
        match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
            (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
            (Err(e), _) | (_, Err(e)) => return complain(NOT_STARTED, &e),
        };
    let broken_off = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    // Dropped in either case: the peers end with it, and the temporary folder goes.
    let told = tokio::select! {
        told = story() => told,
        () = broken_off => {
            println!("\nbroken off; the peers are stopped");
            return ExitCode::from(FAILED);
        }
    };
    match told {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(e) => {
            println!();
            let code = if matches!(e, DemoError::Client(_)) { FAILED } else { NOT_STARTED };
            complain(code, &e)
        }
    }
}

async fn story() -> Result<bool, DemoError> {
    let began = Instant::now();
    let folder = tempfile::Builder::new().prefix("ennead-demo-").tempdir().map_err(DemoError::Folder)?;
    let program: PathBuf = std::env::current_exe().map_err(DemoError::Program)?;
    let dir = folder.path().to_path_buf();
    let options = Options { program, dir, peers: Some(9), base: Base::local(), flags: Vec::new() };

    let mut cluster = Cluster::prepare(options)?;
    let names = cluster.names();
    step(&format!("Nine peers, each a process with its own disk folder: {} to {}", names[0], names[8]));
    let starting = Instant::now();
    cluster.start_all()?;
    cluster.wait_until_up(START_WITHIN).await?;
    let start_time = starting.elapsed();
    done(&format!("up in {}", show_duration(start_time)));

    let client = cluster.client(DEADLINE).await?;
    let keys: Arc<Vec<String>> = Arc::new(
        std::iter::once(KEY.to_string()).chain((1..=MORE_KEYS).map(|i| format!("key-{i}"))).collect(),
    );
    let mut phases = Vec::new();

    step(&format!("Storing {KEY} and {MORE_KEYS} more keys, each on nine disks, five before we say so"));
    phases.push(Phase::run("stored, nine up", &client, &keys, Job::Write(1)).await);
    done(&phases[0].told());

    step("Reading each from five copies in parallel");
    phases.push(Phase::run("read, nine up", &client, &keys, Job::Read(1)).await);
    done(&phases[1].told());

    // The owners of the key's first slots, its coordinator among them: the worst four for this key.
    let owners = client.locate(KEY).await?;
    let victims: Vec<usize> = owners.iter().filter_map(|l| cluster.index_of(l.owner)).take(VICTIMS).collect();
    let told: Vec<String> = victims.iter().map(|&i| names[i].to_string()).collect();
    step(&format!("kill -9 for four: {}, the owners of slots 1 to 4 of {KEY}", told.join(", ")));
    let probes = Probes::start(&client, &keys);
    tokio::time::sleep(Duration::from_millis(500)).await;
    victims.iter().for_each(|&i| cluster.kill(i));
    done("killed, while eight keys are being written and read without a pause");

    step("Reading everything again, then writing everything again, on the five that are left");
    phases.push(Phase::run("read, four killed", &client, &keys, Job::Read(1)).await);
    phases.push(Phase::run("written, four killed", &client, &keys, Job::Write(2)).await);
    done(&format!("{}; {}", phases[2].told(), phases[3].told()));

    step("Starting the four again, on the disks they left");
    let restarting = Instant::now();
    victims.iter().try_for_each(|&i| cluster.start(i))?;
    cluster.wait_until_up(START_WITHIN).await?;
    done(&format!("up in {}", show_duration(restarting.elapsed())));

    step("Checking everything once more");
    phases.push(Phase::run("checked, nine again", &client, &keys, Job::Read(2)).await);
    done(&phases[4].told());
    let (probed, longest_gap) = probes.finish().await;
    phases.push(probed);

    step("Shutting down in order");
    let unclean = cluster.stop().await;
    match unclean.as_slice() {
        [] => done("all nine ended well"),
        some => done(&format!("{} did not end well: {some:?}", some.len())),
    }

    println!("\n{:<26} {:>7} {:>7} {:>9} {:>9} {:>9}", "", "ops", "failed", "time", "median", "slowest");
    phases.iter().for_each(Phase::print);
    let (ops, failed) = phases.iter().fold((0, 0), |(o, f), p| (o + p.ops, f + p.failures.len()));
    println!("{:<26} {ops:>7} {failed:>7} {:>9}", "together", show_duration(began.elapsed()));
    println!("\nstart of nine peers        {}", show_duration(start_time));
    println!(
        "longest gap for a key      {} without a success, over the kill and the return",
        show_duration(longest_gap)
    );
    for failure in phases.iter().flat_map(|p| &p.failures).take(5) {
        println!("failed: {failure}");
    }
    let held = failed == 0 && unclean.is_empty();
    match held {
        true => println!("\nNothing failed, nothing was lost."),
        false => {
            println!("\nIt did not hold: {failed} operations failed, {} peers ended badly.", unclean.len())
        }
    }
    Ok(held)
}

/// Says what is about to happen.
fn step(what: &str) {
    println!("\n{what}");
    let _ = std::io::stdout().flush();
}

/// Says what came of it.
fn done(what: &str) {
    println!("  {what}");
}

/// What is done to each key.
#[derive(Clone, Copy)]
enum Job {
    /// Write the value of this round.
    Write(u32),
    /// Read, and find the value of this round.
    Read(u32),
}

fn value(key: &str, round: u32) -> String {
    format!("{key} in round {round}")
}

async fn carry_out(client: &Client, key: &str, job: Job) -> Result<(), String> {
    match job {
        Job::Write(round) => {
            client.put(key, value(key, round)).await.map(drop).map_err(|e| format!("put {key}: {e}"))
        }
        Job::Read(round) => match client.get(key).await {
            Ok(Some(record)) if *record.value == *value(key, round).as_bytes() => Ok(()),
            Ok(Some(record)) => Err(format!("get {key}: version {} has another value", record.version)),
            Ok(None) => Err(format!("get {key}: no value, and one was acknowledged")),
            Err(e) => Err(format!("get {key}: {e}")),
        },
    }
}

/// Many operations, and what came of them.
struct Phase {
    name: &'static str,
    ops: usize,
    failures: Vec<String>,
    took: Duration,
    latencies: Vec<Duration>,
}

impl Phase {
    /// Does one job to every key, [`AT_ONCE`] at a time.
    async fn run(name: &'static str, client: &Client, keys: &Arc<Vec<String>>, job: Job) -> Self {
        let began = Instant::now();
        let next = Arc::new(AtomicUsize::new(0));
        let mut workers = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (client, keys, next) = (client.clone(), keys.clone(), next.clone());
            workers.spawn(async move {
                let mut results = Vec::new();
                while let Some(key) = keys.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let start = Instant::now();
                    let result = carry_out(&client, key, job).await;
                    results.push((start.elapsed(), result));
                }
                results
            });
        }
        Self::sum(name, began, workers.join_all().await.into_iter().flatten())
    }

    fn sum(
        name: &'static str,
        began: Instant,
        results: impl Iterator<Item = (Duration, Result<(), String>)>,
    ) -> Self {
        let (mut latencies, mut failures) = (Vec::new(), Vec::new());
        for (latency, result) in results {
            latencies.push(latency);
            failures.extend(result.err());
        }
        latencies.sort();
        Self { name, ops: latencies.len(), failures, took: began.elapsed(), latencies }
    }

    fn median(&self) -> Duration {
        self.latencies.get(self.latencies.len() / 2).copied().unwrap_or_default()
    }

    fn told(&self) -> String {
        let rate = self.ops as f64 / self.took.as_secs_f64().max(1e-9);
        format!("{} {}, {} failed, {rate:.0} a second", self.ops, self.name, self.failures.len())
    }

    fn print(&self) {
        let slowest = self.latencies.last().copied().unwrap_or_default();
        println!(
            "{:<26} {:>7} {:>7} {:>9} {:>9} {:>9}",
            self.name,
            self.ops,
            self.failures.len(),
            show_duration(self.took),
            show_duration(self.median()),
            show_duration(slowest),
        );
    }
}

/// How long each operation took and how it ended; the longest time without a success.
type Probed = (Vec<(Duration, Result<(), String>)>, Duration);

/// Keys written and read without a pause while machines die and return.
struct Probes {
    began: Instant,
    stop: Arc<AtomicBool>,
    workers: JoinSet<Probed>,
}

impl Probes {
    /// One worker per key. The keys are the probes' own: nobody else's write disturbs what they read.
    fn start(client: &Client, keys: &Arc<Vec<String>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for key in keys.iter().take(PROBES) {
            let (client, stop, key) = (client.clone(), stop.clone(), format!("probe-{key}"));
            workers.spawn(async move {
                let mut results = Vec::new();
                let (mut last_success, mut longest) = (Instant::now(), Duration::ZERO);
                for round in 0.. {
                    for job in [Job::Write(round), Job::Read(round)] {
                        let start = Instant::now();
                        let result = carry_out(&client, &key, job).await;
                        if result.is_ok() {
                            longest = longest.max(last_success.elapsed());
                            last_success = Instant::now();
                        }
                        results.push((start.elapsed(), result));
                    }
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // Eight keys without a pause would starve the thousand of the two cores we may have.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                (results, longest.max(last_success.elapsed()))
            });
        }
        Self { began: Instant::now(), stop, workers }
    }

    /// What came of it, and the longest time that one of the keys was without a success.
    async fn finish(self) -> (Phase, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let (results, gaps): (Vec<_>, Vec<_>) = self.workers.join_all().await.into_iter().unzip();
        let phase = Phase::sum("eight keys throughout", self.began, results.into_iter().flatten());
        (phase, gaps.into_iter().max().unwrap_or_default())
    }
}
