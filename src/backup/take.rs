//! From the cluster into a file: all keys, or what has changed since another backup.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::try_join_all;

use super::Progress;
use super::chain::Chain;
use super::error::BackupError;
use super::format::{Header, Item, Trailer};
use super::writer::Writer;
use crate::client::{Client, Listed};
use crate::clock;

/// Keys that are read at once where only what changed is wanted.
const AT_ONCE: usize = 64;

/// What to take.
#[derive(Clone, Debug)]
pub struct Take {
    /// Where to: written as `FILE.partial`, and renamed once it is whole and on disk.
    pub file: PathBuf,
    /// Only what changed since these: the last full backup and those that go on from it, the oldest first.
    pub since: Vec<PathBuf>,
    /// Go on with what is in `FILE.partial`.
    pub resume: bool,
    /// Only keys that begin so.
    pub prefix: Vec<u8>,
    /// How long to wait for silent machines without getting any further.
    pub patience: Duration,
}

/// What was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    /// What the file says of itself.
    pub header: Header,
    /// What it has in all.
    pub trailer: Trailer,
    /// The last key that was in it already, where it was gone on with.
    pub resumed_after: Option<Vec<u8>>,
}

pub(super) async fn take(
    client: &Client,
    wanted: Take,
    mut progress: impl FnMut(Progress),
) -> Result<Taken, BackupError> {
    let view = client.view().await?;
    let mut base = if wanted.since.is_empty() { None } else { Some(Chain::open(&wanted.since)?) };
    let epoch = view.epoch();
    let header = Header {
        cluster: view.cluster().id(),
        generation: (epoch.generation, epoch.fork),
        begun_ms: now_ms(),
        prefix: wanted.prefix.clone(),
        base: base.as_ref().map(Chain::digest),
    };
    if let Some(base) = &base {
        must_go_on(base.header(), &header)?;
    }
    let (mut writer, header, last) = match wanted.resume {
        false => (Writer::create(&wanted.file, &header)?, header, None),
        true => {
            let (writer, old, last) = Writer::resume(&wanted.file)?;
            let same = Header { begun_ms: old.begun_ms, ..header };
            if same != old {
                return Err(BackupError::Mismatch(
                    "the partial file is of another cluster, of other keys, or goes on from another backup: move it \
                     away"
                        .to_owned(),
                ));
            }
            (writer, old, last)
        }
    };
    let mut list = client.list(&wanted.prefix).patience(wanted.patience);
    if let Some(last) = &last {
        list = list.after(last);
    }
    if base.is_none() {
        // Of a base most is unchanged: what is not, is read by itself.
        list = list.values();
    }
    let mut listing = list.begin().await?;
    let mut difference = Difference::default();
    if let Some(base) = &mut base {
        difference.first = loop {
            match base.next()? {
                Some(item) if Some(&item.key) <= last.as_ref() => {}
                next => break next,
            }
        };
    }
    let mut keys = 0;
    while let Some(listed) = listing.next().await? {
        keys += 1;
        match &mut base {
            None => writer.push(&whole(listed))?,
            Some(base) => {
                difference.come_to(base, listed)?;
                if difference.open.len() >= AT_ONCE {
                    difference.write(client, &mut writer).await?;
                }
            }
        }
        let of = if wanted.prefix.is_empty() { listing.keys_in_all() } else { 0 };
        progress(Progress { keys, of, bytes: writer.so_far().bytes });
    }
    if let Some(base) = &mut base {
        difference.end(base)?;
        difference.write(client, &mut writer).await?;
    }
    let trailer = writer.finish(now_ms())?;
    Ok(Taken { header, trailer, resumed_after: last })
}

/// Versions are to be compared: so the base must be of this very cluster.
fn must_go_on(base: &Header, now: &Header) -> Result<(), BackupError> {
    let why = if base.cluster != now.cluster {
        "is of another cluster"
    } else if base.generation != now.generation {
        "is from before a forced recovery, which may have undone what it has"
    } else if base.prefix != now.prefix {
        "is of other keys"
    } else {
        return Ok(());
    };
    Err(BackupError::Mismatch(format!("the backup to go on from {why}: take a full one")))
}

/// What differs between a base and the cluster, both in the order of the keys.
#[derive(Default)]
struct Difference {
    /// The base's next key.
    first: Option<Item>,
    /// Keys that differ and have not been written.
    open: Vec<(Vec<u8>, Now)>,
}

/// A key that is not as it is in the base.
enum Now {
    /// It has no value any more, and had this version.
    Gone(u64),
    /// It has another value; in the base it had this version, or none.
    Changed(Option<u64>),
}

impl Difference {
    fn come_to(&mut self, base: &mut Chain, listed: Listed) -> Result<(), BackupError> {
        while let Some(item) = self.first.take_if(|item| item.key < listed.key) {
            self.open.push((item.key, Now::Gone(item.version)));
            self.first = base.next()?;
        }
        let mut before = None;
        if let Some(item) = self.first.take_if(|item| item.key == listed.key) {
            self.first = base.next()?;
            if (item.version, item.expires) == (listed.version, nanos(listed.expires)) {
                return Ok(());
            }
            before = Some(item.version);
        }
        self.open.push((listed.key, Now::Changed(before)));
        Ok(())
    }

    fn end(&mut self, base: &mut Chain) -> Result<(), BackupError> {
        while let Some(item) = self.first.take() {
            self.open.push((item.key, Now::Gone(item.version)));
            self.first = base.next()?;
        }
        Ok(())
    }

    /// Reads what changed, and writes it.
    async fn write(&mut self, client: &Client, writer: &mut Writer) -> Result<(), BackupError> {
        let open = std::mem::take(&mut self.open);
        for some in open.chunks(AT_ONCE) {
            let read = some.iter().map(async |(key, now)| match now {
                Now::Gone(_) => Ok(None),
                Now::Changed(_) => client.get(key).await,
            });
            let found = try_join_all(read).await?;
            for ((key, now), found) in some.iter().zip(found) {
                let key = key.clone();
                let item = match (found, now) {
                    (Some(found), _) => Item {
                        key,
                        version: found.version,
                        expires: nanos(found.expires),
                        value: Some(found.value.to_vec()),
                    },
                    (None, Now::Gone(version) | Now::Changed(Some(version))) => {
                        Item { key, version: *version, expires: None, value: None }
                    }
                    // Listed, and gone since: the base knows nothing of it.
                    (None, Now::Changed(None)) => continue,
                };
                writer.push(&item)?;
            }
        }
        Ok(())
    }
}

fn whole(listed: Listed) -> Item {
    let Listed { key, version, expires, value } = listed;
    Item { key, version, expires: nanos(expires), value: Some(value.unwrap_or_default().to_vec()) }
}

fn nanos(time: Option<SystemTime>) -> Option<u64> {
    let since = time?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

fn now_ms() -> u64 {
    clock::unix_ns() / 1_000_000
}
