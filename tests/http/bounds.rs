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

/// Writes and reads for so long; how many, and what failed.
async fn work(client: &Client, time: Duration) -> (usize, Vec<Error>) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for writer in 0..8 {
        let (client, stop) = (client.clone(), stop.clone());
        tasks.spawn(async move {
            let (mut done, mut failed) = (0, Vec::new());
            while !stop.load(Relaxed) {
                let key = format!("writer-{writer}");
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
            }
            (done, failed)
        });
    }
    tokio::time::sleep(time).await;
    stop.store(true, Relaxed);
    tasks.join_all().await.into_iter().fold((0, Vec::new()), |(done, mut failed), (n, errors)| {
        failed.extend(errors);
        (done + n, failed)
    })
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
async fn slow_scrapers_a_thousand_connections_and_a_full_log_disk_fail_no_operation() {
    allow_connections();
    // Every write to it says that no space is left.
    let five = real(31, 5, &["--log-file", "/dev/full", "--log-level", "debug"]).await;
    let (calm, failed) = work(&five.client, Duration::from_secs(3)).await;
    assert!(calm > 0 && failed.is_empty(), "nobody scrapes: {calm} done, {failed:?}");

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
    let (busy, failed) = work(&five.client, Duration::from_secs(5)).await;
    assert!(failed.is_empty(), "{busy} done, {failed:?}");
    eprintln!("operations a second: {} before, {} while scraped", calm / 3, busy / 5);
    assert!(busy > 0);

    // All of it is bounded: who asks for the health is answered, at worst once the idle have been cut.
    let begun = Instant::now();
    let metrics = until(five.http(0), "/metrics", |a| a.code == 200).await;
    eprintln!("/metrics answers after {:?}", begun.elapsed());
    assert!(metrics.metric("ennead_http_connections") <= 256.0);
    callers.abort_all();
    drop(idle);
}

#[tokio::test]
async fn a_log_that_nobody_reads_fails_no_operation() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let pipe = dir.path().join("log");
    assert!(Command::new("mkfifo").arg(&pipe).status()?.success());
    // Open at this end, and never read.
    let _reader = OpenOptions::new().read(true).write(true).open(&pipe)?;
    let log = pipe.display().to_string();
    let three = real(41, 3, &["--log-file", &log, "--log-level", "trace"]).await;
    let (done, failed) = work(&three.client, Duration::from_secs(4)).await;
    assert!(done > 0 && failed.is_empty(), "{done} done, {failed:?}");
    Ok(())
}
