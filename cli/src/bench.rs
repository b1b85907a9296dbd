//! How fast the cluster is: closed loop, or open loop free of coordinated omission.
//!
//! Closed loop: so many clients, each sending its next operation when the last is answered. A cluster that
//! stalls is then asked less, and its stall is counted once. Open loop (`--rate`): operations have an intended
//! start each, whatever the cluster does, and latency is measured from it: whoever waits in line, waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ennead::client::Client;
use ennead::units::{show_duration, show_size};
use ennead_ring::quorum_of;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::json;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use crate::args::{Bench, Global};
use crate::failure::Failure;
use crate::measure::{HEAD, Measured};
use crate::output::{Colour, Output, table};
use crate::{Verdict, connect_for};

/// Keys written before the clock starts, at most: gets choose among them, so that each finds a value.
const PRELOAD: u64 = 10_000;
/// Longest value, in bytes.
const MAX_VALUE: u64 = 8 << 20;
/// Between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// Measures, and prints what was found; "no" if any operation failed.
pub(crate) async fn run(args: Bench, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    if args.value_size > MAX_VALUE {
        return Err(Failure::Usage(format!("--value-size: at most {}", show_size(MAX_VALUE))));
    }
    if args.keys == 0 {
        return Err(Failure::Usage("--keys: at least 1".to_string()));
    }
    // Each of these clients waits for its answer: none is refused for what the others have under way.
    let client = connect_for(global, args.clients as usize).await?;
    let view = client.view().await?;
    let (copies, quorum) = (view.slots(), quorum_of(view.slots()));
    let load = Arc::new(Load {
        client,
        keys: args.keys,
        reads: args.reads,
        value_size: args.value_size as usize,
        written: args.keys.min(PRELOAD),
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });

    output.progress("writing the first keys");
    preload(&load, args.clients).await?;
    let (began, hedged) = (Instant::now(), load.client.hedged_reads());
    let until = began + Duration::from_secs(args.seconds.into());
    let workers = match args.rate {
        None => closed_loop(&load, args.clients),
        Some(rate) => open_loop(&load, args.clients, rate, began, until),
    };
    let finished = watch(&load, workers, began, until, output).await;
    let seconds = began.elapsed().as_secs_f64();
    output.progress("");
    let hedged = load.client.hedged_reads() - hedged;

    let (mut puts, mut gets) = (Measured::new(), Measured::new());
    let (mut behind, mut unstarted) = (0, 0);
    for result in &finished {
        puts.merge(&result.puts);
        gets.merge(&result.gets);
        behind += result.behind;
        unstarted += result.unstarted;
    }
    let mut both = puts.clone();
    both.merge(&gets);
    if output.json {
        let mut object = both.to_json(seconds);
        object["durability"] = json!("fsync");
        object["copies"] = json!(copies);
        object["quorum"] = json!(quorum);
        object["clients"] = json!(args.clients);
        object["value_size"] = json!(args.value_size);
        object["rate"] = json!(args.rate);
        object["started_late"] = json!(behind);
        object["never_started"] = json!(unstarted);
        object["hedged_gets"] = json!(hedged);
        object["puts"] = puts.to_json(seconds);
        object["gets"] = gets.to_json(seconds);
        object["first_error"] = json!(both.first_error);
        output.print_json(&object)?;
    } else {
        let how = match args.rate {
            None => format!("{} clients, each waiting for its answer", args.clients),
            Some(rate) => format!("{rate} operations a second, measured from their intended start"),
        };
        let rows: Vec<_> = std::iter::once(HEAD.map(String::from).to_vec())
            .chain([puts.row("puts", seconds), gets.row("gets", seconds), both.row("both", seconds)])
            .collect();
        output.data(table(&rows).as_bytes())?;
        output.line(&format!(
            "\n{how}; values of {}, {} keys, the first {} of them read; {}",
            show_size(args.value_size),
            args.keys,
            args.keys.min(PRELOAD),
            show_duration(Duration::from_secs_f64(seconds))
        ))?;
        output.line(&format!(
            "{copies} copies; a put is answered when {quorum} have it on disk (fsync), a get when {quorum} agree"
        ))?;
        output.line(&format!(
            "{hedged} gets asked more machines than they needed, as the first were slow or did not agree"
        ))?;
        if behind + unstarted > 0 {
            let text = format!(
                "{behind} operations started late and {unstarted} never: all {} clients were waiting",
                args.clients
            );
            output.line(&output.paint(Colour::Yellow, &text))?;
        }
        if let Some(error) = &both.first_error {
            output.line(&output.paint(Colour::Red, &format!("first error: {error}")))?;
        }
    }
    Ok(if both.errors == 0 { Verdict::Yes } else { Verdict::No })
}

/// What all workers share.
struct Load {
    client: Client,
    keys: u64,
    reads: f64,
    value_size: usize,
    /// Keys below this were written before the clock started: what gets choose among.
    written: u64,
    done: AtomicU64,
    stop: AtomicBool,
}

