//! The diary: what happened to this machine and is over, kept in its data directory over all its runs.
//!
//! Others see that a machine is silent and what its host says meanwhile. That it stood still, that its disk was slow
//! for a while, how its runs ended: that it knows best itself, and a machine that is well again would tell nobody.
//! The newest few are kept. What cannot be written or read back is not worth a machine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::clock::unix_ms;
use crate::crash::cut;
use crate::run_file::Run;
use crate::units::show_duration;
use crate::verdict::{Happened, Word};

/// Its name in the data directory.
const NAME: &str = "diary";
/// Entries kept, and their bytes.
const KEPT: usize = 16;
const MAX: u64 = 64 << 10;
/// Longest of them, in bytes.
const WHAT: usize = 400;
/// Entries that are told to who asks.
const TOLD: usize = 8;
/// What was over sooner is a hiccup, and not noted.
const HICCUP: Duration = Duration::from_secs(3);

/// The diary of one machine.
#[derive(Debug)]
pub(crate) struct Diary(watch::Sender<Vec<Happened>>);

impl Diary {
    /// Opens it, and notes how the run before ended.
    pub(crate) fn open(data: &Path, before: Option<&Run>, version: &str) -> Self {
        let mut entries = read(&data.join(NAME));
        for end in before.map(|run| end_of(run, version, unix_ms())).unwrap_or_default() {
            entries.insert(0, end);
        }
        entries.truncate(KEPT);
        Self(watch::Sender::new(entries))
    }

    /// Notes something that is over.
    pub(crate) fn note(&self, mut happened: Happened) {
        happened.what = cut(&happened.what, WHAT);
        self.0.send_modify(|entries| {
            entries.insert(0, happened);
            entries.truncate(KEPT);
        });
    }

    /// The newest of it.
    pub(crate) fn newest(&self) -> Vec<Happened> {
        self.0.borrow().iter().take(TOLD).cloned().collect()
    }

    /// Keeps the file as the diary is, for as long as there is one.
    pub(crate) fn keep(&self, data: &Path) -> impl Future<Output = ()> + Send + use<> {
        let mut entries = self.0.subscribe();
        // What was noted as it was opened.
        entries.mark_changed();
        let path = data.join(NAME);
        async move {
            while entries.changed().await.is_ok() {
                let (now, path) = (entries.borrow_and_update().clone(), path.clone());
                // A disk that hangs must not keep the core loop, on this thread, from its work.
                let written = tokio::task::spawn_blocking(move || write(&path, &now)).await;
                if let Ok(Err(error)) = written {
                    tracing::warn!(%error, "the diary of this machine cannot be written");
                }
            }
        }
    }
}

