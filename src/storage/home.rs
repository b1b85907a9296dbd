//! The data directory: whose it is, in which format, and that one process at a time has it.
//!
//! ```text
//! DIR/lock          held while a process runs; its pid inside
//! DIR/ennead-data   the mark: format, incarnation, salt, checksum; text
//! DIR/journal/      what was made durable last
//! DIR/records/      everything else, in order
//! DIR/doubtful      why this incarnation must not vote again, found while it ran; text
//! DIR/peers         the members' names: whom to ask should the rest be lost; text
//! DIR/damaged-N/    what was moved aside when it was found to be damaged, at the Unix time N
//! DIR/run           which run of the program has it, and how that ended; not storage's own
//! DIR/crashes/      crash reports; not storage's own
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ennead_ring::Incarnation;

use super::disk::sync_directory;
use super::error::StorageError;

/// The format this program writes. Older ones are read, and then marked as this one: a program that knows only
/// them would take what came since for a torn end. From 4 on, views may name zones.
pub(super) const FORMAT: u32 = 4;
/// The oldest format read. In it are no accounts, decrees and forgotten keys.
const OLDEST: u32 = 1;
pub(super) const MARK: &str = "ennead-data";
// A mark in the making: what lies beside it is an unfinished creation, of which nobody was told anything.
pub(super) const MARK_NEW: &str = "ennead-data.new";
const LOCK: &str = "lock";
pub(super) const JOURNAL: &str = "journal";
pub(super) const RECORDS: &str = "records";
pub(super) const DOUBT: &str = "doubtful";
pub(super) const PEERS: &str = "peers";
pub(super) const PEERS_NEW: &str = "peers.new";
pub(super) const DAMAGED: &str = "damaged-";
/// Longest mark or note of doubt we read: a longer mark is somebody else's.
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
        self.path.join(JOURNAL)
    }

    pub(super) fn records(&self) -> PathBuf {
        self.path.join(RECORDS)
    }

    /// The mark, or `None` on a blank directory.
    ///
    /// # Errors
    /// Among others damage, if the directory came to be in doubt while a process used it.
    pub(super) fn mark(&self) -> Result<Option<Mark>, StorageError> {
        let path = self.path.join(MARK);
        let Some(text) = read_small(&path, "reading the mark")? else { return Ok(None) };
        // The rename that made it count may have been the last act of a killed process.
        sync_directory(&self.path).map_err(|e| StorageError::io(&self.path, "fsync", e))?;
        let (mark, format) = parse_mark(&path, &text)?;
        let doubt = self.path.join(DOUBT);
        if let Some(why) = read_small(&doubt, "reading why the directory is in doubt")? {
            return Err(StorageError::damaged(&doubt, String::from_utf8_lossy(&why).trim()));
        }
        if format < FORMAT {
            self.write_mark(&mark).and_then(|()| self.rename_mark()).map_err(|e| {
                StorageError::io(&path, "marking the data directory as one of this format", e)
            })?;
        }
        Ok(Some(mark))
    }

    fn write_mark(&self, mark: &Mark) -> io::Result<()> {
        let mut file = File::create(self.path.join(MARK_NEW))?;
        file.write_all(print_mark(mark, FORMAT).as_bytes())?;
        file.sync_all()
    }

    fn rename_mark(&self) -> io::Result<()> {
        fs::rename(self.path.join(MARK_NEW), self.path.join(MARK)).and_then(|()| sync_directory(&self.path))
    }

    /// Prepares a blank directory: empties it of an unfinished creation and notes that one is under way.
    pub(super) fn begin_creation(&self, mark: &Mark) -> Result<(), StorageError> {
        let path = self.path.join(MARK_NEW);
        let doing = "creating the data directory";
        let write = || -> io::Result<()> {
            self.write_mark(mark)?;
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
        self.rename_mark().map_err(|e| StorageError::io(&self.path.join(MARK), "writing the mark", e))
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
            // `run` and `crashes`: what is left of a machine that ended before it had made anything.
            LOCK | "lost+found" | PEERS | PEERS_NEW | "run" | "run.new" | "crashes" => {}
            aside if damaged_at(aside).is_some() => {}
            other => strangers.push(other.to_owned()),
        }
    }
    strangers.sort();
    Ok(strangers.into_iter().next())
}

