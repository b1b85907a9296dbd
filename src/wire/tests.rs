use std::net::IpAddr;

use ennead_ring::SlotSet;
use ennead_ring::gossip::Gossip;
use ennead_ring::message::{Answer, Ask, Copied, Found, Message, Op, Outcome};
use ennead_ring::stamp::{Applied, Came, Hlc, Record, RequestId, Stamp, State};
use ennead_ring::view::{Epoch, Incarnation, Name};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::status::{CheckStatus, Figures, MoveStatus, PeerState, PeerStatus};
use crate::verdict::{
    Before, EndKind, Ended, Ending, Happened, Knock, Knocked, Met, Offset, Own, Seen, Silence, Word,
};

#[path = "../../ring/tests/any/mod.rs"]
mod any_message;
use any_message::{envelope, epoch, machine, name, purpose};

// ---- Any frame there can be

fn cluster() -> impl Strategy<Value = Option<ClusterId>> {
    option::of(any::<u64>().prop_map(ClusterId::new))
}

fn status() -> impl Strategy<Value = MachineStatus> {
    let state = prop_oneof![Just(PeerState::Up), Just(PeerState::Suspect), Just(PeerState::Down)];
    let silence = (state, any::<u64>(), vec(name(), 0..9), vec(name(), 0..9));
    let peer = (name(), any::<bool>(), any::<u64>(), option::of(".{0,60}"), silence).prop_map(
        |(name, reachable, since_ms, reason, (state, silent_ms, by, late_by))| PeerStatus {
            name,
            reachable,
            since_ms,
            reason,
            state,
            silent_ms,
            by,
            late_by,
        },
    );
    let numbers = (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>());
    let names = || vec(name(), 0..4);
    let counts = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    let one = (purpose(), counts, names(), names()).prop_map(
        |(purpose, (keys, bytes, looked, total, since_ms), from, waits_for)| MoveStatus {
            purpose,
            keys,
            bytes,
            looked,
            total,
            since_ms,
            from,
            waits_for,
        },
    );
    let work = (epoch(), vec(one, 0..4), check());
    (machine(), cluster(), epoch(), ".{0,20}", vec(peer, 0..20), numbers, work).prop_map(
        |(machine, cluster, epoch, version, peers, numbers, (settled, moves, check))| {
            let (uptime_ms, records, clients, part_restarts) = numbers;
            MachineStatus {
                machine,
                cluster,
                epoch,
                settled,
                version,
                uptime_ms,
                slots: clients,
                synced_slots: part_restarts,
                peers,
                records,
                clients,
                part_restarts,
                moves,
                check,
                taken_bytes: records,
                objections: (0..records % 3).map(|n| format!("objection {n}")).collect(),
                figures: Figures {
                    wall_ms: uptime_ms,
                    writes: records,
                    failed: u64::from(clients),
                    ..Figures::default()
                },
            }
        },
    )
}

fn check() -> impl Strategy<Value = CheckStatus> {
    let counts = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    (any::<bool>(), counts).prop_map(|(running, (rounds, keys, unlike, mended, collected))| CheckStatus {
        rounds,
        running,
        keys,
        unlike,
        mended,
        collected,
    })
}

