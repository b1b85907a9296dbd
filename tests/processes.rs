//! Nine real processes, killed while they work: nothing acknowledged is lost, nothing fails that need not.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ennead::client::{Client, Effect, Error};
use ennead::cluster::{Base, Cluster, Options};
use ennead::status::PeerState;
use tokio::task::JoinSet;

/// Patience with a machine that may be busy with other tests; the deadline of operations is their own.
const START_WITHIN: Duration = Duration::from_secs(60);

struct Nine {
    cluster: Cluster,
    client: Client,
    _dir: tempfile::TempDir,
}

/// Nine peers on 127.0.`net`.1 to 9, so that tests run beside each other.
async fn nine(net: u8, timeout: Duration) -> Nine {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options = Options {
        program: PathBuf::from(env!("CARGO_BIN_EXE_ennead")),
        dir: dir.path().join("cluster"),
        peers: Some(9),
        base: Base::at(Ipv4Addr::new(127, 0, net, 1), 9595),
        flags: Vec::new(),
    };
    let mut cluster = Cluster::prepare(options).expect("addresses and certificates");
    cluster.start_all().expect("nine processes");
    cluster.wait_until_up(START_WITHIN).await.expect("nine peers up");
    let client = cluster.client(timeout).await.expect("a client");
    Nine { cluster, client, _dir: dir }
}

/// What one writer knows of its key.
struct Written {
    key: String,
    /// The last value acknowledged; `None` before the first.
    acknowledged: Option<u64>,
    /// Values sent after that, with an outcome unknown: each may be there.
    unknown: Vec<u64>,
    errors: Vec<Error>,
    longest_gap: Duration,
}

/// Writers of one key each, that write 1, 2, 3, ... until told to stop.
struct Writers {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Written>,
}

