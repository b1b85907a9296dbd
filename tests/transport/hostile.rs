//! Bytes and callers that mean harm are refused with a reason, and others are served as before.

use std::net::UdpSocket;
use std::time::Duration;

use ennead::transport::{CloseCode, Config, To};
use ennead::wire::{Frame, Role};
use ennead_ring::view::ClusterId;

use super::clusters::in_cluster;
use super::raw::{Raw, bytes_of, closed, hello, peer_authority};
use super::{Authority, End, copy, free_name, peer_config, ring, talk, until};

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes()[..], body].concat()
}

/// Asserts that these bytes, after a client's hello, are answered with this code and words, and counted; and that
/// others are served as before.
async fn harmful(bytes: &[u8], finish: bool, code: CloseCode, words: &str) {
    let authority = Authority::new();
    let mut peer = in_cluster(&authority, 1, 1);
    let said = [bytes_of(&[hello(Role::Client, None)]), bytes.to_vec()].concat();
    let (number, reason) = Raw::client(&authority).say(peer.name(), &said, finish).await;
    assert_eq!(CloseCode::from_number(number), Some(code), "{reason}");
    assert!(reason.contains(words), "{reason}");
    peer.until_refused(code, 1).await;
    let other = End::client(&authority);
    talk(&other, &mut peer).await;
}

#[tokio::test]
async fn a_frame_above_the_limit_is_refused_at_its_length() {
    let most = (8 << 20) + (64 << 10) + 1u32;
    harmful(&most.to_le_bytes(), false, CloseCode::TooLarge, "8454145 bytes, and at most 8454144").await;
    harmful(&u32::MAX.to_le_bytes(), false, CloseCode::TooLarge, "4294967295 bytes").await;
}

#[tokio::test]
async fn a_truncated_frame_is_refused() {
    let whole = bytes_of(&[copy(1, 300)]);
    harmful(&whole[..100], true, CloseCode::BadFrame, "the stream ended inside a frame, after 100 of").await;
    harmful(&whole[..3], true, CloseCode::BadFrame, "after 3 of 4 bytes").await;
}

#[tokio::test]
async fn garbage_is_refused() {
    harmful(&framed(&[0xff; 50]), false, CloseCode::BadFrame, "not a frame of this version").await;
    harmful(&framed(&[]), false, CloseCode::BadFrame, "it ends too early").await;
}

#[tokio::test]
async fn an_unknown_frame_is_refused() {
    harmful(&framed(&[42]), false, CloseCode::BadFrame, "unknown variant 42").await;
}

#[tokio::test]
async fn bytes_after_a_frame_are_refused() {
    let mut body = bytes_of(&[Frame::StatusAsk { ask: 1 }])[4..].to_vec();
    body.push(0);
    harmful(&framed(&body), false, CloseCode::BadFrame, "1 bytes after the end of a frame").await;
}

#[tokio::test]
async fn a_second_hello_is_refused() {
    harmful(&bytes_of(&[hello(Role::Client, None)]), false, CloseCode::BadFrame, "a second hello").await;
}

#[tokio::test]
async fn a_message_of_another_cluster_is_refused() {
    let bytes = bytes_of(&[ring(Some(ClusterId::new(2)), 1)]);
    harmful(&bytes, false, CloseCode::AnotherCluster, "another cluster: I belong to 0000000000000001").await;
}

#[tokio::test]
async fn a_list_that_claims_to_be_huge_is_refused() {
    // StatusTold whose version text claims 2^40 bytes.
    let body = [&[5, 1, 4, 127, 0, 0, 1, 5, 5, 0, 0, 0, 0][..], &[253, 0, 0, 0, 0, 0, 1, 0, 0]].concat();
    harmful(&framed(&body), false, CloseCode::BadFrame, "not a frame").await;
}

#[tokio::test]
async fn a_connection_that_begins_without_a_hello_is_refused() {
    let authority = Authority::new();
    let mut peer = End::peer(&authority, free_name(1));
    let raw = Raw::client(&authority);
    let (code, reason) = raw.say(peer.name(), &bytes_of(&[Frame::StatusAsk { ask: 1 }]), false).await;
    assert_eq!(code, CloseCode::BadFrame as u64);
    assert_eq!(reason, "the first frame is status_ask, and must be a hello");
    // Before the hello, little is read: 5 KiB are already too much.
    let (code, reason) = raw.say(peer.name(), &5000u32.to_le_bytes(), false).await;
    assert_eq!(code, CloseCode::TooLarge as u64, "{reason}");
    let (code, reason) = raw.say(peer.name(), &[], true).await;
    assert_eq!((code, reason.as_str()), (CloseCode::BadFrame as u64, "the stream ended before a hello"));
    talk(&End::client(&authority), &mut peer).await;
}

