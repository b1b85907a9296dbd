//! Changes that keep something of what is there: another expiry for a value, a number counted up.

use std::future::IntoFuture;
use std::time::Duration;

use ennead_ring::Key;
use ennead_ring::message::{Change, Condition};

use super::write::Wrote;
use super::{Answer, Client, Error, millis, user_key};

/// A touch in the making. Awaited: the value's version, which stays what it was, or `None` if there is no value.
#[must_use = "a touch does nothing until awaited"]
#[derive(Debug)]
pub struct Touch<'a> {
    client: &'a Client,
    key: Result<Key, Error>,
    condition: Condition,
    ttl: Option<Duration>,
}

impl Touch<'_> {
    /// The value expires after this long from now on, by the coordinator's clock. Without it, never.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Only if the key has this version.
    pub fn if_version(mut self, version: u64) -> Self {
        self.condition = Condition::Version(version);
        self
    }
}

impl<'a> IntoFuture for Touch<'a> {
    type Output = Result<Option<u64>, Error>;
    type IntoFuture = Answer<'a, Option<u64>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let client = self.client;
            client.link.bounded(|| self.unbounded()).await
        })
    }
}

impl Touch<'_> {
    /// The same, however many operations are under way: for what others rely on, and is little.
    pub(super) async fn unbounded(self) -> Result<Option<u64>, Error> {
        let Self { client, key, condition, ttl } = self;
        match client.write(key?, condition, Change::Touch { ttl: ttl.map(millis) }).await? {
            Wrote::Done(written) => Ok(Some(written.version)),
            Wrote::Absent => Ok(None),
            Wrote::Counted(..) => Err(Error::Refused("a touch was answered like an incr".to_owned())),
        }
    }
}

/// A counter after it was counted up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counter {
    /// The number that this very request made of it.
    pub value: i64,
    /// The version it made.
    pub version: u64,
    /// Slots known to hold it when it was acknowledged.
    pub votes: u8,
}

impl Client {
    /// Gives the value another expiry: [`ttl`](Touch::ttl) from now, or without it none any more. The value and its
    /// version stay, so who renews a lease keeps its fencing token (I5). It costs as much as a put.
    pub fn touch(&self, key: impl AsRef<[u8]>) -> Touch<'_> {
        Touch { client: self, key: user_key(key), condition: Condition::Any, ttl: None }
    }

    /// Adds to the whole number that the value is in decimal text; an absent key counts as 0. Its expiry stays.
    /// Counted exactly once, however often it had to be sent (I6). It costs as much as a put.
    ///
    /// # Errors
    /// [`Error::Uncountable`] if the value is no such number, or the sum is outside an `i64`: the key is as it was. After
    /// [`Error::Unknown`], and no other, it may have been counted or may yet be.
    pub async fn incr(&self, key: impl AsRef<[u8]>, by: i64) -> Result<Counter, Error> {
        let incr = || async { self.write(user_key(key)?, Condition::Any, Change::Incr { by }).await };
        match self.link.bounded(incr).await? {
            Wrote::Counted(value, written) => {
                Ok(Counter { value, version: written.version, votes: written.votes })
            }
            other => Err(Error::Refused(format!("an incr was answered with {other:?}"))),
        }
    }
}
