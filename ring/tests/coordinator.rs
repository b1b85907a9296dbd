//! One real node against two scripted ones: what a coordinator does when others refuse or are silent.

use std::collections::VecDeque;
use std::sync::Arc;

use ennead_ring::effect::{Effect, Input, Limits, Loaded, Mono, Now};
use ennead_ring::gossip::{Gossip, News, Said};
use ennead_ring::message::{Addr, Answer, Ask, Bound, Change, Condition, Copied, Envelope, Message, Op};
use ennead_ring::message::{Outcome, Write};
use ennead_ring::mutant::Rules;
use ennead_ring::node::{Birth, PROBE_EVERY, Setup, Tuning};
use ennead_ring::stamp::{Applied, Came};
use ennead_ring::{
    Account, Ballot, ClusterId, Decree, Epoch, Health, Hlc, Incarnation, Key, Machine, Member, Node, Record,
    RequestId, SlotSet, Stamp, State, View, Zone,
};

const MS: u64 = 1_000_000;
const CLIENT: Addr = Addr::Client(7);

/// A node of a cluster of three with three slots. What is persisted is durable at once.
struct Scene {
    node: Node,
    view: Arc<View>,
    key: Key,
    now: u64,
    /// Sent to machines and clients other than itself.
    sent: Vec<(Addr, Message)>,
}

fn machine(i: u8) -> Machine {
    let name = format!("10.0.0.{}", i + 1).parse().unwrap();
    Machine { name, incarnation: Incarnation::new(u64::from(i) + 1) }
}

impl Scene {
    fn new() -> Self {
        Self::with(Tuning::default())
    }

    fn with(tuning: Tuning) -> Self {
        let member = |i| Member::up(machine(i), 8);
        let members = (0..3).map(member).collect();
        let view = Arc::new(View::new(ClusterId::new(5), Epoch::FIRST, 3, members, vec![]).unwrap());
        let setup = Setup {
            me: machine(0),
            weight: 8,
            zone: Zone::NONE,
            limits: Limits::default(),
            views: vec![view.clone()],
            account: Account { settled: Epoch::FIRST, synced: vec![Epoch::FIRST], left: false },
            decree: Decree::default(),
            birth: Birth::None,
            tuning,
            seed: 1,
            rules: Rules::default(),
        };
        let now = 1_000_000 * MS;
        let node = Node::new(setup, Now { mono: Mono(now), wall: now });
        Self { node, view, key: Key::new("k").unwrap(), now, sent: Vec::new() }
    }

    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = Vec::new();
            self.node.handle(Now { mono: Mono(self.now), wall: self.now }, input, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Send { to, envelope, .. } if to == Addr::Machine(machine(0)) => {
                        inputs.push_back(Input::Message { from: to, envelope });
                    }
                    Effect::Send { to, envelope, .. } => self.sent.push((to, envelope.message)),
                    Effect::Load { key } => inputs.push_back(Input::Loaded { key, found: Loaded::Nothing }),
                    // A sweep at the start: there is nothing.
                    Effect::Persist { .. } | Effect::Scan { .. } => {}
                }
            }
            self.node.check();
        }
    }

    fn say(&mut self, from: Addr, message: Message) {
        let (cluster, epoch) = (Some(self.view.cluster()), self.view.epoch());
        self.feed(Input::Message { from, envelope: Box::new(Envelope { cluster, epoch, message }) });
    }

    /// Machine `i` answers a question with the votes of the slot it owns.
    fn answer(&mut self, i: u8, ask: Ask, answer: Answer) {
        let owners = ennead_ring::Ring::of(&self.view).owners(&ennead_ring::Chain::of(b"k", 3));
        let votes = match answer {
            Answer::Refused { .. } | Answer::NoRoom => SlotSet::EMPTY,
            _ => owners.slots_of(u32::from(i)),
        };
        self.say(Addr::Machine(machine(i)), Message::Answer { ask, votes, answer });
    }

    fn wait(&mut self, nanos: u64) {
        self.now += nanos;
        self.feed(Input::Wake);
    }

    fn request(&mut self, ask: u64, op: Op) {
        let (ask, key) = (Ask(ask), self.key.clone());
        self.say(CLIENT, Message::Request { ask, key, op, within: 2_000, handed: false });
    }

    /// The last thing sent to machine `i` that this makes something of.
    fn last<T>(&self, i: u8, wanted: impl Fn(&Message) -> Option<T>) -> Option<T> {
        let to = Addr::Machine(machine(i));
        self.sent.iter().rev().filter(|(a, _)| *a == to).find_map(|(_, message)| wanted(message))
    }

    fn prepare(&self, i: u8) -> Option<(Ask, Ballot)> {
        self.last(i, |m| match m {
            Message::Prepare { ask, ballot, .. } => Some((*ask, *ballot)),
            _ => None,
        })
    }

    fn accept(&self, i: u8) -> Option<(Ask, Stamp, Arc<State>)> {
        self.last(i, |m| match m {
            Message::Accept { ask, stamp, state, .. } => Some((*ask, *stamp, state.clone())),
            _ => None,
        })
    }

    fn read(&self, i: u8) -> Option<Ask> {
        self.last(i, |m| match m {
            Message::Read { ask, .. } => Some(*ask),
            _ => None,
        })
    }

    fn outcomes(&self) -> Vec<(u64, Outcome)> {
        let told = self.sent.iter().filter(|(to, _)| *to == CLIENT);
        told.filter_map(|(_, m)| match m {
            Message::Outcome { ask, outcome } => Some((ask.0, outcome.clone())),
            _ => None,
        })
        .collect()
    }

    fn promise(&mut self, i: u8, record: Option<Record>) {
        let (ask, ballot) = self.prepare(i).unwrap();
        self.answer(i, ask, Answer::Promised { ballot, record, bound: Bound::default() });
    }
}

