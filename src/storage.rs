//! What must survive a power cut, and the proof that it does.
//!
//! A change goes to the journal first, together with all others that wait: one write, one fsync, and only
//! then is anyone told. From there it is applied to the ordered store in large batches, in the background.
//! Modules in reading order:
//!
//! | module | one idea |
//! |---|---|
//! | [`error`](StorageError) | what can go wrong: what, where, what to do about it |
//! | `home` | the data directory: whose it is, in which format, and that one process at a time has it |
//! | `disk` | the little that the journal asks of a file, so that tests can make it fail |
//! | `entry` | one change as bytes in the journal |
//! | `journal` | preallocated files written in a circle; what is a torn end, and what is damage |
//! | `ordered` | everything but the last changes, in order of the keys |
//! | `overlay` | what the ordered store does not hold yet |
//! | `workers` | the threads |
//! | `peers` | the names of the members, in a file of their own: whom to ask should the rest be lost |
//! | `room` | room on the disk: watched, kept in reserve, waited for |
//! | `salvage` | moves a damaged directory's content aside |
//! | [`stats`](StorageStats) | what storage is doing, and how the disk does |

mod disk;
mod entry;
mod error;
mod home;
mod journal;
mod leftovers;
mod ordered;
mod overlay;
mod peers;
mod room;
mod salvage;
mod stats;
#[cfg(test)]
mod tests;
mod workers;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ennead_ring::{Account, Change, Decree, Epoch, Incarnation, Key, Limits, Loaded, Scan, Ticket, View};

use disk::{Disks, FileDisk};
use entry::Kind;
use home::{Home, Mark};
use journal::{Journal, Recovered};
use ordered::{Ordered, decode, keep, lost};
use overlay::{Layer, Overlay};
use room::{Look, Room};
use workers::{Asked, Queued, Shared, State};

#[doc(hidden)]
pub use error::StorageError;
pub(crate) use ordered::past;
pub(crate) use peers::known as known_peers;
pub(crate) use salvage::move_aside;
pub use stats::{Histogram, StorageStats};

/// How much memory and disk storage takes. The defaults suit a machine that shares its disk with eight others.
#[derive(Clone)]
pub struct Options {
    /// Bytes that one fsync may cover; what waits beyond them goes into the next. Default 1 MiB.
    /// More is a higher throughput under overload and a longer wait for each group.
    pub group_bytes: usize,
    /// Memory for durable changes before they are applied to the ordered store. Default 16 MiB: twice the longest value.
    /// Up to three times as much is used while a batch is being applied; then acknowledgements slow down.
    /// More means fewer and larger batches: less CPU and less wear for each record, and more memory.
    pub overlay_bytes: usize,
    /// Bytes of journal before they are applied, however little memory they take: bounds the journal where a
    /// few keys are written again and again. Default 32 MiB; up to three times as much is used.
    pub unapplied_bytes: usize,
    /// Size of a journal file. Default 4 MiB. Each is written once with zeros, then used again for ever.
    pub segment_bytes: u64,
    /// Room on the disk below which values are refused ([`Storage::is_short_of_room`]). Default 64 MiB. What must be
    /// written goes on in it: less, and a disk that others fill stops the machine's reads that need a write, and its joins.
    pub reserve_bytes: u64,
    disks: Disks,
    look: Look,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            group_bytes: 1 << 20,
            overlay_bytes: 16 << 20,
            unapplied_bytes: 32 << 20,
            segment_bytes: 4 << 20,
            reserve_bytes: 64 << 20,
            disks: FileDisk::disks(),
            look: room::look(),
        }
    }
}

impl Options {
    /// The defaults, with so many bytes of room kept free on the disk.
    pub fn with_reserve(bytes: u64) -> Self {
        Self { reserve_bytes: bytes, ..Self::default() }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("group_bytes", &self.group_bytes)
            .field("overlay_bytes", &self.overlay_bytes)
            .field("unapplied_bytes", &self.unapplied_bytes)
            .field("segment_bytes", &self.segment_bytes)
            .field("reserve_bytes", &self.reserve_bytes)
            .finish_non_exhaustive()
    }
}

/// What a data directory remembers.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Who the machine is: drawn when the directory was created.
    pub incarnation: Incarnation,
    /// True if that was just now.
    pub fresh: bool,
    /// The limits last made durable. After a restart the node sets its floor to the ceiling (A4).
    pub limits: Limits,
    /// The views made durable, in order, since the last one that the account says is settled.
    pub views: Vec<Arc<View>>,
    /// The account last made durable.
    pub account: Account,
    /// The decree last made durable.
    pub decree: Decree,
    /// Records kept, roughly: one that was replaced may count twice.
    pub records: u64,
}

