//! A lock with a lease and a fencing token, made of one key: put where it is absent, with a time to live; renewed by
//! touch under its version; deleted under its version.
//!
//! What a lock can promise: while the holder counts on it, no other client was given it, as long as the clocks of any
//! two machines are less than a tenth of the time to live apart (G4 lets whoever coordinates judge the expiry by his
//! own clock). Nobody promises such clocks; what always holds is that the tokens of later holders are higher. So
//! whatever the lock protects should be told the token, and refuse a lower one than it has seen.

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Client, Error};

/// Before the lock's name: what an operator lists, reads and deletes.
const PREFIX: &str = "lock/";
/// Shorter leases are not renewed in time by machines that are a little slow.
const SHORTEST: Duration = Duration::from_secs(1);
/// Longer ones are for ever.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3_600);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A lock in the making: await it, or say first for how long it is to be held and waited for.
#[must_use = "nothing is locked until awaited"]
#[derive(Debug)]
pub struct LockRequest<'a> {
    client: &'a Client,
    name: String,
    ttl: Duration,
    wait: Duration,
    holder: String,
}

/// Why there is no lock.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LockError {
    /// Somebody else had it for all the time that was waited.
    Held {
        /// What he says of himself.
        by: String,
    },
    /// It could not be asked for. After [`Error::Unknown`] it may be taken all the same, until its time is over.
    Failed(Error),
}

/// What [`LockRequest`] becomes when it is awaited.
pub type Acquire<'a> = Pin<Box<dyn Future<Output = Result<Lock, LockError>> + Send + 'a>>;

/// A lock that is held, and renewed for as long as this lives. Dropped, it is given back if the runtime still runs, and
/// else when its time is over; [`release`](Self::release) says whether it was.
#[derive(Debug)]
pub struct Lock {
    client: Client,
    key: String,
    token: u64,
    lease: watch::Receiver<Lease>,
    renewing: JoinHandle<()>,
    released: bool,
}

/// What is known of the lease.
#[derive(Clone, Debug)]
struct Lease {
    /// When the request that last renewed it was sent: it cannot have expired a `ttl` after that.
    taken: Instant,
    ttl: Duration,
    lost: Option<Arc<str>>,
}

impl Lease {
    /// When it is to be renewed: in time for the next two thirds to be tried in.
    fn renew_at(&self) -> Instant {
        self.taken + self.ttl / 3
    }

    /// When it counts as lost, if it is not renewed: there is time to stop what rests on it.
    fn lost_at(&self) -> Instant {
        self.taken + self.ttl * 2 / 3
    }

    /// When all that rests on it must have stopped. The tenth that is left is for clocks that differ.
    fn until(&self) -> Instant {
        self.taken + self.ttl * 9 / 10
    }
}

impl<'a> LockRequest<'a> {
    /// How long it stays locked after its holder has died. Default 10 s; from 1 s to a year. It is renewed at a third of
    /// this; counts as lost, not renewed, at two thirds; whatever rests on it is to be over at nine tenths.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long to wait for it where another holds it, or where the cluster does not answer. Default: not at all.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// What is to be said of who holds it, to whoever waits or looks. Default: the process id.
    pub fn holder(mut self, holder: impl Into<String>) -> Self {
        self.holder = holder.into();
        self
    }

    async fn acquire(self) -> Result<Lock, LockError> {
        let Self { client, name, ttl, wait, holder } = self;
        let invalid = |why: String| Err(LockError::Failed(Error::Invalid(why)));
        if name.is_empty() {
            return invalid("a lock has a name".to_owned());
        }
        if !(SHORTEST..=LONGEST).contains(&ttl) {
            return invalid(format!(
                "the time to live of a lock is from {SHORTEST:?} to a year, not {ttl:?}"
            ));
        }
        let key = format!("{PREFIX}{name}");
        // No two requests write the same: whoever is not told of his success knows it by this.
        let value = format!("{holder} #{:016x}", rand::random::<u64>());
        let give_up = Instant::now() + wait.min(LONGEST);
        let mut pause = FIRST_PAUSE;
        loop {
            let failed = match try_once(client, &key, &value, ttl).await {
                Ok((token, taken)) => {
                    return Ok(Lock::held(client.clone(), key, token, Lease { taken, ttl, lost: None }));
                }
                Err(LockError::Failed(error @ (Error::Invalid(_) | Error::Setup(_)))) => {
                    return Err(LockError::Failed(error));
                }
                Err(failed) => failed,
            };
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(failed);
            }
            // A random part of it, so that those who wait do not come together.
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0)).min(left)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// The token, and when the request was sent that the lease is counted from.
async fn try_once(
    client: &Client,
    key: &str,
    value: &str,
    ttl: Duration,
) -> Result<(u64, Instant), LockError> {
    let sent = Instant::now();
    match client.put(key, value).if_absent().ttl(ttl).await {
        Ok(version) if sent.elapsed() < ttl / 3 => return Ok((version, sent)),
        // It took long, or it is another's, or the last try was carried out and nobody could say so.
        Ok(_) | Err(Error::VersionMismatch { .. } | Error::Unknown { .. }) => {}
        Err(error) => return Err(LockError::Failed(error)),
    }
    let found = client.get(key).await.map_err(LockError::Failed)?;
    let by = |record: &super::Record| {
        let text = String::from_utf8_lossy(&record.value).into_owned();
        text.rsplit_once(" #").map_or(text.clone(), |(holder, _)| holder.to_owned())
    };
    match found {
        Some(record) if *record.value == *value.as_bytes() => {
            // Ours, for how long yet nobody tells: a renewal does.
            let sent = Instant::now();
            match client.touch(key).ttl(ttl).if_version(record.version).await {
                Ok(Some(version)) => Ok((version, sent)),
                Ok(None) | Err(Error::VersionMismatch { .. }) => Err(LockError::Held { by: by(&record) }),
                Err(error) => Err(LockError::Failed(error)),
            }
        }
        Some(record) => Err(LockError::Held { by: by(&record) }),
        None => Err(LockError::Held { by: "somebody who has just released it".to_owned() }),
    }
}