/// One that nobody can read is begun anew.
fn read(path: &Path) -> Vec<Happened> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX).read_to_end(&mut text));
    read.ok().and_then(|_| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

fn write(path: &PathBuf, entries: &[Happened]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(entries)?)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// How a run that is over ended, and that its program was another; oldest first.
fn end_of(run: &Run, version: &str, now: u64) -> Vec<Happened> {
    // A number that nobody can read is no run of ours.
    let number = u64::from_str_radix(&run.run, 16).unwrap_or(0);
    let entry = |word, at, what: String| Happened {
        word,
        from_ms: at,
        until_ms: at,
        run: number,
        what: cut(&what, WHAT),
    };
    let end = match &run.ended {
        Some(end) => entry(end.word, end.at_ms, format!("its last run ended: {}", end.reason)),
        None => {
            let what =
                "it was killed, or lost its power: it is back with a new start and had said no farewell";
            entry(Word::Killed, now, what.to_owned())
        }
    };
    let upgraded = (run.version != version).then(|| {
        let what = format!("it was upgraded from {} to {version}", cut(&run.version, 40));
        entry(Word::Upgraded, now, what)
    });
    std::iter::once(end).chain(upgraded).collect()
}

/// What is wrong with this machine at present, until it is over.
#[derive(Debug, Default)]
pub(crate) struct Troubles(BTreeMap<Word, Trouble>);

#[derive(Debug)]
struct Trouble {
    since: Instant,
    since_ms: u64,
    worst: u64,
}

impl Troubles {
    /// How bad it is now, if it is; what is to be noted if that is over. `what` says it, of the worst.
    pub(crate) fn see(
        &mut self,
        now: Instant,
        word: Word,
        bad: Option<u64>,
        run: u64,
        what: impl Fn(&str, u64) -> String,
    ) -> Option<Happened> {
        match bad {
            Some(bad) => {
                let new = || Trouble { since: now, since_ms: unix_ms(), worst: bad };
                let trouble = self.0.entry(word).or_insert_with(new);
                trouble.worst = trouble.worst.max(bad);
                None
            }
            None => {
                let Trouble { since, since_ms, worst } = self.0.remove(&word)?;
                let lasted = now.saturating_duration_since(since);
                let what = what(&show_duration(lasted), worst);
                let over = Happened { word, from_ms: since_ms, until_ms: unix_ms(), run, what };
                (lasted >= HICCUP).then_some(over)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_file::End;

    fn entry(at: u64) -> Happened {
        Happened { word: Word::Paused, from_ms: at, until_ms: at + 1, run: 7, what: format!("it stood {at}") }
    }

    fn run(version: &str, ended: Option<End>) -> Run {
        Run { run: format!("{:016x}", 6), pid: 1, started_ms: 1, version: version.to_owned(), ended }
    }

    #[tokio::test]
    async fn the_newest_are_kept_over_runs_and_told_first() {
        let dir = tempfile::tempdir().unwrap();
        let diary = Diary::open(dir.path(), None, "1");
        let keeping = tokio::spawn(diary.keep(dir.path()));
        for at in 0..40 {
            diary.note(entry(at));
        }
        assert_eq!(
            diary.newest().iter().map(|e| e.from_ms).collect::<Vec<_>>(),
            [39, 38, 37, 36, 35, 34, 33, 32]
        );
        // The last is written before it ends.
        drop(diary);
        keeping.await.unwrap();
        let diary = Diary::open(dir.path(), Some(&run("1", None)), "1");
        let told = diary.newest();
        assert_eq!((told[0].word, told[0].run, told[1].from_ms), (Word::Killed, 6, 39));
        assert_eq!(diary.0.borrow().len(), KEPT);
        fs::write(dir.path().join(NAME), "rubbish").unwrap();
        assert_eq!(Diary::open(dir.path(), None, "1").newest(), []);
    }

    #[test]
    fn an_upgrade_is_noted_after_the_end_before_it() {
        let end = End { reason: "SIGTERM".into(), failed: false, word: Word::Exit, at_ms: 5 };
        let dir = tempfile::tempdir().unwrap();
        let told = Diary::open(dir.path(), Some(&run("1", Some(end))), "2").newest();
        assert_eq!((told[0].word, told[0].what.as_str()), (Word::Upgraded, "it was upgraded from 1 to 2"));
        assert_eq!((told[1].word, told[1].what.as_str()), (Word::Exit, "its last run ended: SIGTERM"));
    }

    #[test]
    fn a_trouble_is_noted_when_it_is_over_and_a_hiccup_never() {
        let mut troubles = Troubles::default();
        let start = Instant::now();
        let mut see = |second, bad| {
            let now = start + Duration::from_secs(second);
            troubles.see(now, Word::DiskStalled, bad, 7, |time, worst| format!("{time}, {worst}"))
        };
        assert_eq!((see(0, None), see(1, Some(5)), see(2, None)), (None, None, None));
        assert_eq!((see(10, Some(5)), see(12, Some(900)), see(13, Some(7))), (None, None, None));
        assert_eq!(see(15, None).unwrap().what, "5.0 s, 900");
        assert_eq!(see(16, None), None);
    }
}
