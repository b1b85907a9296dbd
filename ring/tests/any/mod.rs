//! Any message there can be, and any of the things that it is made of: for the tests of both crates.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::sync::Arc;

use ennead_ring::digest::Digest;
use ennead_ring::gossip::{Gossip, Health, News, Said};
use ennead_ring::message::{
    Answer, Ask, Bound, Change, Claim, Condition, Copied, DecreeAnswer, Differs, Entry, Envelope, Found,
    Held, ListPage, ListRecord, ListRequest, ListValue, Message, Op, Outcome, Page, Purpose, TellRequest,
    Wish, Write,
};
use ennead_ring::roll::{Note, Roll};
use ennead_ring::stamp::{Applied, Came, Uncountable};
use ennead_ring::{
    Account, Ballot, ClusterId, Decree, Epoch, Hlc, Incarnation, Key, Machine, Member, MemberState, Name,
    Record, RequestId, SlotSet, Stamp, State, View, Zone,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

pub(crate) fn hlc() -> impl Strategy<Value = Hlc> {
    // Half an hour of 1970, or any time: a clock at its end leaves little that could still go wrong.
    prop_oneof![4 => 0..2_000_000_000_000u64, 1 => any::<u64>()].prop_map(Hlc::from_nanos)
}

pub(crate) fn ballot() -> impl Strategy<Value = Ballot> {
    (hlc(), any::<u64>()).prop_map(|(time, by)| Ballot { time, by: Incarnation::new(by) })
}

pub(crate) fn stamp() -> impl Strategy<Value = Stamp> {
    (ballot(), any::<u32>()).prop_map(|(ballot, n)| Stamp { ballot, n })
}

pub(crate) fn votes() -> impl Strategy<Value = SlotSet> {
    vec(1u8..=15, 0..9).prop_map(SlotSet::from_iter)
}

pub(crate) fn value() -> impl Strategy<Value = Arc<[u8]>> {
    vec(any::<u8>(), 0..100).prop_map(Arc::from)
}

fn uncountable() -> impl Strategy<Value = Uncountable> {
    prop_oneof![Just(Uncountable::NotANumber), Just(Uncountable::TooLarge)]
}

fn id() -> impl Strategy<Value = RequestId> {
    (hlc(), any::<u64>()).prop_map(|(time, random)| RequestId { time, random })
}

pub(crate) fn state() -> impl Strategy<Value = State> {
    let came = prop_oneof![
        any::<u64>().prop_map(Came::Version),
        any::<Option<u64>>().prop_map(Came::Mismatch),
        Just(Came::Absent),
        any::<(u64, i64)>().prop_map(|(version, value)| Came::Counted { version, value }),
        (any::<u64>(), uncountable()).prop_map(|(version, why)| Came::Uncountable { version, why }),
    ];
    let applied = (id(), came).prop_map(|(id, came)| Applied { id, came });
    let recent = vec(applied, 0..20);
    (any::<u64>(), option::of(value()), option::of(hlc()), recent, hlc()).prop_map(
        |(version, value, expires, recent, horizon)| State { version, value, expires, recent, horizon },
    )
}

pub(crate) fn record() -> impl Strategy<Value = Record> {
    (stamp(), state(), votes()).prop_map(|(stamp, state, votes)| Record {
        stamp,
        state: Arc::new(state),
        votes,
    })
}

pub(crate) fn bound() -> impl Strategy<Value = Bound> {
    (hlc(), any::<u64>()).prop_map(|(time, version)| Bound { time, version })
}

pub(crate) fn key() -> impl Strategy<Value = Key> {
    vec(any::<u8>(), 1..40).prop_map(|bytes| Key::new(bytes).expect("a key"))
}

pub(crate) fn name() -> impl Strategy<Value = Name> {
    let v4 = (any::<[u8; 4]>(), 1u16..).prop_map(|(ip, port)| Name::new((ip, port).into()));
    let v6 = (any::<[u8; 16]>(), 1u16..).prop_map(|(ip, port)| Name::new((ip, port).into()));
    prop_oneof![v4, v6]
}

pub(crate) fn epoch() -> impl Strategy<Value = Epoch> {
    any::<(u32, u32, u32)>().prop_map(|(generation, fork, number)| Epoch { generation, fork, number })
}

pub(crate) fn zone() -> impl Strategy<Value = Zone> {
    let named = "[a-zA-Z0-9._-]{1,32}".prop_map(|name| name.parse().expect("a zone"));
    prop_oneof![2 => Just(Zone::NONE), 1 => named]
}

pub(crate) fn view() -> impl Strategy<Value = View> {
    let place = || (1u32..500, zone());
    let one = (any::<u64>(), place(), place(), 0u8..3);
    let members = proptest::collection::btree_map(name(), one, 1..12);
    let forks = proptest::collection::vec(1u32.., 0..3);
    (any::<u64>(), any::<u32>(), forks, prop::sample::select(vec![1u8, 3, 9, 15]), members).prop_filter_map(
        "no view",
        |(cluster, number, forks, slots, members)| {
            let member = |(name, (id, (weight, zone), (next_weight, next_zone), state))| Member {
                machine: Machine { name, incarnation: Incarnation::new(id) },
                weight,
                next_weight,
                zone,
                next_zone,
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
        any::<Option<u64>>().prop_map(|ttl| Change::Touch { ttl }),
        any::<i64>().prop_map(|by| Change::Incr { by }),
    ];
    let write = (id(), any::<bool>(), condition, change)
        .prop_map(|(id, again, condition, change)| Op::Write(Write { id, again, condition, change }));
    prop_oneof![Just(Op::Read), Just(Op::Settle), write]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let found = (value(), any::<u64>(), option::of(hlc())).prop_map(|(value, version, expires)| Found {
        value,
        version,
        expires,
    });
    let silent = || vec(name(), 0..5);
    prop_oneof![
        any::<(u64, u8)>().prop_map(|(version, votes)| Outcome::Done { version, votes }),
        option::of(found).prop_map(Outcome::Value),
        any::<Option<u64>>().prop_map(|version| Outcome::Mismatch { version }),
        Just(Outcome::Absent),
        Just(Outcome::NotHere),
        any::<(u64, i64, u8)>().prop_map(|(version, value, votes)| Outcome::Counted {
            version,
            value,
            votes
        }),
        (any::<u64>(), uncountable()).prop_map(|(version, why)| Outcome::Uncountable { version, why }),
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
        silent().prop_map(|full| Outcome::NoRoom { full }),
        ".{0,40}".prop_map(|s| Outcome::Refused(s.into_boxed_str())),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let summary = (stamp(), any::<(u64, u64)>(), option::of(hlc()), votes()).prop_map(
        |(stamp, (version, bytes), expires, votes)| Copied::Summary { stamp, version, bytes, expires, votes },
    );
    let copied = prop_oneof![Just(Copied::None), record().prop_map(Copied::Whole), summary];
    prop_oneof![
        (ballot(), option::of(record()), bound()).prop_map(|(ballot, record, bound)| Answer::Promised {
            ballot,
            record,
            bound
        }),
        stamp().prop_map(|stamp| Answer::Held { stamp }),
        ballot().prop_map(|beat| Answer::Refused { beat }),
        copied.prop_map(Answer::Copy),
        Just(Answer::Mute),
        Just(Answer::NoRoom),
        any::<u32>().prop_map(|retry_after| Answer::Busy { retry_after }),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    any::<u64>().prop_map(Ask)
}

pub(crate) fn machine() -> impl Strategy<Value = Machine> {
    (name(), any::<u64>()).prop_map(|(name, id)| Machine { name, incarnation: Incarnation::new(id) })
}

fn machines() -> impl Strategy<Value = Vec<Machine>> {
    vec(machine(), 0..6)
}

fn shared_view() -> impl Strategy<Value = Arc<View>> {
    view().prop_map(Arc::new)
}

pub(crate) fn account() -> impl Strategy<Value = Account> {
    (epoch(), vec(epoch(), 0..4), any::<bool>()).prop_map(|(settled, synced, left)| Account {
        settled,
        synced,
        left,
    })
}

pub(crate) fn decree() -> impl Strategy<Value = Decree> {
    let accepted = option::of((ballot(), shared_view()));
    (epoch(), ballot(), accepted).prop_map(|(epoch, promised, accepted)| Decree { epoch, promised, accepted })
}

fn gossip() -> impl Strategy<Value = Gossip> {
    let silent = (name(), any::<u32>()).prop_map(|(by, age)| Said::Silent { by, age });
    let late = (name(), any::<u32>()).prop_map(|(by, ms)| Said::Late { by, ms });
    let health = any::<(u32, u8, bool)>()
        .prop_map(|(stalled_ms, load, full)| Said::Health(Health { stalled_ms, load, full }));
    let news = (machine(), any::<u32>(), prop_oneof![Just(Said::Alive), silent, health, late])
        .prop_map(|(of, refuted, said)| News { of, refuted, said });
    vec(news, 0..12).prop_map(Gossip::new)
}

fn wish() -> impl Strategy<Value = Wish> {
    (machine(), any::<u32>(), zone(), 0..5u8).prop_map(|(machine, weight, zone, which)| match which {
        0 => Wish::Join { machine, weight, zone },
        1 => Wish::Leave { machine },
        2 => Wish::Remove { machine },
        3 => Wish::Force { machine },
        _ => Wish::Place { machine, weight, zone },
    })
}

pub(crate) fn purpose() -> impl Strategy<Value = Purpose> {
    prop_oneof![Just(Purpose::Sync), Just(Purpose::Ahead), Just(Purpose::Copy), Just(Purpose::Check)]
}

fn tell() -> impl Strategy<Value = TellRequest> {
    let claim = (option::of(key()), any::<Option<[u8; 16]>>(), vec(any::<u8>(), 0..20))
        .prop_map(|(upto, digest, sketch)| Claim { upto, digest: digest.map(Digest), sketch });
    let flags = (purpose(), vec(claim, 0..5), any::<u64>(), any::<bool>());
    (flags, option::of(key()), option::of(epoch()), machines()).prop_map(
        |((purpose, claims, salt, handoff), after, since, without)| TellRequest {
            purpose,
            after,
            claims,
            salt,
            since,
            handoff,
            without,
        },
    )
}

fn page() -> impl Strategy<Value = Page> {
    let held = (stamp(), votes(), any::<bool>(), option::of(state())).prop_map(
        |(stamp, votes, tombstone, state)| Held::Record {
            stamp,
            votes,
            tombstone,
            state: state.map(Arc::new),
        },
    );
    let held = prop_oneof![9 => held, 1 => Just(Held::Unreadable)];
    let entry = (key(), held).prop_map(|(key, held)| Entry { key, held });
    let differs = (0..4u8, any::<[u8; 16]>(), vec(any::<u8>(), 0..20))
        .prop_map(|(claim, digest, gone)| Differs { claim, digest: Digest(digest), gone });
    let claims = (any::<u64>(), vec(differs, 0..3), any::<u64>());
    (account(), ballot(), bound(), vec(entry, 0..6), option::of(key()), claims, any::<(u32, u64)>()).prop_map(
        |(account, promised, bound, entries, upto, (agreed, differs, beyond), (looked, total))| Page {
            account,
            promised,
            bound,
            agreed,
            differs,
            beyond,
            entries,
            upto,
            looked,
            total,
        },
    )
}

fn decree_answer() -> impl Strategy<Value = DecreeAnswer> {
    prop_oneof![
        (ballot(), option::of((ballot(), shared_view())))
            .prop_map(|(ballot, accepted)| DecreeAnswer::Promised { ballot, accepted }),
        ballot().prop_map(|ballot| DecreeAnswer::Accepted { ballot }),
        ballot().prop_map(|beat| DecreeAnswer::Refused { beat }),
    ]
}

/// Of one key, or for a client.
fn about_keys() -> BoxedStrategy<Message> {
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
        (key(), stamp(), epoch()).prop_map(|(key, stamp, epoch)| Message::Collect { key, stamp, epoch }),
    ]
    .boxed()
}

/// Of who belongs.
fn about_views() -> BoxedStrategy<Message> {
    prop_oneof![
        (any::<(u32, bool)>(), zone()).prop_map(|((weight, gathers), zone)| Message::Blank {
            weight,
            zone,
            gathers
        }),
        shared_view().prop_map(|view| Message::Birth { view }),
        ".{0,40}".prop_map(|reason| Message::NotTaken { reason }),
        ask().prop_map(|ask| Message::ViewAsk { ask }),
        (ask(), shared_view()).prop_map(|(ask, view)| Message::ViewTold { ask, view }),
        epoch().prop_map(|after| Message::ViewsAsk { after }),
        (vec(shared_view(), 0..3), epoch())
            .prop_map(|(views, settled)| Message::ViewsTold { views, settled }),
        (ask(), ballot()).prop_map(|(ask, ballot)| Message::DecreePrepare { ask, ballot }),
        (ask(), ballot(), shared_view()).prop_map(|(ask, ballot, view)| Message::DecreeAccept {
            ask,
            ballot,
            view
        }),
        (ask(), decree_answer()).prop_map(|(ask, answer)| Message::DecreeAnswer { ask, answer }),
        (ask(), wish()).prop_map(|(ask, wish)| Message::Wish { ask, wish }),
        (ask(), option::of(".{0,40}")).prop_map(|(ask, refused)| Message::Wished { ask, refused }),
        any::<(bool, bool)>().prop_map(|(synced, warm)| Message::Word { synced, warm }),
        epoch().prop_map(|epoch| Message::Settled { epoch }),
        (ask(), machines()).prop_map(|(ask, machines)| Message::Force { ask, machines }),
    ]
    .boxed()
}

fn list_request() -> impl Strategy<Value = ListRequest> {
    let values = option::of(vec(name(), 0..3));
    (option::of(key()), vec(any::<u8>(), 0..9), any::<u32>(), any::<u32>(), values).prop_map(
        |(after, prefix, bytes, within, values)| ListRequest { after, prefix, bytes, within, values },
    )
}

fn list_record() -> impl Strategy<Value = ListRecord> {
    let value = prop_oneof![
        Just(ListValue::None),
        any::<u64>().prop_map(ListValue::Bytes),
        value().prop_map(ListValue::Whole),
    ];
    (stamp(), votes(), any::<u64>(), option::of(hlc()), value).prop_map(
        |(stamp, votes, version, expires, value)| ListRecord { stamp, votes, version, expires, value },
    )
}

pub(crate) fn list_page() -> impl Strategy<Value = ListPage> {
    let keys = vec((key(), option::of(list_record())), 0..5);
    (any::<bool>(), option::of(key()), keys, option::of(key()), any::<u64>())
        .prop_map(|(synced, after, keys, upto, total)| ListPage { synced, after, keys, upto, total })
}

fn note() -> impl Strategy<Value = Note> {
    let members = || vec(any::<u32>(), 0..5);
    let lists = (option::of(members()), members(), members());
    (epoch(), ballot(), bound(), lists).prop_map(|(settled, promised, bound, (gained, ahead, first))| Note {
        settled,
        promised,
        bound,
        gained,
        ahead,
        first,
    })
}

fn roll() -> impl Strategy<Value = Roll> {
    (epoch(), ballot(), bound(), vec(any::<u64>(), 0..4), machines(), machines()).prop_map(
        |(settled, promised, bound, nothing, former, silent)| Roll {
            settled,
            promised,
            bound,
            nothing,
            former,
            silent,
        },
    )
}

/// Of who has nothing to tell.
fn about_rolls() -> BoxedStrategy<Message> {
    prop_oneof![
        (ask(), any::<bool>()).prop_map(|(ask, check)| Message::RollCall { ask, check }),
        (ask(), note()).prop_map(|(ask, note)| Message::RollNoted { ask, note: Box::new(note) }),
        (ask(), purpose()).prop_map(|(ask, purpose)| Message::RollAsk { ask, purpose }),
        (ask(), roll()).prop_map(|(ask, roll)| Message::Roll { ask, roll: Box::new(roll) }),
    ]
    .boxed()
}

/// Of what is held, and of who is there.
fn about_machines() -> BoxedStrategy<Message> {
    prop_oneof![
        (ask(), tell()).prop_map(|(ask, request)| Message::Tell { ask, request: Box::new(request) }),
        (ask(), page()).prop_map(|(ask, page)| Message::Told { ask, page: Box::new(page) }),
        (ask(), vec(key(), 0..5)).prop_map(|(ask, keys)| Message::Fetch { ask, keys }),
        (ask(), vec((key(), option::of(record())), 0..4))
            .prop_map(|(ask, records)| Message::Fetched { ask, records }),
        (ask(), list_request()).prop_map(|(ask, request)| Message::List { ask, request: Box::new(request) }),
        (ask(), list_page()).prop_map(|(ask, page)| Message::Listed { ask, page: Box::new(page) }),
        (ask(), gossip()).prop_map(|(ask, gossip)| Message::Probe { ask, gossip }),
        (ask(), machine(), any::<u32>(), gossip())
            .prop_map(|(ask, whom, within, gossip)| Message::ProbeFor { ask, whom, within, gossip }),
        (ask(), any::<bool>(), gossip()).prop_map(|(ask, reached, gossip)| Message::Alive {
            ask,
            reached,
            gossip
        }),
    ]
    .boxed()
}

pub(crate) fn message() -> impl Strategy<Value = Message> {
    prop_oneof![3 => about_keys(), 3 => about_views(), 3 => about_machines(), 1 => about_rolls()]
}

pub(crate) fn envelope() -> impl Strategy<Value = Envelope> {
    (any::<Option<u64>>(), epoch(), message()).prop_map(|(cluster, epoch, message)| Envelope {
        cluster: cluster.map(ClusterId::new),
        epoch,
        message,
    })
}
