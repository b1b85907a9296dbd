//! Test-only: faults that files in a machine's data directory ask for, so that a test can make a real process fail.
//!
//! | file | what it does |
//! |---|---|
//! | `slow-disk` | each fsync of the journal first waits so many milliseconds |
//! | `failing-disk` | each fsync of the journal fails, for as long as the file is there |
//! | `panics` | the next so many fsyncs of the journal's writer panic instead |
//! | `clock-off` | the clock of this run is so many milliseconds ahead, or behind |
//! | `program` | the version that this run says its program is of |
//! | `wire` | the version of the wire that this run speaks |
//!
//! Nothing is looked for unless the process was started with `--test-faults`.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static WANTED: AtomicBool = AtomicBool::new(false);
static OF_THIS_RUN: OnceLock<OfRun> = OnceLock::new();

/// What does not change while a run lasts.
#[derive(Default)]
struct OfRun {
    clock_off_ms: i64,
    program: Option<String>,
    wire: Option<String>,
}

/// Looks for faults from now on: in this directory for those of the whole run, and in that of each journal.
#[doc(hidden)]
pub fn begin(data: &Path) {
    WANTED.store(true, Relaxed);
    let of_this_run = OfRun {
        clock_off_ms: read(&data.join("clock-off")).unwrap_or(0),
        program: read(&data.join("program")),
        wire: read(&data.join("wire")),
    };
    // Whoever asked before has its answer, and keeps it.
    let _ = OF_THIS_RUN.set(of_this_run);
}

fn read<T: FromStr>(path: &Path) -> Option<T> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn of_this_run() -> &'static OfRun {
    OF_THIS_RUN.get_or_init(OfRun::default)
}

/// How far ahead of the system's this run's clock is to be.
pub(crate) fn clock_off_ms() -> i64 {
    of_this_run().clock_off_ms
}

/// What to say that the program's version is.
pub(crate) fn program() -> Option<&'static str> {
    of_this_run().program.as_deref()
}

/// Which version of the wire to speak.
pub(crate) fn wire() -> Option<&'static str> {
    of_this_run().wire.as_deref()
}

/// The faults of one journal, read anew at each fsync.
pub(crate) struct OfDisk {
    slow: PathBuf,
    failing: PathBuf,
    panics: PathBuf,
}

impl OfDisk {
    /// Of the journal of this data directory; `None` where no faults are wanted.
    pub(crate) fn of(data: &Path) -> Option<Self> {
        let wanted = WANTED.load(Relaxed);
        wanted.then(|| Self {
            slow: data.join("slow-disk"),
            failing: data.join("failing-disk"),
            panics: data.join("panics"),
        })
    }

    /// How long an fsync is to wait first.
    pub(crate) fn wait_ms(&self) -> u64 {
        read(&self.slow).unwrap_or(0)
    }

    /// True if it is to fail.
    pub(crate) fn fails(&self) -> bool {
        self.failing.exists()
    }

    /// True if one is to panic, which is then one less.
    pub(crate) fn panics(&self) -> bool {
        let left: u64 = read(&self.panics).unwrap_or(0);
        left > 0 && std::fs::write(&self.panics, (left - 1).to_string()).is_ok()
    }
}
