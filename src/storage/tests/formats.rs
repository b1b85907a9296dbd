//! Directories of an older format open, and are of this one from then on.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ennead_ring::{Account, Change, ClusterId, Decree, Epoch, Incarnation, Loaded, Machine, Member, View};

use super::{Rig, account, decree, put, record, small, view};

/// Makes the directory look as a program of this format left it: nothing of a later one may be in it.
fn age(dir: &Path, format: u32) {
    let mark = dir.join("ennead-data");
    let text = fs::read_to_string(&mark).unwrap().replace("format 4", &format!("format {format}"));
    let (text, _) = text.split_once("checksum").unwrap();
    let sum = crc32c::crc32c(text.as_bytes());
    fs::write(mark, format!("{text}checksum {sum:08x}\n")).unwrap();
}

/// View 1, with this machine in it.
fn first_view(me: Incarnation) -> Arc<View> {
    let machine = Machine { name: "10.0.0.1".parse().unwrap(), incarnation: me };
    let member = Member::up(machine, 1);
    Arc::new(View::new(ClusterId::new(1), Epoch::FIRST, 9, vec![member], vec![]).unwrap())
}

#[test]
fn a_directory_of_format_1_opens_with_the_account_of_view_1_and_is_marked_anew() {
    for options in [small(), crate::storage::Options::default()] {
        let dir = tempfile::tempdir().unwrap();
        let mut rig = Rig::open(dir.path(), options.clone()).unwrap();
        assert_eq!(rig.restored.account, Account::default(), "blank: on no view");
        let view = first_view(rig.restored.incarnation);
        rig.persist(Change::View(view.clone()));
        for n in 0..200 {
            rig.persist(put(n, n));
        }
        rig.settle().unwrap();
        rig.storage.close();
        age(dir.path(), 1);
        for _ in 0..2 {
            let mut rig = Rig::open(dir.path(), options.clone()).unwrap();
            assert_eq!(
                rig.restored.account,
                Account { settled: Epoch::FIRST, synced: vec![Epoch::FIRST], left: false }
            );
            assert_eq!(rig.restored.decree, Decree::default());
            assert_eq!(rig.restored.views, std::slice::from_ref(&view));
            for n in 0..200 {
                assert_eq!(rig.get(n), Loaded::Record(record(n, 50)));
            }
            let text = fs::read_to_string(dir.path().join("ennead-data")).unwrap();
            assert!(text.starts_with("ennead data, format 4\n"), "{text}");
        }
    }
}

#[test]
fn a_directory_of_format_3_opens_and_keeps_views_with_zones_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path(), small()).unwrap();
    let first = first_view(rig.restored.incarnation);
    rig.persist(Change::View(first.clone()));
    rig.settle().unwrap();
    rig.storage.close();
    age(dir.path(), 3);
    let mut rig = Rig::open(dir.path(), small()).unwrap();
    assert_eq!(rig.restored.views, std::slice::from_ref(&first));
    let zoned = |m: &Member| Member { next_zone: "rack-7".parse().unwrap(), ..*m };
    let second = Arc::new(first.successor(first.members().iter().map(zoned).collect(), vec![]).unwrap());
    rig.persist(Change::View(second.clone()));
    rig.settle().unwrap();
    rig.storage.close();
    assert_eq!(Rig::open(dir.path(), small()).unwrap().restored.views, [first, second]);
}

#[test]
fn a_machine_that_came_after_view_1_is_not_said_to_be_synced_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path(), small()).unwrap();
    rig.persist(Change::View(first_view(Incarnation::new(99))));
    rig.persist(Change::View(view(2)));
    rig.settle().unwrap();
    rig.storage.close();
    assert_eq!(Rig::open(dir.path(), small()).unwrap().restored.account, Account::default());
}

#[test]
fn the_last_account_and_decree_count_and_views_before_the_settled_one_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path(), small()).unwrap();
    let check = |rig: &mut Rig, settled: u32, views: std::ops::RangeInclusive<u32>, decided: u32| {
        rig.settle().unwrap();
        for filler in [0, 150] {
            // Once from the journal, once from the ordered store.
            for n in 0..filler {
                rig.persist(put(n, n));
            }
            rig.settle().unwrap();
            let again = Rig::open(tempfile::tempdir().unwrap().path(), small()).unwrap();
            std::mem::replace(rig, again).storage.close();
            *rig = Rig::open(dir.path(), small()).unwrap();
            assert_eq!(rig.restored.account, account(settled));
            assert_eq!(rig.restored.decree, decree(decided));
            assert_eq!(rig.restored.views, views.clone().map(view).collect::<Vec<_>>());
        }
    };
    for n in 1..=3 {
        rig.persist(Change::View(view(n)));
        rig.persist(Change::Account(account(1)));
        rig.persist(Change::Decree(decree(n)));
    }
    check(&mut rig, 1, 1..=3, 3);
    rig.persist(Change::Account(account(2)));
    check(&mut rig, 2, 2..=3, 3);
    for n in 4..=6 {
        rig.persist(Change::View(view(n)));
    }
    rig.persist(Change::Account(account(5)));
    rig.persist(Change::Decree(decree(6)));
    check(&mut rig, 5, 5..=6, 6);
    // Whatever the account says, the newest view is the present one.
    rig.persist(Change::Account(account(8)));
    check(&mut rig, 8, 6..=6, 6);
}

#[test]
fn a_decree_of_thousands_of_members_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let members = (0..5000u32).map(|n| {
        let [_, a, b, c] = (n + 1).to_be_bytes();
        let name = format!("10.{a}.{b}.{c}").parse().unwrap();
        let machine = Machine { name, incarnation: Incarnation::new(u64::from(n) + 1) };
        Member::up(machine, 64)
    });
    let epoch = Epoch { number: 2, ..Epoch::ZERO };
    let large = Arc::new(View::new(ClusterId::new(1), epoch, 9, members.collect(), vec![]).unwrap());
    let decree = Decree { accepted: Some((Default::default(), large)), ..decree(1) };
    let mut rig = Rig::open(dir.path(), small()).unwrap();
    rig.persist(Change::Decree(decree.clone()));
    for n in 0..200 {
        rig.persist(put(n, n));
    }
    rig.settle().unwrap();
    rig.storage.close();
    assert_eq!(Rig::open(dir.path(), small()).unwrap().restored.decree, decree);
}
