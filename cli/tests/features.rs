//! The data features through kvctl and the Rust client, on nine real processes: first all of them, then with one to four
//! of them dead.
#![allow(clippy::print_stderr, reason = "tests")]

#[allow(dead_code, reason = "another test uses the rest")]
mod nine;

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use ennead::backup::{BackupError, Restore, Take, verify};
use ennead::client::{Client, Effect, Error, Listed, LockError};
use futures_util::{StreamExt, TryStreamExt, stream};
use nine::Nine;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

#[tokio::test]
async fn leases_and_counters_with_one_machine_dead() {
    let nine = Nine::less(1, 1, "lease").await;
    let version = nine.json(0, &["put", "lease", "mine", "--if-absent", "--ttl", "1h"])["version"].clone();
    assert_eq!(nine.json(1, &["put", "lease", "yours", "--if-absent"])["error"], "version_mismatch");
    let v = version.to_string();
    let touched = nine.json(0, &["touch", "lease", "--ttl", "2h", "--if-version", &v]);
    assert_eq!(touched["version"], version, "the fencing token stays");
    let ttl = nine.json(0, &["ttl", "lease"]);
    let left = ttl["ttl_ms"].as_f64().expect("a number");
    assert!((7_000_000.0..=7_200_000.0).contains(&left), "{ttl}");
    assert_eq!(
        nine.json(1, &["touch", "lease", "--keep", "--if-version", "99"])["error"],
        "version_mismatch"
    );
    assert_eq!(nine.told(&["touch", "lease", "--keep"]), (format!("{version}\n"), 0));
    assert_eq!(nine.told(&["ttl", "lease"]), ("never expires\n".to_owned(), 0));
    assert_eq!(nine.json(0, &["ttl", "lease"])["ttl_ms"], Value::Null);
    assert_eq!(
        nine.json(0, &["put", "lease", "ours", "--if-version", &v])["votes"].as_u64().map(|n| n >= 5),
        Some(true)
    );
    assert_eq!(nine.json(1, &["del", "lease", "--if-version", &v])["error"], "version_mismatch");
    nine.json(0, &["touch", "lease", "--ttl", "1s"]);
    std::thread::sleep(Duration::from_millis(1_300));
    for gone in [&["get", "lease"][..], &["ttl", "lease"], &["touch", "lease", "--keep"], &["del", "lease"]] {
        assert_eq!(nine.json(1, gone)["error"], "not_found", "{gone:?}");
    }
    let neither = nine.run(&["touch", "lease"]);
    assert_eq!(neither.status.code(), Some(2), "{}", String::from_utf8_lossy(&neither.stderr));

    assert_eq!(nine.told(&["incr", "hits"]), ("1\n".to_owned(), 0));
    assert_eq!(nine.told(&["incr", "hits", "--by", "-3"]), ("-2\n".to_owned(), 0));
    let hits = nine.json(0, &["incr", "hits", "--by", "44"]);
    assert_eq!((&hits["value"], &hits["version"]), (&42.into(), &3.into()));
    assert_eq!(nine.json(0, &["get", "hits"])["value"], "42");
    nine.json(0, &["put", "word", "ten"]);
    let word = nine.json(2, &["incr", "word"]);
    assert_eq!(
        (&word["error"], &word["outcome"], &word["version"]),
        (&"not_a_number".into(), &"unchanged".into(), &1.into())
    );
    nine.json(0, &["put", "most", &i64::MAX.to_string()]);
    assert_eq!(nine.json(2, &["incr", "most"])["error"], "too_large");
    assert_eq!(nine.json(0, &["get", "most"])["version"], 1);
    nine.cluster.stop().await;
}

