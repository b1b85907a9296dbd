//! Machines inside this very process: the embedded API, and the parts of a node that die and are started again.

#![allow(missing_docs, reason = "tests")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use ennead::certs::{self, Who};
use ennead::client::{ClientOptions, Error};
use ennead::node::Part;
use ennead::{Client, Name, Node, StopReason};

fn name(net: u8, host: u8) -> Name {
    Name::new(SocketAddr::new(Ipv4Addr::new(127, 0, net, host).into(), 9595))
}

fn certificates(dir: &Path, names: &[Name]) {
    certs::init(dir).expect("an authority");
    certs::issue(dir, &Who::Client("test".into())).expect("a client's certificate");
    for name in names {
        certs::issue(dir, &Who::Peer(*name)).expect("a peer's certificate");
    }
}

/// A cluster of machines in this process: the first takes the others along.
async fn cluster(dir: &Path, net: u8, machines: u8) -> Vec<Node> {
    let names: Vec<Name> = (1..=machines).map(|host| name(net, host)).collect();
    let certs = dir.join("certs");
    certificates(&certs, &names);
    let mut nodes = Vec::new();
    for blank in &names[1..] {
        let data = dir.join(blank.to_string());
        let node = Node::builder().listen(*blank).data_dir(data).certs(&certs).join([names[0]]);
        nodes.push(node.start().await.expect("a blank machine"));
    }
    let first = Node::builder().listen(names[0]).data_dir(dir.join("first")).certs(&certs);
    nodes.insert(0, first.init(names[1..].to_vec()).start().await.expect("the first machine"));
    until_served(&nodes[0].client()).await;
    nodes
}

/// A cluster that has just started may have to be asked more than once.
async fn until_served(client: &Client) {
    for _ in 0..100 {
        if client.put("warm-up", "x").await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the cluster does not serve: {:?}", client.get("warm-up").await);
}

#[tokio::test]
async fn a_program_embeds_a_cluster_of_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let nodes = cluster(dir.path(), 101, 1).await;
    let kv = nodes[0].client();

    let v1 = kv.put("mail-23412", "hello").await.expect("a put");
    let copy = kv.get("mail-23412").await.expect("a get").expect("a value");
    assert_eq!((&*copy.value, copy.version, copy.expires), (&b"hello"[..], v1, None));

    let v2 = kv
        .put("mail-23412", "there")
        .if_version(v1)
        .ttl(Duration::from_secs(60))
        .await
        .expect("a compared put");
    assert!(v2 > v1);
    assert_eq!(
        kv.put("mail-23412", "late").if_version(v1).await,
        Err(Error::VersionMismatch { found: Some(v2) })
    );
    assert_eq!(kv.put("mail-23412", "x").if_absent().await, Err(Error::VersionMismatch { found: Some(v2) }));
    assert!(kv.get("mail-23412").await.expect("a get").expect("a value").expires.is_some());

    let v3 = kv.delete("mail-23412").await.expect("a delete").expect("there was something");
    assert_eq!(kv.delete("mail-23412").await, Ok(None));
    assert_eq!(kv.get("mail-23412").await, Ok(None));
    let v4 = kv.put("mail-23412", "again").if_absent().await.expect("a put of an absent key");
    assert!(v3 > v2 && v4 > v3, "versions rise over deletes: {v1} {v2} {v3} {v4}");

    let reason = nodes.into_iter().next().expect("a node").shutdown("the test is over").await;
    assert_eq!(reason, StopReason::Shutdown("the test is over".into()));
}

#[tokio::test]
async fn a_value_past_its_expiry_is_gone_for_every_reader() {
    let dir = tempfile::tempdir().expect("a folder");
    let nodes = cluster(dir.path(), 102, 3).await;
    let kv = nodes[0].client();
    let v1 = kv.put("session", "x").ttl(Duration::from_millis(300)).await.expect("a put");
    tokio::time::sleep(Duration::from_millis(400)).await;
    for node in &nodes {
        assert_eq!(node.client().get("session").await, Ok(None));
    }
    // G4: the expiry was a delete, with a version of its own.
    let v2 = kv.put("session", "y").if_absent().await.expect("a put of an absent key");
    assert!(v2 > v1 + 1, "{v1} was put, then deleted, then {v2} was put");
}

