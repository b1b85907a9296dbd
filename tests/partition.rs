//! Nine machines cut into five and four: the five go on, the four say that they cannot, and all is one again after it.

#![allow(missing_docs, clippy::print_stderr, reason = "tests")]

#[allow(dead_code, reason = "another test uses the rest")]
mod namespaces;

use std::path::Path;
use std::time::{Duration, Instant};

use ennead::client::{Client, ClientOptions, Effect};
use namespaces::{Inside, Networks, ip, make_certificates, name, of, run, start};

const PEERS: u8 = 9;
/// The first of the minority.
const FIRST: u8 = 6;
const WITHIN: Duration = Duration::from_secs(60);

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

#[tokio::test]
#[ignore = "five_of_nine_go_on_and_four_refuse_until_the_cut_is_healed runs it, in namespaces"]
async fn the_five() {
    let Some(prefix) = namespaces::prefix() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let certs = folder.path().join("certs");
    make_certificates(&certs, PEERS);
    let _peers: Vec<Inside> = (1..=PEERS).map(|i| start(&prefix, folder.path(), i, PEERS)).collect();
    let client = client(&certs, 1..=PEERS, Duration::from_secs(5)).await;
    let begun = Instant::now();
    while let Err(error) = client.put("before", "the cut").await {
        assert!(begun.elapsed() < WITHIN, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for n in 0..40 {
        client.put(format!("key-{n}"), "old").await.expect("all nine are there");
    }

    // The minority's cables go to a bridge of their own.
    let hub = format!("-n {prefix}-hub");
    ip(&format!("{hub} link add br1 type bridge")).expect("a bridge");
    // Without ARP: else it answers for the asking side's address, and the minority would believe that after the cut.
    ip(&format!("{hub} link set br1 up arp off")).expect("a bridge");
    for i in FIRST..=PEERS {
        ip(&format!("{hub} link set v{i} master br1")).expect("a cable");
    }
    let cut = Instant::now();
    let four = std::thread::spawn({
        let (prefix, folder) = (prefix.clone(), folder.path().to_owned());
        move || run(&prefix, &of(&prefix, FIRST), "the_four", &folder)
    });
    for n in 0..40 {
        client.put(format!("key-{n}"), "new").await.expect("five are there");
    }
    eprintln!("the five took 40 writes within {:?} of the cut", cut.elapsed());
    while !four.is_finished() {
        client.put("during", "the cut").await.expect("five are there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    four.join().expect("the four did as they should");

    for i in FIRST..=PEERS {
        ip(&format!("{hub} link set v{i} master br0")).expect("a cable");
    }
    let healed = Instant::now();
    // Nothing that was acknowledged is lost, nothing that was refused is there, and all copies become alike.
    for n in 0..40 {
        let found = client.get(format!("key-{n}")).await.expect("a read").expect("a value");
        assert_eq!(&found.value[..], b"new");
    }
    loop {
        let mut unlike = 0;
        for n in 0..40 {
            let (_, copies) = client.get_copies(format!("key-{n}")).await.expect("copies");
            let first = copies.first().map(|copy| copy.version);
            unlike += usize::from(copies.len() < 9 || copies.iter().any(|copy| Some(copy.version) != first));
        }
        if unlike == 0 {
            break;
        }
        assert!(healed.elapsed() < WITHIN, "{unlike} of 40 keys are not alike");
        // What a machine missed is mended by the comparison of copies, which an operator may ask for.
        let _ = client.check().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    eprintln!("nine equal copies of all keys {:?} after the cut was healed", healed.elapsed());
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
        let error = client.put(format!("key-{n}"), "of the minority").await.expect_err("four are no quorum");
        assert_eq!((error.code(), error.effect()), ("no_quorum", Effect::Unchanged), "{error}");
        assert!(begun.elapsed() < 2 * timeout, "within the deadline, or so: {:?}", begun.elapsed());
        let (from, record) = client.get_one(format!("key-{n}")).await.expect("a copy");
        let value = record.expect("a value").value;
        eprintln!("{from} still serves its copy of key-{n}: {}", String::from_utf8_lossy(&value));
    }
    let error = client.get("key-0").await.expect_err("four are no quorum for a read either");
    assert_eq!(error.code(), "no_quorum", "{error}");
}
