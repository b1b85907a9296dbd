//! Every mistake that a user can make with a daemon, and what is said about it.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ennead::certs::{self, Who};
use ennead::client::{Client, Effect};
use ennead::cluster::{Base, Cluster, Options};

/// A folder with certificates for these peers.
fn certificates(dir: &Path, peers: &[&str]) -> PathBuf {
    let dir = dir.join("certs");
    certs::init(&dir).expect("an authority");
    for peer in peers {
        certs::issue(&dir, &Who::Peer(peer.parse().expect("a name"))).expect("a certificate");
    }
    certs::issue(&dir, &Who::Client("me".to_string())).expect("a certificate");
    dir
}

/// Runs a daemon that is expected to end by itself; one that does not loses its parent, and ends after all.
fn serve(listen: &str, data: &Path, certs: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ennead"));
    command.args(["serve", "--die-with-parent", "--listen", listen]).arg("--data").arg(data);
    command.arg("--certs").arg(certs).args(more);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("a run");
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().expect("a child").is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    // Closes its standard input first.
    child.wait_with_output().expect("its output")
}

/// The message of a daemon that must not start.
fn refused(listen: &str, data: &Path, certs: &Path, more: &[&str]) -> String {
    let output = serve(listen, data, certs, more);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.starts_with("ennead: ") && said.lines().count() == 1, "one line, said once: {said}");
    said
}

#[test]
fn an_empty_directory_without_init_or_join_explains_both() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let certs = certificates(dir.path(), &["127.0.91.1"]);
    let said = refused("127.0.91.1", &dir.path().join("data"), &certs, &[]);
    assert!(said.contains("is empty") && said.contains("--init") && said.contains("--join"), "{said}");
}

#[test]
fn a_missing_certificate_names_the_command_that_makes_it() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let certs = certificates(dir.path(), &[]);
    let said = refused("127.0.92.1", &dir.path().join("data"), &certs, &["--init"]);
    assert!(said.contains("kvctl certs issue") && said.contains("--peer 127.0.92.1"), "{said}");
}

#[test]
fn a_taken_port_is_named() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let certs = certificates(dir.path(), &["127.0.93.1"]);
    let _taken = UdpSocket::bind("127.0.93.1:9595").expect("a socket");
    let said = refused("127.0.93.1", &dir.path().join("data"), &certs, &["--init"]);
    assert!(said.contains("127.0.93.1:9595") && said.contains("in use"), "{said}");
}

#[tokio::test]
async fn a_directory_in_use_another_machines_or_of_a_cluster_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options = Options {
        program: PathBuf::from(env!("CARGO_BIN_EXE_ennead")),
        dir: dir.path().join("cluster"),
        peers: Some(1),
        base: Base::at("127.0.94.1".parse().expect("an address"), 9595),
        flags: Vec::new(),
    };
    let mut cluster = Cluster::prepare(options).expect("an address and certificates");
    cluster.start_all().expect("a process");
    cluster.wait_until_up(Duration::from_secs(60)).await.expect("a peer");
    let (data, certs) = (cluster.data(0), cluster.certs());
    // A cluster is made with certificates for a few further peers.
    assert!(certs.join("peers/127.0.94.2.pem").exists());

    let said = refused("127.0.94.2", &data, &certs, &["--init"]);
    assert!(said.contains("in use") || said.contains("another process"), "{said}");
    assert_eq!(cluster.terminate(0).await.as_deref(), Some("exit code 0"));

    let said = refused("127.0.94.2", &data, &certs, &[]);
    assert!(said.contains("is that of 127.0.94.1, not of 127.0.94.2"), "{said}");
    let said = refused("127.0.94.1", &data, &certs, &["--init"]);
    assert!(said.contains("--init is refused") && said.contains("belongs to cluster"), "{said}");
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused_and_told_why() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options = Options {
        program: PathBuf::from(env!("CARGO_BIN_EXE_ennead")),
        dir: dir.path().join("cluster"),
        peers: Some(1),
        base: Base::at("127.0.95.1".parse().expect("an address"), 9595),
        flags: vec!["--max-value".to_string(), "1KiB".to_string()],
    };
    let mut cluster = Cluster::prepare(options).expect("an address and certificates");
    cluster.start_all().expect("a process");
    cluster.wait_until_up(Duration::from_secs(60)).await.expect("a peer");
    let strangers = certificates(dir.path(), &[]);
    let refused = match Client::connect(cluster.names(), strangers).await {
        Ok(client) => client.put("k", "v").await.expect_err("a stranger writes nothing"),
        Err(e) => e,
    };
    assert_eq!(refused.effect(), Effect::Unchanged);
    assert!(refused.to_string().to_lowercase().contains("certificate"), "{refused}");

    // The cluster's own client is served, within the limits.
    let client = cluster.client(Duration::from_secs(2)).await.expect("a client");
    client.put("k", vec![0; 1_024]).await.expect("as much as --max-value allows");
    let error = client.put("k", vec![0; 1_025]).await.expect_err("more than it allows");
    assert_eq!((error.code(), error.effect()), ("refused", Effect::Unchanged), "{error}");
    assert!(error.to_string().contains("1024") || error.to_string().contains("1 KiB"), "{error}");
}
