//! Room on the disk: watched, so that values are refused while there is still room for what must be written; and waited
//! for where there is none.
//!
//! What must be written is little: limits, views, decrees, and what is in the journal on its way into the ordered store.
//! The reserve, and as much as is not there yet, are for that. Should others fill the disk all the same, whoever needs room waits for it, and goes on by itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use rustix::fs::statvfs;

use super::error::StorageError;
use super::workers::Shared;

/// Between two looks at the disk.
const EVERY: Duration = Duration::from_millis(250);
/// Room that is waited for before a write that failed for want of it is tried again: what a try leaves behind when it
/// fails once more is never so much.
const ENOUGH: u64 = 8 << 20;

/// Tells the room there is for this process on the disk of a folder; `None` where nobody knows.
pub(super) type Look = Arc<dyn Fn(&Path) -> Option<u64> + Send + Sync>;

/// As the system tells it.
pub(super) fn look() -> Look {
    Arc::new(|folder| statvfs(folder).ok().map(|told| told.f_bavail.saturating_mul(told.f_frsize)))
}

/// What is known of the room on the disk.
pub(super) struct Room {
    folder: PathBuf,
    look: Look,
    /// Less than this is too little to take values.
    reserve: u64,
    /// The reserve, and what is on its way into the ordered store.
    needed: AtomicU64,
    free: AtomicU64,
    is_low: AtomicBool,
    /// Threads that wait for room.
    waiting: AtomicUsize,
}

impl Room {
    pub(super) fn of(folder: &Path, look: Look, reserve: u64) -> Self {
        let room = Self {
            folder: folder.to_owned(),
            look,
            reserve,
            needed: AtomicU64::new(reserve),
            free: AtomicU64::new(u64::MAX),
            is_low: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
        };
        room.look();
        room
    }

    /// True while there is too little to take values.
    pub(super) fn is_short(&self) -> bool {
        self.is_low.load(Relaxed) || self.waiting.load(Relaxed) > 0
    }

    /// What was free at the last look, and what must be.
    pub(super) fn figures(&self) -> (u64, u64) {
        (self.free.load(Relaxed), self.needed.load(Relaxed))
    }

    /// The disk has said that it is full, whatever it tells of its room.
    pub(super) fn note_full(&self) {
        self.is_low.store(true, Relaxed);
    }

    fn look(&self) -> u64 {
        let free = (self.look)(&self.folder).unwrap_or(u64::MAX);
        self.free.store(free, Relaxed);
        // A little more than was missing, so that one file does not turn it on and off.
        let needed = self.needed.load(Relaxed);
        let enough = needed.saturating_add(self.reserve / 8);
        if free < needed {
            self.is_low.store(true, Relaxed);
        } else if free >= enough {
            self.is_low.store(false, Relaxed);
        }
        free
    }
}

/// Watches the room until storage closes, and lets those go on who rest while there is none.
pub(super) fn watch(shared: &Shared) -> Result<(), StorageError> {
    let mut was_short = false;
    loop {
        let unapplied = shared.state().overlay.bytes() as u64;
        shared.room.needed.store(shared.room.reserve.saturating_add(unapplied), Relaxed);
        let free = shared.room.look();
        let short = shared.room.is_short();
        if short != was_short {
            let (free, needed) = (free >> 20, shared.room.figures().1 >> 20);
            match short {
                true => tracing::error!(
                    free_mib = free,
                    needed_mib = needed,
                    "the disk is full: values are refused until there is room, reads go on"
                ),
                false => tracing::info!(free_mib = free, "there is room on the disk again"),
            }
            shared.chores.notify_all();
        }
        was_short = short;
        let state = shared.state();
        if state.closing || state.failed {
            return Ok(());
        }
        drop(shared.wait_a_while(&shared.rooms, state, EVERY));
    }
}

impl Shared {
    /// Waits until a write that failed for want of room may be tried again. False if there will be no more tries.
    pub(super) fn wait_for_room(&self, error: &StorageError) -> bool {
        tracing::warn!(%error, "waits for room on the disk; nothing acknowledged is lost");
        self.room.waiting.fetch_add(1, Relaxed);
        let goes_on = loop {
            let mut state = self.state();
            if state.closing || state.failed {
                // What waits was never acknowledged, or is in the journal.
                state.failed = true;
                drop(state);
                self.layers.notify_all();
                self.queued.notify_all();
                break false;
            }
            drop(self.wait_a_while(&self.rooms, state, EVERY));
            if self.room.look() >= ENOUGH.min(self.room.reserve) {
                break true;
            }
        };
        self.room.waiting.fetch_sub(1, Relaxed);
        goes_on
    }
}
