//! What a valid peer may say that is not true: a machine takes no harm. It never panics, what it did not ask for changes
//! nothing, and whoever is refused hears why, or that the views differ.
#![allow(missing_docs, reason = "tests")]

#[path = "any/mod.rs"]
mod any_message;

use std::collections::VecDeque;
use std::sync::Arc;

use any_message::envelope;
use ennead_ring::effect::Effect;
use ennead_ring::key::MAX_KEY;
use ennead_ring::message::{
    Addr, Answer, Ask, Change, Condition, DecreeAnswer, Entry, Envelope, Held, ListRequest, Message, Op,
    Outcome, Page, Purpose, Wish, Write,
};
use ennead_ring::mutant::Rules;
use ennead_ring::node::{Birth, Setup, Tuning};
use ennead_ring::{
    Account, Ballot, ClusterId, Decree, Epoch, Hlc, Incarnation, Input, Key, Limits, Loaded, Machine, Member,
    Mono, Node, Now, RequestId, SlotSet, Stamp, State, View, Zone,
};
use proptest::prelude::*;

const SEC: u64 = 1_000_000_000;
const CLUSTER: ClusterId = ClusterId::new(7);
/// Bytes of the longest value that the victim takes.
const MOST: usize = 64 << 10;

fn machine(n: u8) -> Machine {
    Machine { name: format!("10.0.0.{n}").parse().expect("a name"), incarnation: Incarnation::new(n.into()) }
}

fn epoch(number: u32) -> Epoch {
    Epoch { number, ..Epoch::FIRST }
}

fn view(number: u32, members: impl Iterator<Item = u8>) -> Arc<View> {
    let up = |n| Member::up(machine(n), 4);
    Arc::new(View::new(CLUSTER, epoch(number), 9, members.map(up).collect(), Vec::new()).expect("a view"))
}

fn key() -> Key {
    Key::new("mail-23412").expect("a key")
}

/// Machine 1 of ten, which has just adopted the view in which 10 has come for 9, and has nothing on its disk.
struct Victim {
    node: Node,
    now: u64,
    /// What it asked whom, under which number.
    asked: Vec<(Addr, Ask, &'static str)>,
}

impl Victim {
    fn new() -> Self {
        let views = vec![view(1, 1..10), view(2, (1..9).chain([10]))];
        let setup = Setup {
            me: machine(1),
            weight: 4,
            zone: Zone::NONE,
            limits: Limits::default(),
            views,
            account: Account { settled: epoch(1), synced: vec![epoch(1)], left: false },
            decree: Decree::default(),
            birth: Birth::None,
            tuning: Tuning { probe_every: SEC / 4, max_value: MOST, ..Tuning::default() },
            seed: 5,
            rules: Rules::default(),
        };
        let now = 1_000 * SEC;
        let mut victim =
            Self { node: Node::new(setup, Now { mono: Mono(now), wall: now }), now, asked: Vec::new() };
        victim.feed(Input::Wake);
        victim
    }

    /// Feeds one input, and whatever it says to itself or asks its disk; what it says to others.
    fn feed(&mut self, input: Input) -> Vec<(Addr, Message)> {
        let mut said = Vec::new();
        let mut inputs = VecDeque::from([input]);
        let mut steps = 0;
        while let Some(input) = inputs.pop_front() {
            steps += 1;
            assert!(steps < 2_000, "one message keeps it busy for ever");
            let mut effects = Vec::new();
            self.node.handle(Now { mono: Mono(self.now), wall: self.now }, input, &mut effects);
            self.node.check();
            assert!(effects.len() < 5_000, "{} effects of one input", effects.len());
            for effect in effects {
                match effect {
                    Effect::Send { to, envelope, .. } if to == Addr::Machine(machine(1)) => {
                        inputs.push_back(Input::Message { from: to, envelope });
                    }
                    Effect::Send { to, envelope, .. } => {
                        self.note(to, &envelope.message);
                        said.push((to, envelope.message));
                    }
                    Effect::Load { key } => inputs.push_back(Input::Loaded { key, found: Loaded::Nothing }),
                    Effect::Scan { scan, .. } => {
                        inputs.push_back(Input::Scanned { scan, found: Vec::new(), end: true, total: 0 });
                    }
                    Effect::Persist { .. } => {}
                }
            }
        }
        said
    }

