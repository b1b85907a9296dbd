//! What is written is read; what is spoiled is noticed; what was cut off is gone on with.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use tempfile::TempDir;

use super::writer::{Writer, partial};
use super::*;

fn header(base: Option<[u8; 32]>) -> Header {
    Header { cluster: 7, generation: (0, 0), begun_ms: 1_000, prefix: b"k".to_vec(), base }
}

/// Items in order: keys of their own, values that pack well and badly.
fn items() -> impl Strategy<Value = Vec<Item>> {
    let value =
        prop_oneof![vec(any::<u8>(), 0..40), (any::<u8>(), 0..200_000usize).prop_map(|(b, n)| vec![b; n])];
    let item = (any::<u64>(), any::<Option<u64>>(), option::weighted(0.8, value));
    btree_map(vec(any::<u8>(), 1..20), item, 0..30).prop_map(|items| {
        let item = |(key, (version, expires, value))| Item { key, version, expires, value };
        items.into_iter().map(item).collect()
    })
}

fn dir() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn write(path: &Path, base: Option<[u8; 32]>, items: &[Item]) -> Trailer {
    let mut writer = Writer::create(path, &header(base)).expect("a new file");
    items.iter().for_each(|item| writer.push(item).expect("it is written"));
    writer.finish(2_000).expect("it is whole")
}

fn read(path: &Path) -> Result<Vec<Item>, BackupError> {
    let mut reader = Reader::open(path)?;
    let mut all = Vec::new();
    while let Some(items) = reader.next_block()? {
        all.extend(items);
    }
    Ok(all)
}

fn merged(paths: &[PathBuf]) -> Vec<Item> {
    let mut chain = Chain::open(paths).expect("they belong together");
    std::iter::from_fn(|| chain.next().expect("it is whole")).collect()
}

fn item(key: &str, version: u64, value: Option<&str>) -> Item {
    let value = value.map(|v| v.as_bytes().to_vec());
    Item { key: key.as_bytes().to_vec(), version, expires: None, value }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(items in items()) {
        let dir = dir();
        let path = dir.path().join("b");
        let trailer = write(&path, None, &items);
        prop_assert_eq!(read(&path).expect("it is whole"), items.clone());
        prop_assert_eq!(verify(&path).expect("it is whole"), (header(None), trailer));
        let values = items.iter().filter(|item| item.value.is_some()).count() as u64;
        prop_assert_eq!((trailer.keys, trailer.keys + trailer.gone), (values, items.len() as u64));
        prop_assert!(!partial(&path).exists());
    }

    /// One byte changed, the end lost, or something after it: noticed, whatever it is.
    #[test]
    fn what_is_spoiled_is_noticed(items in items(), at: prop::sample::Index, byte: u8, how in 0..3) {
        let dir = dir();
        let path = dir.path().join("b");
        write(&path, None, &items);
        let whole = fs::read(&path).expect("a file");
        let mut bytes = whole.clone();
        let at = at.index(bytes.len());
        match how {
            0 => bytes[at] = byte,
            1 => bytes.truncate(at),
            _ => bytes.push(byte),
        }
        fs::write(&path, &bytes).expect("a file");
        prop_assert_eq!(verify(&path).is_ok(), bytes == whole);
    }

    /// Cut anywhere after the header: the same file comes of it as would have without.
    #[test]
    fn a_file_that_was_cut_off_is_gone_on_with(items in items(), cut: prop::sample::Index) {
        let dir = dir();
        let (path, other) = (dir.path().join("b"), dir.path().join("c"));
        let trailer = write(&other, None, &items);
        let mut bytes = fs::read(&other).expect("a file");
        let head = 8 + 9 + 2 + 8 + 8 + 8 + 2 + 1 + 1;
        bytes.truncate(head + cut.index(bytes.len() - head + 1));
        fs::write(partial(&path), &bytes).expect("a file");
        let (mut writer, found, last) = Writer::resume(&path).expect("it goes on");
        prop_assert_eq!(found, header(None));
        for item in items.iter().filter(|item| Some(&item.key) > last.as_ref()) {
            writer.push(item).expect("it is written");
        }
        let again = writer.finish(2_000).expect("it is whole");
        prop_assert_eq!((again.keys, again.gone, again.bytes), (trailer.keys, trailer.gone, trailer.bytes));
        prop_assert_eq!(read(&path).expect("it is whole"), items);
    }
}

#[test]
fn the_first_bad_block_is_named() {
    let dir = dir();
    let path = dir.path().join("b");
    let big: Vec<Item> = (0..9).map(|i| item(&format!("k{i}"), 1, Some(&"v".repeat(200_000)))).collect();
    let blocks = write(&path, None, &big).blocks;
    assert!(blocks >= 4, "{blocks}");
    let mut bytes = fs::read(&path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).expect("a file");
    let told = verify(&path).expect_err("it is damaged").to_string();
    assert!(told.contains("damaged") && told.contains("at byte"), "{told}");
    bytes.truncate(middle);
    fs::write(&path, &bytes).expect("a file");
    let told = verify(&path).expect_err("it is cut off").to_string();
    assert!(told.contains("is not whole"), "{told}");
    fs::write(&path, b"something else").expect("a file");
    assert!(verify(&path).expect_err("none").to_string().contains("is no backup"));
}

#[test]
fn a_chain_is_what_its_newest_say() {
    let dir = dir();
    let paths: Vec<PathBuf> = ["a", "b", "c"].iter().map(|name| dir.path().join(name)).collect();
    let full = [item("k1", 1, Some("old")), item("k2", 1, Some("stays")), item("k4", 1, Some("goes"))];
    let first = write(&paths[0], None, &full);
    let second = [item("k1", 2, Some("new")), item("k3", 1, Some("comes")), item("k4", 1, None)];
    let second = write(&paths[1], Some(first.digest), &second);
    write(&paths[2], Some(second.digest), &[item("k4", 3, Some("is back")), item("k3", 1, None)][..1]);
    let keys = |paths: &[PathBuf]| -> Vec<(String, String)> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        merged(paths).into_iter().map(|i| (text(i.key), text(i.value.expect("a value")))).collect()
    };
    let told = |all: &[(&str, &str)]| -> Vec<(String, String)> {
        all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    assert_eq!(keys(&paths[..2]), told(&[("k1", "new"), ("k2", "stays"), ("k3", "comes")]));
    assert_eq!(keys(&paths), told(&[("k1", "new"), ("k2", "stays"), ("k3", "comes"), ("k4", "is back")]));
    // One that is left out, and the wrong order.
    for wrong in [vec![paths[0].clone(), paths[2].clone()], vec![paths[1].clone()]] {
        let told = Chain::open(&wrong).expect_err("it does not go on").to_string();
        assert!(told.contains("oldest first"), "{told}");
    }
}

#[test]
fn nothing_that_is_there_is_written_over() {
    let dir = dir();
    let path = dir.path().join("b");
    fs::write(&path, b"mine").expect("a file");
    assert!(matches!(Writer::create(&path, &header(None)), Err(BackupError::Exists { .. })));
    fs::remove_file(&path).expect("it is gone");
    drop(Writer::create(&path, &header(None)).expect("a new file"));
    assert!(
        matches!(Writer::create(&path, &header(None)), Err(BackupError::Exists { .. })),
        "the partial one"
    );
    // What is not whole cannot be gone on from.
    let told = Chain::open(&[partial(&path)]).expect_err("it is not whole").to_string();
    assert!(told.contains("is not whole"), "{told}");
}
