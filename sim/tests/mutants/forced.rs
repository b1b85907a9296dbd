//! What F2 asks of each machine, and R2 and V3 beside it, driven by hand. `None` if the rule was kept, else what was seen.

use std::sync::Arc;

use ennead_ring::effect::{Decree, Effect, Input};
use ennead_ring::message::{Addr, Ask, Envelope, Message, Op, Outcome};
use ennead_ring::mutant::Rules;
use ennead_ring::{Epoch, Key, Loaded, View};

use crate::directed::{at, ballot, machine, node, say, sent, view};
use crate::forced_world::{SEC, World};
use ennead_sim::MS;

const LOST: [usize; 5] = [4, 5, 6, 7, 8];

/// View 2, in which machine 3 is forced out by decree.
fn without_three(first: &View) -> Arc<View> {
    let members = first.members().iter().copied().filter(|m| m.machine != machine(3)).collect();
    Arc::new(first.successor(members, vec![machine(3).incarnation]).expect("a view"))
}

/// F2: what was asked for before the forced view may rest on promises that only the lost knew of.
pub(crate) fn what_was_asked_for_before_is_refused(rules: Rules) -> Option<String> {
    let first = view(1, &[1, 2, 3]);
    let views = [first.clone(), without_three(&first)];
    let key = Key::new("any").expect("a key");
    let stamp = ennead_ring::Stamp { ballot: ballot(1, 2), n: 1 };
    let messages = [
        Message::Prepare { ask: Ask(1), key: key.clone(), ballot: ballot(1, 2) },
        Message::Accept { ask: Ask(2), key: key.clone(), stamp, state: Arc::default() },
    ];
    messages.into_iter().find_map(|message| {
        let kind = message.kind();
        let mut survivor = node(1, &views, &[1, 2], Decree::default(), rules);
        let mut effects = say(&mut survivor, 2, 1, message);
        survivor.handle(at(2 * MS), Input::Loaded { key: key.clone(), found: Loaded::Nothing }, &mut effects);
        let answered = sent(&effects).any(|(m, _)| matches!(m, Message::Answer { .. }));
        let tells = sent(&effects).any(|(m, _)| matches!(m, Message::ViewsTold { .. }));
        (answered || !tells).then(|| format!("a {kind} from before a forced view is answered (directed)"))
    })
}

/// F2: who is named is silent for good as soon as it hears of it.
pub(crate) fn who_was_named_falls_silent(rules: Rules) -> Option<String> {
    let first = view(1, &[1, 2, 3]);
    let mut named = node(3, std::slice::from_ref(&first), &[1], Decree::default(), rules);
    let views = vec![without_three(&first)];
    say(&mut named, 1, 2, Message::ViewsTold { views, settled: Epoch::FIRST });
    let key = Key::new("any").expect("a key");
    let votes = !named.votes_for(&key).is_empty();
    let effects = say(&mut named, 1, 2, Message::ViewsAsk { after: Epoch::FIRST });
    let speaks = effects.iter().any(|effect| matches!(effect, Effect::Send { .. }));
    (votes || speaks || named.is_forced_out().is_none())
        .then(|| "a machine that was forced out goes on (directed)".to_owned())
}

/// F2: nobody adopts a forced view to which one who stays has not agreed.
pub(crate) fn all_who_stay_agree(rules: Rules) -> Option<String> {
    let mut world = World::with(9, rules);
    world.lose(LOST);
    world.cut.insert((0, 3));
    world.force(0, &LOST);
    world.run(SEC);
    (world.view(0).epoch() != Epoch::FIRST)
        .then(|| "a forced view is adopted that one who stays has not agreed to (directed)".to_owned())
}

/// F2: what somebody may have adopted before it died is found by whoever forces after it.
pub(crate) fn a_forced_view_that_may_be_out_there_is_finished_first(rules: Rules) -> Option<String> {
    let mut world = World::with(9, rules);
    world.lose(LOST);
    let forced = world.force_and_die(0, &LOST);
    world.run(5 * SEC);
    for _ in 0..2 {
        world.force(1, &[0, 4, 5, 6, 7, 8]);
        world.run(5 * SEC);
    }
    world.start(0);
    world.run(3 * SEC);
    let apart = world.node(0).objection().is_some() || world.view(1).parent() == Some(Epoch::FIRST);
    (apart && world.view(1).epoch() != forced)
        .then(|| "two views were forced after one, and go apart (directed)".to_owned())
}

/// F2, S4: the named count as having told.
pub(crate) fn nobody_waits_for_the_named(rules: Rules) -> Option<String> {
    let mut world = World::with(9, rules);
    world.lose(LOST);
    world.force(0, &LOST);
    world.run(10 * SEC);
    let waits = (0..4).find(|i| !world.node(*i).is_synced() || !world.node(*i).is_settled());
    waits.map(|i| format!("machine {i} waits for those that were forced out (directed)"))
}

/// R2, T1: who is in the ring of a settled view that it does not know has forgotten what it said.
pub(crate) fn who_forgot_a_settled_view_takes_no_part(rules: Rules) -> Option<String> {
    let (first, second) = (view(1, &[1, 2, 3]), view(2, &[1, 2, 3]));
    let mut old = node(3, std::slice::from_ref(&first), &[1], Decree::default(), rules);
    let settled = second.epoch();
    say(&mut old, 1, 2, Message::ViewsTold { views: vec![second], settled });
    old.is_forced_out().is_none().then(|| "a machine that forgot a view votes in it (directed)".to_owned())
}

/// V3: a view that cannot have been made of the present one is not adopted, whoever tells it.
pub(crate) fn no_view_is_adopted_that_cannot_be(rules: Rules) -> Option<String> {
    let (first, other) = (view(1, &[1, 2, 3]), view(2, &[1, 2, 4]));
    let mut machine = node(1, std::slice::from_ref(&first), &[1], Decree::default(), rules);
    let told = Message::ViewsTold { views: vec![other], settled: Epoch::FIRST };
    let envelope = Envelope {
        cluster: Some(first.cluster()),
        epoch: Epoch { number: 2, ..Epoch::FIRST },
        message: told,
    };
    let from = Addr::Machine(crate::directed::machine(2));
    let mut effects = Vec::new();
    machine.handle(at(MS), Input::Message { from, envelope: Box::new(envelope) }, &mut effects);
    let adopted = machine.view().is_some_and(|view| view.epoch() != first.epoch());
    (adopted || machine.objection().is_none())
        .then(|| "a view with an owner that was never announced is adopted (directed)".to_owned())
}

/// F2, S4: but for nobody else.
pub(crate) fn the_named_make_up_for_nobody(rules: Rules) -> Option<String> {
    let (mut world, _, here, key) = World::where_one_holder_is_lost_and_four_are_cut_off(rules);
    let told = world.request(here, &key, Op::Read);
    matches!(told, Some(Outcome::Value(_)))
        .then(|| "a write that nobody counted as lost is forgotten (directed)".to_owned())
}
