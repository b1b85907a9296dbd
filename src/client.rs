//! Finds a coordinator, asks five owners, retries under one request id.

mod edit;
mod error;
mod health;
mod limit;
mod link;
mod listing;
mod lock;
mod many;
mod operate;
mod read;
mod throttle;
mod why;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, IntoFuture};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ennead_ring::Key;
use ennead_ring::message::{Change, Condition, Wish};
use ennead_ring::position::Position;
use ennead_ring::stamp::Hlc;
use ennead_ring::view::{Machine, Name, View};

use self::link::{Link, Reply};
use self::write::Wrote;
use crate::certs::Identity;
use crate::status::MachineStatus;
use crate::transport::To;
use crate::wire::Frame;

pub use edit::{Counter, Touch};
pub use error::{Effect, Error};
pub use listing::{List, Listed, Listing};
pub use lock::{Acquire, Lock, LockError, LockRequest};
pub use operate::CheckAnswer;

/// A client of a cluster. Cheap to clone; clones share connections and what was measured.
#[derive(Clone, Debug)]
pub struct Client {
    link: Arc<Link>,
}

/// How to reach a cluster, and how patiently.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Some machines of the cluster; the others are learnt from them.
    pub peers: Vec<Name>,
    /// The folder of certificates, laid out as INTERFACES says.
    pub certs: PathBuf,
    /// Which client's certificate; with `None` the only one there is.
    pub identity: Option<String>,
    /// The deadline of each operation, retries included. Default 2 s.
    pub timeout: Duration,
    /// Longest value sent or taken, in bytes. Default 8 MiB.
    pub max_value: usize,
    /// Reads and writes that may be under way at once, of the client and its clones together. Default 1,024; 0 counts
    /// as 1.
    ///
    /// Those beyond are refused at once with [`Error::Overloaded`] and when to come back, before their keys and values are
    /// copied. Fewer are let in while machines turn requests away, or operations take eight times as long as the quickest of them
    /// and more than a sixteenth of `timeout`, or a quarter of it in any case.
    /// [`Client::under_way`] tells how many are, and may be.
    ///
    /// Each takes some 8 KiB of memory besides its value. More than 4,096 gains nothing: no more frames wait for one
    /// machine.
    pub max_under_way: usize,
    /// So many are let in however little of it ends in time. Default 64, as many as one batch has under way
    /// ([`Client::put_many`]): a slow cluster refuses none of it. At least 1, and no more than `max_under_way`
    /// counts: as much as that, and nothing that is measured changes the bound.
    pub min_under_way: usize,
}

impl ClientOptions {
    /// The defaults, for a cluster that some of these machines belong to.
    pub fn new(peers: impl IntoIterator<Item = Name>, certs: impl Into<PathBuf>) -> Self {
        Self {
            peers: peers.into_iter().collect(),
            certs: certs.into(),
            identity: None,
            timeout: Duration::from_secs(2),
            max_value: 8 << 20,
            max_under_way: 1_024,
            min_under_way: many::AT_ONCE,
        }
    }
}

/// A value as it was stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The value.
    pub value: Arc<[u8]>,
    /// Rises with every change of the key, deletes included: good as a fencing token.
    pub version: u64,
    /// When it expires, if it does.
    pub expires: Option<SystemTime>,
}

/// A write that is on the disks of `votes` slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// The version it made.
    pub version: u64,
    /// Slots known to hold it when it was acknowledged.
    pub votes: u8,
}

/// Where one slot of a key is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Location {
    /// 1 for the first.
    pub slot: u8,
    /// Its place on the ring.
    pub position: Position,
    /// The machine that owns it.
    pub owner: Name,
}

/// One machine's answer to a read, and what it was worth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopyReport {
    /// Who was asked.
    pub machine: Name,
    /// The slots it owns.
    pub slots: Vec<u8>,
    /// The version it holds, if it answered and holds a value.
    pub version: Option<u64>,
    /// How its answer compares with what the quorum settled.
    pub answer: CopyAnswer,
    /// How long it took to answer; `None` if it did not.
    pub took: Option<Duration>,
}

