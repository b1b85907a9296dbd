//! Bytes and back: what is written is read, and no bytes from outside make anything but an error.

use std::sync::Arc;

use ennead_ring::message::{
    Answer, Ask, Bound, Change, Condition, Copied, Envelope, Found, Message, Op, Outcome, Write,
};
use ennead_ring::stamp::{Applied, Came};
use ennead_ring::{
    Ballot, ClusterId, Epoch, Hlc, Incarnation, Key, Limits, Machine, Member, MemberState, Name, Record,
    RequestId, SlotSet, Stamp, State, View,
};
use proptest::prelude::*;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<{ 16 << 20 }>()
}

fn hlc() -> impl Strategy<Value = Hlc> {
    any::<u64>().prop_map(Hlc::from_nanos)
}

fn ballot() -> impl Strategy<Value = Ballot> {
    (hlc(), any::<u64>()).prop_map(|(time, by)| Ballot { time, by: Incarnation::new(by) })
}

fn stamp() -> impl Strategy<Value = Stamp> {
    (ballot(), any::<u32>()).prop_map(|(ballot, n)| Stamp { ballot, n })
}

fn votes() -> impl Strategy<Value = SlotSet> {
    proptest::collection::vec(1u8..=15, 0..9).prop_map(SlotSet::from_iter)
}

fn value() -> impl Strategy<Value = Arc<[u8]>> {
    proptest::collection::vec(any::<u8>(), 0..100).prop_map(Arc::from)
}

fn id() -> impl Strategy<Value = RequestId> {
    (hlc(), any::<u64>()).prop_map(|(time, random)| RequestId { time, random })
}

fn state() -> impl Strategy<Value = State> {
    let came = prop_oneof![
        any::<u64>().prop_map(Came::Version),
        any::<Option<u64>>().prop_map(Came::Mismatch),
        Just(Came::Absent),
    ];
    let applied = (id(), came).prop_map(|(id, came)| Applied { id, came });
    let recent = proptest::collection::vec(applied, 0..20);
    (any::<u64>(), proptest::option::of(value()), proptest::option::of(hlc()), recent, hlc()).prop_map(
        |(version, value, expires, recent, horizon)| State { version, value, expires, recent, horizon },
    )
}

fn record() -> impl Strategy<Value = Record> {
    (stamp(), state(), votes()).prop_map(|(stamp, state, votes)| Record {
        stamp,
        state: Arc::new(state),
        votes,
    })
}

fn bound() -> impl Strategy<Value = Bound> {
    (hlc(), any::<u64>()).prop_map(|(time, version)| Bound { time, version })
}

fn key() -> impl Strategy<Value = Key> {
    proptest::collection::vec(any::<u8>(), 1..40).prop_map(|bytes| Key::new(bytes).expect("a key"))
}

fn name() -> impl Strategy<Value = Name> {
    let v4 = (any::<[u8; 4]>(), 1u16..).prop_map(|(ip, port)| Name::new((ip, port).into()));
    let v6 = (any::<[u8; 16]>(), 1u16..).prop_map(|(ip, port)| Name::new((ip, port).into()));
    prop_oneof![v4, v6]
}

fn epoch() -> impl Strategy<Value = Epoch> {
    any::<(u32, u32, u32)>().prop_map(|(generation, fork, number)| Epoch { generation, fork, number })
}

