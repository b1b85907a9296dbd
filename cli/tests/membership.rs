//! kvctl and the membership: a cluster of three in this process that takes a fourth in and lets it go.

use std::time::{Duration, Instant};

use assert_cmd::Command;
use ennead::certs::{self, Who};
use ennead::{Name, Node, StopReason};
use serde_json::Value;

struct Cluster {
    nodes: Vec<Node>,
    names: Vec<Name>,
    dir: tempfile::TempDir,
}

impl Cluster {
    /// Three machines, and certificates for a fourth.
    async fn start(net: u8) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let certs = dir.path().join("certs");
        certs::init(&certs).expect("an authority");
        certs::issue(&certs, &Who::Client("me".to_string())).expect("a certificate");
        let names: Vec<Name> = (1..=4).map(|n| format!("127.0.{net}.{n}").parse().expect("a name")).collect();
        for name in &names {
            certs::issue(&certs, &Who::Peer(*name)).expect("a certificate");
        }
        let mut cluster = Self { nodes: Vec::new(), names, dir };
        for n in 0..3 {
            let node = cluster.node(n);
            let node =
                if n == 0 { node.init(cluster.names[1..3].to_vec()) } else { node.join([cluster.names[0]]) };
            cluster.nodes.push(node.start().await.expect("a node"));
        }
        cluster.until(3, 0).await;
        cluster
    }

    fn node(&self, n: usize) -> ennead::node::Builder {
        let data = self.dir.path().join(format!("data{n}"));
        Node::builder().listen(self.names[n]).data_dir(data).certs(self.dir.path().join("certs"))
    }

    fn kvctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::cargo_bin("kvctl").expect("the program under test");
        let peers: Vec<String> = self.names[..3].iter().map(ToString::to_string).collect();
        command
            .args(arguments)
            .env("KVCTL_PEERS", peers.join(","))
            .env("KVCTL_CERTS", self.dir.path().join("certs"));
        command.env_remove("KVCTL_AS").env_remove("KVCTL_TIMEOUT");
        command
    }

    /// Runs it on a terminal of its own where somebody types this; `None`, and a loud word, where there is no `script`.
    fn on_a_terminal(&self, arguments: &[&str], typed: &str) -> Option<std::process::Output> {
        let kvctl = self.kvctl(arguments);
        let program = kvctl.get_program().to_string_lossy().into_owned();
        let line =
            std::iter::once(program.as_str()).chain(arguments.iter().copied()).collect::<Vec<_>>().join(" ");
        let mut script = std::process::Command::new("script");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        for (name, value) in kvctl.get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        if std::process::Command::new("script").arg("--version").output().is_err() {
            say_skipped("no `script` on this computer, so nobody types an answer");
            return None;
        }
        Some(Command::from_std(script).write_stdin(typed).output().expect("a run"))
    }

    fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let output = self.kvctl(arguments).arg("--json").output().expect("a run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).expect("JSON on stdout")
    }

    /// Waits until so many machines are up, of which at least one has this epoch or a later one, and it is settled.
    async fn until(&self, up: usize, epoch: u64) -> Value {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let output = self.kvctl(&["members", "--json"]).output().expect("a run");
            let members: Value = serde_json::from_slice(&output.stdout).expect("JSON on stdout");
            let all = members["machines"].as_array().map(Vec::as_slice).unwrap_or_default();
            let count = all.iter().filter(|m| m["state"] == "up").count();
            let settled = members["settled"] == true && members["epoch"].as_u64() >= Some(epoch);
            if count == up && all.len() == up && settled {
                return members;
            }
            assert!(Instant::now() < deadline, "{members:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test]
async fn a_fourth_machine_comes_in_is_seen_and_leaves_for_good() {
    let mut cluster = Cluster::start(100).await;
    for n in 0..50 {
        cluster.kvctl(&["put", &format!("k{n}"), "v"]).assert().success();
    }
    let status = cluster.json(0, &["status"]);
    assert_eq!(
        (&status["settled"], &status["tolerates"], &status["moves"]),
        (&true.into(), &1.into(), &Value::from(Vec::<Value>::new()))
    );
    let ring = cluster.json(0, &["ring", "--key", "k1"]);
    assert_eq!(ring["arcs"].as_array().map(Vec::len), Some(3 * 64));

    let fourth = cluster.node(3).join([cluster.names[0]]).start().await.expect("a node");
    let members = cluster.until(4, 3).await;
    let share: f64 =
        members["machines"].as_array().expect("machines").iter().filter_map(|m| m["share"].as_f64()).sum();
    assert!((share - 1.0).abs() < 1e-9);
    assert_eq!(members["machines"][3]["synced_slots"], 64);
    let check = cluster.json(0, &["check"]);
    assert_eq!(check["alike"], true, "{check:#}");

    let name = cluster.names[3].to_string();
    let plan = cluster.json(0, &["leave", &name, "--plan"]);
    assert_eq!((&plan["machines_after"], &plan["keys"]), (&3.into(), &50.into()));
    cluster.until(4, 3).await;
    let refused = cluster.json(2, &["remove", &name, "--yes"]);
    assert_eq!(refused["error"], "refused");
    assert!(refused["message"].as_str().is_some_and(|m| m.contains("kvctl leave")), "{refused}");
    let left = cluster.json(0, &["leave", &name]);
    assert_eq!((&left["outcome"], &left["machine"]), (&"done".into(), &name.as_str().into()));
    let reason =
        tokio::time::timeout(Duration::from_secs(20), fourth.stopped()).await.expect("it stops by itself");
    assert!(matches!(reason, StopReason::Left(_)), "{reason}");
    drop(fourth);
    assert_eq!(cluster.json(1, &["leave", &name])["error"], "not_found");

    // Its directory says so, and starts again only to join.
    let error = cluster.node(3).start().await.expect_err("it has left");
    assert!(error.to_string().contains("has left its ring"), "{error}");
    let back = cluster.node(3).join([cluster.names[0]]).start().await.expect("a node");
    cluster.until(4, 7).await;
    back.shutdown("the test is over").await;
    for node in cluster.nodes.drain(..) {
        node.shutdown("the test is over").await;
    }
}

#[tokio::test]
async fn a_machine_that_is_gone_is_removed_and_not_asked_to_leave() {
    let mut cluster = Cluster::start(101).await;
    let fourth = cluster.node(3).join([cluster.names[0]]).start().await.expect("a node");
    cluster.until(4, 3).await;
    let name = cluster.names[3].to_string();
    fourth.shutdown("it breaks").await;
    let refused = cluster.json(2, &["leave", &name]);
    assert!(refused["message"].as_str().is_some_and(|m| m.contains("kvctl remove")), "{refused}");
    let removed = cluster.json(0, &["remove", &name, "--timeout", "20s"]);
    assert_eq!(removed["outcome"], "done", "long before patience would have ended");
    cluster.until(3, 4).await;
    for node in cluster.nodes.drain(..) {
        node.shutdown("the test is over").await;
    }
}

#[expect(clippy::print_stderr, reason = "what was not tested is said aloud")]
fn say_skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// What a person has to see before the answer.
fn assert_counts(shown: &str, cluster: &Cluster, lost: &[&str; 2]) {
    for word in [
        "Forced recovery of cluster",
        &format!("{}, {}", lost[0], lost[1]),
        &format!("{} (epoch", cluster.names[0]),
        "100.0 % of all keys have five or more of their copies on the lost machines: about 20 keys",
        "Acknowledged writes to these may be lost",
        "0.0 % have all their copies there",
    ] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
}

#[tokio::test]
async fn more_machines_than_may_be_lost_are_forced_out_only_by_who_says_yes() {
    let mut cluster = Cluster::start(107).await;
    for n in 0..20 {
        cluster.kvctl(&["put", &format!("k{n}"), "v"]).assert().success();
    }
    let (second, third) = (cluster.names[1].to_string(), cluster.names[2].to_string());
    let lost = [second.as_str(), third.as_str()];
    let refused = cluster.json(2, &["recover", lost[0], lost[1], "--yes"]);
    assert!(refused["message"].as_str().is_some_and(|m| m.contains("answers")), "{refused}");
    for node in cluster.nodes.drain(1..) {
        node.shutdown("lost for good").await;
    }
    let plan = cluster.json(0, &["recover", lost[0], lost[1], "--plan"]);
    assert_eq!((&plan["doubtful_share"], &plan["gone_share"]), (&1.0.into(), &0.0.into()), "{plan}");
    assert_eq!(plan["written_on"], cluster.names[0].to_string());
    assert_eq!(plan["doubtful_keys"], 20);
    let shown = cluster.kvctl(&["recover", lost[0], lost[1], "--plan"]).assert().success();
    let shown = String::from_utf8_lossy(&shown.get_output().stdout).into_owned();
    assert_counts(&shown, &cluster, &lost);
    // Nobody to ask: nothing is done without --yes, and never both --plan and --yes.
    let refused = cluster.json(2, &["recover", lost[0], lost[1]]);
    assert!(refused["message"].as_str().is_some_and(|m| m.contains("--yes")), "{refused}");
    let refused = cluster.kvctl(&["recover", lost[0], lost[1]]).write_stdin("y\n").assert().code(2);
    let said = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    assert!(said.contains("--yes") && said.contains("nothing was changed"), "{said}");
    cluster.kvctl(&["recover", lost[0], lost[1], "--plan", "--yes"]).assert().code(2);
    cluster.kvctl(&["recover"]).assert().code(2);
    assert_eq!(cluster.json(1, &["recover", "127.0.107.4", "--yes"])["error"], "not_found");
    let id = plan["cluster"].as_str().expect("an id");
    let done = match cluster.on_a_terminal(&["recover", lost[0], lost[1]], "yes\n") {
        None => {
            cluster.kvctl(&["recover", lost[0], lost[1], "--yes"]).assert().success().get_output().clone()
        }
        Some(wrong) => {
            // Not even "yes": a person has to have looked at which cluster it is.
            let said = String::from_utf8_lossy(&wrong.stdout).into_owned();
            assert_eq!(wrong.status.code(), Some(2), "{said}");
            assert!(
                said.contains("Type the cluster's id") && said.contains("that is not it; nothing"),
                "{said}"
            );
            assert_counts(&said, &cluster, &lost);
            let silent = cluster.on_a_terminal(&["recover", lost[0], lost[1]], "\n").expect("a terminal");
            assert_eq!(silent.status.code(), Some(2), "silence is no");
            let json =
                cluster.on_a_terminal(&["recover", lost[0], lost[1], "--json"], id).expect("a terminal");
            assert_eq!(json.status.code(), Some(2), "who wants JSON is no person");
            let plan = cluster.json(0, &["recover", lost[0], lost[1], "--plan"]);
            assert_eq!(plan["lost"].as_array().map(Vec::len), Some(2), "they are members yet: {plan}");
            cluster.on_a_terminal(&["recover", lost[0], lost[1]], &format!("{id}\n")).expect("a terminal")
        }
    };
    let said = [done.stdout, done.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    assert_eq!(done.status.code(), Some(0), "{said}");
    assert!(said.contains("forced out: epoch 1.") && said.contains("1 machines left"), "{said}");
    // Said again, it is done already.
    let again = cluster.json(1, &["recover", lost[0], lost[1], "--yes"]);
    assert_eq!((&again["error"], &again["outcome"]), (&"not_found".into(), &"unchanged".into()), "{again}");
    cluster.until(1, 2).await;
    for n in 0..20 {
        cluster.kvctl(&["get", &format!("k{n}")]).assert().success();
        cluster.kvctl(&["put", &format!("k{n}"), "new"]).assert().success();
    }
    for node in cluster.nodes.drain(..) {
        node.shutdown("the test is over").await;
    }
}
