//! Nine machines cut into five and four: the five go on, the four say that they cannot, and all is one again after it.

#![allow(missing_docs, clippy::print_stderr, reason = "tests")]

#[path = "membership/copies.rs"]
mod copies;
#[allow(dead_code, reason = "another test uses the rest")]
#[path = "membership/load.rs"]
mod load;
#[allow(dead_code, reason = "another test uses the rest")]
mod namespaces;
#[allow(dead_code, reason = "another test uses the rest")]
#[path = "membership/ring.rs"]
mod ring;

use std::path::Path;
use std::time::{Duration, Instant};

use ennead::client::{Client, ClientOptions, Effect};
use load::Load;
use namespaces::{Networks, ip, name, of, run};
use ring::{Ring, WITHIN};

const PEERS: u8 = 9;
/// The first of the minority.
const FIRST: u8 = 6;

#[test]
fn five_of_nine_go_on_and_four_refuse_until_the_cut_is_healed() {
    match Networks::make(PEERS) {
        Ok(networks) => networks.run("the_five"),
        Err(why) => eprintln!("SKIPPED: no network namespaces here, so nothing was tested: {why}"),
    }
}

async fn client(certs: &Path, peers: impl Iterator<Item = u8>, timeout: Duration) -> Client {
    let mut options = ClientOptions::new(peers.map(name), certs);
    options.timeout = timeout;
    Client::with_options(options).await.expect("a client")
}

/// The minority's cables go to a bridge of their own, or come back.
fn cut(prefix: &str, bridge: &str) {
    for i in FIRST..=PEERS {
        ip(&format!("-n {prefix}-hub link set v{i} master {bridge}")).expect("a cable");
    }
}

#[tokio::test]
#[ignore = "five_of_nine_go_on_and_four_refuse_until_the_cut_is_healed runs it, in namespaces"]
async fn the_five() {
    let Some(prefix) = namespaces::prefix() else { return };
    let within = |i| ["ip", "netns", "exec", &of(&prefix, i)].map(str::to_owned).to_vec();
    // Longer than the first cut, shorter than the second.
    let flags = ["--patience", "20s"];
    let mut ring = Ring::of((1..=PEERS).map(|i| (name(i), within(i))).collect(), &flags);
    let all: Vec<usize> = (0..PEERS.into()).collect();
    all.iter().for_each(|i| ring.start(*i));
    let client = ring.client(Duration::from_secs(5)).await;
    let before = ring.at_rest(&client, &all).await;
    let keys: Vec<String> = (0..40).map(|n| format!("old-{n}")).collect();
    for key in &keys {
        client.put(key, "old").await.expect("all nine are there");
    }
    let load = Load::start(&client, 3);
    let hub = format!("-n {prefix}-hub");
    ip(&format!("{hub} link add br1 type bridge")).expect("a bridge");
    // Without ARP: else it answers for the asking side's address, and the minority would believe that after the cut.
    ip(&format!("{hub} link set br1 up arp off")).expect("a bridge");

    cut(&prefix, "br1");
    let begun = Instant::now();
    let four = std::thread::spawn({
        let (prefix, folder) = (prefix.clone(), ring.dir().to_owned());
        move || run(&prefix, &of(&prefix, FIRST), "the_four", &folder)
    });
    for key in &keys {
        client.put(key, "new").await.expect("five are there");
    }
    eprintln!("the five took 40 writes within {:?} of the cut", begun.elapsed());
    while !four.is_finished() {
        client.put("during", "the cut").await.expect("five are there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    four.join().expect("the four did as they should");
    cut(&prefix, "br0");
    let healed = Instant::now();
    all_is_one_again(&ring, &client, &load, &keys).await;
    eprintln!("nine equal copies of all keys {:?} after the cut was healed", healed.elapsed());

    // The next one outlasts the patience: the five are a ring of their own, and the four come back with what they had.
    cut(&prefix, "br1");
    let five = ring.at_rest(&client, &all[..5]).await;
    for key in &keys {
        client.put(key, "newest").await.expect("five are there");
    }
    cut(&prefix, "br0");
    let healed = Instant::now();
    let after = ring.at_rest(&client, &all).await;
    for i in all.iter().copied() {
        assert_eq!(ring.machine(&after, i), ring.machine(&before, i), "the same incarnation");
    }
    eprintln!(
        "{} members, and nine again {:?} after the cut was healed",
        five.members().len(),
        healed.elapsed()
    );
    all_is_one_again(&ring, &client, &load, &keys).await;
    for key in &keys {
        let found = client.get(key).await.expect("a read").expect("a value");
        assert_eq!(&found.value[..], b"newest");
    }
    let came = load.finish(&client).await;
    eprintln!("{} calls meanwhile, {} failed; no key had two histories", came.calls, came.failed.len());
    assert!(came.failed.is_empty(), "five were there: {:?}", came.failed);
}

/// Nothing that was acknowledged is lost, nothing that was refused is there, and all copies become alike.
async fn all_is_one_again(ring: &Ring, client: &Client, load: &Load, keys: &[String]) {
    for i in 0..PEERS.into() {
        ring.until_nobody_misses(client, i).await;
    }
    load.hold(true);
    // What a machine missed is mended by the comparison of copies, which an operator may ask for.
    client.check().await.expect("nine answer");
    copies::until_all_are_whole(client, &[keys.to_vec(), load.keys()].concat(), WITHIN).await;
    load.hold(false);
}

#[tokio::test]
#[ignore = "the_five runs it, in a namespace of the minority"]
async fn the_four() {
    if namespaces::prefix().is_none() {
        return;
    }
    // Until a machine has noticed the cut, it proposes under the leads that it has, and that may yet take effect.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let timeout = Duration::from_secs(2);
    let client = client(&namespaces::folder().join("certs"), FIRST..=PEERS, timeout).await;
    for n in 0..3 {
        let begun = Instant::now();
        let error = client.put(format!("old-{n}"), "of the minority").await.expect_err("four are no quorum");
        assert_eq!((error.code(), error.effect()), ("no_quorum", Effect::Unchanged), "{error}");
        assert!(begun.elapsed() < 2 * timeout, "within the deadline, or so: {:?}", begun.elapsed());
        let (from, record) = client.get_one(format!("old-{n}")).await.expect("a copy");
        let value = record.expect("a value").value;
        eprintln!("{from} still serves its copy of old-{n}: {}", String::from_utf8_lossy(&value));
    }
    let error = client.get("old-0").await.expect_err("four are no quorum for a read either");
    assert_eq!(error.code(), "no_quorum", "{error}");
}
