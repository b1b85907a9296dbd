//! Directories that are not opened, and what is said about them.

use std::fs;

use ennead_ring::Loaded;

use super::{Rig, error, put, record, small};
use crate::storage::{Options, StorageError};

#[test]
fn a_foreign_directory_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "words").unwrap();
    let refused = error(Rig::open(dir.path(), Options::default()));
    assert!(matches!(&refused, StorageError::Foreign { found, .. } if found == "thesis.tex"), "{refused:?}");
    assert!(refused.to_string().contains("name an empty directory"), "{refused}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    // The root of a fresh file system counts as empty.
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    assert!(Rig::open(dir.path(), Options::default()).unwrap().restored.fresh);
    // A file of our mark's name is not enough.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ennead-data"), "a letter").unwrap();
    let refused = error(Rig::open(dir.path(), Options::default()));
    assert!(matches!(&refused, StorageError::Foreign { .. }), "{refused:?}");
    // A file is no directory.
    let file = tempfile::NamedTempFile::new().unwrap();
    let refused = error(Rig::open(file.path(), Options::default())).to_string();
    assert!(refused.contains("listing the data directory failed"), "{refused}");
}

#[test]
fn a_newer_format_is_refused_and_a_rotten_mark_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    Rig::open(dir.path(), Options::default()).unwrap().storage.close();
    let mark = dir.path().join("ennead-data");
    let text = fs::read_to_string(&mark).unwrap();
    fs::write(&mark, "ennead data, format 5\nwho knows\n").unwrap();
    let refused = error(Rig::open(dir.path(), Options::default()));
    assert!(matches!(refused, StorageError::Newer { found: 5, known: 4, .. }), "{refused:?}");
    assert!(refused.to_string().contains("start the newer program"), "{refused}");
    fs::write(&mark, text.replace("salt ", "salt 1")).unwrap();
    let refused = error(Rig::open(dir.path(), Options::default())).to_string();
    assert!(refused.contains("must not vote again") && refused.contains("--join"), "{refused}");
}

#[test]
fn what_is_missing_is_damage() {
    for gone in ["journal", "journal/000001", "records", "records/current"] {
        let dir = tempfile::tempdir().unwrap();
        let mut rig = Rig::open(dir.path(), small()).unwrap();
        for n in 0..200 {
            rig.persist(put(n, n));
        }
        rig.settle().unwrap();
        rig.storage.close();
        let path = dir.path().join(gone);
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap()
        } else {
            fs::remove_file(&path).unwrap()
        }
        match Rig::open(dir.path(), small()) {
            Err(e) => assert!(matches!(e, StorageError::Damaged { .. }), "{gone}: {e}"),
            // The file may have held only what was applied; then nothing is lost.
            Ok(mut rig) => {
                assert_eq!(gone, "journal/000001");
                for n in 0..200 {
                    assert_eq!(rig.get(n), Loaded::Record(record(n, 50)), "{gone}");
                }
            }
        }
    }
}