    fn note(&mut self, to: Addr, message: &Message) {
        let ask = match message {
            Message::Prepare { ask, .. }
            | Message::Accept { ask, .. }
            | Message::Read { ask, .. }
            | Message::Request { ask, .. }
            | Message::DecreePrepare { ask, .. }
            | Message::DecreeAccept { ask, .. }
            | Message::Tell { ask, .. }
            | Message::Fetch { ask, .. }
            | Message::Probe { ask, .. }
            | Message::ProbeFor { ask, .. } => *ask,
            _ => return,
        };
        self.asked.push((to, ask, message.kind()));
    }

    fn hear(&mut self, from: u8, at: Epoch, message: Message) -> Vec<(Addr, Message)> {
        let envelope = Box::new(Envelope { cluster: Some(CLUSTER), epoch: at, message });
        self.feed(Input::Message { from: Addr::Machine(machine(from)), envelope })
    }

    fn wait(&mut self, nanos: u64) -> Vec<(Addr, Message)> {
        self.now += nanos;
        self.feed(Input::Wake)
    }

    /// The number of its last question of this kind to that machine.
    fn asked(&self, whom: u8, kind: &str) -> Ask {
        let whom = Addr::Machine(machine(whom));
        let found = self.asked.iter().rev().find(|(to, _, k)| *to == whom && *k == kind);
        found.unwrap_or_else(|| panic!("{whom} was asked no {kind}")).1
    }
}

/// Makes it of a key or a view that the victim might know, so that the lie is listened to.
fn bring_near(message: &mut Message, n: u8) {
    let near = || view(u32::from(n) % 4, (1..10).chain([10 + n % 3]).filter(|m| *m != n % 16));
    match message {
        Message::Prepare { key: of, .. }
        | Message::Accept { key: of, .. }
        | Message::Read { key: of, .. }
        | Message::Request { key: of, .. }
        | Message::Collect { key: of, .. } => *of = key(),
        Message::DecreeAccept { view, .. } | Message::Birth { view } => *view = near(),
        Message::DecreeAnswer {
            answer: DecreeAnswer::Promised { accepted: Some((_, view)), .. }, ..
        } => {
            *view = near();
        }
        Message::ViewsTold { views, settled } => {
            views.iter_mut().for_each(|view| *view = near());
            *settled = epoch(u32::from(n) % 5);
        }
        Message::Settled { epoch: at } => *at = epoch(u32::from(n) % 4),
        Message::Told { page, .. } => {
            page.entries.sort_by(|a, b| a.key.cmp(&b.key));
            page.entries.dedup_by(|a, b| a.key == b.key);
            page.upto = page.upto.take().filter(|_| n < 100);
            page.account.synced = vec![epoch(1), epoch(u32::from(n) % 4)];
            page.account.settled = epoch(u32::from(n) % 3);
        }
        Message::ProbeFor { whom: about, .. }
        | Message::Wish {
            wish:
                Wish::Join { machine: about, .. }
                | Wish::Leave { machine: about }
                | Wish::Remove { machine: about }
                | Wish::Force { machine: about },
            ..
        } => *about = machine(n % 12),
        Message::Force { machines, .. } => *machines = vec![machine(n % 12)],
        Message::Tell { request, .. } => {
            request.without = vec![machine(n % 12)];
            request.since = Some(epoch(u32::from(n) % 4));
        }
        _ => {}
    }
}

/// Puts a number there that the victim asked under, so that the lie is listened to.
fn aim(message: &mut Message, number: Ask) {
    match message {
        Message::Answer { ask, .. }
        | Message::Outcome { ask, .. }
        | Message::DecreeAnswer { ask, .. }
        | Message::Wished { ask, .. }
        | Message::Told { ask, .. }
        | Message::Fetched { ask, .. }
        | Message::Listed { ask, .. }
        | Message::Alive { ask, .. } => *ask = number,
        _ => {}
    }
}

fn page(entries: &[&str], upto: Option<&str>) -> Page {
    let key = |text: &str| Key::new(text).expect("a key");
    let stamp = Stamp { ballot: Ballot { time: Hlc::from_nanos(SEC), by: Incarnation::new(2) }, n: 1 };
    let state = Some(Arc::new(State::default()));
    let entry = |text: &&str| Entry {
        key: key(text),
        held: Held::Record { stamp, votes: SlotSet::all(9), tombstone: false, state: state.clone() },
    };
    Page {
        account: Account { settled: epoch(1), synced: vec![epoch(1)], left: false },
        promised: Ballot::ZERO,
        bound: Default::default(),
        agreed: 0,
        differs: Vec::new(),
        beyond: 0,
        entries: entries.iter().map(entry).collect(),
        upto: upto.map(key),
        looked: 1,
        total: u64::MAX,
    }
}

fn put(ask: u64) -> Message {
    let id = RequestId { time: Hlc::from_nanos(1_000 * SEC), random: ask };
    let change = Change::Put { value: (*b"v").into(), ttl: None };
    let op = Op::Write(Write { id, again: false, condition: Condition::Any, change });
    Message::Request { ask: Ask(ask), key: key(), op, within: 1_000, handed: true }
}

/// `LIES=100000` tries so many conversations.
fn cases() -> u32 {
    std::env::var("LIES").ok().and_then(|text| text.parse().ok()).unwrap_or(500)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: cases(), ..ProptestConfig::default() })]

    /// Members, former members, strangers and clients say whatever there is to say, at any epoch, some of it in answer to
    /// what was really asked.
    #[test]
    fn whatever_is_said_the_machine_goes_on(
        lies in proptest::collection::vec(
            (envelope(), 0u8..12, 0..4u32, any::<prop::sample::Index>(), any::<Option<u8>>(), 0..SEC), 1..40,
        ),
    ) {
        let mut victim = Victim::new();
        victim.feed(Input::Message {
            from: Addr::Client(1),
            envelope: Box::new(Envelope { cluster: Some(CLUSTER), epoch: epoch(2), message: put(1) }),
        });
        let mut before = epoch(2);
        for (mut envelope, from, at, which, near, wait) in lies {
            envelope.cluster = Some(CLUSTER);
            envelope.epoch = epoch(at);
            let mut from = if from == 0 { Addr::Client(9) } else { Addr::Machine(machine(from)) };
            if let Some(near) = near {
                envelope.epoch = victim.node.view().map_or(Epoch::ZERO, |view| view.epoch());
                bring_near(&mut envelope.message, near);
            }
            if near.is_some_and(|n| n % 2 == 0) && !victim.asked.is_empty() {
                let (whom, ask, _) = victim.asked[which.index(victim.asked.len())];
                from = whom;
                aim(&mut envelope.message, ask);
            }
            if from == Addr::Machine(machine(1)) {
                continue;
            }
            victim.feed(Input::Message { from, envelope: Box::new(envelope) });
            victim.wait(wait);
            let epoch = victim.node.view().map_or(Epoch::ZERO, |view| view.epoch());
            prop_assert!(epoch >= before, "it went back from view {before} to {epoch}");
            before = epoch;
        }
    }
}

