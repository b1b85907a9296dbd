//! Rules whose breach shows once in a million walks, or only inside one machine: each driven by hand. `None` if the
//! rule was kept, else what was seen.

use std::sync::Arc;

use ennead_ring::effect::{Account, Change, Decree, Effect, Input, Limits, Mono, Now};
use ennead_ring::message::{
    Addr, Ask, DecreeAnswer, Entry, Envelope, Held, Message, Page, Purpose, TellRequest,
};
use ennead_ring::mutant::Rules;
use ennead_ring::node::{Birth, Setup, Tuning};
use ennead_ring::view::Member;
use ennead_ring::{
    Ballot, Chain, ClusterId, Epoch, Hlc, Incarnation, Key, Machine, Node, Ring, SlotSet, Stamp, State, View,
    Zone,
};

use ennead_sim::{MS, SEC};

const WALL: u64 = 1_795_000_000 * SEC;

pub(crate) fn machine(i: u64) -> Machine {
    let name = format!("10.0.0.{i}").parse().expect("a name");
    Machine { name, incarnation: Incarnation::new(i) }
}

pub(crate) fn view(number: u32, machines: &[u64]) -> Arc<View> {
    let member = |i: &u64| Member::up(machine(*i), 8);
    let (cluster, epoch) = (ClusterId::new(1), Epoch { number, ..Epoch::FIRST });
    Arc::new(View::new(cluster, epoch, 3, machines.iter().map(member).collect(), Vec::new()).expect("a view"))
}

pub(crate) fn at(mono: u64) -> Now {
    Now { mono: Mono(mono), wall: WALL + mono }
}

pub(crate) fn node(me: u64, views: &[Arc<View>], synced: &[u32], decree: Decree, rules: Rules) -> Node {
    let tuning = Tuning { check_every: 0, ..Tuning::default() };
    tuned(me, views, synced, decree, (rules, tuning))
}

fn tuned(
    me: u64,
    views: &[Arc<View>],
    synced: &[u32],
    decree: Decree,
    (rules, tuning): (Rules, Tuning),
) -> Node {
    let epoch = |number: &u32| Epoch { number: *number, ..Epoch::FIRST };
    let setup = Setup {
        me: machine(me),
        weight: 8,
        zone: Zone::NONE,
        limits: Limits::default(),
        views: views.to_vec(),
        account: Account {
            settled: views[0].epoch(),
            synced: synced.iter().map(epoch).collect(),
            left: false,
        },
        decree,
        birth: Birth::None,
        tuning,
        seed: 1,
        rules,
    };
    Node::new(setup, at(0))
}

pub(crate) fn say(node: &mut Node, from: u64, epoch: u32, message: Message) -> Vec<Effect> {
    let cluster = Some(ClusterId::new(1));
    let envelope = Box::new(Envelope { cluster, epoch: Epoch { number: epoch, ..Epoch::FIRST }, message });
    let mut effects = Vec::new();
    node.handle(at(MS), Input::Message { from: Addr::Machine(machine(from)), envelope }, &mut effects);
    effects
}

pub(crate) fn sent(effects: &[Effect]) -> impl Iterator<Item = (&Message, bool)> {
    effects.iter().filter_map(|effect| match effect {
        Effect::Send { envelope, after, .. } => Some((&envelope.message, after.is_some())),
        _ => None,
    })
}

pub(crate) fn ballot(n: u64, by: u64) -> Ballot {
    Ballot { time: Hlc::from_nanos(WALL + n), by: Incarnation::new(by) }
}

/// V2: what a warden accepted is on disk before it says so, and a restart tells it.
pub(crate) fn a_restarted_warden_remembers(rules: Rules) -> Option<String> {
    let first = view(1, &[1, 2, 3]);
    let mut warden = node(1, std::slice::from_ref(&first), &[1], Decree::default(), rules);
    let accept = Message::DecreeAccept { ask: Ask(1), ballot: ballot(1, 2), view: view(2, &[1, 2]) };
    let effects = say(&mut warden, 2, 1, accept);
    let waits = sent(&effects).any(|(m, waits)| matches!(m, Message::DecreeAnswer { .. }) && waits);
    let decree = effects.iter().find_map(|effect| match effect {
        Effect::Persist { change: Change::Decree(decree), .. } => Some(decree.clone()),
        _ => None,
    });
    let mut restarted = node(1, &[first], &[1], decree.unwrap_or_default(), rules);
    let effects = say(&mut restarted, 3, 1, Message::DecreePrepare { ask: Ask(2), ballot: ballot(2, 3) });
    let told = sent(&effects).any(|(m, _)| {
        matches!(m, Message::DecreeAnswer { answer: DecreeAnswer::Promised { accepted: Some(_), .. }, .. })
    });
    (!waits || !told).then(|| "a restarted warden has forgotten what it accepted (directed)".to_owned())
}

