//! Machines with records, and what they would tell of them; and the rules of a listing, each driven by hand: `None` if
//! the rule was kept, else what was seen. For the tests of both crates.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::BTreeMap;
use std::sync::Arc;

use ennead_ring::effect::{Account, Decree, Effect, Input, Limits, Mono, Now};
use ennead_ring::gathering::{Heard, Next, Verdict};
use ennead_ring::message::{Addr, Ask, Envelope, ListPage, ListRecord, ListRequest, ListValue, Message};
use ennead_ring::mutant::Rules;
use ennead_ring::node::{Birth, Setup, Tuning};
use ennead_ring::{
    Ballot, Chain, ClusterId, Epoch, Gathering, Hlc, Incarnation, Key, Loaded, Machine, Member, MemberState,
    Node, Record, SlotSet, Stamp, State, View, Zone,
};

pub(crate) fn machine(n: u64) -> Machine {
    let name = format!("10.0.0.{n}").parse().expect("a name");
    Machine { name, incarnation: Incarnation::new(n) }
}

pub(crate) fn epoch(number: u32) -> Epoch {
    Epoch { number, ..Epoch::FIRST }
}

pub(crate) fn view(number: u32, machines: impl IntoIterator<Item = u64>) -> Arc<View> {
    let member = |n| Member::up(machine(n), 8);
    let members = machines.into_iter().map(member).collect();
    Arc::new(View::new(ClusterId::new(7), epoch(number), 9, members, Vec::new()).expect("a view"))
}

/// Machines from 1 on, so many in each zone, one after the other; at slots of nine.
pub(crate) fn zoned(number: u32, sizes: &[usize]) -> Arc<View> {
    let zone = |z: usize| -> Zone { format!("z{z}").parse().expect("a zone") };
    let zones = sizes.iter().enumerate().flat_map(|(z, size)| std::iter::repeat_n(zone(z), *size));
    let member = |(n, zone)| Member::new(machine(n), (8, zone), MemberState::Up);
    let members = (1..).zip(zones).map(member).collect();
    Arc::new(View::new(ClusterId::new(7), epoch(number), 9, members, Vec::new()).expect("a view"))
}

/// The members of the zone that stands there.
pub(crate) fn in_zone(view: &View, z: usize) -> Vec<u32> {
    let is_there = |member: &Member| member.zone.as_str() == format!("z{z}");
    (0..).zip(view.members()).filter(|(_, member)| is_there(member)).map(|(i, _)| i).collect()
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).expect("a key")
}

/// The members that own slots of a key, each once.
pub(crate) fn owners(view: &View, key: &Key) -> Vec<u32> {
    view.ring().owners(&Chain::of(key.as_bytes(), view.slots())).machines().collect()
}

pub(crate) fn slots(view: &View, key: &Key, member: u32) -> SlotSet {
    view.ring().owners(&Chain::of(key.as_bytes(), view.slots())).slots_of(member)
}

pub(crate) fn stamp(n: u64) -> Stamp {
    Stamp { ballot: Ballot { time: Hlc::from_nanos(n), by: Incarnation::new(1) }, n: 1 }
}

/// The `n`th state of a key, voted for by these slots; every third one is a tombstone.
pub(crate) fn told(n: u64, votes: SlotSet) -> ListRecord {
    let value = if n.is_multiple_of(3) { ListValue::None } else { ListValue::Bytes(n) };
    ListRecord { stamp: stamp(n), votes, version: n, expires: None, value }
}

/// What one machine holds.
pub(crate) type Held = BTreeMap<Key, Option<ListRecord>>;

/// A machine's page of at most so many keys.
pub(crate) fn page(held: &Held, after: Option<Key>, most: usize) -> ListPage {
    let beyond = |key: &Key| after.as_ref().is_none_or(|after| key > after);
    let rest: Vec<_> = held.iter().filter(|(key, _)| beyond(key)).collect();
    let end = rest.len() <= most;
    let keys: Vec<_> = rest.into_iter().take(most).map(|(k, r)| (k.clone(), r.clone())).collect();
    let upto = keys.last().map(|(key, _)| key.clone()).filter(|_| !end);
    ListPage { synced: true, after, keys, upto, total: held.len() as u64 }
}

/// True if these machines, having told all they hold, are taken to have told of every key.
fn ends(gathering: &mut Gathering) -> bool {
    loop {
        match gathering.next() {
            Next::End => return true,
            Next::Wait => return false,
            Next::Key(..) => {}
        }
    }
}

/// L2: four machines of nine that hold nothing say nothing of a key that the other five hold.
pub(crate) fn four_of_nine_do_not_tell_a_range(rules: Rules) -> Option<String> {
    let mut gathering = Gathering::with_rules(view(1, 1..=9), b"", None, rules);
    for member in 0..4 {
        gathering.hear(member, epoch(1), page(&Held::new(), None, 9));
    }
    ends(&mut gathering)
        .then(|| "four machines' silence about a key was taken for five slots' (directed)".to_owned())
}

/// L2: nor do ten of fifteen in three zones, where the five that are silent are two of one zone and three of another:
/// these own five slots of some keys.
pub(crate) fn two_zones_in_part_are_more_than_one_whole(rules: Rules) -> Option<String> {
    let view = zoned(1, &[5, 5, 5]);
    let silent = [&in_zone(&view, 0)[..2], &in_zone(&view, 1)[..3]].concat();
    let mut gathering = Gathering::with_rules(view, b"", None, rules);
    for member in (0..15).filter(|member| !silent.contains(member)) {
        gathering.hear(member, epoch(1), page(&Held::new(), None, 9));
    }
    ends(&mut gathering).then(|| {
        "the silence of machines that own four slots of a key was taken for five (directed)".to_owned()
    })
}

