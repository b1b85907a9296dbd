//! Storage made to fail, stall, fill up, tear and rot.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Condvar, Mutex};

use ennead_ring::stamp::Record;
use ennead_ring::view::MAX_MEMBERS;
use ennead_ring::{
    Ballot, Change, ClusterId, Epoch, Hlc, Incarnation, Key, Limits, Loaded, Machine, Member, MemberState,
    SlotSet, Stamp, State, Ticket, View,
};
use proptest::prelude::*;

use super::disk::{Disk, Disks, FileDisk};
use super::entry::{self, Kind};
use super::journal::{Group, Journal, Place, Recovered};
use super::{Options, Restored, Storage, StorageError, StorageEvent};

fn key(n: u32) -> Key {
    Key::new(format!("key-{n}")).unwrap()
}

fn record(n: u32, bytes: usize) -> Record {
    let time = Hlc::from_nanos(u64::from(n) + 1);
    let stamp = Stamp { ballot: Ballot { time, by: Incarnation::new(7) }, n };
    let value = Some(vec![n as u8; bytes].into());
    Record {
        stamp,
        state: Arc::new(State { version: u64::from(n), value, ..State::default() }),
        votes: SlotSet::all(9),
    }
}

fn put(n: u32, value: u32) -> Change {
    Change::Record { key: key(n), record: record(value, 50) }
}

fn limits(n: u64) -> Limits {
    Limits { ceiling: Hlc::from_nanos(n), ..Limits::default() }
}

fn view(number: u32) -> Arc<View> {
    assert!(number > 0 && (number as usize) < MAX_MEMBERS);
    let machine = Machine { name: "10.0.0.1".parse().unwrap(), incarnation: Incarnation::new(7) };
    let member = Member { machine, weight: 1, next_weight: 1, state: MemberState::Up };
    let epoch = Epoch { number, ..Epoch::ZERO };
    Arc::new(View::new(ClusterId::new(1), epoch, 9, vec![member], vec![]).unwrap())
}

/// Options under which a few records already fill groups, layers and journal files.
fn small() -> Options {
    Options {
        group_bytes: 2000,
        overlay_bytes: 4000,
        unapplied_bytes: 4000,
        segment_bytes: 8192,
        ..Options::default()
    }
}

/// A storage and the far end of its events.
struct Rig {
    storage: Storage,
    restored: Restored,
    events: Receiver<StorageEvent>,
    durable: Ticket,
    next: u64,
}

impl Rig {
    fn open(dir: &Path, options: Options) -> Result<Self, StorageError> {
        let (tell, events) = channel();
        let (storage, restored) = Storage::open(dir, options, move |event| {
            let _ = tell.send(event);
        })?;
        Ok(Self { storage, restored, events, durable: Ticket(0), next: 1 })
    }

    fn persist(&mut self, change: Change) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.storage.persist(ticket, change);
        ticket
    }

    /// Waits until everything handed in is durable, or for the reason why it is not.
    fn settle(&mut self) -> Result<(), StorageError> {
        while self.durable.0 + 1 < self.next {
            match self.events.recv().expect("storage went away without a reason") {
                StorageEvent::Durable(ticket) => {
                    assert!(ticket > self.durable, "tickets become durable in order");
                    self.durable = ticket;
                }
                StorageEvent::Failed(error) => return Err(error),
                StorageEvent::Loaded { .. } => unreachable!("nothing was asked"),
            }
        }
        Ok(())
    }

    /// Looks a key up; what becomes durable in between is noted.
    fn load(&mut self, key: &Key) -> Loaded {
        self.storage.load(key.clone());
        loop {
            match self.events.recv().unwrap() {
                StorageEvent::Loaded { key: answered, found } => {
                    assert_eq!(&answered, key);
                    return found;
                }
                StorageEvent::Durable(ticket) => self.durable = ticket,
                StorageEvent::Failed(error) => panic!("{error}"),
            }
        }
    }

    fn get(&mut self, n: u32) -> Loaded {
        self.load(&key(n))
    }
}