/// V2: a warden that has adopted the next view answers with it.
pub(crate) fn a_warden_that_went_on_answers_with_the_view(rules: Rules) -> Option<String> {
    let views = [view(1, &[1, 2, 3]), view(2, &[1, 2, 3])];
    let mut warden = node(1, &views, &[1, 2], Decree::default(), rules);
    let effects = say(&mut warden, 2, 1, Message::DecreePrepare { ask: Ask(1), ballot: ballot(1, 2) });
    let answers = sent(&effects).any(|(m, _)| matches!(m, Message::DecreeAnswer { .. }));
    let tells = sent(&effects).any(|(m, _)| matches!(m, Message::ViewsTold { .. }));
    (answers || !tells).then(|| "a warden answers about a decree that it has passed (directed)".to_owned())
}

/// S5: a new owner that has not been told of a key holds nothing that is proposed for it.
pub(crate) fn who_is_not_told_holds_nothing(rules: Rules) -> Option<String> {
    let views = [view(1, &[1, 2, 3]), view(2, &[2, 3, 4])];
    let mut newcomer = node(4, &views, &[], Decree::default(), rules);
    let key = Key::new("any").expect("a key");
    let (stamp, state) = (Stamp { ballot: ballot(1, 2), n: 1 }, Arc::new(State::default()));
    let accept = Message::Accept { ask: Ask(1), key: key.clone(), stamp, state };
    let mut effects = say(&mut newcomer, 2, 2, accept);
    let loaded = Input::Loaded { key, found: ennead_ring::Loaded::Nothing };
    newcomer.handle(at(2 * MS), loaded, &mut effects);
    let holds =
        effects.iter().any(|effect| matches!(effect, Effect::Persist { change: Change::Record { .. }, .. }));
    holds.then(|| "a new owner holds what is proposed before it is told (directed)".to_owned())
}

