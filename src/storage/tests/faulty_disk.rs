//! A disk that stalls, fails and tears when a test says so.

use std::io;
use std::sync::{Arc, Condvar, Mutex};

use crate::storage::disk::{Disk, Disks, FileDisk};

/// What a test does to the disk under a journal.
#[derive(Default)]
pub(super) struct Faults {
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
    /// Writes find no room, after half of their bytes.
    full: bool,
}

/// Which bytes of an unsynced write a power cut leaves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Torn {
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
    pub(super) fn disks(self: &Arc<Self>) -> Disks {
        let faults = self.clone();
        Arc::new(move |file, _| {
            Box::new(FaultyDisk { inner: FileDisk(file), faults: faults.clone(), unsynced: Vec::new() })
        })
    }

    pub(super) fn stall_after(&self, number: u64) {
        self.state.lock().unwrap().stalled_after = Some(number);
        self.changed.notify_all();
    }

    pub(super) fn go_on(&self) {
        self.state.lock().unwrap().stalled_after = None;
        self.changed.notify_all();
    }

    pub(super) fn wait_for_sync(&self, number: u64) {
        let mut state = self.state.lock().unwrap();
        while state.syncs < number {
            state = self.changed.wait(state).unwrap();
        }
    }

    pub(super) fn fail(&self, number: u64, kind: io::ErrorKind, torn: Torn) {
        self.state.lock().unwrap().fail = Some((number, kind, torn));
    }

    pub(super) fn fill(&self, full: bool) {
        self.state.lock().unwrap().full = full;
    }

    pub(super) fn syncs(&self) -> u64 {
        self.state.lock().unwrap().syncs
    }
}

impl Disk for FaultyDisk {
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if self.faults.state.lock().unwrap().full {
            self.unsynced.push((at, bytes[..bytes.len() / 2].to_vec()));
            return Err(io::ErrorKind::StorageFull.into());
        }
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
