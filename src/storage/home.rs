//! The data directory: whose it is, in which format, and that one process at a time has it.
//!
//! ```text
//! DIR/lock          held while a process runs; its pid inside
//! DIR/ennead-data   the mark: format, incarnation, salt, checksum; text
//! DIR/journal/      what was made durable last
//! DIR/records/      everything else, in order
//! DIR/run           which run of the program has it, and how that ended; not storage's own
//! DIR/crashes/      crash reports; not storage's own
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ennead_ring::Incarnation;

use super::disk::sync_directory;
use super::error::StorageError;

/// The format this program writes.
pub(super) const FORMAT: u32 = 1;
const MARK: &str = "ennead-data";
// A mark in the making: what lies beside it is an unfinished creation, of which nobody was told anything.
const MARK_NEW: &str = "ennead-data.new";
const LOCK: &str = "lock";
/// Longest mark we read: a longer file is somebody else's.
const MAX_MARK: u64 = 4096;

/// Who a data directory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mark {
    pub(super) incarnation: Incarnation,
    /// Secret of the directory; goes into the checksums of the journal.
    pub(super) salt: u64,
}

/// A data directory that this process holds the lock of.
pub(super) struct Home {
    path: PathBuf,
    // Dropping it releases the lock.
    lock: File,
}

impl Home {
    /// Creates the directory if there is none, and locks it. Nothing else is touched.
    pub(super) fn lock(path: &Path) -> Result<Self, StorageError> {
        if !path.exists() {
            fs::create_dir_all(path).map_err(|e| StorageError::io(path, "creating the data directory", e))?;
            if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
                sync_directory(parent).map_err(|e| StorageError::io(parent, "fsync", e))?;
            }
        }
        // Looked at first: a directory that is not ours gets no lock file either.
        if let Some(found) = foreign(path)? {
            return Err(StorageError::Foreign { path: path.to_owned(), found });
        }
        let lock_path = path.join(LOCK);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(|e| StorageError::io(&lock_path, "opening the lock file", e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = (&mut lock).take(32).read_to_string(&mut text);
                return Err(StorageError::Locked { path: path.to_owned(), pid: text.trim().parse().ok() });
            }
            Err(TryLockError::Error(e)) => return Err(StorageError::io(&lock_path, "locking", e)),
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(|e| StorageError::io(&lock_path, "writing the pid", e))?;
        Ok(Self { path: path.to_owned(), lock })
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    pub(super) fn records(&self) -> PathBuf {
        self.path.join("records")
    }

    /// The mark, or `None` on a blank directory.
    pub(super) fn mark(&self) -> Result<Option<Mark>, StorageError> {
        let path = self.path.join(MARK);
        match read_mark(&path)? {
            Some(text) => {
                // The rename that made it count may have been the last act of a killed process.
                sync_directory(&self.path).map_err(|e| StorageError::io(&self.path, "fsync", e))?;
                parse_mark(&path, &text).map(Some)
            }
            None => Ok(None),
        }
    }

    /// Prepares a blank directory: empties it of an unfinished creation and notes that one is under way.
    pub(super) fn begin_creation(&self, mark: &Mark) -> Result<(), StorageError> {
        let path = self.path.join(MARK_NEW);
        let doing = "creating the data directory";
        let write = || -> io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(print_mark(mark).as_bytes())?;
            file.sync_all()?;
            for folder in [self.journal(), self.records()] {
                if folder.exists() {
                    fs::remove_dir_all(&folder)?;
                }
            }
            fs::create_dir(self.journal())?;
            fs::create_dir(self.records())?;
            sync_directory(&self.path)
        };
        write().map_err(|e| StorageError::io(&path, doing, e))
    }

    /// Makes the mark count: from here on the directory is this incarnation.
    pub(super) fn finish_creation(&self) -> Result<(), StorageError> {
        let path = self.path.join(MARK);
        fs::rename(self.path.join(MARK_NEW), &path)
            .and_then(|()| sync_directory(&self.path))
            .map_err(|e| StorageError::io(&path, "writing the mark", e))
    }

    /// Lets the next process in.
    pub(super) fn unlock(self) {
        // A failure leaves the lock to the end of the process, when the system lets go of it.
        let _ = self.lock.unlock();
    }
}

/// A name in the directory that shows it is not ours, if there is one.
fn foreign(path: &Path) -> Result<Option<String>, StorageError> {
    let doing = "listing the data directory";
    let mut strangers = Vec::new();
    for item in fs::read_dir(path).map_err(|e| StorageError::io(path, doing, e))? {
        let name = item.map_err(|e| StorageError::io(path, doing, e))?.file_name();
        match name.to_string_lossy().as_ref() {
            MARK | MARK_NEW => return Ok(None),
            // `lost+found`: the directory may be the root of a file system of its own.
            // What is left of a machine that ended before it had made anything.
            LOCK | "lost+found" | "run" | "run.new" | "crashes" => {}
            other => strangers.push(other.to_owned()),
        }
    }
    strangers.sort();
    Ok(strangers.into_iter().next())
}

fn read_mark(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_MARK).read_to_end(&mut text)) {
        Ok(_) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StorageError::io(path, "reading the mark", e)),
    }
}

fn print_mark(mark: &Mark) -> String {
    let text = format!(
        "ennead data, format {FORMAT}\nincarnation {:016x}\nsalt {:016x}\n",
        mark.incarnation.id(),
        mark.salt
    );
    let sum = crc32c::crc32c(text.as_bytes());
    format!("{text}checksum {sum:08x}\n")
}

fn parse_mark(path: &Path, text: &[u8]) -> Result<Mark, StorageError> {
    let text = String::from_utf8_lossy(text);
    let folder = path.parent().unwrap_or(path);
    let mut lines = text.lines();
    let Some(format) = lines.next().and_then(|line| line.strip_prefix("ennead data, format ")) else {
        return Err(StorageError::Foreign { path: folder.to_owned(), found: MARK.to_owned() });
    };
    // The format comes first and alone: what a newer program writes below it is not for us to judge.
    match format.parse() {
        Ok(FORMAT) => {}
        Ok(found) if found > FORMAT => {
            return Err(StorageError::Newer { path: folder.to_owned(), found, known: FORMAT });
        }
        _ => return Err(StorageError::damaged(path, format!("its format is {format:?}"))),
    }
    let mut field = |name: &str| {
        let digits = lines.next()?.strip_prefix(name)?.strip_prefix(' ')?;
        u64::from_str_radix(digits, 16).ok()
    };
    let mark = field("incarnation")
        .zip(field("salt"))
        .map(|(id, salt)| Mark { incarnation: Incarnation::new(id), salt })
        .filter(|mark| print_mark(mark) == text);
    mark.ok_or_else(|| StorageError::damaged(path, "the checksum of the mark fails"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back_and_every_flipped_bit_is_refused() {
        let path = Path::new("/data/ennead-data");
        let mark = Mark { incarnation: Incarnation::new(0xabc), salt: 5 };
        let text = print_mark(&mark);
        assert_eq!(parse_mark(path, text.as_bytes()).ok(), Some(mark));
        for bit in 0..text.len() * 8 {
            let mut rotten = text.clone().into_bytes();
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert!(parse_mark(path, &rotten).is_err(), "bit {bit}");
        }
    }
}
