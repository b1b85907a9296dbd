//! A copy of a machine's data directory, started beside it or put back later (V6, R2).

#![allow(missing_docs, clippy::print_stdout, reason = "tests, and a figure for people")]

mod folders;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ennead::Name;
use ennead::client::Client;
use ennead::cluster::{Base, Cluster, Options};
use ennead::status::MachineStatus;

/// Patience with machines that may be busy with other tests.
const WITHIN: Duration = Duration::from_secs(60);

fn prepare(dir: &Path, peers: usize, last: u8) -> Cluster {
    let options = Options {
        program: PathBuf::from(env!("CARGO_BIN_EXE_ennead")),
        dir: dir.join("cluster"),
        peers: Some(peers),
        base: Base::at(Ipv4Addr::new(127, 0, 134, last), 9595),
        flags: ["--patience", "2s"].map(str::to_string).to_vec(),
    };
    Cluster::prepare(options).expect("addresses and certificates")
}

/// A process that ends with its test.
struct Twin(Child);

impl Drop for Twin {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn account(client: &Client, name: Name) -> Option<MachineStatus> {
    let accounts = client.status().await.ok()?;
    accounts.into_iter().find(|(n, _)| *n == name)?.1.ok()
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let asked = Instant::now();
    while !condition().await {
        assert!(asked.elapsed() < WITHIN, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn v6_a_twin_from_a_copied_directory_votes_for_nobody_and_disturbs_nobody() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = prepare(dir.path(), 3, 1);
    cluster.start_all().expect("three processes");
    cluster.wait_until_up(WITHIN).await.expect("three peers up");
    let client = cluster.client(Duration::from_secs(5)).await.expect("a client");
    for n in 0..50 {
        client.put(format!("key-{n}"), "old").await.expect("a write");
    }
    let (name, data) = (cluster.names()[2], dir.path().join("copy"));
    folders::copy(&cluster.data(2), &data);
    for n in 0..50 {
        client.put(format!("key-{n}"), "new").await.expect("a write");
    }
    let log = fs::File::create(dir.path().join("twin.log")).expect("a log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ennead"));
    command.args(["serve", "--die-with-parent", "--listen", "127.0.134.9", "--advertise", &name.to_string()]);
    command.arg("--data").arg(&data).arg("--certs").arg(cluster.certs());
    let child = command.stdin(Stdio::piped()).stderr(log.try_clone().expect("a file")).stdout(log).spawn();
    let _twin = Twin(child.expect("a process"));

    let before = account(&client, name).await.expect("it answers");
    until("nobody says that there is a twin", async || {
        let others = [account(&client, cluster.names()[0]).await, account(&client, cluster.names()[1]).await];
        others.into_iter().flatten().any(|status| {
            status.objections.iter().any(|o| o.contains(&format!("another process lives at {name}")))
        })
    })
    .await;
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(3) {
        for n in 0..50 {
            let asked = Instant::now();
            client.put(format!("key-{n}"), "newer").await.expect("a write");
            slowest = slowest.max(asked.elapsed());
        }
    }
    println!("slowest write beside a twin: {slowest:?}");
    for i in 0..2 {
        let status = account(&client, cluster.names()[i]).await.expect("it answers");
        let peer = status.peers.iter().find(|p| p.name == name).expect("a peer");
        assert!(peer.reachable && peer.reason.is_none(), "{peer:?}");
        assert_eq!(status.epoch, before.epoch, "nobody was dropped");
    }
    let log = fs::read_to_string(dir.path().join("twin.log")).expect("a log");
    assert!(log.contains("another process lives at") && log.contains("end one of the two"), "{log}");

    // The true one dies: its twin does not take its place. Two of three go on.
    cluster.kill(2);
    for n in 0..50 {
        let found = client.get(format!("key-{n}")).await.expect("a read").expect("a value");
        assert_eq!(&found.value[..], b"newer", "key-{n}");
        client.put(format!("key-{n}"), "newest").await.expect("a write");
    }
    cluster.start(2).expect("a process");
    until("it does not come back", async || {
        account(&client, name).await.is_some_and(|is| is.slots > 0 && is.slots == is.synced_slots)
    })
    .await;
    for n in 0..50 {
        let found = client.get(format!("key-{n}")).await.expect("a read").expect("a value");
        assert_eq!(&found.value[..], b"newest", "key-{n}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn r2_an_old_copy_of_a_directory_that_is_put_back_makes_a_new_machine_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = prepare(dir.path(), 4, 20);
    cluster.start_all().expect("four processes");
    cluster.wait_until_up(WITHIN).await.expect("four peers up");
    let client = cluster.client(Duration::from_secs(5)).await.expect("a client");
    for n in 0..50 {
        client.put(format!("key-{n}"), "old").await.expect("a write");
    }
    let (name, old) = (cluster.names()[2], dir.path().join("old"));
    let was = account(&client, name).await.expect("it answers");
    folders::copy(&cluster.data(2), &old);
    // One dies for good, and is dropped: the view that is settled then has the three others in its ring.
    cluster.kill(3);
    until("the dead one is not dropped, or that view is not settled", async || {
        account(&client, name).await.is_some_and(|is| is.epoch > was.epoch && is.settled == is.epoch)
    })
    .await;
    for n in 0..50 {
        client.put(format!("key-{n}"), "new").await.expect("a write");
    }
    cluster.kill(2);
    fs::remove_dir_all(cluster.data(2)).expect("its data are gone");
    folders::copy(&old, &cluster.data(2));
    cluster.start(2).expect("a process");
    until("it is no new machine", async || {
        cluster.supervise();
        account(&client, name).await.is_some_and(|is| {
            is.machine.incarnation != was.machine.incarnation && is.slots > 0 && is.slots == is.synced_slots
        })
    })
    .await;
    let log = fs::read_to_string(cluster.log(2)).expect("a log");
    assert!(log.contains("has forgotten what this machine said"), "{log}");
    for n in 0..50 {
        let found = client.get(format!("key-{n}")).await.expect("a read").expect("a value");
        assert_eq!(&found.value[..], b"new", "key-{n}");
    }
    cluster.stop().await;
}
