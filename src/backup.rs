//! Backups: every key with its value in one file, taken while the cluster works, checked without it, and put back.
//!
//! | module | one idea |
//! |---|---|
//! | `error` | what can go wrong: with which file, at which block |
//! | `format` | the bytes of a file: a header, blocks, a trailer; pure |
//! | `writer` | a file in the making: whole or not there, and gone on with after an end before its time |
//! | `reader` | a file read from its beginning, with every checksum |
//! | `chain` | a backup and those that go on from it, as one |
//! | `take` | from the cluster into a file |
//! | `restore` | from files into a cluster |
//!
//! A backup is no snapshot: it tells of each key what a [listing](crate::client::List) does, whose promise is its own.
//! Versions are not put back, since a key's versions are the cluster's: a key that is restored begins a new count.

mod chain;
mod error;
mod format;
mod reader;
mod restore;
mod take;
#[cfg(test)]
mod tests;
mod writer;

use crate::client::Client;

pub use chain::Chain;
pub use error::BackupError;
pub use format::{Header, Item, Trailer};
pub use reader::{Reader, verify};
pub use restore::{Restore, Restored};
pub use take::{Take, Taken};

pub(crate) use format::{reread_block, reread_header, reread_trailer, samples};

impl Take {
    /// Takes the backup, and tells how far it is after every key. Of each key it has a state that was settled at some
    /// moment while it was taken; all that was written before it began, and not since, is in it.
    ///
    /// # Errors
    /// See [`BackupError`]. Where the cluster does not answer, what has been taken stays for [`resume`](Self::resume).
    pub async fn run(self, client: &Client, progress: impl FnMut(Progress)) -> Result<Taken, BackupError> {
        take::take(client, self, progress).await
    }
}

impl Restore {
    /// Puts the keys back, after every file has been read and found whole, and tells how far it is after every key. A
    /// key that has a value stays as it is, or is written over; one that expires has as long to live as it had left.
    /// Nothing is ever deleted. It can be done again: what was restored then is kept.
    ///
    /// # Errors
    /// A file is damaged, or does not go on from the one before: nothing was changed. [`BackupError::Client`] where the
    /// cluster does not answer for one key, in several tries: what was restored until then stays.
    pub async fn run(self, client: &Client, progress: impl FnMut(Progress)) -> Result<Restored, BackupError> {
        restore::restore(client, self, progress).await
    }
}

/// How far a backup or its restoring has got.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Progress {
    /// Keys looked at.
    pub keys: u64,
    /// Keys there are, as far as is known; 0 while it is not.
    pub of: u64,
    /// Bytes of keys and values written so far.
    pub bytes: u64,
}
