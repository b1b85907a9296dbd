//! Machines come, go, die, lose their disks and come back as real processes, while recorded clients work.
//!
//! | module | one idea |
//! |---|---|
//! | `ring` | machines as processes |
//! | `load` | clients at work, every call recorded and judged |
//! | `copies` | whether nine copies are there, asked one by one |
#![allow(
    missing_docs,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests, that tell what they measured"
)]

#[path = "membership/copies.rs"]
mod copies;
#[allow(dead_code, reason = "another test uses the rest")]
#[path = "membership/load.rs"]
mod load;
#[allow(dead_code, reason = "another test uses the rest")]
#[path = "membership/ring.rs"]
mod ring;

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use ennead::client::CopyAnswer;
use ennead::status::PeerState;
use ennead_ring::Zone;
use ennead_ring::message::Wish;
use load::{Came, Load};
use ring::{Ring, WITHIN};

/// A deadline for operations that outlasts what a loaded computer of two cores takes for a move of twelve machines.
const DEADLINE: Duration = Duration::from_secs(20);

fn told(what: &str, came: &Came) {
    println!(
        "{what}: {} calls, {} failed, longest wait for an answer {:?}",
        came.calls,
        came.failed.len(),
        came.longest
    );
}

async fn wish(client: &ennead::Client, wish: Wish, done: impl Fn(&ennead_ring::View) -> bool) {
    let begun = Instant::now();
    loop {
        let said = client.wish(wish).await;
        if client.view().await.is_ok_and(|view| done(&view)) {
            return;
        }
        assert!(begun.elapsed() < WITHIN, "{wish:?}: {said:?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn grows_from_one_to_twelve_and_shrinks_to_nine_under_load() {
    let mut ring = Ring::new(121, 12, &[]);
    ring.start(0);
    let client = ring.client(DEADLINE).await;
    ring.at_rest(&client, &[0]).await;
    let load = Load::start(&client, 4);
    (1..3).for_each(|i| ring.start(i));
    ring.at_rest(&client, &[0, 1, 2]).await;
    (3..9).for_each(|i| ring.start(i));
    let nine: Vec<usize> = (0..9).collect();
    ring.at_rest(&client, &nine).await;
    (9..12).for_each(|i| ring.start(i));
    let view = ring.at_rest(&client, &(0..12).collect::<Vec<_>>()).await;
    for i in [2, 4, 10] {
        let machine = ring.machine(&view, i);
        let leave = Wish::Leave { machine };
        wish(&client, leave, |view| {
            view.members()
                .iter()
                .all(|m| m.machine != machine || m.state == ennead_ring::view::MemberState::Leaving)
        })
        .await;
    }
    ring.at_rest(&client, &[0, 1, 3, 5, 6, 7, 8, 9, 11]).await;
    let came = load.finish(&client).await;
    told("1, 3, 9, 12, 9 machines", &came);
    assert!(came.failed.is_empty(), "nobody was dead at any time: {:?}", came.failed);
    for i in [2, 4, 10] {
        assert_eq!(ring.ended(i).await, Some(0), "who has left ends, and says so");
    }
}

/// Values that nobody writes again, and whether they are all there.
struct Lasting(Vec<String>);

impl Lasting {
    async fn put(client: &ennead::Client, count: usize, bytes: usize) -> Self {
        let keys: Vec<String> = (0..count).map(|n| format!("lasting-{n}")).collect();
        for key in &keys {
            client.put(key, format!("{key} {}", "x".repeat(bytes))).await.expect("a write");
        }
        Self(keys)
    }

    async fn are_there(&self, client: &ennead::Client) {
        for key in &self.0 {
            let found = client.get(key).await.expect("a read").expect("it was acknowledged");
            assert!(found.value.starts_with(format!("{key} ").as_bytes()), "{key}");
        }
    }
}

#[tokio::test]
async fn a_machine_that_dies_is_dropped_and_nine_copies_are_back_without_a_command() {
    let mut ring = Ring::new(122, 10, &["--patience", "3s", "--check-every", "5s"]);
    (0..10).for_each(|i| ring.start(i));
    let client = ring.client(DEADLINE).await;
    ring.at_rest(&client, &(0..10).collect::<Vec<_>>()).await;
    let lasting = Lasting::put(&client, 200, 100).await;
    let load = Load::start(&client, 3);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let died = Instant::now();
    ring.kill(4);
    // As `kvctl status --json` tells it. The aim is a second, on machines that do nothing else.
    let others = ring.until_said_of(&client, 4, |state| state != PeerState::Up).await;
    println!("killed, and suspected by {others} others after {:?}", died.elapsed());
    assert!(died.elapsed() < Duration::from_secs(3), "suspected only after {:?}", died.elapsed());
    let nine = [0, 1, 2, 3, 5, 6, 7, 8, 9];
    ring.at_rest(&client, &nine).await;
    assert!(died.elapsed() >= Duration::from_secs(3), "dropped before its time: {:?}", died.elapsed());
    // Copy by copy: what nobody writes, and, while nobody does, what all do.
    load.hold(true);
    let keys = [lasting.0.clone(), load.keys()].concat();
    copies::until_all_are_whole(&client, &keys, WITHIN).await;
    println!("dropped, and nine copies of {} keys again {:?} after its death", keys.len(), died.elapsed());
    load.hold(false);
    // Four more at once: all that was acknowledged is on five others.
    [1, 3, 6, 8].into_iter().for_each(|i| ring.kill(i));
    tokio::time::sleep(Duration::from_millis(500)).await;
    lasting.are_there(&client).await;
    let came = load.finish(&client).await;
    told("one of ten killed, then four of nine", &came);
    assert!(came.failed.is_empty(), "{:?}", came.failed);
}

#[tokio::test]
async fn a_wiped_machine_comes_back_as_another_and_votes_once_it_is_synced() {
    let mut ring = Ring::new(123, 4, &["--check-every", "2s"]);
    (0..4).for_each(|i| ring.start(i));
    let client = ring.client(DEADLINE).await;
    let before = ring.at_rest(&client, &[0, 1, 2, 3]).await;
    let lasting = Lasting::put(&client, 200, 1000).await;
    let load = Load::start(&client, 3);
    tokio::time::sleep(Duration::from_millis(300)).await;
    ring.kill(2);
    fs::remove_dir_all(ring.data(2)).expect("its data is gone");
    let begun = Instant::now();
    ring.start(2);
    // Any answer of it before it is synced is without a vote. What it says of itself is asked after the copies were.
    let (mut heard, mut key) = (BTreeSet::new(), lasting.0.iter().cycle());
    let synced = loop {
        client.view().await.expect("the newest view");
        let (_, copies) = client.get_copies(key.next().expect("a cycle")).await.expect("a quorum");
        // Once the old incarnation is dropped, it is no owner until it has copied ahead.
        let copy = copies.iter().find(|copy| copy.machine == ring.name(2)).map(|copy| copy.answer);
        let account = ring.account(&client, 2).await;
        let synced = account.filter(|a| a.slots > 0 && a.slots == a.synced_slots);
        heard.insert(copy.map_or("no owner's".to_owned(), |answer| format!("{answer:?}")));
        match (copy, synced) {
            (_, Some(account)) => break account,
            (None | Some(CopyAnswer::Silent | CopyAnswer::NotSynced | CopyAnswer::Refused), None) => {}
            (Some(answer), None) => panic!("it votes ({answer:?}) before it is synced"),
        }
        // The slower its disk, the longer there is something to see.
        ring.slow_disk(2, Duration::from_millis(1500));
        assert!(begun.elapsed() < WITHIN, "it is not synced: {heard:?}");
    };
    println!("wiped, and synced after {:?}; until then its copies were {heard:?}", begun.elapsed());
    assert!(
        heard.contains("NotSynced") || heard.contains("Refused"),
        "it was never asked too early: {heard:?}"
    );
    assert_ne!(synced.machine, ring.machine(&before, 2), "another incarnation");
    ring.slow_disk(2, Duration::ZERO);
    let after = ring.at_rest(&client, &[0, 1, 2, 3]).await;
    assert_eq!(ring.machine(&after, 2), synced.machine);
    load.hold(true);
    copies::until_all_are_whole(&client, &[lasting.0.clone(), load.keys()].concat(), WITHIN).await;
    load.hold(false);
    // It is as good as any other: one may be lost.
    ring.kill(0);
    lasting.are_there(&client).await;
    let came = load.finish(&client).await;
    told("one of four wiped, then another killed", &came);
    assert!(came.failed.is_empty(), "{:?}", came.failed);
}

#[tokio::test]
async fn a_machine_frozen_for_five_seconds_moves_nothing_and_fails_nothing() {
    // No comparison of copies: that too takes a few bytes in.
    let mut ring = Ring::new(124, 5, &["--check-every", "0s"]);
    let five = [0, 1, 2, 3, 4];
    five.into_iter().for_each(|i| ring.start(i));
    let client = ring.client(DEADLINE).await;
    let before = ring.at_rest(&client, &five).await;
    Lasting::put(&client, 500, 2000).await;
    let load = Load::start(&client, 2);
    let taken = ring.taken(&client).await;
    ring.freeze(3);
    tokio::time::sleep(Duration::from_secs(5)).await;
    ring.thaw(3);
    let after = ring.at_rest(&client, &five).await;
    assert_eq!(after.epoch(), before.epoch(), "suspicion is no change of the view");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ring.taken(&client).await, taken, "bytes taken in by each");
    let came = load.finish(&client).await;
    told("one of five frozen for five seconds", &came);
    assert!(came.failed.is_empty(), "{:?}", came.failed);
}

#[tokio::test]
async fn a_machine_frozen_for_longer_than_the_patience_comes_back_with_its_data_as_a_head_start() {
    let mut ring = Ring::new(126, 5, &["--patience", "4s"]);
    let five = [0, 1, 2, 3, 4];
    five.into_iter().for_each(|i| ring.start(i));
    let client = ring.client(DEADLINE).await;
    let before = ring.at_rest(&client, &five).await;
    let lasting = Lasting::put(&client, 1500, 2000).await;
    let load = Load::start(&client, 2);
    let taken = ring.account(&client, 3).await.expect("it answers").taken_bytes;
    ring.freeze(3);
    ring.at_rest(&client, &[0, 1, 2, 4]).await;
    ring.thaw(3);
    let back = ring.at_rest(&client, &five).await;
    assert_eq!(ring.machine(&back, 3), ring.machine(&before, 3), "under the same incarnation");
    let moved = ring.account(&client, 3).await.expect("it answers").taken_bytes - taken;

    // The same machine without its data, into the same ring.
    ring.kill(3);
    fs::remove_dir_all(ring.data(3)).expect("its data is gone");
    ring.at_rest(&client, &[0, 1, 2, 4]).await;
    ring.start(3);
    ring.at_rest(&client, &five).await;
    let fresh = ring.account(&client, 3).await.expect("it answers").taken_bytes;
    println!("back with {moved} bytes taken in; the same machine without its data takes {fresh}");
    assert!(moved < fresh / 4, "its data was no head start: {moved} bytes, of {fresh}");
    lasting.are_there(&client).await;
    let came = load.finish(&client).await;
    told("one of five frozen, dropped, back, wiped, back", &came);
    assert!(came.failed.is_empty(), "{:?}", came.failed);
}

#[tokio::test]
async fn two_machines_must_not_share_a_name() {
    let mut ring = Ring::new(125, 3, &[]);
    (0..3).for_each(|i| ring.start(i));
    let client = ring.client(DEADLINE).await;
    let view = ring.at_rest(&client, &[0, 1, 2]).await;
    // The same name in the view, alive, and an offer under another incarnation.
    let machine = ennead_ring::Machine {
        name: ring.name(1),
        incarnation: ennead_ring::Incarnation::new(ring.machine(&view, 1).incarnation.id() ^ 1),
    };
    let refused = client
        .wish(Wish::Join { machine, weight: 64, zone: Zone::NONE })
        .await
        .expect_err("a living namesake");
    assert!(refused.to_string().contains("must not share a name"), "{refused}");
    let remove = client.wish(Wish::Remove { machine: ring.machine(&view, 1) }).await.expect_err("it answers");
    assert!(remove.to_string().contains("let it leave"), "{remove}");
    ring.at_rest(&client, &[0, 1, 2]).await;
}