/// How one copy compares with the settled state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyAnswer {
    /// It is the settled state.
    Same,
    /// An earlier state.
    Older,
    /// A later state, which may yet be settled.
    Newer,
    /// No record.
    Absent,
    /// No answer in time.
    Silent,
    /// It answered without a vote.
    NotSynced,
    /// It refused, or its record is unreadable.
    Refused,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// A put in the making: await it, or add a condition or a time to live first.
#[must_use = "a put does nothing until awaited"]
#[derive(Debug)]
pub struct Put<'a> {
    client: &'a Client,
    /// Not copied where there is no room for it under way.
    what: Result<(Key, Arc<[u8]>), Error>,
    condition: Condition,
    ttl: Option<Duration>,
}

impl<'a> Put<'a> {
    /// Only if the key has this version.
    pub fn if_version(mut self, version: u64) -> Self {
        self.condition = Condition::Version(version);
        self
    }

    /// Only if the key has no value.
    pub fn if_absent(mut self) -> Self {
        self.condition = Condition::Absent;
        self
    }

    /// The value expires after this long, by the coordinator's clock.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Writes it, and tells how many slots are known to hold it.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Unknown`] is the only one after which the value may have changed.
    pub async fn receipt(self) -> Result<Written, Error> {
        let Self { client, what, condition, ttl } = self;
        let (key, value) = match what {
            Ok(what) => what,
            Err(error) => return Err(link::refused(error).await),
        };
        let change = Change::Put { value, ttl: ttl.map(millis) };
        match client.link.bounded(|| client.write(key, condition, change)).await? {
            Wrote::Done(written) => Ok(written),
            other => Err(Error::Refused(format!("a put was answered with {other:?}"))),
        }
    }
}

impl<'a> IntoFuture for Put<'a> {
    type Output = Result<u64, Error>;
    type IntoFuture = Answer<'a, u64>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.receipt().await.map(|written| written.version) })
    }
}

/// A delete in the making. Awaited: the version of the tombstone, or `None` if there was nothing.
#[must_use = "a delete does nothing until awaited"]
#[derive(Debug)]
pub struct Delete<'a> {
    client: &'a Client,
    key: Result<Key, Error>,
    condition: Condition,
}

impl<'a> Delete<'a> {
    /// Only if the key has this version.
    pub fn if_version(mut self, version: u64) -> Self {
        self.condition = Condition::Version(version);
        self
    }
}

impl<'a> IntoFuture for Delete<'a> {
    type Output = Result<Option<u64>, Error>;
    type IntoFuture = Answer<'a, Option<u64>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let client = self.client;
            client.link.bounded(|| self.unbounded()).await
        })
    }
}

impl Delete<'_> {
    /// The same, however many operations are under way: for what others wait for, and is little.
    async fn unbounded(self) -> Result<Option<u64>, Error> {
        let Self { client, key, condition } = self;
        match client.write(key?, condition, Change::Delete).await? {
            Wrote::Done(written) => Ok(Some(written.version)),
            Wrote::Absent => Ok(None),
            Wrote::Counted(..) => Err(Error::Refused("a delete was answered like an incr".to_owned())),
        }
    }
}

impl Client {
    /// Reaches a cluster by any of these machines, and learns the others from them; with the only client's
    /// certificate in the folder `certs`, and the defaults for everything else.
    ///
    /// Must be called inside a tokio runtime. Connections are made as they are needed.
    ///
    /// # Errors
    /// [`Error::Setup`] if there is no usable certificate, [`Error::Unreachable`] if nobody answers in time.
    pub async fn connect(
        peers: impl IntoIterator<Item = Name>,
        certs: impl Into<PathBuf>,
    ) -> Result<Self, Error> {
        Self::with_options(ClientOptions::new(peers, certs)).await
    }

