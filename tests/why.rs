//! Machines that fail in different ways, and what is said of each: the verdict, within five seconds.

#![allow(missing_docs, clippy::print_stderr, reason = "tests")]

#[allow(dead_code, reason = "another test uses the rest")]
mod real;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use ennead::certs::{self, Who};
use ennead::client::Client;
use ennead::crash::Kind;
use ennead::node::Part;
use ennead::verdict::Word;
use ennead::{Name, Node, StopReason};
use real::{SOON, START_WITHIN, real, until, until_over, until_well};

fn unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| d.as_millis() as u64)
}

#[tokio::test]
async fn a_killed_a_frozen_a_slow_and_a_stopped_machine_get_four_different_verdicts() {
    let mut five = real(91, 1, 5, &[]).await;
    let names = five.cluster.names();
    // Everybody knows everybody, and what an fsync usually takes.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        five.client.put("usual", "x").await.expect("a put");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for name in &names {
        until_well(&five.client, *name, SOON).await;
    }

    // kill -9.
    five.cluster.kill(1);
    let verdict = until(&five.client, names[1], Word::Killed, SOON).await;
    assert!(!verdict.up && verdict.at_ms.is_some() && !verdict.detected_by.is_empty(), "{verdict:#?}");
    assert!(verdict.evidence.iter().any(|line| line.contains("its port: closed; its host: answers")));
    five.cluster.start(1).expect("a process");
    five.cluster.wait_until_up(START_WITHIN).await.expect("all again");
    let verdict = until_over(&five.client, names[1], Word::Killed, START_WITHIN).await;
    assert!(verdict.up, "{verdict:#?}");
    assert!(verdict.sentence.contains("back with a new start"), "{}", verdict.sentence);

    // SIGSTOP.
    five.cluster.pause(2);
    let verdict = until(&five.client, names[2], Word::Paused, SOON).await;
    assert!(!verdict.up, "{verdict:#?}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let stopped_for = verdict.at_ms.map(|at| unix_ms().saturating_sub(at));
    five.cluster.resume(2);
    // It knows for how long, and says so also when it is back; and after a restart still.
    let verdict = until_over(&five.client, names[2], Word::Paused, START_WITHIN).await;
    assert!(verdict.up && verdict.sentence.contains("it stood still for"), "{verdict:#?}");
    let told = verdict.at_ms.zip(verdict.until_ms).map(|(at, until)| until - at);
    assert!(told >= stopped_for && told.is_some_and(|ms| ms < 60_000), "{stopped_for:?} {verdict:#?}");
    five.cluster.terminate(2).await;
    five.cluster.start(2).expect("a process");
    five.cluster.wait_until_up(START_WITHIN).await.expect("all again");
    let verdict = until_over(&five.client, names[2], Word::Exit, START_WITHIN).await;
    assert!(verdict.earlier.iter().any(|earlier| earlier.word == Word::Paused), "{verdict:#?}");

    // A disk that takes half a second for what took milliseconds.
    five.ask_for(3, "slow-disk", "500");
    let writer = tokio::spawn({
        let client = five.client.clone();
        async move {
            for i in 0u64.. {
                // Only that there is something to write matters.
                let _ = client.put(format!("k{}", i % 50), "x").await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    let verdict = until(&five.client, names[3], Word::DiskStalled, SOON).await;
    assert!(verdict.up && verdict.at_ms.is_some(), "{verdict:#?}");
    assert!(verdict.lasts());
    // Longer than a hiccup.
    tokio::time::sleep(Duration::from_secs(4)).await;
    five.heal(3, "slow-disk");
    let verdict = until_over(&five.client, names[3], Word::DiskStalled, Duration::from_secs(15)).await;
    assert!(verdict.up && verdict.sentence.contains("its disk was stalled for"), "{verdict:#?}");
    writer.abort();

    // SIGTERM.
    five.cluster.terminate(4).await;
    let verdict = until(&five.client, names[4], Word::Exit, SOON).await;
    assert!(!verdict.up && verdict.sentence.contains("SIGTERM"), "{verdict:#?}");
    five.cluster.start(4).expect("a process");
    five.cluster.wait_until_up(START_WITHIN).await.expect("all again");
    let verdict = until_over(&five.client, names[4], Word::Exit, START_WITHIN).await;
    assert!(verdict.up && verdict.sentence.contains("SIGTERM"), "{verdict:#?}");
}

#[tokio::test]
async fn an_fsync_that_hangs_is_named_while_it_hangs() {
    let five = real(92, 1, 5, &[]).await;
    let name = five.cluster.names()[0];
    five.ask_for(0, "slow-disk", "20000");
    for i in 0..20 {
        let _ = five.client.put(format!("k{i}"), "x").await;
    }
    let verdict = until(&five.client, name, Word::DiskStalled, SOON).await;
    assert!(verdict.up, "it answers probes, and all else: {verdict:#?}");
    let told = |line: &String| line.contains("it said of itself");
    let begun = Instant::now();
    while !five.client.why(name).await.expect("a view").evidence.iter().any(told) {
        assert!(begun.elapsed() < SOON, "nobody else was told");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

// -- panics, in this process: only there can a test ask for them --------------------------------------

fn name(net: u8, host: u8) -> Name {
    Name::new(SocketAddr::new(Ipv4Addr::new(127, 0, net, host).into(), 9595))
}

async fn embedded(dir: &Path, net: u8, machines: u8) -> Vec<Node> {
    let names: Vec<Name> = (1..=machines).map(|host| name(net, host)).collect();
    let certs = dir.join("certs");
    certs::init(&certs).expect("an authority");
    certs::issue(&certs, &Who::Client("test".into())).expect("a client's certificate");
    for name in &names {
        certs::issue(&certs, &Who::Peer(*name)).expect("a peer's certificate");
    }
    let mut nodes = Vec::new();
    for blank in &names[1..] {
        let data = dir.join(blank.to_string());
        let node = Node::builder().listen(*blank).data_dir(data).certs(&certs).join([names[0]]);
        nodes.push(node.start().await.expect("a blank machine"));
    }
    let first = Node::builder().listen(names[0]).data_dir(dir.join(names[0].to_string())).certs(&certs);
    nodes.insert(0, first.init(names[1..].to_vec()).start().await.expect("the first machine"));
    let client = nodes[0].client();
    let begun = Instant::now();
    while client.put("warm-up", "x").await.is_err() {
        assert!(begun.elapsed() < START_WITHIN, "the cluster does not serve");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    nodes
}

async fn report_of(client: &Client, of: Name, kind: Kind, within: Duration) -> ennead::crash::Report {
    let begun = Instant::now();
    loop {
        let found = client.crashes(of).await.unwrap_or_default();
        if let Some(report) = found.iter().find(|report| report.kind == kind) {
            return report.clone();
        }
        assert!(begun.elapsed() < within, "no report of {of}'s {kind:?} in the ring: {found:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_panic_of_a_part_is_reported_and_read_through_another_machine() {
    let dir = tempfile::tempdir().expect("a folder");
    let nodes = embedded(dir.path(), 93, 3).await;
    let (victim, kv) = (nodes[1].name(), nodes[0].client());
    for part in [Part::Core, Part::StorageWriter] {
        nodes[1].break_part(part).await;
    }
    let begun = Instant::now();
    let parts = loop {
        let parts: Vec<String> =
            kv.crashes(victim).await.unwrap_or_default().iter().map(|r| r.part.clone()).collect();
        if parts.len() == 2 {
            break parts;
        }
        assert!(begun.elapsed() < START_WITHIN, "{parts:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(parts, ["storage writer", "core loop"], "newest first");
    let report = report_of(&kv, victim, Kind::Panic, SOON).await;
    assert_eq!((report.message.as_str(), report.machine), ("asked to panic by a test", victim.to_string()));
    assert!(report.backtrace.contains("ennead::storage"), "{}", report.backtrace);
    assert_eq!(kv.crashed().await.expect("a quorum"), [victim]);
    let verdict = until(&kv, victim, Word::Panic, SOON).await;
    assert!(verdict.up && verdict.report.is_some(), "{verdict:#?}");
    // Told once: the files say so.
    let told = std::fs::read_dir(dir.path().join(victim.to_string()).join("crashes")).expect("a folder");
    let told: Vec<_> = told.filter_map(|f| f.ok()?.path().extension().map(ToOwned::to_owned)).collect();
    assert!(told.len() == 2 && told.iter().all(|extension| extension == "told"), "{told:?}");
    // No client writes there.
    let refused = kv.put("\0crashes", "x").await.unwrap_err();
    assert!(refused.to_string().contains("the cluster's own"), "{refused}");
}

#[tokio::test]
async fn the_last_words_of_a_machine_that_never_returns_are_read_from_another() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut nodes = embedded(dir.path(), 94, 5).await;
    let kv = nodes[0].client();
    let dead = nodes.remove(2);
    let victim = dead.name();
    for _ in 0..6 {
        dead.break_part(Part::Core).await;
    }
    let StopReason::Failed(reason) = dead.stopped().await else { panic!("it was not asked to stop") };
    assert!(reason.contains("died 6 times"), "{reason}");
    // Its host burns.
    std::fs::remove_dir_all(dir.path().join(victim.to_string())).expect("its data");
    let report = report_of(&kv, victim, Kind::End, Duration::from_secs(15)).await;
    assert!(report.message.contains("died 6 times") && !report.backtrace.is_empty(), "{report:#?}");
    let ends = kv.crashes(victim).await.expect("a quorum");
    let ends = ends.iter().filter(|report| report.kind == Kind::End).count();
    assert_eq!(ends, 1, "five heard it, and it is there once");
    let verdict = until(&kv, victim, Word::Panic, SOON).await;
    assert!(!verdict.up && verdict.report.is_some_and(|r| r.id == report.id));
}