fn testimony() -> impl Strategy<Value = Testimony> {
    let ended = (".{0,60}", any::<bool>(), any::<u64>()).prop_map(|(reason, failed, at_ms)| Ended {
        reason,
        failed,
        at_ms,
    });
    let before = (any::<u64>(), ".{0,20}", option::of(ended)).prop_map(|(run, version, ended)| Before {
        run,
        version,
        ended,
    });
    let words = [Word::Paused, Word::DiskStalled, Word::Killed, Word::Upgraded, Word::Left, Word::DiskFull];
    let happened = (0..6usize, any::<u64>(), any::<u64>(), any::<u64>(), ".{0,60}").prop_map(
        move |(word, from_ms, until_ms, run, what)| Happened {
            word: words[word],
            from_ms,
            until_ms,
            run,
            what,
        },
    );
    let own = (
        any::<u64>(),
        any::<u64>(),
        ".{0,20}",
        any::<(u32, u8, u64)>(),
        option::of(before),
        vec(happened, 0..4),
    )
        .prop_map(|(run, ms, version, (stalled_ms, load, refused), before, past)| Own {
            run,
            uptime_ms: ms,
            version,
            stalled_ms,
            load,
            refused,
            unwell_ms: ms,
            before,
            past,
        });
    let ending = || {
        let kinds = [EndKind::Farewell, EndKind::Incompatible, EndKind::Silence, EndKind::Other];
        let kind = (0..4usize).prop_map(move |i| kinds[i]);
        (kind, ".{0,60}", any::<u64>()).prop_map(|(kind, text, ago_ms)| Ending { kind, text, ago_ms })
    };
    let knocked = || {
        let all = [Knocked::Refused, Knocked::Silent, Knocked::NoRoute];
        (0..3usize).prop_map(move |i| all[i])
    };
    let knock =
        (knocked(), knocked(), any::<u64>()).prop_map(|(port, host, ago_ms)| Knock { port, host, ago_ms });
    let met = (any::<u64>(), ".{0,20}", any::<u64>(), any::<bool>())
        .prop_map(|(run, version, ago_ms, farewell)| Met { run, version, ago_ms, farewell });
    let state = prop_oneof![Just(PeerState::Up), Just(PeerState::Suspect), Just(PeerState::Down)];
    let heard = (state, any::<u64>(), vec(name(), 0..9), option::of(any::<u64>()));
    let silence = (any::<u64>(), any::<u64>(), any::<u64>(), option::of(knock.clone()))
        .prop_map(|(for_ms, ago_ms, run, knock)| Silence { for_ms, ago_ms, run, knock });
    let clock = (any::<i64>(), any::<u64>(), option::of(any::<u64>()))
        .prop_map(|(ms, ago_ms, far_ms)| Offset { ms, ago_ms, far_ms });
    let ends = (option::of(ending()), option::of(ending()), option::of(knock), vec(met, 0..3));
    let rest = (
        option::of((any::<u32>(), any::<u8>(), any::<u64>())),
        option::of(".{0,60}"),
        option::of((any::<bool>(), any::<u64>())),
        option::of(any::<u64>()),
        option::of(silence),
        option::of(clock),
    );
    let seen = (heard, ends, rest).prop_map(
        |(heard, (end, farewell, knock, runs), (unwell, last_words, gone, lost_ms, silence, clock))| {
            let (state, silent_ms, by, heard_ms) = heard;
            Seen {
                state,
                silent_ms,
                by,
                heard_ms,
                runs,
                lost_ms,
                end,
                farewell,
                knock,
                silence,
                clock,
                unwell,
                last_words,
                gone,
            }
        },
    );
    (name(), any::<u64>(), option::of(own), option::of(seen)).prop_map(|(by, wall_ms, own, seen)| Testimony {
        by,
        wall_ms,
        own,
        seen,
    })
}

fn frame() -> impl Strategy<Value = Frame> {
    let role = prop_oneof![Just(Role::Client), machine().prop_map(Role::Machine)];
    prop_oneof![
        1 => (role, cluster(), ".{0,20}", any::<u64>())
            .prop_map(|(role, cluster, version, run)| Frame::Hello(Hello { role, cluster, version, run })),
        8 => envelope().prop_map(|envelope| Frame::Ring(Box::new(envelope))),
        1 => any::<u64>().prop_map(Frame::Ping),
        1 => any::<(u64, u64)>().prop_map(|(number, wall_ms)| Frame::Pong { number, wall_ms }),
        1 => any::<u64>().prop_map(|ask| Frame::StatusAsk { ask }),
        1 => Just(Frame::HealthAsk),
        1 => vec(name(), 0..9).prop_map(|shunned| Frame::HealthTold { shunned }),
        1 => ".{0,60}".prop_map(|report| Frame::LastWords { report }),
        1 => (any::<u64>(), name()).prop_map(|(ask, of)| Frame::WhyAsk { ask, of }),
        1 => (any::<u64>(), testimony())
            .prop_map(|(ask, testimony)| Frame::WhyTold { ask, testimony: Box::new(testimony) }),
        1 => (any::<u64>(), status())
            .prop_map(|(ask, status)| Frame::StatusTold { ask, status: Box::new(status) }),
        1 => any::<u64>().prop_map(|ask| Frame::CheckAsk { ask }),
        1 => (any::<u64>(), check(), option::of(".{0,20}"))
            .prop_map(|(ask, before, refused)| Frame::CheckTold { ask, before, refused }),
    ]
}