/// I6: clients that count while the machines they go to die.
#[tokio::test]
async fn every_count_is_counted_once_while_four_machines_die() {
    let mut nine = Nine::less(0, 21, "hits").await;
    let victims: Vec<usize> = nine
        .client
        .locate("hits")
        .await
        .expect("slots")
        .iter()
        .take(4)
        .map(|slot| nine.cluster.index_of(slot.owner).expect("a peer"))
        .collect();
    let counting: Vec<_> = (0..8)
        .map(|_| {
            let client = nine.client.clone();
            tokio::spawn(async move {
                let mut told = Vec::new();
                for _ in 0..40 {
                    told.push(client.incr("hits", 1).await.expect("five of nine live").value);
                }
                told
            })
        })
        .collect();
    for victim in victims {
        tokio::time::sleep(Duration::from_millis(40)).await;
        nine.cluster.kill(victim);
    }
    let mut told = Vec::new();
    for one in counting {
        told.extend(one.await.expect("a task"));
    }
    told.sort_unstable();
    assert_eq!(
        told,
        (1..=320).collect::<Vec<i64>>(),
        "each was told a number of its own, and none is left out"
    );
    let hits = nine.client.get("hits").await.expect("a quorum").expect("a counter");
    assert_eq!((&hits.value[..], hits.version), (&b"320"[..], 320));
    nine.cluster.stop().await;
}

#[tokio::test]
async fn many_keys_with_four_machines_dead() {
    let nine = Nine::less(4, 41, "k1").await;
    let put = nine.client.put_many((0..200).map(|i| (format!("k{i}"), format!("v{i}")))).await;
    assert!(put.iter().all(|one| *one == Ok(1)), "{put:?}");
    let got = nine.client.get_many(["k7", "", "none", "k3"]).await;
    let value = |one: &Result<Option<ennead::client::Record>, Error>| {
        one.as_ref().ok().and_then(|record| record.as_ref().map(|r| r.value.to_vec()))
    };
    assert_eq!((value(&got[0]), value(&got[3])), (Some(b"v7".to_vec()), Some(b"v3".to_vec())));
    assert!(matches!(got[1], Err(Error::Invalid(_))) && got[2] == Ok(None), "each its own outcome: {got:?}");

    assert_eq!(nine.told(&["get", "k7", "k3"]), ("k7\tv7\nk3\tv3\n".to_owned(), 0));
    let (text, code) = nine.told(&["get", "k7", "none", "k3", "--json"]);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(
        (code, &lines[0]["value"], &lines[1]["error"], &lines[2]["key"]),
        (1, &"v7".into(), &"not_found".into(), &"k3".into())
    );

    let mut lines = String::new();
    for i in 0..300 {
        lines += &format!("{{\"op\":\"incr\",\"key\":\"n\",\"by\":{i}}}\n{{\"op\":\"get\",\"key\":\"n\"}}\n");
    }
    let file = nine.file("counts", &lines);
    let (text, code) = nine.told(&["batch", &file]);
    assert_eq!(code, 0, "{text}");
    let mut sum = 0;
    for (i, pair) in text.lines().collect::<Vec<_>>().chunks(2).enumerate() {
        let [incr, get] = [0, 1].map(|k| serde_json::from_str::<Value>(pair[k]).expect("JSON"));
        sum += i as i64;
        assert_eq!((&incr["value"], &incr["line"]), (&sum.into(), &(2 * i as u64 + 1).into()));
        assert_eq!(
            (&get["value"], &get["op"]),
            (&sum.to_string().into(), &"get".into()),
            "lines of one key keep their order"
        );
    }
    let mixed = nine.file(
        "mixed",
        "{\"op\":\"put\",\"key\":\"a\",\"value\":\"1\",\"if_absent\":true,\"ttl\":\"1h\"}\n\n\
         {\"op\":\"touch\",\"key\":\"a\",\"keep\":true}\n{\"op\":\"put\",\"key\":\"a\",\"value\":\"2\",\"if_version\":9}\n\
         not json\n{\"op\":\"del\",\"key\":\"a\",\"if_version\":1}\n{\"op\":\"get\",\"key\":\"a\"}\n",
    );
    let (text, code) = nine.told(&["batch", &mixed]);
    let told: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let brief: Vec<(u64, &str)> =
        told.iter().map(|t| (t["line"].as_u64().unwrap_or(0), t["error"].as_str().unwrap_or("ok"))).collect();
    let expected =
        [(1, "ok"), (3, "ok"), (4, "version_mismatch"), (5, "invalid"), (6, "ok"), (7, "not_found")];
    assert_eq!((brief, code), (expected.to_vec(), 2), "the worst of all");
    nine.cluster.stop().await;
}

