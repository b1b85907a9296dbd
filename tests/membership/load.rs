//! Clients at work, every call recorded; and the judgement whether each key was one register.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ennead::client::{Client, Effect, Error};
use ennead_sim::checker::{self, Call, If, Op, Reply};
use tokio::task::JoinSet;

/// What the clients work at. An era on, they take to other keys, so that no key's history becomes too long to judge.
#[derive(Clone, Copy)]
pub(crate) struct Work {
    /// Keys that they meet at.
    pub(crate) hot: usize,
    /// Keys that are touched now and then.
    pub(crate) cold: usize,
    pub(crate) era: Duration,
    /// How long a value is now and then, in bytes.
    pub(crate) long: usize,
    /// Between two calls of one client.
    pub(crate) pause: Duration,
}

impl Work {
    /// A few keys, for as long as it takes.
    pub(crate) const FEW: Self =
        Self { hot: 24, cold: 0, era: Duration::MAX, long: 0, pause: Duration::from_millis(3) };
}

/// What is recorded.
struct Record {
    work: Work,
    begun: Instant,
    /// The calls on each key.
    histories: Mutex<BTreeMap<usize, Vec<Op>>>,
    /// For each hot key, when it last had a success, and the longest that it ever went without one.
    gaps: Mutex<BTreeMap<usize, (Instant, Duration)>>,
    outcomes: Mutex<BTreeMap<&'static str, usize>>,
    clock: AtomicU64,
    values: AtomicU64,
    failed: Mutex<Vec<(Instant, String)>>,
    longest: Mutex<Duration>,
    held: AtomicBool,
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
    /// Keys that were called for.
    pub(crate) keys: Vec<String>,
    /// Calls that failed, and when.
    pub(crate) failed: Vec<(Instant, String)>,
    /// Calls by what they ended with.
    pub(crate) outcomes: BTreeMap<&'static str, usize>,
    /// The longest that one client went without an answer.
    pub(crate) longest: Duration,
    /// The longest that one key that all worked at went without a success.
    pub(crate) gap: Duration,
}

/// The key of this number.
fn name(key: usize) -> String {
    format!("key-{key}")
}

impl Load {
    /// So many clients that work at a few keys.
    pub(crate) fn start(client: &Client, clients: u32) -> Self {
        Self::at(Work::FEW, std::slice::from_ref(client), clients)
    }

    /// So many clients, that share these connections.
    pub(crate) fn at(work: Work, connections: &[Client], clients: u32) -> Self {
        let record = Arc::new(Record {
            work,
            begun: Instant::now(),
            histories: Mutex::default(),
            gaps: Mutex::default(),
            outcomes: Mutex::default(),
            clock: AtomicU64::new(1),
            values: AtomicU64::new(1),
            failed: Mutex::new(Vec::new()),
            longest: Mutex::new(Duration::ZERO),
            held: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        for (who, client) in (0..clients).zip(connections.iter().cycle()) {
            let (client, record) = (client.clone(), record.clone());
            tasks.spawn(async move {
                let mut seen = BTreeMap::new();
                while !record.stop.load(Ordering::Relaxed) {
                    if record.held.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    }
                    record.call(&client, who, &mut seen).await;
                    tokio::time::sleep(record.work.pause).await;
                }
            });
        }
        Self { record, tasks }
    }

    /// Failures so far.
    pub(crate) fn failures(&self) -> usize {
        self.record.failed.lock().expect("no panic").len()
    }

    /// Lets the clients pause, or go on.
    pub(crate) fn hold(&self, held: bool) {
        self.record.held.store(held, Ordering::Relaxed);
    }

    /// Keys called for so far.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.record.histories.lock().expect("no panic").keys().copied().map(name).collect()
    }

    /// Calls so far.
    pub(crate) fn calls(&self) -> usize {
        self.record.outcomes.lock().expect("no panic").values().sum()
    }

    /// Judges the keys that nobody works at any more.
    pub(crate) fn judge_what_is_past(&self) {
        let now = self.record.era();
        self.record.judge(|era| era + 1 < now);
    }

    /// Ends it, reads every key once more, and judges.
    pub(crate) async fn finish(self, client: &Client) -> Came {
        let Self { record, tasks } = self;
        record.stop.store(true, Ordering::Relaxed);
        tasks.join_all().await;
        let failed = std::mem::take(&mut *record.failed.lock().expect("no panic"));
        let outcomes = std::mem::take(&mut *record.outcomes.lock().expect("no panic"));
        let gap = record.gaps.lock().expect("no panic").values().map(|(_, gap)| *gap).max();
        let keys: Vec<usize> = record.histories.lock().expect("no panic").keys().copied().collect();
        for key in &keys {
            record.get(client, 999, *key).await;
        }
        let unread = std::mem::take(&mut *record.failed.lock().expect("no panic"));
        assert!(unread.is_empty(), "at rest, and yet {unread:?}");
        record.judge(|_| true);
        let longest = *record.longest.lock().expect("no panic");
        Came {
            calls: outcomes.values().sum(),
            keys: keys.into_iter().map(name).collect(),
            failed,
            outcomes,
            longest,
            gap: gap.unwrap_or_default(),
        }
    }
}

