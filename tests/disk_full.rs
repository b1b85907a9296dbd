//! A disk that fills up, really: a small file system of our own, where the system lets us make one.

#![allow(missing_docs, reason = "tests")]

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ennead::certs::{self, Who};
use ennead::client::Effect;
use ennead::{Client, Name};

const LISTEN: &str = "127.0.111.1";

/// Runs a daemon on a file system of 24 MiB until it ends; told to, makes room and runs it once more. All in a mount
/// namespace of its own, which goes away with it.
const SCRIPT: &str = r#"
    mount -t tmpfs -o size=24m none "$DISK" || exit 77
    "$ENNEAD" serve --listen "$LISTEN" --data "$DISK/data" --certs "$CERTS" --init
    echo "ended with $?" >&2
    while [ ! -e "$ROOM" ]; do sleep 0.1; done
    mount -o remount,size=200m "$DISK" || exit 78
    exec "$ENNEAD" serve --die-with-parent --listen "$LISTEN" --data "$DISK/data" --certs "$CERTS"
"#;

fn may_mount(dir: &Path) -> bool {
    let tried = Command::new("unshare")
        .args(["-rm", "sh", "-c", "mount -t tmpfs -o size=1m none \"$0\""])
        .arg(dir)
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

fn start(dir: &Path) -> Child {
    let disk = dir.join("disk");
    std::fs::create_dir(&disk).expect("a mount point");
    Command::new("unshare")
        .args(["-rm", "sh", "-c", SCRIPT])
        .env("DISK", disk)
        .env("ROOM", dir.join("room"))
        .env("CERTS", dir.join("certs"))
        .env("LISTEN", LISTEN)
        .env("ENNEAD", env!("CARGO_BIN_EXE_ennead"))
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a process")
}

async fn connected(dir: &Path) -> Client {
    let name: Name = LISTEN.parse().expect("a name");
    for _ in 0..200 {
        if let Ok(client) = Client::connect([name], dir.join("certs")).await {
            return client;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the machine does not answer");
}

#[tokio::test]
async fn a_full_disk_ends_the_machine_with_the_reason_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    if !may_mount(dir.path()) {
        eprintln!("SKIPPED: this system does not let us mount a small file system");
        return;
    }
    certs::init(&dir.path().join("certs")).expect("an authority");
    for who in [Who::Peer(LISTEN.parse().expect("a name")), Who::Client("test".into())] {
        certs::issue(&dir.path().join("certs"), &who).expect("a certificate");
    }
    let mut child = start(dir.path());

    let client = connected(dir.path()).await;
    let value = |i: u32| vec![(i % 251) as u8; 256 << 10];
    let mut acknowledged = 0;
    let error = loop {
        match client.put(format!("key-{acknowledged}"), value(acknowledged)).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 200, "50 MiB fit on 24");
    };
    assert!(acknowledged > 10, "only {acknowledged} writes fitted: {error}");
    assert_eq!(error.effect(), Effect::Unknown, "nobody knows what the disk took: {error}");

    // There is room again, and everything acknowledged.
    std::fs::write(dir.path().join("room"), "").expect("a word to the script");
    let client = connected(dir.path()).await;
    for i in 0..acknowledged {
        let copy = client.get(format!("key-{i}")).await.expect("a get").expect("acknowledged, so there");
        assert!(*copy.value == *value(i), "key-{i}");
    }
    client.put("after", "x").await.expect("a put once there is room");

    drop(child.stdin.take());
    let mut said = String::new();
    child.stderr.take().expect("its words").read_to_string(&mut said).expect("text");
    child.wait().expect("its end");
    assert!(said.contains("disk full: "), "{said}");
    assert!(said.contains("nothing acknowledged is lost"), "{said}");
    assert!(said.contains("ended with 1"), "{said}");
}
