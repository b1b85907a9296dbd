//! A journal as a crash may leave it: cut off, torn, or amid its circle of files.

use std::fs;
use std::path::{Path, PathBuf};

use crate::storage::StorageError;
use crate::storage::disk::FileDisk;
use crate::storage::entry::{self, Kind};
use crate::storage::journal::{Group, Journal, Place, Recovered};

/// A journal of three groups and where each group lies: entries 1 to 3, 4 to 5, 6 to 8.
pub(super) struct Image {
    dir: tempfile::TempDir,
    file: PathBuf,
    pub(super) bytes: Vec<u8>,
    pub(super) groups: Vec<std::ops::Range<usize>>,
    pub(super) entries: Vec<Recovered>,
}

const SALT: u64 = 42;

fn open_journal(dir: &Path) -> Result<(Journal, Vec<Recovered>), StorageError> {
    Journal::open(dir, FileDisk::disks(), SALT, 4096, Place::default())
}

fn append(journal: &mut Journal, numbers: std::ops::Range<u32>) -> Vec<Recovered> {
    let mut group = Group::default();
    let mut entries = Vec::new();
    for n in numbers {
        let (kind, name, length) = match n {
            2 => (Kind::Forget, format!("k{n}"), 0),
            4 => (Kind::Decree, String::new(), 30),
            7 => (Kind::Account, String::new(), 20),
            _ => (Kind::Record, format!("k{n}"), 10 + n as usize * 3),
        };
        let body = vec![n as u8; length];
        let sum = entry::checksum(name.as_bytes(), &body);
        journal.add(&mut group, kind, name.as_bytes(), &body, sum);
        entries.push(Recovered { kind, key: name.into_bytes(), body: Some((sum, body)) });
    }
    journal.append(&mut group).unwrap();
    entries
}

impl Image {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, none) = open_journal(dir.path()).unwrap();
        assert!(none.is_empty());
        let file = dir.path().join("000001");
        let (mut groups, mut entries, mut end) = (Vec::new(), Vec::new(), 0);
        for numbers in [1..4, 4..6, 6..9] {
            entries.extend(append(&mut journal, numbers));
            let bytes = fs::read(&file).unwrap();
            let used = bytes.iter().rposition(|&b| b != 0).unwrap() + 1;
            groups.push(end..used.next_multiple_of(8));
            end = used.next_multiple_of(8);
        }
        let bytes = fs::read(&file).unwrap();
        Self { dir, file, bytes, groups, entries }
    }

    /// Reopens the journal on other bytes.
    pub(super) fn reopen(&self, bytes: &[u8]) -> Result<(Journal, Vec<Recovered>), StorageError> {
        fs::write(&self.file, bytes).unwrap();
        open_journal(self.dir.path())
    }
}

/// Recovers, appends two more groups, recovers again: nothing old may shine through.
fn goes_on(image: &Image, bytes: &[u8], kept: usize, what: &str) {
    let (mut journal, entries) = image.reopen(bytes).unwrap();
    assert_eq!(entries, image.entries[..kept], "{what}");
    let mut expected = entries;
    expected.extend(append(&mut journal, 20..21));
    expected.extend(append(&mut journal, 21..23));
    let (_, entries) = open_journal(image.dir.path()).unwrap();
    assert_eq!(entries, expected, "{what}, and two groups more");
}

#[test]
fn a_write_torn_at_any_byte_leaves_the_groups_before_it_and_nothing_of_its_own() {
    let image = Image::new();
    let last = image.groups[2].clone();
    for cut in last.clone() {
        let mut bytes = image.bytes.clone();
        bytes[cut..].fill(0);
        // The padding of the last entry may be cut without loss.
        let whole = bytes[..last.end] == image.bytes[..last.end];
        goes_on(&image, &bytes, if whole { 8 } else { 5 }, &format!("cut at {cut}"));
    }
}

#[test]
fn any_part_of_a_torn_write_over_old_entries_is_seen_through() {
    let image = Image::new();
    let last = image.groups[2].clone();
    // Words of 8 bytes rather than sectors, to have more of them; beneath lie older entries, as in a file
    // that is used again: those are in the ordered store, up to sequence number 0 here.
    let mut older = Vec::new();
    while older.len() < last.len() {
        let body = vec![9; older.len() % 50];
        let checksum = entry::checksum(b"old", &body);
        let header = entry::Header {
            sequence: 0,
            group: 0,
            kind: Kind::Record,
            last: true,
            key_len: 3,
            body_len: body.len(),
            checksum,
        };
        entry::write(SALT, &header, b"old", &body, &mut older);
    }
    let words = last.len() / 8;
    for round in 0..400u64 {
        let mut bytes = image.bytes.clone();
        for word in 0..words {
            if round.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left((word * 7) as u32) & 1 == 1 {
                let at = last.start + word * 8;
                bytes[at..at + 8].copy_from_slice(&older[word * 8..word * 8 + 8]);
            }
        }
        let whole = bytes == image.bytes;
        goes_on(&image, &bytes, if whole { 8 } else { 5 }, &format!("round {round}"));
    }
}

#[test]
fn a_file_is_used_again_only_once_all_its_entries_are_applied() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open_journal(dir.path()).unwrap();
    let mut expected = Vec::new();
    let mut applied = Place::default();
    let mut places = Vec::new();
    for round in 0..60u64 {
        expected.extend(append(&mut journal, 50..54));
        places.push(journal.at());
        // The ordered store trails seven groups behind, and twice halts for a while, amid a file.
        if round >= 7 && !(20..30).contains(&round) && !(41..52).contains(&round) {
            applied = places[round as usize - 7];
        }
        journal.release(applied.sequence);
        let copy = tempfile::tempdir().unwrap();
        for file in fs::read_dir(dir.path()).unwrap() {
            let path = file.unwrap().path();
            fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        let (_, found) = Journal::open(copy.path(), FileDisk::disks(), SALT, 4096, applied).unwrap();
        assert!(found == expected[applied.sequence as usize..], "round {round}");
    }
    assert!(journal.segments() < 8, "{} files", journal.segments());
}
