//! What a ring of nine must outlive: a clock a year ahead, disks without room, no power for anybody.
#![allow(missing_docs, clippy::print_stderr, reason = "tests that tell what they measured")]

#[path = "membership/copies.rs"]
mod copies;
#[allow(dead_code, reason = "another test uses the rest")]
#[path = "membership/load.rs"]
mod load;
#[allow(dead_code, reason = "another test uses the rest")]
#[path = "membership/ring.rs"]
mod ring;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use ennead::client::Client;
use ennead::verdict::Word;
use load::Load;
use ring::{Ring, WITHIN};

const YEAR: u64 = 365 * 24 * 3600;
/// Within which values are taken once a full disk has room again.
const ROOM_WITHIN: Duration = Duration::from_secs(10);
/// Set where disks may be mounted.
const INSIDE: &str = "ENNEAD_TEST_MOUNTS";
const NINE: [usize; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 8];

async fn nine(net: u8, deadline: Duration, prepare: impl Fn(&Ring)) -> (Ring, Client) {
    let mut ring = Ring::new(net, 9, &["--check-every", "5s"]);
    prepare(&ring);
    NINE.into_iter().for_each(|i| ring.start(i));
    let client = ring.client(deadline).await;
    ring.at_rest(&client, &NINE).await;
    (ring, client)
}

