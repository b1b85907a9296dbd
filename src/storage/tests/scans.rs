//! All that is kept, page by page: every key once, in order, and none that was forgotten.

use std::fs;
use std::io::{Seek, SeekFrom, Write};

use ennead_ring::{Change, Loaded, Scan};

use super::{Rig, error, forget, key, put, record, small};
use crate::storage::{Options, StorageError, StorageEvent};

/// Waits until everything so far is in the ordered store, or nearly so.
fn apply(rig: &mut Rig) {
    rig.settle().unwrap();
    let applied = rig.storage.stats().applied;
    for n in 0.. {
        rig.persist(put(9000, n));
        if n % 50 == 0 {
            rig.settle().unwrap();
            if rig.storage.stats().applied >= applied + 2 {
                break;
            }
        }
    }
    rig.settle().unwrap();
}

#[test]
fn a_page_is_bounded_by_keys_and_by_bytes_and_tells_whether_it_is_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path(), Options::default()).unwrap();
    let page = rig.page(None, 10, 1000).unwrap();
    assert!(page.end && page.found.is_empty());
    for n in 0..10 {
        rig.persist(put(n, n));
    }
    rig.settle().unwrap();
    let page = rig.page(None, 10, usize::MAX).unwrap();
    assert!(page.end && page.found.len() == 10, "full, and there are no more");
    assert_eq!(page.total, 10);
    let page = rig.page(None, 9, usize::MAX).unwrap();
    assert!(!page.end && page.found.len() == 9);
    let page = rig.page(Some(&key(8)), 9, usize::MAX).unwrap();
    assert!(page.end);
    assert_eq!(page.found, [(key(9), Loaded::Record(record(9, 50)))]);
    // A record takes more than 50 bytes and less than 100.
    let page = rig.page(None, 10, 200).unwrap();
    assert!(!page.end && (2..5).contains(&page.found.len()), "{}", page.found.len());
    // However small the bound, it goes on.
    for (keys, bytes) in [(0, 1000), (10, 0)] {
        let page = rig.page(None, keys, bytes).unwrap();
        assert!(!page.end && page.found.len() == 1);
    }
}

#[test]
fn a_forgotten_key_is_nothing_at_once_and_in_every_layer_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path(), small()).unwrap();
    for n in 0..300 {
        rig.persist(put(n, n));
    }
    // Old and in the ordered store, durable, and not durable yet: forgotten in each.
    apply(&mut rig);
    let check = |rig: &mut Rig, kept: &[u32]| {
        for n in 0..310 {
            let expected = if kept.contains(&n) { Loaded::Record(record(n, 50)) } else { Loaded::Nothing };
            assert_eq!(rig.get(n), expected, "key-{n}");
        }
        let mut expected: Vec<_> = kept.iter().map(|&n| (key(n), Loaded::Record(record(n, 50)))).collect();
        expected.sort_by(|(a, _), (b, _)| a.cmp(b));
        for keys in [1, 7, 1000] {
            let mut scanned = rig.scan(keys).unwrap();
            scanned.retain(|(key, _)| *key != super::key(9000));
            assert_eq!(scanned, expected, "in pages of {keys}");
        }
    };
    let mut kept: Vec<u32> = (0..300).collect();
    for round in 0..3 {
        for n in (0..300).filter(|n| n % 4 == round) {
            rig.persist(forget(n));
        }
        kept.retain(|n| n % 4 != round);
        check(&mut rig, &kept);
        apply(&mut rig);
        check(&mut rig, &kept);
        rig.storage.close();
        rig = Rig::open(dir.path(), small()).unwrap();
        check(&mut rig, &kept);
    }
    // And it can be kept again.
    for n in 0..4 {
        rig.persist(forget(n));
        rig.persist(put(n, n));
    }
    kept.retain(|n| *n > 3);
    kept.extend(0..4);
    check(&mut rig, &kept);
    apply(&mut rig);
    rig.storage.close();
    check(&mut Rig::open(dir.path(), small()).unwrap(), &kept);
}

#[test]
fn a_key_that_is_lost_can_be_forgotten() {
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
    let mut rig = Rig::open(dir.path(), Options::default()).unwrap();
    assert_eq!(
        rig.page(None, 9, 1000).unwrap().found[1],
        (key(1), Loaded::Unreadable),
        "told, under its key"
    );
    rig.persist(forget(1));
    assert_eq!(rig.get(1), Loaded::Nothing);
    assert_eq!(rig.scan(9).unwrap().len(), 2);
    rig.settle().unwrap();
    rig.storage.close();
    assert_eq!(Rig::open(dir.path(), Options::default()).unwrap().get(1), Loaded::Nothing);
}