/// Whoever is dead stays a member, so that four are missing to the end.
#[tokio::test]
async fn listings_backups_and_weights_with_four_machines_dead() {
    let mut nine = Nine::of(9, &["--patience", "1h"], 4, 101, "a/001").await;
    let key = |i: u32| format!("a/{i:03}");
    let put = nine.client.put_many((0..300).map(|i| (key(i), format!("v{i}")))).await;
    assert!(put.iter().all(|one| *one == Ok(1)), "{put:?}");
    nine.json(0, &["put", "b", "other"]);
    nine.json(0, &["put", "leased", "l", "--ttl", "1h"]);
    nine.json(0, &["del", "a/299"]);

    let all: String = (0..299).map(|i| format!("{}\tv{i}\n", key(i))).collect();
    assert_eq!(nine.told(&["list", "a/", "--values"]), (all, 0));
    let part = nine.run(&["list", "a/", "--limit", "2"]);
    assert_eq!(part.stdout, b"a/000\na/001\n");
    assert_eq!(String::from_utf8_lossy(&part.stderr), "to go on: --after 'a/001'\n");
    assert_eq!(nine.told(&["list", "--after", "a/297"]), ("a/298\nb\nleased\n".to_owned(), 0));
    assert_eq!(nine.json(2, &["list", "--after-base64", "?"])["error"], "invalid");
    let listing = nine.client.list("").values().begin().await.expect("a view").into_stream();
    let listed: Vec<Listed> = listing.try_collect().await.expect("five of nine live");
    assert_eq!(listed.len(), 301);

    let file = |name: &str| nine.path(name).display().to_string();
    let (full, more) = (file("full"), file("more"));
    let taken = nine.json(0, &["backup", &full]);
    assert_eq!((&taken["keys"], &taken["gone"]), (&301.into(), &0.into()), "{taken}");
    assert_eq!(nine.json(2, &["backup", &full])["error"], "backup", "it is not written over");
    assert_eq!(nine.json(0, &["backup", "verify", &full])["digest"], taken["digest"]);
    nine.json(0, &["put", "b", "changed"]);
    nine.json(0, &["del", "a/000"]);
    let second = nine.json(0, &["backup", &more, "--since", &full]);
    assert_eq!((&second["keys"], &second["gone"]), (&1.into(), &1.into()), "{second}");
    // Into the ring that it was taken of: what is missing comes back, what is there stays, unless it is to be written over.
    nine.json(0, &["del", "a/007"]);
    nine.json(0, &["put", "b", "newer"]);
    let counts = |told: &Value| ["restored", "kept", "failed"].map(|name| told[name].as_u64());
    let back = nine.json(0, &["restore", &more, "--since", &full]);
    assert_eq!(counts(&back), [Some(1), Some(299), Some(0)], "{back}");
    assert_eq!(nine.told(&["get", "a/007", "b"]), ("a/007\tv7\nb\tnewer\n".to_owned(), 0));
    assert_eq!(
        nine.json(1, &["get", "a/000"])["error"],
        "not_found",
        "it was gone when the second was taken"
    );
    let over = nine.json(0, &["restore", "--overwrite", &more, "--since", &full]);
    assert_eq!(counts(&over), [Some(1), Some(299), Some(0)], "{over}");
    assert_eq!(nine.told(&["get", "b"]), ("changed".to_owned(), 0));
    assert_eq!(nine.json(2, &["restore", &more])["error"], "backup", "half of a chain");
    let ttl = nine.json(0, &["ttl", "leased"])["ttl_ms"].as_f64().expect("it expires yet");
    assert!((3_000_000.0..=3_600_000.0).contains(&ttl), "{ttl}");

    through_the_library(&nine).await;

    // Five of nine decide the ring, too; the data is where it belongs once all of the next ring have theirs, so not before
    // they are back.
    let dead: Vec<usize> = (0..9).filter(|index| !nine.cluster.is_running(*index)).collect();
    let alive = (0..9).find(|index| !dead.contains(index)).expect("five live");
    let alive = nine.cluster.names()[alive].to_string();
    let plan = nine.json(0, &["weight", &alive, "32", "--plan"]);
    assert_eq!(plan["machines_after"], 9, "{plan}");
    assert_eq!(nine.json(1, &["weight", "127.0.131.199", "32"])["error"], "not_found");
    assert_eq!(nine.json(0, &["weight", &alive, "32", "--no-wait"])["outcome"], "begun");
    let begun = nine.json(3, &["weight", &alive, "32", "--timeout", "2s"]);
    assert_eq!((&begun["error"], &begun["outcome"]), (&"timeout".into(), &"unknown".into()), "{begun}");
    let dead_names = dead.iter().map(|index| nine.cluster.names()[*index].to_string()).collect::<Vec<_>>();
    let waits = format!("waits for {}", dead_names.join(", "));
    let said = begun["message"].as_str().expect("a message");
    assert!(said.contains(&waits) && said.contains("goes on by itself once"), "{begun}");
    let moves = nine.told(&["moves"]);
    assert!(moves.0.contains(&format!("the change of the ring {waits}\n")), "{moves:?}");
    let status = nine.json(1, &["status"]);
    assert_eq!(status["waits_for"], Value::from(dead_names));
    assert!(nine.told(&["status"]).0.contains(&waits));
    assert_eq!(nine.told(&["get", "a/007"]), ("v7".to_owned(), 0));
    for index in dead {
        nine.cluster.start(index).expect("a process");
    }
    let weight = nine.json(0, &["weight", &alive, "32", "--timeout", "60s"]);
    assert_eq!((&weight["outcome"], &weight["virtual_peers"]), (&"done".into(), &32.into()), "{weight}");
    assert_eq!(nine.told(&["get", "a/007"]), ("v7".to_owned(), 0));
    assert_eq!(nine.json(0, &["status"])["waits_for"], Value::from(Vec::<Value>::new()));
    nine.cluster.stop().await;
}

