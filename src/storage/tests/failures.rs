//! Whatever cannot be written ends it with a reason, and nothing more is promised.

use std::fs;
use std::io;
use std::sync::Arc;

use ennead_ring::Loaded;

use super::faulty_disk::{Faults, Torn};
use super::{Rig, put, record, small};
use crate::storage::disk::Disk;
use crate::storage::{Options, StorageError};

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
fn a_full_disk_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let options = Options { disks: faults.disks(), ..Options::default() };
    let mut rig = Rig::open(dir.path(), options).unwrap();
    faults.fail(1, io::ErrorKind::StorageFull, Torn::Prefix(20));
    rig.persist(put(2, 2));
    let reason = rig.settle().unwrap_err();
    assert!(matches!(reason, StorageError::DiskFull { .. }), "{reason:?}");
    assert!(reason.to_string().starts_with("disk full: "), "{reason}");
}
