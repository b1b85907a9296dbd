//! Machines in three zones, as real processes: a zone dies, places change, and clients notice nothing.
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests, that tell what they measured"
)]

#[allow(dead_code, reason = "another test uses the rest")]
#[path = "membership/load.rs"]
mod load;
#[allow(dead_code, reason = "another test uses the rest")]
#[path = "membership/ring.rs"]
mod ring;

use std::time::{Duration, Instant};

use ennead::client::{Client, Error};
use ennead::summary::Summary;
use ennead::zones::ZoneState;
use ennead_ring::message::Wish;
use ennead_ring::{View, Zone};
use load::{Came, Load};
use ring::{Ring, WITHIN};

/// A deadline for operations that outlasts what a loaded computer of two cores takes for a move.
const DEADLINE: Duration = Duration::from_secs(20);
const ALL: [usize; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 8];

fn zone(name: &str) -> Zone {
    name.parse().expect("a zone")
}

/// Nine machines from 127.0.133.`first` on: zones a, b and c, of three each.
fn three_zones(first: u8, flags: &[&str]) -> Ring {
    let name = |i: u8| (format!("127.0.133.{}", first + i).parse().expect("a name"), Vec::new());
    let mut ring = Ring::of((0..9).map(name).collect(), flags);
    for i in ALL {
        ring.own_flags(i, &["--zone", ["a", "b", "c"][i / 3]]);
        ring.start(i);
    }
    ring
}

/// Eleven machines from 127.0.134.1 on: zones a, b and c, of five, three and three.
fn five_three_three(flags: &[&str]) -> Ring {
    let name = |i: u8| (format!("127.0.134.{}", 1 + i).parse().expect("a name"), Vec::new());
    let mut ring = Ring::of((0..11).map(name).collect(), flags);
    for (i, zone) in "aaaaabbbccc".chars().enumerate() {
        ring.own_flags(i, &["--zone", &zone.to_string()]);
        ring.start(i);
    }
    ring
}

async fn listed(client: &Client) -> Result<usize, Error> {
    let mut listing = client.list("k/").begin().await?;
    let mut keys = 0;
    while listing.next().await?.is_some() {
        keys += 1;
    }
    Ok(keys)
}