/// What the commands do, by the calls that they are made of, and each error as what it is.
async fn through_the_library(nine: &Nine) {
    let client = &nine.client;
    let version =
        client.put("lease", "mine").if_absent().ttl(Duration::from_secs(3_600)).await.expect("a put");
    let touched = client.touch("lease").ttl(Duration::from_secs(7_200)).if_version(version).await;
    assert_eq!(touched, Ok(Some(version)), "the fencing token stays");
    let expires = client.get("lease").await.expect("a quorum").expect("a lease").expires.expect("it expires");
    let left = expires.duration_since(std::time::SystemTime::now()).expect("later");
    assert!((7_000..=7_200).contains(&left.as_secs()), "{left:?}");
    let other = client.touch("lease").if_version(version + 1).await;
    assert_eq!(other, Err(Error::VersionMismatch { found: Some(version) }));
    assert_eq!(client.touch("lease").await, Ok(Some(version)));
    assert_eq!(client.get("lease").await.expect("a quorum").expect("a lease").expires, None);
    assert_eq!(client.touch("none").await, Ok(None));

    let hits = client.incr("hits", 44).await.expect("a counter");
    assert!((hits.value, hits.version) == (44, 1) && hits.votes >= 5, "{hits:?}");
    assert_eq!(client.incr("hits", -2).await.map(|hits| (hits.value, hits.version)), Ok((42, 2)));
    for (key, value, code) in [("word", "ten", "not_a_number"), ("most", "9223372036854775807", "too_large")]
    {
        client.put(key, value).await.expect("a put");
        let error = client.incr(key, 1).await.expect_err("no number comes of it");
        assert_eq!((error.code(), error.effect()), (code, Effect::Unchanged), "{error}");
        assert!(matches!(error, Error::Uncountable { version: 1, .. }), "{error:?}");
        let found = client.get(key).await.expect("a quorum").expect("a value");
        assert_eq!((&*found.value, found.version), (value.as_bytes(), 1));
    }
    for error in [client.incr("", 1).await.map(|_| ()), client.touch("").await.map(|_| ())] {
        assert!(matches!(error, Err(Error::Invalid(_))), "{error:?}");
    }

    let file = nine.path("library");
    let take = Take {
        file: file.clone(),
        since: Vec::new(),
        resume: false,
        prefix: b"a/".to_vec(),
        patience: Duration::from_secs(30),
    };
    let taken = take.clone().run(client, |_| ()).await.expect("five of nine live");
    assert_eq!((taken.trailer.keys, taken.resumed_after), (298, None));
    let again = take.run(client, |_| ()).await;
    assert!(matches!(again, Err(BackupError::Exists { .. })), "{again:?}");
    assert_eq!(verify(&file).expect("it is whole"), (taken.header, taken.trailer));
    client.delete("a/001").await.expect("a delete");
    client.put("a/002", "newer").await.expect("a put");
    let value = async |key: &str| client.get(key).await.expect("a quorum").map(|found| found.value.to_vec());
    for (overwrite, expected) in [(false, "newer"), (true, "v2")] {
        let restore = Restore { files: vec![file.clone()], overwrite };
        let restored = restore.run(client, |_| ()).await.expect("five of nine live");
        assert_eq!((restored.restored, restored.kept, restored.failed), (1, 297, 0), "{restored:?}");
        assert_eq!(value("a/001").await.as_deref(), Some(&b"v1"[..]));
        assert_eq!(value("a/002").await.as_deref(), Some(expected.as_bytes()));
    }
    let mut bytes = std::fs::read(&file).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).expect("a file");
    let damaged = Restore { files: vec![file], overwrite: true }.run(client, |_| ()).await;
    assert!(matches!(damaged, Err(BackupError::Damaged { .. })), "{damaged:?}");
}

