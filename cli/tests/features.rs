//! The data features through kvctl and the Rust client, on nine real processes: first all of them, then with one to four
//! of them dead.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ennead::client::{Client, Error, LockError};
use ennead::cluster::{Base, Cluster, Options};
use serde_json::Value;

/// Nine processes, some of which are dead.
struct Nine {
    cluster: Cluster,
    client: Client,
    peers: String,
    certs: String,
    _dir: tempfile::TempDir,
}

impl Nine {
    /// On 127.0.131.`host` and on, with `dead` of them killed, the owners of the first slots of `key` among them.
    async fn less(dead: usize, host: u8, key: &str) -> Self {
        let kvctl = Path::new(env!("CARGO_BIN_EXE_kvctl"));
        let program = kvctl.with_file_name("ennead");
        assert!(program.exists(), "no {}: cargo build --workspace makes it", program.display());
        let dir = tempfile::tempdir().expect("a temporary folder");
        let base = Base::at(Ipv4Addr::new(127, 0, 131, host), 9595);
        let options =
            Options { program, dir: dir.path().join("nine"), peers: Some(9), base, flags: Vec::new() };
        let mut cluster = Cluster::prepare(options).expect("addresses and certificates");
        cluster.start_all().expect("processes");
        cluster.wait_until_up(Duration::from_secs(60)).await.expect("peers up");
        let client = cluster.client(Duration::from_secs(10)).await.expect("a client");
        for slot in client.locate(key).await.expect("slots").iter().take(dead) {
            let index = cluster.index_of(slot.owner).expect("a peer");
            cluster.kill(index);
        }
        let names: Vec<String> = cluster.names().iter().map(ToString::to_string).collect();
        let certs = cluster.certs().display().to_string();
        Self { cluster, client, peers: names.join(","), certs, _dir: dir }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvctl"));
        command.args(arguments).env("KVCTL_PEERS", &self.peers).env("KVCTL_CERTS", &self.certs);
        command.env_remove("KVCTL_AS").env("KVCTL_TIMEOUT", "10s").stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("a run")
    }

    /// What it prints, and its exit code.
    fn told(&self, arguments: &[&str]) -> (String, i32) {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (text, output.status.code().expect("an exit code"))
    }

    #[track_caller]
    fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let (text, was) = self.told(&[&["--json"], arguments].concat());
        assert_eq!(was, code, "{arguments:?}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {text}"))
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self._dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    }
}

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
