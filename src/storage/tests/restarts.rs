//! What was handed in is there at once, and still there after a restart.

use std::fs;
use std::io::Read;

use ennead_ring::{Change, Incarnation, Limits, Loaded, Ticket};

use super::{Rig, key, limits, put, record, small, view};
use crate::storage::{Options, StorageEvent};

#[test]
fn a_blank_directory_gets_an_incarnation_that_it_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let rig = Rig::open(&path, Options::default()).unwrap();
    assert!(rig.restored.fresh);
    assert_ne!(rig.restored.incarnation, Incarnation::NONE);
    assert_eq!((rig.restored.limits, rig.restored.views.len()), (Limits::default(), 0));
    let incarnation = rig.restored.incarnation;
    rig.storage.close();
    for _ in 0..2 {
        let rig = Rig::open(&path, Options::default()).unwrap();
        assert!(!rig.restored.fresh);
        assert_eq!(rig.restored.incarnation, incarnation);
    }
    let text = fs::read_to_string(path.join("ennead-data")).unwrap();
    assert!(text.starts_with("ennead data, format 4\n"), "{text}");
}

#[test]
fn an_unfinished_creation_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path(), Options::default()).unwrap();
    rig.storage.close();
    fs::rename(dir.path().join("ennead-data"), dir.path().join("ennead-data.new")).unwrap();
    let again = Rig::open(dir.path(), Options::default()).unwrap();
    assert!(again.restored.fresh);
    assert_ne!(again.restored.incarnation, rig.restored.incarnation);
}

#[test]
fn what_was_persisted_is_there_at_once_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path(), Options::default()).unwrap();
    assert_eq!(rig.get(1), Loaded::Nothing);
    rig.persist(put(1, 10));
    assert_eq!(rig.get(1), Loaded::Record(record(10, 50)), "durable or not");
    rig.persist(Change::Limits(limits(5)));
    rig.persist(Change::View(view(1)));
    rig.persist(Change::View(view(2)));
    rig.persist(put(1, 11));
    rig.persist(put(2, 12));
    rig.settle().unwrap();
    let check = |rig: &mut Rig| {
        assert_eq!(rig.get(1), Loaded::Record(record(11, 50)));
        assert_eq!(rig.get(2), Loaded::Record(record(12, 50)));
        assert_eq!(rig.get(3), Loaded::Nothing);
    };
    check(&mut rig);
    rig.storage.close();
    for _ in 0..3 {
        let mut rig = Rig::open(dir.path(), Options::default()).unwrap();
        check(&mut rig);
        assert_eq!(rig.restored.limits, limits(5));
        assert_eq!(rig.restored.views, [view(1), view(2)]);
        assert_eq!(rig.restored.records, 2);
    }
}

#[test]
fn closing_makes_durable_what_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path(), small()).unwrap();
    for n in 0..500 {
        rig.persist(put(n, n));
    }
    let Rig { storage, events, .. } = rig;
    storage.close();
    let last = events.iter().map(|event| match event {
        StorageEvent::Durable(ticket) => ticket,
        other => panic!("{other:?}"),
    });
    assert_eq!(last.last(), Some(Ticket(500)));
    let mut rig = Rig::open(dir.path(), small()).unwrap();
    for n in 0..500 {
        assert_eq!(rig.get(n), Loaded::Record(record(n, 50)));
    }
}

#[test]
fn a_huge_value_takes_a_file_of_its_own_size() {
    let dir = tempfile::tempdir().unwrap();
    let big = |n| Change::Record { key: key(n), record: record(n, 300_000) };
    let mut rig = Rig::open(dir.path(), small()).unwrap();
    for n in 0..4 {
        rig.persist(put(100 + n, n));
        rig.persist(big(n));
    }
    rig.settle().unwrap();
    rig.storage.close();
    let mut rig = Rig::open(dir.path(), small()).unwrap();
    for n in 0..4 {
        assert_eq!(rig.get(n), Loaded::Record(record(n, 300_000)));
        assert_eq!(rig.get(100 + n), Loaded::Record(record(n, 50)));
    }
    let mut mark = String::new();
    fs::File::open(dir.path().join("lock")).unwrap().read_to_string(&mut mark).unwrap();
    assert_eq!(mark, format!("{}\n", std::process::id()));
}
