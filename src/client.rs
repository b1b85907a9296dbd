//! Finds a coordinator, asks five owners, retries under one request id.

use std::future::{Future, IntoFuture};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ennead_ring::position::Position;
use ennead_ring::stamp::RequestId;
use ennead_ring::view::{Name, View};

use crate::status::MachineStatus;

/// A client of a cluster. Cheap to clone; clones share connections and what was measured.
#[derive(Clone, Debug)]
pub struct Client {}

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

/// Whether a failed operation left the key as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// The key is as it was.
    Unchanged,
    /// The write may or may not have taken effect, or may yet.
    Unknown,
}

/// Why an operation did not succeed. [`effect`](Self::effect) says what that means for the data.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// Too few slots answered in time; no Accept was sent. The key is as it was.
    NoQuorum { votes: u8, needed: u8, silent: Vec<Name>, within: Duration },
    /// An Accept may have gone out and the deadline passed. The write may yet take effect.
    Unknown { id: RequestId, votes: u8, needed: u8, silent: Vec<Name>, within: Duration },
    /// The comparison failed: the key has this version, or no value.
    VersionMismatch { found: Option<u64> },
    /// No machine could be reached at all.
    Unreachable { tried: Vec<(Name, String)> },
    /// The cluster is too busy. The key is as it was.
    Overloaded { retry_after: Duration },
    /// The request itself is wrong: an empty key, a value too long.
    Invalid(String),
    /// A machine refused, for this reason.
    Refused(String),
    /// Certificates or settings that cannot be used.
    Setup(String),
}

impl Error {
    /// The word of INTERFACES: `no_quorum`, `timeout`, `version_mismatch`, ...
    pub fn code(&self) -> &'static str {
        unimplemented!()
    }

    /// Whether the key is as it was.
    pub fn effect(&self) -> Effect {
        unimplemented!()
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        unimplemented!()
    }
}
impl std::error::Error for Error {}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// A put in the making: await it, or add a condition or a time to live first.
#[must_use = "a put does nothing until awaited"]
#[derive(Debug)]
pub struct Put<'a> {
    _client: &'a Client,
}
impl<'a> Put<'a> {
    /// Only if the key has this version.
    pub fn if_version(self, _version: u64) -> Self {
        self
    }
    /// Only if the key has no value.
    pub fn if_absent(self) -> Self {
        self
    }
    /// The value expires after this long.
    pub fn ttl(self, _ttl: Duration) -> Self {
        self
    }
    /// Writes it, and tells how many slots are known to hold it.
    pub async fn receipt(self) -> Result<Written, Error> {
        unimplemented!()
    }
}
impl<'a> IntoFuture for Put<'a> {
    type Output = Result<u64, Error>;
    type IntoFuture = Answer<'a, u64>;
    fn into_future(self) -> Self::IntoFuture {
        unimplemented!()
    }
}

/// A delete in the making. Awaited: the version of the tombstone, or `None` if there was nothing.
#[must_use = "a delete does nothing until awaited"]
#[derive(Debug)]
pub struct Delete<'a> {
    _client: &'a Client,
}
impl<'a> Delete<'a> {
    /// Only if the key has this version.
    pub fn if_version(self, _version: u64) -> Self {
        self
    }
}
impl<'a> IntoFuture for Delete<'a> {
    type Output = Result<Option<u64>, Error>;
    type IntoFuture = Answer<'a, Option<u64>>;
    fn into_future(self) -> Self::IntoFuture {
        unimplemented!()
    }
}

impl Client {
    /// Reaches a cluster by any of these machines.
    pub async fn connect(_options: ClientOptions) -> Result<Self, Error> {
        unimplemented!()
    }
    /// Stores a value.
    pub fn put(&self, _key: impl AsRef<[u8]>, _value: impl AsRef<[u8]>) -> Put<'_> {
        unimplemented!()
    }
    /// The settled value: five votes for it (D1 to D4).
    pub async fn get(&self, _key: impl AsRef<[u8]>) -> Result<Option<Record>, Error> {
        unimplemented!()
    }
    /// What one copy holds: a dirty read, which may be stale. Tells who answered.
    pub async fn get_one(&self, _key: impl AsRef<[u8]>) -> Result<(Name, Option<Record>), Error> {
        unimplemented!()
    }
    /// The settled value, and every copy's own answer.
    pub async fn get_copies(
        &self,
        _key: impl AsRef<[u8]>,
    ) -> Result<(Option<Record>, Vec<CopyReport>), Error> {
        unimplemented!()
    }
    /// Removes the value.
    pub fn delete(&self, _key: impl AsRef<[u8]>) -> Delete<'_> {
        unimplemented!()
    }
    /// Where the key's slots are, by the newest view known.
    pub async fn locate(&self, _key: impl AsRef<[u8]>) -> Result<Vec<Location>, Error> {
        unimplemented!()
    }
    /// The newest view that any of the machines has.
    pub async fn view(&self) -> Result<Arc<View>, Error> {
        unimplemented!()
    }
    /// Every member's own account, or why there is none.
    pub async fn status(&self) -> Result<Vec<(Name, Result<MachineStatus, String>)>, Error> {
        unimplemented!()
    }
}