#[tokio::test]
async fn a_backup_that_is_interrupted_with_four_machines_dead_is_gone_on_with() {
    let nine = Nine::of(9, &["--patience", "1h"], 4, 121, "k000").await;
    put_all(&nine.client, (0..200).map(|i| (format!("k{i:03}"), vec![b'v'; 64 << 10]))).await;
    let (file, partial) = (nine.path("all"), nine.path("all.partial"));
    let name = file.display().to_string();
    // Once some blocks of it are there. It may be faster than this test, though hardly each time.
    let interrupted = (0..5).any(|_| {
        let mut backup = nine.command(&["backup", &name]).stdout(Stdio::null()).spawn().expect("a run");
        let length = || partial.metadata().map_or(0, |file| file.len());
        while length() < 1_000 && backup.try_wait().expect("its state").is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // It may be over.
        let _ = kill_process(Pid::from_child(&backup), Signal::INT);
        backup.wait().expect("an end");
        let whole = file.exists();
        if whole {
            std::fs::remove_file(&file).expect("it is there");
        }
        !whole && partial.exists()
    });
    assert!(interrupted, "each was whole before it was interrupted");
    let refused = nine.json(2, &["backup", &name]);
    assert!(refused["message"].as_str().is_some_and(|m| m.contains("--resume")), "{refused}");
    assert_eq!(nine.json(1, &["backup", "verify", &partial.display().to_string()])["error"], "backup");
    // What was taken already is not taken anew.
    nine.client.put("k000", "later").await.expect("five of nine live");
    let taken = nine.json(0, &["backup", "--resume", &name]);
    assert_eq!((&taken["keys"], partial.exists()), (&200.into(), false), "{taken}");
    assert_eq!(nine.json(0, &["backup", "verify", &name])["digest"], taken["digest"]);
    assert_eq!(nine.json(2, &["backup", "--resume", &name])["error"], "backup", "it is whole");
    let back = nine.json(0, &["restore", "--overwrite", &name]);
    assert_eq!((&back["restored"], &back["kept"]), (&1.into(), &199.into()), "{back}");
    let first = nine.client.get("k000").await.expect("five of nine live").expect("a value");
    assert_eq!(first.value.len(), 64 << 10, "as it was when the backup was begun");
    nine.cluster.stop().await;
}

