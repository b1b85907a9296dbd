//! Listings and backups of real processes, with writers at work and machines dead; and through a change of the ring.
//!
//! `SCAN_KEYS=1000000 cargo test --release --test scan -- --ignored --nocapture` tells how fast they are with a million
//! keys, puts them back, and bounds what memory they take.
#![allow(missing_docs, clippy::print_stderr, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ennead::backup::{BackupError, Restore, Restored, Take, Taken, verify};
use ennead::certs::{self, Who};
use ennead::client::{Client, Error, Listed};
use ennead::cluster::{Base, Cluster, Options};
use ennead::{Name, Node};
use futures_util::{StreamExt, stream};
use tokio::task::JoinSet;

/// Patience with a machine that may be busy with other tests.
const WITHIN: Duration = Duration::from_secs(120);
const STILL: usize = 1_000;

/// A machine of its own in this process, with certificates.
struct One {
    node: Node,
    client: Client,
    _dir: tempfile::TempDir,
}

async fn one(host: u8) -> One {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (certs, ip) = (dir.path().join("certs"), Ipv4Addr::new(127, 0, 132, host));
    certs::init(&certs).expect("an authority");
    certs::issue(&certs, &Who::Peer(ip.to_string().parse().expect("a name"))).expect("a certificate");
    let address = SocketAddr::from((ip, 9595));
    let builder = Node::builder().listen(address).data_dir(dir.path().join("data")).certs(&certs).init([]);
    let node = builder.start().await.expect("a node");
    let client = node.client();
    One { node, client, _dir: dir }
}

fn value(key: &str) -> Vec<u8> {
    key.as_bytes().iter().copied().cycle().take(300).collect()
}

fn still(i: usize) -> String {
    format!("still/{i:05}")
}

async fn put_all(client: &Client, keys: impl Iterator<Item = String>) {
    let put = |key: String| async move {
        let value = value(&key);
        // A machine that shares two cores with other tests may be late.
        while let Err(why) = client.put(&key, &value).await {
            eprintln!("{key}: {why}");
        }
    };
    stream::iter(keys).for_each_concurrent(32, put).await;
}

/// Clients that put and delete, until told to stop.
struct Writers {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<u64>,
}

impl Writers {
    fn start(client: &Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for writer in 0..3 {
            let (client, stop) = (client.clone(), stop.clone());
            tasks.spawn(async move {
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) {
                    // Between and behind the keys that stay as they are; outcomes do not matter.
                    for key in
                        [format!("still/{:05}x", done * 7 % 200), format!("writer/{writer}/{}", done % 50)]
                    {
                        let _ = client.put(&key, "w").await;
                        if done % 3 == 0 {
                            let _ = client.delete(&key).await;
                        }
                    }
                    done += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                done
            });
        }
        Self { stop, tasks }
    }

    async fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut done = 0;
        while let Some(wrote) = self.tasks.join_next().await {
            done += wrote.expect("a writer");
        }
        done
    }
}

async fn listed(client: &Client, prefix: &str) -> Vec<Listed> {
    let listing = client.list(prefix).values().patience(WITHIN).begin().await.expect("a view");
    listing.into_stream().map(|listed| listed.expect("enough machines")).collect().await
}

fn is_still(listed: &Listed) -> bool {
    listed.key.starts_with(b"still/") && listed.key.len() == "still/00000".len()
}

/// Every key that was there before and that nobody touched is there, once, in order, as it was written.
fn must_have_all(all: &[Listed], gone: &BTreeSet<String>) {
    assert!(all.windows(2).all(|pair| pair[0].key < pair[1].key), "in order, each once");
    let found: Vec<&Listed> = all.iter().filter(|listed| is_still(listed)).collect();
    let wanted: Vec<String> = (0..STILL).map(still).filter(|key| !gone.contains(key)).collect();
    let keys: Vec<String> = found.iter().map(|l| String::from_utf8_lossy(&l.key).into_owned()).collect();
    assert_eq!(keys, wanted);
    for listed in found {
        let key = String::from_utf8_lossy(&listed.key).into_owned();
        assert_eq!(listed.value.as_deref(), Some(value(&key).as_slice()), "{key}");
    }
}

fn take(file: &Path, since: &[&PathBuf], resume: bool) -> Take {
    let since = since.iter().map(|path| (*path).clone()).collect();
    Take { file: file.to_owned(), since, resume, prefix: Vec::new(), patience: WITHIN }
}

async fn taken(client: &Client, take: Take) -> Taken {
    take.run(client, |_| ()).await.expect("a backup")
}

async fn restored(client: &Client, files: &[&PathBuf], overwrite: bool) -> Restored {
    let files = files.iter().map(|path| (*path).clone()).collect();
    Restore { files, overwrite }.run(client, |_| ()).await.expect("it is put back")
}