/// What `kvctl status` says of the zones, once that is as wanted.
async fn until_status_says(client: &Client, wanted: impl Fn(&[ZoneState]) -> bool) -> Vec<ZoneState> {
    let begun = Instant::now();
    loop {
        let view = client.view().await.expect("a view");
        let accounts = client.status().await.expect("accounts");
        let zones = Summary::of(&view, &accounts).zones();
        if wanted(&zones) {
            return zones;
        }
        assert!(begun.elapsed() < WITHIN, "{zones:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn can_fail(zones: &[ZoneState]) -> Vec<bool> {
    zones.iter().map(|zone| zone.can_fail).collect()
}

fn no_failure(what: &str, came: &Came) {
    println!("{what}: {} calls, longest wait for an answer {:?}", came.calls, came.longest);
    assert_eq!(came.failed, [], "{what}");
}

#[tokio::test]
async fn a_whole_zone_dies_at_once_and_nothing_fails() {
    let mut ring = three_zones(1, &["--patience", "10m"]);
    let client = ring.client(DEADLINE).await;
    ring.at_rest(&client, &ALL).await;
    let zones = until_status_says(&client, |zones| can_fail(zones) == [true; 3]).await;
    assert_eq!(
        zones.iter().map(|z| (z.name, z.machines.len())).collect::<Vec<_>>(),
        ["a", "b", "c"].map(|z| (zone(z), 3))
    );

    let load = Load::start(&client, 4);
    tokio::time::sleep(Duration::from_secs(1)).await;
    (3..6).for_each(|i| ring.kill(i));
    // The second zone would be one too many, and status says so.
    let zones = until_status_says(&client, |zones| can_fail(zones) == [false, true, false]).await;
    let why = zones[0].reason.clone().unwrap_or_default();
    assert!(why.contains("6 of the 9 slots of some keys would be silent, and 4 may be"), "{why}");
    let before = load.calls();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(load.calls() > before + 50, "six machines serve");
    (3..6).for_each(|i| ring.start(i));
    ring.at_rest(&client, &ALL).await;
    until_status_says(&client, |zones| can_fail(zones) == [true; 3]).await;
    no_failure("a zone of three killed", &load.finish(&client).await);
}

/// Five of eleven machines are more than any that may be lost, and these five may: they own three slots of a key at most.
#[tokio::test]
async fn with_a_zone_of_five_dead_every_key_is_listed_and_with_two_machines_more_those_missed_are_named() {
    let mut ring = five_three_three(&["--patience", "10m"]);
    let client = ring.client(DEADLINE).await;
    ring.at_rest(&client, &(0..11).collect::<Vec<_>>()).await;
    for i in 0..200 {
        client.put(format!("k/{i}"), "v").await.expect("a put");
    }
    (0..5).for_each(|i| ring.kill(i));
    assert_eq!(listed(&client).await.expect("a listing"), 200);
    ring.kill(5);
    assert_eq!(listed(&client).await.expect("a listing"), 200, "and one machine besides");
    ring.kill(8);
    let hasty = ring.client(Duration::from_secs(5)).await;
    match listed(&hasty).await {
        Err(Error::NoQuorum { votes: 4, needed: 5, mut silent, .. }) => {
            silent.sort_unstable();
            let mut dead: Vec<_> = [0, 1, 2, 3, 4, 5, 8].map(|i| ring.name(i)).to_vec();
            dead.sort_unstable();
            assert_eq!(silent, dead);
        }
        other => panic!("{other:?}"),
    }
    ring.start(5);
    assert_eq!(listed(&client).await.expect("a listing"), 200);
}

fn place(view: &View, ring: &Ring, i: usize) -> (u32, Zone) {
    let member = view.members()[view.index_of(ring.name(i)).expect("a member")];
    assert_eq!(member.place(), member.next_place());
    member.place()
}

/// Waits until a machine has this place, in a view at rest.
async fn until_placed(ring: &Ring, client: &Client, i: usize, wanted: (u32, Zone)) -> View {
    let begun = Instant::now();
    loop {
        let view = client.view().await.expect("a view");
        if view.members()[view.index_of(ring.name(i)).expect("a member")].place() == wanted {
            return ring.at_rest(client, &ALL).await;
        }
        assert!(begun.elapsed() < WITHIN, "{view:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_weight_changes_online_and_a_restart_with_another_place_moves_the_machine() {
    let mut ring = three_zones(21, &["--patience", "10m"]);
    let client = ring.client(DEADLINE).await;
    let view = ring.at_rest(&client, &ALL).await;
    assert_eq!(place(&view, &ring, 4), (64, zone("b")));
    let load = Load::start(&client, 4);

    // As `kvctl weight` does it.
    let wish = Wish::Place { machine: ring.machine(&view, 4), weight: 16, zone: zone("b") };
    client.wish(wish).await.expect("passed on");
    until_placed(&ring, &client, 4, (16, zone("b"))).await;
    // A restart with the settings of before asks for nothing: the operator's word counts.
    ring.kill(4);
    ring.start(4);
    ring.at_rest(&client, &ALL).await;
    // With others it does.
    ring.kill(7);
    ring.own_flags(7, &["--zone", "b", "--virtual-peers", "32"]);
    ring.start(7);
    let view = until_placed(&ring, &client, 7, (32, zone("b"))).await;
    assert_eq!(place(&view, &ring, 4), (16, zone("b")));
    // b has four of nine machines, a key four slots there at most: each zone can still fail.
    until_status_says(&client, |zones| can_fail(zones) == [true; 3]).await;
    no_failure("weights and zones changed", &load.finish(&client).await);
}