/// When a folder of this name was moved aside, if it is one.
pub(super) fn damaged_at(name: &str) -> Option<u64> {
    name.strip_prefix(DAMAGED)?.parse().ok()
}

/// Notes that the directory must not be used again as it is, for the next process that opens it. This one ends.
pub(super) fn note_doubt(path: &Path, why: &StorageError) {
    let write = || -> io::Result<()> {
        let mut file = File::create(path.join(DOUBT))?;
        writeln!(file, "{}", why.what())?;
        file.sync_all()?;
        sync_directory(path)
    };
    if let Err(error) = write() {
        tracing::error!(%why, %error, "that the data directory is in doubt could not be noted in it");
    }
}

fn read_small(path: &Path, doing: &'static str) -> Result<Option<Vec<u8>>, StorageError> {
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_MARK).read_to_end(&mut text)) {
        Ok(_) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StorageError::io(path, doing, e)),
    }
}

fn print_mark(mark: &Mark, format: u32) -> String {
    let text = format!(
        "ennead data, format {format}\nincarnation {:016x}\nsalt {:016x}\n",
        mark.incarnation.id(),
        mark.salt
    );
    let sum = crc32c::crc32c(text.as_bytes());
    format!("{text}checksum {sum:08x}\n")
}

fn parse_mark(path: &Path, text: &[u8]) -> Result<(Mark, u32), StorageError> {
    let text = String::from_utf8_lossy(text);
    let folder = path.parent().unwrap_or(path);
    let mut lines = text.lines();
    let Some(format) = lines.next().and_then(|line| line.strip_prefix("ennead data, format ")) else {
        if folder.join(JOURNAL).is_dir() && folder.join(RECORDS).is_dir() {
            return Err(StorageError::damaged(path, "it is no mark of ours, and the rest is there"));
        }
        return Err(StorageError::Foreign { path: folder.to_owned(), found: MARK.to_owned() });
    };
    // The format comes first and alone: what a newer program writes below it is not for us to judge.
    let format = match format.parse() {
        Ok(found @ OLDEST..=FORMAT) => found,
        Ok(found) if found > FORMAT => {
            return Err(StorageError::Newer { path: folder.to_owned(), found, known: FORMAT });
        }
        _ => return Err(StorageError::damaged(path, format!("its format is {format:?}"))),
    };
    let mut field = |name: &str| {
        let digits = lines.next()?.strip_prefix(name)?.strip_prefix(' ')?;
        u64::from_str_radix(digits, 16).ok()
    };
    let mark = field("incarnation")
        .zip(field("salt"))
        .map(|(id, salt)| Mark { incarnation: Incarnation::new(id), salt })
        .filter(|mark| print_mark(mark, format) == text);
    mark.map(|mark| (mark, format))
        .ok_or_else(|| StorageError::damaged(path, "the checksum of the mark fails"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back_and_every_flipped_bit_is_refused() {
        let path = Path::new("/data/ennead-data");
        let mark = Mark { incarnation: Incarnation::new(0xabc), salt: 5 };
        for format in OLDEST..=FORMAT {
            let text = print_mark(&mark, format);
            assert_eq!(parse_mark(path, text.as_bytes()).ok(), Some((mark, format)));
        }
        let text = print_mark(&mark, FORMAT);
        for bit in 0..text.len() * 8 {
            let mut rotten = text.clone().into_bytes();
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert!(parse_mark(path, &rotten).is_err(), "bit {bit}");
        }
    }
}