impl Record {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn era(&self) -> usize {
        (self.begun.elapsed().as_nanos() / self.work.era.as_nanos()) as usize
    }

    /// A key of now, and whether it is one that they meet at.
    fn key(&self) -> (usize, bool) {
        let Work { hot, cold, .. } = self.work;
        let is_hot = cold == 0 || rand::random_range(0..10) < 6;
        let key = if is_hot { rand::random_range(0..hot) } else { hot + rand::random_range(0..cold) };
        (self.era() * (hot + cold) + key, is_hot)
    }

    /// Was each key of these eras one register?
    fn judge(&self, which: impl Fn(usize) -> bool) {
        let histories = self.histories.lock().expect("no panic");
        let per_era = self.work.hot + self.work.cold;
        for (key, history) in histories.iter().filter(|(key, _)| which(*key / per_era)) {
            if let Err(fault) = checker::judge(history) {
                let about = history.iter().map(|op| format!("\n  {op}")).collect::<String>();
                panic!("{} was not one register: {fault}; all calls: {about}", name(*key));
            }
        }
    }

    async fn call(&self, client: &Client, who: u32, seen: &mut BTreeMap<usize, u64>) {
        let begun = Instant::now();
        let (key, is_hot) = self.key();
        if is_hot {
            self.gaps.lock().expect("no panic").entry(key).or_insert((begun, Duration::ZERO));
        }
        match rand::random_range(0..10) {
            0..4 => match self.get(client, who, key).await {
                Some(version) => {
                    seen.insert(key, version);
                }
                None => {
                    seen.remove(&key);
                }
            },
            4..9 => self.put(client, who, key, seen.get(&key).copied()).await,
            _ => {
                let start = self.tick();
                let came = client.delete(name(key)).await;
                let reply = came.map(|deleted| deleted.map_or(Reply::Absent, Reply::Done));
                self.note(who, key, Call::Delete(If::Any), start, reply);
            }
        }
        if seen.len() > 1000 {
            seen.clear();
        }
        let mut longest = self.longest.lock().expect("no panic");
        *longest = longest.max(begun.elapsed());
    }

    async fn put(&self, client: &Client, who: u32, key: usize, seen: Option<u64>) {
        let value = self.values.fetch_add(1, Ordering::Relaxed);
        let rest = if rand::random_range(0..8) == 0 { self.work.long } else { 0 };
        let put = client.put(name(key), format!("{value} {}", "x".repeat(rest)));
        let (condition, put) = match (rand::random_range(0..4), seen) {
            (0, _) => (If::Absent, put.if_absent()),
            (1, Some(version)) => (If::Version(version), put.if_version(version)),
            _ => (If::Any, put),
        };
        let start = self.tick();
        let came = put.await;
        self.note(who, key, Call::Put(value, condition), start, came.map(Reply::Done));
    }

    async fn get(&self, client: &Client, who: u32, key: usize) -> Option<u64> {
        let start = self.tick();
        let came = client.get(name(key)).await;
        let reply = came.map(|found| match found {
            Some(record) => {
                let text = String::from_utf8_lossy(&record.value);
                let value = text.split(' ').next().and_then(|value| value.parse().ok());
                Reply::Found(value.expect("a number"), record.version)
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
        let outcome = match &came {
            Ok(_) => "done",
            Err(error) => error.code(),
        };
        *self.outcomes.lock().expect("no panic").entry(outcome).or_default() += 1;
        let reply = match came {
            Ok(reply) => reply,
            Err(Error::VersionMismatch { found }) => Reply::Mismatch(found),
            Err(error) => {
                let said = format!("{}: {error}", name(key));
                self.failed.lock().expect("no panic").push((Instant::now(), said));
                match error.effect() {
                    Effect::Unknown => Reply::Unknown,
                    _ if call == Call::Get => return,
                    _ => Reply::Never,
                }
            }
        };
        if !matches!(reply, Reply::Unknown | Reply::Never)
            && let Some((last, gap)) = self.gaps.lock().expect("no panic").get_mut(&key)
        {
            *gap = last.elapsed().max(*gap);
            *last = Instant::now();
        }
        let end = self.tick();
        let op = Op { who, call, reply, start, end };
        self.histories.lock().expect("no panic").entry(key).or_default().push(op);
    }
}