fn put(time: u64, condition: Condition) -> Write {
    let id = RequestId { time: Hlc::from_nanos(time), random: time };
    Write { id, again: false, condition, change: Change::Put { value: b"v"[..].into(), ttl: None } }
}

/// A ballot above everything told so far, of machine `i`.
fn above(scene: &Scene, i: u8) -> Ballot {
    let time = scene.prepare(1).unwrap().1.time.plus(1);
    Ballot { time, by: machine(i).incarnation }
}

#[test]
fn a_write_that_was_sent_and_beaten_fails_a_comparison_only_once_that_is_remembered() {
    let mut s = Scene::new();
    s.request(1, Op::Write(put(1, Condition::Absent)));
    s.promise(1, None);
    assert_eq!(s.accept(1).unwrap().1.n, 1, "the write was proposed");
    // Both others refuse, for a ballot of nobody's that can be reached: it is tried here again.
    let beat = Ballot { by: Incarnation::new(99), ..above(&s, 1) };
    for i in [1, 2] {
        let (ask, ..) = s.accept(i).unwrap();
        s.answer(i, ask, Answer::Refused { beat });
    }
    let (_, ballot) = s.prepare(1).unwrap();
    assert!(ballot > beat);
    // They hold a value, chosen, of which the first round did not hear. Ours, unchosen, is here.
    let state = State { version: 4, value: Some(b"other"[..].into()), ..State::default() };
    let record =
        Record { stamp: Stamp { ballot: beat, n: 1 }, state: Arc::new(state), votes: SlotSet::all(3) };
    s.promise(1, Some(record.clone()));
    s.promise(2, Some(record));
    assert_eq!(s.outcomes(), [], "a failure was told that nobody remembers");
    let (_, stamp, state) = s.accept(1).unwrap();
    assert_eq!((stamp, state.version), (Stamp { ballot, n: 1 }, 4));
    let id = put(1, Condition::Absent).id;
    assert_eq!(state.recent, [Applied { id, came: Came::Mismatch(Some(4)) }]);
    let (ask, ..) = s.accept(1).unwrap();
    s.answer(1, ask, Answer::Held { stamp });
    assert_eq!(s.outcomes(), [(1, Outcome::Mismatch { version: Some(4) })]);
}

