//! From files into a cluster: what is there already stays, unless it is to be written over.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::Progress;
use super::chain::Chain;
use super::error::BackupError;
use super::format::Item;
use super::reader::verify;
use crate::client::{Client, Error};
use crate::clock;

/// Keys written at once.
const AT_ONCE: usize = 32;
/// Tries for each key, and the pause before the next.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(500);

/// What to put back.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The last full backup and those that go on from it, the oldest first.
    pub files: Vec<PathBuf>,
    /// Write over values that are there.
    pub overwrite: bool,
}

/// What became of the keys.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Restored {
    /// Written.
    pub restored: u64,
    /// Left as they are, since they have a value.
    pub kept: u64,
    /// Not restored, since they have expired meanwhile.
    pub expired: u64,
    /// Not restored...
    pub failed: u64,
    /// ...and why not the first of them.
    pub why: Option<String>,
}

pub(super) async fn restore(
    client: &Client,
    wanted: Restore,
    mut progress: impl FnMut(Progress),
) -> Result<Restored, BackupError> {
    let mut chain = Chain::open(&wanted.files)?;
    let mut of = 0;
    for file in &wanted.files {
        let (_, trailer) = verify(file)?;
        // At most: of two that have the same key one counts.
        of += trailer.keys;
    }
    let mut restored = Restored::default();
    let (mut keys, mut bytes) = (0, 0);
    let mut under_way = FuturesUnordered::new();
    let mut left = true;
    while left || !under_way.is_empty() {
        while left && under_way.len() < AT_ONCE {
            match chain.next()? {
                Some(item) => under_way.push(put(client, item, wanted.overwrite)),
                None => left = false,
            }
        }
        let Some((size, came)) = under_way.next().await else { break };
        match came {
            Ok(Came::Restored) => restored.restored += 1,
            Ok(Came::Kept) => restored.kept += 1,
            Ok(Came::Expired) => restored.expired += 1,
            Err(why @ (Error::Invalid(_) | Error::Refused(_))) => {
                restored.failed += 1;
                restored.why.get_or_insert_with(|| why.to_string());
            }
            // The next key would fare no better.
            Err(why) => return Err(why.into()),
        }
        keys += 1;
        bytes += size;
        progress(Progress { keys, of, bytes });
    }
    Ok(restored)
}

enum Came {
    Restored,
    Kept,
    Expired,
}

async fn put(client: &Client, item: Item, overwrite: bool) -> (u64, Result<Came, Error>) {
    let mut tried = 0;
    loop {
        let came = put_once(client, &item, overwrite, tried > 0).await;
        tried += 1;
        let pause = match &came {
            Err(Error::Overloaded { retry_after }) => (*retry_after).max(PAUSE),
            Err(Error::NoQuorum { .. } | Error::Unknown { .. } | Error::Unreachable { .. }) => PAUSE,
            _ => return (item.bytes(), came),
        };
        if tried >= TRIES {
            return (item.bytes(), came);
        }
        tokio::time::sleep(pause).await;
    }
}

async fn put_once(client: &Client, item: &Item, overwrite: bool, again: bool) -> Result<Came, Error> {
    let value = item.value.as_deref().unwrap_or_default();
    let ttl = match item.expires {
        None => None,
        Some(at) => match at.checked_sub(clock::unix_ns()) {
            // A time to live is counted in milliseconds.
            Some(left) if left >= 1_000_000 => Some(Duration::from_nanos(left)),
            _ => return Ok(Came::Expired),
        },
    };
    let is_there =
        async || client.get(&item.key).await.map(|found| found.is_some_and(|f| *f.value == *value));
    if overwrite && is_there().await? {
        return Ok(if again { Came::Restored } else { Came::Kept });
    }
    let mut put = client.put(&item.key, value);
    if !overwrite {
        put = put.if_absent();
    }
    if let Some(ttl) = ttl {
        put = put.ttl(ttl);
    }
    match put.receipt().await {
        Ok(_) => Ok(Came::Restored),
        // What was there before, or an earlier try of ours that was thought to have failed.
        Err(Error::VersionMismatch { .. }) if again && is_there().await? => Ok(Came::Restored),
        Err(Error::VersionMismatch { .. }) => Ok(Came::Kept),
        Err(why) => Err(why),
    }
}
