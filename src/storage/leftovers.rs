//! Files of tables that nobody will ever read: the engine leaves them where writing a table, or the version that was to
//! have it, failed (for want of room, mostly), and removes them at its next start. A merge that was broken off may leave as
//! much as all that it merged; here they go while the store is open.
//!
//! A file may go if its table was in no version ever. Of a number that was given out while a flush or a merge failed, that
//! is known once neither is under way: its table is in the present version, or will be in none. (Later it would not be
//! known: a table that the next merge replaces is in no version either, and may still be read by a scan.) And the version
//! that a restart would find must be the present one: of one that was not written to the end nobody knows what is on disk.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lsm_tree::{AbstractTree, AnyTree};

/// Numbers kept at most; of more, the next start removes the files.
const MOST: usize = 16_384;

/// See the module's caption.
#[derive(Default)]
pub(super) struct Leftovers {
    /// Held while tables are merged, and taken first.
    merging: Mutex<()>,
    /// Held while a table is written from memory.
    flushing: Mutex<()>,
    /// Of tables of which there may be a file, and that may be in no version.
    numbers: Mutex<BTreeSet<u64>>,
}

impl Leftovers {
    /// Writes a table from memory.
    pub(super) fn flush<T, E>(&self, tree: &AnyTree, flush: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let _flushing = lock(&self.flushing);
        self.note(tree, flush)
    }

    /// Merges tables, and removes what is left behind.
    pub(super) fn merge<T, E>(
        &self,
        folder: &Path,
        tree: &AnyTree,
        merge: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let merging = lock(&self.merging);
        let result = self.note(tree, merge);
        // Whatever came of it: the next merge may replace what this one made.
        self.remove_while(&merging, folder, tree);
        result
    }

    /// Removes what flushes and merges that failed have left behind.
    pub(super) fn remove(&self, folder: &Path, tree: &AnyTree) {
        self.remove_while(&lock(&self.merging), folder, tree);
    }

    /// Notes the numbers given out meanwhile, if it fails.
    fn note<T, E>(&self, tree: &AnyTree, write: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let first = tree.next_table_id();
        let result = write();
        if result.is_err() {
            let mut numbers = lock(&self.numbers);
            let room = MOST.saturating_sub(numbers.len());
            numbers.extend((first..tree.next_table_id()).take(room));
        }
        result
    }

    fn remove_while(&self, _merging: &MutexGuard<'_, ()>, folder: &Path, tree: &AnyTree) {
        let _flushing = lock(&self.flushing);
        let mut numbers = lock(&self.numbers);
        if numbers.is_empty() {
            return;
        }
        let version = tree.current_version();
        for table in version.iter_tables() {
            numbers.remove(&table.id());
        }
        if present(folder).ok() != Some(version.id()) {
            return;
        }
        numbers.retain(|number| {
            let path = folder.join("tables").join(number.to_string());
            match fs::remove_file(&path) {
                Ok(()) => {
                    tracing::info!(file = %path.display(), "removed a table that was not written to the end");
                    false
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "a table that nobody needs stays for now");
                    true
                }
            }
        });
    }
}

/// The number of the version that a restart would find.
fn present(folder: &Path) -> io::Result<u64> {
    let bytes = fs::read(folder.join("current"))?;
    let number = bytes.first_chunk::<8>().ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(u64::from_le_bytes(*number))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