#[test]
fn one_refusal_and_one_silence_cost_a_pause_and_not_the_deadline() {
    let mut s = Scene::new();
    s.request(1, Op::Write(put(1, Condition::Any)));
    // Machine 2 is dead, machine 1 has just restarted: its floor is in the future.
    let floor = Ballot { time: above(&s, 1).time.plus(3_000 * MS), by: Incarnation::new(u64::MAX) };
    let (ask, first) = s.prepare(1).unwrap();
    s.answer(1, ask, Answer::Refused { beat: floor });
    s.wait(60 * MS);
    let (_, second) = s.prepare(1).unwrap();
    assert!(second > floor && second > first, "it goes on with a ballot that cannot win");
    s.promise(1, None);
    // The same under a lead.
    let (ask, stamp, _) = s.accept(1).unwrap();
    assert_eq!(stamp.ballot, second);
    let floor = Ballot { time: second.time.plus(3_000 * MS), ..floor };
    s.answer(1, ask, Answer::Refused { beat: floor });
    s.wait(60 * MS);
    s.promise(1, None);
    let (ask, stamp, _) = s.accept(1).unwrap();
    assert!(stamp.ballot > floor);
    s.answer(1, ask, Answer::Held { stamp });
    assert_eq!(s.outcomes(), [(1, Outcome::Done { version: 1, votes: 2 })]);
}

#[test]
fn a_confirmation_that_is_not_to_be_had_is_made() {
    let mut s = Scene::new();
    s.request(1, Op::Write(put(1, Condition::Any)));
    s.promise(1, None);
    // Nobody answers: the write is held here alone, and given up.
    s.wait(2_100 * MS);
    assert!(matches!(s.outcomes()[..], [(1, Outcome::Unknown { .. })]));
    // Machine 1 is there again, and lacks it. Whoever reads at the leader would ask for ever whether it is held.
    s.request(2, Op::Read);
    let ask = s.read(1).unwrap();
    s.answer(1, ask, Answer::Copy(Copied::None));
    s.wait(60 * MS);
    let (ask, stamp, state) = s.accept(1).unwrap();
    assert_eq!((stamp.n, state.version), (2, 1));
    s.answer(1, ask, Answer::Held { stamp });
    let told = s.outcomes();
    assert!(matches!(&told[1], (2, Outcome::Value(Some(found))) if found.version == 1), "{told:?}");
}

#[test]
fn memory_is_bounded_by_bytes_too() {
    let mut s = Scene::new();
    let value: Arc<[u8]> = vec![7; 1 << 20].into();
    let stamp = Stamp { ballot: Ballot { time: Hlc::from_nanos(s.now), by: machine(1).incarnation }, n: 1 };
    let state = Arc::new(State { version: 1, value: Some(value.clone()), ..State::default() });
    let weak = Arc::downgrade(&state);
    for i in 0..200u32 {
        let key = Key::new(i.to_be_bytes().map(|b| b | 64)).unwrap();
        let message = Message::Accept { ask: Ask(1), key, stamp, state: state.clone() };
        s.say(Addr::Machine(machine(1)), message);
    }
    assert!(weak.strong_count() <= 1 + 64 + 2, "{} values of 1 MiB are in memory", weak.strong_count());
    // Requests that nobody answers: 256 MiB of them are enough.
    for i in 0..300 {
        let mut write = put(1_000 + i, Condition::Any);
        write.change = Change::Put { value: value.clone(), ttl: None };
        s.request(i, Op::Write(write));
    }
    let overloaded = s.outcomes().iter().filter(|(_, o)| matches!(o, Outcome::Overloaded { .. })).count();
    assert!((44..60).contains(&overloaded), "{overloaded} of 300 were refused");
    assert_eq!(s.node.turned_away(), overloaded as u64);
    s.wait(2_100 * MS);
    assert_eq!(s.outcomes().len(), 300);
    s.request(900, Op::Write(put(5_000, Condition::Any)));
    assert_eq!(s.outcomes().len(), 300, "there is room again");
}

