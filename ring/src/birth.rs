//! How machines come to a view: `init` and the blank machines that it takes along (F1), joining, coming back (V5).

use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::effect::{Effect, Mono, Now};
use crate::local::Local;
use crate::message::{Addr, Message};
use crate::node::Birth;
use crate::rare::{Rare, met, met_if};
use crate::view::{
    ClusterId, Epoch, Incarnation, MAX_WEIGHT, Machine, Member, MemberState, Name, View, ViewError,
};
use crate::zone::Zone;

/// How often a blank machine offers itself.
const OFFER_EVERY: u64 = 200_000_000;
/// How often one does that was told to initialise: machines that wait for it need no answer, those of a cluster do.
const GATHER_EVERY: u64 = 1_000_000_000;
/// How often one that was dropped does, and to how many members.
const RETURN_EVERY: u64 = 500_000_000;
const ASKED: usize = 3;

/// Where this machine stands.
#[derive(Debug)]
pub(crate) enum Stage {
    /// It has a view, or nobody told it how to come to one.
    Still,
    Offering {
        to: Vec<Name>,
        next: Mono,
    },
    /// M3: it has left, and asks whether the view that it is not in is settled: nobody tells who is no member.
    Departing {
        next: Mono,
    },
    /// It was dropped from the view, and offers itself again, under the same incarnation (V5).
    Returning {
        next: Mono,
    },
    Gathering {
        with: Vec<Name>,
        slots: u8,
        offers: BTreeMap<Name, (Incarnation, (u32, Zone))>,
        due: bool,
        /// When it asks those who have not offered themselves whether they belong to a cluster.
        next: Mono,
    },
}

impl Stage {
    pub(crate) fn new(birth: &Birth, local: &Local, now: Now) -> Self {
        if local.newest().is_some() {
            return Self::in_view(local, now);
        }
        match birth {
            Birth::None => Self::Still,
            Birth::Join(to) => {
                let to = to.iter().copied().filter(|name| *name != local.me.name).collect();
                Self::Offering { to, next: now.mono }
            }
            Birth::Init { with, slots } => Self::Gathering {
                with: with.iter().copied().filter(|name| *name != local.me.name).collect(),
                slots: *slots,
                offers: BTreeMap::new(),
                due: true,
                next: now.mono.plus(GATHER_EVERY),
            },
        }
    }

    /// Where a machine stands that has a view.
    pub(crate) fn in_view(local: &Local, now: Now) -> Self {
        match local.present().me {
            Some(_) => Self::Still,
            None if local.account.left => Self::Departing { next: now.mono.plus(RETURN_EVERY) },
            None => Self::Returning { next: now.mono },
        }
    }

    pub(crate) fn wake_at(&self) -> Option<Mono> {
        match self {
            Self::Offering { next, .. } | Self::Returning { next } | Self::Departing { next } => Some(*next),
            Self::Gathering { due: true, .. } => Some(Mono::default()),
            Self::Gathering { next, .. } => Some(*next),
            Self::Still => None,
        }
    }

    pub(crate) fn on_time(&mut self, local: &mut Local, now: Now, effects: &mut Vec<Effect>) {
        match self {
            Self::Offering { to, next } if *next <= now.mono => {
                for name in to.iter() {
                    // Which incarnation is there, we do not know yet.
                    let seed = Machine { name: *name, incarnation: Incarnation::NONE };
                    let message = blank(local, false);
                    local.send(Addr::Machine(seed), message, None, effects);
                }
                *next = now.mono.plus(OFFER_EVERY);
            }
            Self::Returning { next } if *next <= now.mono => {
                met(Rare::V5OffersItselfAgain);
                *next = now.mono.plus(RETURN_EVERY);
                let members = local.present().view.members().len() as u64;
                for _ in 0..ASKED {
                    let member = local.up_to(members - 1) as u32;
                    // Itself, under another incarnation: nobody is there.
                    if local.present().machine(member).name != local.me.name {
                        local.send_to(member, blank(local, false), None, effects);
                    }
                }
                // All of that view may be gone since.
                for name in local.seeds.clone() {
                    let seed = Machine { name, incarnation: Incarnation::NONE };
                    let message = blank(local, false);
                    local.send(Addr::Machine(seed), message, None, effects);
                }
            }
            Self::Departing { .. } if local.is_settled() => {
                met(Rare::M3Gone);
                *self = Self::Still;
            }
            Self::Departing { next } if *next <= now.mono => {
                met(Rare::M3AsksWhetherSettled);
                *next = now.mono.plus(RETURN_EVERY);
                let members = local.present().view.members().len() as u64;
                let (member, after) = (local.up_to(members - 1) as u32, local.epoch());
                local.send_to(member, Message::ViewsAsk { after }, None, effects);
            }
            Self::Gathering { due, .. } if *due => {
                *due = false;
                self.bear(local, effects);
            }
            Self::Gathering { with, offers, next, .. } if *next <= now.mono => {
                // It may have been a member once, and have lost its disk: then it joins, under a new incarnation.
                for &name in with.iter().filter(|name| !offers.contains_key(name)) {
                    let there = Machine { name, incarnation: Incarnation::NONE };
                    let message = blank(local, true);
                    local.send(Addr::Machine(there), message, None, effects);
                }
                *next = now.mono.plus(GATHER_EVERY);
            }
            _ => {}
        }
    }