fn error(result: Result<Rig, StorageError>) -> StorageError {
    match result {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

/// What a test does to the disk under a journal.
#[derive(Default)]
struct Faults {
    state: Mutex<FaultState>,
    changed: Condvar,
}

#[derive(Default)]
struct FaultState {
    /// Syncs begun.
    syncs: u64,
    /// Syncs with a higher number wait.
    stalled_after: Option<u64>,
    /// The error of the sync with this number, and how much of what it should have written gets written.
    fail: Option<(u64, io::ErrorKind, Torn)>,
}

/// Which bytes of an unsynced write a power cut leaves.
#[derive(Clone, Copy, Debug)]
enum Torn {
    Nothing,
    Prefix(usize),
    /// Every 512-byte sector whose bit is set.
    Sectors(u64),
}

/// Keeps writes in memory until they are synced, as a disk's cache does.
struct FaultyDisk {
    inner: FileDisk,
    faults: Arc<Faults>,
    unsynced: Vec<(u64, Vec<u8>)>,
}

impl Faults {
    fn disks(self: &Arc<Self>) -> Disks {
        let faults = self.clone();
        Arc::new(move |file, _| {
            Box::new(FaultyDisk { inner: FileDisk(file), faults: faults.clone(), unsynced: Vec::new() })
        })
    }

    fn stall_after(&self, number: u64) {
        self.state.lock().unwrap().stalled_after = Some(number);
        self.changed.notify_all();
    }

    fn go_on(&self) {
        self.state.lock().unwrap().stalled_after = None;
        self.changed.notify_all();
    }

    fn wait_for_sync(&self, number: u64) {
        let mut state = self.state.lock().unwrap();
        while state.syncs < number {
            state = self.changed.wait(state).unwrap();
        }
    }

    fn fail(&self, number: u64, kind: io::ErrorKind, torn: Torn) {
        self.state.lock().unwrap().fail = Some((number, kind, torn));
    }

    fn syncs(&self) -> u64 {
        self.state.lock().unwrap().syncs
    }
}

impl Disk for FaultyDisk {
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.unsynced.push((at, bytes.to_vec()));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.faults.state.lock().unwrap();
        state.syncs += 1;
        self.faults.changed.notify_all();
        let number = state.syncs;
        while state.stalled_after.is_some_and(|last| number > last) {
            state = self.faults.changed.wait(state).unwrap();
        }
        let failing = state.fail.filter(|(number, ..)| *number == state.syncs);
        for (at, bytes) in self.unsynced.drain(..) {
            match failing {
                None => self.inner.write(at, &bytes)?,
                Some((.., torn)) => tear(torn, &bytes, |offset, part| {
                    self.inner.write(at + offset as u64, part).unwrap();
                }),
            }
        }
        match failing {
            Some((_, kind, _)) => Err(kind.into()),
            None => self.inner.sync(),
        }
    }
}

fn tear(torn: Torn, bytes: &[u8], mut write: impl FnMut(usize, &[u8])) {
    match torn {
        Torn::Nothing => {}
        Torn::Prefix(length) => write(0, &bytes[..length.min(bytes.len())]),
        Torn::Sectors(set) => {
            for (i, sector) in bytes.chunks(512).enumerate().filter(|(i, _)| set >> (i % 64) & 1 == 1) {
                write(i * 512, sector);
            }
        }
    }
}

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
    assert!(text.starts_with("ennead data, format 1\n"), "{text}");
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
    let mut scanned = Vec::new();
    loop {
        let page = rig.storage.scan(scanned.last().map(|(key, _)| key), 64).unwrap();
        if page.is_empty() {
            break;
        }
        scanned.extend(page);
    }
    assert!(scanned == expected, "a scan sees every key once, in order");
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path(), Options::default()).unwrap();
    let refused = error(Rig::open(dir.path(), Options::default())).to_string();
    let me = std::process::id();
    assert!(refused.contains(&format!("in use by another process (pid {me})")), "{refused}");
    let child = child("open", dir.path()).output().unwrap();
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(told.contains(&format!("REFUSED {}: in use by another", dir.path().display())), "{told}");
    rig.storage.close();
    let child = self::child("open", dir.path()).output().unwrap();
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(told.contains("OPENED"), "{told}");
}

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
    fs::write(&mark, "ennead data, format 2\nwho knows\n").unwrap();
    let refused = error(Rig::open(dir.path(), Options::default()));
    assert!(matches!(refused, StorageError::Newer { found: 2, known: 1, .. }), "{refused:?}");
    assert!(refused.to_string().contains("start the newer program"), "{refused}");
    fs::write(&mark, text.replace("salt ", "salt 1")).unwrap();
    let refused = error(Rig::open(dir.path(), Options::default())).to_string();
    assert!(refused.contains("must not vote again") && refused.contains("empty one"), "{refused}");
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

