//! What it costs to write and read the frames that a put and a get are made of.
#![allow(missing_docs, reason = "criterion's macro makes a function")]

use std::hint::black_box;
use std::sync::Arc;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ennead::wire::{self, Frame};
use ennead_ring::message::{Answer, Ask, Copied, Envelope, Message};
use ennead_ring::stamp::{Applied, Ballot, Came, Hlc, Record, RequestId, Stamp, State};
use ennead_ring::view::{ClusterId, Epoch, Incarnation};
use ennead_ring::{Key, SlotSet};

fn frames() -> Vec<(&'static str, Frame)> {
    let time = Hlc::from_nanos(1_790_000_000_123_456_789);
    let stamp = Stamp { ballot: Ballot { time, by: Incarnation::new(0x1234_5678_9abc_def0) }, n: 17 };
    let id = RequestId { time, random: 0xfeed_beef_dead_cafe };
    let state = |bytes: usize, remembered: usize| {
        Arc::new(State {
            version: 7261,
            value: Some(vec![7; bytes].into()),
            expires: None,
            recent: vec![Applied { id, came: Came::Version(7261) }; remembered],
            horizon: time,
        })
    };
    let ask = Ask(0x1122_3344_5566);
    let votes = SlotSet::all(9);
    let accept = |bytes, remembered| Message::Accept {
        ask,
        key: Key::new(b"mail-23412").unwrap(),
        stamp,
        state: state(bytes, remembered),
    };
    let held = Message::Answer { ask, votes, answer: Answer::Held { stamp } };
    let record = Record { stamp, state: state(256, 1), votes };
    let copy = Message::Answer { ask, votes, answer: Answer::Copy(Copied::Whole(record)) };
    let frame = |message| {
        let cluster = Some(ClusterId::new(0xabcd_ef01_2345_6789));
        Frame::Ring(Box::new(Envelope { cluster, epoch: Epoch::FIRST, message }))
    };
    vec![
        ("accept 256 B", frame(accept(256, 1))),
        ("accept 256 B, 16 requests", frame(accept(256, 16))),
        ("accept 1 MiB", frame(accept(1 << 20, 1))),
        ("held", frame(held)),
        ("copy 256 B", frame(copy)),
    ]
}

fn codec(criterion: &mut Criterion) {
    for (name, frame) in frames() {
        let mut out = BytesMut::with_capacity(2 << 20);
        wire::encode(&frame, &mut out).unwrap();
        let bytes = out.split().freeze();
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("encode", |b| {
            b.iter(|| {
                out.clear();
                wire::encode(black_box(&frame), &mut out).unwrap();
            });
        });
        group.bench_function("decode", |b| b.iter(|| wire::decode(black_box(&bytes[4..])).unwrap()));
        group.finish();
    }
}

criterion_group!(benches, codec);
criterion_main!(benches);
