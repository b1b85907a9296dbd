//! What is damaged is moved aside, whenever that is cut off; and who the others were is not forgotten.

use std::fs;
use std::path::{Path, PathBuf};

use ennead_ring::{Change, Loaded};

use super::{Rig, error, put, small, view};
use crate::storage::{Options, known_peers, move_aside};

/// A directory with a journal torn open in the middle.
fn damaged(dir: &Path) {
    let mut rig = Rig::open(dir, Options::default()).unwrap();
    rig.persist(Change::View(view(1)));
    for n in 0..20 {
        rig.persist(put(n, n));
        rig.settle().unwrap();
    }
    rig.storage.close();
    damage(dir);
}

fn damage(dir: &Path) {
    let path = dir.join("journal/000001");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(5).position(|w| w == b"key-1").unwrap() - 20;
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(error(Rig::open(dir, Options::default())).is_damage());
}

fn asides(dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|item| item.unwrap().path());
    let mut asides: Vec<PathBuf> =
        all.filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with("damaged-")).collect();
    asides.sort();
    asides
}

#[test]
fn the_members_of_the_newest_view_are_noted() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(known_peers(dir.path()), []);
    let mut rig = Rig::open(dir.path(), small()).unwrap();
    rig.persist(Change::View(view(1)));
    rig.settle().unwrap();
    rig.storage.close();
    assert_eq!(known_peers(dir.path()), ["10.0.0.1".parse().unwrap()]);
    // A directory of a program that noted nothing gets its note at the start.
    fs::remove_file(dir.path().join("peers")).unwrap();
    Rig::open(dir.path(), small()).unwrap().storage.close();
    assert_eq!(known_peers(dir.path()), ["10.0.0.1".parse().unwrap()]);
    fs::write(dir.path().join("peers"), "# words\n10.0.0.2:9000\n\n\u{fffd}rot\n10.0.0.3").unwrap();
    assert_eq!(known_peers(dir.path()), ["10.0.0.2:9000".parse().unwrap(), "10.0.0.3".parse().unwrap()]);
}

#[test]
fn what_is_damaged_is_moved_aside_whole_and_a_new_incarnation_begins() {
    let dir = tempfile::tempdir().unwrap();
    damaged(dir.path());
    fs::write(dir.path().join("notes.txt"), "of a person").unwrap();
    let mark = fs::read(dir.path().join("ennead-data")).unwrap();
    let journal = fs::read(dir.path().join("journal/000001")).unwrap();
    let aside = move_aside(dir.path()).unwrap();
    assert_eq!(asides(dir.path()), std::slice::from_ref(&aside));
    assert_eq!(fs::read(aside.join("ennead-data")).unwrap(), mark);
    assert_eq!(fs::read(aside.join("journal/000001")).unwrap(), journal);
    assert!(aside.join("records/current").exists());
    assert_eq!(known_peers(dir.path()).len(), 1);
    let mut rig = Rig::open(dir.path(), small()).unwrap();
    assert!(rig.restored.fresh);
    assert!(!String::from_utf8_lossy(&mark).contains(&format!("{:016x}", rig.restored.incarnation.id())));
    assert_eq!((rig.restored.views.len(), rig.restored.records), (0, 0));
    assert_eq!(rig.get(1), Loaded::Nothing);
    assert!(dir.path().join("notes.txt").exists());
}

#[test]
fn only_the_newest_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    damaged(dir.path());
    // By a clock that ran ahead.
    let first = move_aside(dir.path()).unwrap();
    let ahead = dir.path().join("damaged-99999999999");
    fs::rename(first, &ahead).unwrap();
    damaged(dir.path());
    let second = move_aside(dir.path()).unwrap();
    assert_eq!(second, dir.path().join("damaged-100000000000"));
    assert_eq!(asides(dir.path()), [second]);
}

#[test]
fn moving_aside_goes_on_where_it_was_cut_off() {
    // What has been moved by then; the next process finds damage, or a blank directory.
    let steps = ["journal", "records", "ennead-data"];
    for moved in 0..=steps.len() {
        let dir = tempfile::tempdir().unwrap();
        damaged(dir.path());
        let aside = dir.path().join("damaged-1700000000");
        fs::create_dir(&aside).unwrap();
        for name in &steps[..moved] {
            fs::rename(dir.path().join(name), aside.join(name)).unwrap();
        }
        if moved == steps.len() {
            fs::write(dir.path().join("ennead-data.new"), "").unwrap();
            assert!(Rig::open(dir.path(), small()).unwrap().restored.fresh);
            assert_eq!(asides(dir.path()), [aside]);
            continue;
        }
        assert!(error(Rig::open(dir.path(), small())).is_damage(), "{moved} moved");
        assert_eq!(move_aside(dir.path()).unwrap(), aside, "{moved} moved: into the same folder");
        for name in steps {
            assert!(aside.join(name).exists(), "{moved} moved: {name}");
        }
        assert!(Rig::open(dir.path(), small()).unwrap().restored.fresh);
    }
}

#[test]
fn what_lies_in_a_blank_directory_of_ours_does_not_make_it_foreign() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("peers"), "10.0.0.2\n").unwrap();
    fs::create_dir(dir.path().join("damaged-1700000000")).unwrap();
    assert!(Rig::open(dir.path(), small()).unwrap().restored.fresh);
    assert_eq!(known_peers(dir.path()).len(), 1);
}
