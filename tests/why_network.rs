//! Machines cut off in networks of their own: who is unreachable, whose host is down, who is on which side.

#![allow(missing_docs, clippy::print_stderr, reason = "tests")]

#[allow(dead_code, reason = "another test uses the rest")]
mod namespaces;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ennead::Name;
use ennead::client::{Client, ClientOptions};
use ennead::verdict::{Verdict, Word};
use namespaces::{Inside, Networks, ip, iptables, make_certificates, name, of, start};

const PEERS: u8 = 5;
const START_WITHIN: Duration = Duration::from_secs(60);
/// The aim is five seconds on a machine that does nothing else; beside other tests, probes are given more time.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn who_is_cut_off_is_told_from_who_is_gone() {
    let networks = match Networks::make(PEERS) {
        Ok(networks) => networks,
        Err(why) => {
            eprintln!("SKIPPED: no network namespaces here, so nothing was tested: {why}");
            return;
        }
    };
    networks.run("inside_the_namespaces");
}

async fn until(client: &Client, name: Name, words: &[Option<Word>], within: Duration) -> Verdict {
    let asked = Instant::now();
    loop {
        let verdict = client.why(name).await.expect("a view");
        if words.contains(&verdict.word) {
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
    let certs = dir.join("certs");
    make_certificates(&certs, PEERS);
    let peers: Vec<Inside> = (1..=PEERS).map(|i| start(&prefix, &dir, i, PEERS)).collect();
    let begun = Instant::now();
    let client = loop {
        let client = Client::with_options(ClientOptions::new([name(1)], certs.clone())).await;
        match client {
            Ok(client) if client.put("warm-up", "x").await.is_ok() => break client,
            _ => assert!(begun.elapsed() < START_WITHIN, "the cluster does not serve"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    for i in 1..=PEERS {
        until(&client, name(i), &[None], SOON).await;
    }

    // Machines that have just started trust their own clockwork little, and wait longer for answers.
    tokio::time::sleep(Duration::from_secs(5)).await;

    // Every packet to it is dropped: the host cannot say a word.
    iptables(&prefix, 2, "-P INPUT DROP");
    until(&client, name(2), &[Some(Word::Unreachable)], SOON).await;
    iptables(&prefix, 2, "-P INPUT ACCEPT");
    until(&client, name(2), &[None], START_WITHIN).await;

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
    until(&client, name(4), &[None], START_WITHIN).await;

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
