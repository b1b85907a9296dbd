//! One disk of nine becomes a hundred times slower while clients read and write: no operation fails, and few wait for it.

#![allow(missing_docs, clippy::print_stderr, reason = "tests")]

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ennead::client::Client;
use ennead::cluster::{Base, Cluster, Options};

/// Patience with machines that may be busy with other tests.
const WITHIN: Duration = Duration::from_secs(60);
/// How long each part is measured.
const PART: Duration = Duration::from_secs(8);
const WORKERS: u64 = 6;
const KEYS: u64 = 300;

/// What operations took, in order.
#[derive(Default)]
struct Took {
    puts: Vec<Duration>,
    gets: Vec<Duration>,
}

impl Took {
    fn add(&mut self, mut other: Self) {
        self.puts.append(&mut other.puts);
        self.gets.append(&mut other.gets);
        self.puts.sort();
        self.gets.sort();
    }

    fn show(&self) -> String {
        let of = |took: &[Duration]| {
            let at = |percent: usize| took[took.len() * percent / 100].as_secs_f64() * 1e3;
            format!("{} p50 {:.1} ms p99 {:.1} ms", took.len(), at(50), at(99))
        };
        format!("puts {}, gets {}", of(&self.puts), of(&self.gets))
    }
}

/// Puts and gets by turns until then; each must succeed.
async fn work(client: Client, worker: u64, until: Instant) -> Took {
    let mut took = Took::default();
    for i in 0u64.. {
        if Instant::now() >= until {
            break;
        }
        let key = format!("k{}", (worker * 97 + i * 31) % KEYS);
        let begun = Instant::now();
        if i % 2 == 0 {
            client.put(key, format!("{worker}-{i}")).await.expect("a put");
            took.puts.push(begun.elapsed());
        } else {
            client.get(key).await.expect("a get");
            took.gets.push(begun.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    took
}

async fn all(client: &Client) -> Took {
    let until = Instant::now() + PART;
    let workers: Vec<_> =
        (0..WORKERS).map(|worker| tokio::spawn(work(client.clone(), worker, until))).collect();
    let mut took = Took::default();
    for worker in workers {
        took.add(worker.await.expect("no operation fails"));
    }
    took
}

#[tokio::test]
async fn a_disk_a_hundred_times_slower_fails_no_operation() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options = Options {
        program: PathBuf::from(env!("CARGO_BIN_EXE_ennead")),
        dir: dir.path().join("cluster"),
        peers: Some(9),
        base: Base::at(Ipv4Addr::new(127, 0, 132, 1), 9595),
        flags: vec!["--test-faults".to_string()],
    };
    let mut cluster = Cluster::prepare(options).expect("addresses and certificates");
    cluster.start_all().expect("nine processes");
    cluster.wait_until_up(WITHIN).await.expect("nine peers up");
    let client = cluster.client(Duration::from_secs(5)).await.expect("a client");
    for key in 0..KEYS {
        client.put(format!("k{key}"), "x").await.expect("a put");
    }
    let healthy = all(&client).await;
    // A put is little more than an fsync.
    let slow = (healthy.puts[healthy.puts.len() / 2].as_micros() / 10).clamp(100, 2_000);
    let file = cluster.data(4).join("slow-disk");
    std::fs::write(&file, slow.to_string()).expect("a file");
    let (first, later) = (all(&client).await, all(&client).await);
    std::fs::remove_file(&file).expect("a file");
    let again = all(&client).await;
    eprintln!("nine disks well:          {}", healthy.show());
    eprintln!("one {slow:4} ms slower:       {}", first.show());
    eprintln!("one {slow:4} ms slower still: {}", later.show());
    eprintln!("well again:               {}", again.show());
    let view = client.view().await.expect("a view");
    assert_eq!(view.members().len(), 9, "nobody is dropped for a slow disk");
}
