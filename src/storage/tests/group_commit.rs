//! Nothing is told before its fsync, and all that waits shares one.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;

use ennead_ring::{Key, Loaded};

use super::faulty_disk::{Faults, Torn};
use super::{Rig, error, key, put, record, small};
use crate::storage::Options;

#[test]
fn nothing_is_acknowledged_before_its_fsync_and_all_that_waits_shares_one() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let options = Options { disks: faults.disks(), ..Options::default() };
    let mut rig = Rig::open(dir.path(), options).unwrap();
    faults.stall_after(0);
    rig.persist(put(0, 0));
    faults.wait_for_sync(1);
    for n in 1..100 {
        rig.persist(put(n, n));
    }
    assert_eq!(rig.get(99), Loaded::Record(record(99, 50)));
    assert!(matches!(rig.events.try_recv(), Err(TryRecvError::Empty)), "told before the fsync");
    let stats = rig.storage.stats();
    assert_eq!((stats.queued, stats.durable), (100, 0));
    assert!(stats.fsync_running.is_some(), "a hanging disk shows");
    faults.go_on();
    rig.settle().unwrap();
    let stats = rig.storage.stats();
    assert_eq!((stats.queued, stats.durable, stats.groups), (0, 100, 2));
    assert_eq!((stats.group_sizes[0], stats.group_sizes[6]), (1, 1), "1, then the 99 that waited");
}

#[test]
fn a_load_sees_the_last_change_while_an_older_one_becomes_durable() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let options = Options { disks: faults.disks(), ..Options::default() };
    let mut rig = Rig::open(dir.path(), options).unwrap();
    faults.stall_after(0);
    rig.persist(put(1, 1));
    faults.wait_for_sync(1);
    rig.persist(put(1, 2));
    faults.stall_after(1);
    faults.wait_for_sync(2);
    let found = rig.get(1);
    // Before anything can panic: closing waits for the disk.
    faults.go_on();
    assert_eq!(found, Loaded::Record(record(2, 50)));
    rig.settle().unwrap();
}

#[test]
fn a_slow_store_slows_acknowledgements_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path(), small()).unwrap();
    for n in 0..5000 {
        rig.persist(put(n % 700, n));
    }
    rig.settle().unwrap();
    let stats = rig.storage.stats();
    assert!(stats.applied > 10 && stats.slowed > 0, "{stats:?}");
    assert!(stats.overlay_bytes < 40_000, "{stats:?}");
    assert!(stats.journal_files < 10, "files are used again: {stats:?}");
    for n in 4300..5000 {
        assert_eq!(rig.get(n % 700), Loaded::Record(record(n, 50)));
    }
    let expected: Vec<(Key, Loaded)> = (4300..5000)
        .map(|n| (key(n % 700), Loaded::Record(record(n, 50))))
        .collect::<BTreeMap<_, _>>()
        .into_iter()
        .collect();
    let scanned = rig.scan(64).unwrap();
    assert!(scanned == expected, "a scan sees every key once, in order");
}

#[test]
fn what_a_killed_process_left_unsynced_is_on_disk_before_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path(), Options::default()).unwrap();
    rig.persist(put(1, 1));
    rig.settle().unwrap();
    rig.storage.close();
    let faults = Arc::new(Faults::default());
    let options = Options { disks: faults.disks(), ..Options::default() };
    let rig = Rig::open(dir.path(), options.clone()).unwrap();
    assert_eq!(faults.syncs(), 1);
    rig.storage.close();
    faults.fail(2, io::ErrorKind::Other, Torn::Nothing);
    let refused = error(Rig::open(dir.path(), options)).to_string();
    assert!(refused.contains("fsync of the journal failed"), "{refused}");
}