#[tokio::test]
async fn large_values_travel_and_too_large_ones_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let nodes = cluster(dir.path(), 103, 3).await;
    let mut options = ClientOptions::new([nodes[0].name()], dir.path().join("certs"));
    // Three times eight MiB, each written twice, on a disk that other tests use too.
    options.timeout = Duration::from_secs(30);
    let kv = Client::with_options(options).await.expect("a client");
    let value: Vec<u8> = (0..8 << 20).map(|i| (i % 251) as u8).collect();
    kv.put("large", &value).await.expect("8 MiB");
    assert!(*kv.get("large").await.expect("a get").expect("a value").value == *value);
    let error = kv.put("large", vec![0; (8 << 20) + 1]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the value has 8388609 bytes; a value has at most 8388608; nothing was changed"
    );
    assert_eq!(
        kv.put("", "x").await.unwrap_err().to_string(),
        "the key is empty; a key has 1 to 16384 bytes; nothing was changed"
    );
    assert_eq!(
        kv.put("\0x", "x").await.unwrap_err().to_string(),
        "keys that begin with a zero byte are the cluster's own; nothing was changed"
    );
}

#[tokio::test]
async fn a_part_that_panics_is_started_again_and_the_node_still_serves() {
    let dir = tempfile::tempdir().expect("a folder");
    // Of three machines one may fail; all three lose the same part at once.
    let nodes = cluster(dir.path(), 104, 3).await;
    let kv = nodes[0].client();
    let mut acknowledged = kv.put("counter", "0").await.expect("a put");
    for (round, part) in [Part::Core, Part::StorageWriter, Part::Listener, Part::Dialler, Part::StorageWriter]
        .into_iter()
        .enumerate()
    {
        for node in &nodes {
            node.break_part(part).await;
        }
        // The listener dies of the next connection, a dialler of the next dial: make some.
        let other = Client::connect(nodes.iter().map(Node::name), dir.path().join("certs")).await;
        let other = other.expect("a client");
        let version = other.put("counter", round.to_string()).if_version(acknowledged).await;
        acknowledged = version.unwrap_or_else(|e| panic!("after {part:?} died: {e}"));
        let copy = kv.get("counter").await.expect("a get").expect("a value");
        assert_eq!((copy.version, &*copy.value), (acknowledged, round.to_string().as_bytes()));
    }
    let restarts: u32 = kv
        .status()
        .await
        .expect("status")
        .into_iter()
        .map(|(name, status)| status.unwrap_or_else(|e| panic!("{name}: {e}")).part_restarts)
        .sum();
    assert!(restarts >= 3 * 3, "{restarts} restarts told in status");
}

#[tokio::test]
async fn a_part_that_dies_again_and_again_ends_the_node_with_the_reason() {
    let dir = tempfile::tempdir().expect("a folder");
    let nodes = cluster(dir.path(), 105, 1).await;
    for _ in 0..6 {
        nodes[0].break_part(Part::Core).await;
    }
    let reason = nodes[0].stopped().await;
    let expected = "the core loop died 6 times within 60s, the last time of: asked to panic by a test";
    assert_eq!(reason, StopReason::Failed(expected.into()));
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let nodes = cluster(dir.path(), 106, 3).await;
    let kv = nodes[0].client();
    for i in 0..50 {
        kv.put(format!("key-{i}"), format!("value-{i}")).await.expect("a put");
    }
    for node in nodes {
        node.shutdown("restart").await;
    }
    let certs = dir.path().join("certs");
    let mut nodes = Vec::new();
    for host in 1..=3 {
        let data =
            if host == 1 { dir.path().join("first") } else { dir.path().join(name(106, host).to_string()) };
        let node = Node::builder().listen(name(106, host)).data_dir(data).certs(&certs).start().await;
        nodes.push(node.expect("a machine that belongs to a cluster starts without a word"));
    }
    let kv = nodes[1].client();
    for i in 0..50 {
        let copy = kv.get(format!("key-{i}")).await.expect("a get").expect("a value");
        assert_eq!(*copy.value, *format!("value-{i}").as_bytes());
    }
    // A restart's floor is seconds ahead of the clock: the first write above it goes through at once.
    kv.put("key-0", "after").await.expect("a put");
}
