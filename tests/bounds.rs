//! More is asked than can be done: on real processes, by counts. Figures are those of `benches/overload/`.

#![allow(missing_docs, clippy::print_stderr, reason = "tests")]

#[path = "http/ask.rs"]
#[allow(dead_code, reason = "another test uses the rest")]
mod ask;
#[allow(dead_code, reason = "another test uses the rest")]
mod real;

use std::future::IntoFuture;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ennead::certs::{self, Who};
use ennead::client::{ClientOptions, Effect, Error};
use ennead::{Client, Name};
use futures_util::FutureExt;
use real::{Real, START_WITHIN, real};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// What came of many puts.
#[derive(Default)]
struct Tally {
    done: AtomicU64,
    overloaded: AtomicU64,
    other: AtomicU64,
    /// How long each took that was done.
    took: Mutex<Vec<Duration>>,
}

impl Tally {
    fn note(&self, came: &Result<u64, Error>) {
        let count = match came {
            Ok(_) => &self.done,
            Err(Error::Overloaded { .. }) => &self.overloaded,
            Err(_) => &self.other,
        };
        count.fetch_add(1, Relaxed);
    }

    fn read(&self) -> [u64; 3] {
        [&self.done, &self.overloaded, &self.other].map(|n| n.load(Relaxed))
    }
}

/// What the machines say that they have turned away before they looked at it.
async fn turned_away(real: &Real) -> f64 {
    let mut all = 0.0;
    for name in real.cluster.names() {
        let at = SocketAddr::new(name.address().ip(), name.address().port() + 1);
        let told = ask::get(at, "/metrics").await.expect("metrics").body;
        let samples = told.lines().filter(|line| line.starts_with("ennead_lines_turned_total{"));
        all += samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
    }
    all
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

/// Sixty operations, one by one: how long each took.
async fn sixty(client: &Client, when: &str) -> Vec<Duration> {
    let mut took = Vec::new();
    for n in 0..30 {
        let begun = Instant::now();
        client.put(format!("one-{n}"), "x").await.unwrap_or_else(|e| panic!("{when}, put {n}: {e}"));
        took.push(begun.elapsed());
        let begun = Instant::now();
        assert!(client.get(format!("one-{n}")).await.expect("a get").is_some());
        took.push(begun.elapsed());
    }
    took
}

#[tokio::test]
async fn a_client_with_ten_thousand_requests_outstanding_costs_another_with_one_next_to_nothing() {
    let three = real(134, 41, 3, &[]).await;
    assert_eq!(turned_away(&three).await, 0.0);
    // Patient: this is about turns, not about how fast this computer is.
    let client = three.cluster.client(Duration::from_secs(10)).await.expect("a client");
    let alone = median(sixty(&client, "alone").await);
    let tally = Arc::new(Tally::default());
    let (names, folder, counted) = (three.cluster.names(), three.cluster.certs(), tally.clone());
    let (stop, stopped) = oneshot::channel::<()>();
    // On a thread of its own: what its tasks take of a processor, the other client does not wait for here.
    let flood = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let mut options = ClientOptions::new(names, folder);
            (options.identity, options.timeout) = (Some("local".to_owned()), Duration::from_secs(5));
            (options.min_under_way, options.max_under_way) = (10_000, 10_000);
            let flooding = Client::with_options(options).await.expect("a client");
            let mut flood = JoinSet::new();
            for i in 0..10_000 {
                let (flooding, tally) = (flooding.clone(), counted.clone());
                flood.spawn(async move {
                    for n in 0.. {
                        let begun = Instant::now();
                        let came = flooding.put(format!("flood-{i}-{n}"), vec![7; 256]).await;
                        tally.note(&came);
                        if came.is_ok() {
                            tally.took.lock().expect("no panic").push(begun.elapsed());
                        }
                        if let Err(Error::Overloaded { retry_after }) = came {
                            tokio::time::sleep(retry_after).await;
                        }
                    }
                });
            }
            // The end of the test is its end.
            let _ = stopped.await;
        });
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Not before there is more than can be done: some of it is turned away.
    let flooded = async {
        while let [0, ..] | [_, 0, _] = tally.read() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let flooded = tokio::time::timeout(Duration::from_secs(60), flooded).await;
    flooded.unwrap_or_else(|_| panic!("done, overloaded, other of the flood: {:?}", tally.read()));
    let flooded = median(sixty(&client, "beside the flood").await);
    let theirs = median(tally.took.lock().expect("no panic").clone());
    eprintln!(
        "an operation takes {alone:?} alone, {flooded:?} beside the flood, whose own take {theirs:?}; done, overloaded, \
         other of the flood: {:?}",
        tally.read()
    );
    // Published once a second.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let turned = turned_away(&three).await;
    let accounts = client.status().await.expect("accounts");
    let failed: u64 =
        accounts.iter().map(|(_, account)| account.as_ref().expect("an account").figures.failed).sum();
    eprintln!("{turned} turned away, {failed} failed");
    assert!(turned > 0.0 && failed as f64 >= turned, "{turned} turned away, {failed} failed");
    assert!(flooded < theirs / 10, "{flooded:?}, as long as who asks for ten thousand at once: {theirs:?}");
    drop(stop);
    flood.join().expect("no panic");
}

