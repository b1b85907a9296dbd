//! Disks that fill up, really: small file systems of our own, where the system lets us make them. Trapdoor 9: values are
//! refused with the reason, reads and deletes go on, nothing ends, and all of it goes on unaided once there is room.

#![allow(missing_docs, clippy::print_stderr, reason = "tests")]

use std::io::Read;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ennead::certs::{self, Who};
use ennead::client::{Effect, Error};
use ennead::cluster::{Base, Cluster, Options};
use ennead::verdict::Word;
use ennead::{Client, Name};

/// What an operator is promised once there is room again.
const RECOVERS_WITHIN: Duration = Duration::from_secs(10);
/// What a machine takes to notice that its disk is full, and the others to hear of it.
const NOTICES_WITHIN: Duration = Duration::from_secs(10);
/// Patience with machines that are busy with other tests.
const START_WITHIN: Duration = Duration::from_secs(60);

fn may_mount(dir: &Path) -> bool {
    let tried = Command::new("unshare")
        .args(["-rm", "sh", "-c", "mount -t tmpfs -o size=1m none \"$0\""])
        .arg(dir)
        .stderr(Stdio::null())
        .status();
    let may = tried.is_ok_and(|status| status.success());
    if !may {
        eprintln!("SKIPPED: this system does not let us mount a small file system");
    }
    may
}

/// A program to be run as `ennead`: the data directory is a file system of so many MiB, in a mount namespace of its own
/// that goes away with it. While there is a file beside it that ends in `.full`, the rest of it is filled up.
fn on_a_small_disk(dir: &Path, mib: u32) -> PathBuf {
    let script = format!(
        r#"#!/bin/sh
for word; do [ "$before" = --data ] && disk=$word; before=$word; done
mkdir -p "$disk"
exec 3<&0
exec unshare -rm sh -c '
    disk=$0
    mount -t tmpfs -o size={mib}m none "$disk" || exit 77
    "{ennead}" "$@" <&3 &
    machine=$!
    trap "kill $machine" TERM
    while kill -0 $machine 2> /dev/null; do
        if [ -e "$disk.full" ] && [ ! -e "$disk/filler" ]; then
            dd if=/dev/zero of="$disk/filler" bs=64k 2> /dev/null
            touch "$disk.is-full"
        elif [ ! -e "$disk.full" ] && [ -e "$disk/filler" ]; then
            rm "$disk/filler" "$disk.is-full"
        fi
        sleep 0.1
    done
    wait $machine
    echo "ended with $?" >&2
' "$disk" "$@"
"#,
        ennead = env!("CARGO_BIN_EXE_ennead")
    );
    let path = dir.join("on-a-small-disk");
    std::fs::write(&path, script).expect("a script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a program");
    path
}

struct Small {
    cluster: Cluster,
    client: Client,
    /// Keys acknowledged, each with its own number as value.
    acknowledged: Vec<String>,
    tried: u32,
}

impl Small {
    async fn start(dir: &Path, host: u8, machines: usize) -> Self {
        let options = Options {
            program: on_a_small_disk(dir, 32),
            dir: dir.join("cluster"),
            peers: Some(machines),
            base: Base::at(Ipv4Addr::new(127, 0, 134, host), 9595),
            flags: ["--disk-reserve", "8MiB", "--http", "off"].map(String::from).to_vec(),
        };
        let mut cluster = Cluster::prepare(options).expect("addresses and certificates");
        cluster.start_all().expect("processes");
        cluster.wait_until_up(START_WITHIN).await.expect("machines up");
        let client = cluster.client(Duration::from_secs(2)).await.expect("a client");
        Self { cluster, client, acknowledged: Vec::new(), tried: 0 }
    }