#[tokio::test]
async fn a_clock_a_year_ahead_that_jumps_back_across_a_restart_fails_and_loses_nothing() {
    let (mut ring, client) = nine(136, Duration::from_secs(10), |_| {}).await;
    let load = Load::start(&client, 4);
    tokio::time::sleep(Duration::from_secs(1)).await;
    fs::write(ring.clock(3), YEAR.to_string()).expect("a file");
    let begun = Instant::now();
    loop {
        let verdict = client.why(ring.name(3)).await.expect("a view");
        if verdict.word == Some(Word::Clock) {
            eprintln!("after {:?}: {}", begun.elapsed(), verdict.sentence);
            break;
        }
        assert!(begun.elapsed() < WITHIN, "{verdict:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // It is believed by the others, though it is wrong: times only rise. Now it is right again, and younger than they.
    tokio::time::sleep(Duration::from_secs(2)).await;
    ring.kill(3);
    fs::remove_file(ring.clock(3)).expect("a file");
    ring.start(3);
    ring.at_rest(&client, &NINE).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // With four others away, it is needed.
    [0, 4, 6, 8].into_iter().for_each(|i| ring.kill(i));
    tokio::time::sleep(Duration::from_secs(2)).await;
    [0, 4, 6, 8].into_iter().for_each(|i| ring.start(i));
    ring.at_rest(&client, &NINE).await;
    load.hold(true);
    copies::until_all_are_whole(&client, &load.keys(), WITHIN).await;
    let came = load.finish(&client).await;
    eprintln!("{} calls, {} failed, longest wait {:?}", came.calls, came.failed.len(), came.longest);
    assert!(came.failed.is_empty(), "{:?}", came.failed);
}

#[tokio::test]
async fn nine_that_lose_power_at_once_serve_all_that_was_acknowledged_once_five_are_back() {
    let (mut ring, client) = nine(137, Duration::from_secs(2), |_| {}).await;
    let load = Load::start(&client, 8);
    tokio::time::sleep(Duration::from_secs(2)).await;
    NINE.into_iter().for_each(|i| ring.kill(i));
    tokio::time::sleep(Duration::from_millis(500)).await;
    [1, 2, 5, 7, 8].into_iter().for_each(|i| ring.start(i));
    let fifth = Instant::now();
    while let Err(error) = client.put("first", "write").await {
        assert!(fifth.elapsed() < WITHIN, "{error}");
    }
    // The aim is 2 s, on a machine that does nothing else.
    eprintln!("five of nine serve {:?} after the fifth was started", fifth.elapsed());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let came = load.finish(&client).await;
    eprintln!("{} calls, {} of them while there was no power", came.calls, came.failed.len());
}

#[test]
fn machines_without_room_on_their_disks_come_back_once_there_is_some() {
    let inside = |args: &[&str]| {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new("unshare");
        command.args(["-rm"]).arg(program).args(args).env(INSIDE, "1");
        command.status().is_ok_and(|status| status.success())
    };
    if !inside(&["--ignored", "--exact", "a_disk_can_be_mounted", "--quiet"]) {
        eprintln!("SKIPPED: this system does not let us mount a small file system");
        return;
    }
    assert!(inside(&["--ignored", "--exact", "with_disks_of_their_own", "--nocapture"]), "see above");
}

fn mount(at: &std::path::Path) {
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=160m", "none"]).arg(at).status();
    assert!(mounted.expect("mount").success(), "{} cannot be mounted on", at.display());
}

#[test]
#[ignore = "the test of disks asks it"]
fn a_disk_can_be_mounted() {
    if std::env::var_os(INSIDE).is_some() {
        mount(tempfile::tempdir().expect("a folder").path());
    }
}

#[tokio::test]
#[ignore = "machines_without_room_on_their_disks_come_back_once_there_is_some runs it, where it may mount"]
async fn with_disks_of_their_own() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let mount_all = |ring: &Ring| NINE.into_iter().for_each(|i| mount(&ring.disk(i)));
    let (ring, client) = nine(138, Duration::from_secs(5), mount_all).await;
    let keys: Vec<String> = (0..8).map(|n| format!("key-{n}")).collect();
    let mut acknowledged = vec![0u64; keys.len()];
    for full in [1, 4, 9] {
        NINE[..full].iter().for_each(|i| ring.fill_disk(*i));
        // They look at their room now and then, and at the latest when they need some.
        tokio::time::sleep(Duration::from_secs(3)).await;
        for (n, key) in keys.iter().enumerate() {
            let (value, rest) = (acknowledged[n] + 1, "x".repeat(128 << 10));
            match client.put(key, format!("{value} {rest}")).await {
                Ok(_) => acknowledged[n] = value,
                Err(error) => assert!(full > 4 && error.code() == "disk_full", "{full} are full: {error}"),
            }
        }
        let wrong = read(&client, &keys, &acknowledged).await;
        assert!(wrong.is_none(), "reads go on with {full} full: {wrong:?}");
        NINE[..full].iter().for_each(|i| ring.free_disk(*i));
        let freed = Instant::now();
        // All is well once no key is refused any more, and nobody has left meanwhile.
        let mut taken = 0;
        while taken < keys.len() {
            match client.put(&keys[taken], format!("{} x", acknowledged[taken] + 1)).await {
                Ok(_) => (acknowledged[taken], taken) = (acknowledged[taken] + 1, taken + 1),
                Err(error) => {
                    assert!(freed.elapsed() < ROOM_WITHIN, "there is room, and yet: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        eprintln!(
            "{full} of nine had no room, and all keys are written {:?} after there was",
            freed.elapsed()
        );
        ring.rests(&client, &NINE).await.expect("nine machines, as before");
        let wrong = read(&client, &keys, &acknowledged).await;
        assert!(wrong.is_none(), "{wrong:?}");
        for i in &NINE[..full] {
            assert!(ring.log(*i).contains("the disk is full"), "it says why it took nothing");
        }
    }
}

/// The first key that has less than was acknowledged, if any.
async fn read(client: &Client, keys: &[String], acknowledged: &[u64]) -> Option<String> {
    for (key, least) in keys.iter().zip(acknowledged) {
        let found = match client.get(key).await {
            Ok(found) => found.map_or(0, |record| {
                let text = String::from_utf8_lossy(&record.value);
                text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
            }),
            Err(error) => return Some(format!("{key}: {error}")),
        };
        // One whose outcome nobody knows may have come after it.
        if found < *least {
            return Some(format!("{key} has {found}, and {least} was acknowledged"));
        }
    }
    None
}
