//! Whatever cannot be written ends it with a reason, and nothing more is promised; but a full disk is waited out.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use ennead_ring::{Change, Loaded};

use super::faulty_disk::{Faults, Torn};
use super::{Rig, limits, put, record, small};
use crate::storage::Options;
use crate::storage::disk::{Disk, Disks, FileDisk};
use crate::storage::room::Look;

#[test]
fn an_fsync_error_ends_it_with_a_reason_and_is_never_retried() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let options = Options { disks: faults.disks(), ..Options::default() };
    let mut rig = Rig::open(dir.path(), options).unwrap();
    rig.persist(put(1, 1));
    rig.settle().unwrap();
    faults.fail(2, io::ErrorKind::Other, Torn::Nothing);
    rig.persist(put(2, 2));
    let reason = rig.settle().unwrap_err().to_string();
    assert!(reason.contains("fsync of the journal failed") && reason.contains("nothing more"), "{reason}");
    rig.persist(put(3, 3));
    let Rig { storage, events, .. } = rig;
    storage.close();
    assert_eq!(events.iter().count(), 0, "after Failed nothing is told of durability");
    assert_eq!(faults.syncs(), 2);
    let mut rig = Rig::open(dir.path(), Options::default()).unwrap();
    assert_eq!(rig.get(1), Loaded::Record(record(1, 50)));
    assert_eq!(rig.get(2), Loaded::Nothing);
}

/// A journal file as its disk has it: what the system only believes to be there, a power cut takes.
struct Platter {
    inner: FileDisk,
    platter: File,
    /// Written since the last fsync.
    dirty: Vec<(u64, Vec<u8>)>,
    fails: Arc<AtomicBool>,
}

impl Platter {
    /// The files of `platters` are those of the journal, each under its own name.
    fn disks(platters: &Path, fails: &Arc<AtomicBool>) -> Disks {
        let (platters, fails) = (platters.to_owned(), fails.clone());
        Arc::new(move |file, path| {
            let platter = platters.join(path.file_name().unwrap());
            if !platter.exists() {
                fs::copy(path, &platter).unwrap();
            }
            let platter = File::options().write(true).open(platter).unwrap();
            Box::new(Self { inner: FileDisk(file), platter, dirty: Vec::new(), fails: fails.clone() })
        })
    }
}

impl Disk for Platter {
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.dirty.push((at, bytes.to_vec()));
        self.inner.write(at, bytes)
    }

    // As Linux does it: what could not be written is in memory, whoever reads sees it, and no later fsync writes it.
    fn sync(&mut self) -> io::Result<()> {
        let dirty = std::mem::take(&mut self.dirty);
        if self.fails.load(Relaxed) {
            return Err(io::Error::other("an error of the disk"));
        }
        dirty.iter().try_for_each(|(at, bytes)| self.platter.write_all_at(bytes, *at))
    }
}

#[test]
fn r2_what_a_failed_fsync_left_in_memory_is_written_again_before_it_is_told() {
    let (dir, platters) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let fails = Arc::new(AtomicBool::new(false));
    let options = || Options { disks: Platter::disks(platters.path(), &fails), ..Options::default() };
    let mut rig = Rig::open(dir.path(), options()).unwrap();
    rig.persist(put(1, 1));
    rig.settle().unwrap();
    fails.store(true, Relaxed);
    rig.persist(put(2, 2));
    rig.settle().unwrap_err();
    drop(rig);
    assert!(Rig::open(dir.path(), options()).is_err(), "the disk is no better");

    fails.store(false, Relaxed);
    let mut rig = Rig::open(dir.path(), options()).unwrap();
    // Nobody was told of the second one before. From now on others are: as a vote.
    assert_eq!(rig.get(2), Loaded::Record(record(2, 50)));
    drop(rig);
    for platter in fs::read_dir(platters.path()).unwrap() {
        let platter = platter.unwrap();
        fs::copy(platter.path(), dir.path().join("journal").join(platter.file_name())).unwrap();
    }
    let mut rig = Rig::open(dir.path(), Options::default()).unwrap();
    assert_eq!(rig.get(1), Loaded::Record(record(1, 50)));
    assert_eq!(rig.get(2), Loaded::Record(record(2, 50)), "it was told of, and the power cut took it");
}

#[test]
fn an_ordered_store_that_cannot_be_written_ends_it_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path(), small()).unwrap();
    rig.persist(put(1, 1));
    rig.settle().unwrap();
    fs::remove_dir_all(dir.path().join("records/tables")).unwrap();
    let reason = loop {
        for n in 0..20 {
            rig.persist(put(n, n));
        }
        if let Err(reason) = rig.settle() {
            break reason.to_string();
        }
    };
    assert!(reason.contains("writing the records failed"), "{reason}");
}

