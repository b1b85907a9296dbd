//! Storage made to fail, stall, fill up, tear and rot.
//!
//! | module | one idea |
//! |---|---|
//! | `faulty_disk` | a disk that stalls, fails and tears when a test says so |
//! | `restarts` | what was handed in is there, and still there after a restart |
//! | `group_commit` | nothing is told before its fsync, and all that waits shares one |
//! | `failures` | whatever cannot be written ends it with a reason |
//! | `crash_images` | a journal as a crash may leave it |
//! | `rot` | bytes that change on disk are blamed on a record or refused |
//! | `refusals` | directories that are not opened |
//! | `processes` | one process at a time, killed at any moment |
//! | `model` | storage is its model through restarts and power cuts |

mod crash_images;
mod failures;
mod faulty_disk;
mod group_commit;
mod model;
mod processes;
mod refusals;
mod restarts;
mod rot;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use ennead_ring::stamp::Record;
use ennead_ring::view::MAX_MEMBERS;
use ennead_ring::{
    Ballot, Change, ClusterId, Epoch, Hlc, Incarnation, Key, Limits, Loaded, Machine, Member, MemberState,
    SlotSet, Stamp, State, Ticket, View,
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
