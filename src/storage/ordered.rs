//! Everything but the last changes, in order of the keys: fjall's tree of sorted tables.
//!
//! This is the whole border to the engine: apply a batch durably, get, scan from a snapshot, tidy up. The tree
//! needs no log of its own, because the journal keeps each change until the batch that holds it is on disk.
//! Its blocks carry checksums that are checked on every read, so rot never looks like an absent key.

use std::iter::Peekable;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bincode::{Decode, Encode};
use ennead_ring::{Account, Decree, Epoch, Key, Limits, Loaded, Record, View};
use lsm_tree::compaction::Leveled;
use lsm_tree::{
    AbstractTree, AnyTree, Cache, Config, DescriptorTable, Guard, SeqNo, SequenceNumberCounter, Slice,
};

use super::disk::sync_directory;
use super::entry;
use super::error::StorageError;
use super::journal::Place;
use super::leftovers::Leftovers;
use super::overlay::Layer;

// Keys of the tree begin with what they are.
const META: &[u8] = b"m";
const ACCOUNT: &[u8] = b"a";
// A key of its own: there may be a view of thousands of members in it, and the rest goes with every batch.
const DECREE: &[u8] = b"d";
const RECORD: u8 = b'r';
const VIEW: u8 = b'v';

/// Blocks of tables kept in memory.
const CACHE_BYTES: u64 = 2 << 20;
/// Tables are about this large. Each is written and then fsynced as a whole, and the journal's fsync waits
/// behind it: small tables keep that wait short.
const TABLE_BYTES: u64 = 2 << 20;
/// A batch is written in pieces of about this size, for the same reason.
const PIECE_BYTES: usize = 1 << 20;
/// Runs of freshly written tables that start a compaction.
const RUNS: u8 = 4;

/// What goes with a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Meta {
    /// The last change in it.
    pub(super) place: Place,
    /// The limits as of that change.
    pub(super) limits: Limits,
}

#[derive(Encode, Decode)]
struct MetaBytes {
    sequence: u64,
    group: u64,
    limits: Limits,
}

/// What is kept for a key: the record's bytes after their checksum, or nothing for a record known to be lost.
pub(super) type Kept = Slice;

/// A `Kept` of these bytes.
pub(super) fn keep(checksum: u32, body: &[u8]) -> Kept {
    let mut bytes = Vec::with_capacity(4 + body.len());
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes.into()
}

/// The `Kept` of a record that was acknowledged and cannot be read: the key stays mute over restarts (R3).
pub(super) fn lost() -> Kept {
    Vec::new().into()
}

/// A part of a layer on its way to the disk.
pub(super) struct Piece {
    sequence: SeqNo,
    /// With it, all of the layer is there.
    pub(super) last: bool,
}

/// The ordered store.
pub(super) struct Ordered {
    folder: PathBuf,
    tree: AnyTree,
    sequence: SequenceNumberCounter,
    strategy: Arc<Leveled>,
    leftovers: Leftovers,
}

impl Ordered {
    /// Opens the store; `create` it in an empty folder.
    ///
    /// # Errors
    /// Damage, among it that there is no store and it was not to be created; failures of the disk.
    pub(super) fn open(folder: &Path, create: bool) -> Result<Self, StorageError> {
        // The engine would take a folder without this file for an empty one, and forget every vote.
        if !create && !folder.join("current").exists() {
            return Err(StorageError::damaged(folder, "the records are missing"));
        }
        // A killed process may have left its last batch's name unsynced, and we are about to rely on it.
        sync_directory(folder).map_err(|e| StorageError::io(folder, "fsync", e))?;
        let sequence = SequenceNumberCounter::default();
        let config = Config::new(folder, sequence.clone(), SequenceNumberCounter::default())
            .use_cache(Arc::new(Cache::with_capacity_bytes(CACHE_BYTES)))
            .use_descriptor_table(Some(Arc::new(DescriptorTable::new(64))));
        let tree = guarded(|| config.open()).map_err(|e| Self::damage(folder, "opening the records", e))?;
        sequence.set(tree.get_highest_persisted_seqno().map_or(1, |highest| highest + 1));
        let strategy =
            Arc::new(Leveled::default().with_l0_threshold(RUNS).with_table_target_size(TABLE_BYTES));
        Ok(Self { folder: folder.to_owned(), tree, sequence, strategy, leftovers: Leftovers::default() })
    }