#[test]
fn a_write_that_is_found_applied_is_told_with_the_votes_that_showed_it() {
    let mut s = Scene::new();
    let write = put(1, Condition::Any);
    let applied = Applied { id: write.id, came: Came::Version(3) };
    let value = Some(b"v"[..].into());
    let state = Arc::new(State { version: 3, value, recent: vec![applied], ..State::default() });
    let stamp = Stamp { ballot: Ballot { time: Hlc::from_nanos(9), by: machine(1).incarnation }, n: 1 };
    let message = Message::Accept { ask: Ask(1), key: s.key.clone(), stamp, state: state.clone() };
    s.say(Addr::Machine(machine(1)), message);
    s.request(1, Op::Write(write));
    s.promise(1, Some(Record { stamp, state: state.clone(), votes: SlotSet::all(3) }));
    assert_eq!(s.outcomes(), [(1, Outcome::Done { version: 3, votes: 2 })]);
    s.request(2, Op::Write(put(1, Condition::Any)));
    let ask = s.read(1).expect("a later request is not answered from memory");
    assert_eq!(s.outcomes().len(), 1);
    s.answer(1, ask, Answer::Copy(Copied::Whole(Record { stamp, state, votes: SlotSet::all(3) })));
    assert_eq!(s.outcomes()[1], (2, Outcome::Done { version: 3, votes: 2 }));
}

#[test]
fn of_a_write_that_the_last_state_contains_nobody_says_that_nothing_was_changed() {
    let mut s = Scene::new();
    s.request(1, Op::Write(put(1, Condition::Any)));
    s.promise(1, None);
    s.accept(1).expect("the write was proposed");
    // The same again, and still nobody answers.
    s.request(2, Op::Write(Write { again: true, ..put(1, Condition::Any) }));
    s.wait(2_100 * MS);
    for (ask, outcome) in s.outcomes() {
        assert!(matches!(outcome, Outcome::Unknown { .. }), "try {ask}: {outcome:?}");
    }
    assert_eq!(s.outcomes().len(), 2);
}

#[test]
fn a_retry_of_a_count_hears_what_it_gave_and_not_what_the_counter_is() {
    let mut s = Scene::new();
    let incr = |time, by| Write { change: Change::Incr { by }, ..put(time, Condition::Any) };
    s.request(1, Op::Write(incr(1, 5)));
    s.promise(1, None);
    s.accept(1).expect("the count was proposed");
    // A retry and another count, while nobody has answered.
    s.request(2, Op::Write(incr(2, 7)));
    s.request(3, Op::Write(Write { again: true, ..incr(1, 5) }));
    let (ask, stamp, state) = s.accept(1).expect("both counts were proposed");
    assert_eq!((state.version, state.value.as_deref()), (2, Some(&b"12"[..])));
    s.answer(1, ask, Answer::Held { stamp });
    // The retry changed nothing: it is told once five say that this is what they hold.
    if let Some(ask) = s.read(1) {
        let record = Record { stamp, state, votes: SlotSet::all(3) };
        s.answer(1, ask, Answer::Copy(Copied::Whole(record)));
    }
    let mut told = s.outcomes();
    told.sort_by_key(|(ask, _)| *ask);
    let numbers: Vec<_> = told
        .iter()
        .map(|(ask, outcome)| match outcome {
            Outcome::Counted { version, value, .. } => (*ask, *version, *value),
            other => panic!("{ask}: {other:?}"),
        })
        .collect();
    assert_eq!(numbers, [(1, 1, 5), (2, 2, 12), (3, 1, 5)]);
}

