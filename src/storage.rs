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
//! | [`stats`](StorageStats) | what storage is doing, and how the disk does |

mod disk;
mod entry;
mod error;
mod home;
mod journal;
mod ordered;
mod overlay;
mod stats;
#[cfg(test)]
mod tests;
mod workers;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

use ennead_ring::{Change, Incarnation, Key, Limits, Loaded, Ticket, View};

use disk::{Disks, FileDisk};
use entry::Kind;
use home::{Home, Mark};
use journal::{Journal, Recovered};
use ordered::{Ordered, decode, keep, lost};
use overlay::{Layer, Overlay};
use workers::{Queued, Shared, State};

pub use error::StorageError;
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
    disks: Disks,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            group_bytes: 1 << 20,
            overlay_bytes: 16 << 20,
            unapplied_bytes: 32 << 20,
            segment_bytes: 4 << 20,
            disks: FileDisk::disks(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("group_bytes", &self.group_bytes)
            .field("overlay_bytes", &self.overlay_bytes)
            .field("unapplied_bytes", &self.unapplied_bytes)
            .field("segment_bytes", &self.segment_bytes)
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
    /// The views made durable, in order.
    pub views: Vec<Arc<View>>,
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

        let mut active = Layer { meta, ..Layer::default() };
        let mut sequence = meta.place.sequence;
        for entry in entries {
            sequence += 1;
            replay(&home, &mut active, &mut views, sequence, entry)?;
        }
        active.meta.place = journal.at();
        let restored = Restored {
            incarnation: mark.incarnation,
            fresh,
            limits: active.meta.limits,
            views,
            records: ordered.records() + active.records.len() as u64,
        };

        let state = State {
            overlay: Overlay { active, ..Overlay::default() },
            applied: meta.place.sequence,
            merge_wanted: ordered.is_untidy(),
            ..State::default()
        };
        let shared = Arc::new(Shared {
            options,
            ordered,
            state: Mutex::new(state),
            queued: Condvar::new(),
            layers: Condvar::new(),
            chores: Condvar::new(),
            asked: Condvar::new(),
            failed: Mutex::new(false),
            events: Box::new(events),
        });
        let start = |name: &'static str, work: Work| {
            let shared = shared.clone();
            let thread = thread::Builder::new().name(format!("storage-{name}"));
            thread
                .spawn(move || shared.run(name, work))
                .map_err(|e| StorageError::io(dir, "starting a storage thread", e))
        };
        let mut storage = Self { shared: shared.clone(), writer: None, others: Vec::new(), home: Some(home) };
        // Should one not start, dropping `storage` stops those that did.
        storage.others.push(start("applier", Box::new(workers::apply))?);
        let circle = journal.circle();
        storage.others.push(start("tidier", Box::new(move |shared| workers::tidy(shared, &circle)))?);
        storage.others.push(start("reader", Box::new(workers::read))?);
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
        if let Change::Record { key, record } = &change {
            state.overlay.pending.insert(key.clone(), (number, record.clone()));
        }
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

    /// Up to `limit` keys after `after` (from the first with `None`), in order, with what is there for each:
    /// a page of all that is kept, as of this call. Waits for the disk.
    ///
    /// # Errors
    /// [`StorageError::Unreadable`] where a part of the store cannot be read: its keys are unknown.
    pub fn scan(&self, after: Option<&Key>, limit: usize) -> Result<Vec<(Key, Loaded)>, StorageError> {
        // The overlay first: a record that moves to the ordered store in between is then seen twice, not missed.
        let mut found = self.shared.state().overlay.after(after, limit);
        for item in self.shared.ordered.scan(after.map(Key::as_bytes)).take(limit) {
            let (key, kept) = item?;
            found.entry(key).or_insert_with_key(|key| ordered::read_kept(key, &kept));
        }
        Ok(found.into_iter().take(limit).collect())
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

    /// Makes durable what is queued, tells of it, answers the loads asked for, and releases the directory.
    pub fn close(self) {}
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        self.shared.queued.notify_all();
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
            active.insert(key, body.map_or_else(lost, |(sum, body)| keep(sum, &body)));
        }
        (Kind::Limits, Some((_, body))) => active.meta.limits = decode(&body).ok_or_else(nonsense)?,
        (Kind::View, Some((_, body))) => {
            let view: Arc<View> = Arc::new(decode(&body).ok_or_else(nonsense)?);
            views.push(view.clone());
            active.views.push((sequence, view));
        }
        (Kind::Limits | Kind::View, None) => return Err(nonsense()),
    }
    Ok(())
}
