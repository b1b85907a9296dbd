//! How machines come to their first view: `init`, and the blank machines that it takes along (F1).

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::effect::{Effect, Mono, Now};
use crate::local::Local;
use crate::message::{Addr, Message};
use crate::node::Birth;
use crate::view::{
    ClusterId, Epoch, Incarnation, MAX_WEIGHT, Machine, Member, MemberState, Name, View, ViewError,
};

/// How often a blank machine offers itself.
const OFFER_EVERY: u64 = 200_000_000;

/// Where this machine stands.
#[derive(Debug)]
pub(crate) enum Stage {
    /// It has a view, or nobody told it how to come to one.
    Still,
    Offering {
        to: Vec<Name>,
        next: Mono,
    },
    Gathering {
        with: Vec<Name>,
        slots: u8,
        offers: BTreeMap<Name, (Incarnation, u32)>,
        due: bool,
    },
}

impl Stage {
    pub(crate) fn new(birth: &Birth, local: &Local, now: Now) -> Self {
        if local.present.is_some() {
            return Self::Still;
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
            },
        }
    }

    pub(crate) fn wake_at(&self) -> Option<Mono> {
        match self {
            Self::Offering { next, .. } => Some(*next),
            Self::Gathering { due: true, .. } => Some(Mono::default()),
            _ => None,
        }
    }

    pub(crate) fn on_time(&mut self, local: &mut Local, now: Now, effects: &mut Vec<Effect>) {
        match self {
            Self::Offering { to, next } if *next <= now.mono => {
                for name in to.iter() {
                    // Which incarnation is there, we do not know yet.
                    let seed = Machine { name: *name, incarnation: Incarnation::NONE };
                    let message = Message::Blank { weight: local.weight };
                    local.send(Addr::Machine(seed), message, None, effects);
                }
                *next = now.mono.plus(OFFER_EVERY);
            }
            Self::Gathering { due, .. } => {
                *due = false;
                self.bear(local, effects);
            }
            _ => {}
        }
    }

    /// A blank machine offers itself.
    pub(crate) fn on_blank(
        &mut self,
        local: &mut Local,
        from: Machine,
        weight: u32,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(present) = &local.present {
            let view = &present.view;
            let message = if view.has(from) {
                // It was taken along, and has not heard or has lost the word.
                Message::Birth { view: view.clone() }
            } else {
                Message::NotTaken { reason: not_taken(view, from) }
            };
            local.send(Addr::Machine(from), message, None, effects);
            return;
        }
        match self {
            Self::Gathering { with, offers, .. } if with.contains(&from.name) => {
                offers.insert(from.name, (from.incarnation, weight));
                self.bear(local, effects);
            }
            Self::Gathering { .. } => {
                let reason = "this machine is about to initialise a cluster and was not told to take you \
                              along: name yourself in its --with";
                local.send(Addr::Machine(from), Message::NotTaken { reason: reason.into() }, None, effects);
            }
            // Blank as well: it will hear from whoever initialises.
            Self::Offering { .. } | Self::Still => {}
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
        let others = offers.iter().map(|(name, (incarnation, weight))| {
            member(Machine { name: *name, incarnation: *incarnation }, *weight)
        });
        let members = others.chain([member(local.me, local.weight)]).collect();
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
        local.adopt(view.clone(), effects);
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

    /// View 1 takes us along. A machine adopts one cluster id, once, and refuses every other.
    pub(crate) fn on_birth(&mut self, local: &mut Local, view: Arc<View>, effects: &mut Vec<Effect>) {
        let blank = matches!(self, Self::Offering { .. });
        if blank && view.epoch() == Epoch::FIRST && view.has(local.me) {
            local.adopt(view, effects);
            *self = Self::Still;
        }
    }
}

fn member(machine: Machine, weight: u32) -> Member {
    let weight = weight.clamp(1, MAX_WEIGHT);
    Member { machine, weight, next_weight: weight, state: MemberState::Up }
}

fn not_taken(view: &View, from: Machine) -> String {
    let cluster = view.cluster();
    if view.index_of(from.name).is_some() {
        alloc::format!(
            "cluster {cluster} knows {} under another incarnation: its data directory was emptied or replaced, \
             so it may not vote under the old name; joining a running cluster is not built yet",
            from.name
        )
    } else {
        alloc::format!(
            "cluster {cluster} was initialised without {}; joining a running cluster is not built yet",
            from.name
        )
    }
}