/// What storage has to say. Told from its threads, or from the thread that calls [`Storage::load`].
#[derive(Debug)]
pub enum StorageEvent {
    /// This ticket and every one before it is on disk.
    Durable(Ticket),
    /// The answer to a [`Storage::load`].
    Loaded {
        /// The key asked for.
        key: Key,
        /// What is there.
        found: Loaded,
    },
    /// The answer to a [`Storage::scan_for`].
    Scanned {
        /// Which one.
        scan: Scan,
        /// The next keys in order, with what is there for each. Never [`Loaded::Nothing`].
        found: Vec<(Key, Loaded)>,
        /// True if there are none after these.
        end: bool,
        /// Keys kept in all, roughly.
        total: u64,
    },
    /// Nothing more becomes durable, ever: end the process with this reason. Told once, and no `Durable` after.
    Failed(StorageError),
}

/// The data directory of a machine, open. Dropping it is [closing](Self::close) it.
pub struct Storage {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
    home: Option<Home>,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").finish_non_exhaustive()
    }
}

impl Storage {
    /// Opens the data directory; creates it where there is none or an empty one, and then draws an
    /// incarnation, which is on disk before this returns.
    ///
    /// `events` is called from storage threads, and from within [`load`](Self::load). It must be quick (the
    /// end of a channel, say), and must neither block nor close the storage.
    ///
    /// # Errors
    /// In use, foreign, of a newer format, damaged (R2), not writable, disk full: each its own
    /// [`StorageError`]. A directory that is not ours is left untouched.
    pub fn open(
        dir: &Path,
        options: Options,
        events: impl Fn(StorageEvent) + Send + Sync + Clone + 'static,
    ) -> Result<(Self, Restored), StorageError> {
        let home = Home::lock(dir)?;
        let found = home.mark()?;
        let fresh = found.is_none();
        let mark = match found {
            Some(mark) => mark,
            None => {
                // 0 stands for no machine.
                let id = std::iter::repeat_with(rand::random::<u64>).find(|&id| id != 0).unwrap_or(1);
                let mark = Mark { incarnation: Incarnation::new(id), salt: rand::random() };
                home.begin_creation(&mark)?;
                mark
            }
        };
        let ordered = Ordered::open(&home.records(), fresh)?;
        let meta = ordered.meta()?;
        let mut views = ordered.views()?;
        let (journal, entries) = Journal::open(
            &home.journal(),
            options.disks.clone(),
            mark.salt,
            options.segment_bytes,
            meta.place,
        )?;
        if fresh {
            home.finish_creation()?;
        }

        let (account, decree) = (ordered.account()?, ordered.decree()?);
        let mut active = Layer { meta, ..Layer::default() };
        let mut sequence = meta.place.sequence;
        for entry in entries {
            sequence += 1;
            replay(&home, &mut active, &mut views, sequence, entry)?;
        }
        active.meta.place = journal.at();
        let account = active.account.clone().or(account);
        let account = account.unwrap_or_else(|| account_at_birth(mark.incarnation, &views));
        views.drain(..past(&views, account.settled));
        let recent = active.records.values().flatten().count() as u64;
        let restored = Restored {
            incarnation: mark.incarnation,
            fresh,
            limits: active.meta.limits,
            views,
            account,
            decree: active.decree.clone().or(decree).unwrap_or_default(),
            records: ordered.records() + recent,
        };

        let state = State {
            overlay: Overlay { active, ..Overlay::default() },
            applied: meta.place.sequence,
            merge_wanted: ordered.is_untidy(),
            members: restored.views.last().cloned(),
            ..State::default()
        };
        let shared = Arc::new(Shared {
            room: Room::of(dir, options.look.clone(), options.reserve_bytes),
            rooms: Condvar::new(),
            backlog: AtomicUsize::new(0),
            options,
            folder: dir.to_owned(),
            ordered,
            state: Mutex::new(state),
            queued: Condvar::new(),
            layers: Condvar::new(),
            chores: Condvar::new(),
            asked: Condvar::new(),
            scans: Condvar::new(),
            failed: Mutex::new(false),
            events: Box::new(events),
        });
        let start = |name: &'static str, work: Work| {
            let shared = shared.clone();
            let (thread, data) = (thread::Builder::new().name(format!("storage-{name}")), dir.to_owned());
            thread
                .spawn(move || {
                    crate::crash::belongs_to(&data);
                    shared.run(name, work);
                })
                .map_err(|e| StorageError::io(dir, "starting a storage thread", e))
        };
        let mut storage = Self { shared: shared.clone(), writer: None, others: Vec::new(), home: Some(home) };
        // Should one not start, dropping `storage` stops those that did.
        storage.others.push(start("applier", Box::new(workers::apply))?);
        let circle = journal.circle();
        storage.others.push(start("tidier", Box::new(move |shared| workers::tidy(shared, &circle)))?);
        storage.others.push(start("reader", Box::new(workers::read))?);
        storage.others.push(start("scanner", Box::new(workers::scan))?);
        storage.others.push(start("room", Box::new(room::watch))?);
        storage.writer = Some(start("writer", Box::new(move |shared| workers::write(shared, journal)))?);
        Ok((storage, restored))
    }

    /// Hands a change in to be made durable, after all those before it; [`StorageEvent::Durable`] tells when
    /// it is. Never waits for the disk. After [`StorageEvent::Failed`] it is forgotten at once.
    pub fn persist(&self, ticket: Ticket, change: Change) {
        let mut state = self.shared.state();
        if state.failed {
            return;
        }
        state.number += 1;
        let number = state.number;
        match &change {
            Change::Record { key, record } => {
                state.overlay.pending.insert(key.clone(), (number, Some(record.clone())));
            }
            Change::Forget { key } => {
                state.overlay.pending.insert(key.clone(), (number, None));
            }
            Change::Limits(_) | Change::View(_) | Change::Account(_) | Change::Decree(_) => {}
        }
        self.shared.backlog.fetch_add(workers::cost(&change), Relaxed);
        state.queue.push_back(Queued { ticket, number, change });
        drop(state);
        self.shared.queued.notify_one();
    }

    /// Test-only: makes the writer panic, to see what comes of it.
    #[doc(hidden)]
    pub fn break_writer(&self) {
        self.shared.state().break_writer = true;
        self.shared.queued.notify_one();
    }

    /// Looks a key up; [`StorageEvent::Loaded`] is the answer. It sees every change handed in before,
    /// durable or not, and maybe one handed in since.
    ///
    /// What was changed recently is in memory: then the event is told before this returns. Else a storage
    /// thread reads it, and the answers come in the order they were asked for.
    pub fn load(&self, key: Key) {
        let mut state = self.shared.state();
        match state.overlay.get(&key) {
            Some(found) => {
                state.stats.unreadable += u64::from(found == Loaded::Unreadable);
                drop(state);
                (self.shared.events)(StorageEvent::Loaded { key, found });
            }
            None => {
                state.asked.push_back(key);
                drop(state);
                self.shared.asked.notify_one();
            }
        }
    }

    /// Looks for the keys after `after` (from the first with `None`): at most `keys` of them, and no further one
    /// once so many `bytes` have come together. [`StorageEvent::Scanned`] is the answer. It sees every change
    /// handed in before, durable or not, and maybe some handed in since.
    ///
    /// Side work, on a thread of its own: loads do not wait behind it, and closing gives it up. Where a part of
    /// the store cannot be read, nobody knows what was in it: then storage has [`Failed`](StorageEvent::Failed)
    /// of damage (R2), as has every [`open`](Self::open) after it.
    pub fn scan_for(&self, scan: Scan, after: Option<Key>, keys: usize, bytes: usize) {
        self.shared.state().pages.push_back(Asked { scan, after, keys, bytes });
        self.shared.scans.notify_one();
    }

    /// What storage is doing. May wait a moment for the ordered store; not for handing out on a hot path.
    pub fn stats(&self) -> StorageStats {
        // Before the lock is taken: the ordered store may be busy with the disk.
        let (stored, record_bytes) = (self.shared.ordered.records(), self.shared.ordered.bytes());
        let state = self.shared.state();
        StorageStats {
            queued: state.number - state.stats.durable,
            fsync_running: state.fsync_since.map(|since| since.elapsed()),
            overlay_bytes: state.overlay.bytes() as u64,
            records: stored + state.overlay.active.records.len() as u64,
            record_bytes,
            ..state.stats.clone()
        }
    }

    /// How the disk does: times of fsyncs, and how long the one under way has been going on. Waits for nobody.
    pub fn fsyncs(&self) -> (Histogram, Option<Duration>) {
        let state = self.shared.state();
        (state.stats.fsync_micros, state.fsync_since.map(|since| since.elapsed()))
    }

    /// True while the disk has less room than is kept for what must be written, or has said that it is full. Nothing has failed: what
    /// is handed in all the same waits for room. Waits for nobody.
    pub fn is_short_of_room(&self) -> bool {
        self.shared.room.is_short()
    }

    /// Bytes free on the disk at the last look, and bytes that must be for values to be taken: the reserve, and what is in
    /// the journal only.
    pub fn room(&self) -> (u64, u64) {
        self.shared.room.figures()
    }

    /// Bytes of memory that changes take which wait for their fsync, roughly: what a disk that hangs lets grow.
    pub fn backlog(&self) -> usize {
        self.shared.backlog.load(Relaxed)
    }

    /// Makes durable what is queued, tells of it, answers the loads asked for, and releases the directory.
    pub fn close(self) {}
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        self.shared.queued.notify_all();
        self.shared.scans.notify_all();
        self.shared.rooms.notify_all();
        // The writer first, as it may have to wait for the applier. A panic was told by `run`.
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
        self.shared.state().written = true;
        self.shared.layers.notify_all();
        self.shared.chores.notify_all();
        self.shared.asked.notify_all();
        for thread in self.others.drain(..) {
            let _ = thread.join();
        }
        if let Some(home) = self.home.take() {
            home.unlock();
        }
    }
}