/// What one worker found.
struct Found {
    puts: Measured,
    gets: Measured,
    /// Operations that nobody was free to start at their time.
    behind: u64,
    /// Operations whose time came and that were never started: the cluster cannot keep up.
    unstarted: u64,
}

impl Found {
    fn new() -> Self {
        Self { puts: Measured::new(), gets: Measured::new(), behind: 0, unstarted: 0 }
    }
}

fn key(index: u64) -> String {
    format!("bench/{index}")
}

impl Load {
    /// One operation; its latency counts from `from`.
    async fn one(&self, rng: &mut SmallRng, value: &mut [u8], from: Instant, found: &mut Found) {
        if rng.random_bool(self.reads) {
            let key = key(rng.random_range(0..self.written));
            let result = match self.client.get(&key).await {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err(format!("{key} was written and has no value")),
                Err(e) => Err(e.to_string()),
            };
            found.gets.add(result, from.elapsed());
        } else {
            // Random bytes: nothing on the way can be compressed away.
            rng.fill_bytes(value);
            let result = self.client.put(key(rng.random_range(0..self.keys)), &*value).await;
            found.puts.add(result.map(drop).map_err(|e| e.to_string()), from.elapsed());
        }
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes the first keys, so that gets have something to find.
async fn preload(load: &Arc<Load>, clients: u32) -> Result<(), Failure> {
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..clients.min(64) {
        let (load, next) = (load.clone(), next.clone());
        workers.spawn(async move {
            let mut value = vec![0; load.value_size];
            SmallRng::from_rng(&mut rand::rng()).fill_bytes(&mut value);
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= load.written {
                    return Ok(());
                }
                load.client.put(key(index), &value).await?;
            }
        });
    }
    for result in workers.join_all().await {
        result.map_err(Failure::Client)?;
    }
    Ok(())
}

/// Each client waits for its answer before it asks again.
fn closed_loop(load: &Arc<Load>, clients: u32) -> JoinSet<Found> {
    let mut workers = JoinSet::new();
    for _ in 0..clients {
        let load = load.clone();
        workers.spawn(async move {
            let (mut rng, mut value) = (SmallRng::from_rng(&mut rand::rng()), vec![0; load.value_size]);
            let mut found = Found::new();
            while !load.stop.load(Ordering::Relaxed) {
                load.one(&mut rng, &mut value, Instant::now(), &mut found).await;
            }
            found
        });
    }
    workers
}

/// Operation `i` is to start at `began + i / rate`, come what may.
fn open_loop(load: &Arc<Load>, clients: u32, rate: u64, began: Instant, until: Instant) -> JoinSet<Found> {
    // An open loop: what is late is what is measured, so that it is kept until it is done.
    let (starts, queue) = mpsc::unbounded_channel();
    // A thread of its own: the runtime's timers are a millisecond coarse, more than a get takes.
    std::thread::spawn(move || {
        for i in 0u64.. {
            let start =
                began + Duration::from_nanos((u128::from(i) * 1_000_000_000 / u128::from(rate)) as u64);
            if start >= until {
                return;
            }
            std::thread::sleep(start.saturating_duration_since(Instant::now()));
            if starts.send(start).is_err() {
                return;
            }
        }
    });
    let queue = Arc::new(Mutex::new(queue));
    let mut workers = JoinSet::new();
    for _ in 0..clients {
        let (load, queue) = (load.clone(), queue.clone());
        workers.spawn(async move {
            let (mut rng, mut value) = (SmallRng::from_rng(&mut rand::rng()), vec![0; load.value_size]);
            let mut found = Found::new();
            loop {
                // The guard goes before the operation begins, for the next worker.
                let next = queue.lock().await.recv().await;
                let Some(start) = next else { return found };
                if load.stop.load(Ordering::Relaxed) {
                    found.unstarted += 1;
                    continue;
                }
                if start.elapsed() > Duration::from_millis(1) {
                    found.behind += 1;
                }
                load.one(&mut rng, &mut value, start, &mut found).await;
            }
        });
    }
    workers
}

/// Shows progress until the time is over, then waits for what is under way.
async fn watch(
    load: &Load,
    workers: JoinSet<Found>,
    began: Instant,
    until: Instant,
    output: &mut Output,
) -> Vec<Found> {
    let mut before = 0;
    while Instant::now() < until {
        tokio::time::sleep(PROGRESS_EVERY.min(until.saturating_duration_since(Instant::now()))).await;
        let done = load.done.load(Ordering::Relaxed);
        let rate = (done - before) as f64 / PROGRESS_EVERY.as_secs_f64();
        output.progress(&format!("{:>4.0} s  {rate:.0} operations a second", began.elapsed().as_secs_f64()));
        before = done;
    }
    load.stop.store(true, Ordering::Relaxed);
    workers.join_all().await
}