#[test]
fn what_was_handed_to_a_machine_that_is_lost_comes_back_at_once() {
    let mut s = Scene::new();
    s.request(1, Op::Write(put(1, Condition::Any)));
    s.promise(1, None);
    let beat = above(&s, 1);
    for i in [1, 2] {
        let (ask, ..) = s.accept(i).unwrap();
        s.answer(i, ask, Answer::Refused { beat });
    }
    let handed = s.last(1, |m| matches!(m, Message::Request { handed: true, .. }).then_some(()));
    assert!(handed.is_some() && s.prepare(1).unwrap().1 < beat, "it is machine 1's now");
    s.feed(Input::Reachable { name: machine(1).name, reachable: false });
    s.wait(3 * MS);
    assert!(s.prepare(2).unwrap().1 > beat, "it waits for a machine that is gone");
}

fn health(full: bool) -> Health {
    Health { full, ..Health::default() }
}

#[test]
fn a_machine_without_room_takes_no_value_and_says_so_at_once_and_takes_a_tombstone() {
    let mut s = Scene::new();
    let ballot = Ballot { time: Hlc::from_nanos(s.now + 1), by: machine(1).incarnation };
    let value: Option<Arc<[u8]>> = Some(b"v"[..].into());
    let mut accept = |n: u32, full, value: &Option<Arc<[u8]>>| {
        s.feed(Input::Health(health(full)));
        let state = Arc::new(State { version: n.into(), value: value.clone(), ..State::default() });
        let (ask, key, stamp) = (Ask(n.into()), s.key.clone(), Stamp { ballot, n });
        s.say(Addr::Machine(machine(1)), Message::Accept { ask, key, stamp, state });
        s.last(1, |m| match m {
            Message::Answer { votes, answer, .. } => Some((votes.len(), answer.clone())),
            _ => None,
        })
    };
    assert_eq!(accept(1, true, &value), Some((0, Answer::NoRoom)));
    assert_eq!(accept(2, true, &None), Some((1, Answer::Held { stamp: Stamp { ballot, n: 2 } })));
    assert_eq!(accept(3, false, &value), Some((1, Answer::Held { stamp: Stamp { ballot, n: 3 } })));
}

#[test]
fn a_machine_without_room_takes_what_a_reader_brings_to_five_and_no_more_than_a_little() {
    let mut s = Scene::new();
    s.feed(Input::Health(health(true)));
    let mut time = s.now;
    let mut accept = |from: u8, by: u8, bytes: usize| {
        time += 1;
        let ballot = Ballot { time: Hlc::from_nanos(time), by: machine(by).incarnation };
        let value: Option<Arc<[u8]>> = Some(vec![0; bytes].into());
        let state = Arc::new(State { version: 1, value, ..State::default() });
        let (ask, key, stamp) = (Ask(time), s.key.clone(), Stamp { ballot, n: 1 });
        s.say(Addr::Machine(machine(from)), Message::Accept { ask, key, stamp, state });
        let answer = s.last(from, |m| match m {
            Message::Answer { ask: Ask(of), answer, .. } if *of == time => Some(answer.clone()),
            _ => None,
        });
        answer == Some(Answer::Held { stamp })
    };
    assert!(!accept(1, 1, 8), "its own proposal");
    assert!(accept(1, 2, 8), "another's, which it read");
    assert!(!accept(2, 2, 8));
    assert!(accept(2, 1, 4 << 20), "the last that fits");
    assert!(!accept(2, 1, 8), "enough was taken");
}

#[test]
fn a_write_that_was_sent_to_machines_without_room_is_of_unknown_outcome() {
    let mut s = Scene::new();
    s.request(1, Op::Write(put(1, Condition::Any)));
    s.promise(1, None);
    for i in [1, 2] {
        let (ask, ..) = s.accept(i).unwrap();
        s.answer(i, ask, Answer::NoRoom);
    }
    assert_eq!(s.outcomes(), [], "one of three holds it, and another may yet");
    s.wait(2_100 * MS);
    assert!(
        matches!(s.outcomes()[..], [(1, Outcome::Unknown { votes: 1, needed: 2, .. })]),
        "{:?}",
        s.outcomes()
    );
}

