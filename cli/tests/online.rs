//! kvctl against a cluster of one machine in this process: bytes, versions, exit codes, JSON.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;

use assert_cmd::Command;
use ennead::Node;
use ennead::certs::{self, Who};
use serde_json::Value;

/// A cluster of one, and how to reach it.
struct One {
    node: Node,
    name: String,
    certs: String,
    _dir: tempfile::TempDir,
}

async fn one(address: [u8; 4]) -> One {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (certs, ip) = (dir.path().join("certs"), Ipv4Addr::from(address));
    let name = ip.to_string();
    certs::init(&certs).expect("an authority");
    certs::issue(&certs, &Who::Peer(name.parse().expect("a name"))).expect("a certificate");
    certs::issue(&certs, &Who::Client("me".to_string())).expect("a certificate");
    let address = std::net::SocketAddr::from((ip, 9595));
    let builder = Node::builder().listen(address).data_dir(dir.path().join("data")).certs(&certs).init([]);
    let node = builder.start().await.expect("a node");
    One { node, name, certs: certs.display().to_string(), _dir: dir }
}

impl One {
    fn kvctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::cargo_bin("kvctl").expect("the program under test");
        command.args(arguments).env("KVCTL_PEERS", &self.name).env("KVCTL_CERTS", &self.certs);
        command.env_remove("KVCTL_AS").env("KVCTL_TIMEOUT", "10s");
        command
    }

    fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let output = self.kvctl(arguments).arg("--json").output().expect("a run");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        serde_json::from_slice(&output.stdout).expect("JSON on stdout")
    }
}

#[tokio::test]
async fn what_is_watched_is_shown_again_until_it_is_interrupted() {
    let one = one([127, 0, 96, 31]).await;
    for words in
        [&["status"][..], &["members"], &["ring"], &["moves"], &["why"], &["crashes"], &["why", &one.name]]
    {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("kvctl"));
        command.args(words).args(["-w", "--json"]).stdout(std::process::Stdio::piped());
        command.env("KVCTL_PEERS", &one.name).env("KVCTL_CERTS", &one.certs).env_remove("KVCTL_AS");
        let mut child = command.spawn().expect("kvctl");
        let looks = BufReader::new(child.stdout.take().expect("a pipe")).lines().take(2);
        for look in looks {
            let look = look.expect("a line");
            assert!(serde_json::from_str::<Value>(&look).is_ok(), "{words:?}: {look}");
        }
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
        assert_eq!(child.wait().expect("it ends").code(), Some(0), "{words:?}");
    }
    one.node.shutdown("the test is over").await;
}

#[tokio::test]
async fn values_go_out_as_they_came_in() {
    let one = one([127, 0, 96, 1]).await;
    let value: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    one.kvctl(&["put", "bytes", "-"]).write_stdin(value.clone()).assert().success().stdout("1\n");
    one.kvctl(&["get", "bytes"]).assert().success().stdout(value).stderr("");
    one.kvctl(&["put", "empty", ""]).assert().success();
    one.kvctl(&["get", "empty"]).assert().success().stdout("");
    let got = one.json(0, &["get", "bytes"]);
    assert_eq!((&got["key"], &got["version"]), (&"bytes".into(), &1.into()));
    assert!(got["value_base64"].as_str().is_some_and(|v| v.starts_with("AAECAw")));
    one.node.shutdown("the test is over").await;
}

