//! Certificates that change under running machines and clients: nothing fails, and what does not fit is refused.

#![allow(missing_docs, clippy::print_stderr, reason = "tests")]

mod folders;
#[allow(dead_code, reason = "another test uses the rest")]
mod real;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ennead::certs::{self, Who};
use ennead::cluster::Cluster;
use ennead::{Client, Name};
use real::{START_WITHIN, real};

/// How often machine `index` has said so.
fn said(cluster: &Cluster, index: usize, what: &str) -> usize {
    fs::read_to_string(cluster.log(index)).unwrap_or_default().matches(what).count()
}

/// Waits until every machine has said so once more than that often.
async fn until_all_say(cluster: &Cluster, what: &str, before: &[usize]) {
    let begun = Instant::now();
    for (index, before) in before.iter().enumerate() {
        while said(cluster, index, what) <= *before {
            assert!(begun.elapsed() < START_WITHIN, "machine {index} does not say \"{what}\"");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn a_new_client_works(cluster: &Cluster, when: &str) {
    let client = cluster.client(Duration::from_secs(5)).await.unwrap_or_else(|e| panic!("{when}: {e}"));
    client.put("newcomer", when).await.unwrap_or_else(|e| panic!("{when}: {e}"));
}

/// What a machine says that somebody should look at.
async fn objections(client: &Client, name: Name) -> Vec<String> {
    let told = client.status().await.expect("a view").into_iter().find(|(of, _)| *of == name);
    told.expect("a member").1.expect("its status").objections
}

const TAKEN: &str = "new certificates are in use";
const NOT_TAKEN: &str = "the certificates in the folder are not used";

#[tokio::test]
async fn a_new_authority_takes_over_from_the_old_one_and_no_operation_fails() {
    let mut three = real(134, 81, 3, &[]).await;
    let folder = three.cluster.certs();
    let kept = tempfile::tempdir().expect("a folder");
    folders::copy(&folder, kept.path());

    let (done, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let load: Vec<_> = (0..4)
        .map(|i| {
            let (client, done, failed) = (three.client.clone(), done.clone(), failed.clone());
            tokio::spawn(async move {
                for n in 0u64.. {
                    let key = format!("k{i}-{}", n % 20);
                    let both = (client.put(&*key, "x").await.map(drop), client.get(&*key).await.map(drop));
                    if let (Err(error), _) | (_, Err(error)) = both {
                        eprintln!("{error}");
                        failed.fetch_add(1, Relaxed);
                    }
                    done.fetch_add(2, Relaxed);
                }
            })
        })
        .collect();

    for (step, when) in
        ["both authorities", "new certificates", "the new authority alone"].into_iter().enumerate()
    {
        let before: Vec<_> = (0..3).map(|index| said(&three.cluster, index, TAKEN)).collect();
        match step {
            0 => drop(certs::renew_authority(&folder).expect("a new authority")),
            1 => {
                let too_early =
                    certs::retire_authorities(&folder).expect_err("certificates of the old one are in use");
                assert!(too_early.to_string().contains("an older authority is needed yet"), "{too_early}");
                for who in
                    certs::show(&folder).expect("certificates").into_iter().filter_map(|shown| shown.who)
                {
                    certs::renew(&folder, &who).expect("a new certificate");
                }
            }
            _ => assert_eq!(certs::retire_authorities(&folder).expect("all are the new one's"), 1),
        }
        until_all_say(&three.cluster, TAKEN, &before).await;
        // Clients look as often as machines do.
        tokio::time::sleep(Duration::from_secs(3)).await;
        a_new_client_works(&three.cluster, when).await;
        // All of its connections are made anew.
        three.cluster.terminate(step).await;
        three.cluster.start(step).expect("a process");
        three.cluster.wait_until_up(START_WITHIN).await.expect("all again");
    }
    load.iter().for_each(tokio::task::JoinHandle::abort);
    eprintln!("{} operations, {} failed", done.load(Relaxed), failed.load(Relaxed));
    assert_eq!(failed.load(Relaxed), 0);
    assert!(done.load(Relaxed) > 100);

    let stranger = Client::connect(three.cluster.names(), kept.path()).await;
    let refused = stranger.map(drop).expect_err("the old authority is trusted no more");
    assert!(refused.to_string().contains("certificate"), "{refused}");
}

#[tokio::test]
async fn certificates_that_do_not_fit_are_refused_with_the_reason_and_those_before_used_on() {
    let three = real(134, 91, 3, &[]).await;
    let (folder, name) = (three.cluster.certs(), three.cluster.names()[1]);
    let pair = ["key", "pem"].map(|extension| folder.join("peers").join(format!("{name}.{extension}")));
    let before = pair.clone().map(|path| fs::read(path).expect("a file"));

    // Half of a new pair; then a stranger's.
    let other = tempfile::tempdir().expect("a folder");
    certs::make(other.path(), [Who::Peer(name)]).expect("certificates");
    let theirs =
        ["key", "pem"].map(|extension| other.path().join("peers").join(format!("{name}.{extension}")));
    for (count, (files, why)) in
        [(1, "the key beside it is another's"), (2, "no authority in ca.pem makes it good now")]
            .into_iter()
            .enumerate()
    {
        for (from, to) in theirs.iter().zip(&pair).take(files) {
            fs::copy(from, to).expect("a file");
        }
        let begun = Instant::now();
        while said(&three.cluster, 1, NOT_TAKEN) <= count {
            assert!(begun.elapsed() < START_WITHIN, "not refused: {why}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let objections = objections(&three.client, name).await;
        assert!(objections.iter().any(|said| said.contains(why)), "{objections:?}");
        a_new_client_works(&three.cluster, why).await;
    }
    for (path, bytes) in pair.iter().zip(before) {
        fs::write(path, bytes).expect("a file");
    }
    let begun = Instant::now();
    while !objections(&three.client, name).await.is_empty() {
        assert!(begun.elapsed() < START_WITHIN, "what fits again is still objected to");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
