//! Tables that were not written to the end: they go while the store is open, and a table that lives never does.
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ennead_ring::Key;

use super::key;
use crate::storage::StorageError;
use crate::storage::ordered::{Kept, Ordered, keep};
use crate::storage::overlay::Layer;

/// Five runs of tables: enough to be merged, and too much for one table.
const RUNS: u32 = 5;
const KEYS: u32 = 8;

fn kept(run: u32, n: u32) -> Kept {
    // Nothing that could be compressed.
    let bytes: Vec<u8> =
        (0..100_000u32).map(|i| (i.wrapping_mul(0x9E37_79B1 ^ (run * KEYS + n)) >> 24) as u8).collect();
    keep(run, &bytes)
}

/// One piece, and what comes of it.
fn write(store: &Ordered, run: u32) -> Result<(), StorageError> {
    let mut layer = Layer::default();
    (0..KEYS).for_each(|n| layer.insert(key(run * KEYS + n), Some(kept(run, n))));
    let mut records = layer.records.iter().peekable();
    let piece = store.apply(&mut records, &layer)?;
    assert!(piece.last);
    store.flush(&piece)
}

fn filled(folder: &Path) -> Ordered {
    let store = Ordered::open(folder, true).unwrap();
    (0..RUNS).for_each(|run| write(&store, run).unwrap());
    assert!(store.is_untidy());
    store
}

fn tables(folder: &Path) -> BTreeSet<u64> {
    let names = fs::read_dir(folder.join("tables")).unwrap().map(|file| file.unwrap().file_name());
    names.map(|name| name.to_str().unwrap().parse().unwrap()).collect()
}

/// Whoever needs a file of this name fails.
struct Obstacle(PathBuf);

impl Obstacle {
    fn new(path: PathBuf) -> Self {
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Obstacle {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).unwrap();
    }
}

fn all(found: impl Iterator<Item = Result<(Key, Kept), StorageError>>) -> Vec<Key> {
    found.map(|found| found.unwrap().0).collect()
}

#[test]
fn a_merge_that_is_broken_off_leaves_nothing_behind_and_takes_nothing_along() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let before = tables(dir.path());
    let next = before.last().unwrap() + 1;
    let wanted: BTreeSet<Key> = (0..RUNS * KEYS).map(key).collect();
    // The first table of the merge is written, and the second one cannot be.
    let obstacle = Obstacle::new(dir.path().join("tables").join((next + 1).to_string()));
    let early = store.scan(None);
    let error = store.tidy().unwrap_err().to_string();
    assert!(error.contains("merging the records"), "{error}");
    drop(obstacle);
    assert_eq!(tables(dir.path()), before);
    assert_eq!(all(store.scan(None)).into_iter().collect::<BTreeSet<_>>(), wanted);

    // What is merged away is still read by whoever began before, whatever failed meanwhile.
    assert!(store.tidy().unwrap());
    let version = Obstacle::new(next_version(dir.path()));
    write(&store, RUNS).unwrap_err();
    drop(version);
    store.remove_leftovers();
    assert!(tables(dir.path()).is_superset(&before), "a scan reads them");
    assert!(all(early).into_iter().collect::<BTreeSet<_>>().is_superset(&wanted));
    drop(store);
    let store = Ordered::open(dir.path(), false).unwrap();
    assert!(all(store.scan(None)).into_iter().collect::<BTreeSet<_>>().is_superset(&wanted));
}

/// The file of the version after the present one.
fn next_version(folder: &Path) -> PathBuf {
    let current = fs::read(folder.join("current")).unwrap();
    let number = u64::from_le_bytes(*current.first_chunk().unwrap());
    folder.join(format!("v{}", number + 1))
}

/// A full disk in earnest: a small file system that holds the store once, and not its merged tables beside it.
#[test]
fn a_merge_that_a_full_disk_breaks_off_leaves_the_room_that_there_was() {
    const TEST: &str =
        "storage::tests::leftovers::a_merge_that_a_full_disk_breaks_off_leaves_the_room_that_there_was";
    let Some(dir) = std::env::var_os("STORAGE_TEST_SMALL_DISK") else {
        let dir = tempfile::tempdir().unwrap();
        let mount = "mount -t tmpfs -o size=8m none \"$0\" || exit 77; exec \"$@\"";
        let mut child = Command::new("unshare");
        child.args(["-rm", "sh", "-c", mount]).arg(dir.path()).arg(std::env::current_exe().unwrap());
        child.args(["--exact", TEST, "--nocapture"]).env("STORAGE_TEST_SMALL_DISK", dir.path());
        let told = child.output();
        match &told {
            Ok(told) if told.status.success() => {
                assert!(String::from_utf8_lossy(&told.stdout).contains("1 passed"), "{told:?}");
            }
            Ok(told) if !String::from_utf8_lossy(&told.stdout).contains("running") => {
                eprintln!("SKIPPED: this system does not let us mount a small file system");
            }
            _ => panic!("{told:?}"),
        }
        return;
    };
    let dir = PathBuf::from(dir);
    let folder = dir.join("records");
    fs::create_dir(&folder).unwrap();
    let store = filled(&folder);
    let before = tables(&folder);
    // Room for one of the merged tables, and not for the next.
    fs::write(dir.join("filler"), vec![1; 1_400_000]).unwrap();
    for _ in 0..3 {
        let error = store.tidy().unwrap_err();
        assert!(error.is_full(), "{error}");
        assert_eq!(tables(&folder), before);
    }
    fs::remove_file(dir.join("filler")).unwrap();
    assert!(store.tidy().unwrap());
    drop(store);
    let store = Ordered::open(&folder, false).unwrap();
    assert_eq!(all(store.scan(None)).len() as u32, RUNS * KEYS);
}

#[test]
fn a_table_that_came_into_no_version_goes_once_the_version_on_disk_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let before = tables(dir.path());
    let obstacle = Obstacle::new(next_version(dir.path()));
    write(&store, RUNS).unwrap_err();
    drop(obstacle);
    let with_it = tables(dir.path());
    assert_eq!(with_it.len(), before.len() + 1, "it was written, and is in no version");

    // As if the next version had come onto the disk after all: a restart would look for what is in it.
    let (at, current) = (dir.path().join("current"), fs::read(dir.path().join("current")).unwrap());
    let mut later = current.clone();
    later[0] += 1;
    fs::write(&at, later).unwrap();
    store.remove_leftovers();
    assert_eq!(tables(dir.path()), with_it);
    fs::write(&at, current).unwrap();
    store.remove_leftovers();
    assert_eq!(tables(dir.path()), before);

    // Tried again it is written under another number, and all is there after a restart.
    write(&store, RUNS).unwrap();
    store.remove_leftovers();
    assert_eq!(tables(dir.path()).len(), before.len() + 1);
    drop(store);
    let store = Ordered::open(dir.path(), false).unwrap();
    assert_eq!(all(store.scan(None)).len() as u32, (RUNS + 1) * KEYS);
}