/// What is said by who should know better, with the machine that says it, its epoch, and what must come of it.
#[derive(Clone, Debug)]
enum Lie {
    /// At an epoch that there is not yet.
    Later(u32, Box<Envelope>),
    /// By one that was a member and is none, as if it still were.
    Former(Box<Envelope>),
    /// A change for a machine that is no member under this incarnation.
    WrongMachine { name: u8, incarnation: u64, leaves: bool },
    /// That a member which answers is gone.
    NotGone(u8),
    /// A second machine under a member's name.
    Namesake { name: u8, incarnation: u64 },
    /// A value of so many bytes too many.
    TooLong(usize),
    /// A write of a key that is the cluster's own.
    Reserved(String),
    /// A list of such keys, or of keys longer than any.
    Unlistable { own: bool, bytes: usize },
    /// A ballot so close to the end of time that none comes after it.
    LastBallot(u64),
    /// A page whose keys are not in order.
    Unordered(String, String),
}

fn lie() -> impl Strategy<Value = Lie> {
    let text = || "[a-z]{1,12}";
    let said = || envelope().prop_map(Box::new);
    prop_oneof![
        (3u32..1_000, said()).prop_map(|(at, said)| Lie::Later(at, said)),
        said().prop_map(Lie::Former),
        (2u8..20, 100u64.., any::<bool>()).prop_map(|(name, incarnation, leaves)| Lie::WrongMachine {
            name,
            incarnation,
            leaves
        }),
        (2u8..9).prop_map(Lie::NotGone),
        (2u8..9, 100u64..).prop_map(|(name, incarnation)| Lie::Namesake { name, incarnation }),
        (1usize..5_000).prop_map(Lie::TooLong),
        text().prop_map(Lie::Reserved),
        (any::<bool>(), 1usize..300).prop_map(|(own, bytes)| Lie::Unlistable { own, bytes }),
        (0u64..4).prop_map(Lie::LastBallot),
        (text(), text()).prop_map(|(one, other)| Lie::Unordered(one, other)),
    ]
}

