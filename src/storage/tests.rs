//! Storage made to fail, stall, fill up, tear and rot.
//!
//! | module | one idea |
//! |---|---|
//! | `faulty_disk` | a disk that stalls, fails and tears when a test says so |
//! | `restarts` | what was handed in is there, and still there after a restart |
//! | `group_commit` | nothing is told before its fsync, and all that waits shares one |
//! | `failures` | whatever cannot be written ends it with a reason; a full disk is waited out |
//! | `leftovers` | what a write that failed has left behind goes, and nothing else |
//! | `crash_images` | a journal as a crash may leave it |
//! | `scans` | all that is kept, page by page |
//! | `rot` | bytes that change on disk are blamed on a record or refused |
//! | `refusals` | directories that are not opened |
//! | `formats` | directories of an older format |
//! | `salvage` | what is damaged is moved aside, whenever that is cut off |
//! | `processes` | one process at a time, killed at any moment |
//! | `model` | storage is its model through restarts and power cuts |

mod crash_images;
mod failures;
mod faulty_disk;
mod formats;
mod group_commit;
mod leftovers;
mod model;
mod processes;
mod refusals;
mod restarts;
mod rot;
mod salvage;
mod scans;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use ennead_ring::stamp::Record;
use ennead_ring::view::MAX_MEMBERS;
use ennead_ring::{
    Account, Ballot, Change, ClusterId, Decree, Epoch, Hlc, Incarnation, Key, Limits, Loaded, Machine,
    Member, Scan, SlotSet, Stamp, State, Ticket, View,
};

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

fn forget(n: u32) -> Change {
    Change::Forget { key: key(n) }
}

fn epoch(number: u32) -> Epoch {
    Epoch { number, ..Epoch::ZERO }
}

/// An account of a machine that knows this view to be settled.
fn account(settled: u32) -> Account {
    Account { settled: epoch(settled), synced: vec![epoch(settled)], left: false }
}

fn decree(number: u32) -> Decree {
    let promised = Ballot { time: Hlc::from_nanos(u64::from(number)), by: Incarnation::new(7) };
    Decree { epoch: epoch(number), promised, accepted: Some((promised, view(number + 1))) }
}

fn limits(n: u64) -> Limits {
    Limits { ceiling: Hlc::from_nanos(n), ..Limits::default() }
}

fn view(number: u32) -> Arc<View> {
    assert!(number > 0 && (number as usize) < MAX_MEMBERS);
    let machine = Machine { name: "10.0.0.1".parse().unwrap(), incarnation: Incarnation::new(7) };
    let member = Member::up(machine, 1);
    Arc::new(View::new(ClusterId::new(1), epoch(number), 9, vec![member], vec![]).unwrap())
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
                StorageEvent::Loaded { .. } | StorageEvent::Scanned { .. } => {
                    unreachable!("nothing was asked")
                }
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
                StorageEvent::Scanned { .. } => unreachable!("no scan was asked for"),
            }
        }
    }

    /// One page; what becomes durable in between is noted.
    fn page(&mut self, after: Option<&Key>, keys: usize, bytes: usize) -> Result<Page, StorageError> {
        self.storage.scan_for(Scan(self.next), after.cloned(), keys, bytes);
        loop {
            match self.events.recv().unwrap() {
                StorageEvent::Scanned { scan, found, end, total } => {
                    assert_eq!(scan, Scan(self.next));
                    return Ok(Page { found, end, total });
                }
                StorageEvent::Durable(ticket) => self.durable = ticket,
                StorageEvent::Failed(error) => return Err(error),
                StorageEvent::Loaded { .. } => unreachable!("nothing was asked"),
            }
        }
    }

    /// All that there is, in pages of so many keys.
    fn scan(&mut self, keys: usize) -> Result<Vec<(Key, Loaded)>, StorageError> {
        let mut all: Vec<(Key, Loaded)> = Vec::new();
        loop {
            let page = self.page(all.last().map(|(key, _)| key), keys, usize::MAX)?;
            assert!(page.end || page.found.len() == keys, "a page that is not full is the last");
            all.extend(page.found);
            if page.end {
                assert!(all.is_sorted_by(|(a, _), (b, _)| a < b), "in order, and no key twice");
                assert!(all.iter().all(|(_, there)| *there != Loaded::Nothing));
                return Ok(all);
            }
        }
    }

    fn get(&mut self, n: u32) -> Loaded {
        self.load(&key(n))
    }
}

/// A page of a scan.
struct Page {
    found: Vec<(Key, Loaded)>,
    end: bool,
    total: u64,
}

fn error(result: Result<Rig, StorageError>) -> StorageError {
    match result {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}