type Work = Box<dyn FnOnce(&Shared) -> Result<(), StorageError> + Send>;

/// Takes one entry of the journal over into memory.
fn replay(
    home: &Home,
    active: &mut Layer,
    views: &mut Vec<Arc<View>>,
    sequence: u64,
    entry: Recovered,
) -> Result<(), StorageError> {
    // Its checksum holds, so an entry that does not decode was written wrongly: by a bug, or a forger.
    let nonsense = || StorageError::damaged(&home.journal(), format!("entry {sequence} makes no sense"));
    let Recovered { kind, key, body } = entry;
    active.journalled += key.len() + body.as_ref().map_or(0, |(_, body)| body.len());
    match (kind, body) {
        (Kind::Record, body) => {
            let key = Key::new(key).map_err(|_| nonsense())?;
            active.insert(key, Some(body.map_or_else(lost, |(sum, body)| keep(sum, &body))));
        }
        (Kind::Forget, Some(_)) => active.insert(Key::new(key).map_err(|_| nonsense())?, None),
        (Kind::Limits, Some((_, body))) => active.meta.limits = decode(&body).ok_or_else(nonsense)?,
        (Kind::View, Some((_, body))) => {
            let view: Arc<View> = Arc::new(decode(&body).ok_or_else(nonsense)?);
            views.push(view.clone());
            active.views.push((sequence, view));
        }
        (Kind::Account, Some((_, body))) => active.account = Some(decode(&body).ok_or_else(nonsense)?),
        (Kind::Decree, Some((_, body))) => active.decree = Some(decode(&body).ok_or_else(nonsense)?),
        (Kind::Limits | Kind::View | Kind::Forget | Kind::Account | Kind::Decree, None) => {
            return Err(nonsense());
        }
    }
    Ok(())
}

