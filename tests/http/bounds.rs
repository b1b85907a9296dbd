//! Whatever callers of HTTP and readers of the log do, operations go on as before: none fails.

use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ennead::client::{Client, Error};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::ask::get;
use super::{real, until};

/// Connections of one caller that means no good: four times what is served at once.
const MANY: usize = 1_000;

/// What came of some work.
#[derive(Debug)]
struct Came {
    /// Pairs of a write and a read.
    done: usize,
    a_second: f64,
    longest: Duration,
    failed: Vec<Error>,
}

impl Came {
    /// As fast as this work was, or not so much slower that anybody waited for anybody.
    fn must_keep_up_with(&self, calm: &Came) {
        assert!(self.a_second * 3.0 > calm.a_second, "{self:?}, and when nobody did any harm {calm:?}");
        let most = 10 * calm.longest + Duration::from_secs(1);
        assert!(self.longest < most, "{self:?}, and when nobody did any harm {calm:?}");
    }
}

/// Writes and reads for so long.
async fn work(client: &Client, time: Duration) -> Came {
    let stop = Arc::new(AtomicBool::new(false));
    let (mut tasks, begun) = (JoinSet::new(), Instant::now());
    for writer in 0..8 {
        let (client, stop) = (client.clone(), stop.clone());
        tasks.spawn(async move {
            let (mut done, mut failed, mut longest) = (0, Vec::new(), Duration::ZERO);
            while !stop.load(Relaxed) {
                let (key, begun) = (format!("writer-{writer}"), Instant::now());
                match client.put(&key, done.to_string()).await {
                    Ok(_) => match client.get(&key).await {
                        Ok(found)
                            if found.as_ref().is_some_and(|r| *r.value == *done.to_string().as_bytes()) =>
                        {
                            done += 1;
                        }
                        Ok(found) => panic!("{key} is {found:?}, and was just made {done}"),
                        Err(error) => failed.push(error),
                    },
                    Err(error) => failed.push(error),
                }
                longest = longest.max(begun.elapsed());
            }
            (done, failed, longest)
        });
    }
    tokio::time::sleep(time).await;
    stop.store(true, Relaxed);
    let all = tasks.join_all().await;
    let done = all.iter().map(|(done, ..)| done).sum::<usize>();
    Came {
        done,
        a_second: done as f64 / begun.elapsed().as_secs_f64(),
        longest: all.iter().map(|(.., longest)| *longest).max().unwrap_or_default(),
        failed: all.into_iter().flat_map(|(_, failed, _)| failed).collect(),
    }
}

/// A caller that asks for much, again and again, and reads nothing of it.
async fn never_reads(at: SocketAddr) {
    let Ok(mut stream) = TcpStream::connect(at).await else { return };
    let ask = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(50);
    // It waits here once nothing fits any more, until it is cut.
    while stream.write_all(&ask).await.is_ok() {}
}

async fn polls(at: SocketAddr) {
    loop {
        // It may have to wait behind a thousand others.
        let _ = get(at, "/v1/view").await;
    }
}

/// This process may have so many connections.
fn allow_connections() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX).min(4_096);
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum }).expect("a limit");
}

#[tokio::test]
async fn slow_scrapers_a_thousand_connections_and_a_full_log_disk_fail_and_slow_no_operation() {
    allow_connections();
    // Every write to it says that no space is left.
    let five = real(31, 5, &["--log-file", "/dev/full", "--log-level", "debug"]).await;
    let calm = work(&five.client, Duration::from_secs(3)).await;
    assert!(calm.done > 0 && calm.failed.is_empty(), "nobody scrapes: {calm:?}");

    let mut callers = JoinSet::new();
    for index in 0..5 {
        for _ in 0..10 {
            callers.spawn(never_reads(five.http(index)));
        }
        callers.spawn(polls(five.http(index)));
    }
    let mut idle = Vec::new();
    for _ in 0..MANY {
        // What the system does not take is as good as one that waits.
        if let Ok(Ok(stream)) =
            tokio::time::timeout(Duration::from_millis(20), TcpStream::connect(five.http(0))).await
        {
            idle.push(stream);
        }
    }
    eprintln!("{} of {MANY} connections are taken", idle.len());
    let busy = work(&five.client, Duration::from_secs(5)).await;
    assert!(busy.failed.is_empty(), "{busy:?}");
    eprintln!("nobody scrapes: {calm:?}; while scraped: {busy:?}");
    assert!(busy.done > 0);
    busy.must_keep_up_with(&calm);

    // All of it is bounded: who asks for the health is answered, at worst once the idle have been cut.
    let begun = Instant::now();
    let metrics = until(five.http(0), "/metrics", |a| a.code == 200).await;
    eprintln!("/metrics answers after {:?}", begun.elapsed());
    assert!(metrics.metric("ennead_http_connections") <= 256.0);
    callers.abort_all();
    drop(idle);
}

#[tokio::test]
async fn a_log_that_nobody_reads_fails_and_slows_no_operation() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let pipe = dir.path().join("log");
    assert!(Command::new("mkfifo").arg(&pipe).status()?.success());
    // Open at this end, and never read.
    let _reader = OpenOptions::new().read(true).write(true).open(&pipe)?;
    let (log, file) = (pipe.display().to_string(), dir.path().join("taken").display().to_string());
    let three = real(41, 3, &["--log-file", &log, "--log-level", "trace"]).await;
    let others = real(44, 3, &["--log-file", &file, "--log-level", "trace"]).await;
    let taken = work(&others.client, Duration::from_secs(3)).await;
    let nobody = work(&three.client, Duration::from_secs(4)).await;
    eprintln!("a log that is taken: {taken:?}; one that nobody reads: {nobody:?}");
    assert!(nobody.done > 0 && nobody.failed.is_empty(), "{nobody:?}");
    nobody.must_keep_up_with(&taken);
    Ok(())
}