#[tokio::test]
async fn top_tells_what_was_done_within_a_second() {
    let one = one([127, 0, 136, 91]).await;
    let client = one.node.client();
    let load = tokio::spawn(async move {
        loop {
            // Only that something is done matters.
            let _ = client.put("k", "v").await;
        }
    });
    // Beside the load, which runs on this very thread.
    let beside = async |arguments: &[&str]| {
        let mut command = one.kvctl(arguments);
        let run = tokio::task::spawn_blocking(move || command.output());
        run.await.expect("a thread").expect("a run").stdout
    };
    let top: Value = serde_json::from_slice(&beside(&["top", "--json"]).await).expect("JSON on stdout");
    assert!(top["all"]["writes_per_s"].as_f64().is_some_and(|n| n > 1.0), "{top:#}");
    assert_eq!(
        (&top["machines"][0]["machine"], &top["machines"][0]["state"]),
        (&one.name.as_str().into(), &"up".into())
    );
    assert!(top["all"]["write_p99_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{top:#}");
    let text = beside(&["top", "--once"]).await;
    assert!(text.starts_with(b"MACHINE"), "{}", String::from_utf8_lossy(&text));
    load.abort();
    one.node.shutdown("the test is over").await;
}

#[tokio::test]
async fn exit_codes_and_json_tell_what_happened() {
    let one = one([127, 0, 97, 1]).await;
    let put = one.json(0, &["put", "k", "v1"]);
    assert_eq!((&put["version"], &put["votes"]), (&1.into(), &9.into()), "one machine, nine slots");
    assert_eq!(one.json(0, &["put", "k", "v2", "--if-version", "1"])["version"], 2);
    let beaten = one.json(1, &["put", "k", "v3", "--if-version", "1"]);
    assert_eq!(beaten["error"], "version_mismatch");
    assert_eq!((&beaten["version"], &beaten["outcome"]), (&2.into(), &"unchanged".into()));
    assert_eq!(one.json(1, &["put", "k", "v3", "--if-absent"])["error"], "version_mismatch");
    let got = one.json(0, &["get", "k", "--copies"]);
    assert_eq!(got["value"], "v2");
    assert_eq!(got["copies"][0]["answer"], "same");
    assert_eq!(got["copies"][0]["slots"].as_array().map(Vec::len), Some(9));
    let dirty = one.kvctl(&["get", "k", "--read", "one"]).output().expect("a run");
    assert_eq!(dirty.stdout, b"v2");
    assert!(String::from_utf8_lossy(&dirty.stderr).contains("may be stale"), "it says so");
    assert_eq!(one.json(1, &["del", "k", "--if-version", "1"])["error"], "version_mismatch");
    let gone = one.json(0, &["del", "k"]);
    assert_eq!(gone["version"], 3, "a removal is a change");
    assert_eq!(one.json(1, &["get", "k"])["error"], "not_found");
    assert_eq!(one.json(1, &["del", "k"])["error"], "not_found");
    assert_eq!(one.json(0, &["put", "k", "again", "--if-absent"])["version"], 4, "versions never go back");
    one.json(0, &["put", "brief", "v", "--ttl", "100ms"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(one.json(1, &["get", "brief"])["error"], "not_found");
    one.node.shutdown("the test is over").await;
}

#[tokio::test]
async fn status_locate_and_bench_are_as_promised() {
    let one = one([127, 0, 98, 1]).await;
    let status = one.json(0, &["status"]);
    assert_eq!((&status["epoch"], &status["slots"], &status["quorum"]), (&1.into(), &9.into(), &5.into()));
    assert_eq!((&status["healthy"], &status["tolerates"]), (&true.into(), &0.into()));
    assert_eq!(status["machines"][0]["name"], one.name.as_str());
    assert_eq!(status["machines"][0]["state"], "up");
    let alone = one.json(0, &["status", &one.name]);
    assert_eq!((&alone["state"], &alone["synced_slots"]), (&"up".into(), &alone["slots"]));
    assert_eq!(one.json(1, &["status", "127.0.98.77"])["state"], "stranger");
    let located = one.json(0, &["locate", "mail-23412"]);
    assert_eq!(located["slots"][0]["position"], "B91AF709D7C1E6988FCEE7ADF7094A26");
    assert_eq!(located["slots"][8]["owner"], one.name.as_str());
    for more in [&[][..], &["--rate", "100"]] {
        let arguments = [&["bench", "--seconds", "1", "--clients", "4", "--keys", "50"], more].concat();
        let bench = one.json(0, &arguments);
        assert_eq!((&bench["errors"], &bench["durability"]), (&0.into(), &"fsync".into()));
        assert_eq!(bench["hedged_gets"], 0, "there is nobody else to ask");
        let ops = |kind: &str| bench[kind]["ops"].as_u64().expect("a number");
        assert_eq!(bench["ops"], ops("puts") + ops("gets"));
        assert!(bench["p50_ms"].as_f64() <= bench["p999_ms"].as_f64());
    }
    one.node.shutdown("the test is over").await;
}

#[test]
fn nobody_there_is_told_with_who_was_tried() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    certs::init(dir.path()).expect("an authority");
    certs::issue(dir.path(), &Who::Client("me".to_string())).expect("a certificate");
    let mut command = Command::cargo_bin("kvctl").expect("the program under test");
    let certs = dir.path().display().to_string();
    let output = command
        .args(["get", "k", "--json", "--timeout", "500ms", "--peers", "127.0.99.1", "--certs", &certs])
        .output()
        .expect("a run");
    assert_eq!(output.status.code(), Some(2));
    let error: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&error["error"], &error["outcome"]), (&"unreachable".into(), &"unchanged".into()));
    assert_eq!(error["silent"][0], "127.0.99.1");
}