/// The account of a directory that has none: what is true of it whatever came after. A machine of view 1 is
/// synced in it, since nobody voted before; directories of format 1 know no other view.
fn account_at_birth(me: Incarnation, views: &[Arc<View>]) -> Account {
    let first = views.first().filter(|view| view.epoch() == Epoch::FIRST);
    match first.filter(|view| view.members().iter().any(|member| member.machine.incarnation == me)) {
        Some(_) => Account { settled: Epoch::FIRST, synced: vec![Epoch::FIRST], left: false },
        None => Account::default(),
    }
}

/// For [`decoders`](crate::decoders): the body of an entry, or of what is kept, read and written anew.
pub(crate) fn reread_body<T: bincode::Encode + bincode::Decode<()>>(bytes: &[u8]) -> Option<Vec<u8>> {
    ordered::decode::<T>(bytes).map(|value| ordered::encode(&value))
}

/// For [`decoders`](crate::decoders): an entry of a journal whose salt is 0, read and written anew.
pub(crate) fn reread_entry(bytes: &[u8]) -> Option<Vec<u8>> {
    let header = entry::read_header(0, bytes)?;
    let (key, body) = entry::read_parts(&header, bytes);
    let mut out = Vec::new();
    entry::write(0, &header, key, body?, &mut out);
    Some(out)
}

/// An entry such as `reread_entry` reads: the change is a record.
#[doc(hidden)]
pub fn write_entry(key: &[u8], body: &[u8]) -> Vec<u8> {
    let header = entry::Header {
        sequence: 7,
        group: 3,
        kind: entry::Kind::Record,
        last: true,
        key_len: key.len(),
        body_len: body.len(),
        checksum: entry::checksum(key, body),
    };
    let mut out = Vec::new();
    entry::write(0, &header, key, body, &mut out);
    out
}