fn bytes_of(frames: &[Frame]) -> Bytes {
    let mut out = BytesMut::new();
    for frame in frames {
        encode(frame, &mut out).unwrap();
    }
    out.freeze()
}

/// Feeds bytes in pieces of these lengths, over and over, and takes out all frames.
fn through(inbox: &mut Inbox, mut bytes: Bytes, pieces: &[usize]) -> Result<Vec<Frame>, WireError> {
    let mut frames = Vec::new();
    for piece in pieces.iter().cycle() {
        while let Some((frame, _)) = inbox.next()? {
            frames.push(frame);
        }
        if bytes.is_empty() {
            return Ok(frames);
        }
        inbox.push(bytes.split_to((*piece).clamp(1, bytes.len())));
    }
    Ok(frames)
}

proptest! {
    #[test]
    fn a_frame_comes_back_as_it_was(frame in frame()) {
        let bytes = bytes_of(std::slice::from_ref(&frame));
        prop_assert_eq!(bytes.len() - PREFIX, u32::from_le_bytes(*bytes.first_chunk().unwrap()) as usize);
        prop_assert_eq!(decode(&bytes[PREFIX..]), Ok(frame));
    }

    #[test]
    fn frames_come_out_whole_however_the_stream_is_cut(
        frames in vec(frame(), 0..8), pieces in vec(1..5000usize, 1..20),
    ) {
        let mut inbox = Inbox::new(MAX_FRAME);
        prop_assert_eq!(through(&mut inbox, bytes_of(&frames), &pieces), Ok(frames));
        prop_assert_eq!(inbox.end(), Ok(()));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in vec(any::<u8>(), 0..2000)) {
        let _ = decode(&bytes);
        let _ = through(&mut Inbox::new(MAX_FRAME), bytes.into(), &[7, 100]);
    }

    #[test]
    fn a_spoilt_frame_is_another_frame_or_an_error(
        frame in frame(), at in any::<prop::sample::Index>(), bit in 0..8u8, keep in any::<prop::sample::Index>(),
    ) {
        let mut bytes = bytes_of(&[frame]).slice(PREFIX..).to_vec();
        let spoilt = at.index(bytes.len());
        bytes[spoilt] ^= 1 << bit;
        let _ = decode(&bytes);
        let _ = decode(&bytes[..keep.index(bytes.len())]);
    }

    #[test]
    fn what_ends_early_is_no_frame(frame in frame(), keep in any::<prop::sample::Index>()) {
        let bytes = bytes_of(&[frame]);
        let cut = bytes.slice(..keep.index(bytes.len()));
        prop_assert!(decode(cut.get(PREFIX..).unwrap_or_default()).is_err());
        let mut inbox = Inbox::new(MAX_FRAME);
        prop_assert_eq!(through(&mut inbox, cut.clone(), &[50]), Ok(Vec::new()));
        prop_assert_eq!(inbox.end().is_ok(), cut.is_empty());
    }
}

// ---- Known answers: what other versions will read