#[test]
fn a_journal_file_that_cannot_be_made_ends_it_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    // Nothing is applied, so every full file asks for another.
    let options = Options { overlay_bytes: 1 << 30, unapplied_bytes: 1 << 30, ..small() };
    let mut rig = Rig::open(dir.path(), options).unwrap();
    rig.persist(put(1, 1));
    rig.settle().unwrap();
    fs::rename(dir.path().join("journal"), dir.path().join("moved")).unwrap();
    let reason = loop {
        rig.persist(put(2, 2));
        if let Err(reason) = rig.settle() {
            break reason.to_string();
        }
    };
    assert!(reason.contains("creating a journal file failed"), "{reason}");
}

#[test]
fn a_panic_in_a_storage_thread_is_told_as_a_failure() {
    struct Panics;
    impl Disk for Panics {
        fn write(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
            panic!("out of ideas");
        }
        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let options = Options { disks: Arc::new(|_, _| Box::new(Panics)), ..Options::default() };
    let mut rig = Rig::open(dir.path(), options).unwrap();
    rig.persist(put(1, 1));
    let reason = rig.settle().unwrap_err().to_string();
    assert!(reason.contains("the storage writer panicked: out of ideas"), "{reason}");
}

#[test]
fn an_fsync_that_fails_for_want_of_room_is_a_failed_fsync() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let options = Options { disks: faults.disks(), ..Options::default() };
    let mut rig = Rig::open(dir.path(), options).unwrap();
    faults.fail(1, io::ErrorKind::StorageFull, Torn::Prefix(20));
    rig.persist(put(2, 2));
    let reason = rig.settle().unwrap_err();
    assert!(reason.to_string().contains("fsync of the journal failed"), "{reason}");
}

/// A storage whose disk is filled and emptied by the test, with 1 MiB in reserve.
struct Filling {
    rig: Rig,
    faults: Arc<Faults>,
    free: Arc<AtomicU64>,
}

impl Filling {
    fn open(dir: &Path) -> Self {
        let (faults, free) = (Arc::new(Faults::default()), Arc::new(AtomicU64::new(1 << 30)));
        let told = free.clone();
        let look: Look = Arc::new(move |_| Some(told.load(Relaxed)));
        let options = Options { disks: faults.disks(), look, reserve_bytes: 1 << 20, ..small() };
        Self { rig: Rig::open(dir, options).unwrap(), faults, free }
    }

    fn fill(&self, full: bool) {
        self.free.store(if full { 0 } else { 1 << 30 }, Relaxed);
        self.faults.fill(full);
    }

    /// Waits until it notices.
    fn is_short(&self, short: bool) {
        while self.rig.storage.is_short_of_room() != short {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_full_disk_is_waited_out_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Filling::open(dir.path());
    disk.rig.persist(put(1, 1));
    disk.rig.settle().unwrap();
    disk.is_short(false);
    disk.fill(true);
    for n in 2..200 {
        disk.rig.persist(put(n, n));
    }
    let told = disk.rig.events.recv_timeout(Duration::from_millis(600));
    assert!(told.is_err(), "{told:?}");
    disk.is_short(true);
    assert!(disk.rig.storage.backlog() > 0 && disk.rig.storage.stats().fsync_running.is_none());
    disk.fill(false);
    disk.rig.settle().unwrap();
    disk.is_short(false);
    assert_eq!(disk.rig.storage.backlog(), 0);
    drop(disk);
    let mut rig = Rig::open(dir.path(), small()).unwrap();
    for n in 1..200 {
        assert_eq!(rig.get(n), Loaded::Record(record(n, 50)), "{n}");
    }
}

#[test]
fn values_are_refused_before_the_disk_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Filling::open(dir.path());
    disk.free.store((1 << 20) - 1, Relaxed);
    disk.is_short(true);
    // What must be written is.
    disk.rig.persist(Change::Limits(limits(7)));
    disk.rig.settle().unwrap();
    // A little more than was missing, or it would be on and off with each file.
    disk.free.store(1 << 20, Relaxed);
    thread::sleep(Duration::from_millis(600));
    disk.is_short(true);
    disk.free.store(2 << 20, Relaxed);
    disk.is_short(false);
}

#[test]
fn closing_does_not_wait_for_room_and_keeps_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Filling::open(dir.path());
    disk.rig.persist(put(1, 1));
    disk.rig.settle().unwrap();
    disk.fill(true);
    disk.rig.persist(put(2, 2));
    disk.is_short(true);
    drop(disk);
    let mut rig = Rig::open(dir.path(), small()).unwrap();
    assert_eq!((rig.get(1), rig.get(2)), (Loaded::Record(record(1, 50)), Loaded::Nothing));
}