fn view() -> impl Strategy<Value = View> {
    let one = (any::<u64>(), 1u32..500, 1u32..500, 0u8..3);
    let members = proptest::collection::btree_map(name(), one, 1..12);
    let forks = proptest::collection::vec(1u32.., 0..3);
    (any::<u64>(), any::<u32>(), forks, prop::sample::select(vec![1u8, 3, 9, 15]), members).prop_filter_map(
        "no view",
        |(cluster, number, forks, slots, members)| {
            let member = |(name, (id, weight, next_weight, state))| Member {
                machine: Machine { name, incarnation: Incarnation::new(id) },
                weight,
                next_weight,
                state: [MemberState::Up, MemberState::Leaving, MemberState::Joining][usize::from(state)],
            };
            let members: Vec<Member> = members.into_iter().map(member).collect();
            let epoch = Epoch { number, ..Epoch::FIRST };
            let first = View::new(ClusterId::new(cluster), epoch, slots, members.clone(), vec![]).ok()?;
            // F2: each generation goes on from the one before.
            forks.into_iter().try_fold(first, |view, fork| {
                view.forced(members.clone(), vec![], fork).ok()?.successor(members.clone(), vec![]).ok()
            })
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let condition = prop_oneof![
        Just(Condition::Any),
        Just(Condition::Absent),
        any::<u64>().prop_map(Condition::Version),
    ];
    let change = prop_oneof![
        (value(), any::<Option<u64>>()).prop_map(|(value, ttl)| Change::Put { value, ttl }),
        Just(Change::Delete),
    ];
    let write = (id(), any::<bool>(), condition, change)
        .prop_map(|(id, again, condition, change)| Op::Write(Write { id, again, condition, change }));
    prop_oneof![Just(Op::Read), write]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let found = (value(), any::<u64>(), proptest::option::of(hlc()))
        .prop_map(|(value, version, expires)| Found { value, version, expires });
    let silent = || proptest::collection::vec(name(), 0..5);
    prop_oneof![
        any::<(u64, u8)>().prop_map(|(version, votes)| Outcome::Done { version, votes }),
        proptest::option::of(found).prop_map(Outcome::Value),
        any::<Option<u64>>().prop_map(|version| Outcome::Mismatch { version }),
        Just(Outcome::Absent),
        hlc().prop_map(|horizon| Outcome::TooLate { horizon }),
        (any::<(u8, u8)>(), silent()).prop_map(|((votes, needed), silent)| Outcome::NoQuorum {
            votes,
            needed,
            silent
        }),
        (any::<(u8, u8)>(), silent()).prop_map(|((votes, needed), silent)| Outcome::Unknown {
            votes,
            needed,
            silent
        }),
        any::<u32>().prop_map(|retry_after| Outcome::Overloaded { retry_after }),
        ".{0,40}".prop_map(|s| Outcome::Refused(s.into_boxed_str())),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let summary = (stamp(), any::<(u64, u64)>(), proptest::option::of(hlc()), votes()).prop_map(
        |(stamp, (version, bytes), expires, votes)| Copied::Summary { stamp, version, bytes, expires, votes },
    );
    let copied = prop_oneof![Just(Copied::None), record().prop_map(Copied::Whole), summary];
    prop_oneof![
        (ballot(), proptest::option::of(record()), bound())
            .prop_map(|(ballot, record, bound)| Answer::Promised { ballot, record, bound }),
        stamp().prop_map(|stamp| Answer::Held { stamp }),
        ballot().prop_map(|beat| Answer::Refused { beat }),
        copied.prop_map(Answer::Copy),
        Just(Answer::Mute),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let ask = || any::<u64>().prop_map(Ask);
    prop_oneof![
        (ask(), key(), ballot()).prop_map(|(ask, key, ballot)| Message::Prepare { ask, key, ballot }),
        (ask(), key(), stamp(), state()).prop_map(|(ask, key, stamp, state)| Message::Accept {
            ask,
            key,
            stamp,
            state: Arc::new(state)
        }),
        (ask(), key(), any::<u32>()).prop_map(|(ask, key, inline)| Message::Read { ask, key, inline }),
        (ask(), votes(), answer()).prop_map(|(ask, votes, answer)| Message::Answer { ask, votes, answer }),
        (ask(), key(), op(), any::<(u32, bool)>())
            .prop_map(|(ask, key, op, (within, handed))| Message::Request { ask, key, op, within, handed }),
        (ask(), outcome()).prop_map(|(ask, outcome)| Message::Outcome { ask, outcome }),
        (any::<u32>(), any::<bool>()).prop_map(|(weight, gathers)| Message::Blank { weight, gathers }),
        view().prop_map(|view| Message::Birth { view: Arc::new(view) }),
        ".{0,40}".prop_map(|reason| Message::NotTaken { reason }),
        ask().prop_map(|ask| Message::ViewAsk { ask }),
        (ask(), view()).prop_map(|(ask, view)| Message::ViewTold { ask, view: Arc::new(view) }),
    ]
}

fn envelope() -> impl Strategy<Value = Envelope> {
    (any::<Option<u64>>(), epoch(), message()).prop_map(|(cluster, epoch, message)| Envelope {
        cluster: cluster.map(ClusterId::new),
        epoch,
        message,
    })
}

fn read<T: bincode::Decode<()>>(bytes: &[u8]) -> Option<(T, usize)> {
    bincode::decode_from_slice(bytes, config()).ok()
}

fn written<T: bincode::Encode>(what: &T) -> Vec<u8> {
    bincode::encode_to_vec(what, config()).expect("it encodes")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn what_is_said_is_heard(envelope in envelope()) {
        let bytes = written(&envelope);
        prop_assert_eq!(read::<Envelope>(&bytes), Some((envelope, bytes.len())));
    }

    #[test]
    fn what_is_kept_is_found(
        record in record(), view in view(), ceiling in hlc(), floor in hlc(), bound in bound(),
    ) {
        let limits = Limits { ceiling, floor, bound };
        prop_assert_eq!(read::<Limits>(&written(&limits)).map(|(l, _)| l), Some(limits));
        prop_assert_eq!(read::<Record>(&written(&record)).map(|(r, _)| r), Some(record));
        prop_assert_eq!(read::<View>(&written(&view)).map(|(v, _)| v), Some(view));
    }

    /// One byte changed, or the end lost: an error or another message, never a panic.
    #[test]
    fn spoiled_bytes_make_no_panic(envelope in envelope(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut bytes = written(&envelope);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Some((Envelope { message, .. }, _)) = read::<Envelope>(&bytes) {
            let _ = (message.to_string(), message.value_bytes(), message.ballot(), message.key().map(Key::digest));
        }
        let _ = read::<Envelope>(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn any_bytes_make_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Some((envelope, _)) = read::<Envelope>(&bytes) {
            let _ = envelope.message.to_string();
        }
        let _ = (read::<View>(&bytes), read::<Record>(&bytes), read::<Limits>(&bytes), read::<Key>(&bytes));
        let _ = (read::<Name>(&bytes), read::<State>(&bytes), read::<Stamp>(&bytes), read::<Bound>(&bytes));
    }
}

#[test]
fn a_length_that_lies_is_refused_before_memory_is_taken() {
    // A key of 2^60 bytes, in seven.
    let bytes = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0x10];
    assert!(read::<Key>(&bytes).is_none());
    assert!(read::<Key>(&[0]).is_none(), "an empty key");
}

#[test]
fn a_forced_view_keeps_what_it_follows_and_others_are_written_as_ever() {
    let machine = Machine { name: "10.0.0.1".parse().expect("a name"), incarnation: Incarnation::new(7) };
    let member = Member { machine, weight: 1, next_weight: 1, state: MemberState::Up };
    let view = View::new(ClusterId::new(1), Epoch::FIRST, 9, vec![member], vec![]).expect("a view");
    let forced = view.forced(vec![member], vec![Incarnation::new(8)], 5).expect("a view");
    let after = forced.successor(vec![member], forced.forced_out().to_vec()).expect("a view");
    for view in [&view, &forced, &after] {
        assert_eq!(read::<View>(&written(view)).map(|(v, _)| v).as_ref(), Some(view));
    }
    assert_eq!((forced.parent(), after.parent()), (Some(Epoch::FIRST), None));
    assert!(view.is_before(&forced) && forced.is_before(&after) && !view.is_before(&after));
    let elsewhere = view.forced(vec![member], vec![], 6).expect("a view");
    assert!(!elsewhere.is_before(&after) && !forced.is_before(&elsewhere));
    // However many views are between two, each knows whether the other is in its past.
    let twice =
        after.forced(vec![member], vec![], 7).expect("a view").successor(vec![member], vec![]).unwrap();
    let beyond = after.successor(vec![member], vec![]).expect("a view");
    for past in [&view, &forced, &after] {
        assert!(past.is_in_past_of(&twice) && !past.is_apart_from(&twice) && !twice.is_in_past_of(past));
    }
    assert!(!beyond.is_in_past_of(&twice) && !beyond.is_apart_from(&twice), "left behind, by one view");
    for view in [&forced, &after, &beyond, &twice] {
        assert!(view.is_apart_from(&elsewhere) && elsewhere.is_apart_from(view), "{view:?}");
        assert!(!view.is_in_past_of(&elsewhere) && !elsewhere.is_in_past_of(view));
    }
    // Cluster, epoch, slots, one member, nobody forced out, and no more.
    let bytes = written(&view);
    assert_eq!(bytes.last(), Some(&0));
    assert_eq!(written(&after).len(), written(&forced).len());
}

#[test]
fn f2_a_view_whose_past_does_not_lead_to_its_epoch_is_no_view() {
    let member = Member {
        machine: Machine { name: "10.0.0.1".parse().expect("a name"), incarnation: Incarnation::new(7) },
        weight: 1,
        next_weight: 1,
        state: MemberState::Up,
    };
    let epoch = |generation, fork, number| Epoch { generation, fork, number };
    let bytes = |epoch: Epoch, past: &[Epoch]| {
        let mut bytes = written(&ClusterId::new(1));
        bytes.extend(written(&(epoch, 9u8, vec![member], Vec::<Incarnation>::new())));
        if epoch.generation > 0 {
            bytes.extend(written(&past.to_vec()));
        }
        bytes
    };
    let is_view = |epoch, past: &[Epoch]| read::<View>(&bytes(epoch, past)).is_some();
    assert!(is_view(epoch(0, 0, 5), &[]));
    assert!(is_view(epoch(2, 8, 9), &[epoch(0, 0, 5), epoch(1, 3, 7)]));
    // A generation that nobody forced; one without its random id; numbers that fall; too much or too little of a past.
    assert!(!is_view(epoch(0, 4, 5), &[]));
    assert!(!is_view(epoch(1, 0, 6), &[epoch(0, 0, 5)]));
    assert!(!is_view(epoch(1, 3, 5), &[epoch(0, 0, 5)]));
    assert!(!is_view(epoch(1, 3, 6), &[]));
    assert!(!is_view(epoch(1, 3, 9), &[epoch(0, 0, 5), epoch(1, 3, 7)]));
    assert!(!is_view(epoch(2, 8, 9), &[epoch(0, 0, 7), epoch(1, 3, 7)]));
    assert!(!is_view(epoch(2, 8, 9), &[epoch(1, 3, 5), epoch(0, 0, 7)]));
}