/// Values that are much to write at once: a computer that shares two cores with other tests may be late.
async fn put_all(client: &Client, values: impl Iterator<Item = (String, Vec<u8>)>) {
    let put = |(key, value): (String, Vec<u8>)| async move {
        let begun = Instant::now();
        while let Err(why) = client.put(&key, &value).await {
            assert!(begun.elapsed() < Duration::from_secs(60), "{key}: {why}");
        }
    };
    stream::iter(values).for_each_concurrent(16, put).await;
}

/// A line of what the system tells of a process's memory, in MiB.
fn memory(pid: u32, name: &str) -> u64 {
    let told = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("such a line");
    let kib = line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("a number") >> 10
}

/// Lists all that a machine has, and takes it slowly at first: how many bytes that was, the most memory that kvctl took
/// for it, and the most that the machine took more than before, in MiB.
fn list_all(one: &Nine, least: u64) -> (u64, u64, u64) {
    let machine = one.cluster.pid(0).expect("a process");
    let before = memory(machine, "VmRSS");
    // From now on the system counts the most anew.
    std::fs::write(format!("/proc/{machine}/clear_refs"), "5").expect("it counts anew");
    let mut list = one.command(&["list", "--values"]).stdout(Stdio::piped()).spawn().expect("a run");
    let mut out = list.stdout.take().expect("a pipe");
    let (mut buffer, mut read, mut most) = (vec![0; 64 << 10], 0, 0);
    loop {
        let n = out.read(&mut buffer).expect("a listing");
        if n == 0 {
            break;
        }
        if read == 0 {
            std::thread::sleep(Duration::from_millis(500));
        }
        read += n as u64;
        // While more is to come than a pipe holds, it is there yet.
        if read + (1 << 20) < least {
            most = most.max(memory(list.id(), "VmHWM"));
        }
    }
    assert!(list.wait().expect("an end").success());
    assert!(read > least, "{read} bytes were listed");
    (read, most, memory(machine, "VmHWM").saturating_sub(before))
}

/// Nobody holds what is streamed, neither who lists nor who tells, however slowly it is taken.
#[tokio::test]
async fn a_listing_of_several_times_the_memory_that_it_may_take() {
    /// The most that either may take for it, in MiB, and what is listed.
    const MOST: u64 = 32;
    const LISTED: u64 = 4 * MOST;
    let one = Nine::of(1, &[], 0, 141, "k").await;
    // Some values come with their keys, others are read one by one.
    let value = |i: u64| vec![b'v'; if i.is_multiple_of(2) { 12 << 10 } else { 116 << 10 }];
    put_all(&one.client, (0..LISTED * 16).map(|i| (format!("k{i:05}"), value(i)))).await;
    // During the first the machine may yet be sorting what it was just given, which takes memory of its own.
    let mut least = u64::MAX;
    for _ in 0..3 {
        let (read, kvctl, machine) = list_all(&one, LISTED << 20);
        eprintln!("listed {} MiB; kvctl took {kvctl} MiB, the machine {machine} MiB more", read >> 20);
        assert!(kvctl <= MOST, "{kvctl} MiB to list {LISTED} MiB");
        least = least.min(machine);
    }
    assert!(least <= MOST, "{least} MiB more to tell {LISTED} MiB");
    one.cluster.stop().await;
}

