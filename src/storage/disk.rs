//! The little that the journal asks of a file, so that tests can put a failing one in its place.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::faults::OfDisk;

/// A journal file, as its writer sees it.
pub(super) trait Disk: Send {
    /// Writes all the bytes at this offset. They survive a power cut only after [`sync`](Self::sync).
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Returns once everything written is on the disk. After an error nobody knows what is.
    fn sync(&mut self) -> io::Result<()>;
}

/// Makes the [`Disk`] of a journal file just opened.
pub(super) type Disks = Arc<dyn Fn(File, &Path) -> Box<dyn Disk> + Send + Sync>;

/// The real thing.
pub(super) struct FileDisk(pub(super) File);

impl FileDisk {
    pub(super) fn disks() -> Disks {
        Arc::new(|file, path| {
            // DATA/journal/FILE
            match path.parent().and_then(Path::parent).and_then(OfDisk::of) {
                Some(faults) => Box::new(FaultyDisk(Self(file), faults)),
                None => Box::new(Self(file)),
            }
        })
    }
}

/// Test-only: a disk with the faults that files ask for.
struct FaultyDisk(FileDisk, OfDisk);

impl Disk for FaultyDisk {
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write(at, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        std::thread::sleep(Duration::from_millis(self.1.wait_ms()));
        // Not the core loop, while it opens the journal: then nobody would begin it again.
        if std::thread::current().name() == Some("storage-writer") {
            assert!(!self.1.panics(), "asked to panic by a test");
        }
        match self.1.fails() {
            true => Err(io::Error::other("asked to fail by a test")),
            false => self.0.sync(),
        }
    }
}

impl Disk for FileDisk {
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.seek(SeekFrom::Start(at))?;
        self.0.write_all(bytes)
    }

    // Data only: the files are preallocated, so there is rarely metadata to write, which halves the cost.
    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Makes the names in a directory durable, as the data of its files is by their own fsync.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(path)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}