/// True of what is said between members about keys and views, and not in order to become one or to fetch views.
fn is_between_members(message: &Message) -> bool {
    !matches!(
        message,
        Message::Blank { .. }
            | Message::ViewAsk { .. }
            | Message::ViewsAsk { .. }
            | Message::ViewsTold { .. }
            | Message::Birth { .. }
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: cases(), ..ProptestConfig::default() })]

    /// Each lie changes nothing, and whoever told it hears what is wrong with it: the reason names it.
    #[test]
    fn a_lie_is_refused_with_its_reason(lie in lie(), from in 2u8..9) {
        let mut victim = Victim::new();
        // Whom it asks anything it believes to be alive.
        (2..9).for_each(|n| drop(victim.hear(n, epoch(2), Message::Word { synced: false, warm: false })));
        let before = victim.node.view().map(|view| view.epoch());
        let refusal = |said: &[(Addr, Message)]| said.iter().find_map(|(_, message)| match message {
            Message::Wished { refused: Some(why), .. } | Message::NotTaken { reason: why } => Some(why.clone()),
            Message::Outcome { outcome: Outcome::Refused(why), .. } => Some(why.to_string()),
            _ => None,
        });
        let names = |said: Vec<(Addr, Message)>, what: &str| {
            let why = refusal(&said);
            prop_assert!(why.as_ref().is_some_and(|why| why.contains(what)), "no word of {what}: {said:?}");
            Ok(())
        };
        let of = |n: u8, incarnation| Machine { incarnation: Incarnation::new(incarnation), ..machine(n) };
        match lie.clone() {
            Lie::Later(at, envelope) if is_between_members(&envelope.message) => {
                let said = victim.hear(from, epoch(at), envelope.message);
                let asks = (Addr::Machine(machine(from)), Message::ViewsAsk { after: epoch(2) });
                prop_assert_eq!(said, vec![asks], "nothing but the views that it lacks");
            }
            Lie::Former(envelope) if is_between_members(&envelope.message) => {
                let said = victim.hear(9, epoch(1), envelope.message.clone());
                let told = said.iter().any(|(to, message)| {
                    let to_it = *to == Addr::Machine(machine(9));
                    to_it && matches!(message, Message::ViewsTold { views, .. } if views.last().is_some_and(|v| v.epoch() == epoch(2)))
                });
                prop_assert!(told, "it is not told the views: {said:?}");
                let voted = said.iter().any(|(_, m)| matches!(m, Message::Answer { votes, .. } if !votes.is_empty()));
                prop_assert!(!voted, "{said:?}");
            }
            Lie::Later(..) | Lie::Former(_) => {}
            Lie::WrongMachine { name, incarnation, leaves } => {
                let machine = of(name, incarnation);
                let wish = if leaves { Wish::Leave { machine } } else { Wish::Remove { machine } };
                let said = victim.hear(from, epoch(2), Message::Wish { ask: Ask(5), wish });
                names(said, &format!("{} is not in the view", machine.name))?;
            }
            Lie::NotGone(n) => {
                let wish = Wish::Remove { machine: machine(n) };
                let said = victim.hear(from, epoch(2), Message::Wish { ask: Ask(5), wish });
                names(said, &format!("{} answers", machine(n).name))?;
            }
            Lie::Namesake { name, incarnation } => {
                let blank = Message::Blank { weight: 4, zone: Zone::NONE, gathers: false };
                let envelope = Box::new(Envelope { cluster: None, epoch: Epoch::ZERO, message: blank });
                let from = Addr::Machine(of(name, incarnation));
                let said = victim.feed(Input::Message { from, envelope });
                names(said, "two machines must not share a name")?;
            }
            Lie::TooLong(more) => {
                let Message::Request { ask, key, within, .. } = put(7) else { unreachable!() };
                let id = RequestId { time: Hlc::from_nanos(1_000 * SEC), random: 7 };
                let value = vec![0; MOST + more].into();
                let change = Change::Put { value, ttl: None };
                let op = Op::Write(Write { id, again: false, condition: Condition::Any, change });
                let message = Message::Request { ask, key, op, within, handed: true };
                let said = victim.hear(from, epoch(2), message);
                names(said, &format!("the value has {} bytes; this machine takes at most {MOST}", MOST + more))?;
            }
            Lie::Reserved(text) => {
                let Message::Request { ask, op, within, .. } = put(7) else { unreachable!() };
                let key = Key::new(format!("\0{text}")).expect("a key");
                let message = Message::Request { ask, key, op, within, handed: false };
                let envelope = Box::new(Envelope { cluster: Some(CLUSTER), epoch: epoch(2), message });
                let said = victim.feed(Input::Message { from: Addr::Client(3), envelope });
                names(said, "keys that begin with a zero byte are the cluster's own")?;
            }
            Lie::Unlistable { own, bytes } => {
                let prefix = if own { vec![0; bytes] } else { vec![b'a'; MAX_KEY + bytes] };
                let request = ListRequest { after: None, prefix, bytes: 1_000, within: 1_000, values: None };
                let message = Message::List { ask: Ask(3), request: Box::new(request) };
                let envelope = Box::new(Envelope { cluster: Some(CLUSTER), epoch: epoch(2), message });
                let said = victim.feed(Input::Message { from: Addr::Client(3), envelope });
                names(said, if own { "are not listed" } else { "longer than any key" })?;
            }
            Lie::LastBallot(short) => {
                let ballot = Ballot { time: Hlc::from_nanos(Hlc::MAX.nanos() - short), by: Incarnation::new(2) };
                victim.hear(from, epoch(2), Message::Prepare { ask: Ask(1), key: key(), ballot });
                // So many readings of the clock are left; then nothing can be written, and it says why.
                let puts = (0..=short + 1).map(|n| victim.hear(from, epoch(2), put(50 + n)));
                let said: Vec<(Addr, Message)> = puts.flatten().collect();
                let why = refusal(&said);
                let said_so = why.as_ref().map(|why| why.contains("clock is at its end"));
                prop_assert!(said_so != Some(false) && (short > 0 || said_so.is_some()), "{said:?}");
            }
            Lie::Unordered(one, other) => {
                let ask = victim.asked(from, "tell");
                let (first, last) = if one < other { (other, one) } else { (one, other) };
                let moves = |v: &Victim| v.node.moves().iter().map(|m| (m.keys, m.bytes, m.looked)).collect::<Vec<_>>();
                let had = moves(&victim);
                let page = Box::new(page(&[&first, &last], None));
                victim.hear(from, epoch(2), Message::Told { ask, page });
                prop_assert_eq!(moves(&victim), had);
            }
        }
        prop_assert_eq!(victim.node.view().map(|view| view.epoch()), before, "no lie makes a view");
    }
}