#[tokio::test]
async fn a_lock_with_two_machines_dead() {
    let nine = Nine::less(2, 61, "lock/deploy").await;
    // The exit code, the token and stdin are the command's.
    let run = nine.run(&["lock", "deploy", "--", "sh", "-c", "echo $ENNEAD_LOCK_TOKEN; exit 7"]);
    let first: u64 = String::from_utf8_lossy(&run.stdout).trim().parse().expect("a token");
    assert_eq!(run.status.code(), Some(7), "{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(nine.json(1, &["get", "lock/deploy"])["error"], "not_found", "it was given back");
    let absent = nine.run(&["lock", "deploy", "--", "no-such-command"]);
    assert_eq!(absent.status.code(), Some(127), "{}", String::from_utf8_lossy(&absent.stderr));

    // One holds it for longer than its time to live; the other waits for it, and is told a higher token.
    let hold = ["lock", "deploy", "--ttl", "2s", "--", "sh", "-c", "sleep 4; echo done"];
    let holder = nine.command(&hold).stdout(Stdio::piped()).spawn().expect("a run");
    let begun = Instant::now();
    while nine.told(&["get", "lock/deploy"]).1 != 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "nobody took the lock");
    }
    let refused = nine.json(1, &["lock", "deploy", "--wait", "0s", "--", "true"]);
    assert_eq!(refused["error"], "held");
    assert!(refused["message"].as_str().is_some_and(|m| m.contains("process")), "it says who: {refused}");
    let next = nine.run(&["lock", "deploy", "--wait", "30s", "--", "sh", "-c", "echo $ENNEAD_LOCK_TOKEN"]);
    let token: u64 = String::from_utf8_lossy(&next.stdout).trim().parse().expect("a token");
    assert!(
        begun.elapsed() > Duration::from_secs(3),
        "the lock was renewed: it waited for the command's end"
    );
    assert!(token > first, "tokens rise");
    let held = holder.wait_with_output().expect("an end");
    assert_eq!((held.status.code(), &held.stdout[..]), (Some(0), &b"done\n"[..]));
    nine.cluster.stop().await;
}

#[tokio::test]
async fn a_lock_that_is_lost_stops_its_command_in_time() {
    let mut nine = Nine::less(3, 81, "lock/job").await;
    // Who dies without a word: the command goes with it, and the lock is free when its time is over.
    let mut dies =
        nine.command(&["lock", "job", "--ttl", "2s", "--", "sleep", "77.25"]).spawn().expect("a run");
    wait_for(&nine, "lock/job").await;
    dies.kill().expect("a signal");
    dies.wait().expect("an end");
    let begun = Instant::now();
    let lock = nine
        .client
        .lock("job")
        .ttl(Duration::from_secs(3))
        .wait(Duration::from_secs(20))
        .await
        .expect("a lock");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(!runs("77.25"), "the command outlived kvctl");
    assert!(matches!(nine.client.lock("job").await, Err(LockError::Held { .. })));
    let token = lock.token();
    lock.release().await.expect("given back");

    // An operator breaks the lock.
    let broken =
        nine.command(&["lock", "job", "--ttl", "2s", "--", "sleep", "78.25"]).stderr(Stdio::piped()).spawn();
    let broken = broken.expect("a run");
    wait_for(&nine, "lock/job").await;
    nine.json(0, &["del", "lock/job"]);
    let end = broken.wait_with_output().expect("an end");
    assert_eq!(end.status.code(), Some(3), "{}", String::from_utf8_lossy(&end.stderr));
    assert!(!runs("78.25"));

    // The cluster is gone: a command that ends for nobody is killed before its lease is over.
    let deaf = ["lock", "job", "--ttl", "6s", "--", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"];
    let deaf = nine.command(&deaf).stderr(Stdio::piped()).spawn().expect("a run");
    wait_for(&nine, "lock/job").await;
    let lock = nine.client.get("lock/job").await.expect("a quorum").expect("a lock");
    assert!(lock.version > token, "tokens rise, whoever held it and however it ended");
    for index in 0..9 {
        nine.cluster.kill(index);
    }
    let begun = Instant::now();
    let end = deaf.wait_with_output().expect("an end");
    assert_eq!(end.status.code(), Some(3), "{}", String::from_utf8_lossy(&end.stderr));
    // It was renewed before they were killed, if ever.
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}

async fn wait_for(nine: &Nine, key: &str) {
    let begun = Instant::now();
    while nine.client.get(key).await.expect("a quorum").is_none() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{key} is not there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// True if a process has this among its arguments.
fn runs(argument: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("a list of processes");
    processes.flatten().any(|process| {
        std::fs::read(process.path().join("cmdline")).is_ok_and(|line| {
            line.split(|b| *b == 0).any(|word| word == argument.as_bytes()) && line.starts_with(b"sleep")
        })
    })
}