    /// What went with the last batch.
    ///
    /// # Errors
    /// Damage, if there is one and it cannot be read: without it nobody knows what the journal owes.
    pub(super) fn meta(&self) -> Result<Meta, StorageError> {
        let found: Option<MetaBytes> = self.only(META, "the limits")?;
        Ok(found.map_or_else(Meta::default, |meta| {
            let place = Place { sequence: meta.sequence, group: meta.group };
            Meta { place, limits: meta.limits }
        }))
    }

    /// The account, if one was ever applied.
    ///
    /// # Errors
    /// Damage, if it cannot be read.
    pub(super) fn account(&self) -> Result<Option<Account>, StorageError> {
        self.only(ACCOUNT, "the account of its views")
    }

    /// The decree, if one was ever applied.
    ///
    /// # Errors
    /// Damage, if it cannot be read.
    pub(super) fn decree(&self) -> Result<Option<Decree>, StorageError> {
        self.only(DECREE, "the decree")
    }

    fn only<T: Decode<()>>(&self, key: &[u8], what: &str) -> Result<Option<T>, StorageError> {
        let found = guarded(|| self.tree.get(key, SeqNo::MAX));
        let Some(bytes) = found.map_err(|e| Self::damage(&self.folder, "reading the records", e))? else {
            return Ok(None);
        };
        let value = decode_checked(key, &bytes);
        value
            .map(Some)
            .ok_or_else(|| StorageError::damaged(&self.folder, format!("the checksum of {what} fails")))
    }

    /// The views, in the order they were adopted.
    ///
    /// # Errors
    /// Damage, if one cannot be read.
    pub(super) fn views(&self) -> Result<Vec<Arc<View>>, StorageError> {
        Ok(self.keyed_views()?.into_iter().map(|(_, view)| view).collect())
    }

    fn keyed_views(&self) -> Result<Vec<(Slice, Arc<View>)>, StorageError> {
        let mut views = Vec::new();
        for item in self.tree.prefix([VIEW], SeqNo::MAX, None) {
            let (key, value) =
                guarded(|| item.into_inner()).map_err(|e| Self::damage(&self.folder, "reading views", e))?;
            let view: View = decode_checked(&key, &value)
                .ok_or_else(|| StorageError::damaged(&self.folder, "the checksum of a view fails"))?;
            views.push((key, Arc::new(view)));
        }
        Ok(views)
    }