/// Nine real processes on 127.0.132.`first` and on, and a client.
async fn nine(first: u8, dir: &Path) -> (Cluster, Client) {
    let options = Options {
        program: PathBuf::from(env!("CARGO_BIN_EXE_ennead")),
        dir: dir.join("cluster"),
        peers: Some(9),
        base: Base::at(Ipv4Addr::new(127, 0, 132, first), 9595),
        // Who is dead stays a member: it is its silence that is tested.
        flags: vec!["--patience".to_owned(), "1h".to_owned()],
    };
    let mut cluster = Cluster::prepare(options).expect("addresses and certificates");
    cluster.start_all().expect("processes");
    cluster.wait_until_up(WITHIN).await.expect("peers up");
    let client = cluster.client(Duration::from_secs(5)).await.expect("a client");
    (cluster, client)
}

#[tokio::test]
async fn with_up_to_four_of_nine_dead_all_that_was_there_is_listed_and_backed_up_while_others_write() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (mut cluster, client) = nine(1, dir.path()).await;
    put_all(&client, (0..STILL).map(still)).await;
    let gone: BTreeSet<String> = (0..STILL).step_by(10).map(still).collect();
    for key in &gone {
        client.delete(key).await.expect("a delete");
    }
    client.put("brief", "v").ttl(Duration::from_millis(1)).await.expect("a put");

    let writers = Writers::start(&client);
    let (full, second) = (dir.path().join("full"), dir.path().join("second"));
    for dead in 0..=4 {
        if dead > 0 {
            cluster.kill(9 - dead);
        }
        let begun = Instant::now();
        let all = listed(&client, "").await;
        eprintln!("{dead} dead: {} keys in {:?}", all.len(), begun.elapsed());
        must_have_all(&all, &gone);
        assert!(all.iter().all(|listed| listed.key != b"brief"), "it has expired");
        if dead == 2 {
            taken(&client, take(&full, &[], false)).await;
        }
    }
    let wrote = writers.stop().await;
    assert!(wrote > 50, "the writers went on: {wrote}");

    // A part, and the rest of it after a cursor.
    let mut listing = client.list("still/").begin().await.expect("a view");
    for _ in 0..333 {
        listing.next().await.expect("enough machines").expect("there are more");
    }
    let cursor = listing.cursor().expect("one was told").to_vec();
    let rest = client.list("still/").after(&cursor).begin().await.expect("a view").into_stream();
    let rest: Vec<Listed> = rest.map(|listed| listed.expect("enough machines")).collect().await;
    let all = listed(&client, "still/").await;
    assert_eq!(rest.len() + 333, all.len());
    assert!(
        rest.iter().all(|listed| listed.value.is_none() && listed.key > cursor),
        "values were not asked for"
    );

    // What changed since, with four dead.
    client.put("still/00001", "changed").await.expect("a put");
    client.put("new", "n").ttl(Duration::from_secs(600)).await.expect("a put");
    client.delete("still/00002").await.expect("a delete");
    let increment = taken(&client, take(&second, &[&full], false)).await;
    assert!(increment.trailer.keys >= 2 && increment.trailer.gone >= 1, "{increment:?}");
    assert!(increment.trailer.keys < 500, "only what changed: {increment:?}");
    let source: BTreeMap<Vec<u8>, Listed> =
        listed(&client, "").await.into_iter().map(|listed| (listed.key.clone(), listed)).collect();

    // The fifth: nothing is left out in silence, and the same listing goes on when one is back.
    cluster.kill(4);
    let mut listing = client.list("still/").begin().await.expect("a view");
    match listing.next().await {
        Err(Error::NoQuorum { votes: 4, needed: 5, silent, .. }) => assert_eq!(silent.len(), 5, "{silent:?}"),
        other => panic!("{other:?}"),
    }
    cluster.start(4).expect("a process");
    let begun = Instant::now();
    let first = loop {
        match listing.next().await {
            Ok(listed) => break listed,
            Err(why) => assert!(begun.elapsed() < WITHIN, "{why}"),
        }
    };
    assert_eq!(first.expect("a key").key, b"still/00001");

    // Back into another cluster, and from there into the same again.
    let other = one(101).await;
    verify(&full).expect("it is whole");
    let came = restored(&other.client, &[&full, &second], false).await;
    assert_eq!((came.restored, came.kept, came.failed), (source.len() as u64, 0, 0), "{came:?}");
    let copy = listed(&other.client, "").await;
    assert_eq!(copy.len(), source.len());
    for listed in &copy {
        let from = &source[&listed.key];
        assert_eq!(listed.value, from.value, "{:?}", String::from_utf8_lossy(&listed.key));
        assert_eq!(listed.expires.is_some(), from.expires.is_some());
    }
    let left = copy.iter().find(|listed| listed.key == b"new").and_then(|listed| listed.expires);
    let left = left.expect("it expires").duration_since(std::time::SystemTime::now()).expect("later");
    assert!(left < Duration::from_secs(600), "what was left of its life: {left:?}");
    other.client.put("new", "newer").await.expect("a put");
    let again = restored(&other.client, &[&full, &second], false).await;
    assert_eq!((again.restored, again.kept), (0, source.len() as u64), "{again:?}");
    assert_eq!(&*other.client.get("new").await.expect("a get").expect("a value").value, b"newer");
    let over = restored(&other.client, &[&full, &second], true).await;
    assert_eq!(over.restored, 1, "{over:?}");
    assert_eq!(&*other.client.get("new").await.expect("a get").expect("a value").value, b"n");

    // Of another cluster, and without what it goes on from.
    let wrong = take(&dir.path().join("third"), &[&full], false).run(&other.client, |_| ()).await;
    assert!(wrong.expect_err("another cluster").to_string().contains("another cluster"));
    let wrong = Restore { files: vec![second], overwrite: false }.run(&other.client, |_| ()).await;
    assert!(wrong.expect_err("half a chain").to_string().contains("oldest first"));
    other.node.shutdown("the test is over").await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_backup_that_was_broken_off_is_gone_on_with() {
    // Many blocks: what is on its way when it is broken off is far from the rest.
    const MANY: usize = 4 * STILL;
    let one = one(111).await;
    put_all(&one.client, (0..MANY).map(still)).await;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (file, whole) = (dir.path().join("broken"), dir.path().join("whole"));
    let (enough, stop) = tokio::sync::oneshot::channel();
    let mut enough = Some(enough);
    let run = take(&file, &[], false).run(&one.client, |progress| {
        if progress.keys >= 900
            && let Some(enough) = enough.take()
        {
            enough.send(()).expect("somebody waits");
        }
    });
    tokio::select! {
        biased;
        _ = stop => {}
        taken = run => drop(taken),
    }
    assert!(!file.exists(), "it was broken off");
    let again = take(&file, &[], false).run(&one.client, |_| ()).await;
    assert!(matches!(again, Err(BackupError::Exists { .. })), "{again:?}");
    let mut anew = 0;
    let resumed = take(&file, &[], true).run(&one.client, |progress| anew = progress.keys).await;
    let resumed = resumed.expect("a backup");
    let after = resumed.resumed_after.expect("some of it was there");
    let there = (0..MANY).filter(|i| *still(*i).as_bytes() <= *after).count();
    assert!(there > 0 && there as u64 + anew == MANY as u64, "{there} were there, {anew} were taken");
    let all = taken(&one.client, take(&whole, &[], false)).await;
    assert_eq!(all.trailer.keys, MANY as u64);
    let (_, trailer) = verify(&file).expect("it is whole");
    assert_eq!((trailer.keys, trailer.bytes), (all.trailer.keys, all.trailer.bytes));
    one.node.shutdown("the test is over").await;
}

