//! Bytes that nobody meant well: every decoder (`src/decoders.rs`) is fed what a corpus of valid bytes becomes when it
//! is flipped, cut, spliced and stretched. None may panic, or take more memory than the bytes' length allows for; what
//! one takes, it takes again when written anew.
//!
//! `FUZZ_SECONDS=600 cargo test --test hostile -- --ignored --nocapture longer` goes on for longer, from a fresh seed
//! (`FUZZ_SEED` repeats one); `... --ignored corpus` makes the corpus anew. `fuzz/` is the same for cargo-fuzz.
#![allow(missing_docs, clippy::print_stdout, reason = "tests")]

#[path = "../ring/tests/any/mod.rs"]
mod any_message;

use std::alloc::System;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ennead::certs::{self, Identity};
use ennead::decoders::{ALL, check};
use ennead::storage::write_entry;
use ennead::wire::{self, Frame};
use ennead_ring::Limits;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static MEMORY: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn corpus(decoder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(decoder)
}

/// Bytes that may be taken in all for so many from outside: see `wire::decode`. Once more to write them anew, and to
/// read that. Bodies from storage are not decoded before their checksum holds, so nobody may choose their lengths.
fn most_memory(decoder: &str, len: usize) -> Option<usize> {
    let behind_a_checksum = ["record", "view", "account", "decree", "limits"].contains(&decoder);
    (!behind_a_checksum).then_some((256 << 10) + 1024 * len)
}

/// What becomes of some bytes.
fn spoil(rng: &mut StdRng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[rng.random_range(0..seeds.len())].clone();
    for _ in 0..rng.random_range(0..4u32) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..6u32) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8u32),
            1 if at < bytes.len() => bytes[at] = rng.random(),
            2 => bytes.truncate(at),
            3 => {
                let other = &seeds[rng.random_range(0..seeds.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[rng.random_range(0..=other.len())..]);
            }
            // A length that lies: one byte becomes bincode's sign for a long one, and the number follows.
            4 => {
                let long = [&[253][..], &rng.random::<u64>().to_le_bytes()].concat();
                let short = [251, rng.random(), rng.random()];
                let lie = if rng.random() { &long[..] } else { &short[..] };
                bytes.splice(at..(at + 1).min(bytes.len()), lie.iter().copied());
            }
            _ => bytes.splice(at..at, (0..rng.random_range(1..64u32)).map(|_| rng.random())).for_each(drop),
        }
    }
    bytes
}

fn feed(seed: u64, time: Duration) {
    let mut rng = StdRng::seed_from_u64(seed);
    for (name, _) in ALL {
        let files = fs::read_dir(corpus(name)).unwrap_or_else(|e| panic!("the corpus of {name}: {e}"));
        let mut files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
        files.sort();
        let seeds: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).expect("a file")).collect();
        assert!(!seeds.is_empty(), "the corpus of {name} is empty");
        for (bytes, file) in seeds.iter().zip(&files) {
            assert!(check(name, bytes), "{name} refuses {}", file.display());
        }
        let (began, mut fed, mut taken) = (Instant::now(), 0u64, 0u64);
        while began.elapsed() < time / ALL.len() as u32 {
            let bytes = spoil(&mut rng, &seeds);
            let region = Region::new(MEMORY);
            let hex = || bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
            let went = std::panic::catch_unwind(|| check(name, &bytes));
            let memory = region.change().bytes_allocated;
            let Ok(accepted) = went else { panic!("seed {seed}: {name} panicked at {}", hex()) };
            if let Some(most) = most_memory(name, bytes.len()) {
                assert!(
                    memory <= most,
                    "seed {seed}: {name} took {memory} bytes for {}: {}",
                    bytes.len(),
                    hex()
                );
            }
            (fed, taken) = (fed + 1, taken + u64::from(accepted));
        }
        println!("{name:12} {fed:>9} fed, {taken:>9} taken");
    }
}

#[test]
fn no_bytes_make_a_decoder_panic_or_take_memory_without_bound() {
    feed(1, Duration::from_secs(12));
}

#[test]
#[ignore = "for as long as FUZZ_SECONDS says"]
fn for_longer() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("FUZZ_SEED").unwrap_or_else(rand::random);
    println!("FUZZ_SEED={seed}");
    feed(seed, Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(60)));
}

/// Any value of a kind, drawn alike in every run.
fn draw<S: Strategy>(runner: &mut TestRunner, of: S) -> S::Value {
    of.new_tree(runner).expect("a value").current()
}

fn keep(decoder: &str, number: usize, bytes: &[u8]) {
    let dir = corpus(decoder);
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join(format!("{number:02}")), bytes).expect("a file");
}

#[test]
#[ignore = "writes into fuzz/corpus"]
fn corpus_is_made_of_valid_bytes() {
    let mut runner = TestRunner::deterministic();
    let body =
        |value: &dyn Fn() -> Result<Vec<u8>, bincode::error::EncodeError>| value().expect("it encodes");
    let standard = bincode::config::standard();
    for i in 0..24 {
        let mut out = BytesMut::new();
        let frame = Frame::Ring(Box::new(draw(&mut runner, any_message::envelope())));
        wire::encode(&frame, &mut out).expect("a frame");
        keep("frame", i, &out[4..]);
        wire::encode(&Frame::Ping(7), &mut out).expect("a frame");
        if i < 8 {
            keep("stream", i, &out);
            let record = draw(&mut runner, any_message::record());
            let bytes = body(&|| bincode::encode_to_vec(&record, standard));
            keep("record", i, &bytes);
            keep("entry", i, &write_entry(draw(&mut runner, any_message::key()).as_bytes(), &bytes));
            let view = draw(&mut runner, any_message::view());
            keep("view", i, &body(&|| bincode::encode_to_vec(&view, standard)));
            let account = draw(&mut runner, any_message::account());
            keep("account", i, &body(&|| bincode::encode_to_vec(&account, standard)));
            let decree = draw(&mut runner, any_message::decree());
            keep("decree", i, &body(&|| bincode::encode_to_vec(&decree, standard)));
        }
    }
    let limits = Limits { ceiling: draw(&mut runner, any_message::hlc()), ..Limits::default() };
    keep("limits", 0, &body(&|| bincode::encode_to_vec(limits, standard)));
    let dir = tempfile::tempdir().expect("a directory");
    certs::init(dir.path()).expect("an authority");
    let name = "10.0.0.1".parse().expect("a name");
    certs::issue(dir.path(), &certs::Who::Peer(name)).expect("a certificate");
    let identity = Identity::peer(dir.path(), name).expect("a certificate");
    keep("certificate", 0, identity.certificate());
    for (name, bytes) in ennead::decoders::backups() {
        keep(name, 0, &bytes);
    }
    let report = r#"{"id":"1","kind":"panic","cause":"panic","message":"m","location":"l","backtrace":"b","thread":"t","part":"p","log":["x"],"version":"1","uptime_ms":1,"restarts":0,"machine":"10.0.0.1","incarnation":"1","run":"1","at_ms":1}"#;
    keep("report", 0, report.as_bytes());
    keep("reports", 0, format!("[{report}]").as_bytes());
    let run = r#"{"run":"00000000000000ff","pid":1,"started_ms":1,"version":"1","ended":{"reason":"r","failed":false,"at_ms":2}}"#;
    keep("run", 0, run.as_bytes());
}