/// Three of nine owners answer its Prepare with the votes of all nine slots, at this epoch: three machines are no five slots.
fn three_owners_vote_for_all(at: Epoch) {
    let mut victim = Victim::new();
    victim.hear(2, epoch(2), put(1));
    let prepared = |n: &u8| {
        let asked =
            |(to, _, kind): &(Addr, Ask, &str)| *to == Addr::Machine(machine(*n)) && *kind == "prepare";
        victim.asked.iter().any(asked)
    };
    let owners: Vec<u8> = (2..=10).filter(prepared).collect();
    assert!(owners.len() > 4);
    // Whatever ballot it took: the one in its Prepare.
    let said = victim.wait(SEC / 10);
    let ballot = said.iter().find_map(|(_, m)| m.ballot()).expect("it asks again");
    for liar in &owners[..3] {
        let ask = victim.asked(*liar, "prepare");
        let answer = Answer::Promised { ballot, record: None, bound: Default::default() };
        let said = victim.hear(*liar, at, Message::Answer { ask, votes: SlotSet::all(9), answer });
        assert!(said.iter().all(|(_, m)| m.kind() != "accept"), "three machines are no five slots");
    }
    assert_eq!(victim.node.counts().false_votes, 3);
    let said = victim.node.objection().expect("said aloud");
    assert!(said.contains("votes for slots that are not its own"), "{said}");
}

#[test]
fn an_answer_with_votes_for_slots_that_are_not_its_machines_counts_for_its_own_alone() {
    three_owners_vote_for_all(epoch(2));
}

#[test]
fn nor_do_they_count_in_another_view() {
    // Of the views that the machine still knows, it knows whose the slots were; of others, nobody's word can be weighed.
    three_owners_vote_for_all(epoch(1));
    three_owners_vote_for_all(Epoch::ZERO);
}

