//! Everything at once, on real processes: a seed draws faults while recorded clients work; then every key is judged.
//!
//! ```text
//! cargo test --test chaos -- --nocapture                                        # two minutes, one seed
//! CHAOS_SECONDS=3600 CHAOS_SEED=7 cargo test --test chaos soak -- --ignored --nocapture
//! ```
//!
//! | module | one idea |
//! |---|---|
//! | `draw` | what a seed draws |
//! | `watch` | how many machines may be taken away now |
//! | `storm` | carries it out, and undoes it in time |
//!
//! With root and namespaces each machine has a network and a disk of its own, which are cut and filled; elsewhere that
//! is left out, and said.
#![allow(
    missing_docs,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test that tells what it does as it goes"
)]

#[path = "membership/copies.rs"]
mod copies;
#[path = "chaos/draw.rs"]
mod draw;
#[allow(dead_code, reason = "another test uses the rest")]
#[path = "membership/load.rs"]
mod load;
#[allow(dead_code, reason = "another test uses the rest")]
mod namespaces;
#[allow(dead_code, reason = "another test uses the rest")]
#[path = "membership/ring.rs"]
mod ring;
#[path = "chaos/storm.rs"]
mod storm;
#[path = "chaos/watch.rs"]
mod watch;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use load::{Load, Work};
use namespaces::Networks;
use ring::{Ring, WITHIN};
use storm::{Places, Storm};

/// Machines, members or not.
const MACHINES: usize = 12;
/// How many of them are members at first.
const FIRST: usize = 9;
/// How long the storm blows where nobody says otherwise, in seconds, and from which seed.
const SECONDS: u64 = 60;
const SEED: u64 = 1;
/// Many a fault outlasts this patience, and many do not.
const FLAGS: [&str; 4] = ["--patience", "8s", "--check-every", "20s"];
/// Short, so that many a call ends without an answer.
const DEADLINE: Duration = Duration::from_secs(3);
const WORK: Work =
    Work { hot: 4, cold: 150, era: Duration::from_secs(20), long: 4000, pause: Duration::from_millis(5) };

/// A number from the environment.
fn number<T: FromStr>(variable: &str, otherwise: T) -> T {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// The same for ever, so that it tells what a change did.
#[test]
fn every_key_stays_one_register_through_a_minute_of_everything() {
    within_namespaces("in_its_own_networks");
}

/// With `CHAOS_SECONDS` and `CHAOS_SEED`.
#[test]
#[ignore = "takes as long as it is told to"]
fn soak() {
    within_namespaces("in_its_own_networks");
}

/// Runs it where each machine has a network of its own; where there are none, beside each other.
fn within_namespaces(test: &str) {
    match Networks::make(MACHINES as u8) {
        Ok(networks) => networks.run(test),
        Err(why) => {
            eprintln!("NOT TESTED: cuts and full disks, for want of network namespaces: {why}");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(chaos(None));
        }
    }
}

#[tokio::test]
#[ignore = "the others run it, in namespaces"]
async fn in_its_own_networks() {
    if let Some(prefix) = namespaces::prefix() {
        chaos(Some(prefix)).await;
    }
}

async fn chaos(prefix: Option<String>) {
    let (seconds, seed) = (number("CHAOS_SECONDS", SECONDS), number("CHAOS_SEED", SEED));
    println!("CHAOS_SEED={seed} CHAOS_SECONDS={seconds}");
    let mut ring = match &prefix {
        Some(prefix) => {
            let within = |i| ["ip", "netns", "exec", &namespaces::of(prefix, i)].map(str::to_owned).to_vec();
            Ring::of((1..=MACHINES as u8).map(|i| (namespaces::name(i), within(i))).collect(), &FLAGS)
        }
        None => Ring::new(135, MACHINES, &FLAGS),
    };
    let kept = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{seed}"));
    ring.keep_if_it_fails(&kept);
    let places = Places::make(prefix, &ring, MACHINES);

    (0..FIRST).for_each(|i| ring.start(i));
    let client = ring.client(Duration::from_secs(20)).await;
    ring.at_rest(&client, &(0..FIRST).collect::<Vec<_>>()).await;
    let mut connections = Vec::new();
    for _ in 0..3 {
        connections.push(ring.client(DEADLINE).await);
    }
    let load = Load::at(WORK, &connections, 6);

    let mut storm = Storm::new(ring, places, seed, FIRST).await;
    storm.rage(Duration::from_secs(seconds), &load).await;
    let calm = Instant::now();
    storm.undo_all();
    let members = storm.until_all_rest(&client, 2 * WITHIN).await;
    println!("all is undone: {members} machines rest after {:.1?}", calm.elapsed());
    let came = load.finish(&client).await;
    println!("{} keys of {} calls were one register each", came.keys.len(), came.calls);
    let took = copies::until_all_are_whole(&client, &came.keys, WITHIN).await;
    println!("nine copies of each are alike, and vote: after {took:.1?}");
    storm.nothing_else_went_wrong();

    println!("seed {seed}, {seconds} s; faults: {:?}", storm.counts());
    println!("calls by outcome: {:?}", came.outcomes);
    println!(
        "longest wait of a client {:.1?}, longest time of a hot key without a success {:.1?}",
        came.longest, came.gap
    );
}