/// A client that has so many under way, whatever it measures.
async fn reckless(real: &Real, timeout: Duration, under_way: usize) -> Client {
    let mut options = ClientOptions::new(real.cluster.names(), real.cluster.certs());
    (options.identity, options.timeout) = (Some("local".to_owned()), timeout);
    (options.min_under_way, options.max_under_way) = (under_way, under_way);
    Client::with_options(options).await.expect("a client")
}

#[tokio::test]
async fn what_was_refused_or_expired_is_never_written() {
    let one = real(134, 51, 1, &["--request-memory", "1MiB"]).await;
    one.ask_for(0, "slow-disk", "200");
    let impatient = reckless(&one, Duration::from_millis(700), 2_000).await;
    let mut puts = JoinSet::new();
    for i in 0..2_000 {
        let impatient = impatient.clone();
        puts.spawn(async move { (i, impatient.put(format!("k{i}"), vec![7; 1_024]).await) });
    }
    let all = puts.join_all().await;
    one.heal(0, "slow-disk");
    let unchanged: Vec<_> =
        all.iter().filter(|(_, put)| put.as_ref().is_err_and(|e| e.effect() == Effect::Unchanged)).collect();
    let done = all.iter().filter(|(_, put)| put.is_ok()).count();
    eprintln!("{done} done, {} unchanged of {}", unchanged.len(), all.len());
    assert!(unchanged.len() > 100, "nothing was refused: {}", unchanged.len());
    for (i, put) in unchanged {
        let copy = one.client.get(format!("k{i}")).await.expect("a get");
        assert!(copy.is_none(), "k{i} was written after {put:?}");
    }
}

/// A key or a value that counts how often it is looked at.
struct Counted<'a>(&'a AtomicU64);

impl AsRef<[u8]> for Counted<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0.fetch_add(1, Relaxed);
        b"counted"
    }
}

fn is_overloaded<T>(came: Option<Result<T, Error>>) -> bool {
    // `None`: it was not refused at once.
    matches!(came, Some(Err(Error::Overloaded { retry_after })) if retry_after > Duration::ZERO)
}

#[tokio::test]
async fn a_client_with_as_many_under_way_as_it_may_refuses_the_next_at_once_and_what_is_dropped_makes_room() {
    let one = real(134, 81, 1, &[]).await;
    let mut options = ClientOptions::new(one.cluster.names(), one.cluster.certs());
    (options.timeout, options.max_under_way) = (Duration::from_secs(30), 8);
    let client = Client::with_options(options).await.expect("a client");
    let lock = client.lock("held").await.expect("a lock");
    // Each is begun, and goes on when it is looked at again.
    let mut puts: Vec<_> = (0..8).map(|i| client.put(format!("k{i}"), "v").into_future()).collect();
    assert!(puts.iter_mut().all(|put| put.now_or_never().is_none()));
    assert_eq!(client.under_way(), (8, 8));

    let looked = AtomicU64::new(0);
    let (key, value) = (|| Counted(&looked), || Counted(&looked));
    assert!(is_overloaded(client.clone().put(key(), value()).into_future().now_or_never()));
    assert!(is_overloaded(client.get(key()).now_or_never()));
    assert!(is_overloaded(client.get_one(key()).now_or_never()));
    assert!(is_overloaded(client.get_copies(key()).now_or_never()));
    assert!(is_overloaded(client.incr(key(), 1).now_or_never()));
    assert_eq!(looked.load(Relaxed), 0, "what is refused was not copied");
    assert!(is_overloaded(client.delete("k").into_future().now_or_never()));
    assert!(is_overloaded(client.touch("k").into_future().now_or_never()));
    // Others rely on these.
    lock.release().await.expect("a lock is given back however much is under way");
    client.status().await.expect("an operator gets an answer however much is under way");

    // Three are dropped, so three are let in.
    let rest = puts.split_off(3);
    drop(puts);
    assert_eq!(client.under_way(), (5, 8));
    let mut gets: Vec<_> = (0..3).map(|_| Box::pin(client.get("k7"))).collect();
    assert!(gets.iter_mut().all(|get| get.now_or_never().is_none()));
    assert!(is_overloaded(client.get("k7").now_or_never()));
    // Those under way end as if nothing had been refused.
    for put in rest {
        put.await.expect("a put that was under way");
    }
    for get in gets {
        get.await.expect("a get that was under way");
    }
    assert_eq!(client.under_way().0, 0);
    assert!(client.get("counted").await.expect("a get").is_none(), "what was refused was not done");
    assert!(client.get("k7").await.expect("a get").is_some());
}

