//! What can go wrong with a disk: what, where, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a data directory cannot be used, or can be used no longer.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another process has the directory open. Nothing was touched.
    #[error(
        "{}: in use by another process{}; stop that one first, or give this one a data directory of its own",
        .path.display(), .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// Who holds the lock, as far as the lock file tells.
        pid: Option<u32>,
    },
    /// The directory holds files and none of them is our mark. Nothing was touched.
    #[error(
        "{}: not a data directory of ennead: it holds {found:?} and no mark of ours; name an empty directory",
        .path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the files found.
        found: String,
    },
    /// A newer ennead wrote the directory. Nothing was touched.
    #[error(
        "{}: written in format {found}, and this program knows formats up to {known}; start the newer program that wrote it",
        .path.display()
    )]
    Newer {
        /// The data directory.
        path: PathBuf,
        /// The format in its mark.
        found: u32,
        /// The newest format this program knows.
        known: u32,
    },
    /// Something that this machine had said is durable cannot be read back. It must not vote again under
    /// this incarnation (R2).
    #[error(
        "{}: damaged: {what}; the machine may have forgotten votes and must not vote again as it was: \
         started with --join and the name of another machine, it moves all of this aside and joins that \
         machine's cluster under a new incarnation",
        .path.display()
    )]
    Damaged {
        /// The damaged file, or the directory.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The process may not write there.
    #[error("{}: not writable: {source}; give the user of this process the right to write there", .path.display())]
    NotWritable {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No space is left, or the quota is used up. What was acknowledged is safe. A machine that runs waits for room; one
    /// that starts ends with this.
    #[error("disk full: {}: {source}; free some space and start again: nothing acknowledged is lost", .path.display())]
    DiskFull {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Any other failure of the disk. It is never retried: after a failed fsync nobody knows what is on disk.
    #[error(
        "{}: {doing} failed: {source}; nothing more is acknowledged: check the disk, then start again",
        .path.display()
    )]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A storage thread panicked: a mistake of ours.
    #[error("the storage {thread} panicked: {what}; nothing more is acknowledged: please report it")]
    Panicked {
        /// Which thread.
        thread: &'static str,
        /// The message of the panic.
        what: String,
    },
}

impl StorageError {
    /// The error that `source` is, met while `doing` something with `path`.
    pub(super) fn io(path: &Path, doing: &'static str, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path, source },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NotWritable { path, source }
            }
            _ => Self::Io { path, doing, source },
        }
    }

    /// The error of a failed fsync. It is never "full": after it nobody knows what is on disk, and room does not tell.
    pub(super) fn fsync(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), doing: "fsync of the journal", source }
    }

    /// True if there was no room: what was to be written may be written once there is.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::DiskFull { .. })
    }

    /// True if something that was said to be durable is lost (R2): not for a passing failure, nor where the
    /// directory is in use, somebody else's, or of a newer format.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }

    /// What is damaged, without what to do about it; for other errors all that there is to say.
    pub(crate) fn what(&self) -> String {
        match self {
            Self::Damaged { path, what } => format!("{}: {what}", path.display()),
            other => other.to_string(),
        }
    }

    /// True if a storage thread died of a mistake of ours, not of the disk: opening the directory again will do.
    pub fn is_panic(&self) -> bool {
        matches!(self, Self::Panicked { .. })
    }

    pub(super) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_own_message() {
        let path = Path::new("/data");
        let text = |kind: io::ErrorKind| StorageError::io(path, "fsync", kind.into()).to_string();
        assert_eq!(
            text(io::ErrorKind::StorageFull),
            "disk full: /data: no storage space; free some space and start again: nothing acknowledged is lost"
        );
        assert_eq!(
            text(io::ErrorKind::ReadOnlyFilesystem),
            "/data: not writable: read-only filesystem or storage medium; give the user of this process the right \
             to write there"
        );
        assert_eq!(
            text(io::ErrorKind::Other),
            "/data: fsync failed: other error; nothing more is acknowledged: check the disk, then start again"
        );
    }
}