    /// A blank machine offers itself to one that has no view either.
    pub(crate) fn on_blank(
        &mut self,
        local: &mut Local,
        from: Machine,
        place: (u32, Zone),
        gathers: bool,
        effects: &mut Vec<Effect>,
    ) {
        match self {
            // Each would take the other along, into two clusters.
            Self::Gathering { .. } if gathers => {
                let reason = "both this machine and you are told to initialise a cluster: start one of the two \
                              with --join instead of --init";
                local.send(Addr::Machine(from), Message::NotTaken { reason: reason.into() }, None, effects);
            }
            Self::Gathering { with, offers, .. } if with.contains(&from.name) => {
                let former = offers.insert(from.name, (from.incarnation, place));
                met_if(former.is_some(), Rare::F1OffersTwice);
                self.bear(local, effects);
            }
            Self::Gathering { .. } => {
                let reason = "this machine is about to initialise a cluster and was not told to take you \
                              along: name yourself in its --with";
                local.send(Addr::Machine(from), Message::NotTaken { reason: reason.into() }, None, effects);
            }
            // Blank as well: it will hear from whoever initialises.
            Self::Offering { .. } | Self::Returning { .. } | Self::Departing { .. } | Self::Still => {}
        }
    }

    /// Machines that `init` still waits for.
    pub(crate) fn awaited(&self) -> Vec<Name> {
        match self {
            Self::Gathering { with, offers, .. } => {
                with.iter().copied().filter(|name| !offers.contains_key(name)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// View 1, once every machine named has offered itself: durable here before it is told to them.
    fn bear(&mut self, local: &mut Local, effects: &mut Vec<Effect>) {
        let Self::Gathering { with, slots, offers, .. } = &*self else { return };
        if !with.iter().all(|name| offers.contains_key(name)) {
            return;
        }
        let others = offers.iter().map(|(name, (incarnation, place))| {
            member(Machine { name: *name, incarnation: *incarnation }, *place)
        });
        let members = others.chain([member(local.me, local.place)]).collect();
        let cluster = ClusterId::new(local.random());
        let view = match View::new(cluster, Epoch::FIRST, *slots, members, Vec::new()) {
            Ok(view) => Arc::new(view),
            Err(error) => {
                self.refuse_all(local, error, effects);
                return;
            }
        };
        let told: Vec<Machine> =
            view.members().iter().map(|m| m.machine).filter(|m| *m != local.me).collect();
        local.adopt(view.clone(), Epoch::FIRST, effects);
        for machine in told {
            local.send(Addr::Machine(machine), Message::Birth { view: view.clone() }, None, effects);
        }
        *self = Self::Still;
    }

    /// Offers that make no view (one incarnation twice: a cloned data directory) are told so and forgotten.
    fn refuse_all(&mut self, local: &mut Local, error: ViewError, effects: &mut Vec<Effect>) {
        let Self::Gathering { offers, .. } = self else { return };
        for (name, (incarnation, _)) in core::mem::take(offers) {
            let to = Addr::Machine(Machine { name, incarnation });
            let reason = error.to_string();
            local.send(to, Message::NotTaken { reason }, None, effects);
        }
    }

    /// View 1 takes us along, or later views do. A machine adopts one cluster id, once, and refuses every other.
    pub(crate) fn on_views(
        &mut self,
        local: &mut Local,
        views: &[Arc<View>],
        settled: Epoch,
        effects: &mut Vec<Effect>,
    ) {
        let blank = matches!(self, Self::Offering { .. } | Self::Gathering { .. });
        let member = views.last().is_some_and(|view| view.has(local.me));
        let chain = views.windows(2).all(|w| w[0].is_before(&w[1]));
        let whole = views.first().is_some_and(|v| v.epoch() == Epoch::FIRST || v.epoch() == settled);
        if blank && member && chain && whole {
            met(if views.len() > 1 { Rare::V3BornIntoSeveral } else { Rare::F1TakenAlong });
            for view in views {
                local.adopt(view.clone(), settled, effects);
            }
            *self = Self::Still;
        }
    }
}

fn blank(local: &Local, gathers: bool) -> Message {
    let (weight, zone) = local.place;
    Message::Blank { weight, zone, gathers }
}

fn member(machine: Machine, (weight, zone): (u32, Zone)) -> Member {
    Member::new(machine, (weight.clamp(1, MAX_WEIGHT), zone), MemberState::Up)
}