    /// Gets the next piece of a layer's records ready to be put in place of what it covers, and with the last piece the
    /// rest of the layer; [`flush`](Self::flush) puts it there. `records` are those of the layer, from where the piece
    /// before it ended.
    ///
    /// A crash between two pieces is harmless: until `meta` is there, the journal still has them all.
    ///
    /// # Errors
    /// Any: nothing more must be applied then.
    pub(super) fn apply<'a>(
        &self,
        records: &mut Peekable<impl Iterator<Item = (&'a Key, &'a Option<Kept>)>>,
        layer: &Layer,
    ) -> Result<Piece, StorageError> {
        let sequence = self.sequence.next();
        let mut bytes = 0;
        while bytes < PIECE_BYTES {
            let Some((key, kept)) = records.next() else { break };
            bytes += key.as_bytes().len() + kept.as_ref().map_or(0, |kept| kept.len());
            match kept {
                Some(kept) => self.tree.insert(record_key(key.as_bytes()), kept.clone(), sequence),
                None => self.tree.remove(record_key(key.as_bytes()), sequence),
            };
        }
        let last = records.peek().is_none();
        if last {
            self.put_views(layer, sequence)?;
            if let Some(account) = &layer.account {
                self.tree.insert(ACCOUNT, encode_checked(ACCOUNT, account), sequence);
            }
            if let Some(decree) = &layer.decree {
                self.tree.insert(DECREE, encode_checked(DECREE, decree), sequence);
            }
            let Place { sequence: last, group } = layer.meta.place;
            let meta = MetaBytes { sequence: last, group, limits: layer.meta.limits };
            self.tree.insert(META, encode_checked(META, &meta), sequence);
        }
        Ok(Piece { sequence, last })
    }

    /// Returns once the piece is on disk, as a whole or not at all.
    ///
    /// # Errors
    /// A full disk: the same piece may be tried again. Any other: nothing more must be applied then.
    pub(super) fn flush(&self, piece: &Piece) -> Result<(), StorageError> {
        let flush = || guarded(|| self.tree.flush_active_memtable(piece.sequence));
        self.leftovers
            .flush(&self.tree, flush)
            .map_err(|e| Self::failure(&self.folder, "writing the records", e))
    }

    /// Takes over the views of a layer, and drops those of which its account says nothing more.
    fn put_views(&self, layer: &Layer, sequence: SeqNo) -> Result<(), StorageError> {
        let mut skipped = 0;
        if let Some(account) = &layer.account {
            let (keys, mut views): (Vec<_>, Vec<_>) = self.keyed_views()?.into_iter().unzip();
            views.extend(layer.views.iter().map(|(_, view)| view.clone()));
            let past = past(&views, account.settled);
            skipped = past.saturating_sub(keys.len());
            for key in keys.into_iter().take(past) {
                self.tree.remove(key, sequence);
            }
        }
        for (number, view) in &layer.views[skipped..] {
            let key = [&[VIEW][..], &number.to_be_bytes()].concat();
            let value = encode_checked(&key, &**view);
            self.tree.insert(key, value, sequence);
        }
        Ok(())
    }

    /// What is kept for the key. `Err` if that part of the store cannot be read.
    pub(super) fn get(&self, key: &Key) -> Result<Option<Kept>, String> {
        guarded(|| self.tree.get(record_key(key.as_bytes()), SeqNo::MAX)).map_err(|e| e.to_string())
    }

    /// The records of the keys after `after` (of all keys with `None`), in order, as of now.
    ///
    /// # Errors
    /// Damage where a part of the store cannot be read: nobody knows for which keys there were records in it.
    pub(super) fn scan(
        &self,
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<(Key, Kept), StorageError>> + use<> {
        let mut from = record_key(after.unwrap_or(&[]));
        if after.is_some() {
            // The first key after `after` is `after` and a zero.
            from.push(0);
        }
        let folder = self.folder.clone();
        let mut items = self.tree.range(from..vec![RECORD + 1], SeqNo::MAX, None);
        std::iter::from_fn(move || {
            // Looking for the next one reads blocks, too.
            let item = guarded(|| items.next().map(|item| item.into_inner()).transpose());
            let (key, kept) = match item {
                Ok(item) => item?,
                Err(e) => return Some(Err(Self::damage(&folder, "looking through the records", e))),
            };
            let key = Key::new(&key[1..]);
            Some(key.map(|key| (key, kept)).map_err(|e| StorageError::damaged(&folder, e.to_string())))
        })
    }

    /// True if [`tidy`](Self::tidy) has something to do.
    pub(super) fn is_untidy(&self) -> bool {
        self.tree.l0_run_count() >= usize::from(RUNS)
    }

    /// Merges tables, so that reads stay cheap and replaced records go. Reads and [`apply`](Self::apply) go on.
    ///
    /// # Errors
    /// Failures of the disk. A table that cannot be read is left where it is, with `Ok(false)`.
    pub(super) fn tidy(&self) -> Result<bool, StorageError> {
        let merge = || guarded(|| self.tree.compact(self.strategy.clone(), self.sequence.get()));
        match self.leftovers.merge(&self.folder, &self.tree, merge) {
            Ok(()) => Ok(true),
            Err(Failure::Engine(lsm_tree::Error::Io(e))) if !is_damage(&e) => {
                Err(StorageError::io(&self.folder, "merging the records", e))
            }
            Err(_) => Ok(false),
        }
    }

    /// Removes the files that writes which failed have left behind; waits for a merge that is under way.
    pub(super) fn remove_leftovers(&self) {
        self.leftovers.remove(&self.folder, &self.tree);
    }

    /// Records, counted roughly: one that was replaced may count twice until it is merged.
    pub(super) fn records(&self) -> u64 {
        self.tree.approximate_len() as u64
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.tree.disk_space()
    }

    fn damage(folder: &Path, doing: &'static str, failure: Failure) -> StorageError {
        match failure {
            Failure::Engine(lsm_tree::Error::Io(e)) if !is_damage(&e) => StorageError::io(folder, doing, e),
            other => StorageError::damaged(folder, format!("{doing} failed: {other}")),
        }
    }

    fn failure(folder: &Path, doing: &'static str, failure: Failure) -> StorageError {
        match failure {
            Failure::Engine(lsm_tree::Error::Io(e)) => StorageError::io(folder, doing, e),
            other => StorageError::Io {
                path: folder.to_owned(),
                doing,
                source: std::io::Error::other(other.to_string()),
            },
        }
    }
}

