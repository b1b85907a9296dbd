//! How fast records become durable, alone and in groups, and how fast they are read back.
#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ennead::storage::{Options, Storage, StorageEvent};
use ennead_ring::{Ballot, Change, Hlc, Incarnation, Key, Record, SlotSet, Stamp, State, Ticket};

const KEYS: u64 = 100_000;

fn key(n: u64) -> Key {
    Key::new(format!("key-{n:012}")).expect("a key")
}

fn change(n: u64, bytes: usize) -> Change {
    let ballot = Ballot { time: Hlc::from_nanos(n + 1), by: Incarnation::new(7) };
    let state = State { version: n, value: Some(vec![n as u8; bytes].into()), ..State::default() };
    let record = Record { stamp: Stamp { ballot, n: 1 }, state: Arc::new(state), votes: SlotSet::all(9) };
    // Scattered over the keys as hashes would be, the same on every run.
    Change::Record { key: key(n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % KEYS), record }
}

fn open(dir: &tempfile::TempDir) -> (Storage, Receiver<StorageEvent>) {
    let (tell, events) = channel();
    let told = move |event| drop(tell.send(event));
    let (storage, _) = Storage::open(dir.path(), Options::default(), told).expect("an open storage");
    (storage, events)
}

fn wait_for(events: &Receiver<StorageEvent>, last: u64) {
    loop {
        match events.recv().expect("storage is there") {
            StorageEvent::Durable(Ticket(n)) if n == last => return,
            StorageEvent::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
}

fn append(criterion: &mut Criterion) {
    for bytes in [100, 1024] {
        let mut group = criterion.benchmark_group(format!("append/{bytes} B"));
        for size in [1u64, 16, 128] {
            let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
            let (storage, events) = open(&dir);
            let mut n = 0;
            group.throughput(Throughput::Elements(size));
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter(|| {
                    for _ in 0..size {
                        n += 1;
                        storage.persist(Ticket(n), change(n, bytes));
                    }
                    wait_for(&events, n);
                });
            });
        }
        group.finish();
    }
}

fn read(criterion: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let (storage, events) = open(&dir);
    for n in 1..=2 * KEYS {
        storage.persist(Ticket(n), change(n, 100));
    }
    wait_for(&events, 2 * KEYS);
    let mut group = criterion.benchmark_group("read/100 B");
    for (name, every) in [("a present key", "key"), ("an absent key", "absent")] {
        let mut n = 0u64;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                n += 1;
                let name = format!("{every}-{:012}", n.wrapping_mul(0xD134_2543_DE82_EF95) % KEYS);
                storage.load(Key::new(name).expect("a key"));
                black_box(events.recv().expect("an answer"))
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    // fsync is slow and even: a few samples tell enough.
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(3));
    targets = append, read
}
criterion_main!(benches);
