//! A backup and those that go on from it, read as one: every key once, in order, as the newest of them has it.

use std::collections::VecDeque;
use std::path::PathBuf;

use super::error::BackupError;
use super::format::{Header, Item};
use super::reader::{Reader, digest_of};

/// Files that go on from one another, the oldest first.
pub struct Chain {
    /// With what has been read and not yet told. The newest is last.
    links: Vec<(Reader, VecDeque<Item>)>,
    digest: [u8; 32],
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").field("files", &self.links.len()).finish_non_exhaustive()
    }
}

impl Chain {
    /// Opens them, the oldest first. Nothing but their headers and ends is read yet: [`verify`](super::verify) each
    /// before anything rests on them.
    ///
    /// # Errors
    /// [`BackupError::Mismatch`] where one does not go on from the one before, or the first from another.
    pub fn open(paths: &[PathBuf]) -> Result<Self, BackupError> {
        let mut links: Vec<(Reader, VecDeque<Item>)> = Vec::new();
        let mut before: Option<[u8; 32]> = None;
        for path in paths {
            let reader = Reader::open(path)?;
            if reader.header().base != before {
                let wants =
                    reader.header().base.map_or("nothing: it is a full one".to_owned(), |d| short(&d));
                let given = before.map_or("nothing".to_owned(), |d| short(&d));
                return Err(BackupError::Mismatch(format!(
                    "{} goes on from {wants}, and what is given before it is {given}: name all backups since the \
                     last full one, the oldest first",
                    path.display()
                )));
            }
            if let Some((first, _)) = links.first()
                && first.header().prefix != reader.header().prefix
            {
                let why = format!("{} is of other keys than the one before it", path.display());
                return Err(BackupError::Mismatch(why));
            }
            before = Some(digest_of(path)?);
            links.push((reader, VecDeque::new()));
        }
        match before {
            Some(digest) => Ok(Self { links, digest }),
            None => Err(BackupError::Mismatch("no backup is named".to_owned())),
        }
    }

    /// The header of the newest.
    pub fn header(&self) -> &Header {
        // There is one: `open` has seen to it.
        self.links[self.links.len() - 1].0.header()
    }

    /// By which the newest is known.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The next key that has a value in the newest of them.
    ///
    /// # Errors
    /// As for [`Reader::next_block`].
    #[allow(clippy::should_implement_trait, reason = "an iterator of results would have to be fused")]
    pub fn next(&mut self) -> Result<Option<Item>, BackupError> {
        loop {
            for (reader, items) in &mut self.links {
                while items.is_empty() {
                    match reader.next_block()? {
                        Some(block) => items.extend(block),
                        None => break,
                    }
                }
            }
            let firsts = self.links.iter().filter_map(|(_, items)| items.front().map(|item| &item.key));
            let Some(key) = firsts.min().cloned() else { return Ok(None) };
            // What a newer one says of a key counts.
            let mut newest = None;
            for (_, items) in &mut self.links {
                if items.front().is_some_and(|item| item.key == key) {
                    newest = items.pop_front();
                }
            }
            if let Some(item) = newest.filter(|item| item.value.is_some()) {
                return Ok(Some(item));
            }
        }
    }
}

/// Enough of a digest to tell backups apart.
pub(super) fn short(digest: &[u8; 32]) -> String {
    digest[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}
