//! Machines cut off in networks of their own: who is unreachable, whose host is down, who is on which side.

#![allow(missing_docs, clippy::print_stderr, reason = "tests")]

#[allow(dead_code, reason = "another test uses the rest")]
mod namespaces;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ennead::Name;
use ennead::client::{Client, ClientOptions};
use ennead::verdict::{Verdict, Word};
use namespaces::{Inside, Networks, ip, iptables, make_certificates, name, of, start};

const PEERS: u8 = 5;
const START_WITHIN: Duration = Duration::from_secs(60);
/// What an operator is promised.
const SOON: Duration = Duration::from_secs(5);
/// Fourteen machines at once are more than two processors answer for in time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
/// Machines of the ring where three fail at once.
const NINE: u8 = 9;

#[test]
fn who_is_cut_off_is_told_from_who_is_gone() {
    let _alone = ONE_AT_A_TIME.lock();
    let networks = match Networks::make(PEERS) {
        Ok(networks) => networks,
        Err(why) => {
            eprintln!("SKIPPED: no network namespaces here, so nothing was tested: {why}");
            return;
        }
    };
    networks.run("inside_the_namespaces");
}

#[test]
fn a_paused_a_slow_and_an_unreachable_machine_of_nine_are_told_apart_while_all_three_last() {
    let _alone = ONE_AT_A_TIME.lock();
    match Networks::make(NINE) {
        Ok(networks) => networks.run("three_at_once"),
        Err(why) => eprintln!("SKIPPED: no network namespaces here, so nothing was tested: {why}"),
    }
}

/// Machines in the namespaces, and a client of theirs.
async fn begin(prefix: &str, dir: &Path, peers: u8) -> (Vec<Inside>, Client) {
    let certs = dir.join("certs");
    make_certificates(&certs, peers);
    let machines: Vec<Inside> = (1..=peers).map(|i| start(prefix, dir, i, peers)).collect();
    let begun = Instant::now();
    let client = loop {
        let client = Client::with_options(ClientOptions::new([name(1)], certs.clone())).await;
        match client {
            Ok(client) if client.put("warm-up", "x").await.is_ok() => break client,
            _ => assert!(begun.elapsed() < START_WITHIN, "the cluster does not serve"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    for i in 1..=peers {
        until_well(&client, name(i)).await;
    }
    (machines, client)
}

/// Asks until nothing is wrong with it any more.
async fn until_well(client: &Client, name: Name) -> Verdict {
    let asked = Instant::now();
    loop {
        let verdict = client.why(name).await.expect("a view");
        if verdict.up && !verdict.lasts() {
            eprintln!("well after {:?}: {}", asked.elapsed(), verdict.sentence);
            return verdict;
        }
        assert!(asked.elapsed() < START_WITHIN, "not well: {verdict:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Asks until this is wrong with it now.
async fn until(client: &Client, name: Name, words: &[Option<Word>], within: Duration) -> Verdict {
    let asked = Instant::now();
    loop {
        let verdict = client.why(name).await.expect("a view");
        if words.contains(&verdict.word) && verdict.lasts() {
            eprintln!("{:?} after {:?}: {}", verdict.word, asked.elapsed(), verdict.sentence);
            return verdict;
        }
        assert!(asked.elapsed() < within, "not {words:?} after {:?}: {verdict:#?}", asked.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
#[ignore = "who_is_cut_off_is_told_from_who_is_gone runs it, in namespaces"]
async fn inside_the_namespaces() {
    let Some(prefix) = namespaces::prefix() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let dir: PathBuf = folder.path().to_owned();
    let (peers, client) = begin(&prefix, &dir, PEERS).await;

    // Machines that have just started trust their own clockwork little, and wait longer for answers.
    tokio::time::sleep(Duration::from_secs(5)).await;

    // Every packet to it and from it is dropped: the host cannot say a word.
    iptables(&prefix, 2, "-P INPUT DROP");
    iptables(&prefix, 2, "-P OUTPUT DROP");
    until(&client, name(2), &[Some(Word::Unreachable)], SOON).await;
    // Longer than a doubt.
    tokio::time::sleep(Duration::from_secs(3)).await;
    iptables(&prefix, 2, "-P OUTPUT ACCEPT");
    iptables(&prefix, 2, "-P INPUT ACCEPT");
    // It is heard again, and what it was is still told. Who hears it a little later than others calls it cut off from some.
    let begun = Instant::now();
    let verdict = loop {
        let verdict = until_well(&client, name(2)).await;
        if matches!(verdict.word, Some(Word::Unreachable | Word::Partitioned)) {
            break verdict;
        }
        assert!(begun.elapsed() < START_WITHIN, "{verdict:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(verdict.until_ms > verdict.at_ms, "{verdict:#?}");

    // It and two others hear nothing of each other; all else works.
    for other in [1, 2] {
        iptables(&prefix, 4, &format!("-A INPUT -s 10.197.0.{other} -j DROP"));
        iptables(&prefix, 4, &format!("-A OUTPUT -d 10.197.0.{other} -j DROP"));
    }
    let mut verdict = until(&client, name(4), &[Some(Word::Partitioned)], SOON).await;
    let begun = Instant::now();
    let sides = "10.197.0.1, 10.197.0.2 get no answer from it; 10.197.0.3, 10.197.0.5 reach it";
    while !verdict.sentence.contains(sides) {
        assert!(begun.elapsed() < START_WITHIN, "{verdict:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        verdict = client.why(name(4)).await.expect("a view");
    }
    iptables(&prefix, 4, "-F");
    until_well(&client, name(4)).await;

    // The cable is pulled. Without what they remember of the host's hardware address, which they do for up to a minute,
    // the others' systems find out in three seconds that there is no such host.
    ip(&format!("-n {prefix}-hub link set v3 down")).expect("a cable");
    for i in (1..=PEERS).filter(|i| *i != 3) {
        ip(&format!("-n {} neigh flush all", of(&prefix, i))).expect("forgotten");
    }
    until(&client, name(3), &[Some(Word::Unreachable), Some(Word::HostDown)], SOON).await;
    until(&client, name(3), &[Some(Word::HostDown)], Duration::from_secs(25)).await;
    drop(peers);
}

#[tokio::test]
#[ignore = "another test runs it, in namespaces"]
async fn three_at_once() {
    let Some(prefix) = namespaces::prefix() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (machines, client) = begin(&prefix, folder.path(), NINE).await;
    // What an fsync usually takes must be known. And machines that have just started trust their own clockwork little.
    let writer = tokio::spawn({
        let client = client.clone();
        async move {
            for n in 0u64.. {
                // Only that there is something to write matters.
                let _ = client.put(format!("k{}", n % 50), "x").await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    tokio::time::sleep(Duration::from_secs(6)).await;
    machines[2].signal("STOP");
    std::fs::write(folder.path().join("5/slow-disk"), "400").expect("a file");
    iptables(&prefix, 7, "-P INPUT DROP");
    iptables(&prefix, 7, "-P OUTPUT DROP");
    tokio::join!(
        until(&client, name(3), &[Some(Word::Paused)], SOON),
        until(&client, name(5), &[Some(Word::DiskStalled)], SOON),
        until(&client, name(7), &[Some(Word::Unreachable)], SOON),
    );
    // All three last, and none is taken for another.
    for (i, word) in [(3, Word::Paused), (5, Word::DiskStalled), (7, Word::Unreachable)] {
        let verdict = client.why(name(i)).await.expect("a view");
        assert_eq!(verdict.word, Some(word), "{verdict:#?}");
    }
    writer.abort();
    machines[2].signal("CONT");
}