/// L2: nor does a fifth that does not vote for all it owns.
pub(crate) fn who_is_not_synced_tells_nothing(rules: Rules) -> Option<String> {
    let mut gathering = Gathering::with_rules(view(1, 1..=9), b"", None, rules);
    for member in 0..4 {
        gathering.hear(member, epoch(1), page(&Held::new(), None, 9));
    }
    let unsynced = ListPage { synced: false, ..page(&Held::new(), None, 9) };
    let heard = gathering.hear(4, epoch(1), unsynced);
    (ends(&mut gathering) || heard != Heard::NotSynced)
        .then(|| "the silence of a machine that is not synced was counted (directed)".to_owned())
}

/// L4: a key is voted for by five slots in view 1. In view 2 one of these has another owner, which has told, still in
/// view 1, that it holds nothing; so have all others that did not vote, and they are enough.
pub(crate) fn views_are_not_mixed(rules: Rules) -> Option<String> {
    let first = view(1, 1..=11);
    let key = key("k");
    let voters: Vec<u32> = owners(&first, &key).into_iter().take(5).collect();
    // Who goes is one of the voters, and its slot comes to one of the two that owned none.
    let gone = u64::from(voters[0]) + 1;
    let second = view(2, (1..=11).filter(|n| *n != gone));
    let mut gathering = Gathering::with_rules(second.clone(), b"", None, rules);
    let voters: Vec<u64> = voters.into_iter().map(|member| u64::from(member) + 1).collect();
    for n in (1..=11u64).filter(|n| !voters.contains(n)) {
        let member = second.index_of(machine(n).name).expect("a member") as u32;
        gathering.hear(member, epoch(1), page(&Held::new(), None, 9));
    }
    ends(&mut gathering)
        .then(|| "what was told in an earlier view hid a key of this one (directed)".to_owned())
}

/// L1: a page that was being read when a view came is not told in that view: whoever came to own more is not synced.
pub(crate) fn a_page_is_worth_what_the_machine_was(rules: Rules) -> Option<String> {
    let (first, second) = (view(1, [1, 2, 3, 4]), view(2, [1, 2, 3]));
    let mut node = node(1, &first, rules);
    let effects = ask(&mut node, b"", None);
    let scan = effects.iter().find_map(|effect| match effect {
        Effect::Scan { scan, .. } => Some(*scan),
        _ => None,
    })?;
    let views = Message::ViewsTold { views: vec![second], settled: Epoch::FIRST };
    hear(&mut node, Addr::Machine(machine(2)), 2, views);
    let mut effects = Vec::new();
    node.handle(now(), Input::Scanned { scan, found: Vec::new(), end: true, total: 0 }, &mut effects);
    let pages = pages(&effects);
    match pages[..] {
        [page] if !page.synced => None,
        [] => Some("nobody was told that the page will not come (directed)".to_owned()),
        _ => Some("a page read in one view was told in the next (directed)".to_owned()),
    }
}

// -- one machine ---------------------------------------------------------------------------------------

pub(crate) fn now() -> Now {
    Now { mono: Mono(1_000_000_000), wall: 1_795_000_000_000_000_000 }
}

pub(crate) fn node(me: u64, view: &Arc<View>, rules: Rules) -> Node {
    let setup = Setup {
        me: machine(me),
        weight: 8,
        zone: Zone::NONE,
        limits: Limits::default(),
        views: vec![view.clone()],
        account: Account { settled: view.epoch(), synced: vec![view.epoch()], left: false },
        decree: Decree::default(),
        birth: Birth::None,
        tuning: Tuning { check_every: 0, ..Tuning::default() },
        seed: 1,
        rules,
    };
    Node::new(setup, now())
}

pub(crate) fn hear(node: &mut Node, from: Addr, number: u32, message: Message) -> Vec<Effect> {
    let envelope = Box::new(Envelope { cluster: Some(ClusterId::new(7)), epoch: epoch(number), message });
    let mut effects = Vec::new();
    node.handle(now(), Input::Message { from, envelope }, &mut effects);
    effects
}

/// A client asks for a page.
pub(crate) fn ask(node: &mut Node, prefix: &[u8], values: Option<Vec<u64>>) -> Vec<Effect> {
    let values = values.map(|without| without.into_iter().map(|n| machine(n).name).collect());
    let request =
        ListRequest { after: None, prefix: prefix.to_vec(), bytes: 64 << 10, within: 1_000, values };
    hear(node, Addr::Client(1), 1, Message::List { ask: Ask(1), request: Box::new(request) })
}

pub(crate) fn pages(effects: &[Effect]) -> Vec<&ListPage> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send { envelope, .. } => match &envelope.message {
                Message::Listed { page, .. } => Some(&**page),
                _ => None,
            },
            _ => None,
        })
        .collect()
}

/// As storage would find it.
pub(crate) fn loaded(n: u64, value: &str) -> Loaded {
    let state = State { version: n, value: Some(value.as_bytes().into()), ..State::default() };
    Loaded::Record(Record { stamp: stamp(n), state: Arc::new(state), votes: SlotSet::all(9) })
}

/// True if a verdict tells of a value.
pub(crate) fn is_value(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Settled(_))
}