    /// The same, with everything said.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    pub async fn with_options(options: ClientOptions) -> Result<Self, Error> {
        let identity = Identity::client(&options.certs, options.identity.as_deref());
        let client = Self::unconnected(options, identity.map_err(|e| Error::Setup(e.to_string()))?)?;
        client.link.fetch_view(client.deadline()).await?;
        Ok(client)
    }

    /// A client that asks for the view when it first needs it, with a certificate in hand: a machine's own
    /// one will do.
    pub(crate) fn unconnected(options: ClientOptions, identity: Identity) -> Result<Self, Error> {
        Ok(Self { link: Link::open(options, identity)? })
    }

    /// How many reads and writes are under way, of this client and its clones, and how many may be at present: see
    /// [`ClientOptions::max_under_way`].
    pub fn under_way(&self) -> (usize, usize) {
        self.link.limit.read()
    }

    /// How many reads of this client and its clones asked more machines than they need: those that they asked first did not
    /// answer soon, were down, or did not agree. Machines cannot tell such a question from any other, so it is counted here.
    pub fn hedged_reads(&self) -> u64 {
        self.link.hedged.load(Relaxed)
    }

    /// A write whose time begins now, however many are under way.
    async fn write(&self, key: Key, condition: Condition, change: Change) -> Result<Wrote, Error> {
        let write = write::new_write(&self.link, condition, change);
        write::write(&self.link, &key, write, self.deadline()).await
    }

    fn deadline(&self) -> Instant {
        // Nobody waits longer, and no sum of times overflows.
        const LONGEST: Duration = Duration::from_secs(365 * 24 * 3_600);
        Instant::now() + self.link.options.timeout.min(LONGEST)
    }

    /// Stores a value. Two round trips and one fsync for a key that its coordinator does not lead yet, one round
    /// trip less for one that it does.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Put<'_> {
        let what = || {
            self.link.limit.look()?;
            let (bytes, most) = (value.as_ref().len(), self.link.options.max_value);
            if bytes > most {
                return Err(Error::Invalid(format!(
                    "the value has {bytes} bytes; a value has at most {most}"
                )));
            }
            Ok((user_key(key)?, value.as_ref().into()))
        };
        Put { client: self, what: what(), condition: Condition::Any, ttl: None }
    }

    /// The settled value, from five copies asked in parallel (D1 to D4). One round trip where they agree.
    ///
    /// # Errors
    /// [`Error::NoQuorum`] if fewer than five slots answer in time.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Record>, Error> {
        let read = || async { read::quorum(&self.link, &user_key(key)?, self.deadline()).await };
        self.link.bounded(read).await
    }

    /// What one copy holds: a dirty read, which may be stale. Tells who answered.
    ///
    /// # Errors
    /// [`Error::NoQuorum`] if no owner answers in time.
    pub async fn get_one(&self, key: impl AsRef<[u8]>) -> Result<(Name, Option<Record>), Error> {
        let read = || async { read::one(&self.link, &user_key(key)?, self.deadline()).await };
        self.link.bounded(read).await
    }

    /// The settled value, and every copy's own answer.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn get_copies(
        &self,
        key: impl AsRef<[u8]>,
    ) -> Result<(Option<Record>, Vec<CopyReport>), Error> {
        let read = || async { read::copies(&self.link, &user_key(key)?, self.deadline()).await };
        self.link.bounded(read).await
    }

    /// Removes the value.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Delete<'_> {
        Delete { client: self, key: user_key(key), condition: Condition::Any }
    }

    /// The keys that begin with `prefix` (all keys, with an empty one), in their order; see [`List`] for what may be
    /// relied on.
    pub fn list(&self, prefix: impl AsRef<[u8]>) -> List {
        List::new(&self.link, prefix.as_ref())
    }

    /// Where the key's slots are, by the newest view known.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if no machine tells its view.
    pub async fn locate(&self, key: impl AsRef<[u8]>) -> Result<Vec<Location>, Error> {
        let key = user_key(key)?;
        let known = self.link.view(self.deadline()).await?;
        let owners = known.owners(&key);
        let positions = link::positions(&key, known.view.slots());
        let slots = (1..=owners.slots()).zip(positions);
        Ok(slots
            .map(|(slot, position)| Location { slot, position, owner: known.name(owners.owner(slot)) })
            .collect())
    }

    /// The newest view that any of the machines has.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if no machine tells its view.
    pub async fn view(&self) -> Result<Arc<View>, Error> {
        Ok(self.link.fetch_view(self.deadline()).await?.view.clone())
    }

    /// Every member's own account, or why there is none.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if no machine tells its view.
    pub async fn status(&self) -> Result<Vec<(Name, Result<MachineStatus, String>)>, Error> {
        let deadline = self.deadline();
        let known = self.link.view(deadline).await?;
        let mut replies = self.link.question();
        let mut told: BTreeMap<Name, Result<MachineStatus, String>> = BTreeMap::new();
        for member in known.view.members() {
            let name = member.machine.name;
            told.insert(name, Err("no answer".to_owned()));
            self.link.transport.send(To::Machine(name), Frame::StatusAsk { ask: replies.ask.0 });
        }
        let mut open: BTreeSet<Name> = told.keys().copied().collect();
        // Machines that live answer at once; who has not when most have is given a little longer.
        let mut until = deadline;
        while !open.is_empty() {
            let Ok((name, reply)) = tokio::time::timeout_at(until.into(), replies.next()).await else {
                break;
            };
            match reply {
                Reply::Status(status) => {
                    told.insert(name, Ok(*status));
                    open.remove(&name);
                    until = until.min(Instant::now() + Duration::from_millis(500));
                }
                Reply::Down(reason) if open.remove(&name) => {
                    told.insert(name, Err(reason));
                }
                Reply::Down(_) | Reply::Ring(_) | Reply::Check { .. } | Reply::Why(_) => {}
            }
        }
        Ok(told.into_iter().collect())
    }

    /// Wants the membership changed (V7): tells it to any machine, which passes it on to the wardens.
    ///
    /// `Ok` says that the wish has been heard, not that it is carried out: it is kept for some seconds, so it is to be
    /// repeated until [`view`](Self::view) shows it.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason, and nothing changes; [`Error::Unreachable`] if nobody answers.
    pub async fn wish(&self, wish: Wish) -> Result<(), Error> {
        operate::wish(&self.link, wish, self.deadline()).await
    }

    /// F2, the last resort: these machines are gone for good, and five slots of some keys with them. `survivor` is told:
    /// the most advanced of those that are left (its epoch is in its [`status`](Self::status)). Where no five warden
    /// slots are left, it asks all that are left to agree to the next view.
    ///
    /// Acknowledged writes may be lost. `Ok` is to be repeated until [`view`](Self::view) shows it, as for a wish.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason, and nothing changes; [`Error::Unreachable`] if it does not answer.
    pub async fn force(&self, survivor: Name, machines: Vec<Machine>) -> Result<(), Error> {
        operate::force(&self.link, survivor, machines, self.deadline()).await
    }

    /// Asks every member to compare its copies with everybody's; [`status`](Self::status) tells how it goes.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if no machine tells its view.
    pub async fn check(&self) -> Result<BTreeMap<Name, CheckAnswer>, Error> {
        operate::check(&self.link, self.deadline()).await
    }
}

fn user_key(key: impl AsRef<[u8]>) -> Result<Key, Error> {
    let key = Key::new(key).map_err(|e| Error::Invalid(e.to_string()))?;
    if key.is_reserved() {
        return Err(Error::Invalid("keys that begin with a zero byte are the cluster's own".to_owned()));
    }
    Ok(key)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn record(value: Arc<[u8]>, version: u64, expires: Option<Hlc>) -> Record {
    let expires = expires.map(|at| UNIX_EPOCH + Duration::from_nanos(at.nanos()));
    Record { value, version, expires }
}