impl Writers {
    fn start(client: &Client, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for writer in 0..count {
            let (client, stop) = (client.clone(), stop.clone());
            tasks.spawn(async move {
                let key = format!("writer-{writer}");
                let mut written = Written {
                    key: key.clone(),
                    acknowledged: None,
                    unknown: Vec::new(),
                    errors: Vec::new(),
                    longest_gap: Duration::ZERO,
                };
                let mut last = Instant::now();
                for value in 1u64.. {
                    match client.put(&key, value.to_string()).await {
                        Ok(_) => {
                            (written.acknowledged, written.unknown) = (Some(value), Vec::new());
                            written.longest_gap = written.longest_gap.max(last.elapsed());
                            last = Instant::now();
                        }
                        Err(error) => {
                            if error.effect() == Effect::Unknown {
                                written.unknown.push(value);
                            }
                            written.errors.push(error);
                        }
                    }
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                written
            });
        }
        Self { stop, tasks }
    }

    async fn finish(self) -> Vec<Written> {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await
    }
}

/// The key has the last value acknowledged, or one sent after it whose outcome nobody knows.
async fn nothing_is_lost(client: &Client, written: &[Written]) {
    for Written { key, acknowledged, unknown, .. } in written {
        let record = client.get(key).await.unwrap_or_else(|e| panic!("get {key}: {e}"));
        let found = record.map(|r| String::from_utf8_lossy(&r.value).parse::<u64>().expect("a number"));
        let maybe = unknown.iter().any(|v| found == Some(*v));
        assert!(found == *acknowledged || maybe, "{key}: {found:?}, but {acknowledged:?} was acknowledged");
    }
}

#[tokio::test]
async fn one_to_four_of_nine_killed_under_load_fail_nothing_and_lose_nothing() {
    let Nine { mut cluster, client, _dir } = nine(81, Duration::from_secs(5)).await;
    let writers = Writers::start(&client, 8);
    tokio::time::sleep(Duration::from_millis(300)).await;
    for victim in [0, 8, 3, 5] {
        cluster.kill(victim);
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    let written = writers.finish().await;
    for Written { key, errors, acknowledged, longest_gap, .. } in &written {
        assert!(errors.is_empty(), "{key}: {errors:?}");
        assert!(*acknowledged > Some(3), "{key}: {acknowledged:?}");
        // The aim is 250 ms on an idle machine; a test beside others must only tell a pause from a failover.
        assert!(*longest_gap < Duration::from_secs(2), "{key}: {longest_gap:?} without a success");
    }
    nothing_is_lost(&client, &written).await;
    for victim in [0, 8, 3, 5] {
        cluster.start(victim).expect("a process");
    }
    cluster.wait_until_up(START_WITHIN).await.expect("nine again");
    nothing_is_lost(&client, &written).await;
    assert_eq!(cluster.stop().await, [], "who was killed restarts well, and all end well");
}

#[tokio::test]
async fn five_of_nine_killed_is_no_quorum_within_the_deadline_and_nothing_is_lost() {
    let deadline = Duration::from_secs(1);
    let Nine { mut cluster, client, _dir } = nine(82, deadline).await;
    client.put("k", "before").await.expect("nine are up");
    let names = cluster.names();
    (0..5).for_each(|victim| cluster.kill(victim));

    let asked = Instant::now();
    let error = client.get("k").await.expect_err("four are no quorum");
    assert!(asked.elapsed() < deadline + Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!((error.code(), error.effect()), ("no_quorum", Effect::Unchanged));
    let said = error.to_string();
    assert!(names[..5].iter().all(|name| said.contains(&name.to_string())), "{said}");

    // A client that comes now, as kvctl does: it sends nothing to the dead. (One whose coordinator died with its
    // request in hand cannot know what became of that, and says so: the outcome is unknown.)
    let newcomer = cluster.client(deadline).await.expect("four can tell the view");
    let asked = Instant::now();
    let error = newcomer.put("new", "value").await.expect_err("four are no quorum");
    assert!(asked.elapsed() < deadline + Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!((error.code(), error.effect()), ("no_quorum", Effect::Unchanged), "{error}");

    // A dirty read asks one, and says who answered.
    let (who, record) = client.get_one("k").await.expect("four hold it");
    assert!(names[5..].contains(&who));
    assert_eq!(record.map(|r| r.value.to_vec()), Some(b"before".to_vec()));

    (0..5).for_each(|victim| cluster.start(victim).expect("a process"));
    cluster.wait_until_up(START_WITHIN).await.expect("nine again");
    let record = client.get("k").await.expect("a quorum").expect("a value");
    assert_eq!(&*record.value, b"before");
    client.put("new", "value").await.expect("a quorum");
}

#[tokio::test]
async fn all_nine_killed_at_once_in_the_middle_of_writes_keep_every_acknowledged_one() {
    let Nine { mut cluster, client, _dir } = nine(83, Duration::from_secs(2)).await;
    let writers = Writers::start(&client, 16);
    tokio::time::sleep(Duration::from_millis(700)).await;
    (0..9).for_each(|victim| cluster.kill(victim));
    let written = writers.finish().await;
    assert!(written.iter().all(|w| w.acknowledged.is_some()), "it was in the middle of writes");
    cluster.start_all().expect("nine processes");
    cluster.wait_until_up(START_WITHIN).await.expect("nine again");
    nothing_is_lost(&client, &written).await;
    client.put("after", "the storm").await.expect("the first write goes through");
}

#[tokio::test]
async fn frozen_machines_are_as_good_as_dead_and_thaw_without_harm() {
    let Nine { cluster, client, _dir } = nine(84, Duration::from_secs(5)).await;
    let writers = Writers::start(&client, 8);
    tokio::time::sleep(Duration::from_millis(300)).await;
    [1, 4, 6, 7].iter().for_each(|&victim| cluster.pause(victim));
    tokio::time::sleep(Duration::from_secs(1)).await;
    [1, 4, 6, 7].iter().for_each(|&victim| cluster.resume(victim));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let written = writers.finish().await;
    for Written { key, errors, .. } in &written {
        assert!(errors.is_empty(), "{key}: {errors:?}");
    }
    nothing_is_lost(&client, &written).await;
}

/// What each of the others that answer says of `victim`, once `fits` all of it.
async fn others_say(nine: &Nine, victim: usize, within: Duration, fits: impl Fn(PeerState) -> bool) {
    let (asked, name) = (Instant::now(), nine.cluster.names()[victim]);
    loop {
        let accounts = nine.client.status().await.expect("a view");
        let told =
            accounts.iter().filter(|(n, _)| *n != name).filter_map(|(_, account)| account.as_ref().ok());
        let said: Vec<_> = told.flat_map(|a| a.peers.iter().filter(|p| p.name == name)).collect();
        if said.len() == 8 && said.iter().all(|p| fits(p.state)) {
            return;
        }
        assert!(asked.elapsed() < within, "after {:?}: {said:#?}", asked.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_idle_machine_killed_or_frozen_is_missed_by_all_others_and_welcome_back() {
    let mut nine = nine(85, Duration::from_secs(2)).await;
    let (soon, up) = (Duration::from_secs(5), |state| state == PeerState::Up);
    // Handshakes of nine that start at once may be slow.
    others_say(&nine, 4, START_WITHIN, up).await;

    nine.cluster.kill(4);
    others_say(&nine, 4, soon, |state| state != PeerState::Up).await;
    others_say(&nine, 4, soon, |state| state == PeerState::Down).await;
    nine.cluster.start(4).expect("a process");
    nine.cluster.wait_until_up(START_WITHIN).await.expect("nine again");
    others_say(&nine, 4, soon, up).await;

    nine.cluster.pause(2);
    others_say(&nine, 2, soon, |state| state != PeerState::Up).await;
    nine.cluster.resume(2);
    others_say(&nine, 2, soon, up).await;
}
