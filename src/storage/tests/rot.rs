//! Bytes that change on disk are blamed on one record, which is then mute, or refused.

use std::fs;
use std::io::{Seek, SeekFrom, Write};

use ennead_ring::{Change, Loaded};

use super::crash_images::Image;
use super::{Rig, key, limits, put, record, small};
use crate::storage::entry::Kind;
use crate::storage::{Options, StorageError};

#[test]
fn rot_before_later_groups_is_blamed_on_one_record_or_refused() {
    let image = Image::new();
    let (mut blamed, mut refused) = (0, 0);
    for at in image.groups[0].start..image.groups[1].end {
        for flip in [0x01, 0xff] {
            let mut bytes = image.bytes.clone();
            bytes[at] ^= flip;
            match image.reopen(&bytes) {
                Err(StorageError::Damaged { .. }) => refused += 1,
                Err(other) => panic!("byte {at}: {other}"),
                Ok((_, entries)) => {
                    assert_eq!(entries.len(), image.entries.len(), "byte {at}");
                    let differ: Vec<_> = entries.iter().zip(&image.entries).filter(|(a, b)| a != b).collect();
                    // At most the one record, by name; padding may rot unnoticed. Whatever else is lost has no
                    // key that could be mute.
                    assert!(differ.len() <= 1, "byte {at}");
                    if let [(found, was)] = differ[..] {
                        assert_eq!((found.kind, was.kind), (Kind::Record, Kind::Record), "byte {at}");
                        assert_eq!((&found.key, &found.body), (&was.key, &None), "byte {at}");
                        blamed += 1;
                    }
                }
            }
        }
    }
    assert!(blamed > 50 && refused > 50, "{blamed} blamed, {refused} refused");
}

#[test]
fn a_lost_sector_before_later_groups_is_refused() {
    let image = Image::new();
    let mut bytes = image.bytes.clone();
    bytes[image.groups[1].clone()].fill(0);
    let Err(refused) = image.reopen(&bytes) else { panic!("opened") };
    assert!(refused.to_string().contains("entry 4 is missing, and entries of later groups are there"));
    assert!(refused.to_string().contains("must not vote again"), "{refused}");
}

#[test]
fn a_record_rotten_in_the_journal_makes_its_key_mute_for_good_until_it_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path(), Options::default()).unwrap();
    for n in 0..3 {
        rig.persist(put(n, n));
        rig.settle().unwrap();
    }
    rig.storage.close();
    let path = dir.path().join("journal/000001");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(5).position(|w| w == b"key-1").unwrap() + 20;
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    for round in 0..3 {
        let mut rig = Rig::open(dir.path(), small()).unwrap();
        assert_eq!(rig.get(0), Loaded::Record(record(0, 50)));
        assert_eq!(rig.get(1), Loaded::Unreadable, "round {round}");
        assert_eq!(rig.get(2), Loaded::Record(record(2, 50)));
        assert_eq!(rig.storage.stats().unreadable, 1);
        // Enough for the ordered store to take it over, and the journal file to be used again.
        for n in 100..300 {
            rig.persist(put(n, n));
        }
        rig.settle().unwrap();
        assert_eq!(rig.get(1), Loaded::Unreadable, "round {round}");
        rig.storage.close();
    }
    let mut rig = Rig::open(dir.path(), small()).unwrap();
    assert!(rig.scan(1000).unwrap().contains(&(key(1), Loaded::Unreadable)));
    rig.persist(put(1, 77));
    rig.settle().unwrap();
    assert_eq!(rig.get(1), Loaded::Record(record(77, 50)), "whole again");
}

#[test]
fn rot_in_the_last_group_is_no_torn_end_once_storage_was_closed() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path(), Options::default()).unwrap();
    rig.persist(put(1, 1));
    rig.persist(Change::Limits(limits(9)));
    rig.settle().unwrap();
    rig.storage.close();
    let path = dir.path().join("journal/000001");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(5).position(|w| w == b"key-1").unwrap() + 20;
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let mut rig = Rig::open(dir.path(), Options::default()).unwrap();
    assert_eq!(rig.get(1), Loaded::Unreadable);
    assert_eq!(rig.restored.limits, limits(9));
}

#[test]
fn rot_in_the_ordered_store_makes_keys_mute_and_never_blind() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { overlay_bytes: 100_000, ..Options::default() };
    let mut rig = Rig::open(dir.path(), options()).unwrap();
    for n in 0..1000 {
        rig.persist(put(n, n));
    }
    rig.settle().unwrap();
    while rig.storage.stats().applied == 0 {
        std::thread::yield_now();
    }
    rig.storage.close();
    let tables = fs::read_dir(dir.path().join("records/tables")).unwrap();
    let table = tables.map(|t| t.unwrap().path()).min().unwrap();
    let sound = fs::read(&table).unwrap();
    let (mut mute, mut refused) = (0, 0);
    for at in (0..sound.len()).step_by(sound.len() / 60) {
        let mut file = fs::OpenOptions::new().write(true).open(&table).unwrap();
        file.seek(SeekFrom::Start(at as u64)).unwrap();
        file.write_all(&[sound[at] ^ 0x10]).unwrap();
        drop(file);
        match Rig::open(dir.path(), options()) {
            Err(e) => {
                assert!(matches!(e, StorageError::Damaged { .. }), "byte {at}: {e}");
                refused += 1;
            }
            Ok(mut rig) => {
                let mut mute_now = 0;
                for n in 0..1000 {
                    match rig.get(n) {
                        Loaded::Record(found) => assert_eq!(found, record(n, 50), "byte {at}"),
                        Loaded::Unreadable => mute_now += 1,
                        Loaded::Nothing => panic!("byte {at}: blind for key-{n}"),
                    }
                }
                assert!(mute_now < 1000, "byte {at}: the keys in the journal are sound");
                mute += usize::from(mute_now > 0);
            }
        }
        fs::write(&table, &sound).unwrap();
    }
    assert!(mute > 20, "{mute} times mute, {refused} refused");
}