impl<'a> IntoFuture for LockRequest<'a> {
    type Output = Result<Lock, LockError>;
    type IntoFuture = Acquire<'a>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.acquire())
    }
}

impl Lock {
    fn held(client: Client, key: String, token: u64, lease: Lease) -> Self {
        let (told, lease) = watch::channel(lease);
        let renewing = tokio::spawn(renew(client.clone(), key.clone(), token, told));
        Self { client, key, token, lease, renewing, released: false }
    }

    /// The fencing token: higher than that of everybody who held the lock before.
    pub const fn token(&self) -> u64 {
        self.token
    }

    /// The key that the lock is: `lock/` and its name.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// When all that rests on the lock must be over, unless it is renewed until then. Once [lost](Self::lost), it
    /// is not.
    pub fn until(&self) -> Instant {
        self.lease.borrow().until()
    }

    /// Comes back when the lock can no longer be counted on, with the reason: it was not renewed in two thirds of its
    /// time, or somebody deleted it. Of the first there is notice: it still holds [`until`](Self::until).
    pub async fn lost(&self) -> Arc<str> {
        let mut lease = self.lease.clone();
        match lease.wait_for(|lease| lease.lost.is_some()).await {
            Ok(lease) => lease.lost.clone().unwrap_or_default(),
            Err(_) => Arc::from("nobody renews it any more"),
        }
    }

    /// Gives the lock back. Whoever waits for it may have it at once.
    ///
    /// # Errors
    /// As of a delete; then it is free when its time is over. Of a lock that was lost already: `Ok`.
    pub async fn release(mut self) -> Result<(), Error> {
        self.released = true;
        self.renewing.abort();
        give_back(&self.client, &self.key, self.token).await
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.renewing.abort();
        if let (false, Ok(runtime)) = (self.released, tokio::runtime::Handle::try_current()) {
            let (client, key, token) = (self.client.clone(), self.key.clone(), self.token);
            // Where it fails, the lock is free when its time is over.
            runtime.spawn(async move { drop(give_back(&client, &key, token).await) });
        }
    }
}

async fn give_back(client: &Client, key: &str, token: u64) -> Result<(), Error> {
    match client.delete(key).if_version(token).unbounded().await {
        Ok(_) | Err(Error::VersionMismatch { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Renews the lease until it is lost. Each renewal counts from before it was sent.
async fn renew(client: Client, key: String, token: u64, told: watch::Sender<Lease>) {
    loop {
        let lease = told.borrow().clone();
        let pause = lease.ttl / 24;
        tokio::time::sleep_until(lease.renew_at().into()).await;
        let mut last = "no answer".to_owned();
        let taken = loop {
            let sent = Instant::now();
            let touch = client.touch(&key).ttl(lease.ttl).if_version(token);
            // Never refused for what else this client has under way: somebody relies on it.
            match tokio::time::timeout_at(lease.lost_at().into(), touch.unbounded()).await {
                Ok(Ok(Some(_))) => break Ok(sent),
                Ok(Ok(None) | Err(Error::VersionMismatch { .. })) => {
                    break Err("it expired, or somebody deleted it".to_owned());
                }
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => break Err(format!("it was not renewed in time: {last}")),
            }
            tokio::time::sleep_until((Instant::now() + pause).min(lease.lost_at()).into()).await;
        };
        match taken {
            Ok(taken) => told.send_modify(|lease| lease.taken = taken),
            Err(why) => {
                told.send_modify(|lease| lease.lost = Some(why.into()));
                return;
            }
        }
    }
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { by } => write!(f, "the lock is held by {by}"),
            Self::Failed(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for LockError {}

impl Client {
    /// Takes the lock of this name, for as long as the guard lives and can renew it. The key is `lock/NAME`, and may be
    /// read, listed and deleted like any other; whoever deletes it takes it from its holder.
    ///
    /// Must be called inside a tokio runtime. A lock costs a put, a touch every third of its time, and a delete.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn lock(&self, name: impl Into<String>) -> LockRequest<'_> {
        let holder = format!("process {}", std::process::id());
        LockRequest {
            client: self,
            name: name.into(),
            ttl: Duration::from_secs(10),
            wait: Duration::ZERO,
            holder,
        }
    }
}