    /// Fills the disks of the first so many machines, and empties those of the others.
    async fn fill(&self, machines: usize) {
        let begun = Instant::now();
        for index in 0..self.cluster.names().len() {
            let disk = self.cluster.data(index);
            let beside = |what| PathBuf::from(format!("{}.{what}", disk.display()));
            let (wanted, is) = (beside("full"), beside("is-full"));
            match index < machines {
                true => std::fs::write(&wanted, "").expect("a word to the script"),
                false if wanted.exists() => std::fs::remove_file(&wanted).expect("a word to the script"),
                false => {}
            }
            while is.exists() != (index < machines) {
                assert!(begun.elapsed() < START_WITHIN, "{} is not filled, or emptied", disk.display());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    async fn put(&mut self) -> Result<(), Error> {
        self.tried += 1;
        let key = format!("key-{}", self.tried);
        let put = self.client.put(&*key, value(&key)).await.map(drop);
        if put.is_ok() {
            self.acknowledged.push(key);
        }
        put
    }

    async fn put_some(&mut self, n: usize, when: &str) {
        for _ in 0..n {
            self.put().await.unwrap_or_else(|e| panic!("a put {when}: {e}"));
        }
    }

    async fn read_all(&self, when: &str) {
        for key in &self.acknowledged {
            let copy = self.client.get(&**key).await.unwrap_or_else(|e| panic!("a get {when}: {e}"));
            assert!(copy.is_some_and(|copy| *copy.value == *value(key)), "{key} {when}");
        }
    }

    /// Asks why until a machine's disk is told to be full now, or not to be any more.
    async fn until_told(&self, machine: usize, full: bool) {
        let (name, begun) = (self.cluster.names()[machine], Instant::now());
        loop {
            let verdict = self.client.why(name).await.expect("a view");
            if (verdict.word == Some(Word::DiskFull) && verdict.lasts()) == full {
                return eprintln!("after {:?}: {}", begun.elapsed(), verdict.sentence);
            }
            assert!(begun.elapsed() < NOTICES_WITHIN, "is its disk full? {full}: {verdict:#?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn all_run(&mut self, when: &str) {
        for (index, name) in self.cluster.names().into_iter().enumerate() {
            assert!(self.cluster.is_running(index), "{name} has ended {when}");
        }
    }
}

fn value(key: &str) -> Vec<u8> {
    key.bytes().cycle().take(4_000).collect()
}

/// Disks of so many machines fill up, of which so many may be full for every key, and so many are too many for any.
async fn fills_up(host: u8, machines: usize, may_be_full: usize, too_many: usize) {
    let dir = tempfile::tempdir().expect("a folder");
    if !may_mount(dir.path()) {
        return;
    }
    let mut small = Small::start(dir.path(), host, machines).await;
    small.put_some(50, "before").await;
    for full in [may_be_full.min(1), may_be_full] {
        small.fill(full).await;
        small.put_some(50, &format!("while {full} of {machines} disks are full")).await;
        small.read_all("then").await;
    }

    for full in [too_many, machines] {
        small.fill(full).await;
        let (begun, mut refused) = (Instant::now(), 0);
        while refused < 20 {
            match small.put().await {
                Err(Error::DiskFull { machines }) => {
                    assert!(!machines.is_empty());
                    refused += 1;
                }
                // Before all have heard.
                Ok(()) | Err(Error::Unknown { .. } | Error::NoQuorum { .. }) => refused = 0,
                Err(other) => panic!("{other}"),
            }
            assert!(
                begun.elapsed() < NOTICES_WITHIN,
                "not refused while {full} of {machines} disks are full"
            );
        }
        eprintln!("{full} of {machines} disks full: refused with the reason after {:?}", begun.elapsed());
        let begun = Instant::now();
        let error = small.put().await.expect_err("there is no room");
        assert_eq!((error.code(), error.effect()), ("disk_full", Effect::Unchanged), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(1), "refused only after {:?}", begun.elapsed());
        small.until_told(0, true).await;
        small.until_told(machines - 1, full == machines).await;
        small.read_all("while the disks are full").await;
        small.all_run("for want of room");
    }
    let gone = small.acknowledged.remove(0);
    let deleted = small.client.delete(&*gone).await.expect("a tombstone takes what is kept for it");
    assert!(deleted.is_some());

    small.fill(0).await;
    let begun = Instant::now();
    // The first key may be another's whose owners have looked already: all is well once no key is refused any more.
    let mut taken = 0;
    while taken < 50 {
        match small.put().await {
            Ok(()) => taken += 1,
            Err(error) => {
                assert!(begun.elapsed() < RECOVERS_WITHIN, "{error}");
                taken = 0;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    eprintln!("{machines} disks emptied: fifty puts in a row, the last after {:?}", begun.elapsed());
    small.until_told(0, false).await;
    small.read_all("once there is room").await;
    assert!(small.client.get(&*gone).await.expect("a get").is_none());
    small.all_run("in all of this");
    small.cluster.stop().await;
}

#[tokio::test]
async fn one_machine_without_room_refuses_values_and_goes_on_when_there_is() {
    fills_up(1, 1, 0, 1).await;
}

#[tokio::test]
async fn of_four_machines_one_may_be_without_room_and_three_are_too_many() {
    // One owns three slots of a key and the others two each: two machines may be full for some keys only.
    fills_up(11, 4, 1, 3).await;
}

#[tokio::test]
async fn of_nine_machines_four_may_be_without_room_and_five_are_too_many() {
    fills_up(21, 9, 4, 5).await;
}

const LISTEN: &str = "127.0.134.31";

/// Runs a daemon on a file system of 40 MiB until it ends; told to, makes room and runs it once more. All in a mount
/// namespace of its own, which goes away with it.
const SCRIPT: &str = r#"
    mount -t tmpfs -o size=40m none "$DISK" || exit 77
    exec 3<&0
    "$ENNEAD" serve --die-with-parent --listen "$LISTEN" --data "$DISK/data" --certs "$CERTS" --init \
        --disk-reserve 8MiB --http off <&3 &
    while [ ! -e "$ROOM" ]; do sleep 0.1; done
    kill -9 $!
    wait $!
    mount -o remount,size=200m "$DISK" || exit 78
    exec "$ENNEAD" serve --die-with-parent --listen "$LISTEN" --data "$DISK/data" --certs "$CERTS" \
        --disk-reserve 8MiB --http off <&3
"#;

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
async fn values_that_fill_a_disk_are_refused_before_anything_fails_and_a_kill_then_loses_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    if !may_mount(dir.path()) {
        return;
    }
    certs::init(&dir.path().join("certs")).expect("an authority");
    for who in [Who::Peer(LISTEN.parse().expect("a name")), Who::Client("test".into())] {
        certs::issue(&dir.path().join("certs"), &who).expect("a certificate");
    }
    let mut child = start(dir.path());

    let client = connected(dir.path()).await;
    let value = |i: u32| vec![(i % 251) as u8; 64 << 10];
    let mut acknowledged = 0;
    let error = loop {
        match client.put(format!("key-{acknowledged}"), value(acknowledged)).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 1_000, "60 MiB fit on 40");
        // As fast as a disk, not as memory: half a second of that is less than the reserve.
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(acknowledged > 40, "only {acknowledged} writes fitted: {error}");
    assert_eq!((error.code(), error.effect()), ("disk_full", Effect::Unchanged), "{error}");

    // There is room again, and everything acknowledged.
    std::fs::write(dir.path().join("room"), "").expect("a word to the script");
    tokio::time::sleep(Duration::from_millis(500)).await;
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
    assert!(said.contains("the disk is full: values are refused"), "{said}");
    assert!(!said.contains("waits for room"), "the reserve was used up: {said}");
}
