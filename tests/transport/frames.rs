//! What is sent arrives, in order and whole, over the one connection of a pair.

use ennead::transport::{Config, Event, To, Transport};
use ennead::wire::{Frame, Role};
use ennead_ring::message::Addr;
use tokio::sync::mpsc;

use super::{Authority, End, copy, free_name, peer_config, ring, talk, until};

#[tokio::test]
async fn frames_go_both_ways_in_both_sizes() {
    let authority = Authority::new();
    let mut a = End::peer(&authority, free_name(1));
    let mut b = End::peer(&authority, free_name(2));
    let sizes = [0, 300, 16 * 1024, 16 * 1024 + 1, 1 << 20, 8 << 20];
    for (i, size) in sizes.into_iter().enumerate() {
        a.transport.send(To::Machine(b.name()), copy(i as u64, size));
        assert_eq!(b.frame().await, (Addr::Machine(a.machine.unwrap()), copy(i as u64, size)));
        b.transport.send(To::Machine(a.name()), copy(i as u64, size));
        assert_eq!(a.frame().await, (Addr::Machine(b.machine.unwrap()), copy(i as u64, size)));
    }
    let stats = a.transport.stats();
    assert_eq!((stats.connections, stats.dials, stats.dropped), (1, 1, 0));
    assert_eq!((stats.frames_in, stats.frames_out), (6, 6));
    assert_eq!(b.transport.stats().dials, 0, "the connection is used both ways");
}

#[tokio::test]
async fn up_comes_before_the_first_frame() {
    let authority = Authority::new();
    let a = End::peer(&authority, free_name(1));
    let mut b = End::peer(&authority, free_name(2));
    a.transport.send(To::Machine(b.name()), ring(None, 1));
    assert!(matches!(b.next().await, Event::Up { machine, .. } if Some(machine) == a.machine));
    assert!(matches!(b.next().await, Event::Frame { .. }));
}

#[tokio::test]
async fn many_frames_keep_their_order() {
    let authority = Authority::new();
    let a = End::peer(&authority, free_name(1));
    let mut b = End::peer(&authority, free_name(2));
    for ask in 0..200 {
        a.transport.send(To::Machine(b.name()), ring(None, ask));
    }
    for ask in 0..200 {
        assert_eq!(b.frame().await.1, ring(None, ask));
    }
}

#[tokio::test]
async fn a_client_asks_and_is_answered_and_its_going_is_told() {
    let authority = Authority::new();
    let mut peer = End::peer(&authority, free_name(1));
    let mut client = End::client(&authority);
    client.transport.send(To::Machine(peer.name()), Frame::StatusAsk { ask: 5 });
    let (from, frame) = peer.frame().await;
    assert_eq!(frame, Frame::StatusAsk { ask: 5 });
    let Addr::Client(number) = from else { panic!("{from} is no client") };
    assert_eq!(peer.transport.stats().clients, 1);
    peer.transport.send(from.into(), copy(1, 100_000));
    assert_eq!(client.frame().await, (Addr::Machine(peer.machine.unwrap()), copy(1, 100_000)));
    client.transport.close("done").await;
    assert_eq!(peer.next().await, Event::ClientGone(number));
    assert_eq!(peer.transport.stats().clients, 0);
}

#[tokio::test]
async fn a_machine_can_be_a_client_too() {
    let authority = Authority::new();
    let mut peer = End::peer(&authority, free_name(1));
    let client = End::start(Config::new(Role::Client, authority.peer(free_name(2))));
    client.transport.send(To::Machine(peer.name()), Frame::StatusAsk { ask: 5 });
    assert!(matches!(peer.frame().await.0, Addr::Client(_)));
}

#[tokio::test]
async fn both_dial_at_once_and_one_connection_stays() {
    let authority = Authority::new();
    let mut a = End::peer(&authority, free_name(1));
    let mut b = End::peer(&authority, free_name(2));
    for round in 0..20 {
        a.transport.send(To::Machine(b.name()), ring(None, round));
        b.transport.send(To::Machine(a.name()), ring(None, round));
    }
    for round in 0..20 {
        assert_eq!(a.frame().await.1, ring(None, round));
        assert_eq!(b.frame().await.1, ring(None, round));
    }
    until(|| a.transport.stats().connections == 1 && b.transport.stats().connections == 1).await;
    for round in 100..120 {
        a.transport.send(To::Machine(b.name()), ring(None, round));
        assert_eq!(b.frame().await.1, ring(None, round));
        b.transport.send(To::Machine(a.name()), ring(None, round));
        assert_eq!(a.frame().await.1, ring(None, round));
    }
    assert_eq!((a.transport.stats().connections, b.transport.stats().connections), (1, 1));
    assert_eq!(a.transport.stats().dropped + b.transport.stats().dropped, 0, "nothing in flight was lost");
}

#[tokio::test]
async fn the_close_reason_reaches_the_peer() {
    let authority = Authority::new();
    let a = End::peer(&authority, free_name(1));
    let mut b = End::peer(&authority, free_name(2));
    talk(&a, &mut b).await;
    a.transport.close("shutting down (SIGTERM)").await;
    assert_eq!(b.down().await, format!("{} closed: shutting down (SIGTERM)", a.name()));
}

#[tokio::test]
async fn what_was_sent_before_a_close_arrives() {
    let authority = Authority::new();
    let a = End::peer(&authority, free_name(1));
    let mut b = End::peer(&authority, free_name(2));
    talk(&a, &mut b).await;
    for ask in 1000..1200 {
        a.transport.send(To::Machine(b.name()), ring(None, ask));
    }
    a.transport.send(To::Machine(b.name()), copy(1, 4 << 20));
    a.transport.close("done").await;
    let (mut last, mut large) = (false, false);
    while !(last && large) {
        let frame = b.frame().await.1;
        last |= frame == ring(None, 1199);
        large |= frame == copy(1, 4 << 20);
    }
}

#[tokio::test]
async fn a_value_above_the_cap_is_not_sent_and_does_no_harm() {
    let authority = Authority::new();
    let a = End::peer(&authority, free_name(1));
    let mut b = End::peer(&authority, free_name(2));
    a.transport.send(To::Machine(b.name()), copy(1, 9 << 20));
    a.transport.send(To::Machine(b.name()), ring(None, 2));
    assert_eq!(b.frame().await.1, ring(None, 2));
    until(|| a.transport.stats().dropped == 1).await;
    talk(&a, &mut b).await;
    assert_eq!(a.transport.stats().dials, 1);
}

#[tokio::test]
async fn pings_are_answered_though_the_core_takes_nothing() {
    let authority = Authority::new();
    let name = free_name(2);
    let mut a = End::peer(&authority, free_name(1));
    let (tell, events) = mpsc::channel(1);
    let b = Transport::bind(peer_config(&authority, name), tell).unwrap();
    for ask in 0..100 {
        a.transport.send(To::Machine(name), ring(None, ask));
    }
    until(|| b.stats().frames_in > 0).await;
    a.transport.send(To::Machine(name), Frame::Ping(77));
    assert!(matches!(a.frame().await.1, Frame::Pong { number: 77, .. }));
    // Nor does it matter that not even the coming of a machine can be told.
    let mut late = End::peer(&authority, free_name(3));
    late.transport.send(To::Machine(name), Frame::Ping(78));
    assert!(matches!(late.frame().await.1, Frame::Pong { number: 78, .. }));
    drop(events);
}
