//! Ten times more is asked than can be done: how much is done, and how soon latency is usual again.
//!
//! Real processes on loopback addresses, and clients in this one, which take their part of the processors: the peak is
//! measured with the same clients. `--machines 3`, `--seconds 5` a phase, `--times 10`.
#![allow(missing_docs, clippy::print_stdout)]

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ennead::Client;
use ennead::client::Error;
use ennead::cluster::{Base, Cluster, Options};
use tokio::task::JoinSet;

/// Clients, each with connections of its own.
const CLIENTS: usize = 8;
/// Operations under way while the peak is measured, and while latency is.
const BUSY: usize = 256;
const CALM: usize = 8;
const KEYS: u64 = 10_000;

#[derive(Default)]
struct Came {
    ok: AtomicU64,
    overloaded: AtomicU64,
    other: AtomicU64,
    took: Mutex<Vec<Duration>>,
}

impl Came {
    /// What is known so far, and forgets it.
    fn take(&self) -> ([u64; 3], Vec<Duration>) {
        let counts = [&self.ok, &self.overloaded, &self.other].map(|n| n.swap(0, Relaxed));
        let mut took = std::mem::take(&mut *self.took.lock().expect("no panic"));
        took.sort_unstable();
        (counts, took)
    }
}

async fn one(client: &Client, n: u64, came: &Came) {
    let (key, begun) = (format!("bench/{}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % KEYS), Instant::now());
    let result = match n % 2 {
        0 => client.put(key, [7; 256]).await.map(drop),
        _ => client.get(key).await.map(drop),
    };
    match result {
        Ok(()) => {
            came.ok.fetch_add(1, Relaxed);
            came.took.lock().expect("no panic").push(begun.elapsed());
        }
        Err(Error::Overloaded { .. }) => drop(came.overloaded.fetch_add(1, Relaxed)),
        Err(_) => drop(came.other.fetch_add(1, Relaxed)),
    }
}

fn quantile(took: &[Duration], percent: usize) -> Duration {
    took.get((took.len() * percent / 100).min(took.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// So many operations under way for so long, each begun when another ends.
async fn closed(clients: &[Client], under_way: usize, time: Duration) -> (f64, Vec<Duration>) {
    let (came, until) = (Arc::new(Came::default()), Instant::now() + time);
    let mut workers = JoinSet::new();
    for i in 0..under_way {
        let (client, came) = (clients[i % clients.len()].clone(), came.clone());
        workers.spawn(async move {
            let mut n = rand::random();
            while Instant::now() < until {
                one(&client, n, &came).await;
                n = n.wrapping_add(1);
            }
        });
    }
    workers.join_all().await;
    let ([ok, ..], took) = came.take();
    (ok as f64 / time.as_secs_f64(), took)
}

/// So many operations begun a second for so long, whatever becomes of those before.
async fn open(clients: &[Client], rate: f64, time: Duration) -> ([u64; 3], Vec<Duration>, u64) {
    let (came, begun) = (Arc::new(Came::default()), Instant::now());
    let (mut asked, mut workers) = (0, JoinSet::new());
    while begun.elapsed() < time {
        let due = (begun.elapsed().as_secs_f64() * rate) as u64;
        while asked < due {
            let (client, came, n) = (clients[asked as usize % clients.len()].clone(), came.clone(), asked);
            workers.spawn(async move { one(&client, n, &came).await });
            asked += 1;
            if asked % 256 == 0 {
                tokio::task::yield_now().await;
            }
        }
        while workers.try_join_next().is_some() {}
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (counts, took) = came.take();
    workers.abort_all();
    (counts, took, asked)
}

fn flag(name: &str, default: u64) -> u64 {
    let mut words: VecDeque<String> = std::env::args().collect();
    while let Some(word) = words.pop_front() {
        if word == name {
            return words.pop_front().and_then(|value| value.parse().ok()).unwrap_or(default);
        }
    }
    default
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (machines, times) = (flag("--machines", 3), flag("--times", 10));
    let time = Duration::from_secs(flag("--seconds", 5));
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let options = Options {
        program: PathBuf::from(env!("CARGO_BIN_EXE_ennead")),
        dir: dir.path().join("cluster"),
        peers: Some(machines as usize),
        base: Base::at(Ipv4Addr::new(127, 0, 134, 121), 9595),
        flags: vec!["--http".to_owned(), "off".to_owned()],
    };
    let mut cluster = Cluster::prepare(options).expect("addresses and certificates");
    cluster.start_all().expect("processes");
    cluster.wait_until_up(Duration::from_secs(60)).await.expect("machines up");
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(cluster.client(Duration::from_secs(2)).await.expect("a client"));
    }
    closed(&clients, BUSY, Duration::from_secs(2)).await;

    let (_, usual) = closed(&clients, CALM, time).await;
    let usual = quantile(&usual, 99);
    let (peak, took) = closed(&clients, BUSY, time).await;
    println!("usual p99 {usual:?}; peak {peak:.0} operations a second, p99 {:?}", quantile(&took, 99));

    let ([ok, overloaded, other], took, asked) = open(&clients, peak * times as f64, time).await;
    let goodput = ok as f64 / time.as_secs_f64();
    println!(
        "{times} times that for {time:?}: {asked} asked, {ok} done, {overloaded} refused as overloaded, {other} failed \
         otherwise, {} not answered yet; p99 of those done {:?}",
        asked.saturating_sub(ok + overloaded + other),
        quantile(&took, 99)
    );
    println!("goodput {goodput:.0} operations a second: {:.0} % of the peak", goodput / peak * 100.0);

    let over = Instant::now();
    loop {
        let (_, took) = closed(&clients, CALM, Duration::from_millis(500)).await;
        let now = quantile(&took, 99);
        if !took.is_empty() && now <= usual * 2 {
            println!("p99 usual again ({now:?}) after {:?}", over.elapsed());
            break;
        }
        if over.elapsed() > Duration::from_secs(60) {
            println!("p99 still {now:?} after {:?}", over.elapsed());
            break;
        }
    }
    cluster.stop().await;
}
