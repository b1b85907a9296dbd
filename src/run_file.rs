//! The run file: which run of the program has the data directory, and how the one before it ended.
//!
//! A run that ended in order says so here. One that does not was killed, or lost its power: nothing else ends a
//! process without a word.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::clock::unix_ms;
use crate::crash::cut;
use crate::program;
use crate::verdict::{Before, Ended, Word};

/// Its name in the data directory.
pub(crate) const NAME: &str = "run";
const MAX: u64 = 16 << 10;
/// Longest reason kept, in bytes.
const REASON: usize = 1 << 10;

/// One run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Drawn at its start; peers are told it in the hello.
    pub(crate) run: String,
    pub(crate) pid: u32,
    pub(crate) started_ms: u64,
    pub(crate) version: String,
    /// How it ended; nothing while it runs, and after it was killed.
    pub(crate) ended: Option<End>,
}

/// An orderly end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) reason: String,
    /// True if it could not go on; false if it was asked to end.
    pub(crate) failed: bool,
    /// The same in a word. Earlier programs did not write it.
    #[serde(default = "exit")]
    pub(crate) word: Word,
    pub(crate) at_ms: u64,
}

fn exit() -> Word {
    Word::Exit
}

impl From<&Run> for Before {
    fn from(run: &Run) -> Self {
        let ended = run.ended.as_ref().map(|end| Ended {
            reason: end.reason.clone(),
            failed: end.failed,
            at_ms: end.at_ms,
        });
        // A number that nobody can read is no run of ours.
        let number = u64::from_str_radix(&run.run, 16).unwrap_or(0);
        Self { run: number, version: run.version.clone(), ended }
    }
}

/// The file of the present run.
#[derive(Debug)]
pub(crate) struct RunFile {
    path: PathBuf,
    run: Run,
}

impl RunFile {
    /// Puts this run in the place of the one before, and tells that one, if there was any.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn begin(data: &Path, run: u64) -> io::Result<(Self, Option<Run>)> {
        let path = data.join(NAME);
        let mut text = Vec::new();
        let before = match File::open(&path).and_then(|file| file.take(MAX).read_to_end(&mut text)) {
            // One that nobody can read says nothing.
            Ok(_) => serde_json::from_slice(&text).ok(),
            Err(_) => None,
        };
        let run = Run {
            run: format!("{run:016x}"),
            pid: std::process::id(),
            started_ms: unix_ms(),
            version: program::version().to_owned(),
            ended: None,
        };
        let file = Self { path, run };
        file.store()?;
        Ok((file, before))
    }

    /// The run ends in order.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn end(mut self, reason: &str, failed: bool, word: Word) -> io::Result<()> {
        self.run.ended = Some(End { reason: cut(reason, REASON), failed, word, at_ms: unix_ms() });
        self.store()
    }

    fn store(&self) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(&self.run)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        File::open(self.path.parent().unwrap_or(&self.path))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_an_end_was_killed_and_one_with_an_end_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let (first, before) = RunFile::begin(dir.path(), 1).unwrap();
        assert_eq!(before, None);
        drop(first);
        let (second, before) = RunFile::begin(dir.path(), 2).unwrap();
        let before = before.unwrap();
        assert_eq!((before.run.as_str(), before.ended), ("0000000000000001", None));
        second.end("SIGTERM", false, Word::Exit).unwrap();
        let (_, before) = RunFile::begin(dir.path(), 3).unwrap();
        let end = before.unwrap().ended.unwrap();
        assert_eq!((end.reason.as_str(), end.failed), ("SIGTERM", false));
        fs::write(dir.path().join(NAME), b"{rubbish").unwrap();
        assert_eq!(RunFile::begin(dir.path(), 4).unwrap().1, None);
    }
}