#[test]
fn the_bytes_of_version_two_stay_as_they_are() {
    let machine = Machine { name: "10.0.0.1".parse().unwrap(), incarnation: Incarnation::new(5) };
    let hello = Hello {
        role: Role::Machine(machine),
        cluster: Some(ClusterId::new(1)),
        version: "0.1.0".to_string(),
        run: 9,
    };
    // Length; hello; machine, IPv4, port 9595 as a varint, incarnation; a cluster; five letters; run.
    let expected =
        [&[20, 0, 0, 0, 0, 0, 4, 10, 0, 0, 1, 251, 0x7b, 0x25, 5, 1, 1, 5][..], b"0.1.0", &[9]].concat();
    assert_eq!(bytes_of(&[Frame::Hello(hello)]), expected);
    assert_eq!(&bytes_of(&[Frame::Ping(3)])[..], [2, 0, 0, 0, 2, 3]);
    assert_eq!(&bytes_of(&[Frame::Ping(3)])[..], [2, 0, 0, 0, 2, 3]);
    assert_eq!(&bytes_of(&[Frame::StatusAsk { ask: 3 }])[..], [2, 0, 0, 0, 4, 3]);
    let ask = Message::ViewAsk { ask: Ask(3) };
    let ring = Frame::Ring(Box::new(Envelope { cluster: None, epoch: Epoch::FIRST, message: ask }));
    assert_eq!(&bytes_of(&[ring])[..], [7, 0, 0, 0, 1, 0, 0, 0, 1, 9, 3]);
    let probe = Message::Probe { ask: Ask(3), gossip: Gossip::default() };
    let ring = Frame::Ring(Box::new(Envelope { cluster: None, epoch: Epoch::FIRST, message: probe }));
    assert_eq!(&bytes_of(&[ring])[..], [8, 0, 0, 0, 1, 0, 0, 0, 1, 25, 3, 0]);
}

// ---- Limits

/// A status whose text claims so many bytes and has none.
fn claiming(bytes: u64) -> Vec<u8> {
    let mut frame = vec![5, 1, 4, 127, 0, 0, 1, 5, 5, 0, 0, 0, 0, 0, 0, 0, 253];
    frame.extend_from_slice(&bytes.to_le_bytes());
    frame
}

#[test]
fn a_short_frame_cannot_claim_a_long_text() {
    let beyond = WireError::Malformed("a length in it is beyond all bounds".to_string());
    for bytes in [64 << 10, 1 << 20, 1 << 40, u64::MAX] {
        assert_eq!(decode(&claiming(bytes)), Err(beyond.clone()), "{bytes}");
    }
    assert_eq!(decode(&claiming(1000)), Err(WireError::Malformed("it ends too early".to_string())));
}

#[test]
fn a_value_just_below_each_step_of_the_limit_is_read() {
    for len in [0, 4 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20] {
        for len in [len as usize, (len as usize).saturating_sub(40)] {
            let found = Found { value: vec![1; len].into(), version: 1, expires: None };
            let message = Message::Outcome { ask: Ask(1), outcome: Outcome::Value(Some(found)) };
            let frame = Frame::Ring(Box::new(Envelope { cluster: None, epoch: Epoch::FIRST, message }));
            assert_eq!(decode(&bytes_of(std::slice::from_ref(&frame))[PREFIX..]), Ok(frame), "{len}");
        }
    }
}

/// What has the most memory for its bytes on the wire must pass the limit that follows from those bytes.
#[test]
fn many_small_things_are_read() {
    for n in [10, 100, 1000, 30_000] {
        let silent = (1..=n).map(|i: u32| Name::new((IpAddr::from(i.to_be_bytes()), 1).into())).collect();
        let outcome = Outcome::NoQuorum { votes: 0, needed: 5, silent };
        let message = Message::Outcome { ask: Ask(1), outcome };
        let frame = Frame::Ring(Box::new(Envelope { cluster: None, epoch: Epoch::FIRST, message }));
        assert_eq!(decode(&bytes_of(std::slice::from_ref(&frame))[PREFIX..]), Ok(frame));

        let id = RequestId { time: Hlc::ZERO, random: 0 };
        let recent = vec![Applied { id, came: Came::Absent }; n as usize];
        let state = State { recent, ..State::default() };
        let record = Record { stamp: Stamp::default(), state: state.into(), votes: SlotSet::EMPTY };
        let answer = Answer::Copy(Copied::Whole(record));
        let message = Message::Answer { ask: Ask(1), votes: SlotSet::EMPTY, answer };
        let frame = Frame::Ring(Box::new(Envelope { cluster: None, epoch: Epoch::FIRST, message }));
        assert_eq!(decode(&bytes_of(std::slice::from_ref(&frame))[PREFIX..]), Ok(frame));
    }
}