/// S3: what was read before a machine was synced is told as of then.
pub(crate) fn a_page_is_worth_the_account_it_was_read_under(rules: Rules) -> Option<String> {
    let views = [view(1, &[1, 2, 3]), view(2, &[2, 3, 4])];
    let mut newcomer = node(4, &views, &[], Decree::default(), rules);
    let request = TellRequest {
        purpose: Purpose::Sync,
        after: None,
        claims: Vec::new(),
        salt: 0,
        since: Some(Epoch::FIRST),
        handoff: false,
        without: Vec::new(),
    };
    // Somebody wants to be told; storage is slow.
    let effects = say(&mut newcomer, 2, 2, Message::Tell { ask: Ask(7), request: Box::new(request) });
    // The pass of its own has begun at the same input: the scan of the telling is the smaller one.
    let scans = effects.iter().filter_map(|effect| match effect {
        Effect::Scan { scan, keys, .. } => Some((*keys, *scan)),
        _ => None,
    });
    let (_, slow) = scans.min()?;
    let mut inputs: Vec<Input> = Vec::new();
    for effect in &effects {
        if let Effect::Scan { scan, .. } = effect
            && *scan != slow
        {
            inputs.push(Input::Scanned { scan: *scan, found: Vec::new(), end: true, total: 0 });
        }
    }
    let mut asked = effects;
    for step in 1..100 {
        let mut effects = std::mem::take(&mut asked);
        for input in std::mem::take(&mut inputs) {
            newcomer.handle(at(step * 100 * MS), input, &mut effects);
        }
        for effect in effects {
            match effect {
                Effect::Scan { scan, .. } if scan != slow && step > 1 => {
                    inputs.push(Input::Scanned { scan, found: Vec::new(), end: true, total: 0 });
                }
                Effect::Send { to: Addr::Machine(to), envelope, .. } if to.incarnation.id() != 1 => {
                    if let Message::Tell { ask, .. } = envelope.message {
                        let account =
                            Account { settled: Epoch::FIRST, synced: Vec::from([Epoch::FIRST]), left: false };
                        let page = Page {
                            account,
                            promised: Ballot::ZERO,
                            bound: Default::default(),
                            agreed: 0,
                            differs: Vec::new(),
                            beyond: 0,
                            entries: Vec::new(),
                            upto: None,
                            looked: 0,
                            total: 0,
                        };
                        let message = Message::Told { ask, page: Box::new(page) };
                        let cluster = Some(ClusterId::new(1));
                        let envelope = Box::new(Envelope { cluster, epoch: views[1].epoch(), message });
                        inputs.push(Input::Message { from: Addr::Machine(to), envelope });
                    }
                }
                _ => {}
            }
        }
        inputs.push(Input::Wake);
        if newcomer.is_synced() {
            let mut effects = Vec::new();
            let found = Input::Scanned { scan: slow, found: Vec::new(), end: true, total: 0 };
            newcomer.handle(at(step * 100 * MS), found, &mut effects);
            let told = sent(&effects).find_map(|(message, _)| match message {
                Message::Told { page, .. } => Some(page.account.synced.contains(&views[1].epoch())),
                _ => None,
            });
            return match told {
                Some(false) => None,
                Some(true) => Some("what was read before is told as of now (directed)".to_owned()),
                None => Some("nothing was told (directed)".to_owned()),
            };
        }
    }
    Some("it is never synced (directed)".to_owned())
}

/// S6: the owner before is gone, and one machine tells of a record that no five voted for: it is taken as hearsay. (Hole
/// 2 of the review: counted as a vote, it would make an answer of a state that a higher ballot has not seen.)
pub(crate) fn a_copy_is_no_vote(rules: Rules) -> Option<String> {
    let views = [view(1, &[1, 2, 3]), view(2, &[2, 3, 4])];
    let rings = [Ring::of(&views[0]), Ring::of(&views[1])];
    let owner = |h: usize, key: &Key, slot| {
        let owners = rings[h].owners(&Chain::of(key.as_bytes(), 3));
        views[h].members()[owners.owner(slot) as usize].machine
    };
    // A key of which the newcomer has the slot of the one who is gone, and the others keep theirs.
    let fits = |key: &Key| {
        let slot = (1..=3).find(|s| owner(0, key, *s) == machine(1))?;
        let kept = (1..=3).filter(|s| *s != slot).all(|s| owner(0, key, s) == owner(1, key, s));
        let voter = (1..=3).find(|s| owner(0, key, *s) == machine(2))?;
        (kept && owner(1, key, slot) == machine(4)).then_some((slot, voter))
    };
    let keys = (0..).map(|i| Key::new(format!("key-{i}")).expect("a key"));
    let (key, (gained, voter)) = keys.into_iter().find_map(|k| fits(&k).map(|s| (k, s))).expect("such a key");
    let stamp = Stamp { ballot: ballot(1, 2), n: 1 };
    let state = Arc::new(State { version: 1, value: Some([1u8].as_slice().into()), ..State::default() });
    let page = |teller: u64, whole: bool, epochs: &[u32]| Page {
        account: Account {
            settled: Epoch::FIRST,
            synced: epochs.iter().map(|n| Epoch { number: *n, ..Epoch::FIRST }).collect(),
            left: false,
        },
        promised: stamp.ballot,
        bound: Default::default(),
        agreed: 0,
        differs: Vec::new(),
        beyond: 0,
        entries: if teller == 2 {
            let votes = SlotSet::EMPTY.with(voter);
            let state = whole.then(|| state.clone());
            Vec::from([Entry {
                key: key.clone(),
                held: Held::Record { stamp, votes, tombstone: false, state },
            }])
        } else {
            Vec::new()
        },
        upto: None,
        looked: 1,
        total: 1,
    };
    let mut newcomer = node(4, &views, &[], Decree::default(), rules);
    let mut inputs = Vec::from([Input::Wake]);
    let mut taken = None;
    for step in 0..100 {
        let now = at(step * 100 * MS);
        let mut effects = Vec::new();
        for input in std::mem::take(&mut inputs) {
            newcomer.handle(now, input, &mut effects);
        }
        for effect in effects {
            match effect {
                Effect::Persist { change: Change::Record { record, .. }, .. } => taken = Some(record.votes),
                Effect::Scan { scan, .. } => {
                    inputs.push(Input::Scanned { scan, found: Vec::new(), end: true, total: 0 });
                }
                Effect::Load { key } => {
                    inputs.push(Input::Loaded { key, found: ennead_ring::Loaded::Nothing });
                }
                Effect::Send { to: Addr::Machine(to), envelope, .. } => {
                    let from = to.incarnation.id();
                    let message = match envelope.message {
                        Message::Tell { ask, request } if from == 2 || from == 3 => Message::Told {
                            ask,
                            page: Box::new(page(
                                from,
                                request.claims.iter().any(|c| c.digest.is_none()),
                                &[1],
                            )),
                        },
                        Message::Fetch { ask, keys } => {
                            let record = ennead_ring::Record {
                                stamp,
                                state: state.clone(),
                                votes: SlotSet::EMPTY.with(voter),
                            };
                            let records = keys.into_iter().map(|key| (key, Some(record.clone()))).collect();
                            Message::Fetched { ask, records }
                        }
                        _ => continue,
                    };
                    let epoch = views[1].epoch();
                    let envelope = Box::new(Envelope { cluster: Some(ClusterId::new(1)), epoch, message });
                    inputs.push(Input::Message { from: Addr::Machine(to), envelope });
                }
                _ => {}
            }
        }
        inputs.push(Input::Wake);
    }
    match taken {
        None => Some("nothing was taken over (directed)".to_owned()),
        Some(votes) => votes.has(gained).then(|| "a copy was taken for a vote (directed)".to_owned()),
    }
}

