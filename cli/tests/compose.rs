//! An operator's first day with containers: `docker compose up`, and everything that can befall nine of them.

#![allow(missing_docs, clippy::print_stderr, reason = "tests")]

#[path = "compose/mod.rs"]
mod compose;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use compose::{Compose, address, state};
use ennead::client::{Client, Effect};
use serde_json::Value;

const WAIT: Duration = Duration::from_secs(90);
/// From `docker compose up` to the first put, once the image is built: what the book says.
const FIRST_PUT: Duration = Duration::from_secs(15);

/// Somebody who writes all the while, and what became of it.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Written>,
}

#[derive(Default)]
struct Written {
    /// Key and the last value acknowledged.
    acknowledged: BTreeMap<String, String>,
    calls: u64,
    failed: Vec<String>,
    longest: Duration,
}

impl Writer {
    fn start(compose: &Compose) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (options, stopped) = (compose.options(), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(write(options, &stopped))
        });
        Self { stop, thread }
    }

    fn stop(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer")
    }
}

async fn write(mut options: ennead::client::ClientOptions, stop: &AtomicBool) -> Written {
    options.timeout = Duration::from_secs(10);
    let client = Client::with_options(options).await.expect("a client");
    let mut written = Written::default();
    while !stop.load(Ordering::Relaxed) {
        let (key, value) = (format!("writer-{}", written.calls % 40), written.calls.to_string());
        let begun = Instant::now();
        match client.put(&key, &value).await {
            Ok(_) => drop(written.acknowledged.insert(key, value)),
            Err(error) if error.effect() == Effect::Unchanged => written.failed.push(error.to_string()),
            // It may yet take effect: nothing can be said of this key any more.
            Err(error) => {
                written.acknowledged.remove(&key);
                written.failed.push(error.to_string());
            }
        }
        written.calls += 1;
        written.longest = written.longest.max(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    written
}

fn all_up(status: &Value, machines: usize) -> bool {
    status["healthy"] == true
        && status["settled"] == true
        && status["machines"].as_array().map(Vec::len) == Some(machines)
}

#[test]
fn nine_containers_live_through_an_operators_first_day() {
    let compose = match Compose::up() {
        Ok(compose) => compose,
        Err(why) => return eprintln!("SKIPPED: no containers here, so nothing was tested: {why}"),
    };
    while !compose.kvctl(&["put", "first", "hello"]).status.success() {
        assert!(compose.begun.elapsed() < WAIT, "no put within {WAIT:?}");
    }
    let took = compose.begun.elapsed();
    eprintln!("from `up` to a put: {:.1} s", took.as_secs_f64());
    assert!(took < FIRST_PUT, "{took:?} from `up` to a put");
    compose.until("nine are up", WAIT, |s| all_up(s, 9));
    let writer = Writer::start(&compose);

    // One alone: off the network, and back with its address.
    compose.plug(3, false);
    compose.until("unplugged: seen to be down", WAIT, |s| state(s, 3) == "down");
    let alone = compose.kvctl_in(3, &["put", "alone", "v", "--timeout", "3s"]);
    assert_eq!(alone.status.code(), Some(2), "nothing was changed: {alone:?}");
    compose.plug(3, true);
    compose.until("plugged in again", WAIT, |s| all_up(s, 9));

    // Frozen, and killed.
    compose.docker(&["pause"], 4);
    compose.until("frozen: seen to be down", WAIT, |s| state(s, 4) == "down");
    compose.docker(&["unpause"], 4);
    let before = compose.pid(5);
    // Docker itself would take its own kill for a stop, and not start it again.
    let killed = std::process::Command::new("kill").args(["-9", &before]).status().expect("kill");
    assert!(killed.success());
    compose.until("thawed; killed and started again", WAIT, |s| {
        all_up(s, 9) && compose.pid(5) != before && compose.pid(5) != "0"
    });

    // An orderly restart of one after the other.
    for peer in [1, 2] {
        compose.compose(&["restart", &format!("ennead{peer}")]);
        compose.until(&format!("ennead{peer} restarted"), WAIT, |s| all_up(s, 9));
    }
    let written = writer.stop();
    eprintln!("{} puts, the longest {:?}, failed: {:?}", written.calls, written.longest, written.failed);
    assert!(written.failed.is_empty(), "never more than one of nine was gone");

    cuts(&compose);

    // Three more, and the first one loses its disk: its command still says --init.
    let writer = Writer::start(&compose);
    compose.compose(&["--profile", "grow", "up", "--detach"]);
    compose.until("twelve", WAIT, |s| all_up(s, 12));
    compose.compose(&["rm", "--stop", "--force", "ennead1"]);
    let volume = format!("{}_data1", compose.project());
    let removed =
        std::process::Command::new("docker").args(["volume", "rm", &volume]).output().expect("docker");
    assert!(removed.status.success(), "{removed:?}");
    compose.compose(&["up", "--detach", "ennead1"]);
    compose.until("the first one, with an empty disk", WAIT, |s| all_up(s, 12));
    let more = writer.stop();
    eprintln!("{} puts, the longest {:?}, failed: {:?}", more.calls, more.longest, more.failed);
    assert!(more.failed.is_empty());

    let mut acknowledged = written.acknowledged;
    acknowledged.extend(more.acknowledged);
    expect_all(&compose, &acknowledged.into_iter().collect::<Vec<_>>());
    compose.compose(&["--profile", "bench", "run", "--rm", "bench", "--clients", "2", "--seconds", "2"]);
    // What a machine missed while the ring changed, the first comparison mends; the next one finds nothing.
    let checks = (0..3).map(|_| compose.kvctl(&["check", "--timeout", "60s"]));
    let said: Vec<String> = checks.map(|c| String::from_utf8_lossy(&c.stdout).into_owned()).collect();
    assert!(said[2].contains("\"alike\":true"), "{said:#?}");
}

/// Five and four, and one that can speak and not hear.
fn cuts(compose: &Compose) {
    let rule = |peer, word: &str, from: &str| {
        compose.in_network_of(peer, &format!("iptables -w -{word} INPUT -s {from} -j DROP"))
    };
    if let Err(why) = rule(9, "A", &address(99)) {
        return eprintln!("SKIPPED: no cuts inside the network here: {why}");
    }
    let each = |word: &str| {
        for (minor, major) in (6..=9).flat_map(|minor| (1..=5).map(move |major| (minor, major))) {
            rule(minor, word, &address(major)).expect("iptables");
            rule(major, word, &address(minor)).expect("iptables");
        }
    };
    each("A");
    let begun = Instant::now();
    let five = |n| compose.kvctl_in(1, &["put", &format!("cut-{n}"), "v", "--timeout", "10s"]);
    assert!((0..5).all(|n| five(n).status.success()), "the five go on");
    eprintln!(
        "cut into five and four: the five wrote five keys within {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    // Before it knows of the cut, a coordinator proposes, and the outcome is truly unknown.
    loop {
        let four = compose.kvctl_in(9, &["put", "second", "no", "--timeout", "5s"]);
        let said: Value = serde_json::from_slice(&four.stdout).unwrap_or_default();
        if (&said["error"], &said["outcome"]) == (&"no_quorum".into(), &"unchanged".into()) {
            break;
        }
        assert!(!four.status.success() && begun.elapsed() < WAIT, "the four refuse: {four:?}");
    }
    let dirty = compose.kvctl_in(9, &["get", "first", "--read", "one"]);
    assert!(dirty.status.success(), "one copy is read: {dirty:?}");
    each("D");
    compose.until("healed", WAIT, |s| all_up(s, 9));
    (0..5).for_each(|n| expect(compose, &format!("cut-{n}"), "v"));
    expect(compose, "first", "hello");

    for peer in (1..=9).filter(|peer| *peer != 7) {
        rule(7, "A", &address(peer)).expect("iptables");
    }
    compose.until("speaks and does not hear: seen", WAIT, |s| state(s, 7) != "up");
    assert!(compose.kvctl_in(1, &["put", "deaf", "v"]).status.success());
    for peer in (1..=9).filter(|peer| *peer != 7) {
        rule(7, "D", &address(peer)).expect("iptables");
    }
    compose.until("hears again", WAIT, |s| all_up(s, 9));
}

/// The same of many keys, a hundred at a time.
fn expect_all(compose: &Compose, written: &[(String, String)]) {
    for some in written.chunks(100) {
        let keys = some.iter().map(|(key, _)| key.as_str());
        let got =
            compose.kvctl(&["get"].into_iter().chain(keys).chain(["--timeout", "10s"]).collect::<Vec<_>>());
        let lines = String::from_utf8_lossy(&got.stdout);
        let said: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect();
        assert_eq!(said.len(), some.len(), "{got:?}");
        for (said, (key, value)) in said.iter().zip(some) {
            assert_eq!(
                (&said["key"], &said["value"]),
                (&Value::from(&**key), &Value::from(&**value)),
                "{said}"
            );
        }
    }
}

fn expect(compose: &Compose, key: &str, value: &str) {
    let got = compose.kvctl(&["get", key, "--timeout", "10s"]);
    let said: Value = serde_json::from_slice(&got.stdout).unwrap_or_default();
    assert_eq!(said["value"], value, "{key}: {got:?}");
}