/// A journal of three groups and where each group lies: entries 1 to 3, 4 to 5, 6 to 8.
struct Image {
    dir: tempfile::TempDir,
    file: PathBuf,
    bytes: Vec<u8>,
    groups: Vec<std::ops::Range<usize>>,
    entries: Vec<Recovered>,
}

const SALT: u64 = 42;

fn open_journal(dir: &Path) -> Result<(Journal, Vec<Recovered>), StorageError> {
    Journal::open(dir, FileDisk::disks(), SALT, 4096, Place::default())
}

fn append(journal: &mut Journal, numbers: std::ops::Range<u32>) -> Vec<Recovered> {
    let mut group = Group::default();
    let mut entries = Vec::new();
    for n in numbers {
        let (name, body) = (format!("k{n}"), vec![n as u8; 10 + n as usize * 3]);
        let sum = entry::checksum(name.as_bytes(), &body);
        journal.add(&mut group, Kind::Record, name.as_bytes(), &body, sum);
        entries.push(Recovered { kind: Kind::Record, key: name.into_bytes(), body: Some((sum, body)) });
    }
    journal.append(&mut group).unwrap();
    entries
}

impl Image {
    fn new() -> Self {
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
    fn reopen(&self, bytes: &[u8]) -> Result<(Journal, Vec<Recovered>), StorageError> {
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
                    // At most the one record, by name; padding may rot unnoticed.
                    assert!(differ.len() <= 1, "byte {at}");
                    if let [(found, was)] = differ[..] {
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
    assert!(rig.storage.scan(None, 1000).unwrap().contains(&(key(1), Loaded::Unreadable)));
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

/// This program again, as another process: see [`other_process`].
fn child(task: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "storage::tests::other_process", "--nocapture"])
        .env("STORAGE_TEST_TASK", task)
        .env("STORAGE_TEST_DIR", dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// What the tests start as another process; by itself it does nothing.
#[test]
fn other_process() {
    let (Some(task), Some(dir)) =
        (std::env::var_os("STORAGE_TEST_TASK"), std::env::var_os("STORAGE_TEST_DIR"))
    else {
        return;
    };
    let say = |text: String| {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").unwrap();
        out.flush().unwrap();
    };
    let opened = Rig::open(Path::new(&dir), small());
    let mut rig = match opened {
        Err(e) => return say(format!("REFUSED {e}")),
        Ok(_) if task == "open" => return say("OPENED".to_owned()),
        Ok(rig) => rig,
    };
    // Writes for ever, in order, and tells what was acknowledged; to be killed.
    let mut n = rig.restored.limits.ceiling.nanos() as u32;
    loop {
        for _ in 0..7 {
            n += 1;
            rig.persist(put(n % 900, n));
            rig.persist(Change::Limits(limits(u64::from(n))));
        }
        rig.settle().unwrap();
        say(format!("ACKED {n}"));
    }
}

#[test]
fn killed_at_any_moment_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..12 {
        let mut process = child("write", dir.path()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut acked = 0;
        let mut hear = |line: String| {
            if let Some((_, n)) = line.split_once("ACKED ") {
                acked = n.parse().unwrap();
            }
        };
        for _ in 0..10 + round * 37 {
            hear(lines.next().unwrap().unwrap());
        }
        process.kill().unwrap();
        process.wait().unwrap();
        // Half a line is no acknowledgement.
        lines.map_while(Result::ok).filter(|line| line.starts_with("ACKED")).for_each(hear);
        let mut rig = Rig::open(dir.path(), small()).unwrap();
        let upto = rig.restored.limits.ceiling.nanos() as u32;
        assert!(upto >= acked, "round {round}: {acked} was acknowledged, {upto} is there");
        for n in upto.saturating_sub(899)..=upto {
            match rig.get(n % 900) {
                // The record before the limits that were lost with the rest of its group may be there.
                Loaded::Record(found) => assert!(found == record(n, 50) || found.stamp.n > upto, "{n}"),
                other => assert!(n == 0, "round {round}: key-{n}: {other:?}"),
            }
        }
        rig.storage.close();
    }
}

/// What a storage should hold after so many changes.
#[derive(Clone, Default, PartialEq, Debug)]
struct Model {
    records: BTreeMap<u32, u32>,
    limits: Limits,
    views: Vec<Arc<View>>,
}

#[derive(Clone, Debug)]
enum Step {
    Put(u32),
    Limits,
    View,
    Load(u32),
    Settle,
    Restart,
    PowerCut { after: u64, torn: Torn },
}

fn step() -> impl Strategy<Value = Step> {
    let torn = prop_oneof![
        Just(Torn::Nothing),
        (0..3000usize).prop_map(Torn::Prefix),
        any::<u64>().prop_map(Torn::Sectors)
    ];
    prop_oneof![
        40 => (0..40u32).prop_map(Step::Put),
        3 => Just(Step::Limits),
        1 => Just(Step::View),
        8 => (0..45u32).prop_map(Step::Load),
        4 => Just(Step::Settle),
        1 => Just(Step::Restart),
        2 => (1..6u64, torn).prop_map(|(after, torn)| Step::PowerCut { after, torn }),
    ]
}

/// A storage, and every state it went through since what is known to be durable.
struct Twin {
    dir: tempfile::TempDir,
    faults: Arc<Faults>,
    rig: Option<Rig>,
    /// The state after each change since the last restart; the first is what that restart found.
    states: Vec<Model>,
    written: u32,
}

impl Twin {
    fn new() -> Self {
        let mut twin = Self {
            dir: tempfile::tempdir().unwrap(),
            faults: Arc::default(),
            rig: None,
            states: vec![Model::default()],
            written: 0,
        };
        twin.open();
        twin
    }

    fn open(&mut self) {
        self.faults = Arc::default();
        let options = Options { disks: self.faults.disks(), ..small() };
        self.rig = Some(Rig::open(self.dir.path(), options).unwrap());
    }

    fn now(&self) -> Model {
        self.states.last().unwrap().clone()
    }

    fn persist(&mut self, change: Change, state: Model) {
        self.rig.as_mut().unwrap().persist(change);
        self.states.push(state);
    }

    /// Opens again, after so many changes were acknowledged: finds the state after these or more.
    fn reopen(&mut self, acknowledged: u64) {
        self.rig = None;
        self.open();
        let rig = self.rig.as_mut().unwrap();
        let mut found = Model {
            records: BTreeMap::new(),
            limits: rig.restored.limits,
            views: rig.restored.views.clone(),
        };
        for n in 0..45 {
            match rig.get(n) {
                Loaded::Nothing => {}
                Loaded::Record(record) => {
                    assert_eq!(record, self::record(record.stamp.n, 50));
                    found.records.insert(n, record.stamp.n);
                }
                Loaded::Unreadable => panic!("key-{n} is unreadable"),
            }
        }
        let from = acknowledged as usize;
        assert!(
            self.states[from..].contains(&found),
            "after {from} acknowledged changes of {}: {found:?}\nexpected {:?}\nor later",
            self.states.len() - 1,
            self.states[from]
        );
        self.states = vec![found];
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Put(n) => {
                self.written += 1;
                let mut state = self.now();
                state.records.insert(n, self.written);
                self.persist(put(n, self.written), state);
            }
            Step::Limits => {
                self.written += 1;
                let limits = limits(u64::from(self.written));
                let state = Model { limits, ..self.now() };
                self.persist(Change::Limits(limits), state);
            }
            Step::View => {
                self.written += 1;
                let mut state = self.now();
                state.views.push(view(self.written));
                self.persist(Change::View(view(self.written)), state);
            }
            Step::Load(n) => {
                let expected = self.now().records.get(&n).map(|&value| record(value, 50));
                let found = self.rig.as_mut().unwrap().get(n);
                assert_eq!(found, expected.map_or(Loaded::Nothing, Loaded::Record));
            }
            Step::Settle => self.rig.as_mut().unwrap().settle().unwrap(),
            Step::Restart => {
                let all = self.states.len() as u64 - 1;
                self.reopen(all);
            }
            Step::PowerCut { after, torn } => {
                self.faults.fail(self.faults.syncs() + after, io::ErrorKind::Other, torn);
                for n in 0..60 {
                    self.run(Step::Put(n % 40));
                }
                let rig = self.rig.as_mut().unwrap();
                let _ = rig.settle();
                let acknowledged = rig.durable.0;
                self.reopen(acknowledged);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn storage_is_its_model_through_restarts_and_power_cuts(steps in prop::collection::vec(step(), 1..250)) {
        let mut twin = Twin::new();
        for step in steps {
            twin.run(step);
        }
        twin.run(Step::Restart);
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
