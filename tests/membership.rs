//! Machines come, go, die, lose their disks and come back as real processes, while recorded clients work.
//!
//! | module | one idea |
//! |---|---|
//! | `ring` | machines as processes |
//! | `load` | clients at work, every call recorded and judged |
#![allow(
    missing_docs,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests, that tell what they measured"
)]

#[path = "membership/load.rs"]
mod load;
#[path = "membership/ring.rs"]
mod ring;

use std::fs;
use std::time::{Duration, Instant};

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
    let before = load.failures();
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
    assert_eq!(load.failures(), before, "9 to 12 to 9 fails nothing");
    let came = load.finish(&client).await;
    told("1, 3, 9, 12, 9 machines", &came);
    for i in [2, 4, 10] {
        assert_eq!(ring.ended(i).await, Some(0), "who has left ends, and says so");
    }
}

#[tokio::test]
async fn a_machine_that_dies_is_dropped_and_nine_copies_are_back_without_a_command() {
    let mut ring = Ring::new(122, 10, &["--patience", "3s"]);
    (0..10).for_each(|i| ring.start(i));
    let client = ring.client(DEADLINE).await;
    ring.at_rest(&client, &(0..10).collect::<Vec<_>>()).await;
    let load = Load::start(&client, 3);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let died = Instant::now();
    ring.kill(4);
    let nine = [0, 1, 2, 3, 5, 6, 7, 8, 9];
    ring.at_rest(&client, &nine).await;
    println!("killed, dropped after 3 s of patience, and nine copies again in {:?}", died.elapsed());
    let copies = client.get_copies("key-1").await.expect("copies").1;
    println!("{} machines tell of key-1", copies.len());
    // Four more at once: all that was acknowledged is on five others.
    [1, 3, 6, 8].into_iter().for_each(|i| ring.kill(i));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let came = load.finish(&client).await;
    told("one of ten killed, then four of nine", &came);
    assert!(came.failed.is_empty(), "{:?}", came.failed);
}

#[tokio::test]
async fn a_wiped_machine_comes_back_as_another_and_votes_once_it_is_synced() {
    let mut ring = Ring::new(123, 4, &[]);
    (0..4).for_each(|i| ring.start(i));
    let client = ring.client(DEADLINE).await;
    let before = ring.at_rest(&client, &[0, 1, 2, 3]).await;
    let load = Load::start(&client, 3);
    tokio::time::sleep(Duration::from_millis(300)).await;
    ring.kill(2);
    fs::remove_dir_all(ring.data(2)).expect("its data is gone");
    ring.start(2);
    let begun = Instant::now();
    let after = loop {
        let view = ring.at_rest(&client, &[0, 1, 2, 3]).await;
        if ring.machine(&view, 2) != ring.machine(&before, 2) {
            break view;
        }
        assert!(begun.elapsed() < WITHIN, "the old incarnation stays: {view:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    println!(
        "wiped, and voting again as {} after {:?}",
        ring.machine(&after, 2).incarnation,
        begun.elapsed()
    );
    // It is as good as any other: one may be lost.
    ring.kill(0);
    let came = load.finish(&client).await;
    told("one of four wiped, then another killed", &came);
    assert!(came.failed.is_empty(), "{:?}", came.failed);
}

#[tokio::test]
async fn a_frozen_machine_moves_nothing_and_one_frozen_for_longer_than_the_patience_comes_back_with_its_data()
{
    let mut ring = Ring::new(124, 5, &["--patience", "6s"]);
    (0..5).for_each(|i| ring.start(i));
    let client = ring.client(DEADLINE).await;
    let five = [0, 1, 2, 3, 4];
    let before = ring.at_rest(&client, &five).await;
    let value = "x".repeat(2000);
    for n in 0..1500 {
        client.put(format!("long-{n}"), &value).await.expect("a write");
    }
    let fresh = 1500 * 2000;
    let load = Load::start(&client, 2);
    let taken = ring.account(&client, 3).await.expect("it answers").taken_bytes;

    ring.freeze(3);
    tokio::time::sleep(Duration::from_secs(2)).await;
    ring.thaw(3);
    let after = ring.at_rest(&client, &five).await;
    assert_eq!(after.epoch(), before.epoch(), "two seconds of silence move nothing");
    assert_eq!(load.failures(), 0);

    ring.freeze(3);
    ring.at_rest(&client, &[0, 1, 2, 4]).await;
    ring.thaw(3);
    let last = ring.at_rest(&client, &five).await;
    assert_eq!(ring.machine(&last, 3), ring.machine(&before, 3), "under the same incarnation");
    let account = ring.account(&client, 3).await.expect("it answers");
    let moved = account.taken_bytes - taken;
    println!("frozen and dropped: back with {moved} bytes taken in, of about {fresh} for a fresh one");
    assert!(moved < fresh / 4, "its data was no head start: {moved} bytes");
    let came = load.finish(&client).await;
    told("one of five frozen twice", &came);
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
    let refused = client.wish(Wish::Join { machine, weight: 64 }).await.expect_err("a living namesake");
    assert!(refused.to_string().contains("must not share a name"), "{refused}");
    let remove = client.wish(Wish::Remove { machine: ring.machine(&view, 1) }).await.expect_err("it answers");
    assert!(remove.to_string().contains("let it leave"), "{remove}");
    ring.at_rest(&client, &[0, 1, 2]).await;
}
