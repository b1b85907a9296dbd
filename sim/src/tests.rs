//! The simulated world's own parts: its table of losses, its disk, its count of what was chosen.

use std::sync::Arc;

use crate::chosen::Chosen;
use crate::disk::Disk;
use crate::views::bears;
use ennead_ring::effect::Change;
use ennead_ring::{Ballot, Epoch, Hlc, Incarnation, Key, Loaded, Record, SlotSet, Stamp, State, Ticket};

fn stamp(time: u64, n: u32) -> Stamp {
    Stamp { ballot: Ballot { time: Hlc::from_nanos(time), by: Incarnation::new(1) }, n }
}

fn record(time: u64) -> Record {
    Record { stamp: stamp(time, 1), state: Arc::new(State::default()), votes: SlotSet::all(9) }
}

#[test]
fn as_many_may_be_lost_as_the_table_of_section_2_says() {
    let table: Vec<usize> = (1..=12).map(|machines| bears(machines, 9)).collect();
    assert_eq!(table, [0, 0, 1, 1, 2, 2, 2, 3, 4, 4, 4, 4]);
    assert_eq!((bears(3, 3), bears(5, 5), bears(3, 5)), (1, 2, 1));
}

#[test]
fn a_scan_sees_what_was_written_and_stops_at_its_bounds() {
    let key = |name: &str| Key::new(name).expect("a key");
    let mut disk = Disk::default();
    let put = |name: &str, time| Change::Record { key: key(name), record: record(time) };
    disk.write(Ticket(1), put("a", 1));
    disk.write(Ticket(2), put("b", 2));
    // The first is synced alone, since nothing else was there when that began.
    disk.sync_done();
    assert!(disk.start_sync());
    disk.sync_done();
    disk.write(Ticket(3), put("c", 3));
    disk.write(Ticket(4), Change::Forget { key: key("a") });
    disk.write(Ticket(5), put("b", 5));
    disk.rot(&key("a"));
    let names = |found: &[(Key, Loaded)]| found.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    let (found, end, _) = disk.scan(None, 10, 1_000);
    assert_eq!((names(&found), end), (vec![key("b"), key("c")], true));
    assert_eq!(found[0].1, Loaded::Record(record(5)));
    let (found, end, _) = disk.scan(None, 1, 1_000);
    assert_eq!((names(&found), end), (vec![key("b")], false));
    let (found, end, _) = disk.scan(Some(&key("b")), 10, 0);
    assert_eq!((names(&found), end), (vec![], false));
    disk.crash(0);
    assert!(disk.rot(&key("b")));
    let (found, ..) = disk.scan(Some(&key("a")), 10, 1_000);
    assert_eq!(found, [(key("b"), Loaded::Unreadable)]);
}

#[test]
fn a_state_is_chosen_by_five_slots_of_one_epoch() {
    let mut chosen = Chosen::default();
    let second = Epoch { number: 2, ..Epoch::FIRST };
    chosen.held(Epoch::FIRST, stamp(1, 1), SlotSet::from_iter([1, 2, 3, 4]), 9);
    chosen.held(second, stamp(1, 1), SlotSet::from_iter([5, 6, 7, 8]), 9);
    assert_eq!(chosen.stamp, None);
    chosen.held(Epoch::FIRST, stamp(1, 3), SlotSet::from_iter([9]), 9);
    assert_eq!(chosen.stamp, Some(stamp(1, 1)));
    chosen.held(second, stamp(1, 3), SlotSet::from_iter([1, 5, 6, 7, 8]), 9);
    assert_eq!(chosen.stamp, Some(stamp(1, 3)));
}