/// S3: who was not synced in a view since the last settled one cannot say in its note who gained what: what it did not come to
/// hold there would count as told.
pub(crate) fn who_was_not_synced_cannot_note(rules: Rules) -> Option<String> {
    let views = [view(1, &[1, 2, 3]), view(2, &[2, 3, 4]), view(3, &[2, 3, 4, 5])];
    let mut newcomer = node(4, &views, &[], Decree::default(), rules);
    let mut effects = say(&mut newcomer, 2, 3, Message::RollCall { ask: Ask(7), check: false });
    let scans = effects.iter().filter_map(|effect| match effect {
        Effect::Scan { scan, .. } => Some(*scan),
        _ => None,
    });
    for scan in scans.collect::<Vec<_>>() {
        let input = Input::Scanned { scan, found: Vec::new(), end: true, total: 0 };
        newcomer.handle(at(2 * MS), input, &mut effects);
    }
    let noted = sent(&effects).find_map(|(message, _)| match message {
        Message::RollNoted { note, .. } => Some(note.gained.clone()),
        _ => None,
    });
    match noted {
        Some(None) => None,
        other => Some(format!("it was never synced, and notes {other:?}")),
    }
}

/// S3: who was not synced in the view before lacks more than what changed since, and no note says who has that: it asks all.
pub(crate) fn who_was_not_synced_asks_everybody(rules: Rules) -> Option<String> {
    let views = [view(1, &[1, 2, 3]), view(2, &[2, 3, 4]), view(3, &[2, 3, 4, 5])];
    let asks_for_a_roll = |synced: &[u32], rules| {
        let tuning = Tuning { check_every: 0, roll_above: 0, ..Tuning::default() };
        let mut machine = tuned(4, &views, synced, Decree::default(), (rules, tuning));
        let mut effects = Vec::new();
        machine.handle(at(MS), Input::Wake, &mut effects);
        sent(&effects).any(|(message, _)| matches!(message, Message::RollAsk { .. }))
    };
    assert!(asks_for_a_roll(&[2], Rules::default()), "who was synced goes by the roll");
    asks_for_a_roll(&[], rules)
        .then(|| "it was not synced in the view before, and goes by the roll".to_owned())
}