#[test]
fn room_is_made_for_what_has_come_and_not_for_what_is_announced() {
    let mut inbox = Inbox::new(MAX_FRAME);
    inbox.push(Bytes::copy_from_slice(&(MAX_FRAME as u32).to_le_bytes()));
    assert_eq!(inbox.next(), Ok(None));
    for sent in (1000..100_000).step_by(1000) {
        inbox.push(vec![0; 1000].into());
        assert_eq!(inbox.next(), Ok(None));
        assert!(inbox.partial.capacity() <= 2 * (PREFIX + sent), "{} after {sent}", inbox.partial.capacity());
    }
}

#[test]
fn the_room_of_a_large_frame_is_given_back() {
    let found = Found { value: vec![1; 1 << 20].into(), version: 1, expires: None };
    let message = Message::Outcome { ask: Ask(1), outcome: Outcome::Value(Some(found)) };
    let frame = Frame::Ring(Box::new(Envelope { cluster: None, epoch: Epoch::FIRST, message }));
    let mut inbox = Inbox::new(MAX_FRAME);
    assert_eq!(through(&mut inbox, bytes_of(std::slice::from_ref(&frame)), &[1000]), Ok(vec![frame]));
    assert!(inbox.partial.capacity() <= KEPT);
}

#[test]
fn a_frame_above_the_limit_is_refused_at_its_length() {
    let mut inbox = Inbox::new(100);
    inbox.push(Bytes::from_static(&[101, 0, 0, 0]));
    assert_eq!(inbox.next(), Err(WireError::TooLarge { len: 101, limit: 100 }));
    let mut inbox = Inbox::new(usize::MAX);
    inbox.push(Bytes::from_static(&[0xff; 4]));
    assert_eq!(inbox.next(), Err(WireError::TooLarge { len: u32::MAX as usize, limit: MAX_FRAME }));
}

#[test]
fn a_frame_that_nobody_would_take_is_not_encoded() {
    let found = Found { value: vec![1; MAX_FRAME].into(), version: 1, expires: None };
    let message = Message::Outcome { ask: Ask(1), outcome: Outcome::Value(Some(found)) };
    let frame = Frame::Ring(Box::new(Envelope { cluster: None, epoch: Epoch::FIRST, message }));
    let mut out = BytesMut::from(&b"before"[..]);
    assert!(matches!(encode(&frame, &mut out), Err(WireError::TooLarge { limit: MAX_FRAME, .. })));
    assert_eq!(&out[..], b"before");
    let ping = Frame::Ping(1);
    assert_eq!(encode_within(&ping, 1, &mut out), Err(WireError::TooLarge { len: 2, limit: 1 }));
    assert_eq!(&out[..], b"before");
    assert_eq!(encode_within(&ping, 2, &mut out), Ok(()));
}

#[test]
fn what_waits_to_be_written_waits_on_the_time_for_its_answer_and_is_not_written_when_that_is_over() {
    let request = |within| {
        let key = ennead_ring::Key::new("k").unwrap();
        let message = Message::Request { ask: Ask(1), key, op: Op::Read, within, handed: false };
        Frame::Ring(Box::new(Envelope { cluster: None, epoch: Epoch::ZERO, message }))
    };
    let ms = Duration::from_millis;
    let mut frame = request(100);
    assert!(frame.waited(ms(40)) && frame == request(60));
    assert!(frame.waited(Duration::from_micros(900)) && frame == request(60));
    assert!(!frame.waited(ms(60)));
    assert!(!request(100).waited(Duration::MAX));
    // The shortest time there is, and it did not wait.
    assert!(request(0).waited(Duration::ZERO));
    assert!(Frame::Ping(7).waited(Duration::MAX));
}
