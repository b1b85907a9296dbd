//! What can go wrong with a backup: with which file, at which block, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::client::Error;

/// Why a backup could not be taken, read or put back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The system refused something.
    #[error("{path}: {doing}: {error}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// There is something under this name already, which is not written over.
    #[error("{path} is there already; {hint}", path = path.display())]
    Exists {
        /// The file.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
    },
    /// It does not begin as a backup does.
    #[error("{path} is no backup: {why}", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A part of it is not what was written.
    #[error("{path}: block {block}, at byte {at}, is damaged: {why}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which block, counted from 1; one more than there are where it is the trailer.
        block: u64,
        /// Where it begins.
        at: u64,
        /// What is wrong with it.
        why: String,
    },
    /// It ends before its trailer.
    #[error(
        "{path} is not whole: it ends at byte {at} after {blocks} whole blocks, without the trailer",
        path = path.display()
    )]
    Unfinished {
        /// The file.
        path: PathBuf,
        /// Whole blocks in it.
        blocks: u64,
        /// Where the last of them ends.
        at: u64,
    },
    /// The files do not belong together, or to this cluster.
    #[error("{0}")]
    Mismatch(String),
    /// The cluster's answer, or the lack of one.
    #[error("{0}")]
    Client(#[from] Error),
}

impl BackupError {
    /// To be given what the system says.
    pub(super) fn io(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { path: path.to_owned(), doing, error }
    }
}
