//! How many calls a second and core the judge of histories gets through: `cargo bench -p ennead-sim --bench checker`.
#![allow(missing_docs, clippy::print_stdout, reason = "a figure, for people")]

use std::time::Instant;

use ennead_sim::checker::{Call, If, Op, Reply, judge};

/// One key's history: clients that overlap, one call in a hundred of unknown outcome, half of them reads.
fn history(calls: u64, unknown: bool) -> Vec<Op> {
    let (mut version, mut value) = (0, 0);
    let op = |i: u64| {
        // Each overlaps its neighbours, and takes effect in the middle.
        let (start, end) = (4 * i, 4 * i + 7);
        let who = (i % 4) as u32;
        if unknown && i % 100 == 50 {
            // Never applied, as far as anybody saw.
            let call = Call::Put(1_000_000_000 + i, If::Version(version));
            return Op { who, call, reply: Reply::Unknown, start, end: u64::MAX };
        }
        if i.is_multiple_of(2) {
            (version, value) = (version + 1, i + 1);
            return Op { who, call: Call::Put(value, If::Any), reply: Reply::Done(version), start, end };
        }
        Op { who, call: Call::Get, reply: Reply::Found(value, version), start, end }
    };
    (0..calls).map(op).collect()
}

fn main() {
    println!("{:>8} calls of a key, {:>14}: calls a second", "", "unknown");
    for calls in [100, 1_000, 10_000, 100_000] {
        for unknown in [false, true] {
            let (ops, begun, mut done) = (history(calls, unknown), Instant::now(), 0);
            while begun.elapsed().as_millis() < 500 {
                assert_eq!(judge(&ops), Ok(()));
                done += calls;
            }
            let rate = done as f64 / begun.elapsed().as_secs_f64();
            println!(
                "{calls:>8} calls of a key, {:>14}: {rate:>10.0}",
                if unknown { "one in 100" } else { "none" }
            );
        }
    }
}