#[tokio::test]
async fn why_and_crashes_tell_of_a_panic_and_exit_codes_say_yes_and_no() {
    let one = one([127, 0, 95, 1]).await;
    let name = one.name.clone();
    let well = one.json(0, &["why", &name]);
    assert_eq!(
        (&well["machine"], &well["verdict"], &well["up"]),
        (&name.as_str().into(), &Value::Null, &true.into())
    );
    assert_eq!(one.json(1, &["crashes"])["crashes"], serde_json::json!([]));
    let all = one.json(0, &["why"]);
    assert_eq!(all["machines"][0]["machine"], name.as_str());
    assert_eq!(
        (&all["machines"][0]["until"], &all["machines"][0]["earlier"]),
        (&Value::Null, &serde_json::json!([]))
    );
    assert_eq!(
        one.json(0, &["status"])["machines"][0]["verdict"],
        Value::Null,
        "nothing is wrong with it now"
    );
    let text = one.kvctl(&["why"]).output().expect("a run");
    assert!(String::from_utf8_lossy(&text.stdout).starts_with("the one machine is well\n\nMACHINE"));
    let stranger = one.json(1, &["why", "127.0.95.9", "--timeout", "1s"]);
    assert_eq!(stranger["verdict"], Value::Null);

    one.node.break_part(ennead::node::Part::Core).await;
    let begun = std::time::Instant::now();
    let panic = loop {
        let told = one.json(0, &["why", &name]);
        if told["report"].is_object() {
            break told;
        }
        assert!(begun.elapsed().as_secs() < 30, "{told}");
    };
    assert_eq!(panic["verdict"], "panic");
    assert_eq!(panic["report"]["message"], "asked to panic by a test");
    assert!(panic["at"].is_string() && panic["evidence"].is_array() && panic["detected_by"].is_array());
    assert!(panic["until"].is_string(), "it is over: {panic}");
    let crashes = one.json(0, &["crashes", &name]);
    assert_eq!(crashes["crashes"][0]["id"], panic["report"]["id"]);
    let text = one.kvctl(&["why", &name]).output().expect("a run");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.starts_with("panic: ") && text.contains("backtrace (") && text.contains("core loop"),
        "{text}"
    );
    let all = one.kvctl(&["crashes"]).output().expect("a run");
    assert!(String::from_utf8_lossy(&all.stdout).starts_with("MACHINE"));
    one.node.shutdown("the test is over").await;
}

#[tokio::test]
async fn keys_are_listed_backed_up_checked_and_put_back() {
    let one = one([127, 0, 132, 151]).await;
    for key in ["a/1", "a/2", "a\t3", "b"] {
        one.kvctl(&["put", key, "v"]).assert().success();
    }
    one.kvctl(&["put", "a/gone", "v"]).assert().success();
    one.kvctl(&["del", "a/gone"]).assert().success();
    one.kvctl(&["list"]).assert().success().stdout("a\\t3\na/1\na/2\nb\n").stderr("");
    one.kvctl(&["list", "a/", "--values"]).assert().success().stdout("a/1\tv\na/2\tv\n");
    let part = one.kvctl(&["list", "a/", "--limit", "1"]).output().expect("a run");
    assert_eq!(part.stdout, b"a/1\n");
    assert_eq!(String::from_utf8_lossy(&part.stderr), "to go on: --after 'a/1'\n");
    one.kvctl(&["list", "--after", "a/1"]).assert().success().stdout("a/2\nb\n");
    one.kvctl(&["list", "--after-base64", "YS8x", "a/"]).assert().success().stdout("a/2\n");
    assert_eq!(
        one.json(0, &["list", "b", "--values"]),
        serde_json::json!({"key": "b", "value": "v", "version": 1})
    );
    one.kvctl(&["list", "nothing"]).assert().success().stdout("");
    assert_eq!(one.json(2, &["list", "--after-base64", "?"])["error"], "invalid");

    let dir = tempfile::tempdir().expect("a temporary folder");
    let (full, more) = (dir.path().join("full"), dir.path().join("more"));
    let (full, more) = (full.to_str().expect("a path"), more.to_str().expect("a path"));
    let taken = one.json(0, &["backup", full]);
    assert_eq!((&taken["keys"], &taken["gone"], &taken["base"]), (&4.into(), &0.into(), &Value::Null));
    assert_eq!(one.json(2, &["backup", full])["error"], "backup", "it is not written over");
    one.kvctl(&["put", "b", "w"]).assert().success();
    one.kvctl(&["del", "a/2"]).assert().success();
    let second = one.json(0, &["backup", more, "--since", full]);
    assert_eq!((&second["keys"], &second["gone"], &second["base"]), (&1.into(), &1.into(), &taken["digest"]));
    assert_eq!(one.json(0, &["backup", "verify", more])["digest"], second["digest"]);

    one.kvctl(&["del", "b"]).assert().success();
    let back = one.json(0, &["restore", more, "--since", full]);
    assert_eq!((&back["restored"], &back["kept"], &back["failed"]), (&1.into(), &2.into(), &0.into()));
    one.kvctl(&["get", "b"]).assert().success().stdout("w");
    assert_eq!(
        one.json(1, &["get", "a/2"])["error"],
        "not_found",
        "it was gone when the last backup was taken"
    );
    assert_eq!(one.json(2, &["restore", more])["error"], "backup", "half of a chain");

    let mut bytes = std::fs::read(full).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(full, bytes).expect("a file");
    let damaged = one.json(1, &["backup", "verify", full]);
    assert!(damaged["message"].as_str().is_some_and(|m| m.contains("block 1")), "{damaged}");
    assert_eq!(one.json(1, &["restore", full])["outcome"], "unchanged");
    one.node.shutdown("the test is over").await;
}
