//! Which view should come next: joins, departures, the dead (V6, V7, M1, M2). Pure, and progress only: whatever it
//! proposes, the wardens decide one view per epoch.

use alloc::vec::Vec;

use crate::message::Wish;
use crate::rare::{Rare, met, met_if};
use crate::shares::Shares;
use crate::view::{Incarnation, MAX_WEIGHT, Machine, Member, MemberState, View};

/// What the acting warden knows when it thinks about the next view.
#[derive(Clone, Debug, Default)]
pub(crate) struct Situation {
    /// The present view is settled.
    pub(crate) settled: bool,
    /// Many that live are about to be synced in it.
    pub(crate) syncing: bool,
    /// All members of the next ring have copied ahead (M2).
    pub(crate) warm: bool,
    /// What is wished, oldest first, as far as it has waited long enough.
    pub(crate) wishes: Vec<Wish>,
    /// Members that have been down for longer than the patience, by several witnesses.
    pub(crate) dead: Vec<Machine>,
    /// Members that are not believed alive, those among them.
    pub(crate) silent: Vec<Machine>,
}

/// The members of the next view, and who is forced out by then; `None` if the present one should stay.
pub(crate) fn next(view: &View, situation: &Situation) -> Option<(Vec<Member>, Vec<Incarnation>)> {
    let mut members: Vec<Member> = view.members().to_vec();
    let mut forced_out = view.forced_out().to_vec();
    force_out(situation, &mut members, &mut forced_out);
    drop_the_gone(view, situation, &mut members);
    met_if(!situation.settled && !situation.wishes.is_empty(), Rare::V7WaitsUntilSettled);
    met_if(!situation.settled && members != view.members(), Rare::V7DropsWhileUnsettled);
    if situation.settled {
        // Where all that are left are leaving, whoever comes is let in first.
        let stays = view.members().iter().any(|m| m.state != MemberState::Leaving);
        if is_moving(view) && stays {
            met(if situation.warm { Rare::M2Warm } else { Rare::M2NotYetWarm });
            if situation.warm {
                make_the_move(&mut members);
            }
        } else {
            announce(situation, &mut members, &forced_out);
        }
    }
    let someone = members.iter().any(Member::in_ring);
    let other = members != view.members() || forced_out != view.forced_out();
    (someone && other).then_some((members, forced_out))
}

/// F2: at once, all of them in one view, whatever is missing and whether the present view is settled or not.
fn force_out(situation: &Situation, members: &mut Vec<Member>, forced_out: &mut Vec<Incarnation>) {
    for wish in &situation.wishes {
        let Wish::Force { machine } = wish else { continue };
        let alive = members.iter().any(|m| m.machine == *machine) && !situation.silent.contains(machine);
        if !alive && !forced_out.contains(&machine.incarnation) {
            members.retain(|m| m.machine != *machine);
            forced_out.push(machine.incarnation);
        }
    }
}

/// True if the next ring is another than the ring: a move was announced.
pub(crate) fn is_moving(view: &View) -> bool {
    view.members().iter().any(|m| m.state != MemberState::Up || m.place() != m.next_place())
}

/// V7: the dead go, and those that an operator says are gone, at once and without copying ahead (M3); nobody while
/// those of the ring that are missing may own more of a key than may be lost: then waiting for them to return is the
/// better bet.
fn drop_the_gone(view: &View, situation: &Situation, members: &mut Vec<Member>) {
    let silent = |machine: &Machine| situation.silent.contains(machine);
    let ring = (0..).zip(&*members).filter(|(_, m)| m.in_ring());
    let shares = Shares::of(ring.clone().map(|(i, m)| (i, m.zone)), view.slots());
    let bearable = shares.can_lose(ring.filter(|(_, m)| silent(&m.machine)).map(|(i, _)| i));
    let wished = |machine: &Machine| {
        silent(machine)
            && situation.wishes.iter().any(|wish| match wish {
                Wish::Remove { machine: m } => m == machine,
                // V6: the same name under a new incarnation: the old one will not come back.
                Wish::Join { machine: m, .. } => m.name == machine.name && m != machine,
                Wish::Leave { .. } | Wish::Force { .. } | Wish::Place { .. } => false,
            })
    };
    members.retain(|m| {
        let gone = situation.dead.contains(&m.machine) || wished(&m.machine);
        if gone && situation.syncing {
            met(Rare::V7SyncsFirst);
            return true;
        }
        met_if(gone && m.in_ring() && !bearable, Rare::V7TooManyMissing);
        met_if(gone && !m.in_ring(), Rare::M1JoiningDropped);
        met_if(gone && m.state == MemberState::Leaving, Rare::M3LeavingDied);
        met_if(gone && !situation.dead.contains(&m.machine), Rare::V6DroppedOnAWish);
        !gone || m.in_ring() && !bearable
    });
}

/// M2: the next ring becomes the ring.
fn make_the_move(members: &mut Vec<Member>) {
    let stays = members.iter().any(|m| m.state != MemberState::Leaving);
    let state = |state| members.iter().any(|m| m.state == state);
    met_if(state(MemberState::Joining) && state(MemberState::Leaving), Rare::M2ComeAndGo);
    members.retain(|m| m.state != MemberState::Leaving || !stays);
    for member in members {
        member.state = MemberState::Up;
        (member.weight, member.zone) = member.next_place();
    }
}

/// M1: who wants to come, to go or to change its place is announced first; all that wait at once.
fn announce(situation: &Situation, members: &mut Vec<Member>, forced_out: &[Incarnation]) {
    for wish in &situation.wishes {
        match *wish {
            Wish::Join { machine, weight, zone } => {
                let out = forced_out.contains(&machine.incarnation);
                let known = out
                    || members.iter().any(|m| {
                        m.machine.name == machine.name || m.machine.incarnation == machine.incarnation
                    });
                if !known {
                    let weight = weight.clamp(1, MAX_WEIGHT);
                    members.push(Member::new(machine, (weight, zone), MemberState::Joining));
                }
            }
            Wish::Leave { machine } => {
                let others =
                    members.iter().filter(|m| m.state == MemberState::Up && m.machine != machine).count();
                if let Some(member) = members.iter_mut().find(|m| m.machine == machine)
                    && member.state == MemberState::Up
                    && others > 0
                {
                    member.state = MemberState::Leaving;
                }
            }
            Wish::Place { machine, weight, zone } => {
                if let Some(member) = members.iter_mut().find(|m| m.machine == machine)
                    && member.state == MemberState::Up
                {
                    (member.next_weight, member.next_zone) = (weight.clamp(1, MAX_WEIGHT), zone);
                }
            }
            Wish::Remove { .. } | Wish::Force { .. } => {}
        }
    }
    members.sort_by_key(|m| m.machine.name);
}