#[test]
fn a_page_out_of_order_or_beyond_its_end_or_for_anothers_question_is_no_page() {
    let mut victim = Victim::new();
    let ask = victim.asked(2, "tell");
    let moved = |v: &Victim| v.node.moves().iter().map(|m| (m.looked, m.keys, m.bytes)).collect::<Vec<_>>();
    let before = moved(&victim);
    for page in [page(&["b", "a"], None), page(&["a", "a"], None), page(&["a", "c"], Some("b"))] {
        victim.hear(2, epoch(2), Message::Told { ask, page: Box::new(page) });
        assert_eq!(moved(&victim), before);
    }
    let good = page(&["a", "b"], None);
    victim.hear(3, epoch(2), Message::Told { ask, page: Box::new(good.clone()) });
    assert_eq!(moved(&victim), before, "what 2 was asked, 3 cannot answer");
    victim.hear(2, epoch(1), Message::Told { ask, page: Box::new(good.clone()) });
    assert_eq!(moved(&victim), before, "nor can 2, in the view before");
    victim.hear(2, epoch(2), Message::Told { ask, page: Box::new(good) });
    assert_ne!(moved(&victim), before);
    // It claimed 2^64 keys, and its neighbours do too: what people are shown is a number all the same.
    // (9 is no member any more, and 10 had nothing before: nothing is copied from them.)
    for n in 3..=8 {
        let ask = victim.asked(n, "tell");
        victim.hear(n, epoch(2), Message::Told { ask, page: Box::new(page(&[], None)) });
    }
    assert!(victim.node.moves().iter().all(|m| m.total < u64::MAX));
    let purposes: Vec<Purpose> = victim.node.moves().iter().map(|m| m.purpose).collect();
    assert!(!purposes.contains(&Purpose::Check));
}

#[test]
fn who_speaks_at_a_later_epoch_is_asked_for_the_views_and_told_nothing() {
    let mut victim = Victim::new();
    let said = victim.hear(2, epoch(9), Message::Read { ask: Ask(1), key: key(), inline: 0 });
    assert!(said.iter().all(|(_, m)| m.kind() != "answer"), "{said:?}");
    assert!(said.iter().any(|(_, m)| *m == Message::ViewsAsk { after: epoch(2) }));
}

#[test]
fn views_that_do_not_follow_are_not_adopted() {
    let mut victim = Victim::new();
    let elsewhere = View::new(ClusterId::new(8), epoch(3), 9, view(3, 1..9).members().to_vec(), Vec::new());
    let other_slots = View::new(CLUSTER, epoch(3), 5, view(3, 1..9).members().to_vec(), Vec::new());
    // A fork that nobody forced is no view at all.
    let members = view(3, 1..9).members().to_vec();
    assert!(View::new(CLUSTER, Epoch { fork: 4, ..epoch(3) }, 9, members, vec![]).is_err());
    let lies = [view(4, 1..9), Arc::new(elsewhere.unwrap()), Arc::new(other_slots.unwrap())];
    for lie in lies {
        for settled in [epoch(1), epoch(2)] {
            victim.hear(2, epoch(3), Message::ViewsTold { views: vec![lie.clone()], settled });
            assert_eq!(victim.node.view().map(|v| v.epoch()), Some(epoch(2)), "{lie:?}");
        }
    }
    // The chain is broken in its middle: it goes as far as it holds.
    let broken = vec![view(3, 1..9), view(5, 1..9)];
    victim.hear(2, epoch(5), Message::ViewsTold { views: broken, settled: epoch(1) });
    assert_eq!(victim.node.view().map(|v| v.epoch()), Some(epoch(3)));
}

#[test]
fn the_last_reading_of_the_clock_is_obeyed_and_who_asks_next_is_told_why_not() {
    let mut victim = Victim::new();
    let ballot = Ballot { time: Hlc::MAX, by: Incarnation::new(2) };
    victim.hear(2, epoch(2), Message::Prepare { ask: Ask(1), key: key(), ballot });
    let said = victim.hear(2, epoch(2), put(1));
    let refused = said.iter().any(|(_, m)| {
        matches!(m, Message::Outcome { outcome: Outcome::Refused(why), .. } if why.contains("clock is at its end"))
    });
    assert!(refused, "{said:?}");
}
