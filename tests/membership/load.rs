//! Clients at work, every call recorded; and the judgement whether each key was one register.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ennead::client::{Client, Effect, Error};
use ennead_sim::checker::{self, Call, If, Op, Reply};
use tokio::task::JoinSet;

/// Keys that the clients share, so that they meet at them.
const KEYS: usize = 24;

/// What is recorded.
struct Record {
    histories: Vec<Mutex<Vec<Op>>>,
    clock: AtomicU64,
    values: AtomicU64,
    failed: Mutex<Vec<(Instant, String)>>,
    longest: Mutex<Duration>,
    stop: AtomicBool,
}

/// Clients at work.
pub(crate) struct Load {
    record: Arc<Record>,
    tasks: JoinSet<()>,
}

/// What came of it.
pub(crate) struct Came {
    pub(crate) calls: usize,
    /// Calls that failed, and when.
    pub(crate) failed: Vec<(Instant, String)>,
    /// The longest that one client went without an answer.
    pub(crate) longest: Duration,
}

impl Load {
    pub(crate) fn start(client: &Client, clients: u32) -> Self {
        let record = Arc::new(Record {
            histories: (0..KEYS).map(|_| Mutex::new(Vec::new())).collect(),
            clock: AtomicU64::new(1),
            values: AtomicU64::new(1),
            failed: Mutex::new(Vec::new()),
            longest: Mutex::new(Duration::ZERO),
            stop: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        for who in 0..clients {
            let (client, record) = (client.clone(), record.clone());
            tasks.spawn(async move {
                let mut seen = None;
                while !record.stop.load(Ordering::Relaxed) {
                    record.call(&client, who, &mut seen).await;
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
            });
        }
        Self { record, tasks }
    }

    /// Failures so far.
    pub(crate) fn failures(&self) -> usize {
        self.record.failed.lock().expect("no panic").len()
    }

    /// Ends it, reads every key once more, and judges.
    pub(crate) async fn finish(self, client: &Client) -> Came {
        let Self { record, tasks } = self;
        record.stop.store(true, Ordering::Relaxed);
        tasks.join_all().await;
        let failed = std::mem::take(&mut *record.failed.lock().expect("no panic"));
        for key in 0..KEYS {
            record.get(client, 999, key).await;
        }
        let unread = record.failed.lock().expect("no panic");
        assert!(unread.is_empty(), "at rest, and yet {unread:?}");
        let mut calls = 0;
        for (key, history) in record.histories.iter().enumerate() {
            let history = history.lock().expect("no panic");
            calls += history.len();
            if let Err(fault) = checker::judge(&history) {
                panic!("key {key} was not one register: {fault}");
            }
        }
        let longest = *record.longest.lock().expect("no panic");
        Came { calls, failed, longest }
    }
}

impl Record {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    async fn call(&self, client: &Client, who: u32, seen: &mut Option<u64>) {
        let begun = Instant::now();
        let key = rand::random_range(0..KEYS);
        let text = format!("key-{key}");
        match rand::random_range(0..10) {
            0..4 => *seen = self.get(client, who, key).await,
            4..9 => {
                let value = self.values.fetch_add(1, Ordering::Relaxed);
                let put = client.put(&text, value.to_string());
                let (condition, put) = match (rand::random_range(0..4), *seen) {
                    (0, _) => (If::Absent, put.if_absent()),
                    (1, Some(version)) => (If::Version(version), put.if_version(version)),
                    _ => (If::Any, put),
                };
                let start = self.tick();
                let came = put.await;
                self.note(who, key, Call::Put(value, condition), start, came.map(Reply::Done));
            }
            _ => {
                let start = self.tick();
                let came = client.delete(&text).await;
                let reply = came.map(|deleted| deleted.map_or(Reply::Absent, Reply::Done));
                self.note(who, key, Call::Delete(If::Any), start, reply);
            }
        }
        let mut longest = self.longest.lock().expect("no panic");
        *longest = longest.max(begun.elapsed());
    }

    async fn get(&self, client: &Client, who: u32, key: usize) -> Option<u64> {
        let start = self.tick();
        let came = client.get(format!("key-{key}")).await;
        let reply = came.map(|found| match found {
            Some(record) => {
                let value = String::from_utf8_lossy(&record.value).parse().expect("a number");
                Reply::Found(value, record.version)
            }
            None => Reply::Nothing(None),
        });
        let version = match &reply {
            Ok(Reply::Found(_, version)) => Some(*version),
            _ => None,
        };
        self.note(who, key, Call::Get, start, reply);
        version
    }

    fn note(&self, who: u32, key: usize, call: Call, start: u64, came: Result<Reply, Error>) {
        let reply = match came {
            Ok(reply) => reply,
            Err(Error::VersionMismatch { found }) => Reply::Mismatch(found),
            Err(error) => {
                self.failed.lock().expect("no panic").push((Instant::now(), error.to_string()));
                match error.effect() {
                    Effect::Unknown => Reply::Unknown,
                    _ if call == Call::Get => return,
                    _ => Reply::Never,
                }
            }
        };
        let end = self.tick();
        self.histories[key].lock().expect("no panic").push(Op { who, call, reply, start, end });
    }
}