#[tokio::test]
async fn who_says_nothing_is_cut_off() {
    let authority = Authority::new();
    let name = free_name(1);
    let peer =
        End::start(Config { dial_timeout: Duration::from_millis(300), ..peer_config(&authority, name) });
    let connection = Raw::client(&authority).connect(name).await.unwrap();
    assert_eq!(closed(&connection).await, (CloseCode::Idle as u64, "no hello came in time".to_string()));
    peer.until_refused(CloseCode::Idle, 1).await;
}

#[tokio::test]
async fn too_many_streams_are_refused() {
    let authority = Authority::new();
    let peer = End::peer(&authority, free_name(1));
    let connection = Raw::client(&authority).connect(peer.name()).await.unwrap();
    let mut streams = Vec::new();
    for i in 0..4 {
        let (mut send, recv) = connection.open_bi().await.unwrap();
        let frame = if i == 0 { hello(Role::Client, None) } else { Frame::StatusAsk { ask: i } };
        let _ = send.write_all(&bytes_of(&[frame])).await;
        streams.push((send, recv));
    }
    assert_eq!(closed(&connection).await.0, CloseCode::NotAllowed as u64);
    peer.until_refused(CloseCode::NotAllowed, 1).await;
}

#[tokio::test]
async fn connections_from_one_address_are_capped() {
    let authority = Authority::new();
    let name = free_name(1);
    let peer = End::start(Config { max_per_address: 2, ..peer_config(&authority, name) });
    let raw = Raw::client(&authority);
    let first = raw.connect(name).await.unwrap();
    let _second = raw.connect(name).await.unwrap();
    assert!(raw.connect(name).await.is_err());
    peer.until_refused(CloseCode::Crowded, 1).await;
    let mut client = End::client(&authority);
    client.transport.send(To::Machine(name), Frame::StatusAsk { ask: 1 });
    assert!(client.down().await.contains("takes no more connections now"));
    first.close(0u32.into(), b"");
    // A place is free again once its connection is forgotten.
    until(|| {
        client.transport.send(To::Machine(name), Frame::StatusAsk { ask: 1 });
        client.transport.stats().connections == 1
    })
    .await;
}

#[tokio::test]
async fn above_the_watermark_callers_prove_their_address_and_are_served() {
    let authority = Authority::new();
    let name = free_name(1);
    let mut peer = End::start(Config { retry_above: 0, ..peer_config(&authority, name) });
    talk(&End::client(&authority), &mut peer).await;
}

#[tokio::test]
async fn another_version_of_the_wire_parts_at_the_handshake() {
    let authority = Authority::new();
    let mut peer = End::peer(&authority, free_name(1));
    authority.client("tester");
    let raw = Raw::new(peer_authority(&authority), &authority.dir().join("clients"), "tester", b"ennead/0");
    let error = raw.connect(peer.name()).await.err().unwrap().to_string();
    assert!(error.contains("120") || error.to_lowercase().contains("protocol"), "{error}");
    peer.until_refused(CloseCode::WrongVersion, 1).await;
    talk(&End::client(&authority), &mut peer).await;
}

#[tokio::test]
async fn two_versions_that_meet_tell_each_other_which_they_are() {
    let authority = Authority::new();
    let (old, new) = (free_name(1), free_name(2));
    let mut new = End::start(Config { wire: b"ennead/99".to_vec(), ..peer_config(&authority, new) });
    let mut old = End::start(Config { wire: b"ennead/98".to_vec(), ..peer_config(&authority, old) });
    let (speaks_new, name) = (new.name(), old.name());
    old.transport.send(To::Machine(speaks_new), Frame::Ping(1));
    let reason = old.down().await;
    let said = format!("{speaks_new} closed: wrong version: I speak ennead/99 (program ");
    assert!(reason.starts_with(&said) && reason.contains("), you ennead/98 (program "), "{reason}");
    new.until_refused(CloseCode::WrongVersion, 1).await;
    new.transport.send(To::Machine(name), Frame::Ping(1));
    assert!(new.down().await.contains("I speak ennead/98"), "and the other way round");
}

#[tokio::test]
async fn noise_leaves_others_served() {
    let authority = Authority::new();
    let mut peer = End::peer(&authority, free_name(1));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for i in 0..2000u32 {
        let noise: Vec<u8> =
            (0..(i % 1300)).map(|j| (i.wrapping_mul(31) ^ j.wrapping_mul(17)) as u8).collect();
        let _ = socket.send_to(&noise, peer.name().address());
    }
    talk(&End::client(&authority), &mut peer).await;
}
