//! How long a record waits to be durable under a steady load: the tail is what users feel.
//!
//! Records come in bursts, 125 a second, whatever the disk does. 10 s a load, or so many with
//! `--seconds 60`; `--keys N` spreads them over so many keys (default 1,000,000).
#![allow(missing_docs, clippy::print_stdout)]

use std::io::{Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ennead::storage::{Options, Storage, StorageEvent};
use ennead_ring::{Ballot, Change, Hlc, Incarnation, Key, Record, SlotSet, Stamp, State, Ticket};

const BURSTS: u64 = 125;

fn change(n: u64, keys: u64, bytes: usize) -> Change {
    let ballot = Ballot { time: Hlc::from_nanos(n + 1), by: Incarnation::new(7) };
    let value: Vec<u8> = (0..bytes).map(|i| (n.wrapping_mul(31) as usize ^ i) as u8).collect();
    let state = State { version: n, value: Some(value.into()), ..State::default() };
    let record = Record { stamp: Stamp { ballot, n: 1 }, state: Arc::new(state), votes: SlotSet::all(9) };
    let key = format!("key-{:012}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % keys);
    Change::Record { key: Key::new(key).expect("a key"), record }
}

/// A figure of this process as the system tells it; `None` where it does not.
fn proc_field(file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line[field.len()..].trim_matches(|c: char| !c.is_ascii_digit()).parse().ok()
}

/// CPU time of this process.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn run(seconds: u64, burst: u64, keys: u64, bytes: usize) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let total = seconds * BURSTS * burst;
    // When each ticket was handed in, and how long those answered took.
    let handed: Arc<Mutex<(Vec<Instant>, Vec<Duration>)>> = Arc::default();
    let heard = handed.clone();
    let told = move |event| match event {
        StorageEvent::Durable(Ticket(last)) => {
            let now = Instant::now();
            let (handed, took) = &mut *heard.lock().expect("no panic");
            for at in &handed[took.len()..last as usize] {
                took.push(now - *at);
            }
        }
        StorageEvent::Failed(error) => panic!("{error}"),
        StorageEvent::Loaded { .. } | StorageEvent::Scanned { .. } => {}
    };
    let begun = Instant::now();
    let (storage, _) = Storage::open(dir.path(), Options::default(), told.clone()).expect("an open storage");
    let opened = begun.elapsed();
    let idle = proc_field("status", "VmRSS:").unwrap_or(0) / 1024;
    let (cpu_before, written_before) = (cpu(), proc_field("io", "write_bytes:"));
    let begun = Instant::now();
    let mut n = 0;
    for i in 0..seconds * BURSTS {
        let due = begun + Duration::from_nanos(i * 1_000_000_000 / BURSTS);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let changes: Vec<_> = (n..n + burst).map(|n| change(n, keys, bytes)).collect();
        for change in changes {
            n += 1;
            handed.lock().expect("no panic").0.push(Instant::now());
            storage.persist(Ticket(n), change);
        }
    }
    while storage.stats().queued > 0 {
        thread::sleep(Duration::from_millis(1));
    }
    let used = cpu() - cpu_before;
    let stats = storage.stats();
    let rss = proc_field("status", "VmRSS:").unwrap_or(0) / 1024;
    let written = proc_field("io", "write_bytes:").zip(written_before).map_or(0, |(now, then)| now - then);
    storage.close();
    let begun = Instant::now();
    let again = Storage::open(dir.path(), Options::default(), |_| {}).expect("an open storage");
    let reopened = begun.elapsed();
    drop(again);

    let mut took = std::mem::take(&mut handed.lock().expect("no panic").1);
    took.sort_unstable();
    println!("{:>6} rec/s of {bytes:>4} B, {seconds} s: {}", BURSTS * burst, quantiles(&took));
    println!(
        "       {:.1} us CPU and {} bytes written per record; {} journal files, {} groups, {} batches, {} merges, slowed {} times; \
         fsync max {:.1} ms; {rss} MiB resident, {idle} when opened; created in {:.0} ms, reopened in {:.0} ms",
        used.as_secs_f64() * 1e6 / total as f64,
        written / total,
        stats.journal_files,
        stats.groups,
        stats.applied,
        stats.merges,
        stats.slowed,
        stats.fsync_max.as_secs_f64() * 1e3,
        opened.as_secs_f64() * 1e3,
        reopened.as_secs_f64() * 1e3,
    );
}

/// What the disk alone takes for the same bursts: one write and one fdatasync each on a preallocated file.
fn floor(seconds: u64, burst: u64, bytes: usize) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let mut file = std::fs::File::create(dir.path().join("floor")).expect("a file");
    let size = 16 << 20;
    file.write_all(&vec![0; size]).and_then(|()| file.sync_all()).expect("16 MiB on the disk");
    let bytes = vec![1; (bytes + 80) * burst as usize];
    let mut took = Vec::new();
    let begun = Instant::now();
    for i in 0..seconds * BURSTS {
        let due = begun + Duration::from_nanos(i * 1_000_000_000 / BURSTS);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let begun = Instant::now();
        let at = (i as usize * bytes.len()) % (size - bytes.len());
        file.seek(SeekFrom::Start(at as u64)).expect("a seek");
        file.write_all(&bytes).and_then(|()| file.sync_data()).expect("a write");
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    println!("       the disk alone: {}", quantiles(&took));
}

fn quantiles(sorted: &[Duration]) -> String {
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    format!("p50 {:.2} ms, p99 {:.2}, p99.9 {:.2}, max {:.2}", at(0.5), at(0.99), at(0.999), at(1.0))
}

fn main() {
    let mut seconds = 10;
    let mut keys = 1_000_000;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let number = |text: Option<String>| text.and_then(|n| n.parse().ok()).expect("a number after it");
        match arg.as_str() {
            "--seconds" => seconds = number(args.next()),
            "--keys" => keys = number(args.next()),
            // What cargo adds.
            _ => {}
        }
    }
    println!("{} MiB resident before", proc_field("status", "VmRSS:").unwrap_or(0) / 1024);
    run(seconds, 16, keys, 1024);
    floor(seconds, 16, 1024);
    run(seconds, 64, keys, 100);
    floor(seconds, 64, 100);
}
