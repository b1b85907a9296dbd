//! Errands: requests that a machine makes of its own core loop, for keys that are the cluster's own.
//!
//! They go in beside the network, through a bounded channel, so no client can make one: clients speak over a
//! connection, and are refused reserved keys there. Crash reports are put into the ring so.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ennead_ring::Key;
use ennead_ring::message::{Change, Condition, Op, Outcome, Write};
use ennead_ring::stamp::{Hlc, RequestId};
use ennead_ring::view::Name;
use rand::RngExt;
use tokio::sync::{mpsc, oneshot};

use crate::clock;
use crate::crash::{self, Context, Report};

/// Errands that may wait for the core loop.
const WAITING: usize = 32;
/// How long a try may take.
const WITHIN: Duration = Duration::from_secs(2);
/// Between two tries, while the cluster does not answer.
const AGAIN: Duration = Duration::from_secs(2);
/// Comparisons that may fail in a row: others write to the same list.
const TRIES: usize = 10;
/// Last words of others that may wait to be put into the ring.
pub(crate) const LAST_WORDS: usize = 16;

/// One errand.
#[derive(Debug)]
pub(crate) struct Errand {
    pub(crate) key: Key,
    pub(crate) op: Op,
    pub(crate) within: Duration,
    pub(crate) done: oneshot::Sender<Outcome>,
}

/// Where errands go in.
#[derive(Clone, Debug)]
pub(crate) struct Errands(mpsc::Sender<Errand>);

impl Errands {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Errand>) {
        let (tx, rx) = mpsc::channel(WAITING);
        (Self(tx), rx)
    }

    async fn ask(&self, key: &Key, op: Op) -> Outcome {
        let lost = || Outcome::Refused("the core loop began anew".into());
        let (done, outcome) = oneshot::channel();
        let errand = Errand { key: key.clone(), op, within: WITHIN, done };
        if self.0.send(errand).await.is_err() {
            return lost();
        }
        // The core answers within the time it was given, or has died meanwhile.
        tokio::time::timeout(2 * WITHIN, outcome).await.ok().and_then(Result::ok).unwrap_or_else(lost)
    }

    /// Changes the value of a key by comparing; `change` says what to, or that it is well as it is.
    async fn update(
        &self,
        key: &[u8],
        change: impl Fn(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<(), String> {
        let key = Key::new(key).map_err(|e| e.to_string())?;
        for _ in 0..TRIES {
            let found = match self.ask(&key, Op::Read).await {
                Outcome::Value(found) => found,
                other => return Err(format!("it cannot be read: {other:?}")),
            };
            let Some(value) = change(found.as_ref().map(|f| &*f.value)) else { return Ok(()) };
            let condition = found.map_or(Condition::Absent, |f| Condition::Version(f.version));
            let id = RequestId {
                time: Hlc::from_nanos(clock::unix_ms().saturating_mul(1_000_000)),
                random: rand::random(),
            };
            let change = Change::Put { value: value.into(), ttl: None };
            match self.ask(&key, Op::Write(Write { id, again: false, condition, change })).await {
                Outcome::Done { .. } => return Ok(()),
                // Somebody else was faster, or nobody knows: what is there now says so.
                Outcome::Mismatch { .. } | Outcome::TooLate { .. } | Outcome::Unknown { .. } => {}
                other => return Err(format!("it cannot be written: {other:?}")),
            }
            let pause = rand::rng().random_range(1..=50);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        Err(format!("{TRIES} tries met other changes"))
    }

    /// Puts a crash report into the ring, once however often it is told.
    ///
    /// # Errors
    /// The cluster does not answer, or this machine has none.
    pub(crate) async fn put(&self, report: &Report) -> Result<(), String> {
        self.update(&crash_key(&report.machine), |list| crash::with_report(list, report)).await?;
        self.update(CRASHES, |list| crash::with_name(list, &report.machine)).await
    }
}

/// The key of the names of machines with crash reports.
pub(crate) const CRASHES: &[u8] = b"\0crashes";

/// The key of a machine's crash reports.
pub(crate) fn crash_key(machine: &str) -> Vec<u8> {
    [b"\0crash/", machine.as_bytes()].concat()
}

/// Puts this machine's reports into the ring: those of former runs, and new ones as they come.
pub(crate) async fn deliver(context: Arc<Context>, errands: Errands) {
    loop {
        let reader = context.clone();
        // A disk that hangs must not keep the core loop, on this thread, from its work.
        let untold = tokio::task::spawn_blocking(move || reader.untold()).await.unwrap_or_default();
        let mut left = 0;
        for (path, report) in untold {
            if let Err(why) = deliver_one(&errands, path, report).await {
                tracing::debug!(why, "a crash report is not in the ring yet");
                left += 1;
            }
        }
        let rung = context.new.notified();
        if left > 0 {
            let _ = tokio::time::timeout(AGAIN, rung).await;
        } else {
            rung.await;
        }
    }
}

async fn deliver_one(errands: &Errands, path: PathBuf, report: Report) -> Result<(), String> {
    errands.put(&report).await?;
    let _ = tokio::task::spawn_blocking(move || Context::told(&path, &report)).await;
    Ok(())
}

/// Last words of another machine: its report, and how many others stand before this machine in the order of those
/// who see to it.
pub(crate) type Heard = (Name, Report, u32);

/// Puts others' last words into the ring. Several heard them: the first in order does it, and the others find it done.
pub(crate) async fn hear(mut heard: mpsc::Receiver<Heard>, errands: Errands) {
    while let Some((from, report, rank)) = heard.recv().await {
        let errands = errands.clone();
        // At most as many at once as may wait: each ends within a minute.
        tokio::spawn(async move {
            let jitter = rand::rng().random_range(0..100);
            tokio::time::sleep(Duration::from_millis(u64::from(rank.min(10)) * 300 + jitter)).await;
            for _ in 0..10 {
                match errands.put(&report).await {
                    Ok(()) => {
                        tracing::info!(peer = %from, "its last words are in the ring");
                        return;
                    }
                    Err(why) => tracing::debug!(peer = %from, why, "its last words are not in the ring yet"),
                }
                tokio::time::sleep(AGAIN).await;
            }
        });
    }
}
