//! The local cluster's own care for its processes, tried with a stand-in for the daemon.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ennead::cluster::{Base, Cluster, ClusterError, Event, Options};

/// A program in the daemon's place. A shell writes it: a file that this process had open for writing could not
/// be run while another test's child, forked just then, still holds it.
fn stand_in(dir: &Path, script: &str) -> PathBuf {
    let path = dir.join("stand-in");
    let write = "printf '#!/bin/sh\n%s\n' \"$1\" > \"$0\" && chmod 755 \"$0\"";
    let made = Command::new("sh").arg("-c").arg(write).arg(&path).arg(script).status().expect("a shell");
    assert!(made.success());
    path
}

fn options(dir: &Path, net: u8, script: &str) -> Options {
    let base = Base::at(Ipv4Addr::new(127, 0, net, 1), 19_595);
    Options {
        program: stand_in(dir, script),
        dir: dir.join("cluster"),
        peers: Some(3),
        base,
        flags: Vec::new(),
    }
}

fn supervise_until(cluster: &mut Cluster, found: impl Fn(&Event) -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if cluster.supervise().iter().any(&found) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

#[test]
fn a_peer_that_dies_unasked_is_started_again_and_one_killed_on_purpose_is_not() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    // Like every peer whose parent is gone, cat ends when its stdin does.
    let mut cluster = Cluster::prepare(options(dir.path(), 71, "exec cat")).expect("a cluster");
    let names = cluster.names();
    cluster.start_all().expect("three processes");
    cluster.kill(2);
    let id = cluster.pid(1).expect("a process");
    let killed = Command::new("kill").args(["-9", &id.to_string()]).status().expect("kill");
    assert!(killed.success());
    assert!(supervise_until(
        &mut cluster,
        |e| matches!(e, Event::Died(n, how, _) if *n == names[1] && how == "signal 9")
    ));
    assert!(supervise_until(&mut cluster, |e| *e == Event::Restarted(names[1])));
    assert!(cluster.is_running(1));
    assert!(!cluster.is_running(2));
    assert!(cluster.log(0).exists(), "each peer has a log");
}

#[tokio::test]
async fn a_peer_that_ends_while_starting_is_told_with_its_last_words() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cluster =
        Cluster::prepare(options(dir.path(), 72, "echo the disk is on fire >&2; exit 2")).expect("a cluster");
    cluster.start_all().expect("three processes");
    std::thread::sleep(Duration::from_millis(200));
    let error = cluster.wait_until_up(Duration::from_secs(10)).await.expect_err("nobody is up");
    let said = error.to_string();
    assert!(said.contains("exit code 2") && said.contains("the disk is on fire"), "{said}");
}

#[test]
fn a_taken_address_is_told_before_anything_is_made() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let _taken = UdpSocket::bind((Ipv4Addr::new(127, 0, 73, 2), 19_595)).expect("a socket");
    let error = Cluster::prepare(options(dir.path(), 73, "exec cat")).expect_err("an address is taken");
    assert!(matches!(error, ClusterError::Taken { .. }));
    let said = error.to_string();
    assert!(said.contains("127.0.73.2") && said.contains("taken"), "{said}");
    assert!(!dir.path().join("cluster").exists());
}

#[tokio::test]
async fn peers_end_with_the_cluster_and_in_order() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let script = "trap 'exit 0' TERM; while :; do sleep 0.01; done";
    let mut cluster = Cluster::prepare(options(dir.path(), 74, script)).expect("a cluster");
    cluster.start_all().expect("three processes");
    // The shell needs a moment until it minds the signal.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(cluster.stop().await, []);
}

#[test]
fn a_peer_that_has_left_its_ring_is_not_started_again() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    // The second one leaves: exit code 0, and a note in its data directory.
    let script = r#"case $4 in *.2*|*:19605) mkdir -p "$6"; echo gone > "$6/left"; exit 0;; esac; exec cat"#;
    let mut cluster = Cluster::prepare(options(dir.path(), 75, script)).expect("a cluster");
    let names = cluster.names();
    cluster.start_all().expect("three processes");
    assert!(supervise_until(&mut cluster, |e| *e == Event::Left(names[1])));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(cluster.supervise(), []);
    assert!(!cluster.is_running(1));
}

#[test]
fn a_cluster_has_certificates_for_further_peers() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let cluster = Cluster::prepare(options(dir.path(), 76, "exec cat")).expect("a cluster");
    assert_eq!(cluster.spare().len(), 3);
    for name in cluster.spare() {
        assert!(!cluster.names().contains(name), "{name}");
        assert!(cluster.certs().join(format!("peers/{name}.pem")).exists(), "{name}");
    }
}