#[test]
fn a_write_for_which_too_few_have_room_is_refused_before_it_is_sent_and_all_else_goes_on() {
    let mut s = Scene::with(Tuning { probe_every: PROBE_EVERY, ..Tuning::default() });
    let say = |s: &mut Scene, number, full| {
        let news = News { of: machine(1), refuted: number, said: Said::Health(health(full)) };
        let message = Message::Alive { ask: Ask(0), reached: true, gossip: Gossip::new([news]) };
        s.say(Addr::Machine(machine(1)), message);
    };
    // One of three without room: two are a quorum.
    say(&mut s, 1, true);
    s.request(1, Op::Write(put(1, Condition::Any)));
    assert!(s.prepare(2).is_some() && s.outcomes().is_empty());
    // This one as well: what has not been proposed is not.
    s.feed(Input::Health(health(true)));
    s.promise(2, None);
    // In the order of the key's slots.
    let owners = ennead_ring::Ring::of(&s.view).owners(&ennead_ring::Chain::of(b"k", 3));
    let full: Vec<_> = owners.machines().filter(|m| *m < 2).map(|m| machine(m as u8).name).collect();
    assert_eq!(s.outcomes(), [(1, Outcome::NoRoom { full: full.clone() })]);
    s.request(2, Op::Write(put(2, Condition::Any)));
    assert_eq!(s.outcomes()[1..], [(2, Outcome::NoRoom { full })]);
    assert!(s.accept(1).is_none() && s.accept(2).is_none());
    // A delete needs no room to speak of.
    let write = Write { change: Change::Delete, ..put(3, Condition::Any) };
    s.request(3, Op::Write(write));
    assert_eq!(s.outcomes().len(), 2, "it is under way");
    s.request(4, Op::Read);
    assert_eq!(s.outcomes().len(), 2, "so is a read");
    // There is room again.
    say(&mut s, 2, false);
    s.request(5, Op::Write(put(5, Condition::Any)));
    assert!(!s.outcomes().iter().any(|(ask, _)| *ask == 5));
}

#[test]
fn a_request_whose_time_passed_while_its_key_was_looked_up_is_not_proposed() {
    let mut s = Scene::new();
    let mut effects = Vec::new();
    let (ask, key, op) = (Ask(1), s.key.clone(), Op::Write(put(1, Condition::Any)));
    let message = Message::Request { ask, key: key.clone(), op, within: 100, handed: false };
    let (cluster, epoch) = (Some(s.view.cluster()), s.view.epoch());
    let envelope = Box::new(Envelope { cluster, epoch, message });
    let at = |now| Now { mono: Mono(now), wall: now };
    s.node.handle(at(s.now), Input::Message { from: CLIENT, envelope }, &mut effects);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Load { .. })));
    s.now += 200 * MS;
    s.feed(Input::Loaded { key, found: Loaded::Nothing });
    assert!(matches!(s.outcomes()[..], [(1, Outcome::NoQuorum { votes: 0, .. })]), "{:?}", s.outcomes());
    assert!(s.prepare(1).is_none() && s.accept(1).is_none());
}

#[test]
fn a_write_that_may_have_taken_effect_is_never_told_as_unchanged_for_want_of_room() {
    let mut s = Scene::with(Tuning { probe_every: PROBE_EVERY, ..Tuning::default() });
    s.request(1, Op::Write(put(1, Condition::Any)));
    s.promise(1, None);
    let time = s.accept(1).unwrap().1.ballot.time.plus(1);
    // A floor, not a rival: it is tried again at once, and this machine holds it already.
    let beat = Ballot { time, by: Incarnation::new(99) };
    for i in [1, 2] {
        let (ask, ..) = s.accept(i).unwrap();
        s.answer(i, ask, Answer::Refused { beat });
    }
    let news = News { of: machine(1), refuted: 1, said: Said::Health(health(true)) };
    let message = Message::Alive { ask: Ask(0), reached: true, gossip: Gossip::new([news]) };
    s.say(Addr::Machine(machine(1)), message);
    s.feed(Input::Health(health(true)));
    s.promise(1, None);
    assert!(matches!(s.outcomes()[..], [(1, Outcome::Unknown { .. })]), "{:?}", s.outcomes());
}