#[tokio::test]
async fn a_listing_goes_on_through_a_change_of_the_ring() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let certs = dir.path().join("certs");
    certs::init(&certs).expect("an authority");
    let names: Vec<Name> = (121..=124).map(|n| format!("127.0.132.{n}").parse().expect("a name")).collect();
    for name in &names {
        certs::issue(&certs, &Who::Peer(*name)).expect("a certificate");
    }
    let node = |n: usize| {
        let data = dir.path().join(format!("data{n}"));
        Node::builder().listen(names[n]).data_dir(data).certs(&certs)
    };
    let first = node(0).init(names[1..3].to_vec()).start().await.expect("a node");
    let mut nodes = vec![first];
    for n in 1..3 {
        nodes.push(node(n).join([names[0]]).start().await.expect("a node"));
    }
    let client = nodes[0].client();
    let until = async |machines: usize| {
        let begun = Instant::now();
        loop {
            // The client's own view may be an earlier one: nobody has asked for anything.
            let _ = client.view().await;
            let accounts = client.status().await.unwrap_or_default();
            let settled =
                accounts.iter().filter(|(_, a)| a.as_ref().is_ok_and(|a| a.epoch == a.settled)).count();
            if (accounts.len(), settled) == (machines, machines) {
                return;
            }
            assert!(begun.elapsed() < WITHIN, "{accounts:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    until(3).await;
    put_all(&client, (0..STILL).map(still)).await;
    let mut listing = client.list("").values().patience(WITHIN).begin().await.expect("a view");
    let mut all = Vec::new();
    for _ in 0..100 {
        all.push(listing.next().await.expect("enough machines").expect("there are more"));
    }
    nodes.push(node(3).join([names[0]]).start().await.expect("a node"));
    while all.len() < 200 {
        all.push(listing.next().await.expect("enough machines").expect("there are more"));
    }
    until(4).await;
    while let Some(listed) = listing.next().await.expect("enough machines") {
        all.push(listed);
    }
    must_have_all(&all, &BTreeSet::new());
    for node in nodes {
        node.shutdown("the test is over").await;
    }
}

/// A line of what the system tells of a process's memory, in MiB.
fn memory(pid: u32, name: &str) -> u64 {
    let told = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or_default() >> 10
}

/// What processes take in memory, and how much more they took at most since then.
struct Memory(Vec<(u32, u64)>);

impl Memory {
    /// From now on the system counts the most anew.
    fn now(pids: impl IntoIterator<Item = u32>) -> Self {
        let anew = |pid| {
            std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("it counts anew");
            (pid, memory(pid, "VmRSS"))
        };
        Self(pids.into_iter().map(anew).collect())
    }

    fn most_more(&self) -> u64 {
        let more = |(pid, before): &(u32, u64)| memory(*pid, "VmHWM").saturating_sub(*before);
        self.0.iter().map(more).max().unwrap_or_default()
    }
}

/// The most that a listing or a backup takes in MiB of memory, however many keys there are: of a machine, which may be
/// sorting what it was just given, and of who lists.
const MORE: (u64, u64) = (96, 32);

#[tokio::test]
#[ignore = "for figures"]
async fn how_fast_they_are_and_what_memory_they_take() {
    let keys = std::env::var("SCAN_KEYS").ok().and_then(|text| text.parse().ok()).unwrap_or(50_000usize);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (cluster, client) = nine(161, dir.path()).await;
    let pids: Vec<u32> = (0..9).filter_map(|i| cluster.pid(i)).collect();
    let measure = || (Instant::now(), Memory::now(pids.clone()), Memory::now([std::process::id()]));
    let tell = |what: &str, (begun, machines, own): &(Instant, Memory, Memory)| {
        let (machines, own) = (machines.most_more(), own.most_more());
        eprintln!(
            "{what}: {:?}; at most {machines} MiB more a machine, {own} MiB more here",
            begun.elapsed()
        );
        (machines, own)
    };
    let bounded = |what: &str, measured: &(Instant, Memory, Memory)| {
        let (machines, own) = tell(what, measured);
        assert!(machines <= MORE.0 && own <= MORE.1, "{what}: {machines} MiB a machine, {own} MiB here");
    };
    let writing = measure();
    put_all(&client, (0..keys).map(|i| format!("still/{i:08}"))).await;
    tell("put", &writing);
    for values in [false, true] {
        let listing = measure();
        let mut list = client.list("").patience(WITHIN);
        if values {
            list = list.values();
        }
        let mut listed = list.begin().await.expect("a view");
        let mut found = 0;
        while listed.next().await.expect("enough machines").is_some() {
            found += 1;
        }
        assert_eq!(found, keys);
        bounded(if values { "listed with values" } else { "listed" }, &listing);
    }
    let (file, writers, backing_up) = (dir.path().join("b"), Writers::start(&client), measure());
    let all = taken(&client, take(&file, &[], false)).await;
    bounded("backed up while others wrote", &backing_up);
    writers.stop().await;
    eprintln!(
        "{} keys, {} bytes, a file of {}",
        all.trailer.keys,
        all.trailer.bytes,
        file.metadata().map_or(0, |m| m.len())
    );
    assert!(all.trailer.keys >= keys as u64, "all that was there before: {:?}", all.trailer);
    let verifying = measure();
    verify(&file).expect("it is whole");
    bounded("verified", &verifying);
    cluster.stop().await;

    // Back into a cluster of its own: every key that was there before, with its value.
    let other = one(181).await;
    let begun = Instant::now();
    let came = restored(&other.client, &[&file], false).await;
    eprintln!("restored into a machine here: {:?}", begun.elapsed());
    assert_eq!((came.restored, came.kept, came.failed), (all.trailer.keys, 0, 0), "{came:?}");
    let mut copy = other.client.list("").values().patience(WITHIN).begin().await.expect("a view");
    let mut found = 0;
    while let Some(listed) = copy.next().await.expect("it lives") {
        let key = String::from_utf8_lossy(&listed.key).into_owned();
        if listed.key.len() == "still/00000000".len() && key.starts_with("still/") {
            assert_eq!(key, format!("still/{found:08}"));
            assert_eq!(listed.value.as_deref(), Some(value(&key).as_slice()), "{key}");
            found += 1;
        }
    }
    assert_eq!(found, keys);
    other.node.shutdown("the test is over").await;
}
