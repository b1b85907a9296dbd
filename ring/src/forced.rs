//! F2: five slots of some key are lost for good, and an operator says with which machines.
//!
//! Where the lost leave five warden slots, the next view is a decree like any other: the machines named are wishes.
//! Else no decree can ever be made again, and the next view, of a new generation, is decided by those who stay: by all of
//! them, so that whoever is told of another one later, and by whomever, hears of this one first. Who hears of such a view
//! and was never before it has gone another way, and must come back as another machine (`doubt.rs`).

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::decree::wardens;
use crate::local::Local;
use crate::message::Wish;
use crate::quorum::SlotSet;
use crate::view::{Epoch, Incarnation, Machine, Member, View};
use crate::warden::no_force;

/// What becomes of an operator's word.
#[derive(Debug)]
pub(crate) enum Force {
    /// The wardens can decide: it is wished of them.
    Wishes(Vec<Wish>),
    /// They cannot: this is to be the next view, if all who stay agree.
    View(Arc<View>),
    /// It has been done already.
    Done,
    Refused(String),
}

/// Decides it. Which road is taken depends on the machines named alone, never on what is believed of the others.
pub(crate) fn force(local: &mut Local, machines: &[Machine]) -> Force {
    let present = local.present();
    let view = present.view.clone();
    if present.me.is_none() {
        return Force::Refused("this machine is not in the view: ask one that is".into());
    }
    let machines = &resolved(local, machines)[..];
    if machines.iter().all(|m| view.has_forced_out(m.incarnation)) {
        return Force::Done;
    }
    if let Some(reason) = machines.iter().find_map(|m| no_force(local, *m)) {
        return Force::Refused(reason);
    }
    let owners = wardens(local);
    let lost = machines.iter().filter_map(|m| present.index_of(*m)).map(|i| owners.slots_of(i));
    let lost = lost.fold(SlotSet::EMPTY, SlotSet::union);
    let left = SlotSet::all(owners.slots()).minus(lost);
    let mut tally = local.tally();
    tally.add(view.epoch(), left);
    if tally.reached(owners.slots()) {
        return Force::Wishes(machines.iter().map(|machine| Wish::Force { machine: *machine }).collect());
    }
    // Who is left has to be there: a view whose own wardens cannot decide would help nobody.
    let members: Vec<Member> =
        view.members().iter().copied().filter(|m| !machines.contains(&m.machine)).collect();
    if !members.iter().any(Member::in_ring) {
        return Force::Refused(format!(
            "nobody would be left of those that own slots in epoch {}: all copies are lost, and a new cluster is begun \
             with --init",
            view.epoch()
        ));
    }
    let silent = view.members().iter().enumerate().filter(|(i, m)| {
        Some(*i as u32) != present.me && members.contains(m) && m.in_ring() && !local.is_alive(*i as u32)
    });
    let silent: Vec<String> = silent.map(|(_, m)| format!("{}", m.machine)).collect();
    if !silent.is_empty() {
        return Force::Refused(format!(
            "{} would stay in the view and do not answer either: start them, or name them too",
            silent.join(", ")
        ));
    }
    let mut forced_out = view.forced_out().to_vec();
    let more = machines.iter().map(|m| m.incarnation);
    let more: Vec<Incarnation> = more.filter(|incarnation| !forced_out.contains(incarnation)).collect();
    forced_out.extend(more);
    let fork = (local.random() as u32).max(1);
    match view.forced(members, forced_out, fork) {
        Ok(view) => Force::View(Arc::new(view)),
        Err(error) => Force::Refused(format!("{error}")),
    }
}

/// Whom an operator means who knows a name alone: who was a member of that name last, in the views that are not settled.
/// One that was dropped since may still be missed (S4).
fn resolved(local: &Local, machines: &[Machine]) -> Vec<Machine> {
    let views = local.history().views;
    let last = |name| views.iter().rev().find_map(|p| Some(p.machine(p.view.index_of(name)? as u32)));
    let resolve = |m: &Machine| match m.incarnation {
        Incarnation::NONE => last(m.name).unwrap_or(*m),
        _ => *m,
    };
    machines.iter().map(resolve).collect()
}

/// Why a view was not made: these did not agree to it.
pub(crate) fn disagreed(unheard: &[Machine]) -> Option<String> {
    let names: Vec<String> = unheard.iter().map(|m| format!("{m}")).collect();
    (!names.is_empty()).then(|| {
        format!(
            "{} would stay in the view and did not agree to it within 3 s: they do not answer, or hear a machine that is \
             named. No view was made; asked again, it is tried again",
            names.join(", ")
        )
    })
}

/// What is to be said where two operators forced, each without the other's view.
pub(crate) fn apart(own: Epoch, machine: Machine, epoch: Epoch) -> String {
    format!(
        "two forced recoveries went apart: this machine follows epoch {own}, and {machine} follows epoch {epoch}. Each \
         takes writes that the other does not know. Choose one, stop the machines of the other, move their data aside, \
         and start them with --join"
    )
}