/// Memory of a process that is not shared or swapped, in MiB, where the system tells.
fn memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1_024)
}

#[tokio::test]
async fn memory_stays_bounded_while_a_disk_hangs_and_everybody_writes() {
    let mut one = real(134, 61, 1, &["--request-memory", "16MiB"]).await;
    let Some(before) = memory(one.cluster.pid(0).expect("a process")) else {
        eprintln!("SKIPPED: this system does not tell how much memory a process takes");
        return;
    };
    one.ask_for(0, "slow-disk", "3000");
    let client = reckless(&one, Duration::from_millis(500), 200).await;
    let tally = Arc::new(Tally::default());
    let mut crowd = JoinSet::new();
    for i in 0..200 {
        let (client, tally) = (client.clone(), tally.clone());
        crowd.spawn(async move {
            for n in 0.. {
                tally.note(&client.put(format!("k{i}-{n}"), vec![7; 64 << 10]).await);
            }
        });
    }
    let mut most = 0;
    for _ in 0..80 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        most = most.max(memory(one.cluster.pid(0).expect("a process")).unwrap_or(0));
    }
    crowd.abort_all();
    let [.., other] = tally.read();
    eprintln!("{before} MiB before, {most} MiB at most; done, overloaded, other: {:?}", tally.read());
    // Lines, requests and what waits for the disk are bounded by 16 MiB each; the journal and the overlay have their own.
    assert!(most < before + 160, "{before} MiB grew to {most} MiB");
    assert!(other > 0, "the disk hung");
    one.heal(0, "slow-disk");
    let begun = Instant::now();
    while let Err(error) = one.client.put("after", "x").await {
        assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
    }
    assert!(one.cluster.is_running(0));
}

/// A machine alone that logs all it can to where nobody takes it.
struct Talker {
    child: Child,
    client: Client,
    _dir: tempfile::TempDir,
}

async fn talker(host: u8, log: &[&str]) -> Talker {
    let dir = tempfile::tempdir().expect("a folder");
    let name: Name = Ipv4Addr::new(127, 0, 134, host).to_string().parse().expect("a name");
    let folder = dir.path().join("certs");
    certs::make(&folder, [Who::Peer(name), Who::Client("test".into())]).expect("certificates");
    let child = Command::new(env!("CARGO_BIN_EXE_ennead"))
        .args(["serve", "--die-with-parent", "--init", "--log-level", "trace", "--listen", &name.to_string()])
        .args([Path::new("--data"), &dir.path().join("data"), Path::new("--certs"), &folder])
        .args(log)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a process");
    let begun = Instant::now();
    let client = loop {
        match Client::connect([name], folder.clone()).await {
            Ok(client) => break client,
            Err(error) => assert!(begun.elapsed() < START_WITHIN, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    Talker { child, client, _dir: dir }
}

impl Drop for Talker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_log_that_nobody_takes_slows_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let taken = dir.path().join("log").display().to_string();
    // A file takes it all. A pipe that nobody reads holds 64 KiB; a full disk takes nothing at all. Nobody scrapes the
    // metrics either.
    let logs = [(73, &["--log-file", &taken][..]), (71, &[][..]), (72, &["--log-file", "/dev/full"][..])];
    let mut talkers = Vec::new();
    for (host, log) in logs {
        talkers.push((talker(host, log).await, Vec::new()));
    }
    // Each in turn, again and again: whatever else this computer does, it does to all of them.
    for n in 0..1_000 {
        for (talker, took) in &mut talkers {
            let (key, begun) = (format!("k{}", n % 100), Instant::now());
            talker.client.put(&*key, vec![7; 100]).await.unwrap_or_else(|e| panic!("put {n}: {e}"));
            assert!(talker.client.get(&*key).await.expect("a get").is_some());
            took.push(begun.elapsed());
        }
    }
    let told: Vec<(Duration, Duration)> = talkers
        .iter_mut()
        .map(|(talker, took)| {
            assert!(talker.child.try_wait().expect("its state").is_none(), "it has ended");
            (took.iter().sum(), took.iter().max().copied().unwrap_or_default())
        })
        .collect();
    eprintln!("2000 operations, and the longest two: {told:?}");
    let (sum, longest) = told[0];
    for (other, its_longest) in &told[1..] {
        assert!(*other < 3 * sum, "a log that is taken: {sum:?}, one that is not: {other:?}");
        let most = 10 * longest + Duration::from_secs(1);
        assert!(
            *its_longest < most,
            "at worst {longest:?} with a log that is taken, {its_longest:?} with one that is not"
        );
    }
}