/// How many of these views, which are in order, nothing can be told of any more once `settled` is known to be
/// settled (T2). The newest is the present one, so it stays whatever the account says.
pub(crate) fn past(views: &[Arc<View>], settled: Epoch) -> usize {
    let past = views.iter().take_while(|view| view.epoch() < settled).count();
    past.min(views.len().saturating_sub(1))
}

/// A file of the store that is gone or cut short is damage, not a passing failure.
fn is_damage(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    matches!(e.kind(), NotFound | UnexpectedEof | InvalidData)
}

fn record_key(key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + key.len() + 1);
    bytes.push(RECORD);
    bytes.extend_from_slice(key);
    bytes
}

/// The engine's error, or its panic: rot that its own checks let through must not take the process along.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Engine(lsm_tree::Error),
    #[error("the engine panicked: {0}")]
    Panic(String),
}

fn guarded<T>(f: impl FnOnce() -> lsm_tree::Result<T>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result.map_err(Failure::Engine),
        Err(panic) => Err(Failure::Panic(panic_text(&*panic))),
    }
}

/// The message of a panic.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// The bytes of a value in storage.
pub(super) fn encode<T: Encode>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_into(value, &mut bytes);
    bytes
}

/// Puts the bytes of a value in storage into `bytes`, in place of what was there.
pub(super) fn encode_into<T: Encode>(value: &T, bytes: &mut Vec<u8>) {
    struct Into<'a>(&'a mut Vec<u8>);
    impl bincode::enc::write::Writer for Into<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
    }
    bytes.clear();
    if let Err(e) = bincode::encode_into_writer(value, Into(bytes), bincode::config::standard()) {
        // Our own types, into memory: no input makes it fail.
        unreachable!("encoding for storage: {e}");
    }
}

/// The value of these bytes, if all of them are one.
pub(super) fn decode<T: Decode<()>>(bytes: &[u8]) -> Option<T> {
    // Whatever could be written can be read: a lower limit would find the longest values to be rot.
    let config = bincode::config::standard().with_limit::<{ entry::MAX_BODY }>();
    let (value, used) = bincode::decode_from_slice(bytes, config).ok()?;
    (used == bytes.len()).then_some(value)
}

fn encode_checked<T: Encode>(key: &[u8], value: &T) -> Slice {
    let body = encode(value);
    keep(entry::checksum(key, &body), &body)
}

fn decode_checked<T: Decode<()>>(key: &[u8], bytes: &[u8]) -> Option<T> {
    decode(checked(key, bytes)?)
}

/// The record that is kept under a key, or that there is one and it cannot be read.
pub(super) fn read_kept(key: &Key, kept: &Kept) -> Loaded {
    let record = checked(key.as_bytes(), kept).and_then(decode::<Record>);
    record.map_or(Loaded::Unreadable, Loaded::Record)
}

/// The body of what is kept under a key, if its checksum holds.
fn checked<'a>(key: &[u8], kept: &'a [u8]) -> Option<&'a [u8]> {
    let (sum, body) = kept.split_first_chunk::<4>()?;
    (u32::from_le_bytes(*sum) == entry::checksum(key, body)).then_some(body)
}