#[test]
fn a_scan_under_changes_sees_every_key_that_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path(), small()).unwrap();
    for n in 0..600 {
        rig.persist(put(n, n));
    }
    let Rig { storage, events, next, .. } = rig;
    // Every third key stays; the others come and go while pages are taken.
    let (mut ticket, mut seen) = (next, Vec::new());
    for round in 0..40u32 {
        let after = seen.last().cloned();
        storage.scan_for(Scan(u64::from(round)), after, 20, usize::MAX);
        for n in (0..600).filter(|n| n % 3 > 0) {
            let change = if (n + round) % 2 == 0 { forget(n) } else { put(n, round) };
            storage.persist(ennead_ring::Ticket(ticket), change);
            ticket += 1;
        }
        let (found, end) = loop {
            match events.recv().unwrap() {
                StorageEvent::Scanned { scan, found, end, .. } => {
                    assert_eq!(scan, Scan(u64::from(round)));
                    break (found, end);
                }
                StorageEvent::Durable(_) => {}
                other => panic!("{other:?}"),
            }
        };
        seen.extend(found.into_iter().map(|(key, _)| key));
        if end {
            break;
        }
    }
    assert!(seen.is_sorted_by(|a, b| a < b));
    let stay = (0..600).filter(|n| n % 3 == 0).map(key);
    for key in stay.filter(|key| seen.last() > Some(key)) {
        assert!(seen.contains(&key), "{key:?} was missed");
    }
    assert!(seen.len() > 300);
}

#[test]
fn a_part_that_cannot_be_scanned_is_told_as_damage_and_remembered_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path(), Options::default()).unwrap();
    for n in 0..1000 {
        rig.persist(put(n, n));
    }
    rig.persist(Change::Limits(super::limits(3)));
    rig.settle().unwrap();
    rig.storage.close();
    // Everything into the ordered store.
    let mut rig = Rig::open(dir.path(), Options { overlay_bytes: 1, ..Options::default() }).unwrap();
    rig.persist(put(2000, 1));
    rig.settle().unwrap();
    while rig.storage.stats().applied == 0 {
        std::thread::yield_now();
    }
    rig.storage.close();
    let tables = fs::read_dir(dir.path().join("records/tables")).unwrap();
    let table = tables.map(|t| t.unwrap().path()).max_by_key(|t| fs::metadata(t).unwrap().len()).unwrap();
    let sound = fs::read(&table).unwrap();
    let (mut damaged, mut refused) = (0, 0);
    for at in (0..sound.len()).step_by(sound.len() / 40) {
        let mut file = fs::OpenOptions::new().write(true).open(&table).unwrap();
        file.seek(SeekFrom::Start(at as u64)).unwrap();
        file.write_all(&[sound[at] ^ 0x10]).unwrap();
        drop(file);
        match Rig::open(dir.path(), Options::default()) {
            Err(e) => {
                assert!(e.is_damage(), "byte {at}: {e}");
                refused += 1;
            }
            Ok(mut rig) => match rig.scan(100) {
                Ok(found) => {
                    for n in (0..1000).chain([2000]) {
                        let found = found.iter().find(|(k, _)| *k == key(n)).map(|(_, there)| there);
                        let expected = Loaded::Record(record(if n == 2000 { 1 } else { n }, 50));
                        assert!(
                            found == Some(&expected) || found == Some(&Loaded::Unreadable),
                            "byte {at}: blind for key-{n}"
                        );
                    }
                }
                Err(e) => {
                    assert!(matches!(e, StorageError::Damaged { .. }), "byte {at}: {e}");
                    damaged += 1;
                    rig.storage.close();
                    // The rot may be gone by then, the doubt is not.
                    fs::write(&table, &sound).unwrap();
                    let refused = error(Rig::open(dir.path(), Options::default()));
                    assert!(refused.is_damage(), "byte {at}: {refused}");
                    assert!(refused.to_string().contains("looking through the records failed"), "{refused}");
                    fs::remove_file(dir.path().join("doubtful")).unwrap();
                }
            },
        }
        fs::write(&table, &sound).unwrap();
    }
    assert!(damaged > 10, "{damaged} times damaged, {refused} refused");
}
