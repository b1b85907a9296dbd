//! Bytes and back: what is written is read, and no bytes from outside make anything but an error.

#[path = "any/mod.rs"]
mod any_message;

use any_message::{account, bound, decree, envelope, hlc, record, view};
use ennead_ring::message::{Bound, Envelope};
use ennead_ring::{
    Account, ClusterId, Decree, Epoch, Incarnation, Key, Limits, Machine, Member, Name, Record, Stamp, State,
    View,
};
use proptest::prelude::*;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<{ 16 << 20 }>()
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
        account in account(), decree in decree(),
    ) {
        let limits = Limits { ceiling, floor, bound };
        prop_assert_eq!(read::<Limits>(&written(&limits)).map(|(l, _)| l), Some(limits));
        prop_assert_eq!(read::<Record>(&written(&record)).map(|(r, _)| r), Some(record));
        prop_assert_eq!(read::<View>(&written(&view)).map(|(v, _)| v), Some(view));
        prop_assert_eq!(read::<Account>(&written(&account)).map(|(a, _)| a), Some(account));
        prop_assert_eq!(read::<Decree>(&written(&decree)).map(|(d, _)| d), Some(decree));
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
    let member = Member::up(machine, 1);
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
    let member = Member::up(
        Machine { name: "10.0.0.1".parse().expect("a name"), incarnation: Incarnation::new(7) },
        1,
    );
    let epoch = |generation, fork, number| Epoch { generation, fork, number };
    let bytes = |epoch: Epoch, past: &[Epoch]| {
        let mut bytes = written(&ClusterId::new(1));
        bytes.extend(written(&(
            epoch,
            9u8,
            vec![(member.machine, member.weight, member.next_weight, member.state)],
            Vec::<Incarnation>::new(),
        )));
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
